"""A client's connection: requests in order, how long it may wait, and when it ends."""

from typing import ClassVar

import attrs

from mailproxy.http.connection import HTTPConnection
from mailproxy.served import PROTOCOLS
from tests.http.support import ANN, BOB, GET, OK, Backend, HTTPCase, rules
from tests.stage import NEW_HOST, OLD_HOST
from tests.support import Segments

ASK = b"GET /%d HTTP/1.1\r\nHost: a\r\n" + ANN + b"\r\n"


class OrderTests(HTTPCase):
    """Request by request; subclasses cut the bytes otherwise."""

    def test_kind(self) -> None:
        """This is what an HTTP listener makes of a connection."""
        self.assertIs(PROTOCOLS["http"].session, HTTPConnection)

    def test_twoRequestsOneBackendConnection(self) -> None:
        """It is kept for the client's next request."""
        client = self.open()
        self.send(client)
        backend = self.answer(OK)
        self.assertEqual(client.take(), OK)
        self.assertEqual(backend.take().count(b"GET / HTTP/1.1\r\n"), 1)
        self.send(client)
        self.reply(backend)
        self.assertEqual(client.take(), OK)
        self.assertEqual(self.calls, 1)
        self.leave(client)
        self.assertEqual(len(self.lines()), 2)

    def test_twoAccountsOneClientConnection(self) -> None:
        """Each request goes to its own account's destination, back and forth."""
        client = self.open()
        backends = {}
        for login, host in ((ANN, OLD_HOST), (BOB, NEW_HOST), (ANN, OLD_HOST), (BOB, NEW_HOST)):
            self.send(client, GET.replace(ANN, login))
            if host not in backends:
                self.assertEqual(self.stage.network.call.host, host)
                backends[host] = self.answer()
            self.assertIn(login, backends[host].take())
            self.reply(backends[host])
            self.assertEqual(client.take(), OK)
        self.assertEqual(self.calls, 2)
        self.leave(client)

    def test_pipelinedRequestsAreAnsweredInOrder(self) -> None:
        """One goes to its backend when the answer before it is through."""
        client = self.open()
        self.send(client, b"".join(ASK % number for number in range(3)))
        backend = self.answer()
        for number in range(3):
            self.assertTrue(backend.take().startswith(b"GET /%d " % number))
            self.assertEqual(client.take(), b"")
            self.reply(backend)
            self.assertEqual(client.take(), OK)
        self.leave(client)

    def test_manyPipelinedRequests(self) -> None:
        """They do not pile up on the stack."""
        client = self.open(rules({"match": "/x", "destination": "old"}, maxRequests=0))
        bad = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
        self.send(client, bad * (30 if self.segments is Segments.BYTES else 900))
        self.assertNotIn(b"close", client.received)
        self.assertGreater(client.take().count(b"404 Not Found\r\n"), 29)
        self.leave(client)

    def test_emptyLineInFront(self) -> None:
        """One is passed over: some clients end a body with it."""
        client = self.open()
        self.send(client, b"\r\n" + GET)
        self.answer(OK)
        self.assertEqual(client.take(), OK)
        self.send(client, b"\r\n\r\n" + GET)
        self.assertTrue(client.take().startswith(b"HTTP/1.1 400 "))

    def test_halfCloseIsNoDeparture(self) -> None:
        """A client that has said all it had to say still gets its answer."""
        client = self.open()
        client.say(GET + GET)
        client.finish()
        self.stage.network.pump()
        backend = self.answer(OK)
        self.reply(backend)
        self.assertEqual(client.take(), OK + OK)
        self.leave(client)

    def test_everyEndIsLogged(self) -> None:
        """One line for each request."""
        client = self.open()
        self.send(client, GET.replace(b"GET / ", b"GET /x?secret=1 "))
        self.answer(OK)
        (line,) = self.lines()
        self.assertRegex(
            line,
            r"\Asession \S{12} http door from 198\.51\.100\.7:40000: GET /x 200 of a~[0-9a-f]{8} "
            r"on old, served \(done\), \d+ bytes in, 68 out, 0\.000 s, request \S{12}\Z",
        )


class LinesTests(OrderTests):
    """The same, one line per segment."""

    segments: ClassVar[Segments] = Segments.LINES


class BytesTests(OrderTests):
    """The same, one byte per segment."""

    segments: ClassVar[Segments] = Segments.BYTES


