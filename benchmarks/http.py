"""HTTP over TLS on both legs: small requests on kept connections, by wrk.

mailproxy, nginx as a reverse proxy with the same certificates and the same backend, and the backend
itself, in turns; of each figure the median. CPU time is that of the process in the middle.
"""

import argparse
import json
import re
import statistics
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import attrs

from benchmarks.meter import cpuSeconds
from tests.integration.accounts import at
from tests.integration.certificates import Authority
from tests.integration.clients import runProgram
from tests.integration.front import Table, reaching, settings
from tests.integration.network import freePort
from tests.integration.nginx import Nginx, Options
from tests.integration.proxy import ProxyProcess
from tests.integration.website import basic, byAuthorization, webListener

CONNECTIONS = 16
"""How many are kept; each has one request in flight."""


@attrs.frozen
class Effort:
    """How much is done: rounds, and the seconds of each line in each round."""

    rounds: int
    seconds: int


FULL = Effort(rounds=5, seconds=5)
QUICK = Effort(rounds=2, seconds=2)


@attrs.frozen
class Line:
    """A way to the backend.

    :ivar pid: the process in the middle; None: there is none.
    """

    name: str
    port: int
    pid: int | None

    def measure(self, seconds: int) -> dict[str, float]:
        """Keep it busy for so long."""
        spent = self._cpu()
        command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--latency"]
        said = ["-H", f"Authorization: {basic(at('site'))}"]
        done = runProgram([*command, *said, f"https://localhost:{self.port}/x"], "wrk")
        if done.status or "Non-2xx" in done.output or "Socket errors" in done.output:
            raise RuntimeError(done.output)
        [requests] = re.findall(r"(\d+) requests in", done.output)
        [rate] = re.findall(r"Requests/sec:\s+([\d.]+)", done.output)
        [latency] = re.findall(r"50%\s+([\d.]+)(us|ms|s)", done.output)
        return {
            "requests_per_s": float(rate),
            "cpu_us_per_request": 1e6 * (self._cpu() - spent) / int(requests),
            "median_ms": float(latency[0]) * {"us": 0.001, "ms": 1, "s": 1000}[latency[1]],
        }

    def _cpu(self) -> float:
        return 0.0 if self.pid is None else cpuSeconds(self.pid)


def figures(effort: Effort) -> dict[str, dict[str, float]]:
    """Start the servers and measure: line -> figure -> median."""
    with ExitStack() as stack:
        authority = Authority.temporary(stack)
        site = stack.enter_context(Nginx("site", authority, Options(requests=1_000_000)))
        proxy = _proxy(stack, authority, site)
        front, port = _reverseProxy(stack, authority, site)
        lines = [
            Line("mailproxy", proxy.portOf("https"), proxy.pid),
            Line("nginx", port, front.pid),
            Line("direct", site.doors["http"].secure, None),
        ]
        return _medians(lines, effort)


def _medians(lines: Sequence[Line], effort: Effort) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, list[float]]] = {line.name: {} for line in lines}
    for _ in range(effort.rounds):
        for line in lines:
            for name, value in line.measure(effort.seconds).items():
                found[line.name].setdefault(name, []).append(value)
    return {
        line: {name: round(statistics.median(values), 2) for name, values in each.items()}
        for line, each in found.items()
    }


def _proxy(stack: ExitStack, authority: Authority, site: Nginx) -> ProxyProcess:
    """One process, which looks up the account of each request."""
    config: Table = settings(authority, {"https": webListener()}, {"site": reaching(site, "http")})
    config["server"]["log_level"] = "warn"
    config["http"] = {"route": [byAuthorization()], "max_keepalive_requests": 0}
    proxy = ProxyProcess(config, authority)
    proxy.writeMapping({at("site").name: "site"})
    return stack.enter_context(proxy)


def _reverseProxy(stack: ExitStack, authority: Authority, site: Nginx) -> tuple[Nginx, int]:
    """One worker, which verifies the backend's certificate and keeps connections to it."""
    port, files = freePort(), authority.issue("front.test", "localhost")
    server = f"""\
upstream site {{ server 127.0.0.1:{site.doors["http"].secure}; keepalive {CONNECTIONS}; }}
server {{
  listen 127.0.0.1:{port} ssl;
  ssl_certificate {files.cert};
  ssl_certificate_key {files.key};
  location / {{
    proxy_pass https://site;
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_set_header Host $host;
    proxy_ssl_verify on;
    proxy_ssl_name {site.hostname};
    proxy_ssl_trusted_certificate {authority.caFile};
    access_log off;
  }}
}}"""
    options = Options(requests=1_000_000, extra=server, ports=[port])
    return stack.enter_context(Nginx("front", authority, options)), port


def table(results: dict[str, dict[str, float]]) -> str:
    """Set the figures side by side."""
    names = list(results)
    rows = [f"{'':24}" + "".join(f"{name:>12}" for name in names)]
    for figure in results[names[0]]:
        rows.append(f"{figure:24}" + "".join(f"{results[name][figure]:12.2f}" for name in names))
    return "\n".join(rows)


def main() -> None:
    """Measure, print the table and write the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    arguments = parser.parse_args()
    results = figures(QUICK if arguments.quick else FULL)
    sys.stdout.write(table(results) + "\n")
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
