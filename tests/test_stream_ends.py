"""How a stream changes: TLS begins, the bridge takes over, or it is closed."""

from twisted.internet.defer import CancelledError
from twisted.internet.error import ConnectionLost
from twisted.python.failure import Failure

from mailproxy.errors import PeerGone
from mailproxy.stream import CLOSE_GRACE, Stream
from tests.support import Segments, serverTLS
from tests.test_stream import StreamCase


class Notes:
    """A detached stream's receiver: notes what it is told."""

    def __init__(self) -> None:
        self.data = b""
        self.ends = 0
        self.lost: Failure | None = None

    def dataReceived(self, data: bytes) -> None:
        """Note it."""
        self.data += data

    def readConnectionLost(self) -> None:
        """Note it."""
        self.ends += 1

    def connectionLost(self, reason: Failure) -> None:
        """Note it."""
        self.lost = reason


class TLSTests(StreamCase):
    """TLS begins on a connection that has been spoken on."""

    def test_whatWasSentBeforeIsDropped(self) -> None:
        """Injection: a command behind STARTTLS in the clear is never read as if it came by TLS."""
        for segments in Segments:
            self.join(segments)
            self.peer.say(b"a STARTTLS\r\nb LOGIN evil evil\r\n")
            line = self.stream.readLine()
            self.network.pump()
            self.assertEqual(self.successResultOf(line), b"a STARTTLS")
            self.secure()
            self.assertTrue(self.stream.secure)
            self.assertEqual(self.stream.unread, 0)
            line = self.stream.readLine()
            self.hear(b"c NOOP\r\n")
            self.assertEqual(self.successResultOf(line), b"c NOOP")

    def test_theFirstBytesBelongToTheHandshake(self) -> None:
        """What came behind a PROXY header is TLS's own."""
        self.join(Segments.LINES)
        self.peer.startTLS()
        self.network.pump()
        first = self.stream.takeUnread()
        self.assertEqual(first[:1], b"\x16")
        started = self.stream.startTLS(serverTLS(), first)
        self.network.pump()
        self.successResultOf(started)
        self.assertTrue(self.peer.shaken)

    def test_dataInTheLastFlightIsRead(self) -> None:
        """A client may speak in the segment that ends the handshake."""
        for segments in Segments:
            self.join(segments)
            started = self.stream.startTLS(serverTLS())
            self.peer.startTLS()
            self.peer.say(b"a NOOP\r\n")  # gathered until the handshake is through
            self.network.pump()
            self.successResultOf(started)
            self.assertEqual(self.successResultOf(self.stream.readLine()), b"a NOOP")

    def test_aFailedHandshakeTellsWhy(self) -> None:
        """Who speaks no TLS is gone, and the reason is kept; the watcher hears once."""
        notes: list[str] = []
        self.stream.whenLost = lambda: notes.append("left")
        started = self.stream.startTLS(serverTLS())
        self.hear(b"EHLO this is no TLS at all\r\n")
        gone = self.failureResultOf(started, PeerGone)
        self.assertIsNotNone(gone.value.__cause__)
        self.assertEqual(notes, ["left"])
        self.assertFalse(self.stream.secure)

    def test_aHandshakeCanBeCancelled(self) -> None:
        """The connection is cut, quietly, and the watcher hears."""
        notes: list[str] = []
        self.stream.whenLost = lambda: notes.append("left")
        started = self.stream.startTLS(serverTLS())
        self.network.pump()
        started.cancel()
        self.failureResultOf(started, CancelledError)
        self.network.pump()
        self.assertEqual(self.flushLoggedErrors(), [])
        self.assertEqual(notes, ["left"])
        self.assertOver()

    def test_answersThatPileUpDoNotHoldTheHandshake(self) -> None:
        """A client that reads its answers late can still begin TLS."""
        self.join(room=1000)
        self.peer.stopReading()
        self.stream.send(b"x" * 70_000)
        started = self.stream.startTLS(serverTLS())
        self.peer.startReading()
        self.network.pump()
        self.peer.startTLS()
        self.network.pump()
        self.successResultOf(started)

    def test_aClosingStreamStartsNoTLS(self) -> None:
        """It is as good as gone."""
        self.stream.close()
        self.failureResultOf(self.stream.startTLS(serverTLS()), PeerGone)


