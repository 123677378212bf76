"""Bounds for waiting: in time, too late, or given up."""

from collections.abc import Callable

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailproxy.waiting import TimedOut, pause, within


class StrictClock(Clock):
    """A clock that takes no delay below zero, as a reactor takes none."""

    def callLater(
        self, delay: float, callable: Callable[..., object], *args: object, **kwargs: object
    ) -> IDelayedCall:
        """Check the delay."""
        assert delay >= 0
        return super().callLater(delay, callable, *args, **kwargs)


class WithinTests(SynchronousTestCase):
    """A coroutine that has so much time and no more."""

    def setUp(self) -> None:
        """Start with something to wait for."""
        self.clock = StrictClock()
        self.cancelled: list[Deferred[str]] = []
        self.answer: Deferred[str] = Deferred(self.cancelled.append)
        self.ended = False

    async def work(self) -> str:
        """Wait, and clean up."""
        try:
            return await self.answer
        finally:
            self.ended = True

    def test_anAnswerInTimeIsGiven(self) -> None:
        """And no timer is left."""
        result = within(self.clock, 5, self.work())
        self.clock.advance(4.9)
        self.answer.callback("here")
        self.assertEqual(self.successResultOf(result), "here")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_aFailureIsGiven(self) -> None:
        """As it is: it is no timeout."""
        result = within(self.clock, 5, self.work())
        self.answer.errback(ValueError("ours"))
        self.failureResultOf(result, ValueError)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_lateWorkIsCancelled(self) -> None:
        """It is told to stop, cleans up, and the owner hears of the time."""
        result = within(self.clock, 5, self.work())
        self.clock.advance(4.9)
        self.assertNoResult(result)
        self.clock.advance(0.1)
        self.failureResultOf(result, TimedOut)
        self.assertEqual(self.cancelled, [self.answer])
        self.assertTrue(self.ended)

    def test_workThatAnswersWhenItIsCancelledIsLateAllTheSame(self) -> None:
        """The answer comes too late to count."""

        async def stubborn() -> str:
            try:
                return await self.answer
            except CancelledError:
                return "too late"

        result = within(self.clock, 5, stubborn())
        self.clock.advance(5)
        self.failureResultOf(result, TimedOut)

    def test_givingUpIsNoTimeout(self) -> None:
        """Who cancels the wait cancels the work, hears CancelledError, and leaves no timer."""
        result = within(self.clock, 5, self.work())
        result.cancel()
        self.failureResultOf(result, CancelledError)
        self.assertTrue(self.ended)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_noTimeLeftIsATimeout(self) -> None:
        """Zero or less: work that is not done at once is late."""
        for seconds in (0, -1):
            result = within(self.clock, seconds, self.work())
            self.clock.advance(0)
            self.failureResultOf(result, TimedOut)
            self.answer = Deferred()

    def test_workThatNeedsNoTimeIsInTime(self) -> None:
        """What is done at once is done, whatever the time."""
        self.answer.callback("here")
        self.assertEqual(self.successResultOf(within(self.clock, 0, self.work())), "here")


class PauseTests(SynchronousTestCase):
    """Letting time pass."""

    def test_itLasts(self) -> None:
        """Just so long."""
        clock = Clock()
        waiting = pause(clock, 0.2)
        clock.advance(0.1)
        self.assertNoResult(waiting)
        clock.advance(0.1)
        self.assertIsNone(self.successResultOf(waiting))

    def test_itCanBeGivenUp(self) -> None:
        """And leaves no timer."""
        clock = Clock()
        waiting = pause(clock, 0.2)
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.assertEqual(clock.getDelayedCalls(), [])
