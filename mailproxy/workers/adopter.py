"""A configuration, and a mapping file that was read again, in all workers or in none.

Knows who must be ready before anybody adopts; must not know how a worker gets ready.
"""

from collections.abc import Awaitable, Callable
from typing import Any

import attrs
from twisted.internet.defer import Deferred, DeferredList, succeed
from twisted.python.failure import Failure

from mailproxy.adoption import Adoption
from mailproxy.config.model import Config
from mailproxy.errors import ConfigError, MailProxyError, PeerGone
from mailproxy.logs import Logger
from mailproxy.mapping.file import InThread
from mailproxy.proxy import Proxy, Runtime
from mailproxy.workers.fleet import ANSWER_PATIENCE, START_PATIENCE, Fleet
from mailproxy.workers.handle import Handle
from mailproxy.workers.setup import Given, KeyFiles, forWorkers

__all__ = ["FleetAdopter"]

ATTEMPTS = 3
"""So often all workers read a mapping file that changes meanwhile."""


@attrs.frozen
class _FleetAdoption:
    """What all workers have prepared.

    :ivar settled: fires when it is known what becomes of it.
    """

    owner: "FleetAdopter"
    runtime: Runtime
    given: Given
    handles: list[Handle]
    settled: Deferred[None]

    def adopt(self) -> Deferred[None]:
        """Let every worker adopt; one that does not is replaced by one that begins with it."""
        return Deferred.fromCoroutine(self._adopt())

    async def _adopt(self) -> None:
        try:
            self.owner.use(self.runtime, self.given)
            await self.owner.settle(self.handles, "adopt")
        finally:
            self.settled.callback(None)

    def discard(self) -> None:
        """Let every worker forget it."""
        done = Deferred.fromCoroutine(self.owner.settle(self.handles, "discard"))
        done.addBoth(lambda _: self.settled.callback(None))


class FleetAdopter:
    """Prepares for all workers.

    :param proxy: the parent's own, which serves nobody: its runtime says what holds, its
        certificates are management's, and the generated one is everybody's.
    :param files: notes what that proxy reads of certificates.
    :ivar given: what a worker that is started now begins with.
    :ivar adopted: called when something else holds, with what held before.
    """

    log = Logger()

    def __init__(self, fleet: Fleet, proxy: Proxy, files: KeyFiles, inThread: InThread) -> None:
        self._fleet, self._proxy, self._files, self._inThread = fleet, proxy, files, inThread
        self.given = self._give(proxy.runtime.config)
        self.adopted: Callable[[Config], None] = lambda former: None

    @property
    def config(self) -> Config:
        """The configuration in force."""
        return self._proxy.runtime.config

    def prepare(self, config: Config, *, sameStore: bool = False) -> Deferred[Adoption]:
        """Let every worker get ready; no worker is started until the outcome is settled."""
        prepared: Deferred[Adoption] = Deferred()
        self._fleet.turns.alone(lambda: self._hold(prepared, config, sameStore))
        return prepared

    async def _hold(self, prepared: Deferred[Adoption], config: Config, sameStore: bool) -> None:
        """Keep the turn for as long as an adoption is not settled."""
        try:
            adoption = await self._prepare(config, sameStore)
        except Exception:
            prepared.errback(Failure())
            return
        if prepared.called:  # nobody waits any more
            adoption.discard()
        else:
            prepared.callback(adoption)
        await adoption.settled

    async def _prepare(self, config: Config, sameStore: bool) -> _FleetAdoption:
        source = self._proxy.runtime.source
        runtime = await self._inThread(lambda: self._proxy.makeRuntime(config, source))
        given = self._give(config, sameStore)
        handles = await self._agree(lambda each: each.watch(each.hand(START_PATIENCE, given)))
        return _FleetAdoption(self, runtime, given, handles, Deferred())

    def _give(self, config: Config, sameStore: bool = False) -> Given:
        """Say it for workers, with what the parent has just read or made for it."""
        files, spare = self._files.taken(), self._proxy.spare.written()
        return Given(forWorkers(config), files, sameStore, spare)

    async def _agree(
        self, prepare: Callable[[Handle], Awaitable[Any]], more: Handle | None = None
    ) -> list[Handle]:
        """Have all prepare, with the same mapping in the end; tells who has.

        :raises MailProxyError: when one cannot; then all have forgotten it.
        """
        handles = [*self._fleet.serving, *([more] if more else [])]
        for _ in range(ATTEMPTS):
            asked = [Deferred.fromCoroutine(_awaited(prepare(each))) for each in handles]
            results = await DeferredList(asked, consumeErrors=True)
            failures = [result for done, result in results if not done]
            failures = [each for each in failures if each.check(PeerGone) is None]
            ready = [each for each, (done, _) in zip(handles, results, strict=True) if done]
            digests = {result for done, result in results if done}
            if not failures and len(digests) <= 1:
                return ready
            await self.settle(ready, "discard")
            if failures:
                failures[0].raiseException()
        raise ConfigError(["mapping.file.path: it changes while it is read; try again"])

    async def settle(self, handles: list[Handle], outcome: str) -> None:
        """Tell all what becomes of it; who does not hear must not go on with something else."""
        telling = [Deferred.fromCoroutine(self._settleOne(each, outcome)) for each in handles]
        await DeferredList(telling, consumeErrors=True)

    async def _settleOne(self, handle: Handle, outcome: str) -> None:
        try:
            await handle.ask(ANSWER_PATIENCE, outcome)
        except PeerGone:
            return
        except (MailProxyError, RuntimeError) as error:
            text = "worker {worker} did not {outcome}: it is started anew ({error})"
            self.log.warn(text, worker=handle.number + 1, outcome=outcome, error=error)
            handle.kill()

    def use(self, runtime: Runtime, given: Given) -> None:
        """Let this hold in the parent, and for workers that are started from now on."""
        former, self.given = self.config, attrs.evolve(given, sameStore=False)
        self._proxy.adopt(runtime)
        self._fleet.grace = runtime.config.server.shutdown_grace
        self.adopted(former)

    async def rereadMapping(self, more: Handle | None = None) -> bool:
        """Have all workers read the mapping file again; for a turn alone.

        :param more: one that does not serve yet.
        :returns: whether there is such a file.
        """
        found = [False]

        async def prepare(handle: Handle) -> Any:
            digest = await handle.watch(handle.ask(START_PATIENCE, "reviseMapping"))
            found[0] = found[0] or digest is not None
            return digest

        handles = await self._agree(prepare, more)
        if found[0]:
            await self.settle(handles, "adopt")
        return found[0]

    async def agree(self, handle: Handle, begun: Given, digest: str) -> None:
        """Bring a worker up to the configuration and the mapping of the others; for a turn alone.

        :param begun: what it has begun with.
        :param digest: of the mapping that it has read then.
        """
        if begun is not self.given:
            digest = await handle.watch(handle.hand(START_PATIENCE, self.given))
            await handle.ask(ANSWER_PATIENCE, "adopt")
        if self._fleet.serving and digest != await self._fleet.reachOne("digest"):
            await self.rereadMapping(handle)

    def close(self) -> Deferred[None]:
        """Keep nothing: each worker lets go of its own."""
        return succeed(None)


async def _awaited(work: Awaitable[Any]) -> Any:
    return await work
