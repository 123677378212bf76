"""Bodies of all kinds, both ways, between real servers and clients."""

import hashlib
import random
import threading

from tests.integration.accounts import at
from tests.integration.scripted import Peer
from tests.integration.web import Message, chunks, requestBytes
from tests.integration.website import ExchangeTestCase, basic

OLD, NEW, SCRIPTED = basic(at("old")), basic(at("new")), basic(at("scripted"))
CHUNKED = {"Transfer_Encoding": "chunked"}


class BodyTests(ExchangeTestCase):
    """Bodies of all kinds, both ways."""

    def test_lengthsAndChunksArriveWhole(self) -> None:
        """Either way a body may be sent, it comes back from a server that gives it back."""
        client = self.web()
        for size in (0, 1, 1000, 65536, 3_000_000):
            body = random.Random(size).randbytes(size)
            for headers, sent in (
                ({"Content_Length": str(size)}, body),
                (
                    CHUNKED,
                    chunks(*(part for part in (body[: size // 3], body[size // 3 :]) if part)),
                ),
            ):
                answer = client.ask("/echo", "POST", sent, Authorization=NEW, **headers)
                self.assertFrom("new", answer)
                self.assertEqual(
                    hashlib.sha256(answer.body).digest(), hashlib.sha256(body).digest(), size
                )

    def test_aByteInEachSegment(self) -> None:
        """Heads and chunks that come in crumbs are the same as whole ones."""
        client = self.web()
        headers = {"Authorization": SCRIPTED, "Transfer-Encoding": "chunked"}
        client.sendSlowly(requestBytes("POST", "/a", headers, chunks(b"abc", b"defghijklmn")))
        self.assertEqual(client.answer().body, b"/a\n")
        [request] = self.recorder.messages()
        self.assertEqual(request.body, b"abcdefghijklmn")

    def test_trailersGoBothWays(self) -> None:
        """A request's reach the backend, an answer's the client."""
        client = self.web()
        body = chunks(b"abc", trailers=b"X-Checksum: 900150983cd2\r\n")
        answer = client.ask(
            "/a", "POST", body, Authorization=SCRIPTED, Trailer="X-Checksum", **CHUNKED
        )
        self.assertEqual(answer.status, 200)
        [request] = self.recorder.messages()
        self.assertEqual(request.body, b"abc")
        self.assertEqual(request.trailers.get(b"x-checksum"), b"900150983cd2")
        self.answering(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n"
            + chunks(b"hello", trailers=b"X-Sum: 5d41\r\nX-Other: 2\r\n")
        )
        answer = client.ask("/b", Authorization=SCRIPTED, TE="trailers")
        self.assertEqual(answer.body, b"hello")
        self.assertEqual(answer.trailers.get(b"x-sum"), b"5d41")
        self.assertEqual(answer.trailers.get(b"x-other"), b"2")

    def test_chunksOfARealServer(self) -> None:
        """An answer without a known length ends where it ends."""
        client = self.web()
        for _ in range(2):
            answer = client.ask("/chunked", Authorization=OLD)
            self.assertTrue(answer.chunked)
            self.assertEqual(len(answer.body), 20_000)

    def test_aBodyUntilTheClose(self) -> None:
        """An answer that the backend ends by closing is whole; its end is told."""
        self.answering(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 100_000, close=True)
        client = self.web()
        self.assertEqual(client.ask("/a", Authorization=SCRIPTED).body, b"x" * 100_000)
        self.answering(b"HTTP/1.0 200 OK\r\n\r\nold style", close=True)
        self.assertEqual(self.web().ask("/a", Authorization=SCRIPTED).body, b"old style")

    def test_aBodyThatBreaksOffIsNotTakenForWhole(self) -> None:
        """With a length or in chunks: the client sees that the connection broke."""
        for head, part in (
            (b"Content-Length: 1000", b"only this"),
            (b"Transfer-Encoding: chunked", b"5\r\nhello\r\n"),
            (b"Transfer-Encoding: chunked", b"500\r\nhello"),
        ):
            self.answering(b"HTTP/1.1 200 OK\r\n%b\r\n\r\n%b" % (head, part), close=True)
            client = self.web()
            client.sendRequest("/a", Authorization=SCRIPTED)
            self.assertEqual(client.head().status, 200)
            rest = client.readToEnd()
            self.assertFalse(rest.endswith(b"0\r\n\r\n"), rest)
            self.assertLess(len(rest), 500)

    def test_anEventStreamArrivesAtOnce(self) -> None:
        """Each event when it is sent: the next one comes when somebody has read this one."""
        read = threading.Event()
        self.addCleanup(read.set)

        def stream(peer: Peer, _: Message) -> bool:
            peer.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n")
            peer.send(b"Transfer-Encoding: chunked\r\n\r\nd\r\ndata: first\n\n\r\n")
            if not read.wait(60):
                return False
            peer.send(chunks(b"data: second\n\n"))
            return True

        self.recorder.answering = stream
        client = self.web()
        client.sendRequest("/events", Authorization=SCRIPTED, Accept="text/event-stream")
        self.assertEqual(client.head().header("content-type"), "text/event-stream")
        self.assertIn(b"data: first", client.readThrough(b"\n\n"))
        read.set()
        client.readThrough(b"data: second")
        client.readThrough(b"0\r\n\r\n")

    def test_filesAreWrittenReadAndRemoved(self) -> None:
        """By PUT, GET with a range, conditional GET, HEAD and DELETE."""
        client, content = self.web(), random.Random(7).randbytes(200_000)
        self.assertFrom("new", client.ask("/files/a", "PUT", content, Authorization=NEW), 201)
        whole = client.ask("/files/a", Authorization=NEW)
        self.assertEqual(whole.body, content)
        part = client.ask("/files/a", Authorization=NEW, Range="bytes=1000-1999")
        self.assertEqual((part.status, part.body), (206, content[1000:2000]))
        tag = whole.header("etag")
        assert tag is not None
        same = client.ask("/files/a", Authorization=NEW, If_None_Match=tag)
        self.assertFrom("new", same, 304)
        self.assertEqual(same.header("etag"), tag)
        head = client.ask("/files/a", "HEAD", Authorization=NEW)
        self.assertEqual(head.header("content-length"), "200000")
        self.assertFrom("new", client.ask("/files/a", "DELETE", Authorization=NEW), 204)
        self.assertFrom("new", client.ask("/files/a", Authorization=NEW), 404)
