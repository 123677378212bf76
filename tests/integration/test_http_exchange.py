"""Every form that a request and its answer may have, between real servers and clients."""

import hashlib
import random
import time
from contextlib import ExitStack
from typing import ClassVar

from tests.integration.accounts import at
from tests.integration.front import Table
from tests.integration.recorder import Recorder, answerBytes, unhurried
from tests.integration.scripted import Peer, ScriptedServer
from tests.integration.web import Message, chunks, requestBytes
from tests.integration.website import WebTestCase, basic, scriptedSite

OLD, NEW, SCRIPTED = basic(at("old")), basic(at("new")), basic(at("scripted"))
CHUNKED = {"Transfer_Encoding": "chunked"}


class ExchangeTestCase(WebTestCase):
    """Two nginxes, and a backend that a test tells what to answer."""

    recorder: ClassVar[Recorder]
    scripted: ClassVar[ScriptedServer]

    @classmethod
    def startOthers(cls, stack: ExitStack) -> None:
        """The backend that is told."""
        cls.recorder = Recorder()
        cls.scripted = stack.enter_context(ScriptedServer(cls.recorder))

    @classmethod
    def places(cls) -> tuple[str, ...]:
        """Its accounts too."""
        return ("old", "new", "scripted")

    @classmethod
    def destinations(cls) -> dict[str, Table]:
        """It is reached without TLS and learns nothing of clients."""
        return {**super().destinations(), "scripted": scriptedSite(cls.scripted)}

    def setUp(self) -> None:
        """Begin a new record."""
        super().setUp()
        self.recorder.forget()
        self.addCleanup(self.assertNothingBroken)

    def assertNothingBroken(self) -> None:
        """All that reached the backend was HTTP, and it could answer."""
        self.assertEqual(self.recorder.malformed, [])
        self.assertEqual(self.scripted.failures, [])

    def answering(self, data: bytes, *, close: bool = False) -> None:
        """Have the backend answer so."""

        def answer(peer: Peer, _: Message) -> bool:
            peer.send(data)
            return not close

        self.recorder.answering = answer


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
        """Each event when it is sent, not when the next one comes."""
        client = self.web()
        client.sendRequest("/events?seconds=0", Authorization=OLD, Accept="text/event-stream")
        started = time.monotonic()
        self.assertEqual(client.head().header("content-type"), "text/event-stream")
        self.assertIn(b"data: first", client.readThrough(b"\n\n"))
        self.assertLess(time.monotonic() - started, 0.9)
        client.readThrough(b"data: second")
        self.assertGreater(time.monotonic() - started, 0.9)
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


