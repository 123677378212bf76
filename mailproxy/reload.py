"""A changed configuration, taken into use as a whole or not at all.

Knows what is read anew and in which order it can still fail; must not know how the parts of a
runtime work. Running sessions keep what they began with.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import attrs
from twisted.application.service import IService, Service
from twisted.internet.defer import Deferred, DeferredLock, maybeDeferred
from twisted.internet.task import LoopingCall
from twisted.python.failure import Failure

from mailproxy.config.changes import inForce, needRestart
from mailproxy.config.model import Config
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

    def make(self, config: Config) -> IMappingSource:
        """Make the source that a configuration asks for; blocks, and may raise ConfigError."""

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
        self._watch = LoopingCall(self._look)
        self._watch.clock = proxy.clock

    def startService(self) -> None:
        """Begin to watch the certificates."""
        super().startService()
        self._watch.start(WATCH_INTERVAL, now=False).addErrback(self._bug)

    def stopService(self) -> None:
        """Watch no more."""
        super().stopService()
        if self._watch.running:
            self._watch.stop()

    def reload(self) -> Deferred[list[str]]:
        """Take the configuration file as it is now into use.

        :returns: the keys that have changed and need a restart. Fails with ConfigError, naming
            every problem; then nothing has changed.
        """
        return self._turn.run(lambda: Deferred.fromCoroutine(self._reload()))

    async def _reload(self) -> list[str]:
        proxy, old = self._proxy, self._proxy.runtime
        config = await self._inThread(self._read)
        later = needRestart(old.config, config)
        config = inForce(old.config, config)
        seen = _certificateFiles(config)
        runtime = await self._inThread(lambda: proxy.makeRuntime(config, old.source))
        source, changed = await self._source(old, config)
        proxy.adopt(attrs.evolve(runtime, source=source))
        if source is not old.source:
            self._replace(old.source, source)
        elif changed:
            proxy.cache.invalidate()
        self._seen = seen
        setLevel(config.server.log_level)
        self.log.info("reloaded; needs a restart: {later}", later=", ".join(later) or "nothing")
        return later

    async def _source(self, old: Runtime, config: Config) -> tuple[IMappingSource, bool]:
        """Keep the source whose store is the same, else make another."""
        if _store(old.config) == _store(config):
            return old.source, await self._stores.revise(old.source, config)
        return await self._inThread(lambda: self._stores.make(config)), True

    def _replace(self, old: IMappingSource, new: IMappingSource) -> None:
        """Let lookups go to the new source, and the old one end what it has begun."""
        if IService.providedBy(new):
            IService(new).startService()
        self._proxy.cache.replaceSource(new)
        if IService.providedBy(old):
            stop = IService(old).stopService
            self._proxy.clock.callLater(SOURCE_GRACE, maybeDeferred, stop)

    # Certificates

    def _look(self) -> Deferred[None]:
        return self._turn.run(lambda: Deferred.fromCoroutine(self._renew()))

    async def _renew(self) -> None:
        """Take certificates into use whose files have changed: pairs that fit, or none."""
        proxy, runtime = self._proxy, self._proxy.runtime
        seen = _certificateFiles(runtime.config)
        if seen == self._seen:
            return
        self._seen = seen
        try:
            renewed = await self._inThread(
                lambda: proxy.makeRuntime(runtime.config, runtime.source)
            )
        except ConfigError as error:
            self.log.warn("changed certificates are not used: {problems}", problems=str(error))
            return
        proxy.adopt(renewed)
        self.log.info("certificates have changed and are in use")

    def _bug(self, failure: Failure) -> None:
        self.log.failure("certificates are not watched any more", failure=failure)


def _certificateFiles(config: Config) -> dict[Path, _State | None]:
    """The state of each file that a certificate is read from."""
    files = [path for each in config.tls.certificate.values() for path in (each.cert, each.key)]
    return {path: _State.of(path) for path in files}


def _store(config: Config) -> dict[str, object]:
    """What says which store is asked, and how."""
    mapping = config.mapping
    kept = {"normalize", "positive_ttl", "negative_ttl", "cache_max_entries", "on_error"}
    return {key: getattr(mapping, key) for key in type(mapping).model_fields if key not in kept}
