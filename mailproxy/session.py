"""One session, from its first byte to its end: the story that the other modules' verbs tell.

Knows the order of things and what each failure means to the client; must not know any protocol's
words, how a backend is reached or how bytes are bridged.
"""

from collections.abc import Awaitable, Coroutine, Mapping
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from zope.interface import implementer

from mailproxy.bridge import Bridge, Ending
from mailproxy.dial import Backend, Target
from mailproxy.errors import (
    BackendFailed,
    InvalidIdentifier,
    MappingError,
    PeerGone,
    ProtocolError,
    Refusal,
    Stage,
)
from mailproxy.identity import redact
from mailproxy.logs import Logger
from mailproxy.metrics import LoginResult, Outcome
from mailproxy.placement import place
from mailproxy.protocols.base import AuthResult, Challenge, Command, Dismissed, Login, Verdict
from mailproxy.protocols.client import ProxyClient
from mailproxy.protocols.server import ProxyServer
from mailproxy.registry import ISession
from mailproxy.resources import Ingress, Resources
from mailproxy.sasl import Credentials, dismissal
from mailproxy.stream import CLOSE_GRACE
from mailproxy.tls import describe
from mailproxy.waiting import TimedOut, within

MAX_USUAL_LOGIN = 4096
"""Bytes of a login; a backend that hangs up on a longer one is not ill."""


