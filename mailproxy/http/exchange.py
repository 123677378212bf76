"""One request and its answer: to the backend of its account, and back.

Knows the order of things and what each failure means to the client; must not know how a message is
written, how a backend is reached, or what came before on the client's connection.
"""

from math import ceil

from twisted.internet.defer import CancelledError
from zope.interface import implementer

from mailproxy.bridge import Bridge
from mailproxy.dial import Target
from mailproxy.errors import (
    BackendFailed,
    CircuitOpen,
    InvalidIdentifier,
    MappingError,
    PeerGone,
    Stage,
)
from mailproxy.http import logins, paths
from mailproxy.http.delivery import SWITCHING, Callbacks, Client, Delivery
from mailproxy.http.heads import BadMessage
from mailproxy.http.intake import Intake
from mailproxy.http.messages import Request, Response
from mailproxy.http.reply import Reply
from mailproxy.http.rules import Rule
from mailproxy.http.server import Answer
from mailproxy.http.upstream import HTTPClient
from mailproxy.identity import redact
from mailproxy.logs import Logger
from mailproxy.metrics import LoginResult, Outcome
from mailproxy.origin import sessionID
from mailproxy.placement import place
from mailproxy.registry import ISession
from mailproxy.resources import Resources

RETRY_AFTER = 5
"""Seconds after which a client may ask again when the store could not tell."""

_NOT_FOUND = 404


