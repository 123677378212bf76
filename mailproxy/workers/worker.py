"""What a worker process does for its parent.

Knows the proxy of this process and what may be asked of it; must not know other workers, nor where
the configuration comes from.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
from twisted.internet.defer import Deferred, DeferredList, succeed
from twisted.internet.interfaces import IProtocolFactory

from mailproxy.adoption import Adoption, LocalAdopter, Stores
from mailproxy.control import LocalControl
from mailproxy.errors import ConfigError, MailProxyError, Stage
from mailproxy.health import CircuitState, Kind, News
from mailproxy.identity import redactionKey
from mailproxy.listener import Listener
from mailproxy.logformat import Style
from mailproxy.logs import Logger, setLevel
from mailproxy.mapping.file import Change, InThread
from mailproxy.mapping.interfaces import IMappingSource, Revision
from mailproxy.mapping.shared import Rewrite, SharedFileSource
from mailproxy.proxy import ProtocolClasses, Proxy
from mailproxy.seat import Seat
from mailproxy.sources import ProxyReactor
from mailproxy.tls.spare import Spare
from mailproxy.waiting import TimedOut, within
from mailproxy.workers import merge
from mailproxy.workers.setup import Given, KeyFiles, Setup
from mailproxy.workers.sockets import InheritedSocket
from mailproxy.workers.wire import Methods, Peer

__all__ = ["Parts", "Worker"]


GOODBYE_PATIENCE = 2.0
"""Seconds that the parent has to hear our last words."""


@attrs.frozen
class Parts:
    """What a worker is built of.

    :ivar stores: makes the mapping's source.
    :ivar stop: ends the process in good order.
    :ivar abort: ends it at once.
    """

    reactor: ProxyReactor
    protocols: Mapping[str, ProtocolClasses]
    stores: Callable[[bool], Stores]
    inThread: InThread
    stop: Callable[[], None]
    abort: Callable[[], None]


@attrs.frozen
class _RevisionAdoption:
    """A mapping that was read again, by itself."""

    proxy: Proxy
    revision: Revision

    def adopt(self) -> Deferred[None]:
        """Use it."""
        self.revision.use()
        self.proxy.cache.invalidate()
        return succeed(None)

    def discard(self) -> None:
        """Forget it."""
        self.revision.discard()


class Worker:
    """One worker process, from the first word of its parent to its end.

    :ivar peer: our end of the connection to the parent.
    :ivar written: is told our number, and how lines of the log are to be written.
    """

    log = Logger()
    _proxy: Proxy
    _control: LocalControl
    _adopter: LocalAdopter

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self.written: Callable[[int, Style | None], None] = lambda number, style: None
        self.peer = Peer(self._methods(), {}, self._orphaned, self._take)
        self._files, self._spare = KeyFiles({}), Spare()
        self._sockets: list[InheritedSocket] = []
        self._adoption: Adoption | None = None
        self._begun = self._ending = False

    def _methods(self) -> Methods:
        """What the parent may ask: what is written here, and what management asks of a proxy."""
        own: Methods = {
            each.__name__.strip("_"): each
            for each in (
                self._serve,
                self._rest,
                self._end,
                self._alive,
                self._ping,
                self._adopt,
                self._discard,
                self._reviseMapping,
                self._digest,
                self._follow,
                self._learn,
                self._peek,
                self._hold,
                self._lend,
                self._grow,
                self._hear,
                self._health,
                self._restore,
            )
        }
        return {**own, **{name: self._controlled(name) for name in _CONTROLLED}}

    def _controlled(self, name: str) -> Callable[..., Any]:
        return lambda *words: getattr(self._control, name)(*words)

    # Beginning

    def _take(self, value: object) -> Deferred[Any]:
        if isinstance(value, Setup):
            return Deferred.fromCoroutine(self._begin(value))
        if isinstance(value, Given):
            return Deferred.fromCoroutine(self._prepare(value))
        raise TypeError(f"{type(value).__name__} is of no use here")

    async def _begin(self, setup: Setup) -> str:
        """Build everything; nobody is accepted yet.

        :returns: the mapping's digest.
        """
        redactionKey(setup.redaction)
        self.written(setup.number + 1, setup.style)
        config = setup.given.config
        setLevel(config.server.log_level)
        self._furnish(setup.given)
        stores = self._parts.stores(setup.number == 0)
        source = await stores.remake(config)
        seat = Seat(
            setup.number, setup.of, self._files.read, self._borrow, self._spare, warns=False
        )
        self._proxy = Proxy(self._parts.reactor, self._parts.protocols, config, source, seat)
        self._proxy.bound.update(setup.bound)
        self._proxy.health.tell = self._tellNews
        self._tune(source)
        self._control = LocalControl(self._proxy, self._noReload)
        self._adopter = LocalAdopter(self._proxy, stores, self._parts.inThread)
        factories: dict[str, IProtocolFactory] = {
            f"listener.{each.name}.bind": each.factory for each in self._proxy.listeners
        }
        for each in setup.sockets:
            factory = factories[each.key]
            self._sockets.append(InheritedSocket(self._parts.reactor, each, factory))
        self._begun = True
        return self._digest()

    def _furnish(self, given: Given) -> None:
        """Have what is needed to build from a configuration."""
        self._files.replace(given.files)
        self._spare.take(given.spare)

    def _tune(self, source: IMappingSource) -> None:
        if isinstance(source, SharedFileSource):
            source.tell = self._tellRewrite

    def _noReload(self) -> Deferred[list[str]]:
        raise MailProxyError("the parent reloads")

    def _serve(self, seats: Sequence[int]) -> None:
        """Accept the clients of these seats, and those who come to sockets for all."""
        if not self._proxy.running:
            self._proxy.startService()
        for each in self._sockets:
            if each.seat is None or each.seat in seats:
                each.open()

    async def _restNow(self, seats: Sequence[int]) -> None:
        await DeferredList([each.pause() for each in self._sockets if each.seat in seats])

    def _rest(self, seats: Sequence[int]) -> Deferred[None]:
        """Leave the clients of these seats to their own worker again."""
        return Deferred.fromCoroutine(self._restNow(seats))

    # Another configuration

    async def _prepare(self, given: Given) -> str:
        """Make ready for it; the mapping's digest is what it would be."""
        self._discard()
        self._furnish(given)
        adoption = await self._adopter.prepare(given.config, sameStore=given.sameStore)
        self._adoption = adoption
        return self._digestOf(adoption)

    async def _reviseMappingNow(self) -> str | None:
        self._discard()
        source = self._proxy.runtime.source
        if not isinstance(source, SharedFileSource):
            return None
        revision = await source.revise()
        self._adoption = _RevisionAdoption(self._proxy, revision)
        return revision.digest.hex()

    def _reviseMapping(self) -> Deferred[str | None]:
        """Read the mapping again, to be adopted; None where there is no copy to be read."""
        return Deferred.fromCoroutine(self._reviseMappingNow())

    def _digestOf(self, adoption: Adoption) -> str:
        revision = getattr(adoption, "revision", Revision())
        runtime = getattr(adoption, "runtime", self._proxy.runtime)
        source = runtime.source
        if revision.digest:
            return bytes(revision.digest).hex()
        return source.digest.hex() if isinstance(source, SharedFileSource) else ""

    async def _adoptNow(self) -> None:
        adoption, self._adoption = self._adoption, None
        if adoption is None:
            raise ConfigError(["there is nothing to adopt"])
        await adoption.adopt()
        self._tune(self._proxy.runtime.source)
        setLevel(self._proxy.runtime.config.server.log_level)

    def _adopt(self) -> Deferred[None]:
        """Take what has been prepared into use."""
        return Deferred.fromCoroutine(self._adoptNow())

    def _discard(self) -> None:
        """Forget what has been prepared."""
        adoption, self._adoption = self._adoption, None
        if adoption is not None:
            adoption.discard()

    # The mapping

    def _digest(self) -> str:
        """Of the mapping in use; empty where there is no copy."""
        source = self._proxy.runtime.source
        return source.digest.hex() if isinstance(source, SharedFileSource) else ""

    def _tellRewrite(self, rewrite: Rewrite) -> None:
        changes = [[each.identifier, each.destination] for each in rewrite.changes]
        facts = {"base": rewrite.base.hex(), "digest": rewrite.digest.hex(), "changes": changes}
        self.peer.say("rewrite", facts)

    def _follow(self, facts: Mapping[str, Any]) -> Deferred[None] | None:
        """Have in memory what another worker has written."""
        source = self._proxy.runtime.source
        if not isinstance(source, SharedFileSource):
            return None
        changes = tuple(Change(*each) for each in facts["changes"])
        base, digest = bytes.fromhex(facts["base"]), bytes.fromhex(facts["digest"])
        return source.follow(Rewrite(base, digest, changes))

    def _learn(self, identifier: str, destination: str | None) -> None:
        """Know what was written of an account; None: it was removed."""
        normalized = self._proxy.runtime.rules.normalize(identifier)
        self._proxy.cache.learn(normalized, destination)

    def _peek(self, identifier: str) -> bool:
        """Whether an account's place is remembered."""
        return self._proxy.cache.peek(self._proxy.runtime.rules.normalize(identifier))

    # What all workers know

    def _hold(self, identifier: str, seconds: float) -> None:
        """Let an account's logins wait; it is normalized already."""
        self._proxy.registry.hold(identifier, seconds)

    def _tellNews(self, news: News) -> None:
        stage = None if news.stage is None else news.stage.value
        facts = [news.destination, news.kind.value, news.probe, stage, news.client]
        self.peer.say("news", facts)

    def _hear(self, facts: Sequence[Any]) -> None:
        """Take another worker's news of a destination."""
        destination, kind, probe, stage, client = facts
        known = None if stage is None else Stage(stage)
        self._proxy.health.hear(News(destination, Kind(kind), probe, known, client))

    def _health(self) -> list[Any]:
        """Tell all that is known of destinations."""
        return [attrs.astuple(each) for each in self._proxy.health.export()]

    def _restore(self, states: Sequence[Sequence[Any]]) -> None:
        """Begin with what another worker knows."""
        self._proxy.health.restore(
            CircuitState(name, failures, tuple(clients), hostLevel, opened, probed)
            for name, failures, clients, hostLevel, opened, probed in states
        )

    # Room

    def _listener(self, name: str) -> Listener:
        return next(each for each in self._proxy.listeners if each.name == name)

    def _borrow(self, listener: str) -> Deferred[int]:
        """Ask the others for room, by way of the parent; without one there is none."""
        return Deferred.fromCoroutine(self._borrowNow(listener))

    async def _borrowNow(self, listener: str) -> int:
        try:
            return int(await self.peer.ask("borrow", listener))
        except MailProxyError:
            return 0

    def _lend(self, listener: str) -> int:
        """Give room to another worker."""
        return self._listener(listener).lend()

    def _grow(self, listener: str, places: int) -> None:
        """Have more room, or less."""
        self._listener(listener).share += places

    # The end

    def _alive(self) -> None:
        """Say that we are alive."""

    def _ping(self) -> merge.Counts:
        """Say it, and all counts."""
        return merge.samples(self._proxy.metrics.families())

    def _end(self) -> None:
        """Drain, then end the process."""
        self._ending = True
        self._parts.stop()

    def _orphaned(self) -> None:
        """Drain without a parent; at its end in the middle of a drain, end at once as it did."""
        if self._ending:
            self._parts.abort()
        else:
            self.log.warn("the parent is gone")
            self._end()

    async def _askGoodbye(self) -> None:
        await self.peer.ask("goodbye")

    async def goodbye(self) -> None:
        """Wait until the parent has heard what was said so far; not for long."""
        try:
            await within(self._parts.reactor, GOODBYE_PATIENCE, self._askGoodbye())
        except (MailProxyError, TimedOut):
            return

    def stop(self) -> Deferred[Any]:
        """Accept nobody, and end the sessions, each in its time."""
        if not self._begun:
            return succeed(None)
        stopping = [each.close() for each in self._sockets]
        if self._proxy.running:
            stopping.append(self._proxy.stopService())
        stopping.append(self._adopter.close())
        return DeferredList(stopping)


_CONTROLLED = (
    "stats",
    "destinations",
    "resetDestination",
    "mapping",
    "setMapping",
    "removeMapping",
    "reloadMappings",
    "invalidate",
    "connections",
    "kick",
    "delay",
)
"""Of `IControl`, what a worker answers for itself."""
