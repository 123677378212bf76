"""How the sessions of a process that stops come to their ends: by themselves, or a few at a time.

Knows the live sessions and a grace time; must not know what a session does with its end.
"""

from math import ceil

from twisted.internet.interfaces import IReactorTime

from mailproxy.logs import Logger
from mailproxy.registry import Registry
from mailproxy.waiting import pause

__all__ = ["Drain"]

STEP = 0.05
"""Seconds between two looks at who is left."""

QUIET = 1.0
"""Seconds after which a session that has moved no byte counts as one that waits."""

SPREAD = 0.5
"""The share of the grace time over which those who are left are cut."""


class Drain:
    """One process's farewell.

    Whoever has not logged in is sent away at once. The others are left alone for the first half of
    the grace time, and are cut one after the other in the second: clients call again when they are
    cut, and all at once would be a storm for whoever answers then. Sessions that move nothing go
    before those in the middle of something.
    """

    log = Logger()

    def __init__(self, registry: Registry, clock: IReactorTime) -> None:
        self._registry, self._clock = registry, clock
        self._volumes: dict[str, int] = {}
        self._busy: set[str] = set()
        self._seen = 0.0

    async def run(self, grace: float) -> None:
        """End all sessions within so many seconds."""
        for session in self._registry.find():
            session.shutDown(bridged=False)
        self._look()
        if left := self._registry.count():
            text = "waiting at most {seconds:g} s for sessions that are left: {sessions}"
            self.log.info(text, seconds=grace, sessions=left)
        end = self._clock.seconds() + grace
        spread = grace * SPREAD
        while self._registry.count() and self._clock.seconds() < end - spread:
            await pause(self._clock, STEP)
        most = self._registry.count()
        while self._registry.count() and self._clock.seconds() < end:
            self._leave(ceil(most * (end - self._clock.seconds()) / spread))
            await pause(self._clock, STEP)
        self._leave(0)

    def _leave(self, survivors: int) -> None:
        """Cut as many sessions as leaves no more than these."""
        excess = self._registry.count() - survivors
        if excess <= 0:
            return
        if self._clock.seconds() - self._seen >= QUIET:
            self._look()
        for session in sorted(self._registry.find(), key=lambda each: each.id in self._busy)[
            :excess
        ]:
            session.shutDown(bridged=True)

    def _look(self) -> None:
        """Note what each session has moved so far, and which have moved something lately."""
        volumes = {each.id: each.received + each.sent for each in self._registry.find()}
        self._busy = {id for id, moved in volumes.items() if moved != self._volumes.get(id, moved)}
        self._volumes, self._seen = volumes, self._clock.seconds()
