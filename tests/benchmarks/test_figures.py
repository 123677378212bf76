"""Medians, ratios and goals."""

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.figures import OURS, Figure, Goal, Section, Spread, judge


def figure(**runs: list[float]) -> Figure:
    """A row with these runs."""
    return Figure("login_cpu", "CPU per login", "ms", runs)


class FigureTests(SynchronousTestCase):
    """One row."""

    def test_ofRunsTheMiddleOneCounts(self) -> None:
        """One run that somebody disturbed moves the spread, not the figure."""
        self.assertEqual(Spread.of([3.0, 1.0, 90.0]), Spread(3.0, 1.0, 90.0))

    def test_ratiosAreOfOurMedianToTheirs(self) -> None:
        """2 to 4 is one half."""
        self.assertEqual(figure(mailproxy=[1.0, 2.0, 9.0], HAProxy=[4.0]).ratio("HAProxy"), 0.5)

    def test_withoutFiguresThereIsNoRatio(self) -> None:
        """Of a proxy that was not measured, of ours, or of one that cost nothing."""
        self.assertIsNone(figure(mailproxy=[1.0]).ratio("HAProxy"))
        self.assertIsNone(figure(HAProxy=[1.0]).ratio("HAProxy"))
        self.assertIsNone(figure(mailproxy=[1.0], HAProxy=[0.0]).ratio("HAProxy"))
        self.assertIsNone(figure(mailproxy=[1.0], HAProxy=[]).ratio("HAProxy"))


class GoalTests(SynchronousTestCase):
    """What we want to reach."""

    def judge(self, goal: Goal, **runs: list[float]) -> list[bool]:
        """Whether it is met."""
        return [each.met for each in judge([Section("both", "Both", [figure(**runs)])], [goal])]

    def test_aLimitMayBeReached(self) -> None:
        """And not be passed."""
        goal = Goal("both", "login_cpu", "HAProxy", 1.0)
        self.assertEqual(self.judge(goal, mailproxy=[2.0], HAProxy=[2.0]), [True])
        self.assertEqual(self.judge(goal, mailproxy=[2.1], HAProxy=[2.0]), [False])

    def test_someRatiosAreToBeLarge(self) -> None:
        """Two workers are to do more than one."""
        goal = Goal("both", "login_cpu", "one", 1.8, atLeast=True, ours="two")
        self.assertEqual(self.judge(goal, one=[10.0], two=[18.0]), [True])
        self.assertEqual(self.judge(goal, one=[10.0], two=[17.0]), [False])

    def test_whatWasNotMeasuredIsNotJudged(self) -> None:
        """Neither met nor missed."""
        self.assertEqual(self.judge(Goal("both", "login_cpu", "HAProxy", 1.0), **{OURS: [1.0]}), [])
        self.assertEqual(self.judge(Goal("both", "up_cpu", "HAProxy", 1.0), HAProxy=[1.0]), [])
        self.assertEqual(self.judge(Goal("idle", "login_cpu", "HAProxy", 1.0), HAProxy=[1.0]), [])
