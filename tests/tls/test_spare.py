"""Tests for `mailproxy.tls.spare`."""

import datetime

from twisted.trial.unittest import SynchronousTestCase

from mailproxy.tls import spare
from mailproxy.tls.spare import GENERATED, Spare


class SpareTests(SynchronousTestCase):
    """The generated certificate."""

    def test_itIsMadeOnce(self) -> None:
        """When it is asked for first; before that there is nothing to be written."""
        made = Spare()
        self.assertIsNone(made.written())
        self.assertIs(made.pair(), made.pair())
        self.assertIn(GENERATED, made.pair().certificate.subject.rfc4514_string())

    def test_anotherProcessHasTheSame(self) -> None:
        """Certificate and key: a handshake needs both."""
        first, other = Spare(), Spare()
        pair = first.pair()
        other.take(first.written())
        self.assertEqual(other.pair().certificate, pair.certificate)
        self.assertEqual(other.pair().key.public_key(), pair.key.public_key())
        self.assertEqual(other.written(), first.written())

    def test_nothingTakesNothingAway(self) -> None:
        """Who has one keeps it, whatever the other has none of."""
        made = Spare()
        pair = made.pair()
        made.take(None)
        self.assertIs(made.pair(), pair)

    def test_oneThatEndsSoonIsReplaced(self) -> None:
        """A proxy that runs for a year does not show what nobody takes any more."""
        now, made = spare._now(), Spare()
        first = made.pair()
        self.patch(spare, "_now", lambda: now + datetime.timedelta(days=300))
        self.assertIs(made.pair(), first)
        self.patch(spare, "_now", lambda: now + datetime.timedelta(days=340))
        self.assertIsNot(made.pair(), first)
