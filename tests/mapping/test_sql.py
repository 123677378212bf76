"""An SQL database as a source: threads, limits and broken connections, with a driver of our own."""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase
from zope.interface.verify import verifyObject

from mailproxy.errors import MappingError, ReadOnlyMapping
from mailproxy.identity import redact
from mailproxy.mapping.interfaces import IMappingSource, IWritableMappingSource
from mailproxy.mapping.sql import SQLSource, Statements

ANN = "ann@example.org"
LONG = 10.0
"""Seconds that nothing here should take."""


class DatabaseError(Exception):
    """What the driver below raises."""


class FakeConnection:
    """One connection: `broken` from when it raised such an error, `severed` by another thread."""

    def __init__(self) -> None:
        self.broken = self.closed = False
        self.severed = threading.Event()

    def close(self) -> None:
        """Note it; a broken one complains."""
        self.closed = True
        if self.broken:
            raise DatabaseError("already closed")


class FakeDriver:
    """A driver whose database is a function.

    :ivar answer: called in a thread for each statement.
    :ivar refuses: whether there is no connecting.
    """

    name = "Fake at nowhere"
    module = "sqlite3"
    errors: tuple[type[Exception], ...] = (DatabaseError,)
    mostConnections: int | None = None

    def __init__(self, answer: Callable[[FakeConnection, str], object]) -> None:
        self.answer = answer
        self.refuses = False
        self.attempts = 0
        self.connections: list[FakeConnection] = []
        self.statements: list[tuple[str, tuple[str, ...]]] = []

    def connect(self) -> FakeConnection:
        """Open one."""
        self.attempts += 1
        if self.refuses:
            raise DatabaseError("connection refused")
        self.connections.append(FakeConnection())
        return self.connections[-1]

    def execute(self, connection: FakeConnection, statement: str, values: Sequence[str]) -> object:
        """Note the statement and ask the function."""
        self.statements.append((statement, tuple(values)))
        return self.answer(connection, statement)

    def isBroken(self, connection: FakeConnection, error: Exception) -> bool:
        """As the function has decided."""
        return connection.broken

    def sever(self, connection: FakeConnection) -> None:
        """Wake who waits."""
        connection.severed.set()


def hang(connection: FakeConnection, statement: str) -> object:
    """Wait for ever, which is until the connection is severed."""
    if not connection.severed.wait(LONG):
        raise AssertionError("nobody has severed the connection")
    connection.broken = True
    raise DatabaseError("the connection was cut")


class SQLCase(TestCase):
    """Real threads and a fake database."""

    statements = Statements("find", "put", "drop")

    def begin(
        self,
        answer: Callable[[FakeConnection, str], object],
        *,
        size: int = 4,
        timeout: float = LONG,
        statements: Statements | None = None,
    ) -> SQLSource:
        """Start a source, to be stopped when the test is over."""
        self.driver = FakeDriver(answer)
        source = SQLSource(self.driver, statements or self.statements, reactor, size, timeout)
        source.startService()
        self.addCleanup(source.stopService)
        return source

    async def why(self, answer: Deferred[Any]) -> str:
        """How it failed."""
        return str(await self.assertFailure(answer, MappingError))


