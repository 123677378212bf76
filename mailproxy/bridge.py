"""Two legs joined: what one side sends, the other gets, until both are gone.

Knows flow control, half-close, idle time and byte counts; must not know any protocol, account or
destination. Nothing here is done per byte, and per chunk no more than a count and a write.
"""

import enum

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from mailproxy.stream import CLOSE_GRACE, Stream

DRAIN_GRACE = 60.0
"""Seconds that a slow reader has for the last bytes of a leg that has closed: these are at most
what a transport holds and one read, 128 KiB."""

IDLE_CHECKS = 4
"""Looks at the byte counts per idle time: a bridge is closed at most a quarter of it late."""


class Ending(enum.Enum):
    """Which event ended a bridge."""

    CLIENT = "client closed"
    BACKEND = "backend closed"
    IDLE = "idle"
    CUT = "cut"


class _Leg:
    """One leg, as the receiver of its stream's events; `peer` is the leg that its bytes go to."""

    __slots__ = ("bridge", "count", "ended", "ending", "lost", "peer", "stream", "write")

    def __init__(self, bridge: "Bridge", stream: Stream, ending: Ending) -> None:
        self.bridge, self.stream, self.ending = bridge, stream, ending
        self.count = 0
        self.ended = self.lost = False

    def join(self, peer: "_Leg") -> None:
        """Let our bytes go to `peer`, and stop reading while it does not take them."""
        self.peer = peer
        self.write = peer.stream.transport.write
        if not peer.stream.lost:
            peer.stream.transport.registerProducer(self.stream.transport, True)

    def dataReceived(self, data: bytes) -> None:
        """Pass bytes on."""
        self.count += len(data)
        self.write(data)

    def readConnectionLost(self) -> None:
        """Carry the end of one direction over."""
        self.ended = True
        if self.peer.ended:
            self.bridge.end(self.peer.ending)  # it was the first
        elif not self.peer.lost:
            self.peer.finish()

    def finish(self) -> None:
        """End what we write to this leg while still reading from it."""
        transport = self.stream.transport
        transport.unregisterProducer()
        if self.stream.secure:
            # A TLS close-notify ends our direction; what the peer still sends is delivered.
            transport.loseConnection()
        else:
            transport.loseWriteConnection()

    def connectionLost(self, reason: Failure) -> None:
        """The leg is gone: end the other one too."""
        first = self.peer if self.peer.ended and not self.ended else self
        self.lost = self.ended = True
        self.bridge.end(first.ending)


class Bridge:
    """Joins a client's and a backend's stream; `run` once."""

    def __init__(self, client: Stream, backend: Stream, idle: float, clock: IReactorTime) -> None:
        self._clock = clock
        self._idle = idle / IDLE_CHECKS
        self._client = _Leg(self, client, Ending.CLIENT)
        self._backend = _Leg(self, backend, Ending.BACKEND)
        self._ending: Ending | None = None
        self._done: Deferred[Ending] = Deferred(lambda _: self.end(Ending.CUT))
        self._timer: IDelayedCall | None = None

    @property
    def received(self) -> int:
        """Bytes from the client."""
        return self._client.count

    @property
    def sent(self) -> int:
        """Bytes to the client."""
        return self._backend.count

    def run(self) -> Deferred[Ending]:
        """Join the streams; what they have not read goes first.

        :returns: fires once both legs are gone, with what ended it: of the legs, the one that ended
            first. Cancelling it closes both legs and fails it at once, as any Deferred.
        """
        legs = self._client, self._backend
        unread = [leg.stream.detach(leg) for leg in legs]
        for leg, peer in (legs, legs[::-1]):
            leg.join(peer)
        for leg, data in zip(legs, unread, strict=True):
            if data:
                leg.dataReceived(data)
        for leg in legs:
            if leg.stream.lost:
                leg.connectionLost(Failure(ConnectionError()))
            elif leg.stream.ended:
                leg.readConnectionLost()
        if self._ending is None:
            self._watch(-1, 0)
        return self._done

    def _watch(self, before: int, quiet: int) -> None:
        """Close a bridge over which no byte has gone at `IDLE_CHECKS` looks in turn."""
        total = self.received + self.sent
        quiet = quiet + 1 if total == before else 0
        if quiet >= IDLE_CHECKS:
            self.end(Ending.IDLE)
            return
        self._timer = self._clock.callLater(self._idle, self._watch, total, quiet)

    def end(self, ending: Ending) -> None:
        """Close both legs after what is on its way; the first reason counts."""
        if self._ending is None:
            self._ending = ending
            if self._timer is not None and self._timer.active():
                self._timer.cancel()
            drain = ending in (Ending.CLIENT, Ending.BACKEND)
            for leg in (self._client, self._backend):
                leg.stream.close(DRAIN_GRACE if drain else CLOSE_GRACE)
        if self._client.lost and self._backend.lost and not self._done.called:
            self._done.callback(self._ending)
