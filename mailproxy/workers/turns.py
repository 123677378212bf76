"""Whose turn it is: many small changes beside each other, or one that concerns everybody alone.

Pure but for Deferreds.
"""

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, DeferredLock, DeferredSemaphore

__all__ = ["Turns"]

T = TypeVar("T")

MOST = 64
"""Changes that may be under way beside each other."""


class Turns:
    """Who asks first comes first; a change that is alone waits for those that are under way."""

    def __init__(self) -> None:
        self._places = DeferredSemaphore(MOST)
        self._door = DeferredLock()

    def together(self, work: Callable[[], Coroutine[Any, Any, T]]) -> Deferred[T]:
        """Run beside others of this kind."""
        return self._places.run(lambda: Deferred.fromCoroutine(work()))

    def alone(self, work: Callable[[], Coroutine[Any, Any, T]]) -> Deferred[T]:
        """Run while nothing else does."""
        return self._door.run(lambda: Deferred.fromCoroutine(self._alone(work)))

    async def _alone(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        taken = 0
        try:
            while taken < MOST:
                await self._places.acquire()
                taken += 1
            return await work()
        finally:
            for _ in range(taken):
                self._places.release()
