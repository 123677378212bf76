"""The proxy as a whole: what it makes of a configuration, what is its own, how it stops."""

from collections.abc import Sequence
from typing import cast

from OpenSSL.crypto import FILETYPE_PEM, dump_certificate
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.internet.protocol import Factory, Protocol
from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent, globalLogPublisher
from twisted.protocols.tls import TLSMemoryBIOProtocol
from zope.interface.verify import verifyObject

from mailproxy import served
from mailproxy.config.model import Config
from mailproxy.dial import DialReactor, Target
from mailproxy.errors import MappingError, Stage
from mailproxy.logs import Logger
from mailproxy.origin import Address
from mailproxy.passage import Passage
from mailproxy.protocols.imap import IMAPClientFactory, IMAPServerFactory
from mailproxy.protocols.passthrough import SMTPClientFactory
from mailproxy.proxy import FLUSH_PATIENCE, PROBE, REPORT_INTERVAL, ProtocolClasses, Proxy
from mailproxy.sasl import Mechanism, fromPassword
from mailproxy.session import Session
from mailproxy.tls import ServerTLS
from tests.config.support import ConfigTestCase, Issued, changed
from tests.dialling import Backend, Dialling
from tests.stage import LOGIN, Client, MemorySource, endAll
from tests.support import clientTLS

PROTOCOLS = {"imap": ProtocolClasses(IMAPServerFactory, IMAPClientFactory)}

TEXT = """
[server]
shutdown_grace = "20s"
backend_timeout = "7s"
backend_auth_timeout = "11s"
backend_connect_retries = 0
bridge_idle = "600s"
proxy_ttl = 4
host_down_threshold = 2
host_down_min_clients = 1

[tls.certificate.main]
cert = "main.pem"
key = "main.key"

[listener.open]
protocol = "imap"
bind = "127.0.0.1:143"
tls = "plain"

[listener.upgrading]
protocol = "imap"
bind = "127.0.0.1:144"
tls = "starttls"
max_auth_attempts = 9
proxy_protocol = "optional"
proxy_trusted = ["10.0.0.0/8"]

[listener.secure]
protocol = "imap"
bind = "127.0.0.1:993"
tls = "implicit"

[destination.old]
host = "203.0.113.1"
allow_plaintext_auth = true
source_ips = ["192.0.2.1", "192.0.2.2"]
hide_auth_errors = true
proxy_protocol = false
protocol.imap = { port = 143, tls = "plain" }
protocol.pop3 = { port = 110, tls = "plain" }

[destination.new]
host = "new.example.com"
protocol.imap = { port = 1143, tls = "starttls" }

[destination.far]
host = "far.example.com"
protocol.imap = { port = 993, tls = "implicit", forwarding = "xclient" }

[capabilities.imap]
advertise = ["IMAP4rev1", "SASL-IR"]
sasl = ["PLAIN"]
allow_plain_auth_without_tls = true
banner = "hello"

[routing]
default_destination = "old"
master_user_separators = ["*", "%"]

[mapping]
source = "file"
normalize = "lowercase"
file.path = "accounts"

[oauth]
jwt_username_claim = "upn"
"""


class ProxyCase(ConfigTestCase):
    """A proxy of a real configuration, on a network in memory."""

    def setUp(self) -> None:
        """Build the proxy; it is not started."""
        super().setUp()
        self.network, self.source = Dialling(), MemorySource()
        self.config = self.load(TEXT)
        self.proxy = self.build(self.config)

    def build(self, config: Config) -> Proxy:
        """Make a proxy, whose sessions end with the test."""
        proxy = Proxy(cast(DialReactor, self.network), PROTOCOLS, config, self.source)
        self.addCleanup(endAll, proxy.registry)
        return proxy

    def target(self, name: str) -> Target:
        """What is dialled for IMAP on a destination."""
        return self.proxy.runtime.listeners["open"].resources.targets[name, "imap"]

    def enter(self, listener: str = "open") -> Client:
        """Let a client in."""
        (found,) = [each for each in self.proxy.listeners if each.name == listener]
        client, server = Client(), found.factory.buildProtocol(None)
        assert server is not None
        self.network.connect(server, client)
        return client

    def ask(self, client: Client, data: bytes) -> bytes:
        """Let a client say something; returns what it hears."""
        client.say(data)
        self.network.pump()
        return client.take()

    def bridge(self) -> tuple[Client, Backend]:
        """Lead a client to its bridge."""
        client, backend = self.enter(), Backend()
        self.ask(client, LOGIN)
        self.network.call.answer(backend)
        self.network.pump()
        self.assertIsNotNone(backend.bridged)
        client.take()
        return client, backend


