"""What stands behind management, signals and reloads: a proxy in this process, or a fleet of them.

Knows what each is built of; must not know who asks.
"""

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TypeAlias, cast

import attrs
from twisted.application.service import IService
from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import ILogObserver
from zope.interface import implementer

from mailproxy.adoption import Adopter, LocalAdopter
from mailproxy.config import Config
from mailproxy.config.bind import Bind
from mailproxy.config.model import SourceKind
from mailproxy.control import IControl, LocalControl
from mailproxy.errors import ConfigError, MappingError
from mailproxy.logformat import LineObserver
from mailproxy.mapping.file import InThread
from mailproxy.mapping.interfaces import IMappingSource
from mailproxy.proxy import Proxy
from mailproxy.seat import Seat
from mailproxy.served import PROTOCOLS
from mailproxy.sockets import ListeningSocket, bindSockets
from mailproxy.sources import ProxyReactor, SourceMaker
from mailproxy.workers.adopter import FleetAdopter
from mailproxy.workers.control import FleetControl
from mailproxy.workers.fleet import Fleet
from mailproxy.workers.handle import WorkerReactor, spawn
from mailproxy.workers.recruiter import Recruiter
from mailproxy.workers.report import Report
from mailproxy.workers.setup import KeyFiles
from mailproxy.workers.shared import Shared
from mailproxy.workers.sockets import HeldSockets, holdSockets

__all__ = ["Core", "Reload", "makeAlone", "makeParent", "missingIn", "workerCount"]

Reload: TypeAlias = Callable[[], Deferred[list[str]]]
"""Takes the configuration file as it is now into use; tells which keys need a restart."""


def _atOnce() -> Deferred[None]:
    return succeed(None)


def _heedless(observer: ILogObserver | None) -> None:
    """Log as ever: it is this process that does."""


@attrs.frozen
class Core:
    """Everything that serves.

    :ivar proxy: says what holds; its certificates are management's, too.
    :ivar adopter: takes another configuration into use.
    :ivar control: makes what management asks, given a way to reload.
    :ivar services: to be started in this order; more may be needed for management.
    :ivar admin: management's socket, if there is one; its factory is missing.
    :ivar logBy: is told what writes the log.
    :ivar ready: fires when clients are served for the first time; fails when that cannot be.
    """

    proxy: Proxy
    adopter: Adopter
    control: Callable[[Reload], IControl]
    services: list[IService]
    admin: ListeningSocket | None = None
    logBy: Callable[[ILogObserver | None], None] = _heedless
    ready: Callable[[], Deferred[None]] = _atOnce


def workerCount(config: Config) -> int:
    """How many processes serve; by default one for each core that we may use."""
    return config.server.threads or cores(Path("/"))


def cores(root: Path) -> int:
    """How many cores this process may use, by its affinity and its control groups' shares of time.

    Its own group and all those around it count, as a service's and its slice's.

    :param root: of the file systems that the kernel tells it by.
    """
    allowed = len(os.sched_getaffinity(0))
    try:
        group = (root / "proc/self/cgroup").read_text("ascii").rpartition(":")[2].strip()
    except OSError:
        return allowed
    top = root / "sys/fs/cgroup"
    own = top / group.lstrip("/")
    for folder in (own, *own.parents):
        if folder.is_relative_to(top):
            allowed = min(allowed, _shareOf(folder) or allowed)
    return allowed


def _shareOf(folder: Path) -> int | None:
    """How many cores a control group may use, at least one; None when nothing limits it."""
    try:
        quota, period = (folder / "cpu.max").read_text("ascii").split()
    except (OSError, ValueError):
        return None
    return None if quota == "max" else max(1, round(int(quota) / int(period)))


def missingIn(root: Path, count: int) -> Iterator[str]:
    """Say what a directory lacks to be our root: nothing can be had from outside of it later.

    :param count: of the processes that serve.
    """
    if root.resolve() == Path("/"):
        return
    if not (root / "dev/null").exists():
        yield f"--chroot: {root} has no dev/null, without which nobody can be accepted; make one"
    if count > 1 and not os.path.lexists(f"{root}{sys.executable}"):
        yield (
            f"--chroot: worker processes would be started inside of {root}, where there is no "
            f"{sys.executable}; write server.threads = 1"
        )


