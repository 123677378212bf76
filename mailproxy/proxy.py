"""The proxy as a whole: what holds now, what lives on, and how it stops.

A `Runtime` is made of one configuration and replaced as a whole; registry, health, cache and
counters outlive it. Knows how the parts fit together; must not know which classes serve a protocol
or a store: those are handed in.
"""

from collections.abc import Mapping

import attrs
from OpenSSL.SSL import Connection
from twisted.application.service import IService, Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator, IReactorTime
from twisted.internet.task import LoopingCall
from twisted.protocols.tls import TLSMemoryBIOProtocol
from zope.interface import implementer

from mailproxy.config.certificates import Read
from mailproxy.config.model import Config, Destination, Endpoint, Forwarding, Normalize, TLSMode
from mailproxy.config.values import PASS_THROUGH
from mailproxy.dial import Dialer, DialReactor, Target
from mailproxy.drain import Drain
from mailproxy.health import PROBE_TURN, Health, HealthSettings
from mailproxy.http.rules import HTTPRules
from mailproxy.identity import IdentityRules
from mailproxy.listener import Listener, ListenerRuntime, trust
from mailproxy.logs import Logger
from mailproxy.mapping.cache import CacheSettings, MappingCache
from mailproxy.mapping.interfaces import IMappingSource
from mailproxy.metrics import Metrics, Snapshot
from mailproxy.origin import Address
from mailproxy.protocols.base import ServerSettings
from mailproxy.protocols.client import ClientSettings, ProxyClientFactory
from mailproxy.protocols.server import ProxyServerFactory
from mailproxy.registry import Registry
from mailproxy.resources import Resources, SessionKind
from mailproxy.routing import Router
from mailproxy.seat import ALONE, Seat
from mailproxy.session import Session
from mailproxy.sockets import isLocal
from mailproxy.tls import BackendOptions, BackendTLS, ServerTLS
from mailproxy.tls.spare import Spare
from mailproxy.waiting import pause

REPORT_INTERVAL = 60.0
"""Seconds between two lines of counts in the log."""

PROBE = "start-up probe"
"""What the store is asked at the start; no account can have a space in its name."""

FLUSH_PATIENCE = 2.0
"""Seconds that the last words of closed sessions have to leave before the process ends."""


@attrs.frozen
class ProtocolClasses:
    """A protocol's two factories, and the kind of session between them."""

    server: type[ProxyServerFactory]
    client: type[ProxyClientFactory]
    session: SessionKind = Session


@attrs.frozen
class Runtime:
    """What holds for sessions that begin now.

    :ivar listeners: for each listener's new clients, by its name.
    """

    config: Config
    source: IMappingSource
    rules: IdentityRules
    router: Router
    listeners: Mapping[str, ListenerRuntime]
    certificates: ServerTLS


