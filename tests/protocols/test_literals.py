"""Lines with literals in them: what is read, what is asked for, and where it ends."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from mailproxy.errors import LimitExceeded, PeerGone
from mailproxy.protocols.literals import TooBig, readPieces, written
from mailproxy.stream import MAX_LINE, Stream
from tests.support import Network, Peer, Segments


class Reading:
    """A line being read; the test is the peer.

    :ivar consents: how many literals were asked for.
    :ivar reading: fires with the pieces.
    """

    def __init__(self, line: bytes, *, asks: bool = True) -> None:
        self.network, self.peer = Network(), Peer()
        self.consents = 0
        stream = Stream(self.network)
        self.network.connect(stream, self.peer)
        work = readPieces(stream, line, self._consent if asks else None)
        self.reading: Deferred[list[bytes]] = Deferred.fromCoroutine(work)

    def _consent(self) -> None:
        self.consents += 1

    def say(self, data: bytes) -> "Deferred[Any]":
        """Let the peer speak."""
        self.peer.say(data)
        self.network.pump()
        return self.reading


class ReadTests(SynchronousTestCase):
    """What comes of a line."""

    def test_lineWithoutALiteral(self) -> None:
        """It is all there is; nothing is waited for."""
        for line in (b"", b"NOOP", b"x {5", b"{5} x", b"{x}", b"{-1}", b"{5 }"):
            self.assertEqual(self.successResultOf(Reading(line).reading), [line])

    def test_waitingLiteralIsAskedFor(self) -> None:
        """Once each, before its bytes."""
        reading = Reading(b"a {3}")
        self.assertEqual(reading.consents, 1)
        reading.say(b"x\r\n {2}\r\n")
        self.assertEqual(reading.consents, 2)
        pieces = self.successResultOf(reading.say(b"yz\r\n"))
        self.assertEqual(pieces, [b"a {3}", b"x\r\n", b" {2}", b"yz", b""])

    def test_literalThatComesUnaskedIsNotAskedFor(self) -> None:
        """Neither with a `+`, nor where nobody asks."""
        for line, asks in ((b"a {3+}", True), (b"a {3}", False), (b"a {3+}", False)):
            reading = Reading(line, asks=asks)
            self.assertEqual(self.successResultOf(reading.say(b"xyz b\r\n"))[1:], [b"xyz", b" b"])
            self.assertEqual(reading.consents, 0)

    def test_whatALiteralHoldsIsNotRead(self) -> None:
        """An announcement inside it is none."""
        pieces = self.successResultOf(Reading(b"{6+}").say(b"{9+}\r\n!\r\n"))
        self.assertEqual(pieces, [b"{6+}", b"{9+}\r\n", b"!"])

    def test_peerThatLeaves(self) -> None:
        """Half a literal is none."""
        reading = Reading(b"{6+}")
        reading.peer.hangUp()
        self.failureResultOf(reading.say(b""), PeerGone)


class LimitTests(SynchronousTestCase):
    """64 KiB for all of it."""

    def test_tooLargeAndWaitingIsTold(self) -> None:
        """The peer has not sent it: reading may go on; it is not asked for."""
        reading = Reading(b"{65537}")
        self.failureResultOf(reading.reading, TooBig)
        self.assertEqual(reading.consents, 0)

    def test_tooLargeAndOnItsWayIsTheEnd(self) -> None:
        """There is no way to go on behind it."""
        for line, asks in ((b"{65537+}", True), (b"{65537}", False), (b"{9999999999+}", True)):
            failure = self.failureResultOf(Reading(line, asks=asks).reading, LimitExceeded)
            self.assertNotIsInstance(failure.value, TooBig)

    def test_piecesCountTogether(self) -> None:
        """Neither many small literals nor long lines between them get past it."""
        for piece in (b"x" * 1000 + b"{0+}\r\n", b"{1000+}\r\n" + b"x" * 1000):
            self.failureResultOf(Reading(b"{0+}").say(piece * 70), LimitExceeded)

    def test_allOfItMayBeUsed(self) -> None:
        """To the last byte."""
        size = MAX_LINE - len(b"{65528+}")
        self.assertEqual(size, 65528)
        pieces = self.successResultOf(Reading(b"{65528+}").say(b"x" * size + b"\r\n"))
        self.assertEqual(len(pieces[1]), size)


class WrittenTests(SynchronousTestCase):
    """Pieces put together again."""

    def test_whatIsReadIsWritten(self) -> None:
        """Whatever literals hold, and however the bytes are cut."""
        texts = st.binary(max_size=8).filter(lambda each: not set(each) & set(b"\r\n{}"))
        literals = st.lists(st.tuples(texts, st.binary(max_size=30)), max_size=4)

        @given(literals, texts, st.sampled_from(Segments))
        def check(pairs: list[tuple[bytes, bytes]], last: bytes, segments: Segments) -> None:
            wire = b"".join(b"%b{%d}\r\n%b" % (text, len(data), data) for text, data in pairs)
            network, peer, stream = Network(segments), Peer(), Stream(Network())
            network.connect(stream, peer)

            async def read() -> list[bytes]:
                return await readPieces(stream, await stream.readLine())

            reading = Deferred.fromCoroutine(read())
            peer.say(wire + last + b"\r\n")
            network.pump()
            pieces = self.successResultOf(reading)
            self.assertEqual(pieces[1::2], [data for _, data in pairs])
            self.assertEqual(written(pieces), wire + last)

        check()
