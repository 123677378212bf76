"""One leg as a stream: lines and counts in, bytes out, and a peer that may go at any time."""

from typing import ClassVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IHalfCloseableProtocol, IHandshakeListener, IPushProducer
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mailproxy.errors import LimitExceeded, PeerGone
from mailproxy.stream import MAX_LINE, MAX_UNREAD, Stream
from tests.support import Network, Peer, Segments, serverTLS


class StrictStream(Stream):
    """A stream whose lines end in CRLF only."""

    lineEnd = b"\r\n"


class CountingBuffer(bytearray):
    """Counts the bytes that searches look at."""

    scanned = 0

    def find(self, *arguments: object) -> int:
        """Search, and note how much lay before us."""
        _, start, stop = arguments
        assert isinstance(start, int) and isinstance(stop, int)
        self.scanned += max(0, min(stop, len(self)) - start)
        return super().find(*arguments)  # type: ignore[arg-type]


class StreamCase(SynchronousTestCase):
    """A stream and its peer.

    :cvar medium: what they are joined by.
    """

    medium: ClassVar[type[Network]] = Network

    def setUp(self) -> None:
        """Join them, unsegmented."""
        self.join()

    def join(
        self, segments: Segments = Segments.WHOLE, kind: type[Stream] = Stream, room: int = 65536
    ) -> None:
        """Join a new stream with a new peer."""
        self.network = self.medium(segments, room)
        self.stream = kind(self.network)
        self.peer = Peer()
        self.network.connect(self.stream, self.peer)

    def hear(self, data: bytes) -> None:
        """Let the peer say something, and have it arrive."""
        self.peer.say(data)
        self.network.pump()

    def secure(self) -> None:
        """Put TLS on, the stream being the server."""
        started = self.stream.startTLS(serverTLS())
        self.peer.startTLS()
        self.network.pump()
        self.successResultOf(started)

    def assertOver(self) -> None:
        """The connection is gone, and nothing waits in the clock."""
        self.assertTrue(self.stream.lost)
        self.assertEqual(self.network.getDelayedCalls(), [])


