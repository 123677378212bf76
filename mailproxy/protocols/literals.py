"""Lines with literals in them, read off a stream.

Knows how a literal is announced and bounded; must not know what the words mean.
"""

from collections.abc import Callable

from mailproxy.errors import LimitExceeded
from mailproxy.protocols import grammar
from mailproxy.stream import MAX_LINE, Stream


class TooBig(LimitExceeded):
    """A literal that waits for our consent is larger than what may come before a login."""


async def readPieces(
    stream: Stream, line: bytes, consent: Callable[[], None] | None = None
) -> list[bytes]:
    """Read a line on: text and literals in turn, text first and last.

    :param line: what has been read: the first text.
    :param consent: invites a literal that waits for it; None where all come unasked.
    :raises TooBig: before a waiting literal that is too large; reading may go on.
    :raises LimitExceeded: when all is longer than `MAX_LINE`.
    """
    pieces = [line]
    room = MAX_LINE - len(line)
    while announced := grammar.literalAtEnd(pieces[-1]):
        size, unasked = announced
        waits = consent is not None and not unasked
        if size > room:
            raise (TooBig if waits else LimitExceeded)("a literal is too long")
        if consent is not None and waits:
            consent()
        pieces.append(await stream.readExactly(size))
        pieces.append(await stream.readLine())
        room -= size + len(pieces[-1])
        if room < 0:
            raise LimitExceeded("a command is too long")
    return pieces


def written(pieces: list[bytes]) -> bytes:
    """Put pieces together as they came, without the last line end."""
    text, *rest = pieces
    for literal, behind in zip(rest[::2], rest[1::2], strict=True):
        text += b"\r\n" + literal + behind
    return text
