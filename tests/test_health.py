"""The circuit breakers: when they open, whom they let through, and when they close."""

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailproxy.errors import CircuitOpen, Stage
from mailproxy.health import PROBE_TURN, Health, HealthSettings

SETTINGS = HealthSettings(threshold=3, minClients=2, cooldown=30.0)


class HealthCase(SynchronousTestCase):
    """A breaker that opens at three failures, with a clock set by hand."""

    def setUp(self) -> None:
        """Start with nothing known."""
        self.clock = Clock()
        self.health = Health(self.clock, SETTINGS)

    def failTimes(
        self, count: int, stage: Stage = Stage.CONNECT, client: str = "192.0.2.1"
    ) -> None:
        """Let so many attempts in a row fail alike."""
        for _ in range(count):
            self.health.admit("old").failed(stage, client)

    def isDown(self, destination: str = "old") -> bool:
        """Whether management would show the destination as down."""
        return self.health.report([destination])[0].down

    def retryAfter(self) -> float:
        """The pause that a refused attempt is told."""
        error: CircuitOpen = self.assertRaises(CircuitOpen, self.health.admit, "old")
        return error.retryAfter


class OpeningTests(HealthCase):
    """What opens a circuit."""

    def test_staysClosedBelowTheThreshold(self) -> None:
        """One failure less than the threshold refuses nobody."""
        self.failTimes(2)
        self.assertFalse(self.isDown())
        self.health.admit("old")

    def test_connectFailuresOfOneClientOpen(self) -> None:
        """DNS, TCP and time-outs need no second witness."""
        for stage in (Stage.RESOLVE, Stage.CONNECT, Stage.TIMEOUT):
            self.health.reset("old")
            self.failTimes(3, stage)
            self.assertTrue(self.isDown(), stage)

    def test_laterFailuresOfOneClientDoNotOpen(self) -> None:
        """One client whose sessions always break past the connection cannot close a host to all."""
        self.failTimes(50, Stage.TLS)
        self.assertFalse(self.isDown())

    def test_laterFailuresOfTwoClientsOpen(self) -> None:
        """A long streak opens the circuit as soon as a second client shares in it."""
        self.failTimes(3, Stage.GREETING)
        self.failTimes(1, Stage.GREETING, client="192.0.2.2")
        self.assertTrue(self.isDown())

    def test_oneConnectFailureInTheStreakIsWitnessEnough(self) -> None:
        """A streak that holds a connect-stage failure counts as the host's own."""
        self.failTimes(1, Stage.CONNECT)
        self.failTimes(2, Stage.TLS)
        self.assertTrue(self.isDown())

    def test_withoutMinClientsFailuresAloneCount(self) -> None:
        """With `minClients` 0 one client's failures open the circuit at any stage."""
        self.health.settings = HealthSettings(threshold=3, minClients=0)
        self.failTimes(3, Stage.TLS)
        self.assertTrue(self.isDown())

    def test_thresholdZeroNeverOpens(self) -> None:
        """A threshold of 0 switches the breaker off."""
        self.health.settings = HealthSettings(threshold=0)
        self.failTimes(100)
        self.assertFalse(self.isDown())

    def test_successEndsTheStreak(self) -> None:
        """Only consecutive failures count, and only their clients and stages."""
        self.failTimes(1)
        self.failTimes(1, Stage.TLS, client="192.0.2.2")
        self.health.admit("old").succeeded()
        self.failTimes(3, Stage.TLS)
        self.assertFalse(self.isDown())
        self.assertEqual(self.health.report(["old"])[0].consecutiveFailures, 3)

    def test_ourOwnRefusalsAreNotCounted(self) -> None:
        """An open circuit, a loop and a mechanism it lacks say nothing about the host."""
        for stage in (Stage.LOOP, Stage.BREAKER, Stage.LOCAL, Stage.UNSUPPORTED):
            self.failTimes(10, stage)
        self.assertEqual(self.health.report(["old"])[0].consecutiveFailures, 0)

    def test_destinationsAreIndependent(self) -> None:
        """One destination's failures do not touch another."""
        self.failTimes(3)
        self.assertTrue(self.isDown("old"))
        self.assertFalse(self.isDown("new"))
        self.health.admit("new")


