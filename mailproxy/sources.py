"""The mapping's sources: picked by their kind, made of a configuration and revised for another.

Knows which class serves which store; must not know what is looked up, nor when.
"""

from collections.abc import Callable, Mapping
from typing import TypeVar

import attrs
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.interfaces import (
    IReactorFromThreads,
    IStreamClientEndpoint,
)
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool

from mailproxy.config import Config
from mailproxy.config.load import checkMapping, unmatched
from mailproxy.config.model import SourceKind
from mailproxy.config.storeurl import parseRedis
from mailproxy.config.table import Table
from mailproxy.dial import DialReactor
from mailproxy.logs import Logger
from mailproxy.mapping.drivers import makeDriver
from mailproxy.mapping.file import Check, FileSource, InThread
from mailproxy.mapping.interfaces import IMappingSource, Revision
from mailproxy.mapping.plugins import makePluginSource
from mailproxy.mapping.redis import RedisSettings, RedisSource
from mailproxy.mapping.shared import SharedFileSource
from mailproxy.mapping.sql import SQLSource, Statements
from mailproxy.sockets import SocketReactor
from mailproxy.tls import BackendOptions, BackendTLS
from mailproxy.tls.failures import describe

__all__ = ["SOURCES", "ProxyReactor", "SourceMaker", "makeThread"]

log = Logger()
T = TypeVar("T")


class ProxyReactor(DialReactor, SocketReactor, IReactorFromThreads):
    """What the whole proxy needs of a reactor."""


def _fileSource(config: Config, maker: "SourceMaker") -> IMappingSource:
    store = config.mapping.file
    assert store is not None, "loading has seen to it"
    source = SharedFileSource(store.path, maker.inThread, maker.checkOf(config))
    source.load()
    return source


def _redisSource(config: Config, maker: "SourceMaker") -> IMappingSource:
    store = config.mapping.redis
    assert store is not None, "loading has seen to it"
    place = parseRedis(store.url.get_secret_value())
    endpoint: IStreamClientEndpoint = HostnameEndpoint(maker.reactor, place.host, place.port)
    if place.tls:
        options = BackendOptions(serverName=place.host, protocols=config.tls.protocols)
        endpoint = wrapClientTLS(BackendTLS(options), endpoint)
    settings = RedisSettings(place, store.key_prefix, store.pool_size, _patience(config))
    return RedisSource(endpoint, maker.reactor, settings, describe)


def _sqlSource(config: Config, maker: "SourceMaker") -> IMappingSource:
    store = config.mapping.sql
    assert store is not None, "loading has seen to it"
    driver = makeDriver(store.url.get_secret_value(), _patience(config))
    statements = Statements(store.query, store.upsert_query, store.delete_query)
    return SQLSource(driver, statements, maker.reactor, store.pool_size, _patience(config))


def _pluginSource(config: Config, maker: "SourceMaker") -> IMappingSource:
    mapping = config.mapping
    return makePluginSource(mapping.pluginName, mapping.plugin or {}, maker.reactor)


def _patience(config: Config) -> float:
    """Seconds for the store; those for a lookup hold for writes too."""
    return config.mapping.lookup_timeout


def makeThread(reactor: ProxyReactor) -> InThread:
    """Make a thread for files alone: the reactor's own may all wait for name servers."""
    pool = ThreadPool(minthreads=0, maxthreads=1, name="files")

    def inThread(function: Callable[[], T]) -> Deferred[T]:
        if not pool.started:
            pool.start()
            reactor.addSystemEventTrigger("after", "shutdown", pool.stop)
        return deferToThreadPool(reactor, pool, function)

    return inThread


SOURCES: Mapping[SourceKind, Callable[[Config, "SourceMaker"], IMappingSource]] = {
    SourceKind.FILE: _fileSource,
    SourceKind.REDIS: _redisSource,
    SourceKind.SQL: _sqlSource,
    SourceKind.PLUGIN: _pluginSource,
}


@attrs.frozen
class SourceMaker:
    """Makes mapping sources by the table above.

    :ivar warns: whether entries of a mapping file that nobody finds are warned of.
    """

    reactor: ProxyReactor
    inThread: InThread
    warns: bool = True

    def make(self, config: Config) -> IMappingSource:
        """Make the source that a configuration asks for; blocks for a large file."""
        return SOURCES[config.mapping.kind](config, self)

    def remake(self, config: Config) -> Deferred[IMappingSource]:
        """Make it while the reactor runs: a file's in a thread, others may use the reactor."""
        if config.mapping.kind is SourceKind.FILE:
            return self.inThread(lambda: self.make(config))
        return maybeDeferred(self.make, config)

    def revise(self, source: IMappingSource, config: Config) -> Deferred[Revision]:
        """Let a source that holds a copy read it again, by the rules of the new configuration."""
        if isinstance(source, FileSource):
            return source.revise(self.checkOf(config))
        return succeed(Revision())

    def checkOf(self, config: Config) -> Check:
        """Say what keeps a mapping file from being used with a configuration."""
        store = config.mapping.file

        def check(table: Table) -> list[str]:
            for text in unmatched(config, table) if self.warns else ():
                log.warn("{text}", text=text)
            return checkMapping(config, table, str(store.path if store else ""))

        return check
