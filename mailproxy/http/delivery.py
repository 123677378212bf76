"""A request on its way to a backend, up to the head of the answer.

Knows which connection to use, when a request may be sent again and whom to blame; must not know
what the client is told.
"""

from collections.abc import Callable

import attrs
import h11
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from mailproxy.dial import Backend, Target
from mailproxy.errors import BackendFailed, PeerGone, Stage
from mailproxy.health import Attempt
from mailproxy.http import forward
from mailproxy.http.deadline import Deadline
from mailproxy.http.intake import Intake
from mailproxy.http.messages import IDEMPOTENT, Request, Response
from mailproxy.http.server import HTTPServer
from mailproxy.http.upstream import HTTPClient, Upstreams
from mailproxy.origin import Origin
from mailproxy.resources import Ingress, Resources

SWITCHING = 101
"""The status behind which another protocol is spoken."""

MAX_INTERIMS = 100
"""Interim responses to one request."""


@attrs.define
class Client:
    """A client's connection, as its exchanges see it.

    :ivar upstreams: the backends' connections that wait for its next request.
    :ivar deadline: for the wait of now.
    :ivar cancel: ends what is being done for it.
    :ivar last: whether no request will be served behind the one in hand.
    """

    leg: HTTPServer
    ingress: Ingress
    upstreams: Upstreams
    deadline: Deadline
    cancel: Callable[[], None]
    last: bool = False


@attrs.frozen
class Callbacks:
    """Who is told of what happens while the answer is waited for.

    :ivar interim: of each interim response.
    :ivar stalled: that nothing has moved for too long.
    :ivar broken: that the client has gone amid its body, or sends nonsense.
    """

    interim: Callable[[Response], None]
    stalled: Callable[[], None]
    broken: Callable[[Exception], None]


