"""What management asks is answered by a real proxy, which has no listener and a store in memory."""

import os
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from mailproxy.config.model import Config
from mailproxy.control import IControl, LocalControl
from mailproxy.errors import (
    ConfigError,
    InvalidIdentifier,
    MappingError,
    ReadOnlyMapping,
    Stage,
    UnknownDestination,
)
from mailproxy.mapping.interfaces import (
    IMappingSource,
    IReloadableMappingSource,
    IWritableMappingSource,
)
from mailproxy.proxy import Proxy
from mailproxy.routing import Route
from tests.test_registry import FakeSession


@implementer(IMappingSource)
class ReadOnlySource:
    """A table in memory.

    :ivar table: identifier -> destination.
    :ivar error: when set, how everything fails.
    """

    def __init__(self) -> None:
        self.table = {"ann@example.org": "new", "bob@example.org": "gone"}
        self.error: Exception | None = None

    def lookup(self, identifier: str) -> Deferred[str | None]:
        """Look it up."""
        return fail(self.error) if self.error else succeed(self.table.get(identifier))


@implementer(IWritableMappingSource, IReloadableMappingSource)
class WritableSource(ReadOnlySource):
    """A table in memory that can be written, and read again.

    :ivar reloads: how often it was.
    """

    reloads = 0

    def store(self, identifier: str, destination: str) -> Deferred[None]:
        """Write it."""
        if self.error is None:
            self.table[identifier] = destination
        return self._done(None)

    def remove(self, identifier: str) -> Deferred[bool]:
        """Remove it."""
        return self._done(self.error is None and bool(self.table.pop(identifier, None)))

    def reload(self) -> Deferred[None]:
        """Count it."""
        self.reloads += 1
        return self._done(None)

    def _done(self, result: Any) -> Deferred[Any]:
        return fail(self.error) if self.error else succeed(result)


def _destination(host: str) -> dict[str, object]:
    imap = {"port": 143, "tls": "plain"}
    return {"host": host, "allow_plaintext_auth": True, "protocol": {"imap": imap}}


CONFIG = {
    "destination": {name: _destination(f"{name}.example.org") for name in ("old", "new")},
    "routing": {"default_destination": "old"},
    "mapping": {"source": "file", "normalize": "lowercase", "file": {"path": "unused"}},
}


class ControlCase(SynchronousTestCase):
    """A control over a proxy with two destinations, `old` being the default."""

    def setUp(self) -> None:
        """Make the proxy; it is not started."""
        self.use(WritableSource())

    def use(self, source: Any, **mapping: str) -> None:
        """Make another proxy, over this source."""
        table = {**CONFIG, "mapping": {"source": "file", "normalize": "lowercase", **mapping}}
        table["mapping"]["file"] = {"path": "unused"}  # type: ignore[index]
        self.source, self.clock = source, MemoryReactorClock()
        config = Config.model_validate(table)
        self.proxy = Proxy(self.clock, {}, config, source)  # type: ignore[arg-type]
        self.control = LocalControl(self.proxy, lambda: succeed([]))

    def failure(self, question: Deferred[Any], kind: type[Exception]) -> str:
        """How a question has failed."""
        return str(self.failureResultOf(question, kind).value)

    def login(self, identifier: str) -> str:
        """Where a login would go; it fills the cache."""
        route: Route = self.successResultOf(self.proxy.runtime.router.route(identifier))
        return route.destination

    def begin(self, name: str, identifier: str | None, destination: str | None) -> FakeSession:
        """Have a session accepted and routed."""
        session = FakeSession(name, self.proxy.registry)
        self.proxy.registry.add(session)
        self.proxy.registry.routed(session, identifier, destination)
        return session


