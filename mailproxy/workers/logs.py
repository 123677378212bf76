"""A worker's log lines, written by its parent: one place, one format, whole lines.

Knows events and how they are carried; must not know where the log goes. Where the parent writes
lines of ours, a worker makes them, and they are written as they come. Another observer of the
parent's sees a worker's event as one of its own. Both say which worker it was.
"""

from collections.abc import Callable
from threading import get_ident
from typing import Any

from constantly import NamedConstant
from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime
from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent, globalLogPublisher
from twisted.python.failure import Failure
from zope.interface import implementer

from mailproxy.logformat import Style, isSocketNews, sentence
from mailproxy.logs import Logger

__all__ = ["LogRelay", "publish"]

MOST_WAITING = 10_000
"""Events that wait while the parent does not read; further ones are counted, and lost."""

_log = Logger()
"""Stands for the logger that a worker's event came from: one of ours."""

DELAY = 0.1
"""Seconds for which events are gathered: to wake the parent for each would cost more than they."""

Say = Callable[[str, Any], None]
Soon = Callable[[Callable[[LogEvent], None], LogEvent], object]


@implementer(ILogObserver, IPushProducer)
class LogRelay:
    """Sends a worker's events up, several at a time; waits when the parent cannot keep up.

    :param soon: has the reactor's thread, in which this is made, call a function with an event.
    :ivar number: of the worker.
    :ivar style: how lines are written; None: as the parent does, who is sent events.
    """

    log = Logger()
    number = 0
    style: Style | None = None

    def __init__(self, say: Say, clock: IReactorTime, soon: Soon) -> None:
        self._say, self._clock, self._soon = say, clock, soon
        self._thread = get_ident()
        self._paused = False
        self._waiting: list[Any] = []
        self._timer: IDelayedCall | None = None
        self._lost = 0

    def __call__(self, event: LogEvent) -> None:
        """Send an event, if there is anything to say; other threads leave it to ours."""
        if get_ident() != self._thread:
            self._soon(self, event)
            return
        facts = pack(event) if self.style is None else self.style.line(self._numbered(event))
        if facts is None:
            return
        if len(self._waiting) >= MOST_WAITING:
            self._lost += 1
            return
        self._waiting.append(facts)
        if self._timer is None and not self._paused:
            self._timer = self._clock.callLater(DELAY, self._due)

    def _numbered(self, event: LogEvent) -> LogEvent:
        return {**event, "worker": self.number} if self.style is Style.JSON else event

    def write(self, number: int, style: Style | None) -> None:
        """Go over to lines, once the parent has said so."""
        self.flush()
        self.number, self.style = number, style

    def _due(self) -> None:
        self._timer = None
        self.flush()

    def flush(self) -> None:
        """Send what has been gathered."""
        if not self._paused and self._waiting:
            events, self._waiting = self._waiting, []
            self._say("events" if self.style is None else "lines", events)

    def pauseProducing(self) -> None:
        """Keep events for later."""
        self._paused = True

    def resumeProducing(self) -> None:
        """Send what has waited, and tell of what was lost."""
        self._paused = False
        self.flush()
        if self._lost:
            lost, self._lost = self._lost, 0
            self.log.warn("{count} lines of the log were lost", count=lost)

    def stopProducing(self) -> None:
        """Keep events: nobody reads them any more."""
        self._paused = True


def pack(event: LogEvent) -> dict[str, Any] | None:
    """Make plain data of an event; None when it says nothing."""
    if isSocketNews(event):
        return None
    failure = event.get("log_failure")
    facts: dict[str, Any] = {
        "time": event["log_time"],
        "level": event["log_level"].name,
        "namespace": event.get("log_namespace", "-"),
    }
    if failure is not None:
        facts["traceback"] = failure.getTraceback()
    if isinstance(event.get("log_logger"), Logger):
        fields = {name: _plain(value) for name, value in event.items() if _isField(name)}
        return {**facts, "text": sentence(event), "fields": fields}
    text, system = formatEvent(event), event.get("log_system")
    facts |= {"text": text, "system": None if system is None else str(system)}
    return facts if text or failure is not None else None


def _isField(name: str) -> bool:
    return not name.startswith("log_") and name != "failure"


def _plain(value: object) -> Any:
    """Fields of our events are escaped already; what else there is, is written as text."""
    return value if isinstance(value, str | int | float | None) else str(value)


class _Reported(Exception):
    """Stands for an exception of another process."""


class _ReportedFailure(Failure):
    """A failure of another process: its traceback as that one has written it."""

    def __init__(self, traceback: str) -> None:
        super().__init__(_Reported(traceback.strip().rpartition("\n")[2]))
        self._text = traceback

    def getTraceback(self, *words: Any, **named: Any) -> str:
        """Give the text."""
        return self._text


def publish(number: int, facts: dict[str, Any]) -> None:
    """Let our own observers see a worker's event.

    :param number: of the worker.
    """
    event: LogEvent = {
        "log_time": facts["time"],
        "log_level": _level(facts["level"]),
        "log_namespace": facts["namespace"],
        "worker": number,
    }
    if "fields" in facts:
        # The sentence is not a format any more: a worker must not have us look anything up.
        text = facts["text"].replace("{", "{{").replace("}", "}}")
        fields = {name: value for name, value in facts["fields"].items() if _isField(name)}
        event |= {"log_format": text, "log_logger": _log, **fields}
    else:
        event |= {"log_format": "{text}", "text": facts["text"]}
        if facts["system"] is not None:
            event["log_system"] = facts["system"]
    if "traceback" in facts:
        event["log_failure"] = _ReportedFailure(facts["traceback"])
    globalLogPublisher(event)


def _level(name: str) -> NamedConstant:
    return LogLevel.lookupByName(name)