class CoolingTests(HealthCase):
    """What an open circuit lets through."""

    def setUp(self) -> None:
        """Start with an open circuit."""
        super().setUp()
        self.failTimes(3)

    def test_refusesForTheCooldown(self) -> None:
        """Until the cool-down is over everyone is refused and told how long it lasts."""
        self.assertEqual(self.retryAfter(), 30.0)
        self.clock.advance(29)
        self.assertEqual(self.retryAfter(), 1.0)

    def test_admitsExactlyOneProbe(self) -> None:
        """After the cool-down one attempt goes through and the others are still refused."""
        self.clock.advance(30)
        self.health.admit("old")
        self.assertGreater(self.retryAfter(), 0)
        self.clock.advance(1000)
        self.assertGreater(self.retryAfter(), 0)

    def test_successOfTheProbeCloses(self) -> None:
        """The probe's success admits everyone and begins with a clean count."""
        self.clock.advance(30)
        self.health.admit("old").succeeded()
        self.assertFalse(self.isDown())
        self.failTimes(2)
        self.assertFalse(self.isDown())

    def test_failureOfTheProbeOpensAgainAtOnce(self) -> None:
        """A failed probe costs another whole cool-down, whatever its stage."""
        self.clock.advance(45)
        self.health.admit("old").failed(Stage.TLS, "192.0.2.1")
        self.assertEqual(self.retryAfter(), 30.0)

    def test_connectedProbeEndsAStreakOfVainCalls(self) -> None:
        """At once, and its verdict is still owed; failures behind the door wait for that."""
        self.clock.advance(30)
        probe = self.health.admit("old")
        probe.connected()
        self.assertFalse(self.isDown())
        probe.failed(Stage.ANSWER, "192.0.2.1")
        (report,) = self.health.report(["old"])
        self.assertEqual(report.consecutiveFailures, 1)

    def test_connectedProbeAfterFailuresBehindTheDoor(self) -> None:
        """That the door is open says nothing of these: everybody waits for the verdict."""
        self.health.reset("old")
        self.failTimes(3, Stage.ANSWER)
        self.failTimes(1, Stage.ANSWER, client="192.0.2.2")
        self.clock.advance(30)
        probe = self.health.admit("old")
        probe.connected()
        self.assertTrue(self.isDown())
        probe.succeeded()
        self.assertFalse(self.isDown())

    def test_abandonedProbeFreesItsPlace(self) -> None:
        """When the probe's client leaves, the next attempt is the probe."""
        self.clock.advance(30)
        self.health.admit("old").abandoned()
        self.assertTrue(self.isDown())
        self.health.admit("old").succeeded()
        self.assertFalse(self.isDown())

    def test_uncountedFailureFreesTheProbe(self) -> None:
        """A probe that we refused ourselves neither closes nor reopens."""
        self.clock.advance(30)
        self.health.admit("old").failed(Stage.LOOP, "192.0.2.1")
        self.health.admit("old").succeeded()
        self.assertFalse(self.isDown())

    def test_onlyTheFirstVerdictCounts(self) -> None:
        """What is said after the first verdict changes nothing."""
        self.clock.advance(30)
        probe = self.health.admit("old")
        probe.abandoned()
        probe.succeeded()
        self.assertTrue(self.isDown())
        second = self.health.admit("old")
        second.succeeded()
        for _ in range(5):
            second.failed(Stage.CONNECT, "192.0.2.1")
        self.assertEqual(self.health.report(["old"])[0].consecutiveFailures, 0)

    def test_abandonedAfterAVerdictDoesNotFreeAnothersProbe(self) -> None:
        """The `finally` clause of a finished probe leaves the next probe alone."""
        self.clock.advance(30)
        first = self.health.admit("old")
        first.failed(Stage.CONNECT, "192.0.2.1")
        self.clock.advance(30)
        self.health.admit("old")
        first.abandoned()
        self.assertRaises(CircuitOpen, self.health.admit, "old")


