"""The databases' drivers, as far as no server is needed: URLs, missing drivers, SQLite."""

import builtins
import sqlite3
import sys
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mailproxy.errors import ConfigError
from mailproxy.mapping import drivers
from mailproxy.mapping.drivers import Driver, MySQLDriver, PostgreSQLDriver, makeDriver

SECRET = "hush"


class ChoiceTests(SynchronousTestCase):
    """Which driver is used for a URL."""

    def test_byScheme(self) -> None:
        """Both of PostgreSQL's names, MySQL's, SQLite's; the log's name holds no secret."""
        for url, module, name in (
            ("postgres://u:hush@db/mail", "psycopg", "PostgreSQL at db port 5432"),
            ("postgresql://u:hush@db:6432/mail", "psycopg", "PostgreSQL at db port 6432"),
            ("mysql://u:hush@db/mail", "pymysql", "MySQL at db port 3306"),
            ("mysql://u:hush@db/mail?socket=/run/s", "pymysql", "MySQL at socket /run/s"),
            ("sqlite:///var/x.db", "sqlite3", "SQLite in /var/x.db"),
            ("sqlite://:memory:", "sqlite3", "SQLite in memory"),
        ):
            driver = makeDriver(url, 5.0)
            self.assertEqual((driver.module, driver.name), (module, name))

    def test_missingDriverNamesItsExtra(self) -> None:
        """Whoever starts the proxy is told what to install."""
        original = builtins.__import__
        for url, module, extra in (
            ("postgres://h/d", "psycopg", "mailproxy[postgres]"),
            ("mysql://h/d", "pymysql", "mailproxy[mysql]"),
        ):

            def without(name: str, *more: Any, module: str = module) -> Any:
                if name == module:
                    raise ImportError(name)
                return original(name, *more)

            self.patch(drivers, "import_module", without)
            [problem] = self.assertRaises(ConfigError, makeDriver, url, 5.0).problems
            self.assertTrue(problem.startswith("mapping.sql.url: "), problem)
            self.assertIn(f"install {extra}", problem)

    def test_noDriverIsImportedUnasked(self) -> None:
        """An SQLite user needs neither."""
        for module in ("psycopg", "pymysql"):
            self.patch(sys, "modules", {**sys.modules, module: None})
        makeDriver("sqlite://:memory:", 5.0)

    def test_badPostgreSQLURLIsRefusedUnquoted(self) -> None:
        """libpq's own message would quote it, password and all."""
        for url in ("postgres://u:hush@[h/d", "postgres://u:hush@h/d?hush=1"):
            error = self.assertRaises(ConfigError, makeDriver, url, 5.0)
            self.assertNotIn(SECRET, str(error))
            self.assertTrue(error.__suppress_context__)

    def test_badPostgreSQLPortIsRefused(self) -> None:
        """libpq would take it, and refuse each connection."""
        for port in ("notaport", "0", "70000", "1_0", "1,x"):
            url = f"postgres://u:hush@h/d?port={port}"
            [problem] = self.assertRaises(ConfigError, makeDriver, url, 5.0).problems
            self.assertEqual(
                problem, "mapping.sql.url: the port must be a number from 1 to 65535", port
            )
        for place in ("h", "h:", "h:%205432", "h:1,i:2", "h,i:2"):
            makeDriver(f"postgres://{place}/d", 5.0)

    def test_connectingIsBounded(self) -> None:
        """In whole seconds for libpq, which takes no less than two."""
        for timeout, seconds in ((0.5, 2), (3.2, 4), (10.0, 10)):
            driver = PostgreSQLDriver("postgres://h/d", timeout)
            self.assertEqual(driver._options["connect_timeout"], seconds)
        options = MySQLDriver("mysql://h/d", 2.5)._options
        self.assertEqual(
            {options[f"{name}_timeout"] for name in ("connect", "read", "write")}, {2.5}
        )

    def test_missingCertificateFileIsSaid(self) -> None:
        """At the start, by the parameter's name."""
        url = "mysql://u:hush@h/d?ssl-ca=/nowhere/ca.pem"
        [problem] = self.assertRaises(ConfigError, makeDriver, url, 5.0).problems
        self.assertIn("ssl-ca", problem)
        self.assertNotIn(SECRET, problem)


class SQLiteTests(SynchronousTestCase):
    """SQLite in a file."""

    def setUp(self) -> None:
        """A database with one row."""
        self.path = Path(self.mktemp()).absolute()
        with closing(sqlite3.connect(self.path, isolation_level=None)) as connection:
            connection.execute("CREATE TABLE routes (identifier, destination)")
            connection.execute("INSERT INTO routes VALUES ('ann', 'new')")
        self.driver: Driver = makeDriver(f"sqlite://{self.path}", 0.2)

    def connect(self) -> Any:
        """A connection that is closed at last."""
        connection = self.driver.connect()
        self.addCleanup(connection.close)
        return connection

    def test_valuesAreBound(self) -> None:
        """A name that looks like SQL is a name."""
        connection = self.connect()
        query = "SELECT destination FROM routes WHERE identifier = ?"
        self.assertEqual(self.driver.execute(connection, query, ["ann"]), "new")
        self.assertIsNone(self.driver.execute(connection, query, ["' OR 1 = 1 --"]))

    def test_nothingIsLeftOpen(self) -> None:
        """A read that has found its row holds no lock, and a write is there at once."""
        connection = self.connect()
        self.driver.execute(connection, "SELECT 1 FROM routes, routes WHERE ? = ''", [""])
        with closing(sqlite3.connect(self.path, isolation_level=None, timeout=0)) as other:
            other.execute("BEGIN EXCLUSIVE")
            other.execute("ROLLBACK")
            self.driver.execute(connection, "INSERT INTO routes VALUES (?, ?)", ["bob", "new"])
            self.assertEqual(other.execute("SELECT count(*) FROM routes").fetchone(), (2,))

    def test_lockIsNotWaitedForForever(self) -> None:
        """Only as long as any answer."""
        connection = self.connect()
        with closing(sqlite3.connect(self.path, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            error = self.assertRaises(
                sqlite3.OperationalError,
                self.driver.execute,
                connection,
                "SELECT ? FROM routes",
                ["ann"],
            )
        self.assertIn("locked", str(error))
        self.assertFalse(self.driver.isBroken(connection, error))

    def test_replacedFileBreaksTheConnection(self) -> None:
        """As does one that is gone."""
        connection = self.connect()
        self.path.rename(self.path.with_name("aside"))
        error = self.assertRaises(
            sqlite3.OperationalError, self.driver.execute, connection, "SELECT ?", ["ann"]
        )
        self.assertTrue(self.driver.isBroken(connection, error))

    def test_runningStatementCanBeSevered(self) -> None:
        """From another thread; nothing happens when none runs."""
        connection = self.connect()
        timer = threading.Timer(0.05, self.driver.sever, [connection])
        timer.start()
        self.addCleanup(timer.join)
        endless = (
            "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) "
            "SELECT max(x) FROM n WHERE ? = ''"
        )
        self.assertRaises(sqlite3.OperationalError, self.driver.execute, connection, endless, [""])
        self.driver.sever(connection)
        self.assertEqual(self.driver.execute(connection, "SELECT ?", ["ann"]), "ann")
