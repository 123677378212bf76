"""Twisted's epoll reactor with less work per event.

For each event that reactor sets a logging context up, which no event of ours looks at; on a bridge
that is as much as the rest of its work. Here a descriptor's methods are just called. Nothing else
changes, and any other reactor stays as it is: who picks one by `twistd --reactor` gets it.
"""

import sys
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
        loop = _Loop(reactor)
    except AttributeError:
        return False
    reactor.doIteration = loop.doIteration  # type: ignore[method-assign]
    return True


class _Loop:
    """One turn of the loop, again and again."""

    def __init__(self, reactor: Any) -> None:
        self._poll = reactor._poller.poll
        self._selectables = reactor._selectables
        self._reads = reactor._reads
        self._disconnect = reactor._disconnectSelectable

    def doIteration(self, timeout: float | None) -> None:
        """Wait for events, and serve them.

        A descriptor that is closed in this turn may have its number used again before the turn is
        over: an event belongs to who was there when it came.
        """
        find = self._selectables.get
        events = self._poll(-1 if timeout is None else timeout, BATCH)
        for selectable, number, event in [(find(each[0]), *each) for each in events]:
            if selectable is not None and find(number) is selectable:
                self._serve(selectable, number, event)

    def _serve(self, selectable: Any, number: int, event: int) -> None:
        why: Any = None
        isRead = False
        try:
            if event & _IN:
                isRead = True
                why = selectable.doRead()
                if not why and event & _OUT and self._selectables.get(number) is selectable:
                    isRead = False
                    why = selectable.doWrite()
            elif event & _GONE:
                isRead = number in self._reads
                why = CONNECTION_DONE if isRead else CONNECTION_LOST
            else:
                why = selectable.doWrite()
        except BaseException:
            log.failure("a connection met a bug")
            why = sys.exc_info()[1]
        if why:
            self._disconnect(selectable, why, isRead)
