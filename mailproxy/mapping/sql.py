"""An SQL database as a source: three statements of the operator's, run in adbapi's threads.

`SQLSource` knows the statements and bounds every wait; `Pool` is adbapi's, with connections that
are replaced when they break. Knows no database: see `drivers`.
"""

from collections.abc import Callable
from contextlib import suppress
from threading import Lock
from typing import Any, Generic, TypeVar

import attrs
from twisted.application.service import Service
from twisted.enterprise.adbapi import ConnectionPool
from twisted.internet.defer import Deferred, DeferredList, fail
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from zope.interface import implementer

from mailproxy.errors import MappingError, ReadOnlyMapping
from mailproxy.mapping.answers import asDestination, oneLine, reason
from mailproxy.mapping.drivers import Connection, Driver
from mailproxy.mapping.interfaces import IWritableMappingSource

__all__ = ["Pool", "SQLSource", "Statements"]

T = TypeVar("T")

_REST = 0.5
"""Seconds after a failed attempt to connect in which no thread makes another: a database that is
overloaded, or refuses us, need not refuse every login by itself."""


@attrs.frozen
class Statements:
    """What is asked: the lookup and, where the store may be written to, both ways to change it."""

    query: str
    upsert: str | None = None
    delete: str | None = None


class _Lease:
    """What adbapi holds while a piece of work runs: every statement commits by itself."""

    def __init__(self, pool: "Pool") -> None:
        self.pool = pool

    def commit(self) -> None:
        """Nothing to do."""

    def rollback(self) -> None:
        """Nothing to do."""


class Pool(ConnectionPool):
    """adbapi's threads, each with one connection of a driver's."""

    connectionFactory = _Lease  # type: ignore[assignment]  # whatever has its two methods

    def __init__(self, driver: Driver, size: int, reactor: Any) -> None:
        super().__init__(driver.module, cp_min=0, cp_max=size, cp_reactor=reactor)
        self._driver, self._clock = driver, IReactorTime(reactor)
        self._refused: tuple[float, str] | None = None

    def connect(self) -> Connection:
        """Return the calling thread's connection; open it if there is none.

        :raises MappingError: when none could be opened a moment ago.
        """
        thread = self.threadID()
        connection = self.connections.get(thread)
        if connection is None:
            connection = self.connections[thread] = self._open()
        return connection

    def _open(self) -> Connection:
        refused = self._refused
        if refused is not None and self._clock.seconds() < refused[0] + _REST:
            raise MappingError(refused[1])
        try:
            connection = self._driver.connect()
        except self._driver.errors as error:
            self._refused = self._clock.seconds(), oneLine(error)
            raise
        self._refused = None
        return connection

    def discard(self) -> None:
        """Forget the calling thread's connection, which is of no use any more."""
        connection = self.connections.pop(self.threadID())
        with suppress(Exception):  # how it ends does not matter
            connection.close()


class Job(Generic[T]):
    """One piece of work for a thread, which may be given up from outside.

    A connection that breaks is replaced and the work done again, so it must bear that.
    """

    def __init__(self, driver: Driver, work: Callable[[Connection], T]) -> None:
        self._driver, self._work = driver, work
        self._lock = Lock()
        self._connection: Connection = None
        self._givenUp = False

    def run(self, lease: _Lease) -> T:
        """Do the work in the calling thread."""
        for mayRepeat in (True, False):
            connection = self._connect(lease)
            try:
                return self._attempt(connection)
            except self._driver.errors as error:
                isBroken = self._driver.isBroken(connection, error)
                if isBroken:
                    lease.pool.discard()
                if not isBroken or not mayRepeat:
                    raise
        raise AssertionError("the second attempt has returned or raised")

    def skip(self) -> None:
        """Do not begin, if it has not begun."""
        self._givenUp = True

    def giveUp(self) -> None:
        """Do not begin, and end what has."""
        with self._lock:
            self._givenUp = True
            if self._connection is not None:
                self._driver.sever(self._connection)

    def _connect(self, lease: _Lease) -> Connection:
        """Take the thread's connection, unless nobody wants it any more."""
        if self._givenUp:
            raise MappingError("given up")
        return lease.pool.connect()

    def _attempt(self, connection: Connection) -> T:
        self._hold(connection)
        try:
            return self._work(connection)
        finally:
            self._hold(None)

    def _hold(self, connection: Connection) -> None:
        """Say what to sever; from here on nobody gives up unseen."""
        with self._lock:
            if self._givenUp and connection is not None:
                raise MappingError("given up")
            self._connection = connection


