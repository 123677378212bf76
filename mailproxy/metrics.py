"""What the process counts, in the words of Prometheus.

What happens is counted here; what is the case right now (live sessions, the cache, the breakers)
is asked for when somebody looks. Knows names and labels; must not know where the numbers arise.
"""

import enum
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeVar, cast

import attrs
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

__all__ = ["CONTENT_TYPE", "LoginResult", "Metrics", "Outcome", "Snapshot"]

M = TypeVar("M", bound=MetricWrapperBase)

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""What `Metrics.render` writes."""

_STORE_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_CONNECT_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_SESSION_BUCKETS = (0.1, 1.0, 10.0, 60.0, 300.0, 1800.0, 7200.0, 43200.0, 172800.0)


class Outcome(enum.Enum):
    """How a session ended, as the label's value."""

    BRIDGED = "bridged"
    SERVED = "served"
    REFUSED = "refused"
    UNAVAILABLE = "unavailable"
    TIMEOUT = "timeout"
    CLIENT_GONE = "client_gone"
    LIMIT = "limit"
    ERROR = "error"
    KICKED = "kicked"
    SHUTDOWN = "shutdown"

    @property
    def reason(self) -> str:
        """Why a session has ended that was interrupted so, in words."""
        return _REASONS.get(self, self.value)


_REASONS = {
    Outcome.KICKED: "by management",
    Outcome.SHUTDOWN: "the proxy stops",
    Outcome.CLIENT_GONE: "the client left",
    Outcome.LIMIT: "too much was sent before the login",
}


class LoginResult(enum.Enum):
    """What became of one login, as the label's value."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    UNAVAILABLE = "unavailable"


@attrs.frozen
class Snapshot:
    """What is the case right now.

    :ivar active: live sessions by protocol and destination (None: not routed yet).
    :ivar open: listener -> connections that it has, whatever becomes of them.
    :ivar turnedAway: listener -> connections closed for its `max_connections` so far.
    :ivar down: destination -> whether its circuit is open.
    :ivar certificateExpiry: certificate's name -> when it expires, in seconds since the epoch.
    """

    active: Mapping[tuple[str, str | None], int] = attrs.field(factory=dict)
    open: Mapping[str, int] = attrs.field(factory=dict)
    turnedAway: Mapping[str, int] = attrs.field(factory=dict)
    cacheHits: int = 0
    cacheMisses: int = 0
    cacheEntries: int = 0
    down: Mapping[str, bool] = attrs.field(factory=dict)
    certificateExpiry: Mapping[str, float] = attrs.field(factory=dict)


class Metrics:
    """Everything that one process counts, apart from any other `Metrics`."""

    def __init__(self, snapshot: Callable[[], Snapshot] = Snapshot) -> None:
        """Start from nothing.

        :param snapshot: asked at each `render`; must not block.
        """
        self._found: dict[tuple[MetricWrapperBase, tuple[str, ...]], MetricWrapperBase] = {}
        self._registry = CollectorRegistry()
        self._registry.register(_Present(snapshot))
        where = ("protocol", "destination")
        self._sessions = self._counter(
            "sessions", "Sessions that have ended, by how they ended.", (*where, "outcome")
        )
        self._logins = self._counter(
            "logins", "Logins that a backend or the proxy answered.", (*where, "result")
        )
        self._bytes = self._counter(
            "bytes", "Bytes from (in) and to (out) clients.", (*where, "direction")
        )
        self._duration = self._histogram(
            "session_duration_seconds", "Length of sessions.", ("protocol",), _SESSION_BUCKETS
        )
        self._storeLatency = self._histogram(
            "mapping_lookup_seconds", "Time of the store's answers.", ("result",), _STORE_BUCKETS
        )
        self._connectLatency = self._histogram(
            "backend_connect_seconds",
            "Time until a backend is ready for the login.",
            ("destination",),
            _CONNECT_BUCKETS,
        )
        self._storeAnswers = self._storeLatency.labels("ok")
        self._storeFailures = self._storeLatency.labels("error")

    def sessionEnded(
        self, protocol: str, destination: str | None, outcome: Outcome, seconds: float
    ) -> None:
        """Count the end of a session that lasted so many seconds."""
        self._of(self._sessions, protocol, destination or "", outcome.value).inc()
        self._of(self._duration, protocol).observe(seconds)

    def loginEnded(self, protocol: str, destination: str | None, result: LoginResult) -> None:
        """Count a login."""
        self._of(self._logins, protocol, destination or "", result.value).inc()

    def bridged(self, protocol: str, destination: str | None, received: int, sent: int) -> None:
        """Count the bytes of a bridge that has ended, from and to its client."""
        self._of(self._bytes, protocol, destination or "", "in").inc(received)
        self._of(self._bytes, protocol, destination or "", "out").inc(sent)

    def storeAnswered(self, seconds: float, *, failed: bool = False) -> None:
        """Count a question to the mapping's store."""
        (self._storeFailures if failed else self._storeAnswers).observe(seconds)

    def backendReady(self, destination: str, seconds: float) -> None:
        """Count a backend connection that became ready for the login."""
        self._of(self._connectLatency, destination).observe(seconds)

    def render(self) -> bytes:
        """Everything in Prometheus's text format, as `CONTENT_TYPE` says."""
        return generate_latest(self._registry)

    def families(self) -> Iterable[Metric]:
        """Everything as it is now, for who adds up several processes."""
        return self._registry.collect()

    def _of(self, metric: M, *labels: str) -> M:
        """Find the one with these labels: faster than to ask for it by name each time."""
        found = self._found.get((metric, labels))
        if found is None:
            found = self._found[metric, labels] = metric.labels(*labels)
        return cast(M, found)

    def _counter(self, name: str, text: str, labels: tuple[str, ...]) -> Counter:
        return Counter(name, text, labels, namespace="mailproxy", registry=self._registry)

    def _histogram(
        self, name: str, text: str, labels: tuple[str, ...], buckets: tuple[float, ...]
    ) -> Histogram:
        return Histogram(
            name, text, labels, namespace="mailproxy", registry=self._registry, buckets=buckets
        )


