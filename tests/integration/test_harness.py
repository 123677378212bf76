"""What other tests rely on in the usual pair of servers, proved without a proxy between."""

import hashlib
import imaplib
import ssl
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import ClassVar

from twisted.trial.unittest import SynchronousTestCase

from tests.integration import clients
from tests.integration.accounts import ALICE, HELPDESK, ODD, STRANGER, VIP
from tests.integration.certificates import Authority, pinOf
from tests.integration.dovecot import Dovecot, Options
from tests.integration.messages import bigMessage, message
from tests.integration.network import (
    SHARE,
    commandLine,
    freePort,
    openFiles,
    processTree,
    residentMemory,
)
from tests.integration.shared import SharedServers
from tests.integration.tokens import TokenIssuer
from tests.integration.wire import (
    LineClient,
    base64Of,
    oauthBearer,
    plain,
    proxyHeader,
    xoauth2,
)


class TwoDovecotsTests(SharedServers, SynchronousTestCase):
    """The usual pair of servers, both running at once."""

    authority: ClassVar[Authority]
    tokens: ClassVar[TokenIssuer]
    legacy: ClassVar[Dovecot]
    new: ClassVar[Dovecot]
    context: ClassVar[ssl.SSLContext]

    @classmethod
    def startServers(cls, stack: ExitStack) -> None:
        """Two servers with the same accounts, each with a message of its own."""
        cls.authority = Authority.temporary(stack)
        cls.context = cls.authority.clientContext()
        cls.tokens = TokenIssuer()
        accounts = [ALICE, HELPDESK, *ODD]
        options = Options(tokens=cls.tokens, trustsIdentity=True)
        cls.legacy = stack.enter_context(Dovecot("legacy", cls.authority, accounts, options))
        cls.new = stack.enter_context(Dovecot("new", cls.authority, accounts, options))
        for server in (cls.legacy, cls.new):
            server.deliver(ALICE.name, message(f"on {server.name}"))

    def openIMAP(self, target: clients.Target) -> imaplib.IMAP4:
        """An imaplib client that the test's end shuts down."""
        client = clients.openIMAP(target, self.context)
        self.addCleanup(client.shutdown)
        return client

    def target(self, *, implicit: bool = True) -> clients.Target:
        """The legacy server, as programs are told about it."""
        port = self.legacy.imaps if implicit else self.legacy.imap
        return clients.Target(port, self.authority.caFile, implicit)

    def workFolder(self) -> Path:
        """A folder for a program's files."""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        return Path(folder.name)

    def test_mailTellsWhichServerAnswered(self) -> None:
        """Each server has mail of its own, by implicit TLS and by STARTTLS."""
        for server in (self.legacy, self.new):
            for port, implicit in ((server.imaps, True), (server.imap, False)):
                target = clients.Target(port, self.authority.caFile, implicit)
                client = self.openIMAP(target)
                client.login(ALICE.name, ALICE.password.decode())
                self.assertEqual(clients.subjects(client), [f"on {server.name}"])

    def test_certificateNamesTheServer(self) -> None:
        """Only the authority's verifying clients get in, by the server's own name too."""
        LineClient(self.new.imaps, self.context, hostname="new.test").close()
        with self.assertRaises(ssl.SSLCertVerificationError):
            LineClient(self.new.imaps, self.context, hostname="legacy.test")
        with self.assertRaises(ssl.SSLCertVerificationError):
            LineClient(self.new.imaps, ssl.create_default_context())

    def test_pinIsOfTheServersOwnCertificate(self) -> None:
        """The pin of a certificate file is the hash of what the server presents."""
        client = self.openIMAP(self.target())
        assert isinstance(client.sock, ssl.SSLSocket)
        presented = client.sock.getpeercert(binary_form=True)
        assert presented is not None
        self.assertEqual(pinOf(self.legacy.certificate.cert), hashlib.sha256(presented).hexdigest())

    def test_oddPasswordsWork(self) -> None:
        """Any password without NUL logs in by PLAIN, with its bytes as they are."""
        for account in ODD:
            with (
                self.subTest(account=account),
                LineClient(self.legacy.imaps, self.context) as client,
            ):
                client.readLine()
                sent = base64Of(plain(account.name, account.password))
                reply = client.command(b"a AUTHENTICATE PLAIN " + sent)
                self.assertIn(b"a OK", reply[-1], account)

    def test_loginMechanismWorks(self) -> None:
        """LOGIN asks for name and password in turn."""
        with LineClient(self.legacy.imaps, self.context) as client:
            client.readLine()
            client.send(b"a AUTHENTICATE LOGIN\r\n")
            for answer in (ALICE.name.encode(), ALICE.password):
                self.assertTrue(client.readLine().startswith(b"+ "))
                client.send(base64Of(answer) + b"\r\n")
            self.assertIn(b"a OK", client.readUntil(b"a ")[-1])

    def test_wrongPasswordIsRefused(self) -> None:
        """A refusal is IMAP's own, comes at once, and leaves the connection open."""
        with LineClient(self.legacy.imaps, self.context) as client:
            client.readLine()
            for _ in range(3):
                reply = client.command(b"a LOGIN alice@example.org wrong")
                self.assertTrue(reply[-1].startswith(b"a NO [AUTHENTICATIONFAILED]"), reply)

    def test_masterUserOpensAnAccount(self) -> None:
        """`account*master` and an authorization identity both open the account's mail."""
        for sent in (
            plain(f"{ALICE.name}*{HELPDESK.name}", HELPDESK.password),
            plain(HELPDESK.name, HELPDESK.password, authzid=ALICE.name),
        ):
            client = self.openIMAP(self.target())
            client.authenticate("PLAIN", lambda _, sent=sent: sent)  # type: ignore[misc]
            self.assertEqual(clients.subjects(client), ["on legacy"])

    def test_accessTokensAreVerified(self) -> None:
        """XOAUTH2 and OAUTHBEARER take a good token and challenge a bad one with a reason."""
        good, late = self.tokens.mint(ALICE.name), self.tokens.mint(ALICE.name, lifetime=-60)
        foreign = TokenIssuer().mint(ALICE.name)
        for mechanism, build in ((b"XOAUTH2", xoauth2), (b"OAUTHBEARER", oauthBearer)):
            for token, accepted in ((good, True), (late, False), (foreign, False)):
                with LineClient(self.legacy.imaps, self.context) as client:
                    client.readLine()
                    sent = base64Of(build(ALICE.name, token))
                    client.send(b"a AUTHENTICATE " + mechanism + b" " + sent + b"\r\n")
                    reply = client.readLine()
                    self.assertEqual(reply.startswith(b"+ "), not accepted, reply)

    def test_proxyHeaderNamesTheClient(self) -> None:
        """The proxied ports, with and without TLS, log the address of the PROXY header."""
        for port, context in (
            (self.new.imapProxied, None),
            (self.new.imapsProxied, self.context),
        ):
            mark = self.new.log.mark()
            with LineClient(port, context, preface=proxyHeader(STRANGER, VIP)) as client:
                client.readLine()
                client.command(b"a LOGOUT")
            line = self.new.log.waitForLine("rip=192.0.2.7, rport=40007", since=mark)
            self.assertIn("lip=198.51.100.1, lport=993", line)
            self.assertIn("real_rip=127.0.0.1", line)

    def test_idNamesTheClient(self) -> None:
        """A server that trusts us logs the address and the session of our ID command."""
        mark = self.legacy.log.mark()
        with LineClient(self.legacy.imaps, self.context) as client:
            client.readLine()
            fields = b'("x-originating-ip" "192.0.2.9" "x-session-id" "abc123")'
            client.command(b"a ID " + fields)
            client.command(b"a LOGIN alice@example.org wonderland")
        line = self.legacy.log.waitForLine("Login: user=<alice.*rip=192.0.2.9", since=mark)
        self.assertIn("session=<abc123>", line)

    def test_bigMessageArrivesWhole(self) -> None:
        """50 MB, put into the mailbox as a file, come back byte for byte."""
        content = bigMessage(50_000_000, seed=1)
        self.new.deliver(ODD[0].name, content)
        with LineClient(self.new.imaps, self.context) as client:
            client.readLine()
            client.command(b"a AUTHENTICATE PLAIN " + base64Of(plain(ODD[0].name, ODD[0].password)))
            client.command(b"b SELECT INBOX")
            client.send(b"c FETCH 1 BODY.PEEK[]\r\n")
            self.assertTrue(client.readLine().endswith(b"{50000000}"))
            fetched = client.readExactly(len(content))
        self.assertEqual(hashlib.sha256(fetched).digest(), hashlib.sha256(content).digest())

    def test_curlReads(self) -> None:
        """Curl fetches a message by both TLS modes."""
        for scheme, implicit in (("imaps", True), ("imap", False)):
            path = "INBOX;MAILINDEX=1"
            done = clients.curl(self.target(implicit=implicit), ALICE, scheme, path)
            self.assertEqual(done.status, 0, done.output)
            self.assertIn("Subject: on legacy", done.output)

    def test_mbsyncCopies(self) -> None:
        """isync copies a mailbox by both TLS modes."""
        for implicit in (True, False):
            folder = self.workFolder()
            done = clients.mbsync(folder, self.target(implicit=implicit), ALICE)
            self.assertEqual(done.status, 0, done.output)
            [copy] = (folder / "mail" / "INBOX").glob("[nc]*/*")
            self.assertIn(b"Subject: on legacy", copy.read_bytes())

    def test_programsTakeOddPasswords(self) -> None:
        """Quotes, backslashes and UTF-8 survive what we write for mbsync, fetchmail and curl."""
        for account in ODD[:2]:
            self.legacy.deliver(account.name, message("odd"))
            for done in (
                clients.mbsync(self.workFolder(), self.target(), account),
                clients.fetchmail(self.workFolder(), self.target(), account),
                clients.curl(self.target(), account, "imaps", "INBOX"),
            ):
                self.assertEqual(done.status, 0, done.output)

    def test_fetchmailFetches(self) -> None:
        """Fetchmail gets the message by both TLS modes and leaves it there."""
        for implicit in (True, False):
            folder = self.workFolder()
            done = clients.fetchmail(folder, self.target(implicit=implicit), ALICE)
            self.assertEqual(done.status, 0, done.output)
            self.assertIn("Subject: on legacy", (folder / "fetched").read_text())

    def test_opensslShakesHands(self) -> None:
        """s_client reaches the dialogue by both TLS modes; more options can be given."""
        for implicit in (True, False):
            target = self.target(implicit=implicit)
            done = clients.opensslClient(target, "imap", "a LOGOUT\r\n", "-tls1_3")
            self.assertEqual(done.status, 0, done.output)
            self.assertIn("a OK Logout completed", done.output)

    def test_openFilesFollowConnections(self) -> None:
        """The login process holds more descriptors while more connections are open."""
        with LineClient(self.new.imap) as first, LineClient(self.new.imap) as second:
            # Dovecot starts it for the first client.
            first.readLine()
            tree = processTree(self.new.pid)
            [login] = [pid for pid in tree if b"imap-login" in commandLine(pid)]
            second.readLine()
            before = openFiles(login)
            more = [LineClient(self.new.imap) for _ in range(9)]
            for client in more:
                self.addCleanup(client.close)
                client.readLine()
            # An earlier client's may have gone meanwhile.
            self.assertGreater(openFiles(login), before + 5)
        self.assertGreater(residentMemory(login), 1_000_000)


class PortTests(SynchronousTestCase):
    """What the tests' servers listen on."""

    def test_noOtherProcessGivesOutOurs(self) -> None:
        """Both ask for as many as there are, and find none in common."""
        script = f"""
from tests.integration.network import freePort
print(*(freePort() for _ in range({SHARE})))
"""
        ours = {freePort() for _ in range(SHARE)}
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
        theirs = {int(port) for port in done.stdout.split()}
        self.assertEqual(ours & theirs, set())
        self.assertGreater(min(len(ours), len(theirs)), SHARE // 2)
