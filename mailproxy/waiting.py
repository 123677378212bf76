"""Bounds for waiting: every wait in a session has an owner and an end.

Many wait for equally long, and few of them to the end: so one timer of the clock serves all of
those, and to begin and to end a wait is to put it into a dict and to take it out.
"""

from collections.abc import Coroutine, Generator
from typing import Any, Generic, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.error import TimeoutError as TimedOut
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import deferLater

__all__ = ["TimedOut", "Within", "pause", "within"]

T = TypeVar("T")


def within(
    clock: IReactorTime, seconds: float, work: Coroutine[Deferred[Any], Any, T]
) -> "Within[T]":
    """Run a coroutine for at most so many seconds, then cancel it; to be awaited, once.

    :raises TimedOut: when it has not ended in time.
    """
    return Within(clock, max(0.0, seconds), work)


class Within(Generic[T]):
    """Some work and the end of its time.

    What the work waits for is waited for by whoever awaits this: there is no Deferred in between.
    """

    __slots__ = ("_clock", "_isLate", "_seconds", "_waitsFor", "_work")
    _waitsFor: Deferred[Any]

    def __init__(
        self, clock: IReactorTime, seconds: float, work: Coroutine[Deferred[Any], Any, T]
    ) -> None:
        self._clock, self._seconds, self._work = clock, seconds, work
        self._isLate = False

    def __await__(self) -> Generator[Deferred[Any], Any, T]:
        """Lead the work from one wait to the next."""
        work, deadlines = self._work, None
        try:
            self._waitsFor = work.send(None)
            deadlines = _Deadlines.after(self._clock, self._seconds)
            deadlines.add(self)
            while True:
                try:
                    result = yield self._waitsFor
                except BaseException as error:
                    self._waitsFor = work.throw(error)
                else:
                    self._waitsFor = work.send(result)
        except StopIteration as end:
            if not self._isLate:
                return end.value  # type: ignore[no-any-return]
        except BaseException:
            if not self._isLate:
                raise
        finally:
            if deadlines is not None:
                deadlines.remove(self)
        raise TimedOut()

    def expire(self) -> None:
        """Stop the work; what still comes of it does not count."""
        self._isLate = True
        self._waitsFor.cancel()


class _Deadlines:
    """The ends of all waits that last equally long on the same clock, soonest first."""

    _all: dict[tuple[IReactorTime, float], "_Deadlines"] = {}

    def __init__(self, clock: IReactorTime, seconds: float) -> None:
        self._clock, self._seconds = clock, seconds
        self._ends: dict[Within[Any], float] = {}
        self._timer: IDelayedCall | None = None

    @classmethod
    def after(cls, clock: IReactorTime, seconds: float) -> "_Deadlines":
        """Find those for a clock and a time, or begin with them; they are there while needed."""
        found = cls._all.get((clock, seconds))
        return cls(clock, seconds) if found is None else found

    def add(self, waiting: Within[Any]) -> None:
        """Begin to wait."""
        self._ends[waiting] = self._clock.seconds() + self._seconds
        if self._timer is None:
            self._rest()

    def remove(self, waiting: Within[Any]) -> None:
        """Wait no more."""
        self._ends.pop(waiting, None)
        if not self._ends:
            self._rest()

    def _rest(self) -> None:
        """Have a timer while somebody waits."""
        if self._ends and self._timer is None:
            self._all[self._clock, self._seconds] = self
            soonest = next(iter(self._ends.values()))
            self._timer = self._clock.callLater(
                max(0.0, soonest - self._clock.seconds()), self._look
            )
        elif not self._ends:
            self._all.pop((self._clock, self._seconds), None)
            timer, self._timer = self._timer, None
            if timer is not None:
                timer.cancel()

    def _look(self) -> None:
        """End the waits whose time is over."""
        self._timer, now = None, self._clock.seconds()
        for waiting in [each for each, end in self._ends.items() if end <= now]:
            if self._ends.pop(waiting, None) is not None:  # else the end of another has ended it
                waiting.expire()
        self._rest()


def pause(clock: IReactorTime, seconds: float) -> Deferred[None]:
    """Wait for so many seconds."""
    return deferLater(clock, seconds, lambda: None)