class TargetTests(ProxyCase):
    """What is dialled."""

    def test_plainDestination(self) -> None:
        """No TLS, secrets in the clear, no header, own source addresses in turn."""
        target = self.target("old")
        self.assertEqual(
            (target.destination, target.host, target.port), ("old", "203.0.113.1", 143)
        )
        self.assertIsNone(target.settings.context)
        self.assertTrue(target.settings.cleartext)
        self.assertEqual((target.header, target.settings.introduces), (False, False))
        self.assertEqual(
            [next(target.sources[4]) for _ in range(3)][1:], ["192.0.2.2", "192.0.2.1"]
        )
        self.assertTrue(target.hideAuthErrors)
        self.assertIs(target.factory, IMAPClientFactory)

    def test_startTLSDestination(self) -> None:
        """TLS by STARTTLS, never a secret without it, a PROXY header by default."""
        target = self.target("new")
        self.assertIsNotNone(target.settings.context)
        self.assertEqual((target.settings.startTLS, target.settings.cleartext), (True, False))
        self.assertEqual((target.header, target.settings.introduces), (True, False))
        self.assertFalse(target.hideAuthErrors)

    def test_implicitDestinationWithItsOwnForwarding(self) -> None:
        """An endpoint's forwarding beats its destination's."""
        target = self.target("far")
        self.assertIsNotNone(target.settings.context)
        self.assertFalse(target.settings.startTLS)
        self.assertEqual((target.header, target.settings.introduces), (False, True))

    def test_protocolsThatAreNotServed(self) -> None:
        """What no class serves cannot be dialled."""
        targets = self.proxy.runtime.listeners["open"].resources.targets
        self.assertEqual(set(targets), {(name, "imap") for name in ("old", "new", "far")})


class TermsTests(ProxyCase):
    """What clients are promised, and how their sessions are led."""

    def test_TLSByListener(self) -> None:
        """Never, by STARTTLS, at once."""
        terms = self.proxy.runtime.listeners
        found = {
            name: (each.implicit is not None, each.settings.context is not None)
            for name, each in terms.items()
        }
        self.assertEqual(
            found, {"open": (False, False), "upgrading": (False, True), "secure": (True, False)}
        )

    def test_promisesComeFromTheProtocolsTable(self) -> None:
        """`[capabilities.imap]`."""
        advertised = self.proxy.runtime.listeners["open"].settings.advertised
        self.assertEqual(advertised.mechanisms, (Mechanism.PLAIN,))
        self.assertEqual((advertised.cleartext, advertised.banner), (True, b"hello"))
        self.assertEqual(
            self.enter().take(), b"* OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN] hello\r\n"
        )

    def test_listenersOwnRules(self) -> None:
        """Attempts, and whom to believe."""
        terms = self.proxy.runtime.listeners["upgrading"]
        self.assertEqual((terms.settings.maxAttempts, terms.ttl), (9, 4))
        self.assertTrue(terms.settings.trusts(Address("10.0.0.1", 1)))
        self.assertFalse(terms.settings.trusts(Address("192.0.2.1", 1)))
        self.assertFalse(
            self.proxy.runtime.listeners["open"].settings.trusts(Address("10.0.0.1", 1))
        )

    def test_identityRules(self) -> None:
        """Letter case, separators and the token's claim."""
        rules = self.proxy.runtime.rules
        self.assertEqual(rules.identify(fromPassword(b"Ann*root", b"x")), "ann")
        self.assertEqual((rules.claim, rules.separators), ("upn", ("*", "%")))

    def test_timesAreTheConfigurations(self) -> None:
        """For the login and the bridge as they stand there."""
        resources = self.proxy.runtime.listeners["open"].resources
        self.assertEqual((resources.authTimeout, resources.bridgeIdle), (11.0, 600.0))

    def test_backendTimeoutAndRetries(self) -> None:
        """A silent backend is given up after `backend_timeout`; it was called once."""
        client = self.enter()
        self.ask(client, LOGIN)
        self.network.advance(6.9)
        self.assertIsNone(client.lost)
        self.network.advance(0.1)
        self.assertIsNotNone(client.lost)
        self.assertEqual(len(self.network.dialled), 1)

    def test_circuitsRulesAreTheConfigurations(self) -> None:
        """`host_down_threshold` failures open it."""
        for _ in range(2):
            self.proxy.health.admit("old").failed(Stage.LOGIN, "192.0.2.9")
        self.assertIn(b"NO [UNAVAILABLE]", self.ask(self.enter(), LOGIN))
        self.assertEqual(self.network.dialled, [])

    def test_sessionFromEndToEnd(self) -> None:
        """A client of the listener with implicit TLS reaches its backend."""
        client = self.enter("secure")
        client.startTLS(clientTLS())
        self.network.pump()
        self.assertTrue(client.take().startswith(b"* OK "))
        self.ask(client, LOGIN)
        backend = Backend()
        self.network.call.answer(backend)
        self.network.pump()
        self.assertEqual(client.take(), b"a OK in\r\n")
        self.assertEqual(self.ask(client, b"b NOOP\r\n"), b"")
        self.assertEqual(backend.bridged, b"b NOOP\r\n")


