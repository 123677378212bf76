"""A proxy whose accounts are in a store of the test's choice, and crowds that log in there."""

import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import ClassVar

import attrs

from tests.integration.certificates import Authority
from tests.integration.databases import ENCODED, PASSWORD
from tests.integration.front import ProxyTestCase, Table, destination, listener, settings
from tests.integration.scripted import Peer, Script, ScriptedServer, greeting
from tests.integration.wire import LineClient

TIMEOUT = 1.0
"""Seconds that a lookup may take; five where nobody says so."""

GRACE = 3.5
"""Seconds on top for everything else that a login is, on a machine that is busy."""

CROWD = 200

KNOWN = [f"known{number}@example.org" for number in range(CROWD)]
FRESH = [f"fresh{number}@example.org" for number in range(2000)]


@attrs.frozen
class Login:
    """How a login went: the tagged answer's text and how long it took, in seconds."""

    answer: bytes
    seconds: float


def named(name: bytes) -> Script:
    """A backend that takes every login and says who it is."""

    def script(peer: Peer) -> None:
        peer.send(greeting())
        peer.answer(b"OK on " + name)
        peer.hold()

    return script


class StoreCase(ProxyTestCase):
    """A proxy with a store in which all accounts are on `new`; the default is `old`."""

    fresh: ClassVar[Iterable[str]]
    informed: ClassVar[int] = 0
    """The process that has been asked for all known accounts."""

    @classmethod
    def startServers(cls, stack: ExitStack) -> None:
        """Backends, the store, the proxy."""
        cls.makeAuthority(stack)
        cls.secrets |= {PASSWORD.encode(), ENCODED.encode()}
        cls.fresh = iter(FRESH)
        mapping = cls.startStore(stack, cls.authority)
        cls.fill((name, "new") for name in (*KNOWN, *FRESH))
        cls.startProxy(stack, cls.configuration(stack, mapping))

    @classmethod
    def configuration(cls, stack: ExitStack, mapping: Table) -> Table:
        """Everything by cleartext, to spend no time on handshakes; short lifetimes."""
        destinations = {
            name: destination(
                stack.enter_context(ScriptedServer(named(name.encode()))).port,
                "localhost",
                "plain",
                allow_plaintext_auth=True,
            )
            for name in ("old", "new")
        }
        config = settings(cls.authority, {"imap": listener("plain")}, destinations)
        config["capabilities"] = {"imap": {"allow_plain_auth_without_tls": True}}
        times = {"positive_ttl": "300ms", "negative_ttl": "300ms", "lookup_timeout": "1s"}
        config["mapping"] = {**times, **mapping}
        return config

    @classmethod
    def startStore(cls, stack: ExitStack, authority: Authority) -> Table:
        """Start it; the `[mapping]` table with its source."""
        raise NotImplementedError

    @classmethod
    def fill(cls, accounts: Iterable[tuple[str, str]]) -> None:
        """Write mappings behind the proxy's back."""
        raise NotImplementedError

    def login(self, account: str) -> Login:
        """Log in once."""
        started = time.monotonic()
        with LineClient(self.proxy.portOf("imap")) as client:
            client.readLine()
            answer = client.command(b"a LOGIN %b secret-of-all" % account.encode())[-1]
        return Login(answer, time.monotonic() - started)

    def crowd(
        self, accounts: Sequence[str], meanwhile: Callable[[], object] = lambda: None
    ) -> list[Login]:
        """Log them all in at once, within half a second; in the middle something happens."""

        def late(number: int, account: str) -> Login:
            time.sleep(0.5 * number / len(accounts))
            return self.login(account)

        with ThreadPoolExecutor(len(accounts)) as pool:
            logins = [pool.submit(late, *each) for each in enumerate(accounts)]
            time.sleep(0.2)
            meanwhile()
            return [login.result() for login in logins]

    def remember(self) -> None:
        """Have the proxy know all known accounts, by what it was told a while ago."""
        if self.proxy.pid != type(self).informed:
            self.assertAll(self.crowd(KNOWN), b"OK on new")
            type(self).informed = self.proxy.pid
        time.sleep(0.4)

    def nextFresh(self) -> str:
        """An account of which the proxy has not heard."""
        return next(iter(self.fresh))

    def isAnswered(self, expected: bytes) -> bool:
        """Whether such an account's login is answered so; asked seldom, for there is no end of
        asking, and of accounts there is one."""
        time.sleep(0.05)
        return expected in self.login(self.nextFresh()).answer

    def assertAll(self, logins: Sequence[Login], expected: bytes) -> None:
        """Every login had this answer, in time."""
        answers = {login.answer for login in logins}
        self.assertEqual(len(answers), 1, answers)
        self.assertIn(expected, answers.pop())
        self.assertLess(max(login.seconds for login in logins), TIMEOUT + GRACE)

    def assertHeals(self) -> None:
        """An account that nobody has asked for yet is soon on its own server."""
        self.assertEventually(
            lambda: self.isAnswered(b"OK on new"),
            "the proxy did not recover",
            timeout=20,
        )
