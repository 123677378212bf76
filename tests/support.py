"""A network in memory: Twisted's own TCP transports over sockets that are a pair of buffers.

Producers, half-close, resets, TLS and the order of events are therefore those of the real thing;
time, and the moment at which bytes move, are the test's. Typical use::

    network = Network(Segments.BYTES)
    peer = Peer()
    network.connect(server, peer)
    peer.say(b"a NOOP\\r\\n")
    network.pump()
    self.assertEqual(peer.received, ...)

`network` is also the clock to hand to what is tested.
"""

import enum
import errno
import socket
from functools import cache
from typing import Any, cast

import trustme
from OpenSSL import SSL
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import (
    IAddress,
    IHalfCloseableProtocol,
    IHandshakeListener,
)
from twisted.internet.posixbase import _DisconnectSelectableMixin
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.protocols import tls
from twisted.python.failure import Failure
from zope.interface import implementer

from mailproxy.transport import JoinableConnection
from tests.tls.handshake import OtherEnd

KERNEL_BUFFER = 65536
"""Bytes that one direction of a connection holds before the writer has to wait."""

MAX_ROUNDS = 200_000
"""Rounds of a pump after which two ends are held to talk for ever."""


class Segments(enum.Enum):
    """How what was written is cut before it is read."""

    WHOLE = "whole"
    LINES = "lines"
    BYTES = "bytes"


class _Pipe:
    """One direction of a connection: what was sent and has not been read."""

    def __init__(self, segments: Segments, capacity: int) -> None:
        self.segments, self.capacity = segments, capacity
        self.data = bytearray()
        self.ended = self.broken = self.unheard = False

    @property
    def readable(self) -> bool:
        return bool(self.data) or self.ended or self.broken

    @property
    def writable(self) -> bool:
        return self.unheard or self.broken or len(self.data) < self.capacity

    def put(self, data: bytes) -> int:
        if self.broken:
            raise BrokenPipeError(errno.EPIPE, "broken")
        if not data:
            return 0
        room = self.capacity - len(self.data)
        if room <= 0:
            raise BlockingIOError(errno.EWOULDBLOCK, "full")
        self.data += data[:room]
        return min(room, len(data))

    def take(self, most: int) -> bytes:
        if self.broken:
            raise ConnectionResetError(errno.ECONNRESET, "reset")
        if not self.data and not self.ended:
            raise BlockingIOError(errno.EWOULDBLOCK, "empty")
        size = min(most, len(self.data))
        if self.segments is Segments.BYTES:
            size = min(size, 1)
        elif self.segments is Segments.LINES:
            size = (self.data.find(b"\n", 0, size) + 1) or size
        taken = bytes(self.data[:size])
        del self.data[:size]
        return taken

    def reset(self) -> None:
        """Lose what is on its way, as a reset can."""
        self.data.clear()
        self.broken = True


