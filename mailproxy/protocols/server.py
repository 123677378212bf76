"""Our conversation with a client, without any protocol's words, up to its login.

The order of steps, the limits, what may be said in the clear and how SASL goes are written here
once. Must not know the name of any protocol, nor accounts, destinations or the other leg.
"""

from abc import abstractmethod
from base64 import b64encode
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, ClassVar, TypeVar

import attrs
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.internet.protocol import Factory, connectionDone
from twisted.python.failure import Failure

from mailproxy import sasl
from mailproxy.config.model import Capabilities
from mailproxy.errors import LimitExceeded, PeerGone, ProtocolError, Refusal
from mailproxy.origin import NOBODY, Fields, Origin
from mailproxy.protocols.base import (
    Advertised,
    AuthResult,
    Command,
    Dismissed,
    Login,
    ServerSettings,
    Verdict,
)
from mailproxy.sasl import Credentials, EmptyCredentials, Mechanism, SASLError
from mailproxy.stream import Stream
from mailproxy.transport import Receiver

MAX_MISTAKES = 20
"""Commands that make no sense before a client is sent away."""


class Cancelled(SASLError):
    """The client has cancelled a SASL exchange with `*`."""


S = TypeVar("S", bound="ProxyServer")
Verb = Callable[[S, Command], Awaitable[Login | None]]
"""Serves one command; a `Login` ends the dialogue."""


