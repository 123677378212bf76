"""Whether a worker is alive while somebody waits for what it does.

What a worker is asked for may take long: it reads a file of millions of lines. Whether it works or
hangs shows in between. Must not know what it was asked for.
"""

from collections.abc import Callable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.python.failure import Failure

from mailproxy.errors import PeerGone

__all__ = ["INTERVAL", "LOOKS", "Vigil"]

T = TypeVar("T")

INTERVAL = 1.0
"""Seconds between two looks."""

LOOKS = 4
"""Looks in a row that stay without an answer until a worker is given up, one interval later.

They are counted, not the seconds: where the parent was held up itself, nobody has looked."""


class Vigil:
    """Looks after one worker, for as long as anybody waits for it.

    :param look: asks it for a sign of life.
    :param giveUp: called once it has shown none; what is waited for must fail then.
    """

    def __init__(
        self, look: Callable[[], Deferred[Any]], giveUp: Callable[[], None], clock: IReactorTime
    ) -> None:
        self._ask, self._giveUp = look, giveUp
        self._waiting = self._missed = 0
        self._looks = LoopingCall(self._look)
        self._looks.clock = clock

    def over(self, asked: Deferred[T]) -> Deferred[T]:
        """Look after the worker until this has fired."""
        self._waiting += 1
        asked.addBoth(self._answered)
        if self._waiting and not self._looks.running:
            self._missed = 0
            self._looks.start(INTERVAL, now=False)
        return asked

    def _answered(self, result: T) -> T:
        self._waiting -= 1
        if not self._waiting and self._looks.running:
            self._looks.stop()
        return result

    def _look(self) -> None:
        self._missed += 1
        if self._missed > LOOKS:
            self._looks.stop()
            self._giveUp()
        else:
            self._ask().addCallbacks(self._alive, self._passOver)

    def _alive(self, answer: Any) -> None:
        self._missed = 0

    def _passOver(self, failure: Failure) -> None:
        """Let the end of a worker be heard of by those who wait: it has gone, and does not hang."""
        failure.trap(PeerGone)
        self._missed = 0
