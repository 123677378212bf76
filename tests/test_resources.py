"""What sessions are given."""

from typing import Any, cast

from twisted.trial.unittest import SynchronousTestCase

from mailproxy.resources import Ingress


class IngressTests(SynchronousTestCase):
    """Where a session came in."""

    def test_whatHoldsNowIsNoPartOfIt(self) -> None:
        """Two that differ in that alone are one; and a line that shows one stays short."""
        one, two = (
            Ingress("imaps", "imap", 30.0, lambda number=number: cast(Any, number))  # type: ignore[misc]
            for number in (1, 2)
        )
        self.assertEqual(one, two)
        self.assertNotIn("lambda", repr(one))
        self.assertNotEqual(one.now(), two.now())
