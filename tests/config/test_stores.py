"""The `[mapping]` tables by themselves."""

from twisted.trial.unittest import SynchronousTestCase

from mailproxy.config.stores import Mapping, Normalize, OnError, SourceKind, SQLStore
from tests.config.support import ConfigTestCase, changed

REDIS = ('source = "file"\n', 'source = "redis"\nredis.url = "{}"\n')


class MappingTests(SynchronousTestCase):
    """Defaults and small helpers."""

    def test_defaults(self) -> None:
        """Ten minutes for a mapping, half of one for its absence, a million of both."""
        mapping = Mapping.model_validate({"source": "file", "file": {"path": "accounts"}})
        self.assertEqual(mapping.normalize, Normalize.NONE)
        self.assertEqual((mapping.positive_ttl, mapping.negative_ttl), (600, 30))
        self.assertEqual((mapping.cache_max_entries, mapping.lookup_timeout), (1000000, 5))
        self.assertEqual(mapping.on_error, OnError.STALE)

    def test_writableSQL(self) -> None:
        """A database is written to only with both statements."""
        tables = {"url": "sqlite:///routes.db", "query": "?", "upsert_query": "? ?"}
        self.assertFalse(SQLStore.model_validate(tables).isWritable)
        store = SQLStore.model_validate({**tables, "delete_query": "?"})
        self.assertTrue(store.isWritable)
        self.assertEqual(store.scheme, "sqlite")


class SourceTests(ConfigTestCase):
    """Which kind of store is asked."""

    def test_kinds(self) -> None:
        """Three of our own, and a plugin by its name."""
        for text, kind, plugin in (
            ("file", SourceKind.FILE, ""),
            ("redis", SourceKind.REDIS, ""),
            ("sql", SourceKind.SQL, ""),
            ("plugin:by-letter", SourceKind.PLUGIN, "by-letter"),
            ("plugin:a:b", SourceKind.PLUGIN, "a:b"),
        ):
            mapping = Mapping.model_validate({"source": text})
            self.assertEqual((mapping.kind, mapping.pluginName), (kind, plugin))

    def test_unknownKinds(self) -> None:
        """What it may be is said; a plugin needs a name."""
        for text in ("ldap", "plugin", "plugin:", "File", ""):
            line = self.assertProblem(
                changed(('source = "file"', f'source = "{text}"')), "mapping.source: "
            )
            self.assertIn("file, redis, sql or plugin:NAME", line)

    def test_pluginNeedsNoTable(self) -> None:
        """It has one if it wants; what is in there is its own business."""
        source = ('source = "file"', 'source = "plugin:mine"')
        self.assertIsNone(self.load(changed(source)).mapping.plugin)
        config = self.load(changed(source, extra='plugin = { host = "h", password = "hush" }'))
        self.assertEqual(config.mapping.plugin, {"host": "h", "password": "hush"})
        self.assertNotIn("hush", repr(config))

    def test_otherSourcesNeedTheirTable(self) -> None:
        """Each its own."""
        for kind in ("redis", "sql"):
            self.assertProblem(
                changed(('source = "file"', f'source = "{kind}"')), f"mapping.{kind}: missing"
            )


class URLTests(ConfigTestCase):
    """Where a store is; its password is in there and must not come out."""

    def test_redisURLs(self) -> None:
        """Scheme, host, port and database are checked; the password may be anything encoded."""
        for url in ("redis://localhost", "rediss://u:p%40ss@[::1]:6380/3", "redis://:p@h/"):
            config = self.load(changed((REDIS[0], REDIS[1].format(url))))
            assert config.mapping.redis is not None
            self.assertEqual(config.mapping.redis.url.get_secret_value(), url)

    def test_badRedisURLsAreRefusedUnquoted(self) -> None:
        """The message never holds the URL."""
        for url in (
            "http://secret@h",
            "redis:secret",
            "redis://",
            "redis://:secret@h:port",
            "redis://:secret@h/db",
            "redis://:secret@[h",
        ):
            with self.subTest(url=url):
                line = self.assertProblem(
                    changed((REDIS[0], REDIS[1].format(url))), "mapping.redis.url: "
                )
                self.assertNotIn("secret", line)

    def test_badSQLURLIsRefusedUnquoted(self) -> None:
        """Only the four schemes; the message never holds the URL."""
        line = self.assertProblem(
            changed(extra='sql.url = "oracle://u:secret@h"\nsql.query = "?"'), "mapping.sql.url: "
        )
        self.assertNotIn("secret", line)

    def test_SQLURLsAreRead(self) -> None:
        """As far as that needs no driver: MySQL's and SQLite's."""
        for url in ("mysql://u:secret@h:port/d", "mysql://u:secret@h/d?secret=1", "sqlite://?x"):
            line = self.assertProblem(
                changed(extra=f'sql.url = "{url}"\nsql.query = "?"'), "mapping.sql.url: "
            )
            self.assertNotIn("secret", line)

    def test_relativeSQLitePathsCountFromTheFile(self) -> None:
        """As all paths do; others stay as they are."""
        for url, expected in (
            ("sqlite://routes.db", f"sqlite://{self.directory.absolute()}/routes.db"),
            ("sqlite:///var/routes.db", "sqlite:///var/routes.db"),
            ("sqlite://:memory:", "sqlite://:memory:"),
        ):
            config = self.load(changed(extra=f'sql.url = "{url}"\nsql.query = "?"'))
            assert config.mapping.sql is not None
            self.assertEqual(config.mapping.sql.url.get_secret_value(), expected)

    def test_passwordsAreNotInReprs(self) -> None:
        """A configuration can be printed without harm."""
        extra = 'sql.url = "mysql://u:hush@h/d"\nsql.query = "?"\nredis.url = "redis://:hush@h"'
        config = self.load(changed(extra=extra))
        self.assertNotIn("hush", repr(config))
        self.assertNotIn("hush", str(config))
        self.assertNotIn("hush", config.model_dump_json())
