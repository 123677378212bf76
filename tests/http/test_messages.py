"""Requests and responses: which heads are sound, and how the body behind one is framed."""

from twisted.trial.unittest import SynchronousTestCase

from mailproxy.http.bodies import CHUNKED, NOTHING, UNTIL_CLOSE, Framing, Kind
from mailproxy.http.heads import BadMessage
from mailproxy.http.messages import MAX_METHOD, MAX_PATH
from tests.http.support import parseRequest, parseResponse, request


class Refusing(SynchronousTestCase):
    """Heads that are refused."""

    def assertRefused(self, head: bytes, status: int = 400) -> None:
        """A request is refused with a status."""
        error = self.assertRaises(BadMessage, parseRequest, head)
        self.assertEqual(error.status, status, head)


class RequestLineTests(Refusing):
    """Method, target and version."""

    def test_parts(self) -> None:
        """As they are; the path is the target without its query."""
        found = request(b"M-SEARCH /a%20b?c=/d HTTP/1.1")
        self.assertEqual(found.method, b"M-SEARCH")
        self.assertEqual((found.target, found.path), (b"/a%20b?c=/d", b"/a%20b"))
        self.assertFalse(found.isOld)
        self.assertTrue(request(b"GET / HTTP/1.0").isOld)

    def test_malformedLines(self) -> None:
        """Space where none may be, or missing; a method that is no token; HTTP/0.9."""
        for line in (
            *(b"GET  / HTTP/1.1", b"GET / HTTP/1.1 ", b" GET / HTTP/1.1", b"GET\t/ HTTP/1.1"),
            *(b"GET /", b"GET / HTTP/1.11", b"GET / HTTP/11", b"GET / http/1.1", b"G@T / HTTP/1.1"),
            *(b"", b"/ HTTP/1.1", b"GET /a b HTTP/1.1", b"GET /\xc3\xa4 HTTP/1.1"),
            *(b"GET a HTTP/1.1", b"GET /#a HTTP/1.1", b"GET * HTTP/1.1", b"GET http:/a HTTP/1.1"),
        ):
            self.assertRefused(line + b"\r\nHost: a")

    def test_otherVersions(self) -> None:
        """505; the preface of HTTP/2 is such a one."""
        for version in (b"2.0", b"1.2", b"0.9", b"3.0"):
            self.assertRefused(b"GET / HTTP/%b\r\nHost: a" % version, 505)
        self.assertRefused(b"PRI * HTTP/2.0", 505)

    def test_CONNECTIsNotServed(self) -> None:
        """405: we are nobody's way out."""
        self.assertRefused(b"CONNECT a:443 HTTP/1.1\r\nHost: a:443", 405)

    def test_longMethod(self) -> None:
        """501: nobody has such a one, and it would fill the log (RFC 9112, section 3)."""
        request(b"%b / HTTP/1.1" % (b"M" * MAX_METHOD))
        self.assertRefused(b"%b / HTTP/1.1\r\nHost: a" % (b"M" * (MAX_METHOD + 1)), 501)

    def test_longPath(self) -> None:
        """414; a query may be long."""
        request(b"GET /%b?%b HTTP/1.1" % (b"a" * (MAX_PATH - 1), b"b" * 20000))
        self.assertRefused(b"GET /%b HTTP/1.1\r\nHost: a" % (b"a" * MAX_PATH), 414)

    def test_absoluteForm(self) -> None:
        """It becomes origin form, if it is for the Host (RFC 9112, section 3.2.2)."""
        for target, found in (
            (b"http://A", b"/"),
            (b"HTTPS://a/b?c", b"/b?c"),
            (b"http://a?c", b"/?c"),
        ):
            self.assertEqual(request(b"GET %b HTTP/1.1" % target).target, found)
        for target in (b"http://b/", b"http://a:81/", b"http://u@a/", b"ftp://a/", b"http:///x"):
            self.assertRefused(b"GET %b HTTP/1.1\r\nHost: a" % target)
        self.assertEqual(parseRequest(b"GET http://b/ HTTP/1.0").host, b"b")

    def test_asteriskForm(self) -> None:
        """OPTIONS of the whole server, in both spellings."""
        self.assertEqual(request(b"OPTIONS * HTTP/1.1").target, b"*")
        self.assertEqual(request(b"OPTIONS http://a HTTP/1.1").target, b"*")


