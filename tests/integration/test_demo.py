"""The demonstration: its mail servers, asked by a real client, and what it tells people to try."""

import imaplib
import json
import os
import re
import signal
import ssl
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase, TestCase

from mailproxy.demo.files import CERTIFICATE, choosePorts, writeFiles
from mailproxy.demo.mail import ACCOUNTS, messagesFor
from mailproxy.demo.stage import makeServers
from tests.integration.clients import runProgram
from tests.integration.network import isListening
from tests.integration.process import ChildServer, requireProgram
from tests.integration.proxy import PROJECT

T = TypeVar("T")


@contextmanager
def opened(port: int, certificate: Path, login: str) -> Iterator[imaplib.IMAP4_SSL]:
    """Verify the server's certificate, log in as `name:password` and open INBOX. Blocks."""
    context = ssl.create_default_context(cafile=str(certificate))
    with imaplib.IMAP4_SSL("127.0.0.1", port, ssl_context=context, timeout=30) as client:
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


class DemoProcess(ChildServer):
    """`twistd -n mailproxy --demo` as somebody runs it who has just installed it."""

    def command(self) -> Sequence[str]:
        """The interpreter that runs the tests, with twistd in the foreground."""
        run = "from twisted.scripts.twistd import run; run()"
        return [sys.executable, "-c", run, "-n", "--pidfile=", "mailproxy", "--demo"]

    def environment(self) -> Mapping[str, str]:
        """A configuration in the environment is not the demonstration's, and not looked at."""
        temporary = {"TMPDIR": str(self.folder), "PROXY_CONFIG": "/nowhere"}
        return {**os.environ, **temporary, "PYTHONPATH": str(PROJECT)}

    def ports(self) -> Sequence[int]:
        """Chosen when it starts; see `printed`."""
        return []

    def printed(self) -> str:
        """What it says when it runs."""
        self.output.waitForLine("Stop with Control-C", timeout=60)
        return self.output.text()


class GuideTests(SynchronousTestCase):
    """The lines that are printed, run by a shell as they are."""

    def setUp(self) -> None:
        """Start it."""
        requireProgram("curl", "curl")
        self.demo = DemoProcess("demo").start()
        self.addCleanup(self.demo.close)
        text = self.demo.printed()
        self.commands = re.findall(r"(?m)^    (\S.*)$", text)

    def shell(self, command: str) -> str:
        """Paste a line; what is printed."""
        done = runProgram(["sh", "-c", command], "curl")
        self.assertEqual(done.status, 0, f"{command}\n{done.output}")
        return done.output

    def test_eachLineDoesWhatItSays(self) -> None:
        """Mail and a page from the old server, the move of one account, both from the new one."""
        first, upgraded, page, asked, moved, pageAgain, again = self.commands
        self.assertEqual(page, pageAgain)
        self.assertEqual(first, again)
        self.assertIn("server legacy.", self.shell(first))
        self.assertIn("server new.", self.shell(upgraded))
        self.assertIn("anna's. It lies on the server legacy.", self.shell(page))
        self.assertEqual(self.facts(self.shell(asked))["destination"], "legacy")
        self.assertIn("mapped", self.shell(moved))
        self.assertIn("anna's. It lies on the server new.", self.shell(pageAgain))
        self.assertIn("server new.", self.shell(again))
        self.assertEqual(self.facts(self.shell(asked))["destination"], "new")

    def facts(self, printed: str) -> dict[str, Any]:
        """The JSON in what curl printed beside its progress."""
        found: dict[str, Any] = json.loads(printed[printed.index("{") : printed.rindex("}") + 1])
        return found

    def test_itLeavesNothingBehind(self) -> None:
        """Control-C ends it with status 0; its files are gone and its ports free."""
        ports = [int(port) for port in re.findall(r"127\.0\.0\.1:(\d+)", "".join(self.commands))]
        self.assertTrue(ports and all(map(isListening, ports)))
        self.demo.signal(signal.SIGINT)
        self.assertEqual(self.demo.wait(), 0)
        self.assertEqual([path.name for path in self.demo.folder.iterdir()], ["output"])
        self.assertFalse(any(map(isListening, ports)))
        self.assertNotIn("Traceback", self.demo.output.text())

    def test_twoCanRunAtOnce(self) -> None:
        """The second takes other ports."""
        other = DemoProcess("demo").start()
        self.addCleanup(other.close)
        second = re.findall(r"(?m)^    (\S.*)$", other.printed())
        self.assertNotEqual(self.commands, second)
        self.assertIn("server legacy.", self.shell(second[0]))
