"""What tests of HTTP rely on in their servers and clients, proved without a proxy between."""

import ssl
from contextlib import ExitStack
from typing import ClassVar

from twisted.trial.unittest import SynchronousTestCase

from tests.integration.accounts import STRANGER, VIP
from tests.integration.certificates import Authority
from tests.integration.nginx import Nginx
from tests.integration.process import waitUntil
from tests.integration.recorder import Recorder
from tests.integration.scripted import ScriptedServer
from tests.integration.shared import SharedServers
from tests.integration.web import Malformed, WebClient, chunks, parseHead, requestBytes
from tests.integration.wire import proxyHeader


class NginxTests(SharedServers, SynchronousTestCase):
    """One server, by itself."""

    authority: ClassVar[Authority]
    context: ClassVar[ssl.SSLContext]
    server: ClassVar[Nginx]

    @classmethod
    def startServers(cls, stack: ExitStack) -> None:
        """Start it."""
        cls.authority = Authority.temporary(stack)
        cls.context = cls.authority.clientContext()
        cls.server = stack.enter_context(Nginx("only", cls.authority))

    def client(self) -> WebClient:
        """A connection over TLS."""
        client = WebClient(self.server.doors["http"].secure, self.context)
        self.addCleanup(client.close)
        return client

    def test_answersTellWhereTheyComeFrom(self) -> None:
        """Server, connection and number; refusals too."""
        client = self.client()
        answers = [client.ask("/a?b"), client.ask("/files/none"), client.ask("/broken", "HEAD")]
        self.assertEqual([each.status for each in answers], [200, 404, 503])
        self.assertEqual({each.header("x-server") for each in answers}, {"only"})
        self.assertEqual([each.header("x-request") for each in answers], ["1", "2", "3"])
        connections = {each.header("x-connection") for each in answers}
        self.assertEqual(len(connections), 1)
        self.assertNotIn(self.client().ask("/").header("x-connection"), connections)

    def test_bodiesComeBackAndFilesStay(self) -> None:
        """With a length and in chunks; a file is what was put there."""
        client = self.client()
        self.assertEqual(client.ask("/echo", "POST", b"abc").body, b"abc")
        body = chunks(b"abc", b"def")
        self.assertEqual(
            client.ask("/echo", "POST", body, Transfer_Encoding="chunked").body, b"abcdef"
        )
        self.assertEqual(client.ask("/files/x/y", "PUT", b"content").status, 201)
        self.assertEqual(client.ask("/files/x/y").body, b"content")
        self.assertEqual(self.server.size("x/y"), 7)
        self.server.putZeros("big", 1_000_000)
        self.assertEqual(client.ask("/files/big").body, bytes(1_000_000))

    def test_headsAreShown(self) -> None:
        """Each header as it came, so that a test can see what reached it."""
        answer = self.client().ask("/head", X_Own="1 2")
        self.assertIn(b"X-Own: 1 2\r\n", answer.body)

    def test_theClientIsNamedByPROXYHeader(self) -> None:
        """Where one is wanted."""
        doors, preface = self.server.doors["http"], proxyHeader(STRANGER, VIP)
        with WebClient(doors.secureProxied, self.context, preface=preface) as client:
            self.assertEqual(client.ask("/").header("x-peer"), "192.0.2.7:40007")
        with WebClient(doors.openProxied, preface=preface) as client:
            self.assertEqual(client.ask("/").header("x-peer"), "192.0.2.7:40007")


class RecorderTests(SynchronousTestCase):
    """The backend that is told what to answer, and our own reading of HTTP."""

    def setUp(self) -> None:
        """Start one."""
        self.recorder = Recorder()
        server = ScriptedServer(self.recorder)
        self.addCleanup(server.close)
        self.client = WebClient(server.port)
        self.addCleanup(self.client.close)

    def test_requestsAreKept(self) -> None:
        """Whole ones, each with its body and trailers."""
        trailers = b"X-Sum: 1\r\n"
        self.client.send(
            requestBytes("GET", "/a")
            + requestBytes("POST", "/b", body=b"one")
            + requestBytes(
                "PUT", "/c", {"Transfer-Encoding": "chunked"}, chunks(b"two", trailers=trailers)
            )
        )
        self.assertEqual([self.client.answer().body for _ in "abc"], [b"/a\n", b"/b\n", b"/c\n"])
        found = self.recorder.messages()
        self.assertEqual([each.body for each in found], [b"", b"one", b"two"])
        self.assertEqual(found[2].trailers.get(b"x-sum"), b"1")
        self.assertEqual({each.connection for each in self.recorder.requests}, {1})

    def test_brokenAndBadOnesAreTold(self) -> None:
        """Each in its own list."""
        self.client.send(requestBytes("GET", "/a") + b"POST /b HTTP/1.1\r\nHost: x\r\nCont")
        self.client.answer()
        self.client.close()
        self.assertTrue(waitUntil(lambda: bool(self.recorder.unfinished), 5))
        self.assertEqual(self.recorder.unfinished, [b"POST /b HTTP/1.1\r\nHost: x\r\nCont"])
        self.assertEqual(self.recorder.malformed, [])

    def test_theReadingIsStrict(self) -> None:
        """What the grammar does not have is no message."""
        for line in (
            b"X : 1",
            b" X: 1",
            b"X: 1\n",
            b"X: \r1",
            b"X",
            b": 1",
            b"X: \x00",
            b"X\xff: 1",
        ):
            with self.assertRaises(Malformed):
                parseHead(b"GET / HTTP/1.1\r\n%b\r\n\r\n" % line)
        for bad in (
            b"GET / HTTP/1.1\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0x1\r\na\r\n0\r\n\r\n",
            b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
        ):
            recorder = Recorder()
            with ScriptedServer(recorder) as server, WebClient(server.port) as client:
                client.send(bad)
                self.assertEqual(client.readToEnd(), b"")
            self.assertEqual(len(recorder.malformed), 1, bad)
