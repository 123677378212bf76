"""Workers are started, started again, asked together and ended together."""

import errno

from twisted.internet.error import ProcessExitedAlready
from twisted.internet.task import Clock
from twisted.logger import LogLevel

from mailproxy.errors import ConfigError, MailProxyError, Unanswered
from mailproxy.workers.fleet import (
    KILL_AFTER,
    LAST_PATIENCE,
    PAUSES,
    PING_INTERVAL,
    SOUND,
    WARN_AFTER,
)
from mailproxy.workers.vigil import LOOKS
from tests.stage import Watched
from tests.workers.support import FleetCase


class BackOffTests(FleetCase):
    """Workers that end."""

    def test_anotherIsStarted(self) -> None:
        """Soon, at the same seat; the others are not touched."""
        client = self.enter(0)
        self.house.processes[1].die("exit status 1")
        self.assertEqual(self.fleet.report(self.fleet.serving)[1]["state"], "waiting to be started")
        self.network.advance(PAUSES[0])
        self.assertEqual([each.number for each in self.fleet.serving], [0, 1])
        self.assertEqual(self.fleet.report(self.fleet.serving)[1]["pid"], 1002)
        self.assertEqual(self.fleet.restarts, 1)
        self.assertIsNone(client.lost)

    def test_theLaterTheMoreOftenItHasEnded(self) -> None:
        """A worker that cannot live does not keep the machine busy."""
        for pause in (*PAUSES, PAUSES[-1]):
            self.house.processes[-1].die("exit status 1")
            count = len(self.house.processes)
            self.network.advance(pause - 0.01)
            self.assertEqual(len(self.house.processes), count)
            self.network.advance(0.02)
            self.assertEqual(len(self.house.processes), count + 1)

    def test_aLongLifeIsForgiven(self) -> None:
        """Its end counts as the first one."""
        for _ in range(3):
            self.house.processes[-1].die("exit status 1")
            self.network.advance(10)
        self.network.advance(SOUND)
        self.house.processes[-1].die("exit status 1")
        self.network.advance(PAUSES[0])
        self.assertEqual(len(self.fleet.serving), 2)

    def test_itsClientsAreTakenInByOthers(self) -> None:
        """Until it is back."""
        told = self.overhear(0)
        self.house.processes[1].die("signal 9")
        self.network.pump()
        self.assertEqual(told, [("serve", ([1],))])
        self.network.advance(PAUSES[0])
        self.assertEqual(told[-1], ("rest", ([1],)))

    def test_systemThatRefusesAProcess(self) -> None:
        """It is tried again."""
        self.house.refusals = [OSError(errno.EAGAIN, "no more processes")]
        self.house.processes[1].die("signal 9")
        self.network.advance(PAUSES[0])
        self.assertEqual(len(self.fleet.serving), 1)
        self.network.advance(PAUSES[1])
        self.assertEqual(len(self.fleet.serving), 2)

    def test_mappingFileThatCannotBeReadMeanwhile(self) -> None:
        """The others serve on with what they have; it is back when the file is sound."""
        self.write("accounts", "broken\n")
        self.house.processes[1].die("signal 9")
        self.network.advance(5)
        self.assertEqual(len(self.fleet.serving), 1)
        self.assertEqual(self.home(0, "ann"), "old")
        self.write("accounts", "ann new\n")
        self.network.advance(40)
        self.assertEqual(len(self.fleet.serving), 2)
        self.assertEqual(self.home(0, "ann"), "new")


class PingTests(Watched, FleetCase):
    """Workers that hang."""

    def setUp(self) -> None:
        """Listen to the log."""
        Watched.setUp(self)
        FleetCase.setUp(self)

    def test_hangingWorkerIsReplaced(self) -> None:
        """After a while, and not before it is sure; one that answers again is forgiven."""
        peer = self.house.workers[1].peer
        for rounds in (KILL_AFTER - 1, KILL_AFTER + 1):
            peer.dataReceived = lambda data: None  # type: ignore[method-assign]
            for _ in range(rounds):
                self.network.advance(PING_INTERVAL)
            self.assertEqual(self.house.processes[1].alive, rounds < KILL_AFTER)
            if rounds < KILL_AFTER:
                del peer.dataReceived
                self.network.advance(PING_INTERVAL)
        self.network.advance(PAUSES[0])
        self.assertEqual(len(self.fleet.serving), 2)

    def test_clientsOfAHangingWorkerNeedNotWait(self) -> None:
        """The others accept them as well, until it answers again."""
        told = self.overhear(0)
        answer = self.house.workers[1].peer.dataReceived
        self.silence(1)
        for _ in range(WARN_AFTER + 1):
            self.assertEqual([name for name, _ in told if name != "ping"], [])
            self.network.advance(PING_INTERVAL)
        self.assertIn(("serve", ([1],)), told)
        text = "worker 2 does not answer; others accept its clients meanwhile"
        self.assertEqual(self.logged(LogLevel.warn), [text])
        self.house.workers[1].peer.dataReceived = answer  # type: ignore[method-assign]
        self.network.advance(PING_INTERVAL)
        self.assertEqual(told[-1], ("rest", ([1],)))
        self.assertIn("worker 2 answers again", self.logged(LogLevel.info))

    def test_whoBeginsAtTheEndIsEndedWithoutAWord(self) -> None:
        """That it does not start any more is no news."""
        self.house.processes[1].die("signal 9")
        Clock.advance(self.network, PAUSES[0])  # and nothing is heard yet
        self.assertEqual(self.fleet.report(self.fleet.serving)[1]["state"], "starting")
        stopped = self.fleet.stopService()
        self.network.advance(20)
        self.successResultOf(stopped)
        self.assertNotIn("has ended before it served", "".join(self.logged(LogLevel.warn)))

    def test_countsAreKept(self) -> None:
        """With each ping: little is lost of a worker that is killed."""
        self.home(1, "ann")
        self.network.advance(PING_INTERVAL)
        self.house.processes[1].die("signal 9")
        counts = self.house.shared.past
        self.assertEqual(counts["mailproxy_cache_misses"]["samples"][0][2], 1)


