"""The mapping's source at a reload: kept, revised or replaced, and closed in its time."""

from functools import partial

from twisted.internet.defer import Deferred, fail, succeed

from mailproxy.adoption import SOURCE_GRACE, LocalAdopter
from mailproxy.mapping.interfaces import IMappingSource, Revision
from mailproxy.routing import Route
from tests.config.support import changed
from tests.mapping.test_file import atOnce
from tests.test_proxy import TEXT
from tests.test_reload import OTHER_STORE, REDIS, PooledSource, ReloadCase


class SourceTests(ReloadCase):
    """The mapping's source: kept, revised or replaced."""

    def setUp(self) -> None:
        """Start the proxy."""
        super().setUp()
        self.proxy.startService()
        self.addCleanup(self.proxy.stopService)

    def replace(self, source: IMappingSource) -> None:
        """Have another store from now on."""
        self.text, self.stores.made = OTHER_STORE, [source]
        self.successResultOf(self.reloader.reload())

    def home(self, identifier: str) -> str:
        """Where the next login goes."""
        route: Route = self.successResultOf(self.proxy.runtime.router.route(identifier))
        return route.destination

    def test_sameStoreIsRevised(self) -> None:
        """It serves on, by the configuration in force; what is remembered stays."""
        self.home("ann")
        self.reload(('source = "file"', 'source = "file"\non_error = "tempfail"'))
        self.assertIs(self.proxy.runtime.source, self.source)
        self.assertEqual(self.stores.revised, [self.proxy.runtime.config])
        self.assertTrue(self.proxy.cache.peek("ann"))

    def test_changedContentIsLookedUpAgain(self) -> None:
        """What was remembered of the old content is forgotten."""
        self.assertEqual(self.home("ann"), "old")
        self.source.table["ann"] = "new"
        self.stores.outcome = lambda: succeed(Revision(changed=True))
        self.reload()
        self.assertEqual(self.home("ann"), "new")

    def test_tablesOfOtherStoresDoNotCount(self) -> None:
        """A table that nobody reads changes nothing."""
        self.reload(extra=REDIS)
        self.assertIs(self.proxy.runtime.source, self.source)

    def test_changedTableMakesAnotherSource(self) -> None:
        """The same kind of store in another place is another one."""
        self.write("others", b"ann new\n")
        self.stores.made = [PooledSource("new")]
        self.reload(('"accounts"', '"others"'))
        self.assertEqual(self.home("ann"), "new")

    def test_otherStoreIsAskedAtOnce(self) -> None:
        """It is started; lookups and management's writes go there, memory begins anew."""
        self.assertEqual(self.home("ann"), "old")
        source = PooledSource("new")
        self.replace(source)
        self.assertEqual(source.running, 1)
        self.assertIs(self.proxy.runtime.source, source)
        self.assertEqual(self.home("ann"), "new")

    def test_lookupUnderWayIsAskedAgain(self) -> None:
        """Nobody gets an answer that the old store gives late."""
        self.source.pending = Deferred()
        waiting = Deferred.fromCoroutine(self.proxy.runtime.router.route("ann"))
        self.replace(PooledSource("new"))
        self.source.pending.callback("old")
        self.assertEqual(self.successResultOf(waiting).destination, "new")

    def test_replacedStoreIsClosedAfterAWhile(self) -> None:
        """It may end the writes that it has begun."""
        first, second = PooledSource("new"), PooledSource("far")
        self.replace(first)
        self.text, self.stores.made = TEXT, [second]
        self.successResultOf(self.reloader.reload())
        self.network.advance(SOURCE_GRACE - 1)
        self.assertEqual((first.running, second.running), (1, 1))
        self.network.advance(1)
        self.assertEqual((first.running, second.running), (0, 1))

    def test_replacedStoreIsClosedWhenWeStop(self) -> None:
        """Its time is over then, and the stop waits until it is closed."""
        first = PooledSource("new")
        first.closing = Deferred()
        self.replace(first)
        self.text, self.stores.made = TEXT, [PooledSource("far")]
        self.successResultOf(self.reloader.reload())
        stopped = self.reloader.stopService()
        self.assertEqual(first.running, 0)
        self.assertNoResult(stopped)
        first.closing.callback(None)
        self.successResultOf(stopped)

    def test_replacedStoreThatDoesNotStop(self) -> None:
        """Its mistake is logged, and nobody's trouble."""
        first = PooledSource("new")
        first.closing = fail(ZeroDivisionError())
        self.replace(first)
        self.text, self.stores.made = TEXT, [PooledSource("far")]
        self.successResultOf(self.reloader.reload())
        self.network.advance(SOURCE_GRACE)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_discardedAdoptionIsNone(self) -> None:
        """A revision is given back to its source, and nothing else has changed."""
        outcomes: list[str] = []
        revision = Revision(True, discard=lambda: outcomes.append("discarded"))
        self.stores.outcome = lambda: succeed(revision)
        before = self.proxy.runtime
        adopter = LocalAdopter(self.proxy, self.stores, atOnce)
        self.successResultOf(adopter.prepare(before.config)).discard()
        self.assertEqual(outcomes, ["discarded"])
        self.assertIs(self.proxy.runtime, before)


class EarlyTests(ReloadCase):
    """A reload that meets a proxy which has not begun: a worker that is being started."""

    def test_eachStoreIsStartedOnceAndStoppedOnce(self) -> None:
        """The one that holds when the proxy begins; those before it never ran."""
        events: list[str] = []
        for name in ("first", "second"):
            source = PooledSource("new")
            for what in ("startService", "stopService"):
                self.patch(source, what, partial(events.append, f"{name} {what}"))
            self.text = changed(("redis://localhost", f"redis://{name}"), base=OTHER_STORE)
            self.stores.made = [source]
            self.successResultOf(self.reloader.reload())
        self.network.advance(SOURCE_GRACE)
        self.assertEqual(events, [])
        self.proxy.startService()
        self.assertEqual(events, ["second startService"])
        self.successResultOf(self.proxy.stopService())
        self.successResultOf(self.reloader.stopService())
        self.assertEqual(events, ["second startService", "second stopService"])