def makeAlone(
    reactor: ProxyReactor, config: Config, sources: SourceMaker, inThread: InThread
) -> Core:
    """Serve in this process; the sockets are bound already.

    :raises ConfigError: when the configuration cannot be served.
    """
    proxy = Proxy(reactor, PROTOCOLS, config, sources.make(config))
    listening = bindSockets(reactor, [*_places(config), *_adminPlace(config)], proxy.bound)
    factories = {f"listener.{each.name}.bind": each.factory for each in proxy.listeners}
    admin = None
    for each in listening:
        if each.key in factories:
            each.factory = factories[each.key]
        else:
            admin = each
    return Core(
        proxy=proxy,
        adopter=LocalAdopter(proxy, sources, inThread),
        control=lambda reload: LocalControl(proxy, reload),
        services=[proxy, *listening],
        admin=admin,
    )


def makeParent(
    reactor: ProxyReactor, config: Config, sources: SourceMaker, inThread: InThread
) -> Core:
    """Serve in several processes; the sockets are bound, the workers start with the service.

    Everything that a worker will build is built here once, so that what cannot be is said now.

    :raises ConfigError: when the configuration cannot be served.
    """
    count = workerCount(config)
    if config.mapping.kind is not SourceKind.FILE:
        sources.make(config)  # a missing driver or plugin is found now, not by every worker
    files = KeyFiles()
    proxy = Proxy(reactor, PROTOCOLS, config, _Elsewhere(), Seat(0, count, files.read))
    held, admin = _bind(reactor, config, proxy, count)
    shared = Shared(proxy.clock)
    recruiter = Recruiter(held, shared, count, partial(spawn, cast(WorkerReactor, reactor)))
    fleet = Fleet(proxy.clock, recruiter.plan(), shared.hooks(), config.server.shutdown_grace)
    shared.fleet, fleet.heard = fleet, shared.counted
    shared.limitOf = lambda name: proxy.runtime.config.listener[name].max_connections
    adopter = FleetAdopter(fleet, proxy, files, inThread)
    adopter.adopted = shared.adopted
    recruiter.adopter, recruiter.bound = adopter, proxy.bound
    control = partial(FleetControl, fleet, shared, adopter, lambda: proxy.runtime.rules)
    return Core(
        proxy=proxy,
        adopter=adopter,
        control=control,
        services=[held, fleet, Report(control(_noReload), proxy.clock), *filter(None, [admin])],
        admin=admin,
        logBy=partial(_logBy, shared),
        ready=fleet.ready,
    )


def _logBy(shared: Shared, observer: object) -> None:
    """Let workers make the lines, where that is all that is made of them."""
    if isinstance(observer, LineObserver):
        shared.observer = observer


def _noReload() -> Deferred[list[str]]:
    raise NotImplementedError("reports reload nothing")


def _bind(
    reactor: ProxyReactor, config: Config, proxy: Proxy, count: int
) -> tuple[HeldSockets, ListeningSocket | None]:
    """Bind all sockets; every place that cannot be had is named."""
    held: HeldSockets | None = None
    listening: list[ListeningSocket] = []
    problems: list[str] = []
    try:
        held = holdSockets(reactor, _places(config), proxy.bound, count)
    except ConfigError as error:
        problems += error.problems
    try:
        listening = bindSockets(reactor, _adminPlace(config), proxy.bound)
    except ConfigError as error:
        problems += error.problems
    if held is None or problems:
        for each in listening:
            each.release()
        if held is not None:
            held.close()
        raise ConfigError(problems)
    return held, listening[0] if listening else None


def _places(config: Config) -> Iterator[tuple[str, Bind]]:
    for name, listener in config.listener.items():
        for place in listener.addresses:
            yield f"listener.{name}.bind", place


def _adminPlace(config: Config) -> Iterable[tuple[str, Bind]]:
    return [] if config.admin is None else [("admin.bind", config.admin.address)]


@implementer(IMappingSource)
class _Elsewhere:
    """The mapping of a parent, who routes nobody: it is with the workers."""

    def lookup(self, identifier: str) -> Deferred[str | None]:
        """Fail."""
        return fail(MappingError("only workers look accounts up"))
