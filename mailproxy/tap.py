"""`twistd mailproxy`: reads the configuration, builds the objects and joins them.

The only place that picks classes by name, and (with `cli`) the only one that names the reactor.
"""

import os
import resource
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import TypeVar, cast

from twisted.application.service import IService, MultiService
from twisted.internet import reactor as globalReactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.interfaces import (
    IProtocolFactory,
    IReactorFromThreads,
    IStreamClientEndpoint,
)
from twisted.internet.threads import deferToThread
from twisted.python import usage

from mailproxy.config import Config, load, warnings
from mailproxy.config.bind import Bind
from mailproxy.config.load import checkMapping
from mailproxy.config.model import LogLevel as ConfiguredLevel
from mailproxy.config.model import SourceKind
from mailproxy.config.storeurl import parseRedis
from mailproxy.config.table import Table
from mailproxy.control import LocalControl
from mailproxy.demo import prepareTemporary
from mailproxy.dial import DialReactor
from mailproxy.errors import ConfigError
from mailproxy.logs import Logger, LogLevel
from mailproxy.management import Guard, ManagementAPI, makeFactory
from mailproxy.mapping.drivers import makeDriver
from mailproxy.mapping.file import FileSource
from mailproxy.mapping.interfaces import IMappingSource
from mailproxy.mapping.plugins import makePluginSource
from mailproxy.mapping.redis import RedisSettings, RedisSource
from mailproxy.mapping.sql import SQLSource, Statements
from mailproxy.protocols.imap import IMAPClientFactory, IMAPServerFactory
from mailproxy.proxy import Conversations, Proxy
from mailproxy.sockets import Door, SocketReactor, makeDoors
from mailproxy.tls import BackendOptions, BackendTLS
from mailproxy.tls.failures import describe

log = Logger()
T = TypeVar("T")

CONFIG_VARIABLE = "PROXY_CONFIG"

PROTOCOLS: Mapping[str, Conversations] = {
    "imap": Conversations(IMAPServerFactory, IMAPClientFactory),
}


class ProxyReactor(DialReactor, SocketReactor, IReactorFromThreads):
    """What the whole proxy needs of a reactor."""


def _fileSource(config: Config, reactor: ProxyReactor) -> IMappingSource:
    store = config.mapping.file
    assert store is not None, "loading has seen to it"

    def check(table: Table) -> list[str]:
        return checkMapping(config, table, str(store.path))

    source = FileSource(store.path, _inThread, check)
    source.load()
    return source


def _inThread(function: Callable[[], T]) -> Deferred[T]:
    return deferToThread(function)


def _redisSource(config: Config, reactor: ProxyReactor) -> IMappingSource:
    store = config.mapping.redis
    assert store is not None, "loading has seen to it"
    place = parseRedis(store.url.get_secret_value())
    endpoint: IStreamClientEndpoint = HostnameEndpoint(reactor, place.host, place.port)
    if place.tls:
        options = BackendOptions(serverName=place.host, protocols=config.tls.protocols)
        endpoint = wrapClientTLS(BackendTLS(options), endpoint)
    settings = RedisSettings(place, store.key_prefix, store.pool_size, _patience(config))
    return RedisSource(endpoint, reactor, settings, describe)


def _sqlSource(config: Config, reactor: ProxyReactor) -> IMappingSource:
    store = config.mapping.sql
    assert store is not None, "loading has seen to it"
    driver = makeDriver(store.url.get_secret_value(), _patience(config))
    statements = Statements(store.query, store.upsert_query, store.delete_query)
    return SQLSource(driver, statements, reactor, store.pool_size, _patience(config))


def _pluginSource(config: Config, reactor: ProxyReactor) -> IMappingSource:
    mapping = config.mapping
    return makePluginSource(mapping.pluginName, mapping.plugin or {}, reactor)


def _patience(config: Config) -> float:
    """Seconds for the store; those for a lookup hold for writes too."""
    return config.mapping.lookup_timeout


SOURCES: Mapping[SourceKind, Callable[[Config, ProxyReactor], IMappingSource]] = {
    SourceKind.FILE: _fileSource,
    SourceKind.REDIS: _redisSource,
    SourceKind.SQL: _sqlSource,
    SourceKind.PLUGIN: _pluginSource,
}

_LEVELS = {
    ConfiguredLevel.DEBUG: LogLevel.debug,
    ConfiguredLevel.INFO: LogLevel.info,
    ConfiguredLevel.WARN: LogLevel.warn,
    ConfiguredLevel.ERROR: LogLevel.error,
}