class LateVerdictTests(HealthCase):
    """Verdicts of attempts that were under way when the circuit changed."""

    def setUp(self) -> None:
        """Keep one attempt open while others open the circuit."""
        super().setUp()
        self.late = self.health.admit("old")
        self.failTimes(3)

    def test_lateSuccessDoesNotClose(self) -> None:
        """Only the probe closes an open circuit."""
        self.late.succeeded()
        self.assertTrue(self.isDown())
        self.assertEqual(self.retryAfter(), 30.0)

    def test_lateFailureDoesNotProlong(self) -> None:
        """The cool-down runs from the opening, not from the last straggler."""
        self.clock.advance(20)
        self.late.failed(Stage.TIMEOUT, "192.0.2.9")
        self.assertEqual(self.retryAfter(), 10.0)
        self.assertEqual(self.health.report(["old"])[0].consecutiveFailures, 3)

    def test_lateFailureDoesNotEndTheProbe(self) -> None:
        """A straggler that fails while the probe runs does not reopen or admit a second probe."""
        self.clock.advance(30)
        probe = self.health.admit("old")
        self.late.failed(Stage.TIMEOUT, "192.0.2.9")
        self.assertRaises(CircuitOpen, self.health.admit, "old")
        probe.succeeded()
        self.assertFalse(self.isDown())

    def test_lateFailureDoesNotCountAfterRecovery(self) -> None:
        """An attempt older than the probe's success says nothing against the host."""
        self.clock.advance(30)
        self.health.admit("old").succeeded()
        self.late.failed(Stage.TIMEOUT, "192.0.2.9")
        self.assertEqual(self.health.report(["old"])[0].consecutiveFailures, 0)

    def test_verdictsFromBeforeAResetDoNotCount(self) -> None:
        """After a reset only new attempts count, a probe under way included."""
        self.clock.advance(30)
        probe = self.health.admit("old")
        self.health.reset("old")
        probe.failed(Stage.CONNECT, "192.0.2.1")
        self.late.failed(Stage.CONNECT, "192.0.2.1")
        self.assertFalse(self.isDown())
        self.assertEqual(self.health.report(["old"])[0].consecutiveFailures, 0)


class ManagementTests(HealthCase):
    """Reports, resets and new settings."""

    def test_reportNamesEachDestinationAskedFor(self) -> None:
        """A destination of which nothing is known is healthy; the order is the caller's."""
        self.failTimes(1, Stage.TLS)
        self.failTimes(1, Stage.CONNECT, client="192.0.2.2")
        new, old = self.health.report(["new", "old"])
        self.assertEqual((new.destination, new.consecutiveFailures, new.down), ("new", 0, False))
        self.assertEqual((old.consecutiveFailures, old.failureSources), (2, 2))
        self.assertTrue(old.hostLevelFailure)
        self.assertFalse(new.hostLevelFailure)

    def test_resetReturnsTheDestinationToService(self) -> None:
        """A reset closes the circuit and forgets the streak."""
        self.failTimes(3)
        self.health.reset("old")
        self.assertFalse(self.isDown())
        self.failTimes(2)
        self.assertFalse(self.isDown())

    def test_stateSurvivesNewSettings(self) -> None:
        """New settings apply to the circuits as they are."""
        self.failTimes(3)
        self.health.settings = HealthSettings(threshold=3, cooldown=5.0)
        self.assertEqual(self.retryAfter(), 5.0)
        self.clock.advance(5)
        self.health.admit("old")

    def test_switchingTheBreakerOffAdmitsEveryone(self) -> None:
        """A threshold of 0 frees a destination that is down, and stays harmless when set back."""
        self.failTimes(3)
        self.health.settings = HealthSettings(threshold=0)
        self.assertFalse(self.isDown())
        self.health.admit("old")
        self.health.admit("old")
        self.health.settings = SETTINGS
        self.assertFalse(self.isDown())

    def test_addressesAreBounded(self) -> None:
        """A long outage does not collect every client's address."""
        self.health.settings = HealthSettings(threshold=0)
        for number in range(2000):
            self.failTimes(1, Stage.TLS, client=f"client-{number}")
        self.assertLess(self.health.report(["old"])[0].failureSources, 1000)

    def test_manyRequiredClientsCanBeReached(self) -> None:
        """The bound on addresses never lies below the number that is asked for."""
        self.health.settings = HealthSettings(threshold=3, minClients=400)
        for number in range(400):
            self.assertFalse(self.isDown())
            self.failTimes(1, Stage.TLS, client=f"client-{number}")
        self.assertTrue(self.isDown())


