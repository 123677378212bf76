"""Rounds: what is run, in which order, and what becomes of a run that goes wrong."""

import io
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from twisted.trial.unittest import SynchronousTestCase

from benchmarks import rounds
from benchmarks.rounds import TRIES, Runner, play, run
from benchmarks.work import Line


class Failing:
    """A load that fails so often before it runs."""

    key, amount = "login", 10.0

    def __init__(self, failures: int = 0) -> None:
        self.failures = failures
        self.runs: list[int] = []

    @contextmanager
    def ready(self, line: Line) -> Iterator[Callable[[], None]]:
        """Note on which port it runs."""

        def work() -> None:
            self.runs.append(line.port)
            if self.failures:
                self.failures -= 1
                raise ConnectionResetError("reset by peer")

        yield work


RUNNERS = [Runner(f"peer {port}", Line(port, None), None) for port in (1, 2, 3)]


class RoundsTests(SynchronousTestCase):
    """Loads on runners that cost nothing."""

    def setUp(self) -> None:
        """Hear what is told."""
        self.told = io.StringIO()
        self.patch(sys, "stderr", self.told)
        self.patch(rounds, "PAUSE", 0.0)

    def test_eachRoundBeginsWithAnother(self) -> None:
        """After one to warm up, which gives no sample."""
        load = Failing()
        samples = list(play("here", [load], RUNNERS, 2))
        self.assertEqual(load.runs, [1, 2, 3, 1, 2, 3, 2, 3, 1])
        self.assertEqual([each.peer[-1] for each in samples], list("123231"))

    def test_aRunThatGoesWrongIsRunAgain(self) -> None:
        """It gives no sample, and is told of."""
        load = Failing(TRIES - 1)
        sample = run("here", load, RUNNERS[0])
        self.assertEqual((sample.peer, len(load.runs)), ("peer 1", TRIES))
        self.assertEqual(
            self.told.getvalue(), "once more: here, login, peer 1: reset by peer\n" * (TRIES - 1)
        )

    def test_runsThatWentWrongAreCounted(self) -> None:
        """Those of the run to warm up with the first sample."""
        failures = [run("here", Failing(count), RUNNERS[0]).failures for count in range(TRIES)]
        self.assertEqual(failures, list(range(TRIES)))
        samples = play("here", [Failing(1)], RUNNERS[:2], 2)
        self.assertEqual(
            [(each.peer[-1], each.failures) for each in samples],
            [("1", 1), ("2", 0), ("2", 0), ("1", 0)],
        )

    def test_whoCannotIsGivenUp(self) -> None:
        """With where it was."""
        error = self.assertRaises(ConnectionResetError, run, "here", Failing(TRIES), RUNNERS[1])
        self.assertEqual(error.__notes__, ["in here: login, peer 2"])
