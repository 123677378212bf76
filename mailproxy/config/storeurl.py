"""The URLs of stores, taken apart: where a store is, how to log in there, whether TLS is used.

Knows text only; must not know a driver. No error ever quotes a URL: it may hold a password. A
PostgreSQL URL is libpq's own, so nothing here reads it.
"""

import enum
import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlencode, urlsplit

import attrs

MEMORY = ":memory:"
"""SQLite's name for a database that lives as long as its connection."""


class DatabaseTLS(enum.Enum):
    """How a MySQL connection is protected, by the names that MySQL's own client has for it."""

    DISABLED = "disabled"
    PREFERRED = "preferred"
    REQUIRED = "required"
    VERIFY_CA = "verify_ca"
    VERIFY_IDENTITY = "verify_identity"

    @property
    def verifies(self) -> bool:
        """Whether the server must show a certificate that we trust."""
        return self in (DatabaseTLS.VERIFY_CA, DatabaseTLS.VERIFY_IDENTITY)


@attrs.frozen
class RedisPlace:
    """Where a Redis server is; no user means the server's default one."""

    host: str
    port: int
    tls: bool
    username: str | None
    password: str | None = attrs.field(repr=False)
    database: int


@attrs.frozen
class MySQLPlace:
    """Where a MySQL or MariaDB server is.

    :ivar socket: its Unix socket; host and port are not used then.
    :ivar ca: PEM of whom to trust; None for the platform's authorities.
    """

    host: str
    port: int
    socket: str | None
    username: str | None
    password: str = attrs.field(repr=False)
    database: str | None
    tls: DatabaseTLS
    ca: str | None
    cert: str | None
    key: str | None


@attrs.frozen
class SQLitePlace:
    """Where an SQLite database is.

    :ivar path: None for one in memory.
    :ivar parameters: for SQLite itself: `mode`, `cache` and the like.
    """

    path: Path | None
    parameters: Mapping[str, str]

    @property
    def uri(self) -> str:
        """How SQLite is told; a file that is not there is not made."""
        if self.path is None:
            return "file::memory:"
        return f"file:{quote(str(self.path))}?{urlencode({'mode': 'rw', **self.parameters})}"


def parseRedis(url: str) -> RedisPlace:
    """Read `redis://[USER:PASSWORD@]HOST[:PORT][/DATABASE]`, or `rediss://` for TLS.

    :raises ValueError: saying what would be right.
    """
    try:
        parts = urlsplit(url)
        port, host = _port(parts, 6379), parts.hostname or ""
        database = re.fullmatch("/?([0-9]{0,9})", parts.path)
        if not host or database is None or parts.query or parts.fragment:
            raise ValueError
    except ValueError:
        raise ValueError(
            "not a Redis URL; write redis://[USER:PASSWORD@]HOST[:PORT][/DATABASE NUMBER], "
            "special characters in the password as %XX"
        ) from None
    username, password = _login(parts)
    tls = parts.scheme == "rediss"
    return RedisPlace(unquote(host), port, tls, username, password, int(database[1] or "0"))


def parseMySQL(url: str) -> MySQLPlace:
    """Read `mysql://[USER[:PASSWORD]@]HOST[:PORT]/DATABASE[?PARAMETERS]`.

    :raises ValueError: saying what would be right.
    """
    try:
        parts = urlsplit(url)
        port, host = _port(parts, 3306), unquote(parts.hostname or "")
        if parts.fragment or "/" in parts.path[1:]:
            raise ValueError
    except ValueError:
        raise ValueError(
            "not a MySQL URL; write mysql://[USER:PASSWORD@]HOST[:PORT]/DATABASE, special "
            "characters in the password as %XX, a Unix socket as ?socket=PATH"
        ) from None
    found = _parameters(parts, ("socket", "ssl-mode", "ssl-ca", "ssl-cert", "ssl-key"))
    username, password = _login(parts)
    return MySQLPlace(
        host=host or "localhost",
        port=port,
        socket=found.get("socket"),
        username=username,
        password=password or "",
        database=unquote(parts.path[1:]) or None,
        tls=_mode(found.get("ssl-mode"), hasAuthority="ssl-ca" in found),
        ca=found.get("ssl-ca"),
        cert=found.get("ssl-cert"),
        key=found.get("ssl-key"),
    )


def parseSQLite(url: str) -> SQLitePlace:
    """Read `sqlite://PATH[?PARAMETERS]`: `sqlite:///var/x.db`, `sqlite://x.db`, `sqlite://:memory:`.

    A path is relative unless it begins with a slash of its own.

    :raises ValueError: saying what would be right.
    """
    rest, _, query = url.removeprefix("sqlite:").removeprefix("//").partition("?")
    parameters = dict(parse_qsl(query))
    path = unquote(rest)
    if path == MEMORY or parameters.get("mode") == "memory":
        return SQLitePlace(None, {})
    if not path or "\0" in path or "#" in rest:
        raise ValueError("not an SQLite URL; write sqlite:///PATH or sqlite://:memory:")
    return SQLitePlace(Path(path), parameters)


def resolveSQLite(url: str, base: Path) -> str:
    """Let a relative path count from a directory."""
    place = parseSQLite(url)
    if place.path is None or place.path.is_absolute():
        return url
    query = f"?{urlencode(place.parameters)}" if place.parameters else ""
    return f"sqlite://{quote(str(base / place.path))}{query}"


def _port(parts: SplitResult, default: int) -> int:
    port = default if parts.port is None else parts.port
    if port == 0:
        raise ValueError
    return port


def _login(parts: SplitResult) -> tuple[str | None, str | None]:
    """The user and the password, percent-decoded; None for what is not there."""
    username, password = (
        None if part is None else unquote(part) for part in (parts.username, parts.password)
    )
    return username or None, password or None


def _parameters(parts: SplitResult, known: tuple[str, ...]) -> dict[str, str]:
    """A URL's parameters, by names with hyphens."""
    found = {name.replace("_", "-"): value for name, value in parse_qsl(parts.query)}
    for name in found:
        if name not in known:
            raise ValueError(f"an unknown parameter in the URL; known are: {', '.join(known)}")
    return found


def _mode(written: str | None, *, hasAuthority: bool) -> DatabaseTLS:
    if written is None:
        return DatabaseTLS.VERIFY_CA if hasAuthority else DatabaseTLS.PREFERRED
    try:
        return DatabaseTLS(written.lower().replace("-", "_"))
    except ValueError:
        names = ", ".join(mode.name for mode in DatabaseTLS)
        raise ValueError(f"ssl-mode in the URL is not one of {names}") from None
