"""Routing decisions: how many per second, and what each costs, without any connection.

Measured in a process of its own, which has a core to itself. Run by itself:
`python -m benchmarks.lookups IDENTIFIERS ROUNDS [REDIS-URL]` prints JSON.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import attrs
from twisted.internet.defer import Deferred, gatherResults, succeed
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.task import react

from benchmarks import machine
from benchmarks.contenders import Setting
from benchmarks.figures import OURS, Figure, Section
from mailproxy.config.stores import OnError
from mailproxy.config.storeurl import parseRedis
from mailproxy.mapping.cache import CacheSettings, MappingCache
from mailproxy.mapping.file import FileSource
from mailproxy.mapping.interfaces import IMappingSource
from mailproxy.mapping.redis import RedisSettings, RedisSource
from mailproxy.routing import Ground, Router
from tests.integration.certificates import Authority
from tests.integration.databases import RedisServer

WIDTH = 64
"""Lookups at a time."""

_TITLES = {"file": "first, file", "redis": "first, Redis", "cached": "from the cache"}


@attrs.frozen
class Cost:
    """Of one lookup, in seconds."""

    cpu: float
    wall: float


def lookups(setting: Setting) -> Section:
    """Look up everybody once in each store, and again in the cache."""
    effort = setting.effort
    with ExitStack() as stack:
        redis = stack.enter_context(RedisServer(Authority.temporary(stack)))
        found = _child([str(effort.lookups), str(effort.rounds), redis.url])
    cpu = [
        Figure(f"{key}_cpu", f"CPU per lookup, {_TITLES[key]}", "us", _runs(found[key], 0))
        for key in found
    ]
    rates = [
        Figure(f"{key}_rate", _TITLES[key], "1/s", _runs(found[key], 1), cost=False)
        for key in found
    ]
    note = f"{effort.lookups} accounts, {WIDTH} lookups at a time; the router and its cache alone."
    return Section("lookups", "Lookups", [*cpu, *rates], note)


def _runs(costs: Sequence[Sequence[float]], part: int) -> dict[str, list[float]]:
    """Microseconds of CPU (0), or lookups per second (1)."""
    return {OURS: [1e6 * cpu if part == 0 else 1 / wall for cpu, wall in costs]}


def _child(arguments: Sequence[str]) -> dict[str, list[list[float]]]:
    """Run this module on the proxies' core."""
    command = [*machine.pinned(), sys.executable, "-m", "benchmarks.lookups", *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    found: dict[str, list[list[float]]] = json.loads(done.stdout)
    return found


async def measureAll(reactor: Any, count: int, rounds: int, url: str) -> dict[str, list[Cost]]:
    """Measure each kind of lookup, so many rounds."""
    identifiers = [f"account{number}@example.org" for number in range(count)]
    found: dict[str, list[Cost]] = {key: [] for key in _TITLES}
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "mapping"
        table.write_text("".join(f"{each}\tnew\n" for each in identifiers), "utf-8")
        file = FileSource(table, lambda function: succeed(function()))
        file.load()
        place = parseRedis(url)
        endpoint = HostnameEndpoint(reactor, place.host, place.port)
        redis = RedisSource(endpoint, reactor, RedisSettings(place))
        redis.startService()
        await _together(identifiers, lambda each: redis.store(each, "new"))
        for _ in range(rounds + 1):
            router = _router(reactor, file)
            found["file"].append(await measure(router, identifiers))
            found["cached"].append(await measure(router, identifiers))
            found["redis"].append(await measure(_router(reactor, redis), identifiers))
        await redis.stopService()
    return {key: costs[1:] for key, costs in found.items()}


def _router(reactor: Any, source: IMappingSource) -> Router:
    cache = MappingCache(source, reactor, CacheSettings())
    return Router(cache, {"old", "new"}, "old", OnError.STALE)


async def measure(router: Router, identifiers: Sequence[str]) -> Cost:
    """Route everybody once."""
    cpu, wall = time.process_time(), time.perf_counter()
    routes = await _together(identifiers, router.route)
    cost = Cost(
        (time.process_time() - cpu) / len(identifiers),
        (time.perf_counter() - wall) / len(identifiers),
    )
    assert routes == {Ground.MAPPED}, routes
    return cost


async def _together(identifiers: Sequence[str], ask: Any) -> set[Ground]:
    """Ask for everybody, so many at a time; the grounds of the answers, where they have any."""
    waiting = iter(identifiers)
    grounds = set()

    async def drain() -> None:
        for each in waiting:
            answer = await ask(each)
            if answer is not None:
                grounds.add(answer.ground)

    await gatherResults([Deferred.fromCoroutine(drain()) for _ in range(WIDTH)])
    return grounds


def main(arguments: Sequence[str]) -> None:
    """Measure, and print the costs as JSON."""
    count, rounds, url = arguments

    def run(reactor: Any) -> Deferred[None]:
        return Deferred.fromCoroutine(_print(reactor, int(count), int(rounds), url))

    react(run)


async def _print(reactor: Any, count: int, rounds: int, url: str) -> None:
    found = await measureAll(reactor, count, rounds, url)
    costs = {key: [attrs.astuple(each) for each in values] for key, values in found.items()}
    sys.stdout.write(json.dumps(costs))


if __name__ == "__main__":
    main(sys.argv[1:])
