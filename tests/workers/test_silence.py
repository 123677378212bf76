"""Workers that hang: nobody waits for them long, and none goes on with what was."""

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred

from mailproxy.errors import Unanswered
from mailproxy.workers.fleet import ANSWER_PATIENCE
from mailproxy.workers.vigil import LOOKS
from tests.workers.support import FleetCase


class SilenceTests(FleetCase):
    """Workers that do not answer."""

    def test_theSilentOneIsNamed(self) -> None:
        """No half of an answer is given as the whole."""
        self.silence(1)
        asking: tuple[Callable[[], Deferred[Any]], ...] = (
            lambda: self.control.metrics(),
            lambda: self.control.connections(None, None, None),
        )
        for ask in asking:
            asked = ask()
            self.network.pump()
            self.assertNoResult(asked)
            self.network.advance(ANSWER_PATIENCE)
            error = self.failure(asked, Unanswered)
            self.assertEqual(str(error), "worker 2 (process 1001) does not answer")

    def test_whatTheOthersKnowIsTold(self) -> None:
        """Health and mappings are known to each of them; counts say whose share is missing."""
        for number in (0, 1):
            self.enter(number)
        self.silence(0)
        stats = self.later(self.control.stats())
        states = [each["state"] for each in stats["workers"]]
        self.assertEqual((stats["active_connections"], states), (1, ["silent", "serving"]))
        names = [each["destination"] for each in self.later(self.control.destinations())]
        self.assertEqual(names, ["old", "new", "far"])
        found = self.later(self.control.mapping("ann"))
        self.assertEqual((found["destination"], found["cached"]), ("old", False))
        self.assertEqual(self.fleet.restarts, 0)

    def test_allAreSilent(self) -> None:
        """Then nobody knows anything."""
        for number in (0, 1):
            self.silence(number)
        asked = self.control.stats()
        self.network.pump()
        self.network.advance(ANSWER_PATIENCE)
        self.assertIn("worker 1 (process 1000)", str(self.failure(asked, Unanswered)))

    def later(self, asked: Deferred[Any]) -> Any:
        """The answer, once nobody waits for the silent one any more."""
        self.network.pump()
        self.assertNoResult(asked)
        self.network.advance(ANSWER_PATIENCE)
        return self.result(asked)

    def test_whatAllMustKnowWaitsForNobody(self) -> None:
        """A worker that hangs is ended before the answer: it must not go on with what was."""
        changing: tuple[tuple[Callable[[], Deferred[Any]], object], ...] = (
            (lambda: self.control.setMapping("ann", "new"), None),
            (lambda: self.control.removeMapping("ann"), True),
            (lambda: self.control.kick("ann"), 0),
            (lambda: self.control.delay("ann", 5), None),
            (lambda: self.control.invalidate(None), None),
            (lambda: self.control.resetDestination("new"), None),
            (lambda: self.control.reloadMappings(), None),
        )
        for hanging in (0, 1):
            for change, expected in changing:
                (process,) = [
                    each
                    for each in self.house.processes
                    if each.alive and each._handle.number == hanging
                ]
                process.worker.peer.dataReceived = lambda data: None  # type: ignore[method-assign]
                changed = change()
                self.network.pump()
                self.pass_(LOOKS)
                self.assertNoResult(changed)
                self.pass_(1)
                self.assertEqual(self.result(changed), expected)
                self.assertFalse(process.alive)
                self.pass_(60)
                self.assertEqual(len(self.fleet.serving), 2)

    def test_writeThatOneHasNotSeen(self) -> None:
        """Whoever is home after the answer is home at the new place, at every worker."""
        for number in (0, 1):
            self.assertEqual(self.home(number, "ann"), "old")
        process = self.house.processes[1]
        self.silence(1)
        changed = self.control.setMapping("ann", "new")
        self.network.pump()
        self.pass_(LOOKS + 1)
        self.result(changed)
        self.assertFalse(process.alive)
        self.assertEqual(self.home(0, "ann"), "new")
        self.pass_(1)
        self.assertEqual(self.home(1, "ann"), "new")

    def test_writerThatHangsBehindItsWrite(self) -> None:
        """The file is written, and nobody has heard of it: the next writer takes it along."""
        peer = self.house.workers[0].peer
        self.patch(peer, "say", lambda topic, facts: None)
        self.patch(peer, "sendBox", lambda box: None)
        changed = self.control.setMapping("ann", "new")
        self.network.pump()
        self.pass_(LOOKS + 1)
        self.result(changed)
        self.assertEqual((self.directory / "accounts").read_text(), "ann\tnew\n")
        self.assertEqual(self.home(0, "ann"), "new")

    def test_whoCannotFollowIsStartedAnew(self) -> None:
        """For whatever reason: it would send accounts to where they were."""
        source: Any = self.proxyOf(1).runtime.source
        self.patch(source, "follow", lambda rewrite: 1 // 0)
        self.result(self.control.setMapping("ann", "new"))
        self.flushLoggedErrors(ZeroDivisionError)
        self.pass_(1)
        self.assertEqual((self.fleet.restarts, self.home(1, "ann")), (1, "new"))

    def test_slowWorkersAreWaitedFor(self) -> None:
        """Whoever lives may take longer than a look."""
        source: Any = self.proxyOf(0).runtime.source
        written: Deferred[None] = Deferred()
        self.patch(source, "store", lambda identifier, destination: written)
        changed = self.control.setMapping("ann", "new")
        self.network.pump()
        self.pass_(30)
        self.assertNoResult(changed)
        written.callback(None)
        self.result(changed)
        self.assertEqual(self.fleet.restarts, 0)

    def test_nobodyIsThere(self) -> None:
        """Between the end of all workers and their next start."""
        for process in list(self.house.processes):
            process.die("signal 9")
        self.failure(self.control.stats(), Unanswered)
        self.failure(self.control.setMapping("ann", "new"), Unanswered)

    def test_theDeadAreLeftOut(self) -> None:
        """Their sessions are gone: what the others say is the whole."""
        self.enter(0)
        self.enter(1)
        asked = self.control.stats()
        self.house.processes[1].die("signal 9")
        self.assertEqual(self.result(asked)["active_connections"], 1)