class AdoptionTests(ProxyCase):
    """Another runtime in the place of the first."""

    def adopt(self, old: str, new: str) -> None:
        """Take a changed configuration into use."""
        config = self.load(changed((old, new), base=TEXT))
        self.proxy.adopt(self.proxy.makeRuntime(config, self.source))

    def test_makingOneChangesNothing(self) -> None:
        """Not before it is adopted."""
        before = self.proxy.runtime
        self.proxy.makeRuntime(self.load(changed(("hello", "good day"), base=TEXT)), self.source)
        self.assertIs(self.proxy.runtime, before)
        self.assertIn(b"hello", self.enter().take())

    def test_nextClientHasIt(self) -> None:
        """Its words are the new ones."""
        first = self.enter()
        self.adopt("hello", "good day")
        self.assertIn(b"hello", first.take())
        self.assertIn(b"good day", self.enter().take())

    def test_healthAndListenersFollow(self) -> None:
        """What outlives it goes by its rules."""
        self.adopt("host_down_threshold = 2", "host_down_threshold = 9")
        self.assertEqual(self.proxy.health.settings.threshold, 9)
        self.adopt("max_auth_attempts = 9", "max_connections = 7")
        self.assertEqual([each.factory.limit for each in self.proxy.listeners], [8192, 7, 8192])

    def test_liveSessionsFollowTheRulesForNames(self) -> None:
        """Whom a client has called otherwise is found and kicked by the name of now."""
        self.bridge()
        (session,) = self.proxy.registry.find()
        self.assertEqual(session.identifier, "ann")
        self.adopt('["*", "%"]', '["n"]')
        self.assertEqual(self.proxy.registry.kick("a"), 1)

    def test_graceTimeIsTheNewOne(self) -> None:
        """A stop after a reload waits as long as the file says now."""
        self.adopt('"20s"', '"1s"')
        client, _ = self.bridge()
        self.proxy.startService()
        stopped = self.proxy.stopService()
        for _ in range(30):
            self.network.advance(0.05)
        self.assertIsNotNone(client.lost)
        self.successResultOf(stopped)

    def test_managementShowsTheCertificateOfNow(self) -> None:
        """Its door outlives reloads; the proxy makes its TLS connections."""
        verifyObject(IOpenSSLServerConnectionCreator, self.proxy)
        renewed = Issued("mail.example.com")
        self.write("main.pem", renewed.leaf)
        self.write("main.key", renewed.key)
        self.adopt("hello", "good day")
        connection = self.proxy.serverConnectionForTLS(TLSMemoryBIOProtocol(Factory(), Protocol()))
        shown = connection.get_certificate()
        assert shown is not None
        self.assertEqual(dump_certificate(FILETYPE_PEM, shown).split(), renewed.leaf.split())


