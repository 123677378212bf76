"""One coroutine, run on a reactor from its start to its end or to the operator's Control-C.

Knows signals and when a reactor runs; must not know what the coroutine does.
"""

import signal
from collections.abc import Callable, Coroutine
from types import FrameType
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

__all__ = ["Errand", "Start"]

Start = Callable[[], Coroutine[Any, Any, int]]
"""Begins the work, when the reactor runs; what it returns gives an exit status."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Errand:
    """Runs a coroutine once.

    The first signal cancels it and lets it wind up in its own time; the second one ends the
    process as if nobody had cared for signals.
    """

    def __init__(self, reactor: Any, start: Start) -> None:
        """Prepare to run.

        :param reactor: one that does not run yet; it cannot be run again afterwards.
        """
        self._reactor, self._start = reactor, start
        self._running: Deferred[int] | None = None
        self._result: int | Failure | None = None
        self._signal: int | None = None

    def run(self) -> int:
        """Run to the end; returns the exit status, which after a signal is 128 and its number.

        Raises what the coroutine raises, unless it was cancelled.
        """
        before = {number: signal.signal(number, self._caught) for number in _SIGNALS}
        try:
            self._reactor.callWhenRunning(self._begin)
            self._reactor.run(installSignalHandlers=False)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        if self._signal is not None:
            return 128 + self._signal
        if isinstance(self._result, Failure):
            self._result.raiseException()
        assert isinstance(self._result, int), "nobody else stops the reactor"
        return self._result

    def _begin(self) -> None:
        self._running = Deferred.fromCoroutine(self._start())
        self._running.addBoth(self._ended)

    def _ended(self, result: int | Failure) -> None:
        self._result = result
        self._reactor.stop()

    def _caught(self, number: int, _: FrameType | None) -> None:
        """Catch a signal, this time; the rest is done where the reactor is not interrupted."""
        for each in _SIGNALS:
            signal.signal(each, signal.SIG_DFL)
        self._reactor.callFromThread(self._interrupt, number)

    def _interrupt(self, number: int) -> None:
        self._signal = number
        if self._running is not None:
            self._running.cancel()
