"""The two conversations before a bridge, without any protocol's words.

`ProxyServer` leads a client to its `Login`; `ProxyClient` leads a backend to its `AuthResult`. The
order of steps, the limits, what may be said in the clear and how SASL goes are written here once.
Must not know the name of any protocol, nor accounts, destinations or the other leg.
"""

import enum
from abc import abstractmethod
from base64 import b64encode
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, ClassVar, TypeVar

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IConnector, IReactorTime
from twisted.internet.protocol import ClientFactory, Factory, connectionDone
from twisted.python.failure import Failure

from .. import sasl
from ..errors import BackendFailed, LimitExceeded, PeerGone, ProtocolError, Refusal, Stage
from ..origin import Address, Fields, Origin
from ..sasl import Credentials, EmptyCredentials, Mechanism, SASLError
from ..stream import Creator, Stream
from ..tls import BackendTLS, describe

MAX_MISTAKES = 20
"""Commands that make no sense before a client is sent away."""

Challenge = Callable[[bytes], Awaitable[bytes | None]]
"""Passes a backend's SASL challenge on and gives the answer, both without base64; None when there
is none and the backend is to cancel."""


class Dismissed(Exception):
    """The conversation with a client is over.

    :ivar refusal: what it is to be told; None when it has said good-bye itself.
    """

    def __init__(self, refusal: Refusal | None) -> None:
        super().__init__(refusal)
        self.refusal = refusal


class Cancelled(SASLError):
    """The client has cancelled a SASL exchange with `*`."""


@attrs.frozen
class Command:
    """One command of a client.

    :ivar tag: what its reply is marked with; empty where the protocol has no tags.
    :ivar verb: in upper case.
    :ivar arguments: what follows the verb, in the protocol's own form.
    """

    tag: bytes
    verb: bytes
    arguments: Any = attrs.field(default=b"", repr=False)


@attrs.frozen
class Login:
    """A client's complete login, to be answered by `accept` or `reject`."""

    command: Command
    credentials: Credentials


