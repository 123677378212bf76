"""The backend's leg: requests out, responses in, and the connections that wait for the next one.

Knows what a backend's answer must look like and when its connection can be used again; must not
know accounts, or who is answered.
"""

import h11

from mailproxy.dial import Target
from mailproxy.errors import BackendFailed, PeerGone, ProtocolError, Stage
from mailproxy.http.bodies import Body
from mailproxy.http.leg import HTTPLeg
from mailproxy.http.messages import Response
from mailproxy.protocols.client import BackendLeg, ProxyClientFactory
from mailproxy.tls import describe


class HTTPClient(HTTPLeg, BackendLeg):
    """Us, as an HTTP client."""

    async def prepare(self) -> None:
        """Secure the leg; an HTTP server waits for the client's first word."""
        await self.secureAtOnce()
        self.assertPrivate()

    async def readResponse(self, limit: int, machine: h11.Connection, method: bytes) -> Response:
        """Read the head of a response to the request that a machine has sent.

        :raises BackendFailed: when none comes, or no sound one; to be tried again only if the
            connection was closed without a byte of an answer.
        """
        try:
            response = Response.parse(await self.readHead(limit), machine)
            response.framing(method)
        except PeerGone as gone:
            untouched = not self.unread
            raise BackendFailed(Stage.ANSWER, describe(gone), retry=untouched) from gone
        except ProtocolError as error:
            raise BackendFailed(Stage.ANSWER, str(error)) from error
        self.remember()
        return response

    async def readPayload(self, body: Body) -> bytes:
        """Read what comes next of a response's body; empty at its end.

        :raises BackendFailed: when it is cut short, or its framing is broken.
        """
        try:
            return await self.readBody(body)
        except PeerGone as gone:
            raise BackendFailed(Stage.ANSWER, "an answer cut short") from gone
        except ProtocolError as error:
            raise BackendFailed(Stage.ANSWER, str(error)) from error

    def takePayload(self, body: Body) -> bytes:
        """Read what is here of a response's body.

        :raises BackendFailed: when its framing is broken.
        """
        try:
            return self.takeBody(body)
        except ProtocolError as error:
            raise BackendFailed(Stage.ANSWER, str(error)) from error

    @property
    def isFresh(self) -> bool:
        """Whether nothing has happened on a connection that waits: no end, and no byte."""
        return not (self.lost or self.ended or self.unread)


class HTTPClientFactory(ProxyClientFactory):
    """Connects to HTTP backends."""

    conversation = HTTPClient
    alpn = (b"http/1.1",)


class Upstreams:
    """The connections to backends that wait for a client's next request: one per destination.

    They belong to one client connection: a backend that was told by a PROXY header who the client
    is, takes every request on that connection for that client's.
    """

    def __init__(self) -> None:
        self._waiting: dict[str, tuple[Target, HTTPClient]] = {}

    def take(self, target: Target) -> HTTPClient | None:
        """Give the connection to a target, if one waits and can be used."""
        target_, client = self._waiting.pop(target.destination, (None, None))
        if client is None:
            return None
        client.whenLost = None
        if target_ is target and client.isFresh:
            return client
        client.close()
        return None

    def keep(self, target: Target, client: HTTPClient) -> None:
        """Let a connection wait; one that the backend closes is forgotten."""
        if not client.isFresh:
            client.close()
            return
        client.whenLost = lambda: self._forget(target.destination, client)
        self._waiting[target.destination] = target, client

    def _forget(self, destination: str, client: HTTPClient) -> None:
        if self._waiting.get(destination, (None, None))[1] is client:
            del self._waiting[destination]
        client.close()

    def close(self) -> None:
        """Close all."""
        waiting, self._waiting = self._waiting, {}
        for _, client in waiting.values():
            client.whenLost = None
            client.close()
