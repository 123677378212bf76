"""Proxies behind proxies in every protocol: who the client is in the end, and where circles end."""

import attrs

from mailproxy import proxyheader
from mailproxy.origin import Address
from tests import words
from tests.dialling import LOCAL, Scripted
from tests.protocols.backend import PLAINTEXT
from tests.stage import Client, Scene, StageCase
from tests.stage import Stage as Theatre
from tests.words import Words

TRUSTING = {"proxy_trusted": [LOCAL + "/32"]}
INTRODUCING = attrs.evolve(PLAINTEXT, introduces=True)
HEADERS = {**TRUSTING, "proxy_protocol": "optional"}


class CircleCase(StageCase):
    """A proxy whose backend is itself, by a way that the loop guard cannot see."""

    def enter(self, each: Words, *, header: bool) -> tuple[Theatre, Client]:
        """Let a client log in."""
        target = {"header": True} if header else {"settings": INTRODUCING}
        listener = HEADERS if header else TRUSTING
        stage = self.begin(
            Scene(
                protocol=each.protocol, listener=listener, target=target, advertised=words.PROMISES
            )
        )
        client = stage.enter("203.0.113.9")
        stage.ask(client, each.server.hello)
        stage.ask(client, each.logIn())
        return stage, client


class ChainTests(CircleCase):
    """Three of us in a row, and then a real backend."""

    def test_backendHearsOfTheFirstClient(self) -> None:
        """By XCLIENT or ID: address, port, the first session's name, and three hops less."""
        offers = {
            "imap": (b"* OK [CAPABILITY ID AUTH=PLAIN SASL-IR] hi\r\n", b"P1 ID "),
            "pop3": (b"+OK [XCLIENT] hi\r\n", b"XCLIENT "),
            "submission": (b"220 hi\r\n", b"XCLIENT "),
            "managesieve": (b'"XCLIENT" "ADDR PORT TTL SESSION"\r\nOK\r\n', b"XCLIENT "),
        }
        for each in words.ALL:
            stage, _ = self.enter(each, header=False)
            first = stage.registry.find()[0]
            stage.connect()
            stage.connect()
            greeting, told = offers[each.protocol]
            offer = b"250-mail\r\n250 XCLIENT ADDR PORT TTL SESSION\r\n"
            backend = Scripted(
                greeting, (b"EHLO there", offer), (b"CAPA", b"+OK\r\nSASL PLAIN\r\n.\r\n")
            )
            stage.take(backend)
            (said,) = [line for line in backend.said if line.startswith(told)]
            for value in (b"203.0.113.9", b"40000", b"4", first.id.encode()):
                self.assertRegex(said, rb"[=\"]%b([ \"]|\Z)" % value, each.protocol)
            self.assertNotIn(LOCAL.encode(), said)

    def test_backendSeesTheFirstClient(self) -> None:
        """By the PROXY header, with the hops in a field of ours."""
        for each in words.ALL:
            stage, _ = self.enter(each, header=True)
            stage.connect()
            stage.connect()
            backend = Scripted(b"")
            stage.take(backend)
            parsed = proxyheader.parse(backend.received)
            assert isinstance(parsed, tuple)
            header, size = parsed
            self.assertEqual(header.source, Address("203.0.113.9", 40000))
            self.assertEqual(header.tlvs, ((proxyheader.HOPS, b"\x04"),))
            self.assertEqual(len(backend.received), size)


