"""Globs on paths: `*` within a segment, `**` across segments; nothing else is special.

A glob becomes a regular expression that takes time in proportion to the path for each of its parts,
whatever a client sends: a star gives nothing back once what follows it has been found.
"""

import re


def compileGlob(glob: str) -> re.Pattern[bytes]:
    """Make the pattern whose `fullmatch` with a decoded path tells whether the glob matches."""
    parts = [_tokens(part) for part in glob.encode("utf-8").split(b"**")]
    first, last = parts[0], parts[-1]
    if len(parts) == 1:
        return re.compile(_anchored(first), re.DOTALL)
    # Between two `**` the first place that fits is as good as any.
    middle = b"".join(b"(?>.*?%b)" % _floating(part) for part in parts[1:-1])
    return re.compile(_floating(first) + middle + b".*" + _anchored(last), re.DOTALL)


def _tokens(part: bytes) -> list[bytes]:
    """The literals between the stars of a part, each ready to stand in a pattern."""
    return [re.escape(literal) for literal in part.split(b"*")]


def _floating(tokens: list[bytes]) -> bytes:
    """Match a part of which every star ends at the first place where its literal follows."""
    return tokens[0] + b"".join(b"(?>[^/]*?%b)" % literal for literal in tokens[1:])


def _anchored(tokens: list[bytes]) -> bytes:
    """Match a part that ends where the path does: its last star reaches for the end."""
    if len(tokens) == 1:
        return tokens[0]
    return _floating(tokens[:-1]) + b"[^/]*" + tokens[-1]
