"""Logging in to real servers through the proxy: every mechanism, every TLS mode, odd passwords."""

import json
from base64 import b64decode
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import product
from typing import ClassVar

import attrs

from tests.integration.accounts import ALICE, HELPDESK, ODD, at
from tests.integration.dovecot import Account, Dovecot, Options, Privacy
from tests.integration.front import ProxyTestCase, behind, settings, standardListeners
from tests.integration.messages import message
from tests.integration.tokens import TokenIssuer
from tests.integration.wire import LineClient, base64Of, oauthBearer, plain, xoauth2

WRONG = Account(ALICE.name, b"certainly not this one")


class LoginTests(ProxyTestCase):
    """One proxy before four kinds of Dovecot; the domain of an account is its destination.

    `legacy` is the usual one, by TLS and STARTTLS, `hidden` the same with its refusals hidden;
    `bare` lacks SASL-IR and LITERAL+, `loginonly` all mechanisms but LOGIN, `open` has no TLS.
    """

    tokens: ClassVar[TokenIssuer]
    servers: ClassVar[dict[str, Dovecot]]
    destinations = ("legacy", "upgraded", "hidden", "bare", "bareup", "loginonly", "open")

    @classmethod
    def startServers(cls, stack: ExitStack) -> None:
        """Every account lives everywhere; its first message says where."""
        cls.makeAuthority(stack)
        cls.tokens = TokenIssuer()
        accounts = [HELPDESK, *(at(name, each) for name, each in cls.residents())]
        cls.keepSecret(WRONG, *accounts)
        kinds = {
            "legacy": Options(tokens=cls.tokens),
            "bare": Options(capability="IMAP4rev1 ID", tokens=cls.tokens),
            "loginonly": Options(mechanisms=["login"]),
            "open": Options(privacy=Privacy.NONE),
        }
        cls.servers = {
            name: stack.enter_context(Dovecot(name, cls.authority, accounts, options))
            for name, options in kinds.items()
        }
        for server, name in product(cls.servers.values(), cls.destinations):
            server.deliver(at(name).name, message(f"on {server.name}"))
        cls.startProxy(stack, cls.configuration(), {at(n, a).name: n for n, a in cls.residents()})

    @classmethod
    def residents(cls) -> Iterator[tuple[str, Account]]:
        """Each destination with each of its accounts."""
        return product(cls.destinations, [ALICE, *ODD])

    @classmethod
    def configuration(cls) -> dict[str, object]:
        """Two listeners and all destinations."""
        legacy, bare = cls.servers["legacy"], cls.servers["bare"]
        destinations = {
            "legacy": behind(legacy),
            "upgraded": behind(legacy, "starttls"),
            "hidden": behind(legacy, hide_auth_errors=True),
            "bare": behind(bare),
            "bareup": behind(bare, "starttls"),
            "loginonly": behind(cls.servers["loginonly"]),
            "open": behind(cls.servers["open"], "plain", allow_plaintext_auth=True),
        }
        config = settings(cls.authority, standardListeners(), destinations)
        config["routing"]["master_user_separators"] = ["*"]
        return config

    def serverOf(self, name: str) -> str:
        """The Dovecot behind a destination."""
        return {"upgraded": "legacy", "hidden": "legacy", "bareup": "bare"}.get(name, name)

    # Where a login goes

    def test_everyModeOfTLSOnBothLegs(self) -> None:
        """Implicit TLS and STARTTLS before the proxy; these and no TLS behind it."""
        for name, front in product(self.destinations, ("imaps", "imap")):
            client = self.loggedIn(at(name), front)
            self.assertEqual(self.home(client), self.serverOf(name), (name, front))

    def test_aBackendIsSpokenToInTheModeThatItIsDeclaredWith(self) -> None:
        """Dovecot saw TLS where there is to be TLS, and none where there is to be none."""
        for name in self.destinations:
            server = self.servers[self.serverOf(name)]
            mark = server.log.mark()
            self.loggedIn(at(name))
            line = server.log.waitForLine(f"Login: user=<{at(name).name}>", since=mark)
            self.assertEqual("TLS" in line, name != "open", line)

    def test_anAccountThatIsNotMappedGoesToTheDefault(self) -> None:
        """Nobody knows it; the default destination says so itself."""
        client = self.greeted()
        reply = self.logIn(client, Account("nobody@nowhere.example", b"whatever it is"))
        self.assertRegex(reply[-1], rb"\Al NO \[AUTHENTICATIONFAILED\]")

    def test_aMasterUserIsRoutedByTheMailboxsName(self) -> None:
        """By separator and by authorization identity, and the master's own name goes nowhere."""
        for name in ("legacy", "bare"):
            mailbox = at(name).name
            for sent in (
                plain(f"{mailbox}*{HELPDESK.name}", HELPDESK.password),
                plain(HELPDESK.name, HELPDESK.password, authzid=mailbox),
            ):
                client = self.greeted()
                self.assertOK(client.command(b"a AUTHENTICATE PLAIN " + base64Of(sent)))
                self.assertEqual(self.home(client), name)

    # Mechanisms

    def test_theCommandLOGIN(self) -> None:
        """As atom and quoted string, by literals that wait and literals that do not."""
        for name in ("legacy", "bare", "loginonly", "open"):
            user, password = at(name).name.encode(), ALICE.password
            for arguments in (
                b"%b %b" % (user, password),
                b'"%b" "%b"' % (user, password),
                b"{%d+}\r\n%b {%d+}\r\n%b" % (len(user), user, len(password), password),
            ):
                client = self.greeted()
                self.assertOK(client.command(b"a login " + arguments))
            client = self.greeted()
            client.send(b"a LOGIN {%d}\r\n" % len(user))
            self.assertTrue(client.readLine().startswith(b"+ "))
            client.send(b"%b {%d}\r\n" % (user, len(password)))
            self.assertTrue(client.readLine().startswith(b"+ "))
            client.send(password + b"\r\n")
            self.assertOK(client.readUntil(b"a "))

    def test_PLAINWithoutAnInitialResponse(self) -> None:
        """The proxy asks as a server without SASL-IR would, whatever the backend can do."""
        for name in ("legacy", "bare", "loginonly"):
            client = self.greeted()
            client.send(b"a AUTHENTICATE plain\r\n")
            self.assertEqual(client.readLine(), b"+ ")
            client.send(base64Of(plain(at(name).name, ALICE.password)) + b"\r\n")
            self.assertOK(client.readUntil(b"a "))
            self.assertEqual(self.home(client), name)

    def test_theMechanismLOGIN(self) -> None:
        """Name and password are asked for; the name may come as initial response."""
        for name in ("legacy", "bare", "loginonly"):
            user, password = base64Of(at(name).name.encode()), base64Of(ALICE.password)
            client = self.greeted()
            client.send(b"a AUTHENTICATE LOGIN\r\n")
            self.assertEqual(client.readLine(), b"+ VXNlcm5hbWU6")
            client.send(user + b"\r\n")
            self.assertEqual(client.readLine(), b"+ UGFzc3dvcmQ6")
            client.send(password + b"\r\n")
            self.assertOK(client.readUntil(b"a "))
            client = self.greeted()
            client.send(b"a AUTHENTICATE LOGIN " + user + b"\r\n")
            self.assertEqual(client.readLine(), b"+ UGFzc3dvcmQ6")
            client.send(password + b"\r\n")
            self.assertOK(client.readUntil(b"a "))
            self.assertEqual(self.home(client), name)

    def test_oddPasswordsArriveAsTheyAre(self) -> None:
        """Spaces, quotes, backslashes, UTF-8 and other bytes, by every way to send them."""
        for name, odd in product(("legacy", "bare", "loginonly", "open"), ODD):
            account = at(name, odd)
            self.loggedIn(account)
            user, password = account.name.encode(), account.password
            escaped = password.replace(b"\\", b"\\\\").replace(b'"', b'\\"')
            literal = b"{%d+}\r\n%b" % (len(password), password)
            for sent in (b'"' + escaped + b'"', literal):
                reply = self.greeted().command(b"a LOGIN %b %b" % (user, sent))
                self.assertOK(reply)

    # Tokens

    def tokenMessages(self, token: str, name: str) -> list[tuple[bytes, bytes, bytes]]:
        """Mechanism, message, and what a client answers to a refusal's reason."""
        user = at(name).name
        return [
            (b"XOAUTH2", xoauth2(user, token), b""),
            (b"OAUTHBEARER", oauthBearer(user, token), base64Of(b"\1")),
        ]

    def issueToken(self, name: str, lifetime: int = 3600) -> str:
        """A token for the account there; the log may not hold it."""
        token = self.tokens.mint(at(name).name, lifetime=lifetime)
        self.secrets.add(token.encode())
        self.secrets.add(token.rpartition(".")[2].encode())
        return token

    def test_accessTokens(self) -> None:
        """XOAUTH2 and OAUTHBEARER, the message at once or when asked for."""
        for name in ("legacy", "upgraded", "bare"):
            for mechanism, sent, _ in self.tokenMessages(self.issueToken(name), name):
                client = self.greeted()
                line = b"a AUTHENTICATE " + mechanism
                self.assertOK(client.command(line + b" " + base64Of(sent)))
                self.assertEqual(self.home(client), self.serverOf(name))
                client = self.greeted()
                client.send(line + b"\r\n")
                self.assertEqual(client.readLine(), b"+ ")
                client.send(base64Of(sent) + b"\r\n")
                self.assertOK(client.readUntil(b"a "))

    def test_aTokenThatComesWithoutANameIsRoutedByItsClaim(self) -> None:
        """OAUTHBEARER need not name the account; the token does (but Dovecot insists on a name)."""
        for name in ("hidden", "bare"):
            sent = f"n,,\1auth=Bearer {self.issueToken(name)}\1\1".encode()
            mark = self.proxy.log.mark()
            self.greeted().command(b"a AUTHENTICATE OAUTHBEARER " + base64Of(sent))
            self.proxy.log.waitForLine(f"login of ali.* refused by {name}", since=mark)

    def test_whyATokenIsRefusedReachesTheClient(self) -> None:
        """The backend's reason is passed on, the client's answer back, and then its refusal."""
        for name in ("legacy", "bare"):
            for mechanism, sent, answer in self.tokenMessages(self.issueToken(name, -60), name):
                client = self.greeted()
                client.send(b"a AUTHENTICATE %b %b\r\n" % (mechanism, base64Of(sent)))
                reason = json.loads(b64decode(client.readLine().removeprefix(b"+ ")))
                self.assertIn(reason["status"], ("401", "invalid_token"))
                client.send(answer + b"\r\n")
                reply = client.readUntil(b"a ")
                self.assertRegex(reply[-1], rb"\Aa NO \[AUTHENTICATIONFAILED\]")
                self.assertOK(self.logIn(client, at(name)))

    def test_aClientMayCancelAtTheReason(self) -> None:
        """A star ends the exchange on both legs, and the next login goes on from there."""
        for mechanism, sent, _ in self.tokenMessages(self.issueToken("legacy", -60), "legacy"):
            client = self.greeted()
            client.send(b"a AUTHENTICATE %b %b\r\n" % (mechanism, base64Of(sent)))
            self.assertTrue(client.readLine().startswith(b"+ "))
            client.send(b"*\r\n")
            self.assertRegex(client.readUntil(b"a ")[-1], rb"\Aa (NO|BAD) ")
            self.assertOK(self.logIn(client, at("legacy")))

    def test_whyATokenIsRefusedCanBeHidden(self) -> None:
        """With `hide_auth_errors` the client gets one line, in our words, and no reason."""
        for mechanism, sent, _ in self.tokenMessages(self.issueToken("hidden", -60), "hidden"):
            client = self.greeted()
            reply = client.command(b"a AUTHENTICATE %b %b" % (mechanism, base64Of(sent)))
            self.assertEqual(reply, [b"a NO [AUTHENTICATIONFAILED] Authentication failed."])
            self.assertOK(self.logIn(client, at("hidden")))

    # Refusals

    def refused(self, client: LineClient, name: str) -> bytes:
        """The answer to a wrong password."""
        reply = self.logIn(client, attrs.evolve(WRONG, name=at(name).name))
        self.assertRegex(reply[-1], rb"\Al NO \[AUTHENTICATIONFAILED\]")
        return reply[-1]

    def test_aRefusedLoginCanBeMended(self) -> None:
        """After a refusal the same connection takes a good login, to another backend even."""
        for first, second in (("legacy", "legacy"), ("bare", "open"), ("loginonly", "upgraded")):
            for front in ("imaps", "imap"):
                client = self.greeted(front)
                self.refused(client, first)
                self.assertOK(client.command(b"n NOOP"))
                self.assertOK(self.logIn(client, at(second)))
                self.assertEqual(self.home(client), self.serverOf(second))

    def test_tooManyRefusalsEndTheConnection(self) -> None:
        """The third is answered as the others were, and is the last."""
        client = self.greeted()
        for _ in range(3):
            self.refused(client, "legacy")
        self.assertRegex(client.readLine(), rb"\A\* BYE ")
        self.assertTrue(client.atEnd())

    def test_cleartextLoginsNeedTLS(self) -> None:
        """Before STARTTLS no mechanism is offered, and none is served."""
        token = base64Of(xoauth2(at("legacy").name, self.issueToken("legacy")))
        for command in (
            b"a LOGIN %b %b" % (at("legacy").name.encode(), ALICE.password),
            b"a AUTHENTICATE PLAIN " + base64Of(plain(at("legacy").name, ALICE.password)),
            b"a AUTHENTICATE XOAUTH2 " + token,
        ):
            client = self.connect("imap")
            greeting = client.readLine()
            self.assertIn(b" STARTTLS LOGINDISABLED]", greeting)
            self.assertNotIn(b"AUTH=", greeting)
            mark = self.proxy.log.mark()
            self.assertRegex(client.command(command)[-1], rb"\Aa NO \[PRIVACYREQUIRED\]")
            self.assertNotIn("goes to", self.proxy.log.text(mark))

    def test_whatTheBackendSaysAtTheLoginArrives(self) -> None:
        """The capabilities of the account's own server replace what we promised before."""
        reply = self.logIn(self.greeted(), at("legacy"))
        self.assertRegex(reply[-1], rb"\Al OK \[CAPABILITY IMAP4rev1 .* IDLE .*\] Logged in\Z")
        reply = self.logIn(self.greeted(), at("bare"))
        self.assertEqual(reply[-1], b"l OK [CAPABILITY IMAP4rev1 ID] Logged in")
