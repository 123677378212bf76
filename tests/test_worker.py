"""The program that a worker process runs."""

import signal
import socket
from typing import Any, cast

from twisted.internet.testing import MemoryReactorClock
from twisted.logger import globalLogBeginner
from twisted.trial.unittest import SynchronousTestCase

from mailproxy import worker
from mailproxy.sources import ProxyReactor
from mailproxy.workers.handle import CONTROL
from mailproxy.workers.logs import LogRelay
from tests.support import Network, Peer


class ProcessReactor(MemoryReactorClock):
    """A reactor that runs for no time at all.

    :ivar ran: how it was started.
    """

    def run(self, **named: object) -> None:
        """Note it."""
        self.ran = named

    def callFromThread(self, function: object, *words: object) -> None:
        """Be asked by nobody."""


class ProgramTests(SynchronousTestCase):
    """What it does before it hears from its parent."""

    def test_itLeavesSignalsToItsParent(self) -> None:
        """And logs by it, through the descriptor that it finds."""
        ignored: dict[int, Any] = {}
        begun: list[Any] = []
        reactor, network = ProcessReactor(), Network()
        self.patch(worker, "globalReactor", reactor)
        self.patch(signal, "signal", ignored.__setitem__)
        self.patch(
            globalLogBeginner, "beginLoggingTo", lambda observers, **named: begun.extend(observers)
        )
        descriptors: list[int] = []
        self.patch(socket, "socket", lambda fileno: descriptors.append(fileno))
        self.patch(worker, "connect", lambda reactor, end, peer: network.connect(peer, Peer()))
        worker.main()
        self.assertEqual(set(ignored.values()), {signal.SIG_IGN})
        expected = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1}
        self.assertEqual(set(ignored), expected)
        self.assertEqual([type(each) for each in begun], [LogRelay])
        self.assertEqual(descriptors, [CONTROL])
        self.assertEqual(reactor.ran, {"installSignalHandlers": False})

    def test_itIsBuiltOfWhatAProxyIsBuiltOf(self) -> None:
        """The same tables; it can be ended before it has begun."""
        made = worker.makeWorker(cast(ProxyReactor, MemoryReactorClock()))
        self.successResultOf(made.stop())
