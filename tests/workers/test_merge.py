"""The workers' answers are added up as an operator expects."""

from typing import Any

from prometheus_client.parser import text_string_to_metric_families
from twisted.trial.unittest import SynchronousTestCase

from mailproxy.metrics import LoginResult, Metrics, Outcome, Snapshot
from mailproxy.workers import merge


class StatsTests(SynchronousTestCase):
    """Numbers."""

    def stats(self, hits: int, misses: int, *places: tuple[str, str | None, int]) -> dict[str, Any]:
        """One worker's."""
        keys = ("protocol", "destination", "active")
        return {
            "cache_hits": hits,
            "cache_misses": misses,
            "cache_entries": misses,
            "active_connections": sum(place[2] for place in places),
            "hit_rate_pct": 99.0,
            "connections": [dict(zip(keys, place, strict=True)) for place in places],
        }

    def test_sumsAndTheRate(self) -> None:
        """The rate is computed anew; places are added by protocol and destination."""
        merged = merge.stats(
            [
                self.stats(1, 1, ("imap", "old", 2), ("imap", None, 1)),
                self.stats(2, 0, ("imap", "old", 3), ("pop3", "old", 1)),
            ]
        )
        self.assertEqual(merged["hit_rate_pct"], 75.0)
        self.assertEqual((merged["cache_hits"], merged["active_connections"]), (3, 7))
        places = {(e["protocol"], e["destination"]): e["active"] for e in merged["connections"]}
        expected = {("imap", "old"): 5, ("imap", None): 1, ("pop3", "old"): 1}
        self.assertEqual(places, expected)

    def test_noLookups(self) -> None:
        """Nothing is divided by nothing."""
        self.assertEqual(merge.stats([self.stats(0, 0)])["hit_rate_pct"], 0.0)


class DestinationTests(SynchronousTestCase):
    """The health of destinations."""

    def test_theWorstIsTold(self) -> None:
        """Down for one is down; the longest streak."""
        one = {
            "destination": "old",
            "consecutive_failures": 4,
            "failure_sources": 1,
            "host_level_failure": False,
            "down": False,
        }
        other = {**one, "consecutive_failures": 5, "host_level_failure": True, "down": True}
        self.assertEqual(merge.destinations([[one], [other]]), [other])
        self.assertEqual(merge.destinations([[other], [one]]), [other])


class MetricsTests(SynchronousTestCase):
    """What Prometheus reads."""

    def process(self, sessions: int, *, down: bool = False) -> merge.Counts:
        """One process's counts."""
        snapshot = Snapshot(
            active={("imap", "old"): sessions},
            cacheEntries=sessions,
            down={"old": down},
            certificateExpiry={"main": 1000.0},
        )
        metrics = Metrics(lambda: snapshot)
        for _ in range(sessions):
            metrics.sessionEnded("imap", "old", Outcome.BRIDGED, 0.5)
            metrics.loginEnded("imap", "old", LoginResult.ACCEPTED)
        return merge.samples(metrics.families())

    def values(self, counts: merge.Counts) -> dict[str, float]:
        """The samples of a rendering, by name and labels."""
        return {
            sample.name + "".join(f"/{value}" for _, value in sorted(sample.labels.items())): (
                sample.value
            )
            for family in text_string_to_metric_families(merge.render(counts))
            for sample in family.samples
        }

    def test_countersAndGaugesAreAdded(self) -> None:
        """Sessions, logins, histograms, entries."""
        found = self.values(merge.add(self.process(2), self.process(3)))
        self.assertEqual(found["mailproxy_active_sessions/old/imap"], 5)
        self.assertEqual(found["mailproxy_logins_total/old/imap/accepted"], 5)
        self.assertEqual(found["mailproxy_session_duration_seconds_count/imap"], 5)
        self.assertEqual(found["mailproxy_session_duration_seconds_bucket/1.0/imap"], 5)
        self.assertEqual(found["mailproxy_cache_entries"], 5)

    def test_someAreTheLargest(self) -> None:
        """Twice down is down; a date is no sum."""
        for one, other in ((True, False), (False, True)):
            found = self.values(merge.add(self.process(1, down=one), self.process(1, down=other)))
            self.assertEqual(found["mailproxy_destination_down/old"], 1)
            self.assertEqual(found["mailproxy_certificate_expiry_timestamp_seconds/main"], 1000)

    def test_ofOneItIsTheSame(self) -> None:
        """What one process would have written, word by word."""
        metrics = Metrics()
        metrics.loginEnded("imap", "old", LoginResult.REFUSED)
        rendered = metrics.render().decode()
        self.assertEqual(merge.render(merge.samples(metrics.families())), rendered)

    def test_whatStaysOfTheDead(self) -> None:
        """Counters, so that sums never go back."""
        found = self.values(merge.add(merge.lasting(self.process(2)), self.process(1)))
        self.assertEqual(found["mailproxy_active_sessions/old/imap"], 1)
        self.assertEqual(found["mailproxy_logins_total/old/imap/accepted"], 3)

    def test_addingChangesNeither(self) -> None:
        """Both may be added again."""
        one, other = self.process(1), self.process(2)
        before = repr((one, other))
        merge.add(one, other)
        self.assertEqual(repr((one, other)), before)
