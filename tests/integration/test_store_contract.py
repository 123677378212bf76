"""Every provider of mappings keeps the one contract, on a real server where there is one."""

import re
import sqlite3
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, ClassVar

from cryptography import x509
from twisted.application.service import Service
from twisted.internet import reactor
from twisted.internet.defer import gatherResults
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from mailproxy.config.model import TLSProtocols
from mailproxy.config.storeurl import parseRedis
from mailproxy.errors import MappingError, ReadOnlyMapping
from mailproxy.mapping.drivers import makeDriver
from mailproxy.mapping.file import FileSource
from mailproxy.mapping.redis import RedisSettings, RedisSource
from mailproxy.mapping.sql import SQLSource, Statements
from mailproxy.tls import BackendOptions, BackendTLS
from mailproxy.tls.failures import describe
from tests.integration import statements
from tests.integration.certificates import Authority
from tests.integration.databases import (
    ENCODED,
    USER,
    MariaDBServer,
    PostgreSQLServer,
    RedisServer,
)
from tests.integration.proxy import PROJECT
from tests.integration.shared import SharedServers
from tests.mapping.contract import SourceContract

TIMEOUT = 10.0


def redisSource(url: str, authorities: Sequence[x509.Certificate] = (), **more: Any) -> RedisSource:
    """A source for a URL, which trusts these besides the platform's authorities."""
    place = parseRedis(url)
    endpoint: Any = HostnameEndpoint(reactor, place.host, place.port)
    if place.tls:
        options = BackendOptions(place.host, TLSProtocols(), authorities=tuple(authorities))
        endpoint = wrapClientTLS(BackendTLS(options), endpoint)
    settings = RedisSettings(place, **{"timeout": TIMEOUT, **more})
    return RedisSource(endpoint, reactor, settings, describe)


class FileContract(SourceContract, TestCase):
    """A file."""

    refused = ("#hash@example.org",)

    async def makeSource(self) -> FileSource:
        """An empty file."""
        path = Path(self.mktemp())
        path.touch()
        source = FileSource(path, deferToThread)
        source.load()
        return source


class ServerCase(SharedServers, TestCase):
    """Tests of sources that are services, on servers that the class shares."""

    authority: ClassVar[Authority]

    @classmethod
    def startServers(cls, stack: ExitStack) -> None:
        """Start none yet."""
        cls.authority = Authority.temporary(stack)

    def begin(self, source: Any) -> Any:
        """Start a source, to be stopped when the test is over."""
        assert isinstance(source, Service)
        source.startService()
        self.addCleanup(source.stopService)
        return source

    async def works(self, source: Any) -> None:
        """See that a source stores and finds."""
        await source.store("ann@example.org", "new")
        self.assertEqual(await source.lookup("ann@example.org"), "new")
        await source.remove("ann@example.org")

    async def fails(self, source: Any) -> str:
        """See that a source cannot tell; returns what it says, without any secret."""
        error = await self.assertFailure(source.lookup("ann@example.org"), MappingError)
        for secret in ("p@ss", ENCODED):
            self.assertNotIn(secret, str(error))
        return str(error)


