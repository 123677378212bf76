"""One timer for waits that come one after the other."""

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailproxy.http.deadline import Deadline


class DeadlineTests(SynchronousTestCase):
    """When it calls back."""

    def setUp(self) -> None:
        """Note each call."""
        self.clock, self.calls = Clock(), list[str]()
        self.deadline = Deadline(self.clock)

    def begin(self, seconds: float, name: str = "a") -> None:
        """Begin a wait."""
        self.deadline.begin(seconds, lambda: self.calls.append(name))

    def test_expires(self) -> None:
        """Once, after its time."""
        self.begin(10)
        self.clock.advance(9)
        self.assertEqual(self.calls, [])
        self.clock.advance(1)
        self.clock.advance(100)
        self.assertEqual(self.calls, ["a"])

    def test_progress(self) -> None:
        """The time begins anew."""
        self.begin(10)
        self.clock.advance(9)
        self.deadline.progress()
        self.clock.advance(9)
        self.assertEqual(self.calls, [])
        self.clock.advance(1)
        self.assertEqual(self.calls, ["a"])

    def test_oneWaitEndsAnother(self) -> None:
        """A shorter or a longer one."""
        for seconds in (2, 60):
            self.calls.clear()
            self.begin(10, "first")
            self.begin(seconds, "second")
            self.clock.advance(seconds - 0.5)
            self.assertEqual(self.calls, [])
            self.clock.advance(0.5)
            self.assertEqual(self.calls, ["second"])

    def test_sign(self) -> None:
        """A change that nobody tells of is progress, too; it is looked at a few times."""
        taken = 0
        self.deadline.begin(20, lambda: self.calls.append("a"), lambda: taken)
        for _ in range(10):
            self.clock.advance(5)
            self.clock.advance(5)
            taken += 1
        self.assertEqual(self.calls, [])
        self.clock.pump([5] * 4)
        self.assertEqual(self.calls, [])
        self.clock.advance(5)
        self.assertEqual(self.calls, ["a"])

    def test_signThatNeverChanges(self) -> None:
        """The wait is as long as any, also where the timer was set for another one."""
        self.begin(60, "first")
        self.deadline.begin(20, lambda: self.calls.append("a"), lambda: 7)
        self.clock.pump([1] * 19)
        self.assertEqual(self.calls, [])
        self.clock.advance(1)
        self.assertEqual(self.calls, ["a"])

    def test_end(self) -> None:
        """A wait that has ended does not expire; the next one does."""
        self.begin(10)
        self.deadline.end()
        self.clock.advance(60)
        self.begin(5, "b")
        self.clock.advance(5)
        self.assertEqual(self.calls, ["b"])

    def test_oneTimerAtMost(self) -> None:
        """Whatever happens; none is left at the close."""
        for seconds in (30, 75, 10, 60, 60):
            self.begin(seconds)
            self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.deadline.close()
        self.deadline.close()
        self.assertEqual(self.clock.getDelayedCalls(), [])