class SeveralProcessesTests(HealthCase):
    """Two that tell each other their news."""

    def setUp(self) -> None:
        """Join them."""
        super().setUp()
        self.other = Health(self.clock, self.health.settings)
        self.health.tell, self.other.tell = self.other.hear, self.health.hear

    def failThere(self, count: int, stage: Stage = Stage.CONNECT) -> None:
        """Let attempts of the other process fail."""
        for _ in range(count):
            self.other.admit("old").failed(stage, "192.0.2.7")

    def assertOne(self) -> None:
        """Both report the same."""
        self.assertEqual(self.health.report(["old"]), self.other.report(["old"]))

    def test_failuresAddUp(self) -> None:
        """Neither alone has seen enough, and the clients are counted together."""
        self.failTimes(2, Stage.TLS)
        self.failThere(1, Stage.TLS)
        self.assertTrue(self.isDown())
        self.assertRaises(CircuitOpen, self.other.admit, "old")
        self.assertOne()

    def test_successAnywhereEndsTheStreak(self) -> None:
        """As it would in one process."""
        self.failTimes(2)
        self.other.admit("old").succeeded()
        self.failTimes(2)
        self.assertFalse(self.isDown())
        self.assertOne()

    def test_oneProbeForBoth(self) -> None:
        """While it is under way the other process refuses; its verdict holds for both."""
        self.failTimes(3)
        for verdict in ("failed", "succeeded"):
            self.clock.advance(30)
            probe = self.health.admit("old")
            self.assertRaises(CircuitOpen, self.other.admit, "old")
            if verdict == "failed":
                probe.failed(Stage.CONNECT, "192.0.2.1")
                self.assertRaises(CircuitOpen, self.other.admit, "old")
            else:
                probe.succeeded()
                self.other.admit("old")
            self.assertOne()

    def test_abandonedProbeFreesItsPlaceEverywhere(self) -> None:
        """The other process may try at once."""
        self.failTimes(3)
        self.clock.advance(30)
        self.health.admit("old").abandoned()
        self.other.admit("old")

    def test_probeOfAProcessThatDied(self) -> None:
        """Nobody tells how it ended: after another cool-down it is taken for lost."""
        self.failTimes(3)
        self.clock.advance(30)
        self.health.admit("old")
        self.clock.advance(30)
        self.other.admit("old")

    def test_lateVerdictsDoNotTouchAnOpenCircuit(self) -> None:
        """An attempt that began before the opening says nothing about what is now."""
        late = self.other.admit("old")
        self.other.tell = self.health.hear
        self.health.tell = lambda news: None  # on its way
        self.failTimes(3)
        late.succeeded()
        self.assertTrue(self.isDown())

    def test_stateIsHandedOver(self) -> None:
        """A process that begins knows what the others know, the time of the opening included."""
        self.failTimes(3)
        self.clock.advance(10)
        young = Health(self.clock, self.health.settings)
        young.restore(self.health.export())
        self.assertEqual(young.report(["old"]), self.health.report(["old"]))
        error = self.assertRaises(CircuitOpen, young.admit, "old")
        self.assertEqual(error.retryAfter, 20)

    def test_probeIsHandedOver(self) -> None:
        """A process that begins while another sends one sends none, unless nothing comes of it."""
        self.failTimes(3)
        self.clock.advance(30)
        probe = self.health.admit("old")
        young = Health(self.clock, self.health.settings)
        self.health.tell = young.hear
        young.restore(self.health.export())
        self.assertRaises(CircuitOpen, young.admit, "old")
        probe.abandoned()
        young.admit("old")

    def test_eachHasItsTurnToProbe(self) -> None:
        """So that news of one is there before the next sends another."""
        later = Health(self.clock, self.health.settings, PROBE_TURN)
        for health in (self.health, later):
            for _ in range(3):
                health.admit("old").failed(Stage.CONNECT, "192.0.2.1")
        self.clock.advance(30)
        error = self.assertRaises(CircuitOpen, later.admit, "old")
        self.assertAlmostEqual(error.retryAfter, PROBE_TURN)
        self.health.admit("old")
        self.clock.advance(PROBE_TURN)
        later.admit("old")  # it has heard nothing
