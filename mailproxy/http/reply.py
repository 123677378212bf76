"""What a client is answered: its backend's answer as it comes, or one of our own.

Knows how an answer is written on the client's leg, and whether one has begun; must not know where
a request goes, nor what a failure means.
"""

from contextlib import suppress

import h11

from mailproxy.http import forward
from mailproxy.http.bodies import Body, Kind
from mailproxy.http.delivery import Client, Delivery
from mailproxy.http.heads import BadMessage
from mailproxy.http.intake import Intake
from mailproxy.http.messages import Request, Response
from mailproxy.http.server import Answer

_CONTINUE = 100


class Reply:
    """The answer to one request.

    :ivar name: the request's: what its client has given it, else ours.
    :ivar machine: reads the request, and writes the answer.
    :ivar status: of the final answer; 0 before that.
    :ivar sent: bytes that were written.
    """

    def __init__(self, client: Client, name: bytes) -> None:
        self._client, self.name = client, name
        self.machine = h11.Connection(h11.SERVER)
        self.status = self.sent = 0
        self._request: Request | None = None
        self._intake: Intake | None = None
        self._delimited = True

    def renew(self) -> None:
        """Answer as if nothing had been read: what makes no sense has no method either."""
        self.machine = h11.Connection(h11.SERVER)

    def answers(self, request: Request, intake: Intake) -> None:
        """Know what is answered."""
        self.name = forward.requestName(request) or self.name
        self._request, self._intake = request, intake

    def interim(self, response: Response) -> None:
        """Pass an interim response on to a client that can take it (RFC 9110, section 15.2)."""
        request, intake = self._request, self._intake
        if request is None or intake is None or request.isOld:
            return
        if response.status == _CONTINUE:
            if intake.continued or not request.expects:
                return
            intake.continued = True
        self._write(self.machine.send(forward.interim(response)))

    async def relay(self, request: Request, response: Response, delivery: Delivery) -> None:
        """Pass the answer on as it comes."""
        client, upstream = self._client, delivery.upstream
        assert upstream is not None, "it has answered"
        self._closeUnlessRead()
        body = Body(delivery.machine, response.framing(request.method))
        payload = upstream.takePayload(body)
        head = self.machine.send(forward.toClient(response, self.name, last=client.last))
        self.status, self._delimited = response.status, _isDelimited(request, response)
        self._write(head + self._written(payload, body))
        while not body.ended:
            if client.leg.blocked:
                delivery.expectTaking()
                await client.leg.drained()
                client.deadline.progress()
            payload = await upstream.readPayload(body)
            client.deadline.progress()
            self._write(self._written(payload, body))

    def switch(self, response: Response) -> None:
        """Say that something else is spoken from here on."""
        self._client.last, self.status = True, response.status
        self._write(self.machine.send(forward.switch(response, self.name)))

    def refuse(self, answer: Answer, now: float) -> None:
        """Answer in our own words; an answer that has begun can only be broken off.

        :param now: seconds since the epoch.
        """
        client = self._client
        if self.status:
            client.last = True
            if self._delimited:
                client.leg.close()
            else:
                client.leg.abort()
            return
        self._passOver()
        self._closeUnlessRead()
        self.status = answer.status
        head = answer.head(now, self.name, last=client.last)
        isHead = self._request is not None and self._request.method == b"HEAD"
        self._write(self.machine.send(head) + self._written(b"" if isHead else answer.body))

    def _passOver(self) -> None:
        """Drop a body that nobody gets, as far as it is here: the next request may be behind it."""
        if self._intake is not None and not self._client.last:
            with suppress(BadMessage):
                self._intake.first()

    def _closeUnlessRead(self) -> None:
        """Tell a client that is still sending that no more is wanted."""
        if self._intake is not None and not self._intake.ended:
            self._client.last = True

    def _written(self, payload: bytes, body: Body | None = None) -> bytes:
        """Write payload, and the end behind it if that has come; None: it is all there is."""
        data = self.machine.send(h11.Data(data=payload)) if payload else b""
        if body is None or body.ended:
            isOld = self._request is not None and self._request.isOld
            trailers = [] if body is None or isOld else body.trailers
            data += self.machine.send(h11.EndOfMessage(headers=trailers))
        return data

    def _write(self, data: bytes) -> None:
        self.sent += len(data)
        self._client.leg.send(data)


def _isDelimited(request: Request, response: Response) -> bool:
    """Whether the client will see that an answer is cut short."""
    return not request.isOld or response.framing(request.method).kind is Kind.LENGTH
