"""The logger of this package: Twisted's, with the operator's level in front.

An event below the level is dropped before anything is made of it.
"""

from typing import Any, ClassVar

from constantly import NamedConstant
from twisted.logger import Logger as TwistedLogger
from twisted.logger import LogLevel

__all__ = ["LogLevel", "Logger", "setLevel"]


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
            super().emit(level, format, **kwargs)
