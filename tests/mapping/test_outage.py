"""What the log says of a store that fails: once that it does, once that it answers again."""

from typing import Any, cast

from twisted.logger import ILogObserver, LogLevel, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from mailproxy.mapping.outage import CALM, Outage


class OutageTests(SynchronousTestCase):
    """Times are given as a clock would."""

    def setUp(self) -> None:
        """Listen to the log."""
        self.events: list[dict[str, Any]] = []
        observer = cast(ILogObserver, self.events.append)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        self.outage = Outage()

    def said(self) -> list[tuple[object, str]]:
        """What was logged since the last time."""
        events, self.events[:] = list(self.events), []
        return [(event["log_level"], formatEvent(event)) for event in events]

    def test_oneWarningPerOutage(self) -> None:
        """A thousand failed lookups are one line, with the first one's reason."""
        for number in range(1000):
            self.outage.failed(10 + number / 100, f"reason {number}")
        [(level, text)] = self.said()
        self.assertIs(level, LogLevel.warn)
        self.assertTrue(text.endswith("reason 0"), text)

    def test_endIsSaidOnce(self) -> None:
        """With its length and what it cost."""
        for now in (10.0, 11.0, 12.0):
            self.outage.failed(now, "down")
        self.said()
        for now in (20.0, 20.1):
            self.outage.answered(now, now)
        [(level, text)] = self.said()
        self.assertIs(level, LogLevel.info)
        self.assertIn("after 10.0 s and 3 failed lookups", text)

    def test_nothingIsSaidWithoutAnOutage(self) -> None:
        """Answers are what is expected."""
        self.outage.answered(1.0, 1.0)
        self.assertEqual(self.said(), [])

    def test_answersInBetweenDoNotEndIt(self) -> None:
        """One put before the last failure says nothing about now, nor does one right after it."""
        self.outage.failed(10.0, "down")
        self.outage.answered(9.0, 10.5)
        self.outage.answered(10.0 + CALM / 2, 10.6)
        self.outage.failed(11.0, "down")
        self.outage.answered(10.0 + CALM, 11.1)
        self.assertEqual(len(self.said()), 1)

    def test_nextOutageIsSaidAgain(self) -> None:
        """Each has its warning."""
        for start in (10.0, 100.0):
            self.outage.failed(start, "down")
            self.outage.answered(start + CALM, start + CALM)
        self.assertEqual(len(self.said()), 4)
