"""A changed configuration, taken into use as a whole or not at all.

Knows what is read anew and in which order it can still fail; must not know how the parts of a
runtime work. Running sessions keep what they began with.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import attrs
from twisted.application.service import IService, Service
from twisted.internet.defer import Deferred, DeferredList, DeferredLock, maybeDeferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import LoopingCall

from mailproxy.config import warnings
from mailproxy.config.changes import inForce, needRestart, unserved
from mailproxy.config.model import Config, SourceKind
from mailproxy.errors import ConfigError
from mailproxy.logs import Logger, setLevel
from mailproxy.mapping.file import InThread
from mailproxy.mapping.interfaces import IMappingSource
from mailproxy.proxy import Proxy, Runtime

WATCH_INTERVAL = 60.0
"""Seconds between two looks at the certificates' files."""

SOURCE_GRACE = 30.0
"""Seconds that a replaced source has for the writes that it has begun."""


class Stores(Protocol):
    """Makes mapping sources; picks their classes."""

    def remake(self, config: Config) -> Deferred[IMappingSource]:
        """Make the source that a configuration asks for; may fail with ConfigError."""

    def revise(self, source: IMappingSource, config: Config) -> Deferred[bool]:
        """Let a source serve under another configuration with the same store.

        :returns: whether its content has changed. Fails with ConfigError, nothing changed.
        """


@attrs.frozen
class _State:
    """A file, as it was when it was looked at; None when it could not be."""

    inode: int
    size: int
    modified: int

    @classmethod
    def of(cls, path: Path) -> "_State | None":
        """Look at a file."""
        try:
            found = path.stat()
        except OSError:
            return None
        return cls(found.st_ino, found.st_size, found.st_mtime_ns)


class Reloader(Service):
    """Reads the configuration again when asked, and certificates when their files have changed.

    :param read: reads and checks the whole configuration; blocks.
    :param inThread: runs what blocks.
    """

    log = Logger()

    def __init__(
        self, proxy: Proxy, read: Callable[[], Config], stores: Stores, inThread: InThread
    ) -> None:
        self._proxy, self._read, self._stores, self._inThread = proxy, read, stores, inThread
        self._turn = DeferredLock()
        self._seen = _certificateFiles(proxy.runtime.config)
        self._retired: dict[IService, IDelayedCall] = {}
        self._watch = LoopingCall(self._look)
        self._watch.clock = proxy.clock

    def startService(self) -> None:
        """Begin to watch the certificates."""
        super().startService()
        self._watch.start(WATCH_INTERVAL, now=False)

    def stopService(self) -> Deferred[None]:
        """Watch no more, and close the sources that have been replaced."""
        super().stopService()
        if self._watch.running:
            self._watch.stop()
        closed = DeferredList([self._close(source) for source in list(self._retired)])
        return closed.addCallback(lambda _: None)

    def reload(self) -> Deferred[list[str]]:
        """Take the configuration file as it is now into use.

        :returns: the keys that have changed and need a restart. Fails with ConfigError, naming
            every problem; then nothing has changed.
        """
        return self._turn.run(lambda: Deferred.fromCoroutine(self._reload()))

    async def _reload(self) -> list[str]:
        old = self._proxy.runtime
        wanted = await self._inThread(self._read)
        later = needRestart(old.config, wanted)
        config = inForce(old.config, wanted)
        if problems := unserved(config):
            raise ConfigError(problems)
        seen = _certificateFiles(config)
        runtime, texts = await self._prepare(config, old.source)
        source, changed = await self._source(old, config)
        # Whatever could fail has been done.
        self._adopt(attrs.evolve(runtime, source=source), texts)
        if source is not old.source:
            self._replace(old.source, source)
        elif changed:
            self._proxy.cache.invalidate()
        self._seen = seen
        setLevel(config.server.log_level)
        self.log.info("reloaded; needs a restart: {later}", later=", ".join(later) or "nothing")
        return later

    async def _prepare(
        self, config: Config, source: IMappingSource
    ) -> tuple[Runtime, Sequence[str]]:
        """Build a runtime, and find what somebody should look at."""
        return await self._inThread(
            lambda: (self._proxy.makeRuntime(config, source), warnings(config))
        )

    def _adopt(self, runtime: Runtime, texts: Sequence[str]) -> None:
        self._proxy.adopt(runtime)
        for text in texts:
            self.log.warn("{text}", text=text)

    # The mapping's source

    async def _source(self, old: Runtime, config: Config) -> tuple[IMappingSource, bool]:
        """Keep the source whose store is the same, else make another and start it."""
        if _store(old.config) == _store(config):
            return old.source, await self._stores.revise(old.source, config)
        source = await self._stores.remake(config)
        if IService.providedBy(source):
            IService(source).startService()
        return source, True

    def _replace(self, old: IMappingSource, new: IMappingSource) -> None:
        """Let lookups go to the new source, and the old one end what it has begun."""
        self._proxy.cache.replaceSource(new)
        if IService.providedBy(old):
            grace = SOURCE_GRACE if self.running else 0.0
            service = IService(old)
            self._retired[service] = self._proxy.clock.callLater(grace, self._close, service)

    def _close(self, source: IService) -> Deferred[None]:
        """Stop a source that has been replaced."""
        timer = self._retired.pop(source)
        if timer.active():
            timer.cancel()
        return maybeDeferred(source.stopService).addErrback(
            lambda failure: self.log.failure("a replaced mapping source did not stop", failure)
        )

    # Certificates

    def _look(self) -> Deferred[None]:
        renewed = self._turn.run(lambda: Deferred.fromCoroutine(self._renew()))
        return renewed.addErrback(
            lambda failure: self.log.failure("changed certificates met a bug", failure)
        )

    async def _renew(self) -> None:
        """Take certificates into use whose files have changed: pairs that fit, or none."""
        runtime = self._proxy.runtime
        seen = _certificateFiles(runtime.config)
        if seen == self._seen:
            return
        self._seen = seen
        try:
            renewed, texts = await self._prepare(runtime.config, runtime.source)
        except ConfigError as error:
            for problem in error.problems:
                self.log.warn("changed certificates are not used: {problem}", problem=problem)
            return
        self._adopt(renewed, texts)
        self.log.info("certificates have changed and are in use")


def _certificateFiles(config: Config) -> dict[Path, _State | None]:
    """The state of each file that a certificate is read from, for clients or for backends."""
    files = [path for each in config.tls.certificate.values() for path in (each.cert, each.key)]
    for each in config.destination.values():
        files += filter(None, (each.tls_client_cert, each.tls_client_key))
    return {path: _State.of(path) for path in files}


def _store(config: Config) -> dict[str, object]:
    """What says which store is asked, and how; tables of stores that are not asked do not count."""
    mapping = config.mapping
    asked = mapping.source.partition(":")[0]
    kept = {"normalize", "positive_ttl", "negative_ttl", "cache_max_entries", "on_error"}
    kept |= {kind.value for kind in SourceKind} - {asked}
    return {key: getattr(mapping, key) for key in type(mapping).model_fields if key not in kept}
