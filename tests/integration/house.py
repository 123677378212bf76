"""A proxy before Dovecots of every kind, for one protocol; an account's domain is its place."""

import re
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import product
from typing import Any, ClassVar

import attrs

from tests.integration.accounts import ALICE, HELPDESK, ODD, at
from tests.integration.dialogues import Dialogue
from tests.integration.dovecot import Account, Dovecot, Options, Privacy
from tests.integration.front import (
    ProxyTestCase,
    Table,
    destination,
    listenersFor,
    reaching,
    settings,
)
from tests.integration.network import freePort
from tests.integration.tokens import TokenIssuer
from tests.integration.wire import LineClient, base64Of, oauthBearer, plain, xoauth2

WRONG = Account("", b"certainly not this one")
CLOSED = Account("closed@example.org", b"right but useless", closed="account_is_closed")
SOMEBODY = "127.0.0.5"
"""A client's address that nobody trusts."""

_BROKEN = "passdb {\n  driver = checkpassword\n  args = /bin/sh -c exit${IFS}111\n}\n"
"""A program that cannot tell: whom Dovecot knows from nowhere else is to try later."""


def withPassword(account: Account, other: Account) -> Account:
    """The account with somebody else's password."""
    return attrs.evolve(account, password=other.password)


class LoginTestCase(ProxyTestCase):
    """A protocol's proxy before Dovecots of several kinds.

    `legacy` is reached in the protocol's usual way, `upgraded` by STARTTLS, `hidden` with its
    refusals hidden, `header` by PROXY header and `told` by XCLIENT: all are one server.
    `loginonly` lacks all mechanisms but LOGIN, `open` has no TLS, `broken` cannot tell, `away` is
    nobody.
    """

    dialogue: ClassVar[Dialogue]
    way: ClassVar[str] = "implicit"
    """How most backends do TLS."""
    tokens: ClassVar[TokenIssuer]
    servers: ClassVar[dict[str, Dovecot]]
    one = ("legacy", "upgraded", "hidden", "header", "told")
    others: ClassVar[tuple[str, ...]] = ("loginonly", "open")
    foreign: ClassVar[tuple[str, ...]] = ()
    """Destinations that are no Dovecots."""
    mechanisms = ("PLAIN", "LOGIN", "XOAUTH2", "OAUTHBEARER")

    @classmethod
    def startServers(cls, stack: ExitStack) -> None:
        """Every account lives everywhere."""
        cls.makeAuthority(stack)
        cls.startOthers(stack)
        cls.tokens = TokenIssuer()
        cls.keepSecret(HELPDESK, WRONG, ALICE, *ODD, CLOSED)
        accounts = [HELPDESK, *(at(name, each) for name, each in cls.residents())]
        cls.servers = {
            name: cls.startDovecot(stack, name, [] if name == "broken" else accounts, kind)
            for name, kind in cls.kinds().items()
        }
        accountsThere = {at(name, each).name: name for name, each in cls.residents()}
        cls.startProxy(stack, cls.configuration(), accountsThere)

    @classmethod
    def kinds(cls) -> dict[str, Table]:
        """The Dovecots, by name: what `Options` each has of its own."""
        return {
            "legacy": {"tokens": cls.tokens, "trustsIdentity": True},
            "loginonly": {"mechanisms": ["login"]},
            "open": {"privacy": Privacy.NONE},
            "broken": {"extra": cls.options().extra + _BROKEN},
        }

    @classmethod
    def startOthers(cls, stack: ExitStack) -> None:
        """Start what a protocol has beside the Dovecots."""

    @classmethod
    def startDovecot(
        cls, stack: ExitStack, name: str, accounts: list[Account], kind: dict[str, Any]
    ) -> Dovecot:
        """One server."""
        options = attrs.evolve(cls.options(), protocols=[cls.dialogue.protocol], **kind)
        return stack.enter_context(Dovecot(name, cls.authority, accounts, options))

    @classmethod
    def options(cls) -> Options:
        """What the protocol wants of all Dovecots."""
        return Options()

    @classmethod
    def residents(cls) -> Iterator[tuple[str, Account]]:
        """Each destination with each of its accounts."""
        places = (*cls.one, *cls.others, *cls.foreign, "broken", "brokenhidden", "away")
        return product(places, [ALICE, *ODD, CLOSED])

    @classmethod
    def configuration(cls) -> Table:
        """Two listeners and all destinations."""
        legacy, broken = cls.servers["legacy"], cls.servers["broken"]
        protocol = cls.dialogue.protocol
        nobody = {protocol: {"port": freePort(), "tls": "implicit"}}
        destinations = {
            "legacy": reaching(legacy, protocol, cls.way),
            "upgraded": reaching(legacy, protocol, "starttls"),
            "hidden": reaching(legacy, protocol, cls.way, hide_auth_errors=True),
            "header": reaching(legacy, protocol, cls.way, proxy_protocol=True),
            "told": reaching(legacy, protocol, "starttls", forwarding="xclient"),
            "loginonly": reaching(cls.servers["loginonly"], protocol, cls.way),
            "open": reaching(cls.servers["open"], protocol, "plain", allow_plaintext_auth=True),
            "broken": reaching(broken, protocol, cls.way),
            "brokenhidden": reaching(broken, protocol, cls.way, hide_auth_errors=True),
            "away": destination(1, "localhost", protocol=nobody),
        }
        config = settings(cls.authority, listenersFor(protocol), destinations)
        config["routing"]["master_user_separators"] = ["*"]
        config["server"] |= {"host_down_threshold": 0, "backend_connect_retries": 0}
        return config

    # Clients

    def greeted(self, name: str = "secure", **more: Any) -> LineClient:
        """A client of that listener, past the greeting and past STARTTLS where that is the way."""
        client = self.connect(name, **more)
        self.dialogue.greet(client)
        if self.proxy.modeOf(name) == "starttls":
            self.dialogue.startTLS(client, self.context)
        return client

    def enter(self, account: Account, name: str = "secure", **more: Any) -> LineClient:
        """The same, logged in by PLAIN."""
        client = self.greeted(name, **more)
        self.assertRegex(self.dialogue.logIn(client, account), self.dialogue.accepted)
        return client

    def answer(self, client: LineClient, mechanism: str, messages: list[bytes]) -> bytes:
        """A SASL exchange without an initial response: the answer to its last message."""
        answer = self.dialogue.authenticate(client, mechanism)
        for message in messages:
            self.assertIsNotNone(self.dialogue.challenge(answer), answer)
            answer = self.dialogue.reply(client, message)
        return answer

    def messages(self, mechanism: str, account: Account, lifetime: int = 3600) -> list[bytes]:
        """What a client says in a SASL exchange; the log may not hold it."""
        if mechanism == "PLAIN":
            return [plain(account.name, account.password)]
        if mechanism == "LOGIN":
            return [account.name.encode(), account.password]
        token = self.tokens.mint(account.name, lifetime=lifetime)
        self.secrets.update({token.encode(), token.rpartition(".")[2].encode()})
        build = xoauth2 if mechanism == "XOAUTH2" else oauthBearer
        self.secrets.add(base64Of(build(account.name, token)))
        return [build(account.name, token)]

    def loginOn(self, name: str, account: Account, since: int) -> dict[str, str]:
        """What that server logged of the account's login: its `key=value` words."""
        line = self.servers[name].log.waitForLine(f"Login: user=<{account.name}>", since=since)
        return dict(re.findall(r"([a-z_]+)=<?([^,>\s]*)", line))
