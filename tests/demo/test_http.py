"""The demonstration's web server, in memory."""

from base64 import b64encode

from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from mailproxy.demo.http import DemoSite
from mailproxy.demo.mail import ACCOUNTS


class PageTests(SynchronousTestCase):
    """What it answers."""

    def ask(self, login: str | None, server: str = "legacy", line: str = "GET /") -> bytes:
        """Ask for the page with a login `name:password`; returns the whole answer."""
        site, transport = DemoSite(server, Clock()), StringTransport()
        site.doStart()
        self.addCleanup(site.doStop)
        protocol = site.buildProtocol(IPv4Address("TCP", "127.0.0.1", 4000))
        assert protocol is not None, "it takes everybody"
        protocol.makeConnection(transport)
        head = f"{line} HTTP/1.1\r\nHost: localhost\r\n"
        if login is not None:
            head += f"Authorization: Basic {b64encode(login.encode()).decode()}\r\n"
        protocol.dataReceived(head.encode() + b"\r\n")
        heard: bytes = transport.value()
        return heard

    def test_eachAccountHasItsPage(self) -> None:
        """It names the account and the server, at any path."""
        for server in ("legacy", "new"):
            for account, password in ACCOUNTS.items():
                heard = self.ask(f"{account}:{password}", server, "GET /any/path?x=y")
                self.assertTrue(heard.startswith(b"HTTP/1.1 200 OK\r\n"))
                page = f"This page is {account}'s. It lies on the server {server}.\n"
                self.assertTrue(heard.endswith(page.encode()))

    def test_nobodyElseIsLetIn(self) -> None:
        """Without a login, with another's or no password, or with a name that is nobody's: 401."""
        for login in (None, "anna:banana", "anna:", "dora:", ":", "\N{SNOWMAN}:x", "anna"):
            heard = self.ask(login)
            self.assertTrue(heard.startswith(b"HTTP/1.1 401 Unauthorized\r\n"), login)
            self.assertIn(b"basic realm=", heard.lower())
            self.assertNotIn(b"legacy", heard)

    def test_nothingCanBeChanged(self) -> None:
        """There is only something to read."""
        heard = self.ask("anna:apple", line="POST /")
        self.assertTrue(heard.startswith(b"HTTP/1.1 405 "))
