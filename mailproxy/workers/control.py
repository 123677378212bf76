"""Management's questions, put to all workers.

Knows whom to ask for what and what must be seen by all before an answer; must not know how a
worker finds its own.
"""

from collections.abc import Callable, Coroutine, Mapping
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from zope.interface import implementer

from mailproxy.config.model import Config
from mailproxy.control import Facts, IControl
from mailproxy.errors import MappingError, PeerGone, Unanswered
from mailproxy.identity import IdentityRules
from mailproxy.logformat import LineObserver
from mailproxy.logs import Logger
from mailproxy.seat import Seat
from mailproxy.workers import logs, merge
from mailproxy.workers.adopter import FleetAdopter
from mailproxy.workers.fleet import ANSWER_PATIENCE, START_PATIENCE, Fleet
from mailproxy.workers.handle import Handle, Hooks

__all__ = ["FleetControl", "Shared", "ownCounts"]

T = TypeVar("T")


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
        """Pass news of a destination on."""
        for each in self._others(handle):
            each.ask(ANSWER_PATIENCE, "hear", facts).addErrback(self._passOver)

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
        """Tell a worker what all others know."""
        self._introduced.add(handle.number)
        self._forgetHolds()
        now = self._clock.seconds()
        for identifier, until in self.holds.items():
            await handle.ask(ANSWER_PATIENCE, "hold", identifier, until - now)
        for (listener, number), places in self._lent.items():
            if number == handle.number:
                await handle.ask(ANSWER_PATIENCE, "grow", listener, places)
        if self.fleet.serving:
            known = await self.fleet.reachOne("health")
            await handle.ask(ANSWER_PATIENCE, "restore", known)

    def hold(self, identifier: str, seconds: float) -> None:
        """Note that logins wait; 0: no longer."""
        self._forgetHolds()
        self.holds.pop(identifier, None)
        if seconds > 0:
            self.holds[identifier] = self._clock.seconds() + seconds

    def _forgetHolds(self) -> None:
        now = self._clock.seconds()
        self.holds = {name: until for name, until in self.holds.items() if until > now}


