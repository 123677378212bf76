"""Who is cut when, while a process stops."""

from typing import cast

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, LogEvent, formatEvent
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from mailproxy.drain import QUIET, Drain
from mailproxy.logs import Logger
from mailproxy.registry import ISession, Registry


@implementer(ISession)
class Sitting:
    """A session that ends only when it must.

    :ivar bridged: whether its client has logged in.
    """

    protocol, listener, client = "imap", "imaps", "192.0.2.7:4711"
    since = 0.0
    identifier: str | None = None
    destination: str | None = None
    received = sent = 0

    def __init__(self, name: str, registry: Registry, *, bridged: bool = True) -> None:
        self.id, self.bridged, self._registry = name, bridged, registry
        registry.add(self)

    def kick(self) -> None:
        """Leave."""
        self._registry.remove(self)

    def shutDown(self, *, bridged: bool) -> None:
        """Leave, if asked to."""
        if bridged or not self.bridged:
            self._registry.remove(self)


class DrainTests(SynchronousTestCase):
    """A hundred sessions and a grace of forty seconds."""

    def setUp(self) -> None:
        """Let them sit there."""
        self.clock = Clock()
        self.registry = Registry(self.clock)
        self.sessions = [Sitting(str(number), self.registry) for number in range(100)]

    def advance(self, seconds: float) -> None:
        """Let time pass as a reactor does."""
        self.clock.pump([0.05] * round(seconds / 0.05))

    def stop(self, grace: float = 40) -> Deferred[None]:
        """Begin the farewell."""
        return Deferred.fromCoroutine(Drain(self.registry, self.clock).run(grace))

    def test_theDialogueEndsAtOnce(self) -> None:
        """Who has not logged in is sent away before any time has passed."""
        Sitting("talking", self.registry, bridged=False)
        self.stop()
        self.assertEqual(self.registry.find(), self.sessions)

    def test_howManyAreWaitedForIsSaid(self) -> None:
        """And for how long; not where there is nobody."""
        said: list[LogEvent] = []
        self.patch(Drain, "log", Logger(observer=cast(ILogObserver, said.append)))
        Sitting("talking", self.registry, bridged=False)
        self.stop()
        text = "waiting at most 40 s for sessions that are left: 100"
        self.assertEqual([formatEvent(each) for each in said], [text])
        self.registry = Registry(self.clock)
        self.stop()
        self.assertEqual(len(said), 1)

    def test_halfOfTheTimeIsTheirs(self) -> None:
        """Nobody is cut who might end by himself."""
        self.stop()
        self.advance(19.9)
        self.assertEqual(self.registry.count(), 100)

    def test_theOthersGoOneAfterTheOther(self) -> None:
        """Evenly over the second half; with the last one we are done."""
        stopped = self.stop()
        self.advance(20.05)
        for expected in (90, 80, 70, 60, 50, 40, 30, 20, 10):
            self.advance(2)
            self.assertAlmostEqual(self.registry.count(), expected, delta=1)
        self.advance(1.9)
        self.assertEqual(self.registry.count(), 1)
        self.assertNoResult(stopped)
        self.advance(0.2)
        self.successResultOf(stopped)
        self.assertEqual(self.registry.count(), 0)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_whoEndsByHimselfSavesAnother(self) -> None:
        """The pace counts all ends, not only ours."""
        self.stop()
        self.advance(20)
        for session in self.sessions[:50]:
            session.kick()
        self.advance(9)
        self.assertEqual(self.registry.count(), 50)
        self.advance(3)
        self.assertAlmostEqual(self.registry.count(), 40, delta=1)

    def test_theQuietGoFirst(self) -> None:
        """A transfer has the longest time to come to its end."""
        moving = self.sessions[:10]
        self.stop()
        self.advance(20)
        for _ in range(17):
            for session in moving:
                session.sent += 16384
            self.advance(QUIET)
        self.assertEqual(self.registry.count(), 15)
        self.assertEqual(set(self.registry.find()) & set(moving), set(moving))

    def test_doneWhenAllHaveLeft(self) -> None:
        """The rest of the time is not waited for."""
        stopped = self.stop()
        self.advance(5)
        for session in self.sessions:
            session.kick()
        self.advance(0.05)
        self.successResultOf(stopped)

    def test_nobodyIsThere(self) -> None:
        """Then it takes no time."""
        for session in self.sessions:
            session.kick()
        self.successResultOf(self.stop())

    def test_withoutATimeOfGrace(self) -> None:
        """All are cut at once."""
        self.successResultOf(self.stop(0))
        self.assertEqual(self.registry.count(), 0)
