"""The collector is told what need not be looked at."""

import gc

from twisted.trial.unittest import SynchronousTestCase

from mailproxy.garbage import THRESHOLDS, settle


class Circle:
    """Refers to itself."""

    def __init__(self) -> None:
        self.self = self


class SettleTests(SynchronousTestCase):
    """After the start."""

    def setUp(self) -> None:
        """Put everything back in the end."""
        self.addCleanup(gc.unfreeze)
        self.addCleanup(gc.set_threshold, *gc.get_threshold())

    def test_whatIsHereStays(self) -> None:
        """And is looked at no more; what comes is, though not as often."""
        settle()
        self.assertGreater(gc.get_freeze_count(), 10_000)
        self.assertEqual(gc.get_threshold(), THRESHOLDS)
        Circle()
        self.assertGreaterEqual(gc.collect(), 1)