class _Socket:
    """One end of a connection, with a socket's methods as far as a transport calls them."""

    def __init__(self, incoming: _Pipe, outgoing: _Pipe) -> None:
        self.incoming, self.outgoing = incoming, outgoing
        self._resets = False

    def setblocking(self, blocking: bool) -> None: ...

    def fileno(self) -> int:
        return id(self)

    def getsockopt(self, level: int, option: int) -> int:
        return 0

    def setsockopt(self, level: int, option: int, value: object) -> None:
        self._resets = self._resets or isinstance(value, bytes)

    def recv(self, most: int, flags: int = 0) -> bytes:
        if not flags & socket.MSG_PEEK:
            return self.incoming.take(most)
        before = bytes(self.incoming.data)
        shown = self.incoming.take(most)
        self.incoming.data[:] = before
        return shown

    def recv_into(self, buffer: memoryview) -> int:
        data = self.recv(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def send(self, data: bytes | memoryview) -> int:
        if self.outgoing.unheard and data:
            self.outgoing.reset()
            self.incoming.reset()
            return len(data)
        return self.outgoing.put(bytes(data))

    def shutdown(self, how: int) -> None:
        self.outgoing.ended = True

    def close(self) -> None:
        """End both directions; unread input, or an abort, makes that a reset."""
        self.incoming.unheard = True
        self.outgoing.ended = True
        if self._resets or self.incoming.data:
            self.outgoing.reset()


class MemoryConnection(JoinableConnection):
    """A TCP connection over what is no socket of the system's; its TLS is Twisted's own.

    :ivar paused: whether the protocol reads nothing now.
    """

    bindsTLS = False
    pipe = None

    def __init__(self, end: object, protocol: Protocol, network: "Network", isClient: bool) -> None:
        super().__init__(cast(Any, end), protocol, cast(Any, network))
        self._tlsClientDefault = isClient
        self._addresses = network.addresses if isClient else network.addresses[::-1]
        self.connected = 1
        self.startReading()

    @property
    def paused(self) -> bool:
        """Whether nothing is read from the peer."""
        return self not in self.reactor.getReaders()

    @property
    def unsent(self) -> int:
        """Bytes that were written and that the network has not taken."""
        return len(self.dataBuffer) - self.offset + self._tempDataLen

    def unacknowledged(self) -> int:
        """Tell how many bytes are on their way."""
        return len(self.socket.outgoing.data)  # type: ignore[attr-defined]

    def getHost(self) -> IAddress:
        """Tell our own address."""
        return self._addresses[0]

    def getPeer(self) -> IAddress:
        """Tell the other end's address."""
        return self._addresses[1]

    def startTLSInMemory(self, ctx: Any, normal: bool = True) -> None:
        """Start TLS whose small writes are gathered by the test's clock, not the reactor's."""
        original = tls._get_default_clock
        tls._get_default_clock = lambda: cast(Any, self.reactor)
        try:
            super().startTLSInMemory(ctx, normal)
        finally:
            tls._get_default_clock = original


class Network(_DisconnectSelectableMixin, Clock):
    """Moves bytes between connected protocols; a `Clock` as well.

    :cvar resets: whether a plain connection that is aborted does not look like one that has ended.
    :ivar segments: how bytes are cut, for connections made from now on.
    :ivar capacity: bytes on their way per direction, likewise.
    :ivar addresses: the client's and the server's, likewise.
    """

    resets = True

    def __init__(self, segments: Segments = Segments.WHOLE, capacity: int = KERNEL_BUFFER) -> None:
        super().__init__()
        self.segments, self.capacity = segments, capacity
        self.addresses: tuple[IAddress, IAddress] = addresses()
        self._readers: dict[MemoryConnection, None] = {}
        self._writers: dict[MemoryConnection, None] = {}

    def connect(self, server: Protocol, client: Protocol) -> None:
        """Give both their transports; the server learns of it first, then bytes move."""
        accepted, connected = self._join(server, client)
        server.makeConnection(accepted)
        client.makeConnection(connected)
        self.pump()

    def _join(self, server: Protocol, client: Protocol) -> tuple[MemoryConnection, ...]:
        up, down = (_Pipe(self.segments, self.capacity) for _ in range(2))
        return (
            MemoryConnection(_Socket(up, down), server, self, False),
            MemoryConnection(_Socket(down, up), client, self, True),
        )

    def pump(self, timings: Any = ()) -> None:
        """Carry bytes and do what is due now, until nothing moves."""
        for _ in range(MAX_ROUNDS):
            Clock.advance(self, 0)
            if not self._round():
                return
        raise AssertionError("the ends talk for ever")

    def advance(self, amount: float) -> None:
        """Let time pass, then carry what that has set off."""
        Clock.advance(self, amount)
        self.pump()

    def _round(self) -> bool:
        moved = False
        for connection in list(self._writers):
            if connection in self._writers and connection.socket.outgoing.writable:  # type: ignore[attr-defined]
                moved = True
                self._serve(connection, connection.doWrite(), False)
        for connection in list(self._readers):
            if connection in self._readers and connection.socket.incoming.readable:  # type: ignore[attr-defined]
                moved = True
                self._serve(connection, connection.doRead(), True)
        return moved

    def _serve(self, connection: MemoryConnection, why: Any, isRead: bool) -> None:
        if why is not None:
            self._disconnectSelectable(connection, why, isRead)

    # What a transport asks of its reactor

    def addReader(self, reader: Any) -> None:
        """Read when there is something."""
        self._readers[reader] = None

    def removeReader(self, reader: Any) -> None:
        """Read no more."""
        self._readers.pop(reader, None)

    def addWriter(self, writer: Any) -> None:
        """Write when there is room."""
        self._writers[writer] = None

    def removeWriter(self, writer: Any) -> None:
        """Write no more."""
        self._writers.pop(writer, None)

    def getReaders(self) -> list[MemoryConnection]:
        """Tell who reads."""
        return list(self._readers)


def addresses(
    client: str = "198.51.100.7", server: str = "192.0.2.1", port: int = 993
) -> tuple[IAddress, IAddress]:
    """Make a client's and a server's address."""
    kind = IPv6Address if ":" in client else IPv4Address
    return kind("TCP", client, 40000), kind("TCP", server, port)


@implementer(IHalfCloseableProtocol, IHandshakeListener)
class Peer(Protocol):
    """The far end of what is tested: says what the test tells it to, and notes all that happens.

    :ivar received: all bytes so far.
    :ivar ended: whether the other side has sent its FIN (on plain TCP).
    :ivar shaken: whether TLS is on.
    :ivar lost: why the connection is gone; None while it is not.
    """

    transport: MemoryConnection

    def __init__(self) -> None:
        self.received = b""
        self.ended = self.shaken = False
        self.lost: Failure | None = None

    def say(self, data: bytes) -> None:
        """Send bytes."""
        self.transport.write(data)

    def take(self) -> bytes:
        """Give what was received since the last time."""
        taken, self.received = self.received, b""
        return taken

    def finish(self) -> None:
        """End our side: a FIN, or TLS's close-notify."""
        if self.shaken and not self.transport.tlsOnSocket:
            self.transport.loseConnection()
        else:
            self.transport.loseWriteConnection()

    def hangUp(self) -> None:
        """Close both directions after what was said."""
        self.transport.loseConnection()

    def reset(self) -> None:
        """Cut the connection: what is on its way may be lost."""
        self.transport.abortConnection()

    def truncate(self) -> None:
        """End the TCP stream under TLS without a close-notify."""
        self.transport.socket.shutdown(1)

    def stopReading(self) -> None:
        """Take nothing more, until `transport.resumeProducing`."""
        self.transport.pauseProducing()

    def startReading(self) -> None:
        """Take what comes again."""
        self.transport.resumeProducing()

    def startTLS(self, context: object | None = None) -> None:
        """Begin TLS from our side."""
        client = self.transport._tlsClientDefault
        self.transport.startTLS(context or (clientTLS() if client else serverTLS()))

    def dataReceived(self, data: bytes) -> None:
        """Note it."""
        self.received += data

    def handshakeCompleted(self) -> None:
        """Note it."""
        self.shaken = True

    def readConnectionLost(self) -> None:
        """Note it; our own side stays open."""
        self.ended = True

    def writeConnectionLost(self) -> None:
        """Nothing to note: we asked for it."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Note it."""
        self.lost = reason


@cache
def _authority() -> trustme.CA:
    return trustme.CA()


@cache
def _leaf() -> trustme.LeafCert:
    return _authority().issue_cert("mail.example.com", "127.0.0.1")


def serverTLS() -> OtherEnd:
    """Make an acceptor of TLS whose certificate nobody has to believe."""

    def configure(context: SSL.Context) -> None:
        _leaf().configure_cert(context)

    return OtherEnd(configure)


def clientTLS() -> OtherEnd:
    """Make an initiator of TLS that believes anybody."""
    return OtherEnd()
