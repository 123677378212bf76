"""What goes on to the other side."""

import attrs
import h11
from twisted.trial.unittest import SynchronousTestCase

from mailproxy.http import forward
from mailproxy.http.forward import Terms
from mailproxy.http.messages import Request
from mailproxy.origin import Address, Origin
from tests.http.support import parseRequest, parseResponse, request

ORIGIN = Origin("s1", Address("203.0.113.9", 5000), Address("192.0.2.25", 80), 7)
PLAIN = Terms(b"r1", keepsForwarded=False, forwarded=False, keepsExpect=True)
TRUSTED = attrs.evolve(PLAIN, keepsForwarded=True)
TOLD = attrs.evolve(PLAIN, forwarded=True)


def sent(
    *fields: bytes, line: bytes = b"GET / HTTP/1.1", terms: Terms = PLAIN, **origin: object
) -> list[bytes]:
    """Write a request's head for a backend; returns its lines, less the two empty ones."""
    told = attrs.evolve(ORIGIN, **origin)  # type: ignore[arg-type]
    return written(forward.toBackend(request(line, *fields), terms, told))


def written(event: h11.Request) -> list[bytes]:
    """Let h11 write a request's head."""
    lines = h11.Connection(h11.CLIENT).send(event).split(b"\r\n")
    assert lines[-2:] == [b"", b""]
    return lines[:-2]


class RequestTests(SynchronousTestCase):
    """What a backend gets."""

    def test_endToEndFieldsStay(self) -> None:
        """In their order and case, the host in front, the request's name behind."""
        found = sent(b"X-B: 2", b"cookie: a=b", b"x-b: 1", line=b"PUT /a%2fb?c HTTP/1.1")
        self.assertEqual(
            found,
            [
                *(b"PUT /a%2fb?c HTTP/1.1", b"Host: a", b"X-B: 2", b"cookie: a=b", b"x-b: 1"),
                b"X-Request-Id: r1",
            ],
        )

    def test_hopByHopFieldsGo(self) -> None:
        """Those of HTTP, and those that `Connection` names."""
        found = sent(
            *(b"Connection: keep-alive, X-Mine", b"X-Mine: 1", b"Keep-Alive: 5", b"TE: gzip"),
            *(b"Proxy-Connection: x", b"Proxy-Authorization: x", b"Upgrade: h2c"),
            *(b"HTTP2-Settings: x", b"X-Yours: 1"),
        )
        self.assertEqual(found[2:], [b"X-Yours: 1", b"X-Request-Id: r1"])

    def test_trailersAreWelcome(self) -> None:
        """Where the client takes them, so do we."""
        self.assertIn(b"TE: trailers", sent(b"TE: trailers, deflate", b"Connection: TE"))
        self.assertIn(b"Connection: TE", sent(b"TE: trailers", b"Connection: TE"))

    def test_framingIsWrittenAnew(self) -> None:
        """A length once; chunks; nothing where nothing was said."""
        self.assertEqual(
            sent(b"Content-Length: 5", b"Content-Length: 5").count(b"Content-Length: 5"), 1
        )
        self.assertIn(b"Content-Length: 0", sent(b"content-length: 0", line=b"POST / HTTP/1.1"))
        self.assertIn(b"Transfer-Encoding: chunked", sent(b"transfer-encoding: CHUNKED"))
        self.assertFalse([x for x in sent(line=b"POST / HTTP/1.1") if b"ength" in x])

    def test_upgrade(self) -> None:
        """Asked for anew, less what we would not see through."""
        found = sent(b"Connection: Upgrade", b"Upgrade: h2c, websocket", b"Sec-WebSocket-Key: x")
        self.assertIn(b"Connection: Upgrade", found)
        self.assertIn(b"Upgrade: websocket", found)
        self.assertIn(b"Sec-WebSocket-Key: x", found)

    def test_oldClient(self) -> None:
        """Is spoken for in HTTP/1.1, to the address that it has called."""
        old = parseRequest(b"GET / HTTP/1.0\r\nExpect: 100-continue")
        terms = attrs.evolve(PLAIN, keepsExpect=False)
        found = written(forward.toBackend(old, terms, ORIGIN))
        self.assertEqual(found[:2], [b"GET / HTTP/1.1", b"Host: 192.0.2.25:80"])
        self.assertEqual(found[2:], [b"X-Request-Id: r1"])

    def test_expectation(self) -> None:
        """Is passed on, unless we have answered it."""
        self.assertIn(b"Expect: 100-continue", sent(b"Expect: 100-continue"))
        answered = attrs.evolve(PLAIN, keepsExpect=False)
        self.assertNotIn(b"Expect: 100-continue", sent(b"Expect: 100-continue", terms=answered))


