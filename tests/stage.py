"""A listener, its sessions and all they work with, in memory; the test plays client and backend."""

from base64 import b64encode
from collections.abc import Sequence
from typing import Any, ClassVar, cast

import attrs
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from mailproxy.config.model import Listener as ListenerConfig
from mailproxy.config.stores import OnError
from mailproxy.dial import Dialer, DialReactor, Target
from mailproxy.errors import CircuitOpen
from mailproxy.health import Health, HealthSettings
from mailproxy.http.rules import HTTPRules
from mailproxy.identity import IdentityRules
from mailproxy.listener import Listener, ListenerRuntime, trust
from mailproxy.logs import Logger
from mailproxy.mapping.cache import CacheSettings, MappingCache
from mailproxy.mapping.interfaces import IMappingSource
from mailproxy.metrics import Metrics
from mailproxy.origin import Address
from mailproxy.protocols.base import Advertised, ServerSettings
from mailproxy.protocols.client import ClientSettings
from mailproxy.registry import Registry
from mailproxy.resources import Resources
from mailproxy.routing import Router
from mailproxy.sasl import Mechanism
from mailproxy.served import PROTOCOLS
from mailproxy.stream import Creator
from tests.dialling import Backend, Dialling
from tests.support import MemoryConnection, Peer, Segments, addresses

PASSWORD = b"correct-horse-battery"
TOKEN = b"bearer-token-of-ann"
BEARER = b"n,a=ann,\1auth=Bearer %b\1\1" % TOKEN
LOGIN = b"a LOGIN ann %b\r\n" % PASSWORD
SECRETS = (
    PASSWORD,
    TOKEN,
    b64encode(b"\0ann\0" + PASSWORD),
    b64encode(BEARER),
    b64encode(PASSWORD),
)
OLD_HOST, NEW_HOST = "203.0.113.1", "203.0.113.2"
PROMISES = Advertised(tuple(Mechanism), True, (b"IMAP4rev1", b"SASL-IR", b"ID"), b"ready")


@implementer(IMappingSource)
class MemorySource:
    """A table in memory.

    :ivar table: identifier -> destination.
    :ivar error: when set, how each lookup fails.
    :ivar pending: when set, the answer to all lookups, to be given by the test.
    """

    def __init__(self) -> None:
        self.table = {"ann": "old"}
        self.asked: list[str] = []
        self.error: Exception | None = None
        self.pending: Deferred[str | None] | None = None

    def lookup(self, identifier: str) -> Deferred[str | None]:
        """Find a destination."""
        self.asked.append(identifier)
        if self.error is not None:
            return fail(self.error)
        if self.pending is not None:
            return self.pending
        return succeed(self.table.get(identifier))


class Client(Peer):
    """A client that hangs up when it is sent away."""

    def readConnectionLost(self) -> None:
        """Hang up."""
        super().readConnectionLost()
        self.hangUp()


@attrs.define
class Scene:
    """What a test may want otherwise.

    :ivar protocol: what is spoken.
    :ivar listener: keys of `[listener.NAME]` beside protocol and bind.
    :ivar target: fields of the targets' `Target`.
    :ivar implicit: makes TLS at once.
    :ivar upgrade: makes TLS on STARTTLS.
    :ivar client: what clients are.
    """

    segments: Segments = Segments.WHOLE
    protocol: str = "imap"
    listener: dict[str, Any] = attrs.field(factory=dict)
    target: dict[str, Any] = attrs.field(factory=dict)
    implicit: Creator | None = None
    upgrade: Creator | None = None
    advertised: Advertised = PROMISES
    retries: int = 0
    http: HTTPRules = attrs.field(factory=HTTPRules)
    onError: OnError = OnError.STALE
    client: type[Client] = Client


