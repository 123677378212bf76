"""Bounds for waiting: every wait in a session has an owner and an end.

Many wait for equally long, and few of them to the end: so one timer of the clock serves all of
those, and to begin and to end a wait is to put it into a dict and to take it out. Must not know who
waits, nor for what.
"""

from collections.abc import Coroutine, Generator
from itertools import takewhile
from typing import Any, Generic, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.error import TimeoutError as TimedOut
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import deferLater

from mailproxy.logs import Logger

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
        """Give what comes of the work in time."""
        deadlines = _Deadlines.after(self._clock, self._seconds)
        try:
            result = yield from self._lead(deadlines)
        except GeneratorExit:
            raise  # nobody waits any more
        except BaseException:
            if not self._isLate:
                raise
        else:
            if not self._isLate:
                return result
        finally:
            deadlines.remove(self)
        raise TimedOut()

    def _lead(self, deadlines: "_Deadlines") -> Generator[Deferred[Any], Any, T]:
        """Lead the work from one wait to the next."""
        work = self._work
        try:
            self._waitsFor = work.send(None)
            deadlines.add(self)
            while True:
                try:
                    result = yield self._waitsFor
                except GeneratorExit:
                    work.close()
                    raise
                except BaseException as error:
                    self._waitsFor = work.throw(error)
                else:
                    self._waitsFor = work.send(result)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]

    def expire(self) -> None:
        """Stop the work; what still comes of it does not count."""
        self._isLate = True
        self._waitsFor.cancel()


class _Deadlines:
    """The ends of all waits that last equally long on the same clock, soonest first."""

    log = Logger()
    _all: dict[tuple[IReactorTime, float], "_Deadlines"] = {}

    def __init__(self, clock: IReactorTime, seconds: float) -> None:
        self._clock, self._seconds = clock, seconds
        self._ends: dict[Within[Any], float] = {}
        self._latest = 0.0
        self._timer: IDelayedCall | None = None

    @classmethod
    def after(cls, clock: IReactorTime, seconds: float) -> "_Deadlines":
        """Find those for a clock and a time, or begin with them; they are there while needed."""
        found = cls._all.get((clock, seconds))
        return cls(clock, seconds) if found is None else found

    def add(self, waiting: Within[Any]) -> None:
        """Begin to wait."""
        end = self._clock.seconds() + self._seconds
        if end < self._latest:
            self._bringForward(end)
        self._ends[waiting] = self._latest = end
        if self._timer is None:
            self._rest()

    def remove(self, waiting: Within[Any]) -> None:
        """Wait no more."""
        self._ends.pop(waiting, None)
        if not self._ends:
            self._rest()

    def _bringForward(self, end: float) -> None:
        """Let nobody wait for longer: the clock has been set back, which moves no end by itself."""
        self._ends = {waiting: min(each, end) for waiting, each in self._ends.items()}
        self._stop()

    def _rest(self) -> None:
        """Have a timer while somebody waits."""
        place = self._clock, self._seconds
        if self._ends and self._timer is None:
            self._all[place] = self
            soonest = next(iter(self._ends.values()))
            left = max(0.0, soonest - self._clock.seconds())
            self._timer = self._clock.callLater(left, self._look)
        elif not self._ends:
            if self._all.get(place) is self:
                del self._all[place]
            self._stop()

    def _stop(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _look(self) -> None:
        """End the waits whose time is over."""
        self._timer, now = None, self._clock.seconds()
        for waiting, _ in list(takewhile(lambda each: each[1] <= now, self._ends.items())):
            if self._ends.pop(waiting, None) is None:
                continue  # the end of another has ended it
            try:
                waiting.expire()
            except Exception:  # the others must end in time all the same
                self.log.failure("the end of a wait met a bug")
        self._rest()


def pause(clock: IReactorTime, seconds: float) -> Deferred[None]:
    """Wait for so many seconds."""
    return deferLater(clock, seconds, lambda: None)
