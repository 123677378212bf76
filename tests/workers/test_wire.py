"""Questions, answers and errors between two processes, carried whole."""

from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.protocols import amp
from twisted.trial.unittest import SynchronousTestCase

from mailproxy.errors import (
    ConfigError,
    InvalidIdentifier,
    MappingError,
    PeerGone,
    UnknownDestination,
)
from mailproxy.workers.wire import PIECE, Hand, Peer
from tests.support import Network


class WireCase(SynchronousTestCase):
    """A parent and a worker.

    :ivar heard: what the parent was told.
    :ivar ends: how often an end was told of the other's end.
    """

    def setUp(self) -> None:
        """Connect them."""
        self.network = Network()
        self.heard: list[Any] = []
        self.taken: list[object] = []
        self.ends = 0
        self.waiting: Deferred[Any] = Deferred()
        methods: dict[str, Callable[..., Any]] = {
            "echo": lambda *words: list(words),
            "wait": lambda: self.waiting,
            "fail": self.fail_,
        }
        self.parent = Peer({}, {"news": self.heard.append}, self.ended)
        self.worker = Peer(methods, {}, self.ended, self.take)
        self.error: Exception = RuntimeError()
        self.network.connect(self.worker, self.parent)

    def ended(self) -> None:
        """Count."""
        self.ends += 1

    def take(self, value: object) -> str:
        """Keep what is handed over."""
        self.taken.append(value)
        return "taken"

    def fail_(self) -> None:
        """Fail as the test says."""
        raise self.error

    def result(self, asked: Deferred[Any]) -> Any:
        """The answer."""
        self.network.pump()
        return self.successResultOf(asked)


class CarryTests(WireCase):
    """What is carried."""

    def test_argumentsAndAnswers(self) -> None:
        """Anything that JSON can say."""
        words = ["a", 1, None, {"ß": [1.5, True]}]
        self.assertEqual(self.result(self.parent.ask("echo", *words)), words)

    @given(st.integers(-2, 2), st.integers(0, 3))
    def test_ofAnyLength(self, more: int, pieces: int) -> None:
        """Longer than one value of AMP's, and just as long."""
        text = "x" * max(0, pieces * PIECE + more)
        self.assertEqual(self.result(self.parent.ask("echo", text)), [text])

    def test_manyQuestionsAtOnce(self) -> None:
        """Each gets its own answer, whenever it comes."""
        late = self.parent.ask("wait")
        self.assertEqual(self.result(self.parent.ask("echo", 1)), [1])
        self.assertNoResult(late)
        self.waiting.callback("done")
        self.assertEqual(self.result(late), "done")

    def test_whatIsSaid(self) -> None:
        """Needs no answer; after the other's end it is lost."""
        self.worker.say("news", {"a": 1})
        self.network.pump()
        self.assertEqual(self.heard, [{"a": 1}])
        self.parent.transport.abortConnection()  # type: ignore[union-attr]
        self.network.pump()
        self.worker.say("news", 2)


class ErrorTests(WireCase):
    """What goes wrong."""

    def test_errorsArriveAsTheyWere(self) -> None:
        """With their texts."""
        for error in (
            InvalidIdentifier("empty"),
            MappingError("no"),
            UnknownDestination("x"),
            ConfigError(["a: 1", "b: 2"]),
        ):
            self.error = error
            asked = self.parent.ask("fail")
            self.network.pump()
            found = self.failureResultOf(asked, type(error)).value
            self.assertEqual(str(found), str(error))

    def test_linesOfAnyNumber(self) -> None:
        """A file with many mistakes is told of whole."""
        self.error = ConfigError([f"accounts:{number}: bad" for number in range(20_000)])
        asked = self.parent.ask("fail")
        self.network.pump()
        found = self.failureResultOf(asked, ConfigError).value
        self.assertEqual(found.problems, self.error.problems)

    def test_bugIsLoggedWhereItIs(self) -> None:
        """The other side learns its kind, and no more: its text may hold anything."""
        self.error = ZeroDivisionError("secret")
        asked = self.parent.ask("fail")
        self.network.pump()
        error = self.failureResultOf(asked, RuntimeError).value
        self.assertNotIn("secret", str(error))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_unknownQuestion(self) -> None:
        """Is a bug, not an end."""
        asked = self.parent.ask("nonsense")
        self.network.pump()
        self.failureResultOf(asked, RuntimeError)
        self.flushLoggedErrors(KeyError)
        self.assertEqual(self.result(self.parent.ask("echo")), [])

    def test_theOthersEnd(self) -> None:
        """Fails what is asked, then and later; our side is told once."""
        early = self.parent.ask("wait")
        self.network.pump()
        self.worker.transport.abortConnection()  # type: ignore[union-attr]
        self.network.pump()
        self.failureResultOf(early, PeerGone)
        self.failureResultOf(self.parent.ask("echo"), PeerGone)
        self.assertEqual(self.ends, 2)


class TrustTests(WireCase):
    """A worker reads what strangers send; its parent does not trust it that far."""

    def test_parentHandsObjects(self) -> None:
        """Down they go."""
        self.assertEqual(self.result(self.parent.hand({1: b"x"})), "taken")
        self.assertEqual(self.taken, [{1: b"x"}])

    def test_workerHandsNothing(self) -> None:
        """What would be unpickled is not even looked at."""
        asked = self.worker.hand("evil")
        self.network.pump()
        self.failureResultOf(asked, amp.UnhandledCommand)
        self.assertIsNone(self.parent.locateResponder(Hand.commandName))
