"""A proxy that serves HTTP before two nginxes; an account's domain is its place."""

import base64
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, ClassVar

from tests.integration import clients
from tests.integration.accounts import ALICE, at
from tests.integration.dovecot import Account
from tests.integration.front import (
    ProxyTestCase,
    Table,
    destination,
    listener,
    reaching,
    settings,
)
from tests.integration.nginx import Nginx, Options
from tests.integration.recorder import Recorder
from tests.integration.scripted import Peer, ScriptedServer
from tests.integration.tokens import TokenIssuer
from tests.integration.web import Message, WebClient

BOB = Account("bob@example.org", b"the builder")


def basic(account: Account) -> str:
    """An Authorization value with the account's password (RFC 7617)."""
    login = account.name.encode() + b":" + account.password
    return f"Basic {base64.b64encode(login).decode()}"


def byAuthorization(match: str = "/**", **more: str) -> Table:
    """A route to where the account of the Authorization header lives."""
    return {"match": match, "extract": {"from": "authorization"}, **more}


def webListener(tls: str = "implicit", **more: object) -> Table:
    """A `[listener.NAME]` for HTTP on a port of its own."""
    return listener(tls, protocol="http", **more)


def scriptedSite(server: ScriptedServer, **more: object) -> Table:
    """A scripted backend without TLS as a destination."""
    endpoint = {"http": {"port": server.port, "tls": "plain"}}
    table = destination(1, "localhost", allow_plaintext_auth=True, protocol=endpoint)
    return {**table, **more}


class WebTestCase(ProxyTestCase):
    """Tests of one proxy with an HTTP listener, `https`, and what subclasses add.

    :cvar old: the default destination; `new` is the other one.
    """

    old: ClassVar[Nginx]
    new: ClassVar[Nginx]
    tokens: ClassVar[TokenIssuer]
    routes: ClassVar[Sequence[Table]] = (byAuthorization(),)

    @classmethod
    def startServers(cls, stack: ExitStack) -> None:
        """Alice and Bob live on both, each by another address."""
        cls.makeAuthority(stack)
        cls.tokens = TokenIssuer()
        cls.old = stack.enter_context(Nginx("old", cls.authority, cls.options()))
        cls.new = stack.enter_context(Nginx("new", cls.authority, cls.options()))
        cls.startOthers(stack)
        accounts = {at(name, each).name: name for name in cls.places() for each in (ALICE, BOB)}
        cls.keepWebSecrets(*(at(name, each) for name in cls.places() for each in (ALICE, BOB)))
        cls.startProxy(stack, cls.configuration(), accounts)

    @classmethod
    def options(cls) -> Options:
        """How both nginxes are."""
        return Options()

    @classmethod
    def startOthers(cls, stack: ExitStack) -> None:
        """Start what a class has beside the two."""

    @classmethod
    def places(cls) -> Sequence[str]:
        """The destinations where the accounts live."""
        return ("old", "new")

    @classmethod
    def destinations(cls) -> dict[str, Table]:
        """Both, over TLS and told of the client by PROXY header."""
        return {
            each.name: reaching(each, "http", proxy_protocol=True) for each in (cls.old, cls.new)
        }

    @classmethod
    def configuration(cls) -> Table:
        """One listener."""
        config = settings(cls.authority, {"https": webListener()}, cls.destinations())
        config["http"] = {"route": list(cls.routes)}
        config["server"] |= {"host_down_threshold": 0, "backend_connect_retries": 0}
        return config

    @classmethod
    def keepWebSecrets(cls, *accounts: Account) -> None:
        """Have the passwords watched for in the log, as they are and as HTTP sends them."""
        cls.keepSecret(*accounts)
        cls.secrets |= {basic(each).removeprefix("Basic ").encode() for each in accounts}

    # Clients

    def web(self, name: str = "https", **more: Any) -> WebClient:
        """A connection to that listener."""
        return self.webTo(self.proxy.portOf(name), name, **more)

    def webTo(self, port: int, name: str = "https", **more: Any) -> WebClient:
        """A connection to a port that does TLS as that listener does."""
        implicit = self.context if self.proxy.modeOf(name) == "implicit" else None
        client = WebClient(port, implicit, **more)
        self.addCleanup(client.close)
        return client

    def bearer(self, name: str, **claims: object) -> str:
        """An Authorization value with a token; the log may not hold it."""
        token = self.tokens.mint(name, **claims)  # type: ignore[arg-type]
        self.secrets.update({token.encode(), token.rpartition(".")[2].encode()})
        return f"Bearer {token}"

    def curl(self, *arguments: str, account: Account | None = None) -> clients.Finished:
        """Run curl; `URL` in an argument is that of the listener, without a path."""
        url = f"https://localhost:{self.proxy.portOf('https')}"
        return clients.curlWeb(
            self.authority.caFile, account, *(each.replace("URL", url) for each in arguments)
        )

    # Assertions

    def assertFrom(self, server: str, answer: Message, status: int = 200) -> None:
        """The answer is that server's."""
        self.assertEqual((answer.status, answer.header("x-server")), (status, server), answer)

    def assertOurs(self, status: int, answer: Message) -> None:
        """The answer is the proxy's own: a short text, without a word about what is behind it."""
        self.assertEqual((answer.status, answer.header("x-server")), (status, None), answer)
        self.assertTrue((answer.header("content-type") or "").startswith("text/plain"), answer)
        self.assertLess(len(answer.body), 200)
        for word in (b"127.0.0.1", b"localhost", b"Error", b"Exception", b"Traceback", b"/"):
            self.assertNotIn(word, answer.body)


class ExchangeTestCase(WebTestCase):
    """Two nginxes, and a backend that a test tells what to answer."""

    recorder: ClassVar[Recorder]
    scripted: ClassVar[ScriptedServer]

    @classmethod
    def startOthers(cls, stack: ExitStack) -> None:
        """The backend that is told."""
        cls.recorder = Recorder()
        cls.scripted = stack.enter_context(ScriptedServer(cls.recorder))

    @classmethod
    def places(cls) -> tuple[str, ...]:
        """Its accounts too."""
        return ("old", "new", "scripted")

    @classmethod
    def destinations(cls) -> dict[str, Table]:
        """It is reached without TLS and learns nothing of clients."""
        return {**super().destinations(), "scripted": scriptedSite(cls.scripted)}

    def setUp(self) -> None:
        """Begin a new record."""
        super().setUp()
        self.recorder.forget()
        self.addCleanup(self.assertNothingBroken)

    def assertNothingBroken(self) -> None:
        """All that reached the backend was HTTP, and it could answer."""
        self.assertEqual(self.recorder.malformed, [])
        self.assertEqual(self.scripted.failures, [])

    def answering(self, data: bytes, *, close: bool = False) -> None:
        """Have the backend answer so."""

        def answer(peer: Peer, _: Message) -> bool:
            peer.send(data)
            return not close

        self.recorder.answering = answer
