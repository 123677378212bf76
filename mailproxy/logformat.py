"""Log lines as text or JSON, written to where twistd's own flags send the log.

Knows events, and the flags `--logfile`, `--syslog`, `--prefix` and `--nodaemon`; must not know what
is logged. Text looks as twistd's own does, which takes thrice the time for it: a line at the end of
each session is the most that a login costs outside TLS.
"""

import enum
import json
import re
import signal
import sys
import syslog
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from types import FrameType
from typing import IO, Any

from twisted.logger import (
    FileLogObserver,
    ILogObserver,
    LogEvent,
    LogLevel,
    formatEvent,
    formatEventAsClassicLogText,
    formatTime,
)
from twisted.python.logfile import LogFile
from zope.interface import implementer

from mailproxy.logs import Logger, escaped

__all__ = [
    "LineObserver",
    "Style",
    "SyslogObserver",
    "asJSON",
    "asText",
    "isSocketNews",
    "jsonObserver",
    "sentence",
    "textObserver",
]

DEFAULT_FILE = "twistd.log"
"""Where a daemon logs that was not told where: twistd's own choice."""

_TAKEN = frozenset({"time", "level", "system", "message", "traceback", "format", "isError", "text"})
"""Keys of our own, those that Twisted adds for old observers, and what is the whole message."""

_SOCKET_NEWS = re.compile(r".+ starting on [^ ]+|\((TCP|TLS|UNIX) Port [^ ]+ Closed\)")
"""What Twisted says of listening sockets."""

_PRIORITIES = {
    LogLevel.debug: syslog.LOG_DEBUG,
    LogLevel.info: syslog.LOG_INFO,
    LogLevel.warn: syslog.LOG_WARNING,
    LogLevel.error: syslog.LOG_ERR,
    LogLevel.critical: syslog.LOG_CRIT,
}


def asJSON(event: LogEvent) -> str | None:
    """Write an event as one line: when, how important, who says it, the text and its fields.

    Fields are those of our own events: others' may hold anything. None: there is nothing to say.
    """
    text, failure = sentence(event), event.get("log_failure")
    if (not text and failure is None) or isSocketNews(event):
        return None
    moment = datetime.fromtimestamp(event["log_time"], UTC)
    facts = {
        "time": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "level": event["log_level"].name,
        "system": event.get("log_namespace", "-"),
        "message": text,
    }
    if _isOurs(event):
        facts |= {
            name: value if isinstance(value, str | int | float | None) else escaped(value)
            for name, value in event.items()
            if not name.startswith("log_") and name not in _TAKEN
        }
    if failure is not None:
        facts["traceback"] = failure.getTraceback()
    return json.dumps(facts) + "\n"


def asText(event: LogEvent) -> str | None:
    """Write an event as twistd does: when, who says it, how important, the text.

    None: there is nothing to say.
    """
    if not _isOurs(event) or "log_failure" in event:
        return None if isSocketNews(event) else formatEventAsClassicLogText(event)
    moment, who, level = event["log_time"], event["log_namespace"], event["log_level"].name
    text = sentence(event).replace("\n", "\n\t")
    return f"{_second(int(moment))} [{who}#{level}] {text}\n" if text else None


@lru_cache(maxsize=1)
def _second(moment: int) -> str:
    """Write a time; many events share the second."""
    return formatTime(moment)


def _isOurs(event: LogEvent) -> bool:
    return isinstance(event.get("log_logger"), Logger)


def isSocketNews(event: LogEvent) -> bool:
    """Whether Twisted tells of a listening socket, by which nobody is the wiser.

    Lines of ours say where clients are accepted; and a socket that a worker closes, since the one
    that it belongs to is back, is no outage.
    """
    if _isOurs(event) or event.get("log_level") is not LogLevel.info:
        return False
    return _SOCKET_NEWS.fullmatch(formatEvent(event)) is not None


def sentence(event: LogEvent) -> str:
    """Put an event's fields into its text.

    Twisted's formats may call what a field holds; ours never do, and go the short way. A mistake in
    one is Twisted's to tell.
    """
    if _isOurs(event):
        try:
            return str(event["log_format"] or "").format_map(event)
        except Exception:  # whatever a field's own formatting raises
            pass
    return formatEvent(event)


class Style(enum.Enum):
    """How lines are written."""

    TEXT = "text"
    JSON = "json"

    def line(self, event: LogEvent) -> str | None:
        """Write an event."""
        return asJSON(event) if self is Style.JSON else asText(event)


class LineObserver(FileLogObserver):
    """Writes events to a file, and lines that another process has made of its own.

    :ivar style: how they are written.
    """

    def __init__(self, file: IO[Any], style: Style) -> None:
        super().__init__(file, asJSON if style is Style.JSON else asText)
        self.style = style
        self._made = FileLogObserver(file, lambda event: str(event["lines"]))

    def write(self, lines: str) -> None:
        """Write lines as they are."""
        self._made({"lines": lines})


@implementer(ILogObserver)
class SyslogObserver:
    """Sends events to the system's log, each with its own priority."""

    def __init__(self, prefix: str) -> None:
        """Begin.

        :param prefix: what the system's log calls us.
        """
        syslog.openlog(prefix)

    def __call__(self, event: LogEvent) -> None:
        """Send an event."""
        line = asJSON(event)
        if line is not None:
            syslog.syslog(_PRIORITIES[event["log_level"]], line.rstrip("\n"))


def jsonObserver(
    flags: Mapping[str, Any], soon: Callable[[Callable[[], None]], object]
) -> ILogObserver:
    """Make the observer that writes JSON to where twistd would have written text.

    :param flags: twistd's own options; none at all where something else runs us.
    :param soon: has the reactor call a function, also from within a signal's handler.
    """
    if flags.get("syslog"):
        return SyslogObserver(flags["prefix"])
    return LineObserver(_open(flags, soon), Style.JSON)


def textObserver(
    flags: Mapping[str, Any], soon: Callable[[Callable[[], None]], object]
) -> ILogObserver | None:
    """Make the observer that writes text; None where twistd has one of another kind.

    :param flags: as for `jsonObserver`, `soon` too.
    """
    if flags.get("syslog") or flags.get("logger"):
        return None
    return LineObserver(_open(flags, soon), Style.TEXT)


def _open(flags: Mapping[str, Any], soon: Callable[[Callable[[], None]], object]) -> IO[Any]:
    """Open the file that the flags name; what a daemon writes can be rotated by SIGUSR1."""
    name, stays = flags.get("logfile"), flags.get("nodaemon", True)
    if name == "-" and not stays:
        raise SystemExit("--logfile -: a daemon has no standard output")
    if name == "-" or (stays and not name):
        return sys.stdout
    file: Any = LogFile.fromFullPath(name or DEFAULT_FILE)

    def rotate(number: int, _: FrameType | None) -> None:
        soon(file.rotate)

    if not signal.getsignal(signal.SIGUSR1):
        signal.signal(signal.SIGUSR1, rotate)
    opened: IO[Any] = file
    return opened