class RedisContract(SourceContract, ServerCase):
    """Redis, with a password and a database."""

    server: ClassVar[RedisServer]

    @classmethod
    def startServers(cls, stack: ExitStack) -> None:
        """One server."""
        super().startServers(stack)
        cls.server = stack.enter_context(RedisServer(cls.authority))

    async def makeSource(self) -> RedisSource:
        """An empty database."""
        self.server.ask("FLUSHALL")
        source: RedisSource = self.begin(redisSource(self.server.url))
        return source

    def authorities(self) -> list[x509.Certificate]:
        """Whom a test trusts besides."""
        return [x509.load_pem_x509_certificate(self.authority.caFile.read_bytes())]

    async def test_keysAreThoseOfOthers(self) -> None:
        """The key is prefix and identifier, in the URL's database; the value is the plain name."""
        source = await self.makeSource()
        await source.store("ann@example.org", "new")
        self.assertEqual(self.server.ask("GET", "route:ann@example.org"), "new")
        self.server.ask("SET", "route:größe", "old")
        self.assertEqual(await source.lookup("größe"), "old")
        other = self.begin(redisSource(self.server.url, prefix="mail/"))
        self.assertIsNone(await other.lookup("ann@example.org"))
        await other.store("ann@example.org", "old")
        self.assertEqual(self.server.ask("GET", "mail/ann@example.org"), "old")

    async def test_emptyValueIsAbsent(self) -> None:
        """As is one of blanks; a line end that a script left behind is no part of a name."""
        source = await self.makeSource()
        for value, expected in (("", None), (" \n", None), ("new\n", "new"), ("12", "12")):
            self.server.ask("SET", "route:ann", value)
            self.assertEqual(await source.lookup("ann"), expected)

    async def test_valueOfAnotherTypeCannotTell(self) -> None:
        """A list under the key is a mistake of somebody's, and not an absence."""
        source = await self.makeSource()
        self.server.ask("RPUSH", "route:ann@example.org", "new")
        self.assertIn("WRONGTYPE", await self.fails(source))

    async def test_loginByUser(self) -> None:
        """An ACL user logs in with name and password."""
        url = f"redis://{USER}:{ENCODED}@localhost:{self.server.port}/0"
        await self.works(self.begin(redisSource(url)))

    async def test_documentedRightsAreEnough(self) -> None:
        """The user that the documentation makes can do all that is needed, and nothing else."""
        page = (PROJECT / "docs" / "stores-redis.rst").read_text("utf-8")
        [rights] = re.findall(r"^    ACL SETUSER mailproxy (.*)$", page, re.MULTILINE)
        self.server.ask("ACL", "SETUSER", "mailproxy", *rights.split())
        url = f"redis://mailproxy:password@localhost:{self.server.port}/3"
        await self.works(self.begin(redisSource(url)))
        text = await self.fails(self.begin(redisSource(url, prefix="other:")))
        self.assertIn("NOPERM", text)

    async def test_wrongPasswordIsSaid(self) -> None:
        """The log can tell it from a server that is down."""
        source = self.begin(redisSource(f"redis://:wrong@localhost:{self.server.port}"))
        self.assertIn("WRONGPASS", await self.fails(source))

    async def test_TLSIsVerified(self) -> None:
        """`rediss://` works with a certificate for the host, and with nothing less."""
        url = f"rediss://:{ENCODED}@{{}}:{self.server.tlsPort}"
        trusted = self.authorities()
        await self.works(self.begin(redisSource(url.format("localhost"), trusted)))
        text = await self.fails(self.begin(redisSource(url.format("localhost"))))
        self.assertIn("not trusted", text)
        text = await self.fails(self.begin(redisSource(url.format("127.0.0.1"), trusted)))
        self.assertIn("not for 127.0.0.1", text)

    async def test_manyLookupsShareThePool(self) -> None:
        """A thousand lookups at once use no more connections than configured."""
        self.server.ask("FLUSHALL")
        source = self.begin(redisSource(self.server.url, poolSize=4))
        found = await gatherResults([source.lookup(f"account-{n}") for n in range(1000)])
        self.assertEqual(found, [None] * 1000)
        clients = self.server.ask("CLIENT", "LIST").splitlines()
        self.assertEqual(len([line for line in clients if " user=default " in line]), 4)


