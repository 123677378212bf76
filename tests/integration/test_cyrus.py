"""Cyrus behind the proxy: IMAP, POP3, ManageSieve and LMTP, by real clients."""

import imaplib
import poplib
import smtplib
import tempfile
from contextlib import ExitStack
from itertools import product
from pathlib import Path
from typing import Any, ClassVar

from tests.integration import clients
from tests.integration.accounts import ALICE, ODD, at
from tests.integration.cyrus import Cyrus
from tests.integration.dialogues import IMAP, POP3, Dialogue, ManageSieve
from tests.integration.dovecot import Account
from tests.integration.front import ProxyTestCase, Table, destination, listenersFor, settings
from tests.integration.house import WRONG, withPassword
from tests.integration.messages import bigMessage, message
from tests.integration.wire import LineClient

_IMAP, _POP3, _SIEVE = IMAP(), POP3(), ManageSieve()
DIALOGUES: tuple[Dialogue, ...] = (_IMAP, _POP3, _SIEVE)
FRONTS = ("secure", "upgrading")
PASSWORDS = [ALICE, ODD[0], ODD[1], ODD[3], ODD[4]]
"""Cyrus wants UTF-8."""


class CyrusTests(ProxyTestCase):
    """One Cyrus under several names, and a proxy that serves all of its protocols.

    `cyrus` is reached by TLS where there is that, `upgraded` by STARTTLS, `hidden` with its
    refusals hidden; as `bare` its POP3 has no mechanism.
    """

    server: ClassVar[Cyrus]
    places = ("cyrus", "upgraded", "hidden", "bare")

    @classmethod
    def startServers(cls, stack: ExitStack) -> None:
        """Every account lives everywhere, which is always the same server."""
        cls.makeAuthority(stack)
        accounts = [at(name, each) for name, each in product(cls.places, PASSWORDS)]
        cls.keepSecret(WRONG, *accounts)
        cls.server = stack.enter_context(Cyrus("cyrus", cls.authority, accounts))
        listeners = {
            f"{each.protocol}-{front}": table
            for each in DIALOGUES
            for front, table in listenersFor(each.protocol).items()
        }
        smtp = listenersFor("lmtp")["secure"] | {"tls": "plain"}
        config = settings(cls.authority, {**listeners, "lmtp": smtp}, cls.destinations())
        config["routing"]["smtp_passthrough_destination"] = "cyrus"
        config["server"] |= {"host_down_threshold": 0, "backend_connect_retries": 0}
        cls.startProxy(
            stack, config, {each.name: each.name.split("@")[1][:-8] for each in accounts}
        )

    @classmethod
    def destinations(cls) -> dict[str, Table]:
        """The ways to reach it."""
        bare = cls.endpoints("implicit") | {
            "pop3": {"port": cls.server.passwordsOnly, "tls": "implicit"}
        }
        plain = {"port": cls.server.lmtp, "tls": "plain"}
        cyrus = {**cls.endpoints("implicit"), "lmtp": plain, "smtp": plain}
        return {
            "cyrus": destination(1, "cyrus.test", protocol=cyrus),
            "upgraded": destination(1, "cyrus.test", protocol=cls.endpoints("starttls")),
            "hidden": destination(
                1, "cyrus.test", protocol=cls.endpoints("implicit"), hide_auth_errors=True
            ),
            "bare": destination(1, "cyrus.test", protocol=bare),
        }

    @classmethod
    def endpoints(cls, tls: str) -> Table:
        """The protocols with a login; ManageSieve has STARTTLS only."""
        doors = cls.server.doors
        table: Table = {each: {"port": doors[each].port(tls), "tls": tls} for each in doors}
        return table | {"managesieve": {"port": doors["managesieve"].open, "tls": "starttls"}}

    # Clients

    def opened(self, dialogue: Dialogue, front: str = "secure", **more: Any) -> LineClient:
        """A client, past the greeting and past TLS."""
        client = self.connect(f"{dialogue.protocol}-{front}", **more)
        dialogue.greet(client)
        if front == "upgrading":
            dialogue.startTLS(client, self.context)
        return client

    def deliver(self, account: Account, content: bytes) -> None:
        """By LMTP through the proxy."""
        with smtplib.LMTP("localhost", self.proxy.portOf("lmtp"), "me.example") as client:
            self.assertEqual(client.sendmail("a@example.org", [account.name], content), {})

    # Logins

    def test_everyModeOfTLSOnBothLegs(self) -> None:
        """In each protocol, to each place."""
        for dialogue, front, name in product(DIALOGUES, FRONTS, self.places):
            client = self.opened(dialogue, front)
            answer = dialogue.logIn(client, at(name))
            self.assertRegex(answer, dialogue.accepted, (dialogue.protocol, name))
            client.close()

    def test_PLAINAndLOGIN(self) -> None:
        """With an initial response and without."""
        for dialogue, name in product(DIALOGUES, self.places):
            user, password = at(name).name.encode(), ALICE.password
            for mechanism, messages in (
                ("PLAIN", [b"\0" + user + b"\0" + password]),
                ("LOGIN", [user, password]),
            ):
                for first in (None, messages[0]):
                    client = self.opened(dialogue)
                    answer = dialogue.authenticate(client, mechanism, first)
                    for each in messages if first is None else messages[1:]:
                        answer = dialogue.reply(client, each)
                    self.assertRegex(answer, dialogue.accepted, (dialogue.protocol, name))
                    client.close()

    def test_oddPasswordsArriveAsTheyAre(self) -> None:
        """In each protocol; as `bare` POP3 has them in a line of their own, spaces and all."""
        for dialogue, name, each in product(DIALOGUES, ("cyrus", "bare"), PASSWORDS):
            client = self.opened(dialogue)
            answer = dialogue.logIn(client, at(name, each))
            self.assertRegex(answer, dialogue.accepted, (dialogue.protocol, each.name))
            client.close()

    def test_aRefusalArrivesAndCanBeMended(self) -> None:
        """In Cyrus' words, or in ours where they are hidden."""
        refusals = {"imap": rb"a NO ", "pop3": rb"-ERR \[AUTH\] ", "managesieve": rb"NO "}
        for dialogue, name in product(DIALOGUES, self.places):
            client = self.opened(dialogue)
            answer = dialogue.logIn(client, withPassword(at(name), WRONG))
            self.assertRegex(answer, rb"\A" + refusals[dialogue.protocol], name)
            self.assertEqual(answer == dialogue.hidden, name == "hidden", answer)
            self.assertRegex(dialogue.logIn(client, at(name)), dialogue.accepted)
            client.close()

    def test_aServerThatStopsIsNoRefusal(self) -> None:
        """In no protocol; LMTP says 421."""
        self.server.stop()
        try:
            for dialogue in DIALOGUES:
                answer = dialogue.logIn(self.opened(dialogue), at("cyrus"))
                self.assertRegex(answer, dialogue.unavailable)
            self.assertRegex(self.connect("lmtp").readLine(), rb"\A421 4\.3\.2 ")
        finally:
            self.server.start()
        for dialogue in DIALOGUES:
            answer = dialogue.logIn(self.opened(dialogue), at("cyrus"))
            self.assertRegex(answer, dialogue.accepted)

    # Mail

    def test_mailArrivesAndIsRead(self) -> None:
        """In by LMTP, out by imaplib and poplib, byte for byte."""
        account, content = at("upgraded"), bigMessage(2_000_000, seed=21)
        self.deliver(account, content)
        port = self.proxy.portOf("imap-secure")
        reader = imaplib.IMAP4_SSL("localhost", port, ssl_context=self.context, timeout=20)
        reader.login(account.name, account.password.decode())
        self.assertEqual(clients.subjects(reader), ["big 2000000 21"])
        reader.logout()
        client = poplib.POP3("localhost", self.proxy.portOf("pop3-upgrading"), timeout=20)
        client.stls(self.context)
        client.user(account.name)
        client.pass_(account.password.decode())
        read = b"\r\n".join(client.retr(1)[1]) + b"\r\n"
        client.quit()
        self.assertTrue(read.endswith(content.partition(b"\r\n\r\n")[2]))

    def test_programsRead(self) -> None:
        """Curl by IMAP and POP3, and fetchmail, by both modes of TLS."""
        self.deliver(at("cyrus"), message("read by programs"))
        for protocol, front in product(("imap", "pop3"), FRONTS):
            target = self.target(f"{protocol}-{front}")
            scheme = f"{protocol}s" if target.implicit else protocol
            path = "INBOX;MAILINDEX=1" if protocol == "imap" else "1"
            done = clients.curl(target, at("cyrus"), scheme, path)
            self.assertEqual(done.status, 0, done.output)
            self.assertIn("Subject: read by programs", done.output)
            folder = self.folder()
            done = clients.fetchmail(folder, target, at("cyrus"), protocol)
            self.assertEqual(done.status, 0, done.output)
            self.assertIn("read by programs", (folder / "fetched").read_text())

    def test_scriptsWork(self) -> None:
        """A script that is put through the proxy is active for mail that comes through it."""
        account = at("bare")
        client = self.opened(_SIEVE)
        self.assertRegex(_SIEVE.logIn(client, account), _SIEVE.accepted)
        script = b'require "reject"; reject "no such taste";\r\n'
        put = b'PUTSCRIPT "away" {%d+}\r\n%b' % (len(script), script)
        self.assertRegex(_SIEVE.ask(client, put), rb"\AOK")
        client.send(b'GETSCRIPT "away"\r\n')
        client.readLine()
        self.assertEqual(client.readExactly(len(script)), script)
        client.readUntil(b"OK")
        self.assertRegex(_SIEVE.ask(client, b'SETACTIVE "away"'), rb"\AOK")
        with self.assertRaises(smtplib.SMTPException):
            self.deliver(account, message("unwanted"))

    def folder(self) -> Path:
        """A folder for a program's files."""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        return Path(folder.name)
