"""Every protocol that a configuration may name is served, or said not to be."""

from twisted.trial.unittest import SynchronousTestCase

from mailproxy.config.values import NOT_SERVED
from mailproxy.config.values import PROTOCOLS as NAMES
from mailproxy.served import PROTOCOLS


class TableTests(SynchronousTestCase):
    """The table of classes."""

    def test_everyOtherProtocolHasItsClasses(self) -> None:
        """Those that this version serves."""
        self.assertEqual(set(PROTOCOLS) | NOT_SERVED, set(NAMES))