class InterfaceTests(ControlCase):
    """What holds for all questions."""

    def test_providesTheInterface(self) -> None:
        """The control is what management speaks to, and the store what the proxy does."""
        verifyObject(IControl, self.control)
        verifyObject(IWritableMappingSource, self.source)
        verifyObject(IReloadableMappingSource, self.source)

    def test_unusableIdentifiersAreRefused(self) -> None:
        """By every question that takes one, before anything else is looked at."""
        for name in ("", "a b", 'a"b', "a\nb", "%ann", "x" * 513):
            for question in (
                self.control.mapping(name),
                self.control.setMapping(name, "nowhere"),
                self.control.removeMapping(name),
                self.control.invalidate(name),
                self.control.connections(name, None, None),
                self.control.kick(name),
                self.control.delay(name, 1),
            ):
                self.failure(question, InvalidIdentifier)


class CountTests(ControlCase):
    """Counts and health."""

    def test_statsOfAFreshProxy(self) -> None:
        """All is nought; a rate of nothing is no error."""
        expected = {
            "cache_hits": 0,
            "cache_misses": 0,
            "hit_rate_pct": 0.0,
            "cache_entries": 0,
            "active_connections": 0,
            "connections": [],
            "worker_restarts": 0,
        }
        stats = self.successResultOf(self.control.stats())
        (worker,) = stats.pop("workers")
        self.assertEqual((worker["pid"], worker["state"]), (os.getpid(), "serving"))
        self.assertEqual(stats, expected)

    def test_statsCount(self) -> None:
        """Lookups from memory and from the store, and sessions where they are."""
        for _ in range(3):
            self.login("ann@example.org")
        self.begin("1", "ann@example.org", "new")
        self.begin("2", None, None)
        stats = self.successResultOf(self.control.stats())
        self.assertEqual((stats["cache_hits"], stats["cache_misses"]), (2, 1))
        self.assertEqual((stats["hit_rate_pct"], stats["cache_entries"]), (66.7, 1))
        self.assertEqual(stats["active_connections"], 2)
        routed = {"protocol": "imap", "destination": "new", "active": 1}
        self.assertIn(routed, stats["connections"])
        self.assertIn({**routed, "destination": None}, stats["connections"])

    def test_destinationsAreReported(self) -> None:
        """Every declared one, and what has gone wrong with it."""
        for number in range(5):
            self.proxy.health.admit("new").failed(Stage.CONNECT, f"192.0.2.{number}")
        fine = {
            "destination": "old",
            "consecutive_failures": 0,
            "failure_sources": 0,
            "host_level_failure": False,
            "down": False,
        }
        bad = {
            "destination": "new",
            "consecutive_failures": 5,
            "failure_sources": 5,
            "host_level_failure": True,
            "down": True,
        }
        self.assertEqual(self.successResultOf(self.control.destinations()), [fine, bad])

    def test_aDestinationIsReset(self) -> None:
        """Its circuit closes; one that is not declared cannot be meant."""
        for _ in range(5):
            self.proxy.health.admit("new").failed(Stage.CONNECT, "192.0.2.1")
        self.failure(self.control.resetDestination("nowhere"), UnknownDestination)
        self.assertIsNone(self.successResultOf(self.control.resetDestination("new")))
        self.assertFalse(
            any(each["down"] for each in self.successResultOf(self.control.destinations()))
        )


