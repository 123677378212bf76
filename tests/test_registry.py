"""The registry: who is found and kicked, what is counted, and how logins are held."""

import attrs
from twisted.internet.defer import CancelledError
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from mailproxy.registry import ISession, Registry


@implementer(ISession)
@attrs.define(eq=False)
class FakeSession:
    """A session that leaves the registry as soon as it is kicked."""

    id: str
    registry: Registry
    protocol: str = "imap"
    listener: str = "imaps"
    client: str = "192.0.2.1:50000"
    since: float = 0.0
    identifier: str | None = None
    destination: str | None = None
    received: int = 0
    sent: int = 0
    kicks: int = 0

    def shutDown(self, *, bridged: bool) -> None:
        """Leave at once, whatever we do."""
        self.kick()

    def kick(self) -> None:
        """Leave at once."""
        self.kicks += 1
        self.registry.remove(self)


class RegistryCase(SynchronousTestCase):
    """An empty registry with a clock set by hand."""

    def setUp(self) -> None:
        """Start with no session."""
        self.clock = Clock()
        self.registry = Registry(self.clock)

    def begin(
        self, name: str, identifier: str | None, destination: str | None, protocol: str = "imap"
    ) -> FakeSession:
        """Have a session accepted and routed."""
        session = FakeSession(name, self.registry, protocol)
        self.registry.add(session)
        self.registry.routed(session, identifier, destination)
        return session


class FindTests(RegistryCase):
    """Sessions found by what is known of them."""

    def test_fakeIsASession(self) -> None:
        """The tests' session has all that a session needs."""
        verifyObject(ISession, self.begin("1", None, None))

    def test_foundByEachPropertyAndByAllTogether(self) -> None:
        """Every given property narrows the answer; none means all."""
        a = self.begin("1", "ann", "old")
        b = self.begin("2", "ann", "new", "pop3")
        c = self.begin("3", "bob", "new")
        find = self.registry.find
        self.assertEqual(find(), [a, b, c])
        self.assertEqual(find(identifier="ann"), [a, b])
        self.assertEqual(find(destination="new"), [b, c])
        self.assertEqual(find(protocol="imap"), [a, c])
        self.assertEqual(find("ann", "new"), [b])
        self.assertEqual(find("ann", "new", "imap"), [])
        self.assertEqual(find(identifier="zoe"), [])

    def test_unroutedSessionIsListed(self) -> None:
        """Before its login, and without an account, a session is live all the same."""
        session = FakeSession("1", self.registry)
        self.registry.add(session)
        self.assertEqual(self.registry.find(), [session])
        passed = self.begin("2", None, "old", "smtp")
        self.assertEqual(self.registry.find(destination="old"), [passed])

    def test_routingIsNotedInTheSession(self) -> None:
        """What the registry knows of a session and what the session says are one."""
        session = self.begin("1", "ann", "old")
        self.assertEqual((session.identifier, session.destination), ("ann", "old"))

    def test_secondLoginRefiles(self) -> None:
        """After a refusal another account's login in the same session is found by that account."""
        session = self.begin("1", "ann", "old")
        session.identifier = "bob"
        self.registry.routed(session, "bob", "new")
        self.assertEqual(self.registry.find(identifier="ann"), [])
        self.assertEqual(self.registry.find(destination="old"), [])
        self.assertEqual(self.registry.find("bob", "new"), [session])

    def test_accountsThatAreCalledOtherwise(self) -> None:
        """Under new rules for names they are found by the new ones."""
        a = self.begin("1", "Ann", "old")
        b = self.begin("2", "ann", "new")
        c = self.begin("3", None, "old", "smtp")
        self.registry.rename(str.lower)
        self.assertEqual(set(self.registry.find(identifier="ann")), {a, b})
        self.assertEqual(self.registry.find(identifier="Ann"), [])
        self.assertEqual((a.identifier, a.destination, c.identifier), ("ann", "old", None))

    def test_refusedLoginIsForgotten(self) -> None:
        """Back in the dialogue a session belongs to no account."""
        session = self.begin("1", "ann", "old")
        self.registry.routed(session, None, None)
        self.assertEqual(self.registry.kick("ann"), 0)
        self.assertEqual(self.registry.find(), [session])

    def test_endedSessionIsNotFiledAgain(self) -> None:
        """A lookup that ends after its session does not bring it back."""
        session = self.begin("1", "ann", "old")
        self.registry.remove(session)
        self.registry.remove(session)
        self.registry.routed(session, "ann", "new")
        self.assertEqual(self.registry.find(), [])
        self.assertEqual(self.registry.find(identifier="ann"), [])

    def test_nothingRemainsOfEndedSessions(self) -> None:
        """No index keeps the names of accounts that have no session."""
        for number in range(50):
            session = self.begin(str(number), f"account-{number}", "old")
            self.registry.routed(session, "ann", "new")
            self.registry.remove(session)
        kept = [value for value in vars(self.registry).values() if isinstance(value, dict)]
        self.assertEqual(len(kept), 4)
        self.assertEqual([value for value in kept if value], [])