class CloseTests(StreamCase):
    """Our last words arrive, and no peer keeps us."""

    def test_theLastWordsArrive(self) -> None:
        """Although the peer had sent what we never read: dropping it first avoids a reset."""
        self.peer.say(b"unread\r\n")
        self.network.pump()
        self.stream.send(b"* BYE\r\n")
        self.stream.close()
        self.peer.say(b"more\r\n" * 10_000)
        self.network.pump()
        self.assertEqual(self.peer.received, b"* BYE\r\n")
        self.assertTrue(self.peer.ended)
        self.assertIsNone(self.peer.lost)
        self.peer.hangUp()
        self.network.pump()
        self.assertOver()
        self.assertEqual(self.stream.unread, 0)

    def test_nothingIsSentAfterClosing(self) -> None:
        """The last words were the last."""
        self.stream.close()
        self.stream.send(b"one more thing")
        self.network.pump()
        self.assertEqual(self.peer.received, b"")

    def test_whoDoesNotCloseIsCut(self) -> None:
        """A peer that ignores our FIN, even while it goes on sending, has the grace and no more."""
        self.stream.close()
        for _ in range(int(CLOSE_GRACE * 10) - 1):
            self.peer.say(b"drip")
            self.network.advance(0.1)
        self.assertFalse(self.stream.lost)
        self.network.advance(0.2)
        self.assertOver()

    def test_whoTakesNothingIsCut(self) -> None:
        """A peer that never reads our last words does not keep us either."""
        self.join(room=100)
        self.peer.stopReading()
        self.stream.send(b"x" * 100_000)
        self.stream.close(grace=2)
        self.network.advance(1.9)
        self.assertFalse(self.stream.lost)
        self.network.advance(0.2)
        self.assertTrue(self.stream.lost)
        self.assertEqual(self.network.getDelayedCalls(), [])

    def test_whoTakesSlowlyGetsTheEnd(self) -> None:
        """However long it takes, on plain and on TLS, and although it sends on."""
        for isSecure in (False, True):
            self.join(room=16_384)
            if isSecure:
                self.secure()
            self.peer.stopReading()
            self.stream.send(b"x" * 150_000)
            self.stream.close()
            while len(self.peer.received) < 150_000:
                self.network.advance(CLOSE_GRACE - 0.1)
                self.assertFalse(self.stream.lost)
                self.peer.transport.doRead()  # at most what a socket buffer holds
                self.peer.say(b"drip")
            self.peer.startReading()
            self.peer.hangUp()
            self.network.advance(1)
            self.assertOver()

    def test_whoPausesHasTheGrace(self) -> None:
        """Also when all of our words are on their way; then a little time to close."""
        self.join(room=1 << 20)
        self.peer.stopReading()
        self.stream.send(b"x" * 10_000)
        self.stream.close(grace=60)
        self.network.pump()
        self.network.advance(55)
        self.assertFalse(self.stream.lost)
        self.peer.startReading()
        self.network.pump()
        self.assertEqual(self.peer.received, b"x" * 10_000)
        for _ in range(2):
            self.network.advance(CLOSE_GRACE)
        self.assertOver()

    def test_whoHasEndedIsClosedAtOnce(self) -> None:
        """After the peer's FIN there is nothing to wait for but our own words."""
        self.peer.finish()
        self.network.pump()
        self.stream.send(b"* BYE\r\n")
        self.stream.close()
        self.network.pump()
        self.assertEqual(self.peer.received, b"* BYE\r\n")
        self.assertOver()

    def test_closingTwiceIsClosingOnce(self) -> None:
        """The second time nothing happens."""
        self.stream.close()
        self.stream.close()
        self.assertEqual(len(self.network.getDelayedCalls()), 1)

    def test_aPausedPeerIsReadAgain(self) -> None:
        """Its flood is dropped, not left to turn our close into a reset."""
        self.join(room=1 << 20)
        self.hear(b"x" * 500_000)
        self.stream.send(b"* BYE\r\n")
        self.stream.close()
        self.network.pump()
        self.peer.hangUp()
        self.network.pump()
        self.assertEqual(self.peer.received, b"* BYE\r\n")
        self.assertOver()

    def test_aReaderThatIsLeftWaitingIsTold(self) -> None:
        """Whoever closes under a reader fails it once the peer is gone."""
        line = self.stream.readLine()
        self.stream.close()
        self.peer.hangUp()
        self.network.pump()
        self.failureResultOf(line, PeerGone)

    def test_anAbortWaitsForNothing(self) -> None:
        """Neither for what is unsent nor for a peer that reads; who waits is told."""
        self.join(room=100)
        self.peer.stopReading()
        self.stream.send(b"x" * 100_000)
        line = self.stream.readLine()
        self.stream.abort()
        self.stream.abort()
        self.network.pump()
        self.failureResultOf(line, PeerGone)
        self.assertOver()

    def test_TLSIsEndedByANotice(self) -> None:
        """The peer can tell our close from an attacker's cut: its reason is a clean one."""
        self.secure()
        self.stream.send(b"* BYE\r\n")
        self.stream.close()
        self.network.pump()
        self.assertEqual(self.peer.received, b"* BYE\r\n")
        if self.peer.lost is None:  # it may go on: only our side has ended
            self.assertTrue(self.peer.ended)
            self.peer.hangUp()
            self.network.pump()
        assert self.peer.lost is not None
        self.assertIsNone(self.peer.lost.check(ConnectionLost))
        self.assertOver()

    def test_aTLSPeerThatDoesNotAnswerIsCut(self) -> None:
        """The notice is answered within the grace, or not at all."""
        self.secure()
        self.peer.stopReading()
        self.stream.close()
        self.network.advance(CLOSE_GRACE - 0.1)
        self.assertFalse(self.stream.lost)
        self.network.advance(0.2)
        self.assertTrue(self.stream.lost)
        self.assertEqual(self.network.getDelayedCalls(), [])

    def test_closingDuringAHandshakeEnds(self) -> None:
        """Within the grace, and the handshake's waiter is told."""
        started = self.stream.startTLS(serverTLS())
        self.stream.close()
        self.network.advance(CLOSE_GRACE + 0.1)
        self.failureResultOf(started, PeerGone)
        self.assertTrue(self.stream.lost)
        self.assertEqual(self.network.getDelayedCalls(), [])


