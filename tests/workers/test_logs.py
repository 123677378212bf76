"""A worker's events are seen in its parent as they were."""

import json
from collections.abc import Callable
from functools import partial
from threading import Thread
from typing import Any, cast

from twisted.internet.task import Clock
from twisted.logger import (
    ILogObserver,
    LogEvent,
    LogLevel,
    formatEvent,
    formatEventAsClassicLogText,
    globalLogPublisher,
)
from twisted.logger import Logger as TwistedLogger
from twisted.python import log as legacy
from twisted.trial.unittest import SynchronousTestCase

from mailproxy.logformat import Style, asJSON, asText
from mailproxy.logs import Logger
from mailproxy.workers.logs import DELAY, MOST_WAITING, LogRelay, pack, publish


class RelayCase(SynchronousTestCase):
    """A relay between a worker's observers and the parent's.

    :ivar sent: what went over the wire.
    :ivar events: what the parent's observers have seen.
    """

    def setUp(self) -> None:
        """Watch."""
        self.patch(Logger, "level", LogLevel.debug)
        self.sent: list[Any] = []
        self.events: list[LogEvent] = []
        self.clock = Clock()
        self.soon: list[Callable[[], None]] = []
        self.relay = self.makeRelay(lambda topic, events: self.sent.extend(events))

    def makeRelay(self, say: Callable[[str, Any], None]) -> LogRelay:
        """Make one; what other threads log is done when the test says so."""
        return LogRelay(
            say, cast(Any, self.clock), lambda call, event: self.soon.append(partial(call, event))
        )

    def carry(self, event: LogEvent) -> LogEvent:
        """Send an event through."""
        self.relay(event)
        self.relay.flush()
        return self.receive()

    def receive(self) -> LogEvent:
        """Let the parent publish what was sent last."""
        observer = cast(ILogObserver, self.events.append)
        globalLogPublisher.addObserver(observer)
        try:
            publish(2, json.loads(json.dumps(self.sent[-1])))
        finally:
            globalLogPublisher.removeObserver(observer)
        return self.events[-1]

    def emitted(self, logger: TwistedLogger, *words: Any, **fields: Any) -> LogEvent:
        """The event that a logger makes."""
        events: list[LogEvent] = []
        logger.observer = cast(ILogObserver, events.append)
        logger.emit(*words, **fields)
        return events[0]


class EventTests(RelayCase):
    """One event."""

    def test_textAndFieldsAreTheSame(self) -> None:
        """In both forms; JSON also says which worker it was."""
        logger = Logger(namespace="mailproxy.session.Session")
        event = self.emitted(logger, LogLevel.info, "{a} of {b}", a="x\ny", b=7, c=None)
        found = self.carry(event)
        self.assertEqual(formatEventAsClassicLogText(found), formatEventAsClassicLogText(event))
        before, after = json.loads(asJSON(event) or ""), json.loads(asJSON(found) or "")
        self.assertEqual(after, {**before, "worker": 2})
        self.assertIn("x\\ny", after["message"])

    def test_othersEvents(self) -> None:
        """Twisted's own are written as text, under the name that they had."""
        found = self.carry(self.emitted(TwistedLogger("twisted.x"), LogLevel.warn, "{a}", a=object))
        self.assertIn("[twisted.x#warn] <class 'object'>", formatEventAsClassicLogText(found) or "")
        self.events.clear()
        legacy.addObserver(lambda event: None)
        events: list[LogEvent] = []
        observer = cast(ILogObserver, events.append)
        globalLogPublisher.addObserver(observer)
        legacy.msg("old style", system="-")
        globalLogPublisher.removeObserver(observer)
        line = formatEventAsClassicLogText(self.carry(events[0])) or ""
        self.assertIn("[-] old style", line)

    def test_tracebacksAreCarried(self) -> None:
        """A bug in a worker is as visible as one of the parent's."""
        try:
            raise ZeroDivisionError("oops")
        except ZeroDivisionError:
            events: list[LogEvent] = []
            logger = Logger(namespace="n", observer=cast(ILogObserver, events.append))
            logger.failure("it broke")
        found = self.carry(events[0])
        self.assertEqual(len(self.flushLoggedErrors()), 1)
        text = formatEventAsClassicLogText(found) or ""
        self.assertIn("it broke", text)
        self.assertIn("ZeroDivisionError: oops", text)
        self.assertIn("test_logs.py", text)
        self.assertIn("oops", json.loads(asJSON(found) or "")["traceback"])

    def test_nothingToSay(self) -> None:
        """An event without a text is none."""
        self.relay({"log_time": 0.0, "log_level": LogLevel.info, "log_format": None})
        self.relay.flush()
        self.assertEqual(self.sent, [])

    def test_workerCannotForge(self) -> None:
        """A field that would steer the parent's observers is left out."""
        facts = pack(self.emitted(Logger(namespace="n"), LogLevel.info, "{a}", a=1))
        assert facts is not None
        facts["fields"]["log_level"] = "critical"
        publish(1, facts)
        self.relay(self.emitted(Logger(namespace="n"), LogLevel.info, "x"))
        self.relay.flush()
        self.sent[-1]["fields"]["log_failure"] = "x"
        self.assertNotIn("log_failure", self.receive())

    def test_braces(self) -> None:
        """The sentence is made in the worker; in the parent it is no format any more."""
        event = self.emitted(Logger(namespace="n"), LogLevel.info, "{a!r} {{", a="{log_logger}")
        found = self.carry(event)
        for write in (formatEvent, asText, asJSON):
            self.assertIn("'{log_logger}' {", write(found) or "")


