"""Our conversation with a backend, without any protocol's words, up to its answer to the login.

The order of steps and what goes wrong at each are written here once. Must not know the name of any
protocol, nor why this backend was chosen.
"""

from abc import abstractmethod
from base64 import b64encode
from collections.abc import Coroutine
from typing import Any, ClassVar

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IConnector, IReactorTime
from twisted.internet.protocol import ClientFactory
from twisted.python.failure import Failure

from mailproxy.errors import BackendFailed, PeerGone, ProtocolError, Stage
from mailproxy.origin import NOBODY, Origin
from mailproxy.protocols.base import AuthResult, Challenge
from mailproxy.sasl import Credentials, Mechanism, unbase64
from mailproxy.stream import Stream
from mailproxy.tls import BackendTLS, describe
from mailproxy.transport import Receiver


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


class BackendLeg(Stream):
    """A connection to a backend, whatever is spoken on it.

    :ivar origin: for whom it was made.
    """

    settings: ClientSettings
    origin: Origin

    @abstractmethod
    async def prepare(self) -> None:
        """Bring the backend to where a login is next.

        :raises BackendFailed: when it cannot be used; another attempt may help.
        """

    async def secureAtOnce(self) -> None:
        """Start TLS where it comes before any word."""
        if self.settings.context is not None and not self.settings.startTLS:
            await self.secureBy(self.settings.context)

    async def secureBy(self, context: BackendTLS) -> None:
        """Start TLS; a handshake that fails is told with its reason."""
        try:
            await self.startTLS(context)
        except PeerGone as gone:
            detail = describe(gone.__cause__ or gone)
            raise BackendFailed(Stage.TLS, detail, retry=True) from gone

    def remember(self) -> None:
        """Keep the TLS session: once the backend has said something, its tickets are here."""
        if self.settings.context is not None:
            self.settings.context.remember(self.transport)

    def assertPrivate(self) -> None:
        """No secret is written to a leg that may be listened to."""
        if not (self.secure or self.settings.cleartext):
            raise BackendFailed(Stage.PREPARE, "the leg is not private")