class Verdict(enum.Enum):
    """What a backend says of a login."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    TEMPORARY = "temporary"


@attrs.frozen
class AuthResult:
    """A backend's answer to a login.

    :ivar preamble: whole lines that came before the final reply, with their ends.
    :ivar reply: the final reply, without a tag and without its line end.
    """

    verdict: Verdict
    preamble: bytes
    reply: bytes

    @property
    def accepted(self) -> bool:
        """Whether the client is in."""
        return self.verdict is Verdict.ACCEPTED


@attrs.frozen
class ServerSettings:
    """What a listener lets its clients know and do before a login.

    :ivar mechanisms: offered SASL mechanisms, in order.
    :ivar cleartext: whether secrets may come over an unencrypted leg.
    :ivar maxAttempts: failed logins before we close.
    :ivar context: makes TLS for STARTTLS; None where it is not offered.
    :ivar capabilities: the words that the protocol's capability list adds.
    :ivar banner: text of the greeting.
    :ivar trusts: whether a peer at this address is believed when it speaks for its client.
    """

    mechanisms: tuple[Mechanism, ...]
    cleartext: bool
    maxAttempts: int
    context: Creator | None
    capabilities: tuple[bytes, ...]
    banner: bytes
    trusts: Callable[[Address], bool]


S = TypeVar("S", bound="ProxyServer")
Verb = Callable[[S, Command], Awaitable[Login | None]]
"""Serves one command; a `Login` ends the dialogue."""


class ProxyServer(Stream):
    """Our side of the conversation with a client, until it has logged in.

    A protocol gives `verbs` and the words: each method that is abstract here.
    """

    verbs: ClassVar[Mapping[bytes, Verb[Any]]]
    factory: "ProxyServerFactory"
    settings: ServerSettings
    origin: Origin

    def __init__(self, clock: IReactorTime) -> None:
        super().__init__(clock)
        self.failures = self.mistakes = 0

    def connectionMade(self) -> None:
        """Report for duty."""
        super().connectionMade()
        self.factory.opened(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Make room for the next one."""
        self.factory.closed(self)
        super().connectionLost(reason)

    # A protocol's words

    @abstractmethod
    def greeting(self) -> bytes:
        """What we say first, with its line end."""

    @abstractmethod
    async def readCommand(self) -> Command:
        """Read one command; a malformed one is a ProtocolError after which reading can go on."""

    @abstractmethod
    async def continuation(self, challenge: bytes) -> bytes:
        """Send a SASL challenge and read the answer; both in base64 already."""

    @abstractmethod
    def refuse(self, command: Command, refusal: Refusal) -> None:
        """Answer a command with a refusal."""

    @abstractmethod
    def mistake(self, command: Command | None) -> None:
        """Answer what is no command, or none that we serve before a login."""

    @abstractmethod
    def upgrade(self, command: Command) -> None:
        """Answer STARTTLS with what sends the client into the handshake."""

    @abstractmethod
    def answer(self, command: Command, result: AuthResult) -> None:
        """Pass a backend's answer on."""

    @abstractmethod
    def dismiss(self, refusal: Refusal) -> None:
        """Say why we close."""

    def forget(self) -> None:
        """Forget what the client said before TLS."""

    # The order of things

    @property
    def private(self) -> bool:
        """Whether a secret may be sent to us now."""
        return self.secure or self.settings.cleartext

    def greet(self) -> None:
        """Open the conversation."""
        self.send(self.greeting())

    async def nextLogin(self) -> Login:
        """Talk until the client has sent a whole login.

        :raises Dismissed: when the conversation is over.
        :raises PeerGone: when the client leaves.
        """
        while True:
            try:
                login = await self._serve(await self.readCommand())
            except LimitExceeded:
                raise Dismissed(Refusal.TOO_BIG) from None
            except ProtocolError:
                self._countMistake(None)
                continue
            if login is not None:
                return login

    async def _serve(self, command: Command) -> Login | None:
        """Serve one command; what is no login goes on in the dialogue."""
        verb = self.verbs.get(command.verb)
        try:
            if verb is not None:
                return await verb(self, command)
        except Cancelled:
            self.refuse(command, Refusal.CANCELLED)
            self._strike()
            return None
        except SASLError as error:
            empty = isinstance(error, EmptyCredentials)
            self.fail(command, Refusal.AUTHENTICATION if empty else Refusal.ENCODING)
            return None
        except LimitExceeded:
            raise
        except ProtocolError:
            pass
        self._countMistake(command)
        return None

    def _countMistake(self, command: Command | None) -> None:
        self.mistake(command)
        self._strike()

    def _strike(self) -> None:
        self.mistakes += 1
        if self.mistakes >= MAX_MISTAKES:
            raise Dismissed(Refusal.TOO_MANY)

    def fail(self, command: Command, refusal: Refusal) -> None:
        """Refuse an attempt to log in, and count it.

        :raises Dismissed: when it was the last one.
        """
        self.refuse(command, refusal)
        self._countFailure()

    def _countFailure(self) -> None:
        self.failures += 1
        if self.failures >= self.settings.maxAttempts:
            raise Dismissed(Refusal.TOO_MANY)

    def accept(self, login: Login, result: AuthResult) -> None:
        """Tell the client that it is in, in its backend's words."""
        self.answer(login.command, result)

    def reject(self, login: Login, result: AuthResult, *, hide: bool) -> None:
        """Tell the client that its backend refuses, in the backend's words or in ours.

        :raises Dismissed: when it was the last attempt.
        """
        if hide:
            temporary = result.verdict is Verdict.TEMPORARY
            self.refuse(
                login.command, Refusal.UNAVAILABLE if temporary else Refusal.AUTHENTICATION
            )
        else:
            self.answer(login.command, result)
        self._countFailure()

    # Verbs that all protocols share

    async def startTLSVerb(self, command: Command) -> None:
        """Serve STARTTLS: nothing that was said before it counts any more."""
        context = self.settings.context
        if context is None or self.secure:
            self._countMistake(command)
            return
        self.upgrade(command)
        await self.startTLS(context)
        self.origin = attrs.evolve(self.origin, secure=True, description=())
        self.forget()

    async def authenticate(
        self, command: Command, mechanism: bytes, initial: bytes | None
    ) -> Login | None:
        """Serve a SASL exchange.

        :param initial: the initial response in base64, `=` for an empty one; None when absent.
        """
        offered = {each.value: each for each in self.settings.mechanisms}
        chosen = offered.get(mechanism.upper())
        if chosen is None:
            self.fail(command, Refusal.MECHANISM)
            return None
        if not self.private:
            self.fail(command, Refusal.PRIVACY)
            return None
        first = None if initial is None else sasl.initialResponse(initial)
        if chosen is Mechanism.LOGIN:
            credentials = await self._loginExchange(first)
        else:
            message = await self.challenge(b"") if first is None else first
            credentials = sasl.decode(chosen, message)
        return Login(command, credentials)

    async def _loginExchange(self, user: bytes | None) -> Credentials:
        """Ask for name and password as the LOGIN mechanism does."""
        if user is None:
            user = await self.challenge(b"Username:")
        return sasl.fromPassword(user, await self.challenge(b"Password:"))

    async def challenge(self, message: bytes) -> bytes:
        """Put a SASL challenge to the client.

        :raises Cancelled: when it answers `*`.
        :raises SASLError: when the answer is not base64.
        """
        answer = await self.continuation(b64encode(message))
        if answer == b"*":
            raise Cancelled("cancelled")
        return sasl.unbase64(answer)

    async def relay(self, message: bytes) -> bytes | None:
        """Put a backend's challenge to the client; None when the client cancels or errs.

        :raises Dismissed: when the client leaves or sends too much.
        """
        try:
            return await self.challenge(message)
        except SASLError:
            return None
        except LimitExceeded:
            raise Dismissed(Refusal.TOO_BIG) from None
        except PeerGone as gone:
            raise Dismissed(None) from gone

    def logInWithPassword(self, command: Command, user: bytes, password: bytes) -> Login | None:
        """Serve a login that the protocol's own command carries."""
        if not self.private:
            self.fail(command, Refusal.PRIVACY)
            return None
        return Login(command, sasl.fromPassword(user, password))

    def describe(self, fields: Fields) -> None:
        """Take what a client, or a trusted peer for it, says of itself.

        Trust goes by the address that we believe so far: a client behind a trusted peer's PROXY
        header is no trusted peer.
        """
        if self.settings.trusts(self.origin.client):
            self.origin = self.origin.forwarded(fields)
        self.origin = self.origin.described(fields)


