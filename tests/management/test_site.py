"""What a connection may cost, said in plain bytes."""

from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.iweb import IRequest
from twisted.web.resource import Resource
from zope.interface import implementer

from mailproxy.management import Guard, ManagementAPI, makeFactory, makeSite
from mailproxy.management.site import MOST_BODY, MOST_CONNECTIONS, MOST_HEADERS, PATIENCE
from tests.management.support import BEARER, TOKEN, FakeControl, Reply, Wire

FIELDS = f"Host: proxy\r\nAuthorization: {BEARER}\r\n".encode()
GONE = Failure(ConnectionDone())


class SiteCase(SynchronousTestCase):
    """A site with the whole API, and a clock set by hand."""

    def setUp(self) -> None:
        """Start without a connection."""
        self.clock, self.control = Clock(), FakeControl()
        self.control.result = {}
        self.api = ManagementAPI(self.control, Guard(TOKEN, 3, 60.0, Clock()))
        self.site = makeSite(self.api.resource(), self.clock)
        self.wire = Wire(self.site)


class TimeTests(SiteCase):
    """How long a connection is waited for."""

    def test_idleConnectionsAreClosed(self) -> None:
        """Before the first request, and after each."""
        self.clock.advance(PATIENCE - 1)
        self.assertEqual(self.wire.ask(b"/stats").status, 200)
        self.clock.advance(PATIENCE - 1)
        self.assertTrue(self.wire.open)
        self.clock.advance(1)
        self.assertFalse(self.wire.open)

    def test_slowRequestsAreClosed(self) -> None:
        """The attack of a byte now and then: a request has its time as a whole."""
        self.wire.send(b"GET /stats HTTP/1.1\r\nX: ")
        for _ in range(int(PATIENCE)):
            self.assertTrue(self.wire.open)
            self.wire.send(b"x")
            self.clock.advance(1)
        self.assertFalse(self.wire.open)

    def test_slowBodiesAreClosed(self) -> None:
        """A body is part of its request."""
        self.wire.send(
            b"POST /mappings/reload HTTP/1.1\r\n" + FIELDS + b"Content-Length: 99\r\n\r\n"
        )
        for _ in range(int(PATIENCE)):
            self.wire.send(b"x")
            self.clock.advance(1)
        self.assertFalse(self.wire.open)
        self.assertEqual(self.control.asked, [])

    def test_whoDoesNotHangUpIsCutOff(self) -> None:
        """The attack of keeping the places: TLS ends when both sides say so, or in time."""
        for field in (b"Connection: close", b"Content-Length: 100000"):
            wire = Wire(self.site)
            wire.ask(b"/stats", field)
            self.assertFalse(wire.open)
            wire.send(b"x")
            self.clock.advance(PATIENCE - 1)
            self.assertFalse(wire.transport.disconnected)
            self.clock.advance(1)
            self.assertTrue(wire.transport.disconnected)

    def test_noTimerIsLeftBehind(self) -> None:
        """A connection that is lost is not waited for."""
        self.wire.ask(b"/stats")
        self.wire.lose(GONE)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class SizeTests(SiteCase):
    """How much is read."""

    def post(self, fields: bytes, body: bytes) -> Reply:
        """Send a call with a body."""
        self.wire.send(b"POST /mappings/reload HTTP/1.1\r\n" + FIELDS + fields + b"\r\n" + body)
        return Reply.parse(self.wire.received())

    def test_smallBodiesArePassedOver(self) -> None:
        """Some clients send one with each POST."""
        body = b"x" * MOST_BODY
        reply = self.post(b"Content-Length: %d\r\n" % len(body), body)
        self.assertEqual((reply.status, reply.text), (200, "reloaded\n"))
        self.assertEqual(self.wire.ask(b"/healthz").status, 200)

    def test_bigBodiesAreRefused(self) -> None:
        """At once, unread; nothing behind it is taken for a request."""
        body = b"GET /stats HTTP/1.1\r\n" + FIELDS + b"\r\n"
        reply = self.post(b"Content-Length: %d\r\n" % (MOST_BODY + 1), body)
        self.assertEqual(reply.status, 413)
        self.wire.send(b"x" * MOST_BODY + body)
        self.assertEqual(self.wire.received(), b"")
        self.assertEqual(self.control.asked, [])
        self.assertFalse(self.wire.open)

    def test_bodiesOfUnknownLengthAreRefused(self) -> None:
        """Chunks would have to be counted."""
        reply = self.post(b"Transfer-Encoding: chunked\r\n", b"1\r\nx\r\n0\r\n\r\n")
        self.assertEqual((reply.status, self.control.asked), (413, []))
        self.assertFalse(self.wire.open)

    def test_nobodyIsToldToSendABigBody(self) -> None:
        """A client that asks first is not encouraged."""
        fields = b"Expect: 100-continue\r\nContent-Length: 100000\r\n"
        self.assertEqual(self.post(fields, b"").status, 413)
        self.assertEqual(self.wire.received(), b"")

    def test_manyHeadersAreRefused(self) -> None:
        """And long ones; the connection ends."""
        for fields in ([b"X: y"] * (MOST_HEADERS + 1), [b"X: " + b"y" * 20_000]):
            wire = Wire(self.site)
            wire.send(b"\r\n".join([b"GET /healthz HTTP/1.1", *fields, b"", b""]))
            self.assertNotIn(b" 200 ", wire.received())
            self.assertFalse(wire.open)


