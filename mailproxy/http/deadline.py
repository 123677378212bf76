"""One timer for all the waits of a connection, which come one after the other.

To begin a wait, and to note progress in it, costs an assignment: the timer runs on and looks again.
"""

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime

LOOKS = 4
"""Looks at a sign of progress per limit: a wait ends at most a quarter of it late."""


class Deadline:
    """Calls back when a wait has lasted too long without progress."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._limit = self._at = 0.0
        self._expired: Callable[[], None] | None = None
        self._sign: Callable[[], object] | None = None
        self._seen: object = None
        self._timer: IDelayedCall | None = None

    def begin(
        self,
        seconds: float,
        expired: Callable[[], None],
        sign: Callable[[], object] | None = None,
    ) -> None:
        """Begin a wait; it ends the one before.

        :param expired: called once after so many seconds without `progress`.
        :param sign: gives what changes when there is progress of which nobody tells us.
        """
        self._limit, self._expired, self._sign, self._seen = seconds, expired, sign, None
        self.progress()
        pause = seconds if sign is None else seconds / LOOKS
        if self._timer is None:
            self._timer = self._clock.callLater(pause, self._look)
        elif self._timer.getTime() > self._at - seconds + pause:
            self._timer.reset(pause)

    def progress(self) -> None:
        """Note that something has happened: the time begins anew."""
        self._at = self._clock.seconds() + self._limit

    def end(self) -> None:
        """End the wait."""
        self._expired = None

    def close(self) -> None:
        """Stop the timer."""
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _look(self) -> None:
        """Call back if it is time; else look again when it may be."""
        self._timer = None
        expired = self._expired
        if expired is None:
            return
        pause = self._limit
        if self._sign is not None:
            pause /= LOOKS
            self._compare(self._sign())
        left = self._at - self._clock.seconds()
        if left > 0:
            self._timer = self._clock.callLater(min(left, pause), self._look)
        else:
            self._expired = None
            expired()

    def _compare(self, seen: object) -> None:
        """Take a change since the last look for progress."""
        before, self._seen = self._seen, seen
        if before not in (None, seen):
            self.progress()
