"""Management's questions reach all workers, and their answers are one."""

from twisted.internet.defer import fail
from zope.interface.verify import verifyObject

from mailproxy.control import IControl
from mailproxy.errors import (
    ConfigError,
    InvalidIdentifier,
    MappingError,
    Stage,
    UnknownDestination,
)
from mailproxy.mapping.cache import Known
from tests.stage import LOGIN
from tests.workers.support import FleetCase


class AnswerTests(FleetCase):
    """What is asked."""

    def test_itIsAControlLikeAnyOther(self) -> None:
        """The same interface as one proxy's."""
        self.assertTrue(verifyObject(IControl, self.control))

    def test_numbersAreAddedUp(self) -> None:
        """Lookups and sessions of all; each worker is told of."""
        for number in (0, 1, 1):
            self.enter(number)
            self.home(number, "ann")
        stats = self.result(self.control.stats())
        expected = {"cache_hits": 1, "cache_misses": 2, "active_connections": 3}
        self.assertEqual({key: stats[key] for key in expected}, expected)
        self.assertEqual(stats["hit_rate_pct"], 33.3)
        self.assertEqual([each["pid"] for each in stats["workers"]], [1000, 1001])
        self.assertEqual({each["state"] for each in stats["workers"]}, {"serving"})

    def test_sessionsOfAllAreListedAndKicked(self) -> None:
        """Wherever they are."""
        clients = [self.enter(number) for number in (0, 1)]
        for client in clients:
            client.say(LOGIN)
        self.network.pump()
        found = self.result(self.control.connections("ANN", None, None))
        self.assertEqual([each["identifier"] for each in found], ["ann", "ann"])
        self.assertEqual(len({each["id"] for each in found}), 2)
        self.assertEqual(self.result(self.control.kick("ann")), 2)
        self.assertEqual([client.lost is None for client in clients], [False, False])

    def test_cachedByAny(self) -> None:
        """One worker's memory is enough."""
        self.assertFalse(self.result(self.control.mapping("ann"))["cached"])
        self.home(1, "ann")
        answer = self.result(self.control.mapping("ann"))
        self.assertEqual((answer["cached"], answer["destination"]), (True, "old"))

    def test_healthIsSharedAndReset(self) -> None:
        """Failures at two workers are one streak; a reset is everybody's."""
        for number in (0, 1):
            self.proxyOf(number).health.admit("new").failed(Stage.CONNECT, "192.0.2.9")
            self.network.pump()
        down = {
            each["destination"]: each["down"] for each in self.result(self.control.destinations())
        }
        self.assertEqual(down, {"old": False, "new": True, "far": False})
        self.result(self.control.resetDestination("new"))
        for number in (0, 1):
            self.proxyOf(number).health.admit("new")
        self.failure(self.control.resetDestination("nowhere"), UnknownDestination)

    def test_invalidateForgetsEverywhere(self) -> None:
        """One account, or all."""
        for words in ("ann", None):
            for number in (0, 1):
                self.home(number, "ann")
            self.result(self.control.invalidate(words))
            for number in (0, 1):
                self.assertFalse(self.proxyOf(number).cache.peek("ann"))

    def test_identifiersGoThroughTheRules(self) -> None:
        """A bad one is refused as by one process."""
        for asked in (
            self.control.kick('a"b'),
            self.control.mapping(""),
            self.control.delay("", 5),
            self.control.setMapping("a b", "new"),
        ):
            self.failure(asked, InvalidIdentifier)

    def test_metricsAreAddedUp(self) -> None:
        """Counters and gauges of all, and the fleet's own."""
        for number in (0, 1, 1):
            self.enter(number)
            self.home(number, "ann")
        text = self.result(self.control.metrics())
        self.assertIn('mailproxy_active_sessions{destination="",protocol="imap"} 3.0', text)
        self.assertIn("mailproxy_cache_misses_total 2.0", text)
        self.assertIn("mailproxy_workers 2.0", text)
        self.assertIn("mailproxy_worker_restarts_total 0.0", text)

    def test_reloadIsThePlainOne(self) -> None:
        """Its answer is passed on."""
        self.house.later = ["admin"]
        self.assertEqual(self.result(self.control.reload()), ["admin"])


class WriteTests(FleetCase):
    """Mappings that are changed."""

    def test_allSeeAWriteBeforeItsAnswer(self) -> None:
        """One worker writes the file; no other remembers what was."""
        for number in (0, 1):
            self.assertEqual(self.home(number, "ann"), "old")
        self.result(self.control.setMapping("ann", "new"))
        self.assertEqual((self.directory / "accounts").read_text(), "ann\tnew\n")
        for number in (0, 1):
            self.assertEqual(self.home(number, "ann"), "new")
        self.assertTrue(self.result(self.control.removeMapping("ann")))
        self.assertFalse(self.result(self.control.removeMapping("ann")))
        for number in (0, 1):
            self.assertEqual(self.home(number, "ann"), "old")

    def test_allKnowAWriteWhenTheStoreFails(self) -> None:
        """Whichever worker wrote it, and whichever meets the next login; a removal alike."""
        self.result(self.control.setMapping("BOB", "new"))
        self.result(self.control.setMapping("zoe", "far"))
        self.assertTrue(self.result(self.control.removeMapping("zoe")))
        for number in (0, 1):
            source = self.proxyOf(number).runtime.source
            self.patch(source, "lookup", lambda _: fail(MappingError("down")))
        for words in ("bob", None):
            self.result(self.control.invalidate(words))
            for number in (0, 1):
                self.assertEqual(self.home(number, "bob"), "new")
                self.assertEqual(self.proxyOf(number).cache.stale("zoe"), Known(None))

    def test_editThatAWriteTakesAlongReachesAll(self) -> None:
        """As it would in one process."""
        self.write("accounts", "ann old\nbob far\n")
        self.result(self.control.setMapping("zoe", "new"))
        for number in (0, 1):
            self.assertEqual((self.home(number, "bob"), self.home(number, "zoe")), ("far", "new"))

    def test_refusedWriteChangesNothing(self) -> None:
        """Each error is the one of a single process."""
        self.failure(self.control.setMapping("ann", "nowhere"), UnknownDestination)
        self.failure(self.control.setMapping("#ann", "new"), InvalidIdentifier)
        self.write("accounts", "broken\n")
        self.failure(self.control.setMapping("ann", "new"), MappingError)
        for number in (0, 1):
            self.assertEqual(self.home(number, "ann"), "old")

    def test_reloadReachesAll(self) -> None:
        """And forgets what was remembered."""
        self.home(1, "ann")
        self.write("accounts", "ann far\n")
        self.result(self.control.reloadMappings())
        for number in (0, 1):
            self.assertEqual(self.home(number, "ann"), "far")

    def test_badFileIsRefusedByAll(self) -> None:
        """With its lines; the old table is kept."""
        self.write("accounts", "ann nowhere\n")
        error = self.failure(self.control.reloadMappings(), ConfigError)
        self.assertIn("accounts:1", error.problems[0])
        for number in (0, 1):
            self.assertEqual(self.home(number, "ann"), "old")
        self.write("accounts", "ann new\n")
        self.result(self.control.reloadMappings())

    def test_writerThatDies(self) -> None:
        """Another one writes in its stead."""
        self.house.processes[0].die("signal 9")
        self.result(self.control.setMapping("ann", "new"))
        self.assertEqual(self.home(0, "ann"), "new")
