"""Moving one account from one real server to another while everybody works."""

import ssl
import threading
import time
from contextlib import ExitStack
from typing import ClassVar

import attrs

from tests.integration.accounts import ALICE, HELPDESK
from tests.integration.dovecot import Account, Dovecot
from tests.integration.front import ProxyTestCase, behind, settings, standardListeners
from tests.integration.messages import message
from tests.integration.wire import LineClient, base64Of, plain

BOB = attrs.evolve(ALICE, name="bob@example.org")
"""The bystander, whom no test may disturb."""


class CutOverTests(ProxyTestCase):
    """Two Dovecots with the same accounts; before each test all live on `legacy`."""

    legacy: ClassVar[Dovecot]
    new: ClassVar[Dovecot]

    @classmethod
    def startServers(cls, stack: ExitStack) -> None:
        """One message in each mailbox tells where it is."""
        cls.makeAuthority(stack)
        cls.keepSecret(ALICE, BOB, HELPDESK)
        accounts = [ALICE, BOB, HELPDESK]
        cls.legacy, cls.new = (
            stack.enter_context(Dovecot(name, cls.authority, accounts))
            for name in ("legacy", "new")
        )
        for server in (cls.legacy, cls.new):
            for account in (ALICE, BOB):
                server.deliver(account.name, message(f"on {server.name}"))
        destinations = {server.name: behind(server) for server in (cls.new, cls.legacy)}
        config = settings(cls.authority, standardListeners(), destinations)
        config["routing"]["master_user_separators"] = ["*"]
        cls.startProxy(stack, config, {ALICE.name: "legacy", BOB.name: "legacy"})

    def setUp(self) -> None:
        """Everybody is on `legacy` again, the bystander with a session in IDLE."""
        super().setUp()
        self.proxy.writeMapping({ALICE.name: "legacy", BOB.name: "legacy"})
        self.assertEqual(self.api("POST", "/mappings/reload").status, 200)
        self.assertNobodyIsThere()
        self.bystander = self.idling(BOB)
        self.addCleanup(self.assertUndisturbed)

    def assertUndisturbed(self) -> None:
        """The bystander's session lives, and its account is where it was."""
        self.legacy.deliver(BOB.name, message("for the bystander"))
        self.assertHearsOfMail(self.bystander)
        self.assertEqual(self.home(self.loggedIn(BOB)), "legacy")

    def idling(self, account: Account) -> LineClient:
        """A session in IDLE."""
        client = self.loggedIn(account)
        self.assertOK(client.command(b"a SELECT INBOX"))
        client.send(b"b IDLE\r\n")
        self.assertEqual(client.readLine(), b"+ idling")
        return client

    def move(self, name: str) -> None:
        """Map Alice to that destination."""
        answer = self.api("PUT", "/mappings", identifier=ALICE.name, destination=name)
        self.assertEqual(answer.status, 200, answer.text)

    # Map

    def test_theNextSessionIsOnTheNewServer(self) -> None:
        """Mapped, and no cache in the way: the live session stays, the next one moves."""
        before = self.loggedIn(ALICE)
        self.assertEqual(self.home(before), "legacy")
        self.move("new")
        self.assertEqual(self.home(self.loggedIn(ALICE)), "new")
        self.assertEqual(self.home(before), "legacy")
        found = self.api("GET", "/mappings", identifier=ALICE.name).json()
        self.assertEqual((found["destination"], found["routed_to_default"]), ("new", False))
        self.assertIn(f"{ALICE.name}\tnew\n", self.proxy.mapping.read_text())

    def test_anAccountCanMoveBack(self) -> None:
        """As often as one likes."""
        for name in ("new", "legacy", "new"):
            self.move(name)
            self.assertEqual(self.home(self.loggedIn(ALICE)), name)

    def test_anUnmappedAccountGoesToTheDefault(self) -> None:
        """Removed, and removed again: the default destination is `new` here."""
        for expected in ("removed", "absent"):
            answer = self.api("DELETE", "/mappings", identifier=ALICE.name)
            self.assertEqual((answer.status, answer.text.strip()), (200, expected))
        self.assertEqual(self.home(self.loggedIn(ALICE)), "new")
        found = self.api("GET", "/mappings", identifier=ALICE.name).json()
        self.assertTrue(found["routed_to_default"])

    def test_anUndeclaredDestinationChangesNothing(self) -> None:
        """A slip of the finger is 400, and the account stays where it is."""
        answer = self.api("PUT", "/mappings", identifier=ALICE.name, destination="nwe")
        self.assertEqual(answer.status, 400)
        self.assertEqual(self.home(self.loggedIn(ALICE)), "legacy")

    def test_onlyTheTokenOpensTheInterface(self) -> None:
        """Without it nothing is told and nothing moves."""
        for token in (None, "not the token", "x" * 40):
            answer = self.proxy.api(
                "PUT", "/mappings", token, identifier=ALICE.name, destination="new"
            )
            self.assertEqual(answer.status, 401)
        self.assertEqual(self.home(self.loggedIn(ALICE)), "legacy")

    # Kick

    def test_liveSessionsAreKicked(self) -> None:
        """Mapped and kicked: all of the account's sessions end, and begin again elsewhere."""
        live = [self.idling(ALICE), self.loggedIn(ALICE, "imap"), self.idling(ALICE)]
        self.move("new")
        answer = self.api("POST", "/connections/kick", identifier=ALICE.name)
        self.assertEqual((answer.status, answer.text.strip()), (200, "kicked 3"))
        for client in live:
            client.readToEnd()
            client.close()
        self.assertEventually(lambda: not self.connections(identifier=ALICE.name), "still there")
        self.assertEqual(self.home(self.loggedIn(ALICE)), "new")
        answer = self.api("POST", "/connections/kick", identifier="nobody@example.org")
        self.assertEqual(answer.text.strip(), "kicked 0")

    def test_aMasterUsersSessionIsTheAccounts(self) -> None:
        """Somebody else in the mailbox is kicked with it."""
        client = self.greeted()
        sent = plain(f"{ALICE.name}*{HELPDESK.name}", HELPDESK.password)
        self.assertOK(client.command(b"a AUTHENTICATE PLAIN " + base64Of(sent)))
        self.assertEqual(len(self.connections(identifier=ALICE.name)), 1)
        answer = self.api("POST", "/connections/kick", identifier=f"{ALICE.name}*anybody")
        self.assertEqual(answer.text.strip(), "kicked 1")
        client.readToEnd()

    def test_liveSessionsAreListed(self) -> None:
        """By account, destination and protocol, each with what an operator wants to know."""
        client = self.loggedIn(ALICE, source="127.0.0.5")
        client.command(b"a SELECT INBOX")
        [found] = self.connections(identifier=ALICE.name)
        self.assertEqual(found["client"], "{}:{}".format(*client.socket.getsockname()))
        keys = ("protocol", "listener", "identifier", "destination")
        self.assertEqual([found[key] for key in keys], ["imap", "imaps", ALICE.name, "legacy"])
        self.assertEqual(found["bytes_received"], len(b"a SELECT INBOX\r\n"))
        self.assertGreater(found["bytes_sent"], 100)
        self.assertLess(abs(found["since"] - time.time()), 60)
        self.assertEqual(len(self.connections(destination="legacy")), 2)
        self.assertEqual(self.connections(destination="new"), [])
        self.assertEqual(self.connections(protocol="pop3"), [])

    # Delay

    def test_aHeldLoginGoesWhereTheAccountIsThen(self) -> None:
        """Held, mapped, released: the login sees the new server, and others never waited."""
        answer = self.api("POST", "/connections/delay", identifier=ALICE.name, seconds=60)
        self.assertEqual(answer.status, 200)
        held = [self.sendLogin(ALICE), self.sendLogin(ALICE)]
        self.assertEqual(self.home(self.loggedIn(BOB)), "legacy")
        for client in held:
            with self.assertRaises(TimeoutError):
                client.readLine(timeout=0.2)
        self.move("new")
        self.api("POST", "/connections/delay", identifier=ALICE.name, seconds=0)
        for client in held:
            self.assertOK(client.readUntil(b"l "))
            self.assertEqual(self.home(client), "new")

    def test_aHoldEndsByItself(self) -> None:
        """After its time the login goes on; a client that leaves meanwhile is forgotten."""
        started = time.monotonic()
        self.api("POST", "/connections/delay", identifier=ALICE.name, seconds=1)
        leaver, client = self.sendLogin(ALICE), self.sendLogin(ALICE)
        leaver.close()
        self.assertOK(client.readUntil(b"l "))
        self.assertGreater(time.monotonic() - started, 0.9)
        self.assertEventually(lambda: len(self.connections()) == 2, "the leaver is still there")

    def test_aHoldIsWithinReason(self) -> None:
        """What is no number, or too large a one, is 400."""
        for seconds in ("-1", "1e3", "121", "18446744073709551616", "", "x"):
            answer = self.api("POST", "/connections/delay", identifier=ALICE.name, seconds=seconds)
            self.assertEqual(answer.status, 400, seconds)
        self.assertOK(self.logIn(self.greeted(), ALICE))

    # The file

    def test_anEditOfTheFileHoldsAfterAReload(self) -> None:
        """What was edited by hand is not seen before, and at once after."""
        self.loggedIn(ALICE)
        self.proxy.writeMapping({ALICE.name: "new", BOB.name: "legacy"})
        self.assertEqual(self.home(self.loggedIn(ALICE)), "legacy")
        self.assertEqual(self.api("POST", "/mappings/reload").status, 200)
        self.assertEqual(self.home(self.loggedIn(ALICE)), "new")

    def test_aBadFileIsRefusedWithItsLine(self) -> None:
        """The old table stays, and the answer names file and line."""
        self.proxy.writeMapping({BOB.name: "legacy", ALICE.name: "nowhere"})
        answer = self.api("POST", "/mappings/reload")
        self.assertEqual(answer.status, 400)
        self.assertIn("mapping:2", answer.text)
        self.assertEqual(self.home(self.loggedIn(ALICE)), "legacy")

    def test_anEditAndACallDoNotOverwriteEachOther(self) -> None:
        """A call after an edit keeps the edit's line."""
        edited = self.proxy.mapping.read_text() + "carol@example.org new\n"
        self.proxy.mapping.write_text(edited)
        self.move("new")
        text = self.proxy.mapping.read_text()
        for line in ("carol@example.org\tnew\n", f"{ALICE.name}\tnew\n", f"{BOB.name}\tlegacy\n"):
            self.assertIn(line, text)

    # All of it, under load

    def test_aMoveUnderLoadLeavesNobodyBehind(self) -> None:
        """Hold, map, kick, release while the account logs in all the time.

        Every session is wholly on one server, none begins on the old one after the move, and
        none that began there outlives it.
        """
        crowd = _Crowd(self)
        crowd.start()
        self.assertEventually(lambda: len(crowd.homes) > 20, "nobody logs in")
        self.api("POST", "/connections/delay", identifier=ALICE.name, seconds=60)
        self.move("new")
        self.api("POST", "/connections/kick", identifier=ALICE.name)
        moved = len(crowd.homes)
        self.assertEqual(self.connections(identifier=ALICE.name, destination="legacy"), [])
        self.api("POST", "/connections/delay", identifier=ALICE.name, seconds=0)
        self.assertEventually(lambda: len(crowd.homes) > moved + 40, "nobody logs in any more")
        crowd.stop()
        self.assertEqual(crowd.errors, [])
        self.assertEqual(set(crowd.homes[: moved - 5]), {"legacy"})
        self.assertEqual(set(crowd.homes[moved + 5 :]), {"new"})


class _Crowd:
    """Four clients of Alice's that log in, look where they are and leave, again and again.

    :ivar homes: what they saw, in order; a session that ended in between has seen nothing.
    :ivar errors: what should not have happened.
    """

    def __init__(self, test: CutOverTests) -> None:
        self.homes: list[str] = []
        self.errors: list[str] = []
        self._test = test
        self._stopped = False
        self._threads = [threading.Thread(target=self._live) for _ in range(4)]

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()
        self._test.addCleanup(self.stop)

    def stop(self) -> None:
        """End, and wait for all."""
        self._stopped = True
        for thread in self._threads:
            thread.join()

    def _live(self) -> None:
        while not self._stopped:
            try:
                with self._test.greeted() as client:
                    answer = self._test.logIn(client, ALICE)[-1]
                    if b" NO [UNAVAILABLE] " in answer:
                        continue  # kicked during the login
                    self._test.assertOK([answer])
                    self.homes.append(self._test.home(client))
            except (EOFError, ConnectionError, ssl.SSLEOFError):
                continue  # kicked in between
            except Exception as error:
                self.errors.append(repr(error))
                return
