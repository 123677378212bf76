"""`mailproxy explain`: each step from an account's name to the server that its login goes to.

Knows what the API tells of a decision; must not decide anything itself.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs
from rich.text import Text

from mailproxy.cli.commands import Job
from mailproxy.cli.output import Line, Table, bad, counted, dim, good

__all__ = ["Step", "explain"]


@attrs.frozen
class Step:
    """One step of a decision.

    :ivar result: what came of it.
    :ivar origin: where that is written, or who said it.
    :ivar sound: whether a login goes on from here.
    """

    name: str
    result: str
    origin: str
    sound: bool = True

    def asJSON(self) -> dict[str, object]:
        """Return it for the answer to `--json`."""
        return {"step": self.name, "result": self.result, "from": self.origin, "ok": self.sound}


async def explain(job: Job) -> int:
    """Tell step by step where an account's next login goes, and where each step comes from."""
    identifier, protocol = job.arguments.identifier, job.arguments.protocol
    facts = await job.client.mapping(identifier)
    destination = facts["destination"]
    health = [h for h in await job.client.destinations() if h["destination"] == destination]
    sessions = await job.client.connections(identifier)
    steps = [
        *_decision(facts),
        *_endpoint(facts, protocol),
        *(_health(each) for each in health),
        _sessions(sessions, destination),
    ]
    served = all(step.sound for step in steps)
    told = {**facts, "protocol": protocol, "served": served}
    told["steps"] = [step.asJSON() for step in steps]
    job.output.give(told, _table(steps), _verdict(identifier, destination, served))
    return 0 if served else 1


def _decision(facts: Mapping[str, Any]) -> Iterator[Step]:
    """Name to identifier, identifier to mapping, mapping to destination."""
    given, normalized = facts["identifier"], facts["normalized"]
    rules = "[routing] master_user_separators, [mapping] normalize"
    yield Step("identifier", normalized, rules if given != normalized else "as given")
    ground = facts.get("ground") or ("not mapped" if facts["routed_to_default"] else "mapped")
    source = facts.get("source", "mapping")
    memory = "remembered" if facts["cached"] else "asked just now"
    yield Step("mapping", ground, f"the {source} store, {memory}")
    origin = "[routing] default_destination" if facts["routed_to_default"] else "the mapping"
    yield Step("destination", facts["destination"], origin)


def _endpoint(facts: Mapping[str, Any], protocol: str | None) -> Iterator[Step]:
    """Destination to server, for one protocol or for all that it offers."""
    endpoints = facts.get("endpoints")
    if endpoints is None:
        return
    table = f"[destination.{facts['destination']}.protocol"
    if protocol is not None and protocol not in endpoints:
        offered = ", ".join(endpoints) or "nothing"
        yield Step("server", f"no {protocol}, only {offered}", f"{table}]", sound=False)
        return
    for name in endpoints if protocol is None else [protocol]:
        one = endpoints[name]
        host = f"[{one['host']}]" if ":" in one["host"] else one["host"]
        yield Step("server", f"{host}:{one['port']}, TLS {one['tls']}", f"{table}.{name}]")


def _health(each: Mapping[str, Any]) -> Step:
    failures = counted(each["consecutive_failures"], "failure")
    state = f"{'down' if each['down'] else 'up'}, {failures} in a row"
    return Step("health", state, "what sessions have met", sound=not each["down"])


def _sessions(sessions: Sequence[Mapping[str, Any]], destination: str) -> Step:
    """Tell of live sessions: those elsewhere end only when they are kicked."""
    here = sum(each["destination"] == destination for each in sessions)
    result = f"{here} there"
    if elsewhere := len(sessions) - here:
        result += f", {elsewhere} still elsewhere"
    return Step("sessions", result, "live now")


def _table(steps: Sequence[Step]) -> Table:
    rows: list[list[Text | str]] = [
        [step.name, step.result if step.sound else bad(step.result), dim(step.origin)]
        for step in steps
    ]
    return Table(["step", "result", "from"], rows)


def _verdict(identifier: str, destination: str, served: bool) -> Line:
    if served:
        return Line.of("The next login of ", identifier, " goes to ", good(destination), ".")
    return Line.of("The next login of ", identifier, " ", bad("cannot be served"), ".")