class Delivery:
    """Brings one request to its backend.

    :ivar upstream: the connection in use; None when there is none.
    :ivar machine: what has written the request on it, and reads the answer.
    """

    machine: h11.Connection
    _origin: Origin

    def __init__(
        self,
        client: Client,
        resources: Resources,
        intake: Intake,
        name: bytes,
        callbacks: Callbacks,
    ) -> None:
        self._client, self._resources, self._intake = client, resources, intake
        self._name, self._callbacks = name, callbacks
        self.upstream: HTTPClient | None = None
        self._attempt: Attempt | None = None
        self._uploading: Deferred[None] | None = None

    async def ask(self, request: Request, target: Target) -> Response:
        """Send the request and wait for the head of the final answer, or of a switch.

        A connection that has waited may have been closed by the backend at the moment at which we
        use it: a request that can be repeated is, once, on a fresh one.

        :raises BackendFailed: when no sound answer comes.
        :raises BadMessage: when the client's body is malformed from its beginning.
        """
        self._origin = self._originOf(request)
        self.upstream = self._client.upstreams.take(target)
        if self.upstream is not None:
            try:
                self._attempt = self._resources.dialer.health.admit(target.destination)
                return await self._converse(self.upstream, request, target)
            except BackendFailed as failed:
                if not (failed.retry and self._isRepeatable(request)):
                    raise
                self.close()  # the body waits for the next connection
        upstream = await self._dial(target)
        try:
            return await self._converse(upstream, request, target)
        except BackendFailed as failed:
            if failed.retry:
                self._blame(failed)
            raise

    def _originOf(self, request: Request) -> Origin:
        """Tell where a request comes from; one that goes in a circle ends here."""
        origin = self._client.leg.origin
        hops = forward.hopsLeft(request, origin.ttl)
        if hops <= 1:
            raise BackendFailed(Stage.LOOP, "no hop is left: proxies send requests in a circle")
        return origin if hops == origin.ttl else attrs.evolve(origin, ttl=hops)

    def _isRepeatable(self, request: Request) -> bool:
        return request.method in IDEMPOTENT and not self._intake.consumed

    async def _dial(self, target: Target) -> HTTPClient:
        """Open a connection to the backend, and note how long that took."""
        resources = self._resources
        self._client.deadline.end()
        began = resources.clock.seconds()
        backend: Backend[HTTPClient] = await resources.dialer.open(target, self._origin)
        self.upstream, self._attempt = backend.client, backend.attempt
        resources.metrics.backendReady(target.destination, resources.clock.seconds() - began)
        # A request may take its time there: that nobody is kept out for so long.
        backend.attempt.connected()
        return backend.client

    async def _converse(self, upstream: HTTPClient, request: Request, target: Target) -> Response:
        http, deadline = self._resources.http, self._client.deadline
        deadline.begin(http.idle, self._callbacks.stalled)
        self.machine = h11.Connection(h11.CLIENT)
        upstream.send(self._written(self._head(request, target), self._intake.first()))
        if not self._intake.ended and self._uploading is None:
            self._uploading = Deferred.fromCoroutine(self._upload())
            if self._uploading.called:
                await self._uploading  # ended at once: by an error
            self._uploading.addErrback(self._uploadFailed)
        return await self._hear(upstream, request.method)

    async def _hear(self, upstream: HTTPClient, method: bytes) -> Response:
        """Wait for the final answer.

        What comes before it is passed on whether the client takes it or not: so it is limited, all
        together as one head is.
        """
        left = most = self._resources.http.maxHead
        for count in range(MAX_INTERIMS + 1):
            response = await upstream.readResponse(most, self.machine, method)
            if self._attempt is not None:
                self._attempt.succeeded()
            self._client.deadline.progress()
            if not response.isInterim or response.status == SWITCHING:
                return response
            left -= response.size
            if left < 0 or count == MAX_INTERIMS:
                break
            self._callbacks.interim(response)
        raise BackendFailed(Stage.ANSWER, "too many interim answers")

    def _head(self, request: Request, target: Target) -> h11.Request:
        http = self._resources.http
        terms = forward.Terms(
            request=self._name,
            keepsForwarded=self._client.ingress.listener in http.keepsForwarded,
            forwarded=target.destination in http.forwarded,
            keepsExpect=not (request.isOld or self._intake.continued),
            hops=None if target.header else self._origin.ttl - 1,
        )
        return forward.toBackend(request, terms, self._origin)

    def _written(self, head: h11.Request | None, payload: bytes) -> bytes:
        """Write a head, if it has not been written, payload, and the end if that has come."""
        data = self.machine.send(head) if head is not None else b""
        if payload:
            data += self.machine.send(h11.Data(data=payload))
        if self._intake.ended:
            data += self.machine.send(h11.EndOfMessage(headers=self._intake.trailers))
        return data

    async def _upload(self) -> None:
        """Let the rest of the body follow as it comes, while the answer is waited for."""
        while not self._intake.ended:
            payload = await self._intake.next()
            upstream = self.upstream
            if upstream is None or upstream.lost:
                return
            upstream.send(self._written(None, payload))
            if upstream.blocked:
                self.expectTaking()
                await _drained(upstream)
                self._client.deadline.progress()

    def expectTaking(self) -> None:
        """Begin to wait for a peer to take what it was sent; one that takes it slowly may."""
        idle = self._resources.http.idle
        self._client.deadline.begin(idle, self._callbacks.stalled, self._untaken)

    def _untaken(self) -> tuple[int, int]:
        """What changes when a peer that holds us up takes something."""
        return self._client.leg.untaken, 0 if self.upstream is None else self.upstream.untaken

    def _uploadFailed(self, failure: Failure) -> None:
        if isinstance(failure.value, Exception) and failure.check(CancelledError) is None:
            self._callbacks.broken(failure.value)

    @property
    def isUploading(self) -> bool:
        """Whether some of the body is still to go."""
        return self._uploading is not None and not self._uploading.called

    @property
    def isHeldUp(self) -> bool:
        """Whether the backend does not take what it was sent."""
        return self.upstream is not None and self.upstream.blocked

    def _blame(self, failed: BackendFailed) -> None:
        """Note a backend that has closed a fresh connection without a byte of an answer.

        What else goes wrong behind the door may be one request's own: a poll that takes long, an
        answer that is malformed. It must not keep every account from its destination.
        """
        if self._attempt is not None:
            self._attempt.failed(failed.stage, self._client.leg.origin.client.neighbourhood)

    def settle(self, target: Target, response: Response) -> None:
        """Keep the connection for the next request, if it can be used again."""
        if response.lasting and self._intake.ended and not self.isUploading:
            upstream, self.upstream = self.upstream, None
            if upstream is not None:
                self._client.upstreams.keep(target, upstream)

    def close(self) -> None:
        """End what goes on; an attempt without a verdict gets none: that is not ours to give."""
        uploading, self._uploading = self._uploading, None
        if uploading is not None:
            uploading.cancel()
        upstream, self.upstream = self.upstream, None
        attempt, self._attempt = self._attempt, None
        if attempt is not None:
            attempt.abandoned()
        if upstream is not None:
            upstream.close()


async def _drained(upstream: HTTPClient) -> None:
    """Wait for a backend to take what it was sent; one that is gone is noticed by who reads it."""
    try:
        await upstream.drained()
    except PeerGone:
        return
