"""One backend that serves all protocols and is told by every means who the client is."""

import re
from contextlib import ExitStack
from typing import ClassVar

from tests.integration.accounts import ALICE, at
from tests.integration.dialogues import IMAP, POP3, Dialogue, ManageSieve, Submission
from tests.integration.dovecot import Dovecot, Options
from tests.integration.front import ProxyTestCase, Table
from tests.integration.postfix import Postfix
from tests.integration.services import relaySettings
from tests.integration.wire import LineClient

DIALOGUES: tuple[Dialogue, ...] = (IMAP(), POP3(), ManageSieve(), Submission())
WAYS = {"header": "proxy", "told": "xclient"}
"""Destinations, and how each is told who the client is."""


class IdentityTestCase(ProxyTestCase):
    """One Dovecot that serves all protocols, a Postfix behind it, and a proxy or several."""

    dovecot: ClassVar[Dovecot]
    postfix: ClassVar[Postfix]

    @classmethod
    def startBackends(cls, stack: ExitStack) -> None:
        """Every account lives on the same server; the domain says by which way it is reached."""
        cls.makeAuthority(stack)
        cls.keepSecret(ALICE)
        cls.postfix = stack.enter_context(Postfix("post", cls.authority))
        options = Options(
            protocols=["pop3", "managesieve", "submission", "lmtp"],
            trustsIdentity=True,
            extra=relaySettings(cls.postfix.exchanger),
        )
        accounts = [at(name) for name in WAYS]
        cls.dovecot = stack.enter_context(Dovecot("legacy", cls.authority, accounts, options))

    @classmethod
    def backends(cls) -> dict[str, Table]:
        """Dovecot as the destinations `header` and `told`."""
        ports = {way: _dovecotPorts(cls.dovecot, proxied=way == "header") for way in WAYS}
        return {way: destinationFor("legacy.test", ports[way], way) for way in WAYS}

    def enter(
        self, dialogue: Dialogue, client: LineClient, way: str, *, upgrade: bool = False
    ) -> dict[str, str]:
        """Go on from the greeting to the login; what Dovecot knows of the client then."""
        mark = self.dovecot.log.mark()
        dialogue.greet(client)
        if upgrade:
            dialogue.startTLS(client, self.context)
        self.assertRegex(dialogue.logIn(client, at(way)), dialogue.accepted, dialogue.protocol)
        return self.seen(way, mark)

    def seen(self, way: str, since: int) -> dict[str, str]:
        """What Dovecot logged of the login."""
        line = self.dovecot.log.waitForLine(f"Login: user=<{at(way).name}>", since=since)
        return dict(re.findall(r"([a-z_]+)=<?([^,>\s]*)", line))


def _dovecotPorts(server: Dovecot, *, proxied: bool) -> Table:
    """The protocols with a login; ManageSieve has no TLS from the first byte."""
    modes = {each.protocol: "implicit" for each in DIALOGUES} | {"managesieve": "starttls"}
    return {
        protocol: {"port": server.doors[protocol].port(tls, proxied=proxied), "tls": tls}
        for protocol, tls in modes.items()
    }


def destinationFor(serverName: str, endpoints: Table, way: str, host: str = "127.0.0.1") -> Table:
    """A `[destination.NAME]` that is told of the client as the destination `way` is."""
    forwarding = WAYS.get(way, "none")
    return {
        "host": host,
        "tls_server_name": serverName,
        "forwarding": forwarding,
        "protocol": endpoints,
    }