class StatementTests(SQLCase):
    """What is asked of the database."""

    def test_providesTheInterfaces(self) -> None:
        """It is a source that can be written to."""
        source = self.begin(lambda connection, statement: None)
        verifyObject(IMappingSource, source)
        verifyObject(IWritableMappingSource, source)

    async def test_threeStatements(self) -> None:
        """Each with its values in the documented order; a removal looks first."""
        source = self.begin(lambda connection, statement: "new")
        self.assertEqual(await source.lookup(ANN), "new")
        await source.store(ANN, "new")
        self.assertIs(await source.remove(ANN), True)
        self.assertEqual(
            self.driver.statements,
            [("find", (ANN,)), ("put", (ANN, "new")), ("find", (ANN,)), ("drop", (ANN,))],
        )

    async def test_removingWhatIsAbsent(self) -> None:
        """An empty value was no mapping, but its row goes all the same."""
        source = self.begin(lambda connection, statement: " ")
        self.assertIs(await source.remove(ANN), False)
        self.assertEqual([each[0] for each in self.driver.statements], ["find", "drop"])

    async def test_readOnlyWithoutBothStatements(self) -> None:
        """Nothing is executed."""
        for given in (Statements("find"), Statements("find", "put"), Statements("find", None, "x")):
            source = self.begin(lambda connection, statement: None, statements=given)
            await self.assertFailure(source.store(ANN, "new"), ReadOnlyMapping)
            await self.assertFailure(source.remove(ANN), ReadOnlyMapping)
            self.assertEqual(self.driver.statements, [])

    async def test_errorCannotTell(self) -> None:
        """It is passed on for the log, without the identifier; the connection is kept."""

        def answer(connection: FakeConnection, statement: str) -> object:
            raise DatabaseError(1146, f"bad value {ANN!r}")

        source = self.begin(answer, size=1)
        for _ in range(2):
            text = await self.why(source.lookup(ANN))
            self.assertEqual(text, f"Fake at nowhere: 1146 bad value '{redact(ANN)}'")
        self.assertEqual(self.driver.attempts, 1)

    async def test_ourOwnMistakesAreNotHidden(self) -> None:
        """What is no database's error stays what it is."""
        source = self.begin(lambda connection, statement: 1 / 0)
        await self.assertFailure(source.lookup(ANN), ZeroDivisionError)

    async def test_stoppedSourceCannotTell(self) -> None:
        """Nor does one that was never started."""
        source = SQLSource(FakeDriver(hang), self.statements, reactor)
        self.assertIn("not connected", await self.why(source.lookup(ANN)))
        self.assertIn("not connected", await self.why(source.store(ANN, "new")))


class PoolTests(SQLCase):
    """Threads and connections."""

    async def test_noMoreConnectionsThanConfigured(self) -> None:
        """However many lookups there are; they are opened when needed, and closed at last."""

        def answer(connection: FakeConnection, statement: str) -> object:
            time.sleep(0.001)
            return "new"

        source = self.begin(answer, size=4)
        self.assertEqual(self.driver.connections, [])
        found = await gatherResults([source.lookup(str(n)) for n in range(100)])
        self.assertEqual(found, ["new"] * 100)
        self.assertTrue(1 <= self.driver.attempts <= 4, self.driver.attempts)
        await source.stopService()
        self.assertTrue(all(connection.closed for connection in self.driver.connections))

    async def test_driverMayAllowFewer(self) -> None:
        """A database in memory has one connection."""
        self.patch(FakeDriver, "mostConnections", 1)
        source = self.begin(lambda connection, statement: time.sleep(0.001))
        await gatherResults([source.lookup(str(n)) for n in range(50)])
        self.assertEqual(self.driver.attempts, 1)

    async def test_reactorGoesOnMeanwhile(self) -> None:
        """A slow database blocks threads, and nothing else."""
        go = threading.Event()
        source = self.begin(lambda connection, statement: go.wait(LONG) and "new")
        waiting = source.lookup(ANN)
        await deferLater(reactor, 0.01, lambda: None)
        self.assertNoResult(waiting)
        go.set()
        self.assertEqual(await waiting, "new")

    async def test_brokenConnectionLosesNoLookup(self) -> None:
        """It is closed, another is opened, and the statement is executed there."""

        def answer(connection: FakeConnection, statement: str) -> object:
            if connection is self.driver.connections[0]:
                connection.broken = True
                raise DatabaseError("gone")
            return "new"

        source = self.begin(answer, size=1)
        self.assertEqual(await source.lookup(ANN), "new")
        self.assertEqual([each.closed for each in self.driver.connections], [True, False])
        self.assertEqual(await source.lookup(ANN), "new")
        self.assertEqual(self.driver.attempts, 2)

    async def test_connectionThatBreaksAgainIsAFailure(self) -> None:
        """Once is an accident; the next lookup tries anew."""

        def answer(connection: FakeConnection, statement: str) -> object:
            connection.broken = True
            raise DatabaseError("gone")

        source = self.begin(answer, size=1)
        self.assertIn("gone", await self.why(source.lookup(ANN)))
        self.assertEqual(self.driver.attempts, 2)

    async def test_removalSurvivesABreakInBetween(self) -> None:
        """The row is gone by then, but the answer still is that there was one."""
        present = [True]

        def answer(connection: FakeConnection, statement: str) -> object:
            if statement == "drop" and present:
                present.clear()
                connection.broken = True
                raise DatabaseError("gone, but done")
            return "new" if present else None

        source = self.begin(answer, size=1)
        self.assertIs(await source.remove(ANN), True)

    async def test_refusedConnectionsAreNotTriedByEveryLookup(self) -> None:
        """A database that refuses one login is left alone for a moment by all the others."""
        source = self.begin(lambda connection, statement: "new")
        self.driver.refuses = True
        for number in range(50):
            self.assertIn("connection refused", await self.why(source.lookup(str(number))))
        self.assertLess(self.driver.attempts, 10)
        self.driver.refuses = False
        await deferLater(reactor, 0.6, lambda: None)
        self.assertEqual(await source.lookup(ANN), "new")


