"""Log lines: what each holds, and where twistd's flags send them."""

import io
import json
import signal
import sys
import syslog
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

from twisted.logger import (
    FileLogObserver,
    ILogObserver,
    LogEvent,
    LogLevel,
    formatEventAsClassicLogText,
)
from twisted.logger import Logger as TwistedLogger
from twisted.python.logfile import LogFile
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mailproxy.logformat import (
    DEFAULT_FILE,
    SyslogObserver,
    asJSON,
    asText,
    jsonObserver,
    textObserver,
)
from mailproxy.logs import Logger
from mailproxy.workers.logs import pack


def emitted(write: Callable[[TwistedLogger], None], kind: type[TwistedLogger] = Logger) -> LogEvent:
    """The one event that a logger emits."""
    events: list[LogEvent] = []
    write(kind("mailproxy.some.Place", observer=events.append))  # type: ignore[arg-type]
    (event,) = events
    return event


def parsed(event: LogEvent) -> dict[str, Any]:
    """An event's line, read back."""
    line = asJSON(event)
    assert line is not None
    assert line.endswith("\n") and line.count("\n") == 1 and line.isascii(), line
    return dict(json.loads(line))


class LineTests(SynchronousTestCase):
    """One event, one line."""

    def test_nothingIsSaidTwice(self) -> None:
        """What is the whole message is no field beside it."""
        told = parsed(emitted(lambda log: log.warn("{text}", text="look at this")))
        self.assertEqual((told["message"], "text" in told), ("look at this", False))

    def test_twistedsNewsOfSocketsIsNoNews(self) -> None:
        """It names no worker, and a port that closes when it is another's turn reads as an outage.

        What goes wrong with one is told, and so is what only looks like such a line.
        """
        for text in (
            "IMAPServerFactory starting on 20993",
            "_Site (TLS) starting on 8443",
            "Factory starting on '/run/imap.sock'",
            "(TCP Port 20993 Closed)",
            "(TLS Port 11993 Closed)",
            "(UNIX Port '/run/imap.sock' Closed)",
        ):
            event = emitted(lambda log, text=text: log.info(text), TwistedLogger)  # type: ignore[misc]
            self.assertEqual((asText(event), asJSON(event), pack(event)), (None, None, None))
            for kind, level in ((Logger, "info"), (TwistedLogger, "warn")):
                told = emitted(lambda log, t=text, n=level: getattr(log, n)(t), kind)  # type: ignore[misc]
                self.assertIn(text, asText(told) or "")
                self.assertIn(text, parsed(told)["message"])
        other = emitted(lambda log: log.info("(a TCP Port Closed)"), TwistedLogger)
        self.assertIn("Closed", asText(other) or "")

    def test_textAndFields(self) -> None:
        """When, how important, who, the text; then the event's own fields by their names."""
        event = emitted(
            lambda log: log.warn("session {session}: {bytes}", session="s1", bytes=12, late=None)
        )
        event["log_time"] = 1700000000.1239
        self.assertEqual(
            parsed(event),
            {
                "time": "2023-11-14T22:13:20.123Z",
                "level": "warn",
                "system": "mailproxy.some.Place",
                "message": "session s1: 12",
                "session": "s1",
                "bytes": 12,
                "late": None,
            },
        )

    def test_whateverIsLoggedIsOneLine(self) -> None:
        """Line ends, other control characters and lone surrogates are escaped."""
        found = parsed(emitted(lambda log: log.info("{x} {y}", x='a\r\n"\x1b[2J\udcff', y="ä")))
        self.assertEqual(found["message"], "'a\\r\\n\"\\x1b[2J\\udcff ä".removeprefix("'"))
        self.assertEqual(found["x"], 'a\\r\\n"\\x1b[2J\\udcff')

    def test_objectsAreWrittenAsText(self) -> None:
        """A field that JSON has no word for is one text."""
        found = parsed(emitted(lambda log: log.info("x", where=Path("/a\nb"), many=("a", 1))))
        self.assertEqual((found["where"], found["many"]), ("/a\\nb", "('a', 1)"))

    def test_fieldsOfOthersStayOut(self) -> None:
        """Twisted's own events hold objects that are nobody's business; their text is enough."""
        event = emitted(lambda log: log.info("{a}", a="b"), TwistedLogger)
        self.assertEqual(set(parsed(event)), {"time", "level", "system", "message"})

    def test_aFieldTakesNobodysPlace(self) -> None:
        """Ours go by their names, whatever an event calls its own."""
        event = emitted(lambda log: log.info("said", message="x", time=1, system="y"))
        found = parsed(event)
        self.assertEqual((found["message"], found["system"]), ("said", "mailproxy.some.Place"))
        self.assertIsInstance(found["time"], str)

    def test_aBugHasItsTraceback(self) -> None:
        """In a field of its own, on the same line; no local variable is in it."""

        def fail(log: TwistedLogger) -> None:
            password = "hidden-" + "word"
            try:
                raise ValueError("bad", len(password))
            except ValueError:
                log.failure("met a bug")

        found = parsed(emitted(fail))
        self.assertEqual((found["level"], found["message"]), ("critical", "met a bug"))
        self.assertIn("ValueError: ('bad', 11)", found["traceback"])
        self.assertNotIn("hidden-word", json.dumps(found))

    def test_nothingToSayIsNoLine(self) -> None:
        """An event without a text is left out."""
        self.assertIsNone(asJSON({"log_time": 1.0, "log_level": LogLevel.info}))


