"""Bounds for waiting: in time, too late, or given up."""

from collections.abc import Callable, Coroutine

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

    def begin(
        self, clock: Clock, seconds: float, work: Coroutine[Deferred[str], object, str]
    ) -> Deferred[str]:
        """Await some work with an end to its time."""

        async def owner() -> str:
            return await within(clock, seconds, work)

        return Deferred.fromCoroutine(owner())

    def test_anAnswerInTimeIsGiven(self) -> None:
        """And no timer is left."""
        result = self.begin(self.clock, 5, self.work())
        self.clock.advance(4.9)
        self.answer.callback("here")
        self.assertEqual(self.successResultOf(result), "here")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_aFailureIsGiven(self) -> None:
        """As it is: it is no timeout."""
        result = self.begin(self.clock, 5, self.work())
        self.answer.errback(ValueError("ours"))
        self.failureResultOf(result, ValueError)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_lateWorkIsCancelled(self) -> None:
        """It is told to stop, cleans up, and the owner hears of the time."""
        result = self.begin(self.clock, 5, self.work())
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

        result = self.begin(self.clock, 5, stubborn())
        self.clock.advance(5)
        self.failureResultOf(result, TimedOut)

    def test_givingUpIsNoTimeout(self) -> None:
        """Who cancels the wait cancels the work, hears CancelledError, and leaves no timer."""
        result = self.begin(self.clock, 5, self.work())
        result.cancel()
        self.failureResultOf(result, CancelledError)
        self.assertTrue(self.ended)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_noTimeLeftIsATimeout(self) -> None:
        """Zero or less: work that is not done at once is late."""
        for seconds in (0, -1):
            result = self.begin(self.clock, seconds, self.work())
            self.clock.advance(0)
            self.failureResultOf(result, TimedOut)
            self.answer = Deferred()

    def test_workThatNeedsNoTimeIsInTime(self) -> None:
        """What is done at once is done, whatever the time."""
        self.answer.callback("here")
        self.assertEqual(self.successResultOf(self.begin(self.clock, 0, self.work())), "here")

    def test_manyWaitsHaveOneTimer(self) -> None:
        """Of those that last equally long; each ends at its own time all the same."""
        answers = [Deferred[str]() for _ in range(4)]
        results = []
        for answer in answers:
            self.answer = answer
            results.append(self.begin(self.clock, 5, self.work()))
            self.clock.advance(1)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        answers[1].callback("here")
        self.clock.advance(1)
        self.failureResultOf(results[0], TimedOut)
        self.clock.advance(1.5)
        self.assertNoResult(results[2])
        self.clock.advance(0.5)
        self.failureResultOf(results[2], TimedOut)
        self.assertNoResult(results[3])
        answers[3].callback("here")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_theEndOfOneMayEndAnother(self) -> None:
        """Which is then in time: it is not cancelled as well."""
        other: Deferred[str] = Deferred(lambda _: self.fail("it is over"))
        first = Deferred[str](lambda _: other.callback("here"))
        results = []
        for answer in (first, other):
            self.answer = answer
            results.append(self.begin(self.clock, 5, self.work()))
        self.clock.advance(5)
        self.failureResultOf(results[0], TimedOut)
        self.assertEqual(self.successResultOf(results[1]), "here")

    def test_aBugInOneEndHoldsNobodyUp(self) -> None:
        """It is logged, and the others end in time."""

        def buggy(_: object) -> None:
            raise ZeroDivisionError

        self.answer = Deferred(buggy)
        results = [self.begin(self.clock, 5, self.work())]
        for later in (0, 1):
            self.clock.advance(later)
            self.answer = Deferred()
            results.append(self.begin(self.clock, 5, self.work()))
        self.clock.advance(4)
        self.failureResultOf(results[1], TimedOut)
        self.clock.advance(1)
        self.failureResultOf(results[2], TimedOut)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_aClockThatIsSetBackHoldsNobodyUp(self) -> None:
        """Who begins afterwards ends in time, and nobody who has begun before ends later."""
        self.clock.rightNow = 10_000.0
        results = [self.begin(self.clock, 30, self.work())]
        self.clock.rightNow = 6400.0
        for _ in range(2):
            self.answer = Deferred()
            results.append(self.begin(self.clock, 30, self.work()))
            self.clock.advance(10)
        self.clock.advance(9.5)
        self.assertNoResult(results[1])
        self.clock.advance(0.5)
        for result in results[:2]:
            self.failureResultOf(result, TimedOut)
        self.assertNoResult(results[2])
        self.clock.advance(10)
        self.failureResultOf(results[2], TimedOut)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_whoIsForgottenIsJustClosed(self) -> None:
        """Late or not: nobody is left to be told."""
        for seconds in (1, 5):
            work = self.stubborn(Deferred())
            steps = within(self.clock, 5, work).__await__()
            next(steps).addErrback(lambda _: None)
            self.clock.advance(seconds)
            if seconds == 5:
                steps.throw(CancelledError())
                work.close()  # the collector takes them in any order
            steps.close()
            self.assertEqual(self.clock.getDelayedCalls(), [])

    async def stubborn(self, afterwards: Deferred[str]) -> str:
        """Wait for something else when it is cancelled."""
        try:
            return await Deferred[str]()
        except CancelledError:
            return await afterwards

    def test_whoWaitsAgainSharesTheTimer(self) -> None:
        """With everybody else who begins then."""
        results = []

        async def again() -> str:
            try:
                return await within(self.clock, 5, self.work())
            except TimedOut:
                self.answer = Deferred()
                return await within(self.clock, 5, self.work())

        results.append(Deferred.fromCoroutine(again()))
        self.clock.advance(5)
        self.answer = Deferred()
        results.append(self.begin(self.clock, 5, self.work()))
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.clock.advance(5)
        for result in results:
            self.failureResultOf(result, TimedOut)

    def test_workThatDoesNotStopHoldsNobodyUp(self) -> None:
        """Who comes after it is still told of the end of the time."""
        afterwards: Deferred[str] = Deferred()

        async def stubborn() -> str:
            try:
                return await self.answer
            except CancelledError:
                return await afterwards

        results = [self.begin(self.clock, 5, stubborn())]
        self.clock.advance(5)
        self.assertNoResult(results[0])
        self.answer = Deferred()
        results.append(self.begin(self.clock, 5, self.work()))
        self.clock.advance(5)
        self.failureResultOf(results[1], TimedOut)
        afterwards.callback("too late")
        self.failureResultOf(results[0], TimedOut)
        self.assertEqual(self.clock.getDelayedCalls(), [])


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
