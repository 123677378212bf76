"""Clients that behave badly: slow, silent, greedy, deaf."""

import contextlib
import random
import socket
import ssl
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import ClassVar

from tests.integration.accounts import ALICE, at
from tests.integration.faults import AT_LOGIN, BEFORE_LOGIN, WITHOUT_STARTTLS
from tests.integration.front import (
    ProxyTestCase,
    destination,
    listener,
    loginLine,
    settings,
    standardListeners,
)
from tests.integration.network import memoryGrowth
from tests.integration.scripted import ScriptedServer, answering, saying, wellBehaved
from tests.integration.wire import LineClient, base64Of

PLAIN_BACKENDS = {
    **BEFORE_LOGIN,
    **AT_LOGIN,
    "good": wellBehaved,
    "wrong": answering([b"NO [AUTHENTICATIONFAILED] no"] * 9),
}


class AbuseTestCase(ProxyTestCase):
    """A proxy with short patience before backends of every kind."""

    backends: ClassVar[Sequence[str]]

    @classmethod
    def startServers(cls, stack: ExitStack) -> None:
        """`hasty` and `hastyup` wait two seconds for a login, the other listeners thirty."""
        cls.makeAuthority(stack)
        cls.keepSecret(ALICE)
        destinations = {}
        for scripts, mode in ((PLAIN_BACKENDS, "plain"), (WITHOUT_STARTTLS, "starttls")):
            for name, script in scripts.items():
                port = stack.enter_context(ScriptedServer(script)).port
                trust = {"allow_plaintext_auth": mode == "plain"}
                destinations[name] = destination(port, "localhost", mode, **trust)
        silent = stack.enter_context(ScriptedServer(saying(b"", thenHold=True)))
        destinations["tlssilence"] = destination(silent.port, "localhost")
        listeners = {
            **standardListeners(),
            "hasty": listener(preauth_timeout="2s"),
            "hastyup": listener("starttls", preauth_timeout="2s"),
        }
        config = settings(cls.authority, listeners, destinations)
        config["server"] |= {
            "backend_timeout": "1s",
            "backend_auth_timeout": "1s",
            "host_down_threshold": 0,
        }
        cls.backends = [*destinations]
        cls.startProxy(stack, config, {at(name).name: name for name in destinations})

    def raw(self, name: str, preface: bytes = b"") -> LineClient:
        """A connection to a listener on which nothing has been said, not even TLS."""
        client = LineClient(self.proxy.portOf(name), preface=preface)
        self.addCleanup(client.close)
        return client


