"""Workers: what a second process adds.

On a machine with two cores two workers, the load and the server have no core each, so the wall's
clock shows little. Two other looks: each process is given a small share of a core, which leaves
enough for the rest; and logins are divided by the CPU time of the busiest process.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

from benchmarks import machine
from benchmarks.contenders import Setting, clientContext
from benchmarks.figures import Figure, Section
from benchmarks.peers.base import Place
from benchmarks.peers.mailproxy import Mailproxy
from benchmarks.quota import available, quota
from benchmarks.rounds import Runner, Sample, play
from benchmarks.servers import StandIn
from benchmarks.units import failuresOf, figuresOf
from benchmarks.work import Line, Logins
from tests.integration.certificates import Authority

__all__ = ["ONE", "TWO", "workers"]

ONE, TWO = "1 worker", "2 workers"

SHARE = 0.2
"""Of a core, for each process."""

WIDTH = 64
"""Connections at a time: enough to keep every worker busy."""


def workers(setting: Setting) -> Section:
    """One worker process against two, which may use every core."""
    effort = setting.effort
    loads = [Logins(2 * effort.logins, width=WIDTH)]
    with ExitStack() as stack:
        runners = list(_start(stack))
        free = list(play("workers", loads, runners, effort.rounds))
        shared: list[Sample] = []
        if available():
            with _shared(runners):
                shared = list(play("workers", loads, runners, effort.rounds))
    rate = [Figure("shared_rate", f"logins, {SHARE:.0%} of a core", "1/s", _rates(shared), False)]
    capacity = Figure("capacity", "logins, busiest process", "1/s", _capacities(free), False)
    note = (
        f"Each process with {SHARE:.0%} of a core; then logins per second of the busiest process's"
        "\nCPU time; then with all cores, which load and server share."
    )
    figures = [*(rate if shared else []), capacity, *figuresOf(free)]
    return Section("workers", "Workers", figures, note, failuresOf([*free, *shared]))


def _start(stack: ExitStack) -> Iterator[Runner]:
    authority = Authority.temporary(stack)
    standIn = stack.enter_context(StandIn(authority, tls=True, tickets=True))
    place = Place(authority, standIn.server, clientTLS=True, cores=machine.CORES)
    context = clientContext(authority, Mailproxy.group)
    for title, threads in ((ONE, 1), (TWO, 2)):
        peer = stack.enter_context(Mailproxy(place, threads=threads))
        yield Runner(title, Line(peer.port, context), peer.pid)


@contextmanager
def _shared(runners: Sequence[Runner]) -> Iterator[None]:
    with ExitStack() as stack:
        for each in runners:
            if each.pid is not None:
                stack.enter_context(quota(each.pid, SHARE))
        yield


def _rates(samples: Iterable[Sample]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for each in samples:
        found.setdefault(each.peer, []).append(each.amount / each.wall)
    return found


def _capacities(samples: Iterable[Sample]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for each in samples:
        if each.busiest:
            found.setdefault(each.peer, []).append(each.amount / each.busiest)
    return found
