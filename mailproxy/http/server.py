"""The client's leg: requests in, answers out, and the few answers that are our own.

Knows how an answer of ours is worded; must not know why it is given. No answer names a host, a path
or an error.
"""

from email.utils import formatdate
from http import HTTPStatus

import attrs

from mailproxy.config.model import Capabilities
from mailproxy.http.leg import HTTPLeg
from mailproxy.protocols.base import Advertised
from mailproxy.protocols.server import ClientLeg, ProxyServerFactory

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

METHODS = b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
"""What a client that used a method that we do not serve is told."""


@attrs.frozen
class Answer:
    """An answer of our own.

    :ivar retryAfter: seconds that the client is asked to wait; None: nothing is said of that.
    """

    status: int
    retryAfter: int | None = None

    def head(self, now: float, *, last: bool) -> bytes:
        """Write its head.

        :param now: seconds since the epoch.
        :param last: whether we close the connection behind it.
        """
        lines = [
            b"HTTP/1.1 %d %b" % (self.status, self._phrase),
            b"Date: " + formatdate(now, usegmt=True).encode(),
            b"Content-Type: text/plain; charset=utf-8",
            b"Content-Length: %d" % len(self.body),
            b"Cache-Control: no-store",
        ]
        if self.status == HTTPStatus.METHOD_NOT_ALLOWED:
            lines.append(b"Allow: " + METHODS)
        if self.retryAfter is not None:
            lines.append(b"Retry-After: %d" % self.retryAfter)
        if last:
            lines.append(b"Connection: close")
        return b"\r\n".join(lines) + b"\r\n\r\n"

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