class ProxyServerFactory(Factory):
    """Makes the server side of a protocol for each connection that is let in.

    :cvar conversation: the protocol's class.
    :ivar limit: how many connections may be open; a further one is closed at once.
    :ivar connections: those that are open.
    :ivar turnedAway: how many have been closed for the limit.
    """

    noisy = False
    conversation: ClassVar[type[ProxyServer]]

    def __init__(
        self, clock: IReactorTime, limit: int, accepted: Callable[[ProxyServer], None]
    ) -> None:
        self._clock, self.limit, self._accepted = clock, limit, accepted
        self.connections: set[ProxyServer] = set()
        self.turnedAway = 0

    def buildProtocol(self, addr: IAddress) -> ProxyServer | None:
        """Let a connection in, or close it."""
        if len(self.connections) >= self.limit:
            self.turnedAway += 1
            return None
        server = self.conversation(self._clock)
        server.factory = self
        return server

    def opened(self, server: ProxyServer) -> None:
        """Hear from a connection that it is there."""
        self.connections.add(server)
        self._accepted(server)

    def closed(self, server: ProxyServer) -> None:
        """Hear from a connection that it is gone."""
        self.connections.discard(server)


@attrs.frozen
class ClientSettings:
    """How a destination's endpoint is to be spoken to.

    :ivar context: makes TLS, at once or by STARTTLS; None for a plain endpoint.
    :ivar startTLS: whether TLS comes by STARTTLS.
    :ivar cleartext: whether secrets may be sent without TLS.
    :ivar introduces: whether the backend is told in the dialogue who the client is.
    """

    context: BackendTLS | None
    startTLS: bool
    cleartext: bool
    introduces: bool


