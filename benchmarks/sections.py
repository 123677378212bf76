"""The sections of the benchmark: who stands where, which loads are run, what figures are called.

Each is a function of a `Setting`. One that is added here is in the tables and in the JSON file.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack

import attrs

from benchmarks import machine
from benchmarks.contenders import Setting, clientContext, lineUp
from benchmarks.figures import Figure, Goal, Section
from benchmarks.http import requests
from benchmarks.idle import idle
from benchmarks.lookups import lookups
from benchmarks.peers.base import Place
from benchmarks.peers.mailproxy import Mailproxy
from benchmarks.rounds import Runner, Sample, play
from benchmarks.servers import StandIn, startDovecot
from benchmarks.work import Download, Line, Load, Logins, Messages, Upload
from tests.integration.certificates import Authority

__all__ = ["CHARTED", "GOALS", "SECTIONS", "figuresOf"]


@attrs.frozen
class _Unit:
    title: str
    unit: str
    scale: float


_COSTS: Mapping[str, _Unit] = {
    "login": _Unit("CPU per login", "ms", 1e3),
    "login_resumed": _Unit("CPU per resumed login", "ms", 1e3),
    "down": _Unit("CPU per GB to the client", "s", 1e9),
    "up": _Unit("CPU per GB to the server", "s", 1e9),
    "message": _Unit("CPU per small message", "us", 1e6),
}
_RATES: Mapping[str, _Unit] = {
    "login": _Unit("logins", "1/s", 1.0),
    "login_resumed": _Unit("resumed logins", "1/s", 1.0),
    "down": _Unit("to the client", "MB/s", 1e-6),
    "up": _Unit("to the server", "MB/s", 1e-6),
    "message": _Unit("small messages", "1/s", 1.0),
}


def figuresOf(samples: Iterable[Sample]) -> list[Figure]:
    """CPU per unit first, then units per second of the wall's clock."""
    costs: dict[str, dict[str, list[float]]] = {}
    rates: dict[str, dict[str, list[float]]] = {}
    for each in samples:
        rate = rates.setdefault(each.load, {}).setdefault(each.peer, [])
        rate.append(each.amount / each.wall * _RATES[each.load].scale)
        if each.cpu is not None:
            cost = costs.setdefault(each.load, {}).setdefault(each.peer, [])
            cost.append(each.cpu / each.amount * _COSTS[each.load].scale)
    return [
        *(_figure(f"{load}_cpu", _COSTS[load], runs) for load, runs in costs.items()),
        *(_figure(f"{load}_rate", _RATES[load], runs, cost=False) for load, runs in rates.items()),
    ]


def _figure(key: str, unit: _Unit, runs: dict[str, list[float]], *, cost: bool = True) -> Figure:
    return Figure(key, unit.title, unit.unit, runs, cost)


def handshakes(setting: Setting) -> Section:
    """Logins for which nothing is resumed."""
    with ExitStack() as stack:
        authority = Authority.temporary(stack)
        standIn = stack.enter_context(StandIn(authority, tls=True, tickets=False))
        runners = lineUp(stack, setting.contenders, authority, standIn.server, clientTLS=True)
        samples = list(
            play("handshakes", [Logins(setting.effort.logins)], runners, setting.effort.rounds)
        )
    return Section(
        "handshakes",
        "Logins, a full TLS 1.3 handshake on both legs",
        figuresOf(samples),
        "The server is a stand-in that gives no session tickets.",
    )


def both(setting: Setting) -> Section:
    """The usual case: TLS on both legs, and a server that lets sessions be resumed."""
    effort = setting.effort
    loads: list[Load] = [
        Logins(effort.logins),
        Logins(effort.logins, resumed=True),
        Download(effort.size, effort.total),
        Upload(effort.size, effort.total),
        Messages(effort.messages),
    ]
    return Section(
        "both",
        "TLS 1.3 on both legs",
        _withDovecot(setting, "both", loads, tls=True),
        "The server is a Dovecot. Towards it mailproxy and HAProxy resume their sessions, Dovecot"
        "\nand Perdition never do; a resumed login is one whose client resumes its own.",
    )


