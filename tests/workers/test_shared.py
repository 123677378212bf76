"""What one worker says or needs reaches the others; the next begins with what they know."""

from itertools import product
from typing import Any

from mailproxy.errors import CircuitOpen, Stage
from mailproxy.health import PROBE_TURN
from mailproxy.listener import REFUSAL_PAUSE
from mailproxy.workers.fleet import ANSWER_PATIENCE
from mailproxy.workers.handle import Handle
from tests.test_proxy import TEXT
from tests.workers.support import FleetCase

ASK = Handle.ask


class DeathTests(FleetCase):
    """What is left of a worker that has ended, and what the next one begins with."""

    def restart(self, number: int = 1) -> None:
        """Kill a worker, and wait for the next."""
        self.house.processes[number].die("signal 9")
        self.network.advance(1)
        self.assertEqual(len(self.house.workers), 2)

    def test_countersNeverGoBack(self) -> None:
        """What was told of a worker is still true; what it had open is not."""
        self.enter(1)
        self.home(1, "ann")
        self.result(self.control.metrics())
        self.restart()
        text = self.result(self.control.metrics())
        self.assertIn("mailproxy_cache_misses_total 1.0", text)
        self.assertIn("mailproxy_cache_entries 0.0", text)
        self.assertNotIn('mailproxy_active_sessions{destination="",protocol="imap"} 1.0', text)
        self.assertIn("mailproxy_worker_restarts_total 1.0", text)

    def test_holdsAreHandedOver(self) -> None:
        """For the time that is left."""
        self.result(self.control.delay("ANN", 60))
        self.result(self.control.delay("bob", 60))
        self.result(self.control.delay("BOB", 0))
        self.network.advance(20)
        self.restart()
        registry = self.proxyOf(1).registry
        waiting = registry.held("ann")
        self.successResultOf(registry.held("bob"))
        self.assertNoResult(waiting)
        self.network.advance(40)
        self.successResultOf(waiting)

    def test_healthIsHandedOver(self) -> None:
        """It does not call who is known to be down."""
        for _ in range(2):
            self.proxyOf(0).health.admit("new").failed(Stage.CONNECT, "192.0.2.9")
        self.network.pump()
        self.restart()
        self.assertTrue(self.proxyOf(1).health.report(["new"])[0].down)

    def test_editByHandThatItReadReachesAll(self) -> None:
        """Otherwise the next login's home would depend on who accepts it."""
        self.write("accounts", "ann new\n")
        self.restart()
        for number in (0, 1):
            self.assertEqual(self.home(number, "ann"), "new")

    def test_writesMeanwhileReachIt(self) -> None:
        """It begins with the file as it is."""
        self.house.processes[1].die("signal 9")
        self.result(self.control.setMapping("ann", "new"))
        self.network.advance(1)
        self.assertEqual(self.home(1, "ann"), "new")


class NewcomerTests(FleetCase):
    """A worker that is about to serve."""

    count = 3

    def failAt(self, moment: str, teller: int) -> None:
        """Let an attempt of a worker's fail right after somebody is asked something."""
        attempts = [self.proxyOf(teller).health.admit("new")]

        def meanwhile(handle: Handle, patience: float, method: str, *words: Any) -> Any:
            asked = ASK(handle, patience, method, *words)
            if method == moment and attempts:
                attempts.pop().failed(Stage.CONNECT, "192.0.2.9")
            return asked

        self.patch(Handle, "ask", meanwhile)

    def test_newsReachItOnce(self) -> None:
        """Whatever it is being told at that moment, and whoever tells the news."""
        for moment, teller in product(("health", "restore", "serve"), (0, 1)):
            self.failAt(moment, teller)
            self.house.processes[-1].die("signal 9")
            self.pass_(20)
            healths = [self.proxyOf(number).health for number in range(self.count)]
            counts = [each.report(["new"])[0].consecutiveFailures for each in healths]
            self.assertEqual(counts, [1, 1, 1], (moment, teller))
            self.result(self.control.resetDestination("new"))


class ProbeTests(FleetCase):
    """A destination that is down."""

    def test_oneIsSentForAll(self) -> None:
        """Each worker has its turn, and by the second one's there is news of the first."""
        first, second = (self.proxyOf(number).health for number in (0, 1))
        for _ in range(2):
            first.admit("new").failed(Stage.CONNECT, "192.0.2.9")
        self.network.pump()
        self.pass_(int(first.settings.cooldown))
        self.assertRaises(CircuitOpen, second.admit, "new")
        probe = first.admit("new")
        self.network.advance(PROBE_TURN)
        self.assertRaises(CircuitOpen, second.admit, "new")
        probe.abandoned()
        self.network.pump()
        second.admit("new")


