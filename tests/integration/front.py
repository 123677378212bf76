"""A proxy in front of servers: its configuration, and what tests of the whole have in common."""

import re
import ssl
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any, ClassVar, TypeAlias

from twisted.trial.unittest import SynchronousTestCase

from tests.integration import clients
from tests.integration.certificates import Authority
from tests.integration.dovecot import Account, Dovecot
from tests.integration.network import freePort, isListening
from tests.integration.process import waitUntil
from tests.integration.proxy import Answer, ProxyProcess
from tests.integration.services import Server
from tests.integration.shared import SharedServers
from tests.integration.wire import LineClient, base64Of, plain

Table: TypeAlias = dict[str, Any]

TOKEN = "not-a-secret-outside-of-these-tests-0001"


def listener(tls: str = "implicit", **more: Any) -> Table:
    """A `[listener.NAME]` for IMAP on a port of its own."""
    return {"protocol": "imap", "bind": [f"127.0.0.1:{freePort()}"], "tls": tls, **more}


def standardListeners(**more: Any) -> dict[str, Table]:
    """The two that most tests need: `imaps` and `imap`, with the same further keys."""
    return {"imaps": listener(**more), "imap": listener("starttls", **more)}


def destination(port: int, serverName: str, tls: str = "implicit", **more: object) -> Table:
    """A `[destination.NAME]` on loopback that speaks IMAP and gets no PROXY header."""
    endpoint = {"port": port, "tls": tls}
    table = {"host": "127.0.0.1", "proxy_protocol": False, "protocol": {"imap": endpoint}}
    return {**table, "tls_server_name": serverName, **more}


def behind(server: Dovecot, tls: str = "implicit", **more: object) -> Table:
    """A Dovecot as a destination; with `proxy_protocol`, its ports that want a header."""
    secure, open_ = server.imaps, server.imap
    if more.get("proxy_protocol"):
        secure, open_ = server.imapsProxied, server.imapProxied
    return destination(secure if tls == "implicit" else open_, server.hostname, tls, **more)


def listenersFor(protocol: str, **more: object) -> dict[str, Table]:
    """A protocol's two, `secure` and `upgrading`, with the same further keys."""
    return {
        "secure": listener("implicit", protocol=protocol, **more),
        "upgrading": listener("starttls", protocol=protocol, **more),
    }


def reaching(server: Server, protocol: str, tls: str = "implicit", **more: object) -> Table:
    """A server as a destination for one protocol; with `proxy_protocol`, ports with a header."""
    port = server.doors[protocol].port(tls, proxied=bool(more.get("proxy_protocol")))
    endpoints = {protocol: {"port": port, "tls": tls}}
    return destination(port, server.hostname, tls, protocol=endpoints, **more)


def settings(
    authority: Authority, listeners: Mapping[str, Table], destinations: Mapping[str, Table]
) -> Table:
    """A whole configuration with management; the first destination is the default."""
    files = authority.issue("mail.test", "localhost", "127.0.0.1", "::1")
    return {
        "server": {"threads": 1, "log_level": "debug"},
        "tls": {"certificate": {"own": {"cert": str(files.cert), "key": str(files.key)}}},
        "listener": dict(listeners),
        "destination": dict(destinations),
        "routing": {"default_destination": next(iter(destinations))},
        "mapping": {"source": "file", "file": {"path": "mapping"}},
        "admin": {"bind": f"127.0.0.1:{freePort()}", "bearer_token": TOKEN},
    }


def loginLine(account: Account) -> bytes:
    """A whole login in one line, tagged `l`."""
    message = plain(account.name, account.password)
    return b"l AUTHENTICATE PLAIN " + base64Of(message) + b"\r\n"


