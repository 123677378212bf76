"""Bodies: how long one is, how it is decoded as it comes, and written anew (RFC 9112, 6 and 7).

Knows framing alone; must not know connections or what a body holds. Nothing is done per byte.
"""

import enum
import re
from abc import ABC, abstractmethod

import attrs

from mailproxy.http import heads
from mailproxy.http.heads import BadMessage, Fields

MAX_SIZE_LINE = 1024
"""Bytes of a chunk's size and its extensions, which are dropped."""

MAX_TRAILERS = 8192
"""Bytes of a trailer section."""

_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:;[\t\x20-\x7e]*)?")

_FORBIDDEN_TRAILERS = frozenset(
    (
        *(b"transfer-encoding", b"content-length", b"host", b"connection", b"te", b"trailer"),
        *(b"upgrade", b"authorization", b"proxy-authorization", b"cookie", b"set-cookie"),
        *(b"content-encoding", b"content-type", b"content-range", b"expect", b"keep-alive"),
    )
)
"""Fields that say how a message is read or routed, too late in a trailer (RFC 9110, 6.5.1)."""


class Kind(enum.Enum):
    """What ends a body."""

    LENGTH = "its length"
    CHUNKED = "its last chunk"
    CLOSE = "the connection's end"


@attrs.frozen
class Framing:
    """Where a body ends.

    :ivar length: bytes, for `Kind.LENGTH`.
    """

    kind: Kind
    length: int = 0

    @property
    def isEmpty(self) -> bool:
        """Whether there is no body."""
        return self.kind is Kind.LENGTH and self.length == 0

    def body(self) -> "Body":
        """Make a decoder."""
        if self.kind is Kind.CHUNKED:
            return ChunkedBody()
        return OpenBody() if self.kind is Kind.CLOSE else LengthBody(self.length)


NOTHING = Framing(Kind.LENGTH, 0)
CHUNKED = Framing(Kind.CHUNKED)
UNTIL_CLOSE = Framing(Kind.CLOSE)


class Body(ABC):
    """Decodes one message's body.

    :ivar ended: whether all of it has been decoded.
    :ivar trailers: the fields behind it.
    """

    ended = False
    trailers = Fields()

    @abstractmethod
    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Decode what comes next.

        :returns: the payload, and what is behind the body's end.
        :raises BadMessage: when its framing is broken.
        """

    def close(self) -> None:
        """Know that nothing will follow.

        :raises BadMessage: when that is too early.
        """
        if not self.ended:
            raise BadMessage("a body that is cut short")


class LengthBody(Body):
    """A body of known length."""

    def __init__(self, length: int) -> None:
        self._left = length
        self.ended = length == 0

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Take so many bytes."""
        data, rest = (data, b"") if len(data) <= self._left else _cut(data, self._left)
        self._left -= len(data)
        self.ended = self._left == 0
        return data, rest


class OpenBody(Body):
    """A body that lasts until its sender has ended the connection."""

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Take everything."""
        return data, b""

    def close(self) -> None:
        """This is its end."""
        self.ended = True


class ChunkedBody(Body):
    """A body in chunks (RFC 9112, section 7.1): read strictly, extensions dropped."""

    def __init__(self) -> None:
        self._held = b""  # the beginning of a line
        self._left = 0  # bytes of the present chunk that are to come
        self._inChunk = False  # whether the line end behind a chunk's bytes is to come
        self._last = False

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Take as many chunks as are here."""
        data, self._held = self._held + data, b""
        parts: list[bytes] = []
        at = 0
        while at < len(data) and not self._last:
            if self._left:
                part = data[at : at + self._left] if at or self._left < len(data) else data
                parts.append(part)
                self._left -= len(part)
                at += len(part)
                continue
            step = self._endOfChunk(data, at) if self._inChunk else self._size(data, at)
            if step == at:
                self._held = data[at:]
                break
            at = step
        payload = parts[0] if len(parts) == 1 else b"".join(parts)
        return payload, self._trailer(data[at:]) if self._last else b""

    def _endOfChunk(self, data: bytes, at: int) -> int:
        """Pass over the line end behind a chunk."""
        end = data[at : at + 2]
        if end == b"\r\n":
            self._inChunk = False
            return at + 2
        if end != b"\r":
            raise BadMessage("a chunk that is longer than its size")
        return at

    def _size(self, data: bytes, at: int) -> int:
        """Read a chunk's size; an incomplete line that cannot become one is refused early."""
        end = data.find(b"\r\n", at, at + MAX_SIZE_LINE)
        line = data[at : end if end >= 0 else at + MAX_SIZE_LINE]
        if end < 0:
            if len(line) >= MAX_SIZE_LINE or not _SIZE.fullmatch(line.removesuffix(b"\r")):
                raise BadMessage("a bad chunk size")
            return at
        found = _SIZE.fullmatch(line)
        if found is None:
            raise BadMessage("a bad chunk size")
        self._left = int(found[1], 16)
        self._inChunk = self._left > 0
        self._last = self._left == 0
        return end + 2

    def _trailer(self, data: bytes) -> bytes:
        """Read the trailer section; returns what is behind it."""
        if data.startswith(b"\r\n"):
            self.ended = True
            return data[2:]
        end = data.find(b"\r\n\r\n", 0, MAX_TRAILERS)
        if end < 0:
            if len(data) >= MAX_TRAILERS:
                raise BadMessage("trailers too long", 431)
            if data not in (b"", b"\r"):
                heads.check(data, 0)
            self._held = data
            return b""
        _, self.trailers = heads.split(b"\r\n" + data[:end])
        if not _FORBIDDEN_TRAILERS.isdisjoint(self.trailers.table):
            raise BadMessage("a field that cannot be a trailer")
        self.ended = True
        return data[end + 4 :]


def chunk(payload: bytes) -> bytes:
    """Write a chunk; `payload` is not empty, or it would be the last."""
    return b"%x\r\n%b\r\n" % (len(payload), payload)


def lastChunk(trailers: Fields) -> bytes:
    """Write the end of a chunked body."""
    return b"0\r\n%b\r\n" % heads.write(trailers.items)


def _cut(data: bytes, at: int) -> tuple[bytes, bytes]:
    return data[:at], data[at:]
