"""Write the page of all configuration keys: `python docs/reference.py > docs/reference.rst`.

Tables, keys, defaults and meanings are those of the JSON Schema, which is made from the model: the
page says what the program does. A test compares them.
"""

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

sys.path.insert(0, str(Path(__file__).parent.parent))  # this checkout's, whatever is installed

from mailproxy.config import Config

Schema: TypeAlias = Mapping[str, Any]

HEAD = """\
All keys
========

Every table of the configuration, in the order of the JSON Schema that ``mailproxy schema`` prints.
`Configuration <configuration.rst>`_ tells how values are written.
"""

ENTRIES = {"listener": "NAME", "destination": "NAME", "certificate": "NAME", "protocol": "PROTO"}
"""Tables of tables, and what stands for the name of one."""


def page(schema: Schema) -> str:
    """Word the whole schema."""
    return HEAD + "".join(_tables(schema["properties"], schema["$defs"], ""))


def _tables(properties: Schema, known: Schema, path: str) -> Iterator[str]:
    """Word the tables among some properties, and the tables in them."""
    for key, each in properties.items():
        table = _table(each, known)
        if table is None:
            continue
        name = f"{path}{key}"
        if "additionalProperties" in each:
            name += f".{ENTRIES[key]}"
        heading = f"[[{name}]]" if "items" in each else f"[{name}]"
        if rows := list(_rows(table, known)):
            yield f"\n``{heading}``\n{'-' * (len(heading) + 4)}\n\n{each['description']}\n\n"
            yield f"{_LIST}{''.join(rows)}"
        yield from _tables(table["properties"], known, f"{name}.")


_STAR = r"\*"
"""A star that begins no emphasis."""

_LIST = """\
.. list-table::
   :header-rows: 1
   :widths: 28 22 50

   * - key
     - default
     - meaning
"""


def _table(each: Schema, known: Schema) -> Schema | None:
    """Find the table that a property holds, alone, by name or in a list; None for a plain value."""
    for inner in (
        each,
        each.get("additionalProperties"),
        each.get("items"),
        *each.get("anyOf", ()),
    ):
        if isinstance(inner, Mapping) and "$ref" in inner:
            found: Schema = known[inner["$ref"].rpartition("/")[2]]
            if "properties" in found:
                return found
    return None


def _rows(table: Schema, known: Schema) -> Iterator[str]:
    for key, each in table["properties"].items():
        if _table(each, known) is None:
            yield f"   * - ``{key}``\n     - {_default(key, each, table)}\n"
            yield f"     - {each['description'].replace('*', _STAR)}\n"


def _default(key: str, each: Schema, table: Schema) -> str:
    """Word a key's default as one would write it in TOML."""
    if key in table.get("required", ()):
        return "required"
    value = each.get("default")
    if value is None:
        return "unset"
    return f"``{json.dumps(value)}``"


if __name__ == "__main__":
    sys.stdout.write(page(Config.model_json_schema()))
