"""What a route compares requests with: globs on paths, regular expressions on bodies."""

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

import re2

from mailproxy.config.values import shown

_ANY, _ANY_ACROSS = "\0", "\1"
"""What a sample has where its glob has `*` and `**`; no glob may hold them."""


def checkGlob(glob: str) -> str:
    """Refuse a glob that matches no path, or whose writer means more than stars."""
    if glob != "*" and not glob.startswith(("/", "**")):
        raise ValueError(
            f"{shown(glob)} can match no path; begin with / or ** (only OPTIONS * has no path, "
            'and for that write "*")'
        )
    if "***" in glob:
        raise ValueError(f"{shown(glob)}: write * (within a segment) or ** (across segments)")
    if found := re.search("%[0-9A-Fa-f]{2}", glob):
        raise ValueError(
            f"{shown(glob)} can match no path: paths are compared decoded; "
            f"write the character itself instead of {found[0]}"
        )
    if found := re.search(r"[\x00-\x1f\x7f?#\[\]{}\\]", glob):
        raise ValueError(
            f"{shown(glob)}: {shown(found[0])} cannot be used; only * and ** are special, "
            "and a path has no query"
        )
    return glob


def shadowed(globs: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Find globs that no path comes to, since another before them takes it.

    :returns: their places, each with the place of the first that takes its paths. What only
        several together take is not found.
    """
    patterns = [re.compile(_plainly(glob), re.DOTALL) for glob in globs]
    for place, glob in enumerate(globs):
        samples = _samples(glob)
        for before, pattern in enumerate(islice(patterns, place)):
            if any(map(pattern.fullmatch, samples)):
                yield place, before
                break


def _plainly(glob: str) -> str:
    """Write a glob as a regular expression that matches the samples of all globs it covers."""
    words = {"*": f"[^/{_ANY_ACROSS}]*", "**": ".*"}
    return "".join(words.get(part, re.escape(part)) for part in re.split(r"(\*\*|\*)", glob))


def _samples(glob: str) -> list[str]:
    """Write a path for all that a glob matches; also the form that a trailing slash is cut off.

    A pattern that matches one of them matches whatever may stand for its stars.
    """
    sample = glob.replace("**", _ANY_ACROSS).replace("*", _ANY)
    bare = sample.removesuffix("/")
    return [sample, bare] if bare else [sample]


def checkRegex(regex: str) -> str:
    """Refuse a regular expression that does not compile, or that has no group."""
    try:
        groups = _compiled(regex).groups
    except re2.error as error:
        reason = error.args[0].decode("utf-8", "replace")
        raise ValueError(
            f"{shown(regex)} is not a regular expression of RE2: {shown(reason)[1:-1]}"
        ) from error
    if groups == 0:
        raise ValueError(f"{shown(regex)} has no group; put ( ) around the identifier")
    return regex


def firstGroup(regex: str) -> Callable[[bytes], bytes]:
    """Make what finds the first group of a checked expression's first match.

    It returns nothing where there is no match, or none of the group. Its time is in proportion to
    the text, whatever a client sends.
    """
    pattern = _compiled(regex)

    def find(text: bytes) -> bytes:
        found = pattern.search(text)
        return (found[1] or b"") if found is not None else b""

    return find


def _compiled(regex: str) -> Any:
    options = re2.Options()
    # Each byte is a character: one that is no UTF-8 must not cut a name short.
    options.encoding = re2.Options.Encoding.LATIN1
    options.log_errors = False
    return re2.compile(regex.encode("utf-8"), options)
