"""The logger: what is important enough, and nothing else."""

from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st
from twisted.logger import ILogObserver, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from mailproxy.logs import Logger, LogLevel, escaped

LEVELS = (LogLevel.debug, LogLevel.info, LogLevel.warn, LogLevel.error, LogLevel.critical)


class Speaker:
    """Something of ours that logs."""

    log = Logger()


class LogCase(SynchronousTestCase):
    """Tests of what is emitted."""

    def setUp(self) -> None:
        """Collect what is emitted."""
        self.events: list[dict[str, Any]] = []
        observer = cast(ILogObserver, self.events.append)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)


class LoggerTests(LogCase):
    """One level holds for every logger of the process."""

    def speak(self) -> list[str]:
        """Log at each level; tell which came through."""
        self.events.clear()
        for level in LEVELS:
            getattr(Speaker().log, level.name)("{word}", word=level.name)
        return [event["word"] for event in self.events if "word" in event]

    def test_lessImportantEventsAreDropped(self) -> None:
        """Those below the level; those at it and above come through."""
        for lowest, level in enumerate(LEVELS):
            self.patch(Logger, "level", level)
            self.assertEqual(self.speak(), [each.name for each in LEVELS[lowest:]])

    def test_theUsualLevelIsInfo(self) -> None:
        """Without a word from the operator, debug is left out."""
        self.assertIs(Logger.level, LogLevel.info)

    def test_anEventNamesItsSource(self) -> None:
        """The class that logs, and the object it was asked of."""
        speaker = Speaker()
        speaker.log.warn("look")
        (event,) = self.events
        self.assertEqual(event["log_namespace"], f"{__name__}.Speaker")
        self.assertIs(event["log_source"], speaker)

    def test_aBugIsLoggedAtEveryLevel(self) -> None:
        """With its traceback, whatever the operator's level is."""
        self.patch(Logger, "level", LogLevel.critical)
        try:
            raise ValueError("a bug")
        except ValueError:
            Speaker().log.failure("met a bug")
        (event,) = self.events
        self.assertIs(event["log_level"], LogLevel.critical)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_nothingIsMadeOfADroppedEvent(self) -> None:
        """Its fields are not even looked at."""
        Speaker().log.debug("{field}", field=Untouchable())
        self.assertEqual(self.events, [])


class EscapeTests(LogCase):
    """What comes off the wire is written in printable characters."""

    def test_noValueReachesAnObserverRaw(self) -> None:
        """Text, bytes and errors; what is no text stays what it is."""
        Speaker().log.warn(
            "{a} {b} {c} {d}", a="x\r\n2026 [fake#info]", b=b"\x00\n", c=ValueError("\x1b[2J"), d=7
        )
        (event,) = self.events
        self.assertEqual(formatEvent(event), "x\\r\\n2026 [fake#info] b'\\x00\\n' \\x1b[2J 7")
        self.assertEqual(event["d"], 7)

    def test_printableTextStaysAsItIs(self) -> None:
        """In any script; what turns the writing around or has no place in UTF-8 does not."""
        self.assertEqual(escaped("Grüße, 世界 \\ '\""), "Grüße, 世界 \\ '\"")
        self.assertEqual(escaped("a\u202eb\udcff\U000e0001"), "a\\u202eb\\udcff\\U000e0001")

    @given(st.text())
    def test_anyTextIsOneLine(self, text: str) -> None:
        """Whatever it holds, it is printable afterwards."""
        self.assertTrue(escaped(text).isprintable())


class Untouchable:
    """Fails when it is written."""

    def __repr__(self) -> str:
        """Fail."""
        raise AssertionError("written")

    __str__ = __repr__