@implementer(IControl)
class FleetControl:
    """Answers for all workers.

    :param rules: gives the rules for identifiers in force.
    """

    log = Logger()

    def __init__(
        self,
        fleet: Fleet,
        shared: Shared,
        adopter: FleetAdopter,
        rules: Callable[[], IdentityRules],
        reload: Callable[[], Deferred[list[str]]],
    ) -> None:
        self._fleet, self._shared, self._adopter = fleet, shared, adopter
        self._rules, self._reload = rules, reload

    def _begun(self) -> Deferred[None]:
        def failed(failure: Failure) -> None:
            raise Unanswered("no worker serves: the start has failed") from failure.value

        return self._fleet.ready().addErrback(failed)

    def _when(self, work: Callable[[], Coroutine[Any, Any, T]]) -> Deferred[T]:
        """Do something once all workers serve for the first time."""
        return self._begun().addCallback(lambda _: Deferred.fromCoroutine(work()))

    def _changing(self, work: Callable[[], Coroutine[Any, Any, T]]) -> Deferred[T]:
        """Do something that a worker which begins meanwhile must not miss."""
        return self._begun().addCallback(lambda _: self._fleet.turns.together(work))

    # Looking

    def stats(self) -> Deferred[Facts]:
        """Count lookups and live sessions, and tell of the workers.

        What one knows that does not answer is not counted; it is `silent` then.
        """
        return self._when(self._stats)

    async def _stats(self) -> Facts:
        answers = dict(await self._fleet.askThoseAwake("stats"))
        return {
            **merge.stats(list(answers.values())),
            "workers": self._fleet.report(answers),
            "worker_restarts": self._fleet.restarts,
        }

    def metrics(self) -> Deferred[str]:
        """Write all counts, those of workers that have ended included."""
        return self._when(self._metrics)

    async def _metrics(self) -> str:
        for handle, counts in await self._fleet.askEach("ping"):
            self._shared.counted(handle, counts)
        total = self._shared.past
        for counts in self._shared.counts.values():
            total = merge.add(total, counts)
        return merge.render({**total, **ownCounts(len(self._fleet.serving), self._fleet.restarts)})

    def destinations(self) -> Deferred[list[Facts]]:
        """Tell the health of each destination; each worker knows that of all."""
        return self._when(self._destinations)

    async def _destinations(self) -> list[Facts]:
        found = await self._fleet.askThoseAwake("destinations")
        return merge.destinations([answer for _, answer in found])

    def mapping(self, identifier: str) -> Deferred[Facts]:
        """Tell where an account would go now; it is `cached` if any worker remembers it."""
        return self._when(lambda: self._mapping(identifier))

    async def _mapping(self, identifier: str) -> Facts:
        remembered = dict(await self._fleet.askThoseAwake("peek", identifier))
        patience = self._adopter.config.mapping.lookup_timeout + ANSWER_PATIENCE
        facts = await self._fleet.askOne(list(remembered), patience, "mapping", identifier)
        return {**facts, "cached": any(remembered.values())}

    def connections(
        self, identifier: str | None, destination: str | None, protocol: str | None
    ) -> Deferred[list[Facts]]:
        """List live sessions."""
        return self._when(lambda: self._connections(identifier, destination, protocol))

    async def _connections(self, *words: str | None) -> list[Facts]:
        return merge.connections(await self._fleet.askAll("connections", *words))

    # Changing

    def resetDestination(self, destination: str) -> Deferred[None]:
        """Forget a destination's failures."""
        return self._changing(lambda: self._tellAll("resetDestination", destination))

    def invalidate(self, identifier: str | None) -> Deferred[None]:
        """Ask the store anew."""
        return self._changing(lambda: self._tellAll("invalidate", identifier))

    async def _tellAll(self, method: str, *words: Any) -> None:
        await self._fleet.reachAll(method, *words)

    def setMapping(self, identifier: str, destination: str) -> Deferred[None]:
        """Write where an account lives; answered when all workers see it."""
        return self._changing(lambda: self._write("setMapping", identifier, destination))

    def removeMapping(self, identifier: str) -> Deferred[bool]:
        """Remove an account's mapping, likewise."""
        return self._changing(lambda: self._write("removeMapping", identifier))

    async def _write(self, method: str, identifier: str, *words: str) -> Any:
        """Let one worker write, and all others know.

        What has failed may have been done all the same: then everybody asks the store anew, and
        nobody takes it for known.
        """
        try:
            result = await self._fleet.reachOne(method, identifier, *words)
            await self._shared.followed()
        except (MappingError, Unanswered):
            await self._fleet.reachAll("invalidate", identifier)
            raise
        await self._fleet.reachAll("learn", identifier, *(words or (None,)))
        return result

    def reloadMappings(self) -> Deferred[None]:
        """Read the store again, in all workers or in none."""
        work = self._reloadMappings
        return self._begun().addCallback(lambda _: self._fleet.turns.alone(work))

    async def _reloadMappings(self) -> None:
        if not await self._adopter.rereadMapping():
            await self._fleet.reachAll("reloadMappings")

    def kick(self, identifier: str) -> Deferred[int]:
        """End an account's sessions."""
        return self._when(lambda: self._kick(identifier))

    async def _kick(self, identifier: str) -> int:
        return sum(await self._fleet.reachAll("kick", identifier))

    def delay(self, identifier: str, seconds: int) -> Deferred[None]:
        """Let an account's new logins wait, also at workers that begin meanwhile."""
        return self._changing(lambda: self._delay(identifier, seconds))

    async def _delay(self, identifier: str, seconds: int) -> None:
        self._shared.hold(self._rules().normalize(identifier), seconds)
        await self._fleet.reachAll("delay", identifier, seconds)

    def reload(self) -> Deferred[list[str]]:
        """Take the configuration file as it is now into use."""
        return self._begun().addCallback(lambda _: self._reload())


def ownCounts(serving: int, restarts: int) -> merge.Counts:
    """What the parent itself counts."""
    workers, started = "mailproxy_workers", "mailproxy_worker_restarts"
    return {
        workers: {
            "type": "gauge",
            "text": "Worker processes that serve.",
            "samples": [[workers, {}, serving]],
        },
        started: {
            "type": "counter",
            "text": "Worker processes that were started in the place of one that had ended.",
            "samples": [[f"{started}_total", {}, restarts]],
        },
    }
