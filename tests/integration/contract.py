"""What holds for a login in every protocol, told once: each protocol's module runs these tests.

The backends are Dovecots; an account's domain is the destination where it lives.
"""

import json
import re
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import product
from typing import Any, ClassVar

import attrs

from tests.integration.accounts import ALICE, HELPDESK, ODD
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


def at(name: str, account: Account = ALICE) -> Account:
    """The account's namesake that lives on the destination `name`."""
    local, _, _ = account.name.partition("@")
    return attrs.evolve(account, name=f"{local}@{name}.example")


def withPassword(account: Account, other: Account) -> Account:
    """The account with somebody else's password."""
    return attrs.evolve(account, password=other.password)


class LoginContract(ProxyTestCase):
    """A protocol's proxy before Dovecots of several kinds.

    `legacy` is reached by TLS, `upgraded` by STARTTLS, `hidden` with its refusals hidden, `header`
    by PROXY header and `told` by XCLIENT: all are one server. `loginonly` lacks all mechanisms but
    LOGIN, `open` has no TLS, `broken` cannot tell, `away` is nobody.
    """

    dialogue: ClassVar[Dialogue]
    tokens: ClassVar[TokenIssuer]
    servers: ClassVar[dict[str, Dovecot]]
    one = ("legacy", "upgraded", "hidden", "header", "told")
    others = ("loginonly", "open")
    mechanisms = ("PLAIN", "LOGIN", "XOAUTH2", "OAUTHBEARER")

    @classmethod
    def startServers(cls, stack: ExitStack) -> None:
        """Every account lives everywhere."""
        cls.makeAuthority(stack)
        cls.tokens = TokenIssuer()
        cls.keepSecret(HELPDESK, WRONG, ALICE, *ODD, CLOSED)
        accounts = [HELPDESK, *(at(name, each) for name, each in cls.residents())]
        kinds: dict[str, dict[str, Any]] = {
            "legacy": {"tokens": cls.tokens, "trustsIdentity": True},
            "loginonly": {"mechanisms": ["login"]},
            "open": {"privacy": Privacy.NONE},
            "broken": {"extra": _BROKEN},
        }
        cls.servers = {
            name: cls.startDovecot(stack, name, [] if name == "broken" else accounts, kind)
            for name, kind in kinds.items()
        }
        accountsThere = {at(name, each).name: name for name, each in cls.residents()}
        cls.startProxy(stack, cls.configuration(), accountsThere)

    @classmethod
    def startDovecot(
        cls, stack: ExitStack, name: str, accounts: list[Account], kind: dict[str, Any]
    ) -> Dovecot:
        """One server; a protocol may add to what is said of its kind."""
        options = Options(protocols=[cls.dialogue.protocol], **kind)
        return stack.enter_context(Dovecot(name, cls.authority, accounts, options))

    @classmethod
    def residents(cls) -> Iterator[tuple[str, Account]]:
        """Each destination with each of its accounts."""
        places = (*cls.one, *cls.others, "broken", "brokenhidden", "away")
        return product(places, [ALICE, *ODD, CLOSED])

    @classmethod
    def configuration(cls) -> Table:
        """Two listeners and all destinations."""
        legacy, broken = cls.servers["legacy"], cls.servers["broken"]
        protocol = cls.dialogue.protocol
        nobody = {protocol: {"port": freePort(), "tls": "implicit"}}
        destinations = {
            "legacy": reaching(legacy, protocol),
            "upgraded": reaching(legacy, protocol, "starttls"),
            "hidden": reaching(legacy, protocol, hide_auth_errors=True),
            "header": reaching(legacy, protocol, proxy_protocol=True),
            "told": reaching(legacy, protocol, "starttls", forwarding="xclient"),
            "loginonly": reaching(cls.servers["loginonly"], protocol),
            "open": reaching(cls.servers["open"], protocol, "plain", allow_plaintext_auth=True),
            "broken": reaching(broken, protocol),
            "brokenhidden": reaching(broken, protocol, hide_auth_errors=True),
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
        if self.modeOf(name) == "starttls":
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

    # Where a login goes

    def test_everyModeOfTLSOnBothLegs(self) -> None:
        """Implicit TLS and STARTTLS before the proxy; these and no TLS behind it."""
        for name, front in product((*self.one, *self.others), ("secure", "upgrading")):
            server = "legacy" if name in self.one else name
            mark = self.servers[server].log.mark()
            client = self.enter(at(name), front)
            words = self.loginOn(server, at(name), mark)
            self.assertEqual(words["rip"], "127.0.0.1")
            client.close()

    def test_theBackendIsToldWhoTheClientIs(self) -> None:
        """By a PROXY header or by XCLIENT: address and port, and which ones they connected to."""
        for name, front in product(("header", "told"), ("secure", "upgrading")):
            mark = self.servers["legacy"].log.mark()
            client = self.enter(at(name), front, source=SOMEBODY)
            words = self.loginOn("legacy", at(name), mark)
            self.assertEqual((words["rip"], int(words["rport"])), client.socket.getsockname())
            self.assertEqual(words["real_rip"], "127.0.0.1")
            if name == "told":
                [session] = self.connections(identifier=at(name).name)
                self.assertEqual(words["session"], session["id"])
            client.close()

    def test_aMasterUserIsRoutedByTheMailboxsName(self) -> None:
        """By separator and by authorization identity."""
        mailbox = at("upgraded").name
        for sent in (
            plain(f"{mailbox}*{HELPDESK.name}", HELPDESK.password),
            plain(HELPDESK.name, HELPDESK.password, authzid=mailbox),
        ):
            mark = self.proxy.log.mark()
            answer = self.dialogue.authenticate(self.greeted(), "PLAIN", sent)
            self.assertRegex(answer, self.dialogue.accepted)
            self.proxy.log.waitForLine("goes to upgraded", since=mark)

    # Mechanisms

    def test_everyMechanism(self) -> None:
        """With an initial response and without; LOGIN is replayed where there is no PLAIN."""
        names = [("legacy", each) for each in self.mechanisms]
        names += [(name, each) for name in self.others for each in ("PLAIN", "LOGIN")]
        for name, mechanism in names:
            sent = self.messages(mechanism, at(name))
            answer = self.answer(self.greeted(), mechanism, sent)
            self.assertRegex(answer, self.dialogue.accepted, (name, mechanism))
            client = self.greeted()
            answer = self.dialogue.authenticate(client, mechanism.lower(), sent[0])
            for message in sent[1:]:
                answer = self.dialogue.reply(client, message)
            self.assertRegex(answer, self.dialogue.accepted, (name, mechanism))

    def test_oddPasswordsArriveAsTheyAre(self) -> None:
        """Spaces, quotes, backslashes, UTF-8 and other bytes."""
        for name, odd in product(("legacy", *self.others), ODD):
            self.enter(at(name, odd)).close()

    def test_aMechanismThatIsNotOfferedIsRefused(self) -> None:
        """And counted: the third ends the connection."""
        client = self.greeted()
        for _ in range(3):
            answer = self.dialogue.authenticate(client, "CRAM-MD5")
            self.assertRegex(answer, self.dialogue.unknown)
        client.readToEnd()

    def test_cleartextLoginsNeedTLS(self) -> None:
        """Before STARTTLS no secret is taken, whatever the mechanism."""
        for mechanism in self.mechanisms:
            client = self.connect("upgrading")
            self.dialogue.greet(client)
            mark = self.servers["legacy"].log.mark()
            [first, *_] = self.messages(mechanism, at("legacy"))
            answer = self.dialogue.authenticate(client, mechanism, first)
            self.assertRegex(answer, self.dialogue.private)
            self.assertEqual(self.servers["legacy"].log.text(mark), "")

    # Refusals

    def test_theBackendsWordsArriveUnlessTheyAreHidden(self) -> None:
        """Why a closed account is refused is the backend's to say, or nobody's."""
        for name in ("legacy", "upgraded", "hidden"):
            answer = self.dialogue.logIn(self.greeted(), at(name, CLOSED))
            self.assertRegex(answer, self.dialogue.refused)
            self.assertEqual(CLOSED.closed.encode() in answer, name != "hidden", answer)
            if name == "hidden":
                self.assertEqual(answer, self.dialogue.hidden)

    def test_aRefusedLoginCanBeMended(self) -> None:
        """After a refusal the same connection takes a good login, to another backend even."""
        for first, second in (("legacy", "legacy"), ("open", "upgraded"), ("hidden", "told")):
            for front in ("secure", "upgrading"):
                client = self.greeted(front)
                answer = self.dialogue.logIn(client, withPassword(at(first), WRONG))
                self.assertRegex(answer, self.dialogue.refused)
                self.dialogue.idle(client)
                answer = self.dialogue.logIn(client, at(second))
                self.assertRegex(answer, self.dialogue.accepted, (first, second))

    def test_tooManyRefusalsEndTheConnection(self) -> None:
        """The third is answered as the others were, and is the last."""
        client = self.greeted()
        for _ in range(3):
            answer = self.dialogue.logIn(client, withPassword(at("legacy"), WRONG))
            self.assertRegex(answer, self.dialogue.refused)
        self.assertNotIn(b"OK", client.readToEnd())

    def test_whyATokenIsRefusedReachesTheClient(self) -> None:
        """The backend's reason is passed on, the client's answer back, and then its refusal."""
        for name, mechanism in product(("legacy", "upgraded"), ("XOAUTH2", "OAUTHBEARER")):
            client = self.greeted()
            [sent] = self.messages(mechanism, at(name), lifetime=-60)
            reason = self.dialogue.challenge(self.dialogue.authenticate(client, mechanism, sent))
            self.assertIn(json.loads(reason or b"")["status"], ("401", "invalid_token"))
            answer = self.dialogue.reply(client, b"\1" if mechanism == "OAUTHBEARER" else b"")
            self.assertRegex(answer, self.dialogue.refused)
            self.assertRegex(self.dialogue.logIn(client, at(name)), self.dialogue.accepted)

    def test_whyATokenIsRefusedCanBeHidden(self) -> None:
        """The client gets one answer, in our words, and no reason."""
        for mechanism in ("XOAUTH2", "OAUTHBEARER"):
            client = self.greeted()
            [sent] = self.messages(mechanism, at("hidden"), lifetime=-60)
            answer = self.dialogue.authenticate(client, mechanism, sent)
            self.assertEqual(answer, self.dialogue.hidden)
            self.assertRegex(self.dialogue.logIn(client, at("hidden")), self.dialogue.accepted)

    # What is nobody's fault

    def test_aBackendThatAsksToTryLaterIsNoRefusal(self) -> None:
        """Its temporary answer stays one, hidden or not."""
        for name in ("broken", "brokenhidden"):
            answer = self.dialogue.logIn(self.greeted(), at(name))
            self.assertRegex(answer, self.dialogue.temporary, name)

    def test_aBackendThatIsAwayIsNoRefusal(self) -> None:
        """The client is told to try later, and is closed."""
        client = self.greeted()
        answer = self.dialogue.logIn(client, at("away"))
        self.assertRegex(answer, self.dialogue.unavailable)
        client.readToEnd()

    def test_aBackendThatStopsIsNoRefusal(self) -> None:
        """It was there a moment ago; when it is back, so are its accounts."""
        server = self.servers["open"]
        self.enter(at("open")).close()
        server.stop()
        try:
            answer = self.dialogue.logIn(self.greeted(), at("open"))
            self.assertRegex(answer, self.dialogue.unavailable)
        finally:
            server.start()
        self.enter(at("open"))

    # Management

    def test_aSessionCanBeKicked(self) -> None:
        """Both of an account's sessions end, another account's does not."""
        sessions = [self.enter(at("legacy"), front) for front in ("secure", "upgrading")]
        other = self.enter(at("upgraded"))
        answer = self.api("POST", "/connections/kick", identifier=at("legacy").name)
        self.assertEqual((answer.status, answer.text.strip()), (200, "kicked 2"))
        for each in sessions:
            each.readToEnd()
        [left] = self.connections()
        self.assertEqual(left["identifier"], at("upgraded").name)
        other.send(b"x")

    def test_aLoginCanBeHeld(self) -> None:
        """While an account is moved its logins wait; they go where it then lives."""
        account, query = at("legacy"), {"identifier": at("legacy").name}
        self.api("POST", "/connections/delay", seconds=60, **query)
        self.addCleanup(self.api, "PUT", "/mappings", destination="legacy", **query)
        client = self.greeted()
        with self.assertRaises(TimeoutError):
            client.socket.settimeout(0.3)
            self.begin(client, account)
        self.api("PUT", "/mappings", destination="open", **query)
        mark = self.servers["open"].log.mark()
        self.api("POST", "/connections/delay", seconds=0, **query)
        self.loginOn("open", account, mark)
        client.socket.settimeout(20)
        self.assertRegex(client.readLine(), self.dialogue.accepted)

    def begin(self, client: LineClient, account: Account) -> None:
        """Send a login, and read until the client loses its patience."""
        real, client.readLine = client.readLine, lambda timeout=0.3: real(0.3)  # type: ignore[method-assign]
        try:
            self.dialogue.logIn(client, account)
        finally:
            client.readLine = real  # type: ignore[method-assign]
