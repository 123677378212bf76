"""Everything that management can ask of a running proxy.

`IControl` is what the management API and the workers speak; `LocalControl` answers it for the
proxy of this process. Answers are plain data, ready for JSON or for another process.
"""

import os
from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar

from twisted.internet.defer import Deferred, succeed
from zope.interface import Interface, implementer

from mailproxy.config.load import lacking
from mailproxy.config.model import Destination
from mailproxy.errors import ConfigError, MappingError, ReadOnlyMapping, UnknownDestination
from mailproxy.mapping.interfaces import (
    IMappingSource,
    IReloadableMappingSource,
    IWritableMappingSource,
)
from mailproxy.proxy import Proxy
from mailproxy.registry import ISession

T = TypeVar("T")

Facts: TypeAlias = dict[str, Any]
"""One JSON object; its keys are those of the management API."""


class IControl(Interface):
    """What can be asked; every answer is a Deferred.

    An identifier is given as a client would, and goes through the rules of a login: each method
    that takes one fails with `InvalidIdentifier` when it may not be used.
    """

    def stats() -> Deferred[Facts]:
        """Count lookups and live sessions."""

    def metrics() -> Deferred[str]:
        """Write all counts in Prometheus's text format."""

    def destinations() -> Deferred[list[Facts]]:
        """Tell the health of each destination."""

    def resetDestination(destination: str) -> Deferred[None]:
        """Forget a destination's failures; fails with `UnknownDestination`."""

    def mapping(identifier: str) -> Deferred[Facts]:
        """Tell where an account would go now and why, without filling the cache.

        Fails with `MappingError` when the store cannot tell.
        """

    def setMapping(identifier: str, destination: str) -> Deferred[None]:
        """Write where an account lives; the next login sees it.

        Fails with `UnknownDestination`, `ReadOnlyMapping` or `MappingError`; with `ConfigError`
        when the destination does not speak all that is served: a start would refuse the mapping.
        """

    def removeMapping(identifier: str) -> Deferred[bool]:
        """Remove an account's mapping; tells whether there was one. Fails as `setMapping`."""

    def reloadMappings() -> Deferred[None]:
        """Read the store again; fails with `ConfigError`, the old table kept."""

    def invalidate(identifier: str | None) -> Deferred[None]:
        """Ask the store anew for an account, or for all; last answers are kept for an outage."""

    def connections(
        identifier: str | None, destination: str | None, protocol: str | None
    ) -> Deferred[list[Facts]]:
        """List live sessions, all that fit."""

    def kick(identifier: str) -> Deferred[int]:
        """End an account's sessions; tells how many."""

    def reload() -> Deferred[list[str]]:
        """Take the configuration file as it is now into use; tells which keys need a restart.

        Fails with `ConfigError`, naming every problem; then nothing has changed.
        """

    def delay(identifier: str, seconds: int) -> Deferred[None]:
        """Let an account's new logins wait so long, at most 120 s; 0 lets them go on at once."""


