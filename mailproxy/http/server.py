"""The client's leg: requests in, answers out, and the few answers that are our own.

Knows how an answer of ours is worded; must not know why it is given. No answer names a host, a path
or an error.
"""

from email.utils import formatdate
from http import HTTPStatus

import attrs
import h11

from mailproxy.config.model import Capabilities
from mailproxy.http.forward import NAME
from mailproxy.http.leg import HTTPLeg
from mailproxy.protocols.base import Advertised
from mailproxy.protocols.server import ClientLeg, ProxyServerFactory

METHODS = b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
"""What a client that used a method that we do not serve is told."""


@attrs.frozen
class Answer:
    """An answer of our own.

    :ivar retryAfter: seconds that the client is asked to wait; None: nothing is said of that.
    """

    status: int
    retryAfter: int | None = None

    def head(self, now: float, name: bytes, *, last: bool) -> h11.Response:
        """Make its head.

        :param now: seconds since the epoch.
        :param name: the request's.
        :param last: whether we close the connection behind it.
        """
        headers = [
            (b"Date", formatdate(now, usegmt=True).encode()),
            (b"Content-Type", b"text/plain; charset=utf-8"),
            (b"Content-Length", b"%d" % len(self.body)),
            (b"Cache-Control", b"no-store"),
            (NAME, name),
        ]
        if self.status == HTTPStatus.METHOD_NOT_ALLOWED:
            headers.append((b"Allow", METHODS))
        if self.retryAfter is not None:
            headers.append((b"Retry-After", b"%d" % self.retryAfter))
        if last:
            headers.append((b"Connection", b"close"))
        return h11.Response(status_code=self.status, reason=self._phrase, headers=headers)

    @property
    def body(self) -> bytes:
        """Its text."""
        return b"%d %b\n" % (self.status, self._phrase)

    @property
    def _phrase(self) -> bytes:
        return HTTPStatus(self.status).phrase.encode()


class HTTPServer(HTTPLeg, ClientLeg):
    """Us, as an HTTP server."""

    emptyLines = 1  # some clients end a body with one that is not part of it (RFC 9112, 2.2)


class HTTPServerFactory(ProxyServerFactory):
    """Listens for HTTP clients."""

    conversation = HTTPServer
    alpn = (b"http/1.1",)

    @classmethod
    def advertised(cls, capabilities: Capabilities) -> Advertised:
        """Promise nothing: HTTP has no greeting."""
        return Advertised()