@implementer(ISession)
class Session:
    """One client's connection, and what becomes of it.

    :ivar id: the session's name, unique in this process.
    :ivar identifier: who it is routed for; None before that.
    :ivar destination: where it is routed; None before that.
    """

    log = Logger()

    def __init__(self, server: ProxyServer, ingress: Ingress, resources: Resources) -> None:
        self.server, self.ingress, self.resources = server, ingress, resources
        self.protocol, self.listener = ingress.protocol, ingress.listener
        self.since = resources.clock.seconds()
        self.identifier: str | None = None
        self.destination: str | None = None
        self._backend: Backend[ProxyClient] | None = None
        self._bridge: Bridge | None = None
        self._task: Deferred[None] | None = None
        self._interruption: Outcome | None = None
        self.greeted = self._relayed = self._isOver = False
        self.reason = self._client = ""
        # A trusted peer's own name for the session goes to the backend; ours stays, it is unique.
        self.id = server.origin.session

    # What management sees

    @property
    def client(self) -> str:
        """The client's address and port."""
        return self._client or str(self.server.origin.client)

    @property
    def received(self) -> int:
        """Bytes bridged from the client."""
        return self._bridge.received if self._bridge is not None else 0

    @property
    def sent(self) -> int:
        """Bytes bridged to the client."""
        return self._bridge.sent if self._bridge is not None else 0

    def kick(self) -> None:
        """End the session now."""
        self._end(Outcome.KICKED)

    def shutDown(self, *, bridged: bool) -> None:
        """End the session because we stop: unless it is bridged, or if `bridged`, even then."""
        if bridged or self._bridge is None:
            self._end(Outcome.SHUTDOWN)

    def _end(self, outcome: Outcome) -> None:
        if self._isOver:
            return
        self._interruption = self._interruption or outcome
        if self._bridge is not None:
            self._bridge.end(Ending.CUT)
            self._finish(self._interrupted())
        elif self._task is not None:
            self._task.cancel()

    # The story

    def start(self, introduction: Coroutine[Any, Any, None]) -> None:
        """Begin; from an accepted login on nothing of the dialogue is left.

        :param introduction: what comes before the greeting: who the client is, implicit TLS.
        """
        self.resources.registry.add(self)
        self.server.whenLost = lambda: self._end(Outcome.CLIENT_GONE)
        self.server.whenOverrun = lambda: self._end(Outcome.LIMIT)
        task = Deferred.fromCoroutine(self._live(introduction))
        if task.called:
            return
        self._task = task
        if self._interruption is not None:
            task.cancel()

    def _join(self, backend: ProxyClient) -> None:
        """Let the client and its backend talk."""
        self._task = self._backend = None
        self._client = self.client
        resources = self.resources
        bridge = Bridge(self.server, backend, resources.bridgeIdle, resources.clock)
        self._bridge = bridge
        bridge.join(self._bridged)

    def _bridged(self, ending: Ending) -> None:
        """Hear that both legs are gone."""
        if not self._isOver:
            self.reason = ending.value
            self._finish(Outcome.BRIDGED)

    async def untilAccepted(self, introduction: Coroutine[Any, Any, None]) -> ProxyClient:
        """Lead the client to a login that its backend accepts."""
        clock, patience, server = self.resources.clock, self.ingress.patience, self.server
        backend = await self._round(within(clock, patience, self._firstLogin(introduction)))
        while backend is None:
            backend = await self._round(within(clock, patience, server.nextLogin()))
        return backend

    async def _round(self, reading: Awaitable[Login]) -> ProxyClient | None:
        """Bring one login to its end; with this call everything goes that holds the password."""
        login = await reading
        backend, target, result = await self._attempt(login)
        self._count(_RESULTS[result.verdict])
        if result.accepted:
            self.server.accept(login, result)
            return backend
        self._leaveBackend()
        self._refused(result)
        self.server.reject(login, result, hide=target.hideAuthErrors)
        return None

    def _refused(self, result: AuthResult) -> None:
        """Note a refused login: the client is in the dialogue again, and nobody's yet."""
        self.log.info(
            "session {session} {protocol} {listener} from {client}: login of {identifier} "
            "{verdict} by {destination}",
            verdict=result.verdict.value,
            **self._facts,
        )
        self.resources.registry.routed(self, None, None)

    async def _firstLogin(self, introduction: Coroutine[Any, Any, None]) -> Login:
        await introduction
        self.greeted = True
        self.server.greet()
        return await self.server.nextLogin()

    async def _attempt(self, login: Login) -> tuple[ProxyClient, Target, AuthResult]:
        """Bring a login to its backend; what keeps it from there is temporary, never a refusal."""
        try:
            target = await self._route(login)
            backend, result = await self._replay(target, login)
            return backend, target, result
        except (BackendFailed, MappingError, InvalidIdentifier) as error:
            self.reason = str(error)
            self._count(LoginResult.UNAVAILABLE)
            raise Dismissed(Refusal.UNAVAILABLE, login.command) from error

    def _count(self, result: LoginResult) -> None:
        """Count a login by what became of it."""
        self.resources.metrics.loginEnded(self.protocol, self.destination, result)

    async def _route(self, login: Login) -> Target:
        """Find out whose session it is and where that account lives, by what holds now."""

        async def whose(resources: Resources) -> tuple[str | None, str]:
            return resources.rules.identify(login.credentials), ""

        self.resources, target = await place(self, self.ingress.now, whose)
        return target

    async def _replay(self, target: Target, login: Login) -> tuple[ProxyClient, AuthResult]:
        """Dial the backend and log in there."""
        resources, client = self.resources, self.server.origin.client.neighbourhood
        backend = await self.dial(target)
        self._relayed = False
        challenge = self._challenge(target, login.credentials)
        try:
            answer = backend.client.login(login.credentials, challenge)
            result = await within(resources.clock, resources.authTimeout, answer)
        except TimedOut:
            if self._relayed:
                # The client's own time is in it: nobody may bring a backend into disrepute so.
                raise Dismissed(Refusal.TIMEOUT) from None
            backend.attempt.failed(Stage.LOGIN, client)
            raise BackendFailed(Stage.LOGIN, "no answer in time") from None
        except BackendFailed as failed:
            if len(login.credentials.response) <= MAX_USUAL_LOGIN:
                backend.attempt.failed(failed.stage, client)
            raise
        backend.attempt.succeeded()
        return backend.client, result

    async def dial(self, target: Target) -> Backend[ProxyClient]:
        """Bring a backend to where the login is next, and note how long that took."""
        resources, began = self.resources, self.resources.clock.seconds()
        backend: Backend[ProxyClient] = await resources.dialer.open(target, self.server.origin)
        self._backend = backend
        resources.metrics.backendReady(target.destination, resources.clock.seconds() - began)
        return backend

    def _challenge(self, target: Target, credentials: Credentials) -> Challenge:
        """Choose who answers when the backend asks once more: only a token's refusal may."""
        if credentials.token is None:
            return _cancel
        if not target.hideAuthErrors:
            return self._relay

        async def dismiss(_: bytes) -> bytes:
            return dismissal(credentials.mechanism)

        return dismiss

    async def _relay(self, message: bytes) -> bytes | None:
        """Let the client answer a backend's challenge."""
        self._relayed = True
        if self._backend is not None:
            # It has answered; how long the client takes says nothing about its health.
            self._backend.attempt.succeeded()
        return await self.server.relay(message)

    # Every end

    async def _live(self, introduction: Coroutine[Any, Any, None]) -> None:
        """Tell the story as far as the bridge, and clean up after it if it ends before."""
        outcome: Outcome | None = Outcome.ERROR
        try:
            self._join(await self.untilAccepted(introduction))
            outcome = None
        except Dismissed as dismissed:
            outcome = self._dismiss(dismissed.refusal, dismissed.command)
        except TimedOut:
            outcome = self._dismiss(Refusal.TIMEOUT)
        except CancelledError:
            outcome = self._interrupted()
        except PeerGone as gone:
            outcome, self.reason = Outcome.CLIENT_GONE, describe(gone)
        except ProtocolError as error:
            self.reason = str(error)
        except Exception:
            self.log.failure("session {session} met a bug", session=self.id)
            self._dismiss(Refusal.UNAVAILABLE)
        finally:
            if outcome is not None:
                self._finish(outcome)

    def _dismiss(self, refusal: Refusal | None, command: Command | None = None) -> Outcome:
        """Say good-bye, where there has been a hello."""
        self.reason = self.reason or (refusal.value if refusal is not None else "client left")
        if refusal is not None and self.greeted:
            self.server.dismiss(refusal, command)
        return _OUTCOMES.get(refusal, Outcome.LIMIT)

    def _interrupted(self) -> Outcome:
        """Somebody ended it; a client in the dialogue is told, a bridge just ends."""
        outcome = self._interruption or Outcome.ERROR
        self.reason = outcome.reason
        if self.greeted and self._bridge is None and outcome is not Outcome.CLIENT_GONE:
            self.server.dismiss(_FAREWELLS.get(outcome, Refusal.UNAVAILABLE), None)
        return outcome

    @property
    def _facts(self) -> dict[str, str]:
        """What the lines about a session have in common."""
        return {
            "session": self.id,
            "protocol": self.protocol,
            "listener": self.listener,
            "client": self.client,
            "identifier": redact(self.identifier),
            "destination": self.destination or "-",
        }

    def _leaveBackend(self) -> None:
        backend, self._backend = self._backend, None
        if backend is not None:
            backend.attempt.abandoned()
            backend.client.close()

    def _finish(self, outcome: Outcome) -> None:
        """Close what is open, and write the one line."""
        self._isOver, self._task = True, None
        resources = self.resources
        resources.registry.remove(self)
        self.server.whenLost = self.server.whenOverrun = None
        # Whoever has not logged in keeps no place by taking a byte now and then.
        self.server.close(longest=CLOSE_GRACE)
        self._leaveBackend()
        seconds = resources.clock.seconds() - self.since
        resources.metrics.sessionEnded(self.protocol, self.destination, outcome, seconds)
        if self._bridge is not None:
            resources.metrics.bridged(self.protocol, self.destination, self.received, self.sent)
        self.log.info(
            "session {session} {protocol} {listener} from {client}: {identifier} on {destination}, "
            "{outcome} ({reason}), {received} bytes in, {sent} out, {seconds:.1f} s",
            **self._facts,
            outcome=outcome.value,
            reason=self.reason,
            received=self.received,
            sent=self.sent,
            seconds=seconds,
        )


_OUTCOMES: Mapping[Refusal | None, Outcome] = {
    None: Outcome.CLIENT_GONE,
    Refusal.TIMEOUT: Outcome.TIMEOUT,
    Refusal.UNAVAILABLE: Outcome.UNAVAILABLE,
    Refusal.TOO_MANY: Outcome.REFUSED,
}


_FAREWELLS: Mapping[Outcome, Refusal] = {
    Outcome.SHUTDOWN: Refusal.SHUTDOWN,
    Outcome.LIMIT: Refusal.TOO_BIG,
}


_RESULTS: Mapping[Verdict, LoginResult] = {
    Verdict.ACCEPTED: LoginResult.ACCEPTED,
    Verdict.REFUSED: LoginResult.REFUSED,
    Verdict.TEMPORARY: LoginResult.UNAVAILABLE,
}


async def _cancel(_: bytes) -> None:
    """Answer no challenge: a password says all in one message."""
