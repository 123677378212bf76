"""Heads, interim answers, versions and order, between real servers and clients."""

import time

from tests.integration.accounts import at
from tests.integration.recorder import answerBytes, unhurried
from tests.integration.scripted import Peer
from tests.integration.web import Message, chunks, requestBytes
from tests.integration.website import ExchangeTestCase, basic

OLD, NEW, SCRIPTED = basic(at("old")), basic(at("new")), basic(at("scripted"))
CHUNKED = {"Transfer_Encoding": "chunked"}


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

    def test_manyRequestsInOneSegment(self) -> None:
        """Nine hundred that come faster than they are answered, each in its turn."""
        client = self.web()
        # Two directions of one TLS socket are not for two threads: all of it fits into buffers.
        client.send(
            b"".join(
                requestBytes("GET", f"/{number}", {"Authorization": OLD}) for number in range(900)
            )
        )
        for number in range(900):
            self.assertEqual(client.answer().body, b"GET /%d\n" % number)

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


def _refuse(peer: Peer, head: Message) -> bool:
    """Answer before the body, and read no more."""
    peer.send(answerBytes(b"too large\n", "413 Content Too Large", "Connection: close"))
    time.sleep(0.3)
    return False