class ClientLeg(Stream):
    """A connection with a client, whatever is spoken on it.

    :ivar settings: what holds for clients of its listener.
    :ivar origin: who the client is.
    :ivar whenStopping: called when the process stops, where a connection outlives its sessions.
    """

    settings: ServerSettings
    origin: Origin
    whenStopping: Callable[[], None] | None = None

    def __init__(self, clock: IReactorTime, house: "ProxyServerFactory | None" = None) -> None:
        super().__init__(clock)
        self._house = house

    def connectionMade(self) -> None:
        """Report to the factory that lets us in."""
        super().connectionMade()
        if self._house is not None:
            self._house.opened(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Make room for the next one."""
        if self._house is not None:
            self._house.closed(self)
        super().connectionLost(reason)

    @property
    def trusting(self) -> bool:
        """Whether the peer may speak for its client.

        Trust goes by the address that we believe so far: a client behind a trusted peer's PROXY
        header is no trusted peer, least of all one whom that header does not name.
        """
        return not self.origin.nameless and self.settings.trusts(self.origin.client)


class ProxyServer(ClientLeg):
    """Our side of the conversation with a client, until it has logged in.

    A protocol gives `verbs` and the words: each method that is abstract here.

    :ivar whenOverrun: called when the client has sent more than may wait behind its login.
    """

    failures = mistakes = 0
    whenOverrun: Callable[[], None] | None = None
    verbs: ClassVar[Mapping[bytes, Verb[Any]]]
    _arrival: Origin  # what was known before the client spoke

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
    def dismiss(self, refusal: Refusal, command: Command | None) -> None:
        """Say why we close, in answer to a command if one waits."""

    def forget(self) -> None:
        """Forget what the client said before TLS."""

    def upgraded(self) -> None:
        """Say what a protocol says after a handshake by itself; most say nothing."""

    def dataReceived(self, data: bytes) -> None:
        """Hear the client, as far as it may be ahead of us."""
        super().dataReceived(data)
        if self.whenOverrun is not None and self.overrun:
            self.whenOverrun()

    def detach(self, receiver: Receiver) -> bytes:
        """Hand the connection over; who the client is, is known by now to who must know."""
        self.origin = self._arrival = NOBODY
        self.whenOverrun = None
        return super().detach(receiver)

    # The order of things

    @property
    def offered(self) -> tuple[Mechanism, ...]:
        """The SASL mechanisms that may be used now, in order."""
        return self.settings.advertised.mechanisms if self.private else ()

    @property
    def offersTLS(self) -> bool:
        """Whether the client may still upgrade to TLS."""
        return self.settings.context is not None and not self.secure

    @property
    def takesPasswords(self) -> bool:
        """Whether passwords may come now, by a protocol's own command too."""
        return Mechanism.PLAIN in self.offered or Mechanism.LOGIN in self.offered

    @property
    def private(self) -> bool:
        """Whether a secret may be sent to us now."""
        return self.secure or self.settings.advertised.cleartext

    def greet(self) -> None:
        """Open the conversation."""
        self._arrival = self.origin
        self.send(self.greeting())

    async def nextLogin(self) -> Login:
        """Talk until the client has sent a whole login.

        :raises Dismissed: when the conversation is over.
        :raises PeerGone: when the client leaves.
        """
        while True:
            try:
                login = await self.serve(await self.readCommand())
            except LimitExceeded:
                raise Dismissed(Refusal.TOO_BIG) from None
            except ProtocolError:
                self._countMistake(None)
                continue
            if login is not None:
                return login

    async def serve(self, command: Command) -> Login | None:
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
            self.refuse(login.command, Refusal.TEMPORARY if temporary else Refusal.AUTHENTICATION)
        else:
            self.answer(login.command, result)
        self._countFailure()

    # Verbs that all protocols share

    async def startTLSVerb(self, command: Command) -> None:
        """Serve STARTTLS: nothing that was said before it counts any more."""
        if self.settings.context is None or not self.offersTLS:
            self._countMistake(command)
            return
        self.upgrade(command)
        await self.startTLS(self.settings.context)
        self.origin = attrs.evolve(self._arrival, secure=True)
        self.forget()
        self.upgraded()

    async def authenticate(
        self, command: Command, mechanism: bytes, initial: bytes | None
    ) -> Login | None:
        """Serve a SASL exchange.

        :param initial: the initial response in base64, `=` for an empty one; None when absent.
        """
        offered = {each.value: each for each in self.settings.advertised.mechanisms}
        chosen = offered.get(mechanism.upper())
        if chosen is None:
            self.fail(command, Refusal.MECHANISM)
            return None
        if not self.private:
            self.fail(command, Refusal.PRIVACY)
            return None
        first = None if initial is None else sasl.initialResponse(initial)
        if chosen is Mechanism.LOGIN:
            return Login(command, await self._loginExchange(first))
        message = await self.challenge(b"") if first is None else first
        return Login(command, sasl.decode(chosen, message))

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
        except LimitExceeded:
            raise Dismissed(Refusal.TOO_BIG) from None
        except ProtocolError:
            return None
        except PeerGone as gone:
            raise Dismissed(None) from gone

    def logInWithPassword(self, command: Command, user: bytes, password: bytes) -> Login | None:
        """Serve a login that the protocol's own command carries."""
        if not self.mayLogIn(command):
            return None
        return Login(command, sasl.fromPassword(user, password))

    def mayLogIn(self, command: Command) -> bool:
        """Whether a password may come by the protocol's own command; if not, it is refused."""
        if not self.takesPasswords:
            self.fail(command, Refusal.MECHANISM if self.private else Refusal.PRIVACY)
        return self.takesPasswords

    def describe(self, fields: Fields) -> None:
        """Take what a client, or a trusted peer for it, says of itself."""
        if self.trusting:
            self.origin = self.origin.forwarded(fields)
        self.origin = self.origin.described(fields)

    async def hearIntroduction(self) -> bytes:
        """Let a trusted peer say who its client is, in a session without a login.

        :returns: the first bytes that are for the backend; empty where it has said it all to us.
        """
        return b""

    def introduced(self, words: Sequence[bytes]) -> None:
        """Take a trusted peer's XCLIENT words.

        :raises ProtocolError: when the peer is not trusted, or they make no sense.
        """
        if not self.trusting:
            raise ProtocolError("XCLIENT from a peer that is not trusted")
        self.origin = self.origin.introduced(words)


class ProxyServerFactory(Factory):
    """Makes the server side of a protocol for each connection that is let in.

    :cvar conversation: the protocol's class.
    :cvar alpn: what TLS agrees on (RFC 7301), best first; none: nothing is said.
    :ivar limit: how many connections may be open; a further one is closed at once.
    :ivar connections: those that are open.
    :ivar turnedAway: how many have been closed for the limit.
    """

    noisy = False
    conversation: ClassVar[type[ClientLeg]]
    alpn: ClassVar[tuple[bytes, ...]] = ()

    def __init__(
        self, clock: IReactorTime, limit: int, accepted: Callable[[ClientLeg], None]
    ) -> None:
        self._clock, self.limit, self._accepted = clock, limit, accepted
        self.connections: set[ClientLeg] = set()
        self.turnedAway = 0

    @classmethod
    @abstractmethod
    def advertised(cls, capabilities: Capabilities) -> Advertised:
        """Read the protocol's own table of the configuration."""

    def buildProtocol(self, addr: IAddress | None) -> ClientLeg | None:
        """Let a connection in, or close it."""
        if len(self.connections) >= self.limit:
            self.turnedAway += 1
            return None
        return self.conversation(self._clock, self)

    def opened(self, server: ClientLeg) -> None:
        """Hear from a connection that it is there."""
        self.connections.add(server)
        self._accepted(server)

    def closed(self, server: ClientLeg) -> None:
        """Hear from a connection that it is gone."""
        self.connections.discard(server)

    def stop(self) -> None:
        """Let the connections hear that the process stops."""
        for server in list(self.connections):
            if server.whenStopping is not None:
                server.whenStopping()