class HopsTests(SynchronousTestCase):
    """How many proxies a request may still meet."""

    def test_told(self) -> None:
        """Where no PROXY header tells; a client's own word is dropped."""
        said = b"X-Proxy-TTL: 3"
        self.assertEqual(sent(said)[2:], [b"X-Request-Id: r1"])
        found = sent(said, terms=attrs.evolve(PLAIN, hops=5))
        self.assertEqual(found[2:], [b"X-Request-Id: r1", b"X-Proxy-TTL: 5"])

    def test_heard(self) -> None:
        """Fewer hops may be claimed, never more; nonsense is passed over."""
        for said, left in ((b"3", 3), (b"0", 0), (b"9", 7), (b"-1", 7), (b"x", 7), (b"0003", 7)):
            asked = request(b"GET / HTTP/1.1", b"X-Proxy-TTL: " + said)
            self.assertEqual(forward.hopsLeft(asked, 7), left)
        self.assertEqual(forward.hopsLeft(request(), 7), 7)


class ForwardedTests(SynchronousTestCase):
    """Who the client is."""

    CLAIMS = (
        *(b"Forwarded: for=1.2.3.4", b"X-Forwarded-For: 1.2.3.4", b"X-Real-IP: 1.2.3.4"),
        *(b"X-Forwarded-Proto: https", b"X-Forwarded-Host: evil"),
    )

    def test_aClientsClaimsGo(self) -> None:
        """In the spelling with underscores too, which some servers take for the other one."""
        found = sent(*self.CLAIMS, b"X_Forwarded_For: 1.2.3.4", b"X_Real-IP: 1.2.3.4")
        self.assertEqual(found[2:], [b"X-Request-Id: r1"])

    def test_aTrustedPeersWordsStay(self) -> None:
        """As they are."""
        self.assertEqual(sent(*self.CLAIMS, terms=TRUSTED)[2:-1], list(self.CLAIMS))

    def test_toldByUs(self) -> None:
        """By both kinds of field; a client's claims are not among them."""
        self.assertEqual(
            sent(*self.CLAIMS, terms=TOLD, secure=True)[2:-1],
            [
                b'Forwarded: for=203.0.113.9;proto=https;host="a"',
                b"X-Forwarded-For: 203.0.113.9",
                b"X-Forwarded-Proto: https",
            ],
        )

    def test_behindATrustedPeersWords(self) -> None:
        """Ours come last; the scheme stays the first client's."""
        both = attrs.evolve(TRUSTED, forwarded=True)
        self.assertEqual(
            sent(*self.CLAIMS, terms=both)[2:-1],
            [
                b"X-Real-IP: 1.2.3.4",
                b"X-Forwarded-Host: evil",
                b'Forwarded: for=1.2.3.4, for=203.0.113.9;proto=http;host="a"',
                b"X-Forwarded-For: 1.2.3.4, 203.0.113.9",
                b"X-Forwarded-Proto: https",
            ],
        )

    def test_addressesThatAreNotPlain(self) -> None:
        """IPv6 is quoted; who has no name is unknown."""
        found = sent(terms=TOLD, client=Address("2001:db8::1", 1))
        self.assertIn(b'Forwarded: for="[2001:db8::1]";proto=http;host="a"', found)
        self.assertIn(b"X-Forwarded-For: 2001:db8::1", found)
        found = sent(terms=TOLD, nameless=True)
        self.assertIn(b'Forwarded: for=unknown;proto=http;host="a"', found)


class NameTests(SynchronousTestCase):
    """`X-Request-Id`."""

    def test_saneNamesStay(self) -> None:
        """Short and of harmless signs."""
        for name in (b"abc-123", b"a:b/c=", b"x" * 128):
            self.assertEqual(
                forward.requestName(request(b"GET / HTTP/1.1", b"X-Request-Id: " + name)), name
            )

    def test_othersDoNot(self) -> None:
        """Long, with spaces or quotes, two of them."""
        for names in ((b"x" * 129,), (b"a b",), (b'a"b',), (b"",), (b"a", b"b"), (b"\xe4",), ()):
            fields = [b"X-Request-Id: " + name for name in names]
            self.assertIsNone(forward.requestName(request(b"GET / HTTP/1.1", *fields)))

    def test_backendHasOne(self) -> None:
        """Never the client's besides it."""
        self.assertEqual(sent(b"x-request-id: a b")[2:], [b"X-Request-Id: r1"])