class PassThroughTests(ConfigTestCase):
    """A configuration with protocols that have no login."""

    TEXT = """
        [server]
        hostname = "mail.example.com"
        [listener.mx]
        protocol = "smtp"
        bind = "127.0.0.1:25"
        tls = "plain"
        [listener.post]
        protocol = "submission"
        bind = "127.0.0.1:587"
        tls = "plain"
        [destination.old]
        host = "203.0.113.1"
        allow_plaintext_auth = true
        protocol.submission = { port = 587, tls = "plain" }
        [destination.mail]
        host = "203.0.113.2"
        protocol.smtp = { port = 25, tls = "plain", forwarding = "xclient" }
        [routing]
        default_destination = "old"
        smtp_passthrough_destination = "mail"
        [mapping]
        source = "file"
        file.path = "accounts"
    """

    def test_eachProtocolHasItsSession(self) -> None:
        """Pass-through goes to its own destination, by our name, and needs no TLS for it."""
        source, reactor = MemorySource(), cast(DialReactor, Dialling())
        proxy = Proxy(reactor, served.PROTOCOLS, self.load(self.TEXT), source)
        mx, post = (proxy.runtime.listeners[name] for name in ("mx", "post"))
        self.assertIs(mx.session, Passage)
        self.assertIs(post.session, Session)
        self.assertEqual(mx.resources.passThrough, "mail")
        self.assertEqual(mx.settings.hostname, b"mail.example.com")
        target = mx.resources.targets["mail", "smtp"]
        self.assertEqual((target.header, target.settings.introduces), (False, True))
        self.assertTrue(target.settings.cleartext)
        self.assertIs(target.factory, SMTPClientFactory)


class RequestTests(ConfigTestCase):
    """A configuration with a protocol that is routed request by request."""

    TEXT = """
        [tls.certificate.main]
        cert = "main.pem"
        key = "main.key"
        [listener.web]
        protocol = "http"
        bind = "127.0.0.1:443"
        tls = "implicit"
        [listener.mail]
        protocol = "imap"
        bind = "127.0.0.1:993"
        tls = "implicit"
        [destination.old]
        host = "old.example.com"
        protocol.http = { port = 443, tls = "implicit" }
        protocol.imap = { port = 993, tls = "implicit" }
        [routing]
        default_destination = "old"
        [mapping]
        source = "file"
        file.path = "accounts"
        [[http.route]]
        match = "/**"
        destination = "old"
    """

    def setUp(self) -> None:
        """Build the proxy."""
        super().setUp()
        self.network = Dialling()
        reactor = cast(DialReactor, self.network)
        self.proxy = Proxy(reactor, served.PROTOCOLS, self.load(self.TEXT), MemorySource())

    def test_applicationProtocols(self) -> None:
        """Only this protocol's listeners and endpoints agree on one."""
        listeners = self.proxy.runtime.listeners
        web, mail = (cast(ServerTLS, listeners[name].implicit) for name in ("web", "mail"))
        self.assertIsNot(web, mail)
        self.assertIs(mail, self.proxy.runtime.certificates)
        self.assertIs(web.contextFor(None), mail.contextFor(None))
        targets = listeners["web"].resources.targets
        self.assertIsNot(targets["old", "http"].settings.context, None)
        self.assertEqual(len(listeners["web"].resources.http.rules), 1)

    def test_idleConnectionsDoNotHoldUpTheEnd(self) -> None:
        """A connection without a request in hand is closed as soon as the process stops."""
        (web,) = [each for each in self.proxy.listeners if each.name == "web"]
        client, server = Client(), web.factory.buildProtocol(None)
        assert server is not None
        self.network.connect(server, client)
        client.startTLS(clientTLS())
        self.network.pump()
        self.assertIsNone(client.lost)
        self.proxy.startService()
        stopped = self.proxy.stopService()
        for _ in range(3):
            self.network.advance(0.05)
        self.assertIsNotNone(client.lost)
        self.successResultOf(stopped)


