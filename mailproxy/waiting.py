"""Bounds for waiting: every wait in a session has an owner and an end."""

from collections.abc import Coroutine
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.error import TimeoutError as TimedOut
from twisted.internet.interfaces import IReactorTime
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

    def expired(result: T | Failure, _: float) -> T:
        raise TimedOut()

    return running.addTimeout(max(0.0, seconds), clock, expired)


def pause(clock: IReactorTime, seconds: float) -> Deferred[None]:
    """Wait for so many seconds."""
    return deferLater(clock, seconds, lambda: None)
