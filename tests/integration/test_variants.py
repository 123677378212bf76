"""Servers that differ from the usual one, and how a child server starts and ends."""

import signal
from contextlib import ExitStack

from twisted.trial.unittest import SynchronousTestCase

from tests.integration import clients
from tests.integration.accounts import ALICE, HELPDESK, STRANGER, VIP
from tests.integration.certificates import Authority
from tests.integration.dovecot import Dovecot, Options, Privacy
from tests.integration.messages import message
from tests.integration.network import (
    isListening,
    isRunning,
    processTree,
)
from tests.integration.process import ServerFailed
from tests.integration.wire import (
    LineClient,
    base64Of,
    plain,
    proxyHeader,
)


class VariantTests(SynchronousTestCase):
    """Servers that differ from the usual one, each started for its test."""

    def setUp(self) -> None:
        """An authority for this test's servers."""
        stack = ExitStack()
        self.addCleanup(stack.close)
        self.stack = stack
        self.authority = Authority.temporary(stack)

    def startDovecot(self, options: Options) -> Dovecot:
        """A server with two accounts, closed at the test's end."""
        server = Dovecot("variant", self.authority, [ALICE, HELPDESK], options)
        return self.stack.enter_context(server)

    def test_plainServerNeedsNoTLS(self) -> None:
        """Without TLS the login works in the clear and STARTTLS is not offered."""
        server = self.startDovecot(Options(privacy=Privacy.NONE))
        self.assertFalse(isListening(server.imaps))
        with LineClient(server.imap) as client:
            greeting = client.readLine()
            self.assertNotIn(b"STARTTLS", greeting)
            self.assertNotIn(b"LOGINDISABLED", greeting)
            reply = client.command(b"a LOGIN alice@example.org wonderland")
            self.assertTrue(reply[-1].startswith(b"a OK"), reply)

    def test_loginNeedsTLS(self) -> None:
        """From another address LOGINDISABLED is shown and a login refused, until TLS is there."""
        server = self.startDovecot(Options())
        header = proxyHeader(STRANGER, VIP)
        for client in (
            LineClient(server.imap, source="127.0.0.2"),
            LineClient(server.imapProxied, preface=header),
        ):
            with client:
                self.assertIn(b"LOGINDISABLED", client.readLine())
                reply = client.command(b"a LOGIN alice@example.org wonderland")
                self.assertTrue(reply[-1].startswith(b"a NO [PRIVACYREQUIRED]"), reply)
                client.command(b"b STARTTLS")
                client.startTLS(self.authority.clientContext())
                reply = client.command(b"c LOGIN alice@example.org wonderland")
                self.assertTrue(reply[-1].startswith(b"c OK"), reply)

    def test_capabilitiesCanBeChosen(self) -> None:
        """Without SASL-IR, or with LOGIN alone: Dovecot then has no LOGIN command either."""
        options = Options(capability="IMAP4rev1 ID", mechanisms=["login"])
        server = self.startDovecot(options)
        with LineClient(server.imaps, self.authority.clientContext()) as client:
            greeting = client.readLine()
        self.assertIn(b"[CAPABILITY IMAP4rev1 ID LOGINDISABLED AUTH=LOGIN]", greeting)

    def test_anotherMasterSeparator(self) -> None:
        """A percent sign can separate account and master user."""
        server = self.startDovecot(Options(masterSeparator="%"))
        with LineClient(server.imaps, self.authority.clientContext()) as client:
            client.readLine()
            sent = base64Of(plain(f"{ALICE.name}%{HELPDESK.name}", HELPDESK.password))
            reply = client.command(b"a AUTHENTICATE PLAIN " + sent)
            self.assertTrue(reply[-1].startswith(b"a OK"), reply)

    def test_idFromAStrangerIsIgnored(self) -> None:
        """Without `trustsIdentity` the address in an ID command does not reach the log."""
        server = self.startDovecot(Options())
        mark = server.log.mark()
        with LineClient(server.imaps, self.authority.clientContext()) as client:
            client.readLine()
            client.command(b'a ID ("x-originating-ip" "192.0.2.9")')
            client.command(b"b LOGIN alice@example.org wonderland")
        self.assertIn("rip=127.0.0.1", server.log.waitForLine("Login: user=<alice", since=mark))

    def test_restartKeepsPortsAndMail(self) -> None:
        """Stopped and killed, its ports are closed; started again, all is as before."""
        server = self.startDovecot(Options())
        server.deliver(ALICE.name, message("still here"), folder="Kept")
        for end in (server.stop, server.kill):
            tree = processTree(server.pid)
            end()
            self.assertFalse(any(isListening(port) for port in server.ports()))
            self.assertEqual([pid for pid in tree if isRunning(pid)], [])
            server.start()
        target = clients.Target(server.imaps, self.authority.caFile)
        client = clients.openIMAP(target, self.authority.clientContext())
        self.addCleanup(client.shutdown)
        client.login(ALICE.name, ALICE.password.decode())
        self.assertEqual(clients.subjects(client, "Kept"), ["still here"])

    def test_endOfItsOwnIsNoticed(self) -> None:
        """`wait` gives the exit status after a signal; what does not end is killed."""
        server = self.startDovecot(Options())
        tree = processTree(server.pid)
        with self.assertRaisesRegex(ServerFailed, "does not end"):
            server.wait(0.05)
        self.assertEqual([pid for pid in tree if isRunning(pid)], [])
        server.start()
        with LineClient(server.imap) as client:
            client.readLine()  # it listens before it hears signals
        server.signal(signal.SIGTERM)
        self.assertEqual(server.wait(), 0)

    def test_pausedServerAcceptsAndKeepsSilent(self) -> None:
        """A paused server's kernel still accepts; the greeting comes after the pause."""
        server = self.startDovecot(Options())
        with server.paused():
            client = LineClient(server.imap)
            self.addCleanup(client.close)
            with self.assertRaises(TimeoutError):
                client.readLine(timeout=0.3)
        self.assertTrue(client.readLine().startswith(b"* OK"))

    def test_pausedServerCanBeStopped(self) -> None:
        """A test that fails in a pause leaves nothing behind."""
        server = self.startDovecot(Options())
        tree = processTree(server.pid)
        server.pause()
        server.close()
        self.assertEqual([pid for pid in tree if isRunning(pid)], [])
        self.assertFalse(server.folder.exists())

    def test_badConfigurationShowsWhy(self) -> None:
        """A server that does not come up says what it printed, and is gone."""
        server = Dovecot("broken", self.authority, [ALICE], Options(extra="no_such_setting = 1"))
        with self.assertRaisesRegex(ServerFailed, "Unknown setting: no_such_setting"):
            self.stack.enter_context(server)
        self.assertFalse(server.folder.exists())

    def test_whatAKilledServerLeftIsNotWaitedFor(self) -> None:
        """One that is killed while it starts holds a lock; the next start is as quick as any."""
        server = self.startDovecot(Options())
        server.kill()
        (server.folder / "run" / "instances.lock").touch()
        server.start()
        with LineClient(server.imap) as client:
            self.assertTrue(client.readLine(timeout=8).startswith(b"* OK"))

    def test_missingLogLineShowsWhatCame(self) -> None:
        """Waiting for a line in vain fails with the lines that were written."""
        server = self.startDovecot(Options())
        server.log.waitForLine("starting up for imap")
        with self.assertRaisesRegex(AssertionError, "starting up for imap"):
            server.log.waitForLine("never", timeout=0.05)
