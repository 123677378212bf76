"""The commands that ask a running proxy: each a few lines over the client, and what is shown of it.

Knows the calls and what an operator wants to see; must not know how a proxy is found or reached.
"""

import argparse
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Any, TypeAlias

import attrs
from rich.text import Text
from twisted.internet.interfaces import IReactorTime

from mailproxy.cli.client import SILENT, ManagementClient
from mailproxy.cli.output import Line, Output, Table, bad, clean, counted, dim, good
from mailproxy.errors import CallRefused

__all__ = ["Command", "Job", "requireDestination"]


@attrs.frozen
class Job:
    """What a command works with."""

    client: ManagementClient
    arguments: argparse.Namespace
    output: Output
    clock: IReactorTime


Command: TypeAlias = Callable[[Job], Coroutine[Any, Any, int]]
"""Carries out a command against a running proxy and returns the exit status."""


async def status(job: Job) -> int:
    """Show live sessions, the cache, and which destinations are down."""
    stats = await job.client.stats()
    destinations = await job.client.destinations()
    asked = stats["cache_hits"] + stats["cache_misses"]
    rows = [
        [each["protocol"], each["destination"] or dim("not routed yet"), str(each["active"])]
        for each in stats.get("connections", [])
    ]
    down = [each["destination"] for each in destinations if each["down"]]
    shown: list[Line | Table] = [
        Line.of(f"live sessions: {stats['active_connections']}"),
        *([Table(["protocol", "destination", "sessions"], rows)] if rows else []),
        Line.of(
            f"cache: {counted(stats['cache_entries'], 'account')}, {stats['hit_rate_pct']} % of "
            f"{counted(asked, 'lookup')} answered from memory"
        ),
        Line.of("destinations down: ", bad(", ".join(down)) if down else good("none")),
        *_workers(stats),
    ]
    job.output.give({**stats, "destinations": destinations}, *shown)
    return 0


def _workers(stats: dict[str, Any]) -> list[Line]:
    """Tell of worker processes, where there are several."""
    states = [each["state"] for each in stats.get("workers", [])]
    if len(states) < 2:
        return []
    serving = f"{states.count('serving')} of {len(states)}"
    restarts = f", {stats['worker_restarts']} restarted since the start"
    whole = states.count("serving") == len(states)
    silent = [
        Line.of(bad(f"worker {each['worker']} does not answer"), ": its share is not counted here")
        for each in stats["workers"]
        if each["state"] == "silent"
    ]
    mark = good if whole else bad
    return [Line.of("workers: ", mark(serving), " serve", restarts), *silent]


async def destinations(job: Job) -> int:
    """Show each destination's health."""
    facts = await job.client.destinations()
    rows = [
        [
            each["destination"],
            bad("down") if each["down"] else good("up"),
            str(each["consecutive_failures"]),
            str(each["failure_sources"]),
            "host" if each["host_level_failure"] else "",
        ]
        for each in facts
    ]
    columns = ["destination", "state", "failures", "clients", "level"]
    job.output.give(facts, Table(columns, rows))
    return 0


async def reset(job: Job) -> int:
    """Forget a destination's failures: it is tried again at once."""
    name = job.arguments.destination
    await requireDestination(job.client, name)
    await job.client.resetDestination(name)
    job.output.give({"reset": name}, Line.of(name, ": reset"))
    return 0


async def route(job: Job) -> int:
    """Tell which destination an account's next login goes to."""
    facts = await job.client.mapping(job.arguments.identifier)
    why = facts.get("ground") or ("the default" if facts["routed_to_default"] else "mapped")
    line = Line.of(job.arguments.identifier, ": ", facts["destination"], dim(f" ({why})"))
    job.output.give(facts, line)
    return 0


