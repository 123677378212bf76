"""Silence is noticed: in time, by one timer for all, and nothing is left behind."""

from functools import partial

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailproxy.idle import IDLE_CHECKS, IdleWatch


class Counter:
    """Something that moves when the test says so."""

    def __init__(self) -> None:
        self.count, self.seen = 0, -1
        self.idle = self.quiet = 0

    def hush(self) -> bool:
        """Compare with the last time."""
        before, self.seen = self.seen, self.count
        return before == self.count

    def idled(self) -> None:
        """Note it."""
        self.idle += 1


class IdleTests(SynchronousTestCase):
    """Ten seconds of silence."""

    def setUp(self) -> None:
        """Start with a clock."""
        self.clock = Clock()
        self.watch = IdleWatch.over(self.clock, 10.0)

    def pass_(self, seconds: float) -> None:
        """Let time pass, bit by bit."""
        for _ in range(100):
            self.clock.advance(seconds / 100)

    def test_silenceIsNoticedOnce(self) -> None:
        """After the whole time, and at most a quarter of it late."""
        for start in (0.0, 0.1, 2.4, 2.6, 7.0):
            keeper, quiet = Counter(), Counter()
            self.watch.watch(keeper)
            self.pass_(start)
            self.watch.watch(quiet)
            self.pass_(9.9)
            self.assertEqual(quiet.idle, 0)
            self.pass_(10 / IDLE_CHECKS + 1)  # each step is a little late
            self.assertEqual(quiet.idle, 1)
            self.pass_(100)
            self.assertEqual((quiet.idle, keeper.idle), (1, 1))
            self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_whatMovesLives(self) -> None:
        """Once in the whole time is enough."""
        busy = Counter()
        self.watch.watch(busy)
        for _ in range(30):
            self.pass_(9.5)
            busy.count += 1
        self.assertEqual(busy.idle, 0)

    def test_oneTimerServesAll(self) -> None:
        """However many are watched; with the last of them it goes."""
        counters = [Counter() for _ in range(50)]
        for each in counters:
            self.watch.watch(each)
        self.pass_(3)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        for each in counters:
            self.watch.forget(each)
        self.watch.forget(counters[0])
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertNotIn((self.clock, 10.0), IdleWatch._all)

    def test_thereIsOneForEachClockAndTime(self) -> None:
        """As long as it is needed."""
        one = Counter()
        self.watch.watch(one)
        self.assertIs(IdleWatch.over(self.clock, 10.0), self.watch)
        self.assertIsNot(IdleWatch.over(self.clock, 11.0), self.watch)
        self.assertIsNot(IdleWatch.over(Clock(), 10.0), self.watch)
        self.watch.forget(one)
        self.assertIsNot(IdleWatch.over(self.clock, 10.0), self.watch)

    def test_whoEndsAnotherInItsLastMoment(self) -> None:
        """Two that fall silent together: whichever hears of it first ends the other."""
        pair, heard = (Counter(), Counter()), []

        def end(number: int) -> None:
            heard.append(number)
            self.watch.forget(pair[1 - number])

        for number, each in enumerate(pair):
            self.patch(each, "idled", partial(end, number))
            self.watch.watch(each)
        self.pass_(30)
        self.assertEqual(len(heard), 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])
