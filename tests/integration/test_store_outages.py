"""Stores that fail in the middle of many logins: each is answered, and all heals by itself."""

import contextlib
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, ClassVar

from mailproxy.mapping.sql import Statements
from tests.integration import statements
from tests.integration.certificates import Authority
from tests.integration.databases import (
    PASSWORD,
    USER,
    MariaDBServer,
    PostgreSQLServer,
    RedisServer,
    StoreServer,
)
from tests.integration.front import Table
from tests.integration.stores import KNOWN, Login, StoreCase

BROKEN, HEALED = "cannot tell where accounts are", "the mapping store answers again"


class Drills(StoreCase):
    """What is done to every store: the class says how."""

    def drill(self, harm: Callable[[], object], repair: Callable[[], object]) -> None:
        """Harm the store in the middle of a crowd of known accounts, look, repair it, look.

        What an operator tries in the meantime makes nothing worse, and whoever has just been moved
        is where the others are.
        """
        moved = self.nextFresh()
        self.api("PUT", "/mappings", identifier=moved, destination="new")
        self.remember()
        mark = self.proxy.log.mark()
        try:
            self.assertAll(self.crowd(KNOWN, harm), b"OK on new")
            self.assertEventually(lambda: self.isAnswered(b"OK on old"), "the store still answers")
            unheard = [self.nextFresh() for _ in range(20)]
            logins = self.crowd([*unheard, *KNOWN])
            self.assertAll(logins[:20], b"OK on old")
            self.assertAll(logins[20:], b"OK on new")
            for path in ("/mappings/reload", "/cache/invalidate"):
                self.assertEqual(self.api("POST", path).status, 200)
                self.assertAll(self.crowd([moved, *KNOWN]), b"OK on new")
        finally:
            repair()
        self.assertHeals()
        self.awaitCalm(mark)

    def awaitCalm(self, mark: int) -> None:
        """The log has said once that the store failed, and once that it answers again."""

        def healed() -> bool:
            self.isAnswered(b"OK on new")
            return HEALED in self.proxy.log.text(mark)

        self.assertEventually(healed, "the log does not say that the store answers")
        text = self.proxy.log.text(mark)
        self.assertEqual((text.count(BROKEN), text.count(HEALED)), (1, 1), text)

    def test_aMoveHoldsAtOnce(self) -> None:
        """By the management API: there, back, and out of the store; the next login sees it."""
        account = self.nextFresh()
        for place in ("new", "old", "new"):
            answer = self.api("PUT", "/mappings", identifier=account, destination=place)
            self.assertEqual(answer.status, 200, answer.text)
            self.assertEqual(self.login(account).answer, b"a OK on " + place.encode())
        for said in ("removed", "absent"):
            answer = self.api("DELETE", "/mappings", identifier=account)
            self.assertEqual((answer.status, answer.text.strip()), (200, said))
            self.assertEqual(self.login(account).answer, b"a OK on old")