class CountTests(SiteCase):
    """How many connections there are."""

    def test_connectionsAreBounded(self) -> None:
        """One too many is closed; one that ends makes room for another."""
        wires = [self.wire, *(Wire(self.site) for _ in range(MOST_CONNECTIONS - 1))]
        self.assertTrue(all(wire.open for wire in wires))
        surplus = Wire(self.site)
        self.assertFalse(surplus.open)
        surplus.send(b"GET /healthz HTTP/1.1\r\n\r\n")
        self.assertEqual(surplus.received(), b"")
        surplus.lose(GONE)
        self.assertFalse(Wire(self.site).open)
        wires[0].lose(GONE)
        self.assertEqual(Wire(self.site).ask(b"/healthz").status, 200)

    def test_pipelinedRequestsAreAnsweredInOrder(self) -> None:
        """Many in one segment, without recursion."""
        request = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
        self.wire.send(request * 3000)
        self.assertEqual(self.wire.received().count(b"\r\n\r\nok\n"), 3000)

    def test_pipelinedGuessesAreCounted(self) -> None:
        """One by one, though they come together."""
        guess = b"GET /stats HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer x\r\n\r\n"
        self.wire.send(guess * 5)
        data = self.wire.received()
        self.assertEqual((data.count(b" 401 "), data.count(b" 429 ")), (3, 2))


class DiscretionTests(SiteCase):
    """What is shown and written down."""

    def test_nothingIsSaidOfTheServer(self) -> None:
        """No product, no version, to nobody, whatever they ask."""
        for target in (b"/stats", b"/healthz", b"/x", b"*", b"http://[/"):
            for field in (b"X: y", b"Authorization: " + BEARER.encode()):
                reply = Wire(self.site).ask(target, field, method=b"GET")
                self.assertNotIn("Twisted", repr(reply), target)

    def test_theStarIsAPathLikeAnyOther(self) -> None:
        """`OPTIONS *` is answered to those with the token, as unknown."""
        self.assertEqual(self.wire.ask(b"*", method=b"OPTIONS").status, 404)
        self.assertEqual(self.wire.ask(b"*", b"X: y", method=b"OPTIONS").status, 401)

    def test_mishapsLookLikeAnyAnswer(self) -> None:
        """An exception outside of a call is logged; its words are in no answer."""

        class Broken(Resource):
            isLeaf = True

            def render(self, request: IRequest) -> Any:
                raise ZeroDivisionError("secret detail")

        reply = Wire(makeSite(Broken(), self.clock)).ask(b"/")
        self.assertEqual((reply.status, reply.text), (500, "internal error\n"))
        self.assertEqual(reply.headers["server"], "mailproxy")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_requestsAreNotLogged(self) -> None:
        """No event holds an identifier, a token or a path that somebody asked for."""
        self.site.doStart()
        self.addCleanup(self.site.doStop)
        with capturedLogs() as events:
            for method in (b"GET", b"HEAD", b"POST", b"OPTIONS"):
                for field in (b"X: y", b"Authorization: " + BEARER.encode()):
                    self.wire.ask(b"/mappings?identifier=ann", field, method=method)
        self.assertEqual(self.control.asked, [("mapping", "ann")] * 2)
        self.assertEqual(events, [])

    def test_onlyOurHTTPIsSpoken(self) -> None:
        """HTTP/2 would pass our limits by."""
        self.assertEqual(self.site.acceptableProtocols(), [b"http/1.1"])


class FactoryTests(SynchronousTestCase):
    """What listens."""

    def test_itSpeaksTLS(self) -> None:
        """The site is inside TLS, never beside it."""

        @implementer(IOpenSSLServerConnectionCreator)
        class Certificates:
            def serverConnectionForTLS(self, tlsProtocol: object) -> Any:
                raise NotImplementedError

        factory = makeFactory(Resource(), Certificates(), Clock())
        self.assertIsInstance(factory, TLSMemoryBIOFactory)
