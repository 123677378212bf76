"""`twistd` with a proxy that loses patience with its workers sooner.

Whoever tests what becomes of a worker that hangs would wait for minutes else. Knows the clock of
the parent's fleet alone: workers, sessions and management have the time that they always have.
"""

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.scripts import twistd
from zope.interface import implementer

from mailproxy import core
from mailproxy.workers.fleet import Fleet

SPEED = 2.5
"""How much faster time passes; a worker that lives has two seconds then for what needs none."""


@implementer(IReactorTime)
class FastClock:
    """A clock that runs ahead of another."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock

    def seconds(self) -> float:
        """Tell the time."""
        return self._clock.seconds() * SPEED

    def callLater(
        self, delay: float, callable: Callable[..., Any], *args: object, **kwargs: object
    ) -> IDelayedCall:
        """Call when it is time on this clock."""
        return self._clock.callLater(delay / SPEED, callable, *args, **kwargs)

    def getDelayedCalls(self) -> list[IDelayedCall]:
        """List all that is to be called, the other clock's too."""
        return list(self._clock.getDelayedCalls())


class HastyFleet(Fleet):
    """A fleet on such a clock."""

    def __init__(self, clock: IReactorTime, *more: Any) -> None:
        super().__init__(FastClock(clock), *more)


def run() -> None:
    """Be twistd."""
    vars(core)["Fleet"] = HastyFleet
    twistd.run()