def clientLeg(setting: Setting) -> Section:
    """What nginx can do too: TLS on the clients' side alone."""
    effort = setting.effort
    loads: list[Load] = [
        Logins(effort.logins),
        Download(effort.size, effort.total),
        Messages(effort.messages),
    ]
    return Section(
        "client_leg",
        "TLS 1.3 on the client's leg, none on the server's",
        _withDovecot(setting, "client_leg", loads, tls=False),
        "The server is a Dovecot. nginx asks a second nginx where the account lives, whose CPU time"
        "\nis not counted.",
    )


def _withDovecot(setting: Setting, scene: str, loads: Sequence[Load], *, tls: bool) -> list[Figure]:
    with ExitStack() as stack:
        authority = Authority.temporary(stack)
        server = startDovecot(stack, authority, tls=tls, size=setting.effort.size)
        runners = lineUp(stack, setting.contenders, authority, server, clientTLS=True)
        return figuresOf(play(scene, loads, runners, setting.effort.rounds))


def workers(setting: Setting) -> Section:
    """One worker process against two, which may use every core."""
    with ExitStack() as stack:
        authority = Authority.temporary(stack)
        standIn = stack.enter_context(StandIn(authority, tls=True, tickets=True))
        place = Place(authority, standIn.server, clientTLS=True, cores=machine.CORES)
        context = clientContext(authority, Mailproxy.group)
        runners = []
        for threads in (1, 2):
            peer = stack.enter_context(Mailproxy(place, threads=threads))
            runners.append(Runner(_workers(threads), Line(peer.port, context), peer.pid))
        loads = [Logins(2 * setting.effort.logins)]
        samples = list(play("workers", loads, runners, setting.effort.rounds))
    capacity: dict[str, list[float]] = {}
    for each in samples:
        if each.busiest:
            capacity.setdefault(each.peer, []).append(each.amount / each.busiest)
    return Section(
        "workers",
        "Workers",
        [Figure("capacity", "logins", "1/s", capacity, cost=False), *figuresOf(samples)],
        "Logins per second that the busiest process's CPU time allows, then what it costs and what"
        "\nwas reached beside load and server on the same cores.",
    )


def _workers(threads: int) -> str:
    return f"{threads} worker" + "s" * (threads > 1)


SECTIONS: Mapping[str, Callable[[Setting], Section]] = {
    "handshakes": handshakes,
    "both": both,
    "client_leg": clientLeg,
    "http": requests,
    "idle": idle,
    "lookups": lookups,
    "workers": workers,
}

GOALS = (
    Goal("handshakes", "login_cpu", "Dovecot", 1.0),
    Goal("handshakes", "login_cpu", "HAProxy", 1.0),
    Goal("both", "login_cpu", "Dovecot", 1.0),
    Goal("both", "login_cpu", "HAProxy", 1.0),
    Goal("both", "login_resumed_cpu", "Dovecot", 1.0),
    Goal("both", "login_resumed_cpu", "HAProxy", 1.0),
    Goal("both", "down_cpu", "HAProxy", 0.9),
    Goal("both", "up_cpu", "HAProxy", 0.9),
    Goal("both", "message_cpu", "HAProxy", 1.0),
    Goal("workers", "capacity", _workers(1), 1.8, atLeast=True, ours=_workers(2)),
)
"""What we want to reach, in one run and on one machine."""

CHARTED = {
    ("handshakes", "login_cpu"): "Login, full handshakes",
    ("both", "login_resumed_cpu"): "Login, resumed",
    ("both", "down_cpu"): "A GB to the client",
    ("both", "up_cpu"): "A GB to the server",
    ("both", "message_cpu"): "Small message",
}
"""What the chart shows, and what it calls it."""
