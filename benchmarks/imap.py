"""`make bench`: IMAP over TLS on both legs, through the proxy and straight to the same Dovecot.

Interleaved rounds; of each figure the median. CPU time is the proxy's own, by process; the wall
times of the direct line say what client and server cost by themselves.
"""

import argparse
import imaplib
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import attrs

from benchmarks.meter import cpuSeconds, memoryBytes
from tests.integration.accounts import ALICE
from tests.integration.certificates import Authority
from tests.integration.clients import Target, openIMAP
from tests.integration.dovecot import Dovecot, Options
from tests.integration.front import behind, settings, standardListeners
from tests.integration.messages import bigMessage
from tests.integration.proxy import ProxyProcess

BULK = 50_000_000
"""Bytes of the message that is fetched."""


@attrs.frozen
class Effort:
    """How much is done in each round."""

    rounds: int
    logins: int
    fetches: int
    commands: int
    sessions: int


FULL = Effort(rounds=5, logins=200, fetches=4, commands=5000, sessions=200)
QUICK = Effort(rounds=2, logins=60, fetches=1, commands=2000, sessions=50)


class Line:
    """A way to the mailbox: through the proxy, or straight to the server."""

    def __init__(self, name: str, target: Target, authority: Authority, pid: int | None) -> None:
        self.name, self._target, self._pid = name, target, pid
        self._context = authority.clientContext()

    def open(self) -> imaplib.IMAP4:
        """Log in and select the inbox."""
        client = openIMAP(self._target, self._context)
        client.login(ALICE.name, ALICE.password.decode())
        client.select()
        return client

    def measure(self, work: Callable[[], None]) -> tuple[float, float]:
        """Do something; tell the proxy's CPU seconds (0 without one) and the wall's."""
        began, spent = time.perf_counter(), self._cpu()
        work()
        return self._cpu() - spent, time.perf_counter() - began

    def memory(self) -> int:
        """The proxy's memory in bytes; 0 without one."""
        return 0 if self._pid is None else memoryBytes(self._pid)

    def _cpu(self) -> float:
        return 0.0 if self._pid is None else cpuSeconds(self._pid)


def logins(line: Line, effort: Effort) -> dict[str, float]:
    """Log in and out, four at a time."""

    def once(_: int) -> None:
        line.open().logout()

    def work() -> None:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(once, range(effort.logins)))

    cpu, wall = line.measure(work)
    return {"cpu_ms_per_login": 1000 * cpu / effort.logins, "logins_per_s": effort.logins / wall}


def bulk(line: Line, effort: Effort) -> dict[str, float]:
    """Fetch a big message again and again."""
    client = line.open()

    def work() -> None:
        for _ in range(effort.fetches):
            client.fetch("1", "(BODY.PEEK[])")

    cpu, wall = line.measure(work)
    client.logout()
    gigabytes = effort.fetches * BULK / 1e9
    return {"cpu_s_per_gb": cpu / gigabytes, "mb_per_s": 1000 * gigabytes / wall}


def commands(line: Line, effort: Effort) -> dict[str, float]:
    """Send small commands, each after the answer to the last."""
    client = line.open()

    def work() -> None:
        for _ in range(effort.commands):
            client.noop()

    cpu, wall = line.measure(work)
    client.logout()
    # A command and its answer are two messages through the bridge.
    return {
        "cpu_us_per_message": 1e6 * cpu / effort.commands / 2,
        "commands_per_s": effort.commands / wall,
    }


def idle(line: Line, effort: Effort) -> dict[str, float]:
    """Keep sessions open that do nothing."""
    before = line.memory()
    clients = [line.open() for _ in range(effort.sessions)]
    grown = line.memory() - before
    for client in clients:
        client.logout()
    return {"kib_per_idle_session": grown / 1024 / effort.sessions}


def run(lines: Sequence[Line], effort: Effort) -> dict[str, dict[str, float]]:
    """Measure everything on every line, in turns; give the medians."""
    found: dict[str, dict[str, list[float]]] = {line.name: {} for line in lines}
    for turn in range(effort.rounds):
        for what in (logins, bulk, commands, *((idle,) if turn == 0 else ())):
            for line in lines:
                for name, value in what(line, effort).items():
                    found[line.name].setdefault(name, []).append(value)
    return {
        line: {name: round(statistics.median(values), 2) for name, values in figures.items()}
        for line, figures in found.items()
    }


def table(results: dict[str, dict[str, float]]) -> str:
    """Set the figures side by side."""
    names = list(results)
    rows = [f"{'':24}" + "".join(f"{name:>12}" for name in names)]
    for figure in results[names[0]]:
        rows.append(f"{figure:24}" + "".join(f"{results[name][figure]:12.2f}" for name in names))
    return "\n".join(rows)


def main() -> None:
    """Start the servers, measure, print the table and write the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    arguments = parser.parse_args()
    with ExitStack() as stack:
        authority = Authority.temporary(stack)
        server = stack.enter_context(Dovecot("legacy", authority, [ALICE], Options()))
        server.deliver(ALICE.name, bigMessage(BULK))
        config = settings(authority, standardListeners(), {"legacy": behind(server)})
        config["server"]["log_level"] = "warn"
        proxy = ProxyProcess(config, authority)
        proxy.writeMapping({})
        stack.enter_context(proxy)
        through = Target(proxy.portOf("imaps"), authority.caFile, True)
        straight = Target(server.imaps, authority.caFile, True)
        lines = [
            Line("proxy", through, authority, proxy.pid),
            Line("direct", straight, authority, None),
        ]
        results = run(lines, QUICK if arguments.quick else FULL)
    sys.stdout.write(table(results) + "\n")
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
