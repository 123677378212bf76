"""The demonstration's mail servers, asked by a real client over real sockets and real TLS."""

import imaplib
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from mailproxy.demo.files import CERTIFICATE, choosePorts, writeFiles
from mailproxy.demo.mail import ACCOUNTS, messagesFor
from mailproxy.demo.stage import makeServers

T = TypeVar("T")


@contextmanager
def opened(port: int, certificate: Path, login: str) -> Iterator[imaplib.IMAP4_SSL]:
    """Verify the server's certificate, log in as `name:password` and open INBOX. Blocks."""
    context = ssl.create_default_context(cafile=str(certificate))
    with imaplib.IMAP4_SSL("127.0.0.1", port, ssl_context=context, timeout=10) as client:
        client.login(*login.split(":"))
        client.select("INBOX", readonly=True)
        yield client


def readMailbox(port: int, certificate: Path, login: str) -> list[bytes]:
    """Return all messages of an account's INBOX. Blocks."""
    with opened(port, certificate, login) as client:
        _, (numbers,) = client.search(None, "ALL")
        answers = [client.fetch(number, "(BODY.PEEK[])")[1][0] for number in numbers.split()]
        return [answer[1] for answer in answers if isinstance(answer, tuple)]


def listMailbox(port: int, certificate: Path, login: str) -> tuple[str, list[Any]]:
    """Ask for what a mail reader's list of messages shows. Blocks."""
    with opened(port, certificate, login) as client:
        return client.fetch("1:*", "(UID FLAGS INTERNALDATE RFC822.SIZE ENVELOPE BODYSTRUCTURE)")


class ServersTests(TestCase):
    """Both servers, started as the demonstration starts them."""

    def setUp(self) -> None:
        """Start the servers on free ports."""
        directory = Path(self.mktemp())
        directory.mkdir()
        self.ports = choosePorts()
        writeFiles(directory, self.ports)
        self.certificate = directory / CERTIFICATE
        servers = makeServers(reactor, directory, self.ports)
        servers.startService()
        self.addCleanup(servers.stopService)

    def ask(self, read: Callable[[int, Path, str], T], server: str, login: str) -> "Deferred[T]":
        """Read a mailbox in a thread while the reactor serves it."""
        return deferToThread(read, self.ports[server], self.certificate, login)

    async def test_eachServerHasItsOwnMail(self) -> None:
        """Every account finds on each server exactly that server's messages."""
        for server in ("legacy", "new"):
            for account, password in ACCOUNTS.items():
                found = await self.ask(readMailbox, server, f"{account}:{password}")
                self.assertEqual(found, messagesFor(account, server))

    async def test_wrongPasswordIsRefused(self) -> None:
        """A wrong password is a refusal, not a lost connection."""
        reading = self.ask(readMailbox, "legacy", "anna:banana")
        await self.assertFailure(reading, imaplib.IMAP4.error)

    async def test_aMailReaderCanListTheMessages(self) -> None:
        """Envelope, structure, size, flags and date are answered for each message."""
        status, lines = await self.ask(listMailbox, "new", "ben:banana")
        self.assertEqual((status, len(lines)), ("OK", 2))
        self.assertIn(b'"You are on the new server"', lines[0])
        self.assertIn(b"UID 2", lines[1])