class FormTests(ExchangeTestCase):
    """Heads, interim answers, versions and order."""

    def test_answersWithoutABody(self) -> None:
        """After HEAD, 204 and 304 the next answer is where it should be."""
        client = self.web()
        for target, method, status in (
            ("/chunked", "HEAD", 200),
            ("/nothing", "GET", 204),
            ("/nothing", "HEAD", 204),
            ("/moved", "GET", 302),
            ("/broken", "GET", 503),
            ("/broken", "HEAD", 503),
            ("/x", "HEAD", 200),
        ):
            answer = client.ask(target, method, Authorization=OLD)
            self.assertFrom("old", answer, status)
        self.assertEqual(client.ask("/x", Authorization=OLD).body, b"GET /x\n")
        moved = client.ask("/moved", Authorization=OLD)
        self.assertEqual(moved.header("location"), "https://elsewhere.test/")

    def test_theBackendsOwnErrorsAreItsOwn(self) -> None:
        """A 503 of a backend arrives as it said it, and says nothing about its health."""
        client = self.web()
        for _ in range(8):
            answer = client.ask("/broken", Authorization=OLD)
            self.assertFrom("old", answer, 503)
            self.assertEqual(answer.body, b"its own words\n")
        self.assertEqual(self.health("old")["consecutive_failures"], 0)

    def test_continueIsTheBackendsWord(self) -> None:
        """A client that waits hears 100 from the server that wants its body."""
        client = self.web()
        client.sendRequest(
            "/files/c", "PUT", Authorization=NEW, Content_Length="5", Expect="100-continue"
        )
        self.assertEqual(client.head().status, 100)
        client.send(b"hello")
        self.assertFrom("new", client.answer(), 201)
        self.assertEqual(client.ask("/files/c", Authorization=NEW).body, b"hello")

    def test_aRefusalInsteadOfContinue(self) -> None:
        """A client that waits is told no; what it sends afterwards is no request of its own."""
        self.recorder.early = _refuse
        client = self.web()
        smuggled = requestBytes("GET", "/smuggled", {"Authorization": SCRIPTED})
        client.sendRequest(
            "/a",
            "POST",
            Authorization=SCRIPTED,
            Content_Length=str(len(smuggled)),
            Expect="100-continue",
        )
        answer = client.answer()
        self.assertEqual((answer.status, answer.body), (413, b"too large\n"))
        self.recorder.early = unhurried
        client.send(smuggled)
        self.assertNotIn(b"/smuggled", client.readToEnd())
        self.assertNotIn(b"/smuggled", [each.target for each in self.recorder.messages()])

    def test_anEarlyAnswerArrives(self) -> None:
        """A backend that has heard enough is believed; its connection is not used again."""
        self.recorder.early = _refuse
        client = self.web()
        client.sendRequest("/a", "POST", Authorization=SCRIPTED, Content_Length="10000000")
        client.send(b"x" * 100_000)
        self.assertEqual(client.answer().status, 413)
        self.recorder.early = unhurried
        self.assertEqual(self.web().ask("/b", Authorization=SCRIPTED).body, b"/b\n")

    def test_interimAnswersAreRelayed(self) -> None:
        """103 with its links, 102, and then what was asked for."""
        hints = b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n"
        self.answering(hints + b"HTTP/1.1 102 Processing\r\n\r\n" + hints + answerBytes())
        client = self.web()
        for _ in range(2):
            answer = client.ask("/a", Authorization=SCRIPTED)
            self.assertEqual([each.status for each in answer.interim], [103, 102, 103])
            self.assertEqual(answer.interim[0].header("link"), "</style.css>; rel=preload")
            self.assertEqual((answer.status, answer.body), (200, b"ok\n"))

    def test_oldClients(self) -> None:
        """HTTP/1.0: no chunks, no interim answers, and the end of the connection is the end."""
        hints = b"HTTP/1.1 103 Early Hints\r\n\r\n"
        for given in (
            hints + b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks(b"body"),
            answerBytes(b"body"),
        ):
            self.answering(given)
            client = self.web()
            client.send(b"GET /old HTTP/1.0\r\nAuthorization: %b\r\n\r\n" % SCRIPTED.encode())
            head, _, body = client.readToEnd().partition(b"\r\n\r\n")
            self.assertRegex(head, rb"\AHTTP/1\.[01] 200 ")
            self.assertNotIn(b"chunked", head)
            self.assertEqual(body, b"body")
        done = self.curl("--http1.0", "URL/x", "-H", f"Authorization: {NEW}")
        self.assertEqual((done.status, done.output), (0, "GET /x\n"))

    def test_pipelinedRequestsAreAnsweredInOrder(self) -> None:
        """Whatever server each goes to, and however long the first takes."""
        client = self.web()
        sent = [requestBytes("GET", "/wait?seconds=0.5", {"Authorization": OLD})]
        for number in range(40):
            account = NEW if number % 2 else OLD
            sent.append(requestBytes("GET", f"/x/{number}", {"Authorization": account}))
            sent.append(requestBytes("POST", "/echo", {"Authorization": account}, b"%d" % number))
        client.send(b"".join(sent))
        self.assertEqual(client.answer().body, b"waited\n")
        for number in range(40):
            server = "new" if number % 2 else "old"
            answer = client.answer()
            self.assertFrom(server, answer)
            self.assertEqual(answer.body, b"GET /x/%d\n" % number)
            self.assertEqual(client.answer().body, b"%d" % number)

    def test_headersAreKeptAndHopsAreNot(self) -> None:
        """What is said end to end arrives in order; what is said to us goes no further."""
        own = "X-Private: 1\r\nX-Several: a\r\nX-Several: b\r\nX-Odd: \xe4 \t ;,\r\n"
        hops = (
            "Connection: keep-alive, X-Private\r\nKeep-Alive: timeout=5\r\nProxy-Connection: x\r\n"
            "Proxy-Authorization: Basic bm8=\r\nTE: gzip\r\n"
        )
        self.answering(
            answerBytes(
                b"ok\n",
                "200 Fine",
                *("Set-Cookie: a=1", "Set-Cookie: b=2", "X-Private: 1", "Keep-Alive: timeout=5"),
                *("Connection: keep-alive, X-Private", "Proxy-Authenticate: Basic"),
            )
        )
        client = self.web()
        head = f"GET /h HTTP/1.1\r\nHost: a.example:8443\r\nAuthorization: {SCRIPTED}\r\n"
        client.send(f"{head}{own}{hops}\r\n".encode("latin-1"))
        answer = client.answer()
        [request] = self.recorder.messages()
        self.assertEqual(request.header("host"), "a.example:8443")
        self.assertEqual(request.headers.all(b"x-several"), [b"a", b"b"])
        self.assertEqual(request.headers.get(b"x-odd"), b"\xe4 \t ;,")
        gone = {b"x-private", b"keep-alive", b"proxy-connection", b"proxy-authorization"}
        self.assertEqual(request.headers.names() & gone, set())
        self.assertEqual(answer.start, b"HTTP/1.1 200 Fine")
        self.assertEqual(answer.headers.all(b"set-cookie"), [b"a=1", b"b=2"])
        self.assertEqual(answer.headers.names() & {b"x-private", b"keep-alive"}, set())

    def test_formsOfTheTarget(self) -> None:
        """`*` for OPTIONS, a whole URI as clients send it to proxies, and what is encoded."""
        client = self.web()
        for method, target, arrived in (
            ("GET", "http://localhost/abs?q=1", b"/abs?q=1"),
            ("GET", "https://localhost", b"/"),
            ("GET", "/a%2Fb/%2e%2e/c//d;e=f?g=%00&h", b"/a%2Fb/%2e%2e/c//d;e=f?g=%00&h"),
            ("PROPFIND", "/dav/", b"/dav/"),
            ("M-SEARCH", "/x", b"/x"),
        ):
            self.recorder.forget()
            self.assertEqual(client.ask(target, method, Authorization=SCRIPTED).status, 200)
            [request] = self.recorder.messages()
            self.assertEqual((request.method, request.target), (method.encode(), arrived))
            self.assertEqual(request.header("host"), "localhost")


