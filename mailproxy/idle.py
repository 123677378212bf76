"""Silence, noticed: one timer for all that may be silent for equally long.

Knows counts that grow; must not know what they count, or what silence means.
"""

from typing import Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime

__all__ = ["IDLE_CHECKS", "IdleWatch"]

IDLE_CHECKS = 4
"""Looks at the counts per idle time: silence is noticed at most a quarter of it late."""


class Watched(Protocol):
    """Something that may fall silent.

    :ivar quiet: at how many looks in turn it has been; the watch's own to count.
    """

    quiet: int

    def hush(self) -> bool:
        """Tell whether nothing has moved since the last time that this was asked."""

    def idled(self) -> None:
        """Hear that nothing has moved for the whole time; it is watched no more."""


class IdleWatch:
    """Watches all that may be silent for the same time on the same clock."""

    _all: dict[tuple[IReactorTime, float], "IdleWatch"] = {}

    def __init__(self, clock: IReactorTime, seconds: float) -> None:
        self._clock, self._seconds = clock, seconds
        self._watched: set[Watched] = set()
        self._timer: IDelayedCall | None = None

    @classmethod
    def over(cls, clock: IReactorTime, seconds: float) -> "IdleWatch":
        """Find the one for a clock and a time, or make it; it is there while it is needed."""
        found = cls._all.get((clock, seconds))
        return cls(clock, seconds) if found is None else found

    def watch(self, watched: Watched) -> None:
        """Begin to watch."""
        watched.quiet = 0
        self._watched.add(watched)
        if self._timer is None:
            self._all[self._clock, self._seconds] = self
            self._rest()

    def forget(self, watched: Watched) -> None:
        """Watch no more."""
        self._watched.discard(watched)
        if not self._watched and self._timer is not None:
            if self._all.get(place := (self._clock, self._seconds)) is self:
                del self._all[place]
            timer, self._timer = self._timer, None
            if timer.active():
                timer.cancel()

    def _rest(self) -> None:
        self._timer = self._clock.callLater(self._seconds / IDLE_CHECKS, self._look)

    def _look(self) -> None:
        """Look at all of them; the first look at each only begins to count."""
        idle = []
        for watched in self._watched:
            watched.quiet = watched.quiet + 1 if watched.hush() else 0
            if watched.quiet >= IDLE_CHECKS:
                idle.append(watched)
        self._rest()
        for watched in idle:
            if watched in self._watched:  # else the end of another has ended it
                self.forget(watched)
                watched.idled()
