"""One coroutine on a reactor: its end, its failure, and Control-C."""

import os
import signal
from collections.abc import Callable

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from mailproxy.cli.errand import Errand


class FakeReactor:
    """Runs what is to be called, until it is stopped or nothing is left to do.

    :ivar events: what happens while it runs, in turn.
    """

    def __init__(self, *events: Callable[[], object]) -> None:
        self.events = list(events)
        self.calls: list[Callable[[], object]] = []
        self.running = False

    def callWhenRunning(self, function: Callable[..., object], *arguments: object) -> None:
        """Note it."""
        self.calls.append(lambda: function(*arguments))

    callFromThread = callWhenRunning

    def stop(self) -> None:
        """End."""
        self.running = False

    def run(self, *, installSignalHandlers: bool) -> None:
        """Go on until stopped."""
        assert not installSignalHandlers
        self.running = True
        while self.running and (self.calls or self.events):
            (self.calls.pop(0) if self.calls else self.events.pop(0))()


class ErrandTests(SynchronousTestCase):
    """What comes of it."""

    def test_itsResultIsTheStatus(self) -> None:
        """At once, or later."""
        waiting: Deferred[int] = Deferred()

        async def begin() -> int:
            return await waiting

        self.assertEqual(Errand(FakeReactor(lambda: waiting.callback(7)), begin).run(), 7)

    def test_itsFailureIsRaised(self) -> None:
        """It's for the caller to word."""

        async def begin() -> int:
            raise ZeroDivisionError()

        self.assertRaises(ZeroDivisionError, Errand(FakeReactor(), begin).run)

    def test_aSignalCancelsAndWaits(self) -> None:
        """What is under way winds up first; the status names the signal."""
        for number in (signal.SIGINT, signal.SIGTERM):
            ended: list[str] = []
            windingUp: Deferred[None] = Deferred()

            async def begin(ended: list[str] = ended, last: Deferred[None] = windingUp) -> int:
                try:
                    await Deferred()
                except CancelledError:
                    await last
                    ended.append("wound up")
                return 0

            def send(number: int = number) -> None:
                os.kill(os.getpid(), number)

            def finish(last: Deferred[None] = windingUp, ended: list[str] = ended) -> None:
                self.assertEqual(ended, [])
                last.callback(None)

            status = Errand(FakeReactor(send, finish), begin).run()
            self.assertEqual((status, ended), (128 + number, ["wound up"]))

    def test_theSecondSignalIsNotCaught(self) -> None:
        """After the first one both do what they do where nobody cares."""
        handlers: set[object] = set()
        windingUp: Deferred[None] = Deferred()

        async def begin() -> int:
            try:
                await Deferred()
            except CancelledError:
                await windingUp
            return 0

        def look() -> None:
            handlers.update(signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM))
            windingUp.callback(None)

        Errand(FakeReactor(lambda: os.kill(os.getpid(), signal.SIGINT), look), begin).run()
        self.assertEqual(handlers, {signal.SIG_DFL})

    def test_theHandlersAreGivenBack(self) -> None:
        """Whatever the end."""
        before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]

        async def begin() -> int:
            return 0

        Errand(FakeReactor(), begin).run()
        after = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
        self.assertEqual(before, after)