class LimitTests(ExchangeTestCase):
    """How long and how often a connection may be used."""

    @classmethod
    def configuration(cls) -> Table:
        """All limits are small."""
        config = super().configuration()
        config["listener"]["https"]["preauth_timeout"] = "1s"
        config["http"] |= {
            "keepalive_timeout": "2s",
            "max_keepalive_requests": 3,
            "max_head_size": 4000,
            "relay_idle": "2s",
        }
        return config

    def test_aConnectionIsUsedSoOften(self) -> None:
        """The last answer says that it is the last."""
        client = self.web()
        for last in (False, False, True):
            answer = client.ask("/x", Authorization=OLD)
            self.assertFrom("old", answer)
            self.assertEqual(answer.header("connection") == "close", last)
        self.assertEqual(client.readToEnd(), b"")

    def test_anIdleConnectionIsClosed(self) -> None:
        """Without a word, after its time and not before."""
        client = self.web()
        self.assertFrom("old", client.ask("/x", Authorization=OLD))
        started = time.monotonic()
        self.assertEqual(client.readToEnd(), b"")
        self.assertGreater(time.monotonic() - started, 1.5)
        self.assertLess(time.monotonic() - started, 6)

    def test_whoSaysNothingIsClosed(self) -> None:
        """Without a word; who begins and does not end is told 408."""
        silent, slow = self.web(), self.web()
        slow.send(b"GET / HTTP/1.1\r\nHost: loc")
        self.assertEqual(silent.readToEnd(), b"")
        answer = slow.answer()
        self.assertOurs(408, answer)
        self.assertEqual(answer.header("connection"), "close")
        self.assertEqual(slow.readToEnd(), b"")

    def test_headsMayBeSoLong(self) -> None:
        """431 over the size and over 100 fields."""
        for extra in ("X-Long: " + "x" * 4100 + "\r\n", "X: 1\r\n" * 101):
            client = self.web()
            client.send(f"GET / HTTP/1.1\r\nHost: localhost\r\n{extra}\r\n".encode())
            self.assertOurs(431, client.answer())
            self.assertEqual(client.readToEnd(), b"")
        many = "X: 1\r\n" * 90
        client = self.web()
        client.send(f"GET / HTTP/1.1\r\nHost: localhost\r\n{many}\r\n".encode())
        self.assertFrom("old", client.answer())

    def test_aStalledBackendIs504(self) -> None:
        """When it says nothing for so long; when it has begun its answer, that is cut."""
        started = time.monotonic()
        client = self.web()
        client.sendRequest("/wait?seconds=30", Authorization=OLD)
        self.assertOurs(504, client.answer())
        self.assertLess(time.monotonic() - started, 8)
        cut = self.web()
        cut.sendRequest("/events?seconds=30", Authorization=OLD)
        self.assertEqual(cut.head().status, 200)
        self.assertFalse(cut.readToEnd().endswith(b"0\r\n\r\n"))

    def test_aStalledUploadIsCut(self) -> None:
        """A client that promises a body and sends none holds a backend for so long only."""
        started = time.monotonic()
        client = self.web()
        client.sendRequest("/a", "POST", Authorization=SCRIPTED, Content_Length="100")
        client.readToEnd()
        self.assertLess(time.monotonic() - started, 8)
        self.assertEventually(lambda: self.scripted.active == 0, "the backend is still held")

    def test_aLivelyExchangeIsNotStalled(self) -> None:
        """What goes on slowly goes on: a second between two bytes, for longer than the limit."""
        client = self.web()
        headers = {"Authorization": NEW, "Content-Length": "4"}
        client.send(requestBytes("POST", "/echo", headers))
        for byte in (b"a", b"b", b"c", b"d"):
            time.sleep(0.8)
            client.send(byte)
        self.assertEqual(client.answer().body, b"abcd")


def _refuse(peer: Peer, head: Message) -> bool:
    """Answer before the body, and read no more."""
    peer.send(answerBytes(b"too large\n", "413 Content Too Large", "Connection: close"))
    time.sleep(0.3)
    return False
