"""Certificate and key files."""

from datetime import UTC, datetime, timedelta

from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from mailproxy.config.certificates import checkDates, checkPair, checkSecrecy, readChain
from tests.config.support import AUTHORITY_PEM, MAIN, ConfigTestCase, Issued


class PairTests(ConfigTestCase):
    """A chain and its key."""

    def check(self, cert: str = "main.pem", key: str = "main.key") -> list[str]:
        """What is wrong with these two files."""
        files = {"cert": self.directory / cert, "key": self.directory / key}
        return list(checkPair("tls.certificate.main", files))

    def assertOne(self, problems: list[str], start: str) -> None:
        """Check that there is one problem and how it begins."""
        self.assertEqual(len(problems), 1, problems)
        self.assertTrue(problems[0].startswith(start), problems)

    def test_matchingPair(self) -> None:
        """A leaf, with or without its chain, and the leaf's key."""
        self.assertEqual(self.check(), [])
        self.write("main.pem", MAIN.leaf + AUTHORITY_PEM)
        self.assertEqual(self.check(), [])

    def test_oneFileForBoth(self) -> None:
        """Certificate and key may stand in one file."""
        self.write("both.pem", MAIN.leaf + MAIN.key)
        self.assertEqual(self.check("both.pem", "both.pem"), [])

    def test_missingFiles(self) -> None:
        """Each is named with its own key."""
        problems = self.check("no.pem", "no.key")
        self.assertEqual(len(problems), 2)
        self.assertTrue(problems[0].startswith("tls.certificate.main.cert: cannot read "))
        self.assertTrue(problems[1].startswith("tls.certificate.main.key: cannot read "))
        self.assertIn("No such file", problems[0])

    def test_notACertificate(self) -> None:
        """Another kind of content is not quoted."""
        self.write("main.pem", b"hush")
        problems = self.check()
        self.assertOne(problems, "tls.certificate.main.cert: ")
        self.assertIn("holds no PEM certificate", problems[0])
        self.assertNotIn("hush", problems[0])

    def test_notAKey(self) -> None:
        """A certificate in place of the key."""
        problems = self.check(key="main.pem")
        self.assertOne(problems, "tls.certificate.main.key: ")
        self.assertIn("no usable PEM private key", problems[0])

    def test_encryptedKey(self) -> None:
        """Nobody is there to type a passphrase."""
        key = load_pem_private_key(MAIN.key, None)
        protection = BestAvailableEncryption(b"x")
        self.write("main.key", key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, protection))
        problems = self.check()
        self.assertOne(problems, "tls.certificate.main.key: ")
        self.assertIn("passphrase", problems[0])

    def test_mismatch(self) -> None:
        """The key of another certificate."""
        self.write("main.key", Issued("other.example.com").key)
        problems = self.check()
        self.assertOne(problems, "tls.certificate.main.cert: ")
        self.assertIn("do not belong together", problems[0])

    def test_wrongOrder(self) -> None:
        """A chain whose leaf is not first."""
        self.write("main.pem", AUTHORITY_PEM + MAIN.leaf)
        problems = self.check()
        self.assertOne(problems, "tls.certificate.main.cert: ")
        self.assertIn("leaf first", problems[0])


class DateTests(ConfigTestCase):
    """Validity in time."""

    def dates(self, now: datetime) -> list[str]:
        """Warnings about the certificate at a time."""
        return list(checkDates("cert", self.directory / "main.pem", now))

    def test_validNow(self) -> None:
        """No warning between the two dates."""
        self.assertEqual(list(checkDates("cert", self.directory / "main.pem")), [])

    def test_expired(self) -> None:
        """With the date, after it."""
        end = readChain(self.directory / "main.pem")[0].not_valid_after_utc
        (warning,) = self.dates(end + timedelta(seconds=1))
        self.assertIn(f"expired at {end:%Y-%m-%d}", warning)

    def test_expiresSoon(self) -> None:
        """From 14 days before its end, with the date; and not a moment earlier."""
        end = readChain(self.directory / "main.pem")[0].not_valid_after_utc
        for moment in (end, end - timedelta(days=14) + timedelta(seconds=1)):
            (warning,) = self.dates(moment)
            self.assertIn(f"expires at {end:%Y-%m-%d}", warning)
        self.assertEqual(self.dates(end - timedelta(days=14)), [])

    def test_notYetValid(self) -> None:
        """A clock that is wrong, or a certificate for later."""
        (warning,) = self.dates(datetime(1999, 1, 1, tzinfo=UTC))
        self.assertIn("is not valid before", warning)

    def test_unreadableFileIsSomebodyElsesProblem(self) -> None:
        """It has been reported as a problem already."""
        self.assertEqual(list(checkDates("cert", self.directory / "none")), [])


class SecrecyTests(ConfigTestCase):
    """Files that hold secrets."""

    def test_whoMayDoWhatIsSaid(self) -> None:
        """Its owner may do all; others nothing."""
        path = self.directory / "main.key"
        for mode, words in {
            0o640: "its group may read it (mode 0640)",
            0o660: "its group may read it",
            0o620: "its group may change it",
            0o604: "everybody may read it",
            0o644: "everybody may read it",
        }.items():
            path.chmod(mode)
            (warning,) = checkSecrecy("key", path)
            self.assertIn(words, warning)
        for mode in (0o600, 0o400, 0o711):
            path.chmod(mode)
            self.assertEqual(list(checkSecrecy("key", path)), [])

    def test_noFileIsSomebodyElsesProblem(self) -> None:
        """It has been reported as a problem already."""
        self.assertEqual(list(checkSecrecy("key", self.directory / "none")), [])