class LimitTests(HTTPCase):
    """How long, and how many."""

    def test_connectionThatSaysNothing(self) -> None:
        """Is closed after `preauth_timeout`, without a word."""
        client = self.open(listener={"preauth_timeout": "9s"})
        self.stage.network.advance(8.9)
        self.assertIsNone(client.lost)
        self.stage.network.advance(0.1)
        self.assertEqual(client.take(), b"")
        self.assertNothingLeft(self.stage)

    def test_lateHead(self) -> None:
        """408, also for one that comes in drops."""
        client = self.open()
        for byte in (b"GET", b" / ", b"HTTP"):
            self.send(client, byte)
            self.stage.network.advance(10)
        self.assertTrue(client.take().startswith(b"HTTP/1.1 408 Request Timeout\r\n"))
        self.leave(client)
        self.assertIn(" - - 408 of - on -, limit (a head that is late)", self.lines()[0])

    def test_idleConnection(self) -> None:
        """Is closed after `keepalive_timeout`, without a word."""
        client = self.open(rules(keepalive=75.0))
        self.send(client)
        self.answer(OK)
        client.take()
        self.stage.network.advance(74)
        self.assertIsNone(client.lost)
        self.stage.network.advance(1)
        self.assertEqual(client.take(), b"")
        self.assertIsNotNone(client.lost)
        self.leave(client)

    def test_lateHeadOfANextRequest(self) -> None:
        """It has its own time, from its first byte."""
        client = self.open(rules(keepalive=75.0))
        self.send(client)
        self.answer(OK)
        client.take()
        self.stage.network.advance(70)
        self.send(client, b"G")
        self.stage.network.advance(29)
        self.assertIsNone(client.lost)
        self.stage.network.advance(1)
        self.assertTrue(client.take().startswith(b"HTTP/1.1 408 "))
        self.leave(client)

    def test_lastRequest(self) -> None:
        """The answer to request number `max_keepalive_requests` says that it is the last."""
        client = self.open(rules(maxRequests=2))
        self.send(client, GET * 3)
        backend = self.answer(OK)
        self.assertNotIn(b"close", client.take())
        self.reply(backend)
        self.assertIn(b"Connection: close\r\n", client.take())
        self.assertIsNotNone(client.lost)
        self.leave(client)
        self.assertEqual(len(self.lines()), 2)

    def test_longHead(self) -> None:
        """431 at `max_head_size`, without waiting for its end; just below it, served."""
        for size, status in ((999, b"404"), (1000, b"404"), (1001, b"431")):
            client = self.open(rules({"match": "/x", "destination": "old"}, maxHead=1000))
            head = b"GET / HTTP/1.1\r\nHost: a\r\nX: "
            self.send(client, head + b"x" * (size - len(head) - 4) + b"\r\n\r\n")
            self.assertTrue(client.take().startswith(b"HTTP/1.1 " + status), size)
            self.leave(client)
        client = self.open(rules(maxHead=200_000))
        self.send(client, b"GET / HTTP/1.1\r\nX: " + b"x" * 190_000)
        self.assertEqual(client.take(), b"")
        self.send(client, b"x" * 10_000)
        self.assertTrue(client.take().startswith(b"HTTP/1.1 431 "))
        self.leave(client)

    def test_readAheadIsBounded(self) -> None:
        """A client that pipelines without end waits while an answer is on its way."""
        client = self.open()
        self.send(client, GET)
        self.answer()
        self.send(client, GET * 20_000)
        (server,) = self.stage.listener.factory.connections
        self.assertLess(server.unread, 200_000)
        self.assertGreater(client.transport.unsent, 0)

    def test_answersThatAreNotTaken(self) -> None:
        """A client that asks on and takes no answer waits, and is given up in the end."""
        client = self.open(rules(idle=60.0, maxRequests=0))
        client.stopReading()
        self.send(client, GET * 500)
        backend = self.answer()
        big = b"HTTP/1.1 200 OK\r\nContent-Length: 50000\r\n\r\n" + b"x" * 50_000
        for _ in range(20):
            self.reply(backend, big)
        self.assertLess(backend.take().count(b"GET"), 10)
        (server,) = self.stage.listener.factory.connections
        self.assertLess(server.transport.unsent, 300_000)  # type: ignore[attr-defined]
        self.stage.network.advance(60)
        self.stage.network.advance(60)
        self.leave(client)

    def test_slowClientGetsTheEnd(self) -> None:
        """Of an answer behind which we close: it has a minute for what is on its way."""
        client = self.open()
        self.send(client, GET.replace(b"Host", b"Connection: close\r\nHost"))
        client.stopReading()
        self.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 150000\r\n\r\n" + b"x" * 150_000)
        self.stage.network.advance(30)
        self.assertIsNone(client.lost)
        client.startReading()
        self.stage.network.pump()
        self.assertTrue(client.take().endswith(b"x" * 150_000))
        self.leave(client)


