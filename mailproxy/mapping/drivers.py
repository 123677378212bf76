"""The databases: how each is connected to, asked, and found to be broken.

One class per database, all with the interface `Driver`. Their methods block: they belong into a
thread. Every statement is bound by the server: no identifier ever becomes part of an SQL text.
"""

import math
import os
import re
import socket
import sqlite3
import ssl
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from importlib import import_module
from typing import Any, Protocol, TypeAlias

from mailproxy.config.storeurl import (
    DatabaseTLS,
    MySQLPlace,
    SQLitePlace,
    parseMySQL,
    parseSQLite,
)
from mailproxy.errors import ConfigError

__all__ = ["Connection", "Driver", "makeDriver"]

Connection: TypeAlias = Any
"""A DB-API 2.0 connection that commits each statement by itself."""

KEY = "mapping.sql.url"


class Driver(Protocol):
    """One database, by its URL.

    :ivar name: what it is called in the log; holds no secret.
    :ivar module: the DB-API module.
    :ivar errors: what its methods raise when the database cannot do what it is asked.
    :ivar mostConnections: None for as many as one likes.
    """

    name: str
    module: str
    errors: tuple[type[Exception], ...]
    mostConnections: int | None

    def connect(self) -> Connection:
        """Open a connection."""

    def execute(self, connection: Connection, statement: str, values: Sequence[str]) -> object:
        """Execute a statement; the first column of the first row, or None."""

    def isBroken(self, connection: Connection, error: Exception) -> bool:
        """Whether a connection is of no use any more after this error."""

    def sever(self, connection: Connection) -> None:
        """End what another thread waits for on this connection, if that can be done."""


def makeDriver(url: str, timeout: float) -> Driver:
    """Find the driver for a URL.

    :param timeout: seconds that connecting, and any answer, may take.
    :raises ConfigError: when it is not installed, or the URL is not for it.
    """
    return _MAKERS[url.partition(":")[0]](url, timeout)


def _import(module: str, database: str, extra: str) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        hint = " (and libpq: Debian's libpq5)" if module == "psycopg" else ""
        raise ConfigError(
            [
                f"{KEY}: {database} needs the driver {module}, which cannot be imported; "
                f"install mailproxy[{extra}]{hint}"
            ]
        ) from error


class PostgreSQLDriver:
    """PostgreSQL by psycopg, which gives `$1` to the server as it is; the URL is libpq's own."""

    module = "psycopg"
    mostConnections: int | None = None

    def __init__(self, url: str, timeout: float) -> None:
        psycopg = _import(self.module, "PostgreSQL", "postgres")
        self.errors: tuple[type[Exception], ...] = (psycopg.Error, OSError)
        try:
            parts = psycopg.conninfo.conninfo_to_dict(url)
        except psycopg.Error:
            raise ConfigError(
                [
                    f"{KEY}: libpq cannot read it; write postgresql://[USER:PASSWORD@]HOST[:PORT]"
                    "/DATABASE[?PARAMETERS], special characters in the password as %XX"
                ]
            ) from None
        _checkPorts(str(parts.get("port", "")))
        self.name = f"PostgreSQL at {parts.get('host', 'localhost')} port {parts.get('port', 5432)}"
        self._psycopg, self._url = psycopg, url
        self._options = {
            "connect_timeout": max(2, math.ceil(timeout)),
            "application_name": parts.get("application_name", "mailproxy"),
        }

    def connect(self) -> Connection:
        """Open a connection; statements are not prepared, so that poolers in between work."""
        connection = self._psycopg.connect(
            self._url,
            autocommit=True,
            prepare_threshold=None,
            cursor_factory=self._psycopg.RawCursor,
            **self._options,
        )
        connection.add_notice_handler(lambda notice: None)
        return connection

    def execute(self, connection: Connection, statement: str, values: Sequence[str]) -> object:
        """Execute a statement; the first column of the first row, or None."""
        with connection.cursor() as cursor:
            cursor.execute(statement, values)
            row = cursor.fetchone() if cursor.description else None
            return row[0] if row else None

    def isBroken(self, connection: Connection, error: Exception) -> bool:
        """Whether libpq has given it up."""
        return bool(connection.closed)

    def sever(self, connection: Connection) -> None:
        """Shut the socket down under it: libpq itself would wait for a hanging server for ever."""
        with (
            suppress(OSError, self._psycopg.Error),
            socket.socket(fileno=os.dup(connection.fileno())) as twin,
        ):
            twin.shutdown(socket.SHUT_RDWR)


def _checkPorts(ports: str) -> None:
    """Refuse what libpq refuses at each connection only: one port or several, or none for 5432.

    :raises ConfigError: for a port that is none.
    """
    for port in filter(None, ports.split(",")):
        if not re.fullmatch(" *[0-9]{1,5} *", port) or not 1 <= int(port) <= 65535:
            raise ConfigError([f"{KEY}: the port must be a number from 1 to 65535"])


_GOING_DOWN = frozenset({1053, 1152, 1184, 1927, 3169, 4031})
"""MySQL's and MariaDB's errors that say: this connection, or the whole server, is being ended."""


