"""What an HTTP client sees while the store, or a real backend, is away; and that both come back."""

import time
from contextlib import ExitStack
from typing import ClassVar

from tests.integration.accounts import ALICE, at
from tests.integration.databases import ENCODED, PASSWORD, RedisServer
from tests.integration.front import Table
from tests.integration.web import Message
from tests.integration.website import BOB, WebTestCase, basic

OLD, NEW = basic(at("old")), basic(at("new"))
TIMEOUT, GRACE = 1.0, 5.0
"""Seconds that a lookup may take; and for all else, on a machine that is busy."""


class StoreCase(WebTestCase):
    """Accounts are in Redis, and what is remembered of them is soon old."""

    server: ClassVar[RedisServer]
    onError: ClassVar[str]

    @classmethod
    def startOthers(cls, stack: ExitStack) -> None:
        """Redis."""
        cls.secrets |= {PASSWORD.encode(), ENCODED.encode()}
        cls.server = stack.enter_context(RedisServer(cls.authority))
        for place in cls.places():
            for account in (ALICE, BOB):
                cls.server.ask("SET", f"route:{at(place, account).name}", place)

    @classmethod
    def configuration(cls) -> Table:
        """Another route needs no account."""
        config = super().configuration()
        pinned = {"match": "/pinned", "destination": "new"}
        config["http"]["route"] = [pinned, *config["http"]["route"]]
        times = {"positive_ttl": "300ms", "negative_ttl": "300ms"}
        config["mapping"] = {
            "source": "redis",
            "on_error": cls.onError,
            "lookup_timeout": "1s",
            **times,
            "redis": {"url": cls.server.url},
        }
        return config

    def assertHeals(self, authorization: str) -> None:
        """The store is there again, and requests go where it says."""

        def served() -> bool:
            return self.web().ask("/x", Authorization=authorization).header("x-server") == "new"

        self.assertEventually(served, "requests do not go where the store says")


class RefusingTests(StoreCase):
    """`on_error = "tempfail"`: rather no answer than one from the wrong mailbox."""

    onError = "tempfail"

    def assertRefused(self, answer: Message) -> None:
        """503, with the time after which to ask again."""
        self.assertOurs(503, answer)
        self.assertEqual(answer.header("retry-after"), "5")
        self.assertIsNone(answer.header("connection"))

    def test_theStoreIsAway(self) -> None:
        """503 on a connection that goes on; who needs no store is served meanwhile."""
        client = self.web()
        self.assertFrom("new", client.ask("/x", Authorization=NEW))
        time.sleep(0.4)
        self.server.kill()
        try:
            mark = self.proxy.log.mark()
            self.assertRefused(client.ask("/x", Authorization=NEW))
            self.assertRefused(client.ask("/x", "POST", b"body", Authorization=NEW))
            head = client.ask("/x", "HEAD", Authorization=NEW)
            self.assertEqual((head.status, head.body), (503, b""))
            self.assertFrom("new", client.ask("/pinned"))
            self.assertFrom("old", client.ask("/x"))
            self.proxy.log.waitForLine(" 503 of .*unavailable", since=mark)
        finally:
            self.server.start()
        self.assertHeals(NEW)

    def test_theStoreHangs(self) -> None:
        """503 in the time that a lookup may take."""
        self.server.pause()
        try:
            started = time.monotonic()
            self.assertRefused(self.web().ask("/x", Authorization=basic(at("new", BOB))))
            self.assertLess(time.monotonic() - started, TIMEOUT + GRACE)
        finally:
            self.server.resume()
        self.assertHeals(basic(at("new", BOB)))


class RememberingTests(StoreCase):
    """`on_error = "stale"`, the default."""

    onError = "stale"

    def test_theStoreIsAway(self) -> None:
        """Who is known goes where he was; who is not goes to the default: nobody is refused."""
        client = self.web()
        self.assertFrom("new", client.ask("/x", Authorization=NEW))
        time.sleep(0.4)
        self.server.kill()
        try:
            self.assertFrom("new", client.ask("/x", Authorization=NEW))
            self.assertFrom("old", client.ask("/x", Authorization=basic(at("new", BOB))))
        finally:
            self.server.start()
        self.assertHeals(basic(at("new", BOB)))


class BackendTests(WebTestCase):
    """`new` is stopped, or hangs; `old` must not suffer from it."""

    @classmethod
    def configuration(cls) -> Table:
        """Three failures open the circuit for a short time."""
        config = super().configuration()
        config["server"] |= {"backend_timeout": "2s", "host_down_threshold": 3}
        config["server"] |= {"host_down_min_clients": 0, "host_down_cooldown": "2s"}
        config["http"]["relay_idle"] = "2s"
        return config

    def setUp(self) -> None:
        """Begin with it in good health."""
        super().setUp()
        self.api("POST", "/destinations/reset", destination="new")

    def test_itIsAway(self) -> None:
        """502, then 503 at once; who obeys Retry-After finds it again, on the same connection."""
        client = self.web()
        self.assertFrom("new", client.ask("/x", Authorization=NEW))
        self.new.stop()
        try:
            for _ in range(3):
                self.assertOurs(502, client.ask("/x", Authorization=NEW))
            answer = client.ask("/x", Authorization=NEW)
            self.assertOurs(503, answer)
            wait = int(answer.header("retry-after") or 0)
            self.assertIn(wait, (1, 2))
            self.assertFrom("old", client.ask("/x", Authorization=OLD))
        finally:
            self.new.start()
        time.sleep(wait)
        self.assertFrom("new", client.ask("/x", Authorization=NEW))

    def test_itHangs(self) -> None:
        """504, on a connection that is kept and on a fresh one; not for longer than it hangs."""
        client = self.web()
        self.assertFrom("new", client.ask("/x", Authorization=NEW))
        self.new.pause()
        try:
            for each in (client, self.web()):
                started = time.monotonic()
                self.assertOurs(504, each.ask("/x", Authorization=NEW))
                self.assertLess(time.monotonic() - started, 8, "it has taken a default")
            self.assertFrom("old", self.web().ask("/x", Authorization=OLD))
        finally:
            self.new.resume()
        self.assertFrom("new", self.web().ask("/x", Authorization=NEW))
