"""Bytes from one connection to another, without their protocols.

Each event moves what has come through the engine's buffer, or, where both are plain and much comes,
through a pipe, unseen. A sink that takes no more stops its source from being read, and keeps what
it could not send: at most what one event has read. Must not know who has joined the two, nor what
an end of one means to the other: that is the protocols'.
"""

from typing import Any

from twisted.internet.main import CONNECTION_LOST
from twisted.python.failure import Failure

from mailproxy.openssl import SIZE, SMALL
from mailproxy.transport.connection import Why
from mailproxy.transport.pipe import LARGE, Pipe, shared
from mailproxy.transport.secure import SecureConnection


class JoinableConnection(SecureConnection):
    """A connection that can be joined with another.

    :ivar moved: bytes that have gone from this connection to the one that it is joined to.
    """

    moved = 0
    _flows = False  # whether so much has come at a time that it pays to read it in bulk
    _sink: "JoinableConnection | None" = None
    _held: "JoinableConnection | None" = None  # the source that waits until we have sent all

    @property
    def joinable(self) -> bool:
        """Whether bytes can be moved by this connection without its protocol."""
        return not self.TLS

    @property
    def held(self) -> bool:
        """Whether this connection is not read because its sink takes no more."""
        return self._sink is not None and self._sink._held is self

    def joinTo(self, sink: "JoinableConnection | None") -> None:
        """Move what is read from now on to `sink`; None: give it to the protocol again.

        The protocol hears of ends, as ever.
        """
        self._sink = sink

    def doRead(self) -> Any:
        """Read what has come, and pass it on."""
        if self._sink is None or self._writeWantsRead:
            return super().doRead()
        return self._moveBytes() if self._handle is None else self._moveRecords()

    def _readRecord(self) -> Why:
        return super()._readRecord() if self._sink is None else self._moveRecords()

    def _moveRecords(self) -> Why:
        """Move the records that have come."""
        if self._flows:
            return self._moveMuch()
        count, meaning = self.engine.gather(self._handle)
        if count:
            self.moved += count
            isTaken = self._sink.take(count, self)  # type: ignore[union-attr]
            if isTaken and not meaning and count >= SMALL:
                return self._moveMuch()
        return self._stopped(meaning) if meaning else None

    def _moveMuch(self) -> Why:
        """Move what has come of something large."""
        before = self.moved
        # What OpenSSL has to say meanwhile needs room in the socket.
        read = self.engine.bulk if self._flows and not self.untaken else self.engine.rounds
        meaning = read(self._handle, self.socket, self._pass)
        self._flows = self.moved - before >= SIZE
        return self._stopped(meaning) if meaning else None

    def _pass(self, count: int) -> bool:
        """Pass on what the engine's buffer begins with; tells whether there may be more."""
        self.moved += count
        return self._sink.take(count, self)  # type: ignore[union-attr]

    def _moveBytes(self) -> Why:
        """Move the bytes that have come; of something large, from socket to socket."""
        pipe = self._sink.pipe if self._flows else None  # type: ignore[union-attr]
        try:
            count = pipe.fill(self.socket) if pipe else self.socket.recv_into(self.engine.buffer)
        except BlockingIOError:
            self._flows = False  # an urgent byte, which no pipe takes, is stepped over by a read
            return None
        except OSError:
            return CONNECTION_LOST
        if not count:
            return self._endOfInput()
        self._flows = count >= LARGE
        if pipe is None:
            self._pass(count)
        else:
            self.moved += count
            self._sink.drain(pipe, count, self)  # type: ignore[union-attr]
        return None

    def take(self, count: int, source: "JoinableConnection") -> bool:
        """Send what the engine's buffer begins with; keep what cannot be sent now.

        :returns: whether the source may go on; else it is held until we have sent all.
        """
        if self.dataBuffer or self._tempDataLen:
            self._tempDataBuffer.append(bytes(self.engine.buffer[:count]))
            self._tempDataLen += count
        elif self._handle is not None:
            sent = self.engine.put(self._handle, count)
            if sent == count:
                return True
            self._keep(bytes(self.engine.buffer[sent:count]))
        elif self.connected:
            try:
                sent = self.socket.send(self.engine.buffer[:count])
            except OSError as error:
                sent = 0
                self._noteReset(error)
            if sent == count:
                return True
            self._keep(bytes(self.engine.buffer[sent:count]))
        else:
            return True  # our protocol knows, or will: the end of the source is its business
        self._hold(source)
        return False

    @property
    def pipe(self) -> Pipe | None:
        """What bytes can come through to our socket; None where they cannot as they are."""
        isFree = self._handle is None and not (self.dataBuffer or self._tempDataLen)
        return shared if isFree and self.connected else None

    def drain(self, pipe: Pipe, count: int, source: "JoinableConnection") -> None:
        """Send what the pipe holds; keep what cannot be sent now, and hold the source."""
        try:
            rest = pipe.empty(count, self.socket)
        except OSError as error:
            self._noteReset(error)
            rest = pipe.rest(count)
        if rest:
            self._keep(rest)
            self._hold(source)

    def _keep(self, data: bytes) -> None:
        """Keep what could not be sent; why, is told when the reactor lets us write."""
        self.dataBuffer, self.offset = data, 0
        self.startWriting()

    def _hold(self, source: "JoinableConnection") -> None:
        """Let a source wait until we have sent all."""
        self._held = source
        source.stopReading()

    def doWrite(self) -> Any:
        """Send what waits for the socket; with nothing left, let the held source go on."""
        why = super().doWrite()
        if self._held is not None and not self.dataBuffer and not self._tempDataLen:
            source, self._held = self._held, None
            source.resumeProducing()
        return why

    def connectionLost(self, reason: Failure) -> None:
        """The connection is gone."""
        self._sink = self._held = None
        super().connectionLost(reason)
