"""The URLs of stores: what is read out of them, and what is refused without being quoted."""

from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailproxy.config.storeurl import (
    DatabaseTLS,
    parseMySQL,
    parseRedis,
    parseSQLite,
    resolveSQLite,
)

SECRET = "hush"


class URLCase(SynchronousTestCase):
    """What all have in common."""

    def refuses(self, parse: Callable[[str], object], *urls: str) -> None:
        """Each is a ValueError that quotes nothing."""
        for url in urls:
            error = self.assertRaises(ValueError, parse, url)
            self.assertNotIn(SECRET, str(error), url)
            self.assertIsNone(error.__cause__)
            self.assertTrue(error.__suppress_context__ or error.__context__ is None, url)


class RedisTests(URLCase):
    """`redis://` and `rediss://`."""

    def test_defaults(self) -> None:
        """Port 6379, database 0, nobody's login, no TLS."""
        place = parseRedis("redis://cache.example.com")
        self.assertEqual((place.host, place.port, place.database), ("cache.example.com", 6379, 0))
        self.assertEqual((place.username, place.password, place.tls), (None, None, False))

    def test_everything(self) -> None:
        """User, password and database, percent-decoded; an IPv6 address without its brackets."""
        place = parseRedis("rediss://ann%40x:p%40s%2F%3A@[2001:db8::1]:6380/7")
        self.assertEqual((place.host, place.port, place.database), ("2001:db8::1", 6380, 7))
        self.assertEqual((place.username, place.password, place.tls), ("ann@x", "p@s/:", True))
        self.assertNotIn("p@s/:", repr(place))

    def test_passwordAlone(self) -> None:
        """The older form of a login has no user."""
        place = parseRedis("redis://:hush@h/")
        self.assertEqual((place.username, place.password), (None, "hush"))

    def test_badOnes(self) -> None:
        """No host, a port or database that is none, a password that was not encoded."""
        self.refuses(
            parseRedis,
            "redis://:hush@/1",
            "redis://:hush@h:0",
            "redis://:hush@h:99999",
            "redis://:hush@h/name",
            "redis://:hu#hush@h/1",
            "redis://:hush@h/1?x=hush",
            "redis://:hush@[h",
        )

    @given(st.text(min_size=1).filter(lambda text: max(text) < "\ud800"))
    def test_anyPasswordCanBeEncoded(self, password: str) -> None:
        """Percent-encoding is all that it takes."""
        self.assertEqual(parseRedis(f"redis://:{quote(password, safe='')}@h").password, password)


class MySQLTests(URLCase):
    """`mysql://`."""

    def test_defaults(self) -> None:
        """Port 3306, TLS if the server has it."""
        place = parseMySQL("mysql://proxy@db.example.com/mail")
        self.assertEqual((place.host, place.port), ("db.example.com", 3306))
        self.assertEqual((place.username, place.password, place.database), ("proxy", "", "mail"))
        self.assertEqual((place.tls, place.socket), (DatabaseTLS.PREFERRED, None))

    def test_everything(self) -> None:
        """A password with special characters, files, and parameters in either spelling."""
        place = parseMySQL(
            "mysql://u:hush%2F@[::1]:33/d?ssl_mode=verify_identity&ssl-ca=/c&ssl-cert=/e&ssl-key=/k"
        )
        self.assertEqual((place.host, place.port, place.password), ("::1", 33, "hush/"))
        self.assertEqual(place.tls, DatabaseTLS.VERIFY_IDENTITY)
        self.assertEqual((place.ca, place.cert, place.key), ("/c", "/e", "/k"))
        self.assertNotIn("hush", repr(place))

    def test_authorityMeansThatItIsAsked(self) -> None:
        """Who names one wants the server's certificate verified."""
        self.assertEqual(parseMySQL("mysql://h/d?ssl-ca=/c").tls, DatabaseTLS.VERIFY_CA)
        self.assertEqual(
            parseMySQL("mysql://h/d?ssl-ca=/c&ssl-mode=REQUIRED").tls, DatabaseTLS.REQUIRED
        )
        self.assertEqual(
            [mode.name for mode in DatabaseTLS if mode.verifies], ["VERIFY_CA", "VERIFY_IDENTITY"]
        )

    def test_unixSocket(self) -> None:
        """Host and port do not matter then."""
        self.assertEqual(parseMySQL("mysql://u@/d?socket=/run/s").socket, "/run/s")

    def test_badOnes(self) -> None:
        """A password that was not encoded, unknown parameters, an unknown mode."""
        self.refuses(
            parseMySQL,
            "mysql://u:hu#hush@h/d",
            "mysql://u:hush/x@h/d",
            "mysql://u:hush@h:0/d",
            "mysql://u:hush@h/d/hush",
            "mysql://u:hush@h/d?hush=1",
            "mysql://u:hush@h/d?ssl-mode=hush",
        )


class SQLiteTests(URLCase):
    """`sqlite://`."""

    def test_paths(self) -> None:
        """Absolute, relative, with and without the slashes, percent-decoded."""
        for url, path in (
            ("sqlite:///var/x.db", "/var/x.db"),
            ("sqlite:////var/x.db", "//var/x.db"),
            ("sqlite://x.db", "x.db"),
            ("sqlite://./a/x.db", "a/x.db"),
            ("sqlite:x.db", "x.db"),
            ("sqlite:///a%20b%3F.db", "/a b?.db"),
        ):
            self.assertEqual(parseSQLite(url).path, Path(path), url)

    def test_memory(self) -> None:
        """In either spelling, or by SQLite's own parameter."""
        for url in ("sqlite://:memory:", "sqlite::memory:", "sqlite:///x?mode=memory"):
            place = parseSQLite(url)
            self.assertIsNone(place.path, url)
            self.assertEqual(place.uri, "file::memory:")

    def test_fileIsNotMade(self) -> None:
        """Unless the URL says so; parameters are SQLite's business."""
        self.assertEqual(parseSQLite("sqlite:///a b?.db").uri, "file:/a%20b?mode=rw")
        place = parseSQLite("sqlite:///x%3F.db?mode=ro&immutable=1")
        self.assertEqual(place.uri, "file:/x%3F.db?mode=ro&immutable=1")

    def test_relativePathsGetTheirDirectory(self) -> None:
        """And nothing else of the URL changes."""
        base = Path("/etc/mail proxy")
        self.assertEqual(resolveSQLite("sqlite://x.db", base), "sqlite:///etc/mail%20proxy/x.db")
        self.assertEqual(
            resolveSQLite("sqlite://x.db?mode=ro", base), "sqlite:///etc/mail%20proxy/x.db?mode=ro"
        )
        for url in ("sqlite:///x.db", "sqlite://:memory:"):
            self.assertEqual(resolveSQLite(url, base), url)

    def test_badOnes(self) -> None:
        """No path at all."""
        self.refuses(
            parseSQLite, "sqlite://", "sqlite://?mode=ro", "sqlite://a%00b", "sqlite://a#b"
        )