class _Present(Collector):
    """Turns a snapshot into metrics whenever they are collected."""

    def __init__(self, snapshot: Callable[[], Snapshot]) -> None:
        self._snapshot = snapshot

    def describe(self) -> list[Metric]:
        """Nothing to check for double names: so no snapshot is taken before the first look."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Take a snapshot and word it."""
        now = self._snapshot()
        active = GaugeMetricFamily(
            "mailproxy_active_sessions", "Live sessions.", labels=("protocol", "destination")
        )
        for (protocol, destination), count in now.active.items():
            active.add_metric((protocol, destination or ""), count)
        yield active
        yield _gauges("open_connections", "Connections of clients.", "listener", now.open)
        turnedAway = CounterMetricFamily(
            "mailproxy_connections_turned_away",
            "Connections closed because their listener was full.",
            labels=("listener",),
        )
        for listener, count in now.turnedAway.items():
            turnedAway.add_metric((listener,), count)
        yield turnedAway
        yield CounterMetricFamily(
            "mailproxy_cache_hits", "Lookups answered from memory.", value=now.cacheHits
        )
        yield CounterMetricFamily(
            "mailproxy_cache_misses", "Lookups that asked the store.", value=now.cacheMisses
        )
        yield GaugeMetricFamily(
            "mailproxy_cache_entries", "Identifiers in memory.", value=now.cacheEntries
        )
        yield _gauges("destination_down", "1 while the circuit is open.", "destination", now.down)
        yield _gauges(
            "certificate_expiry_timestamp_seconds",
            "When a certificate expires.",
            "certificate",
            now.certificateExpiry,
        )


def _gauges(name: str, text: str, label: str, values: Mapping[str, float]) -> GaugeMetricFamily:
    """A gauge for each value of one label."""
    family = GaugeMetricFamily(f"mailproxy_{name}", text, labels=(label,))
    for key, value in values.items():
        family.add_metric((key,), value)
    return family
