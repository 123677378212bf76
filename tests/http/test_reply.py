"""Answers as a client hears them: those of a backend, passed on as they come."""

from typing import ClassVar

from tests.http.support import ANN, GET, OK, OK_CHUNKED, HTTPCase
from tests.support import Segments

HEAD = GET.replace(b"GET", b"HEAD")
OLD_GET = b"GET / HTTP/1.0\r\n" + ANN + b"\r\n"


class AnswerTests(HTTPCase):
    """Answers of all kinds; subclasses cut the bytes otherwise."""

    def exchange(self, request: bytes, answer: bytes) -> bytes:
        """Let a new client ask and its backend answer; returns what the client hears."""
        self.client = self.open()
        self.send(self.client, request)
        self.backend = self.answer(answer)
        return self.client.take()

    def assertSame(self, request: bytes, answer: bytes) -> None:
        """An answer goes through as it is, and both connections stay."""
        self.assertEqual(self.exchange(request, answer), answer)
        self.assertIsNone(self.client.lost)
        self.send(self.client, GET)
        self.reply(self.backend)
        self.assertEqual(self.client.take(), OK)
        self.assertEqual(self.calls, 1)
        self.leave(self.client)

    def test_length(self) -> None:
        """A body of known length."""
        self.assertSame(GET, OK)
        self.assertSame(GET, b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n")

    def test_chunks(self) -> None:
        """Payload and trailers; the size of a chunk is nobody's."""
        heard = self.exchange(GET, OK_CHUNKED + b"3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nX-Sum: 1\r\n\r\n")
        head, _, body = heard.partition(b"\r\n\r\n")
        self.assertEqual(head + b"\r\n\r\n", OK_CHUNKED)
        self.assertTrue(body.endswith(b"\r\n0\r\nX-Sum: 1\r\n\r\n"))
        payload = b"".join(body.split(b"\r\n")[1:-4:2])
        self.assertEqual(payload, b"abcde")
        self.leave(self.client)

    def test_untilTheEnd(self) -> None:
        """A body that ends with its connection: the client gets chunks, and stays."""
        heard = self.exchange(GET, b"HTTP/1.1 200 OK\r\n\r\nab")
        self.backend.hangUp()
        self.stage.network.pump()
        heard += self.client.take()
        self.assertTrue(heard.startswith(OK_CHUNKED))
        self.assertTrue(heard.endswith(b"0\r\n\r\n"))
        self.assertIsNone(self.client.lost)
        self.leave(self.client)

    def test_withoutABody(self) -> None:
        """To HEAD, and of 204 and 304: what is said of a length is repeated where it may be."""
        self.assertSame(HEAD, b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")
        self.assertSame(GET, b"HTTP/1.1 204 No Content\r\n\r\n")
        self.assertSame(GET, b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n")
        heard = self.exchange(HEAD, OK_CHUNKED)
        self.assertEqual(heard, OK_CHUNKED)

    def test_oldClient(self) -> None:
        """Gets no chunks and no interim answers, and is closed behind its answer."""
        early = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
        heard = self.exchange(OLD_GET, early + OK_CHUNKED + b"2\r\nok\r\n0\r\nX: 1\r\n\r\n")
        self.assertEqual(heard, b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nok")
        self.assertIsNotNone(self.client.lost)
        self.leave(self.client)

    def test_interimAnswers(self) -> None:
        """Go through before the final one, except a `100` that nobody waits for."""
        early = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
        stray = b"HTTP/1.1 100 Continue\r\n\r\n"
        self.assertEqual(self.exchange(GET, early + stray + early + OK), early + early + OK)
        self.leave(self.client)

    def test_backendThatCloses(self) -> None:
        """It says so: the next request goes to a fresh connection, the client stays."""
        heard = self.exchange(GET, OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        self.assertEqual(heard, OK)
        self.send(self.client, GET)
        self.assertEqual(self.calls, 2)
        self.answer(OK)
        self.leave(self.client)

    def test_clientThatCloses(self) -> None:
        """It is told the same."""
        heard = self.exchange(GET.replace(b"Host", b"Connection: close\r\nHost"), OK)
        self.assertEqual(heard, OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        self.assertIsNotNone(self.client.lost)
        self.leave(self.client)

    def test_eventStream(self) -> None:
        """Each event arrives at once."""
        self.exchange(GET, OK_CHUNKED)
        for number in range(3):
            self.reply(self.backend, b"5\r\nevt %d\r\n" % number)
            self.assertIn(b"%d" % number, self.client.take())
        self.client.reset()
        self.leave(self.client)

    def test_bytesBehindAnAnswer(self) -> None:
        """Nobody has asked for them: that connection is not used again."""
        self.assertEqual(self.exchange(GET, OK + b"HTTP/1.1 200 OK\r\n\r\n"), OK)
        self.send(self.client, GET)
        self.assertEqual(self.calls, 2)
        self.assertIsNotNone(self.backend.lost)


class LinesTests(AnswerTests):
    """The same, one line per segment."""

    segments: ClassVar[Segments] = Segments.LINES


class BytesTests(AnswerTests):
    """The same, one byte per segment."""

    segments: ClassVar[Segments] = Segments.BYTES