@implementer(IOpenSSLServerConnectionCreator)
class Proxy(Service):
    """Owns the listeners and all that sessions share.

    :ivar runtime: what holds now.
    :ivar begun: whether it has ever been started: then the source has, too.
    :ivar bound: the addresses that we listen on; filled as the sockets are bound.
    :ivar spare: the certificate that is shown where no other fits, whatever is configured.
    """

    log = Logger()
    begun = False

    def __init__(
        self,
        reactor: DialReactor,
        protocols: Mapping[str, ProtocolClasses],
        config: Config,
        source: IMappingSource,
        seat: Seat = ALONE,
    ) -> None:
        """Build everything.

        :param seat: our place, when other processes serve the same configuration.
        """
        self._reactor: DialReactor = reactor
        self.clock = IReactorTime(reactor)
        self._protocols, self._seat = protocols, seat
        self.spare = seat.spare or Spare()
        self.registry = Registry(self.clock)
        self.health = Health(self.clock, _healthSettings(config), seat.number * PROBE_TURN)
        self.metrics = Metrics(self._snapshot)
        self.cache = MappingCache(
            source, self.clock, _cacheSettings(config), self.metrics.storeAnswered
        )
        self.bound: set[Address] = set()
        self.runtime = self.makeRuntime(config, source)
        self.listeners = [self._makeListener(name) for name in config.listener]
        self._reports = LoopingCall(self._report)
        self._reports.clock = self.clock

    # What is made of a configuration

    def makeRuntime(self, config: Config, source: IMappingSource) -> Runtime:
        """Build what sessions under this configuration will use; may be done in a thread.

        :raises ConfigError: when a certificate, suite or group cannot be used.
        """
        rules = IdentityRules(
            separators=config.routing.master_user_separators,
            lowercase=config.mapping.normalize is Normalize.LOWERCASE,
            claim=config.oauth.jwt_username_claim,
        )
        router = Router(
            self.cache,
            config.destination,
            config.routing.default_destination,
            config.mapping.on_error,
        )
        certificates = self._makeCertificates(config)
        resources = self._makeResources(config, rules, router)
        listeners = {
            name: self._makeListenerRuntime(config, name, resources, certificates)
            for name in config.listener
        }
        return Runtime(config, source, rules, router, listeners, certificates)

    def _makeCertificates(self, config: Config) -> ServerTLS:
        """Read them, and tell what somebody should look at."""
        tls, seat = config.tls, self._seat
        made = ServerTLS(tls.certificate, tls.protocols, read=seat.read, spare=self.spare)
        for text in made.warnings if seat.warns else ():
            self.log.warn("{text}", text=text)
        return made

    def _makeResources(self, config: Config, rules: IdentityRules, router: Router) -> Resources:
        server = config.server
        return Resources(
            clock=self.clock,
            rules=rules,
            router=router,
            dialer=Dialer(
                self._reactor,
                self.health,
                self.isOurs,
                server.backend_timeout,
                server.backend_connect_retries,
            ),
            targets={
                (name, protocol): self._makeTarget(config, name, protocol, tls)
                for name, destination in config.destination.items()
                for tls in [_makeTLS(config, destination, self._seat.read)]
                for protocol in destination.protocol
                if protocol in self._protocols
            },
            passThrough=config.routing.smtp_passthrough_destination or "",
            registry=self.registry,
            metrics=self.metrics,
            authTimeout=server.backend_auth_timeout,
            bridgeIdle=server.bridge_idle,
            http=HTTPRules.fromConfig(config),
        )

    def _makeTarget(
        self, config: Config, name: str, protocol: str, tls: BackendTLS | None
    ) -> Target:
        destination = config.destination[name]
        endpoint = destination.protocol[protocol]
        factory = self._protocols[protocol].client
        return Target(
            destination=name,
            host=destination.host,
            port=endpoint.port,
            settings=_clientSettings(
                destination, endpoint, protocol, tls and tls.another(factory.alpn)
            ),
            factory=factory,
            header=destination.forwardingFor(protocol) is Forwarding.PROXY,
            sources=Target.inTurn([str(address) for address in destination.source_ips]),
            hideAuthErrors=destination.hide_auth_errors,
        )

    def _makeListenerRuntime(
        self, config: Config, name: str, resources: Resources, certificates: ServerTLS
    ) -> ListenerRuntime:
        listener = config.listener[name]
        factory = self._protocols[listener.protocol].server
        settings = ServerSettings(
            advertised=factory.advertised(config.capabilities),
            hostname=config.server.hostname.encode() if config.server.hostname else None,
            maxAttempts=listener.max_auth_attempts,
            context=certificates if listener.tls is TLSMode.STARTTLS else None,
            trusts=trust(listener.proxy_trusted),
        )
        implicit = certificates if listener.tls is TLSMode.IMPLICIT else None
        if implicit is not None and factory.alpn:
            implicit = implicit.offering(factory.alpn)
        session = self._protocols[listener.protocol].session
        return ListenerRuntime(settings, resources, implicit, config.server.proxy_ttl, session)

    def _makeListener(self, name: str) -> Listener:
        config = self.runtime.config.listener[name]
        factory = self._protocols[config.protocol].server
        listener = Listener(name, config, factory, lambda: self.runtime.listeners[name], self.clock)
        listener.join(self._seat)
        return listener

    def adopt(self, runtime: Runtime) -> None:
        """Let this hold for all sessions from now on."""
        if runtime.rules != self.runtime.rules:
            self.registry.rename(runtime.rules.rename)
        self.runtime = runtime
        self.health.settings = _healthSettings(runtime.config)
        for listener in self.listeners:
            listener.adopt(runtime.config.listener[listener.name])

    def serverConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> Connection:
        """Make a TLS connection with the certificates of now, for what outlives a reload."""
        return self.runtime.certificates.serverConnectionForTLS(tlsProtocol)

    # Loops

    def isOurs(self, address: Address) -> bool:
        """Whether a connection to this address would come back to us."""
        if address in self.bound:
            return True
        if address.ip.is_unspecified:
            # Whoever calls 0.0.0.0 reaches this machine.
            return any(address.port == bound.port for bound in self.bound)
        wildcard = Address("::" if ":" in address.host else "0.0.0.0", address.port)
        return wildcard in self.bound and isLocal(address)

    # Counts

    def _snapshot(self) -> Snapshot:
        report = self.health.report(self.runtime.config.destination)
        expiries = self.runtime.certificates.expiries
        return Snapshot(
            active=self.registry.countBy(),
            open={each.name: len(each.factory.connections) for each in self.listeners},
            turnedAway={each.name: each.factory.turnedAway for each in self.listeners},
            cacheHits=self.cache.hits,
            cacheMisses=self.cache.misses,
            cacheEntries=self.cache.entries,
            down={each.destination: each.down for each in report},
            certificateExpiry={name: expires.timestamp() for name, expires in expiries.items()},
        )

    def _report(self) -> None:
        now = self._snapshot()
        self.log.info(
            "sessions: {active}, lookups from memory: {hits}, from the store: {misses}, "
            "remembered: {entries}, down: {down}",
            active=self.registry.count(),
            hits=now.cacheHits,
            misses=now.cacheMisses,
            entries=now.cacheEntries,
            down=", ".join(name for name, down in now.down.items() if down) or "none",
        )

    # Life

    def startService(self) -> None:
        """Begin to report, and ask the store something: if it is down, the log says so now.

        One of several processes reports nothing: who adds up their counts does.
        """
        super().startService()
        self.begun = True
        if self._seat.of == 1:
            self._reports.start(REPORT_INTERVAL, now=False)
        if IService.providedBy(self.runtime.source):
            self.runtime.source.startService()
        self._probe = self.cache.inquire(PROBE).addErrback(lambda failure: None)

    def stopService(self) -> Deferred[None]:
        """End the sessions, each in its time; the listeners are stopped beside us."""
        super().stopService()
        if self._reports.running:
            self._reports.stop()
        self._probe.cancel()
        return Deferred.fromCoroutine(self._end())

    async def _end(self) -> None:
        await self._drain()
        source = self.runtime.source
        if IService.providedBy(source):
            await maybeDeferred(source.stopService)

    async def _drain(self) -> None:
        """End the sessions within the grace time, and let their last words leave."""
        grace = self.runtime.config.server.shutdown_grace
        for listener in self.listeners:
            listener.factory.stop()
        await Drain(self.registry, self.clock).run(grace)
        deadline = self.clock.seconds() + FLUSH_PATIENCE
        while self._connected and self.clock.seconds() < deadline:
            await pause(self.clock, 0.05)

    @property
    def _connected(self) -> bool:
        return any(listener.factory.connections for listener in self.listeners)


