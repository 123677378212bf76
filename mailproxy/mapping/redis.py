"""Redis as a source: `GET`, `SET` and `DEL` of one key per identifier, over a pool of connections.

`RedisPool` keeps the connections; `RedisSource` knows what keys and values mean. txredisapi speaks
the protocol; its own pool is not used: that gives up for good when the server refuses a password
or is still loading its data.
"""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import attrs
import txredisapi
from twisted.application.service import MultiService, Service
from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.error import ConnectError, ConnectingCancelledError
from twisted.internet.interfaces import IAddress, IReactorTime, IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure
from zope.interface import implementer

from mailproxy.config.storeurl import RedisPlace
from mailproxy.errors import MappingError
from mailproxy.logs import Logger
from mailproxy.mapping.answers import asDestination, oneLine, reason
from mailproxy.mapping.interfaces import IWritableMappingSource
from mailproxy.waiting import TimedOut, pause, within

__all__ = ["RedisPool", "RedisSettings", "RedisSource"]

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 2.0
"""Seconds between two attempts to connect; each pause is twice the one before it."""

_LATE = "no answer in time"

Describe = Callable[[Failure], str]
"""Says in one line why a connection ended."""


@attrs.frozen
class RedisSettings:
    """How a Redis server is used.

    :ivar timeout: seconds that a question, and getting a connection ready, may take.
    """

    place: RedisPlace
    prefix: str = "route:"
    poolSize: int = 16
    timeout: float = 5.0


class Lost(Exception):
    """A connection ended before it answered; says why."""


class RedisConnection(txredisapi.RedisProtocol):  # type: ignore[misc]  # it is not typed
    """One connection. Answers are bytes, numbers for what Redis counts, or None.

    :ivar ended: why it is lost; None while it is not.
    """

    def __init__(self, clock: IReactorTime, describe: Describe) -> None:
        super().__init__(charset=None, convertNumbers=False)
        self.callLater = clock.callLater  # txredisapi's own is the global reactor's
        self._clock, self._describe = clock, describe
        self.ended: str | None = None

    async def ask(self, seconds: float, words: tuple[bytes, ...]) -> Any:
        """Send a command and wait so long for its answer.

        :raises MappingError: when the server refuses it.
        :raises TimedOut: when it does not answer in time.
        :raises Lost: when the connection ends first.
        """
        try:
            return await within(self._clock, seconds, self._reply(words))
        except txredisapi.ResponseError as error:
            raise MappingError(oneLine(error)) from error
        except txredisapi.RedisError as error:
            raise Lost(self.ended or oneLine(error)) from error

    async def _reply(self, words: tuple[bytes, ...]) -> Any:
        return await self.execute_command(*words)

    def connectionLost(self, why: Failure) -> None:
        """Keep the reason."""
        self.ended = self._describe(why)
        super().connectionLost(why)

    async def close(self) -> None:
        """End it at once, whatever is on its way."""
        if self.ended is None:
            gone = self.whenDisconnected()
            self.transport.abortConnection()
            await gone


class _Factory(Factory):
    """Builds connections."""

    noisy = False

    def __init__(self, clock: IReactorTime, describe: Describe) -> None:
        self._clock, self._describe = clock, describe

    def buildProtocol(self, addr: IAddress | None) -> RedisConnection:
        """Build one, not logged in yet."""
        return RedisConnection(self._clock, self._describe)


