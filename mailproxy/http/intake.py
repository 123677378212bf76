"""A request's body, as its client sends it.

Knows what has come, what was kept and whether the client waits to be told to go on; must not know
where the body goes.
"""

from collections.abc import Callable

import h11

from mailproxy.http.bodies import Body
from mailproxy.http.messages import Request
from mailproxy.http.server import HTTPServer


class Intake:
    """Reads one body, once; what has been read and not been given away can be given again.

    :ivar consumed: whether some of it has been given away for good.
    :ivar continued: whether the client has been told to send it.
    :ivar count: bytes of payload that have come.
    """

    def __init__(
        self,
        leg: HTTPServer,
        request: Request,
        machine: h11.Connection,
        progress: Callable[[], None],
    ) -> None:
        self._leg, self._request, self._progress = leg, request, progress
        self._machine, self._body = machine, Body(machine, request.framing)
        self._kept = b""
        self.consumed = self.continued = False
        self.count = 0

    @property
    def ended(self) -> bool:
        """Whether all of it has come."""
        return self._body.ended

    @property
    def trailers(self) -> list[tuple[bytes, bytes]]:
        """The fields behind it."""
        return self._body.trailers

    @property
    def isDue(self) -> bool:
        """Whether the client is to send more, and does not wait to be told so."""
        waits = self._request.expects and not (self.continued or self.consumed)
        return not (self.ended or waits)

    async def peek(self, cap: int) -> bytes | None:
        """Read it whole and keep it; None, with what was read kept, when it is longer than `cap`.

        It may be asked for again.

        :raises BadMessage: when its framing is broken.
        :raises PeerGone: when the client goes before its end.
        """
        if self._request.framing.length > cap:
            return None
        expects = self._request.expects and not self.continued
        if expects and not self.ended and not self._leg.unread:
            self.continued = True
            ready = h11.InformationalResponse(status_code=100, reason=b"Continue", headers=[])
            self._leg.send(self._machine.send(ready))
        parts = [self._kept]
        while not self.ended and self.count <= cap:
            parts.append(await self._read())
        self._kept = b"".join(parts)
        return self._kept if self.count <= cap else None

    def first(self) -> bytes:
        """Give what there is without waiting; it is kept, in case it is asked for again.

        :raises BadMessage: when its framing is broken.
        """
        payload = self._leg.takeBody(self._body)
        self.count += len(payload)
        self._kept += payload
        return self._kept

    async def next(self) -> bytes:
        """Give what comes next, nothing at its end; it cannot be asked for again.

        :raises BadMessage: when its framing is broken.
        :raises PeerGone: when the client goes before its end.
        """
        payload = await self._read()
        self.consumed, self._kept = True, b""
        return payload

    async def _read(self) -> bytes:
        payload = await self._leg.readBody(self._body)
        self._progress()
        self.count += len(payload)
        return payload
