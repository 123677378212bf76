"""Answers that two readers understand differently: what no client may be given."""

POISON = b"poison"
"""What would be somebody else's answer, or more than the answer is."""

_OK = b"HTTP/1.1 200 OK\r\n"
_CHUNKED = b"Transfer-Encoding: chunked\r\n"


def _length(value: bytes) -> bytes:
    return _OK + b"Content-Length: %b\r\n\r\npoison" % value


def _field(line: bytes) -> bytes:
    return _OK + b"%b\r\nContent-Length: 6\r\n\r\npoison" % line


def _coded(value: bytes) -> bytes:
    return _OK + b"Transfer-Encoding: %b\r\n\r\n6\r\npoison\r\n0\r\n\r\n" % value


def _chunk(data: bytes) -> bytes:
    return _OK + _CHUNKED + b"\r\n" + data + b"0\r\n\r\n"


ANSWERS = {
    # Lengths and codings
    "both": _OK + _CHUNKED + b"Content-Length: 6\r\n\r\n6\r\npoison\r\n0\r\n\r\n",
    "two lengths": _OK + b"Content-Length: 6\r\nContent-Length: 7\r\n\r\npoison",
    "a list of lengths": _length(b"6, 7"),
    "a length with sign": _length(b"+6"),
    "a negative length": _length(b"-6"),
    "a length in hexadecimal": _length(b"0x6"),
    "an empty length": _length(b""),
    "a length with underscore": _length(b"0_6"),
    "a length without end": _length(b"9" * 400),
    "an unknown coding": _coded(b"x"),
    "two codings": _coded(b"chunked, gzip"),
    "chunked twice": _coded(b"chunked, chunked"),
    "a coding with control": _coded(b"\x0bchunked"),
    "a coding in version 1.0": _coded(b"chunked").replace(b"1.1", b"1.0"),
    # Chunks
    "a bad chunk size": _chunk(b"0x6\r\npoison\r\n"),
    "a signed chunk size": _chunk(b"+6\r\npoison\r\n"),
    "a chunk size without end": _chunk(b"F" * 40 + b"\r\npoison\r\n"),
    "a chunk with bare LF": _chunk(b"6\npoison\r\n"),
    "a chunk without its end": _chunk(b"6\r\npoisonXX"),
    "a chunk extension with LF": _chunk(b"6;a\nb\r\npoison\r\n"),
    # Heads
    "a bare line feed": _OK[:-2] + b"\nContent-Length: 6\n\npoison",
    "a bare return": _field(b"X: a\rb"),
    "a folded line": _field(b"X: a\r\n b"),
    "space before colon": _field(b"X : a"),
    "no name": _field(b": a"),
    "no colon": _field(b"X"),
    "NUL": _field(b"X: a\0b"),
    "8-bit name": _field(b"X\xff: a"),
    "too many fields": _field(b"X: 1\r\n" * 5000 + b"X: 1"),
    "a long field": _field(b"X: " + b"x" * 200_000),
    "a head without end": _OK + b"X: " + b"x" * 500_000,
    # Status lines
    "no status": b"HTTP/1.1 OK\r\nContent-Length: 6\r\n\r\npoison",
    "a status of two digits": b"HTTP/1.1 20 OK\r\nContent-Length: 6\r\n\r\npoison",
    "a status under 100": b"HTTP/1.1 099 OK\r\nContent-Length: 6\r\n\r\npoison",
    "version 2": b"HTTP/2.0 200 OK\r\nContent-Length: 6\r\n\r\npoison",
    "version 0.9": b"poison, with no head at all\r\n",
    "another protocol": b"* OK IMAP4rev1 poison\r\n",
    "a reason with control": b"HTTP/1.1 200 O\0K\r\nContent-Length: 6\r\n\r\npoison",
    "101 unasked": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\npoison",
    "nothing": b"",
    "only interim answers": b"HTTP/1.1 103 Early Hints\r\n\r\n",
}
"""By name: what the backend answers, before it closes."""
