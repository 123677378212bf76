"""Validation errors in the words of the person who wrote the file.

Turns what pydantic found into lines of `table.key: what is wrong and what would be right`.
"""

import difflib
import json
import re
import types
import typing
from collections.abc import Callable, Iterable
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from mailproxy.config.values import shown

_SECRETS = frozenset({"bearer_token", "url"})
_CONTAINERS = (dict, tuple, list)
_Path = tuple[int | str, ...]


def describe(error: ValidationError, model: type[BaseModel]) -> list[str]:
    """One line per mistake, in the order of the model.

    :param model: the one that was validated, for the keys that it knows.
    """
    lines = []
    for found in error.errors(include_url=False):
        path = tuple(part for part in found["loc"] if part != "[key]")
        value = "the value" if path and path[-1] in _SECRETS else shown(found["input"])
        mistake = _Mistake(model, path, value, found)
        words = _WORDS.get(found["type"], _unforeseen)
        lines.append(f"{mistake.where}: {words(mistake)}")
    return lines


def keyPath(path: Iterable[int | str]) -> str:
    """A path as it would be written in TOML; a place in a list is counted from 1."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f" #{part + 1}"
        else:
            text += f".{_key(part)}" if text else _key(part)
    return text


def _key(name: str) -> str:
    return (
        name if re.fullmatch("[A-Za-z0-9_-]+", name) else json.dumps(name[:80], ensure_ascii=False)
    )


class _Mistake:
    """One thing that pydantic found, and the model around it."""

    def __init__(self, model: type[BaseModel], path: _Path, value: str, found: Any) -> None:
        self.path = path
        self.value = value
        self.details: dict[str, Any] = found.get("ctx", {})
        self.isTable = isinstance(found["input"], dict)
        self.fields = _fieldsAt(model, path[:-1])

    @property
    def where(self) -> str:
        """The key; a plain value's place in its list is left out, since the message quotes it."""
        inList = bool(self.path) and isinstance(self.path[-1], int)
        return keyPath(self.path[:-1] if inList and not self.isTable else self.path)


def _unknown(mistake: _Mistake) -> str:
    name = str(mistake.path[-1])
    kind = "table" if mistake.isTable else "key"
    near = difflib.get_close_matches(name, mistake.fields, 1)
    if near:
        return f"unknown {kind}; did you mean {near[0]}?"
    return f"unknown {kind}; known here: {', '.join(mistake.fields)}"


def _missing(mistake: _Mistake) -> str:
    field = mistake.fields.get(str(mistake.path[-1]))
    meaning = (field.description or "") if field is not None else ""
    return f"missing; write it: {meaning.rstrip('.')}"


def _ownWords(mistake: _Mistake) -> str:
    return str(mistake.details["error"])


def _notOneOf(mistake: _Mistake) -> str:
    choices = re.findall("'([^']*)'", mistake.details["expected"])
    if len(choices) == 1:
        return f"{mistake.value} is refused; it must be {choices[0]}"
    return f"{mistake.value} is not one of {', '.join(choices)}"


def _says(text: str) -> Callable[[_Mistake], str]:
    return lambda mistake: text.format(value=mistake.value, **mistake.details)


_unforeseen = _says("{value} cannot be used here")
_notATable = _says("{value} is not a table; write [its.name] and keys below it")
_notText = _says("{value} is not text; write it in quotes")
_notANumber = _says("{value} is not a whole number")
_notAList = _says("{value} is not a list; write it in [ ]")

_WORDS: dict[str, Callable[[_Mistake], str]] = {
    "extra_forbidden": _unknown,
    "missing": _missing,
    "value_error": _ownWords,
    "enum": _notOneOf,
    "literal_error": _notOneOf,
    "model_type": _notATable,
    "dict_type": _notATable,
    "string_type": _notText,
    "path_type": _notText,
    "string_too_short": _says("cannot be empty"),
    "int_type": _notANumber,
    "bool_type": _says("{value} is not true or false (without quotes)"),
    "tuple_type": _notAList,
    "greater_than_equal": _says("{value} is too small; at least {ge}"),
    "less_than_equal": _says("{value} is too large; at most {le}"),
}


def _fieldsAt(model: type[BaseModel], path: _Path) -> dict[str, FieldInfo]:
    """The keys that the table at a path may have; none if there is no such table."""
    fields = _keys(model)
    skip = False
    for part in path:
        if skip:
            skip = False
            continue
        field = fields.get(str(part))
        inner = None if field is None else _modelIn(field.annotation)
        if field is None or inner is None:
            return {}
        fields = _keys(inner)
        skip = _holdsMany(field.annotation)
    return fields


def _keys(model: type[BaseModel]) -> dict[str, FieldInfo]:
    return {field.alias or name: field for name, field in model.model_fields.items()}


def _modelIn(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    inner = map(_modelIn, typing.get_args(annotation))
    return next((model for model in inner if model is not None), None)


def _holdsMany(annotation: Any) -> bool:
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType):
        return any(map(_holdsMany, typing.get_args(annotation)))
    return origin in _CONTAINERS
