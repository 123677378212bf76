"""Requests that two readers understand differently, as data: published shapes and their kin.

What each may come to: it is refused, and nothing of what stands behind it is taken for a request;
or it arrives as one request that leaves no doubt. Sources: RFC 9112 and RFC 9110; "HTTP Desync
Attacks" and its sequels (CL.TE, TE.CL, TE.TE, CL.0, 0.CL, Expect); the "chunked extension", h2c
and "request tunnelling" families.
"""

import enum
from collections.abc import Iterator

import attrs

TARGET = b"/shape000"
"""What a shape asks for; the runner writes the shape's number for the zeros."""

SMUGGLED = b"GET /smuggled000 HTTP/1.1\r\nHost: localhost\r\n\r\n"
"""What is to be smuggled; no backend may ever get it as a request."""


class Fate(enum.Enum):
    """What may become of a shape.

    `REFUSED`: an error, the connection's end, nothing reaches the backend. `CUT`: the same, but the
    head may have gone ahead of a bad body, as a request that never ends. `ONE`: one request
    arrives. `EITHER`: the first or the last.
    """

    REFUSED = "refused"
    CUT = "cut"
    ONE = "one"
    EITHER = "either"


@attrs.frozen
class Shape:
    """One of them.

    :ivar statuses: what it may be answered with when it is refused.
    :ivar body: what arrives as its body when it is one request; None: anything.
    """

    name: str
    sent: bytes
    fate: Fate = Fate.REFUSED
    statuses: tuple[int, ...] = (400,)
    body: bytes | None = b""


def shapes() -> list[Shape]:
    """All of them."""
    return [
        *_lengthsAndCodings(),
        *_lengths(),
        *_codings(),
        *_bodiesOfRequests(),
        *_chunks(),
        *_trailers(),
        *_fields(),
        *_hosts(),
        *_requestLines(),
        *_hops(),
    ]


def _each(values: bytes) -> list[bytes]:
    """Values that are set apart by bars."""
    return values.split(b"|")


def post(fields: bytes, body: bytes = b"", version: bytes = b"1.1") -> bytes:
    """A POST with these field lines, each with its line end."""
    return b"POST %b HTTP/%b\r\nHost: localhost\r\n%b\r\n%b" % (TARGET, version, fields, body)


def get(fields: bytes) -> bytes:
    """A GET with these field lines."""
    return b"GET %b HTTP/1.1\r\nHost: localhost\r\n%b\r\n" % (TARGET, fields)


_LINE = b"GET %b HTTP/1.1\r\n" % TARGET
_CHUNKED = b"Transfer-Encoding: chunked\r\n"
_END = b"0\r\n\r\n"
_SIZED = b"Content-Length: %d\r\n" % len(SMUGGLED)


def _lengthsAndCodings() -> Iterator[Shape]:
    """Both a length and a coding (RFC 9112, section 6.1)."""
    yield Shape("CL.TE", post(b"Content-Length: 6\r\n" + _CHUNKED, _END + SMUGGLED))
    sized = b"%x\r\n%b\r\n" % (len(SMUGGLED), SMUGGLED)
    yield Shape("TE.CL", post(_CHUNKED + b"Content-Length: 4\r\n", sized + _END))
    yield Shape("both and they agree", post(b"Content-Length: 5\r\n" + _CHUNKED, _END))
    yield Shape("CL.TE of version 1.0", post(b"Content-Length: 5\r\n" + _CHUNKED, _END, b"1.0"))
    yield Shape("coding of version 1.0", post(_CHUNKED, _END + SMUGGLED, b"1.0"))


def _lengths() -> Iterator[Shape]:
    """Lengths that are none (RFC 9110, section 8.6)."""
    bad = (
        *_each(b"+5|-5|-0|0x5|5.0|5;|5 5|5,6|5, 6||five|1e1"),
        *_each(b'0_5|\xd9\xa5|\xb2|\x0b5|5\x0c|"5"|5\x00|5\xa0|,5|5,'),
        b"18446744073709551621",
        b"9" * 400,
    )
    for value in bad:
        fields = b"Content-Length: %b\r\n" % value
        yield Shape(
            f"length {value[:30]!r}", post(fields, b"12345" + SMUGGLED), statuses=(400, 413)
        )
    for name in _each(b"Content-Length |Content-Length\t| Content-Length|Content-Length\x00"):
        yield Shape(f"name {name!r}", post(b"%b: 5\r\n" % name, b"12345" + SMUGGLED))
    twice = b"Content-Length: 5\r\nContent-Length: 0\r\n"
    yield Shape("two lengths that differ", post(twice, b"12345" + SMUGGLED))
    yield Shape("the same, the other way", post(_swapped(twice), b"12345" + SMUGGLED))
    same = b"Content-Length: 5\r\nContent-Length: 5\r\n"
    yield Shape("two lengths that agree", post(same, b"12345"), Fate.EITHER, body=b"12345")
    listed = b"Content-Length: 5, 5\r\n"
    yield Shape("a list of one length", post(listed, b"12345"), Fate.EITHER, body=b"12345")
    zeros = b"Content-Length: 0000005\r\n"
    yield Shape("a length with zeros", post(zeros, b"12345"), Fate.EITHER, body=b"12345")
    yield Shape("an underscore", post(b"Content_Length: 5\r\n"), Fate.EITHER)


