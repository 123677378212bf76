"""Two legs joined: what one side sends, the other gets, until both are gone.

Knows flow control, half-close, idle time and byte counts; must not know any protocol, account or
destination. Transports that can be joined move the bytes by themselves; with others it is a count
and a write per chunk.
"""

import enum
from collections.abc import Callable
from typing import TypeGuard

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime
from twisted.python.failure import Failure
from zope.interface import implementer

from mailproxy.idle import IdleWatch
from mailproxy.stream import CLOSE_GRACE, Stream
from mailproxy.transport import JoinableConnection

DRAIN_GRACE = 60.0
"""Seconds for which a slow reader of the last bytes of a leg that has closed may pause."""

LAST_ANSWER = 5.0
"""Seconds of silence after which a TLS backend is told that its client has ended its side. To some,
Dovecot among them, a close-notify ends both sides: they drop what is still to be answered."""

LAST_LOOKS = 5
"""Looks in that time, which may so last a fifth longer."""


class Ending(enum.Enum):
    """Which event ended a bridge."""

    CLIENT = "client closed"
    BACKEND = "backend closed"
    IDLE = "idle"
    CUT = "cut"


@implementer(IPushProducer)
class _Leg:
    """One leg, as the receiver of its stream's events; `peer` is the leg that its bytes go to."""

    __slots__ = (
        "bridge",
        "ended",
        "ending",
        "joined",
        "lost",
        "paused",
        "peer",
        "stream",
        "written",
    )

    def __init__(self, bridge: "Bridge", stream: Stream, ending: Ending) -> None:
        self.bridge, self.stream, self.ending = bridge, stream, ending
        self.joined: JoinableConnection | None = None
        self.written = 0
        self.ended = self.lost = self.paused = False

    @property
    def count(self) -> int:
        """Bytes that have come from this leg."""
        return self.written + (self.joined.moved if self.joined is not None else 0)

    def join(self, peer: "_Leg") -> None:
        """Let our bytes go to `peer`, and stop reading while it does not take them."""
        self.peer = peer
        source, sink = self.stream.transport, peer.stream.transport
        if peer.stream.lost:
            return
        if _joinable(source) and _joinable(sink):
            if not self.stream.lost:
                self.joined = source
                source.joinTo(sink)
        else:
            sink.registerProducer(self, True)

    def part(self) -> None:
        """Let no more bytes go by themselves."""
        if self.joined is not None:
            self.joined.joinTo(None)

    def leave(self) -> None:
        """Keep the count alone; nothing is heard of any more."""
        self.written, self.joined = self.count, None
        del self.peer, self.bridge

    def pauseProducing(self) -> None:
        """Stop reading: the peer does not take our bytes."""
        self.paused = True
        self.stream.transport.pauseProducing()

    def resumeProducing(self) -> None:
        """Read on."""
        self.paused = False
        self.stream.transport.resumeProducing()

    def stopProducing(self) -> None:
        """The peer is lost; how we end is for `connectionLost` to say, which follows."""

    def dataReceived(self, data: bytes) -> None:
        """Pass bytes on."""
        self.written += len(data)
        self.peer.stream.transport.write(data)

    def readConnectionLost(self) -> None:
        """Carry the end of one direction over."""
        self.ended = True
        if self.peer.ended:
            self.bridge.end(self.peer.ending)  # it was the first
        elif not self.peer.lost:
            self.bridge.carryOver(self)

    def finish(self) -> None:
        """End what we write to this leg while still reading from it."""
        transport = self.stream.transport
        transport.unregisterProducer()
        if self.stream.endsByHalves:
            transport.loseWriteConnection()
        else:
            # Twisted's TLS: a close-notify ends our direction, what the peer still sends is heard.
            transport.loseConnection()
            self.stream.finished = True

    @property
    def waits(self) -> bool:
        """Whether bytes of the other leg wait here to be taken."""
        return self.peer.paused or (self.peer.joined is not None and self.peer.joined.held)

    def connectionLost(self, reason: Failure) -> None:
        """The leg is gone: end the other one too, and cleanly only if this one ended so."""
        first = self.peer if self.peer.ended and not self.ended else self
        # What had ended before was whole: a reset behind that says nothing of it.
        whole = self.ended or isinstance(reason.value, ConnectionDone)
        self.lost = self.ended = True
        self.bridge.end(first.ending, whole=whole)