class DetachTests(StreamCase):
    """Handing over to the bridge."""

    def test_theUnreadBytesComeFirst(self) -> None:
        """What was pipelined is given, what follows is passed on: each byte once, in order."""
        for segments in Segments:
            self.join(segments)
            self.hear(b"a LOGIN\r\nb SELECT\r\nc ")
            self.assertEqual(self.successResultOf(self.stream.readLine()), b"a LOGIN")
            notes = Notes()
            first = self.stream.detach(notes)
            self.hear(b"NOOP\r\n")
            self.assertEqual(first + notes.data, b"b SELECT\r\nc NOOP\r\n")
            self.assertEqual(self.stream.unread, 0)

    def test_eventsArePassedOn(self) -> None:
        """The receiver hears of both ends; nobody else does."""
        left: list[str] = []
        self.stream.whenLost = lambda: left.append("left")
        notes = Notes()
        self.stream.detach(notes)
        self.peer.finish()
        self.network.pump()
        self.assertEqual(notes.ends, 1)
        self.assertIsNone(notes.lost)
        self.stream.close()
        self.network.pump()
        self.assertIsNotNone(notes.lost)
        self.assertEqual(left, [])

    def test_theProducerIsFree(self) -> None:
        """Another producer can be registered, on plain and on TLS; a paused peer is read again."""
        for isSecure in (False, True):
            self.join(room=1 << 20)
            if isSecure:
                self.secure()
            self.hear(b"x" * 200_000)
            notes = Notes()
            first = self.stream.detach(notes)
            self.stream.transport.registerProducer(Stream(self.network), True)
            self.network.pump()
            self.assertEqual(len(first + notes.data), 200_000)

    def test_aLostStreamCanBeDetached(self) -> None:
        """Its unread bytes are there; nothing is asked of the transport that is gone."""
        for isSecure in (False, True) if self.medium.resets else (True,):
            self.join()
            if isSecure:
                self.secure()
            self.hear(b"last words")
            self.peer.reset()
            self.network.advance(0)
            self.assertTrue(self.stream.lost)
            notes = Notes()
            self.assertEqual(self.stream.detach(notes), b"last words")
            self.assertEqual((notes.data, notes.lost), (b"", None))