class RedisPool(Service):
    """Keeps so many connections open while the service runs, each opened again when it is lost.

    Knows connections and logins; must not know what is asked.
    """

    log = Logger()

    def __init__(
        self,
        endpoint: IStreamClientEndpoint,
        clock: IReactorTime,
        settings: RedisSettings,
        describe: Describe = Failure.getErrorMessage,
    ) -> None:
        self._endpoint, self._clock, self._settings = endpoint, clock, settings
        self._factory = _Factory(clock, describe)
        self._ready: list[RedisConnection] = []
        self._waiting: list[Deferred[None]] = []
        self._keepers: list[Deferred[None]] = []
        self._trouble: str | None = None

    def startService(self) -> None:
        """Begin to connect."""
        super().startService()
        self._trouble = None
        self._keepers = [
            Deferred.fromCoroutine(self._keep()) for _ in range(self._settings.poolSize)
        ]

    def stopService(self) -> Deferred[Any]:
        """Close all connections."""
        super().stopService()
        self._attempted("the proxy stops")
        keepers, self._keepers = self._keepers, []
        for keeper in keepers:
            keeper.cancel()
        return DeferredList(keepers)

    async def ask(self, *words: bytes) -> Any:
        """Send a command and return its answer; one that a lost connection took is sent again.

        :raises MappingError: when there is no answer in time, or the answer is an error.
        """
        deadline = self._clock.seconds() + self._settings.timeout
        while True:
            try:
                return await self._askOnce(deadline, words)
            except Lost as lost:
                if self._clock.seconds() >= deadline:
                    raise MappingError(str(lost)) from lost

    async def _askOnce(self, deadline: float, words: tuple[bytes, ...]) -> Any:
        try:
            connection = await within(self._clock, self._until(deadline), self._find())
        except TimedOut:
            raise MappingError(_LATE) from None
        try:
            return await connection.ask(self._until(deadline), words)
        except Lost:
            self._withdraw(connection)
            raise
        except TimedOut:
            self._withdraw(connection)
            if not self._ready:
                self._trouble = _LATE  # the next lookups need not find that out again
            connection.transport.abortConnection()
            raise MappingError(_LATE) from None

    def _until(self, deadline: float) -> float:
        return deadline - self._clock.seconds()

    async def _find(self) -> RedisConnection:
        """Take a connection in turn; without any, wait for the next attempt's outcome."""
        while not self._ready:
            if self._trouble is not None or not self.running:
                raise MappingError(self._trouble or "not connected")
            outcome: Deferred[None] = Deferred(self._waiting.remove)
            self._waiting.append(outcome)
            await outcome
        connection = self._ready.pop(0)
        self._ready.append(connection)
        return connection

    async def _keep(self) -> None:
        """Keep one connection, until cancelled.

        An endpoint may answer a cancellation by an earlier failure of its own.
        """
        delay = FIRST_PAUSE
        while self.running:
            try:
                await self._use(await self._open())
                delay = FIRST_PAUSE
            except (CancelledError, ConnectingCancelledError):
                return
            except MappingError as error:
                self._attempted(str(error))
            except Exception as error:  # this connection is not given up for our mistake
                self.log.failure("a connection to Redis could not be kept")
                self._attempted(type(error).__name__)
            if self.running:
                await self._rest(delay)
            delay = min(2 * delay, LONGEST_PAUSE)

    async def _rest(self, delay: float) -> None:
        """Wait before the next attempt; the end of the service is no reason to wait longer."""
        with suppress(CancelledError):
            await pause(self._clock, delay)

    async def _use(self, connection: RedisConnection) -> None:
        """Offer a connection until it is lost."""
        self._ready.append(connection)
        self._attempted(None)
        try:
            await connection.whenDisconnected()
        except CancelledError:
            await connection.close()
            raise
        finally:
            self._withdraw(connection)

    def _withdraw(self, connection: RedisConnection) -> None:
        """Offer a connection no longer."""
        if connection in self._ready:
            self._ready.remove(connection)

    def _attempted(self, trouble: str | None) -> None:
        """Let those know who wait for a connection; `trouble` says why there is none."""
        self._trouble = None if self._ready else trouble
        waiting, self._waiting = self._waiting, []
        for outcome in waiting:
            outcome.callback(None)

    async def _open(self) -> RedisConnection:
        """Connect, log in, and see that the server answers.

        :raises MappingError: when it does not.
        """
        try:
            return await within(self._clock, self._settings.timeout, self._prepare())
        except TimedOut:
            raise MappingError(_LATE) from None
        except Lost as lost:
            raise MappingError(str(lost)) from lost
        except (ConnectError, OSError) as error:
            raise MappingError(oneLine(error)) from error

    async def _prepare(self) -> RedisConnection:
        connection: RedisConnection = await self._endpoint.connect(self._factory)  # type: ignore[assignment]
        try:
            for words in _introduction(self._settings.place):
                await connection.ask(self._settings.timeout, words)
        except Exception:  # a cancellation is one too
            await connection.close()
            raise
        return connection


def _introduction(place: RedisPlace) -> list[tuple[bytes, ...]]:
    """What is said on a new connection before anything is asked."""
    commands: list[tuple[bytes, ...]] = []
    if place.password is not None:
        login = [word.encode() for word in (place.username, place.password) if word]
        commands.append((b"AUTH", *login))
    if place.database:
        commands.append((b"SELECT", b"%d" % place.database))
    return [*commands, (b"PING",)]


@implementer(IWritableMappingSource)
class RedisSource(MultiService):
    """Mappings in Redis: the key is prefix and identifier, the value the destination's name."""

    def __init__(
        self,
        endpoint: IStreamClientEndpoint,
        clock: IReactorTime,
        settings: RedisSettings,
        describe: Describe = Failure.getErrorMessage,
    ) -> None:
        super().__init__()
        self._pool = RedisPool(endpoint, clock, settings, describe)
        self._pool.setServiceParent(self)
        self._prefix = settings.prefix
        self._name = f"Redis at {settings.place.host} port {settings.place.port}"

    def lookup(self, identifier: str) -> Deferred[str | None]:
        """Find the destination of an identifier; an empty value is none."""
        return Deferred.fromCoroutine(self._lookup(identifier))

    async def _lookup(self, identifier: str) -> str | None:
        return asDestination(await self._ask(b"GET", identifier))

    def store(self, identifier: str, destination: str) -> Deferred[None]:
        """Map an identifier."""
        return Deferred.fromCoroutine(self._store(identifier, destination))

    async def _store(self, identifier: str, destination: str) -> None:
        await self._ask(b"SET", identifier, destination.encode())

    def remove(self, identifier: str) -> Deferred[bool]:
        """Forget an identifier.

        It is looked up first: what `DEL` counts is wrong if it had to be sent twice.
        """
        return Deferred.fromCoroutine(self._remove(identifier))

    async def _remove(self, identifier: str) -> bool:
        former = await self._lookup(identifier)
        await self._ask(b"DEL", identifier)
        return former is not None

    async def _ask(self, command: bytes, identifier: str, *more: bytes) -> Any:
        try:
            return await self._pool.ask(command, f"{self._prefix}{identifier}".encode(), *more)
        except MappingError as error:
            raise MappingError(reason(self._name, str(error), identifier)) from error