class SQLCase(SourceContract, ServerCase):
    """A database; the class says which, with the statements of the documentation."""

    statements: ClassVar[Statements]

    def make(self, url: str, given: Statements | None = None, size: int = 16) -> SQLSource:
        """A source that is started."""
        chosen = given or self.statements
        source: SQLSource = self.begin(
            SQLSource(makeDriver(url, TIMEOUT), chosen, reactor, size, TIMEOUT)
        )
        return source

    async def makeSource(self) -> SQLSource:
        """An empty table."""
        self.ask("DELETE FROM routes")
        return self.make(self.url())

    def url(self) -> str:
        """Where it is."""
        raise NotImplementedError

    def ask(self, statement: str) -> object:
        """Do something behind the source's back."""
        raise NotImplementedError

    async def test_emptyValueIsAbsent(self) -> None:
        """No row, an empty value and blanks are all alike; NULL is, too."""
        source = await self.makeSource()
        for value, expected in (("''", None), ("' '", None), ("'new '", "new")):
            self.ask("DELETE FROM routes")
            self.ask(f"INSERT INTO routes VALUES ('ann', {value})")
            self.assertEqual(await source.lookup("ann"), expected)
        mark = "$1" if "$1" in self.statements.query else "?"
        nothing = f"SELECT NULL FROM routes WHERE identifier = {mark}"
        self.assertIsNone(await self.make(self.url(), Statements(nothing)).lookup("ann"))

    async def test_firstColumnOfTheFirstRowCounts(self) -> None:
        """Whatever else the query finds."""
        await self.makeSource()
        self.ask("INSERT INTO routes VALUES ('a', 'new'), ('b', 'old')")
        mark = "$1" if "$1" in self.statements.query else "?"
        query = f"SELECT destination, identifier FROM routes WHERE identifier <> {mark} ORDER BY 1"
        self.assertEqual(await self.make(self.url(), Statements(query)).lookup("c"), "new")

    async def test_withoutBothStatementsItIsReadOnly(self) -> None:
        """One of the two is not enough."""
        given = self.statements
        await self.makeSource()
        for partial in (
            Statements(given.query),
            Statements(given.query, upsert=given.upsert),
            Statements(given.query, delete=given.delete),
        ):
            source = self.make(self.url(), partial)
            await self.assertFailure(source.store("ann", "new"), ReadOnlyMapping)
            await self.assertFailure(source.remove("ann"), ReadOnlyMapping)
            self.assertIsNone(await source.lookup("ann"))

    async def test_missingTableIsSaid(self) -> None:
        """And no identifier is, even where the database would quote it."""
        query = self.statements.query.replace("routes", "nowhere")
        text = await self.fails(self.make(self.url(), Statements(query)))
        self.assertIn("nowhere", text)
        self.assertNotIn("ann@example.org", text)

    async def test_manyLookupsShareThePool(self) -> None:
        """A thousand lookups at once use no more connections than configured."""
        await self.makeSource()
        while self.connections():  # those of the test before, which the server still has to end
            await deferLater(reactor, 0.05, lambda: None)
        source = self.make(self.url(), size=4)
        found = await gatherResults([source.lookup(f"account-{n}") for n in range(1000)])
        self.assertEqual(found, [None] * 1000)
        self.assertLessEqual(self.connections(), 4)

    def connections(self) -> int:
        """How many the server counts."""
        return 0


class PostgreSQLContract(SQLCase):
    """PostgreSQL; `$1` is bound by the server."""

    statements = statements.POSTGRESQL
    server: ClassVar[PostgreSQLServer]

    @classmethod
    def startServers(cls, stack: ExitStack) -> None:
        """One server, the table of the documentation in it."""
        super().startServers(stack)
        cls.server = stack.enter_context(PostgreSQLServer(cls.authority))
        cls.server.ask(statements.POSTGRESQL_TABLE)
        cls.server.ask(f"GRANT ALL ON routes TO {USER}")

    def url(self) -> str:
        """By TCP."""
        return self.server.url

    def ask(self, statement: str) -> object:
        """As the superuser."""
        return self.server.ask(statement)

    def connections(self) -> int:
        """Those of the source's user."""
        query = f"SELECT count(*) FROM pg_stat_activity WHERE usename = '{USER}'"
        return int(self.server.ask(query))

    async def test_otherWays(self) -> None:
        """A Unix socket, and TLS whose certificate is verified."""
        await self.works(self.make(self.server.socketURL))
        trusting = f"{self.server.url}?sslmode=verify-full&sslrootcert="
        await self.works(self.make(f"{trusting}{self.authority.caFile}"))
        other = Authority(Path(self.mktemp()).parent)
        self.assertIn("certificate", await self.fails(self.make(f"{trusting}{other.caFile}")))

    async def test_wrongPasswordIsSaid(self) -> None:
        """The log can tell it from a server that is down."""
        url = self.server.url.replace(ENCODED, "wrong")
        self.assertIn("password authentication failed", await self.fails(self.make(url)))