class Stage:
    """A proxy without its sockets: one listener, the destinations `old` (the default) and `new`.

    :cvar opened: the stages of this test.
    """

    opened: ClassVar[list["Stage"]] = []

    def __init__(self, scene: Scene, network: Dialling | None = None) -> None:
        self.opened.append(self)
        self.network = network or Dialling(scene.segments)
        self.source, self.metrics = MemorySource(), Metrics()
        self.registry = Registry(self.network)
        self.health = Health(self.network, HealthSettings(3, 2, 30.0))
        self.cache = MappingCache(self.source, self.network, CacheSettings())
        self.config = ListenerConfig.model_validate(
            {"protocol": scene.protocol, "bind": "127.0.0.1:143", "tls": "plain", **scene.listener}
        )
        self._scene, self._conversations = scene, PROTOCOLS[scene.protocol]
        self.runtime = self._makeListenerRuntime()
        self.listener = Listener(
            "door", self.config, self._conversations.server, lambda: self.runtime, self.network
        )

    def _makeListenerRuntime(self) -> ListenerRuntime:
        scene = self._scene
        settings = ServerSettings(
            scene.advertised,
            self.config.max_auth_attempts,
            scene.upgrade,
            trust(self.config.proxy_trusted),
        )
        session = self._conversations.session
        return ListenerRuntime(settings, self._makeResources(), scene.implicit, 7, session)

    def _makeResources(self) -> Resources:
        reactor = cast(DialReactor, self.network)
        router = Router(self.cache, ("old", "new", "empty"), "old", self._scene.onError)
        return Resources(
            clock=self.network,
            rules=IdentityRules(),
            router=router,
            dialer=Dialer(reactor, self.health, lambda address: False, 10.0, self._scene.retries),
            targets={
                (name, self._scene.protocol): self._makeTarget(name, host)
                for name, host in (("old", OLD_HOST), ("new", NEW_HOST))
            },
            registry=self.registry,
            metrics=self.metrics,
            authTimeout=30.0,
            bridgeIdle=1800.0,
            passThrough="old",
            http=self._scene.http,
        )

    def _makeTarget(self, name: str, host: str) -> Target:
        settings = ClientSettings(context=None, startTLS=False, cleartext=True, introduces=False)
        fields: dict[str, Any] = {
            "destination": name,
            "host": host,
            "port": 143,
            "settings": settings,
            "factory": self._conversations.client,
            "header": False,
            "sources": {},
            "hideAuthErrors": False,
        }
        return Target(**{**fields, **self._scene.target})

    def enter(self, host: str = "198.51.100.7") -> Client:
        """Let a client connect."""
        client = self._scene.client()
        self.network.addresses = addresses(host, "192.0.2.1" if ":" not in host else "2001:db8::1")
        server = self.listener.factory.buildProtocol(IPv4Address("TCP", host, 40000))
        if server is None:
            client.connectionLost()
        else:
            self.network.connect(server, client)
        return client

    def ask(self, peer: Peer, data: bytes) -> bytes:
        """Let a peer say something; returns what it has heard then, and before."""
        peer.say(data)
        self.network.pump()
        return peer.take()

    def connect(self) -> None:
        """Take the last call at our own listener, as if it were its backend."""
        server = self.listener.factory.buildProtocol(None)
        assert server is not None
        self.network.call.answer(server)
        self.network.pump()

    def circle(self) -> None:
        """Take every call ourselves, until none comes; one that goes on for ever is cut short."""
        for _ in range(20):
            if any(call.open for call in self.network.dialled):
                self.connect()

    def take(self, backend: Peer) -> None:
        """Take the last call, with a backend of any protocol."""
        self.network.call.answer(backend)
        self.network.pump()

    def answer(self, backend: Backend | None = None) -> Backend:
        """Take the last call."""
        backend = backend or Backend()
        self.network.call.answer(backend)
        self.network.pump()
        return backend

    def bridge(self, client: Peer, backend: Backend | None = None) -> Backend:
        """Lead a client from its accept to its bridge."""
        client.say(LOGIN)
        self.network.pump()
        backend = self.answer(backend)
        if backend.bridged is None:
            raise AssertionError(client.received)
        client.take()
        return backend


class Watched(SynchronousTestCase):
    """Notes all that is logged, at debug level, and lets no secret pass.

    :ivar events: every event so far.
    """

    secrets: Sequence[bytes] = SECRETS

    def setUp(self) -> None:
        """Begin to note."""
        self.patch(Logger, "level", LogLevel.debug)
        self.events: list[LogEvent] = []
        observer = cast(ILogObserver, self.events.append)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(self.assertNoSecret)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

    def assertNoSecret(self) -> None:
        """No event holds a secret: neither its text, nor any of its fields, nor a traceback."""
        for event in self.events:
            failure = event.get("log_failure")
            text = formatEvent(event) + repr(event)
            text += failure.getTraceback(detail="verbose") if failure is not None else ""
            for secret in self.secrets:
                self.assertNotIn(secret.decode(), text)

    def logged(self, level: Any) -> list[str]:
        """The texts of what our own loggers said at a level."""
        return [
            formatEvent(event)
            for event in self.events
            if event["log_level"] is level and event["log_namespace"].startswith("mailproxy")
        ]


class StageCase(Watched):
    """Tests on a stage, which must be empty again in the end.

    :cvar medium: what everybody is joined by.
    """

    medium: ClassVar[type[Dialling]] = Dialling

    def setUp(self) -> None:
        """See to it that no session outlives its test, to be heard of in another one."""
        super().setUp()
        self.addCleanup(self.clear)

    def clear(self) -> None:
        """End all sessions that the test has left."""
        while Stage.opened:
            endAll(Stage.opened.pop().registry)

    def begin(self, scene: Scene | None = None) -> Stage:
        """Set a stage."""
        scene = scene or Scene()
        self.stage = Stage(scene, self.medium(scene.segments))
        return self.stage

    def assertNothingLeft(self, stage: Stage) -> None:
        """No session, connection, timer, half-made call or owed verdict is left behind."""
        network = stage.network
        self.assertEqual(stage.registry.find(), [])
        self.assertEqual(stage.listener.factory.connections, set())
        self.assertEqual([call for call in network.dialled if call.open], [])
        self.assertEqual(_connected(stage), [])
        self.assertEqual(network.getDelayedCalls(), [])
        self.assertEqual(stage.registry._holds, {})

    def assertProbeFree(self, stage: Stage, destination: str = "old") -> None:
        """The next attempt is admitted: no earlier one keeps the probe's place."""
        try:
            stage.health.admit(destination).abandoned()
        except CircuitOpen:
            self.fail("the probe's place is taken")

    def ends(self) -> list[str]:
        """The lines that sessions have written at their end."""
        return [line for line in self.logged(LogLevel.info) if " bytes in, " in line]


def endAll(registry: Registry) -> None:
    """End every session now: one that is merely forgotten ends when its memory is collected."""
    for session in registry.find():
        session.kick()


def _connected(stage: Stage) -> list[MemoryConnection]:
    return list(stage.network._readers) + list(stage.network._writers)


def clientAddress(stage: Stage) -> Address:
    """Who the only session's client is held to be."""
    (session,) = stage.registry.find()
    host, _, port = session.client.rpartition(":")
    return Address(host.strip("[]"), int(port))