class RoomTests(FleetCase):
    """One limit for all workers."""

    text = TEXT.replace("max_auth_attempts = 9", "max_connections = 5")

    def openAt(self, number: int) -> bool:
        """Whether a further client of a worker is greeted."""
        client = self.enter(number, "upgrading")
        self.network.pump()
        return client.take().startswith(b"* OK")

    def test_allOfItCanBeUsedAtOneWorker(self) -> None:
        """And not one more, wherever it comes."""
        self.assertEqual([self.openAt(0) for _ in range(5)], [True] * 5)
        self.assertEqual([self.openAt(0), self.openAt(1)], [False, False])

    def test_roomThatIsFreeAgainIsGivenAway(self) -> None:
        """To whom clients come next."""
        clients = [self.enter(0, "upgrading") for _ in range(5)]
        self.assertFalse(self.openAt(1))
        clients[0].hangUp()
        self.network.advance(1)
        self.assertTrue(self.openAt(1))
        self.assertFalse(self.openAt(0))

    def test_shareOfTheDeadCanBeUsed(self) -> None:
        """All of it, until there is another worker; that one has what is left."""
        self.house.processes[1].die("signal 9")
        self.assertEqual([self.openAt(0) for _ in range(6)], [True] * 5 + [False])
        self.network.advance(1)
        self.assertEqual((len(self.house.workers), self.openAt(1)), (2, False))

    def test_theNextWorkerHasTheShareOfTheLast(self) -> None:
        """The sum stays the limit."""
        for _ in range(4):
            self.enter(0, "upgrading")
        self.house.processes[1].die("signal 9")
        self.network.advance(1)
        self.assertEqual([self.openAt(1), self.openAt(1)], [True, False])

    def reload(self, limit: int) -> None:
        """Take another limit into use, or the same."""
        config = self.load(self.text.replace("max_connections = 5", f"max_connections = {limit}"))
        prepared = self.result(self.house.adopter.prepare(config))
        self.result(prepared.adopt())

    def test_reloadMakesNoRoom(self) -> None:
        """Who has taken the others' share keeps it: the sum stays the limit."""
        for _ in range(5):
            self.enter(0, "upgrading")
        self.reload(5)
        self.assertEqual([self.openAt(1), self.openAt(0)], [False, False])
        self.reload(7)
        self.network.advance(REFUSAL_PAUSE)
        self.assertEqual([self.openAt(1) for _ in range(3)], [True, True, False])

    def test_anotherWorkerBehindAReload(self) -> None:
        """It has the share that the last one had, by the new limit."""
        for _ in range(5):
            self.enter(0, "upgrading")
        self.reload(6)
        self.house.processes[1].die("signal 9")
        self.network.advance(1)
        self.assertEqual([self.openAt(1), self.openAt(1)], [True, False])

    def test_lessRoom(self) -> None:
        """Shares begin anew; who is there may stay, and the rest adds up before long."""
        clients = [self.enter(0, "upgrading") for _ in range(5)]
        self.reload(2)
        self.assertEqual([self.openAt(0), self.openAt(1), self.openAt(1)], [False, True, False])
        for client in clients:
            client.hangUp()
        self.network.advance(1)
        self.assertEqual([self.openAt(0), self.openAt(0)], [True, False])

    def test_whatAHangingWorkerGivesTooLateStaysItsOwn(self) -> None:
        """It is asked once, and when it comes back all of the room is there."""
        peer, held = self.house.workers[1].peer, list[bytes]()
        peer.dataReceived = held.append  # type: ignore[method-assign]
        clients = [self.enter(0, "upgrading") for _ in range(4)]
        self.network.pump()
        self.assertIsNone(clients[3].lost)
        self.network.advance(ANSWER_PATIENCE)
        self.assertIsNotNone(clients[3].lost)
        self.network.advance(REFUSAL_PAUSE)
        client = self.enter(0, "upgrading")
        self.network.pump()
        self.assertIsNotNone(client.lost)
        del peer.dataReceived
        for data in held:
            peer.dataReceived(data)
        for client in clients:
            client.hangUp()
        self.network.advance(1)
        self.assertEqual([self.openAt(0) for _ in range(6)], [True] * 5 + [False])

    def test_whatIsGivenWhileThereComesToBeLessIsNotThere(self) -> None:
        """Who gave it begins anew with all others."""
        peer, held = self.fleet.serving[1].peer, list[bytes]()
        peer.dataReceived = held.append  # type: ignore[method-assign]
        clients = [self.enter(0, "upgrading") for _ in range(4)]
        self.network.pump()
        self.house.shared.limitOf = lambda name: 4
        del peer.dataReceived
        peer.dataReceived(b"".join(held))
        self.network.pump()
        self.assertIsNotNone(clients[3].lost)

    def test_openConnectionsAreAddedUp(self) -> None:
        """Those of all workers."""
        for worker in (0, 1, 1):
            self.enter(worker, "upgrading")
        found = 'mailproxy_open_connections{listener="upgrading"} 3.0'
        self.assertIn(found, self.result(self.control.metrics()))

    def test_turnedAwayAreCounted(self) -> None:
        """As in one process."""
        for _ in range(7):
            self.enter(0, "upgrading")
        self.assertIn(
            'mailproxy_connections_turned_away_total{listener="upgrading"} 2.0',
            self.result(self.control.metrics()),
        )
