"""Management's questions, put to all workers.

Knows whom to ask for what and what must be seen by all before an answer; must not know how a
worker finds its own.
"""

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from zope.interface import implementer

from mailproxy.control import Facts, IControl
from mailproxy.errors import MappingError, Unanswered
from mailproxy.identity import IdentityRules
from mailproxy.workers import merge
from mailproxy.workers.adopter import FleetAdopter
from mailproxy.workers.fleet import ANSWER_PATIENCE, Fleet
from mailproxy.workers.shared import Shared

__all__ = ["FleetControl", "ownCounts"]

T = TypeVar("T")


@implementer(IControl)
class FleetControl:
    """Answers for all workers.

    :param rules: gives the rules for identifiers in force.
    """

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
