"""`twistd mailproxy`: reads the configuration, builds the objects and joins them.

With `served` and `sources` the only place that picks classes by name, and with `worker` and `cli`
the only one that names the reactor.
"""

import atexit
import os
import resource
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any, cast

from twisted.application.service import IService, MultiService
from twisted.internet import reactor as globalReactor
from twisted.logger import ILogObserver
from twisted.python import usage
from twisted.python.components import Componentized
from twisted.python.failure import Failure

from mailproxy import openssl
from mailproxy.config import Config, load, warnings
from mailproxy.core import Core, Reload, makeAlone, makeParent, missingIn, workerCount
from mailproxy.errors import ConfigError
from mailproxy.eventloop import lighten
from mailproxy.garbage import settle
from mailproxy.logformat import jsonObserver, textObserver
from mailproxy.logs import Logger, escaped, setLevel
from mailproxy.management import Guard, ManagementAPI, makeFactory
from mailproxy.notify import VARIABLE as NOTIFY_VARIABLE
from mailproxy.notify import Notifier
from mailproxy.reload import Reloader
from mailproxy.seat import Seat
from mailproxy.sources import ProxyReactor, SourceMaker, makeThread

log = Logger()

CONFIG_VARIABLE = "PROXY_CONFIG"


class Options(usage.Options):
    """The command line of `twistd mailproxy`."""

    synopsis = "[--config FILE | --demo]"
    longdesc = "Let mail clients log in at one place and serve each account where it lives."
    optParameters = [
        ["config", "c", None, f"the configuration file (default: ${CONFIG_VARIABLE})"],
        ["log-format", None, "text", "how log lines are written: text or json"],
    ]
    optFlags = [["demo", None, "start two small servers, a proxy, and say what to try"]]

    def postOptions(self) -> None:
        """Find the file to read; the demonstration has its own, whatever the environment says."""
        if self["demo"] and self["config"]:
            raise usage.UsageError("write --config FILE or --demo, not both")
        if not self["demo"]:
            self["config"] = self["config"] or os.environ.get(CONFIG_VARIABLE)
        if not self["config"] and not self["demo"]:
            raise usage.UsageError(f"write --config FILE (or set {CONFIG_VARIABLE}), or --demo")
        if self["log-format"] not in ("text", "json"):
            raise usage.UsageError("--log-format is text or json")
        if self["log-format"] == "json" and self.flags.get("logger"):
            raise usage.UsageError("--logger chooses the format already; leave --log-format out")

    @property
    def flags(self) -> Mapping[str, object]:
        """Twistd's own options, in front of `mailproxy`; none where something else runs us."""
        return self.parent or {}


def makeService(options: Options) -> IService:
    """Build everything; a configuration that cannot be run ends the process in plain words."""
    _setLimits()
    # Until it can reload, it must not die of the signal that asks for it.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    reactor = cast(ProxyReactor, globalReactor)
    lighten(reactor)
    try:
        whole = _makeDemo(reactor) if options["demo"] else _makeConfigured(reactor, options)
    except ConfigError as error:
        raise SystemExit("\n".join(map(escaped, error.problems))) from None
    reactor.callWhenRunning(settle)
    makeObserver = jsonObserver if options["log-format"] == "json" else textObserver
    whole.observer = makeObserver(options.flags, reactor.callFromThread)
    whole.logBy(whole.observer)
    return whole


class Whole(MultiService):
    """All our services.

    :ivar observer: what writes the log; None: what twistd's flags ask for.
    :ivar logBy: hears of it.
    """

    observer: ILogObserver | None = None
    logBy: Callable[[ILogObserver | None], None] = staticmethod(lambda observer: None)

    def setServiceParent(self, parent: Any) -> None:
        """Join the application, which asks for its observer before anything is started."""
        if self.observer is not None and isinstance(parent, Componentized):
            parent.setComponent(ILogObserver, self.observer)
        super().setServiceParent(parent)


def _setLimits() -> None:
    """Let no password reach a core file, and take all the descriptors that we may have."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _makeDemo(reactor: ProxyReactor) -> Whole:
    """Put a proxy in front of the demonstration's servers; what to try is said when all run."""
    from mailproxy import demo  # brings Twisted's mail servers, which nobody else needs

    setup = demo.prepareTemporary(reactor)
    whole = Whole()
    setup.service.setServiceParent(whole)
    _makeProxy(reactor, str(setup.configPath), Path("/")).setServiceParent(whole)
    # Twisted has turned sys.stdout into a log by then; these lines are for pasting.
    reactor.callWhenRunning(print, setup.instructions, file=sys.__stdout__, flush=True)
    return whole


def _makeConfigured(reactor: ProxyReactor, options: Options) -> Whole:
    root = Path(str(options.flags.get("chroot") or "/"))
    return _makeProxy(reactor, options["config"], root)


