"""The demonstration's IMAP server, in memory."""

from twisted.internet.testing import StringTransport
from twisted.mail import imap4
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mailproxy.demo.imap import DemoIMAPFactory, DemoMailbox, DemoMessage
from mailproxy.demo.mail import messagesFor

CONTENT = b"Subject: Hello\r\nDate: Mon, 06 May 2024 09:30:00 +0000\r\n\r\nBody\r\n"


class MessageTests(SynchronousTestCase):
    """One message as IMAP sees it."""

    def test_providesItsInterfaces(self) -> None:
        """A message is an IMessage and can be read as a file."""
        message = DemoMessage(1, CONTENT)
        verifyObject(imap4.IMessage, message)
        verifyObject(imap4.IMessageFile, message)

    def test_wholeAndBody(self) -> None:
        """The file is the whole message, the body what follows the empty line."""
        message = DemoMessage(1, CONTENT)
        self.assertEqual(message.open().read(), CONTENT)
        self.assertEqual(message.getSize(), len(CONTENT))
        self.assertEqual(message.getBodyFile().read(), b"Body\r\n")

    def test_headersByName(self) -> None:
        """Named fields are returned, or all others when negated; names have no case."""
        message = DemoMessage(1, CONTENT)
        self.assertEqual(message.getHeaders(False, b"SUBJECT"), {"subject": "Hello"})
        self.assertEqual(message.getHeaders(False, "Subject"), {"subject": "Hello"})
        self.assertEqual(set(message.getHeaders(True, b"subject")), {"date"})
        self.assertEqual(set(message.getHeaders(True)), {"date", "subject"})

    def test_aSinglePart(self) -> None:
        """There are no parts to ask for."""
        message = DemoMessage(1, CONTENT)
        self.assertFalse(message.isMultipart())
        self.assertRaises(TypeError, message.getSubPart, 0)


class MailboxTests(SynchronousTestCase):
    """A mailbox that cannot be changed."""

    def setUp(self) -> None:
        """Make a mailbox with three messages."""
        self.mailbox = DemoMailbox([CONTENT] * 3)

    def test_providesItsInterface(self) -> None:
        """A mailbox is an IMailbox."""
        verifyObject(imap4.IMailbox, self.mailbox)

    def test_counts(self) -> None:
        """STATUS is answered from the messages."""
        status = self.mailbox.requestStatus(["MESSAGES", "UNSEEN", "RECENT", "UIDNEXT"])
        self.assertEqual(status, {"MESSAGES": 3, "UNSEEN": 3, "RECENT": 0, "UIDNEXT": 4})

    def test_fetchTakesTheChosen(self) -> None:
        """A set of numbers picks those messages; `*` is the last, absent ones are skipped."""
        for chosen, expected in (("1", [1]), ("2:*", [2, 3]), ("3:9", [3]), ("7", [])):
            messages = imap4.parseIdList(chosen.encode())
            found = self.mailbox.fetch(messages, uid=True)
            self.assertEqual([number for number, _ in found], expected, chosen)
            self.assertEqual([message.uid for _, message in found], expected)

    def test_nothingCanBeChanged(self) -> None:
        """Each way to change the mailbox is refused as read-only."""
        self.assertFalse(self.mailbox.isWriteable())
        refused = imap4.ReadOnlyMailbox
        self.assertRaises(refused, self.mailbox.addMessage, None, [], b"")
        self.assertRaises(refused, self.mailbox.store, None, [], 1, False)
        self.assertRaises(refused, self.mailbox.expunge)
        self.assertRaises(refused, self.mailbox.destroy)


class SessionTests(SynchronousTestCase):
    """A session from the greeting to the mailbox."""

    def setUp(self) -> None:
        """Connect to the server `new`."""
        self.session = DemoIMAPFactory("new").buildProtocol(None)
        self.transport = StringTransport()
        self.session.makeConnection(self.transport)
        self.addCleanup(self.session.setTimeout, None)

    def say(self, line: bytes) -> bytes:
        """Send one line; return what the server answers."""
        self.transport.clear()
        self.session.dataReceived(line + b"\r\n")
        answer: bytes = self.transport.value()
        return answer

    def test_greetingNamesTheMechanisms(self) -> None:
        """The greeting carries the capabilities, PLAIN among them."""
        self.assertIn(b"AUTH=PLAIN", self.transport.value().partition(b"]")[0])

    def test_rightPasswordOpensTheMailbox(self) -> None:
        """After LOGIN the account's INBOX can be selected and holds its messages."""
        self.assertIn(b"a OK", self.say(b"a LOGIN anna apple"))
        answer = self.say(b"b SELECT INBOX")
        self.assertIn(b"* %d EXISTS" % len(messagesFor("anna", "new")), answer)
        self.assertIn(b"b OK [READ-ONLY]", answer)

    def test_plainOpensTheMailbox(self) -> None:
        """AUTHENTICATE PLAIN does the same as LOGIN."""
        self.assertIn(b"+", self.say(b"a AUTHENTICATE PLAIN"))
        self.assertIn(b"a OK", self.say(b"AGFubmEAYXBwbGU="))

    def test_wrongPasswordIsRefused(self) -> None:
        """A wrong password, or an account that is not there, gets NO."""
        self.assertIn(b"a NO", self.say(b"a LOGIN anna banana"))
        self.assertIn(b"b NO", self.say(b"b LOGIN nobody apple"))