class CircleTests(CircleCase):
    """A circle ends."""

    def lead(self, each: Words, *, header: bool) -> None:
        """Lead a login round until nobody is called any more."""
        stage, client = self.enter(each, header=header)
        client.take()
        stage.circle()
        self.assertEqual(len(stage.network.dialled), 6, each.protocol)
        heard = client.take()
        self.assertTrue(
            heard.endswith(b"\r\n") and each.server.unavailable.startswith(heard), heard
        )
        client.hangUp()
        stage.network.pump()
        self.assertNothingLeft(stage)
        self.assertIn("loop: no hop is left: proxies send sessions in a circle", self.ends()[0])
        self.events.clear()

    def test_byXCLIENT(self) -> None:
        """Each round costs a hop; at the last one the login is refused, and it is said why."""
        for each in words.ALL:
            self.lead(each, header=False)

    def test_withoutALogin(self) -> None:
        """Each of us hears the one before it first, so that the hops go round here too."""
        for protocol in ("smtp", "lmtp"):
            target = {"settings": INTRODUCING}
            stage = self.begin(Scene(protocol=protocol, listener=TRUSTING, target=target))
            client = stage.enter("203.0.113.9")
            stage.circle()
            self.assertEqual(len(stage.network.dialled), 6, protocol)
            self.assertTrue(client.take().startswith(b"421 "), protocol)
            client.hangUp()
            stage.network.pump()
            self.assertNothingLeft(stage)
            self.assertIn("loop: no hop is left", self.ends()[0])
            self.events.clear()

    def test_byPROXY(self) -> None:
        """The hops go along in the header."""
        for each in words.ALL:
            self.lead(each, header=True)

    def test_strangersHopsDoNotCount(self) -> None:
        """Nobody else can shorten a session, or lengthen a circle."""
        for each in words.ALL:
            for hops in (b"\x01", b"\xff"):
                stage = self.begin(
                    Scene(
                        protocol=each.protocol,
                        listener=HEADERS,
                        target={"header": True},
                        advertised=words.PROMISES,
                    )
                )
                client = stage.enter("203.0.113.9")
                self.assertTrue(client.take().startswith(each.greeting))
                forged = proxyheader.build(
                    Address("192.0.2.66", 1), Address("192.0.2.1", 1), [(proxyheader.HOPS, hops)]
                )
                stage.ask(client, forged + b"\r\n")
                if each is words.POP3:  # the header holds a line that says QUIT
                    self.assertNothingLeft(stage)
                    continue
                stage.ask(client, each.server.hello)
                stage.ask(client, each.logIn())
                backend = Scripted(b"")
                stage.take(backend)
                sent = proxyheader.build(
                    Address("203.0.113.9", 40000),
                    Address("192.0.2.1", 993),
                    [(proxyheader.HOPS, b"\x06")],
                )
                self.assertEqual(backend.received, sent)


class HeaderTests(StageCase):
    """PROXY headers in front of every protocol, pass-through too."""

    def test_optionalAndSilent(self) -> None:
        """A trusted peer without a header is greeted within a second; a stranger at once."""
        for each in words.ALL:
            for host, waits in ((LOCAL, 1.0), ("203.0.113.9", 0.0)):
                stage = self.begin(
                    Scene(protocol=each.protocol, listener=HEADERS, advertised=words.PROMISES)
                )
                client = stage.enter(host)
                if waits:
                    stage.network.advance(0.9)
                    self.assertEqual(client.received, b"")
                    stage.network.advance(0.1)
                self.assertTrue(client.take().startswith(each.greeting), each.protocol)

    def test_believedOrClosed(self) -> None:
        """`required`: a trusted peer's header names the client; without one there is no word."""
        required = {**HEADERS, "proxy_protocol": "required"}
        header = proxyheader.build(Address("203.0.113.9", 5000), Address("192.0.2.25", 143))
        for each in words.ALL:
            for host, said, served in (
                (LOCAL, header, True),
                (LOCAL, b"PROXY TCP4 203.0.113.9 192.0.2.25 5000 143\r\n", True),
                (LOCAL, each.logIn(), False),
                ("203.0.113.66", header, False),
            ):
                stage = self.begin(
                    Scene(protocol=each.protocol, listener=required, advertised=words.PROMISES)
                )
                client = stage.enter(host)
                stage.ask(client, b"")
                client.say(said)
                stage.network.pump()
                self.assertEqual(client.received != b"", served, each.protocol)
                self.assertEqual(client.lost is None, served)
                if served:
                    (session,) = stage.registry.find()
                    self.assertEqual(session.client, "203.0.113.9:5000")
