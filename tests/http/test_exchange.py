"""One request and its answer, between a client and a backend that the test plays."""

from typing import ClassVar

import attrs
from twisted.internet.error import ConnectionRefusedError
from twisted.logger import LogLevel
from zope.interface.verify import verifyObject

from mailproxy.config.stores import OnError
from mailproxy.errors import MappingError, Stage
from mailproxy.registry import ISession
from tests.http.support import (
    ANN,
    CHUNKED,
    GET,
    OK,
    OK_CHUNKED,
    POST,
    HTTPCase,
    Visitor,
    rules,
)
from tests.stage import NEW_HOST, OLD_HOST
from tests.support import Segments

HEAD = GET.replace(b"GET", b"HEAD")
BY_BODY = {"match": "/**", "extract": {"from": "body", "regex": r"is=(\w+)"}}
OLD_GET = b"GET / HTTP/1.0\r\n" + ANN + b"\r\n"


class RouteTests(HTTPCase):
    """Where requests go."""

    def test_headWithoutSense(self) -> None:
        """It has no method either, whatever it begins with."""
        client = self.open()
        self.send(client, b"HEAD / HTTP/1.1\r\nHost: a/b\r\n\r\n")
        self.assertTrue(client.take().endswith(b"\r\n\r\n400 Bad Request\n"))
        self.assertIn("limit (a malformed Host)", self.lines()[0])
        self.leave(client)

    def test_reasonsRepeatNothing(self) -> None:
        """The log says what is wrong with a head, and not what stands there."""
        for head, reason in (
            (b"GET / HTTP/1.1\r\n\r\n", "Missing mandatory Host: header"),
            (GET.replace(b"Basic ", b"Basic\x80 ").replace(b"tion:", b"tion :"), "illegal header"),
            (GET.replace(b"/ ", b"/? secret "), "illegal request line"),
        ):
            client = self.open()
            self.send(client, head)
            self.assertIn(f"limit (a malformed head: {reason}", self.lines()[-1])
            self.assertNotIn("secret", self.lines()[-1])
            self.assertNotIn("Basic", self.lines()[-1])
            self.leave(client)

    def test_noRoute(self) -> None:
        """404; the connection stays."""
        client = self.open(rules({"match": "/dav/**", "destination": "old"}))
        for path, host in ((b"/x", None), (b"/dav/x", OLD_HOST)):
            self.send(client, GET.replace(b"GET / ", b"GET %b " % path))
            if host is None:
                self.assertTrue(client.take().startswith(b"HTTP/1.1 404 Not Found\r\n"))
            else:
                self.assertEqual(self.stage.network.call.host, host)
        self.answer(OK)
        self.leave(client)

    def test_fallback(self) -> None:
        """Requests without an account: where the route says, else to the default."""
        bare = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
        for route, host in (({}, OLD_HOST), ({"fallback": "new"}, NEW_HOST)):
            table = {"match": "/**", "extract": {"from": "authorization"}, **route}
            client = self.open(rules(table))
            self.send(client, bare)
            self.assertEqual(self.stage.network.call.host, host)
            self.answer(OK)
            self.leave(client)
        self.assertEqual(self.stage.source.asked, [])

    def test_noEndpoint(self) -> None:
        """A destination without HTTP: 502."""
        client = self.open()
        self.stage.source.table["ann"] = "empty"
        self.send(client)
        self.assertTrue(client.take().startswith(b"HTTP/1.1 502 Bad Gateway\r\n"))
        self.assertIsNone(client.lost)
        self.leave(client)

    def test_nameThatMayNotBeUsed(self) -> None:
        """502, and neither store nor log has seen it."""
        client = self.open(rules({"match": "/**", "extract": {"from": "header", "header": "X-A"}}))
        self.send(client, GET[:-2] + b"X-A: evil name\r\n\r\n")
        self.assertTrue(client.take().startswith(b"HTTP/1.1 502 "))
        self.assertEqual(self.stage.source.asked, [])
        self.assertNotIn("evil", "".join(self.lines()))
        self.leave(client)

    def test_hold(self) -> None:
        """Requests of an account that is being moved wait, then go to the new place."""
        client = self.open()
        self.send(client)
        self.answer(OK)
        client.take()
        self.stage.registry.hold("ann", 60)
        self.send(client)
        self.stage.network.advance(50)
        self.assertEqual((client.take(), self.calls), (b"", 1))
        self.stage.source.table["ann"] = "new"
        self.stage.cache.invalidate("ann")
        self.stage.network.advance(10)
        self.assertEqual(self.stage.network.call.host, NEW_HOST)
        self.answer(OK)
        self.assertEqual(client.take(), OK)
        self.leave(client)

    def test_holdAndReload(self) -> None:
        """Who has waited goes by the new routes; a body that was read for the old one is whole."""
        client = self.open(rules({**BY_BODY, "extract": {"from": "body", "regex": r"was=(\w+)"}}))
        self.stage.registry.hold("bob", 60)
        sent = b"was=bob&is=ann&" + b"x" * 3000
        head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(sent)
        self.send(client, head + sent)
        self.assertEqual(self.calls, 0)
        resources = attrs.evolve(self.stage.runtime.resources, http=rules(BY_BODY))
        self.stage.runtime = attrs.evolve(self.stage.runtime, resources=resources)
        self.stage.registry.hold("bob", 0)
        self.stage.network.pump()
        self.assertEqual(self.stage.network.call.host, OLD_HOST)
        backend = self.answer(OK)
        self.assertTrue(bytes(backend.received).endswith(sent))
        self.assertEqual(client.take(), OK)
        self.leave(client)

    def test_nextRequestGoesToTheNewPlace(self) -> None:
        """Once an account is mapped elsewhere, on the same client connection."""
        client = self.open()
        self.send(client)
        self.answer(OK)
        self.stage.source.table["ann"] = "new"
        self.stage.cache.invalidate("ann")
        self.send(client)
        self.assertEqual(self.stage.network.call.host, NEW_HOST)
        self.answer(OK)
        self.leave(client)