class MappingTests(ControlCase):
    """Where accounts live."""

    def assertGoes(self, identifier: str, destination: str, *, toDefault: bool) -> None:
        """Hold what is told of an account against what is expected."""
        facts = self.successResultOf(self.control.mapping(identifier))
        told = (facts["destination"], facts["routed_to_default"])
        self.assertEqual(told, (destination, toDefault), identifier)
        self.assertEqual(facts["endpoints"]["imap"]["host"], f"{destination}.example.org")

    def test_anAccountIsExplained(self) -> None:
        """Through the rules of a login: letter case, and a master user's name cut off."""
        facts = self.successResultOf(self.control.mapping("Ann@Example.ORG%root"))
        expected = {
            "identifier": "Ann@Example.ORG%root",
            "normalized": "ann@example.org",
            "destination": "new",
            "routed_to_default": False,
            "cached": False,
            "ground": "mapped",
            "source": "file",
            "endpoints": {"imap": {"host": "new.example.org", "port": 143, "tls": "plain"}},
        }
        self.assertEqual(facts, expected)

    def test_theDefaultIsTold(self) -> None:
        """For an account that is not mapped, or to a destination that is not declared."""
        self.assertGoes("new@example.org", "old", toDefault=True)
        self.assertGoes("bob@example.org", "old", toDefault=True)

    def test_theGroundIsTold(self) -> None:
        """What the decision rests on: an account may be at the default for many reasons."""
        for name, ground in {
            "ann@example.org": "mapped",
            "carol@example.org": "not mapped",
            "bob@example.org": "mapped to an undeclared destination",
        }.items():
            self.assertEqual(self.successResultOf(self.control.mapping(name))["ground"], ground)
        self.source.error = MappingError("down")
        facts = self.successResultOf(self.control.mapping("ann@example.org"))
        self.assertEqual(facts["ground"], "store failed")

    def test_askingDoesNotFillTheCache(self) -> None:
        """Only a login does, and then it is told."""
        for cached in (False, False):
            facts = self.successResultOf(self.control.mapping("ann@example.org"))
            self.assertIs(facts["cached"], cached)
        self.assertEqual((self.proxy.cache.entries, self.proxy.cache.misses), (0, 0))
        self.login("ann@example.org")
        facts = self.successResultOf(self.control.mapping("ANN@example.org"))
        self.assertIs(facts["cached"], True)
        self.assertEqual(self.proxy.cache.hits, 0)

    def test_aStoreThatCannotTellIsAFailureWhereLoginsFail(self) -> None:
        """What is told is what a login would get, so it follows `on_error`."""
        self.source.error = MappingError("down")
        self.assertGoes("ann@example.org", "old", toDefault=True)
        self.use(WritableSource(), on_error="tempfail")
        self.source.error = MappingError("down")
        self.assertEqual(
            self.failure(self.control.mapping("ann@example.org"), MappingError), "down"
        )

    def test_aMappingIsWritten(self) -> None:
        """Under its normalized identifier; the next login goes there."""
        self.assertEqual(self.login("carol@example.org"), "old")
        done = self.control.setMapping("Carol@example.org%root", "new")
        self.assertIsNone(self.successResultOf(done))
        self.assertEqual(self.source.table["carol@example.org"], "new")
        self.assertEqual(self.login("carol@example.org"), "new")

    def test_anUndeclaredDestinationIsNotWritten(self) -> None:
        """The table stays as it is."""
        before = dict(self.source.table)
        done = self.control.setMapping("ann@example.org", "nowhere")
        self.failure(done, UnknownDestination)
        self.assertEqual(self.source.table, before)

    def test_aMappingIsRemoved(self) -> None:
        """The answer says whether there was one; the next login goes to the default."""
        self.login("ann@example.org")
        for removed in (True, False):
            done = self.control.removeMapping("ANN@example.org")
            self.assertIs(self.successResultOf(done), removed)
        self.assertEqual(self.login("ann@example.org"), "old")

    def test_aFailedWriteForgetsNothing(self) -> None:
        """The last known answer is what keeps a moved account whole while the store is down."""
        self.login("ann@example.org")
        self.source.error = MappingError("down")
        self.failure(self.control.setMapping("ann@example.org", "old"), MappingError)
        self.failure(self.control.removeMapping("ann@example.org"), MappingError)
        self.clock.advance(86400)
        self.assertEqual(self.login("ann@example.org"), "new")

    def test_aReadOnlyStoreIsNotWritten(self) -> None:
        """And can be read again all the same."""
        self.use(ReadOnlySource())
        self.failure(self.control.setMapping("ann@example.org", "old"), ReadOnlyMapping)
        self.failure(self.control.removeMapping("ann@example.org"), ReadOnlyMapping)
        self.login("ann@example.org")
        self.assertIsNone(self.successResultOf(self.control.reloadMappings()))
        self.assertFalse(self.proxy.cache.peek("ann@example.org"))

    def test_aReloadIsSeenByTheNextLogin(self) -> None:
        """The store is read, then asked anew."""
        self.login("ann@example.org")
        self.source.table = {}
        self.assertEqual(self.login("ann@example.org"), "new")
        self.successResultOf(self.control.reloadMappings())
        self.assertEqual((self.source.reloads, self.login("ann@example.org")), (1, "old"))

    def test_aFailedReloadForgetsNothing(self) -> None:
        """The old table is kept, and what is remembered of it."""
        self.login("ann@example.org")
        self.source.error = ConfigError(["accounts:3: bad"])
        self.failure(self.control.reloadMappings(), ConfigError)
        self.assertEqual(self.proxy.cache.entries, 1)

    def test_oneAccountOrAllAreAskedForAnew(self) -> None:
        """By any of an account's spellings."""
        names = ("ann@example.org", "bob@example.org", "carol@example.org")
        for name in names:
            self.login(name)
        self.successResultOf(self.control.invalidate("ANN@example.org"))
        self.assertEqual([self.proxy.cache.peek(name) for name in names], [False, True, True])
        self.successResultOf(self.control.invalidate(None))
        self.assertFalse(any(self.proxy.cache.peek(name) for name in names))

    def test_nothingThatIsTriedInAnOutageSendsAnAccountBack(self) -> None:
        """A store that is down is not mended by asking it anew: the last known answer holds."""
        self.use(ReadOnlySource())
        self.login("ann@example.org")
        self.source.error = MappingError("down")
        for attempt in (
            self.control.reloadMappings,
            lambda: self.control.invalidate("ann@example.org"),
            lambda: self.control.invalidate(None),
        ):
            self.successResultOf(attempt())
            facts = self.successResultOf(self.control.mapping("ann@example.org"))
            self.assertEqual(facts["ground"], "store failed, last known answer")
            self.assertEqual(self.login("ann@example.org"), "new")
        self.source.error, self.source.table = None, {}
        self.successResultOf(self.control.invalidate(None))
        self.assertEqual(self.login("ann@example.org"), "old")


