"""The demonstration's messages."""

from email.parser import BytesParser

from twisted.trial.unittest import SynchronousTestCase

from mailproxy.demo.mail import ACCOUNTS, messagesFor


class MessagesTests(SynchronousTestCase):
    """What each account finds on each server."""

    def test_aMessageNamesItsServer(self) -> None:
        """Header and body say which server the message lies on, and never the other."""
        for account in ACCOUNTS:
            for server, other in (("legacy", b"new"), ("new", b"legacy")):
                for message in messagesFor(account, server):
                    header, _, body = message.partition(b"\r\n\r\n")
                    self.assertIn(server.encode(), header)
                    self.assertIn(server.encode(), body)
                    self.assertNotIn(other, message)

    def test_lineEndsAreThoseOfTheNetwork(self) -> None:
        """Every line ends with CRLF, as IMAP requires of a literal that is a message."""
        for message in messagesFor("anna", "legacy"):
            self.assertEqual(message.count(b"\n"), message.count(b"\r\n"))
            self.assertTrue(message.endswith(b"\r\n"))

    def test_messagesAreWellFormed(self) -> None:
        """A parser finds the header fields of a message, without defects, and distinct ids."""
        parsed = [BytesParser().parsebytes(message) for message in messagesFor("ben", "new")]
        self.assertEqual([message.defects for message in parsed], [[], []])
        self.assertEqual(parsed[0]["To"], "ben@example.org")
        self.assertEqual(len({message["Message-ID"] for message in parsed}), 2)
