"""A session without a login: it goes where the configuration sends all of its protocol.

Knows when a client, or a trusted proxy for it, is heard before the backend; must not know any
protocol's words.
"""

from collections.abc import Coroutine
from typing import Any

from mailproxy.dial import Backend
from mailproxy.errors import BackendFailed, LimitExceeded, Refusal, Stage
from mailproxy.placement import assign
from mailproxy.protocols.base import Dismissed
from mailproxy.protocols.client import ProxyClient
from mailproxy.session import Session
from mailproxy.waiting import TimedOut, within


class Passage(Session):
    """One client's connection, bridged from the first byte that is for the backend."""

    async def untilAccepted(self, introduction: Coroutine[Any, Any, None]) -> ProxyClient:
        """Dial at once; the client hears the backend itself.

        Only who may speak for others is heard first: a chain of proxies in a circle, each waiting
        for the next one's greeting, would never count its hops.
        """
        clock, patience = self.resources.clock, self.ingress.patience
        first = await within(clock, patience, self._arrival(introduction))
        try:
            self.resources = self.ingress.now()
            target = assign(self, self.resources, None, self.resources.passThrough)
            if target.header and self.server.origin.nameless:
                # The header would name the peer: the stream would have that one's rights.
                raise BackendFailed(Stage.UNSUPPORTED, "nobody tells whose stream it is")
            backend = await self.dial(target)
            if first:
                await self._catchUp(backend, first)
        except BackendFailed as failed:
            self.reason = str(failed)
            raise Dismissed(Refusal.UNAVAILABLE) from failed
        if backend.client.opening:
            backend.attempt.succeeded()
        else:
            backend.attempt.reached()
        if not first:
            # A backend that had to be told of the client has greeted us: these words are for it.
            self.server.send(backend.client.opening)
        return backend.client

    async def _catchUp(self, backend: Backend[ProxyClient], first: bytes) -> None:
        """Bring a backend to where the client is already."""
        clock, patience = self.resources.clock, self.ingress.patience
        try:
            await within(clock, patience, backend.client.catchUp(first))
        except TimedOut:
            backend.attempt.failed(Stage.GREETING, self.server.origin.client.neighbourhood)
            raise BackendFailed(Stage.GREETING, "no answer in time") from None
        except BackendFailed as failed:
            backend.attempt.failed(failed.stage, self.server.origin.client.neighbourhood)
            raise

    async def _arrival(self, introduction: Coroutine[Any, Any, None]) -> bytes:
        """Learn who the client is; tells what it has said that is for the backend."""
        await introduction
        self.greeted = True
        try:
            return await self.server.hearIntroduction() if self.server.trusting else b""
        except LimitExceeded:
            raise Dismissed(Refusal.TOO_BIG) from None
