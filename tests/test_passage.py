"""Sessions without a login: SMTP and LMTP, bridged from the first byte."""

from collections.abc import Iterator
from typing import Any, ClassVar

import attrs
from twisted.internet.error import ConnectionRefusedError

from mailproxy import proxyheader
from mailproxy.errors import Stage
from mailproxy.origin import Address
from tests.dialling import LOCAL, Scripted
from tests.protocols.backend import PLAINTEXT
from tests.stage import OLD_HOST, Client, Scene, StageCase
from tests.stage import Stage as Theatre
from tests.support import Peer, Segments

AWAY = b"421 4.3.2 Temporarily unavailable, try again later.\r\n"
INTRODUCING = {"settings": attrs.evolve(PLAINTEXT, introduces=True)}
TOLD = b"XCLIENT ADDR=198.51.100.7 PORT=40000"
OFFER = b"250-mx\r\n250 XCLIENT ADDR PORT\r\n"


class PassageCase(StageCase):
    """A client that is dialled for as soon as it is there.

    :cvar segments: how everything arrives.
    """

    segments: ClassVar[Segments] = Segments.WHOLE

    def arrive(self, protocol: str = "smtp", **scene: Any) -> tuple[Theatre, Client]:
        """Let a client in."""
        stage = self.begin(Scene(self.segments, protocol, **scene))
        return stage, stage.enter()

    def both(self, **scene: Any) -> Iterator[tuple[Theatre, Client]]:
        """A client of each protocol."""
        for protocol in ("smtp", "lmtp"):
            yield self.arrive(protocol, **scene)

    def assertAway(self, stage: Theatre, client: Client) -> None:
        """The client hears 421 once, and is closed."""
        stage.network.pump()
        self.assertEqual(client.take(), AWAY)
        self.assertNothingLeft(stage)


class BridgeTests(PassageCase):
    """First byte to last."""

    def test_everyByteIsTheBackends(self) -> None:
        """Its greeting is the first that a client hears; whatever is said then, goes through."""
        for stage, client in self.both():
            self.assertEqual(stage.network.call.host, OLD_HOST)
            self.assertEqual(client.take(), b"")
            backend = Peer()
            stage.take(backend)
            self.assertEqual(stage.ask(backend, b"220 mx\r\n"), b"")
            self.assertEqual(client.take(), b"220 mx\r\n")
            client.say(b"EHLO x\r\nXCLIENT ADDR=192.0.2.66\r\n\0\xff\n.\r\r\n")
            stage.network.pump()
            self.assertEqual(
                backend.take(), b"EHLO x\r\nXCLIENT ADDR=192.0.2.66\r\n\0\xff\n.\r\r\n"
            )
            client.hangUp()
            stage.network.pump()
            backend.hangUp()
            stage.network.pump()
            self.assertNothingLeft(stage)

    def test_hastyClientLosesNothing(self) -> None:
        """What it says before there is a backend waits for it."""
        for stage, client in self.both():
            stage.ask(client, b"EHLO x\r\nNO")
            backend = Peer()
            stage.take(backend)
            self.assertEqual(backend.take(), b"EHLO x\r\nNO")
            client.say(b"OP\r\n")
            stage.network.pump()
            self.assertEqual(backend.take(), b"OP\r\n")

    def test_sessionIsOnFile(self) -> None:
        """Under its destination, without an account; it can be kicked."""
        stage, client = self.arrive()
        (session,) = stage.registry.find(destination="old", protocol="smtp")
        self.assertIsNone(session.identifier)
        backend = Peer()
        stage.take(backend)
        session.kick()
        stage.network.pump()
        self.assertEqual(client.take(), b"")
        self.assertIsNotNone(client.lost)

    def test_header(self) -> None:
        """A PROXY header goes first, and names the client."""
        for stage, client in self.both(target={"header": True}):
            backend = Peer()
            stage.take(backend)
            hops = [(proxyheader.HOPS, b"\x06")]
            client_ = Address("198.51.100.7", 40000)
            expected = proxyheader.build(client_, Address("192.0.2.1", 993), hops)
            self.assertEqual(backend.take(), expected)
            stage.ask(client, b"EHLO x\r\n")
            self.assertEqual(backend.take(), b"EHLO x\r\n")


