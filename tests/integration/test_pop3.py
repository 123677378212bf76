"""POP3 through the proxy: Dovecot behind it, real clients before it."""

import poplib
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import ClassVar

from tests.integration import clients
from tests.integration.accounts import ALICE, ODD, at
from tests.integration.contract import LoginContract
from tests.integration.dialogues import POP3
from tests.integration.house import WRONG, withPassword
from tests.integration.messages import bigMessage, message
from tests.integration.wire import LineClient


class POP3Tests(LoginContract):
    """Everything that a login can meet, and POP3's own."""

    dialogue: ClassVar[POP3] = POP3()
    others = ("open",)

    @classmethod
    def startServers(cls, stack: ExitStack) -> None:
        """Each server has a message that tells its name."""
        super().startServers(stack)
        for server in cls.servers.values():
            for name in (*cls.one, *cls.others):
                server.deliver(at(name).name, message(f"on {server.name}"))

    def poplib(self, name: str) -> poplib.POP3:
        """A poplib client of that listener, TLS done."""
        port = self.proxy.portOf(name)
        if self.proxy.modeOf(name) == "implicit":
            client: poplib.POP3 = poplib.POP3_SSL(
                "localhost", port, timeout=20, context=self.context
            )
        else:
            client = poplib.POP3("localhost", port, timeout=20)
            client.stls(self.context)
        self.addCleanup(client.close)
        return client

    # Words

    def test_USERAndPASS(self) -> None:
        """To every backend, whether it has PLAIN or not; in one segment too."""
        for name in (*self.one, *self.others):
            client = self.greeted()
            user = at(name).name.encode()
            self.assertTrue(self.dialogue.ask(client, b"USER " + user).startswith(b"+OK"))
            self.assertRegex(self.dialogue.ask(client, b"pass " + ALICE.password), rb"\A\+OK")
            client = self.greeted()
            client.send(b"USER %b\r\nPASS %b\r\nSTAT\r\n" % (user, ALICE.password))
            self.assertEqual([client.readLine()[:3] for _ in range(3)], [b"+OK"] * 3)

    def test_passwordsWithSpaces(self) -> None:
        """All behind PASS and one space is the password: spaces, even the first, are part of it."""
        for odd in ODD:
            for name in ("legacy", *self.others):
                client = self.greeted()
                self.dialogue.ask(client, b"USER " + at(name, odd).name.encode())
                answer = self.dialogue.ask(client, b"PASS " + odd.password)
                self.assertRegex(answer, rb"\A\+OK", (name, odd.name))

    def test_capabilitiesFollowTLS(self) -> None:
        """Before STLS no way to log in is listed; after it all are, and STLS is not."""
        client = self.connect("upgrading")
        self.dialogue.greet(client)
        before = self.dialogue.list(client, b"CAPA")
        self.assertIn(b"STLS", before)
        self.assertFalse([line for line in before if line.startswith((b"SASL", b"USER"))])
        self.dialogue.startTLS(client, self.context)
        after = self.dialogue.list(client, b"CAPA")
        self.assertIn(b"SASL PLAIN LOGIN OAUTHBEARER XOAUTH2", after)
        self.assertIn(b"USER", after)
        self.assertNotIn(b"STLS", after)

    def test_USERIsRefusedInTheClear(self) -> None:
        """So no client goes on to send its password."""
        client = self.connect("upgrading")
        self.dialogue.greet(client)
        self.assertRegex(self.dialogue.ask(client, b"USER x"), rb"\A-ERR ")
        self.assertRegex(self.dialogue.ask(client, b"PASS y"), rb"\A-ERR ")

    def test_APOPIsRefused(self) -> None:
        """We have no password to compare a digest with, and the greeting invites nobody."""
        client = self.connect()
        self.assertNotIn(b"<", self.dialogue.greet(client))
        digest = b"c4c9334bac560ecc979e58001b3e22fb"
        self.assertRegex(self.dialogue.ask(client, b"APOP alice " + digest), rb"\A-ERR ")

    def connect(self, name: str = "secure", **more: object) -> LineClient:
        """A client of that listener."""
        return super().connect(name, **more)

    # Clients

    def test_poplib(self) -> None:
        """USER and PASS by Python's client, and the whole of a message of some size."""
        content = bigMessage(3_000_000, seed=3)
        self.servers["legacy"].deliver(at("upgraded").name, content)
        for front in ("secure", "upgrading"):
            client = self.poplib(front)
            client.user(at("upgraded").name)
            client.pass_(ALICE.password.decode())
            self.assertEqual(len(client.list()[1]), 2)
            self.assertEqual(b"\r\n".join(client.retr(2)[1]) + b"\r\n", content)
            client.quit()

    def test_poplibIsTold(self) -> None:
        """A refusal is an error of the protocol, and the next try works."""
        client = self.poplib("secure")
        for account, good in ((withPassword(at("legacy"), WRONG), False), (at("legacy"), True)):
            client.user(account.name)
            if good:
                client.pass_(account.password.decode())
            else:
                with self.assertRaisesRegex(poplib.error_proto, "AUTH"):
                    client.pass_(account.password.decode())

    def test_curl(self) -> None:
        """Reads a message by both modes of TLS, with SASL or without."""
        for name, front in (("legacy", "secure"), ("upgraded", "upgrading"), ("open", "secure")):
            for login in ("AUTH=PLAIN", "AUTH=LOGIN", "AUTH=*"):
                scheme = "pop3s" if front == "secure" else "pop3"
                done = clients.curl(
                    self.target(front), at(name), scheme, "1", "--login-options", login
                )
                self.assertEqual(done.status, 0, done.output)
                server = "legacy" if name in self.one else name
                self.assertIn(f"Subject: on {server}", done.output)

    def test_fetchmail(self) -> None:
        """Fetches by both modes of TLS and leaves the mail there."""
        for front in ("secure", "upgrading"):
            folder = Path(self.enterContextFolder())
            done = clients.fetchmail(folder, self.target(front), at("told"), "pop3")
            self.assertEqual(done.status, 0, done.output)
            self.assertIn("Subject: on legacy", (folder / "fetched").read_text())

    def enterContextFolder(self) -> str:
        """A folder for a program's files."""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        return folder.name


del LoginContract
