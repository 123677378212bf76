"""Each kind of mapping source is made of its table, and revised by a new configuration."""

from typing import cast

from twisted.internet.defer import maybeDeferred
from twisted.internet.testing import MemoryReactorClock

from mailproxy.config.model import SourceKind
from mailproxy.errors import ConfigError
from mailproxy.mapping.file import FileSource
from mailproxy.mapping.interfaces import IMappingSource
from mailproxy.mapping.redis import RedisSource
from mailproxy.mapping.sql import SQLSource
from mailproxy.sources import SOURCES, ProxyReactor, SourceMaker
from tests.config.support import MINIMAL, ConfigTestCase, changed
from tests.mapping.test_file import atOnce
from tests.stage import MemorySource


class SourceTests(ConfigTestCase):
    """Each kind of source is built of its table."""

    def setUp(self) -> None:
        """Have a reactor in memory."""
        super().setUp()
        self.reactor = MemoryReactorClock()

    def source(self, kind: str, tables: str = "") -> IMappingSource:
        """What a configuration leads to."""
        text = changed(('source = "file"\n', f'source = "{kind}"\n{tables}\n'))
        config = self.load(text)
        maker = SourceMaker(cast(ProxyReactor, self.reactor), maybeDeferred)
        return maker.make(config)

    def test_everyKindHasItsSource(self) -> None:
        """Whatever the configuration may name."""
        self.assertEqual(set(SOURCES), set(SourceKind))

    def test_file(self) -> None:
        """It is read at once."""
        source = self.source("file")
        self.assertIsInstance(source, FileSource)
        self.assertEqual(self.successResultOf(source.lookup("anna")), "old")

    def test_redis(self) -> None:
        """Nothing is opened before the service starts; then it is a whole pool."""
        for scheme in ("redis", "rediss"):
            del self.reactor.tcpClients[:]
            source = self.source(
                "redis", f'redis.url = "{scheme}://:p@localhost:7000/1"\nredis.pool_size = 3'
            )
            self.assertIsInstance(source, RedisSource)
            self.assertEqual(self.reactor.tcpClients, [])
            cast(RedisSource, source).startService()
            self.assertEqual([client[1] for client in self.reactor.tcpClients], [7000] * 3)

    def test_SQL(self) -> None:
        """By the URL's scheme."""
        for url in ("postgres://h/d", "mysql://h/d", "sqlite:///x.db"):
            mark = "$1" if "postgres" in url else "?"
            source = self.source("sql", f'sql.url = "{url}"\nsql.query = "SELECT {mark}"')
            self.assertIsInstance(source, SQLSource)


class SourceMakerTests(ConfigTestCase):
    """The mapping's sources, made and revised."""

    def setUp(self) -> None:
        """Make the maker."""
        super().setUp()
        self.maker = SourceMaker(cast(ProxyReactor, None), atOnce)

    def test_fileSourceIsRead(self) -> None:
        """When it is made."""
        source = self.successResultOf(self.maker.remake(self.load(MINIMAL)))
        self.assertIsInstance(source, FileSource)
        self.assertEqual(self.successResultOf(source.lookup("anna")), "old")

    def test_fileSourceIsRevisedByTheNewConfiguration(self) -> None:
        """Destinations that have come are allowed from then on, those that are gone are not."""
        source = self.maker.make(self.load(MINIMAL))
        newer = changed(
            ("[destination.old]", "[destination.new]"),
            ('default_destination = "old"', 'default_destination = "new"'),
        )
        self.write("accounts", "anna new\n")
        config = self.load(newer)
        revision = self.successResultOf(self.maker.revise(source, config))
        self.assertTrue(revision.changed)
        revision.use()
        self.assertEqual(self.successResultOf(source.lookup("anna")), "new")
        self.write("accounts", "anna old\n")
        error = self.failureResultOf(self.maker.revise(source, config), ConfigError).value
        self.assertIn("accounts:1", error.problems[0])

    def test_otherSourcesHoldNothingToRevise(self) -> None:
        """They ask their store each time."""
        config = self.load(MINIMAL)
        revision = self.successResultOf(self.maker.revise(MemorySource(), config))
        self.assertFalse(revision.changed)