class LineTests(StreamCase):
    """Reading lines."""

    def test_itIsWhatItsTransportExpects(self) -> None:
        """It hears of half-close and handshakes, and is the producer of its own answers."""
        for interface in (IHalfCloseableProtocol, IHandshakeListener, IPushProducer):
            verifyObject(interface, self.stream)

    def test_linesAreTheSameHoweverTheyAreCut(self) -> None:
        """CRLF, bare LF, empty lines, and a CRLF split over two segments, in every cut."""
        for segments in Segments:
            self.join(segments)
            self.peer.say(b"one\r\ntwo\n\r\n\nfi\rve\r\n")
            lines = []
            for _ in range(5):
                line = self.stream.readLine()
                self.network.pump()
                lines.append(self.successResultOf(line))
            self.assertEqual(lines, [b"one", b"two", b"", b"", b"fi\rve"], segments)

    def test_aCRAndItsLFMayComeApart(self) -> None:
        """The CR at the end of a segment belongs to the line end that follows."""
        line = self.stream.readLine()
        self.hear(b"one\r")
        self.assertNoResult(line)
        self.hear(b"\ntwo")
        self.assertEqual(self.successResultOf(line), b"one")
        self.assertEqual(self.stream.takeUnread(), b"two")

    def test_aBareLFEndsNoStrictLine(self) -> None:
        """Where CRLF is asked for, a bare LF and a bare CR are part of the line: no smuggling."""
        for segments in Segments:
            self.join(segments, StrictStream)
            line = self.stream.readLine()
            self.hear(b"MAIL\nRCPT\rDATA\r\r\nQUIT\r\n")
            self.assertEqual(self.successResultOf(line), b"MAIL\nRCPT\rDATA\r")
            line = self.stream.readLine()
            self.network.pump()
            self.assertEqual(self.successResultOf(line), b"QUIT")

    def test_theLimitIsExact(self) -> None:
        """A line of 64 KiB is read, however it ends; one byte more is not."""
        fits, over = b"x" * MAX_LINE, b"x" * (MAX_LINE + 1)
        for kind, end in ((Stream, b"\n"), (Stream, b"\r\n"), (StrictStream, b"\r\n")):
            self.join(kind=kind, room=1 << 20)
            line = self.stream.readLine()
            self.hear(fits + end)
            self.assertEqual(self.successResultOf(line), fits, end)
            line = self.stream.readLine()
            self.hear(over + end)
            self.failureResultOf(line, LimitExceeded)

    def test_theLimitDoesNotDependOnTheCut(self) -> None:
        """A line of just 64 KiB may come in any segments: before its end, within it, after it."""
        for kind, end in ((Stream, b"\n"), (Stream, b"\r\n"), (StrictStream, b"\r\n")):
            for cut in range(MAX_LINE - 1, MAX_LINE + len(end) + 1):
                self.join(kind=kind, room=1 << 20)
                line = self.stream.readLine()
                whole = b"x" * MAX_LINE + end
                self.hear(whole[:cut])
                self.hear(whole[cut:])
                self.assertEqual(len(self.successResultOf(line)), MAX_LINE, (end, cut))

    def test_aLineWithoutEndIsRefusedEarly(self) -> None:
        """Whoever never ends a line is not listened to for ever."""
        line = self.stream.readLine()
        self.hear(b"x" * (MAX_LINE + 2))
        self.failureResultOf(line, LimitExceeded)

    def test_aLineTooLongThatIsHereAlreadyIsRefusedToo(self) -> None:
        """The limit holds for who reads late."""
        self.join(room=1 << 20)
        self.hear(b"x" * (MAX_LINE + 1) + b"\n")
        self.failureResultOf(self.stream.readLine(), LimitExceeded)

    def test_oneBytePerSegmentIsNotQuadratic(self) -> None:
        """What was searched for a line's end is not searched again."""
        for kind in (Stream, StrictStream):
            self.join(Segments.BYTES, kind)
            self.stream._buffer = buffer = CountingBuffer()
            line = self.stream.readLine()
            self.hear(b"x" * 20_000 + b"\r\n")
            self.assertEqual(len(self.successResultOf(line)), 20_000)
            self.assertLess(buffer.scanned, 3 * 20_002)

    def test_manyLinesAtOnceDoNotRecurse(self) -> None:
        """9,000 commands in one segment are served one after the other, in order."""
        served: list[bytes] = []

        async def serve() -> None:
            while True:
                served.append(await self.stream.readLine())
                self.stream.send(b"OK\r\n")

        serving = Deferred.fromCoroutine(serve())
        lines = [b"%d NOOP" % number for number in range(9000)]
        self.stream.dataReceived(b"\r\n".join([*lines, b""]))
        self.network.pump()
        self.assertEqual(served, lines)
        self.assertEqual(self.peer.received, b"OK\r\n" * 9000)
        self.peer.hangUp()
        self.network.pump()
        self.failureResultOf(serving, PeerGone)


