"""What a connection to the management API may cost: time, bytes, and how many there are.

Knows HTTP as Twisted serves it; must not know any call. Its limits are fixed: nobody but operators
and their scripts should ever come here.
"""

from typing import Any

from twisted.internet.interfaces import (
    IOpenSSLServerConnectionCreator,
    IProtocolFactory,
    IReactorTime,
)
from twisted.internet.protocol import connectionDone
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel
from twisted.web.resource import IResource
from twisted.web.server import Request, Site

from mailproxy.management.answers import lines, write

__all__ = ["makeFactory", "makeSite"]

PATIENCE = 20.0
"""Seconds for a whole request, TLS handshake included, and for the next one on a connection."""

MOST_CONNECTIONS = 64
MOST_HEADERS = 64
MOST_BODY = 4096
"""Bytes of a body, which no call reads; some clients send one all the same."""

_END = b"\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
_TOO_LARGE = b"HTTP/1.1 413 Content Too Large" + _END
_HEAD_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large" + _END


def makeFactory(
    resource: IResource, certificates: IOpenSSLServerConnectionCreator, clock: IReactorTime
) -> IProtocolFactory:
    """Make what answers HTTPS on a socket."""
    return TLSMemoryBIOFactory(certificates, False, makeSite(resource, clock), clock)


def makeSite(resource: IResource, clock: IReactorTime) -> Site:
    """Make what answers HTTP inside TLS."""
    return _Site(resource, _Request, timeout=PATIENCE, reactor=clock, parsePOSTFormSubmission=False)


class _Channel(HTTPChannel):
    """One connection; its time runs out however many bytes come in.

    It begins again with each answer, not with each byte, or a client that sends one now and then
    would hold its place for ever.
    """

    site: "_Site"
    transport: Any  # one that can be aborted
    maxHeaders = MOST_HEADERS
    _closing = False

    def connectionMade(self) -> None:
        """Take a place; without one there is no conversation."""
        if self.site.enter(self):
            super().connectionMade()
        else:
            self._closing = True
            self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Give the place back."""
        self.site.leave(self)
        super().connectionLost(reason)

    def resetTimeout(self) -> None:
        """Do not count bytes as progress."""

    def dataReceived(self, data: bytes) -> None:
        """Read, but nothing after we have hung up: TLS still delivers it."""
        if not self._closing:
            super().dataReceived(data)

    def loseConnection(self) -> None:
        """Hang up; TLS then waits for the peer to do so too, but not for ever."""
        if not self._closing:
            self._closing = True
            self.setTimeout(PATIENCE)
            super().loseConnection()

    def timeoutConnection(self) -> None:
        """Hang up, at the second time without a word."""
        if self._closing:
            self.transport.abortConnection()
        else:
            self.loseConnection()

    def lineLengthExceeded(self, line: bytes) -> None:
        """Refuse a head that is too long, in so many words."""
        self.transport.write(_HEAD_TOO_LARGE)
        self.loseConnection()

    def allHeadersReceived(self) -> None:
        """Refuse a body that is long, or of unknown length (None), before it is read."""
        if self.length is None or self.length > MOST_BODY:
            self.transport.write(_TOO_LARGE)
            self.loseConnection()
        else:
            super().allHeadersReceived()


class _Request(Request):
    """A request whose mishaps look like any other answer."""

    defaultContentType = None

    def process(self) -> None:
        """Serve the request; `*`, which Twisted answers to everybody, is a path like any other."""
        if self.path == b"*":
            self.path = b"/*"
        super().process()

    def processingFailed(self, reason: Failure) -> Failure:
        """Say nothing of what went wrong but to the log."""
        self._log.failure("a request could not be served", failure=reason)
        write(lines(500, "internal error"), self)
        self.finish()
        return reason


class _Site(Site):
    """Bounds the number of connections, and keeps no log of who asked what."""

    protocol = _Channel  # type: ignore[assignment] # without the wrapper that may turn to HTTP/2
    noisy = False

    def __init__(self, *args: Any, **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        self._channels: set[_Channel] = set()

    def enter(self, channel: _Channel) -> bool:
        """Take a connection in; False when there are too many."""
        if len(self._channels) >= MOST_CONNECTIONS:
            return False
        self._channels.add(channel)
        return True

    def leave(self, channel: _Channel) -> None:
        """Note the end of a connection, or of one that was not taken in."""
        self._channels.discard(channel)

    def startFactory(self) -> None:
        """Open no access log, whose lines would hold identifiers."""

    def acceptableProtocols(self) -> list[bytes]:
        """Speak HTTP/1.1 alone: its limits are ours."""
        return [b"http/1.1"]
