"""From samples to rows, and goals that name rows which are there."""

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.rounds import Sample
from benchmarks.sections import CHARTED, GOALS, SECTIONS
from benchmarks.units import failuresOf, figuresOf


class FiguresTests(SynchronousTestCase):
    """What samples come to."""

    def test_costsAndRatesAreInTheirUnits(self) -> None:
        """Milliseconds per login, seconds per GB, and what the wall's clock says."""
        samples = [
            Sample("both", "login", "mailproxy", 0.5, 0.4, 2.0, 100.0),
            Sample("both", "down", "mailproxy", 2.0, 2.0, 4.0, 1e9),
        ]
        found = {figure.key: figure.runs["mailproxy"] for figure in figuresOf(samples)}
        self.assertEqual(
            found,
            {"login_cpu": [5.0], "down_cpu": [2.0], "login_rate": [50.0], "down_rate": [250.0]},
        )

    def test_theDirectLineHasNoCost(self) -> None:
        """It has a rate."""
        samples = [Sample("both", "login", "direct", None, None, 2.0, 100.0)]
        [figure] = figuresOf(samples)
        self.assertEqual((figure.key, figure.cost), ("login_rate", False))

    def test_failuresAreAddedUpForEachProxy(self) -> None:
        """Over all loads; who has none is left out."""
        samples = [
            Sample("both", load, peer, None, None, 1.0, 1.0, failures)
            for load, peer, failures in (
                ("login", "mailproxy", 1),
                ("login", "HAProxy", 0),
                ("down", "mailproxy", 2),
            )
        ]
        self.assertEqual(failuresOf(samples), {"mailproxy": 3})


class PlanTests(SynchronousTestCase):
    """What is to be measured."""

    def test_goalsAndChartNameSectionsThatThereAre(self) -> None:
        """A goal whose section is renamed would never be judged."""
        named = {goal.section for goal in GOALS} | {section for section, _ in CHARTED}
        self.assertLessEqual(named, set(SECTIONS))