class ProxyTestCase(SharedServers, SynchronousTestCase):
    """Tests of one proxy, started once for the class; `startServers` sets the attributes.

    After each test the proxy's log, written at debug level, must hold neither a traceback nor a
    secret.

    :cvar context: what clients trust.
    :cvar secrets: all that no log may hold; passwords too short to tell are left out.
    """

    authority: ClassVar[Authority]
    context: ClassVar[ssl.SSLContext]
    proxy: ProxyProcess
    secrets: ClassVar[set[bytes]]

    def setUp(self) -> None:
        """Start the servers if need be, and note where the log is."""
        super().setUp()
        self.addCleanup(self.assertCleanLog, self.proxy.log.mark())

    @classmethod
    def makeAuthority(cls, stack: ExitStack) -> None:
        """The first thing to do in `startServers`."""
        cls.authority = Authority.temporary(stack)
        cls.context = cls.authority.clientContext()
        cls.secrets = {TOKEN.encode()}

    @classmethod
    def keepSecret(cls, *accounts: Account) -> None:
        """Have the passwords watched for in the log, as they are and as SASL sends them."""
        for account in accounts:
            message = plain(account.name, account.password)
            cls.secrets |= {base64Of(message), base64Of(account.password)}
            cls.secrets |= {account.password} if len(account.password) > 5 else set()

    @classmethod
    def startProxy(
        cls, stack: ExitStack, config: Table, accounts: Mapping[str, str] | None = None
    ) -> None:
        """The last thing to do in `startServers`.

        :param accounts: the mapping file.
        """
        cls.proxy = cls.startAnother(stack, config, accounts)

    @classmethod
    def startAnother(
        cls, stack: ExitStack, config: Table, accounts: Mapping[str, str] | None = None
    ) -> ProxyProcess:
        """Start a proxy beside the first."""
        proxy = ProxyProcess(config, cls.authority)
        proxy.writeMapping(accounts or {})
        return stack.enter_context(proxy)

    # Clients

    def connect(self, name: str = "imaps", **more: Any) -> LineClient:
        """A client of that listener, TLS done as its mode asks, the greeting not read."""
        implicit = self.context if self.proxy.modeOf(name) == "implicit" else None
        client = LineClient(self.proxy.portOf(name), implicit, **more)
        self.addCleanup(client.close)
        return client

    def greeted(self, name: str = "imaps", **more: Any) -> LineClient:
        """The same, past the greeting and past STARTTLS where the listener has that."""
        client = self.connect(name, **more)
        self.assertTrue(client.readLine().startswith(b"* OK [CAPABILITY "))
        if self.proxy.modeOf(name) == "starttls":
            self.assertOK(client.command(b"s STARTTLS"))
            client.startTLS(self.context)
        return client

    def loggedIn(self, account: Account, name: str = "imaps", **more: Any) -> LineClient:
        """The same, logged in by AUTHENTICATE PLAIN."""
        client = self.greeted(name, **more)
        self.assertOK(self.logIn(client, account))
        return client

    def logIn(self, client: LineClient, account: Account) -> list[bytes]:
        """Log in with any bytes for a password; the answer, its last line tagged `l`."""
        client.send(loginLine(account))
        return client.readUntil(b"l ")

    def sendLogin(self, account: Account, name: str = "imaps") -> LineClient:
        """A client whose login is on its way; the answer will be tagged `l`."""
        client = self.greeted(name)
        client.send(loginLine(account))
        return client

    def target(self, name: str = "imaps") -> clients.Target:
        """That listener, as programs are told about it."""
        implicit = self.proxy.modeOf(name) == "implicit"
        return clients.Target(self.proxy.portOf(name), self.authority.caFile, implicit)

    def home(self, client: LineClient) -> str:
        """Which server a logged-in client is on: its first message's subject says so."""
        client.command(b"h1 SELECT INBOX")
        lines = client.command(b"h2 FETCH 1 BODY.PEEK[HEADER.FIELDS (SUBJECT)]")
        [subject] = [line for line in lines if line.startswith(b"Subject: ")]
        return subject.removeprefix(b"Subject: on ").decode()

    # Management

    def api(self, method: str, path: str, **query: object) -> Answer:
        """Ask with the right token."""
        return self.proxy.api(method, path, TOKEN, **query)

    def connections(self, **query: object) -> list[Table]:
        """Live sessions."""
        found: list[Table] = self.api("GET", "/connections", **query).json()
        return found

    def sessionOf(self, client: LineClient) -> Table:
        """The live session of a client that came straight to the proxy, among whomever's."""
        address = "{}:{}".format(*client.socket.getsockname())
        [found] = [each for each in self.connections() if each["client"] == address]
        return found

    def health(self, name: str) -> Table:
        """What management says of a destination."""
        [found] = [
            each for each in self.api("GET", "/destinations").json() if each["destination"] == name
        ]
        return dict(found)

    # Assertions

    def assertCleanLog(self, since: int = 0) -> None:
        """No bug and no secret is in the log, whatever the clients and the backends did."""
        text = self.proxy.log.text(since)
        for word in ("Traceback", "Unhandled", "#critical"):
            before, found, after = text.partition(word)
            self.assertEqual(found, "", f"{before[-500:]}{found}{after[:3000]}")
        for secret in self.secrets:
            self.assertNotIn(secret.decode("utf-8", "backslashreplace"), text)

    def assertOK(self, reply: list[bytes]) -> None:
        """The tagged line says OK."""
        self.assertRegex(reply[-1], rb"\A\S+ OK ", reply)

    def assertUnavailable(self, reply: list[bytes]) -> None:
        """The tagged line says that it is nobody's fault, and not one speaks of the login."""
        self.assertRegex(reply[-1], rb"\A\S+ NO \[UNAVAILABLE\] ", reply)
        self.assertNotIn(b"AUTHENTICATIONFAILED", b"".join(reply))

    def assertNobodyIsThere(self) -> None:
        """Every session is over before long; one ends only after its backend has let go."""
        self.assertEventually(lambda: not self.connections(), "somebody is still there")

    def assertHearsOfMail(self, client: LineClient) -> None:
        """A client in IDLE is told of a message, whatever else its server says before that."""
        while not re.fullmatch(rb"\* \d+ EXISTS", client.readLine()):
            pass

    def assertEventually(self, condition: Any, message: str, timeout: float = 30.0) -> None:
        """`condition` becomes true in time."""
        self.assertTrue(waitUntil(condition, timeout), message)

    def assertServes(self, port: int) -> None:
        """Somebody listens there."""
        self.assertTrue(isListening(port), port)
