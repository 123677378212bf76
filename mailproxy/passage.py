"""A session without a login: it goes where the configuration sends all of its protocol.

Knows when a client, or a trusted proxy for it, is heard before the backend; must not know any
protocol's words.
"""

from collections.abc import Coroutine
from typing import Any

from mailproxy.errors import BackendFailed, Refusal
from mailproxy.protocols.base import Dismissed
from mailproxy.protocols.client import ProxyClient
from mailproxy.session import Session
from mailproxy.waiting import within


class Passage(Session):
    """One client's connection, bridged from the first byte that is for the backend."""

    async def untilAccepted(self, introduction: Coroutine[Any, Any, None]) -> ProxyClient:
        """Dial at once; the client hears the backend itself.

        Only who may speak for others is heard first: a chain of proxies in a circle, each waiting
        for the next one's greeting, would never count its hops.
        """
        clock, patience = self.resources.clock, self.place.patience
        first = await within(clock, patience, self._arrival(introduction))
        try:
            backend = await self.dial(self.target(None, self.resources.passThrough))
            if first:
                await within(clock, patience, backend.client.catchUp(first))
        except BackendFailed as failed:
            self.reason = str(failed)
            raise Dismissed(Refusal.UNAVAILABLE) from failed
        backend.attempt.succeeded()
        if not first:
            # A backend that had to be told of the client has greeted us: these words are for it.
            self.server.send(backend.client.opening)
        return backend.client

    async def _arrival(self, introduction: Coroutine[Any, Any, None]) -> bytes:
        """Learn who the client is; tells what it has said that is for the backend."""
        await introduction
        self.greeted = True
        return await self.server.hearIntroduction() if self.server.trusting else b""