class StartTests(FleetCase):
    """The first start."""

    def begin(self) -> None:
        """Let the test do it."""

    def test_workerThatCannotBegin(self) -> None:
        """Is the end of the start, with its reason."""
        self.write("accounts", "ann nowhere\n")
        self.fleet.startService()
        error = self.failure(self.fleet.ready(), ConfigError)
        self.assertIn("accounts:1", error.problems[0])
        self.network.advance(60)
        self.assertEqual(len(self.house.processes), 2)

    def test_programThatMayNotBeRun(self) -> None:
        """Likewise; who asks later is told, too."""
        self.house.refusals = [PermissionError(errno.EACCES, "no")] * 2
        self.fleet.startService()
        for _ in range(2):
            error = self.failure(self.fleet.ready(), MailProxyError)
            self.assertIn("server.threads = 1", str(error))

    def test_workerThatEndsAtOnce(self) -> None:
        """It's said which one; questions are answered, too."""
        asked = self.control.stats()
        self.house.stillborn = {0, 1}
        self.fleet.startService()
        error = self.failure(self.fleet.ready(), MailProxyError)
        self.assertEqual(str(error), "worker 1 has ended before it served")
        self.failure(asked, Unanswered)

    def test_workerThatEndsWhileOthersBegin(self) -> None:
        """It has served already: its clients are taken in, and it is started again."""
        self.fleet.startService()
        late = self.house.processes[1].worker.peer.transport
        late.stopReading()  # type: ignore[union-attr]
        self.network.pump()
        self.assertEqual([each.number for each in self.fleet.serving], [0])
        self.house.processes[0].die("signal 9")
        told = self.overhear(0)
        late.startReading()  # type: ignore[union-attr]
        self.network.pump()
        self.successResultOf(self.fleet.ready())
        self.assertIn(("serve", ([0],)), told)
        self.network.advance(PAUSES[0])
        self.assertEqual([each.number for each in self.fleet.serving], [0, 1])

    def test_questionsWaitForTheStart(self) -> None:
        """Management may be asked at once."""
        asked = self.control.stats()
        self.assertNoResult(asked)
        self.fleet.startService()
        self.assertEqual(len(self.result(asked)["workers"]), 2)

    def test_stopBeforeTheStart(self) -> None:
        """Workers that have not begun are ended, and nobody calls that a failure."""
        self.fleet.startService()
        ready = self.fleet.ready()
        self.successResultOf(self.fleet.stopService())
        self.assertNoResult(ready)
        self.assertEqual(self.house.workers, [])


class StopTests(FleetCase):
    """The end of all."""

    def test_allDrain(self) -> None:
        """Who has not logged in is sent away; the stop waits for every process."""
        client = self.enter(1)
        client.take()
        stopped = self.fleet.stopService()
        self.network.advance(0.1)
        self.assertIn(b"BYE", client.take())
        self.network.advance(3)
        self.successResultOf(stopped)
        self.assertEqual(self.house.workers, [])

    def test_whoDoesNotEndIsKilled(self) -> None:
        """After the grace time and a little more."""
        peer = self.house.workers[1].peer
        peer._methods = {**peer._methods, "end": lambda: None}
        stopped = self.fleet.stopService()
        self.pass_(int(self.fleet.grace + LAST_PATIENCE) - 1)
        self.assertNoResult(stopped)
        self.pass_(1)
        self.successResultOf(stopped)

    def test_whoHangsIsNotWaitedFor(self) -> None:
        """However long the grace time is."""
        self.fleet.grace = 3600
        self.silence(1)
        stopped = self.fleet.stopService()
        self.pass_(LOOKS)
        self.assertNoResult(stopped)
        self.pass_(1)
        self.successResultOf(stopped)

    def test_nobodyIsStartedAgain(self) -> None:
        """The end of a worker is what was wanted."""
        self.house.processes[1].die("signal 9")
        stopped = self.fleet.stopService()
        self.network.advance(60)
        self.successResultOf(stopped)
        self.assertEqual(len(self.house.processes), 2)

    def test_killedTwiceIsKilled(self) -> None:
        """The process may have ended just now."""
        process = self.house.processes[1]
        process.die("signal 9")
        self.assertRaises(ProcessExitedAlready, process.signalProcess, "KILL")


class ParentTests(FleetCase):
    """Workers whose parent is gone."""

    def test_theyDrain(self) -> None:
        """Sessions may end by themselves, as at any stop."""
        client = self.enter(1)
        client.take()
        process = self.house.processes[1]
        self.fleet.running = 0
        handle = next(each for each in self.fleet.serving if each.number == 1)
        handle.peer.transport.abortConnection()  # type: ignore[union-attr]
        self.network.pump()
        self.assertTrue(process.alive)
        self.network.advance(3)
        self.assertIn(b"BYE", client.take())
        self.assertFalse(process.alive)

    def test_endThatIsCutShort(self) -> None:
        """A parent that goes in the middle of the drain has been told to: so do they."""
        client = self.enter(1)
        client.stopReading()
        process = self.house.processes[1]
        stopped = self.fleet.stopService()
        self.network.pump()
        self.assertTrue(process.alive)
        cutting = process._handle.peer.transport
        cutting.abortConnection()  # type: ignore[union-attr]
        self.network.pump()
        self.assertFalse(process.alive)
        self.network.advance(20)
        self.successResultOf(stopped)
