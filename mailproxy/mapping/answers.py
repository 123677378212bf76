"""What stores say, made fit for routing and for the log.

Knows plain values and errors; must not know any store.
"""

import re

from mailproxy.errors import MappingError
from mailproxy.identity import redact

LONGEST_REASON = 300
"""Characters of a store's own error that stand in a log line."""


def asDestination(value: object) -> str | None:
    """A destination's name out of whatever a store has for it; None for nothing or blanks.

    Blanks around it are dropped: columns of fixed width are padded, and no destination has any.

    :raises MappingError: for bytes that are not UTF-8.
    """
    if value is None:
        return None
    if isinstance(value, bytes | bytearray | memoryview):
        try:
            value = bytes(value).decode("utf-8")
        except UnicodeDecodeError as error:
            raise MappingError("the store holds a destination that is not UTF-8") from error
    return str(value).strip() or None


def oneLine(error: BaseException) -> str:
    """An error's own words on one line, printable and of bounded length."""
    words = " ".join(str(part) for part in error.args if part != "") or str(error)
    text = " ".join(words.split()) or type(error).__name__
    text = "".join(letter if letter.isprintable() else "?" for letter in text)
    return text if len(text) <= LONGEST_REASON else text[:LONGEST_REASON] + "..."


def reason(store: str, text: str, identifier: str) -> str:
    """Say which store failed and how, without the identifier that it may have quoted."""
    quoted = rf"(?<!\w){re.escape(identifier)}(?!\w)"
    return f"{store}: {re.sub(quoted, lambda _: redact(identifier), text)}"