class TextTests(SynchronousTestCase):
    """Lines of text."""

    def assertUsual(self, event: LogEvent) -> str:
        """The line is twistd's own; returns it, empty if there is none."""
        line = asText(event)
        self.assertEqual(line, formatEventAsClassicLogText(event))
        return "" if line is None else line

    def test_looksAsTwistdWritesIt(self) -> None:
        """Whoever emits it, whatever it holds: specifications, braces, several lines, nothing."""
        for kind in (Logger, TwistedLogger):
            for text in ("{who} took {seconds:.1f} s", "{{}} {who!r}", "{path}", "plain", ""):
                self.assertUsual(emitted(partial(self.say, text), kind))

    def say(self, text: str, log: TwistedLogger) -> None:
        """Emit a text that may hold these fields."""
        log.info(text, who="alice\r\nx", seconds=2.26, path=Path("/a\nb"))

    def test_everyEventHasItsOwnSecond(self) -> None:
        """Though many share one."""
        event = emitted(lambda log: log.info("x"))
        lines = []
        for moment in (1700000000.0, 1700000000.9, 1700000001.0, 1700000000.1):
            event["log_time"] = moment
            lines.append(self.assertUsual(event))
        self.assertEqual(lines[0], lines[1])
        self.assertNotEqual(lines[1], lines[2])

    def test_aMistakeIsToldAndTheLineIsWritten(self) -> None:
        """A field that is missing, or that cannot be written, costs no observer its life."""
        self.assertIn("Unable to format", asText(emitted(lambda log: log.info("{no}"))) or "")
        event = emitted(lambda log: log.info("{a:d}", a="x"))
        self.assertIn("Unable to format", asText(event) or "")

    def test_aBugHasItsTraceback(self) -> None:
        """On the lines behind it, moved in."""

        def fail(log: TwistedLogger) -> None:
            try:
                raise ValueError("bad")
            except ValueError:
                log.failure("met a bug")

        self.assertIn("\n\tbuiltins.ValueError: bad", self.assertUsual(emitted(fail)))


