"""The workers' answers added up to one.

Pure: lists of plain data in, plain data out. What each answer looks like is `LocalControl`'s
matter.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

__all__ = ["Counts", "connections", "destinations", "hitRate", "render", "stats"]

Facts: TypeAlias = dict[str, Any]

Counts: TypeAlias = dict[str, Any]
"""One process's metrics: for each family its `type`, its `text`, and `samples`: lists of name,
labels and value."""

_LARGEST = frozenset(
    {"mailproxy_destination_down", "mailproxy_certificate_expiry_timestamp_seconds"}
)
"""Gauges of which the whole has the largest, not the sum."""


def hitRate(hits: int, misses: int) -> float:
    """Lookups answered from memory, in percent of all."""
    asked = hits + misses
    return round(100 * hits / asked, 1) if asked else 0.0


def stats(answers: Sequence[Facts]) -> Facts:
    """Add numbers up; sessions are counted by protocol and destination."""
    keys = ("cache_hits", "cache_misses", "cache_entries", "active_connections")
    total: Counter[str] = Counter()
    places: Counter[tuple[str, str | None]] = Counter()
    for answer in answers:
        total.update({key: answer[key] for key in keys})
        for each in answer["connections"]:
            places[each["protocol"], each["destination"]] += each["active"]
    return {
        "cache_hits": total["cache_hits"],
        "cache_misses": total["cache_misses"],
        "hit_rate_pct": hitRate(total["cache_hits"], total["cache_misses"]),
        "cache_entries": total["cache_entries"],
        "active_connections": total["active_connections"],
        "connections": [
            {"protocol": protocol, "destination": destination, "active": count}
            for (protocol, destination), count in places.items()
        ],
    }


def destinations(answers: Sequence[Sequence[Facts]]) -> list[Facts]:
    """Take the worst of what the workers know of each destination.

    They tell each other their news, so they know the same; but for a moment one may know more.
    """
    merged: dict[str, Facts] = {}
    for each in (each for answer in answers for each in answer):
        known = merged.setdefault(each["destination"], dict(each))
        for key in ("consecutive_failures", "failure_sources"):
            known[key] = max(known[key], each[key])
        for key in ("host_level_failure", "down"):
            known[key] = known[key] or each[key]
    return list(merged.values())


def connections(answers: Sequence[Sequence[Facts]]) -> list[Facts]:
    """List all workers' sessions, the oldest at the front."""
    return sorted((each for answer in answers for each in answer), key=lambda each: each["since"])


def samples(families: Iterable[Metric]) -> Counts:
    """Write metrics as plain data."""
    return {
        family.name: {
            "type": family.type,
            "text": family.documentation,
            "samples": [[each.name, each.labels, each.value] for each in family.samples],
        }
        for family in families
    }


def lasting(counts: Counts) -> Counts:
    """Of a process that has ended, what stays true: its counters, not its gauges."""
    return {name: family for name, family in counts.items() if family["type"] != "gauge"}


def add(one: Counts, other: Counts) -> Counts:
    """Add up the metrics of two processes."""
    return {name: _addFamilies(name, one.get(name), other.get(name)) for name in {**one, **other}}


def _addFamilies(name: str, one: Facts | None, other: Facts | None) -> Facts:
    if one is None or other is None:
        found = one or other
        assert found is not None, "it is in one of them"
        return found
    values: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
    for sample, labels, value in [*one["samples"], *other["samples"]]:
        key = sample, tuple(labels.items())
        values[key] = _combine(name, sample, values[key], value) if key in values else value
    merged = [[sample, dict(labels), value] for (sample, labels), value in values.items()]
    return {**one, "samples": merged}


def _combine(family: str, sample: str, one: float, other: float) -> float:
    """Add two values of one sample; of the times of creation the earlier one counts."""
    if sample.endswith("_created"):
        return min(one, other)
    return max(one, other) if family in _LARGEST else one + other


class _Families(Collector):
    """Plain data as metrics again."""

    def __init__(self, counts: Counts) -> None:
        self._counts = counts

    def describe(self) -> list[Metric]:
        """Nothing to check for double names."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Word each family."""
        for name, family in self._counts.items():
            metric = Metric(name, family["text"], family["type"])
            metric.samples = [Sample(*each) for each in family["samples"]]
            yield metric


def render(counts: Mapping[str, Any]) -> str:
    """Write metrics in Prometheus's text format."""
    registry = CollectorRegistry()
    registry.register(_Families(dict(counts)))
    return generate_latest(registry).decode("utf-8")
