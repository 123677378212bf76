"""Units: what the costs and rates of a load are called, and in what they are counted."""

from collections import Counter
from collections.abc import Iterable, Mapping

import attrs

from benchmarks.figures import Figure
from benchmarks.rounds import Sample

__all__ = ["failuresOf", "figuresOf"]


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


def failuresOf(samples: Iterable[Sample]) -> dict[str, int]:
    """How many runs of each proxy went wrong, whatever the load."""
    found = Counter[str]()
    for each in samples:
        found[each.peer] += each.failures
    return dict(+found)


def _figure(key: str, unit: _Unit, runs: dict[str, list[float]], *, cost: bool = True) -> Figure:
    return Figure(key, unit.title, unit.unit, runs, cost)