def _swapped(lines: bytes) -> bytes:
    one, other, _ = lines.split(b"\r\n")
    return b"%b\r\n%b\r\n" % (other, one)


def _codings() -> Iterator[Shape]:
    """Transfer codings that are not a final chunked, and only that (RFC 9112, section 6.1)."""
    bad = _each(
        b"identity|chunked, identity|identity, chunked|gzip, chunked|gzip||"
        b'chunked, chunked|xchunked|chunkedx|chunked;q=1|\x0bchunked|chunked\x00|"chunked"|'
        b"'chunked'|chunked,|,chunked|chu nked|chunk|\xffchunked|chunked\x0c|x, chunked|"
        b"chunked\xa0|chunked\x85|CHUN\xc2\xadKED|cow"
    )
    for value in bad:
        fields = b"Transfer-Encoding: %b\r\n" % value
        yield Shape(f"coding {value!r}", post(fields, _END + SMUGGLED), statuses=(400, 501))
        both = b"Content-Length: 5\r\n" + fields
        yield Shape(f"CL and coding {value!r}", post(both, _END + SMUGGLED), statuses=(400, 501))
    for line in _each(
        b"Transfer-Encoding : chunked|Transfer-Encoding\t: chunked|"
        b"Transfer-Encoding\r\n: chunked| Transfer-Encoding: chunked|"
        b"\tTransfer-Encoding: chunked|X: X\nTransfer-Encoding: chunked|"
        b"X: X\rTransfer-Encoding: chunked|Transfer-Encoding:\n chunked|"
        b"X:\r\n Transfer-Encoding: chunked|Transfer-Encoding\x00: chunked|"
        b"Transfer-Encoding\xff: chunked|Transfer Encoding: chunked"
    ):
        sent = post(line + b"\r\nContent-Length: 5\r\n", _END + SMUGGLED)
        yield Shape(f"TE.TE {line!r}", sent)
    for pair in (b"chunked x", b"x chunked", b"gzip chunked", b"chunked chunked"):
        fields = b"Transfer-Encoding: %b\r\nTransfer-Encoding: %b\r\n" % tuple(pair.split())
        sent = post(fields, _END + SMUGGLED)
        yield Shape(f"TE.TE in two lines {pair!r}", sent, statuses=(400, 501))
    for value in (b"\tchunked", b"chunked ", b"CHUNKED", b"chUnked\t"):
        sent = post(b"Transfer-Encoding:%b\r\n" % value, _END)
        yield Shape(f"a good coding {value!r}", sent, Fate.ONE)
    yield Shape("an underscore in it", post(b"Transfer_Encoding: chunked\r\n"), Fate.EITHER)


def _bodiesOfRequests() -> Iterator[Shape]:
    """Bodies where some server expects none (CL.0), and the other way round (0.CL)."""
    for method in (b"POST", b"GET", b"HEAD", b"DELETE", b"OPTIONS", b"TRACE", b"FOO"):
        sent = post(_SIZED, SMUGGLED).replace(b"POST", method, 1)
        yield Shape(f"CL.0 by {method!r}", sent, Fate.EITHER, (400, 405, 501), SMUGGLED)
    for value in (b"100-continue", b"y 100-continue", b"\t100-Continue", b"100-continue, x", b""):
        sent = post(b"Expect: %b\r\n%b" % (value, _SIZED), SMUGGLED)
        yield Shape(f"Expect {value!r}", sent, Fate.EITHER, (400, 417), SMUGGLED)