class OutageTests(ControlCase):
    """A store that fails right behind a write, before anybody has logged in."""

    def test_movedAccountStaysMoved(self) -> None:
        """Else the first login after a cut-over would be on the old server."""
        self.successResultOf(self.control.setMapping("Carol@example.org", "new"))
        self.assertEqual((self.proxy.cache.hits, self.proxy.cache.misses), (0, 0))
        self.source.error = MappingError("down")
        facts = self.successResultOf(self.control.mapping("carol@example.org"))
        self.assertEqual(facts["ground"], "store failed, last known answer")
        self.assertEqual(self.login("carol@example.org"), "new")

    def test_removedAccountGoesToTheDefault(self) -> None:
        """What was remembered of it before is wrong."""
        self.login("ann@example.org")
        self.assertTrue(self.successResultOf(self.control.removeMapping("ann@example.org")))
        self.source.error = MappingError("down")
        self.assertEqual(self.login("ann@example.org"), "old")

    def test_whatAnotherProgramWritesNextIsSeen(self) -> None:
        """The store is still believed first."""
        self.successResultOf(self.control.setMapping("carol@example.org", "new"))
        self.source.table["carol@example.org"] = "old"
        self.assertEqual(self.login("carol@example.org"), "old")

    def test_failedWriteIsNotTakenForKnown(self) -> None:
        """Nobody can tell whether it was done: the last answer of the store holds, or none."""
        self.login("ann@example.org")
        self.source.error = MappingError("no answer in time")
        self.failure(self.control.setMapping("ann@example.org", "old"), MappingError)
        self.failure(self.control.setMapping("carol@example.org", "new"), MappingError)
        self.assertEqual(self.login("ann@example.org"), "new")
        self.assertEqual(self.login("carol@example.org"), "old")


