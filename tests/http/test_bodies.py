"""Bodies: framing read strictly, in whatever pieces it comes."""

from itertools import pairwise

import h11
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailproxy.http.bodies import (
    CHUNKED,
    MAX_SIZE_LINE,
    MAX_TRAILERS,
    NOTHING,
    UNTIL_CLOSE,
    Body,
    ChunkFraming,
    Framing,
    Kind,
)
from mailproxy.http.heads import BadMessage


def begin(framing: Framing) -> Body:
    """Make a body behind the head of an answer."""
    machine = h11.Connection(h11.CLIENT)
    machine.send(h11.Request(method=b"GET", target=b"/", headers=[(b"Host", b"a")]))
    field = {
        Kind.LENGTH: b"Content-Length: %d\r\n" % framing.length,
        Kind.CHUNKED: b"Transfer-Encoding: chunked\r\n",
        Kind.CLOSE: b"",
    }
    machine.receive_data(b"HTTP/1.1 200 OK\r\n" + field[framing.kind] + b"\r\n")
    machine.next_event()
    return Body(machine, framing)


def decode(body: Body, pieces: list[bytes]) -> tuple[bytes, bytes]:
    """Feed a body until it has ended; returns its payload and what is behind it."""
    payload = b""
    for at, piece in enumerate(pieces):
        got, rest = body.feed(piece)
        payload += got
        if body.ended:
            return payload, rest + b"".join(pieces[at + 1 :])
    return payload, b""


def bytewise(data: bytes) -> list[bytes]:
    """Cut to single bytes."""
    return [data[at : at + 1] for at in range(len(data))]


class LengthTests(SynchronousTestCase):
    """A body of known length."""

    def test_whatIsBehindIsLeft(self) -> None:
        """The next request is not the body's."""
        body = begin(Framing(Kind.LENGTH, 3))
        self.assertEqual(body.feed(b"ab"), (b"ab", b""))
        self.assertFalse(body.ended)
        self.assertEqual(body.feed(b"cGET"), (b"c", b"GET"))
        self.assertTrue(body.ended)

    def test_nothing(self) -> None:
        """No body has ended before it begins."""
        self.assertTrue(begin(NOTHING).ended)
        self.assertTrue(NOTHING.isEmpty)
        self.assertFalse(CHUNKED.isEmpty)

    def test_cutShort(self) -> None:
        """The connection's end is not the body's."""
        body = begin(Framing(Kind.LENGTH, 3))
        body.feed(b"ab")
        self.assertRaises(BadMessage, body.close)


class OpenTests(SynchronousTestCase):
    """A body that ends with the connection."""

    def test_everythingIsTheBodys(self) -> None:
        """Until it is closed."""
        body = begin(UNTIL_CLOSE)
        self.assertEqual(body.feed(b"abc"), (b"abc", b""))
        self.assertFalse(body.ended)
        body.close()
        self.assertTrue(body.ended)


