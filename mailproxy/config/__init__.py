"""The configuration: a TOML file, read and checked in full before anything is bound.

`model` says what each key means (its parts: `values`, `bind`, `ciphers`, `stores`, `surface`),
`checks`, `certificates` and `table` what must hold besides, `problems` how mistakes are told, and
`load` puts them together.
"""

from mailproxy.config.load import checkMapping, load, warnings
from mailproxy.config.model import Config

__all__ = ["Config", "checkMapping", "load", "warnings"]
