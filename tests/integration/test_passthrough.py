"""SMTP and LMTP that pass through: Postfix and Dovecot's LMTP behind, real clients before."""

import re
import smtplib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from typing import ClassVar

from tests.integration import clients
from tests.integration.accounts import ALICE
from tests.integration.certificates import Authority
from tests.integration.dialogues import Submission
from tests.integration.dovecot import Dovecot, Options
from tests.integration.front import ProxyTestCase, Table, listener, settings
from tests.integration.house import SOMEBODY
from tests.integration.messages import bigMessage, message
from tests.integration.network import freePort
from tests.integration.postfix import TRUSTED, Postfix
from tests.integration.proxy import ProxyProcess
from tests.integration.wire import LineClient

_serial = count(1)
_ELSEWHERE = b"RCPT TO:<somebody@elsewhere.example>"


class PassThroughTests(ProxyTestCase):
    """Several proxies, each with its own way to reach the one Postfix and the one Dovecot.

    `bare` says nothing of the client, `header` by PROXY header, `told` by XCLIENT, `secure` by
    XCLIENT after STARTTLS; `untold` should use XCLIENT where Postfix has none, `away` has nobody.
    """

    words = Submission()
    postfix: ClassVar[Postfix]
    dovecot: ClassVar[Dovecot]
    proxies: ClassVar[dict[str, ProxyProcess]]

    @classmethod
    def startServers(cls, stack: ExitStack) -> None:
        """Two servers and six proxies."""
        cls.makeAuthority(stack)
        cls.postfix = stack.enter_context(Postfix("post", cls.authority))
        options = Options(protocols=["lmtp"], trustsIdentity=True)
        cls.dovecot = stack.enter_context(Dovecot("store", cls.authority, [ALICE], options))
        cls.proxies = {
            name: cls.startAnother(stack, _through(cls.authority, *way))
            for name, way in cls.ways().items()
        }
        cls.proxy = cls.proxies["bare"]

    @classmethod
    def ways(cls) -> dict[str, tuple[int, int, str, str]]:
        """The proxies: ports of SMTP and LMTP, what these are told, and SMTP's TLS."""
        post, lmtp = cls.postfix, cls.dovecot.doors["lmtp"]
        return {
            "bare": (post.exchanger, lmtp.open, "none", "plain"),
            "header": (post.exchangerProxied, lmtp.openProxied, "proxy", "plain"),
            "told": (post.exchangerIntroduced, lmtp.open, "xclient", "plain"),
            "secure": (post.exchangerIntroduced, lmtp.open, "xclient", "starttls"),
            "untold": (post.exchanger, lmtp.open, "xclient", "plain"),
            "away": (freePort(), freePort(), "none", "plain"),
        }

    def setUp(self) -> None:
        """Watch all the logs."""
        super().setUp()
        for proxy in self.proxies.values():
            self.addCleanup(self.assertCleanLog, proxy.log.mark(), proxy)

    def assertCleanLog(self, since: int = 0, proxy: ProxyProcess | None = None) -> None:
        """No bug is in a proxy's log."""
        text = (proxy or self.proxy).log.text(since)
        for word in ("Traceback", "Unhandled", "#critical"):
            self.assertNotIn(word, text)

    def through(
        self, name: str, front: str = "smtp", source: str = SOMEBODY, preface: bytes = b""
    ) -> LineClient:
        """A client of that proxy; nothing is read."""
        implicit = self.context if front.endswith("s") else None
        client = LineClient(
            self.proxies[name].portOf(front), implicit, source=source, preface=preface
        )
        self.addCleanup(client.close)
        return client

    def smtplib(self, name: str, front: str = "smtp") -> smtplib.SMTP:
        """A smtplib client of that proxy's, from an address that nobody trusts."""
        kind = smtplib.LMTP if front == "lmtp" else smtplib.SMTP
        client = kind(
            "localhost",
            self.proxies[name].portOf(front),
            "me.example",
            source_address=(SOMEBODY, 0),
        )
        self.addCleanup(client.close)
        return client

    # Bytes

    def test_theBackendIsHeardFromItsFirstByte(self) -> None:
        """Its greeting, its capabilities, its TLS: we say nothing of our own."""
        for name in ("bare", "header", "told", "secure"):
            client = self.smtplib(name)
            self.assertEqual(client.ehlo()[0], 250)
            self.assertIn(b"post.test\n", client.ehlo_resp or b"")
            if name != "secure":
                client.starttls(context=self.context)
                client.ehlo()
            subject = f"passed {next(_serial)}"
            client.sendmail("a@example.org", ["b@example.org"], message(subject))
            self.assertEqual(client.quit()[0], 221)
            self.postfix.awaitMail(subject)

    def test_TLSBeforeUs(self) -> None:
        """A listener with TLS from the first byte, and a big message."""
        port = self.proxies["told"].portOf("smtps")
        with smtplib.SMTP_SSL("localhost", port, context=self.context) as client:
            client.sendmail("a@example.org", ["b@example.org"], bigMessage(3_000_000, seed=12))
        arrived = str(self.postfix.awaitMail("big 3000000 12").get_payload())
        sent = bigMessage(3_000_000, seed=12).replace(b"\r\n", b"\n").partition(b"\n\n")[2]
        self.assertEqual(arrived.encode(), sent)

    def test_thousandsOfMessagesAreNeitherLostNorDoubled(self) -> None:
        """smtp-source sends them in many sessions at once; each arrives once."""
        self.postfix.forget()
        amount = 2000
        port = self.proxies["header"].portOf("smtp")
        command = [
            "smtp-source",
            "-s",
            "20",
            "-m",
            str(amount),
            "-l",
            "2000",
            "-t",
            "b@example.org",
        ]
        mark, log = self.postfix.log.mark(), self.postfix.log
        done = clients.runProgram([*command, "-S", "many", f"127.0.0.1:{port}"], "postfix")
        self.assertEqual(done.status, 0, done.output)
        taken = lambda: re.findall(r"cleanup.*message-id=<(.*)>", log.text(mark))  # noqa: E731
        # Postfix's log is written by a process of its own.
        self.assertEventually(lambda: len(taken()) >= amount, "some are lost")
        self.assertEqual((len(taken()), len(set(taken()))), (amount, amount))

    # Who the client is

    def received(self, subject: str) -> str:
        """The topmost Received line of that message."""
        return str(self.postfix.awaitMail(subject)["Received"])

    def test_thePostfixLearnsWhoTheClientIs(self) -> None:
        """By PROXY header and by XCLIENT; the client's own EHLO is the one that counts."""
        for name in ("bare", "header", "told", "secure"):
            subject, client = f"known {next(_serial)}", self.smtplib(name)
            client.sendmail("a@example.org", ["b@example.org"], message(subject))
            known = TRUSTED if name == "bare" else SOMEBODY
            self.assertRegex(self.received(subject), rf"\Afrom me\.example .*\[{known}\]")

    def answers(self, client: LineClient, *lines: bytes) -> list[bytes]:
        """What is said to the greeting's end, and to each line."""
        return [self.words.answer(client), *(self.words.ask(client, line) for line in lines)]

    def test_ourTrustIsNotLentToStrangers(self) -> None:
        """Postfix lets our address send everywhere; a stranger who comes through us may not.

        That it may where nobody is told of the client (`bare`) shows that the danger is real.
        """
        for name, code in (
            ("bare", b"250"),
            ("header", b"554"),
            ("told", b"554"),
            ("secure", b"554"),
        ):
            client = self.through(name)
            *_, answer = self.answers(client, b"EHLO me", b"MAIL FROM:<a@b.example>", _ELSEWHERE)
            self.assertEqual(answer[:3], code, (name, answer))

    def test_aClientCannotSayByXCLIENTWhoItIs(self) -> None:
        """Postfix would believe us; of the client it takes no such word, and offers it none."""
        for name in ("header", "told", "secure"):
            client = self.through(name)
            _, hello, refused, *_, answer = self.answers(
                client,
                b"EHLO me",
                b"XCLIENT ADDR=127.0.0.1 NAME=localhost",
                b"MAIL FROM:<a@b.example>",
                _ELSEWHERE,
            )
            self.assertNotIn(b"XCLIENT", hello, name)
            self.assertRegex(refused, rb"\A5", name)
            self.assertEqual(answer[:3], b"554", name)

    def test_aClientThatDoesNotWaitIsNotBelievedEither(self) -> None:
        """What comes before our own introduction is done stays behind it."""
        for name in ("told", "secure"):
            hasty = b"EHLO x\r\nXCLIENT ADDR=127.0.0.1\r\nMAIL FROM:<a@b.example>\r\n" + _ELSEWHERE
            client = self.through(name, preface=hasty + b"\r\nQUIT\r\n")
            codes = re.findall(rb"^([0-9]{3}) ", client.readToEnd(), re.MULTILINE)
            self.assertRegex(b" ".join(codes), rb"\A220 250 5\d\d 250 554 221\Z")

    def test_aBackendThatCannotBeToldIsNotUsed(self) -> None:
        """It trusts us and would take the client for us: 421."""
        client = self.through("untold")
        self.assertRegex(client.readLine(), rb"\A421 4\.3\.2 ")
        self.assertEqual(client.readToEnd(), b"")

    # LMTP

    def test_LMTPPasses(self) -> None:
        """Each recipient has an answer of its own, and Dovecot's log knows the client."""
        for name in ("bare", "header", "told"):
            mark, client = self.dovecot.log.mark(), self.smtplib(name, "lmtp")
            refused = client.sendmail(
                "a@example.org", [ALICE.name, "nobody@example.org"], message(f"by {name}")
            )
            self.assertEqual(list(refused), ["nobody@example.org"])
            client.quit()
            known = "127.0.0.1" if name == "bare" else SOMEBODY
            self.dovecot.log.waitForLine(f"Disconnect from {known}", since=mark)

    # Nobody there

    @contextmanager
    def postfixStopped(self) -> Iterator[None]:
        """A `with` block without it."""
        self.postfix.stop()
        try:
            yield
        finally:
            self.postfix.start()

    def test_nobodyThereIs421(self) -> None:
        """For both protocols and with TLS, at once, and closed."""
        for front in ("smtp", "smtps", "lmtp"):
            client = self.through("away", front)
            self.assertRegex(client.readLine(), rb"\A421 4\.3\.2 ", front)
            self.assertEqual(client.readToEnd(), b"")

    def test_aBackendThatStopsIs421(self) -> None:
        """And serves again once it is back."""
        with self.postfixStopped():
            for name in ("bare", "header", "told"):
                self.assertRegex(self.through(name).readLine(), rb"\A421 4\.3\.2 ")
        for name in ("bare", "header", "told"):
            self.assertRegex(self.words.answer(self.through(name)), rb"\A220 post\.test ")

    def test_sessionsAreOnFileAndCounted(self) -> None:
        """Management sees where they went."""
        client = self.through("bare")
        self.answers(client, b"EHLO me")
        session = self.sessionOf(client)
        self.assertEqual(session["protocol"], "smtp")
        self.assertEqual((session["destination"], session["identifier"]), ("behind", None))
        client.close()
        self.assertNobodyIsThere()


def _through(authority: Authority, smtp: int, lmtp: int, forwarding: str, tls: str) -> Table:
    """A proxy's configuration: three listeners and where they lead."""
    endpoints = {"smtp": {"port": smtp, "tls": tls}, "lmtp": {"port": lmtp, "tls": "plain"}}
    destination = {
        "host": "127.0.0.1",
        "tls_server_name": "post.test",
        "forwarding": forwarding,
        "protocol": endpoints,
    }
    listeners = {
        "smtp": listener("plain", protocol="smtp"),
        "smtps": listener("implicit", protocol="smtp"),
        "lmtp": listener("plain", protocol="lmtp"),
    }
    config = settings(authority, listeners, {"behind": destination})
    config["routing"]["smtp_passthrough_destination"] = "behind"
    config["server"] |= {"host_down_threshold": 0, "backend_connect_retries": 0}
    return config
