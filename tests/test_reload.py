"""A reload takes all of a configuration or nothing, and disturbs nobody who is there."""

import gc
import weakref
from collections.abc import Callable
from typing import Any, cast

from twisted.application.service import IService, Service
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.logger import LogLevel
from zope.interface import implementer

from mailproxy.adoption import LocalAdopter
from mailproxy.config import load
from mailproxy.config.model import Config
from mailproxy.errors import ConfigError, Stage
from mailproxy.logs import Logger
from mailproxy.mapping.file import InThread
from mailproxy.mapping.interfaces import IMappingSource, Revision
from mailproxy.reload import WATCH_INTERVAL, Reloader
from mailproxy.tls import BackendTLS
from tests.config.support import MAIN, TOKEN, Issued, changed
from tests.mapping.test_file import HeldThread, atOnce
from tests.stage import LOGIN, Watched
from tests.test_proxy import TEXT, ProxyCase

RENEWED = Issued("mail.example.com", "imap.example.com")
REDIS = '\n[mapping.redis]\nurl = "redis://localhost"\n'
OTHER_STORE = changed(('source = "file"', 'source = "redis"'), extra=REDIS, base=TEXT)
MORE = '\n[listener.more]\nprotocol = "imap"\nbind = "127.0.0.1:9"\ntls = "plain"\n'
ADMIN = f'\n[admin]\nbind = "127.0.0.1:8443"\nbearer_token = "{TOKEN}"\n'


@implementer(IMappingSource, IService)
class PooledSource(Service):
    """A source with connections of its own, which it opens and closes as a service.

    :ivar closing: what its stop waits for.
    """

    name = None

    def __init__(self, destination: str) -> None:
        self.destination = destination
        self.closing: Deferred[None] | None = None

    def lookup(self, identifier: str) -> Deferred[str | None]:
        """Everybody lives in one place."""
        return succeed(self.destination)

    def stopService(self) -> Deferred[None] | None:
        """Close."""
        super().stopService()
        return self.closing


class MemoryStores:
    """Makes and revises sources as the test says.

    :ivar made: the next sources to be made.
    :ivar outcome: what becomes of a revision.
    :ivar revised: the configurations that sources were revised for.
    """

    def __init__(self) -> None:
        self.made: list[IMappingSource | Exception] = []
        self.outcome: Callable[[], Deferred[Revision]] = lambda: succeed(Revision())
        self.revised: list[Config] = []

    def remake(self, config: Config) -> Deferred[IMappingSource]:
        """Make the next one."""
        source = self.made.pop(0)
        return fail(source) if isinstance(source, Exception) else succeed(source)

    def revise(self, source: IMappingSource, config: Config) -> Deferred[Revision]:
        """Revise it."""
        self.revised.append(config)
        return self.outcome()


class ReloadCase(Watched, ProxyCase):
    """A proxy, and a reloader whose thread works at once.

    :ivar text: what the file is when it is read next.
    """

    def setUp(self) -> None:
        """Build the reloader, and start it."""
        Watched.setUp(self)
        ProxyCase.setUp(self)
        self.text, self.stores = TEXT, MemoryStores()
        self.reloader = self.makeReloader(atOnce)
        self.reloader.startService()
        self.addCleanup(self.stop)

    def makeReloader(self, thread: InThread) -> Reloader:
        """Make one for the same proxy."""
        adopter = LocalAdopter(self.proxy, self.stores, thread)
        return Reloader(adopter, lambda: self.read(), thread, self.network)

    def read(self) -> Config:
        """Read the file."""
        return self.load(self.text)

    def stop(self) -> None:
        """Stop the reloader if it runs; no timer is left."""
        if self.reloader.running:
            self.successResultOf(self.reloader.stopService())
        timers = [str(call) for call in self.network.getDelayedCalls()]
        self.assertEqual([each for each in timers if "Reloader" in each or "Looping" in each], [])

    def reload(self, *changes: tuple[str, str], extra: str = "") -> list[str]:
        """Reload a changed file; the keys that need a restart."""
        self.text = changed(*changes, extra=extra, base=TEXT)
        return self.successResultOf(self.reloader.reload())

    def assertRefused(self, kind: type[Exception] = ConfigError) -> Any:
        """A reload fails, and everything is what it was; returns the error."""
        proxy = self.proxy
        self.successResultOf(proxy.cache.lookup("ann"))
        before = self.state()
        error = self.failureResultOf(self.reloader.reload(), kind).value
        self.assertEqual(self.state(), before)
        for listener in proxy.listeners:
            self.assertIs(listener.config, proxy.runtime.config.listener[listener.name])
        return error

    def state(self) -> tuple[object, ...]:
        """What a reload may change."""
        proxy = self.proxy
        level, limits = Logger.level, [each.factory.limit for each in proxy.listeners]
        remembered = proxy.cache.peek("ann"), proxy.cache.entries
        return id(proxy.runtime), proxy.health.settings, level, limits, remembered

    def shown(self) -> bytes:
        """The fingerprint of the certificate that management's next client is shown."""
        connection = self.proxy.serverConnectionForTLS(cast(Any, None))
        certificate = connection.get_certificate()
        assert certificate is not None
        return bytes(certificate.digest("sha256"))

    def context(self, name: str) -> BackendTLS:
        """What makes TLS connections to a destination."""
        context = self.target(name).settings.context
        assert isinstance(context, BackendTLS)
        return context

    def said(self, text: str) -> list[str]:
        """The warnings that hold a text."""
        return [line for line in self.logged(LogLevel.warn) if text in line]


