"""A closed connection's last moments: whoever takes something may take it all."""

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailproxy.linger import LONGEST, Linger, Patience


class LingerTests(SynchronousTestCase):
    """A minute's grace, looked at every five seconds."""

    def setUp(self) -> None:
        """Close with something on its way."""
        self.clock = Clock()
        self.untaken, self.aborted = 100, 0

    def linger(self, grace: float = 60.0, longest: float = LONGEST) -> Linger:
        """Begin."""
        return Linger(self.clock, Patience(grace, 5.0, longest), lambda: self.untaken, self.abort)

    def abort(self) -> None:
        """Note it."""
        self.aborted += 1

    def pass_(self, seconds: int) -> None:
        """Let time pass, second by second."""
        for _ in range(seconds):
            self.clock.advance(1)

    def test_nothingIsTaken(self) -> None:
        """The grace time is over: once."""
        self.linger()
        self.pass_(59)
        self.assertEqual(self.aborted, 0)
        self.pass_(60)
        self.assertEqual((self.aborted, self.clock.getDelayedCalls()), (1, []))

    def test_somethingIsTaken(self) -> None:
        """It goes on as long as there is some progress per step."""
        self.linger(5.0)
        for _ in range(50):
            self.pass_(4)
            self.untaken -= 1
            self.pass_(1)
        self.assertEqual(self.aborted, 0)
        self.pass_(5)
        self.assertEqual(self.aborted, 1)

    def test_aByteNowAndThen(self) -> None:
        """Not for ever: who has been cut off must go, and a place is not to be had for a byte."""
        for grace, longest in ((60.0, 200.0), (5.0, 5.0)):
            self.aborted, self.untaken = 0, 10_000
            self.linger(grace, longest)
            for _ in range(int(longest) - 1):
                self.untaken -= 1
                self.pass_(1)
            self.assertEqual(self.aborted, 0)
            self.pass_(1)
            self.assertEqual((self.aborted, self.clock.getDelayedCalls()), (1, []))

    def test_allIsTaken(self) -> None:
        """From then on there is one step."""
        self.linger(5.0)
        self.pass_(4)
        self.untaken = 0
        self.pass_(5)
        self.assertEqual(self.aborted, 0)
        self.pass_(1)
        self.assertEqual(self.aborted, 1)

    def test_nothingWaits(self) -> None:
        """A peer that has everything need not be waited for as long as one that pauses."""
        self.linger().hasten()
        self.pass_(59)
        self.assertEqual(self.aborted, 0)
        self.pass_(1)
        self.assertEqual(self.aborted, 1)
        self.untaken = 0
        self.linger().hasten()
        self.pass_(5)
        self.assertEqual(self.aborted, 2)

    def test_hasteShortensOnly(self) -> None:
        """A shorter grace stays as it is."""
        self.untaken = 0
        self.linger(2.0).hasten()
        self.pass_(2)
        self.assertEqual(self.aborted, 1)

    def test_gone(self) -> None:
        """Nothing waits in the clock any more; neither call harms after the end."""
        linger = self.linger()
        linger.cancel()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        linger.hasten()
        linger.cancel()
        self.pass_(100)
        self.assertEqual(self.aborted, 0)
