"""Bodies: how long one is, and how it is decoded as it comes (RFC 9112, sections 6 and 7).

h11 decodes; the framing of chunks, with which it is lenient, is looked over before. Must not know
connections or what a body holds.
"""

import enum
import re

import attrs
import h11

from mailproxy.http import heads
from mailproxy.http.heads import BadMessage

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


NOTHING = Framing(Kind.LENGTH, 0)
CHUNKED = Framing(Kind.CHUNKED)
UNTIL_CLOSE = Framing(Kind.CLOSE)


class Body:
    """Decodes the body behind a head that h11 has parsed.

    :param machine: has given the head's event, and nothing after it.
    :ivar ended: whether all of it has been decoded.
    :ivar trailers: the fields behind it, as h11 takes them.
    """

    def __init__(self, machine: h11.Connection, framing: Framing) -> None:
        self._machine = machine
        self._chunks = ChunkFraming() if framing.kind is Kind.CHUNKED else None
        self.ended = False
        self.trailers: list[tuple[bytes, bytes]] = []
        self._decode()

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Decode what comes next.

        :returns: the payload, and what is behind the body's end.
        :raises BadMessage: when its framing is broken.
        """
        rest = b""
        if self._chunks is not None:
            size = self._chunks.feed(data)
            data, rest = data[:size], data[size:]
        self._machine.receive_data(data)
        payload = self._decode()
        if self.ended:
            rest = self._machine.trailing_data[0] + rest
        return payload, rest

    def close(self) -> None:
        """Know that nothing will follow.

        :raises BadMessage: when that is too early.
        """
        if not self.ended:
            self._machine.receive_data(b"")
            self._decode()

    def _decode(self) -> bytes:
        """Take what h11 has made of what it was given."""
        parts: list[bytes] = []
        try:
            while isinstance(event := self._machine.next_event(), h11.Data):
                parts.append(event.data)
        except h11.RemoteProtocolError as error:
            raise BadMessage("a body that is cut short, or whose framing is broken") from error
        if isinstance(event, h11.EndOfMessage):
            if not _FORBIDDEN_TRAILERS.isdisjoint(name for name, _ in event.headers):
                raise BadMessage("a field that cannot be a trailer")
            self.trailers = event.headers.raw_items()
            self.ended = True
        return parts[0] if len(parts) == 1 else b"".join(parts)


class ChunkFraming:
    """Looks over the framing of a chunked body as it passes, and touches no payload.

    h11 takes spaces behind a size, control characters in an extension, and in a trailer section
    all that it takes in a head.
    """

    def __init__(self) -> None:
        self._held = b""  # the beginning of a line
        self._left = 0  # bytes of the present chunk that are to come
        self._inChunk = False  # whether the line end behind a chunk's bytes is to come
        self._last = self._ended = False

    def feed(self, data: bytes) -> int:
        """Look at what comes next.

        :returns: how many bytes of it are the body's.
        :raises BadMessage: when they are not what they must be.
        """
        held = len(self._held)
        data, self._held = self._held + data, b""
        at = 0
        while at < len(data) and not self._last:
            if self._left:
                size = min(self._left, len(data) - at)
                self._left -= size
                at += size
                continue
            step = self._endOfChunk(data, at) if self._inChunk else self._size(data, at)
            if step == at:
                self._held = data[at:]
                return len(data) - held
            at = step
        if self._last:
            at = self._trailer(data, at)
        return at - held

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
        found = _SIZE.fullmatch(line if end >= 0 else line.removesuffix(b"\r"))
        if found is None or len(line) >= MAX_SIZE_LINE:
            raise BadMessage("a bad chunk size")
        if end < 0:
            return at
        self._left = int(found[1], 16)
        self._inChunk = self._left > 0
        self._last = self._left == 0
        return end + 2

    def _trailer(self, data: bytes, at: int) -> int:
        """Look at the trailer section; returns where it ends, or all that is here."""
        if data.startswith(b"\r\n", at):
            return at + 2
        end = data.find(b"\r\n\r\n", at, at + MAX_TRAILERS)
        if end >= 0:
            heads.inspect(b"\r\n" + data[at:end])
            return end + 4
        self._held = data[at:]
        if len(self._held) >= MAX_TRAILERS:
            raise BadMessage("trailers too long", 431)
        if self._held not in (b"", b"\r"):
            heads.inspectPart(self._held, 0)
        return len(data)
