"""A leg that carries messages."""

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from mailproxy.errors import PeerGone
from mailproxy.http.bodies import CHUNKED, UNTIL_CLOSE, Framing, Kind
from mailproxy.http.heads import BadMessage
from mailproxy.http.leg import HTTPLeg
from tests.http.test_bodies import begin
from tests.support import Network, Peer, Segments, clientTLS, serverTLS


class LegCase(SynchronousTestCase):
    """A leg and its peer."""

    def setUp(self) -> None:
        """Connect them."""
        self.connect()

    def connect(self, segments: Segments = Segments.WHOLE, emptyLines: int = 0) -> None:
        """Connect a leg and a peer."""
        self.network = Network(segments)
        self.leg, self.peer = HTTPLeg(self.network), Peer()
        self.leg.emptyLines = emptyLines
        self.network.connect(self.leg, self.peer)

    def say(self, data: bytes) -> None:
        """Let the peer say something."""
        self.peer.say(data)
        self.network.pump()


class HeadTests(LegCase):
    """Heads."""

    def test_untilTheEmptyLine(self) -> None:
        """What is behind it stays, in whatever pieces it comes."""
        for segments in Segments:
            self.connect(segments)
            head = self.leg.readHead(100)
            self.say(b"a\r\nB: c\r\n\r\nrest")
            self.assertEqual(self.successResultOf(head), b"a\r\nB: c")
            self.assertEqual(self.leg.takeUnread(), b"rest")

    def test_limit(self) -> None:
        """The bytes of the whole head, its empty line among them."""
        for size, fits in ((20, True), (21, False)):
            for whole in (True, False):
                self.connect()
                head = self.leg.readHead(20)
                data = b"a" * (size - 4) + b"\r\n\r\n"
                self.say(data if whole else data[:-1])
                self.say(b"" if whole else data[-1:])
                if fits:
                    self.successResultOf(head)
                else:
                    error = self.failureResultOf(head, BadMessage).value
                    self.assertEqual(error.status, 431)

    def test_nonsenseIsRefusedEarly(self) -> None:
        """Nobody waits for the end of what cannot become a head."""
        for data in (b"\x16\x03", b"a\nb", b"a\r\rb", b"\n", b" "):
            for segments in Segments:
                self.connect(segments)
                head = self.leg.readHead(100)
                self.say(data)
                self.failureResultOf(head, BadMessage)

    def test_emptyLines(self) -> None:
        """As many as may be are passed over, in one piece or in several."""
        for segments in Segments:
            for lines, fits in ((1, True), (2, False)):
                self.connect(segments, emptyLines=1)
                head = self.leg.readHead(100)
                self.say(b"\r\n" * lines + b"a\r\n\r\n")
                if fits:
                    self.assertEqual(self.successResultOf(head), b"a")
                else:
                    self.failureResultOf(head, BadMessage)

    def test_manySmallPieces(self) -> None:
        """What has been searched is not searched again."""
        head = self.leg.readHead(60_000)
        for _ in range(5000):
            self.leg.dataReceived(b"a: b\r\n" if self.leg.unread else b"a\r\n")
        self.leg.dataReceived(b"\r\n")
        self.assertEqual(len(self.successResultOf(head)), 29_995)

    def test_lostPeer(self) -> None:
        """Half a head is none."""
        head = self.leg.readHead(100)
        self.say(b"GET")
        self.peer.hangUp()
        self.network.pump()
        self.failureResultOf(head, PeerGone)


class BodyTests(LegCase):
    """Bodies."""

    def read(self, framing: Framing) -> "Deferred[bytes]":
        """Read a whole body."""
        body = begin(framing)

        async def all() -> bytes:
            payload = b""
            while part := await self.leg.readBody(body):
                payload += part
            return payload

        return Deferred.fromCoroutine(all())

    def test_untilItsEnd(self) -> None:
        """What is behind it stays."""
        for framing, wire in (
            (Framing(Kind.LENGTH, 3), b"abc"),
            (CHUNKED, b"1\r\na\r\n2\r\nbc\r\n0\r\nX: y\r\n\r\n"),
        ):
            for segments in Segments:
                self.connect(segments)
                payload = self.read(framing)
                self.say(wire + b"rest")
                self.assertEqual(self.successResultOf(payload), b"abc")
                self.assertEqual(self.leg.takeUnread(), b"rest")

    def test_nothing(self) -> None:
        """Is read at once, and nothing else with it."""
        self.say(b"rest")
        self.assertEqual(self.successResultOf(self.read(Framing(Kind.LENGTH, 0))), b"")
        self.assertEqual(self.leg.unread, 4)

    def test_untilTheConnectionsEnd(self) -> None:
        """A closed one, or one that has been ended; not one that was lost."""
        for end, whole in (("finish", True), ("hangUp", True), ("reset", False)):
            self.connect()
            payload = self.read(UNTIL_CLOSE)
            self.say(b"abc")
            getattr(self.peer, end)()
            self.network.pump()
            if whole:
                self.assertEqual(self.successResultOf(payload), b"abc")
            else:
                self.failureResultOf(payload, PeerGone)

    def test_cutShort(self) -> None:
        """A peer that goes amid it."""
        for framing in (Framing(Kind.LENGTH, 4), CHUNKED):
            self.connect()
            payload = self.read(framing)
            self.say(b"3\r\n")
            self.peer.finish()
            self.network.pump()
            self.failureResultOf(payload, PeerGone)

    def test_truncatedTLSIsNoEnd(self) -> None:
        """Anybody on the way can end a TCP connection."""
        for end, whole in (("finish", True), ("truncate", False)):
            self.connect()
            self.leg.startTLS(serverTLS())
            self.peer.startTLS(clientTLS())
            self.network.pump()
            payload = self.read(UNTIL_CLOSE)
            self.say(b"abc")
            getattr(self.peer, end)()
            self.network.pump()
            if whole:
                self.assertEqual(self.successResultOf(payload), b"abc")
            else:
                self.failureResultOf(payload, PeerGone)


class DrainTests(LegCase):
    """What the peer has yet to take."""

    def fill(self) -> None:
        """Write more than the peer takes."""
        self.peer.stopReading()
        for _ in range(10):
            self.leg.send(b"x" * 50_000)
        self.network.pump()

    def test_waitsUntilTaken(self) -> None:
        """Reading goes on meanwhile."""
        self.successResultOf(self.leg.drained())
        self.fill()
        self.assertTrue(self.leg.blocked)
        drained = self.leg.drained()
        readable = self.leg.readable()
        self.assertNoResult(drained)
        self.say(b"stop")
        self.successResultOf(readable)
        self.peer.startReading()
        self.network.pump()
        self.successResultOf(drained)
        self.assertFalse(self.leg.blocked)

    def test_lostPeer(self) -> None:
        """Takes nothing any more."""
        self.fill()
        drained = self.leg.drained()
        self.peer.reset()
        self.network.pump()
        self.failureResultOf(drained, PeerGone)
        self.failureResultOf(self.leg.drained(), PeerGone)

    def test_cancelled(self) -> None:
        """Who has given up is not called back."""
        self.fill()
        drained = self.leg.drained()
        drained.cancel()
        self.failureResultOf(drained, CancelledError)
        self.peer.startReading()
        self.network.pump()
        self.assertFalse(self.leg.blocked)

    def test_cancelledAsThePeerGoes(self) -> None:
        """Likewise: whoever hears of it may give up first."""
        self.fill()
        drained = self.leg.drained()
        self.leg.whenLost = drained.cancel
        self.peer.reset()
        self.network.pump()
        self.failureResultOf(drained, CancelledError)
