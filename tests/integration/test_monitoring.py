"""What programs ask a running proxy: Prometheus its counts, API tools its description."""

import subprocess
import sys
from importlib.util import find_spec

from prometheus_client.parser import text_string_to_metric_families
from twisted.trial.unittest import SkipTest

from mailproxy.management.api import CALLS
from tests.integration.front import TOKEN
from tests.integration.operating import OperatingCase
from tests.integration.process import waitUntil


class MetricsTests(OperatingCase):
    """`GET /metrics`."""

    def samples(self) -> dict[tuple[str, ...], float]:
        """Every sample: its name and its labels' values, in the order of their names."""
        answer = self.api("GET", "/metrics")
        self.assertEqual(answer.status, 200)
        found: dict[tuple[str, ...], float] = {}
        for family in text_string_to_metric_families(answer.text):
            for sample in family.samples:
                labels = [value for _, value in sorted(sample.labels.items())]
                found[(sample.name, *labels)] = sample.value
        return found

    def test_sessionsLeaveTheirCounts(self) -> None:
        """One login accepted, one refused; bytes and sessions once they have ended."""
        self.run_()
        client = self.logIn()
        client.readLine()
        client.send(b"ping\r\n")
        client.readLine()
        self.guess()
        self.assertEqual(self.samples()["mailproxy_active_sessions", "only", "imap"], 1)
        client.close()
        ended = ("mailproxy_sessions_total", "only", "bridged", "imap")
        self.assertTrue(waitUntil(lambda: ended in self.samples(), 20))
        found = self.samples()
        for key, value in {
            ended: 1,
            ("mailproxy_logins_total", "only", "imap", "accepted"): 1,
            ("mailproxy_logins_total", "only", "imap", "refused"): 1,
            ("mailproxy_bytes_total", "only", "in", "imap"): 6,
            ("mailproxy_bytes_total", "only", "out", "imap"): 13,
            ("mailproxy_backend_connect_seconds_count", "only"): 2,
            ("mailproxy_destination_down", "only"): 0,
        }.items():
            self.assertEqual(found.get(key), value, key)
        self.assertGreater(found["mailproxy_certificate_expiry_timestamp_seconds", "own"], 1e9)

    def test_asPrometheusAsks(self) -> None:
        """With the content type of its text format, and to nobody without a token."""
        self.run_()
        answer = self.api("GET", "/metrics")
        kind = answer.headers["Content-Type"]
        self.assertEqual(kind, "text/plain; version=0.0.4; charset=utf-8")
        self.assertEqual(self.api("GET", "/metrics", None).status, 401)
        self.assertNoSecret(answer.text)


class DescriptionTests(OperatingCase):
    """The API holds what its description advertised."""

    def test_anyRequestIsAnsweredAsDescribed(self) -> None:
        """Some hundreds of requests, sensible or not: status, type and shape are as described."""
        if find_spec("schemathesis") is None:
            raise SkipTest("schemathesis is not installed")
        proxy = self.run_()
        port = str(self.config["admin"]["bind"]).rpartition(":")[2]
        command = [
            *(sys.executable, "-m", "schemathesis.cli", "run", "--no-color"),
            f"https://localhost:{port}/openapi.json",
            *("--header", f"Authorization: Bearer {TOKEN}"),
            *("--tls-verify", str(self.authority.caFile)),
            *("--max-examples", "40", "--phases", "coverage,fuzzing"),
            # As many requests on every machine, and however long they take.
            *("--generation-deterministic", "--request-timeout", "60"),
            *("--suppress-health-check", "too_slow"),
            # Which destinations and accounts there are is not in the description; a wrong token
            # locks its sender out, as it should.
            *("--exclude-checks", "positive_data_acceptance,ignored_auth"),
        ]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=240, check=False, cwd=proxy.folder
        )
        self.assertEqual(done.returncode, 0, done.stdout[-6000:] + done.stderr[-2000:])
        # The description itself has been asked for by then, and is left out.
        self.assertIn(f"Tested: {len(CALLS) - 1}\n", done.stdout)
        self.assertNotIn("Traceback", proxy.log.text())
        self.assertEqual(self.api("GET", "/healthz", None).status, 200)
