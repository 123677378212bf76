"""The logger of this package: Twisted's, with the operator's level in front.

An event below the level is dropped before anything is made of it. What an event says is escaped
here, once for every way to write it: a peer's text can neither begin a line nor steer a terminal.
"""

from typing import Any, ClassVar

from constantly import NamedConstant
from twisted.logger import Logger as TwistedLogger
from twisted.logger import LogLevel

__all__ = ["LogLevel", "Logger", "escaped", "setLevel"]


def setLevel(name: str) -> None:
    """Set the process's level: debug, info, warn or error."""
    Logger.level = LogLevel.lookupByName(name)


class Logger(TwistedLogger):
    """Emits events of the process's level and above.

    :cvar level: the least important kind of event that is logged, for all loggers of the process.
    """

    level: ClassVar[NamedConstant] = LogLevel.info

    def emit(self, level: NamedConstant, format: str | None = None, **kwargs: Any) -> None:
        """Emit an event if it is important enough."""
        if level >= Logger.level:
            for name, value in kwargs.items():
                if isinstance(value, _TEXTS):
                    kwargs[name] = escaped(value)
            super().emit(level, format, **kwargs)


_TEXTS = (str, bytes, Exception)
"""What is escaped; a tuple, since a union takes thrice the time."""


def escaped(value: object) -> str:
    r"""Write a value in printable characters alone; any other becomes `\n`, `\x1b` or `\u202e`."""
    text = str(value)
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)