class MariaDBContract(SQLCase):
    """MariaDB; `?` is bound by the server."""

    statements = statements.MYSQL
    server: ClassVar[MariaDBServer]

    @classmethod
    def startServers(cls, stack: ExitStack) -> None:
        """One server, the table of the documentation in it."""
        super().startServers(stack)
        cls.server = stack.enter_context(MariaDBServer(cls.authority))
        cls.server.ask(statements.MYSQL_TABLE)

    def url(self) -> str:
        """By TCP."""
        return self.server.url

    def ask(self, statement: str) -> object:
        """As root."""
        return self.server.ask(statement)

    def connections(self) -> int:
        """Those of the source's user."""
        return int(
            self.server.ask(
                f"SELECT count(*) FROM information_schema.processlist WHERE user = '{USER}'"
            )
        )

    async def test_otherWays(self) -> None:
        """A Unix socket, and TLS whose certificate is verified."""
        await self.works(self.make(self.server.socketURL))
        trusting = f"{self.server.url}?ssl-mode=VERIFY_IDENTITY&ssl-ca="
        await self.works(self.make(f"{trusting}{self.authority.caFile}"))
        other = Authority(Path(self.mktemp()).parent)
        self.assertIn("CERTIFICATE", await self.fails(self.make(f"{trusting}{other.caFile}")))
        await self.works(self.make(f"{self.server.url}?ssl-mode=REQUIRED"))
        await self.works(self.make(f"{self.server.url}?ssl-mode=DISABLED"))

    async def test_wrongPasswordIsSaid(self) -> None:
        """The log can tell it from a server that is down."""
        url = self.server.url.replace(ENCODED, "wrong")
        self.assertIn("Access denied", await self.fails(self.make(url)))

    async def test_quotesInTheStatementAreTheServersBusiness(self) -> None:
        """A question mark in a string, a comment or a name is no parameter, percent is percent."""
        await self.makeSource()
        self.ask("INSERT INTO routes VALUES ('ann', 'new')")
        query = (
            "SELECT destination /* ? */ FROM routes AS `r?` "
            "WHERE 'it\\'s ?' LIKE '%?' AND \"?\" <> '%s' AND identifier = ? # ?"
        )
        self.assertEqual(await self.make(self.url(), Statements(query)).lookup("ann"), "new")
        self.assertIsNone(await self.make(self.url(), Statements(query)).lookup("' OR 1 = 1 -- "))


class SQLiteContract(SQLCase):
    """SQLite in a file."""

    statements = statements.SQLITE
    path: Path

    def setUp(self) -> None:
        """Make the file, the table of the documentation in it."""
        super().setUp()
        self.path = Path(self.mktemp()).absolute()
        self.ask(statements.SQLITE_TABLE)

    def url(self) -> str:
        """By its path."""
        return f"sqlite://{self.path}"

    def ask(self, statement: str) -> object:
        """With a connection of our own."""
        with closing(sqlite3.connect(self.path, isolation_level=None)) as connection:
            return connection.execute(statement).fetchall()

    async def test_replacedFileIsOpenedAnew(self) -> None:
        """A database that was renamed over the old one is what is asked from then on."""
        source = await self.makeSource()
        await source.store("ann", "old")
        self.assertEqual(await source.lookup("ann"), "old")
        former, self.path = self.path, self.path.with_name("next")
        self.ask(statements.SQLITE_TABLE)
        self.ask("INSERT INTO routes VALUES ('ann', 'new')")
        self.path.rename(former)
        self.assertEqual(await source.lookup("ann"), "new")

    async def test_missingFileIsNotMade(self) -> None:
        """A slip in the path is an error, not an empty database; once it is there it is used."""
        source = await self.makeSource()
        aside = self.path.with_name("aside")
        self.path.rename(aside)
        self.assertIn("unable to open", await self.fails(source))
        self.assertFalse(self.path.exists())
        aside.rename(self.path)
        await deferLater(reactor, 0.6, lambda: None)  # it is not tried all the time
        await self.works(source)

    async def test_databaseInMemory(self) -> None:
        """`:memory:` has one connection, which lives as long as the source."""
        source = self.make("sqlite://:memory:", Statements("SELECT 'new' WHERE ? = 'ann'"))
        found = await gatherResults([source.lookup(name) for name in ("ann", "bob") * 20])
        self.assertEqual(found, ["new", None] * 20)


del SQLCase, ServerCase
