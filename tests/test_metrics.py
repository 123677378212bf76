"""The metrics: their names, labels and values as Prometheus reads them."""

from prometheus_client.parser import text_string_to_metric_families
from twisted.trial.unittest import SynchronousTestCase

from mailproxy.metrics import LoginResult, Metrics, Outcome, Snapshot


def samples(metrics: Metrics) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """What a Prometheus server would read."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(metrics.render().decode())
        for sample in family.samples
    }


def eventfulMetrics() -> Metrics:
    """Metrics after everything has happened once."""
    each = {"imaps": 1}
    present = Snapshot({("imap", "old"): 1}, each, each, 1, 1, 1, {"old": True}, {"main": 1.9e9})
    metrics = Metrics(lambda: present)
    metrics.sessionEnded("imap", "old", Outcome.BRIDGED, 1.0)
    metrics.loginEnded("imap", "old", LoginResult.ACCEPTED)
    metrics.bridged("imap", "old", 1, 1)
    metrics.storeAnswered(0.1)
    metrics.backendReady("old", 0.1)
    return metrics


class MetricsTests(SynchronousTestCase):
    """What is counted and how it is worded."""

    def setUp(self) -> None:
        """Start from nothing."""
        self.metrics = Metrics()

    def value(self, name: str, **labels: str) -> float | None:
        """One sample's value; None when there is no such sample."""
        return samples(self.metrics).get((name, frozenset(labels.items())))

    def test_sessionsAreCountedByTheirEnd(self) -> None:
        """Each protocol, destination and outcome has its own count, and sessions their length."""
        for outcome in (*Outcome, Outcome.BRIDGED):
            self.metrics.sessionEnded("imap", "old", outcome, 20.0)
        where = {"protocol": "imap", "destination": "old"}
        for outcome in Outcome:
            expected = 2 if outcome is Outcome.BRIDGED else 1
            found = self.value("mailproxy_sessions_total", **where, outcome=outcome.value)
            self.assertEqual(found, expected, outcome)
        total = self.value("mailproxy_session_duration_seconds_sum", protocol="imap")
        self.assertEqual(total, 20.0 * (len(Outcome) + 1))

    def test_sessionWithoutADestinationHasAnEmptyLabel(self) -> None:
        """A client that left before its login was nowhere."""
        self.metrics.sessionEnded("imap", None, Outcome.CLIENT_GONE, 1.0)
        labels = {"protocol": "imap", "destination": "", "outcome": "client_gone"}
        self.assertEqual(self.value("mailproxy_sessions_total", **labels), 1)

    def test_loginsAreCountedByTheirResult(self) -> None:
        """Accepted, refused and unanswered logins are told apart."""
        for result in LoginResult:
            self.metrics.loginEnded("pop3", "new", result)
        for result in LoginResult:
            labels = {"protocol": "pop3", "destination": "new", "result": result.value}
            self.assertEqual(self.value("mailproxy_logins_total", **labels), 1)

    def test_bytesAreCountedByDirection(self) -> None:
        """Bridges of one protocol and destination add up; directions do not mix."""
        self.metrics.bridged("imap", "old", 10, 0)
        self.metrics.bridged("imap", "old", 5, 7)
        where = {"protocol": "imap", "destination": "old"}
        self.assertEqual(self.value("mailproxy_bytes_total", **where, direction="in"), 15)
        self.assertEqual(self.value("mailproxy_bytes_total", **where, direction="out"), 7)

    def test_storeLatencyTellsFailuresApart(self) -> None:
        """A store that fails fast must not look like one that answers fast."""
        self.metrics.storeAnswered(0.002)
        self.metrics.storeAnswered(5.0, failed=True)
        name = "mailproxy_mapping_lookup_seconds"
        self.assertEqual(self.value(f"{name}_sum", result="ok"), 0.002)
        self.assertEqual(self.value(f"{name}_sum", result="error"), 5.0)

    def test_connectLatencyIsPerDestination(self) -> None:
        """The slow backend is seen by name."""
        self.metrics.backendReady("old", 0.2)
        name = "mailproxy_backend_connect_seconds"
        self.assertEqual(self.value(f"{name}_count", destination="old"), 1)
        self.assertEqual(self.value(f"{name}_bucket", destination="old", le="0.1"), 0)
        self.assertEqual(self.value(f"{name}_bucket", destination="old", le="0.25"), 1)

    def test_presentStateIsReadAtEachLook(self) -> None:
        """Sessions, cache, breakers and certificates are shown as they are now."""
        now = [Snapshot(cacheHits=1)]
        self.metrics = Metrics(lambda: now[0])
        self.assertEqual(self.value("mailproxy_cache_hits_total"), 1)
        now[0] = Snapshot(
            active={("imap", "old"): 3, ("imap", None): 1},
            open={"imaps": 9},
            turnedAway={"imaps": 7},
            cacheHits=2,
            cacheMisses=4,
            cacheEntries=5,
            down={"old": True, "new": False},
            certificateExpiry={"main": 1.9e9},
        )
        active = "mailproxy_active_sessions"
        self.assertEqual(self.value(active, protocol="imap", destination="old"), 3)
        self.assertEqual(self.value(active, protocol="imap", destination=""), 1)
        self.assertEqual(self.value("mailproxy_open_connections", listener="imaps"), 9)
        turnedAway = "mailproxy_connections_turned_away_total"
        self.assertEqual(self.value(turnedAway, listener="imaps"), 7)
        self.assertEqual(self.value("mailproxy_cache_hits_total"), 2)
        self.assertEqual(self.value("mailproxy_cache_misses_total"), 4)
        self.assertEqual(self.value("mailproxy_cache_entries"), 5)
        self.assertEqual(self.value("mailproxy_destination_down", destination="old"), 1)
        self.assertEqual(self.value("mailproxy_destination_down", destination="new"), 0)
        expiry = "mailproxy_certificate_expiry_timestamp_seconds"
        self.assertEqual(self.value(expiry, certificate="main"), 1.9e9)

    def test_noSnapshotBeforeTheFirstLook(self) -> None:
        """Metrics can be made before the things that they will ask."""
        Metrics(lambda: Snapshot(cacheHits=1 // 0))

    def test_metricsAreIndependent(self) -> None:
        """Two processes' worth of metrics in one process do not share counts."""
        other = Metrics()
        other.loginEnded("imap", "old", LoginResult.ACCEPTED)
        self.assertNotIn(b"logins_total{", self.metrics.render())

    def test_namesFollowTheConventions(self) -> None:
        """Every name has our prefix, and whatever a configuration calls things is escaped."""
        self.metrics.loginEnded("imap", 'a"b\\c\n', LoginResult.ACCEPTED)
        found = samples(self.metrics)
        self.assertEqual([name for name, _ in found if not name.startswith("mailproxy_")], [])
        self.assertIn(("destination", 'a"b\\c\n'), {pair for _, pairs in found for pair in pairs})


class OutcomeTests(SynchronousTestCase):
    """How a session ended."""

    def test_theReasonSaysMoreThanTheOutcome(self) -> None:
        """A log line has both: where somebody has ended a session, who."""
        for outcome in (Outcome.KICKED, Outcome.SHUTDOWN, Outcome.CLIENT_GONE):
            self.assertNotIn(outcome.value, outcome.reason)
