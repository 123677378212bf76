"""Tables and the JSON file."""

import json

import attrs
from twisted.trial.unittest import SynchronousTestCase

from benchmarks.figures import Figure, Goal, Section, judge
from benchmarks.report import asJSON, asText, goalsText, number

SECTION = Section(
    "both",
    "TLS on both legs",
    [
        Figure("login_cpu", "CPU per login", "ms", {"mailproxy": [2.0, 1.0], "HAProxy": [3.0]}),
        Figure("login_rate", "logins", "1/s", {"HAProxy": [500.0], "direct": [900.0]}, cost=False),
    ],
    "The server is a Dovecot.",
)
GOAL = Goal("both", "login_cpu", "HAProxy", 0.4)


class TextTests(SynchronousTestCase):
    """What a terminal shows."""

    def test_aRowHasMedianAndSpreadOfEachAndTheRatio(self) -> None:
        """Who has no figure has a dash."""
        title, head, costs, rates, note = asText(SECTION).splitlines()
        self.assertEqual(title, "TLS on both legs")
        self.assertEqual(head.split(), ["mailproxy", "HAProxy", "direct", "to", "HAProxy"])
        self.assertIn("1.50 [1.00 2.00]", costs)
        self.assertTrue(costs.endswith("3.00 [3.00 3.00]                   -       0.50"))
        self.assertIn("500 [500 500]", rates)
        self.assertEqual(note, "The server is a Dovecot.")

    def test_whoseRunsWentWrongIsSaid(self) -> None:
        """Below the table; of the others nothing, and where there are none no line."""
        failing = attrs.evolve(SECTION, failures={"mailproxy": 1, "HAProxy": 0, "direct": 2})
        whole, last = asText(failing).rsplit("\n", 1)
        self.assertEqual(whole, asText(SECTION))
        self.assertEqual(last, "Runs that went wrong, and were run again: mailproxy 1, direct 2")

    def test_ratesAreNotCompared(self) -> None:
        """How fast it goes is also the load's doing, and the server's."""
        self.assertTrue(asText(SECTION).splitlines()[3].endswith("900 [900 900]"))

    def test_threeDigitsSayEnough(self) -> None:
        """And before the point there may be more."""
        self.assertEqual(
            [*map(number, (1234.5, 99.94, 1.234, 0.0))], ["1234", "99.9", "1.23", "0.00"]
        )

    def test_goalsAreMetOrMissed(self) -> None:
        """Said so in as many words."""
        self.assertIn("MISSED", goalsText(judge([SECTION], [GOAL])))
        self.assertIn(
            " met", goalsText(judge([SECTION], [Goal("both", "login_cpu", "HAProxy", 1)]))
        )

    def test_whereNoGoalWasMeasuredItSaysSo(self) -> None:
        """A head without a table would look like one that got lost."""
        self.assertEqual(goalsText([]), "Goals: none was measured")


class JSONTests(SynchronousTestCase):
    """What programs read."""

    def test_holdsEveryRun(self) -> None:
        """And what they come to."""
        section = attrs.evolve(SECTION, failures={"mailproxy": 1})
        whole = asJSON({"machine": "a big one"}, [section], judge([section], [GOAL]))
        found = json.loads(json.dumps(whole))
        figure = found["sections"]["both"]["figures"]["login_cpu"]
        self.assertEqual(
            figure["peers"]["mailproxy"],
            {"median": 1.5, "low": 1.0, "high": 2.0, "runs": [2.0, 1.0]},
        )
        self.assertEqual(figure["ratios"], {"HAProxy": 0.5})
        self.assertEqual(found["machine"], "a big one")
        self.assertEqual(found["sections"]["both"]["failures"], {"mailproxy": 1})
        [goal] = found["goals"]
        self.assertEqual((goal["ratio"], goal["limit"], goal["met"]), (0.5, 0.4, False))
