"""HTTP/1.1 as a test wants it: exact bytes out, and messages in that must be well formed.

Both ends of a proxy are read with the same strictness (RFC 9112): what is not written as the
standard writes it is an error here, however usual it may be.
"""

import re
from typing import Self

import attrs

from tests.integration.wire import LineClient, Wire

_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*)\Z")
_REQUEST = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+) ([!-~\x80-\xff]+) HTTP/1\.[01]\Z")
_STATUS = re.compile(rb"HTTP/1\.1 ([1-5][0-9][0-9]) [\t -~\x80-\xff]*\Z")
_SIZE = re.compile(rb"[0-9A-Fa-f]{1,16}\Z")

WITHOUT_BODY = (204, 304)
"""Final statuses that never have one (RFC 9112, section 6.3)."""


class Malformed(Exception):
    """What came is no HTTP message."""


@attrs.frozen
class Fields:
    """Header or trailer fields, in order; names in lower case."""

    pairs: tuple[tuple[bytes, bytes], ...] = ()

    def all(self, name: bytes) -> list[bytes]:
        """The values of each field line with that name."""
        return [value for each, value in self.pairs if each == name]

    def get(self, name: bytes) -> bytes | None:
        """The value of a field that comes once at most.

        :raises Malformed: if it comes more often.
        """
        values = self.all(name)
        if len(values) > 1:
            raise Malformed(f"{name!r} is there {len(values)} times")
        return values[0] if values else None

    def names(self) -> set[bytes]:
        """Each name."""
        return {name for name, _ in self.pairs}


@attrs.frozen
class Message:
    """A request or an answer.

    :ivar start: its first line, without CRLF.
    :ivar body: with chunks joined.
    :ivar chunked: whether it came in chunks.
    :ivar interim: the 1xx answers before it.
    """

    start: bytes
    headers: Fields
    body: bytes = b""
    trailers: Fields = Fields()
    chunked: bool = False
    interim: tuple["Message", ...] = ()

    @property
    def status(self) -> int:
        """An answer's status."""
        return int(self.start.split(b" ")[1])

    @property
    def method(self) -> bytes:
        """A request's method."""
        return self.start.split(b" ")[0]

    @property
    def target(self) -> bytes:
        """A request's target."""
        return self.start.split(b" ")[1]

    def header(self, name: str) -> str | None:
        """A header's value as text."""
        value = self.headers.get(name.lower().encode())
        return None if value is None else value.decode("latin-1")


def parseHead(data: bytes) -> tuple[bytes, Fields]:
    """A head, with the empty line at its end: first line and fields.

    :raises Malformed: if a line is not what the grammar has.
    """
    start, *lines = data.removesuffix(b"\r\n\r\n").split(b"\r\n")
    if b"\r" in start or b"\n" in start:
        raise Malformed(f"line end in {start!r}")
    return start, parseFields(lines)


def parseFields(lines: list[bytes]) -> Fields:
    """Field lines without their CRLF."""
    pairs = []
    for line in lines:
        match = _FIELD.match(line)
        if match is None:
            raise Malformed(f"bad field line {line!r}")
        pairs.append((match[1].lower(), match[2].rstrip(b" \t")))
    return Fields(tuple(pairs))


def readRequestHead(wire: Wire) -> Message:
    """The head of the next request.

    :raises EOFError: if the connection closes before its end.
    """
    start, headers = parseHead(wire.readThrough(b"\r\n\r\n"))
    if _REQUEST.match(start) is None:
        raise Malformed(f"bad request line {start!r}")
    if len(headers.all(b"host")) != 1:
        raise Malformed(f"Host is there {len(headers.all(b'host'))} times")
    _length(headers)
    return Message(start, headers)


def readRequestBody(wire: Wire, head: Message) -> Message:
    """The whole request that begins with that head."""
    length = _length(head.headers)
    body, trailers = readBody(wire, length)
    return attrs.evolve(head, body=body, trailers=trailers, chunked=length is None)