class ServerDrills(Drills):
    """What is done to every store that is a server."""

    server: ClassVar[StoreServer]

    def test_stopped(self) -> None:
        """It is gone, and comes back."""
        self.drill(self.server.kill, self.server.start)

    def test_hanging(self) -> None:
        """It accepts connections and does not answer."""
        self.drill(self.server.pause, self.server.resume)

    def test_restarted(self) -> None:
        """A restart in the middle of the crowd costs no known account anything."""
        self.remember()

        def restart() -> None:
            self.server.stop()
            self.server.start()

        self.assertAll(self.crowd(KNOWN, restart), b"OK on new")
        self.assertHeals()

    def test_brokenConnectionsLoseNoLookup(self) -> None:
        """After a restart in a quiet hour the pool is all broken, and nobody notices."""
        self.crowd(KNOWN)
        self.server.stop()
        self.server.start()
        time.sleep(0.5)
        fresh = [self.nextFresh() for _ in range(30)]
        mark = self.proxy.log.mark()
        self.assertAll(self.crowd(fresh), b"OK on new")
        self.assertNotIn(BROKEN, self.proxy.log.text(mark))

    def test_refusingAuthentication(self) -> None:
        """The login that the proxy has is taken away, and given back."""
        self.drill(self.lockOut, self.letIn)

    def lockOut(self) -> None:
        """End the proxy's connections and take no new ones."""
        raise NotImplementedError

    def letIn(self) -> None:
        """Undo it."""
        raise NotImplementedError

    def test_stopWhileItHangs(self) -> None:
        """The proxy ends in good order, and soon, whatever its threads wait for."""
        self.crowd(KNOWN[:20])
        logins = [threading.Thread(target=self.leave, args=(self.nextFresh(),)) for _ in range(20)]
        with self.server.paused():
            for login in logins:
                login.start()
            time.sleep(0.3)
            started = time.monotonic()
            self.assertEqual(self.proxy.stop(), 0)
            self.assertLess(time.monotonic() - started, 14)
        for login in logins:
            login.join()
        self.proxy.start()
        self.assertHeals()

    def leave(self, account: str) -> None:
        """Log in and be sent away."""
        with contextlib.suppress(EOFError, OSError):
            self.login(account)

    def test_startWithTheStoreDown(self) -> None:
        """The proxy starts, says so, and uses the store once it is there."""
        self.proxy.stop()
        self.server.stop()
        mark = self.proxy.log.mark()
        self.proxy.start()
        self.proxy.log.waitForLine(BROKEN, mark)
        self.assertIn(b"OK on old", self.login(self.nextFresh()).answer)
        self.server.start()
        self.assertHeals()


class RedisDrills(ServerDrills):
    """Redis."""

    server: ClassVar[RedisServer]

    @classmethod
    def startStore(cls, stack: ExitStack, authority: Authority) -> Table:
        """One server."""
        cls.server = stack.enter_context(RedisServer(authority))
        return {"source": "redis", "redis": {"url": cls.server.url}}

    @classmethod
    def fill(cls, accounts: Iterable[tuple[str, str]]) -> None:
        """All in one command."""
        cls.server.ask(
            "MSET", *(word for name, place in accounts for word in (f"route:{name}", place))
        )

    def lockOut(self) -> None:
        """Another password."""
        self.server.ask("CONFIG", "SET", "requirepass", "another")
        self.server.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

    def letIn(self) -> None:
        """The old one."""
        self.server.ask("CONFIG", "SET", "requirepass", PASSWORD)

    def test_commandForbidden(self) -> None:
        """The user may do anything but ask."""
        self.drill(
            lambda: self.server.ask("ACL", "SETUSER", "default", "-get"),
            lambda: self.server.ask("ACL", "SETUSER", "default", "+get"),
        )


class SQLDrills(Drills):
    """What is done to every database."""

    table: ClassVar[str]
    statements: ClassVar[Statements]

    @classmethod
    def mapping(cls, url: str) -> Table:
        """The configuration of a database."""
        found = cls.statements
        table = {"url": url, "query": found.query, "pool_size": 8}
        return {
            "source": "sql",
            "sql": {**table, "upsert_query": found.upsert, "delete_query": found.delete},
        }

    @classmethod
    def fill(cls, accounts: Iterable[tuple[str, str]]) -> None:
        """A table of all of them."""
        cls.ask(cls.table)
        rows = ", ".join(f"('{name}', '{place}')" for name, place in accounts)
        cls.ask(f"INSERT INTO routes VALUES {rows}")

    @classmethod
    def ask(cls, statement: str) -> Any:
        """Do something behind the proxy's back."""
        raise NotImplementedError

    def test_missingTable(self) -> None:
        """The table is renamed, and named back."""
        self.drill(
            lambda: self.ask("ALTER TABLE routes RENAME TO elsewhere"),
            lambda: self.ask("ALTER TABLE elsewhere RENAME TO routes"),
        )


