"""How long a connection that we have closed stays for its peer.

Knows a grace time and how much the peer has yet to take; must not know sockets, nor what was said.
"""

from collections.abc import Callable

import attrs
from twisted.internet.interfaces import IReactorTime

__all__ = ["LONGEST", "Linger", "Patience"]


LONGEST = 3600.0
"""Seconds for which a peer may take our last words, be it a byte now and then."""


@attrs.frozen
class Patience:
    """Times, in seconds.

    :ivar grace: for which a peer may pause.
    :ivar step: in which it must take something afterwards; and which it has to close when it has
        taken everything.
    :ivar longest: after which it is cut off whatever it takes.
    """

    grace: float
    step: float
    longest: float = LONGEST


class Linger:
    """Cuts off a peer that neither takes our last words nor closes.

    One that takes them, however slowly, may take them all; while the grace time lasts it may pause.

    :param untaken: tells how many bytes it has not taken; 0 where that cannot be told.
    """

    def __init__(
        self,
        clock: IReactorTime,
        patience: Patience,
        untaken: Callable[[], int],
        abort: Callable[[], None],
    ) -> None:
        self._clock, self._step, self._untaken, self._abort = clock, patience.step, untaken, abort
        now = clock.seconds()
        self._pause, self._end = now + patience.grace, now + patience.longest
        self._left = untaken()
        self._timer = clock.callLater(min(patience.grace, patience.longest), self._look)

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
        now = self._clock.seconds()
        goesOn = self._left < before or (self._left and now < self._pause)
        if goesOn and now < self._end:
            self._timer = self._clock.callLater(min(self._step, self._end - now), self._look)
        else:
            self._abort()