class LimitTests(SQLCase):
    """A database that does not answer."""

    async def test_lookupEndsInTime(self) -> None:
        """The connection under it is severed, so the thread is free again."""
        source = self.begin(hang, size=2, timeout=0.1)
        started = time.monotonic()
        waiting = [source.lookup(str(number)) for number in range(20)]
        for each in waiting:
            self.assertIn("no answer in time", await self.why(each))
        self.assertLess(time.monotonic() - started, 2)
        self.driver.answer = lambda connection, statement: "new"
        self.assertEqual(await source.lookup(ANN), "new")

    async def test_whatWaitedTooLongIsNotExecuted(self) -> None:
        """A queue of lookups that nobody waits for must not keep the next ones waiting."""
        source = self.begin(hang, size=1, timeout=0.1)
        waiting = [source.lookup(str(number)) for number in range(20)]
        for each in waiting:
            await self.why(each)
        self.driver.answer = lambda connection, statement: "new"
        await source.lookup(ANN)
        self.assertLess(len(self.driver.statements), 10)

    async def test_writesAreBoundedToo(self) -> None:
        """Management does not wait for ever."""
        source = self.begin(hang, timeout=0.1)
        await self.why(source.store(ANN, "new"))
        await self.why(source.remove(ANN))

    async def test_cancelledLookupIsNotBegun(self) -> None:
        """One that has begun goes on: there is nothing wrong with its connection."""
        go = threading.Event()
        source = self.begin(lambda connection, statement: go.wait(LONG) and "new", size=1)
        running, queued = source.lookup("a"), source.lookup("b")
        while not self.driver.statements:
            await deferLater(reactor, 0.001, lambda: None)
        for each in (running, queued):
            each.cancel()
            await self.assertFailure(each, CancelledError)
        go.set()
        self.assertEqual(await source.lookup("c"), "new")
        self.assertEqual([values for _, values in self.driver.statements], [("a",), ("c",)])
        self.assertFalse(self.driver.connections[0].severed.is_set())

    async def test_stopDoesNotWaitForAHangingDatabase(self) -> None:
        """What is under way is cut, and answered."""
        source = self.begin(hang, size=2)
        waiting = [source.lookup(str(number)) for number in range(5)]
        failures = [self.assertFailure(each, MappingError) for each in waiting]
        started = time.monotonic()
        await source.stopService()
        await gatherResults(failures)
        self.assertLess(time.monotonic() - started, LONG / 2)