class IntroductionTests(PassageCase):
    """`forwarding = "xclient"`: a trusted proxy does not lend its trust."""

    def test_clientIsIntroducedBeforeItIsHeard(self) -> None:
        """No byte of it goes before, whatever it says; then all of it goes, unchanged."""
        for stage, client in self.both(target=INTRODUCING):
            stage.ask(client, b"EHLO mallory\r\nXCLIENT ADDR=127.0.0.1\r\n")
            lmtp = stage.config.protocol == "lmtp"
            hello = b"LHLO [198.51.100.7]" if lmtp else b"EHLO [198.51.100.7]"
            backend = Scripted(b"220 first\r\n", (hello, OFFER))
            stage.take(backend)
            self.assertEqual(backend.said, [hello, TOLD])
            self.assertEqual(client.take(), b"")
            stage.ask(backend, b"220 second\r\n")
            self.assertEqual(client.take(), b"220 second\r\n")
            self.assertEqual(backend.said[2:], [b"EHLO mallory", b"XCLIENT ADDR=127.0.0.1"])

    def test_backendThatCannotBeTold(self) -> None:
        """It would take every client for us: 421."""
        for offer in (b"250 mx\r\n", b"250-mx\r\n250 XCLIENT NAME\r\n"):
            for stage, client in self.both(target=INTRODUCING):
                backend = Scripted(b"220 mx\r\n", (b"EHLO", offer), (b"LHLO", offer))
                stage.take(backend)
                self.assertAway(stage, client)
                self.assertEqual(len(backend.said), 1)

    def test_backendThatRefusesToBeTold(self) -> None:
        """Likewise."""
        for stage, client in self.both(target=INTRODUCING):
            refusal = (b"XCLIENT", b"550 5.7.0 insufficient authorization\r\n")
            stage.take(Scripted(b"220 mx\r\n", (b"EHLO", OFFER), (b"LHLO", OFFER), refusal))
            self.assertAway(stage, client)

    def test_clientBehindAnotherProxy(self) -> None:
        """Its address is the one that the PROXY header has named."""
        listener = {"proxy_protocol": "required", "proxy_trusted": ["198.51.100.7/32"]}
        stage, client = self.arrive(target=INTRODUCING, listener=listener)
        stage.ask(client, b"PROXY TCP4 203.0.113.9 192.0.2.25 5000 25\r\n")
        backend = Scripted(b"220 mx\r\n", (b"EHLO [203.0.113.9]", OFFER))
        stage.take(backend)
        self.assertEqual(backend.said[1], b"XCLIENT ADDR=203.0.113.9 PORT=5000")


class AwayTests(PassageCase):
    """421 when there is no backend; said once."""

    def test_nobodyThere(self) -> None:
        """Refused, or no answer in time."""
        for stage, client in self.both():
            stage.network.call.refuse(ConnectionRefusedError())
            self.assertAway(stage, client)
        for stage, client in self.both():
            stage.network.advance(10)
            self.assertAway(stage, client)

    def test_openCircuit(self) -> None:
        """A destination that is down is not called."""
        for protocol in ("smtp", "lmtp"):
            stage = self.begin(Scene(protocol=protocol))
            for _ in range(3):
                stage.health.admit("old").failed(Stage.CONNECT, "192.0.2.9")
            self.assertAway(stage, stage.enter())
            self.assertEqual(stage.network.dialled, [])

    def test_backendThatRefusesItself(self) -> None:
        """Where we hear its greeting; else the client does."""
        for stage, client in self.both(target=INTRODUCING):
            stage.take(Scripted(b"554 no\r\n"))
            self.assertAway(stage, client)
        for stage, client in self.both():
            stage.take(Scripted(b"554 no\r\n"))
            self.assertEqual(client.take(), b"554 no\r\n")

    def test_stopping(self) -> None:
        """A client that waits for its backend is told; one that is bridged is not yet."""
        stage, client = self.arrive()
        (session,) = stage.registry.find()
        session.shutDown(bridged=False)
        stage.network.pump()
        self.assertRegex(client.take(), rb"\A421 4\.3\.2 Server shutting down[^\r]*\r\n\Z")
        self.assertNothingLeft(stage)

    def test_clientThatLeaves(self) -> None:
        """The call is given up."""
        for stage, client in self.both():
            client.hangUp()
            stage.network.pump()
            self.assertNothingLeft(stage)

    def test_circleEnds(self) -> None:
        """Under `proxy` by the hops in the header."""
        listener = {"proxy_protocol": "optional", "proxy_trusted": [LOCAL + "/32"]}
        for stage, client in self.both(target={"header": True}, listener=listener):
            stage.circle()
            self.assertEqual(len(stage.network.dialled), 6)
            self.assertEqual(client.take(), AWAY)
            self.assertIn("loop: no hop is left", self.ends()[0])
            self.events.clear()


class LinesTests(BridgeTests, IntroductionTests):
    """The same, one line per segment."""

    segments = Segments.LINES


class BytesTests(BridgeTests, IntroductionTests):
    """The same, one byte per segment."""

    segments = Segments.BYTES


TRUSTED_PEER = "198.51.100.7"
TRUSTING = {"proxy_trusted": [f"{TRUSTED_PEER}/32"]}
OFFERED = b"XCLIENT ADDR PORT PROTO HELO DESTADDR DESTPORT SESSION TTL\r\n"


