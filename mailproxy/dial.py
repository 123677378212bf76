"""From a destination's name to a backend that waits for the login.

Knows health, loops, names, source addresses, retries and the PROXY header; must not know any
protocol's words, nor whose session it is beyond its `Origin`.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from itertools import cycle
from typing import Any, Generic, TypeVar, cast

import attrs
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectBindError, ConnectError
from twisted.internet.interfaces import (
    IAddress,
    IHostResolution,
    IReactorPluggableNameResolver,
    IReactorTCP,
    IReactorTime,
    IResolutionReceiver,
)
from zope.interface import implementer

from mailproxy import proxyheader
from mailproxy.errors import BackendFailed, Stage
from mailproxy.health import Attempt, Health
from mailproxy.origin import Address, Origin
from mailproxy.protocols.client import BackendLeg, ClientSettings, ProxyClientFactory
from mailproxy.transport import connect
from mailproxy.waiting import TimedOut, pause, within

RETRY_PAUSE = 0.2
"""Seconds between two attempts."""


C = TypeVar("C", bound=BackendLeg)


class DialReactor(IReactorTCP, IReactorTime, IReactorPluggableNameResolver):
    """What dialling needs of a reactor."""


@attrs.frozen
class Target:
    """A destination's endpoint for one protocol, ready to be dialled again and again.

    :ivar settings: how it is spoken to; its TLS context is built once.
    :ivar header: whether a PROXY header goes first.
    :ivar sources: local addresses to call from, by IP version, used in turn.
    :ivar hideAuthErrors: whether clients get our words for a refused login.
    """

    destination: str
    host: str
    port: int
    settings: ClientSettings
    factory: type[ProxyClientFactory]
    header: bool
    sources: Mapping[int, Iterator[str]]
    hideAuthErrors: bool

    @staticmethod
    def inTurn(addresses: list[str]) -> dict[int, Iterator[str]]:
        """Prepare `sources`."""
        versions = {
            4: [a for a in addresses if ":" not in a],
            6: [a for a in addresses if ":" in a],
        }
        return {version: cycle(found) for version, found in versions.items() if found}


@attrs.frozen
class Backend(Generic[C]):
    """A backend that waits for the login, and the attempt whose verdict is still owed.

    :ivar client: of the kind that the target's factory makes.
    """

    client: C
    attempt: Attempt


@implementer(IResolutionReceiver)
class _Resolution:
    """Collects the addresses of a name."""

    def __init__(self, ended: Callable[[], object]) -> None:
        self._ended = ended
        self._addresses: list[str] = []
        self._complete = False
        self._waiters: dict[Deferred[list[str]], None] = {}

    def wait(self) -> Deferred[list[str]]:
        """Wait for all addresses; may be cancelled."""
        if self._complete:
            return succeed(self._addresses)
        waiter: Deferred[list[str]] = Deferred(self._leave)
        self._waiters[waiter] = None
        return waiter

    def _leave(self, waiter: Deferred[list[str]]) -> None:
        del self._waiters[waiter]

    def resolutionBegan(self, resolutionInProgress: IHostResolution) -> None:
        """Nothing to keep: a resolution that nobody waits for ends by itself."""

    def addressResolved(self, address: IAddress) -> None:
        """Keep one address."""
        self._addresses.append(cast(IPv4Address | IPv6Address, address).host)

    def resolutionComplete(self) -> None:
        """Give what was found to those who still wait."""
        self._complete = True
        self._ended()
        for waiter in list(self._waiters):
            waiter.callback(list(self._addresses))


class Dialer:
    """Opens backends, within one time limit for all attempts together.

    :param isOurs: whether an address is one that we listen on ourselves.
    """

    def __init__(
        self,
        reactor: DialReactor,
        health: Health,
        isOurs: Callable[[Address], bool],
        timeout: float,
        retries: int,
    ) -> None:
        self._reactor, self.health, self._isOurs = reactor, health, isOurs
        self._timeout, self._retries = timeout, retries
        self._resolving: dict[str, _Resolution] = {}

    async def open(self, target: Target, origin: Origin) -> Backend[Any]:
        """Connect to a backend and bring it to where the login is next.

        :raises BackendFailed: when that fails, with the stage of the last attempt.
        """
        if origin.ttl <= 1:
            raise BackendFailed(Stage.LOOP, "no hop is left: proxies send sessions in a circle")
        attempt = self.health.admit(target.destination)
        try:
            client = await within(self._reactor, self._timeout, self._persist(target, origin))
        except TimedOut:
            failed = BackendFailed(Stage.TIMEOUT, f"not ready within {self._timeout:g} s")
            attempt.failed(failed.stage, origin.client.neighbourhood)
            raise failed from None
        except BackendFailed as failed:
            attempt.failed(failed.stage, origin.client.neighbourhood)
            raise
        except BaseException:
            attempt.abandoned()
            raise
        return Backend(client, attempt)

    async def _persist(self, target: Target, origin: Origin) -> BackendLeg:
        """Try again while that may help."""
        attempt = 0
        while True:
            try:
                return await self._prepare(target, origin, attempt)
            except BackendFailed as failed:
                if not failed.retry or attempt >= self._retries:
                    raise
            attempt += 1
            await pause(self._reactor, RETRY_PAUSE)

    async def _prepare(self, target: Target, origin: Origin, attempt: int) -> BackendLeg:
        """Make one attempt, up to the login."""
        client = await self._connect(target, attempt)
        try:
            client.settings, client.origin = target.settings, origin
            if target.header:
                hops = (proxyheader.HOPS, bytes([origin.ttl - 1]))
                client.send(proxyheader.build(origin.client, origin.local, [hops]))
            await client.prepare()
        except BaseException:
            client.abort()
            raise
        return client

    async def _connect(self, target: Target, attempt: int) -> BackendLeg:
        """Connect to the first of the host's addresses that answers.

        A further attempt begins with another address: the last one has answered and was no use.
        """
        addresses = await self._resolve(target.host)
        turn = attempt % max(1, len(addresses))
        addresses = addresses[turn:] + addresses[:turn]
        failure = BackendFailed(Stage.RESOLVE, f"{target.host} has no address", retry=True)
        for host in addresses:
            if self._isOurs(Address.parse(host, target.port)):
                raise BackendFailed(Stage.LOOP, f"{host} port {target.port} is our own listener")
        # The only address may take all the time that there is, which ends by itself.
        timeout = self._timeout / len(addresses) if len(addresses) > 1 else None
        for host in addresses:
            try:
                return await self._call(target, host, timeout)
            except ConnectBindError as error:
                # No descriptor, port or source address of ours: not the destination's failure.
                raise BackendFailed(Stage.LOCAL, f"{host}: {error}", retry=True) from error
            except ConnectError as error:
                reason = os.strerror(error.osError) if error.osError else type(error).__name__
                stage = Stage.TIMEOUT if isinstance(error, TimedOut) else Stage.CONNECT
                failure = BackendFailed(stage, f"{host}: {reason}", retry=True)
        raise failure

    def _call(self, target: Target, host: str, timeout: float | None) -> Deferred[BackendLeg]:
        factory = target.factory(self._reactor)
        source = target.sources.get(6 if ":" in host else 4)
        bind = None if source is None else (next(source), 0)
        connect(self._reactor, (host, target.port), factory, timeout, bind)
        return factory.connected

    def _resolve(self, host: str) -> Deferred[list[str]]:
        """Look a name up, at each connection; an address is one already.

        Who asks for a name that is being looked up waits for the same answer: a name server that
        does not answer takes one thread for each name, not one for each session.
        """
        try:
            return succeed([Address.parse(host, 0).host])
        except ValueError:
            pass
        resolution = self._resolving.get(host)
        if resolution is None:
            resolution = self._resolving[host] = _Resolution(lambda: self._resolving.pop(host))
            self._reactor.nameResolver.resolveHostName(resolution, host)
        return resolution.wait()
