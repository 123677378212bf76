"""Heads as they stand on the wire, looked at before h11 reads them (RFC 9112, sections 2.2 and 5).

h11 takes some heads that two programs could read in two ways: bare line ends, folded lines, control
characters. Those are refused here. Must not know what any field means.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Self, TypeAlias

import attrs
import h11

from mailproxy.errors import ProtocolError

MAX_FIELDS = 100
"""Fields of a head, or of a trailer section."""

Field: TypeAlias = tuple[bytes, bytes, bytes]
"""A field: its name in lower case, its name as sent, its value without the space around it."""

_START = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]")
_UNFIT = re.compile(rb"\r(?!\n)|(?<!\r)\n|\n[ \t]|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_UNFIT_SO_FAR = re.compile(rb"\r[^\n]|(?<!\r)\n|\n[ \t]|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


class BadMessage(ProtocolError):
    """A message that is not what HTTP/1.1 asks for, or that we do not serve.

    :ivar status: what a client is answered.
    """

    def __init__(self, reason: str, status: int = 400) -> None:
        super().__init__(reason)
        self.status = status


def inspect(head: bytes) -> None:
    """Look at a whole head, or at the lines of a trailer section.

    :param head: without the empty line, and the line end before it.
    :raises BadMessage: on what h11 would let pass, or on too many fields.
    """
    if _UNFIT.search(head) is not None:
        raise BadMessage("a bare CR or LF, a folded line or a control character")
    if head.count(b"\n") > MAX_FIELDS:
        raise BadMessage(f"more than {MAX_FIELDS} fields", 431)


def inspectPart(data: bytes | bytearray, start: int) -> None:
    """Look at the part of a head that has come: what cannot become a good one is refused early.

    :param start: how much has been looked at before.
    :raises BadMessage: likewise, or when it does not begin as a message does.
    """
    if _UNFIT_SO_FAR.search(data, max(0, start - 1)) is not None or not _START.match(data):
        raise BadMessage("a bare CR or LF, a folded line or a control character")


@attrs.frozen
class Fields:
    """The fields of a head, in order.

    :ivar table: values by lower-case name, in order.
    """

    items: Sequence[Field] = ()
    table: Mapping[bytes, Sequence[bytes]] = attrs.field(factory=dict)

    @classmethod
    def of(cls, fields: Iterable[Field]) -> Self:
        """Make it of single fields."""
        items = tuple(fields)
        table: dict[bytes, list[bytes]] = {}
        for lower, _, value in items:
            table.setdefault(lower, []).append(value)
        return cls(items, table)

    @classmethod
    def parsed(cls, event: h11.Request | h11.Response | h11.InformationalResponse) -> Self:
        """Take those of an event."""
        return cls.of([(name.lower(), name, value) for name, value in event.headers.raw_items()])

    def values(self, name: bytes) -> Sequence[bytes]:
        """Every value of a field; `name` is in lower case."""
        return self.table.get(name, ())

    def first(self, name: bytes) -> bytes | None:
        """The first value of a field; None without one."""
        values = self.table.get(name)
        return values[0] if values else None

    def words(self, name: bytes) -> list[bytes]:
        """The members of a field that is a list, in lower case (RFC 9110, section 5.6.1)."""
        values = self.table.get(name)
        if not values:
            return []
        return [word for part in b",".join(values).lower().split(b",") if (word := part.strip())]
