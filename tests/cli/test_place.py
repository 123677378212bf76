"""Where the proxy is found, in which order, and whom it must be."""

from pathlib import Path

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509 import load_pem_x509_certificate
from twisted.trial.unittest import SynchronousTestCase

from mailproxy.cli.arguments import makeParser
from mailproxy.cli.place import Place, findProxy
from mailproxy.demo.files import CERTIFICATE, PREFERRED_PORTS, TOKEN, writeFiles
from mailproxy.errors import BadUsage

URL = "https://proxy.example:8443"


class PlaceCase(SynchronousTestCase):
    """A directory with a configuration and what it names."""

    def setUp(self) -> None:
        """Write the files."""
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir()
        self.config = writeFiles(self.directory, PREFERRED_PORTS)
        self.token = (self.directory / TOKEN).read_text().strip()
        self.environment: dict[str, str] = {}

    def find(self, *words: str) -> Place:
        """Find the proxy by a command line."""
        return findProxy(makeParser().parse_args(["status", *words]), self.environment)

    def problem(self, *words: str) -> str:
        """Return the one line that says why it cannot be found."""
        text = str(self.assertRaises(BadUsage, self.find, *words))
        self.assertEqual(len(text.splitlines()), 1)
        return text

    def configured(self, **changes: str) -> Place:
        """Find the proxy of the configuration after replacing words in it."""
        text = self.config.read_text()
        for old, new in changes.items():
            self.assertIn(old, text)
            text = text.replace(old, new)
        self.config.write_text(text)
        return self.find("--config", str(self.config))

    def bound(self, bind: str) -> str:
        """Return the URL for a value of `admin.bind`."""
        text = self.config.read_text()
        port = PREFERRED_PORTS["admin"]
        path = self.directory / "bound.toml"
        path.write_text(text.replace(f'"127.0.0.1:{port}"', f'"{bind}"'))
        return self.find("--config", str(path)).url


class URLTests(PlaceCase):
    """Where it is."""

    def test_theCommandLineComesFirst(self) -> None:
        """Then the file that it names, then the one of the environment."""
        self.environment["PROXY_CONFIG"] = "/nonexistent"
        config = str(self.config)
        self.assertEqual(self.find("--url", URL, "--config", config).url, URL)
        self.assertEqual(self.find("--config", config).url, "https://127.0.0.1:18443")
        self.environment["PROXY_CONFIG"] = config
        self.assertEqual(self.find().url, "https://127.0.0.1:18443")

    def test_everyBindIsReached(self) -> None:
        """A wildcard on loopback, an IPv6 address in brackets, an endpoint string by its port."""
        for bind, url in {
            "0.0.0.0:8443": "https://127.0.0.1:8443",
            "[::]:8443": "https://[::1]:8443",
            "192.0.2.1:8443": "https://192.0.2.1:8443",
            "tcp:8443:interface=192.0.2.1": "https://192.0.2.1:8443",
        }.items():
            self.assertEqual(self.bound(bind), url)

    def test_someBindsTellNothing(self) -> None:
        """Sockets of systemd, or any free port."""
        for bind in ("systemd:domain=INET:index=0", "unix:/run/x", "127.0.0.1:0"):
            self.assertRaises(BadUsage, self.bound, bind)

    def test_onlyHTTPSWillDo(self) -> None:
        """The token must not travel in clear text."""
        for url in ("http://proxy:1", "proxy:8443", "https://", "https://u:p@proxy", "https://x:y"):
            self.assertIn("write https://HOST:PORT", self.problem("--url", url))

    def test_nothingAtAllIsAQuestion(self) -> None:
        """Which names what could have been written."""
        text = self.problem()
        for word in ("--url", "--config", "PROXY_CONFIG"):
            self.assertIn(word, text)

    def test_whatIsNoConfigurationIsTold(self) -> None:
        """Missing, not TOML, or without management."""
        self.assertIn("cannot read /nonexistent", self.problem("--config", "/nonexistent"))
        for text, words in {"[": "is not TOML", "[server]\n": "has no sound [admin] table"}.items():
            self.config.write_text(text)
            self.assertIn(words, self.problem("--config", str(self.config)))

    def test_mistakesElsewhereDoNotMatter(self) -> None:
        """It's the running proxy that counts, and it runs."""
        self.configured(protocol="protocl")


