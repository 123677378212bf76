"""Why a handshake failed, in a line that an operator can act on.

Knows OpenSSL's and Twisted's errors; must not know a session or a configuration. No line holds a
secret or a traceback, and whatever a peer has put into its certificate is escaped and cut.
"""

from OpenSSL import SSL
from twisted.internet.error import ConnectionClosed
from twisted.python.failure import Failure

from mailproxy.errors import PeerGone

_LONGEST = 100
"""Characters of a peer's own text that stand in a log line."""

_MEANINGS = {
    "alert protocol version": "the peer speaks none of our TLS versions",
    "unsupported protocol": "the peer speaks none of our TLS versions",
    "no protocols available": "the peer speaks none of our TLS versions",
    "alert handshake failure": "the peer found no common cipher suite, group or certificate type",
    "no shared cipher": "no common cipher suite",
    "no suitable key share": "no common key exchange group",
    "no suitable groups": "no common key exchange group",
    "wrong version number": "the peer does not speak TLS on this port",
    "http request": "the peer does not speak TLS on this port",
    "packet length too long": "the peer does not speak TLS on this port",
    "alert unknown ca": "the peer does not trust our certificate's authority",
    "alert certificate unknown": "the peer does not accept our certificate",
    "alert bad certificate": "the peer does not accept our certificate",
    "alert certificate expired": "the peer says that our certificate has expired",
    "certificate required": "the peer asks for a client certificate",
    "alert unrecognized name": "the peer does not serve that server name",
    "no renegotiation": "the peer tried to renegotiate",
    "alert access denied": "the peer denies access",
}
"""Parts of OpenSSL's reasons, and what they mean here; the first that fits is taken."""


class CertificateRefused(SSL.Error):
    """A backend's certificate is not the one that the destination asks for.

    It is one of OpenSSL's own errors in form, so that the TLS layer treats it as one: an alert is
    sent and the connection ends without a byte of the application.
    """

    def __init__(self, reason: str) -> None:
        super().__init__([("mailproxy", "", reason)])


def describe(failure: Failure | BaseException) -> str:
    """Say in one line why a connection failed during, or because of, its handshake.

    A `PeerGone` is described by its cause, which is where a stream keeps what went wrong.
    """
    error = failure.value if isinstance(failure, Failure) else failure
    if isinstance(error, PeerGone) and error.__cause__ is not None:
        return describe(error.__cause__)
    if isinstance(error, CertificateRefused):
        return f"certificate verify failed: {_reason(error)}"
    if isinstance(error, SSL.ZeroReturnError | SSL.SysCallError | ConnectionClosed | PeerGone):
        return "the peer closed the connection"
    if isinstance(error, SSL.Error):
        reason = _reason(error)
        return next((said for part, said in _MEANINGS.items() if part in reason), reason)
    return type(error).__name__


def quoted(text: str) -> str:
    """Make a peer's text fit for a log line: printable ASCII, in quotes, of bounded length."""
    cut = text if len(text) <= _LONGEST else text[:_LONGEST] + "..."
    return ascii(cut)


def _reason(error: SSL.Error) -> str:
    """Take the last reason of OpenSSL's error queue; an empty queue is how it says end of file."""
    queue = error.args[0] if error.args else ()
    if isinstance(queue, list) and queue:
        return str(queue[-1][-1])
    return "the peer closed the connection"