class ChunkedTests(SynchronousTestCase):
    """A body in chunks; each is read whole and byte by byte."""

    def read(self, wire: bytes) -> tuple[bytes, bytes, list[tuple[bytes, bytes]]]:
        """Decode a whole body both ways."""
        whole, single = begin(CHUNKED), begin(CHUNKED)
        first = decode(whole, [wire])
        self.assertTrue(whole.ended)
        self.assertEqual(decode(single, bytewise(wire)), first)
        self.assertEqual(single.trailers, whole.trailers)
        return *first, whole.trailers

    def refused(self, wire: bytes) -> None:
        """Have a body refused both ways, without an end."""
        for pieces in ([wire], bytewise(wire)):
            body = begin(CHUNKED)
            self.assertRaises(BadMessage, decode, body, pieces)
            self.assertFalse(body.ended)

    def test_chunks(self) -> None:
        """Sizes in either case, extensions dropped, what is behind it left."""
        payload, rest, trailers = self.read(b"3\r\nabc\r\n0A;x=y; z\r\n0123456789\r\n0\r\n\r\nGET")
        self.assertEqual((payload, rest), (b"abc0123456789", b"GET"))
        self.assertEqual(trailers, [])

    def test_trailers(self) -> None:
        """Fields behind the last chunk."""
        payload, rest, trailers = self.read(b"1\r\na\r\n0\r\nX-Sum: 1\r\nB:c\r\n\r\nrest")
        self.assertEqual((payload, rest), (b"a", b"rest"))
        self.assertEqual(trailers, [(b"X-Sum", b"1"), (b"B", b"c")])

    def test_badSizes(self) -> None:
        """None, signs, prefixes, spaces, underscores, too many digits."""
        for size in (b"", b"g", b"-1", b"+1", b"0x1", b" 1", b"1 ", b"1_0", b"1" * 16, b"f" * 17):
            self.refused(size + b"\r\na\r\n0\r\n\r\n")

    def test_bareLineEnds(self) -> None:
        """Behind a size, in an extension, behind a chunk, in a trailer."""
        for wire in (
            b"1\na\r\n0\r\n\r\n",
            b"1;x\ny\r\na\r\n0\r\n\r\n",
            b"1;x\ry\r\na\r\n0\r\n\r\n",
            b"1\r\na\n0\r\n\r\n",
            b"1\r\na\r\n0\n\n",
            b"1\r\na\r\n0\r\n\n",
            b"1\r\na\r\n0\r\nA: b\n\n",
            b"1\r\na\r\n0\r\nA: b\r\nC: d\n\r\n",
        ):
            self.refused(wire)

    def test_chunkLongerThanItsSize(self) -> None:
        """What should be its line end is not."""
        self.refused(b"1\r\nab\r\n0\r\n\r\n")
        self.refused(b"1\r\na\rb0\r\n\r\n")

    def test_extensionsThatAreNot(self) -> None:
        """Too long, or with what no text has."""
        self.refused(b"1;" + b"x" * MAX_SIZE_LINE + b"\r\na\r\n0\r\n\r\n")
        self.refused(b"1;x\0y\r\na\r\n0\r\n\r\n")
        self.refused(b"1;\xff\r\na\r\n0\r\n\r\n")

    def test_trailersThatCannotBe(self) -> None:
        """Framing, routing, folded, too many, too long."""
        for field in (b"Content-Length: 1", b"transfer-encoding: chunked", b"Host: b", b"A : b"):
            self.refused(b"0\r\n%b\r\n\r\n" % field)
        self.refused(b"0\r\nA: b\r\n c\r\n\r\n")
        self.refused(b"0\r\n" + b"A: b\r\n" * 101 + b"\r\n")
        self.refused(b"0\r\nA: " + b"b" * MAX_TRAILERS + b"\r\n\r\n")

    def test_cutShort(self) -> None:
        """Without its last chunk it is not whole."""
        for wire in (b"1\r\na\r\n", b"1\r\na\r\n0\r\n", b"5\r\nab"):
            body = begin(CHUNKED)
            body.feed(wire)
            self.assertRaises(BadMessage, body.close)

    @given(
        st.lists(st.binary(min_size=1, max_size=50), max_size=10),
        st.lists(st.integers(min_value=1, max_value=400), max_size=30),
    )
    def test_howeverItIsCut(self, chunks: list[bytes], cuts: list[int]) -> None:
        """The same payload, trailers and rest; the framing alone sees the same end."""
        wire = b"".join(b"%x\r\n%b\r\n" % (len(each), each) for each in chunks)
        wire += b"0\r\nX-A: b\r\n\r\n"
        data = wire + b"next"
        edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
        pieces = [data[a:b] for a, b in pairwise(edges)]
        body, framing = begin(CHUNKED), ChunkFraming()
        self.assertEqual(decode(body, pieces), (b"".join(chunks), b"next"))
        self.assertEqual(body.trailers, [(b"X-A", b"b")])
        taken = 0
        for piece in pieces:
            taken += framing.feed(piece) if taken < len(wire) else 0
        self.assertEqual(taken, len(wire))