class ResponseTests(SynchronousTestCase):
    """What a client gets."""

    HEAD = (
        b"HTTP/1.1 200 Fine\r\nX-A: 1\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\n"
        b"Transfer-Encoding: chunked\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nUpgrade: h2"
    )

    def heard(
        self, head: bytes, asked: bytes = b"GET / HTTP/1.1\r\nHost: a", *, last: bool = False
    ) -> bytes:
        """What a client hears of the head of an answer, without the request's name."""
        return self.named(head, asked, last=last).replace(b"X-Request-Id: r1\r\n", b"")

    def named(self, head: bytes, asked: bytes, *, last: bool = False) -> bytes:
        """All that a client hears of the head of an answer."""
        machine = h11.Connection(h11.SERVER)
        found = Request.parse(asked, machine)
        response = parseResponse(head, found.method)
        return machine.send(forward.toClient(response, b"r1", last=last)) or b""

    def test_fields(self) -> None:
        """End to end they stay, those of the backend's connection go."""
        self.assertEqual(
            self.heard(self.HEAD),
            b"HTTP/1.1 200 Fine\r\nX-A: 1\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n",
        )

    def test_last(self) -> None:
        """Behind which we close."""
        head = self.heard(b"HTTP/1.1 200 OK\r\nContent-Length: 0", last=True)
        self.assertEqual(head, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    def test_upgradeRequired(self) -> None:
        """426 has to say to what."""
        head = self.heard(
            b"HTTP/1.1 426 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nContent-Length: 0"
        )
        self.assertIn(b"Connection: Upgrade\r\nUpgrade: websocket\r\n", head)

    def test_switching(self) -> None:
        """The protocol is named anew."""
        asked = (b"Connection", b"Upgrade"), (b"Upgrade", b"websocket")
        response = parseResponse(
            b"HTTP/1.1 101 x\r\nConnection: upgrade\r\nupgrade: WebSocket\r\n"
            b"Sec-WebSocket-Accept: y",
            b"GET",
            *asked,
        )
        event = forward.switch(response, b"r1")
        self.assertEqual((event.status_code, event.reason), (101, b"x"))
        self.assertEqual(
            event.headers.raw_items(),
            [
                (b"Sec-WebSocket-Accept", b"y"),
                (b"X-Request-Id", b"r1"),
                *asked[:1],
                (b"Upgrade", b"WebSocket"),
            ],
        )

    def test_name(self) -> None:
        """The client is told the request's, unless the backend has told it one."""
        asked = b"GET / HTTP/1.1\r\nHost: a"
        head = b"HTTP/1.1 200 OK\r\nContent-Length: 0"
        self.assertEqual(self.named(head, asked), head + b"\r\nX-Request-Id: r1\r\n\r\n")
        head += b"\r\nx-request-ID: its own"
        self.assertEqual(self.named(head, asked), head + b"\r\n\r\n")

    def test_interimLength(self) -> None:
        """Has no place there: somebody could wait for the body, and take the answer for it."""
        for status in (100, 103):
            head = b"HTTP/1.1 %d x\r\nContent-Length: 5\r\nLink: y" % status
            event = forward.interim(parseResponse(head))
            self.assertEqual(event.headers.raw_items(), [(b"Link", b"y")])

    def test_framing(self) -> None:
        """By length, by chunks, or by the end; to HEAD and of 304 it is only said, of 204 not."""
        get, old = b"GET / HTTP/1.1\r\nHost: a", b"GET / HTTP/1.0"
        for asked, status, said, found in (
            (get, b"200", b"Content-Length: 5", b"Content-Length: 5\r\n"),
            (get, b"200", b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked\r\n"),
            (get, b"200", b"X: y", b"X: y\r\nTransfer-Encoding: chunked\r\n"),
            (old, b"200", b"Transfer-Encoding: chunked", b"Connection: close\r\n"),
            (old, b"200", b"X: y", b"X: y\r\nConnection: close\r\n"),
            (get.replace(b"GET", b"HEAD"), b"200", b"Content-Length: 9", b"Content-Length: 9\r\n"),
            (get, b"304", b"Content-Length: 9", b"Content-Length: 9\r\n"),
            (get, b"304", b"X: y", b"X: y\r\n"),
            (get, b"204", b"Content-Length: 0", b""),
        ):
            heard = self.heard(b"HTTP/1.1 %b x\r\n" % status + said, asked)
            self.assertEqual(heard, b"HTTP/1.1 %b x\r\n%b\r\n" % (status, found))
