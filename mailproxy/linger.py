"""How long a connection that we have closed stays for its peer.

Knows a grace time and how much the peer has yet to take; must not know sockets, nor what was said.
"""

from collections.abc import Callable

from twisted.internet.interfaces import IReactorTime

__all__ = ["Linger"]


class Linger:
    """Cuts off a peer that neither takes our last words nor closes.

    One that takes them, however slowly, may take them all; while the grace time lasts it may pause.

    :param grace: seconds.
    :param step: seconds that a peer has to close when it has taken everything.
    :param untaken: tells how many bytes it has not taken; 0 where that cannot be told.
    """

    def __init__(
        self,
        clock: IReactorTime,
        grace: float,
        step: float,
        untaken: Callable[[], int],
        abort: Callable[[], None],
    ) -> None:
        self._clock, self._step, self._untaken, self._abort = clock, step, untaken, abort
        self._end = clock.seconds() + grace
        self._left = untaken()
        self._timer = clock.callLater(grace, self._look)

    def hasten(self) -> None:
        """Know that nothing of ours waits for the peer but what is on its way."""
        if self._timer.active():
            self._timer.reset(min(self._step, self._timer.getTime() - self._clock.seconds()))

    def cancel(self) -> None:
        """Know that the connection is gone."""
        if self._timer.active():
            self._timer.cancel()

    def _look(self) -> None:
        """Wait on if that makes sense."""
        before, self._left = self._left, self._untaken()
        if self._left < before or (self._left and self._clock.seconds() < self._end):
            self._timer = self._clock.callLater(self._step, self._look)
        else:
            self._abort()
