"""The demonstration's web server: one page, which says whose it is and where it comes from.

Knows accounts and their logins; knows nothing of ports, TLS or the proxy.
"""

from secrets import compare_digest

from twisted.internet.interfaces import IReactorTime
from twisted.web.resource import Resource
from twisted.web.server import Request, Site

from mailproxy.demo.mail import ACCOUNTS

_REALM = b'Basic realm="mailproxy demonstration"'


class DemoPage(Resource):
    """The page of whoever asks for it, at every path."""

    isLeaf = True

    def __init__(self, server: str) -> None:
        super().__init__()
        self._server = server

    def render_GET(self, request: Request) -> bytes:
        """Say whose page it is; nobody is let in without a password."""
        request.setHeader(b"content-type", b"text/plain; charset=utf-8")
        account = _account(request)
        if account is None:
            request.setResponseCode(401)
            request.setHeader(b"www-authenticate", _REALM)
            return b"Who are you?\n"
        return f"This page is {account}'s. It lies on the server {self._server}.\n".encode("ascii")


def _account(request: Request) -> str | None:
    """Find the account whose password a request brings."""
    name = request.getUser().decode("ascii", "replace")
    password = ACCOUNTS.get(name, "").encode("ascii")
    return name if password and compare_digest(password, request.getPassword()) else None


class DemoSite(Site):
    """The web server of one of the two; it keeps no log of its own."""

    noisy = False

    def __init__(self, server: str, reactor: IReactorTime) -> None:
        super().__init__(DemoPage(server), reactor=reactor)

    def startFactory(self) -> None:
        """Open no access log: the proxy's says what was asked."""
