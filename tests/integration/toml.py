"""A configuration as Python values, written as TOML: the standard library only reads it."""

import json
import re
from collections.abc import Mapping, Sequence

_BARE = re.compile(r"[A-Za-z0-9_-]+\Z")


def tomlText(table: Mapping[str, object], path: str = "") -> str:
    """`table` as TOML; strings, numbers, booleans, sequences and tables, at any depth.

    Tables get a `[header]`, sequences of tables become `[[headers]]`, tables in those stay inline.
    """
    plain = {key: value for key, value in table.items() if not _isTable(value)}
    lines = [
        f"{_key(key)} = {_value(value)}" for key, value in plain.items() if not _isArray(value)
    ]
    text = "".join(f"{line}\n" for line in lines)
    for key, value in table.items():
        name = f"{path}{_key(key)}"
        if isinstance(value, Mapping):
            text += f"\n[{name}]\n{tomlText(value, f'{name}.')}"
        elif isinstance(value, Sequence) and _isArray(value):
            text += "".join(f"\n[[{name}]]\n{_inlineLines(item)}" for item in value)
    return text


def _isTable(value: object) -> bool:
    return isinstance(value, Mapping)


def _isArray(value: object) -> bool:
    """Whether `value` is a sequence of tables, and not empty."""
    if isinstance(value, str) or not isinstance(value, Sequence) or not value:
        return False
    return all(_isTable(item) for item in value)


def _inlineLines(table: Mapping[str, object]) -> str:
    return "".join(f"{_key(key)} = {_value(value)}\n" for key, value in table.items())


def _key(key: str) -> str:
    return key if _BARE.match(key) else json.dumps(key, ensure_ascii=False)


def _value(value: object) -> str:
    if isinstance(value, Mapping):
        return (
            "{ " + ", ".join(f"{_key(key)} = {_value(item)}" for key, item in value.items()) + " }"
        )
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"[{', '.join(_value(item) for item in value)}]"
    return json.dumps(str(value), ensure_ascii=False)