class CountTests(StreamCase):
    """Reading bytes by number, giving back, and taking what is there."""

    def test_bytesAreCountedAcrossSegments(self) -> None:
        """Just as many as asked for, not one more; none at all is there at once."""
        for segments in Segments:
            self.join(segments)
            self.peer.say(b"li\nteral rest")
            found = self.stream.readExactly(8)
            self.network.pump()
            self.assertEqual(self.successResultOf(found), b"li\nteral")
            self.assertEqual(self.successResultOf(self.stream.readExactly(0)), b"")
            self.assertEqual(self.stream.takeUnread(), b" rest")

    def test_aLiteralOf64KiBIsRead(self) -> None:
        """The largest literal fits into what is kept unread."""
        found = self.stream.readExactly(MAX_LINE)
        self.hear(b"x" * MAX_LINE)
        self.assertEqual(len(self.successResultOf(found)), MAX_LINE)

    def test_whatIsPutBackIsReadFirst(self) -> None:
        """As if it had never been read, a line end in it included."""
        self.hear(b"a NOOP\r\nb NOOP\r\n")
        taken = self.successResultOf(self.stream.readExactly(10))
        self.stream.putBack(taken)
        self.assertEqual(self.stream.unread, 16)
        self.assertEqual(self.successResultOf(self.stream.readLine()), b"a NOOP")
        self.assertEqual(self.successResultOf(self.stream.readLine()), b"b NOOP")

    def test_aLineEndThatIsPutBackIsFound(self) -> None:
        """Although what is there now has been searched before."""
        self.hear(b"\nrest of a line")
        taken = self.successResultOf(self.stream.readExactly(5))
        line = self.stream.readLine()
        line.cancel()
        self.failureResultOf(line, CancelledError)
        self.stream.putBack(taken)
        self.assertEqual(self.successResultOf(self.stream.readLine()), b"")

    def test_whoClosesIsGivenNothingBack(self) -> None:
        """Nobody reads it any more."""
        self.hear(b"a NOOP\r\n")
        taken = self.stream.takeUnread()
        self.stream.close()
        self.stream.putBack(taken)
        self.assertEqual(self.stream.unread, 0)

    def test_givingBackTooLateIsOurMistake(self) -> None:
        """To who reads already, or to the bridge: it would be passed over, and then in no order."""
        line = self.stream.readLine()
        self.assertRaises(AssertionError, self.stream.putBack, b"a NOOP\r\n")
        line.cancel()
        self.failureResultOf(line, CancelledError)
        self.stream.detach(Peer())
        self.assertRaises(AssertionError, self.stream.putBack, b"a NOOP\r\n")

    def test_cancellingLosesNothing(self) -> None:
        """Who gave up waiting has read nothing: the next one gets it all."""
        for read in (self.stream.readLine, lambda: self.stream.readExactly(20)):
            self.hear(b"par")
            given = read()
            given.cancel()
            self.failureResultOf(given, CancelledError)
            self.hear(b"tial\r\n")
            self.assertEqual(self.successResultOf(self.stream.readLine()), b"partial")

    def test_thereIsOneReader(self) -> None:
        """A second reader at the same time is our bug, and says so."""
        self.stream.readLine().addErrback(lambda _: None)
        self.assertRaises(AssertionError, self.stream.readLine)


class FlowTests(StreamCase):
    """Nobody makes us remember more than we allow."""

    def test_aFloodIsNotRead(self) -> None:
        """Over 64 KiB unread we stop reading; once it is read we go on; no byte is lost."""
        self.join(room=1 << 20)
        flood = b"".join(b"%07d\n" % number for number in range(40_000))
        self.hear(flood)
        self.assertTrue(self.stream.transport.paused)  # type: ignore[attr-defined]
        self.assertGreater(self.stream.unread, MAX_UNREAD)
        self.assertLessEqual(self.stream.unread, 2 * MAX_UNREAD + 2)
        read = []
        for _ in range(40_000):
            line = self.stream.readLine()
            self.network.pump()
            read.append(self.successResultOf(line))
        self.assertEqual(b"\n".join([*read, b""]), flood)
        self.assertFalse(self.stream.transport.paused)  # type: ignore[attr-defined]

    def choke(self) -> None:
        """Have the peer take no answers until ours pile up."""
        self.join(room=1000)
        self.peer.stopReading()
        self.stream.send(b"x" * 70_000)
        self.network.pump()

    def test_whoTakesNoAnswersIsNotServed(self) -> None:
        """While our answers pile up no line is served and nothing is read; then all of them are."""
        self.choke()
        line = self.stream.readLine()
        self.hear(b"a NOOP\r\nb NOOP\r\n")
        self.assertNoResult(line)
        self.assertEqual(self.stream.unread, 0)
        self.peer.startReading()
        self.network.pump()
        self.assertEqual(self.successResultOf(line), b"a NOOP")
        self.assertEqual(self.successResultOf(self.stream.readLine()), b"b NOOP")

    def test_linesThatAreHereWaitToo(self) -> None:
        """A line that came before the answers piled up is served after they are taken."""
        self.join(room=1000)
        self.hear(b"a NOOP\r\n")
        self.peer.stopReading()
        self.stream.send(b"x" * 70_000)
        line = self.stream.readLine()
        self.network.pump()
        self.assertNoResult(line)
        self.peer.startReading()
        self.network.pump()
        self.assertEqual(self.successResultOf(line), b"a NOOP")

    def test_linesBeforeTheEndWaitToo(self) -> None:
        """The same for a peer that has ended its side already: its last lines are not dropped."""
        self.join(room=1000)
        self.peer.say(b"a NOOP\r\n")
        self.peer.finish()
        self.network.pump()
        self.peer.stopReading()
        self.stream.send(b"x" * 70_000)
        line = self.stream.readLine()
        self.network.pump()
        self.assertNoResult(line)
        self.peer.startReading()
        self.network.pump()
        self.assertEqual(self.successResultOf(line), b"a NOOP")
        self.failureResultOf(self.stream.readLine(), PeerGone)

    def test_anEndIsHeardAfterTheAnswersAreTaken(self) -> None:
        """A reader that waited for both is told that nothing comes."""
        self.join(room=1000)
        self.peer.finish()
        self.network.pump()
        self.peer.stopReading()
        self.stream.send(b"x" * 70_000)
        line = self.stream.readLine()
        self.peer.startReading()
        self.network.pump()
        self.failureResultOf(line, PeerGone)

    def test_aReaderLearnsOfALossWhileAnswersWait(self) -> None:
        """A peer that cuts the line while it takes no answers is gone all the same."""
        self.choke()
        line = self.stream.readLine()
        self.peer.reset()
        self.network.advance(0)
        self.stream.send(b"more")
        self.network.pump()
        self.failureResultOf(line, PeerGone)


