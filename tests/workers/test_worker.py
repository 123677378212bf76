"""What a worker does for its parent beside what management asks."""

from twisted.internet.defer import Deferred

from mailproxy.errors import ConfigError, MailProxyError, PeerGone
from mailproxy.workers.worker import GOODBYE_PATIENCE, Worker
from tests.workers.support import FleetCase


class WorkerTests(FleetCase):
    """A worker of a fleet."""

    @property
    def worker(self) -> Worker:
        """The second one."""
        return self.house.workers[1]

    def test_itTakesOrdersOnly(self) -> None:
        """Anything else that is handed over is a bug."""
        handle = self.fleet.serving[1]
        asked = handle.hand(1, "nonsense")
        self.failure(asked, RuntimeError)
        self.assertEqual(len(self.flushLoggedErrors(TypeError)), 1)

    def test_itReloadsNothingByItself(self) -> None:
        """Its parent has read the file, and knows the others."""
        self.assertRaises(MailProxyError, self.worker._control.reload)

    def test_nothingToAdopt(self) -> None:
        """Is said: the parent must not believe that it was done."""
        self.failure(self.fleet.serving[1].ask(1, "adopt"), ConfigError)
        self.result(self.fleet.serving[1].ask(1, "discard"))

    def test_servedOnceAndNoSooner(self) -> None:
        """The proxy runs when the parent has said so."""
        self.assertTrue(self.proxyOf(1).running)
        self.result(self.fleet.serving[1].ask(1, "serve", [1]))
        self.assertTrue(self.proxyOf(1).running)

    def test_logLevelFollowsTheConfiguration(self) -> None:
        """That of the parent, at the start and at each adoption (here they are one process)."""
        config = self.house.adopter.config
        server = config.server.model_copy(update={"log_level": "error"})
        prepared = self.house.adopter.prepare(config.model_copy(update={"server": server}))
        self.result(self.result(prepared).adopt())
        self.assertEqual(self.proxyOf(1).runtime.config.server.log_level, "error")

    def test_withoutAParentNobodyLends(self) -> None:
        """A client more than it has room for is turned away."""
        worker, peer = self.worker, self.worker.peer
        self.fleet.running = 0
        transport = peer.transport
        transport.abortConnection()  # type: ignore[union-attr]
        self.network.pump()
        self.failure(peer.ask("borrow", "open"), PeerGone)
        self.assertEqual(self.result(worker._borrow("open")), 0)
        self.network.advance(10)

    def test_stoppedBeforeItHasBegun(self) -> None:
        """There is nothing to end."""
        fresh = Worker(self.worker._parts)
        self.successResultOf(fresh.stop())

    def test_lastWordsAreWaitedFor(self) -> None:
        """Until the parent has heard them; a parent that is gone, or hangs, is not waited for."""
        self.result(Deferred.fromCoroutine(self.worker.goodbye()))
        handle = self.fleet.serving[1]
        handle.peer.dataReceived = lambda data: None  # type: ignore[method-assign]
        waiting = Deferred.fromCoroutine(self.worker.goodbye())
        self.network.pump()
        self.assertNoResult(waiting)
        self.network.advance(GOODBYE_PATIENCE)
        self.successResultOf(waiting)
