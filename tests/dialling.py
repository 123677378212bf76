"""A network in memory that can be dialled: the test answers each call, or does not."""

from typing import Any, cast

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.error import ConnectError, UserError
from twisted.internet.error import TimeoutError as ConnectTimeout
from twisted.internet.interfaces import IConnector, IResolutionReceiver
from twisted.internet.protocol import ClientFactory, Protocol
from twisted.python.failure import Failure
from zope.interface import implementer

from tests.support import Network, Peer, Segments

LOCAL = "192.0.2.200"
"""The address that we call from when nobody says otherwise."""


@implementer(IConnector)
class Call:
    """One call: the test answers or refuses it; else it times out, as a reactor's would.

    :ivar bind: the local address asked for; None when none was.
    :ivar open: whether it is neither answered nor over.
    """

    def __init__(
        self,
        network: "Dialling",
        host: str,
        port: int,
        factory: ClientFactory,
        timeout: float | None,
    ) -> None:
        self.network, self.host, self.port = network, host, port
        self.factory, self.timeout = factory, timeout
        self.bind: tuple[str, int] | None = None
        self.open = True
        self._timer = None
        if timeout is not None:
            self._timer = network.callLater(timeout, self.refuse, ConnectTimeout())
        factory.doStart()
        factory.startedConnecting(self)

    def answer(self, backend: Protocol) -> None:
        """Let a backend take the call."""
        self._settle()
        kind = IPv6Address if ":" in self.host else IPv4Address
        client = self.factory.buildProtocol(kind("TCP", self.host, self.port))
        assert client is not None
        network = self.network
        former, network.addresses = (
            network.addresses,
            (
                IPv4Address("TCP", LOCAL, 50000),
                kind("TCP", self.host, self.port),
            ),
        )
        try:
            network.connect(backend, cast(Protocol, client))
        finally:
            network.addresses = former

    def refuse(self, error: ConnectError) -> None:
        """Let the call fail."""
        self._settle()
        self.factory.clientConnectionFailed(self, Failure(error))
        self.network.pump()

    def _settle(self) -> None:
        assert self.open, "the call is over"
        self.open = False
        if self._timer is not None and self._timer.active():
            self._timer.cancel()

    def stopConnecting(self) -> None:
        """Give up."""
        self._settle()
        self.factory.clientConnectionFailed(self, Failure(UserError()))

    def disconnect(self) -> None:
        """Give up, if there is something to give up."""
        if self.open:
            self.stopConnecting()

    def connect(self) -> None:
        """Call again: nobody does."""
        raise NotImplementedError

    def getDestination(self) -> Any:
        """Tell who is called."""
        return IPv4Address("TCP", self.host, self.port)


class Resolver:
    """Answers with what the test has written down; a name that is `held` has no answer yet.

    :ivar names: addresses by name; an unknown name has none.
    """

    def __init__(self) -> None:
        self.names: dict[str, list[str]] = {}
        self.held: dict[str, IResolutionReceiver | None] = {}
        self.asked: list[str] = []

    def resolveHostName(
        self, receiver: IResolutionReceiver, hostName: str, *rest: object, **more: object
    ) -> None:
        """Find a name's addresses."""
        self.asked.append(hostName)
        receiver.resolutionBegan(cast(Any, self))
        if hostName in self.held:
            self.held[hostName] = receiver
        else:
            self.finish(receiver, self.names.get(hostName, []))

    def hold(self, name: str) -> None:
        """Give no answer for this name."""
        self.held[name] = None

    def finish(self, receiver: IResolutionReceiver, hosts: list[str]) -> None:
        """Give the answer."""
        for host in hosts:
            kind = IPv6Address if ":" in host else IPv4Address
            receiver.addressResolved(kind("TCP", host, 0))
        receiver.resolutionComplete()


class Dialling(Network):
    """What a `Dialer` asks of its reactor.

    :ivar dialled: every call so far.
    """

    def __init__(self, segments: Segments = Segments.WHOLE) -> None:
        super().__init__(segments)
        self.dialled: list[Call] = []
        self.nameResolver = Resolver()

    def connectTCP(
        self,
        host: str,
        port: int,
        factory: ClientFactory,
        timeout: float | None = 30,
        bindAddress: tuple[str, int] | None = None,
    ) -> Call:
        """Begin a call."""
        call = Call(self, host, port, factory, timeout)
        call.bind = bindAddress
        self.dialled.append(call)
        return call

    @property
    def call(self) -> Call:
        """The last call."""
        return self.dialled[-1]


class Backend(Peer):
    """An IMAP backend that answers by a table, and keeps what comes behind an accepted login.

    :ivar answers: by verb, the lines sent for it, `%t` standing for the tag; a verb that is not
        here is not answered.
    :ivar commands: the lines that came before the bridge.
    :ivar bridged: what came behind the accepted login; None before it.
    """

    GREETING = b"* OK [CAPABILITY IMAP4rev1 SASL-IR ID AUTH=PLAIN AUTH=OAUTHBEARER] ready\r\n"

    def __init__(self, greeting: bytes = GREETING, login: bytes = b"%t OK in\r\n") -> None:
        super().__init__()
        self.greeting = greeting
        self.answers = {
            b"CAPABILITY": b"* CAPABILITY IMAP4rev1 AUTH=PLAIN\r\n%t OK done\r\n",
            b"ID": b"* ID NIL\r\n%t OK done\r\n",
            b"AUTHENTICATE": login,
            b"LOGIN": login,
        }
        self.commands: list[bytes] = []
        self.bridged: bytes | None = None
        self._pending = b""

    def connectionMade(self) -> None:
        """Greet."""
        self.say(self.greeting)

    def dataReceived(self, data: bytes) -> None:
        """Answer each whole line, until a login is accepted."""
        super().dataReceived(data)
        self._pending += data
        while self.bridged is None and b"\n" in self._pending:
            line, _, self._pending = self._pending.partition(b"\n")
            self._serve(line.rstrip(b"\r"))
        if self.bridged is not None:
            self.bridged, self._pending = self.bridged + self._pending, b""

    def readConnectionLost(self) -> None:
        """Hang up when the other side does, as servers do."""
        super().readConnectionLost()
        self.hangUp()

    def _serve(self, line: bytes) -> None:
        self.commands.append(line)
        tag, _, rest = line.partition(b" ")
        verb = rest.partition(b" ")[0].upper()
        answer = self.answers.get(verb, b"").replace(b"%t", tag)
        if answer.rpartition(tag + b" OK")[1] and verb in (b"AUTHENTICATE", b"LOGIN"):
            self.bridged = b""
        self.say(answer)


class Scripted(Peer):
    """A backend of any protocol: greets, and answers each line by the first prefix that fits.

    :ivar said: the lines that came, without their ends.
    """

    def __init__(self, greeting: bytes, *answers: tuple[bytes, bytes]) -> None:
        super().__init__()
        self.greeting, self.answers = greeting, answers
        self.said: list[bytes] = []
        self._pending = b""

    def connectionMade(self) -> None:
        """Greet."""
        self.say(self.greeting)

    def dataReceived(self, data: bytes) -> None:
        """Answer each whole line."""
        super().dataReceived(data)
        *lines, self._pending = (self._pending + data).split(b"\r\n")
        for line in lines:
            self.said.append(line)
            for prefix, answer in self.answers:
                if line.startswith(prefix):
                    self.say(answer)
                    break

    def readConnectionLost(self) -> None:
        """Hang up when the other side does, as servers do."""
        super().readConnectionLost()
        self.hangUp()
