"""Redis as a source: its commands, its pool, and every way in which the server can fail."""

from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.error import ConnectError, ConnectingCancelledError
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mailproxy.config.storeurl import parseRedis
from mailproxy.errors import MappingError
from mailproxy.identity import redact
from mailproxy.mapping.interfaces import IMappingSource, IWritableMappingSource
from mailproxy.mapping.redis import LONGEST_PAUSE, RedisSettings, RedisSource
from tests.mapping.redisserver import RedisEndpoint, RedisServer
from tests.support import Network, Segments

ANN = "ann@example.org"


class RedisCase(SynchronousTestCase):
    """A source of two connections, five seconds' patience, and a server in memory."""

    url = "redis://localhost"
    segments = Segments.WHOLE

    def setUp(self) -> None:
        """Start nothing yet."""
        self.network, self.server = Network(self.segments), RedisServer()
        self.endpoint = RedisEndpoint(self.network, self.server)
        settings = RedisSettings(parseRedis(self.url), poolSize=2, timeout=5)
        self.source = RedisSource(self.endpoint, self.network, settings)

    def start(self) -> None:
        """Start the source; whatever happens, it ends without a trace."""
        self.source.startService()
        self.network.pump()
        self.addCleanup(self.assertEnds)

    def assertEnds(self) -> None:
        """It stops at once, with no connection and no timer left."""
        stopped: Deferred[Any] = self.source.stopService()
        self.network.pump()
        self.successResultOf(stopped)
        self.assertEqual(self.server.connections, [])
        self.assertEqual(self.network.getDelayedCalls(), [])

    def ask(self, identifier: str = ANN) -> Deferred[str | None]:
        """Put a question and let it travel."""
        answer = self.source.lookup(identifier)
        self.network.pump()
        return answer

    def why(self, answer: Deferred[Any]) -> str:
        """How it failed."""
        return str(self.failureResultOf(answer, MappingError).value)


class CommandTests(RedisCase):
    """What is said to the server."""

    url = "redis://ann%40x:p%40ss@localhost/3"

    def test_providesTheInterfaces(self) -> None:
        """It is a source that can be written to."""
        verifyObject(IMappingSource, self.source)
        verifyObject(IWritableMappingSource, self.source)

    def test_loginAndDatabaseComeFirst(self) -> None:
        """On each connection, and then a question that shows whether it serves."""
        self.start()
        self.assertEqual(self.server.said, [b"AUTH ann@x p@ss", b"SELECT 3", b"PING"] * 2)

    def test_threeCommands(self) -> None:
        """`GET`, `SET` and `DEL` of prefix and identifier."""
        self.start()
        del self.server.said[:]
        self.source.store(ANN, "new")
        self.network.pump()
        self.assertEqual(self.successResultOf(self.ask()), "new")
        removed = self.source.remove(ANN)
        self.network.pump()
        self.assertIs(self.successResultOf(removed), True)
        key = b"route:" + ANN.encode()
        self.assertEqual(
            self.server.said, [b"SET %b new" % key, b"GET " + key, b"GET " + key, b"DEL " + key]
        )

    def test_questionsTakeTurnsAtTheConnections(self) -> None:
        """Many at once are answered in their order, whatever connection they went over."""
        self.server.table.update({b"route:%d" % n: b"d%d" % n for n in range(50)})
        self.start()
        answers = [self.source.lookup(str(n)) for n in range(50)]
        self.network.pump()
        self.assertEqual(
            [self.successResultOf(each) for each in answers], [f"d{n}" for n in range(50)]
        )


class ByteTests(CommandTests):
    """The same, every byte in a segment of its own."""

    segments = Segments.BYTES