def readAnswer(wire: Wire, *, toHEAD: bool = False) -> Message:
    """The next final answer, with the interim ones before it."""
    interim: list[Message] = []
    while True:
        start, headers = parseHead(wire.readThrough(b"\r\n\r\n"))
        if _STATUS.match(start) is None:
            raise Malformed(f"bad status line {start!r}")
        head = Message(start, headers, interim=tuple(interim))
        if head.status >= 200 or head.status == 101:
            break
        interim.append(head)
    if toHEAD or head.status in WITHOUT_BODY or head.status == 101:
        return head
    return _withBody(wire, head)


def _withBody(wire: Wire, head: Message) -> Message:
    """Read what belongs to an answer's head; without any length, all that comes."""
    length = _length(head.headers)
    if length is None or b"content-length" in head.headers.names():
        body, trailers = readBody(wire, length)
        return attrs.evolve(head, body=body, trailers=trailers, chunked=length is None)
    return attrs.evolve(head, body=wire.readToEnd())


def _length(headers: Fields) -> int | None:
    """The length that a head declares, 0 without one; None for chunks."""
    coding, length = headers.get(b"transfer-encoding"), headers.get(b"content-length")
    if coding is not None:
        if coding.lower() != b"chunked" or length is not None:
            raise Malformed(f"coding {coding!r}, length {length!r}")
        return None
    if length is not None and not length.isdigit():
        raise Malformed(f"length {length!r}")
    return int(length or 0)


def readBody(wire: Wire, length: int | None) -> tuple[bytes, Fields]:
    """A body of that length, or in chunks for None, and the trailers."""
    if length is not None:
        return wire.readExactly(length), Fields()
    parts: list[bytes] = []
    while size := _chunkSize(wire):
        parts.append(wire.readExactly(size))
        if wire.readExactly(2) != b"\r\n":
            raise Malformed("a chunk has no end")
    lines: list[bytes] = []
    while line := wire.readThrough(b"\r\n").removesuffix(b"\r\n"):
        lines.append(line)
    return b"".join(parts), parseFields(lines)


def _chunkSize(wire: Wire) -> int:
    line = wire.readThrough(b"\r\n").removesuffix(b"\r\n")
    if _SIZE.match(line) is None:
        raise Malformed(f"bad chunk size {line!r}")
    return int(line, 16)


def requestBytes(
    method: str, target: str, headers: dict[str, str] | None = None, body: bytes = b""
) -> bytes:
    """A request as it goes on the wire; Host is `localhost` unless it is given.

    A body gets its length unless a transfer coding is given: then it is sent as it is.
    """
    fields = {"Host": "localhost", **(headers or {})}
    if (body or method in ("POST", "PUT")) and "Transfer-Encoding" not in fields:
        fields.setdefault("Content-Length", str(len(body)))
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {fields[name]}" for name in fields)]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def chunks(*parts: bytes, trailers: bytes = b"") -> bytes:
    """A body in chunks; `trailers` are whole lines."""
    sized = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)
    return sized + b"0\r\n" + trailers + b"\r\n"


class WebClient(LineClient):
    """A client's connection for one request after the other."""

    def ask(
        self, target: str, method: str = "GET", body: bytes = b"", /, **headers: str
    ) -> Message:
        """Send a request and read its answer; in a header's name `_` stands for `-`."""
        self.sendRequest(target, method, body, **headers)
        return self.answer(toHEAD=method == "HEAD")

    def sendRequest(
        self, target: str, method: str = "GET", body: bytes = b"", /, **headers: str
    ) -> Self:
        """Send a request only."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.send(requestBytes(method, target, named, body))
        return self

    def answer(self, *, toHEAD: bool = False) -> Message:
        """Read an answer."""
        return readAnswer(self, toHEAD=toHEAD)

    def head(self) -> Message:
        """Read the head of an answer, leaving its body."""
        start, headers = parseHead(self.readThrough(b"\r\n\r\n"))
        return Message(start, headers)