async def mapAccount(job: Job) -> int:
    """Write where an account lives; live sessions stay where they are."""
    identifier, destination = job.arguments.identifier, job.arguments.destination
    await requireDestination(job.client, destination)
    await job.client.setMapping(identifier, destination)
    facts = {"identifier": identifier, "destination": destination, "mapped": True}
    job.output.give(facts, Line.of(identifier, ": mapped to ", destination))
    return 0


async def unmap(job: Job) -> int:
    """Remove an account's mapping: its next login goes to the default destination."""
    identifier = job.arguments.identifier
    removed = await job.client.removeMapping(identifier)
    words = "mapping removed" if removed else "was not mapped"
    facts = {"identifier": identifier, "removed": removed}
    job.output.give(facts, Line.of(identifier, ": ", words))
    return 0


async def kick(job: Job) -> int:
    """End an account's live sessions; its clients come back by themselves."""
    identifier = job.arguments.identifier
    kicked = await job.client.kick(identifier)
    facts = {"identifier": identifier, "kicked": kicked}
    job.output.give(facts, Line.of(identifier, ": ", counted(kicked, "session"), " ended"))
    return 0


async def delay(job: Job) -> int:
    """Let an account's new logins wait, at most 120 seconds; 0 lets them go on at once."""
    identifier, seconds = job.arguments.identifier, job.arguments.seconds
    await job.client.delay(identifier, seconds)
    words = f"new logins wait for {seconds} s" if seconds else "new logins go on"
    facts = {"identifier": identifier, "seconds": seconds}
    job.output.give(facts, Line.of(identifier, ": ", words))
    return 0


async def invalidate(job: Job) -> int:
    """Have what the proxy remembers of an account's mapping dropped; of all, without ID."""
    identifier = job.arguments.identifier
    await job.client.invalidate(identifier)
    whose = "every account" if identifier is None else identifier
    job.output.give({"invalidated": identifier}, Line.of(whose, ": forgotten"))
    return 0


async def reload(job: Job) -> int:
    """Have the proxy read its configuration again, or its mapping store alone."""
    if job.arguments.mappings:
        await job.client.reloadMappings()
        job.output.give({"reloaded": True, "note": None}, Line.of("mappings reloaded"))
        return 0
    facts = await job.client.reload()
    note = facts.get("note")
    shown = [Line.of("configuration reloaded"), *([Line.of(dim(note))] if note else [])]
    job.output.give(facts, *shown)
    return 0 if facts.get("reloaded") else 1


async def connections(job: Job) -> int:
    """List live sessions, all that fit."""
    wanted = job.arguments
    facts = await job.client.connections(wanted.identifier, wanted.destination, wanted.protocol)
    now = job.clock.seconds()
    rows: list[list[Text | str]] = [
        [
            clean(each["identifier"] or "-"),
            clean(each["destination"] or "-"),
            f"{each['protocol']} ({each['listener']})",
            each["client"],
            _moment(each["since"], now),
            str(each["bytes_received"]),
            str(each["bytes_sent"]),
        ]
        for each in facts
    ]
    columns = ["account", "destination", "protocol", "client", "since", "bytes in", "out"]
    job.output.give(facts, Table(columns, rows) if rows else Line.of("no live session"))
    return 0


async def requireDestination(client: ManagementClient, name: str) -> None:
    """See that a destination is declared before anything is done about it.

    Where nobody can tell, the call itself will: what changes something has workers that hang
    ended, which a look does not.

    :raises CallRefused: when it is not; the text names those that are.
    """
    try:
        declared = [each["destination"] for each in await client.destinations()]
    except CallRefused as error:
        if error.status == SILENT:
            return
        raise
    if name not in declared:
        raise CallRefused(400, f"unknown destination {name}; the proxy has {', '.join(declared)}")


def _moment(since: float, now: float) -> str:
    """Write when something began, and with the date if that was not today."""
    begun = datetime.fromtimestamp(since, UTC).astimezone()
    return f"{begun:%H:%M:%S}" if now - since < 43200 else f"{begun:%Y-%m-%d %H:%M:%S}"
