"""Telling systemd that we are ready, and that we stop (sd_notify(3)).

Knows the datagram that a service manager reads; must not know what being ready means.
"""

import socket

from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorCore

from mailproxy.logs import Logger

__all__ = ["VARIABLE", "Notifier"]

VARIABLE = "NOTIFY_SOCKET"
"""The variable of the environment that holds the manager's address."""


class Notifier(Service):
    """Tells a service manager about the life of the services that start and stop with this one.

    A manager that does not listen is worth a warning, and never an end.
    """

    log = Logger()

    def __init__(self, reactor: IReactorCore, address: str) -> None:
        """Begin.

        :param address: a socket's path; `@` in front means one without a file.
        """
        self._reactor = reactor
        self._address = f"\0{address[1:]}" if address.startswith("@") else address

    def startService(self) -> None:
        """Say that we are ready as soon as the reactor runs: what has a socket listens by then."""
        super().startService()
        self._reactor.callWhenRunning(self._ready)

    def _ready(self) -> None:
        if self.running:
            self.tell("READY=1")

    def stopService(self) -> Deferred[None]:
        """Say that we stop; what is being drained may take its time."""
        super().stopService()
        self.tell("STOPPING=1")
        return succeed(None)

    def tell(self, state: str) -> None:
        """Send one assignment."""
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
                manager.setblocking(False)
                manager.sendto(state.encode("ascii"), self._address)
        except OSError as error:
            self.log.warn(
                "the service manager could not be told {state}: {error}", state=state, error=error
            )