class AbuseTests(AbuseTestCase):
    """One bad client at a time."""

    def test_oneByteInEachSegment(self) -> None:
        """A dialogue, an upgrade and a login work at any pace."""
        client = self.connect("imap")
        client.sendSlowly(b"a CAPABILITY\r\nb STARTTLS\r\n")
        self.assertOK(client.readUntil(b"b "))
        client.startTLS(self.context)
        literal = at("good").name.encode()
        client.sendSlowly(b"c LOGIN {%d+}\r\n%b wonderland\r\n" % (len(literal), literal))
        self.assertOK(client.readUntil(b"c "))
        client.sendSlowly(b"hello\r\n")
        self.assertEqual(client.readLine(), b"* echo hello")

    def test_nineThousandCommandsInOneSegment(self) -> None:
        """Each is answered, in order, and then the login that came behind them."""
        for front in ("imap", "imaps"):
            client = self.connect(front)
            client.readLine()
            # So that the kernel takes all of it before we read: two threads cannot share TLS.
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 400_000)
            commands = b"".join(b"n%d NOOP\r\n" % number for number in range(9000))
            client.send(commands + b"z LOGOUT\r\n")
            lines = client.readUntil(b"z ")
            tags = [line.split()[0] for line in lines if line.startswith(b"n")]
            self.assertEqual(tags, [b"n%d" % number for number in range(9000)])

    def test_aClientThatSaysNothing(self) -> None:
        """It is told and closed after `preauth_timeout`, before TLS without a word."""
        fronts, raw = ("hasty", "hastyup"), self.raw("hasty")
        clients = [self.connect(name) for name in fronts]
        for client in clients:
            client.readLine()
        clients += [self.greeted(name) for name in fronts]
        started = time.monotonic()
        for client in clients:
            self.assertRegex(client.readToEnd(), rb"\A\* BYE [^\r\n]*\r\n\Z")
        self.assertEqual(raw.readToEnd(), b"")
        self.assertLess(time.monotonic() - started, 10)

    def test_aClientThatKeepsTalkingIsNotForgotten(self) -> None:
        """Commands do not buy time: from accept to login they are the same two seconds."""
        client = self.greeted("hasty")
        started = time.monotonic()
        with contextlib.suppress(EOFError, ConnectionError, ssl.SSLEOFError):
            while time.monotonic() < started + 20:
                client.command(b"a NOOP")
        self.assertLess(time.monotonic() - started, 10)

    def test_noTLSOnTheTLSPort(self) -> None:
        """Anything but a handshake is closed, and no banner is wasted on it."""
        said = (b"a CAPABILITY\r\n", b"GET / HTTP/1.1\r\n\r\n", b"\0" * 1000, b"\x16\x03\x01")
        for client in [self.raw("hasty", sent) for sent in said]:
            self.assertNotIn(b"* OK", client.readToEnd())

    def test_aClientThatReadsNothing(self) -> None:
        """Its commands are not read while our answers pile up; our memory stays as it is."""
        client = self.raw("hastyup")
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        with memoryGrowth(self.proxy.pid) as growth:
            client.socket.settimeout(0.3)
            with self.assertRaises((TimeoutError, ConnectionError)):
                for _ in range(1000):
                    client.send(b"a CAPABILITY\r\n" * 5000)
            self.assertEventually(lambda: not self.connections(), "it is still there")
            self.assertLess(growth(), 20_000_000)

    def test_whatIsTooLong(self) -> None:
        """A line, a literal, many literals: an answer, and the end where there is no way on."""
        for sent in (
            b"a NOOP " + b"x" * 70_000,
            b"a LOGIN {70000+}\r\n",
            b"a LOGIN {4294967296+}\r\n",
            b"a ID (" + b"{1000+}\r\n" + (b"x" * 1000 + b" {1000+}\r\n") * 80,
        ):
            client = self.greeted()
            with contextlib.suppress(ConnectionError):
                client.send(sent)
            self.assertRegex(client.readToEnd(), rb"(?m)^\* BYE \[TOOBIG\] ")
        client = self.greeted()
        self.assertEqual(client.command(b"a LOGIN {70000}")[-1][:13], b"a NO [TOOBIG]")
        client.send(loginLine(at("good")))
        self.assertOK(client.readUntil(b"l "))

    def test_tooMuchBehindALogin(self) -> None:
        """A client that does not wait for its answer may send 64 KiB ahead, and no more."""
        account = at("good")
        self.api("POST", "/connections/delay", identifier=account.name, seconds=60)
        self.addCleanup(self.api, "POST", "/connections/delay", identifier=account.name, seconds=0)
        client = self.greeted()
        with contextlib.suppress(ConnectionError):
            client.send(loginLine(account) + b"n NOOP\r\n" * 10_000)
        self.assertEqual(client.readToEnd(), b"* BYE [TOOBIG] Command too long.\r\n")
        self.proxy.log.waitForLine(r"limit \(too much was sent before the login\)")

    def test_nonsenseIsAnsweredAndThenEnded(self) -> None:
        """Twenty mistakes are enough, of whatever kind; the answers never repeat them."""
        noise = random.Random(1)
        for _ in range(5):
            client = self.greeted()
            lines = [bytes(b for b in noise.randbytes(60) if b not in b"\r\n{") for _ in range(30)]
            with contextlib.suppress(ConnectionError):
                client.send(b"\r\n".join(lines) + b"\r\n")
            answer = client.readToEnd().split(b"\r\n")
            self.assertEqual(answer[-2:], [b"* BYE Too many failures.", b""])
            self.assertEqual(len(answer), 22)

    def test_commandsThatAreNotForNow(self) -> None:
        """What needs a login gets BAD before it, with its tag."""
        client = self.greeted()
        for command in (b"SELECT INBOX", b"IDLE", b"FETCH 1 ALL", b"STARTTLS", b"LOGIN", b"XYZZY"):
            self.assertRegex(client.command(b"a " + command)[-1], rb"\Aa BAD ")

    def test_whatCameBeforeTheUpgradeIsForgotten(self) -> None:
        """Commands in the segment of STARTTLS, and behind it, are not served inside TLS."""
        client = self.connect("imap")
        client.readLine()
        client.send(b"a STARTTLS\r\nb CAPABILITY\r\nc LOGIN x y\r\n")
        self.assertOK([client.readLine()])
        with contextlib.suppress(ssl.SSLError, ConnectionError, EOFError):
            client.startTLS(self.context)
            self.assertRegex(client.command(b"d NOOP")[0], rb"\Ad OK ")

    def test_namesThatNoStoreMaySee(self) -> None:
        """An unusable account name is unavailable: no guess is told from a misspelling."""
        for name in ("a b@x", 'a"b@x', "a\tb@x", "x" * 513, "é".encode("latin-1")):
            client = self.greeted()
            raw = name if isinstance(name, bytes) else name.encode()
            sent = base64Of(b"\0" + raw + b"\0" + ALICE.password)
            self.assertUnavailable(client.command(b"a AUTHENTICATE PLAIN " + sent))
        self.assertNotIn("x" * 513, self.proxy.log.text())