class DoubtfulWriteTests(ControlCase):
    """A write whose answer did not come, and that was done all the same."""

    def test_theNextLookupAsksTheStore(self) -> None:
        """Else the account would go to its old place until the old answer's time is over."""
        source = WritableSource()
        self.use(source)
        self.successResultOf(self.proxy.cache.lookup("ann@example.org"))
        source.error = MappingError("no answer in time")
        for write in (
            self.control.setMapping("ann@example.org", "old"),
            self.control.removeMapping("ann@example.org"),
        ):
            self.failure(write, MappingError)
        source.error, source.table["ann@example.org"] = None, "old"
        looked = self.proxy.cache.lookup("ann@example.org")
        self.assertEqual(self.successResultOf(looked), "old")


class SessionTests(ControlCase):
    """Who is connected."""

    def test_sessionsAreDescribed(self) -> None:
        """With all that the registry knows of them."""
        self.begin("1", "ann@example.org", "new")
        expected = {
            "id": "1",
            "protocol": "imap",
            "listener": "imaps",
            "client": "192.0.2.1:50000",
            "identifier": "ann@example.org",
            "destination": "new",
            "since": 0.0,
            "bytes_received": 0,
            "bytes_sent": 0,
        }
        found = self.successResultOf(self.control.connections(None, None, None))
        self.assertEqual(found, [expected])

    def test_sessionsAreFiltered(self) -> None:
        """By account in any spelling, destination and protocol."""
        self.begin("1", "ann@example.org", "new")
        self.begin("2", "bob@example.org", "old")
        for filters, names in {
            ("ANN@example.org%root", None, None): ["1"],
            (None, "old", None): ["2"],
            (None, None, "imap"): ["1", "2"],
            (None, None, "pop3"): [],
            ("ann@example.org", "old", None): [],
        }.items():
            found = self.successResultOf(self.control.connections(*filters))
            self.assertEqual([each["id"] for each in found], names, filters)

    def test_anAccountIsKicked(self) -> None:
        """Every session of it, and nobody else's."""
        sessions = [self.begin(name, "ann@example.org", "new") for name in "12"]
        other = self.begin("3", "bob@example.org", "new")
        self.assertEqual(self.successResultOf(self.control.kick("ANN@example.org")), 2)
        self.assertEqual([each.kicks for each in sessions], [1, 1])
        self.assertEqual(other.kicks, 0)

    def test_newLoginsAreHeld(self) -> None:
        """Until the time is over, or set to nought."""
        self.successResultOf(self.control.delay("ANN@example.org", 30))
        held = self.proxy.registry.held("ann@example.org")
        self.successResultOf(self.proxy.registry.held("bob@example.org"))
        self.clock.advance(29)
        self.assertNoResult(held)
        self.successResultOf(self.control.delay("ann@example.org", 0))
        self.successResultOf(held)


class OvertakenWriteTests(ControlCase):
    """A write to a store that a reload replaces meanwhile."""

    def reloaded(self, source: Any) -> None:
        """Put another store in the place of the one that is used."""
        self.proxy.adopt(self.proxy.makeRuntime(self.proxy.runtime.config, source))
        self.proxy.cache.replaceSource(source)

    def test_theNewStoreHasItToo(self) -> None:
        """Answered is what the next login sees."""
        old, new = SlowSource(), WritableSource()
        self.use(old)
        answer = self.control.setMapping("carol@example.org", "new")
        self.reloaded(new)
        self.assertNoResult(answer)
        old.written.callback(None)
        self.successResultOf(answer)
        self.assertEqual(new.table["carol@example.org"], "new")
        self.assertEqual(self.login("carol@example.org"), "new")

    def test_theNewStoreMayBeReadOnly(self) -> None:
        """Then the write has not been done."""
        old = SlowSource()
        self.use(old)
        answer = self.control.setMapping("carol@example.org", "new")
        self.reloaded(ReadOnlySource())
        old.written.callback(None)
        self.failure(answer, ReadOnlyMapping)


class SlowSource(WritableSource):
    """A table whose writes end when they are told to.

    :ivar written: the end of a write.
    """

    def __init__(self) -> None:
        super().__init__()
        self.written: Deferred[None] = Deferred()

    def store(self, identifier: str, destination: str) -> Deferred[None]:
        """Write it, some time."""
        return self.written