class LossTests(StreamCase):
    """The peer goes."""

    def watch(self) -> list[str]:
        """Note the order in which a reader and the watcher are told."""
        notes: list[str] = []
        self.stream.whenLost = lambda: notes.append("left")

        async def read() -> None:
            try:
                await self.stream.readLine()
            except PeerGone:
                notes.append("PeerGone")

        Deferred.fromCoroutine(read())
        return notes

    def test_aPendingReadFails(self) -> None:
        """With PeerGone, whose cause is what the transport says."""
        line = self.stream.readLine()
        self.peer.reset()
        self.network.advance(0)
        gone = self.failureResultOf(line, PeerGone)
        self.assertIsInstance(gone.value.__cause__, ConnectionLost)
        self.failureResultOf(self.stream.readLine(), PeerGone)

    def test_theWatcherHearsOnceAndLast(self) -> None:
        """First the reader fails, then the watcher hears, just once."""
        notes = self.watch()
        self.peer.reset()
        self.network.advance(0)
        self.assertEqual(notes, ["PeerGone", "left"])

    def test_anEndIsALeavingForAReader(self) -> None:
        """A FIN fails the pending read; the connection's own end tells the watcher."""
        notes = self.watch()
        self.peer.finish()
        self.network.pump()
        self.assertEqual(notes, ["PeerGone"])
        self.assertTrue(self.stream.ended)
        self.assertFalse(self.stream.lost)
        self.stream.close()
        self.network.pump()
        self.assertEqual(notes, ["PeerGone", "left"])

    def test_aClientThatLeavesWhileNobodyReadsIsNoticed(self) -> None:
        """Its FIN tells the watcher, once: the loss that follows does not tell it again."""
        notes: list[str] = []
        self.stream.whenLost = lambda: notes.append("left")
        self.peer.finish()
        self.network.pump()
        self.assertEqual(notes, ["left"])
        self.stream.close()
        self.network.pump()
        self.assertTrue(self.stream.lost)
        self.assertEqual(notes, ["left"])

    def test_anEndBehindUnreadBytesIsNoLeaving(self) -> None:
        """Who sends all at once and ends its side still waits for the answers."""
        notes: list[str] = []
        self.stream.whenLost = lambda: notes.append("left")
        self.peer.say(b"a LOGIN\r\nb LOGOUT\r\n")
        self.peer.finish()
        self.network.pump()
        self.assertEqual(notes, [])
        for expected in (b"a LOGIN", b"b LOGOUT"):
            self.assertEqual(self.successResultOf(self.stream.readLine()), expected)
        self.stream.send(b"BYE\r\n")
        self.network.pump()
        self.assertEqual(self.peer.received, b"BYE\r\n")
        self.failureResultOf(self.stream.readLine(), PeerGone)

    def test_nothingIsSentToWhoIsGone(self) -> None:
        """Writing after a loss does nothing, and closing neither."""
        self.peer.reset()
        self.network.advance(0)
        self.stream.send(b"hello?")
        self.stream.close()
        self.stream.abort()
        self.failureResultOf(self.stream.startTLS(serverTLS()), PeerGone)
        self.assertOver()