class AdoptionTests(ReloadCase):
    """What a reload changes, and for whom."""

    def test_newSessionsGetTheNewConfiguration(self) -> None:
        """Greeting and destination, from the next client on."""
        self.reload(("hello", "good day"), ("203.0.113.1", "203.0.113.9"))
        client = self.enter()
        self.assertIn(b"good day", client.take())
        self.ask(client, LOGIN)
        self.assertEqual(self.network.call.host, "203.0.113.9")

    def test_runningDialogueIsRoutedByTheNewOne(self) -> None:
        """Who was greeted by the old configuration and logs in now goes where the new one says."""
        client = self.enter()
        self.reload(("203.0.113.1", "203.0.113.9"))
        self.ask(client, LOGIN)
        self.assertEqual(self.network.call.host, "203.0.113.9")

    def test_bridgesLiveOn(self) -> None:
        """A bridge does not notice that its destination has gone from the file."""
        client, backend = self.bridge()
        self.write("accounts", "anna older\n")
        gone = changed(("destination.old]", "destination.older]"), base=TEXT)
        self.text = gone.replace('default_destination = "old"', 'default_destination = "older"')
        self.successResultOf(self.reloader.reload())
        self.assertEqual(self.ask(client, b"b NOOP\r\n"), b"")
        self.assertEqual(backend.bridged, b"b NOOP\r\n")
        backend.say(b"* 1 EXISTS\r\n")
        self.network.pump()
        self.assertEqual(client.take(), b"* 1 EXISTS\r\n")
        (session,) = self.proxy.registry.find()
        self.assertEqual(session.destination, "old")

    def test_listenersRulesAndHealthRules(self) -> None:
        """A listener's limit, its TLS mode and the circuits' rules are the new ones."""
        self.reload(
            ("max_auth_attempts = 9", "max_connections = 1"),
            ("host_down_threshold = 2", "host_down_threshold = 3"),
            ('bind = "127.0.0.1:143"\ntls = "plain"', 'bind = "127.0.0.1:143"\ntls = "starttls"'),
        )
        self.assertEqual(self.proxy.health.settings.threshold, 3)
        (upgrading,) = [each for each in self.proxy.listeners if each.name == "upgrading"]
        self.assertEqual(upgrading.factory.limit, 1)
        self.assertIn(b"STARTTLS", self.enter().take())

    def test_whatIsKnownIsKept(self) -> None:
        """Sessions, the health of destinations, the cache and all counts outlive a reload."""
        proxy = self.proxy
        self.bridge()
        proxy.health.admit("new").failed(Stage.CONNECT, "192.0.2.9")
        counts = proxy.metrics.render()
        self.reload(("hello", "good day"))
        self.assertEqual(proxy.registry.count(), 1)
        (_, new, _) = proxy.health.report(["old", "new", "far"])
        self.assertEqual(new.consecutiveFailures, 1)
        self.assertTrue(proxy.cache.peek("ann"))
        self.assertEqual(proxy.metrics.render(), counts)

    def test_logLevel(self) -> None:
        """The level is the file's, from the end of the reload on."""
        self.reload(('shutdown_grace = "20s"', 'log_level = "error"'))
        self.assertIs(Logger.level, LogLevel.error)

    def test_warningsAreSaidAgain(self) -> None:
        """What somebody should look at is in the log, as at a start."""
        self.reload(("hide_auth_errors = true", "tls_allow_invalid_certs = true"))
        self.assertEqual(len(self.said("destination.old.tls_allow_invalid_certs")), 1)

    def test_restartIsNamedAndNotHalfTaken(self) -> None:
        """What needs a restart is answered and logged; until then the old value holds."""
        later = self.reload(
            ('bind = "127.0.0.1:143"', 'bind = "127.0.0.1:1143"'),
            ('file.path = "accounts"', 'file.path = "accounts"\npositive_ttl = "1s"'),
            extra=MORE + ADMIN,
        )
        named = ["listener.more", "listener.open.bind", "mapping.positive_ttl", "admin"]
        self.assertEqual(later, named)
        self.assertIn(f"reloaded; needs a restart: {', '.join(named)}", self.logged(LogLevel.info))
        config = self.proxy.runtime.config
        self.assertEqual(config.listener["open"].bind, ("127.0.0.1:143",))
        self.assertEqual((config.mapping.positive_ttl, config.admin), (600.0, None))
        self.assertNotIn("more", self.proxy.runtime.listeners)

    def test_replacedRuntimeIsGivenUpAtOnce(self) -> None:
        """Trust stores are large: a replaced one does not wait for the garbage collection."""
        gc.disable()
        self.addCleanup(gc.enable)
        contexts = [weakref.ref(self.context(name)) for name in ("new", "far")]
        self.reload()
        self.assertEqual([context() for context in contexts], [None, None])


