"""One leg of a session as a stream: lines and counted bytes in, bytes out.

Knows buffers, limits, TLS and how to close; must not know any protocol's words, nor who reads it.
After `detach` it only passes events on to the bridge.
"""

from collections.abc import Callable

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import (
    IHalfCloseableProtocol,
    IHandshakeListener,
    IOpenSSLClientConnectionCreator,
    IOpenSSLServerConnectionCreator,
    IPushProducer,
    IReactorTime,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from mailproxy.errors import LimitExceeded, PeerGone, ProtocolError
from mailproxy.linger import LONGEST, Linger, Patience
from mailproxy.transport import IStreamTransport, Receiver, SocketConnection

MAX_LINE = 65536
"""Bytes of one line, without its end."""

MAX_UNREAD = MAX_LINE + 2
"""Bytes that wait for a reader before we stop reading from the peer: the longest line is among
them, or its reader would wait for an end that we do not read."""

CLOSE_GRACE = 5.0
"""Seconds for which a peer may take nothing of our last words, and then to close."""

Creator = IOpenSSLClientConnectionCreator | IOpenSSLServerConnectionCreator


@implementer(IHalfCloseableProtocol, IHandshakeListener, IPushProducer)
class Stream(Protocol):
    """One connection, read by one reader at a time.

    :ivar clock: bounds how long closing takes.
    :ivar secure: whether TLS is on.
    :ivar whenMade: called once when the connection is there.
    :ivar whenLost: called once when the peer has gone, after a pending read has failed.
    :ivar finished: whether our side has ended, and the peer has been sent all of it.
    :cvar lineEnd: what ends a line: a bare LF, before which one CR is dropped, or only CRLF.
    :cvar maxUnread: bytes that wait for a reader before we stop reading from the peer.
    """

    transport: IStreamTransport
    lineEnd = b"\n"
    maxUnread = MAX_UNREAD
    secure = finished = False
    whenMade: Callable[[], None] | None = None
    whenLost: Callable[[], None] | None = None

    def __init__(self, clock: IReactorTime) -> None:
        self.clock = clock
        self._buffer = bytearray()
        self._searched = 0
        self._take: Callable[[], bytes | None] | None = None
        self._reader: Deferred[bytes] | None = None
        self._handshake: Deferred[None] | None = None
        self._receiver: Receiver | None = None
        self._linger: Linger | None = None
        self._lost: Failure | None = None
        self._ended = self._choked = self._paused = self._closing = False

    @property
    def lost(self) -> bool:
        """Whether the connection is gone."""
        return self._lost is not None

    @property
    def reason(self) -> Failure:
        """Why it is gone."""
        assert self._lost is not None, "it is there"
        return self._lost

    @property
    def ended(self) -> bool:
        """Whether the peer has ended its side: no byte will follow."""
        return self._ended

    @property
    def unread(self) -> int:
        """Bytes that have arrived and that nobody has read."""
        return len(self._buffer)

    @property
    def overrun(self) -> bool:
        """Whether more is unread than may be, and not because our answers are not taken."""
        return len(self._buffer) > self.maxUnread and not self._choked

    # Reading

    def readLine(self) -> Deferred[bytes]:
        """Read one line, without its end.

        :raises LimitExceeded: when it is longer than `MAX_LINE`.
        :raises PeerGone: when the peer goes before the line is whole.
        """
        return self._read(self._takeLine)

    def readExactly(self, count: int) -> Deferred[bytes]:
        """Read `count` bytes; the caller has checked it against its limit.

        :raises PeerGone: when the peer goes before they are here.
        """
        return self._read(lambda: self._cut(count) if len(self._buffer) >= count else None)

    def takeUnread(self) -> bytes:
        """Take what has arrived and nobody has read."""
        return self._cut(len(self._buffer))

    def peek(self) -> Deferred[bytes]:
        """See what has arrived, at least one byte; it stays unread.

        Where the transport can, it stays in the socket, for TLS to begin there.

        :raises PeerGone: when the peer goes before anything is here.
        """
        if not self._buffer and isinstance(self.transport, SocketConnection):
            self.transport.peeking = True
        return self._read(lambda: bytes(self._buffer) or None)

    def skip(self, count: int) -> None:
        """Take bytes that `peek` has shown."""
        if self._buffer:
            self._cut(count)
        elif isinstance(self.transport, SocketConnection):
            self.transport.skip(count)

    def putBack(self, data: bytes) -> None:
        """Give back what was just read and is somebody else's to read; not to the bridge."""
        assert self._reader is None and self._receiver is None, "it would never be read"
        if not self._closing:
            self._buffer[:0] = data
            self._searched = 0

    def _read(self, take: Callable[[], bytes | None]) -> Deferred[bytes]:
        assert self._reader is None, "one reader at a time"
        try:
            found = None if self._choked else take()
        except ProtocolError:
            return fail()
        if found is not None:
            return succeed(found)
        if self._ended and not self._choked:
            return fail(self._gone())
        self._take = take
        self._reader = Deferred(self._forgetReader)
        return self._reader

    def _forgetReader(self, _: Deferred[bytes]) -> None:
        self._reader = self._take = None
        if isinstance(self.transport, SocketConnection):
            self.transport.peeking = False

    def _takeLine(self) -> bytes | None:
        """Cut the next line off; what was searched before is not searched again."""
        end = self._buffer.find(self.lineEnd, self._searched, MAX_UNREAD)
        if end < 0 and len(self._buffer) < MAX_UNREAD:
            self._searched = max(0, len(self._buffer) - len(self.lineEnd) + 1)
            return None
        size = end - 1 if self._buffer[end - 1 : end + 1] == b"\r\n" else end
        if not 0 <= size <= MAX_LINE:
            raise LimitExceeded("a line is too long")
        line = bytes(self._buffer[:size])
        self._cut(end + len(self.lineEnd))
        return line

    def _cut(self, count: int) -> bytes:
        whole = count == len(self._buffer)
        taken = bytes(self._buffer if whole else self._buffer[:count])
        del self._buffer[:count]
        self._searched = 0
        self._throttle()
        return taken

    def _advance(self) -> None:
        """Serve the waiting reader, if what it waits for is here."""
        if self._reader is None or self._take is None or self._choked:
            return
        reader = self._reader
        try:
            found = self._take()
        except ProtocolError as error:
            self._reader = self._take = None
            reader.errback(error)
            return
        if found is not None:
            self._reader = self._take = None
            reader.callback(found)
        elif self._ended:
            self._failReader()

    def _throttle(self) -> None:
        """Stop reading from a peer that sends more than we read, or does not take our answers."""
        pause = self._choked or self.overrun
        if pause == self._paused or self._ended or self._closing:
            return
        self._paused = pause
        (self.transport.pauseProducing if pause else self.transport.resumeProducing)()

    def _gone(self) -> PeerGone:
        gone = PeerGone("connection closed")
        gone.__cause__ = self._lost.value if self._lost else None
        return gone

    # Writing

    def send(self, data: bytes) -> None:
        """Write bytes; nothing happens when the connection is closing or gone."""
        if not self._closing and self._lost is None:
            self.transport.write(data)

    def pauseProducing(self) -> None:
        """Hold commands back while their answers are not taken."""
        self._choked = True
        self._throttle()

    def resumeProducing(self) -> None:
        """Go on: the answers have been taken."""
        self._choked = False
        self._throttle()
        self._advance()

    def stopProducing(self) -> None:
        """Nothing to stop: `connectionLost` follows."""

    # TLS

    def startTLS(self, context: Creator, first: bytes = b"") -> Deferred[None]:
        """Start TLS; what was read but not taken is dropped.

        :param first: bytes that belong to the handshake already.
        :returns: fires after the handshake; fails with PeerGone, caused by what went wrong.
        """
        self._choked = False  # the transport forgets that it has held us back
        self._cut(len(self._buffer))
        if self._lost is not None or self._closing:
            return fail(self._gone())
        handshake: Deferred[None] = Deferred(self._giveUpHandshake)
        self._handshake = handshake
        if first:
            # These have left the socket, so TLS cannot be on that.
            getattr(self.transport, "startTLSInMemory", self.transport.startTLS)(context)
            # The transport's protocol is the TLS layer now, and these are its first bytes.
            self.transport.protocol.dataReceived(first)  # type: ignore[attr-defined]
        else:
            self.transport.startTLS(context)
        return handshake

    def _giveUpHandshake(self, _: Deferred[None]) -> None:
        self._handshake = None
        self.abort()

    def handshakeCompleted(self) -> None:
        """Hear from the transport that TLS is on."""
        self.secure = True
        handshake, self._handshake = self._handshake, None
        if handshake is not None:
            handshake.callback(None)

    # Closing

    def close(
        self, grace: float = CLOSE_GRACE, *, whole: bool = True, longest: float = LONGEST
    ) -> None:
        """Say no more; the peer may take what we wrote, and for `grace` seconds pause in that.

        :param whole: whether that is all there was to say: else the peer must not think so. Where
            the transport cannot do that, what it has not sent yet is lost.
        :param longest: seconds after which it is cut off, whatever it takes.
        """
        if self._closing or self._lost is not None:
            return
        self._closing = True
        self._buffer = bytearray()
        self.transport.unregisterProducer()
        if not self._ended:
            self.transport.resumeProducing()
        self._takeLeave(whole)
        if self._lost is None:
            patience = Patience(grace, CLOSE_GRACE, longest)
            self._linger = Linger(self.clock, patience, self._untaken, self.abort)
            if self.finished:
                self._linger.hasten()

    def _takeLeave(self, whole: bool) -> None:
        """Tell the peer that it has had everything, or that it has not."""
        if whole and (self._ended or not self.endsByHalves):
            self.transport.loseConnection()
        elif whole:
            # A close with unread input is a reset, which can take our last words with it: so end
            # our side, drop what still comes, and close when the peer has.
            self.transport.loseWriteConnection()
        elif isinstance(self.transport, SocketConnection):
            self.transport.cutConnection()
        else:
            self.abort()

    def _untaken(self) -> int:
        """Bytes of ours that the peer has not taken; 0 where that cannot be told."""
        return self.transport.untaken if isinstance(self.transport, SocketConnection) else 0

    @property
    def endsByHalves(self) -> bool:
        """Whether our side can end while we still hear the peer's."""
        return not self.secure or bool(getattr(self.transport, "tlsOnSocket", False))

    def abort(self) -> None:
        """Cut the connection now."""
        if self._lost is None:
            self._closing = True
            self.transport.abortConnection()

    def detach(self, receiver: Receiver) -> bytes:
        """Hand the connection over to the bridge.

        :returns: what has been received and not been read: it is the bridge's first.
        """
        self._choked = False
        unread = self.takeUnread()
        if self._lost is None:
            self.transport.unregisterProducer()
        self._receiver, self._buffer, self.whenLost = receiver, bytearray(), None
        return unread

    # Events

    def connectionMade(self) -> None:
        """Ask to be told when our answers pile up."""
        self.transport.registerProducer(self, True)
        made, self.whenMade = self.whenMade, None
        if made is not None:
            made()

    def dataReceived(self, data: bytes) -> None:
        """Keep what came for its reader."""
        if self._closing:
            return  # it is read only because unread input would turn our close into a reset
        if self._receiver is not None:
            self._receiver.dataReceived(data)
            return
        self._buffer += data
        self._advance()
        self._throttle()

    def dataPeeked(self, data: bytes) -> None:
        """Show what has come to who asked for it."""
        reader, self._reader, self._take = self._reader, None, None
        if reader is not None:
            reader.callback(data)

    def readConnectionLost(self) -> None:
        """The peer has ended its side; it may still listen to ours."""
        self._ended = True
        if self._closing:
            self.transport.loseConnection()
        elif self._receiver is not None:
            self._receiver.readConnectionLost()
        elif self._reader is not None:
            self._failReader()
        elif not self._buffer:
            self._tellLost()

    def writeConnectionLost(self) -> None:
        """We have said all, and it is on its way: the peer has no reason to take long any more."""
        self.finished = True
        if self._linger:
            self._linger.hasten()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Fail who waits, then tell who asked to be told."""
        self._lost, self._ended = reason, True
        if self._linger is not None:
            self._linger.cancel()
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            receiver.connectionLost(reason)
            return
        handshake, self._handshake = self._handshake, None
        if handshake is not None:
            handshake.errback(self._gone())
        self._failReader()
        self._tellLost()

    def _tellLost(self) -> None:
        told, self.whenLost = self.whenLost, None
        if told is not None:
            told()

    def _failReader(self) -> None:
        reader, self._reader, self._take = self._reader, None, None
        if reader is not None:
            reader.errback(self._gone())
