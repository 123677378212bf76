"""The sections of the benchmark: who stands where, which loads are run, what figures are called.

Each is a function of a `Setting`. One that is added here is in the tables and in the JSON file.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack

from benchmarks.contenders import Setting, lineUp
from benchmarks.figures import Goal, Section
from benchmarks.http import requests
from benchmarks.idle import idle
from benchmarks.lookups import lookups
from benchmarks.rounds import Sample, play
from benchmarks.servers import StandIn, startDovecot
from benchmarks.soak import soak
from benchmarks.units import failuresOf, figuresOf
from benchmarks.work import Download, Load, Logins, Messages, Upload
from benchmarks.workers import ONE, TWO, workers
from tests.integration.certificates import Authority

__all__ = ["CHARTED", "GOALS", "SECTIONS", "USUAL"]


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
        failuresOf(samples),
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
    samples = _withDovecot(setting, "both", loads, tls=True)
    return Section(
        "both",
        "TLS 1.3 on both legs",
        figuresOf(samples),
        "The server is a Dovecot. Towards it mailproxy and HAProxy resume their sessions, Dovecot"
        "\nand Perdition never do; a resumed login is one whose client resumes its own.",
        failuresOf(samples),
    )


def clientLeg(setting: Setting) -> Section:
    """What nginx can do too: TLS on the clients' side alone."""
    effort = setting.effort
    loads: list[Load] = [
        Logins(effort.logins),
        Download(effort.size, effort.total),
        Messages(effort.messages),
    ]
    samples = _withDovecot(setting, "client_leg", loads, tls=False)
    return Section(
        "client_leg",
        "TLS 1.3 on the client's leg, none on the server's",
        figuresOf(samples),
        "The server is a Dovecot. nginx asks a second nginx where the account lives, whose CPU time"
        "\nis not counted.",
        failuresOf(samples),
    )


def _withDovecot(setting: Setting, scene: str, loads: Sequence[Load], *, tls: bool) -> list[Sample]:
    with ExitStack() as stack:
        authority = Authority.temporary(stack)
        server = startDovecot(stack, authority, tls=tls, size=setting.effort.size)
        runners = lineUp(stack, setting.contenders, authority, server, clientTLS=True)
        return list(play(scene, loads, runners, setting.effort.rounds))


SECTIONS: Mapping[str, Callable[[Setting], Section]] = {
    "handshakes": handshakes,
    "both": both,
    "client_leg": clientLeg,
    "http": requests,
    "idle": idle,
    "lookups": lookups,
    "workers": workers,
    "soak": soak,
}

USUAL = tuple(name for name in SECTIONS if name != "soak")
"""What is measured where nothing is named."""

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
    Goal("workers", "shared_rate", ONE, 1.8, atLeast=True, ours=TWO),
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
