"""HTTP over TLS on both legs: small requests on kept connections, by wrk.

mailproxy, nginx as a reverse proxy with the same certificates and the same backend, and the backend
itself, in turns.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack

import attrs

from benchmarks import machine
from benchmarks.contenders import DIRECT, Setting
from benchmarks.figures import OURS, Figure, Section
from benchmarks.meter import cpuOfEach
from tests.integration.accounts import at
from tests.integration.certificates import Authority
from tests.integration.clients import runProgram
from tests.integration.front import Table, reaching, settings
from tests.integration.network import freePort
from tests.integration.nginx import Nginx, Options
from tests.integration.process import ChildServer
from tests.integration.proxy import ProxyProcess
from tests.integration.website import basic, byAuthorization, webListener

CONNECTIONS = 16
"""How many are kept; each has one request in flight."""


@attrs.frozen
class Way:
    """A way to the backend.

    :ivar pid: the process in the middle; None: there is none.
    """

    name: str
    port: int
    pid: int | None

    def run(self, seconds: int) -> tuple[float, float]:
        """Keep it busy for so long; tells CPU microseconds per request, and requests per second."""
        spent = self._cpu()
        command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s"]
        said = ["-H", f"Authorization: {basic(at('site'))}"]
        done = runProgram([*command, *said, f"https://localhost:{self.port}/x"], "wrk")
        if done.status or "Non-2xx" in done.output or "Socket errors" in done.output:
            raise RuntimeError(done.output)
        [requests] = re.findall(r"(\d+) requests in", done.output)
        [rate] = re.findall(r"Requests/sec:\s+([\d.]+)", done.output)
        return 1e6 * (self._cpu() - spent) / int(requests), float(rate)

    def _cpu(self) -> float:
        return 0.0 if self.pid is None else sum(cpuOfEach(self.pid).values())


def requests(setting: Setting) -> Section:
    """Small requests, each for an account that is looked up."""
    with ExitStack() as stack:
        figures = _figures(list(ways(stack)), setting.effort.rounds, setting.effort.seconds)
    return Section(
        "http",
        "HTTP/1.1, TLS 1.3 on both legs",
        figures,
        f"{CONNECTIONS} kept connections, by wrk; nginx is a reverse proxy that routes nothing.",
    )


def ways(stack: ExitStack) -> Iterator[Way]:
    """Start everybody; last comes the direct way."""
    authority = Authority.temporary(stack)
    site = stack.enter_context(Nginx("site", authority, Options(requests=1_000_000)))
    proxy = _proxy(stack, authority, site)
    yield Way(OURS, proxy.portOf("https"), proxy.pid)
    front, port = _reverseProxy(stack, authority, site)
    yield Way("nginx", port, front.pid)
    yield Way(DIRECT, site.doors["http"].secure, None)


class _Pinned(ChildServer):
    """On the processor that proxies have for themselves."""

    def command(self) -> Sequence[str]:
        """Run it there."""
        return [*machine.pinned(), *super().command()]


class _Proxy(_Pinned, ProxyProcess):
    pass


class _Front(_Pinned, Nginx):
    pass


def _figures(ways: Sequence[Way], rounds: int, seconds: int) -> list[Figure]:
    costs: dict[str, list[float]] = {}
    rates: dict[str, list[float]] = {}
    for turn in range(-1, rounds):  # one to warm up
        for way in ways:
            cost, rate = way.run(seconds)
            if turn >= 0:
                rates.setdefault(way.name, []).append(rate)
            if turn >= 0 and way.pid is not None:
                costs.setdefault(way.name, []).append(cost)
    return [
        Figure("request_cpu", "CPU per request", "us", costs),
        Figure("request_rate", "requests", "1/s", rates, cost=False),
    ]


def _proxy(stack: ExitStack, authority: Authority, site: Nginx) -> ProxyProcess:
    """One process, which looks up the account of each request."""
    config: Table = settings(authority, {"https": webListener()}, {"site": reaching(site, "http")})
    config["server"]["log_level"] = "warn"
    config["http"] = {"route": [byAuthorization()], "max_keepalive_requests": 0}
    proxy = _Proxy(config, authority)
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
    return stack.enter_context(_Front("front", authority, options)), port