class AnswerTests(RedisCase):
    """What the server says."""

    def test_oddValues(self) -> None:
        """Empty is absent; digits and line ends are a name's; other bytes are a mistake."""
        self.start()
        for value, expected in ((b"", None), (b" ", None), (b"12", "12"), (b"new\r\n", "new")):
            self.server.table[b"route:" + ANN.encode()] = value
            self.assertEqual(self.successResultOf(self.ask()), expected)
        self.server.table[b"route:" + ANN.encode()] = b"\xff"
        self.assertIn("not UTF-8", self.why(self.ask()))

    def test_errorCannotTell(self) -> None:
        """It is passed on for the log, with the server's name and without the identifier."""
        self.start()
        self.server.answer = lambda words: b"-WRONGTYPE of " + words[1] + b"\r\n"
        text = self.why(self.ask("ann"))
        self.assertEqual(text, f"Redis at localhost port 6379: WRONGTYPE of route:{redact('ann')}")
        self.assertEqual(len(self.server.connections), 2)

    def test_cancelledQuestionKeepsItsPlaceInTheQueue(self) -> None:
        """Its answer is nobody's, and certainly not the next one's."""
        self.server.table.update({b"route:a": b"one", b"route:b": b"two"})
        self.start()
        self.server.silent = True
        first = [self.source.lookup("a") for _ in range(2)]
        for each in first:
            each.cancel()
            self.failureResultOf(each)
        self.server.silent = False
        second = [self.source.lookup("b") for _ in range(2)]
        self.network.pump()
        self.assertEqual([self.successResultOf(each) for each in second], ["two", "two"])


class FailureTests(RedisCase):
    """A server that is not there, or goes."""

    def test_startWithTheServerDown(self) -> None:
        """Lookups fail at once, saying why, until it is there: then they work by themselves."""
        self.endpoint.down = True
        self.start()
        self.assertIn("refused", self.why(self.ask()))
        self.endpoint.down = False
        self.network.advance(LONGEST_PAUSE)
        self.assertIsNone(self.successResultOf(self.ask()))

    def test_unforeseenErrorIsLoggedAndTriedAgain(self) -> None:
        """A connection is not given up for a mistake of ours, or of the endpoint's."""
        connect = self.endpoint.connect
        self.patch(self.endpoint, "connect", lambda factory: fail(ZeroDivisionError()))
        self.start()
        self.assertIn("ZeroDivisionError", self.why(self.ask()))
        self.patch(self.endpoint, "connect", connect)
        self.network.advance(LONGEST_PAUSE)
        self.assertIsNone(self.successResultOf(self.ask()))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)

    def test_endWhileItConnects(self) -> None:
        """An endpoint answers a cancellation in its own way; a stopped source tries no more."""
        for error in (CancelledError(), ConnectingCancelledError(None), ConnectError()):
            attempts: list[Deferred[Any]] = []

            def connect(factory: object, error: Exception = error, to: Any = attempts) -> Any:
                to.append(Deferred(lambda attempt: attempt.errback(error)))
                return to[-1]

            self.patch(self.endpoint, "connect", connect)
            self.source.startService()
            waiting = self.ask()
            self.assertEnds()
            self.why(waiting)
            self.assertEqual(len(attempts), 2)

    def test_attemptsBecomeRarer(self) -> None:
        """Down to one in two seconds for each connection."""
        self.endpoint.down = True
        self.start()
        for _ in range(1000):
            self.network.advance(0.1)
        self.assertGreater(self.endpoint.attempts, 2 * 100 / LONGEST_PAUSE * 0.9)
        self.assertLess(self.endpoint.attempts, 2 * (100 / LONGEST_PAUSE + 10))

    def test_lostConnectionCostsNoLookup(self) -> None:
        """The question is put again on the next connection, while there is time."""
        self.start()
        answers = [self.source.lookup(ANN) for _ in range(4)]
        self.server.silent = True
        self.network.pump()
        self.server.silent = False
        self.server.hangUp()
        self.network.pump()
        self.assertNoResult(answers[0])
        self.network.advance(0.2)
        self.assertEqual([self.successResultOf(each) for each in answers], [None] * 4)

    def test_lookupsDuringARestartWait(self) -> None:
        """Between a lost connection and the next attempt nobody knows that the server is down."""
        self.start()
        self.server.hangUp()
        self.network.pump()
        waiting = self.ask()
        self.assertNoResult(waiting)
        left = self.ask()
        left.cancel()
        self.failureResultOf(left)
        self.network.advance(0.2)
        self.assertIsNone(self.successResultOf(waiting))

    def test_serverThatHangsUpOnEveryQuestion(self) -> None:
        """It is not asked for ever."""

        def answer(words: list[bytes]) -> bytes | None:
            if words[0] == b"GET":
                self.server.hangUp()
                return b""
            return None

        self.server.answer = answer
        self.start()
        waiting = self.ask()
        for _ in range(60):
            self.network.advance(0.1)
        self.why(waiting)
        self.assertLess(len(self.server.commands(b"GET")), 120)

    def test_stoppedSourceCannotTell(self) -> None:
        """Nor does one that was never started; those who wait hear of it."""
        self.assertIn("not connected", self.why(self.ask()))
        self.source.startService()
        self.network.pump()
        self.server.hangUp()
        self.network.pump()
        waiting = self.ask()
        self.assertEnds()
        self.why(waiting)