class PressureTests(RelayCase):
    """A parent that does not keep up."""

    def say(self, count: int) -> None:
        """Log so many lines."""
        logger = Logger(namespace="n", observer=cast(ILogObserver, self.relay))
        for number in range(count):
            logger.info("{number}", number=number)

    def test_linesAreGathered(self) -> None:
        """For a moment: then they go together."""
        self.say(2)
        self.assertEqual(self.sent, [])
        self.clock.advance(DELAY)
        self.say(1)
        self.assertEqual(len(self.sent), 2)
        self.clock.advance(DELAY)
        self.assertEqual([facts["fields"]["number"] for facts in self.sent], [0, 1, 0])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_otherThreadsLeaveItToTheReactors(self) -> None:
        """Timers are for that thread alone: one that is set in another may be lost, and the log."""
        thread = Thread(target=self.say, args=(2,))
        thread.start()
        thread.join()
        self.assertEqual((self.sent, self.clock.getDelayedCalls()), ([], []))
        for call in self.soon:
            call()
        self.clock.advance(DELAY)
        self.assertEqual([facts["fields"]["number"] for facts in self.sent], [0, 1])

    def test_linesWait(self) -> None:
        """And leave in their order."""
        self.relay.pauseProducing()
        self.say(3)
        self.clock.advance(DELAY)
        self.assertEqual(self.sent, [])
        self.relay.resumeProducing()
        self.assertEqual([facts["fields"]["number"] for facts in self.sent], [0, 1, 2])

    def test_tooManyAreCountedAndLost(self) -> None:
        """Memory is not the log's."""
        self.patch(LogRelay, "log", Logger(namespace="n", observer=cast(ILogObserver, self.relay)))
        self.relay.pauseProducing()
        self.say(MOST_WAITING + 5)
        self.relay.resumeProducing()
        self.clock.advance(DELAY)
        self.assertEqual(len(self.sent), MOST_WAITING + 1)
        self.assertEqual(self.sent[-1]["fields"]["count"], 5)

    def test_parentThatIsGone(self) -> None:
        """Nobody is told any more."""
        self.relay.stopProducing()
        self.say(1)
        self.clock.advance(DELAY)
        self.assertEqual(self.sent, [])


class LineTests(RelayCase):
    """Lines that a worker makes itself, since its parent would make the same."""

    def setUp(self) -> None:
        """Note the topics, too."""
        super().setUp()
        self.said: list[tuple[str, Any]] = []
        self.relay = self.makeRelay(lambda *words: self.said.append(words))
        logger = Logger(namespace="n")
        self.event = self.emitted(logger, LogLevel.info, "{a} of {b}", a="x", b=7)

    def lines(self, style: Style) -> str:
        """What is sent of the event."""
        self.relay.write(2, style)
        self.relay(self.event)
        self.relay.flush()
        topic, lines = self.said[-1]
        self.assertEqual(topic, "lines")
        return "".join(lines)

    def test_asTheParentWould(self) -> None:
        """In both styles; JSON says which worker it was."""
        self.assertEqual(self.lines(Style.TEXT), asText(self.event))
        expected = {**json.loads(asJSON(self.event) or ""), "worker": 2}
        self.assertEqual(json.loads(self.lines(Style.JSON)), expected)

    def test_whatWasGatheredBefore(self) -> None:
        """Is sent as what it is."""
        self.relay(self.event)
        self.relay.write(2, Style.TEXT)
        self.assertEqual([topic for topic, _ in self.said], ["events"])
