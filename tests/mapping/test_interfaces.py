"""What the interfaces of mapping sources promise one another."""

from twisted.trial.unittest import SynchronousTestCase

from mailproxy.mapping.interfaces import (
    IMappingSource,
    IReloadableMappingSource,
    IWritableMappingSource,
)


class InterfaceTests(SynchronousTestCase):
    """How the interfaces build on each other."""

    def test_everySourceAnswersLookups(self) -> None:
        """Whoever may be written to or reloaded can also be asked."""
        for interface in (IWritableMappingSource, IReloadableMappingSource):
            self.assertTrue(interface.isOrExtends(IMappingSource), interface)
            self.assertIn("lookup", interface.names(all=True))

    def test_readingNeedsNothingElse(self) -> None:
        """A read-only source provides one method."""
        self.assertEqual(list(IMappingSource.names(all=True)), ["lookup"])
