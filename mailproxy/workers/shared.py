"""What all workers have in common, kept by their parent: news, room, what a new one must know.

Knows what a worker may say and ask, and whom else it concerns; must not know management's
questions.
"""

from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from mailproxy.config.model import Config
from mailproxy.control import Facts
from mailproxy.errors import PeerGone, Unanswered
from mailproxy.logformat import LineObserver
from mailproxy.logs import Logger
from mailproxy.seat import Seat
from mailproxy.workers import logs, merge
from mailproxy.workers.fleet import ANSWER_PATIENCE, START_PATIENCE, Fleet
from mailproxy.workers.handle import Handle, Hooks, State

__all__ = ["Shared"]


class Shared:
    """What workers tell their parent, and what it keeps for those that begin.

    :ivar counts: the last known metrics of each worker, by its seat.
    :ivar past: those of workers that have ended.
    :ivar holds: logins on hold: identifier -> until when.
    :ivar limitOf: tells a listener's `max_connections`.
    :ivar observer: writes lines that workers have made; None: they send events.
    """

    log = Logger()
    fleet: Fleet
    limitOf: Callable[[str], int]
    observer: LineObserver | None = None

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self.counts: dict[int, merge.Counts] = {}
        self.past: merge.Counts = {}
        self.holds: dict[str, float] = {}
        self._lent: dict[tuple[str, int], int] = {}
        self._owing: set[Handle] = set()
        self._introduced: set[int] = set()
        self._newcomer: Handle | None = None
        self._untold: list[tuple[Handle, list[Any]]] | None = None
        self._following: set[Deferred[Any]] = set()

    def hooks(self) -> Hooks:
        """What workers may ask and say."""
        topics: Mapping[str, Callable[..., Any]] = {
            "events": self._logged,
            "lines": self._lined,
            "news": self._news,
            "rewrite": self._rewritten,
        }
        methods: Mapping[str, Callable[..., Any]] = {
            "borrow": self._borrow,
            "goodbye": self._goodbye,
        }
        return Hooks(methods, topics, self._ended)

    def _logged(self, handle: Handle, events: list[Facts]) -> None:
        for facts in events:
            logs.publish(handle.number + 1, facts)

    def _lined(self, handle: Handle, lines: list[str]) -> None:
        if self.observer is not None:
            self.observer.write("".join(lines))

    def _goodbye(self, handle: Handle) -> None:
        """Hear from a worker that has said all."""

    def _ended(self, handle: Handle, reason: str) -> None:
        """Keep the counters of a worker that has ended: they may only grow."""
        self._introduced.discard(handle.number)
        last = self.counts.pop(handle.number, {})
        self.past = merge.add(self.past, merge.lasting(last))

    def counted(self, handle: Handle, counts: merge.Counts) -> None:
        """Note a worker's metrics."""
        self.counts[handle.number] = counts

    def _news(self, handle: Handle, facts: list[Any]) -> None:
        """Pass news of a destination on, also to a worker that is about to serve."""
        if self._untold is not None:
            self._untold.append((handle, facts))
        for each in self._others(handle):
            self._tellNews(each, facts)
        if self._newcomer is not None and self._newcomer.state is State.STARTING:
            self._tellNews(self._newcomer, facts)

    def _tellNews(self, handle: Handle, facts: list[Any]) -> None:
        handle.ask(ANSWER_PATIENCE, "hear", facts).addErrback(self._passOver)

    def _others(self, handle: Handle) -> list[Handle]:
        return [each for each in self.fleet.serving if each is not handle]

    def _passOver(self, failure: Any) -> None:
        failure.trap(PeerGone, Unanswered)

    # The mapping file

    def _rewritten(self, handle: Handle, facts: Facts) -> None:
        """Let the others follow, whoever has asked for the write."""
        for each in self._others(handle):
            following = each.watch(each.ask(START_PATIENCE, "follow", facts))
            self._following.add(following)
            following.addBoth(self._followed, each, following)

    def _followed(self, result: Any, handle: Handle, following: Deferred[Any]) -> None:
        """Let nobody go on who has not followed."""
        self._following.discard(following)
        if isinstance(result, Failure) and result.check(PeerGone) is None:
            self.log.warn(
                "worker {worker} did not follow a write: it is started anew ({error})",
                worker=handle.number + 1,
                error=result.getErrorMessage(),
            )
            handle.kill()

    async def followed(self) -> None:
        """Wait until all who go on have followed what was written so far."""
        await DeferredList(list(self._following))

    # Room

    def _borrow(self, handle: Handle, listener: str) -> Deferred[int]:
        return Deferred.fromCoroutine(self._borrowFor(handle, listener))

    async def _borrowFor(self, handle: Handle, listener: str) -> int:
        """Find room for a worker whose share of a listener's connections is used up.

        One that is away has no connections: we give of its share in its stead.
        """
        for number in self.fleet.away:
            given = self._lendOf(listener, number)
            if given:
                self._note(listener, handle.number, given)
                return given
        for each in self._others(handle):
            given = 0 if each in self._owing else await self._lentBy(each, listener)
            if given:
                self._note(listener, each.number, -given)
                self._note(listener, handle.number, given)
                return given
        return 0

    async def _lentBy(self, handle: Handle, listener: str) -> int:
        """Ask a worker for room.

        One that hangs is not asked again before it has answered, and has back what it gives then.
        """
        limit = self.limitOf(listener)

        def late(given: int | Failure) -> None:
            self._owing.discard(handle)
            if isinstance(given, int) and self.limitOf(listener) >= limit:
                restored = handle.ask(ANSWER_PATIENCE, "grow", listener, given)
                restored.addErrback(self._passOver)

        try:
            given = int(await handle.askFor(ANSWER_PATIENCE, late, "lend", listener))
        except PeerGone:
            return 0
        except Unanswered:
            self._owing.add(handle)
            return 0
        # Where there is less room by now, all shares begin anew: what was given is not there.
        return given if self.limitOf(listener) >= limit else 0

    def _lendOf(self, listener: str, number: int) -> int:
        if number in self._introduced:
            return 0  # it is on its way, and knows its share already
        share = Seat(number, self.fleet.count).share(self.limitOf(listener))
        given = max(0, share + self._lent.get((listener, number), 0) + 1) // 2
        self._note(listener, number, -given)
        return given

    def _note(self, listener: str, number: int, places: int) -> None:
        key = listener, number
        self._lent[key] = self._lent.get(key, 0) + places

    def adopted(self, former: Config) -> None:
        """Begin anew where there is less room than before; else what was lent stays lent."""
        self._lent = {
            (listener, number): places
            for (listener, number), places in self._lent.items()
            if self.limitOf(listener) >= former.listener[listener].max_connections
        }

    # Those who begin

    async def introduce(self, handle: Handle) -> None:
        """Tell a worker what all others know; one after the other is introduced."""
        self._introduced.add(handle.number)
        self._forgetHolds()
        now = self._clock.seconds()
        for identifier, until in self.holds.items():
            await handle.ask(ANSWER_PATIENCE, "hold", identifier, until - now)
        for (listener, number), places in self._lent.items():
            if number == handle.number:
                await handle.ask(ANSWER_PATIENCE, "grow", listener, places)
        if self.fleet.serving:
            await self._restore(handle)

    async def _restore(self, handle: Handle) -> None:
        """Hand over what one worker knows of destinations, then all news that it did not know."""
        knowing, untold = self.fleet.serving[0], list[tuple[Handle, list[Any]]]()
        self._untold = untold
        try:
            known = await self.fleet.reachOne("health")
        finally:
            self._untold = None
        restored = handle.ask(ANSWER_PATIENCE, "restore", known)
        for teller, facts in untold:
            if teller is not knowing:  # its own news are in what it has told
                self._tellNews(handle, facts)
        self._newcomer = handle
        await restored

    def hold(self, identifier: str, seconds: float) -> None:
        """Note that logins wait; 0: no longer."""
        self._forgetHolds()
        self.holds.pop(identifier, None)
        if seconds > 0:
            self.holds[identifier] = self._clock.seconds() + seconds

    def _forgetHolds(self) -> None:
        now = self._clock.seconds()
        self.holds = {name: until for name, until in self.holds.items() if until > now}
