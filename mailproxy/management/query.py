"""The parameters of a call, read from the query of its URI.

Pure: bytes in, text out. Read here and not by the web server, which also takes parameters from a
body, splits at semicolons and lets broken percent-encoding pass.
"""

import re
from collections.abc import Sequence
from urllib.parse import unquote_to_bytes

from mailproxy.errors import BadParameter

__all__ = ["parse", "wholeNumber"]

_BROKEN = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_DIGITS = re.compile(r"[0-9]{1,9}")


def parse(uri: bytes, required: Sequence[str], optional: Sequence[str] = ()) -> dict[str, str]:
    """Read a query; what it holds is given once, known and not empty, and nothing is missing.

    In a query, as in a form, `+` stands for a space.

    :param uri: a request's target, with or without a query.
    :returns: name -> value; an optional parameter that is absent is left out.
    :raises BadParameter: otherwise.
    """
    known = (*required, *optional)
    found: dict[str, str] = {}
    for pair in filter(None, uri.partition(b"?")[2].split(b"&")):
        name, _, value = (_decode(part, known) for part in pair.partition(b"="))
        if name not in known:
            raise BadParameter(f"unknown parameter; {_known(known)}")
        if name in found:
            raise BadParameter(f"{name}: given more than once")
        if not value:
            raise BadParameter(f"{name}: empty")
        found[name] = value
    for name in required:
        if name not in found:
            raise BadParameter(f"{name}: missing parameter")
    return found


def wholeNumber(name: str, value: str, most: int) -> int:
    """Read a parameter that is a whole number from 0 to `most`, in ASCII digits.

    :raises BadParameter: otherwise.
    """
    if _DIGITS.fullmatch(value) is None or int(value) > most:
        raise BadParameter(f"{name}: must be a whole number from 0 to {most}")
    return int(value)


def _decode(part: bytes, known: Sequence[str]) -> str:
    if _BROKEN.search(part):
        raise BadParameter(f"broken percent-encoding in the query; {_known(known)}")
    try:
        return unquote_to_bytes(part.replace(b"+", b" ")).decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadParameter(f"the query is not UTF-8; {_known(known)}") from error


def _known(names: Sequence[str]) -> str:
    """Say what a call takes; what the caller wrote is not repeated."""
    return f"this call takes {', '.join(names)}" if names else "this call takes none"