class RefusalTests(ReloadCase):
    """Whatever is wrong, and whenever it is found, nothing changes."""

    def test_everyMistakeIsNamed(self) -> None:
        """A broken file is refused as at a start: all its mistakes together."""
        self.text = changed(
            ("host_down_threshold = 2", "host_down_threshold = 7"),
            ('host = "new.example.com"', 'hots = "new.example.com"'),
            ('default_destination = "old"', 'default_destination = "nowhere"'),
            ('"20s"', '"20 parsecs"'),
            base=TEXT,
        )
        problems = "\n".join(self.assertRefused().problems)
        for key in ("server.shutdown_grace", "destination.new.hots", "routing.default_destination"):
            self.assertIn(key, problems)

    def test_missingFile(self) -> None:
        """A file that is gone is a mistake like any other."""
        self.patch(self, "read", lambda: load(self.directory / "gone", {}))
        (problem,) = self.assertRefused().problems
        self.assertIn("gone", problem)

    def test_certificateThatChangesMeanwhile(self) -> None:
        """A pair that no longer fits when it is put to use is refused then."""
        config = self.load(changed(("hello", "good day"), base=TEXT))
        self.patch(self, "read", lambda: config)
        self.write("main.key", RENEWED.key)
        self.assertRefused()

    def test_sourceThatCannotServe(self) -> None:
        """A mapping file with mistakes, found by the source itself."""
        self.text = changed(("hello", "good day"), base=TEXT)
        self.stores.outcome = lambda: fail(ConfigError(["accounts:3: no"]))
        self.assertEqual(self.assertRefused().problems, ("accounts:3: no",))

    def test_storeThatCannotBeMade(self) -> None:
        """Another store that cannot be opened."""
        self.text, self.stores.made = OTHER_STORE, [ConfigError(["mapping.redis: no"])]
        self.assertEqual(self.assertRefused().problems, ("mapping.redis: no",))

    def test_storeThatCannotBeStarted(self) -> None:
        """Another store with a bug is found before anything is swapped."""
        self.proxy.startService()
        self.addCleanup(self.proxy.stopService)
        source = PooledSource("new")
        self.patch(source, "startService", lambda: 1 // 0)
        self.text, self.stores.made = OTHER_STORE, [source]
        self.assertRefused(ZeroDivisionError)

    def test_openListenerIsNotLeftWithoutADestination(self) -> None:
        """A listener that is gone from the file stays open: what it needs may not go with it."""
        endpoint = 'protocol.imap = { port = 143, tls = "plain" }\n'
        self.text = changed(('protocol = "imap"', 'protocol = "pop3"'), (endpoint, ""), base=TEXT)
        self.load(self.text)
        problems = self.assertRefused().problems
        self.assertEqual(len(problems), 3)
        for problem, name in zip(problems, ("open", "upgrading", "secure"), strict=True):
            self.assertTrue(problem.startswith(f"listener.{name}.protocol: "), problem)
            self.assertIn("until a restart", problem)

    def test_goodFileAfterABadOne(self) -> None:
        """A refused reload stands in nobody's way."""
        self.text = "nonsense"
        self.assertRefused()
        self.reload(("hello", "good day"))
        self.assertIn(b"good day", self.enter().take())


class TurnTests(ReloadCase):
    """Reloads that overlap, and askers who do not wait."""

    def setUp(self) -> None:
        """Let the thread work only when it is told to."""
        super().setUp()
        self.thread = HeldThread()
        self.reloader.stopService()
        self.reloader = self.makeReloader(self.thread)
        self.reloader.startService()

    def test_oneAtATime(self) -> None:
        """The second reads the file when the first is done, and has the last word."""
        first, second = self.reloader.reload(), self.reloader.reload()
        self.assertEqual(len(self.thread.jobs), 1)
        self.text = changed(("hello", "first"), base=TEXT)
        self.thread.work()
        self.text = changed(("hello", "second"), base=TEXT)
        self.thread.work()
        self.successResultOf(first)
        self.assertIn(b"first", self.enter().take())
        self.assertNoResult(second)
        self.thread.work()
        self.thread.work()
        self.successResultOf(second)
        self.assertIn(b"second", self.enter().take())

    def test_nothingIsReadInTheReactorsTime(self) -> None:
        """Reading and building are the thread's work; the swap is not."""
        reloading, before = self.reloader.reload(), self.proxy.runtime
        self.thread.work()
        self.assertIs(self.proxy.runtime, before)
        self.thread.work()
        self.assertIsNot(self.proxy.runtime, before)
        self.successResultOf(reloading)

    def test_askerThatLeaves(self) -> None:
        """A reload that is cancelled at any step changes nothing, and the next one works."""
        before = self.proxy.runtime
        for steps in range(2):
            reloading = self.reloader.reload()
            for _ in range(steps):
                self.thread.work()
            reloading.cancel()
            self.failureResultOf(reloading, CancelledError)
            self.assertIs(self.proxy.runtime, before)
            self.thread.jobs.clear()
        reloading = self.reloader.reload()
        self.thread.work()
        self.thread.work()
        self.successResultOf(reloading)

    def test_lookAtCertificatesWaitsForAReload(self) -> None:
        """Both would build a runtime, of different configurations."""
        reloading = self.reloader.reload()
        self.write("main.pem", RENEWED.leaf)
        self.write("main.key", RENEWED.key)
        self.network.advance(WATCH_INTERVAL)
        self.assertEqual(len(self.thread.jobs), 1)
        self.thread.work()
        self.thread.work()
        self.successResultOf(reloading)
        self.assertEqual(self.thread.jobs, [], "what the reload has read is not read again")


class CertificateTests(ReloadCase):
    """Certificates that somebody renews."""

    def setUp(self) -> None:
        """Note what is shown."""
        super().setUp()
        self.before = self.shown()

    def renew(self, issued: Issued = RENEWED) -> None:
        """Write another pair."""
        self.write("main.pem", issued.leaf)
        self.write("main.key", issued.key)

    def look(self) -> None:
        """Let the time of the next look come."""
        self.network.advance(WATCH_INTERVAL)

    def test_reloadReadsThemAgain(self) -> None:
        """Though no word of the configuration has changed."""
        self.renew()
        self.reload()
        self.assertNotEqual(self.shown(), self.before)

    def test_changedFilesAreTakenIntoUse(self) -> None:
        """Without a reload, for clients, management and the metrics; the rest stays."""
        config, source = self.proxy.runtime.config, self.proxy.runtime.source
        self.renew()
        self.assertEqual(self.shown(), self.before)
        self.look()
        self.assertNotEqual(self.shown(), self.before)
        self.assertIs(self.proxy.runtime.config, config)
        self.assertIs(self.proxy.runtime.source, source)
        self.assertIn("certificates have changed and are in use", self.logged(LogLevel.info))
        certificates = self.proxy.runtime.certificates
        self.assertIs(self.proxy.runtime.listeners["secure"].implicit, certificates)
        self.assertIs(self.proxy.runtime.listeners["upgrading"].settings.context, certificates)

    def test_unchangedFilesAreLeftAlone(self) -> None:
        """Nothing is built, and a changed configuration file is not read."""
        runtime, self.text = self.proxy.runtime, "nonsense"
        for _ in range(3):
            self.look()
        self.assertIs(self.proxy.runtime, runtime)

    def test_halfWrittenPairIsNotUsed(self) -> None:
        """Certificate first, key later: until they fit the old pair is shown, with a warning."""
        self.write("main.pem", RENEWED.leaf)
        self.look()
        self.look()
        self.assertEqual(self.shown(), self.before)
        self.assertEqual(len(self.said("certificates are not used: tls.certificate.main")), 1)
        self.write("main.key", RENEWED.key)
        self.look()
        self.assertNotEqual(self.shown(), self.before)

    def test_fileThatIsAwayForAMoment(self) -> None:
        """A missing or senseless file is warned of, and looked for again."""
        senseless = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
        for content in (None, b"", senseless):
            if content is None:
                (self.directory / "main.pem").unlink()
            else:
                self.write("main.pem", content)
            self.look()
            self.assertEqual(self.shown(), self.before)
        self.assertEqual(len(self.said("main.pem")), 3)
        self.renew()
        self.look()
        self.assertNotEqual(self.shown(), self.before)

    def test_linkThatPointsElsewhere(self) -> None:
        """ACME clients keep each issue and move a link."""
        link = self.directory / "main.pem"
        link.unlink()
        link.symlink_to(self.write("issue1.pem", MAIN.leaf).name)
        self.look()
        self.assertEqual(self.said("not used"), [])
        self.write("main.key", RENEWED.key)
        link.unlink()
        link.symlink_to(self.write("issue2.pem", RENEWED.leaf).name)
        self.look()
        self.assertNotEqual(self.shown(), self.before)

    def test_certificateShownToABackend(self) -> None:
        """What a destination wants to see is watched as well."""
        self.write("own.pem", MAIN.leaf)
        self.write("own.key", MAIN.key)
        own = 'host = "far.example.com"\ntls_client_cert = "own.pem"\ntls_client_key = "own.key"'
        self.reload(('host = "far.example.com"', own))
        before = self.context("far")
        self.look()
        self.assertIs(self.context("far"), before)
        self.write("own.pem", RENEWED.leaf)
        self.write("own.key", RENEWED.key)
        self.look()
        self.assertIsNot(self.context("far"), before)

    def test_bugDoesNotEndTheWatch(self) -> None:
        """It is logged, and the next change is seen."""
        broken = self.patch(self.proxy, "makeRuntime", lambda *words: 1 // 0)
        self.renew()
        self.look()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        broken.restore()
        self.renew(Issued("mail.example.com"))
        self.look()
        self.assertNotEqual(self.shown(), self.before)

    def test_handshakesThatHaveBegunEndWell(self) -> None:
        """A client between its hello and its login keeps the contexts that it began with."""
        client = self.enter("upgrading")
        self.renew()
        self.reload()
        gc.collect()
        self.assertIn(b"a OK", self.ask(client, b"a STARTTLS\r\n"))

    def test_noLookAfterTheStop(self) -> None:
        """A stopped watch sees nothing, and can be started again."""
        self.successResultOf(self.reloader.stopService())
        self.renew()
        self.look()
        self.assertEqual(self.shown(), self.before)
        self.reloader.startService()
        self.look()
        self.assertNotEqual(self.shown(), self.before)