class PlaceTests(SynchronousTestCase):
    """Where the lines go."""

    def setUp(self) -> None:
        """Note what would be rotated, and touch no signal."""
        self.soon: list[Callable[[], None]] = []
        self.handlers: dict[int, Any] = {}
        self.patch(signal, "signal", self.handlers.__setitem__)
        self.patch(signal, "getsignal", self.handlers.get)

    def make(self, **flags: object) -> ILogObserver:
        """The observer for these flags of twistd's."""
        usual = {"syslog": False, "prefix": "twisted", "logfile": None, "nodaemon": False}
        observer = jsonObserver({**usual, **flags}, self.soon.append)
        verifyObject(ILogObserver, observer)
        return observer

    def test_standardOutput(self) -> None:
        """In the foreground, or without twistd; not the stream that logging replaces later."""
        out = io.StringIO()
        self.patch(sys, "stdout", out)
        for observer in (
            self.make(nodaemon=True),
            self.make(nodaemon=True, logfile="-"),
            jsonObserver({}, self.soon.append),
        ):
            out.truncate(0)
            observer(emitted(lambda log: log.info("hello")))
            self.assertIn('"message": "hello"', out.getvalue())

    def test_textGoesTheSameWay(self) -> None:
        """But the system's log of text, and what another logger makes, are twistd's own."""
        path = Path(self.mktemp())
        observer = cast(FileLogObserver, textObserver({"logfile": str(path)}, self.soon.append))
        self.addCleanup(observer._outFile.close)
        observer(emitted(lambda log: log.info("hello")))
        self.assertIn("[mailproxy.some.Place#info] hello\n", path.read_text())
        for flags in ({"syslog": True}, {"logger": "some.where"}):
            self.assertIsNone(textObserver(flags, self.soon.append))

    def test_daemonHasNoStandardOutput(self) -> None:
        """As twistd says itself."""
        self.assertRaises(SystemExit, self.make, logfile="-")

    def test_file(self) -> None:
        """By name, in the foreground too; else a daemon's usual one."""
        opened: list[str] = []
        make = LogFile.fromFullPath

        def note(name: str) -> Any:
            opened.append(name)
            return make(self.mktemp())

        self.patch(LogFile, "fromFullPath", note)
        for flags in ({"logfile": "a.log"}, {"logfile": "b.log", "nodaemon": True}, {}):
            observer = self.make(**flags)
            assert isinstance(observer, FileLogObserver)
            self.addCleanup(observer._outFile.close)
        self.assertEqual(opened, ["a.log", "b.log", DEFAULT_FILE])

    def test_fileIsRotatedOnRequest(self) -> None:
        """SIGUSR1 starts a new file, from within the reactor, unless somebody else has it."""
        path = Path(self.mktemp())
        observer = self.make(logfile=str(path))
        assert isinstance(observer, FileLogObserver)
        self.addCleanup(observer._outFile.close)
        observer(emitted(lambda log: log.info("before")))
        self.handlers[signal.SIGUSR1](signal.SIGUSR1, None)
        (rotate,) = self.soon
        rotate()
        observer(emitted(lambda log: log.info("after")))
        self.assertNotIn("before", path.read_text())
        self.assertIn("after", path.read_text())

        taken = self.handlers[signal.SIGUSR1]
        other = self.make(logfile=self.mktemp())
        assert isinstance(other, FileLogObserver)
        self.addCleanup(other._outFile.close)
        self.assertIs(self.handlers[signal.SIGUSR1], taken)

    def test_systemLog(self) -> None:
        """By the flags' prefix, each event with the priority of its level."""
        calls: list[tuple[Any, ...]] = []
        self.patch(syslog, "openlog", lambda *words: calls.append(words))
        self.patch(syslog, "syslog", lambda *words: calls.append(words))
        observer = self.make(syslog=True, prefix="mail")
        self.assertIsInstance(observer, SyslogObserver)
        observer(emitted(lambda log: log.info("fine")))
        observer(emitted(lambda log: log.error("bad")))
        observer({"log_time": 1.0, "log_level": LogLevel.info})
        self.assertEqual(calls.pop(0), ("mail",))
        self.assertEqual([number for number, _ in calls], [syslog.LOG_INFO, syslog.LOG_ERR])
        self.assertEqual([json.loads(text)["message"] for _, text in calls], ["fine", "bad"])