@implementer(IControl)
class LocalControl:
    """Answers for the proxy of this process."""

    def __init__(self, proxy: Proxy, reload: Callable[[], Deferred[list[str]]]) -> None:
        self._proxy, self._reload = proxy, reload
        self._since = proxy.clock.seconds()

    def _normalize(self, identifier: str) -> str:
        return self._proxy.runtime.rules.normalize(identifier)

    def stats(self) -> Deferred[Facts]:
        """Count lookups and live sessions; this process is the only worker."""
        cache, registry = self._proxy.cache, self._proxy.registry
        asked = cache.hits + cache.misses
        facts = {
            "cache_hits": cache.hits,
            "cache_misses": cache.misses,
            "hit_rate_pct": round(100 * cache.hits / asked, 1) if asked else 0.0,
            "cache_entries": cache.entries,
            "active_connections": registry.count(),
            "connections": [
                {"protocol": protocol, "destination": destination, "active": count}
                for (protocol, destination), count in registry.countBy().items()
            ],
            "workers": [
                {"worker": 1, "pid": os.getpid(), "state": "serving", "since": self._since}
            ],
            "worker_restarts": 0,
        }
        return succeed(facts)

    def metrics(self) -> Deferred[str]:
        """Write all counts."""
        return succeed(self._proxy.metrics.render().decode("utf-8"))

    def destinations(self) -> Deferred[list[Facts]]:
        """Tell the health of each destination."""
        report = self._proxy.health.report(self._proxy.runtime.config.destination)
        return succeed(
            [
                {
                    "destination": each.destination,
                    "consecutive_failures": each.consecutiveFailures,
                    "failure_sources": each.failureSources,
                    "host_level_failure": each.hostLevelFailure,
                    "down": each.down,
                }
                for each in report
            ]
        )

    def resetDestination(self, destination: str) -> Deferred[None]:
        """Forget a destination's failures."""
        return Deferred.fromCoroutine(self._resetDestination(destination))

    async def _resetDestination(self, destination: str) -> None:
        self._requireDeclared(destination)
        self._proxy.health.reset(destination)

    def _requireDeclared(self, destination: str) -> None:
        if destination not in self._proxy.runtime.config.destination:
            raise UnknownDestination(destination)

    def mapping(self, identifier: str) -> Deferred[Facts]:
        """Tell where an account would go now."""
        return Deferred.fromCoroutine(self._mapping(identifier))

    async def _mapping(self, identifier: str) -> Facts:
        normalized = self._normalize(identifier)
        cached = self._proxy.cache.peek(normalized)
        runtime = self._proxy.runtime
        route = await runtime.router.preview(normalized)
        return {
            "identifier": identifier,
            "normalized": normalized,
            "destination": route.destination,
            "routed_to_default": route.toDefault,
            "cached": cached,
            "ground": route.ground.value,
            "source": runtime.config.mapping.source,
            "endpoints": _endpoints(runtime.config.destination[route.destination]),
        }

    def setMapping(self, identifier: str, destination: str) -> Deferred[None]:
        """Write where an account lives."""
        return Deferred.fromCoroutine(self._setMapping(identifier, destination))

    async def _setMapping(self, identifier: str, destination: str) -> None:
        normalized = self._normalize(identifier)
        self._requireDeclared(destination)
        if missing := lacking(self._proxy.runtime.config, destination):
            raise ConfigError([f"destination: it lacks {', '.join(missing)}, which is served here"])
        await self._write(
            normalized, destination, lambda source: source.store(normalized, destination)
        )

    def removeMapping(self, identifier: str) -> Deferred[bool]:
        """Remove an account's mapping."""
        return Deferred.fromCoroutine(self._removeMapping(identifier))

    async def _removeMapping(self, identifier: str) -> bool:
        normalized = self._normalize(identifier)
        return await self._write(normalized, None, lambda source: source.remove(normalized))

    async def _write(
        self,
        identifier: str,
        destination: str | None,
        change: Callable[[IWritableMappingSource], Deferred[T]],
    ) -> T:
        """Write, and let the next lookup see it; what fails may have been done all the same.

        What was written is known from then on, also if the store fails before anybody logs in.

        A reload may put another store in the place of the one that is being written: then the
        write belongs into that one.
        """
        while True:
            source = self._proxy.runtime.source
            try:
                result = await change(self._writable(source))
            except MappingError:
                self._proxy.cache.invalidate(identifier)
                raise
            if source is self._proxy.runtime.source:
                self._proxy.cache.learn(identifier, destination)
                return result

    def _writable(self, source: IMappingSource) -> IWritableMappingSource:
        if not IWritableMappingSource.providedBy(source):
            raise ReadOnlyMapping("the mapping source takes no writes")
        return IWritableMappingSource(source)

    def reloadMappings(self) -> Deferred[None]:
        """Read the store again, and ask anew for every account.

        Most stores are not read as a whole; and an outage, in which this is tried, is what the last
        answers are kept for.
        """
        return Deferred.fromCoroutine(self._reloadMappings())

    async def _reloadMappings(self) -> None:
        source = self._proxy.runtime.source
        if IReloadableMappingSource.providedBy(source):
            await IReloadableMappingSource(source).reload()
        self._proxy.cache.invalidate()

    def invalidate(self, identifier: str | None) -> Deferred[None]:
        """Ask the store anew."""
        return Deferred.fromCoroutine(self._invalidate(identifier))

    async def _invalidate(self, identifier: str | None) -> None:
        self._proxy.cache.invalidate(None if identifier is None else self._normalize(identifier))

    def connections(
        self, identifier: str | None, destination: str | None, protocol: str | None
    ) -> Deferred[list[Facts]]:
        """List live sessions."""
        return Deferred.fromCoroutine(self._connections(identifier, destination, protocol))

    async def _connections(
        self, identifier: str | None, destination: str | None, protocol: str | None
    ) -> list[Facts]:
        normalized = None if identifier is None else self._normalize(identifier)
        found = self._proxy.registry.find(normalized, destination, protocol)
        return [_describe(session) for session in found]

    def kick(self, identifier: str) -> Deferred[int]:
        """End an account's sessions."""
        return Deferred.fromCoroutine(self._kick(identifier))

    def reload(self) -> Deferred[list[str]]:
        """Take the configuration file as it is now into use."""
        return self._reload()

    async def _kick(self, identifier: str) -> int:
        return self._proxy.registry.kick(self._normalize(identifier))

    def delay(self, identifier: str, seconds: int) -> Deferred[None]:
        """Let an account's new logins wait."""
        return Deferred.fromCoroutine(self._delay(identifier, seconds))

    async def _delay(self, identifier: str, seconds: int) -> None:
        self._proxy.registry.hold(self._normalize(identifier), seconds)


def _endpoints(destination: Destination) -> Facts:
    """Tell where a destination is, by protocol."""
    return {
        protocol: {"host": destination.host, "port": endpoint.port, "tls": endpoint.tls.value}
        for protocol, endpoint in destination.protocol.items()
    }


def _describe(session: ISession) -> Facts:
    """Tell of one live session; `since` is in seconds since 1970."""
    return {
        "id": session.id,
        "protocol": session.protocol,
        "listener": session.listener,
        "client": session.client,
        "identifier": session.identifier,
        "destination": session.destination,
        "since": session.since,
        "bytes_received": session.received,
        "bytes_sent": session.sent,
    }
