"""Heads as they stand on the wire (RFC 9112, sections 2.2 and 5): one start line and fields.

Knows lines, names and values; must not know what any field means. Whatever two programs could read
in two ways is refused.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NoReturn, TypeAlias

import attrs

from mailproxy.errors import ProtocolError

MAX_FIELDS = 100
"""Fields of a head, or of a trailer section."""

Field: TypeAlias = tuple[bytes, bytes, bytes]
"""A field: its name in lower case, its name as sent, its value without the space around it."""

TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
"""A token (RFC 9110, section 5.6.2), as a pattern."""

_token = re.compile(TOKEN)
_unfit = re.compile(rb"\r(?!\n)|(?<!\r)\n|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_unfitSoFar = re.compile(rb"\r[^\n]|(?<!\r)\n|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


class BadMessage(ProtocolError):
    """A message that is not what HTTP/1.1 asks for, or that we do not serve.

    :ivar status: what a client is answered.
    """

    def __init__(self, reason: str, status: int = 400) -> None:
        super().__init__(reason)
        self.status = status


@attrs.frozen
class Fields:
    """The fields of a head, in order.

    :ivar table: values by lower-case name, in order.
    """

    items: Sequence[Field] = ()
    table: Mapping[bytes, Sequence[bytes]] = attrs.field(factory=dict)

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


def check(data: bytes | bytearray, start: int) -> None:
    """Look at the part of a head that has come: what cannot become a good one is refused early.

    :param start: how much has been looked at before.
    :raises BadMessage: on a bare CR or LF, NUL or another control character.
    """
    if _unfitSoFar.search(data, max(0, start - 1)) is not None or not _token.match(data):
        _refuse("a bare CR or LF, or a control character")


def split(head: bytes) -> tuple[bytes, Fields]:
    """Take a head apart.

    :param head: without the empty line, and the line end before it.
    :returns: the start line, and the fields.
    :raises BadMessage: when it is malformed, or has too many fields.
    """
    if _unfit.search(head) is not None:
        _refuse("a bare CR or LF, or a control character")
    start, *lines = head.split(b"\r\n")
    return start, parse(lines)


def parse(lines: Sequence[bytes]) -> Fields:
    """Read the lines of fields; of each it is known that it has no line end or control in it.

    :raises BadMessage: when one is malformed, folded, or there are too many.
    """
    if len(lines) > MAX_FIELDS:
        raise BadMessage(f"more than {MAX_FIELDS} fields", 431)
    items: list[Field] = []
    table: dict[bytes, list[bytes]] = {}
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon or not _token.fullmatch(name):
            _refuse("a malformed, folded or spaced-out field")
        lower, value = name.lower(), value.strip(b" \t")
        items.append((lower, name, value))
        table.setdefault(lower, []).append(value)
    return Fields(items, table)


def write(fields: Iterable[Field]) -> bytes:
    """Write fields, each with its line end."""
    return b"".join([b"%b: %b\r\n" % (name, value) for _, name, value in fields])


def _refuse(reason: str) -> NoReturn:
    raise BadMessage(reason)
