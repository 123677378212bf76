"""Twisted's epoll reactor with less work per event.

For each event that reactor sets a logging context up, which no event of ours looks at; on a bridge
that is as much as the rest of its work. Here a descriptor's methods are just called. Nothing else
changes, and any other reactor stays as it is: who picks one by `twistd --reactor` gets it.
"""

import sys
from collections.abc import Callable
from typing import Any

from twisted.internet.epollreactor import EPollReactor
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST

from mailproxy.logs import Logger

BATCH = 256
"""Events that are asked for at a time."""

_IN, _OUT = EPollReactor._POLL_IN, EPollReactor._POLL_OUT
_GONE = EPollReactor._POLL_DISCONNECTED

log = Logger()


def lighten(reactor: object) -> bool:
    """Let a reactor serve its descriptors so, if it is Twisted's own for epoll.

    :returns: whether it is, and has all that is needed.
    """
    if type(reactor) is not EPollReactor:
        return False
    try:
        doIteration = _makeIteration(reactor)
    except AttributeError:
        return False
    reactor.doIteration = doIteration  # type: ignore[method-assign]
    return True


def _makeIteration(reactor: Any) -> Callable[[float | None], None]:
    """Make one turn of the loop: it waits for events, and serves them.

    A descriptor that is closed in a turn may have its number used again before the turn is over: an
    event belongs to who was there when it came.
    """
    poll, find, reads = reactor._poller.poll, reactor._selectables.get, reactor._reads
    disconnect = reactor._disconnectSelectable

    def doIteration(timeout: float | None) -> None:
        events = poll(-1 if timeout is None else timeout, BATCH)
        for selectable, number, event in [(find(each[0]), *each) for each in events]:
            if selectable is None or find(number) is not selectable:
                continue
            why: Any = None
            isRead = False
            try:
                if event & _IN:
                    isRead = True
                    why = selectable.doRead()
                    if not why and event & _OUT and find(number) is selectable:
                        isRead = False
                        why = selectable.doWrite()
                elif event & _GONE:
                    isRead = number in reads
                    why = CONNECTION_DONE if isRead else CONNECTION_LOST
                else:
                    why = selectable.doWrite()
            except BaseException:
                log.failure("a connection met a bug")
                why = sys.exc_info()[1]
            if why:
                disconnect(selectable, why, isRead)

    return doIteration