class TrustedPeerTests(PassageCase):
    """Who may speak for others is heard before the backend is dialled."""

    def hear(self) -> tuple[Theatre, Client]:
        """A trusted peer that has greeted us and seen that it may introduce its client."""
        stage, client = self.arrive(listener=TRUSTING)
        self.assertTrue(client.take().startswith(b"220 "))
        self.assertTrue(stage.ask(client, b"EHLO proxy.example\r\n").endswith(OFFERED))
        self.assertEqual(stage.network.dialled, [])
        return stage, client

    def test_theBackendsGreetingAnswersTheIntroduction(self) -> None:
        """From there on the client hears the backend, which hears of the client."""
        stage, client = self.hear()
        client.say(b"XCLIENT ADDR=203.0.113.5 PORT=4321 TTL=3\r\n")
        stage.network.pump()
        backend = Peer()
        stage.take(backend)
        self.assertEqual(client.take(), b"")
        backend.say(b"220 mx\r\n")
        stage.network.pump()
        self.assertEqual(client.take(), b"220 mx\r\n")
        self.assertEqual(stage.registry.find()[0].client, "203.0.113.5:4321")

    def test_aCircleRunsOutOfHops(self) -> None:
        """The introduction carries the hops; at the last one nobody is dialled any more."""
        stage, client = self.hear()
        client.say(b"XCLIENT ADDR=203.0.113.5 PORT=4321 TTL=1\r\n")
        self.assertAway(stage, client)
        self.assertEqual(stage.network.dialled, [])
        self.assertIn("loop: no hop is left", self.ends()[0])

    def test_aTrustedPeerNeedNotIntroduceAnybody(self) -> None:
        """What it says next is the backend's to answer, which is greeted in its name first."""
        stage, client = self.hear()
        client.say(b"MAIL FROM:<a@example.com>\r\n")
        stage.network.pump()
        backend = Peer()
        stage.take(backend)
        self.assertEqual(stage.ask(backend, b"220 mx\r\n"), b"EHLO proxy.example\r\n")
        said = stage.ask(backend, b"250-mx\r\n250 PIPELINING\r\n")
        self.assertEqual(said, b"MAIL FROM:<a@example.com>\r\n")
        self.assertEqual(client.take(), b"")
        backend.say(b"250 ok\r\n")
        stage.network.pump()
        self.assertEqual(client.take(), b"250 ok\r\n")

    def test_nonsenseIsAMistake(self) -> None:
        """A malformed introduction introduces nobody."""
        stage, client = self.hear()
        self.assertTrue(stage.ask(client, b"XCLIENT ADDR\r\n").startswith(b"50"))
        self.assertTrue(stage.ask(client, b"QUIT\r\n").startswith(b"221 "))
        self.assertEqual(stage.network.dialled, [])

    def test_whomThePeerDoesNotNameIsNotHeard(self) -> None:
        """A header without addresses lends nobody the peer's rights: no XCLIENT is offered."""
        listener = {**TRUSTING, "proxy_protocol": "required"}
        for header in (proxyheader.build(None, None), b"PROXY UNKNOWN\r\n"):
            stage, client = self.arrive(listener=listener)
            client.say(header + b"EHLO x\r\nXCLIENT ADDR=127.0.0.1\r\n")
            stage.network.pump()
            self.assertEqual(client.take(), b"")
            backend = Peer()
            stage.take(backend)
            self.assertEqual(backend.take(), b"EHLO x\r\nXCLIENT ADDR=127.0.0.1\r\n")
            self.assertEqual(stage.registry.find()[0].client.partition(":")[0], TRUSTED_PEER)

    def test_noHeaderOfOursSaysThatItIsThePeer(self) -> None:
        """Who cannot be named is not passed through by header: the address would be the peer's."""
        listener = {**TRUSTING, "proxy_protocol": "required"}
        stage, client = self.arrive(listener=listener, target={"header": True})
        client.say(b"PROXY UNKNOWN\r\n")
        self.assertAway(stage, client)
        self.assertEqual(stage.network.dialled, [])

    def test_aLineWithoutAnEndIsAnswered(self) -> None:
        """And the peer is sent away."""
        stage, client = self.hear()
        client.say(b"x" * 70_000)
        stage.network.pump()
        self.assertTrue(client.take().startswith(b"500 "))


class HealthTests(PassageCase):
    """What a bare call says of a destination."""

    def test_itDoesNotExcuseWhatHappenedBehindTheDoor(self) -> None:
        """A streak of failures past the connection goes on."""
        stage, _ = self.arrive()
        stage.health.admit("old").failed(Stage.TLS, "192.0.2.1")
        stage.take(Peer())
        (report,) = stage.health.report(["old"])
        self.assertEqual(report.consecutiveFailures, 1)

    def test_itEndsAStreakOfCallsInVain(self) -> None:
        """The host takes calls again."""
        stage, _ = self.arrive()
        stage.health.admit("old").failed(Stage.CONNECT, "192.0.2.1")
        stage.take(Peer())
        (report,) = stage.health.report(["old"])
        self.assertEqual(report.consecutiveFailures, 0)
