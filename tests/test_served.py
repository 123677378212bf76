"""Every protocol that a configuration may name is served."""

from twisted.trial.unittest import SynchronousTestCase

from mailproxy.config.values import PROTOCOLS as NAMES
from mailproxy.served import PROTOCOLS


class TableTests(SynchronousTestCase):
    """The table of classes."""

    def test_everyProtocolHasItsClasses(self) -> None:
        """And no other one has."""
        self.assertEqual(set(PROTOCOLS), set(NAMES))