class FailureTests(HTTPCase):
    """No answer, or none that is sound."""

    def assertAnswered(self, client: object, status: bytes, *fields: bytes) -> None:
        """The client has got an answer of ours, which tells nothing of what is behind us."""
        heard = client.take()  # type: ignore[attr-defined]
        self.assertTrue(heard.startswith(b"HTTP/1.1 " + status), heard)
        for field in fields:
            self.assertIn(b"\r\n%b\r\n" % field, heard)
        for secret in (b"203.0.113", b"old", b"refused", b"/secret"):
            self.assertNotIn(secret, heard)

    def test_backendDown(self) -> None:
        """502; the client may stay."""
        client = self.open()
        self.send(client, GET.replace(b"GET / ", b"GET /secret "))
        self.stage.network.call.refuse(ConnectionRefusedError())
        self.assertAnswered(client, b"502 Bad Gateway\r\n", b"Content-Length: 16")
        self.assertIsNone(client.lost)
        self.assertIn("unavailable (connect: 203.0.113.1:", self.lines()[0])
        self.leave(client)

    def test_bodyOfARefusedRequest(self) -> None:
        """If all of it is here the connection goes on behind it; else the answer is the last."""
        sneaky = b"GET /sneaky HTTP/1.1\r\n\r\n"
        whole = (
            b"Content-Length: %d\r\n\r\n" % len(sneaky) + sneaky,
            CHUNKED + b"%x\r\n%b\r\n0\r\n\r\n" % (len(sneaky), sneaky),
        )
        for body in whole:
            client = self.open(rules({"match": "/x", "destination": "old"}))
            self.send(client, POST + body + GET.replace(b"/", b"/x", 1))
            self.answer(OK)
            heard = client.take()
            self.assertEqual(heard.count(b"HTTP/1.1 404 "), 1)
            self.assertNotIn(b"close", heard)
            self.assertTrue(heard.endswith(OK))
            self.leave(client)
        for body in (whole[0][:-1], whole[1][:-1], CHUNKED + b"x\r\n"):
            client = self.open(rules({"match": "/x", "destination": "old"}))
            self.send(client, POST + body)
            self.assertAnswered(client, b"404 ", b"Connection: close")
            self.leave(client)

    def test_toHEAD(self) -> None:
        """The same, without a body."""
        client = self.open()
        self.send(client, HEAD)
        self.stage.network.call.refuse(ConnectionRefusedError())
        self.assertTrue(client.take().endswith(b"\r\n\r\n"))
        self.leave(client)

    def test_backendThatCannotBeReachedInTime(self) -> None:
        """504 after `backend_timeout`."""
        client = self.open()
        self.send(client)
        self.stage.network.advance(10)
        self.assertAnswered(client, b"504 Gateway Timeout\r\n")
        self.leave(client)

    def test_openCircuit(self) -> None:
        """503, and when to ask again; also where a connection waits."""
        client = self.open()
        self.send(client)
        backend = self.answer(OK)
        client.take()
        for _ in range(3):
            self.stage.health.admit("old").failed(Stage.CONNECT, "192.0.2.9")
        self.send(client)
        self.assertAnswered(client, b"503 Service Unavailable\r\n", b"Retry-After: 30")
        self.assertEqual((self.calls, backend.take().count(b"GET")), (1, 1))
        self.leave(client)

    def test_storeThatCannotTell(self) -> None:
        """503, where the operator wants such requests refused."""
        client = self.open(onError=OnError.TEMPFAIL)
        self.stage.source.error = MappingError("down")
        self.send(client)
        self.assertAnswered(client, b"503 ", b"Retry-After: 5")
        self.leave(client)

    def test_noAnswerInTime(self) -> None:
        """504 after `relay_idle`; it may be this request's own, and counts against nobody."""
        client = self.open(rules(idle=20.0))
        self.send(client)
        self.answer()
        self.stage.network.advance(19)
        self.assertEqual(client.take(), b"")
        self.stage.network.advance(1)
        self.assertAnswered(client, b"504 ", b"Connection: close")
        self.assertIn("timeout (the backend is silent)", self.lines()[0])
        (report,) = self.stage.health.report(["old"])
        self.assertEqual(report.consecutiveFailures, 0)
        self.leave(client)

    def test_clientThatStalls(self) -> None:
        """408, and no failure of the backend's."""
        client = self.open(rules(idle=20.0))
        self.send(client, POST + b"Content-Length: 9\r\n\r\nab")
        self.answer()
        self.stage.network.advance(20)
        self.assertAnswered(client, b"408 ", b"Connection: close")
        self.assertIn("timeout (the client's body stopped)", self.lines()[0])
        (report,) = self.stage.health.report(["old"])
        self.assertEqual(report.consecutiveFailures, 0)
        self.leave(client)

    def test_answerThatStalls(self) -> None:
        """Is broken off: the client sees that it is not whole."""
        client = self.open(rules(idle=20.0))
        self.send(client)
        self.answer(OK_CHUNKED + b"2\r\nab\r\n")
        self.stage.network.advance(20)
        self.assertTrue(client.take().endswith(b"2\r\nab\r\n"))
        self.assertIsNotNone(client.lost)
        self.leave(client)
        self.assertIn("timeout (the backend's answer stopped)", self.lines()[0])

    def test_answerCutShort(self) -> None:
        """Likewise."""
        for answer in (OK_CHUNKED + b"2\r\nab\r\n", OK[:-1]):
            client = self.open()
            self.send(client)
            backend = self.answer(answer)
            backend.hangUp()
            self.stage.network.pump()
            self.assertFalse(client.take().endswith(b"0\r\n\r\n"))
            self.assertIsNotNone(client.lost)
            self.leave(client)
            self.assertIn(" 200 of ", self.lines()[-1])
            self.assertIn("unavailable (answer: ", self.lines()[-1])

    def test_lostConnectionIsNoEnd(self) -> None:
        """An answer that should end with its connection is broken off when that is lost."""
        client = self.open()
        self.send(client)
        backend = self.answer(b"HTTP/1.1 200 OK\r\n\r\nab")
        backend.reset()
        self.stage.network.pump()
        self.assertFalse(client.take().endswith(b"0\r\n\r\n"))
        self.assertIsNotNone(client.lost)
        self.leave(client)

    def test_lostConnectionOfAnOldClientsAnswer(self) -> None:
        """It sees a reset, since a mere end would be that of the answer."""
        client = self.open()
        self.send(client, OLD_GET)
        backend = self.answer(b"HTTP/1.1 200 OK\r\n\r\nab")
        client.take()
        backend.reset()
        self.stage.network.pump()
        self.assertIsNotNone(client.lost)
        self.assertFalse(client.ended)
        self.leave(client)

    def test_malformedAnswers(self) -> None:
        """502, and not a byte of it."""
        for answer in (
            *(b"evil\r\n\r\n", b"HTTP/1.1 200 OK\nA: b\r\n\r\n", b"HTTP/2 200 evil\r\n\r\n"),
            *(b"HTTP/1.1 200 OK\r\nA : evil\r\n\r\n", b"HTTP/1.1 200 OK\r\nA: b\r\n evil\r\n\r\n"),
            b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nevil",
            b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\nevil",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nevil",
            b"HTTP/1.1 200 OK\r\nX: " + b"evil" * 20_000,
            b"HTTP/1.1 200 OK\r\n" + b"X: evil\r\n" * 101 + b"\r\n",
            b"\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: evil\r\n\r\n",
            OK_CHUNKED + b"evil\r\n",
        ):
            client = self.open()
            self.send(client)
            backend = self.answer(answer)
            heard = client.take()
            self.assertTrue(heard.startswith(b"HTTP/1.1 502 "), answer)
            self.assertNotIn(b"evil", heard)
            self.assertIsNotNone(backend.lost)
            self.assertEqual(self.stage.health.report(["old"])[0].consecutiveFailures, 0)
            self.leave(client)

    def test_bug(self) -> None:
        """500, and the log has it."""
        client = self.open()
        self.stage.cache.lookup = None  # type: ignore[method-assign, assignment]
        self.send(client)
        self.assertAnswered(client, b"500 ")
        self.assertEqual(len(self.flushLoggedErrors(TypeError)), 1)
        self.leave(client)


