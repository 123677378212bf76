"""Telling systemd that we are ready, that we reload, and that we stop (sd_notify(3)).

Knows the datagram that a service manager reads; must not know what being ready means.
"""

import socket
import time
from collections.abc import Callable
from typing import TypeVar

from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.interfaces import IReactorCore

from mailproxy.logs import Logger

__all__ = ["VARIABLE", "Notifier"]

T = TypeVar("T")

VARIABLE = "NOTIFY_SOCKET"
"""The variable of the environment that holds the manager's address."""


class Notifier(Service):
    """Tells a service manager about the life of the services that start and stop with this one.

    A manager that does not listen is worth a warning, and never an end.
    """

    log = Logger()

    def __init__(
        self,
        reactor: IReactorCore,
        address: str,
        until: Callable[[], Deferred[None]] = lambda: succeed(None),
    ) -> None:
        """Begin.

        :param address: a socket's path; `@` in front means one without a file.
        :param until: what must have come about, once the reactor runs, before we are ready.
        """
        self._reactor = reactor
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._reloads = 0
        self._until, self._begun = until, False

    def startService(self) -> None:
        """Say that we are ready as soon as the reactor runs: what has a socket listens by then."""
        super().startService()
        self._reactor.callWhenRunning(self._begin)

    def _begin(self) -> None:
        self._until().addCallbacks(self._beReady, lambda failure: None)

    def _beReady(self, _: None) -> None:
        self._begun = True
        self._ready()

    def _ready(self) -> None:
        if self.running and self._begun:
            self.tell("READY=1")

    def whileReloading(self, work: Callable[[], Deferred[T]]) -> Deferred[T]:
        """Do something, and say that we reload meanwhile; ready again, whatever comes of it.

        Before we were ready for the first time nothing is said: to a manager it is the start.
        """
        self._reloads += 1
        if self._begun:
            # The time tells a manager which of its requests this one answers.
            now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
            self.tell(f"RELOADING=1\nMONOTONIC_USEC={now}")
        return maybeDeferred(work).addBoth(self._reloaded)

    def _reloaded(self, result: T) -> T:
        """Be ready again, once no other reload waits for its turn."""
        self._reloads -= 1
        if not self._reloads:
            self._ready()
        return result

    def stopService(self) -> Deferred[None]:
        """Say that we stop; what is being drained may take its time."""
        super().stopService()
        self.tell("STOPPING=1")
        return succeed(None)

    def tell(self, state: str) -> None:
        """Send assignments, one a line."""
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
                manager.setblocking(False)
                manager.sendto(state.encode("ascii"), self._address)
        except OSError as error:
            self.log.warn(
                "the service manager could not be told {state}: {error}", state=state, error=error
            )
