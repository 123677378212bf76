"""Rounds: every load on every proxy in turn, again and again, with the clock and the meter running.

In turn, since a machine's speed changes from minute to minute; what changes then changes for all.
"""

import sys
import time
from collections.abc import Iterator, Sequence

import attrs

from benchmarks.meter import cpuOfEach
from benchmarks.traffic import Stalled
from benchmarks.work import Line, Load

__all__ = ["Runner", "Sample", "play"]

TRIES = 3
"""Runs of a load after which a proxy that fails is held to be unable: one resets a connection in
tens of thousands, and a quarter of an hour of figures is not to be lost for it."""

PAUSE = 5.0
"""Seconds between two of them: Dovecot starts a login process that has died after two."""


@attrs.frozen
class Runner:
    """Something that loads are run on.

    :ivar pid: whose costs are read; None: nobody's, as on the direct line.
    """

    title: str
    line: Line
    pid: int | None


@attrs.frozen
class Sample:
    """What one run of a load has cost.

    :ivar cpu: the proxy's seconds, and `busiest` those of the one process that has used most;
        None on the direct line.
    :ivar wall: the seconds that it took.
    :ivar amount: what was done, in the load's units.
    :ivar failures: runs that went wrong since the sample before it, and were run again.
    """

    scene: str
    load: str
    peer: str
    cpu: float | None
    busiest: float | None
    wall: float
    amount: float
    failures: int = 0


def play(
    scene: str, loads: Sequence[Load], runners: Sequence[Runner], rounds: int
) -> Iterator[Sample]:
    """Run everything once to warm up, then so many rounds; each begins with another proxy."""
    before = {
        (load.key, runner.title): run(scene, load, runner).failures
        for load in loads
        for runner in runners
    }
    for turn in range(rounds):
        first = turn % len(runners)
        for load in loads:
            for runner in (*runners[first:], *runners[:first]):
                sample = run(scene, load, runner)
                failures = sample.failures + before.pop((load.key, runner.title), 0)
                yield attrs.evolve(sample, failures=failures)


def run(scene: str, load: Load, runner: Runner) -> Sample:
    """Run a load; a run that goes wrong gives no figures, is counted and told of.

    :raises OSError, EOFError, Stalled: when it has gone wrong `TRIES` times.
    """
    for failures in range(TRIES):
        try:
            return attrs.evolve(_run(scene, load, runner), failures=failures)
        except (OSError, EOFError, Stalled) as error:
            error.add_note(f"in {scene}: {load.key}, {runner.title}")
            if failures + 1 == TRIES:
                raise
            sys.stderr.write(f"once more: {scene}, {load.key}, {runner.title}: {error}\n")
            time.sleep(PAUSE)
    raise AssertionError("it has run, or failed for good")


def _run(scene: str, load: Load, runner: Runner) -> Sample:
    with load.ready(runner.line) as work:
        before, began = _cpu(runner), time.perf_counter()
        work()
        wall, after = time.perf_counter() - began, _cpu(runner)
    spent = [after[pid] - before.get(pid, 0.0) for pid in after]
    cpu, busiest = (sum(spent), max(spent)) if spent else (None, None)
    return Sample(scene, load.key, runner.title, cpu, busiest, wall, load.amount)


def _cpu(runner: Runner) -> dict[int, float]:
    return {} if runner.pid is None else cpuOfEach(runner.pid)