class KickTests(RegistryCase):
    """Sessions ended from outside."""

    def test_everySessionOfTheAccountIsKicked(self) -> None:
        """All of them, on any destination, though they leave while being kicked; nobody else."""
        mine = [self.begin(str(number), "ann", f"node-{number}") for number in range(5)]
        other = self.begin("x", "bob", "node-1")
        self.assertEqual(self.registry.kick("ann"), 5)
        self.assertEqual([session.kicks for session in mine], [1] * 5)
        self.assertEqual(other.kicks, 0)
        self.assertEqual(self.registry.find(), [other])
        self.assertEqual(self.registry.kick("ann"), 0)

    def test_oneThatCannotBeKickedDoesNotSaveTheOthers(self) -> None:
        """A session's error is logged and the next one is kicked."""
        first, second = (self.begin(name, "ann", "old") for name in "12")
        first.registry = None  # type: ignore[assignment]
        self.assertEqual(self.registry.kick("ann"), 2)
        self.assertEqual(second.kicks, 1)
        self.assertEqual(len(self.flushLoggedErrors(AttributeError)), 1)


class CountTests(RegistryCase):
    """How many there are."""

    def test_countsByProtocolAndDestination(self) -> None:
        """Each pair has its number; sessions not routed yet have no destination."""
        self.begin("1", "ann", "old")
        self.begin("2", "bob", "old")
        self.begin("3", "bob", "new", "pop3")
        self.begin("4", None, None)
        self.assertEqual(self.registry.count(), 4)
        self.assertEqual(
            dict(self.registry.countBy()),
            {("imap", "old"): 2, ("pop3", "new"): 1, ("imap", None): 1},
        )


class HoldTests(RegistryCase):
    """Logins that wait."""

    def test_loginsGoOnWithoutAHold(self) -> None:
        """An identifier that is not on hold waits for nothing."""
        self.registry.hold("bob", 10)
        self.successResultOf(self.registry.held("ann"))

    def test_loginsWaitForTheTime(self) -> None:
        """Those that come during the hold all go on when it is over."""
        self.registry.hold("ann", 10)
        first = self.registry.held("ann")
        self.clock.advance(9)
        second = self.registry.held("ann")
        self.assertNoResult(first)
        self.clock.advance(1)
        self.successResultOf(first)
        self.successResultOf(second)
        self.successResultOf(self.registry.held("ann"))

    def test_zeroReleases(self) -> None:
        """Seconds of 0 let everyone go on, and leave no timer."""
        self.registry.hold("ann", 10)
        waiter = self.registry.held("ann")
        self.registry.hold("ann", 0)
        self.successResultOf(waiter)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.registry.hold("ann", 0)

    def test_newTimeHoldsForThoseWhoWaitAlready(self) -> None:
        """A later call moves the moment, forwards and back, with one timer."""
        self.registry.hold("ann", 10)
        waiter = self.registry.held("ann")
        self.clock.advance(9)
        self.registry.hold("ann", 30)
        self.clock.advance(29)
        self.assertNoResult(waiter)
        self.registry.hold("ann", 0.5)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.clock.advance(0.5)
        self.successResultOf(waiter)

    def test_noHoldIsLongerThanTwoMinutes(self) -> None:
        """An endless hold would lock an account out."""
        self.registry.hold("ann", 2.0**64)
        waiter = self.registry.held("ann")
        self.clock.advance(119)
        self.assertNoResult(waiter)
        self.clock.advance(1)
        self.successResultOf(waiter)

    def test_clientMayLeaveWhileItWaits(self) -> None:
        """A cancelled wait is over, and the others' goes on."""
        self.registry.hold("ann", 10)
        gone, stays = self.registry.held("ann"), self.registry.held("ann")
        gone.cancel()
        self.failureResultOf(gone, CancelledError)
        self.assertNoResult(stays)
        self.clock.advance(10)
        self.successResultOf(stays)

    def test_oneWaiterMayCancelAnother(self) -> None:
        """A login that goes on and ends another one that waits disturbs nobody."""
        self.registry.hold("ann", 10)
        first, second, third = (self.registry.held("ann") for _ in range(3))
        first.addCallback(lambda _: second.cancel())
        self.clock.advance(10)
        self.failureResultOf(second, CancelledError)
        self.successResultOf(third)

    def test_releasedLoginMayBeHeldAnew(self) -> None:
        """A hold set while the last one's waiters go on is a new one."""
        self.registry.hold("ann", 10)
        self.registry.held("ann").addCallback(lambda _: self.registry.hold("ann", 5))
        self.clock.advance(10)
        later = self.registry.held("ann")
        self.assertNoResult(later)
        self.clock.advance(5)
        self.successResultOf(later)