class LoopTests(ProxyCase):
    """Which addresses are our own."""

    def assertOurs(self, expected: bool, host: str, port: int = 143) -> None:
        """Whether calling this address would come back to us."""
        self.assertIs(self.proxy.isOurs(Address(host, port)), expected, host)

    def test_exactAddress(self) -> None:
        """What is bound is ours; another port or address is not."""
        self.proxy.bound.add(Address("203.0.113.1", 143))
        self.assertOurs(True, "203.0.113.1")
        self.assertOurs(False, "203.0.113.1", 144)
        self.assertOurs(False, "203.0.113.2")

    def test_wildcardIsEveryLocalAddress(self) -> None:
        """0.0.0.0 takes all of this machine's IPv4 addresses, and nobody else's."""
        self.proxy.bound.add(Address("0.0.0.0", 143))
        self.assertOurs(True, "127.0.0.1")
        self.assertOurs(True, "127.8.8.8")
        self.assertOurs(False, "203.0.113.1")
        self.assertOurs(False, "127.0.0.1", 144)
        self.assertOurs(False, "::1")

    def test_IPv6WildcardTakesNoIPv4(self) -> None:
        """Our IPv6 sockets are v6-only."""
        self.proxy.bound.add(Address("::", 143))
        self.assertOurs(False, "127.0.0.1")
        self.assertOurs(False, "2001:db8::1")

    def test_loopIsRefused(self) -> None:
        """A destination that is ourselves is not called, and not held to be down."""
        self.proxy.bound.add(Address("203.0.113.1", 143))
        self.assertIn(b"NO [UNAVAILABLE]", self.ask(self.enter(), LOGIN))
        self.assertEqual(self.network.dialled, [])
        self.assertEqual(self.proxy.health.report(["old"])[0].consecutiveFailures, 0)


class CountTests(ProxyCase):
    """Counts for the metrics and the log."""

    def test_metricsShowWhatIs(self) -> None:
        """Sessions, full listeners, lookups, breakers and the certificates' ends."""
        self.bridge()
        self.proxy.listeners[0].factory.limit = 1
        self.assertIsNone(self.proxy.listeners[0].factory.buildProtocol(None))
        self.proxy.health.admit("new").failed(Stage.CONNECT, "192.0.2.9")
        self.proxy.health.admit("new").failed(Stage.CONNECT, "192.0.2.9")
        text = self.proxy.metrics.render().decode()
        for line in (
            'mailproxy_active_sessions{destination="old",protocol="imap"} 1.0',
            'mailproxy_open_connections{listener="open"} 1.0',
            'mailproxy_connections_turned_away_total{listener="open"} 1.0',
            "mailproxy_cache_misses_total 1.0",
            "mailproxy_cache_entries 1.0",
            'mailproxy_destination_down{destination="new"} 1.0',
            'mailproxy_destination_down{destination="old"} 0.0',
            'mailproxy_certificate_expiry_timestamp_seconds{certificate="main"}',
        ):
            self.assertIn(line, text)

    def test_lineOncePerMinute(self) -> None:
        """While the service runs, and not at its start."""
        self.patch(Logger, "level", LogLevel.info)
        events: list[LogEvent] = []
        observer = cast(ILogObserver, events.append)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        self.proxy.startService()
        self.assertEqual(self.reports(events), [])
        self.network.advance(REPORT_INTERVAL)
        self.proxy.health.admit("new").failed(Stage.CONNECT, "192.0.2.9")
        self.proxy.health.admit("new").failed(Stage.CONNECT, "192.0.2.9")
        self.network.advance(REPORT_INTERVAL)
        first, second = self.reports(events)
        self.assertIn("sessions: 0", first)
        self.assertIn("down: none", first)
        self.assertIn("down: new", second)
        self.successResultOf(self.proxy.stopService())
        self.assertEqual(self.network.getDelayedCalls(), [])

    def reports(self, events: Sequence[LogEvent]) -> list[str]:
        """The lines with counts."""
        texts = [formatEvent(event) for event in events]
        return [text for text in texts if "lookups from memory" in text]