class PostgreSQLDrills(SQLDrills, ServerDrills):
    """PostgreSQL."""

    table, statements = statements.POSTGRESQL_TABLE, statements.POSTGRESQL
    server: ClassVar[PostgreSQLServer]

    @classmethod
    def startStore(cls, stack: ExitStack, authority: Authority) -> Table:
        """One server."""
        cls.server = stack.enter_context(PostgreSQLServer(authority))
        return cls.mapping(cls.server.url)

    @classmethod
    def fill(cls, accounts: Iterable[tuple[str, str]]) -> None:
        """The proxy's user may read them."""
        super().fill(accounts)
        cls.ask(f"GRANT ALL ON routes TO {USER}")

    @classmethod
    def ask(cls, statement: str) -> Any:
        """As the superuser."""
        return cls.server.ask(statement)

    def lockOut(self) -> None:
        """No login."""
        self.ask(f"ALTER ROLE {USER} NOLOGIN")
        self.ask(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{USER}'")

    def letIn(self) -> None:
        """Login."""
        self.ask(f"ALTER ROLE {USER} LOGIN")


class MariaDBDrills(SQLDrills, ServerDrills):
    """MariaDB."""

    table, statements = statements.MYSQL_TABLE, statements.MYSQL
    server: ClassVar[MariaDBServer]

    @classmethod
    def startStore(cls, stack: ExitStack, authority: Authority) -> Table:
        """One server."""
        cls.server = stack.enter_context(MariaDBServer(authority))
        return cls.mapping(cls.server.url)

    @classmethod
    def ask(cls, statement: str) -> Any:
        """As root."""
        return cls.server.ask(statement)

    def lockOut(self) -> None:
        """A locked account."""
        self.ask(f"ALTER USER {USER} ACCOUNT LOCK")
        self.ask(f"KILL USER {USER}")

    def letIn(self) -> None:
        """Unlocked."""
        self.ask(f"ALTER USER {USER} ACCOUNT UNLOCK")


class SQLiteDrills(SQLDrills):
    """SQLite in a file."""

    table, statements = statements.SQLITE_TABLE, statements.SQLITE
    path: ClassVar[Path]

    @classmethod
    def startStore(cls, stack: ExitStack, authority: Authority) -> Table:
        """One file."""
        cls.path = authority.caFile.with_name("routes.db")
        return cls.mapping(f"sqlite://{cls.path}")

    @classmethod
    def ask(cls, statement: str) -> Any:
        """With a connection of our own."""
        with closing(sqlite3.connect(cls.path, isolation_level=None, timeout=10)) as connection:
            return connection.execute(statement).fetchall()

    def test_missingFile(self) -> None:
        """It is taken away, and put back."""
        aside = self.path.with_name("aside")
        self.drill(lambda: self.path.rename(aside), lambda: aside.rename(self.path))

    def test_locked(self) -> None:
        """Somebody holds it for long: the reactor goes on all the same."""
        holder = sqlite3.connect(
            self.path, isolation_level=None, timeout=10, check_same_thread=False
        )
        self.addCleanup(holder.close)
        self.drill(lambda: holder.execute("BEGIN EXCLUSIVE"), lambda: holder.execute("ROLLBACK"))


class OnErrorCase(StoreCase):
    """What a login means that the store cannot tell: the other two values of `on_error`."""

    onError: ClassVar[str]
    server: ClassVar[RedisServer]

    @classmethod
    def startStore(cls, stack: ExitStack, authority: Authority) -> Table:
        """One server."""
        cls.server = stack.enter_context(RedisServer(authority))
        return {"source": "redis", "on_error": cls.onError, "redis": {"url": cls.server.url}}

    @classmethod
    def fill(cls, accounts: Iterable[tuple[str, str]]) -> None:
        """All in one command."""
        cls.server.ask(
            "MSET", *(word for name, place in accounts for word in (f"route:{name}", place))
        )

    def outage(self) -> list[Login]:
        """Known accounts while the server is gone."""
        self.remember()
        self.server.kill()
        self.addCleanup(self.assertHeals)
        self.addCleanup(self.server.start)
        return self.crowd(KNOWN)


class TemporaryFailureTests(OnErrorCase):
    """`tempfail`."""

    onError = "tempfail"

    def test_loginsAreUnavailable(self) -> None:
        """Nobody is sent to a wrong mailbox, and nobody hears of a wrong password."""
        self.assertAll(self.outage(), b"NO [UNAVAILABLE]")


class DefaultTests(OnErrorCase):
    """`default`."""

    onError = "default"

    def test_loginsGoToTheDefault(self) -> None:
        """As the operator has chosen."""
        self.assertAll(self.outage(), b"OK on old")


del Drills, ServerDrills, SQLDrills, OnErrorCase
