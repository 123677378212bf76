"""Soak: what a process that has served very many logins has kept of them.

Takes most of an hour, so it is run by name alone: `--only soak`.
"""

import time
from contextlib import ExitStack

from benchmarks.contenders import Setting, clientContext
from benchmarks.figures import OURS, Figure, Section
from benchmarks.meter import memoryBytes
from benchmarks.peers.base import Place
from benchmarks.peers.mailproxy import Mailproxy
from benchmarks.servers import StandIn
from benchmarks.work import Line, Logins
from tests.integration.certificates import Authority

__all__ = ["soak"]

PARTS = 10
"""Looks at the memory."""

_SETTLED = 0.3
"""Seconds after which what sessions leave behind has been put away."""


def soak(setting: Setting) -> Section:
    """Log in and out again and again, with TLS on both legs; every other part resumes."""
    each = setting.effort.soak // PARTS
    found = []
    with ExitStack() as stack:
        authority = Authority.temporary(stack)
        server = stack.enter_context(StandIn(authority, tls=True, tickets=True)).server
        peer = stack.enter_context(Mailproxy(Place(authority, server, clientTLS=True)))
        line = Line(peer.port, clientContext(authority, Mailproxy.group))
        for part in range(PARTS):
            with Logins(each, resumed=bool(part % 2)).ready(line) as work:
                work()
            time.sleep(_SETTLED)
            found.append(memoryBytes(peer.pid))
    first, last = found[0], found[-1]
    figures = [
        _figure("soak_first", f"after {each:,} logins", "MiB", first / 2**20),
        _figure("soak_last", f"after {PARTS * each:,} logins", "MiB", last / 2**20),
        _figure("soak_growth", "kept of each", "bytes", (last - first) / ((PARTS - 1) * each)),
    ]
    return Section("soak", "Memory (PSS) after many logins", figures, _course(found))


def _figure(key: str, title: str, unit: str, value: float) -> Figure:
    return Figure(key, title, unit, {OURS: [value]})


def _course(found: list[int]) -> str:
    """All looks, in order."""
    return "MiB, part by part: " + " ".join(f"{each / 2**20:.1f}" for each in found)