@implementer(ISession)
class Exchange:
    """One request, from its head to the end of its answer; management sees it as a session.

    :ivar id: its own name, unique in this process.
    """

    log = Logger()

    def __init__(self, client: Client, resources: Resources) -> None:
        self._client, self._resources = client, resources
        self.id = sessionID()
        self.protocol, self.listener = client.ingress.protocol, client.ingress.listener
        self.since = resources.clock.seconds()
        self.identifier: str | None = None
        self.destination: str | None = None
        self.reason = "done"
        self._reply = Reply(client, self.id.encode())
        self._request: Request | None = None
        self._intake: Intake | None = None
        self._delivery: Delivery | None = None
        self._bridge: Bridge | None = None
        self._interruption: Outcome | None = None
        self._broken: Exception | None = None
        self._received = 0

    # What management sees

    @property
    def client(self) -> str:
        """The client's address and port."""
        return str(self._client.leg.origin.client)

    @property
    def received(self) -> int:
        """Bytes that came from the client: head, payload, and what was bridged."""
        payload = self._intake.count if self._intake is not None else 0
        bridged = self._bridge.received if self._bridge is not None else 0
        return self._received + payload + bridged

    @property
    def sent(self) -> int:
        """Bytes that went to the client."""
        return self._reply.sent + (self._bridge.sent if self._bridge is not None else 0)

    def kick(self) -> None:
        """End the exchange now, and the client's connection with it."""
        self._interrupt(Outcome.KICKED)

    def shutDown(self, *, bridged: bool) -> None:
        """Let it be the last on its connection; if `bridged`, end it."""
        self._client.last = True
        if bridged:
            self._interrupt(Outcome.SHUTDOWN)

    def clientLost(self) -> None:
        """Hear that the client has gone."""
        self._interrupt(Outcome.CLIENT_GONE)

    def _stalled(self) -> None:
        """Hear that no byte has moved for too long."""
        self._interrupt(Outcome.TIMEOUT)

    def _interrupt(self, outcome: Outcome) -> None:
        self._interruption = self._interruption or outcome
        self._client.cancel()

    def _bodyBroken(self, error: Exception) -> None:
        """Hear that the client has gone amid its body, or sends nonsense."""
        self._broken = error
        self._client.cancel()

    # The story

    async def run(self, head: bytes | BadMessage) -> None:
        """Serve a request, whatever becomes of it.

        :param head: as it was read, or why it could not be.
        """
        self._resources.registry.add(self)
        outcome = Outcome.ERROR
        try:
            await self._story(head)
            outcome = Outcome.SERVED if self._bridge is None else Outcome.BRIDGED
        except CancelledError:
            outcome = self._interrupted()
        except Exception as error:
            outcome = self._failed(error)
        finally:
            self._finish(outcome)

    async def _story(self, head: bytes | BadMessage) -> None:
        request, intake = self._begin(head)
        target = await self._route(request, intake)
        callbacks = Callbacks(self._reply.interim, self._stalled, self._bodyBroken)
        delivery = Delivery(self._client, self._resources, intake, self._reply.name, callbacks)
        self._delivery = delivery
        response = await delivery.ask(request, target)
        assert delivery.upstream is not None, "it has answered"
        if response.status == SWITCHING:
            await self._switch(request, response, delivery.upstream)
        else:
            self._noteLogin(request, response)
            await self._reply.relay(request, response, delivery)
            self._client.last = self._client.last or not intake.ended
            delivery.settle(target, response)

    def _begin(self, head: bytes | BadMessage) -> tuple[Request, Intake]:
        """Understand the head; behind one that makes no sense nothing does."""
        client = self._client
        try:
            if isinstance(head, BadMessage):
                raise head
            self._received = len(head) + 4
            request = self._request = Request.parse(head, self._reply.machine)
        except BadMessage:
            self._reply.renew()
            client.last = True
            raise
        client.last = client.last or not request.lasting
        machine, progress = self._reply.machine, client.deadline.progress
        intake = self._intake = Intake(client.leg, request, machine, progress)
        self._reply.answers(request, intake)
        return request, intake

    # Where it goes

    async def _route(self, request: Request, intake: Intake) -> Target:
        """Find out whose request it is and where that account lives, by what holds now."""

        async def whose(resources: Resources) -> tuple[str | None, str]:
            rule = resources.http.match(request.path)
            if rule is None:
                raise BadMessage("no route", _NOT_FOUND)
            if rule.destination is not None:
                return None, rule.destination
            return await self._identify(resources, request, rule, intake), rule.fallback or ""

        self._resources, target = await place(self, self._client.ingress.now, whose)
        return target

    async def _identify(
        self, resources: Resources, request: Request, rule: Rule, intake: Intake
    ) -> str | None:
        """Find the account that a request is for; its body is read only for a route that asks."""
        assert rule.find is not None, "only a route without a destination asks"
        deadline = self._client.deadline
        if not rule.needsBody:
            return rule.find(request, b"", resources.rules)
        deadline.begin(resources.http.idle, self._stalled)
        body = await intake.peek(resources.http.bodyCap)
        deadline.end()
        return None if body is None else rule.find(request, body, resources.rules)

    # Back to the client

    def _noteLogin(self, request: Request, response: Response) -> None:
        """Note a login that the backend has refused."""
        if logins.isRefused(request, response):
            logins.noteRefused(self)
            metrics = self._resources.metrics
            metrics.loginEnded(self.protocol, self.destination, LoginResult.REFUSED)

    async def _switch(self, request: Request, response: Response, upstream: HTTPClient) -> None:
        """Bridge both connections: from here on something else is spoken (RFC 9110, 7.8)."""
        client, resources = self._client, self._resources
        wanted = {name.strip() for name in request.upgrade.lower().split(b",")}
        chosen = set(response.fields.words(b"upgrade"))
        if not chosen or not chosen <= wanted:
            raise BackendFailed(Stage.ANSWER, "a switch to a protocol that nobody has asked for")
        client.deadline.end()
        self._reply.switch(response)
        self._bridge = Bridge(client.leg, upstream, resources.bridgeIdle, resources.clock)
        self.reason = (await self._bridge.run()).value

    # Every end

    def _failed(self, error: Exception) -> Outcome:
        """Say what has gone wrong, in an answer of our own if none has begun."""
        self.reason = str(error)
        match error:
            case PeerGone():
                self._client.last = True
                return Outcome.CLIENT_GONE
            case BadMessage():
                if error.status == _NOT_FOUND:
                    return self._refuse(Answer(_NOT_FOUND), Outcome.REFUSED)
                # Of what follows a message that cannot be read nobody knows where it begins.
                self._client.last = True
                return self._refuse(Answer(error.status), Outcome.LIMIT)
            case CircuitOpen():
                answer = Answer(503, max(1, ceil(error.retryAfter)))
            case MappingError():
                answer = Answer(503, RETRY_AFTER)
            case BackendFailed():
                answer = Answer(504 if error.stage is Stage.TIMEOUT else 502)
            case InvalidIdentifier():
                answer = Answer(502)
            case _:
                self.log.failure("session {session} met a bug", session=self.id)
                return self._refuse(Answer(500), Outcome.ERROR)
        return self._refuse(answer, Outcome.UNAVAILABLE)

    def _interrupted(self) -> Outcome:
        """Somebody has ended it, or the client has failed amid its body."""
        self._client.last = True
        outcome = self._interruption
        if outcome is None:
            return self._failed(self._broken) if self._broken is not None else Outcome.ERROR
        self.reason = outcome.reason
        if outcome is Outcome.CLIENT_GONE:
            return outcome
        return self._refuse(
            self._timedOut() if outcome is Outcome.TIMEOUT else Answer(503), outcome
        )

    def _timedOut(self) -> Answer:
        """Blame the one who was waited for."""
        if self._reply.status and self._client.leg.blocked:
            self.reason = "the client does not read"
        elif self._delivery is not None and self._delivery.isHeldUp:
            self.reason = "the backend does not read"
        elif self._intake is not None and self._intake.isDue:
            self.reason = "the client's body stopped"
            return Answer(408)
        else:
            begun = self._reply.status
            self.reason = "the backend's answer stopped" if begun else "the backend is silent"
        return Answer(504)

    def _refuse(self, answer: Answer, outcome: Outcome) -> Outcome:
        """Answer in our own words, unless another protocol is spoken by now."""
        if self._bridge is None:
            self._reply.refuse(answer, self._resources.clock.seconds())
        return outcome

    def _finish(self, outcome: Outcome) -> None:
        """Close what is open, and write the one line."""
        resources = self._resources
        self._client.deadline.end()
        resources.registry.remove(self)
        if self._delivery is not None:
            self._delivery.close()
        seconds = resources.clock.seconds() - self.since
        resources.metrics.sessionEnded(self.protocol, self.destination, outcome, seconds)
        resources.metrics.bridged(self.protocol, self.destination, self.received, self.sent)
        self._record(outcome, seconds)

    def _record(self, outcome: Outcome, seconds: float) -> None:
        request = self._request
        self.log.info(
            "session {session} {protocol} {listener} from {client}: {method} {path} {status} of "
            "{identifier} on {destination}, {outcome} ({reason}), {received} bytes in, {sent} out, "
            "{seconds:.3f} s, request {request}",
            session=self.id,
            protocol=self.protocol,
            listener=self.listener,
            client=self.client,
            method=request.method.decode("ascii") if request is not None else "-",
            path=paths.shown(request.path, self.identifier) if request is not None else "-",
            status=self._reply.status,
            identifier=redact(self.identifier),
            destination=self.destination or "-",
            outcome=outcome.value,
            reason=self.reason,
            received=self.received,
            sent=self.sent,
            seconds=seconds,
            request=self._reply.name.decode("ascii"),
        )
