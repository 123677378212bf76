"""The same connection, with TLS on its socket.

Knows OpenSSL's states; must not know contexts. Against Twisted's TLS it differs in this:

- an end is half an end: a close-notify ends what we read, `loseWriteConnection` sends ours, and the
  other direction goes on;
- a stream that is cut without a close-notify is lost, not ended.
"""

import contextlib
from typing import Any, ClassVar

from OpenSSL import SSL
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IHandshakeListener
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.python.failure import Failure

from mailproxy.openssl import ENDED, RECORD, WANT_READ, WANT_WRITE, ISocketTLS
from mailproxy.transport.connection import SocketConnection, Why

_CLOSED = SSL.SENT_SHUTDOWN | SSL.RECEIVED_SHUTDOWN


class SecureConnection(SocketConnection):
    """A connection that can put TLS on its socket.

    :cvar bindsTLS: whether it may; else TLS is Twisted's.
    """

    bindsTLS: ClassVar[bool] = True

    _tls: SSL.Connection | None = None
    _handle: Any = None  # set while records may be exchanged: after the handshake
    _shaking = False
    _readWantsWrite = _writeWantsRead = _saidBye = False

    @property
    def tlsOnSocket(self) -> bool:
        """Whether TLS is on the socket, so that each direction can end by itself."""
        return self._tls is not None

    def getHandle(self) -> Any:
        """Give the TLS connection if there is one, else the socket; None when it is lost."""
        if self._tls is not None:
            return self._tls
        return super().getHandle() if self.connected else None

    # The handshake

    def startTLS(self, ctx: Any, normal: bool = True) -> None:
        """Start TLS with what comes next; what the protocol has been given is no part of it.

        :param ctx: a creator of TLS connections; where it cannot make one on a socket, TLS is
            Twisted's.
        :param normal: whether the side that called is the TLS client.
        """
        creator = ISocketTLS(ctx, None) if self.bindsTLS else None
        if creator is None:
            self.startTLSInMemory(ctx, normal)
            return
        self._flush()
        self._gatherClear()
        self._tls = creator.connectionOn(self.socket)
        self._shaking = True
        calls = normal == self._tlsClientDefault
        (self._tls.set_connect_state if calls else self._tls.set_accept_state)()
        if self.dataBuffer:
            self.stopReading()  # what was said in the clear goes first
        elif calls:
            why = self._shake()
            if why is not None:
                self._loseSoon(why)

    def _gatherClear(self) -> None:
        """Put what was said in the clear into one: all of it goes before the handshake."""
        if self._tempDataLen:
            self.dataBuffer = b"".join([self.dataBuffer[self.offset :], *self._tempDataBuffer])
            self.offset = 0
            self._tempDataBuffer.clear()
            self._tempDataLen = 0

    def _shake(self) -> Why:
        """Go on with the handshake as far as the socket allows."""
        assert self._tls is not None
        try:
            self._tls.do_handshake()
        except SSL.WantReadError:
            self.stopWriting()
        except SSL.WantWriteError:
            self.startWriting()
        except SSL.Error as error:
            # Unread input would turn our alert into a reset.
            with contextlib.suppress(OSError):
                self.socket.recv_into(self.engine.buffer)
            return CONNECTION_LOST if _isEnd(error) else error
        else:
            self._shaken()
        return None

    def _shaken(self) -> None:
        """Begin to exchange records; the protocol's first words go out together."""
        self._shaking = False
        self._handle = self.engine.handle(self._tls)  # type: ignore[arg-type]
        self.stopWriting()
        self._gathering = True
        try:
            if IHandshakeListener.providedBy(self.protocol):
                self.protocol.handshakeCompleted()
        finally:
            self._gathering = False
        self._flush()

    def _sayInClear(self) -> Why:
        """Send what was said before TLS, and nothing else; then let the handshake begin."""
        sent = self.writeSomeData(memoryview(self.dataBuffer)[self.offset :])
        if not isinstance(sent, int):
            return sent
        self.offset += sent
        if self.offset < len(self.dataBuffer):
            return None
        self.dataBuffer, self.offset = b"", 0
        self.startReading()
        return self._shake()

    def _loseSoon(self, why: BaseException) -> None:
        """Lose the connection when whoever calls us has returned."""
        self.stopReading()
        self.reactor.callLater(0, self._lose, why)  # type: ignore[attr-defined]

    def _lose(self, why: BaseException) -> None:
        if self.connected:
            self.stopWriting()
            self.connectionLost(Failure(why))

    # Reading

    def doRead(self) -> Any:
        """Read what has come, and pass it on."""
        if self._writeWantsRead:
            self._writeWantsRead = False
            self.startWriting()
            if self._readEnded:
                self.stopReading()
                return None
        if self._handle is not None:
            return self._readRecord()
        return self._shake() if self._shaking else super().doRead()

    def _readRecord(self) -> Why:
        count = self.engine.read(self._handle)
        if count <= 0:
            return self._stopped(count)
        self._give(bytes(self.engine.buffer[:count]))
        return None

    def _stopped(self, meaning: int) -> Why:
        """Say what it means that no record could be read."""
        if meaning == WANT_READ:
            return None
        if meaning == WANT_WRITE:
            self._readWantsWrite = True
            self.startWriting()
            return None
        return CONNECTION_DONE if meaning == ENDED else CONNECTION_LOST

    # Writing

    def _flush(self) -> None:
        if not self._shaking:
            super()._flush()

    def writeSomeData(self, data: bytes | memoryview) -> int | ConnectionLost:
        """Send what the socket takes; tells how much that is, or that the connection is lost."""
        if self._handle is None:
            return super().writeSomeData(data)
        sent, whole, view = 0, min(len(data), self.SEND_LIMIT), memoryview(data)
        while sent < whole:
            count = self.engine.send(self._handle, view[sent : min(sent + RECORD, whole)])
            if count > 0:
                sent += count
            elif count == WANT_WRITE:
                break
            elif count == WANT_READ:
                self._writeWantsRead = True
                break
            else:
                return CONNECTION_LOST
        return sent

    def doWrite(self) -> Any:
        """Send what waits for the socket; then do what waits for that."""
        if self._shaking:
            return self._sayInClear() if self.dataBuffer else self._shake()
        why = self._readAgain() if self._readWantsWrite else None
        if why is not None or not self.connected:
            return why
        if self._writeDisconnected:  # our side has ended: nothing is left to be written
            if not self._readWantsWrite:
                self.stopWriting()
            return None
        why = None if self._writeWantsRead else super().doWrite()
        if self._writeWantsRead:
            self.stopWriting()
            self.startReading()
        elif self._readWantsWrite:
            self.startWriting()
        return why

    def _readAgain(self) -> Why:
        """Read what could not be read before something was written."""
        self._readWantsWrite = False
        if self._readEnded:
            return None
        why: Why = self.doRead()
        if why is CONNECTION_DONE:
            self.stopReading()
            self.readConnectionLost(Failure(CONNECTION_DONE))
            return None
        return why

    # Ending

    def loseConnection(self) -> None:
        """Close after what has been written, with a close-notify; what comes is not read."""
        if self._shaking:
            self.abortConnection()
        else:
            super().loseConnection()

    def loseWriteConnection(self) -> None:
        """End our side after what has been written, with a close-notify, and read on."""
        if self._shaking:
            self.abortConnection()
        else:
            super().loseWriteConnection()

    def _closeWriteConnection(self) -> Any:
        if self._handle is not None and not self._sayBye():
            self._writeDisconnected = False
            self.startWriting()
            return None
        return super()._closeWriteConnection()

    def _postLoseConnection(self) -> Any:
        if self._handle is not None and not self._cutting and not self._sayBye():
            self.startWriting()
            return None
        return super()._postLoseConnection()

    def _sayBye(self) -> bool:
        """Send a close-notify, once; tells whether no more can be done for that.

        Asked again, OpenSSL would wait for the peer's, and take data for a mistake.
        """
        if not self._saidBye and self._tls is not None:
            try:
                self._tls.shutdown()
            except SSL.WantWriteError:
                return False
            except SSL.Error:
                pass
            self._saidBye = True
        return True

    def connectionLost(self, reason: Failure) -> None:
        """The connection is gone."""
        if self._tls is not None and not self._shaking:
            # Else OpenSSL takes the session for a broken one, which must not be resumed.
            self._tls.set_shutdown(_CLOSED)
        # It must not outlive its socket: the number of that is somebody else's then.
        self._tls = self._handle = None
        self._shaking = False
        super().connectionLost(reason)


def _isEnd(error: SSL.Error) -> bool:
    """Whether an error in a handshake says that the peer has gone, not that it erred."""
    if isinstance(error, SSL.SysCallError | SSL.ZeroReturnError):
        return True
    return not (error.args and error.args[0])