class Options(usage.Options):
    """The command line of `twistd mailproxy`."""

    synopsis = "[--config FILE | --demo]"
    longdesc = "Let mail clients log in at one place and serve each account where it lives."
    optParameters = [["config", "c", None, f"the configuration file (default: ${CONFIG_VARIABLE})"]]
    optFlags = [["demo", None, "start two small mail servers, a proxy, and say what to try"]]

    def postOptions(self) -> None:
        """Find the file to read; the demonstration has its own, whatever the environment says."""
        if not self["demo"]:
            self["config"] = self["config"] or os.environ.get(CONFIG_VARIABLE)
        if bool(self["config"]) == bool(self["demo"]):
            raise usage.UsageError(f"write --config FILE (or set {CONFIG_VARIABLE}), or --demo")


def makeService(options: Options) -> IService:
    """Build everything; a configuration that cannot be run ends the process in plain words."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # no password ever reaches a core file
    reactor = cast(ProxyReactor, globalReactor)
    try:
        return _makeDemo(reactor) if options["demo"] else _makeProxy(reactor, options["config"])
    except ConfigError as error:
        raise SystemExit("\n".join(error.problems)) from None


def _makeDemo(reactor: ProxyReactor) -> MultiService:
    """Put a proxy in front of the demonstration's servers; what to try is said when all run."""
    setup = prepareTemporary(reactor)
    whole = MultiService()
    setup.service.setServiceParent(whole)
    _makeProxy(reactor, str(setup.configPath)).setServiceParent(whole)
    # Twisted has turned sys.stdout into a log by then; these lines are for pasting.
    reactor.callWhenRunning(print, setup.instructions, file=sys.__stdout__, flush=True)
    return whole


def _makeProxy(reactor: ProxyReactor, path: str) -> MultiService:
    """Build the proxy that a configuration file describes; its sockets are bound already."""
    config = load(Path(path), os.environ)
    _refuseUnknown(config)
    Logger.level = _LEVELS[config.server.log_level]
    proxy = Proxy(reactor, PROTOCOLS, config, SOURCES[config.mapping.kind](config, reactor))
    whole = MultiService()
    proxy.setServiceParent(whole)
    for door in _makeDoors(reactor, config, proxy):
        door.setServiceParent(whole)
    reactor.callWhenRunning(_welcome, config)
    reactor.callWhenRunning(_stopOnSignals, reactor)
    return whole


def _refuseUnknown(config: Config) -> None:
    """Refuse what the configuration knows and this version does not serve yet."""
    problems = [
        f"listener.{name}.protocol: {listener.protocol} is not served by this version"
        for name, listener in config.listener.items()
        if listener.protocol not in PROTOCOLS
    ]
    if config.mapping.kind not in SOURCES:
        problems.append(f"mapping.source: {config.mapping.source} is not read by this version")
    if problems:
        raise ConfigError(problems)


def _makeDoors(reactor: ProxyReactor, config: Config, proxy: Proxy) -> list[Door]:
    """Bind every listener's sockets and management's, and set what answers behind them."""
    doors = makeDoors(reactor, _places(config), proxy.bound)
    factories: dict[str, IProtocolFactory] = {
        f"listener.{listener.name}.bind": listener.factory for listener in proxy.listeners
    }
    if config.admin is not None:
        guard = Guard.fromConfig(config.admin, proxy.clock)
        resource = ManagementAPI(LocalControl(proxy), guard).resource()
        factories["admin.bind"] = makeFactory(resource, proxy.runtime.certificates, reactor)
    for door in doors:
        door.factory = factories[door.key]
    return doors


def _places(config: Config) -> Iterator[tuple[str, Bind]]:
    for name, listener in config.listener.items():
        for place in listener.addresses:
            yield f"listener.{name}.bind", place
    if config.admin is not None:
        yield "admin.bind", config.admin.address


def _stopOnSignals(reactor: ProxyReactor) -> None:
    """End in good order, with exit status 0, on SIGTERM or SIGINT; at once on the second one."""

    def stop(number: int, _: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        log.info("{signal}: shutting down", signal=signal.Signals(number).name)
        reactor.callFromThread(reactor.stop)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)


def _welcome(config: Config) -> None:
    """Say what somebody should look at."""
    for text in warnings(config):
        log.warn("{text}", text=text)
