"""Requests with bodies: what comes of a body, and what becomes of it."""

from typing import ClassVar

from tests.http.support import (
    ANN,
    CHUNKED,
    GET,
    OK,
    OK_CHUNKED,
    POST,
    HTTPCase,
    rules,
)
from tests.stage import NEW_HOST, OLD_HOST
from tests.support import Segments

HEAD = GET.replace(b"GET", b"HEAD")
OLD_GET = b"GET / HTTP/1.0\r\n" + ANN + b"\r\n"


class UploadTests(HTTPCase):
    """Requests with bodies."""

    def upload(self, request: bytes) -> bytes:
        """Let a new client send a request; returns what its backend has got."""
        self.client = self.open()
        self.send(self.client, request)
        self.backend = self.answer()
        return self.backend.take().partition(b"\r\n\r\n")[2]

    def finish(self) -> None:
        """Let the backend answer, and the client ask once more on the same connections."""
        self.reply(self.backend)
        self.assertEqual(self.client.take(), OK)
        self.send(self.client, GET)
        self.reply(self.backend)
        self.assertEqual(self.client.take(), OK)
        self.assertEqual(self.calls, 1)
        self.leave(self.client)

    def test_length(self) -> None:
        """The body, and nothing behind it, whenever it comes."""
        got = self.upload(POST + b"Content-Length: 5\r\n\r\nab")
        self.send(self.client, b"cde")
        self.assertEqual(got + self.backend.take(), b"abcde")
        self.finish()

    def test_chunks(self) -> None:
        """Written anew, trailers kept, extensions dropped."""
        got = self.upload(POST + CHUNKED + b"2;evil=1\r\nab\r\n")
        self.send(self.client, b"3\r\ncde\r\n0\r\nX-Sum: 1\r\n\r\n")
        got += self.backend.take()
        self.assertNotIn(b"evil", got)
        self.assertEqual(b"".join(got.split(b"\r\n")[1:-4:2]), b"abcde")
        self.assertTrue(got.endswith(b"\r\n0\r\nX-Sum: 1\r\n\r\n"))
        self.finish()

    def test_bodyOfAGET(self) -> None:
        """Is a body (CL.0): what is in it is never taken for a request."""
        inner = b"GET /admin HTTP/1.1\r\nHost: a\r\n\r\n"
        fields = b"Content-Length: %d\r\n\r\n" % len(inner)
        got = self.upload(GET[:-2] + fields + inner)
        self.assertEqual(got, inner)
        self.finish()

    def test_continue(self) -> None:
        """`Expect` goes to the backend, its `100` back, then the body."""
        got = self.upload(POST + b"Content-Length: 2\r\nExpect: 100-continue\r\n\r\n")
        self.assertEqual(got, b"")
        self.reply(self.backend, b"HTTP/1.1 100 Continue\r\n\r\n")
        self.assertEqual(self.client.take(), b"HTTP/1.1 100 Continue\r\n\r\n")
        self.send(self.client, b"ab")
        self.assertEqual(self.backend.take(), b"ab")
        self.finish()

    def test_noContinue(self) -> None:
        """A backend that does not want the body: the client is told to stop, and closed."""
        self.upload(POST + b"Content-Length: 2\r\nExpect: 100-continue\r\n\r\n")
        self.reply(self.backend, b"HTTP/1.1 417 No\r\nContent-Length: 0\r\n\r\n")
        self.assertEqual(
            self.client.take(),
            b"HTTP/1.1 417 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        )
        self.assertIsNotNone(self.client.lost)
        self.assertIsNotNone(self.backend.lost)
        self.leave(self.client)

    def test_earlyAnswer(self) -> None:
        """The same for one that answers amid the body."""
        self.upload(POST + b"Content-Length: 200000\r\n\r\n" + b"x" * 1000)
        self.reply(self.backend, b"HTTP/1.1 413 Big\r\nContent-Length: 3\r\n\r\nbig")
        self.send(self.client, b"x" * 1000)
        heard = self.client.take()
        self.assertTrue(heard.startswith(b"HTTP/1.1 413 Big\r\n"))
        self.assertTrue(heard.endswith(b"\r\nConnection: close\r\n\r\nbig"))
        self.leave(self.client)

    def test_answerWhileTheBodyComes(self) -> None:
        """Both directions go on by themselves."""
        self.upload(POST + CHUNKED + b"1\r\na\r\n")
        self.reply(self.backend, OK_CHUNKED + b"1\r\nA\r\n")
        self.assertIn(b"A", self.client.take())
        self.send(self.client, b"1\r\nb\r\n")
        self.assertIn(b"b", self.backend.take())
        self.reply(self.backend, b"1\r\nB\r\n")
        self.assertIn(b"B", self.client.take())
        self.send(self.client, b"0\r\n\r\n")
        self.reply(self.backend, b"0\r\n\r\n")
        self.assertTrue(self.client.take().endswith(b"0\r\n\r\n"))
        self.leave(self.client)

    def test_brokenFraming(self) -> None:
        """400 and close, whenever it is seen; the backend gets no end of the body."""
        for before, behind in ((b"zz\r\n", b""), (b"1\r\na\r\n", b"zz\r\n")):
            client = self.open()
            self.send(client, POST + CHUNKED + before)
            backend = self.answer()
            self.send(client, behind)
            self.assertTrue(client.take().startswith(b"HTTP/1.1 400 "))
            self.assertNotIn(b"\r\n0\r\n\r\n", backend.take())
            self.leave(client)

    def test_clientThatLeavesAmidItsBody(self) -> None:
        """So does the backend's connection: half a body is none."""
        for leave in ("hangUp", "finish"):
            self.upload(POST + b"Content-Length: 5\r\n\r\nab")
            getattr(self.client, leave)()
            self.stage.network.pump()
            self.assertIsNotNone(self.backend.lost)
            self.leave(self.client)
        self.assertIn("client_gone", self.lines()[-1])


class BodyRouteTests(HTTPCase):
    """Accounts that are named in bodies."""

    BY_BODY = {"match": "/**", "extract": {"from": "body", "regex": "<who>([^<]+)</who>"}}
    BOB = b"<a><who>bob</who></a>"

    def ask(self, request: bytes, **limits: int) -> bytes:
        """Send a request to a route by body; returns what its backend has got of the body."""
        self.client = self.open(rules(self.BY_BODY, **limits))
        self.send(self.client, request)
        self.backend = self.answer()
        return self.backend.take().partition(b"\r\n\r\n")[2]

    def test_length(self) -> None:
        """The whole body is read, and goes on."""
        got = self.ask(POST + b"Content-Length: %d\r\n\r\n" % len(self.BOB) + self.BOB)
        self.assertEqual(self.stage.network.call.host, NEW_HOST)
        self.assertEqual(got, self.BOB)
        self.reply(self.backend)
        self.assertEqual(self.client.take(), OK)
        self.leave(self.client)

    def test_chunks(self) -> None:
        """Likewise; it goes on in chunks, with its trailers."""
        got = self.ask(POST + CHUNKED + b"6\r\n<a><wh\r\nf\r\no>bob</who></a>\r\n0\r\nA: b\r\n\r\n")
        self.assertEqual(self.stage.network.call.host, NEW_HOST)
        self.assertEqual(got, b"15\r\n%b\r\n0\r\nA: b\r\n\r\n" % self.BOB)
        self.reply(self.backend)
        self.leave(self.client)

    def test_overTheCap(self) -> None:
        """It is not searched, and nothing of it is lost."""
        for fields in (b"Content-Length: 31\r\n\r\n", CHUNKED):
            body = self.BOB + b"0123456789"
            sent = body if fields is not CHUNKED else b"1f\r\n%b\r\n0\r\n\r\n" % body
            got = self.ask(POST + fields + sent, bodyCap=30)
            self.assertEqual(self.stage.network.call.host, OLD_HOST)
            self.assertEqual(got, sent)
            self.reply(self.backend)
            self.assertEqual(self.client.take(), OK)
            self.leave(self.client)

    def test_overTheCapAndMoreToCome(self) -> None:
        """What was read goes first, then the rest."""
        got = self.ask(POST + CHUNKED + b"5\r\n01234\r\n", bodyCap=4)
        self.assertEqual(got, b"5\r\n01234\r\n")
        self.send(self.client, b"2\r\n56\r\n0\r\n\r\n")
        got = self.backend.take()
        self.assertTrue(got.endswith(b"\r\n0\r\n\r\n"))
        self.assertEqual(b"".join(got.split(b"\r\n")[1:-3:2]), b"56")
        self.reply(self.backend)
        self.assertEqual(self.client.take(), OK)
        self.leave(self.client)

    def test_continueIsOurs(self) -> None:
        """We have to read it before we know whom to ask; the backend is not asked for it again."""
        self.client = self.open(rules(self.BY_BODY))
        fields = b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(self.BOB)
        self.send(self.client, POST + fields)
        self.assertEqual(self.client.take(), b"HTTP/1.1 100 Continue\r\n\r\n")
        self.send(self.client, self.BOB)
        backend = self.answer()
        self.assertNotIn(b"Expect", backend.take())
        self.reply(backend, b"HTTP/1.1 100 Continue\r\n\r\n" + OK)
        self.assertEqual(self.client.take(), OK)
        self.leave(self.client)

    def test_clientThatDoesNotSendIt(self) -> None:
        """408 after `relay_idle`; nobody was dialled."""
        client = self.open(rules(self.BY_BODY, idle=10.0))
        self.send(client, POST + b"Content-Length: 9\r\n\r\nab")
        self.stage.network.advance(9)
        self.assertEqual(client.take(), b"")
        self.stage.network.advance(1)
        self.assertTrue(client.take().startswith(b"HTTP/1.1 408 "))
        self.assertEqual(self.calls, 0)
        self.leave(client)


class LinesTests(UploadTests, BodyRouteTests):
    """The same, one line per segment."""

    segments: ClassVar[Segments] = Segments.LINES


class BytesTests(UploadTests, BodyRouteTests):
    """The same, one byte per segment."""

    segments: ClassVar[Segments] = Segments.BYTES
