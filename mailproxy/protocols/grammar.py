"""Atoms, quoted strings, literals and flat lists, as IMAP and its kin write them.

Follows RFC 9051, section 9, and is lenient where clients are known to be careless: an atom may hold
any character but those that end it. Knows bytes; must not know commands, streams or who sends them.
"""

import re
from collections.abc import Sequence
from typing import TypeAlias

from mailproxy.errors import ProtocolError

_LITERAL = re.compile(rb"\{0*([0-9]+)(\+?)\}\Z")
_ATOM = re.compile(rb'[^\x00-\x20\x7f()"]+')
_QUOTED = re.compile(rb'"((?:[^"\\\x00\r\n]|\\[^\x00\r\n])*)"')
_ESCAPE = re.compile(rb"\\(.)", re.DOTALL)
_TAG = re.compile(rb'[^\x00-\x20\x7f-\xff(){%*"\\+]{1,64}\Z')


class GrammarError(ProtocolError):
    """Arguments that cannot be read; its text never quotes them."""


class Atom(bytes):
    """A word that was not quoted: NIL and a mechanism's name are atoms, a password may be one."""


Value: TypeAlias = bytes | tuple[bytes, ...]
"""An atom, a string, or a list of them."""


def isTag(tag: bytes) -> bool:
    """Whether a client may mark a command so (and we may repeat it in a reply)."""
    return _TAG.match(tag) is not None


def literalAtEnd(line: bytes) -> tuple[int, bool] | None:
    """Tell the size of the literal that a line announces, and whether it comes unasked.

    `{5}` waits for our `+`, `{5+}` does not (RFC 7888). Of an absurd number ten digits are read:
    they are over every limit too.
    """
    found = _LITERAL.search(line)
    return (int(found[1][:10]), bool(found[2])) if found else None


def parse(pieces: Sequence[bytes]) -> list[Value]:
    """Read the arguments of a command.

    :param pieces: text and literals in turn, text first; each text but the last ends in the
        literal's announcement.
    :raises GrammarError: when they cannot be read.
    """
    values: list[Value] = []
    members: list[bytes] | None = None
    for token in _tokens(pieces):
        if token is _OPEN and members is None:
            members = []
        elif token is _CLOSE and members is not None:
            values.append(tuple(members))
            members = None
        elif token is _OPEN or token is _CLOSE:
            raise GrammarError("parentheses do not match")
        elif members is None:
            values.append(token)
        else:
            members.append(token)
    if members is not None:
        raise GrammarError("parentheses do not match")
    return values


_OPEN, _CLOSE = Atom(b"("), Atom(b")")


def _tokens(pieces: Sequence[bytes]) -> list[bytes]:
    """Split text into tokens, each literal in its place."""
    tokens: list[bytes] = []
    for index, piece in enumerate(pieces):
        if index % 2:
            tokens.append(piece)
        else:
            announced = index + 1 < len(pieces)
            tokens += _textTokens(piece[: piece.rindex(b"{")] if announced else piece)
    return tokens


def _textTokens(text: bytes) -> list[bytes]:
    tokens: list[bytes] = []
    at = 0
    while at < len(text):
        character = text[at : at + 1]
        if character == b" ":
            at += 1
        elif character in (b"(", b")"):
            tokens.append(_OPEN if character == b"(" else _CLOSE)
            at += 1
        elif quoted := _QUOTED.match(text, at):
            tokens.append(_ESCAPE.sub(rb"\1", quoted[1]))
            at = quoted.end()
        elif atom := _ATOM.match(text, at):
            tokens.append(Atom(atom[0]))
            at = atom.end()
        else:
            raise GrammarError("a character that may not stand there")
    return tokens


def strings(values: Sequence[Value], count: int) -> list[bytes]:
    """Take exactly so many atoms or strings.

    :raises GrammarError: when there are more, fewer, or lists among them.
    """
    found = [value for value in values if isinstance(value, bytes)]
    if len(found) != count or len(values) != count:
        raise GrammarError("wrong number of arguments")
    return found


def quotable(data: bytes) -> bool:
    """Whether every server takes these bytes as a quoted string: short printable ASCII."""
    return len(data) <= 1024 and all(0x20 <= byte < 0x7F for byte in data)


def quote(data: bytes) -> bytes:
    """Write a quoted string; the caller has made sure that it is `quotable`."""
    return b'"' + data.replace(b"\\", rb"\\").replace(b'"', rb"\"") + b'"'


def string(data: bytes) -> bytes:
    """Write a string: quoted if it can be, else as a literal that comes unasked."""
    return quote(data) if quotable(data) else b"{%d+}\r\n%b" % (len(data), data)
