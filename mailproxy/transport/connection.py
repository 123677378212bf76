"""One TCP connection, plain or with Twisted's TLS over it.

Knows sockets and what Twisted asks of a transport; must not know contexts, nor what is said. It
differs from Twisted's own in this:

- what a protocol writes while it is given data goes out together when it is done; what it writes
  at other times goes out at once, and waits for the socket only when that is full;
- who only wants to see what has come may leave it in the socket (`peeking`, `skip`);
- a stream can be broken off so that the peer does not take that for its end (`cutConnection`).
"""

import fcntl
import socket
import sys
import termios
from typing import Any, ClassVar

from twisted.internet import tcp
from twisted.internet.abstract import FileDescriptor
from twisted.internet.error import ConnectionAborted, ConnectionLost
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.python.failure import Failure

from mailproxy import openssl
from mailproxy.openssl import Engine

Why = BaseException | None
"""What a reactor is told after an event: None, or why the connection has ended or is lost."""

RESET_PAUSE = 0.05
"""Seconds between two looks whether a peer that is to hear a reset has all that was sent."""


_REASONS = {why: Failure(why) for why in (CONNECTION_DONE, CONNECTION_LOST)}


class SocketConnection(tcp.Connection):
    """What both sides have in common; mixed in before Twisted's own classes.

    :cvar engine: its buffer is what is read into.
    :ivar peeking: whether the protocol is shown what has come next, by `dataPeeked`, once.
    """

    engine: ClassVar[Engine] = openssl.engine
    peeking = False

    _tlsClientDefault: bool  # Twisted's own class of the side says so
    _shouldShutdown = False  # nobody else has the descriptor: to close it is enough
    _gathering = False  # while the protocol hears of something: its words go out together
    _readEnded = _writing = False
    _wasReset = False  # as a write was told, after which a read is told of an end
    _cutting = False

    @property
    def tlsOnSocket(self) -> bool:
        """Whether TLS is on the socket, so that each direction can end by itself."""
        return False

    def startTLSInMemory(self, ctx: Any, normal: bool = True) -> None:
        """Start TLS as Twisted does, for bytes of it that are not in the socket any more."""
        super().startTLS(ctx, normal)

    # Reading

    def doRead(self) -> Any:
        """Read what has come, and pass it on."""
        if self.peeking:
            return self._peek()
        buffer = self.engine.buffer
        try:
            count = self.socket.recv_into(buffer)
        except BlockingIOError:
            return None
        except OSError:
            return CONNECTION_LOST
        if not count:
            return self._endOfInput()
        self._give(bytes(buffer[:count]))
        return None

    def _peek(self) -> Why:
        """Show the protocol what has come."""
        try:
            data = self.socket.recv(len(self.engine.buffer), socket.MSG_PEEK)
        except BlockingIOError:
            return None
        except OSError:
            return CONNECTION_LOST
        if not data:
            return self._endOfInput()
        self.peeking = False
        self._gathering = True
        try:
            self.protocol.dataPeeked(data)  # type: ignore[attr-defined]
        finally:
            self._gathering = False
        self._flush()
        return None

    def _endOfInput(self) -> Why:
        """Say what it means that nothing more can be read."""
        return CONNECTION_LOST if self._wasReset else CONNECTION_DONE

    def skip(self, count: int) -> None:
        """Take bytes that the protocol has been shown out of the socket."""
        while count:
            count -= len(self.socket.recv(count))

    def _give(self, data: bytes) -> None:
        """Let the protocol hear data, and send all that it says to that at once."""
        self._gathering = True
        try:
            self.protocol.dataReceived(data)
        finally:
            self._gathering = False
        self._flush()

    def readConnectionLost(self, reason: Failure) -> None:
        """The peer has ended its side, which is told once."""
        if self._readEnded:
            return
        self._readEnded = True
        super().readConnectionLost(reason)

    def resumeProducing(self) -> None:
        """Read on, unless there is nothing more to read."""
        if not self._readEnded:
            super().resumeProducing()

    # Writing

    def startWriting(self) -> None:
        """Wait until the socket can be written, if we do not yet."""
        if not self._writing:
            self._writing = True
            super().startWriting()

    def stopWriting(self) -> None:
        """Wait no more, if we do."""
        if self._writing:
            self._writing = False
            super().stopWriting()

    def write(self, data: bytes) -> None:
        """Write as soon as possible, at best now."""
        if self.TLS:
            super().write(data)
        elif data and self.connected and not self._writeDisconnected:
            self._tempDataBuffer.append(data)
            self._tempDataLen += len(data)
            if not self._gathering:
                self._flush()

    def writeSequence(self, iovec: Any) -> None:
        """Write several pieces as one."""
        self.write(b"".join(iovec))

    def _flush(self) -> None:
        """Send what has been written, unless something waits for the socket already."""
        if not self._tempDataLen or not self.connected:
            return
        if not self.dataBuffer:
            data = b"".join(self._tempDataBuffer)
            self._tempDataBuffer.clear()
            self._tempDataLen = 0
            sent = self.writeSomeData(data)
            if sent == len(data):
                return
            # What went wrong is told when the reactor lets us write: nobody expects it here.
            self.dataBuffer, self.offset = data, sent if isinstance(sent, int) else 0
            self.startWriting()
        self._maybePauseProducer()

    def writeSomeData(self, data: bytes | memoryview) -> int | ConnectionLost:
        """Send what the socket takes; tells how much that is, or that the connection is lost."""
        try:
            return self.socket.send(memoryview(data)[: self.SEND_LIMIT]) if data else 0
        except BlockingIOError:
            return 0
        except OSError as error:
            self._noteReset(error)
            return CONNECTION_LOST

    def _noteReset(self, error: OSError) -> None:
        """Keep in mind what the system tells once, and only to who comes first."""
        if isinstance(error, ConnectionResetError):
            self._wasReset = True

    # Ending

    def connectionLost(self, reason: Failure) -> None:
        """The connection is gone."""
        if hasattr(self, "socket"):
            self.fileno = self.socket.fileno  # Twisted asks for it, and deletes it then
        super().connectionLost(reason)

    @property
    def _idle(self) -> bool:
        """Whether nothing is to be written first, and nobody in the middle of something."""
        if self._gathering or self._tempDataLen or self.dataBuffer or self.TLS:
            return False
        return not (self.producer is not None or self.disconnecting or self._aborting)

    def loseConnection(self) -> None:
        """Close after what has been written, at best now; what comes is not read."""
        if not (self._idle and self.connected) or self._writeDisconnected:
            super().loseConnection()
            return
        self.stopReading()
        self.disconnecting = 1
        why = self._postLoseConnection()
        if why is not None:
            self.connectionLost(_REASONS.get(why) or Failure(why))

    def loseWriteConnection(self) -> None:
        """End our side after what has been written, at best now, and read on."""
        if self.TLS:
            super().loseConnection()  # Twisted's TLS has no half-close
        elif self._idle and self.connected and not self._writeDisconnecting:
            self._writeDisconnecting = self._writeDisconnected = True
            self._closeWriteConnection()
        else:
            super().loseWriteConnection()

    def cutConnection(self) -> None:
        """Close after what has been written, so that the peer does not take it for the end.

        A TLS peer misses the close-notify; any other hears a reset.
        """
        self._cutting = True
        if self.TLS:
            # Its small writes are gathered until the reactor's next turn, which this comes after.
            self.reactor.callLater(0, FileDescriptor.loseConnection, self)  # type: ignore[attr-defined]
        else:
            self.loseConnection()

    def _postLoseConnection(self) -> Any:
        if not self._cutting:
            return CONNECTION_DONE
        if self.TLS or self.tlsOnSocket:
            return CONNECTION_LOST
        if self.unacknowledged():
            # A reset would take these with it.
            self.reactor.callLater(RESET_PAUSE, self._writeLater)  # type: ignore[attr-defined]
            return None
        return ConnectionAborted()

    def _writeLater(self) -> None:
        if self.connected:
            self.startWriting()

    @property
    def untaken(self) -> int:
        """How much waits here or is on its way; it changes only when the peer takes, or we write.

        Of Twisted's TLS, which keeps something of its own, it is not all.
        """
        if not self.connected:
            return 0
        return len(self.dataBuffer) - self.offset + self._tempDataLen + self.unacknowledged()

    def unacknowledged(self) -> int:
        """Tell how many bytes are on their way to the peer."""
        return int.from_bytes(fcntl.ioctl(self.socket, termios.TIOCOUTQ, bytes(4)), sys.byteorder)