class Bridge:
    """Joins a client's and a backend's stream; `join` or `run`, once."""

    __slots__ = (
        "_backend",
        "_client",
        "_clock",
        "_ending",
        "_over",
        "_patience",
        "_seen",
        "_watch",
        "quiet",
    )

    def __init__(self, client: Stream, backend: Stream, idle: float, clock: IReactorTime) -> None:
        self._clock = clock
        self._watch = IdleWatch.over(clock, idle)
        self._client = _Leg(self, client, Ending.CLIENT)
        self._backend = _Leg(self, backend, Ending.BACKEND)
        self._ending: Ending | None = None
        self._over: Callable[[Ending], None] | None = None
        self._patience: IDelayedCall | None = None
        self._seen = -1
        self.quiet = 0

    @property
    def received(self) -> int:
        """Bytes from the client."""
        return self._client.count

    @property
    def sent(self) -> int:
        """Bytes to the client."""
        return self._backend.count

    def run(self) -> Deferred[Ending]:
        """Join the streams.

        :returns: fires once both legs are gone, with what ended it: of the legs, the one that ended
            first. Cancelling it closes both legs and fails it at once, as any Deferred.
        """
        done: Deferred[Ending] = Deferred(lambda _: self.end(Ending.CUT))
        self.join(lambda ending: None if done.called else done.callback(ending))
        return done

    def join(self, over: Callable[[Ending], None]) -> None:
        """Join the streams; what they have not read goes first.

        :param over: called as the Deferred of `run` is fired.
        """
        self._over = over
        legs = self._client, self._backend
        unread = [leg.stream.detach(leg) for leg in legs]
        for leg, peer in (legs, legs[::-1]):
            leg.join(peer)
        self._watch.watch(self)
        for leg, data in zip(legs, unread, strict=True):
            if data:
                leg.dataReceived(data)
        for leg in legs:
            if leg.lost:
                continue  # it has gone with the other one
            if leg.stream.lost:
                leg.connectionLost(leg.stream.reason)
            elif leg.stream.ended:
                leg.readConnectionLost()

    def hush(self) -> bool:
        """Tell whether no byte has moved since the last time."""
        before, self._seen = self._seen, self.received + self.sent
        return self._seen == before

    def idled(self) -> None:
        """Close what has been silent for too long."""
        self.end(Ending.IDLE)

    def carryOver(self, leg: _Leg) -> None:
        """Pass the end of one direction on; the first, so the other direction goes on."""
        if leg is self._backend:
            self._client.finish()
            self._endWhenQuiet()
        elif self._backend.stream.secure:
            self._finishWhenQuiet()
        else:
            self._backend.finish()

    def _finishWhenQuiet(self, before: int = -1, quiet: int = 0) -> None:
        """End what we write to a backend once it has said nothing, and could have, for a while."""
        if self._ending is not None:
            return
        quiet = quiet + 1 if self.sent == before and not self._client.waits else 0
        if quiet == LAST_LOOKS:
            self._backend.finish()
            return
        pause = LAST_ANSWER / LAST_LOOKS
        self._patience = self._clock.callLater(pause, self._finishWhenQuiet, self.sent, quiet)

    def _endWhenQuiet(self, before: int = -1) -> None:
        """Close once a client that knows of its backend's end has said nothing for a while."""
        if self._ending is not None:
            return  # a client that has been told may have left at once
        if self.received == before and self._client.stream.finished:
            self.end(Ending.BACKEND)
            return
        self._patience = self._clock.callLater(CLOSE_GRACE, self._endWhenQuiet, self.received)

    def end(self, ending: Ending, *, whole: bool = True) -> None:
        """Close both legs after what is on its way; the first reason counts.

        :param whole: whether all has come that was to come: else nobody may take it for that.
        """
        if self._ending is None:
            self._ending = ending
            self._watch.forget(self)
            if self._patience is not None and self._patience.active():
                self._patience.cancel()
            for leg in (self._client, self._backend):
                leg.part()
                if ending in (Ending.CLIENT, Ending.BACKEND):
                    leg.stream.close(DRAIN_GRACE, whole=whole)
                else:
                    leg.stream.close(whole=whole, longest=CLOSE_GRACE)
        over = self._over
        if over is not None and self._client.lost and self._backend.lost:
            self._over = None
            for leg in (self._client, self._backend):
                leg.leave()
            over(self._ending)


def _joinable(transport: object) -> TypeGuard[JoinableConnection]:
    return isinstance(transport, JoinableConnection) and transport.joinable
