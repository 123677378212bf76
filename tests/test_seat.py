"""The shares of a limit add up to the limit."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailproxy.seat import ALONE, Seat


class ShareTests(SynchronousTestCase):
    """How a limit is divided."""

    @given(most=st.integers(0, 100_000), of=st.integers(1, 200))
    def test_sharesAddUp(self, most: int, of: int) -> None:
        """To the limit, and no two of them differ by more than one."""
        shares = [Seat(number, of).share(most) for number in range(of)]
        self.assertEqual(sum(shares), most)
        self.assertLessEqual(max(shares) - min(shares), 1)

    def test_aloneHasItAll(self) -> None:
        """And nobody to borrow from."""
        self.assertEqual(ALONE.share(7), 7)
        self.assertEqual(self.successResultOf(ALONE.borrow("imaps")), 0)
