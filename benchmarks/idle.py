"""Memory: of a proxy that has just started, and of sessions that do nothing.

The server is a stand-in: a real one has a process for each session.
"""

import time
from collections.abc import Iterator
from contextlib import ExitStack

import attrs

from benchmarks import machine
from benchmarks.contenders import Contender, Setting, clientContext
from benchmarks.figures import OURS, Figure, Section
from benchmarks.meter import memoryBytes
from benchmarks.peers.base import Place, Server
from benchmarks.servers import StandIn
from benchmarks.traffic import Connection, Job, Swarm
from benchmarks.work import WIDTH, Line, closeAll, command, openAll
from tests.integration.certificates import Authority

__all__ = ["idle"]

FORKED = 100
"""Sessions in a proxy that has a process for each."""

_SPARE = 500
"""Descriptors that a process needs besides those of its sessions."""

_SETTLED = 0.3
"""Seconds after which what sessions leave behind has been put away."""


@attrs.frozen
class Memory:
    """Bytes of one proxy.

    :ivar base: when it has started.
    :ivar idle: for each session; `used` after each has downloaded one megabyte.
    """

    base: float
    idle: float
    used: float


def idle(setting: Setting) -> Section:
    """Measure with TLS on both legs, and with none at all."""
    figures = [*_figures(setting, tls=True), *_figures(setting, tls=False)]
    note = (
        f"The server is a stand-in. {count(setting, OURS)} sessions in {OURS}, "
        f"{setting.effort.others} in the others; {FORKED}\nwhere each has a process."
    )
    return Section("idle", "Memory (PSS)", figures, note)


def count(setting: Setting, title: str, *, forks: bool = False) -> int:
    """How many sessions a proxy is given: each takes two of its descriptors."""
    wanted = setting.effort.sessions if title == OURS else setting.effort.others
    return min(wanted, FORKED if forks else wanted, (machine.descriptors() - _SPARE) // 2)


def _figures(setting: Setting, *, tls: bool) -> Iterator[Figure]:
    found = {}
    for each in setting.contenders:
        if each.kind.backendTLS or not tls:
            found[each.title] = _measure(setting, each, tls=tls)
    legs, name = ("tls", "two TLS legs") if tls else ("plain", "no TLS")
    if tls:
        yield _figure("base", "just started", "MiB", 2**20, {t: m.base for t, m in found.items()})
    idle = {title: memory.idle for title, memory in found.items()}
    used = {title: memory.used for title, memory in found.items()}
    yield _figure(f"{legs}_idle", f"idle, {name}", "KiB", 1024, idle)
    yield _figure(f"{legs}_used", f"after 1 MB, {name}", "KiB", 1024, used)


def _figure(key: str, title: str, unit: str, scale: int, found: dict[str, float]) -> Figure:
    return Figure(key, title, unit, {peer: [value / scale] for peer, value in found.items()})


def _measure(setting: Setting, contender: Contender, *, tls: bool) -> Memory:
    """Measure one proxy; it is alone, so that it shares no memory with another of its kind."""
    sessions = count(setting, contender.title, forks=contender.kind.forks)
    with ExitStack() as stack:
        authority = Authority.temporary(stack)
        server: Server = stack.enter_context(StandIn(authority, tls=tls, tickets=True)).server
        peer = stack.enter_context(contender.make(Place(authority, server, tls, sessions + 50)))
        context = clientContext(authority, contender.kind.group) if tls else None
        line = Line(peer.port, context)
        base = _settled(peer.pid)
        closeAll(openAll(line, WIDTH))  # what is loaded at the first use is no session's
        before = _settled(peer.pid)
        connections = openAll(line, sessions)
        idle = _settled(peer.pid)
        Swarm().run(map(_download, connections), WIDTH)
        used = _settled(peer.pid)
        peer.kill()  # to end so many sessions politely would take longer than to measure them
        for each in connections:
            each.close()
    return Memory(base, (idle - before) / sessions, (used - before) / sessions)


def _settled(pid: int) -> int:
    time.sleep(_SETTLED)
    return memoryBytes(pid)


def _download(connection: Connection) -> Job:
    return Job(connection, command(connection, b"FETCH 1 BODY.PEEK[]"), kept=True)