class ProxyClient(BackendLeg):
    """Our side of the conversation with a backend: as the client that it will believe us to be.

    A protocol gives the words: each method that is abstract here.

    :ivar opening: what the backend has said that is meant for a client without a dialogue.
    """

    opening = b""
    _capabilities: Any = None  # what the backend has said that it can do, in its protocol's form

    def detach(self, receiver: Receiver) -> bytes:
        """Hand the connection over; of the dialogue nothing is needed any more."""
        self._capabilities, self.origin = None, NOBODY
        return super().detach(receiver)

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

    @property
    @abstractmethod
    def mechanisms(self) -> frozenset[bytes]:
        """The SASL mechanisms that the backend offers."""

    @abstractmethod
    def sendAuthenticate(self, mechanism: bytes, initial: bytes) -> bool:
        """Begin a SASL exchange; tell whether its first message could go at once.

        :param initial: in base64.
        """

    def sendInitial(self, command: bytes, initial: bytes, longest: int) -> bool:
        """Send the command that begins a SASL exchange, and its first message if it fits.

        :param longest: bytes that a line may have, with its end.
        """
        whole = b"%b %b\r\n" % (command, initial or b"=")
        fits = len(whole) <= longest
        self.send(whole if fits else command + b"\r\n")
        return fits

    @abstractmethod
    async def readStep(self) -> bytes | AuthResult:
        """Read on to the next challenge, in base64 still, or to the answer."""

    def sendAnswer(self, answer: bytes) -> None:
        """Answer a challenge; `answer` is in base64, or `*` to cancel."""
        self.send(answer + b"\r\n")

    async def logInPlainly(self, credentials: Credentials) -> AuthResult | None:
        """Log in by the protocol's own command; None where there is none that fits."""
        return None

    # The order of things

    async def prepare(self) -> None:
        """Go through greeting, STARTTLS, capabilities and introduction."""
        await self.secureAtOnce()
        settings = self.settings
        await self._step(Stage.GREETING, self.readGreeting())
        if settings.context is not None and settings.startTLS:
            await self._step(Stage.PREPARE, self.requestTLS())
            if self.unread:
                # Whoever put them there wants them to be taken for the backend's own words.
                raise BackendFailed(Stage.PREPARE, "bytes before the TLS handshake")
            await self.secureBy(settings.context)
        self.assertPrivate()
        await self._step(Stage.PREPARE, self.makeReady())

    async def makeReady(self) -> None:
        """Say who the client is; to some backends that begins the conversation anew."""
        await self.readCapabilities()
        await self.introduce()
        await self.readCapabilities()

    async def catchUp(self, first: bytes) -> None:
        """Bring the backend to where a client is that we have answered before dialling.

        :param first: the first bytes of the client that are for the backend.
        """
        self.send(first)

    async def login(self, credentials: Credentials, challenge: Challenge) -> AuthResult:
        """Replay a login.

        :param challenge: asks the client what the backend asks us.
        :raises BackendFailed: when the backend does not answer it; never to be tried again.
        """
        self.assertPrivate()
        try:
            result = await self._replay(credentials, challenge)
        except (PeerGone, ProtocolError) as error:
            raise BackendFailed(Stage.LOGIN, str(error)) from error
        self.remember()
        return result

    async def _replay(self, credentials: Credentials, challenge: Challenge) -> AuthResult:
        """Choose a way that the backend offers: the client's own comes first."""
        mechanism = credentials.mechanism.value
        if mechanism in self.mechanisms:
            return await self._exchange(mechanism, [credentials.response], challenge)
        result = await self.logInPlainly(credentials) if credentials.asPassword else None
        if result is not None:
            return result
        if credentials.asPassword and Mechanism.LOGIN.value in self.mechanisms:
            words = [credentials.user, credentials.secret]
            return await self._exchange(Mechanism.LOGIN.value, words, challenge)
        raise BackendFailed(Stage.UNSUPPORTED, f"{mechanism.decode()} is not offered")

    async def _exchange(
        self, mechanism: bytes, messages: list[bytes], challenge: Challenge
    ) -> AuthResult:
        """Lead a SASL exchange.

        :param messages: what we have to say, in turn; what is asked beyond is the client's.
        """
        if self.sendAuthenticate(mechanism, b64encode(messages[0])):
            messages = messages[1:]
        asked = 0
        while isinstance(step := await self.readStep(), bytes):
            answer = messages[asked] if asked < len(messages) else await challenge(unbase64(step))
            asked += 1
            self.sendAnswer(b"*" if answer is None else b64encode(answer))
        return step

    async def _step(self, stage: Stage, work: Coroutine[Any, Any, None]) -> None:
        """Translate what goes wrong before the login."""
        try:
            await work
        except (PeerGone, ProtocolError) as error:
            raise BackendFailed(stage, str(error), retry=True) from error


class ProxyClientFactory(ClientFactory):
    """Makes the client side of a protocol for one connection.

    :cvar conversation: the protocol's class.
    :cvar alpn: what TLS agrees on (RFC 7301), best first; none: nothing is said.
    :ivar connected: fires with the conversation once its transport is there, or fails with the
        reactor's reason; cancelling it gives the connection up.
    """

    noisy = False
    conversation: ClassVar[type[BackendLeg]]
    alpn: ClassVar[tuple[bytes, ...]] = ()
    _connector: IConnector | None = None

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._over = False
        self.connected: Deferred[BackendLeg] = Deferred(self._giveUp)

    def startedConnecting(self, connector: IConnector) -> None:
        """Know what to stop."""
        self._connector = connector

    def _giveUp(self, _: Deferred[BackendLeg]) -> None:
        self._over = True
        if self._connector is not None:
            self._connector.disconnect()

    def buildProtocol(self, addr: IAddress | None) -> BackendLeg:
        """Make the conversation; it is handed over once its transport is there."""
        client = self.conversation(self._clock)
        client.whenMade = lambda: self._made(client)
        return client

    def _made(self, client: BackendLeg) -> None:
        self._connector = None
        self.connected.callback(client)

    def clientConnectionFailed(self, connector: IConnector, reason: Failure) -> None:
        """Hear that no connection could be made."""
        if not self._over:
            self.connected.errback(reason)
