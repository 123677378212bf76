"""Bounds for waiting: every wait in a session has an owner and an end."""

from collections.abc import Coroutine
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.error import TimeoutError as TimedOut
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

__all__ = ["TimedOut", "pause", "within"]

T = TypeVar("T")


def within(
    clock: IReactorTime, seconds: float, work: Coroutine[Deferred[Any], Any, T]
) -> Deferred[T]:
    """Run a coroutine for at most so many seconds, then cancel it.

    :raises TimedOut: when it has not ended in time.
    """
    running = Deferred.fromCoroutine(work)
    if running.called:
        return running
    limit = _Limit(running)
    limit.timer = clock.callLater(max(0.0, seconds), limit.expire)
    return running.addBoth(limit.settle)


class _Limit:
    """The end of the time for some work."""

    __slots__ = ("_isLate", "_running", "timer")
    timer: IDelayedCall

    def __init__(self, running: Deferred[Any]) -> None:
        self._running = running
        self._isLate = False

    def expire(self) -> None:
        """Stop the work."""
        self._isLate = True
        self._running.cancel()

    def settle(self, result: T | Failure) -> T | Failure:
        """Pass its result on; what comes when it is stopped does not count."""
        if self._isLate:
            raise TimedOut()
        self.timer.cancel()
        return result


def pause(clock: IReactorTime, seconds: float) -> Deferred[None]:
    """Wait for so many seconds."""
    return deferLater(clock, seconds, lambda: None)
