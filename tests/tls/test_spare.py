"""Tests for `mailproxy.tls.spare`."""

from twisted.trial.unittest import SynchronousTestCase

from mailproxy.tls.spare import GENERATED, Spare


class SpareTests(SynchronousTestCase):
    """The generated certificate."""

    def test_itIsMadeOnce(self) -> None:
        """When it is asked for first; before that there is nothing to be written."""
        spare = Spare()
        self.assertIsNone(spare.written())
        self.assertIs(spare.pair(), spare.pair())
        self.assertIn(GENERATED, spare.pair().certificate.subject.rfc4514_string())

    def test_anotherProcessHasTheSame(self) -> None:
        """Certificate and key: a handshake needs both."""
        spare, other = Spare(), Spare()
        made = spare.pair()
        other.take(spare.written())
        self.assertEqual(other.pair().certificate, made.certificate)
        self.assertEqual(other.pair().key.public_key(), made.key.public_key())
        self.assertEqual(other.written(), spare.written())

    def test_nothingTakesNothingAway(self) -> None:
        """Who has one keeps it, whatever the other has none of."""
        spare = Spare()
        made = spare.pair()
        spare.take(None)
        self.assertIs(spare.pair(), made)