def _makeProxy(reactor: ProxyReactor, path: str, root: Path) -> Whole:
    """Build the proxy that a configuration file describes; its sockets are bound already.

    :param root: what twistd will make our root directory.
    """

    def read() -> Config:
        return load(Path(path), os.environ)

    config = read()
    if problems := list(missingIn(root, workerCount(config))):
        raise ConfigError(problems)
    setLevel(config.server.log_level)
    inThread = makeThread(reactor)
    make = makeAlone if workerCount(config) == 1 else makeParent
    core = make(reactor, config, SourceMaker(reactor, inThread), inThread)
    reloader = Reloader(core.adopter, read, inThread, core.proxy.clock)
    whole = Whole()
    whole.logBy = core.logBy
    reload = _announced(reactor, whole, core, reloader.reload)
    _setManagement(reactor, config, core, reload)
    for service in (reloader, *core.services):
        service.setServiceParent(whole)
    reactor.callWhenRunning(_welcome, config)
    reactor.callWhenRunning(_obeySignals, reactor, core, reload)
    reactor.callWhenRunning(_watchStart, reactor, core)
    return whole


def _announced(reactor: ProxyReactor, whole: Whole, core: Core, reload: Reload) -> Reload:
    """Tell a service manager, where there is one, of our life and of each reload."""
    manager = os.environ.get(NOTIFY_VARIABLE)
    if not manager:
        return reload
    notifier = Notifier(reactor, manager, core.ready)
    notifier.setServiceParent(whole)
    return lambda: notifier.whileReloading(reload)


def _setManagement(reactor: ProxyReactor, config: Config, core: Core, reload: Reload) -> None:
    """Set what answers behind management's socket."""
    if config.admin is not None and core.admin is not None:
        guard = Guard.fromConfig(config.admin, core.proxy.clock)
        resource = ManagementAPI(core.control(reload), guard).resource()
        core.admin.factory = makeFactory(resource, core.proxy, reactor)


def _watchStart(reactor: ProxyReactor, core: Core) -> None:
    """End with status 1 when clients cannot be served at all."""
    core.ready().addErrback(lambda failure: _giveUp(reactor, failure))


def _giveUp(reactor: ProxyReactor, failure: Failure) -> None:
    """Say why, and stop; twistd itself would end with status 0."""
    error = failure.value
    for problem in error.problems if isinstance(error, ConfigError) else [str(error)]:
        log.critical("the start has failed: {problem}", problem=problem)
    atexit.register(_endWithFailure)
    reactor.stop()


def _endWithFailure() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)


def _obeySignals(reactor: ProxyReactor, core: Core, reload: Reload) -> None:
    """Reload on SIGHUP; end in good order, with status 0, on SIGTERM or SIGINT.

    The second SIGTERM or SIGINT ends the process at once.
    """

    def stop(name: str) -> None:
        log.info(
            "{signal}: shutting down; sessions have {seconds:g} s to end, a second signal ends "
            "them at once",
            signal=name,
            seconds=core.proxy.runtime.config.server.shutdown_grace,
        )
        reactor.stop()

    def end(number: int, _: FrameType | None) -> None:
        for each in (signal.SIGTERM, signal.SIGINT):
            signal.signal(each, signal.SIG_DFL)
        reactor.callFromThread(stop, signal.Signals(number).name)

    def hangUp(number: int, _: FrameType | None) -> None:
        reactor.callFromThread(lambda: reload().addErrback(_notReloaded))

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    signal.signal(signal.SIGHUP, hangUp)


def _notReloaded(failure: Failure) -> None:
    """Say why nothing has changed: a mistake in the file, or one of ours."""
    if not isinstance(failure.value, ConfigError):
        log.failure("the reload failed", failure)
        return
    for problem in failure.value.problems:
        log.warn("not reloaded: {problem}", problem=problem)


def _welcome(config: Config) -> None:
    """Say where clients come in, what carries TLS here, and what somebody should look at."""
    for name, listener in config.listener.items():
        places = ", ".join(listener.bind)
        log.info(
            "listener {name}: {protocol} at {places}",
            name=name,
            protocol=listener.protocol,
            places=places,
        )
    if config.admin is not None:
        log.info("management at {place}", place=config.admin.bind)
    log.info("TLS is moved by the {engine} engine", engine=openssl.engine.name)
    for text in [*warnings(config), *_descriptorWarnings(config)]:
        log.warn("{text}", text=text)


def _descriptorWarnings(config: Config) -> Iterator[str]:
    """Tell when the process may not open what its listeners would let in: two legs a session."""
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    for name, listener in config.listener.items():
        if 2 * Seat(0, workerCount(config)).share(listener.max_connections) > allowed:
            yield (
                f"listener.{name}.max_connections: {listener.max_connections} sessions need two "
                f"descriptors each, and this process may have {allowed}; raise its limit"
            )