class HangingTests(RedisCase):
    """A server that accepts connections and does not answer."""

    def test_lookupEndsInTime(self) -> None:
        """Later ones fail at once, until it answers again."""
        self.start()
        self.server.silent = True
        waiting = [self.ask() for _ in range(5)]
        self.network.advance(4.9)
        self.assertNoResult(waiting[0])
        self.network.advance(0.2)
        for each in waiting:
            self.assertIn("no answer in time", self.why(each))
        self.assertIn("no answer in time", self.why(self.ask()))
        self.server.silent = False
        self.network.advance(10)
        self.network.advance(LONGEST_PAUSE)
        self.assertIsNone(self.successResultOf(self.ask()))

    def test_hangingConnectionsAreReplaced(self) -> None:
        """They may be dead without either side's knowledge."""
        self.start()
        former = list(self.server.connections)
        self.server.silent = True
        waiting = [self.ask() for _ in range(2)]
        self.network.advance(5)
        for each in waiting:
            self.why(each)
        self.server.silent = False
        self.network.advance(1)
        self.network.advance(10)
        self.assertEqual(set(former) & set(self.server.connections), set())

    def test_startWithAHangingServer(self) -> None:
        """A connection that cannot be got ready is given up like any."""
        self.server.silent = True
        self.start()
        waiting = self.ask()
        self.network.advance(5)
        self.assertIn("no answer in time", self.why(waiting))

    def test_writesAreBoundedToo(self) -> None:
        """Management does not wait for ever."""
        self.start()
        self.server.silent = True
        writing: list[Deferred[Any]] = [self.source.store(ANN, "new"), self.source.remove(ANN)]
        self.network.pump()
        self.network.advance(5)
        for each in writing:
            self.why(each)


class LoginTests(RedisCase):
    """A server that refuses the login, for a while."""

    url = "redis://:wrong@localhost"

    def test_refusalIsToldAndTriedAgain(self) -> None:
        """It does not end the attempts: passwords are corrected, data sets get loaded."""
        self.server.answer = lambda words: (
            b"-WRONGPASS invalid\r\n" if words[0] == b"AUTH" else None
        )
        self.start()
        self.assertIn("WRONGPASS invalid", self.why(self.ask()))
        self.server.answer = lambda words: b"-LOADING the data\r\n" if words[0] == b"PING" else None
        self.network.advance(LONGEST_PAUSE)
        self.assertIn("LOADING", self.why(self.ask()))
        self.server.answer = lambda words: None
        self.network.advance(LONGEST_PAUSE)
        self.assertIsNone(self.successResultOf(self.ask()))
        self.assertNotIn("wrong@", repr(self.source.__dict__))
