"""What goes over a bridge: much, pushed, pipelined, half-closed; and the usual clients."""

import contextlib
import hashlib
import re
import socket
import ssl
import subprocess
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import ClassVar

import attrs

from mailproxy.stream import CLOSE_GRACE
from tests.integration import clients
from tests.integration.accounts import ALICE, ODD
from tests.integration.dovecot import Account, Dovecot
from tests.integration.front import ProxyTestCase, behind, listener, settings, standardListeners
from tests.integration.messages import bigMessage, message
from tests.integration.network import memoryGrowth
from tests.integration.process import requireProgram
from tests.integration.wire import LineClient

SIZE = 50_000_000
MOST_GROWTH = 40_000_000
"""Bytes of a large message, and by how many the proxy may grow for it."""


def named(name: str, account: Account = ALICE) -> Account:
    """A new account with that one's password."""
    return attrs.evolve(account, name=f"{name}@example.org")


class BridgeTests(ProxyTestCase):
    """One proxy with TLS on both legs of most sessions, before one Dovecot; accounts per test."""

    server: ClassVar[Dovecot]

    @classmethod
    def startServers(cls, stack: ExitStack) -> None:
        """Each account has one message; what a test changes is its own account's."""
        cls.makeAuthority(stack)
        names = ("idle", "fetch", "slow", "append", "pipe", "half", "read", "upload")
        accounts = [*map(named, names), *ODD]
        cls.keepSecret(*accounts)
        cls.server = stack.enter_context(Dovecot("legacy", cls.authority, accounts))
        for account in accounts:
            cls.server.deliver(account.name, message("on legacy"))
        listeners = {**standardListeners(), "plain": listener("plain")}
        destinations = {
            "legacy": behind(cls.server, proxy_protocol=True),
            "open": behind(cls.server, "plain", allow_plaintext_auth=True),
        }
        config = settings(cls.authority, listeners, destinations)
        config["capabilities"] = {"imap": {"allow_plain_auth_without_tls": True}}
        cls.startProxy(stack, config, {named("half").name: "open"})

    # Pushed

    def test_newMailIsAnnounced(self) -> None:
        """A client in IDLE hears of a message that is delivered meanwhile, by either listener."""
        for front in ("imaps", "imap"):
            client = self.loggedIn(named("idle"), front)
            [exists] = [
                line for line in client.command(b"a SELECT INBOX") if line.endswith(b" EXISTS")
            ]
            client.send(b"b IDLE\r\n")
            self.assertEqual(client.readLine(), b"+ idling")
            self.server.deliver(named("idle").name, message("news"))
            count = int(exists.split()[1])
            self.assertEqual(client.readUntil(b"* %d EXISTS" % (count + 1))[-1][-7:], b" EXISTS")
            client.send(b"DONE\r\n")
            self.assertOK(client.readUntil(b"b "))

    # Much

    def test_aLargeMessageIsFetchedWhole(self) -> None:
        """50 MB arrive byte for byte, and the proxy's memory stays as it was."""
        content = self.deliverLarge("fetch")
        client = self.selected("fetch")
        with memoryGrowth(self.proxy.pid) as growth:
            client.send(b"c FETCH 2 BODY.PEEK[]\r\n")
            self.assertFetched(client, content)
            self.assertLess(growth(), MOST_GROWTH)

    def test_aClientThatReadsNothingHoldsTheBackendBack(self) -> None:
        """50 MB wait at the backend, not in our memory; when the client reads, all is there."""
        content = self.deliverLarge("slow")
        client = self.selected("slow")
        session = self.sessionOf(client)
        with memoryGrowth(self.proxy.pid) as growth:
            client.send(b"c FETCH 2 BODY.PEEK[]\r\n")
            self.awaitStandstill(session["id"])
            self.assertLess(growth(), MOST_GROWTH)
            self.assertFetched(client, content)
            self.assertLess(growth(), MOST_GROWTH)

    def test_aLargeMessageIsAppendedWhole(self) -> None:
        """50 MB go up byte for byte, and the proxy's memory stays as it was."""
        content = bigMessage(SIZE, seed=3)
        client = self.selected("append")
        with memoryGrowth(self.proxy.pid) as growth:
            client.send(b"c APPEND INBOX {%d}\r\n" % len(content))
            self.assertTrue(client.readLine().startswith(b"+ "))
            client.send(content + b"\r\n")
            self.assertOK(client.readUntil(b"c "))
            self.assertLess(growth(), MOST_GROWTH)
        client.send(b"c FETCH 2 BODY.PEEK[]\r\n")
        self.assertFetched(client, content)

    def deliverLarge(self, name: str) -> bytes:
        """Put a large message into the account's mailbox, as its second."""
        content = bigMessage(SIZE, seed=len(name))
        self.server.deliver(named(name).name, content)
        return content

    def selected(self, name: str) -> LineClient:
        """Logged in over TLS, INBOX open."""
        client = self.loggedIn(named(name))
        self.assertOK(client.command(b"a SELECT INBOX"))
        return client

    def assertFetched(self, client: LineClient, content: bytes) -> None:
        """The answer to FETCH is this content."""
        [line] = client.readUntil(b"* 2 FETCH ")[-1:]
        self.assertTrue(line.endswith(b"{%d}" % len(content)), line)
        fetched = client.readExactly(len(content))
        self.assertEqual(hashlib.sha256(fetched).digest(), hashlib.sha256(content).digest())
        self.assertOK(client.readUntil(b"c "))

    def awaitStandstill(self, session: str) -> None:
        """Wait until no byte goes to that client any more."""
        seen = [-1]

        def still() -> bool:
            [found] = [each for each in self.connections() if each["id"] == session]
            seen.append(found["bytes_sent"])
            return seen[-1] > 10_000 and len(seen) > 20 and seen[-20] == seen[-1]

        self.assertEventually(still, f"bytes still go: {seen}")
        self.assertLess(seen[-1], SIZE / 2)

    # Pipelined and half-closed

    def test_whatIsPipelinedBehindTheLoginIsNotLost(self) -> None:
        """Login and commands in one segment, a literal among them: each is answered once."""
        user, password = named("pipe").name.encode(), ALICE.password
        text = message("pipelined")
        commands = (
            b"a LOGIN {%d+}\r\n%b %b\r\n" % (len(user), user, password)
            + b"b SELECT INBOX\r\n"
            + b"c APPEND INBOX {%d+}\r\n%b\r\n" % (len(text), text)
            + b"d FETCH 1 BODY.PEEK[HEADER.FIELDS (SUBJECT)]\r\ne LOGOUT\r\n"
        )
        for front in ("imaps", "imap", "plain"):
            client = self.greeted(front)
            client.send(commands)
            answer = client.readToEnd()
            lines = [line for line in answer.split(b"\r\n") if re.match(rb"[a-e] ", line)]
            self.assertEqual({line[:4] for line in lines}, {b"%c OK" % tag for tag in b"abcde"})
            self.assertEqual(len(lines), 5, lines)
            self.assertIn(b"Subject: on legacy", answer)
        self.assertIn(b"* 4 EXISTS", self.selected("pipe").command(b"b EXAMINE INBOX"))

    def test_whatIsPipelinedBehindARefusedLoginIsOurs(self) -> None:
        """A login, a command, and a better login in one segment."""
        user = named("pipe").name.encode()
        client = self.greeted()
        client.send(
            b"a LOGIN %b wrong\r\nb NOOP\r\nc SELECT INBOX\r\n"
            b"d LOGIN %b %b\r\ne SELECT INBOX\r\nf LOGOUT\r\n" % (user, user, ALICE.password)
        )
        answer = client.readToEnd()
        for expected in (b"a NO [AUTH", b"b OK", b"c BAD", b"d OK [CAPA", b"e OK", b"f OK"):
            self.assertIn(b"\r\n" + expected, b"\r\n" + answer)

    def test_aClientMayEndItsSideFirst(self) -> None:
        """The answers to what it sent before still come, and then the end."""
        client = self.loggedIn(named("half"), "plain")
        client.send(b"a SELECT INBOX\r\nb FETCH 1 BODY.PEEK[]\r\nc LOGOUT\r\n")
        client.socket.shutdown(socket.SHUT_WR)
        answer = client.readToEnd()
        self.assertIn(b"Subject: on legacy", answer)
        self.assertRegex(answer, rb"\r\nc OK [^\r\n]*\r\n\Z")

    def test_aClientMayEndItsSideOfTLSFirst(self) -> None:
        """The same by a close-notify, before a backend that takes one for the end of both sides."""
        client = self.loggedIn(named("read"))
        assert isinstance(client.socket, ssl.SSLSocket)
        # An answer that overtook us would be in the way: Python looks for the other close-notify.
        with self.server.paused():
            client.send(b"a SELECT INBOX\r\nb FETCH 1 BODY.PEEK[]\r\nc LOGOUT\r\n")
            client.socket.settimeout(0)
            with contextlib.suppress(ssl.SSLWantReadError):
                client.socket.unwrap()
        answer = client.readUntil(b"c OK ")
        self.assertIn(b"Subject: on legacy", answer)

    def test_aClientThatDoesNotCloseIsSoonForgotten(self) -> None:
        """Although it answers no close-notify, its session is over seconds after its logout."""
        client = self.loggedIn(named("read"))
        session = self.sessionOf(client)
        client.send(b"z LOGOUT\r\n")
        gone = lambda: session["id"] not in [each["id"] for each in self.connections()]  # noqa: E731
        # It is waited for once to say something, and once to close.
        self.assertEventually(gone, "it is still listed", 2 * CLOSE_GRACE + 20)

    def type_(self, version: str, *dialogue: tuple[str, bytes]) -> bytes:
        """Log in with `openssl s_client`, whose commands are single letters, and type on.

        :param dialogue: what is typed, and what must be in a line of the output before more is.
        :returns: what comes after that, until the program ends.
        """
        target, user = self.target(), named("read").name
        program = requireProgram("openssl", "openssl")
        where = ["-connect", f"{target.host}:{target.port}", "-CAfile", str(target.caFile)]
        options = ["-quiet", "-no_ign_eof", "-verify_quiet", version]
        command = ["timeout", "60", program, "s_client", *options, *where]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        login = f"a LOGIN {user} {ALICE.password.decode()}\r\n", b"a OK"
        with subprocess.Popen(command, **pipes) as client:  # type: ignore[call-overload]
            for said, expected in (login, *dialogue):
                client.stdin.write(said.encode())
                client.stdin.flush()
                while expected not in (line := client.stdout.readline()):
                    self.assertNotEqual(line, b"", f"it ended before {expected!r}")
            rest: bytes = client.stdout.read()
        return rest

    def test_keysMayChange(self) -> None:
        """TLS 1.3's key update, asked for by the client in the middle of a session."""
        self.type_(
            "-tls1_3",
            ("K\n", b"KEYUPDATE"),
            ("b SELECT INBOX\r\n", b"b OK"),
            ("K\n", b"KEYUPDATE"),
            ("c LOGOUT\r\n", b"c OK"),
        )

    def test_renegotiationIsRefused(self) -> None:
        """A TLS 1.2 client that begins a new handshake is told no; who only speaks is served."""
        self.type_("-tls1_2", ("b NOOP\r\n", b"b OK"), ("c LOGOUT\r\n", b"c OK"))
        rest = self.type_("-tls1_2", ("R\n", b"RENEGOTIATING"))
        self.assertIn(b"no renegotiation", rest)

    def test_theEndIsLoggedWithItsBytes(self) -> None:
        """One line tells listener, client, destination, outcome and bytes each way."""
        mark = self.proxy.log.mark()
        client = self.loggedIn(named("read"))
        client.send(b"z LOGOUT\r\n")
        sent = len(client.readToEnd())
        address = "{}:{}".format(*client.socket.getsockname())
        client.close()
        line = self.proxy.log.waitForLine(f"imap imaps from {address}", since=mark)
        self.assertRegex(line, rf"on legacy, bridged \(.*\), 10 bytes in, {sent} out, \d")
        self.assertNotIn(named("read").name, line)

    # The clients that people use

    def workFolder(self) -> Path:
        """A folder for a program's files."""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        return Path(folder.name)

    def test_imaplib(self) -> None:
        """Python's own client, by both modes of TLS."""
        for front in ("imaps", "imap"):
            with clients.openIMAP(self.target(front), self.context) as client:
                client.login(named("read").name, ALICE.password.decode())
                self.assertEqual(clients.subjects(client), ["on legacy"])

    def test_curlReadsAndWrites(self) -> None:
        """Curl fetches a message and appends one, by both modes of TLS."""
        draft = self.workFolder() / "draft"
        draft.write_bytes(message("by curl"))
        for front, scheme in (("imaps", "imaps"), ("imap", "imap")):
            target = self.target(front)
            done = clients.curl(target, named("read"), scheme, "INBOX;MAILINDEX=1")
            self.assertEqual(done.status, 0, done.output)
            self.assertIn("Subject: on legacy", done.output)
            done = clients.curl(target, named("upload"), scheme, "INBOX", "-T", str(draft))
            self.assertEqual(done.status, 0, done.output)
        client = self.loggedIn(named("upload"))
        self.assertIn(b"* 3 EXISTS", client.command(b"a SELECT INBOX"))

    def test_mbsync(self) -> None:
        """isync copies a mailbox, by both modes of TLS, and odd passwords do not matter."""
        for front in ("imaps", "imap"):
            for account in (named("read"), ODD[0], ODD[1]):
                folder = self.workFolder()
                done = clients.mbsync(folder, self.target(front), account)
                self.assertEqual(done.status, 0, done.output)
                [copy] = (folder / "mail" / "INBOX").glob("[nc]*/*")
                self.assertIn(b"Subject: on legacy", copy.read_bytes())

    def test_fetchmail(self) -> None:
        """Fetchmail gets the message, by both modes of TLS."""
        for front in ("imaps", "imap"):
            for account in (named("read"), ODD[0]):
                folder = self.workFolder()
                done = clients.fetchmail(folder, self.target(front), account)
                self.assertEqual(done.status, 0, done.output)
                self.assertIn("Subject: on legacy", (folder / "fetched").read_text())

    def test_openssl(self) -> None:
        """s_client verifies us, by both modes and versions of TLS, and logs in by hand."""
        text = f"a LOGIN {named('read').name} {ALICE.password.decode()}\r\nb LOGOUT\r\n"
        for front in ("imaps", "imap"):
            for version in ("-tls1_2", "-tls1_3"):
                done = clients.opensslClient(self.target(front), "imap", text, version)
                self.assertEqual(done.status, 0, done.output)
                self.assertRegex(done.output, r"a OK \[CAPABILITY [^]]*\] Logged in")
                self.assertIn("b OK Logout completed", done.output)

    def test_oldVersionsOfTLSAreRefused(self) -> None:
        """TLS 1.1 has had its time."""
        done = clients.opensslClient(
            self.target(), "imap", "", "-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0"
        )
        self.assertNotEqual(done.status, 0, done.output)
        self.assertRegex(done.output, "protocol version|no protocols available")
