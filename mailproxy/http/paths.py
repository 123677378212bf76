"""How a path stands in a log: readable, bounded, and without the names of accounts."""

from urllib.parse import unquote_to_bytes

from mailproxy.identity import redact

MAX_SHOWN = 200
"""Characters of a path that are shown."""


def shown(path: bytes, identifier: str | None) -> str:
    """Write a path for a log; a segment that holds the account or an address is redacted."""
    segments = [_shown(segment, identifier) for segment in path.split(b"/")]
    text = "/".join(segments)
    return text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + "..."


def _shown(segment: bytes, identifier: str | None) -> str:
    name = unquote_to_bytes(segment).decode("utf-8", "backslashreplace")
    if "@" in name or (identifier and identifier.lower() in name.lower()):
        return redact(name)
    return segment.decode("ascii", "backslashreplace")
