"""ManageSieve through the proxy: Dovecot's Pigeonhole behind it, real clients before it."""

from base64 import b64encode
from pathlib import Path
from typing import ClassVar

from tests.integration.accounts import ALICE, at
from tests.integration.clients import runProgram
from tests.integration.contract import LoginContract
from tests.integration.dialogues import ManageSieve
from tests.integration.wire import base64Of, plain

SCRIPT = 'require "fileinto";\r\nif header :contains "subject" "x" { fileinto "X"; }\r\n'


class ManageSieveTests(LoginContract):
    """Everything that a login can meet, and ManageSieve's own.

    Pigeonhole is spoken to by STARTTLS: with TLS from the first byte, which RFC 5804 does not know,
    it sometimes leaves a command lying that comes soon after the one before.
    """

    dialogue: ClassVar[ManageSieve] = ManageSieve()
    way = "starttls"

    # Words

    def test_capabilitiesComeAgainAfterTLS(self) -> None:
        """Before STARTTLS no mechanism is listed; after it all are, and STARTTLS is not."""
        client = self.connect("upgrading")
        before = self.dialogue.greet(client)
        self.assertIn(b'"STARTTLS"', before)
        self.assertIn(b'"SASL" ""', before)
        after = self.dialogue.startTLS(client, self.context)
        self.assertIn(b'"SASL" "PLAIN LOGIN OAUTHBEARER XOAUTH2"', after)
        self.assertNotIn(b"STARTTLS", after)
        client.send(b"CAPABILITY\r\n")
        self.assertEqual(self.dialogue.greet(client), after)

    def test_aTagIsGivenBack(self) -> None:
        """NOOP with a tag, quoted or a literal, so that a client finds its place again."""
        client = self.greeted()
        self.assertRegex(self.dialogue.ask(client, b'NOOP "mark"'), rb'\AOK \(TAG "mark"\)')
        self.assertRegex(self.dialogue.ask(client, b'noop {4+}\r\nm"rk'), rb'\AOK \(TAG .*m\\"rk')

    def test_messagesMayBeLiterals(self) -> None:
        """The mechanism's name, the initial response and an answer, each as a literal."""
        sent = base64Of(plain(at("legacy").name, ALICE.password))
        literal = b"{%d+}\r\n%b" % (len(sent), sent)
        for command in (
            b'AUTHENTICATE "PLAIN" ' + literal,
            b"AUTHENTICATE {5+}\r\nPLAIN " + literal,
            b'Authenticate "plain"\r\n' + literal,
        ):
            client = self.greeted()
            client.send(command + b"\r\n")
            lines = client.readUntil(b"OK")
            self.assertEqual(lines[:-1], [b'""'] if b"Auth" in command else [])

    def test_longTokensArriveWhole(self) -> None:
        """A token of several kilobytes, near the most that Dovecot takes, goes as a literal."""
        for mechanism in ("XOAUTH2", "OAUTHBEARER"):
            token = self.tokens.mint(at("upgraded").name, groups=["x" * 40] * 80)
            self.secrets.add(token.encode())
            user = at("upgraded").name
            head = f"user={user}" if mechanism == "XOAUTH2" else f"n,a={user},"
            sent = f"{head}\1auth=Bearer {token}\1\1".encode()
            self.assertGreater(len(b64encode(sent)), 6000)
            answer = self.dialogue.authenticate(self.greeted(), mechanism, sent)
            self.assertRegex(answer, rb"\AOK")

    def test_whatIsPipelinedBehindALoginReachesTheBackend(self) -> None:
        """In order, once: the backend answers it, not we."""
        client = self.greeted()
        sent = base64Of(plain(at("legacy").name, ALICE.password))
        script = b'PUTSCRIPT "pipelined" {6+}\r\nkeep;\n\r\n'
        client.send(b'AUTHENTICATE "PLAIN" "%b"\r\n%bLISTSCRIPTS\r\nLOGOUT\r\n' % (sent, script))
        received = [line for line in client.readToEnd().splitlines() if line[:1] != b'"']
        self.assertEqual([line[:2] for line in received], [b"OK"] * 4)

    # Clients

    def sieveConnect(self, name: str, front: str, *actions: str) -> str:
        """Run sieve-connect against a listener; what it printed."""
        password = ALICE.password.decode()
        command = ["sieve-connect", "--server", "localhost", "--user", at(name).name]
        command += ["--port", str(self.proxy.portOf(front)), "--nosslverify", "--passwordfd", "0"]
        if self.proxy.modeOf(front) == "implicit":
            command.append("--tls-on-connect")
        done = runProgram([*command, *actions], "sieve-connect", stdin=f"{password}\n")
        self.assertEqual(done.status, 0, done.output)
        return done.output

    def test_sieveConnect(self) -> None:
        """Uploads a script through STARTTLS, lists it and reads it back as it was."""
        path = self.mktemp()
        Path(path).write_text(SCRIPT, newline="")
        for name in ("legacy", "upgraded", "open"):
            self.sieveConnect(name, "upgrading", "--upload", "--localsieve", path)
            listed = self.sieveConnect(name, "upgrading", "--list")
            self.assertIn(path.rpartition("/")[2], listed)

    def test_aScriptArrivesByteForByte(self) -> None:
        """Put, listed, read and made active on the account's own server."""
        content = "# ☃ ä\r\n".encode() * 5000 + b"keep;\r\n"
        for name in ("legacy", "told", "open"):
            client = self.enter(at(name))
            put = b'PUTSCRIPT "big" {%d+}\r\n%b' % (len(content), content)
            self.assertRegex(self.dialogue.ask(client, put), rb"\AOK", name)
            self.assertRegex(self.dialogue.ask(client, b'SETACTIVE "big"'), rb"\AOK")
            client.send(b'GETSCRIPT "big"\r\n')
            self.assertEqual(client.readLine(), b"{%d}" % len(content))
            self.assertEqual(client.readExactly(len(content)), content)
            client.readUntil(b"OK")
            client.send(b"LISTSCRIPTS\r\n")
            self.assertIn(b'"big" ACTIVE', client.readUntil(b"OK"))


del LoginContract
