"""A worker that shows no sign of life is given up; one that is slow is not."""

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailproxy.errors import PeerGone
from mailproxy.workers.vigil import INTERVAL, LOOKS, Vigil


class VigilTests(SynchronousTestCase):
    """Looking after a worker."""

    def setUp(self) -> None:
        """A worker that answers or not, as the test says."""
        self.clock = Clock()
        self.looks: list[Deferred[None]] = []
        self.answers = True
        self.givenUp = 0
        self.vigil = Vigil(self.look, self.giveUp, self.clock)

    def look(self) -> Deferred[None]:
        """Ask the worker."""
        self.looks.append(succeed(None) if self.answers else Deferred())
        return self.looks[-1]

    def giveUp(self) -> None:
        """Hear that it is given up."""
        self.givenUp += 1

    def wait(self) -> Deferred[str]:
        """Begin to wait for it."""
        asked: Deferred[str] = Deferred()
        self.assertIs(self.vigil.over(asked), asked)
        return asked

    def pass_(self, intervals: int) -> None:
        """Let time pass."""
        for _ in range(intervals):
            self.clock.advance(INTERVAL)

    def test_slowIsNotHanging(self) -> None:
        """Whoever answers in between may take as long as it takes."""
        asked = self.wait()
        self.pass_(100)
        self.assertEqual((len(self.looks), self.givenUp), (100, 0))
        asked.callback("done")
        self.assertEqual(self.successResultOf(asked), "done")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_silentIsGivenUpOnce(self) -> None:
        """After some looks, and a last interval for their answers."""
        self.answers = False
        asked = self.wait()
        self.pass_(LOOKS)
        self.assertEqual((len(self.looks), self.givenUp), (LOOKS, 0))
        self.pass_(LOOKS)
        self.assertEqual((len(self.looks), self.givenUp), (LOOKS, 1))
        asked.errback(PeerGone("gone"))
        self.failureResultOf(asked, PeerGone)

    def test_lateAnswerCounts(self) -> None:
        """The count begins anew, whichever look it was an answer to."""
        self.answers = False
        self.wait()
        self.pass_(LOOKS)
        self.looks[0].callback(None)
        self.pass_(LOOKS)
        self.assertEqual(self.givenUp, 0)
        self.pass_(1)
        self.assertEqual(self.givenUp, 1)

    def test_aHeldUpParentBlamesNobody(self) -> None:
        """A jump of the clock is one look, however long."""
        self.answers = False
        self.wait()
        self.clock.advance(1000 * INTERVAL)
        self.assertEqual((len(self.looks), self.givenUp), (1, 0))

    def test_untilTheLastHasItsAnswer(self) -> None:
        """Several may wait; nobody is looked at when none does, and each wait begins anew."""
        first, second = self.wait(), self.wait()
        self.answers = False
        first.callback("one")
        self.pass_(LOOKS)
        self.assertEqual(len(self.looks), LOOKS)
        second.callback("two")
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.wait()
        self.pass_(LOOKS)
        self.assertEqual(self.givenUp, 0)

    def test_answeredAtOnce(self) -> None:
        """Then there is nothing to look after."""
        self.assertEqual(self.successResultOf(self.vigil.over(succeed("at once"))), "at once")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_theEndIsHeardOfElsewhere(self) -> None:
        """A look that finds nobody is no bug; who has gone may take its time to be gone."""
        self.wait()
        self.patch(self.vigil, "_ask", lambda: fail(PeerGone("gone")))
        self.pass_(LOOKS + 1)
        self.assertEqual(self.givenUp, 0)