@implementer(IWritableMappingSource)
class SQLSource(Service):
    """Mappings in a database.

    :param timeout: seconds that an answer may take, the wait for a thread included.
    """

    def __init__(
        self,
        driver: Driver,
        statements: Statements,
        reactor: Any,
        poolSize: int = 16,
        timeout: float = 5.0,
    ) -> None:
        self._driver, self._statements = driver, statements
        self._reactor, self._clock = reactor, IReactorTime(reactor)
        self._poolSize = min(poolSize, driver.mostConnections or poolSize)
        self._timeout = timeout
        self._pool: Pool | None = None
        self._running: dict[Job[Any], Deferred[Any]] = {}

    def startService(self) -> None:
        """Get the threads ready; connections are opened as they are needed."""
        super().startService()
        self._pool = Pool(self._driver, self._poolSize, self._reactor)

    def stopService(self) -> Deferred[None]:
        """Give up what is under way and close all connections."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        pool, self._pool = self._pool, None
        for job in self._running:
            job.giveUp()
        await DeferredList(list(self._running.values()))
        if pool is not None:
            pool.close()

    def lookup(self, identifier: str) -> Deferred[str | None]:
        """Find the destination of an identifier: the first row's first column."""
        return self._perform(identifier, lambda connection: self._find(connection, identifier))

    def store(self, identifier: str, destination: str) -> Deferred[None]:
        """Map an identifier."""
        statement = self._statements.upsert
        if statement is None or self._statements.delete is None:
            return fail(ReadOnlyMapping("upsert_query and delete_query are not both configured"))

        def work(connection: Connection) -> None:
            self._driver.execute(connection, statement, (identifier, destination))

        return self._perform(identifier, work)

    def remove(self, identifier: str) -> Deferred[bool]:
        """Forget an identifier; it is looked up first, to know whether it was mapped."""
        statement = self._statements.delete
        if statement is None or self._statements.upsert is None:
            return fail(ReadOnlyMapping("upsert_query and delete_query are not both configured"))
        seen: set[str] = set()  # outlives a connection that breaks in between

        def work(connection: Connection) -> bool:
            former = self._find(connection, identifier)
            seen.update([former] if former is not None else [])
            self._driver.execute(connection, statement, (identifier,))
            return bool(seen)

        return self._perform(identifier, work)

    def _find(self, connection: Connection, identifier: str) -> str | None:
        return asDestination(
            self._driver.execute(connection, self._statements.query, (identifier,))
        )

    def _perform(self, identifier: str, work: Callable[[Connection], T]) -> Deferred[T]:
        """Have a thread do some work; its answer comes in time or is a `MappingError`."""
        if self._pool is None:
            return fail(MappingError(f"{self._driver.name}: not connected"))
        job = Job(self._driver, work)
        answer: Deferred[T] = Deferred(lambda _: job.skip())
        limit = self._clock.callLater(self._timeout, self._expire, job, answer)
        done = self._pool.runWithConnection(job.run)

        def finish(result: T | Failure) -> None:
            del self._running[job]
            if limit.active():
                limit.cancel()
            if not answer.called:
                answer.callback(result)

        self._running[job] = done.addBoth(finish)
        return answer.addErrback(self._translate, identifier)

    def _expire(self, job: Job[Any], answer: Deferred[Any]) -> None:
        job.giveUp()
        if not answer.called:
            answer.errback(MappingError("no answer in time"))

    def _translate(self, failure: Failure, identifier: str) -> Failure:
        """Turn the driver's errors into ours; what is not one of them is our own mistake."""
        failure.trap(MappingError, *self._driver.errors)
        assert failure.value is not None, "it was trapped"
        text = oneLine(failure.value)
        return Failure(MappingError(reason(self._driver.name, text, identifier)))
