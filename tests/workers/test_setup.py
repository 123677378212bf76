"""What a parent hands to its workers arrives whole, and without what is not for them."""

import pickle
from pathlib import Path

from mailproxy.origin import Address
from mailproxy.workers.setup import Given, Inherited, KeyFiles, Setup, forWorkers
from tests.config.support import MAIN, MINIMAL, TOKEN, ConfigTestCase, changed

ADMIN = f'\n[admin]\nbind = "127.0.0.1:8443"\nbearer_token = "{TOKEN}"\n'
STORE = '[mapping.redis]\nurl = "redis://:hush-hush@localhost/0"\n'


class SetupTests(ConfigTestCase):
    """The values."""

    def test_configurationIsTheSameAfterwards(self) -> None:
        """With its secrets, which the store needs; a representation shows none."""
        config = self.load(changed(('source = "file"', 'source = "redis"'), extra=STORE))
        given = Given(config, {Path("a.pem"): b"private"}, spare=b"made-up")
        setup = Setup(
            1, 2, given, (Inherited("k", 4, 2, None),), frozenset({Address("::1", 1)}), b"k"
        )
        found = pickle.loads(pickle.dumps(setup))
        self.assertEqual(found, setup)
        self.assertIsNotNone(found.given.config.mapping.redis)
        self.assertIn("hush-hush", found.given.config.mapping.redis.url.get_secret_value())
        for secret in ("hush-hush", "private", "made-up", "b'k'"):
            self.assertNotIn(secret, repr(setup))

    def test_tokenStaysBehind(self) -> None:
        """It is management's alone."""
        config = self.load(changed(extra=ADMIN))
        self.assertIn(TOKEN.encode(), pickle.dumps(config))
        self.assertNotIn(TOKEN.encode(), pickle.dumps(forWorkers(config)))


class KeyFilesTests(ConfigTestCase):
    """Files of certificates."""

    def test_readOnceAndGivenOn(self) -> None:
        """What was read is what others get, whatever becomes of the file."""
        files, path = KeyFiles(), self.directory / "main.pem"
        self.assertEqual(files.read(path), MAIN.leaf)
        taken = files.taken()
        path.unlink()
        self.assertEqual(KeyFiles(taken).read(path), MAIN.leaf)
        self.assertEqual(files.taken(), {})

    def test_nothingElseIsRead(self) -> None:
        """A worker looks at no file by itself."""
        self.assertRaises(OSError, KeyFiles({}).read, self.directory / "main.pem")

    def test_replaced(self) -> None:
        """By the next configuration's."""
        files = KeyFiles({})
        files.replace({Path("x"): b"1"})
        self.assertEqual(files.read(Path("x")), b"1")


class MinimalTests(ConfigTestCase):
    """The configuration that is handed over above."""

    def test_isSound(self) -> None:
        """It loads."""
        self.load(MINIMAL)