class SessionTests(HTTPCase):
    """What management sees and does."""

    def test_requestInHandIsASession(self) -> None:
        """With its account and destination; a connection between requests is none."""
        client = self.open()
        self.assertEqual(self.stage.registry.find(), [])
        self.send(client)
        (session,) = self.stage.registry.find("ann", "old", "http")
        verifyObject(ISession, session)
        self.assertEqual((session.client, session.listener), ("198.51.100.7:40000", "door"))
        self.assertEqual((session.received, session.sent), (len(GET), 0))
        self.answer(OK)
        answered = len(OK) + Visitor.NAME_SIZE
        self.assertEqual((session.received, session.sent), (len(GET), answered))
        self.assertEqual(self.stage.registry.find(), [])
        self.leave(client)

    def test_kick(self) -> None:
        """Before the answer: 503; amid it: the end. The connection goes in both cases."""
        for answer in (b"", OK[:-1]):
            client = self.open()
            self.send(client)
            backend = self.answer(answer)
            self.assertEqual(self.stage.registry.kick("ann"), 1)
            self.stage.network.pump()
            heard = client.take()
            self.assertTrue(heard == OK[:-1] if answer else heard.startswith(b"HTTP/1.1 503 "))
            self.assertIsNotNone(client.lost)
            self.assertIsNotNone(backend.lost)
            self.leave(client)
            self.assertIn("kicked", self.lines()[-1])

    def test_clientThatLeaves(self) -> None:
        """While its backend is dialled, asked, or answers."""
        for answer in (None, b"", OK[:-1]):
            client = self.open()
            self.send(client)
            backend = self.answer(answer) if answer is not None else None
            client.reset()
            self.stage.network.pump()
            self.assertTrue(backend is None or backend.lost is not None)
            self.leave(client)
            self.assertIn("client_gone", self.lines()[-1])
            self.assertProbeFree(self.stage)

    def test_counts(self) -> None:
        """Requests by how they ended, and bytes."""
        client = self.open()
        self.send(client)
        self.answer(OK)
        self.send(client, b"nonsense\r\n\r\n")
        text = self.stage.metrics.render().decode()
        served = 'mailproxy_sessions_total{destination="old",outcome="served",protocol="http"} 1.0'
        self.assertIn(served, text)
        self.assertIn('destination="",outcome="limit",protocol="http"} 1.0', text)
        sent = 'mailproxy_bytes_total{destination="old",direction="out",protocol="http"} '
        self.assertIn(f"{sent}{len(OK) + Visitor.NAME_SIZE}.0", text)

    def test_requestsNames(self) -> None:
        """The client's own name for its request goes on, back and into the log, else ours."""
        client = self.open()
        self.send(client, GET[:-2] + b"X-Request-Id: mine-1\r\n\r\n")
        backend = self.answer(OK)
        self.assertIn(b"X-Request-Id: mine-1\r\n", backend.take())
        self.assertIn("request mine-1", self.lines()[0])
        self.assertIn(b"\r\nX-Request-Id: mine-1\r\n", client.take())
        self.send(client, GET[:-2] + b"X-Request-Id: not mine\r\n\r\n")
        self.reply(backend)
        name = backend.take().partition(b"X-Request-Id: ")[2].split(b"\r\n")[0].decode()
        self.assertIn(f"session {name} ", self.lines()[1])
        self.assertIn(f"request {name}", self.lines()[1])
        self.assertIn(f"\r\nX-Request-Id: {name}\r\n".encode(), client.received)
        self.leave(client)

    def test_namesInAnswersOfOurs(self) -> None:
        """What has failed is what users ask about: that has a name, too, also without a head."""
        for said in (b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n", b"nonsense\r\n\r\n"):
            client = self.open(rules({"match": "/y", "destination": "old"}))
            self.send(client, said)
            name = client.received.partition(b"X-Request-Id: ")[2].split(b"\r\n")[0].decode()
            self.assertRegex(self.lines()[-1], f"session {name} .* request {name}")
            self.leave(client)

    def test_namesAndInterimAnswers(self) -> None:
        """A name stands in the final answer alone, or in the switch."""
        client = self.open()
        self.send(client)
        self.answer(b"HTTP/1.1 103 Early Hints\r\n\r\n" + OK)
        self.assertEqual(client.received.count(b"X-Request-Id: "), 1)
        self.assertTrue(client.received.startswith(b"HTTP/1.1 103 Early Hints\r\n\r\n"))
        self.leave(client)

    def test_everySecretStaysSecret(self) -> None:
        """At debug level too; what is routed is told there."""
        client = self.open()
        self.send(client)
        self.answer(OK)
        self.assertIn("'ann' goes to old (mapped)", "".join(self.logged(LogLevel.debug)))
        self.leave(client)


class SwitchTests(HTTPCase):
    """WebSocket, and whatever else begins with 101."""

    ASK = GET[:-2] + b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\n"
    SWITCH = (
        b"HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: y\r\n"
        b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    )

    def test_bridged(self) -> None:
        """From both heads on every byte is the other side's, also those that came early."""
        client = self.open()
        self.send(client, self.ASK + b"\x81early")
        backend = self.answer()
        head, _, rest = backend.take().partition(b"\r\n\r\n")
        self.assertIn(b"\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n", head)
        self.assertEqual(rest, b"")
        self.reply(backend, self.SWITCH + b"\x82soon")
        self.assertEqual(client.take(), self.SWITCH + b"\x82soon")
        self.assertEqual(backend.take(), b"\x81early")
        self.send(client, b"GET \r\n\r\n\0")
        self.assertEqual(backend.take(), b"GET \r\n\r\n\0")
        (session,) = self.stage.registry.find("ann")
        self.assertEqual(session.sent, len(self.SWITCH) + Visitor.NAME_SIZE + 5)
        self.leave(client, backend)
        self.assertIn(" 101 of a~", self.lines()[0])
        self.assertIn("bridged (client closed)", self.lines()[0])

    def test_kick(self) -> None:
        """Ends both legs."""
        client = self.open()
        self.send(client, self.ASK)
        backend = self.answer(self.SWITCH)
        client.take()
        self.stage.registry.kick("ann")
        self.stage.network.pump()
        self.assertEqual(client.take(), b"")
        self.leave(client, backend)

    def test_stop(self) -> None:
        """It goes on when the process begins to stop, until it is cut."""
        client = self.open()
        self.send(client, self.ASK)
        backend = self.answer(self.SWITCH)
        self.stage.listener.factory.stop()
        (session,) = self.stage.registry.find()
        session.shutDown(bridged=False)
        self.stage.network.pump()
        self.assertIsNone(client.lost)
        session.shutDown(bridged=True)
        self.stage.network.pump()
        self.assertIsNotNone(client.lost)
        self.leave(client, backend)

    def test_refused(self) -> None:
        """Any other answer is one like all."""
        client = self.open()
        self.send(client, self.ASK)
        backend = self.answer(OK)
        self.assertEqual(client.take(), OK)
        self.send(client)
        self.reply(backend)
        self.assertEqual(client.take(), OK)
        self.leave(client)

    def test_notAskedFor(self) -> None:
        """A switch to something else is 502; one to h2c is never asked for."""
        client = self.open()
        self.send(client, self.ASK.replace(b"websocket", b"h2c"))
        backend = self.answer(self.SWITCH.replace(b"websocket", b"h2c"))
        self.assertNotIn(b"h2c", backend.take())
        self.assertTrue(client.take().startswith(b"HTTP/1.1 502 "))
        self.leave(client)


class LinesTests(RouteTests, SwitchTests):
    """The same, one line per segment."""

    segments: ClassVar[Segments] = Segments.LINES


class BytesTests(RouteTests, SwitchTests):
    """The same, one byte per segment."""

    segments: ClassVar[Segments] = Segments.BYTES