class HostTests(Refusing):
    """`Host` (RFC 9112, section 3.2)."""

    def test_missing(self) -> None:
        """Only an old client may do without."""
        self.assertRefused(b"GET / HTTP/1.1")
        self.assertEqual(parseRequest(b"GET / HTTP/1.0").host, b"")

    def test_repeated(self) -> None:
        """Even if both say the same."""
        self.assertRefused(b"GET / HTTP/1.1\r\nHost: a\r\nHost: a")
        self.assertRefused(b"GET / HTTP/1.0\r\nHost: a\r\nhost: b")

    def test_malformed(self) -> None:
        """Users, paths, lists and nothing at all are no host."""
        for host in (b"", b"a b", b"a,b", b"u@a", b"a/b", b"a:b", b"[::1", b"a?b", b"a\xe4"):
            self.assertRefused(b"GET / HTTP/1.1\r\nHost: " + host)

    def test_ports(self) -> None:
        """Names, addresses, with a port or without."""
        for host in (b"a.example.com:8080", b"192.0.2.1", b"[2001:db8::1]:443", b"a_b"):
            self.assertEqual(parseRequest(b"GET / HTTP/1.1\r\nHost: " + host).host, host)


class FramingTests(Refusing):
    """Where a request's body ends (RFC 9112, section 6)."""

    def assertBothRefused(self, *fields: bytes) -> None:
        """Refused in a request, and in a response."""
        lines = b"\r\n".join(fields)
        self.assertRefused(b"POST / HTTP/1.1\r\nHost: a\r\n" + lines)
        self.assertAnswerRefused(b"HTTP/1.1 200 OK\r\n" + lines)

    def assertAnswerRefused(self, head: bytes) -> None:
        """A response is refused, or its framing is."""
        with self.assertRaises(BadMessage):
            parseResponse(head).framing(b"GET")

    def test_sound(self) -> None:
        """None, a length, a length said twice, chunks."""
        self.assertEqual(request(b"POST / HTTP/1.1").framing, NOTHING)
        five = Framing(Kind.LENGTH, 5)
        self.assertEqual(request(b"GET / HTTP/1.1", b"Content-Length: 5").framing, five)
        twice = request(b"GET / HTTP/1.1", b"Content-Length: 5", b"content-length:5")
        self.assertEqual(twice.framing, five)
        self.assertEqual(request(b"GET / HTTP/1.1", b"Transfer-Encoding: Chunked").framing, CHUNKED)

    def test_lengthAndCoding(self) -> None:
        """CL.TE and TE.CL: each of two programs would believe another one."""
        for coding in (b"chunked", b"identity"):
            self.assertBothRefused(b"Content-Length: 5", b"Transfer-Encoding: " + coding)
            self.assertBothRefused(b"Transfer-Encoding: " + coding, b"Content-Length: 0")

    def test_hiddenCodings(self) -> None:
        """TE.TE: a coding that one program sees and another one does not."""
        for coding in (
            *(
                b"xchunked",
                b"chunked, chunked",
                b"gzip, chunked",
                b"chunked, identity",
                b"identity",
            ),
            *(b"chunked;q=1", b'"chunked"', b"chunked,", b",chunked", b"x", b"", b"chunk"),
        ):
            self.assertBothRefused(b"Transfer-Encoding: " + coding)
        self.assertBothRefused(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked")
        self.assertBothRefused(b"Transfer-Encoding: chunked", b"Transfer-encoding: x")
        self.assertBothRefused(b"Transfer_Encoding: chunked")

    def test_badLengths(self) -> None:
        """Signs, lists, other bases, too many digits, none; two that differ."""
        for length in (
            *(b"+5", b"-5", b"5, 5", b"5,6", b"0x5", b"5.0", b"5 5", b"", b"a", b"1_0"),
            *(b"9" * 19, "\u0665".encode()),
        ):
            self.assertBothRefused(b"Content-Length: " + length)
        self.assertBothRefused(b"Content-Length: 5", b"Content-Length: 6")
        self.assertBothRefused(b"Content-Length: 5", b"Content-Length: 05")
        self.assertBothRefused(b"Content_Length: 5")

    def test_chunksOfAnOldClient(self) -> None:
        """HTTP/1.0 has none (RFC 9112, section 6.1)."""
        self.assertRefused(b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked")
        self.assertAnswerRefused(b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked")


class ConnectionTests(Refusing):
    """`Connection`, and what it may not name."""

    def test_lasting(self) -> None:
        """A client stays unless it says otherwise; an old one goes."""
        self.assertTrue(request().lasting)
        self.assertFalse(request(b"GET / HTTP/1.1", b"Connection: x, Close").lasting)
        self.assertFalse(request(b"GET / HTTP/1.0", b"Connection: keep-alive").lasting)

    def test_fieldsThatAreNotItsOwn(self) -> None:
        """Naming them would have them dropped on the way to the backend."""
        for name in (
            b"Content-Length",
            b"Host",
            b"transfer-encoding",
            b"Cookie",
            b"X-Forwarded-For",
        ):
            self.assertRefused(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close, " + name)

    def test_upgrade(self) -> None:
        """Asked for in both fields; never to what would hide requests from us."""
        asked = b"Connection: Upgrade"
        self.assertEqual(
            request(b"GET / HTTP/1.1", asked, b"Upgrade: websocket").upgrade, b"websocket"
        )
        for fields in (
            (b"Upgrade: websocket",),
            (asked, b"Upgrade: h2c"),
            (asked, b"Upgrade: H2C", b"Upgrade: TLS/1.0, HTTP/2.0"),
            (asked, b"Upgrade: websocket", b"Content-Length: 5"),
        ):
            self.assertEqual(request(b"GET / HTTP/1.1", *fields).upgrade, b"")
        self.assertEqual(request(b"GET / HTTP/1.0", asked, b"Upgrade: websocket").upgrade, b"")
        mixed = request(b"GET / HTTP/1.1", asked, b"Upgrade: h2c, websocket")
        self.assertEqual(mixed.upgrade, b"websocket")

    def test_twoLogins(self) -> None:
        """One would be routed, and the other one served."""
        self.assertRefused(
            b"GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Basic YTpi\r\nAuthorization: Basic Yzpk"
        )

    def test_expectation(self) -> None:
        """Of an old client it does not count."""
        self.assertTrue(request(b"PUT / HTTP/1.1", b"Expect: 100-Continue").expects)
        self.assertFalse(request(b"PUT / HTTP/1.0", b"Expect: 100-continue").expects)


class ResponseTests(SynchronousTestCase):
    """What backends answer."""

    def test_parts(self) -> None:
        """Status and reason; the reason may be missing."""
        found = parseResponse(b"HTTP/1.1 404 Not f\xc3\xb6und\r\nA: b")
        self.assertEqual((found.status, found.reason), (404, b"Not f\xc3\xb6und"))
        self.assertEqual(parseResponse(b"HTTP/1.1 200").reason, b"")
        self.assertEqual(parseResponse(b"HTTP/1.0 200 ").isOld, True)

    def test_malformed(self) -> None:
        """What is no status line."""
        for line in (b"HTTP/2 200 OK", b"HTTP/1.1 20 OK", b"HTTP/1.1 099 x", b"ICY 200 OK", b""):
            self.assertRaises(BadMessage, parseResponse, line)
        self.assertRaises(BadMessage, parseResponse, b"HTTP/1.1 200 OK\r\nA : b")

    def test_framing(self) -> None:
        """By length, by chunks, until the end; none to HEAD, nor of 1xx, 204 and 304."""
        plain = parseResponse(b"HTTP/1.1 200 OK")
        self.assertEqual(plain.framing(b"GET"), UNTIL_CLOSE)
        long = parseResponse(b"HTTP/1.1 200 OK\r\nContent-Length: 9")
        self.assertEqual(long.framing(b"GET"), Framing(Kind.LENGTH, 9))
        self.assertEqual(long.framing(b"HEAD"), NOTHING)
        for status in (b"100", b"204", b"304"):
            head = b"HTTP/1.1 %b x\r\nContent-Length: 9" % status
            self.assertEqual(parseResponse(head).framing(b"GET"), NOTHING)

    def test_lasting(self) -> None:
        """Unless it is old, or says otherwise."""
        for head, lasting in (
            (b"HTTP/1.1 200 OK", True),
            (b"HTTP/1.1 200 OK\r\nConnection: close", False),
            (b"HTTP/1.0 200 OK\r\nConnection: keep-alive", False),
        ):
            self.assertEqual(parseResponse(head).lasting, lasting)
