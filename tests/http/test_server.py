"""The client's leg, and answers of our own."""

import h11
from twisted.trial.unittest import SynchronousTestCase

from mailproxy.config.model import Capabilities
from mailproxy.http.server import Answer, HTTPServer, HTTPServerFactory
from mailproxy.protocols.base import Advertised
from tests.support import Network


def written(answer: Answer, *, last: bool) -> bytes:
    """Let h11 write an answer's head."""
    return h11.Connection(h11.SERVER).send(answer.head(0.0, b"r1", last=last)) or b""


class AnswerTests(SynchronousTestCase):
    """Short, and telling nothing."""

    def test_wording(self) -> None:
        """Plain text of known length, not to be kept by anybody."""
        self.assertEqual(
            written(Answer(502), last=False),
            b"HTTP/1.1 502 Bad Gateway\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n"
            b"Content-Type: text/plain; charset=utf-8\r\nContent-Length: 16\r\n"
            b"Cache-Control: no-store\r\nX-Request-Id: r1\r\n\r\n",
        )
        self.assertEqual(Answer(502).body, b"502 Bad Gateway\n")

    def test_extras(self) -> None:
        """When to ask again, what is served, and that we close."""
        self.assertIn(b"\r\nRetry-After: 7\r\n", written(Answer(503, 7), last=False))
        self.assertIn(b"\r\nAllow: GET, HEAD, ", written(Answer(405), last=False))
        self.assertIn(b"\r\nConnection: close\r\n", written(Answer(400), last=True))

    def test_everyStatusHasItsPhrase(self) -> None:
        """All that we answer by."""
        for status in (400, 404, 405, 408, 414, 431, 500, 501, 502, 503, 504, 505):
            head = written(Answer(status), last=True)
            self.assertTrue(head.startswith(b"HTTP/1.1 %d " % status))
            self.assertIn(b"\r\nContent-Length: %d\r\n" % len(Answer(status).body), head)


class FactoryTests(SynchronousTestCase):
    """What a listener's endpoint listens with."""

    def test_conversation(self) -> None:
        """HTTP/1.1, and no greeting."""
        self.assertEqual(HTTPServerFactory.alpn, (b"http/1.1",))
        self.assertEqual(HTTPServerFactory.advertised(Capabilities()), Advertised())
        server = HTTPServerFactory(Network(), 1, lambda leg: None).buildProtocol(None)
        self.assertIsInstance(server, HTTPServer)
