"""A proxy as an operator runs it, one for each test, before a backend that knows one password."""

import ssl
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.integration.accounts import ALICE
from tests.integration.certificates import Authority
from tests.integration.front import TOKEN, Table, destination, listener, settings
from tests.integration.proxy import Answer, ProxyProcess
from tests.integration.scripted import Peer, ScriptedServer, greeting
from tests.integration.wire import LineClient, base64Of, plain

RIGHT = base64Of(plain(ALICE.name, ALICE.password))
SECRETS = (TOKEN, RIGHT.decode(), ALICE.password.decode(), base64Of(ALICE.password).decode())


def judging(peer: Peer) -> None:
    """Let Alice in, refuse everybody else; then give back every line that follows."""
    peer.send(greeting())
    tag, _, command = peer.readLine().partition(b" ")
    if not command.endswith(RIGHT):
        peer.send(tag + b" NO [AUTHENTICATIONFAILED] no\r\n")
        return
    peer.send(tag + b" OK Logged in\r\n")
    while True:
        peer.send(b"* echo " + peer.readLine() + b"\r\n")


class OperatingCase(SynchronousTestCase):
    """Tests that start a proxy in a way of their own.

    :ivar config: its configuration: the listener `imap` is plain, the destination `only`.
    :ivar proxy: set by `run_`.
    """

    proxy: ProxyProcess

    def setUp(self) -> None:
        """Start the backend, and write the configuration."""
        self.stack = ExitStack()
        self.addCleanup(self.stack.close)
        self.authority = Authority.temporary(self.stack)
        backend = self.stack.enter_context(ScriptedServer(judging))
        only = destination(backend.port, "x", "plain", allow_plaintext_auth=True)
        del only["tls_server_name"]
        self.config: Table = settings(self.authority, {"imap": listener("plain")}, {"only": only})
        self.config["server"] |= {"log_level": "info", "shutdown_grace": "1s"}
        self.config["capabilities"] = {"imap": {"allow_plain_auth_without_tls": True}}

    def make(self, *, kind: type[ProxyProcess] = ProxyProcess, **more: Any) -> ProxyProcess:
        """Make a proxy with an empty mapping; it is closed at the test's end."""
        self.proxy = kind(self.config, self.authority, **more)
        self.addCleanup(self.proxy.close)
        self.proxy.writeMapping({})
        return self.proxy

    def run_(self, **more: Any) -> ProxyProcess:
        """Start such a proxy."""
        return self.make(**more).start()

    def connect(self, **more: Any) -> LineClient:
        """A client of the listener `imap`, past the greeting."""
        client = LineClient(self.proxy.portOf("imap"), **more)
        self.addCleanup(client.close)
        client.readLine()
        return client

    def logIn(self, message: bytes = RIGHT, **more: Any) -> LineClient:
        """Send a PLAIN message; the answer is left to be read."""
        client = self.connect(**more)
        client.send(b"a AUTHENTICATE PLAIN " + message + b"\r\n")
        return client

    def guess(self, name: str = "mallory@example.org", **more: Any) -> None:
        """Log in with a wrong password, and leave."""
        client = self.logIn(base64Of(plain(name, b"wrong-guess")), **more)
        self.assertRegex(client.readLine(), rb"\Aa NO \[AUTHENTICATIONFAILED\]")
        client.close()

    def api(self, method: str, path: str, token: str | None = TOKEN, **query: object) -> Answer:
        """Ask the management API."""
        return self.proxy.api(method, path, token, **query)

    def clientContext(self) -> ssl.SSLContext:
        """What a verifying client uses."""
        return self.authority.clientContext()

    def assertNoSecret(self, text: str, more: Sequence[str] = ("wrong-guess",)) -> None:
        """Neither the token nor any form of a password is in a text."""
        for secret in (*SECRETS, *more):
            self.assertNotIn(secret, text)