def _makeTLS(config: Config, destination: Destination, read: Read) -> BackendTLS | None:
    """Build a destination's TLS context, once for all of its endpoints; None: none needs it."""
    if all(each.tls is TLSMode.PLAIN for each in destination.protocol.values()):
        return None
    return BackendTLS(BackendOptions.fromConfig(destination, config.tls.protocols, read=read))


def _clientSettings(
    destination: Destination, endpoint: Endpoint, protocol: str, tls: BackendTLS | None
) -> ClientSettings:
    """Say how an endpoint is to be spoken to; its TLS sessions are its own."""
    if endpoint.tls is TLSMode.PLAIN:
        tls = None
    return ClientSettings(
        context=tls,
        startTLS=endpoint.tls is TLSMode.STARTTLS,
        cleartext=destination.allow_plaintext_auth or protocol in PASS_THROUGH,
        introduces=destination.forwardingFor(protocol) is Forwarding.XCLIENT,
    )


def _healthSettings(config: Config) -> HealthSettings:
    server = config.server
    return HealthSettings(
        server.host_down_threshold, server.host_down_min_clients, server.host_down_cooldown
    )


def _cacheSettings(config: Config) -> CacheSettings:
    mapping = config.mapping
    return CacheSettings(
        positiveTTL=mapping.positive_ttl,
        negativeTTL=mapping.negative_ttl,
        maxEntries=mapping.cache_max_entries,
        lookupTimeout=mapping.lookup_timeout,
    )