class StoreTests(ProxyCase):
    """The store that the proxy asks."""

    def test_askedOnceAtTheStart(self) -> None:
        """For what no account can be called; nothing of it is remembered."""
        self.proxy.startService()
        self.assertEqual(self.source.asked, [PROBE])
        self.assertIn(" ", PROBE)
        self.assertEqual(self.proxy.cache.entries, 0)
        self.successResultOf(self.proxy.stopService())

    def test_downAtTheStartIsSaid(self) -> None:
        """The proxy runs all the same."""
        events: list[LogEvent] = []
        observer = cast(ILogObserver, events.append)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        self.source.error = MappingError("the store is down")
        self.proxy.startService()
        warned = [formatEvent(each) for each in events if each["log_level"] is LogLevel.warn]
        self.assertEqual(len(warned), 1, warned)
        self.assertIn("the store is down", warned[0])
        self.successResultOf(self.proxy.stopService())

    def test_silentAtTheStartDoesNotHoldTheEnd(self) -> None:
        """A question that nobody answers is given up when the proxy stops."""
        self.source.pending = Deferred()
        self.proxy.startService()
        self.successResultOf(self.proxy.stopService())
        self.assertEqual(self.network.getDelayedCalls(), [])

    def test_lookupsAreMeasured(self) -> None:
        """Those that the store answers, and those that it does not."""
        self.bridge()
        self.source.error = MappingError("the store is down")
        self.failureResultOf(self.proxy.cache.lookup("bob"), MappingError)
        text = self.proxy.metrics.render().decode()
        for result in ("ok", "error"):
            self.assertIn(f'mailproxy_mapping_lookup_seconds_count{{result="{result}"}} 1.0', text)

    def test_serviceLivesAsLongAsTheProxy(self) -> None:
        """It is started before it is asked, and stopped when the last session is over."""
        source = ServiceSource()
        self.proxy = Proxy(cast(DialReactor, self.network), PROTOCOLS, self.config, source)
        self.proxy.startService()
        self.assertEqual(source.events, ["start", "lookup"])
        client, _ = self.bridge()
        stopped = self.proxy.stopService()
        self.network.advance(1)
        self.assertNotIn("stop", source.events)
        client.transport.abortConnection()
        for _ in range(3):
            self.network.advance(FLUSH_PATIENCE)
        self.assertEqual(source.events[-1], "stop")
        self.assertNoResult(stopped)
        source.stopped.callback(None)
        self.successResultOf(stopped)


class ServiceSource(MemorySource, Service):
    """A source that is a service, and takes its time to stop.

    :ivar events: what happened to it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.events: list[str] = []
        self.stopped: Deferred[None] = Deferred()

    def startService(self) -> None:
        """Note it."""
        self.events.append("start")

    def stopService(self) -> Deferred[None]:
        """Note it, and wait for the test."""
        self.events.append("stop")
        return self.stopped

    def lookup(self, identifier: str) -> Deferred[str | None]:
        """Note it, and answer."""
        self.events.append("lookup")
        return super().lookup(identifier)


class DrainTests(ProxyCase):
    """How the proxy stops."""

    def setUp(self) -> None:
        """Start it."""
        super().setUp()
        self.proxy.startService()

    def test_nothingToWaitFor(self) -> None:
        """Without a session it stops at once."""
        self.successResultOf(self.proxy.stopService())
        self.assertEqual(self.network.getDelayedCalls(), [])

    def test_dialogueEndsAtOnceBridgeMayGoOn(self) -> None:
        """Who has not logged in is sent away; a bridge has the grace time, and works in it."""
        waiting = self.enter()
        waiting.take()
        client, backend = self.bridge()
        stopped = self.proxy.stopService()
        self.network.pump()
        self.assertTrue(waiting.take().startswith(b"* BYE [UNAVAILABLE]"))
        self.assertIsNotNone(waiting.lost)
        self.network.advance(10)
        self.assertNoResult(stopped)
        self.ask(client, b"b LOGOUT\r\n")
        self.assertEqual(backend.bridged, b"b LOGOUT\r\n")
        client.hangUp()
        self.network.pump()
        self.network.advance(0.05)
        self.successResultOf(stopped)
        self.assertEqual(self.network.getDelayedCalls(), [])

    def test_bridgesAreCutAfterTheGraceTime(self) -> None:
        """After `shutdown_grace` nobody is left."""
        client, backend = self.bridge()
        stopped = self.proxy.stopService()
        self.advance(19.9)
        self.assertNoResult(stopped)
        self.assertIsNone(client.lost)
        self.advance(0.2)
        self.assertIsNotNone(client.lost)
        self.assertIsNotNone(backend.lost)
        self.advance(0.1)
        self.successResultOf(stopped)
        self.assertEqual(self.proxy.registry.count(), 0)
        self.assertEqual(self.network.getDelayedCalls(), [])

    def test_deadClientDoesNotHoldUsUp(self) -> None:
        """Last words that nobody takes are waited for a moment only."""
        client = self.enter()
        client.stopReading()
        stopped = self.proxy.stopService()
        self.advance(FLUSH_PATIENCE - 0.1)
        self.assertNoResult(stopped)
        self.advance(0.2)
        self.successResultOf(stopped)

    def advance(self, seconds: float) -> None:
        """Let time pass in the steps that the drain looks in."""
        for _ in range(round(seconds / 0.05)):
            self.network.advance(0.05)