def _chunks() -> Iterator[Shape]:
    """Chunk sizes, extensions and ends (RFC 9112, section 7.1)."""
    for size in _each(
        b"0x5|+5|-5| 5|\t5|5 x|5_0|g||5,|5\x00|5\xa0|\xd9\xa5|5\r|5\x0b|"
        b"FFFFFFFFFFFFFFFF1|10000000000000005"
    ):
        sent = post(_CHUNKED, b"%b\r\n12345\r\n" % size + _END + SMUGGLED)
        yield Shape(f"chunk size {size!r}", sent, Fate.CUT)
    for bad in (
        *_each(
            b"5\n12345\r\n|5\r12345\r\n|5\r\n12345\n|5\r\n12345\r|5\r\n12345|5\r\n12345XX|"
            b"5\r\n123456\r\n|5\r\n1234\r\n|5;a\nb\r\n12345\r\n|5;a\rb\r\n12345\r\n|"
            b'5\r\n12345\r\r\n|5;\x00\r\n12345\r\n|5;a="\n"\r\n12345\r\n'
        ),
        b"5;" + b"x" * 100_000 + b"\r\n12345\r\n",
    ):
        yield Shape(f"chunk {bad[:20]!r}", post(_CHUNKED, bad + _END + SMUGGLED), Fate.CUT)
    for end in _each(b"0\n\n|0\r\n\n|0\n\r\n|0\r\r|0\r\n\r|0;x\n\r\n|00x\r\n\r\n"):
        sent = post(_CHUNKED, b"5\r\n12345\r\n" + end + SMUGGLED)
        yield Shape(f"last chunk {end!r}", sent, Fate.CUT)
    for good in _each(b'5;a=b\r\n12345\r\n|5;a="b c"\r\n12345\r\n|05\r\n12345\r\n|5 \r\n12345\r\n'):
        sent = post(_CHUNKED, good + _END)
        yield Shape(f"a fair chunk {good!r}", sent, Fate.EITHER, body=b"12345")


def _trailers() -> Iterator[Shape]:
    """Fields behind a body that belong before it or nowhere (RFC 9110, section 6.5.1)."""
    for line in _each(b"X : 1| X: 1|X: 1\nY: 2|X|: 1|X: \x00|X: 1\r\n folded|X\xff: 1"):
        sent = post(_CHUNKED, b"0\r\n%b\r\n\r\n" % line + SMUGGLED)
        yield Shape(f"trailer {line!r}", sent, Fate.CUT)
    for name in _each(
        b"Content-Length: 5|Transfer-Encoding: chunked|Host: evil.example|Connection: close"
    ):
        sent = post(_CHUNKED, b"0\r\n%b\r\n\r\n" % name)
        yield Shape(f"trailer {name!r}", sent, Fate.EITHER)
    many = b"0\r\n" + b"X: 1\r\n" * 5000 + b"\r\n"
    yield Shape("too many trailers", post(_CHUNKED, many + SMUGGLED), Fate.CUT, (400, 431))
    yield Shape(
        "trailers without end", post(_CHUNKED, b"0\r\nX: " + b"x" * 200_000), Fate.CUT, (400, 431)
    )


def _fields() -> Iterator[Shape]:
    """Field lines (RFC 9112, section 5)."""
    for line in _each(
        b"X: a\nY: b|X: a\rb|X: \r|X: a\x00b|X\x00: a|X: a\r\n folded|X: a\r\n\tfolded|"
        b"X : a|X\t: a|: a|X|X a|X\xff: a|X(y): a|X\x7f: a|X;: a|X{}: a|\x0bX: a|X: a\x0bb|"
        b"X: a\x1b[2J|X: a\x7fb|X: \x08|\rX: a|\x00"
    ):
        yield Shape(f"field {line!r}", get(line + b"\r\n") + SMUGGLED)
    yield Shape("first field is folded", _LINE + b" X: a\r\nHost: localhost\r\n\r\n" + SMUGGLED)
    head = b"GET %b HTTP/1.1\nHost: localhost\n\n" % TARGET
    yield Shape("bare line feeds", head + SMUGGLED)
    yield Shape("one bare line feed", head.replace(b"1.1\n", b"1.1\r\n") + SMUGGLED)
    yield Shape("a bare line feed at the end", get(b"")[:-2] + b"\n" + SMUGGLED)
    yield Shape("8-bit values", get(b"X: \xe4\xff\r\n"), Fate.EITHER)
    yield Shape("an empty value", get(b"X:\r\nY: \t \r\n"), Fate.ONE)