class ProxyClient(Stream):
    """Our side of the conversation with a backend: as the client that it will believe us to be.

    A protocol gives the words: each method that is abstract here.
    """

    settings: ClientSettings
    origin: Origin

    # A protocol's words

    @abstractmethod
    async def readGreeting(self) -> None:
        """Read what the backend says first; a temporary refusal is a BackendFailed."""

    @abstractmethod
    async def requestTLS(self) -> None:
        """Make sure that STARTTLS is offered, and have it accepted."""

    @abstractmethod
    async def readCapabilities(self) -> None:
        """Learn what the backend can do, unless it has said so since the last TLS handshake."""

    @abstractmethod
    async def introduce(self) -> None:
        """Tell who the client is, as far as the backend wants to know and the settings allow."""

    @abstractmethod
    async def replay(self, credentials: Credentials, challenge: Challenge) -> AuthResult:
        """Send the login and read the answer, challenges passed on."""

    # The order of things

    async def prepare(self) -> None:
        """Bring the backend to where a login is next.

        :raises BackendFailed: when it cannot be used; another attempt may help.
        """
        await self._step(Stage.GREETING, self.readGreeting())
        if self.settings.startTLS:
            await self._step(Stage.PREPARE, self.requestTLS())
            if self.unread:
                # Whoever put them there wants them to be taken for the backend's own words.
                raise BackendFailed(Stage.PREPARE, "bytes before the TLS handshake")
            await self.secureWith(self.settings.context)
        self._assertPrivate()
        await self._step(Stage.PREPARE, self._makeReady())

    async def _makeReady(self) -> None:
        await self.readCapabilities()
        await self.introduce()

    async def secureWith(self, context: BackendTLS | None) -> None:
        """Start TLS towards the backend.

        :raises BackendFailed: when the handshake fails, with its reason.
        """
        assert context is not None
        try:
            await self.startTLS(context)
        except PeerGone as gone:
            detail = describe(gone.__cause__ or gone)
            raise BackendFailed(Stage.TLS, detail, retry=True) from gone

    async def login(self, credentials: Credentials, challenge: Challenge) -> AuthResult:
        """Replay a login.

        :param challenge: asks the client what the backend asks us.
        :raises BackendFailed: when the backend does not answer it; never to be tried again.
        """
        self._assertPrivate()
        try:
            return await self.replay(credentials, challenge)
        except (PeerGone, ProtocolError) as error:
            raise BackendFailed(Stage.LOGIN, str(error)) from error

    def _assertPrivate(self) -> None:
        """No secret is written to a leg that may be listened to."""
        if not (self.secure or self.settings.cleartext):
            raise BackendFailed(Stage.PREPARE, "the leg is not private")

    async def _step(self, stage: Stage, work: Coroutine[Any, Any, None]) -> None:
        """Translate what goes wrong before the login."""
        try:
            await work
        except (PeerGone, ProtocolError) as error:
            raise BackendFailed(stage, str(error), retry=True) from error


class ProxyClientFactory(ClientFactory):
    """Makes the client side of a protocol for one connection.

    :cvar conversation: the protocol's class.
    :ivar connected: fires with the conversation once its transport is there, or fails with the
        reactor's reason; cancelling it gives the connection up.
    """

    noisy = False
    conversation: ClassVar[type[ProxyClient]]
    _connector: IConnector | None = None

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._over = False
        self.connected: Deferred[ProxyClient] = Deferred(self._giveUp)

    def startedConnecting(self, connector: IConnector) -> None:
        """Know what to stop."""
        self._connector = connector

    def _giveUp(self, _: Deferred[ProxyClient]) -> None:
        self._over = True
        if self._connector is not None:
            self._connector.disconnect()

    def buildProtocol(self, addr: IAddress) -> ProxyClient:
        """Make the conversation; it is handed over once its transport is there."""
        client = self.conversation(self._clock)
        client.whenMade = lambda: self.connected.callback(client)
        return client

    def clientConnectionFailed(self, connector: IConnector, reason: Failure) -> None:
        """Hear that no connection could be made."""
        if not self._over:
            self.connected.errback(reason)