class TokenTests(PlaceCase):
    """What opens it."""

    def test_theOrderOfTheTokens(self) -> None:
        """`--token-file`, then the variable, then the configuration's file."""
        self.environment["PROXY_CONFIG"] = str(self.config)
        found = self.find()
        self.assertEqual(
            (found.token, found.tokenOrigin), (self.token, str(self.directory / TOKEN))
        )
        self.environment["PROXY_ADMIN_TOKEN"] = " from-variable\n"
        found = self.find()
        self.assertEqual((found.token, found.tokenOrigin), ("from-variable", "PROXY_ADMIN_TOKEN"))
        path = self.directory / "other"
        path.write_text("from-file\n")
        self.assertEqual(self.find("--token-file", str(path)).token, "from-file")

    def test_aTokenInTheConfigurationItself(self) -> None:
        """`bearer_token` is the last place."""
        found = self.configured(**{'bearer_token_file = "token"': 'bearer_token = "x"'})
        self.assertEqual(found.token, "x")

    def test_aTokenForAnyURL(self) -> None:
        """A URL without a configuration needs a token of its own; else its file isn't even read."""
        self.assertIn("--token-file", self.problem("--url", URL))
        self.environment.update(PROXY_ADMIN_TOKEN="x", PROXY_CONFIG="/nonexistent")
        self.assertEqual(self.find("--url", URL).token, "x")

    def test_whatIsNoTokenIsRefused(self) -> None:
        """Empty, or more than a header can carry; it is not shown."""
        path = self.directory / "other"
        for content in ("", "one\ntwo", "naïve"):
            path.write_text(content)
            text = self.problem("--url", URL, "--token-file", str(path))
            self.assertIn(str(path), text)
        self.assertIn("cannot read", self.problem("--url", URL, "--token-file", "/nonexistent"))

    def test_theTokenIsNotShown(self) -> None:
        """Not even to whoever prints the place."""
        found = self.find("--config", str(self.config))
        self.assertNotIn(found.token, repr(found))


class TrustTests(PlaceCase):
    """Whom the proxy must be."""

    def setUp(self) -> None:
        """Know the certificate."""
        super().setUp()
        self.certificate = self.directory / CERTIFICATE
        parsed = load_pem_x509_certificate(self.certificate.read_bytes())
        self.fingerprint = parsed.fingerprint(SHA256())

    def test_theFilesOwnCertificateIsAsked(self) -> None:
        """Where the file says where the proxy is, it also says what the proxy shows."""
        trust = self.find("--config", str(self.config)).trust
        self.assertEqual((trust.pin, trust.insecure), (self.fingerprint, False))
        self.assertEqual(trust.origin, self.certificate)

    def test_elsewhereItIsTheAuthoritiesWhoTell(self) -> None:
        """Of the system, or of `--ca`; a URL may be anybody's."""
        self.environment["PROXY_CONFIG"] = str(self.config)
        self.assertIsNone(self.find("--url", URL).trust.pin)
        trust = self.find("--ca", str(self.certificate)).trust
        self.assertEqual((trust.pin, len(trust.authorities)), (None, 1))

    def test_theDefaultOfSeveralIsMeant(self) -> None:
        """As the proxy shows it to who names no host; without one nothing is known."""
        other = self.directory / "second"
        other.mkdir()
        writeFiles(other, PREFERRED_PORTS)
        more = '[tls.certificate.second]\ncert = "second/certificate.pem"\nkey = "second/key.pem"\n'
        self.config.write_text(more + self.config.read_text())
        trust = self.find("--config", str(self.config)).trust
        self.assertEqual(trust.pin, self.fingerprint)
        unnamed = self.configured(**{"default = true": ""}).trust
        self.assertEqual((unnamed.pin, unnamed.lacking), (None, self.config))
        star = self.configured(**{'key = "second/key.pem"': 'key = "x"\nsubjects = ["*"]'})
        self.assertEqual(star.trust.origin, other / CERTIFICATE)

    def test_anythingGoesOnlyIfAsked(self) -> None:
        """And not together with `--ca`, which would be for nothing."""
        self.assertTrue(self.find("--config", str(self.config), "--insecure").trust.insecure)

    def test_filesThatCannotBeReadAreTold(self) -> None:
        """The authority's, and the certificate's."""
        self.environment["PROXY_CONFIG"] = str(self.config)
        self.assertIn("--ca", self.problem("--ca", "/nonexistent"))
        self.assertIn("--ca", self.problem("--ca", str(self.config)))
        self.certificate.unlink()
        self.assertIn("write --ca or --insecure", self.problem())
