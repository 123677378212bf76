"""Each published way to have one program see a request where another one sees a body."""

from typing import ClassVar

from tests.http.support import (
    ANN,
    BOB,
    CHUNKED,
    GET,
    OK,
    POST,
    Backend,
    HTTPCase,
)
from tests.support import Segments

HEAD = GET.replace(b"GET", b"HEAD")
OLD_GET = b"GET / HTTP/1.0\r\n" + ANN + b"\r\n"


class SmugglingTests(HTTPCase):
    """Each published way to have one program see a request where another one sees a body."""

    INNER = b"GET /admin HTTP/1.1\r\nHost: a\r\n" + BOB + b"\r\n"

    def assertRefused(self, request: bytes, status: bytes = b"400") -> None:
        """The first answer is the only one; no backend has seen anything of the inner request."""
        client = self.open()
        self.send(client, request)
        backend = self.answer() if self.calls else None
        self.send(client, b"\r\n\r\n" + self.INNER)
        heard = client.take()
        self.assertTrue(heard.startswith(b"HTTP/1.1 %b " % status), (request, heard))
        self.assertEqual(heard.count(b"HTTP/1.1"), 1, request)
        self.assertIn(b"\r\nConnection: close\r\n", heard)
        if backend is not None:
            self.assertNotIn(b"admin", backend.take())
        self.assertIsNotNone(client.lost)
        self.leave(client)

    def test_lengthAndChunks(self) -> None:
        """CL.TE and TE.CL."""
        both = b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
        self.assertRefused(POST + both + self.INNER)
        swapped = b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n5c\r\n"
        self.assertRefused(POST + swapped + self.INNER + b"0\r\n\r\n")

    def test_disguisedCodings(self) -> None:
        """TE.TE."""
        for field in (
            *(b"Transfer-Encoding: xchunked", b"Transfer-Encoding : chunked"),
            *(
                b"Transfer-Encoding: chunked\r\nTransfer-Encoding: x",
                b"X: x\nTransfer-Encoding: chunked",
            ),
            *(b"Transfer-Encoding\r\n : chunked", b"Transfer-Encoding: \x0bchunked"),
            *(b"Transfer-Encoding:\xa0chunked", b"\tTransfer-Encoding: chunked"),
            *(b"Transfer-Encoding: chunked, identity", b"Transfer-Encoding: 'chunked'"),
            *(b"Transfer-Encoding:\r\n chunked", b"X:x\rTransfer-Encoding: chunked"),
            *(b"Transfer\x00-Encoding: chunked", b"Transfer-Encoding: chunked\x00"),
        ):
            self.assertRefused(POST + field + b"\r\n\r\n0\r\n\r\n" + self.INNER)

    def test_lengths(self) -> None:
        """Two of them, or one that is none."""
        for field in (
            *(b"Content-Length: 0\r\nContent-Length: 44", b"Content-Length: 0, 44"),
            *(b"Content-Length: +0", b"Content-Length: 0x2c", b"Content-Length: -1"),
            *(b"Content-Length : 0", b"Content-Length: 99999999999999999999999999"),
            *(b"Content-Length:\x0b0", b"Content_Length: 44"),
        ):
            self.assertRefused(POST + field + b"\r\n\r\n" + self.INNER)

    def test_chunkFraming(self) -> None:
        """Sizes that overflow or are none, bare line ends, chunks that are longer."""
        for body in (
            *(
                b"10000000000000000\r\n",
                b"-1\r\n",
                b"0x1\r\n",
                b"1\n",
                b"1;a\nb\r\n",
                b"1;a\rb\r\n",
            ),
            *(
                b"1\r\nab\r\n",
                b"1\r\na\n",
                b"\r\n",
                b" 1\r\n",
                b"1 \r\n",
                b"1_0\r\n",
                b"\xd9\xa5\r\n",
            ),
            *(b"0\r\nContent-Length: 1\r\n\r\n", b"0\r\nHost: b\r\n\r\n", b"0\r\n a: b\r\n\r\n"),
        ):
            self.assertRefused(POST + CHUNKED + body + self.INNER)

    def test_lines(self) -> None:
        """Bare ends, folds, space, NUL, names of eight bits, nothing."""
        for lines in (
            *(b"X: a\nY: b", b"X: a\rY: b", b"X: a\r\n b", b"X : a", b"X: a\0b", b"\xc3\xa4: b"),
            *(b": a", b"X", b"X\r\n: a", b" X: a", b"X: a\x7f", b"X\t: a"),
        ):
            self.assertRefused(POST + lines + b"\r\n\r\n" + self.INNER)

    def test_hosts(self) -> None:
        """None, two, another one in the target."""
        self.assertRefused(b"GET / HTTP/1.1\r\n\r\n")
        self.assertRefused(b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")
        self.assertRefused(b"GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n")

    def test_connectionNamesFraming(self) -> None:
        """Fields would be dropped on the way that the next program goes by."""
        for name in (b"Content-Length", b"Transfer-Encoding", b"Host", b"X-Forwarded-For"):
            field = b"Connection: %b\r\nContent-Length: 44\r\n\r\n" % name
            self.assertRefused(POST + field + self.INNER)

    def test_sizes(self) -> None:
        """431: too many fields, or too long a head."""
        self.assertRefused(b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 100 + b"\r\n", b"431")
        self.assertRefused(b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 70_000, b"431")

    def test_methodsAndVersions(self) -> None:
        """405 and 505."""
        self.assertRefused(b"CONNECT b:25 HTTP/1.1\r\nHost: b:25\r\n\r\n", b"405")
        self.assertRefused(b"GET / HTTP/3.0\r\nHost: a\r\n\r\n", b"505")
        self.assertRefused(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"505")

    def test_otherProtocols(self) -> None:
        """TLS on a plain port, mail, HTTP/0.9."""
        for said in (b"\x16\x03\x01\x02\x00\x01", b"EHLO x\r\n\r\n", b"GET /\r\n\r\n", b"\0"):
            self.assertRefused(said)

    def test_emptyBackendConnection(self) -> None:
        """An answer that comes before it was asked for is nobody's."""
        client = self.open()
        self.send(client)
        backend = self.answer(OK)
        self.reply(backend, OK.replace(b"ok", b"no"))
        client.take()
        self.send(client)
        self.assertEqual(self.calls, 2)
        self.answer(OK, Backend())
        self.assertEqual(client.take(), OK)
        self.leave(client)


class LinesTests(SmugglingTests):
    """The same, one line per segment."""

    segments: ClassVar[Segments] = Segments.LINES


class BytesTests(SmugglingTests):
    """The same, one byte per segment."""

    segments: ClassVar[Segments] = Segments.BYTES