class ReloadTests(HTTPCase):
    """A reload holds for the next request."""

    def test_newRoutesOnAnOldConnection(self) -> None:
        """Routes, destinations and limits are those of now."""
        client = self.open()
        self.send(client)
        old = self.answer(OK)
        client.take()
        resources = attrs.evolve(
            self.stage.runtime.resources, http=rules({"match": "/**", "destination": "new"})
        )
        self.stage.runtime = attrs.evolve(self.stage.runtime, resources=resources)
        self.send(client)
        self.assertEqual(self.stage.network.call.host, NEW_HOST)
        self.answer(OK)
        self.assertEqual(client.take(), OK)
        self.assertIsNone(old.lost)
        self.leave(client)

    def test_backendConnectionOfAnOldTarget(self) -> None:
        """A destination that is another now is dialled anew."""
        client = self.open()
        self.send(client)
        old = self.answer(OK)
        target = attrs.evolve(self.stage.runtime.resources.targets["old", "http"], port=8080)
        resources = attrs.evolve(self.stage.runtime.resources, targets={("old", "http"): target})
        self.stage.runtime = attrs.evolve(self.stage.runtime, resources=resources)
        self.send(client)
        self.assertEqual((self.calls, self.stage.network.call.port), (2, 8080))
        self.assertIsNotNone(old.lost)
        self.answer(OK)
        self.leave(client)


class StopTests(HTTPCase):
    """The process stops."""

    def test_idleConnectionIsClosedAtOnce(self) -> None:
        """Also one that has never said anything, or only half a head."""
        client = self.open()
        self.send(client)
        self.answer(OK)
        client.take()
        silent, half = self.stage.enter(), self.stage.enter()
        self.send(half, b"GET / HT")
        self.stage.listener.factory.stop()
        self.stage.network.pump()
        for each in (client, silent, half):
            self.assertEqual(each.take(), b"")
            self.assertIsNotNone(each.lost)
        self.leave(client)

    def test_requestInHandIsServed(self) -> None:
        """Its answer says that it is the last, and nothing behind it is begun."""
        client = self.open()
        self.send(client, GET + GET)
        backend = self.answer()
        self.stage.listener.factory.stop()
        (exchange,) = self.stage.registry.find()
        exchange.shutDown(bridged=False)
        self.stage.network.pump()
        self.assertIsNone(client.lost)
        self.reply(backend)
        self.assertIn(b"\r\nConnection: close\r\n", client.take())
        self.assertEqual(backend.take().count(b"GET"), 1)
        self.leave(client)

    def test_graceIsOver(self) -> None:
        """A request that is still in hand is ended: 503, or the answer is broken off."""
        client = self.open()
        self.send(client)
        self.answer()
        (exchange,) = self.stage.registry.find()
        exchange.shutDown(bridged=True)
        self.stage.network.pump()
        self.assertTrue(client.take().startswith(b"HTTP/1.1 503 "))
        self.leave(client)
        self.assertIn("shutdown", self.lines()[0])


class IntroductionTests(HTTPCase):
    """What comes before the first request."""

    def test_header(self) -> None:
        """A trusted peer's PROXY header says who the client is."""
        listener = {"proxy_protocol": "required", "proxy_trusted": ["198.51.100.7/32"]}
        client = self.open(listener=listener, target={"header": True})
        self.send(client, b"PROXY TCP4 203.0.113.9 192.0.2.25 5000 80\r\n" + GET)
        backend = self.answer(OK)
        self.assertTrue(backend.received.startswith(b"\r\n\r\n\0\r\nQUIT\n"))
        self.assertIn(" from 203.0.113.9:5000: ", self.lines()[0])
        self.assertEqual(client.take(), OK)

    def test_optionalHeader(self) -> None:
        """HTTP clients speak first: nobody waits for one."""
        listener = {"proxy_protocol": "optional", "proxy_trusted": ["198.51.100.7/32"]}
        client = self.open(listener=listener)
        self.send(client, b"P")
        self.send(client, GET.replace(b"GET", b"OST"))
        self.answer(OK)
        self.assertEqual(client.take(), OK)

    def test_brokenHeader(self) -> None:
        """Closes the connection; the log says why."""
        listener = {"proxy_protocol": "required", "proxy_trusted": ["198.51.100.7/32"]}
        client = self.open(listener=listener)
        self.send(client, GET)
        self.assertEqual(client.take(), b"")
        self.leave(client)
        self.assertTrue([event for event in self.events if "no request" in event["log_format"]])

    def test_clientThatLeaves(self) -> None:
        """Before, between and amid heads nothing is left of it."""
        for said in (b"", b"GET / HT"):
            client = self.open()
            self.send(client, said)
            self.leave(client)
        self.assertEqual(self.lines(), [])

    def test_backendThatLeavesMeanwhile(self) -> None:
        """A connection that waits is forgotten when the backend closes it."""
        client = self.open()
        self.send(client)
        first = self.answer(OK, Backend())
        client.take()
        first.hangUp()
        self.stage.network.pump()
        self.send(client, GET.replace(b"GET", b"POST"))
        self.assertEqual(self.calls, 2)
        self.answer(OK)
        self.assertEqual(client.take(), OK)
        self.leave(client)
