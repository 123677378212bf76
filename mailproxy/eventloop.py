"""Twisted's epoll reactor with less work per event, and per turn.

For each event that reactor sets a logging context up, which no event of ours looks at; on a bridge
that is as much as the rest of its work. Here a descriptor's methods are just called, and whether
the other end has gone cleanly is for a read to tell. And in each turn it looks through timers and
calls of threads; here that is done when there are any. Nothing else changes, and any other reactor
stays as it is: who picks one by `twistd --reactor` gets it, but for worker processes, which always
have Twisted's default.
"""

import sys
from collections.abc import Callable
from typing import Any

from twisted.internet.epollreactor import EPollReactor
from twisted.internet.main import CONNECTION_LOST

from mailproxy.logs import Logger

BATCH = 256
"""Events that are asked for at a time."""

LONGEST = 86400.0
"""Seconds that are waited for events at a time; epoll takes no more than a few weeks."""

_IN, _OUT = EPollReactor._POLL_IN, EPollReactor._POLL_OUT
_GONE = EPollReactor._POLL_DISCONNECTED

_LOOP_STATE = (
    "_started",
    "running",
    "_justStopped",
    "threadCallQueue",
    "_newTimedCalls",
    "_pendingTimedCalls",
)
"""What the loop looks at between events."""

log = Logger()


def lighten(reactor: object) -> bool:
    """Let a reactor serve its descriptors so, if it is Twisted's own for epoll.

    :returns: whether it is, and has all that is needed.
    """
    if type(reactor) is not EPollReactor:
        return False
    try:
        doIteration = _makeIteration(reactor)
        mainLoop = _makeMainLoop(reactor, doIteration)
    except AttributeError:
        return False
    reactor.doIteration = doIteration  # type: ignore[method-assign]
    reactor.mainLoop = mainLoop  # type: ignore[method-assign]
    return True


def _makeIteration(reactor: Any) -> Callable[[float | None], None]:
    """Make one turn of the loop: it waits for events, and serves them.

    A descriptor that is closed in a turn may have its number used again before the turn is over: an
    event belongs to who was there when it came.
    """
    poll, find = reactor._poller.poll, reactor._selectables.get
    serve, disconnect = _makeServing(reactor), reactor._disconnectSelectable

    def doIteration(timeout: float | None) -> None:
        events = poll(-1 if timeout is None else timeout, BATCH)
        for selectable, number, event in [
            (find(number), number, event) for number, event in events
        ]:
            if selectable is None or find(number) is not selectable:
                continue
            try:
                if event == _IN:
                    why, isRead = selectable.doRead(), True
                elif event == _OUT:
                    why, isRead = selectable.doWrite(), False
                else:
                    why, isRead = serve(selectable, number, event)
            except BaseException:
                log.failure("a connection met a bug")
                why, isRead = sys.exc_info()[1], False
            if why:
                disconnect(selectable, why, isRead)

    return doIteration


def _makeServing(reactor: Any) -> Callable[[Any, int, int], tuple[Any, bool]]:
    """Make what serves the rarer events: both at once, or an other end that is gone.

    That the other end is gone is for a read to tell, where one is wanted: how it has gone, and what
    it had said before. Twisted takes it for a clean end.
    """
    find, reads = reactor._selectables.get, reactor._reads

    def serve(selectable: Any, number: int, event: int) -> tuple[Any, bool]:
        """Tell why the descriptor is gone, if so, and whether a read has told that."""
        isGone = event & _GONE
        if event & _IN or (isGone and number in reads):
            why = selectable.doRead()
            if why or find(number) is not selectable:
                return why, True
            if event & _OUT:
                return selectable.doWrite(), False
            # Nothing was to be read, and nothing will be: it would be told so for ever.
            return None if event & _IN else CONNECTION_LOST, False
        return CONNECTION_LOST if isGone else selectable.doWrite(), False

    return serve


def _makeMainLoop(reactor: Any, doIteration: Callable[[float | None], None]) -> Callable[[], None]:
    """Make the loop: events, and whatever else has become due."""
    seconds = reactor.seconds

    def rest() -> float:
        """Tell for how long there can be nothing but events; 0 when there is something now."""
        if reactor.threadCallQueue or reactor._newTimedCalls or reactor._justStopped:
            return 0.0
        timed = reactor._pendingTimedCalls
        left = timed[0].time - seconds() if timed else LONGEST
        return left if left < LONGEST else LONGEST

    def mainLoop() -> None:
        while reactor._started:
            try:
                reactor.runUntilCurrent()
                doIteration(reactor.running and reactor.timeout())
                while reactor.running and (timeout := rest()) > 0:
                    doIteration(timeout)
            except BaseException:
                log.failure("the main loop met a bug")
        log.info("Main loop terminated.")

    for needed in (*_LOOP_STATE, "timeout", "runUntilCurrent"):
        getattr(reactor, needed)
    return mainLoop
