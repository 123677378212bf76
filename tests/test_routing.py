"""From an identifier to a destination: what the store says, and what holds when it cannot."""

from typing import Any, cast

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from mailproxy.config.stores import OnError
from mailproxy.errors import MappingError
from mailproxy.mapping.cache import CacheSettings, MappingCache
from mailproxy.mapping.interfaces import IMappingSource
from mailproxy.routing import Ground, Route, Router

JANE = "jane@example.com"


@implementer(IMappingSource)
class FakeSource:
    """A store that can be told to fail, and that counts its questions."""

    def __init__(self) -> None:
        self.table: dict[str, str] = {}
        self.broken = False
        self.asked: list[str] = []

    def lookup(self, identifier: str) -> Deferred[str | None]:
        """Find it, or fail."""
        self.asked.append(identifier)
        if self.broken:
            return fail(MappingError("the store is down"))
        return succeed(self.table.get(identifier))


class RouterCase(SynchronousTestCase):
    """Two destinations, `legacy` being the default."""

    def setUp(self) -> None:
        """Start with an empty store that works."""
        self.clock, self.source = Clock(), FakeSource()
        self.cache = MappingCache(self.source, self.clock, CacheSettings())
        self.warnings: list[dict[str, Any]] = []
        observer = cast(ILogObserver, self.warnings.append)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

    def router(self, onError: OnError = OnError.STALE) -> Router:
        """Make a router."""
        return Router(self.cache, ["legacy", "new"], "legacy", onError)

    def route(self, identifier: str | None, onError: OnError = OnError.STALE) -> Route:
        """Route at once."""
        found: Route = self.successResultOf(self.router(onError).route(identifier))
        return found

    def fail_(self) -> None:
        """Let the store fail, and what was answered expire."""
        self.source.broken = True
        self.clock.advance(1000)


class RouteTests(RouterCase):
    """While the store works."""

    def test_theStoreDecides(self) -> None:
        """A mapped account goes where it is mapped to."""
        self.source.table[JANE] = "new"
        found = self.route(JANE)
        self.assertEqual(found, Route("new", Ground.MAPPED))
        self.assertFalse(found.toDefault)

    def test_theRestGoesToTheDefault(self) -> None:
        """An account that is not mapped."""
        found = self.route(JANE)
        self.assertEqual(found, Route("legacy", Ground.ABSENT))
        self.assertTrue(found.toDefault)

    def test_beingMappedToTheDefaultIsBeingMapped(self) -> None:
        """It is another thing than not being mapped."""
        self.source.table[JANE] = "legacy"
        self.assertFalse(self.route(JANE).toDefault)

    def test_whoNamesNobodyGoesToTheDefault(self) -> None:
        """And the store is not asked."""
        found = self.route(None)
        self.assertEqual(found, Route("legacy", Ground.NAMELESS))
        self.assertTrue(found.toDefault)
        self.assertEqual(self.source.asked, [])

    def test_anUndeclaredDestinationIsTheDefaultWithAWarning(self) -> None:
        """It names the account in its redacted form, and the destination escaped."""
        self.source.table[JANE] = "gone\n"
        found = self.route(JANE)
        self.assertEqual(found, Route("legacy", Ground.UNDECLARED))
        self.assertTrue(found.toDefault)
        (warning,) = self.warnings
        self.assertEqual(warning["log_level"].name, "warn")
        text = warning["log_format"].format(**warning)
        self.assertNotIn(JANE, text)
        self.assertNotIn("\n", text)
        self.assertIn("gone", text)

    def test_anAnswerIsRemembered(self) -> None:
        """The second login asks nobody."""
        self.route(JANE)
        self.route(JANE)
        self.assertEqual(self.source.asked, [JANE])


class FailureTests(RouterCase):
    """While the store cannot tell."""

    def test_theLastKnownAnswerHolds(self) -> None:
        """`stale`: a moved account stays where it was, however old the answer is."""
        self.source.table[JANE] = "new"
        self.route(JANE)
        self.fail_()
        found = self.route(JANE)
        self.assertEqual(found, Route("new", Ground.STALE))
        self.assertFalse(found.toDefault)

    def test_anUnknownAccountGoesToTheDefault(self) -> None:
        """`stale` without any answer to remember."""
        self.fail_()
        found = self.route(JANE)
        self.assertEqual(found, Route("legacy", Ground.FAILED))
        self.assertTrue(found.toDefault)

    def test_anAccountLastKnownAsNotMappedGoesToTheDefault(self) -> None:
        """`stale`: and it counts as routed to the default, as it did before."""
        self.route(JANE)
        self.fail_()
        found = self.route(JANE)
        self.assertEqual(found.destination, "legacy")
        self.assertTrue(found.toDefault)

    def test_aLastKnownDestinationMustStillBeDeclared(self) -> None:
        """`stale`: a reload may have taken it away since."""
        self.source.table[JANE] = "old"
        self.route(JANE)
        self.fail_()
        found = self.route(JANE)
        self.assertEqual(found.destination, "legacy")
        self.assertTrue(found.toDefault)

    def test_theDefaultMayBeWanted(self) -> None:
        """`default`: even though an answer is remembered."""
        self.source.table[JANE] = "new"
        self.route(JANE)
        self.fail_()
        found = self.route(JANE, OnError.DEFAULT)
        self.assertEqual(found, Route("legacy", Ground.FAILED))
        self.assertTrue(found.toDefault)

    def test_refusalMayBeWanted(self) -> None:
        """`tempfail`: even though an answer is remembered; but one still current holds."""
        self.source.table[JANE] = "new"
        router = self.router(OnError.TEMPFAIL)
        self.successResultOf(router.route(JANE))
        self.source.broken = True
        self.assertEqual(self.route(JANE, OnError.TEMPFAIL).destination, "new")
        self.fail_()
        self.failureResultOf(router.route(JANE), MappingError)
        self.failureResultOf(router.preview(JANE), MappingError)
        self.assertEqual(self.route(None, OnError.TEMPFAIL).destination, "legacy")

    def test_theStoreIsBelievedAgain(self) -> None:
        """Once it works, what it says holds."""
        self.fail_()
        self.route(JANE)
        self.source.broken = False
        self.source.table[JANE] = "new"
        self.clock.advance(5)
        self.assertEqual(self.route(JANE), Route("new", Ground.MAPPED))


class PreviewTests(RouterCase):
    """Asking without leaving a trace."""

    def test_itDecidesAlike(self) -> None:
        """Mapped, not mapped, undeclared, failed."""
        self.source.table.update({JANE: "new", "u@example.com": "gone"})
        router = self.router()
        for identifier, ground in (
            (JANE, Ground.MAPPED),
            ("x@example.com", Ground.ABSENT),
            ("u@example.com", Ground.UNDECLARED),
        ):
            self.assertEqual(self.successResultOf(router.preview(identifier)).ground, ground)
        self.source.broken = True
        self.assertEqual(self.successResultOf(router.preview(JANE)).ground, Ground.FAILED)

    def test_itFillsNothing(self) -> None:
        """Neither the cache nor its counters."""
        self.source.table[JANE] = "new"
        self.successResultOf(self.router().preview(JANE))
        self.assertEqual((self.cache.entries, self.cache.hits, self.cache.misses), (0, 0, 0))

    def test_itSeesWhatIsRemembered(self) -> None:
        """It tells where a login would go now, not where it should."""
        self.route(JANE)
        self.source.table[JANE] = "new"
        found = self.successResultOf(self.router().preview(JANE))
        self.assertEqual(found.destination, "legacy")