class MySQLDriver:
    """MySQL and MariaDB by PyMySQL, which would put values into the SQL text by itself.

    It is not asked to: a connection prepares each statement once, by the server's own `PREPARE`,
    which knows what a `?` is, and gets its values as hexadecimal digits.
    """

    module = "pymysql"
    mostConnections: int | None = None

    def __init__(self, url: str, timeout: float) -> None:
        self._pymysql = _import(self.module, "MySQL", "mysql")
        self.errors: tuple[type[Exception], ...] = (self._pymysql.err.Error, OSError)
        place = parseMySQL(url)
        where = f"socket {place.socket}" if place.socket else f"{place.host} port {place.port}"
        self.name = f"MySQL at {where}"
        self._options = {
            "host": place.host,
            "port": place.port,
            "unix_socket": place.socket,
            "user": place.username,
            "password": place.password,
            "database": place.database,
            "connect_timeout": timeout,
            "read_timeout": timeout,
            "write_timeout": timeout,
            **_mysqlTLS(place),
        }

    def connect(self) -> Connection:
        """Open a connection."""
        return self._pymysql.connect(
            charset="utf8mb4", autocommit=True, program_name="mailproxy", **self._options
        )

    def execute(self, connection: Connection, statement: str, values: Sequence[str]) -> object:
        """Execute a statement; the first column of the first row, or None."""
        names = [f"@mailproxy{number}" for number, _ in enumerate(values)]
        digits = [value.encode("utf-8").hex() for value in values]
        settings = (f"{n} = _utf8mb4 X'{d}'" for n, d in zip(names, digits, strict=True))
        with connection.cursor() as cursor:
            prepared = self._prepare(connection, cursor, statement)
            cursor.execute(f"SET {', '.join(settings)}")
            cursor.execute(f"EXECUTE {prepared} USING {', '.join(names)}")
            row = cursor.fetchone() if cursor.description else None
            return row[0] if row else None

    def _prepare(self, connection: Connection, cursor: Any, statement: str) -> str:
        """The name under which a connection knows a statement."""
        known: dict[str, str] = connection.__dict__.setdefault("mailproxyStatements", {})
        if statement not in known:
            name = f"mailproxy{len(known)}"
            cursor.execute(f"PREPARE {name} FROM _utf8mb4 X'{statement.encode('utf-8').hex()}'")
            known[statement] = name
        return known[statement]

    def isBroken(self, connection: Connection, error: Exception) -> bool:
        """Whether it is closed, or the server says that it is about to be."""
        return not connection.open or bool(error.args and error.args[0] in _GOING_DOWN)

    def sever(self, connection: Connection) -> None:
        """Nothing to do: PyMySQL bounds its waiting by itself."""


def _mysqlTLS(place: MySQLPlace) -> dict[str, Any]:
    """PyMySQL's options for TLS: by itself it takes any certificate, and goes without if need be.

    :raises ConfigError: when a file cannot be used.
    """
    if place.tls is DatabaseTLS.DISABLED or place.socket:
        return {"ssl_disabled": True}
    if place.tls is DatabaseTLS.PREFERRED:
        return {}
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = place.tls is DatabaseTLS.VERIFY_IDENTITY
    context.verify_mode = ssl.CERT_REQUIRED if place.tls.verifies else ssl.CERT_NONE
    try:
        if place.ca is not None:
            context.load_verify_locations(place.ca)
        elif place.tls.verifies:
            context.load_default_certs()
        if place.cert is not None:
            context.load_cert_chain(place.cert, place.key)
    except OSError as error:
        raise ConfigError(
            [f"{KEY}: ssl-ca, ssl-cert or ssl-key cannot be used: {error.strerror or error}"]
        ) from error
    return {"ssl": context}


class SQLiteDriver:
    """SQLite by the standard library; the file may be replaced under us."""

    module = "sqlite3"
    errors: tuple[type[Exception], ...] = (sqlite3.Error,)

    def __init__(self, url: str, timeout: float) -> None:
        self._place: SQLitePlace = parseSQLite(url)
        self._timeout = timeout
        self.name = f"SQLite in {self._place.path or 'memory'}"
        self.mostConnections = 1 if self._place.path is None else None

    def connect(self) -> Connection:
        """Open the database, which must be there unless it is in memory."""
        connection = sqlite3.connect(
            self._place.uri,
            uri=True,
            timeout=self._timeout,
            isolation_level=None,
            check_same_thread=False,
            factory=_SQLiteConnection,
        )
        connection.file = self._fileNow()
        return connection

    def execute(self, connection: Connection, statement: str, values: Sequence[str]) -> object:
        """Execute a statement; the first column of the first row, or None.

        :raises Replaced: when the file is not the one that was opened.
        """
        if connection.file != self._fileNow():
            raise Replaced("the file was replaced")
        with closing(connection.execute(statement, values)) as cursor:
            row = cursor.fetchone()
            return row[0] if row else None

    def _fileNow(self) -> tuple[int, int] | None:
        """Which file lies there now."""
        if self._place.path is None:
            return None
        try:
            found = self._place.path.stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def isBroken(self, connection: Connection, error: Exception) -> bool:
        """Whether it is to another file."""
        return isinstance(error, Replaced)

    def sever(self, connection: Connection) -> None:
        """Interrupt a statement that runs; a lock is waited for as long as any answer."""
        with suppress(sqlite3.Error):
            connection.interrupt()


class Replaced(sqlite3.OperationalError):
    """The database's file is another one by now."""


class _SQLiteConnection(sqlite3.Connection):
    """Remembers the file that it was opened with: device and inode."""

    file: tuple[int, int] | None = None


_MAKERS: Mapping[str, Callable[[str, float], Driver]] = {
    "postgres": PostgreSQLDriver,
    "postgresql": PostgreSQLDriver,
    "mysql": MySQLDriver,
    "sqlite": SQLiteDriver,
}