def _hosts() -> Iterator[Shape]:
    """Hosts that are missing, many or odd (RFC 9112, section 3.2)."""
    yield Shape("no host", _LINE + b"\r\n" + SMUGGLED)
    for other in (b"localhost", b"evil.example", b""):
        yield Shape(f"another host {other!r}", get(b"Host: %b\r\n" % other) + SMUGGLED)
        yield Shape(f"another host in capitals {other!r}", get(b"HOST: %b\r\n" % other) + SMUGGLED)
    for host in _each(
        b"a b|a,b|a/b|user@localhost|localhost:x|localhost:80:80|a\x0bb|a?b|a#b|[::1|"
        b"http://localhost|localhost\\evil|a\tb|<x>|localhost:99999999999"
    ):
        yield Shape(f"host {host!r}", _LINE + b"Host: %b\r\n\r\n" % host, Fate.EITHER)
    absolute = b"GET http://evil.example%b HTTP/1.1\r\nHost: localhost\r\n\r\n" % TARGET
    yield Shape("a target against its host", absolute + SMUGGLED)
    yield Shape("an absolute target without host", absolute.replace(b"Host: localhost\r\n", b""))
    user = b"GET http://u@localhost%b HTTP/1.1\r\nHost: localhost\r\n\r\n" % TARGET
    yield Shape("a target with a user", user + SMUGGLED)
    other = b"GET ftp://localhost%b HTTP/1.1\r\nHost: localhost\r\n\r\n" % TARGET
    yield Shape("a target of another scheme", other + SMUGGLED)


def _requestLines() -> Iterator[Shape]:
    """Request lines (RFC 9112, section 3)."""
    rest = b"\r\nHost: localhost\r\n\r\n" + SMUGGLED
    for line in _each(
        b"GET  %b HTTP/1.1|GET %b  HTTP/1.1|GET %b HTTP/1.1 |GET\t%b HTTP/1.1|"
        b" GET %b HTTP/1.1|GET %b\tHTTP/1.1|GET %b x HTTP/1.1|GET %b\x0bHTTP/1.1|GET %b|"
        b"GET|%b HTTP/1.1|GET %b HTTP/1.1\rX|G(T %b HTTP/1.1|G\x00T %b HTTP/1.1|"
        b"G\xffT %b HTTP/1.1|GET %b\x00 HTTP/1.1|GET %b\x7f HTTP/1.1|GET * HTTP/1.1|"
        b"GET localhost:80 HTTP/1.1|GET shape HTTP/1.1|\x16\x03\x01\x02\x00\x01\x00|"
        b"EHLO localhost|GET %b HTTP/1.1\x00"
    ):
        yield Shape(f"line {line!r}", line.replace(b"%b", TARGET) + rest)
    for version in _each(b"HTTP/0.9|HTTP/2.0|HTTP/3|HTTP/1.|HTTP/1|HTTP/11.1|http/1.1|HTTP/ 1.1"):
        yield Shape(
            f"version {version!r}", b"GET %b %b" % (TARGET, version) + rest, statuses=(400, 505)
        )
    for version in (b"HTTP/1.2", b"HTTP/1.9", b"HTTP/01.1", b"HTTP/1.10"):
        sent = b"GET %b %b\r\nHost: localhost\r\n\r\n" % (TARGET, version)
        yield Shape(f"version {version!r}", sent, Fate.EITHER, (400, 505))
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SMUGGLED
    yield Shape("the preface of HTTP/2", preface, statuses=(400, 505))
    yield Shape("CONNECT", b"CONNECT localhost:25 HTTP/1.1" + rest, statuses=(405,))
    yield Shape("CONNECT to a path", b"CONNECT %b HTTP/1.1" % TARGET + rest, statuses=(400, 405))
    yield Shape("a fragment", b"GET %b#x HTTP/1.1\r\nHost: localhost\r\n\r\n" % TARGET, Fate.EITHER)
    yield Shape(
        "8-bit target", b"GET %b\xff HTTP/1.1\r\nHost: localhost\r\n\r\n" % TARGET, Fate.EITHER
    )
    yield Shape("empty lines before", b"\r\n" + get(b""), Fate.EITHER)
    yield Shape("a bare line feed before", b"\n" + get(b""), Fate.EITHER)


def _hops() -> Iterator[Shape]:
    """`Connection` that names what must not go, and upgrades that are none."""
    for name in (b"content-length", b"Content-Length, close", b"keep-alive, CONTENT-LENGTH"):
        sent = post(b"Connection: %b\r\n%b" % (name, _SIZED), SMUGGLED)
        yield Shape(f"Connection: {name!r}", sent, Fate.EITHER, body=SMUGGLED)
    sent = post(b"Connection: transfer-encoding\r\n" + _CHUNKED, b"5\r\n12345\r\n" + _END)
    yield Shape("Connection: transfer-encoding", sent, Fate.EITHER, body=b"12345")
    yield Shape("Connection: host", get(b"Connection: host\r\n"), Fate.EITHER)
    upgrade = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
    yield Shape("h2c", get(upgrade), Fate.ONE)
    yield Shape(
        "h2c among others", get(b"Connection: Upgrade\r\nUpgrade: websocket, h2c\r\n"), Fate.ONE
    )
    length = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 777\r\n" + _SIZED
    yield Shape("an upgrade with a body", post(length, SMUGGLED), Fate.EITHER, body=SMUGGLED)
