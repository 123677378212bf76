"""A client's connection: its requests, one after the other, in order.

Knows how long a connection may wait and when it ends; must not know what an exchange does. Each
exchange works with what holds when its request comes: routes and destinations may have been
changed since the connection began.
"""

from collections.abc import Coroutine
from typing import Any

from twisted.internet.defer import CancelledError, Deferred

from mailproxy.bridge import DRAIN_GRACE
from mailproxy.errors import PeerGone, ProtocolError
from mailproxy.http.deadline import Deadline
from mailproxy.http.delivery import Client
from mailproxy.http.exchange import Exchange
from mailproxy.http.heads import BadMessage
from mailproxy.http.server import HTTPServer
from mailproxy.http.upstream import Upstreams
from mailproxy.logs import Logger
from mailproxy.resources import Ingress, Resources
from mailproxy.tls import describe


class HTTPConnection:
    """One connection of a client, from its accept to its end."""

    log = Logger()

    def __init__(self, server: HTTPServer, ingress: Ingress, resources: Resources) -> None:
        self._leg, self._ingress = server, ingress
        deadline = Deadline(resources.clock)
        self._client = Client(server, ingress, Upstreams(), deadline, self._cancel)
        self._exchange: Exchange | None = None
        self._task: Deferred[None] | None = None
        self._served = 0
        self._late = False

    def start(self, introduction: Coroutine[Any, Any, None]) -> Deferred[None]:
        """Begin.

        :param introduction: what comes before the first request: who the client is, TLS.
        :returns: fires when the connection is over, whatever its end.
        """
        self._leg.whenLost, self._leg.whenStopping = self._lost, self._stop
        self._client.deadline.begin(self._ingress.patience, self._expired)
        self._task = Deferred.fromCoroutine(self._live(introduction))
        return self._task

    async def _live(self, introduction: Coroutine[Any, Any, None]) -> None:
        """Serve until somebody has enough."""
        try:
            await introduction
            while not self._client.last:
                await self._serveNext()
        except (PeerGone, CancelledError, ProtocolError) as error:
            self._closed(error)
        except Exception:
            self.log.failure("session {session} met a bug", session=self._leg.origin.session)
        finally:
            self._finish()

    async def _serveNext(self) -> None:
        """Serve one request."""
        head = await self._nextHead(self._ingress.now())
        resources = self._ingress.now()
        self._served += 1
        most = resources.http.maxRequests
        self._client.last = self._client.last or self._served == most
        self._client.deadline.end()
        self._exchange = Exchange(self._client, resources)
        await self._exchange.run(head)
        self._exchange = None

    async def _nextHead(self, resources: Resources) -> bytes | BadMessage:
        """Read a head, or tell why it cannot be read.

        A connection may be idle for some time; once a head has begun, it must come soon.
        """
        leg, deadline, http = self._leg, self._client.deadline, resources.http
        if leg.blocked:
            # A client that asks on and on, and takes no answer, is not asked what it wants next.
            deadline.begin(http.idle, self._cancel, lambda: leg.untaken)
            await leg.drained()
        if self._served:
            deadline.begin(http.keepalive, self._cancel)
            if not leg.unread:
                await leg.readable()
            deadline.begin(self._ingress.patience, self._expired)
        try:
            return await leg.readHead(http.maxHead)
        except BadMessage as bad:
            return bad
        except CancelledError:
            if self._late and leg.unread:
                return BadMessage("a head that is late", 408)
            raise

    # What happens meanwhile

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _expired(self) -> None:
        self._late = True
        self._cancel()

    def _lost(self) -> None:
        """The client has gone; one that has only ended its side still waits for its answer."""
        if not self._leg.lost:
            self._leg.whenLost = self._lost
        elif self._exchange is not None:
            self._exchange.clientLost()
        else:
            self._cancel()

    def _stop(self) -> None:
        """The process stops: a request in hand is served, and none behind it."""
        self._client.last = True
        if self._exchange is None:
            self._cancel()

    # The end

    def _closed(self, error: BaseException) -> None:
        """Say why a client has never come to a request; a connection that has waited just ends."""
        if self._served or (isinstance(error, CancelledError) and not self._late):
            return
        if isinstance(error, CancelledError):
            error = ProtocolError("nothing came in time")
        self.log.info(
            "session {session} {protocol} {listener} from {client}: no request ({reason})",
            session=self._leg.origin.session,
            protocol=self._ingress.protocol,
            listener=self._ingress.listener,
            client=str(self._leg.origin.client),
            reason=describe(error) if isinstance(error, PeerGone) else str(error),
        )

    def _finish(self) -> None:
        self._leg.whenLost = self._leg.whenStopping = None
        self._client.deadline.close()
        self._client.upstreams.close()
        self._leg.close(DRAIN_GRACE)
