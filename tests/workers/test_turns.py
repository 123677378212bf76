"""Changes beside each other, or one alone."""

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from mailproxy.workers.turns import MOST, Turns


class TurnTests(SynchronousTestCase):
    """Who may begin when."""

    def setUp(self) -> None:
        """Note what has begun."""
        self.turns = Turns()
        self.begun: list[str] = []
        self.ends: dict[str, Deferred[None]] = {}

    def ask(self, name: str, *, alone: bool = False) -> Deferred[str]:
        """Ask for a turn."""

        async def work() -> str:
            self.begun.append(name)
            await self.ends.setdefault(name, Deferred())
            return name

        return (self.turns.alone if alone else self.turns.together)(work)

    def end(self, name: str) -> None:
        """End a turn."""
        self.ends[name].callback(None)

    def test_besideEachOther(self) -> None:
        """Small changes do not wait for each other."""
        first, second = self.ask("a"), self.ask("b")
        self.assertEqual(self.begun, ["a", "b"])
        self.end("b")
        self.assertEqual(self.successResultOf(second), "b")
        self.assertNoResult(first)
        self.end("a")

    def test_alone(self) -> None:
        """It waits for those before it, and those behind it wait for it."""
        self.ask("a")
        alone = self.ask("X", alone=True)
        self.ask("b")
        other = self.ask("Y", alone=True)
        self.assertEqual(self.begun, ["a"])
        self.end("a")
        self.assertEqual(self.begun, ["a", "X"])
        self.end("X")
        self.assertEqual(self.successResultOf(alone), "X")
        self.assertEqual(self.begun[2:3], ["b"])
        self.end("b")
        self.end("Y")
        self.assertEqual(self.successResultOf(other), "Y")

    def test_mistakeGivesTheTurnBack(self) -> None:
        """Alone or not."""

        async def fails() -> None:
            raise ZeroDivisionError

        for take in (self.turns.alone, self.turns.together):
            self.failureResultOf(take(fails), ZeroDivisionError)
        for number in range(MOST):
            self.ask(str(number))
        self.assertEqual(len(self.begun), MOST)
