"""A request on its way: which connection it takes, and what happens when that is gone."""

from mailproxy.errors import Stage
from mailproxy.http.delivery import MAX_INTERIMS
from tests.dialling import LOCAL
from tests.http.support import ANN, CHUNKED, GET, OK, POST, HTTPCase, rules

HEAD = GET.replace(b"GET", b"HEAD")
OLD_GET = b"GET / HTTP/1.0\r\n" + ANN + b"\r\n"


class RetryTests(HTTPCase):
    """A connection that has waited is closed by the backend as we use it."""

    def prepare(self, *, method: bytes = b"GET", rest: bytes = b"") -> None:
        """Send a request on a connection that has waited; the backend closes it unanswered."""
        self.client = self.open()
        self.send(self.client)
        backend = self.answer(OK)
        self.client.take()
        self.send(self.client, GET.replace(b"GET", method)[:-2] + (rest or b"\r\n"))
        self.assertEqual(self.calls, 1)
        backend.hangUp()
        self.stage.network.pump()

    def test_repeated(self) -> None:
        """A request that changes nothing is sent again, once, with its body."""
        for method, rest in (
            (b"GET", b""),
            (b"PROPFIND", b"Content-Length: 2\r\n\r\nab"),
            (b"PUT", b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n"),
        ):
            self.prepare(method=method, rest=rest)
            self.assertEqual(self.calls, 2)
            backend = self.answer()
            got = backend.take()
            self.assertTrue(got.startswith(method))
            self.assertTrue(got.endswith(rest.partition(b"\r\n\r\n")[2]))
            self.reply(backend)
            self.assertEqual(self.client.take(), OK)
            self.leave(self.client)

    def test_onlyOnce(self) -> None:
        """A fresh connection that is closed unanswered is a failure."""
        self.prepare()
        self.answer().hangUp()
        self.stage.network.pump()
        self.assertTrue(self.client.take().startswith(b"HTTP/1.1 502 "))
        self.assertEqual(self.calls, 2)
        self.leave(self.client)

    def test_whatMayHaveBeenDone(self) -> None:
        """Is not asked for again: POST, or a body of which some is gone."""
        self.prepare(method=b"POST")
        self.assertTrue(self.client.take().startswith(b"HTTP/1.1 502 "))
        self.assertEqual(self.calls, 1)
        self.leave(self.client)

    def test_bodyThatIsGone(self) -> None:
        """It cannot be sent again."""
        self.client = self.open()
        self.send(self.client)
        backend = self.answer(OK)
        self.client.take()
        self.send(self.client, GET.replace(b"GET", b"PUT")[:-2] + b"Content-Length: 4\r\n\r\nab")
        self.send(self.client, b"c")
        backend.hangUp()
        self.stage.network.pump()
        self.assertTrue(self.client.take().startswith(b"HTTP/1.1 502 "))
        self.leave(self.client)

    def test_answerThatHasBegun(self) -> None:
        """One byte of it is enough."""
        self.client = self.open()
        self.send(self.client)
        backend = self.answer(OK)
        self.client.take()
        self.send(self.client)
        self.reply(backend, b"H")
        backend.hangUp()
        self.stage.network.pump()
        self.assertTrue(self.client.take().startswith(b"HTTP/1.1 502 "))
        self.assertEqual(self.calls, 1)
        self.leave(self.client)

    def test_bodyThatHasNotBegun(self) -> None:
        """A client that waits for `100 Continue` has lost nothing."""
        self.prepare(method=b"PUT", rest=b"Content-Length: 2\r\nExpect: 100-continue\r\n\r\n")
        backend = self.answer()
        self.reply(backend, b"HTTP/1.1 100 Continue\r\n\r\n")
        self.client.take()
        self.send(self.client, b"ab")
        self.assertTrue(backend.take().endswith(b"\r\n\r\nab"))
        self.reply(backend)
        self.assertEqual(self.client.take(), OK)
        self.leave(self.client)

    def test_bodyThatComesMeanwhile(self) -> None:
        """While the fresh connection is opened it waits: none of it is lost."""
        for rest in (b"Content-Length: 4\r\n\r\n", b"Expect: 100-continue\r\n" + CHUNKED):
            isChunked = rest.endswith(CHUNKED)
            self.prepare(method=b"PUT", rest=rest)
            self.assertEqual(self.calls, 2)
            self.send(self.client, b"4\r\nab" if isChunked else b"ab")
            backend = self.answer()
            self.send(self.client, b"cd\r\n0\r\n\r\n" if isChunked else b"cd")
            body = backend.take().partition(b"\r\n\r\n")[2]
            if isChunked:
                self.assertTrue(body.endswith(b"\r\n0\r\n\r\n"))
                body = b"".join(body.split(b"\r\n")[1:-3:2])
            self.assertEqual(body, b"abcd")
            self.reply(backend)
            self.assertEqual(self.client.take(), OK)
            self.leave(self.client)


class InterimTests(HTTPCase):
    """Interim answers are limited, as heads are."""

    EARLY = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"

    def test_number(self) -> None:
        """A hundred are passed on; with one more the backend is given up."""
        for count in (MAX_INTERIMS, MAX_INTERIMS + 1):
            client = self.open()
            self.send(client)
            backend = self.answer(self.EARLY * count)
            self.assertEqual(client.take().count(self.EARLY), MAX_INTERIMS)
            isOver = count > MAX_INTERIMS
            self.assertEqual(backend.lost is not None, isOver)
            if not isOver:
                self.reply(backend)
                self.assertEqual(client.take(), OK)
            self.leave(client)
            if isOver:
                line = self.lines()[-1]
                self.assertIn(" 502 of ", line)
                self.assertIn("unavailable (answer: too many interim answers)", line)

    def test_size(self) -> None:
        """Together they may have what one head may have: a client may take none of them."""
        early = b"HTTP/1.1 103 Early Hints\r\nLink: " + b"x" * 360 + b"\r\n\r\n"
        client = self.open(rules(maxHead=1000))
        self.send(client)
        self.answer(early * 2 + OK)
        self.assertTrue(client.take().endswith(early * 2 + OK))
        self.leave(client)
        client = self.open(rules(maxHead=1000))
        self.send(client)
        self.answer(early * 3 + OK)
        self.assertTrue(client.take().startswith(early * 2 + b"HTTP/1.1 502 "))
        self.leave(client)


class HealthTests(HTTPCase):
    """What counts against a destination, and what does not."""

    def failures(self) -> int:
        """How many have counted since the last success."""
        (report,) = self.stage.health.report(["old"])
        return report.consecutiveFailures

    def test_freshConnectionClosedUnanswered(self) -> None:
        """It counts, whatever the method."""
        client = self.open()
        for count, message in ((1, GET), (2, POST + b"Content-Length: 0\r\n\r\n")):
            self.send(client, message)
            self.answer().hangUp()
            self.stage.network.pump()
            self.assertTrue(client.take().startswith(b"HTTP/1.1 502 "))
            self.assertEqual(self.failures(), count)
        self.leave(client)

    def test_keptConnectionClosedUnanswered(self) -> None:
        """It does not: it had waited, and the backend may close what waits."""
        client = self.open()
        self.send(client)
        backend = self.answer(OK)
        self.send(client, POST + b"Content-Length: 0\r\n\r\n")
        backend.hangUp()
        self.stage.network.pump()
        self.assertIn(b"HTTP/1.1 502 ", client.take())
        self.assertEqual(self.failures(), 0)
        self.leave(client)

    def test_answerThatBreaksOff(self) -> None:
        """It does not: amid its head, or amid its body."""
        for answer in (b"H", OK[:-1]):
            client = self.open()
            self.send(client)
            self.answer(answer).hangUp()
            self.stage.network.pump()
            self.assertEqual(self.failures(), 0)
            self.leave(client)

    def test_longPollAfterAnOutage(self) -> None:
        """That the host is there again is known before its answer: nobody is kept out for that."""
        self.open().hangUp()
        for _ in range(3):
            self.stage.health.admit("old").failed(Stage.CONNECT, "192.0.2.9")
        self.stage.network.advance(30)
        client = self.stage.enter()
        self.send(client)
        backend = self.answer()
        other = self.stage.enter()
        self.send(other)
        self.answer(OK)
        self.assertEqual(other.take(), OK)
        backend.hangUp()
        self.stage.network.pump()
        self.assertEqual(self.failures(), 1)
        self.leave(client, other)


class FlowTests(HTTPCase):
    """A slow reader never grows our memory."""

    BIG = 5_000_000

    def test_slowClient(self) -> None:
        """The backend waits."""
        client = self.open()
        self.send(client)
        client.stopReading()
        backend = self.answer(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % self.BIG)
        self.reply(backend, b"x" * self.BIG)
        self.assertGreater(backend.transport.unsent, self.BIG - 1_000_000)
        client.startReading()
        self.stage.network.pump()
        self.assertEqual(len(client.take().partition(b"\r\n\r\n")[2]), self.BIG)
        self.leave(client)

    def test_steadyClient(self) -> None:
        """One that takes little, again and again, is not cut; one that stops is."""
        client = self.open(rules(idle=20.0))
        self.send(client)
        client.stopReading()
        self.answer(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % self.BIG + b"x" * self.BIG)
        for _ in range(10):
            self.stage.network.advance(8)
            self.assertEqual(len(client.transport.socket.recv(10)), 10)
        self.assertEqual(len(self.stage.registry.find("ann")), 1)
        for _ in range(5):
            self.stage.network.advance(5)
        self.assertEqual(self.stage.registry.find("ann"), [])
        self.assertIn("timeout (the client does not read)", self.lines()[0])

    def test_steadyBackend(self) -> None:
        """The same of one that takes a body."""
        client = self.open(rules(idle=20.0))
        self.send(client, POST + b"Content-Length: %d\r\n\r\n" % self.BIG)
        backend = self.answer()
        backend.stopReading()
        self.send(client, b"x" * self.BIG)
        for _ in range(10):
            self.stage.network.advance(8)
            self.assertEqual(len(backend.transport.socket.recv(10)), 10)
        self.assertEqual(client.take(), b"")
        for _ in range(5):
            self.stage.network.advance(5)
        self.assertTrue(client.take().startswith(b"HTTP/1.1 504 "))
        self.assertIn("timeout (the backend does not read)", self.lines()[0])

    def test_slowBackend(self) -> None:
        """The client waits; what the backend says meanwhile is heard."""
        client = self.open()
        self.send(client, POST + b"Content-Length: %d\r\n\r\n" % self.BIG)
        backend = self.answer()
        backend.stopReading()
        self.send(client, b"x" * self.BIG)
        self.assertGreater(client.transport.unsent, self.BIG - 1_000_000)
        self.reply(backend, b"HTTP/1.1 413 Big\r\nContent-Length: 0\r\n\r\n")
        self.assertTrue(client.received.startswith(b"HTTP/1.1 413 "))

    def test_largeUpload(self) -> None:
        """Arrives whole."""
        client = self.open()
        self.send(client, POST + CHUNKED)
        backend = self.answer()
        backend.take()
        piece = b"%x\r\n%b\r\n" % (100_000, b"y" * 100_000)
        self.send(client, piece * 50 + b"0\r\n\r\n")
        self.assertEqual(backend.take().count(b"y"), self.BIG)
        self.reply(backend)
        self.assertEqual(client.take(), OK)
        self.leave(client)


class CircleTests(HTTPCase):
    """Proxies that send requests to each other."""

    def test_circleEnds(self) -> None:
        """By the hops in the header, or in a field; the client is told 502."""
        listener = {"proxy_protocol": "optional", "proxy_trusted": [LOCAL + "/32"]}
        for header in (True, False):
            client = self.open(listener=listener if header else {}, target={"header": header})
            self.send(client)
            self.stage.circle()
            self.assertEqual(self.calls, 6)
            self.assertTrue(client.take().startswith(b"HTTP/1.1 502 "))
            self.assertIn("loop: no hop is left", self.lines()[0])
            self.events.clear()
            self.leave(client)

    def test_circleOverAKeptConnection(self) -> None:
        """Each request counts its own hops."""
        client = self.open()
        self.send(client)
        backend = self.answer(OK)
        client.take()
        self.send(client, GET[:-2] + b"X-Proxy-TTL: 1\r\n\r\n")
        self.assertTrue(client.take().startswith(b"HTTP/1.1 502 "))
        self.assertIn(b"X-Proxy-TTL: 6\r\n", backend.take())
        self.leave(client)
