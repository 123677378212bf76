"""How a configuration that has been read and checked comes into use: prepared first, then adopted.

Knows the order in which preparing can fail, and that adopting cannot; must not know why there is a
new configuration. Running sessions keep what they began with.
"""

from typing import Protocol

import attrs
from twisted.application.service import IService
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.interfaces import IDelayedCall

from mailproxy.config.model import Config, SourceKind
from mailproxy.logs import Logger
from mailproxy.mapping.file import InThread
from mailproxy.mapping.interfaces import IMappingSource, Revision
from mailproxy.proxy import Proxy, Runtime

SOURCE_GRACE = 30.0
"""Seconds that a replaced source has for the writes that it has begun."""


class Adoption(Protocol):
    """A configuration that can be taken into use; its owner owes it one of both calls."""

    def adopt(self) -> Deferred[None]:
        """Take it into use."""

    def discard(self) -> None:
        """Forget it; everything is as before."""


class Adopter(Protocol):
    """What can prepare a configuration."""

    @property
    def config(self) -> Config:
        """The configuration in force."""

    def prepare(self, config: Config, *, sameStore: bool = False) -> Deferred[Adoption]:
        """Make ready whatever may fail.

        Fails with ConfigError; then nothing has changed.

        :param sameStore: leave the mapping alone: only files of certificates have changed.
        """

    def close(self) -> Deferred[None]:
        """Let go of what has been replaced and is still there."""


class Stores(Protocol):
    """Makes mapping sources; picks their classes."""

    def remake(self, config: Config) -> Deferred[IMappingSource]:
        """Make the source that a configuration asks for; may fail with ConfigError."""

    def revise(self, source: IMappingSource, config: Config) -> Deferred[Revision]:
        """Let a source serve under another configuration with the same store.

        Fails with ConfigError, nothing changed.
        """


@attrs.frozen
class LocalAdoption:
    """A runtime for the proxy of this process, with its source."""

    _adopter: "LocalAdopter"
    runtime: Runtime
    revision: Revision

    def adopt(self) -> Deferred[None]:
        """Swap at once."""
        return maybeDeferred(self._adopter.swap, self.runtime, self.revision)

    def discard(self) -> None:
        """Let the source go on as it was."""
        self.revision.discard()


class LocalAdopter:
    """Prepares for the proxy of this process.

    :param inThread: runs what blocks.
    """

    log = Logger()

    def __init__(self, proxy: Proxy, stores: Stores, inThread: InThread) -> None:
        self._proxy, self._stores, self._inThread = proxy, stores, inThread
        self._retired: dict[IService, IDelayedCall] = {}
        self._closed = False

    @property
    def config(self) -> Config:
        """The configuration in force."""
        return self._proxy.runtime.config

    def prepare(self, config: Config, *, sameStore: bool = False) -> Deferred[Adoption]:
        """Build a runtime and look at the source."""
        return Deferred.fromCoroutine(self._prepare(config, sameStore))

    async def _prepare(self, config: Config, sameStore: bool) -> Adoption:
        old = self._proxy.runtime
        runtime = await self._inThread(lambda: self._proxy.makeRuntime(config, old.source))
        if sameStore:
            return LocalAdoption(self, runtime, Revision())
        if _store(old.config) == _store(config):
            revision = await self._stores.revise(old.source, config)
            return LocalAdoption(self, runtime, revision)
        source = await self._stores.remake(config)
        return LocalAdoption(self, attrs.evolve(runtime, source=source), Revision())

    def swap(self, runtime: Runtime, revision: Revision) -> None:
        """Let all sessions that begin from now on use this.

        A source is started first: that is the last thing that a bug could keep from happening. A
        proxy that has not begun yet starts it itself.
        """
        old, begun = self._proxy.runtime.source, self._proxy.begun
        if runtime.source is not old and begun and IService.providedBy(runtime.source):
            IService(runtime.source).startService()
        revision.use()
        self._proxy.adopt(runtime)
        if runtime.source is not old:
            self._replace(old, runtime.source)
        elif revision.changed:
            self._proxy.cache.invalidate()

    def _replace(self, old: IMappingSource, new: IMappingSource) -> None:
        """Let lookups go to the new source, and the old one end what it has begun."""
        self._proxy.cache.replaceSource(new)
        if self._proxy.begun and IService.providedBy(old):
            grace = 0.0 if self._closed else SOURCE_GRACE
            service = IService(old)
            self._retired[service] = self._proxy.clock.callLater(grace, self._close, service)

    def close(self) -> Deferred[None]:
        """Close the sources that have been replaced."""
        self._closed = True
        closed = DeferredList([self._close(source) for source in list(self._retired)])
        return closed.addCallback(lambda _: None)

    def _close(self, source: IService) -> Deferred[None]:
        """Stop a source that has been replaced."""
        timer = self._retired.pop(source)
        if timer.active():
            timer.cancel()
        return maybeDeferred(source.stopService).addErrback(
            lambda failure: self.log.failure("a replaced mapping source did not stop", failure)
        )


def _store(config: Config) -> dict[str, object]:
    """What says which store is asked, and how; tables of stores that are not asked do not count."""
    mapping = config.mapping
    asked = mapping.source.partition(":")[0]
    kept = {"normalize", "positive_ttl", "negative_ttl", "cache_max_entries", "on_error"}
    kept |= {kind.value for kind in SourceKind} - {asked}
    return {key: getattr(mapping, key) for key in type(mapping).model_fields if key not in kept}
