"""Submission through the proxy: Dovecot's and Postfix behind it, real clients before it."""

import itertools
import smtplib
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import ClassVar

from tests.integration import clients
from tests.integration.accounts import ALICE, ODD, at
from tests.integration.contract import LoginContract
from tests.integration.dialogues import Submission
from tests.integration.dovecot import Account, Options
from tests.integration.front import Table, destination, reaching
from tests.integration.house import SOMEBODY, WRONG, withPassword
from tests.integration.messages import bigMessage, message
from tests.integration.postfix import Postfix
from tests.integration.services import relaySettings
from tests.integration.wire import base64Of, plain

_serial = itertools.count(1)


def freshSubject() -> str:
    """One that no other message has."""
    return f"submitted {next(_serial)}"


class SubmissionTests(LoginContract):
    """Everything that a login can meet, and submission's own.

    Beside the Dovecots there is a Postfix: `post`, `postup`, `posthead` and `posttold`. It takes on
    what Dovecot is given, too.
    """

    dialogue: ClassVar[Submission] = Submission()
    foreign = ("post", "postup", "posthead", "posttold")
    postfix: ClassVar[Postfix]

    @classmethod
    def startOthers(cls, stack: ExitStack) -> None:
        """A Postfix that asks the first Dovecot for logins."""
        cls.postfix = stack.enter_context(Postfix("post", cls.authority))

    @classmethod
    def options(cls) -> Options:
        """Dovecot sends on to Postfix."""
        return Options(extra=relaySettings(cls.postfix.exchanger))

    @classmethod
    def kinds(cls) -> dict[str, Table]:
        """The first Dovecot serves Postfix."""
        kinds = super().kinds()
        kinds["legacy"]["saslPort"] = cls.postfix.saslPort
        return kinds

    @classmethod
    def configuration(cls) -> Table:
        """Postfix by TLS, by STARTTLS, behind a header and by XCLIENT."""
        config = super().configuration()
        postfix, protocol = cls.postfix, cls.dialogue.protocol
        introduced = {protocol: {"port": postfix.introduced, "tls": "starttls"}}
        config["destination"] |= {
            "post": reaching(postfix, protocol),
            "postup": reaching(postfix, protocol, "starttls"),
            "posthead": reaching(postfix, protocol, "starttls", proxy_protocol=True),
            "posttold": destination(1, postfix.hostname, protocol=introduced, forwarding="xclient"),
        }
        return config

    # Words

    def test_whatIsOfferedFollowsTLS(self) -> None:
        """Before STARTTLS no mechanism is listed; after it all are, and STARTTLS is not."""
        client = self.connect("upgrading")
        before = self.dialogue.greet(client).splitlines()
        self.assertEqual(before[0], b"250-[127.0.0.1]")
        self.assertEqual([line for line in before if b"AUTH" in line], [])
        self.assertIn(b"250 STARTTLS", before)
        after = self.dialogue.startTLS(client, self.context).splitlines()
        self.assertIn(b"250 AUTH PLAIN LOGIN OAUTHBEARER XOAUTH2", after)
        self.assertNotIn(b"STARTTLS", b"".join(after))

    def test_afterTLSTheClientSaysEHLOAgain(self) -> None:
        """What it said in the clear is forgotten, so it cannot log in at once."""
        client = self.connect("upgrading")
        self.dialogue.greet(client)
        self.dialogue.requestTLS(client)
        client.startTLS(self.context)
        self.assertRegex(self.dialogue.logIn(client, at("legacy")), rb"\A503 ")
        self.dialogue.secured(client)
        self.assertRegex(self.dialogue.logIn(client, at("legacy")), rb"\A235 ")

    def test_mailComesAfterTheLogin(self) -> None:
        """MAIL before it is 530, other commands of a transaction are 503."""
        client = self.greeted()
        self.assertRegex(self.dialogue.ask(client, b"MAIL FROM:<a@b.example>"), rb"\A530 5\.7\.0 ")
        self.assertRegex(self.dialogue.ask(client, b"RCPT TO:<a@b.example>"), rb"\A503 5\.5\.1 ")
        self.assertRegex(self.dialogue.ask(client, b"RSET"), rb"\A250 ")
        self.assertRegex(self.dialogue.ask(client, b"QUIT"), rb"\A221 ")
        self.assertTrue(client.atEnd())

    def test_whatIsPipelinedBehindALoginReachesTheBackend(self) -> None:
        """A whole transaction in one segment with AUTH is served by the backend, once."""
        for name in ("legacy", "post", "posttold"):
            subject, client = freshSubject(), self.greeted()
            login = base64Of(plain(at(name).name, ALICE.password))
            mail = b"MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.org>\r\nDATA\r\n"
            client.send(b"AUTH PLAIN " + login + b"\r\n" + mail)
            codes = [self.dialogue.answer(client)[:3] for _ in range(4)]
            self.assertEqual(codes, [b"235", b"250", b"250", b"354"])
            answer = self.dialogue.ask(client, message(subject) + b".")
            self.assertRegex(answer, rb"\A250 ")
            self.postfix.awaitMail(subject)

    # Postfix

    def test_postfixTakesPasswordsOfAnyKind(self) -> None:
        """By PLAIN and by LOGIN, on every way to it; odd ones too."""
        for name in self.foreign:
            for front in ("secure", "upgrading"):
                self.enter(at(name), front).close()
            words = self.messages("LOGIN", at(name))
            self.assertRegex(self.answer(self.greeted(), "LOGIN", words), self.dialogue.accepted)
        for odd in ODD:
            self.enter(at("post", odd)).close()

    def test_postfixSaysWhyItRefuses(self) -> None:
        """Its words arrive, and a later login works."""
        client = self.greeted()
        answer = self.dialogue.logIn(client, withPassword(at("postup"), WRONG))
        self.assertRegex(answer, rb"\A535 5\.7\.8 Error: authentication failed: ")
        self.assertRegex(self.dialogue.logIn(client, at("postup")), self.dialogue.accepted)

    def test_postfixThatCannotAskIsNoRefusal(self) -> None:
        """Its 454 when the accounts' server is away arrives as that."""
        self.servers["legacy"].stop()
        try:
            for name in self.foreign:
                answer = self.dialogue.logIn(self.greeted(), at(name))
                self.assertRegex(answer, rb"\A4[25][14] 4\.", name)
        finally:
            self.servers["legacy"].start()
        self.assertEventually(
            lambda: self.dialogue.logIn(self.greeted(), at("post")).startswith(b"235"),
            "Postfix does not find the accounts' server again",
        )

    # Clients

    def smtplib(self, name: str, source: str = "127.0.0.1") -> smtplib.SMTP:
        """A smtplib client of that listener, TLS done."""
        port, own = self.proxy.portOf(name), (source, 0)
        if self.proxy.modeOf(name) == "implicit":
            client: smtplib.SMTP = smtplib.SMTP_SSL(
                "localhost",
                port,
                "me.example",
                context=self.context,
                timeout=20,
                source_address=own,
            )
        else:
            client = smtplib.SMTP("localhost", port, "me.example", timeout=20, source_address=own)
            client.starttls(context=self.context)
        self.addCleanup(client.close)
        return client

    def assertSubmitted(self, subject: str, name: str) -> None:
        """The message is there; Postfix knows what its destination should have told it."""
        [received, *_] = self.postfix.awaitMail(subject).get_all("Received") or [""]
        if name in self.foreign:
            self.assertIn("from me.example ", received, name)
            known = SOMEBODY if name in ("posthead", "posttold") else "127.0.0.1"
            self.assertIn(f"[{known}]", received, name)

    def test_smtplib(self) -> None:
        """Logs in and sends, by each listener to each backend; Postfix hears the client's name."""
        for name, front in itertools.product(
            ("legacy", "upgraded", "open", *self.foreign), ("secure", "upgrading")
        ):
            subject, client = freshSubject(), self.smtplib(front, SOMEBODY)
            client.login(at(name).name, ALICE.password.decode())
            client.sendmail("a@example.org", ["b@elsewhere.example"], message(subject))
            client.quit()
            self.assertSubmitted(subject, name)

    def test_aMessageArrivesByteForByte(self) -> None:
        """Some megabytes by way of the proxy, to Postfix."""
        content, client = bigMessage(3_000_000, seed=11), self.smtplib("secure")
        client.login(at("posttold").name, ALICE.password.decode())
        client.sendmail("a@example.org", ["b@example.org"], content)
        arrived = self.postfix.awaitMail("big 3000000 11").get_payload(decode=False)
        body = content.replace(b"\r\n", b"\n").partition(b"\n\n")[2]
        self.assertEqual(str(arrived).encode(), body)

    def test_swaks(self) -> None:
        """By PLAIN and by LOGIN; a wrong password is an authentication error."""
        for name, front, mechanism in (
            ("legacy", "secure", "PLAIN"),
            ("postup", "upgrading", "LOGIN"),
            ("post", "upgrading", "PLAIN"),
            ("loginonly", "secure", "LOGIN"),
        ):
            subject = freshSubject()
            options = ["--from", "a@example.org", "--to", "b@example.org", "--auth", mechanism]
            options += ["--header", f"Subject: {subject}"]
            done = clients.swaks(self.target(front), at(name), *options)
            self.assertEqual(done.status, 0, done.output)
            self.postfix.awaitMail(subject)
            wrong = withPassword(at(name), WRONG)
            self.assertEqual(clients.swaks(self.target(front), wrong, *options).status, 28)

    def test_msmtp(self) -> None:
        """Sends by both modes of TLS."""
        for name, front in (("posttold", "secure"), ("upgraded", "upgrading")):
            subject = freshSubject()
            done = clients.msmtp(
                self.folder(), self.target(front), at(name), "b@example.org", message(subject)
            )
            self.assertEqual(done.status, 0, done.output)
            self.postfix.awaitMail(subject)

    def test_curl(self) -> None:
        """Sends by every mechanism, tokens too, and by both modes of TLS."""
        for name, front in (("legacy", "secure"), ("upgraded", "upgrading")):
            for mechanism in self.mechanisms:
                subject = freshSubject()
                self.curl(at(name), front, subject, mechanism)
                self.postfix.awaitMail(subject)

    def curl(self, account: Account, front: str, subject: str, mechanism: str) -> None:
        """Send a message; a token goes in as a password does, by standard input."""
        path = self.folder() / "mail"
        path.write_bytes(message(subject))
        options = ["--mail-from", "a@example.org", "--mail-rcpt", "b@example.org"]
        options += ["--upload-file", str(path), "--login-options", f"AUTH={mechanism}"]
        scheme = "smtps" if front == "secure" else "smtp"
        if mechanism in ("PLAIN", "LOGIN"):
            done = clients.curl(self.target(front), account, scheme, "", *options)
        else:
            token = self.tokens.mint(account.name)
            self.secrets.add(token.encode())
            options += ["--oauth2-bearer", token, "--user", account.name]
            done = clients.curl(self.target(front), None, scheme, "", *options)
        self.assertEqual(done.status, 0, done.output)

    def folder(self) -> Path:
        """A folder for a program's files."""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        return Path(folder.name)


del LoginContract
