"""Loading a file: syntax, files that it names, the environment, everything at once."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from mailproxy.config.load import checkMapping, load, unmatched, warnings
from mailproxy.config.model import Config, LogLevel
from mailproxy.config.table import parseTable
from mailproxy.errors import ConfigError
from tests.config.support import MAIN, MINIMAL, TOKEN, ConfigTestCase, Issued, changed

SAMPLE = Path(__file__).parents[2] / "etc" / "mailproxy.toml"
ADMIN = "[admin]\nbind = '127.0.0.1:8443'\n"


class SyntaxTests(ConfigTestCase):
    """Files that are no TOML."""

    def failure(self, path: Path) -> str:
        """The one problem with a file."""
        error: ConfigError = self.assertRaises(ConfigError, load, path, {})
        self.assertEqual(len(error.problems), 1)
        return error.problems[0]

    def test_missingFile(self) -> None:
        """The reason is the system's."""
        path = self.directory / "none.toml"
        self.assertEqual(self.failure(path), f"cannot read {path}: No such file or directory")

    def test_aProblemIsOneLine(self) -> None:
        """Whatever stands in the name of a file; nobody's terminal is played with."""
        text = changed(('file.path = "accounts"', r'file.path = "a\nb\u202Ec"'))
        line = self.failure(self.write("mailproxy.toml", text))
        self.assertIn(r"a\nb\u202ec: No such file", line)

    def test_directory(self) -> None:
        """A directory is no file."""
        self.assertIn("Is a directory", self.failure(self.directory))

    def test_syntaxErrorNamesFileAndLine(self) -> None:
        """And the column."""
        path = self.write("bad.toml", "[server]\nthreads = = 1\n")
        self.assertTrue(self.failure(path).startswith(f"{path}:2: is not TOML: "))

    def test_repeatedKeyNamesFileAndLine(self) -> None:
        """Which is an error of syntax in TOML."""
        path = self.write("bad.toml", "[server]\nthreads = 1\nthreads = 2\n")
        self.assertIn(f"{path}:3: is not TOML", self.failure(path))

    def test_otherEncodings(self) -> None:
        """TOML is UTF-8."""
        path = self.write("bad.toml", "# a\n# é\n".encode("latin-1"))
        self.assertEqual(self.failure(path), f"{path}:2: is not UTF-8")

    def test_deepNestingIsNoTraceback(self) -> None:
        """However hard somebody tries."""
        path = self.write("bad.toml", "a = " + "[" * 100000)
        self.assertIn("nested too deeply", self.failure(path))


class FileTests(ConfigTestCase):
    """Files that the configuration names."""

    def test_unreadableCertificate(self) -> None:
        """Certificate and key are read before anything is bound."""
        (self.directory / "main.pem").unlink()
        self.assertProblem(MINIMAL, "tls.certificate.main.cert: cannot read ")

    def test_mismatchedCertificate(self) -> None:
        """A certificate with another's key."""
        self.write("main.key", Issued("other.example.com").key)
        self.assertProblem(MINIMAL, "tls.certificate.main.cert: certificate and key do not belong")

    def test_clientCertificates(self) -> None:
        """Those of destinations are checked alike."""
        keys = "tls_client_cert = 'c.pem'\ntls_client_key = 'main.key'\n"
        text = changed(('host = "old', f'{keys}host = "old'))
        self.assertProblem(text, "destination.old.tls_client_cert: cannot read ")
        self.write("c.pem", MAIN.leaf)
        self.load(text)

    def test_missingMappingFile(self) -> None:
        """An empty file would do; a missing one is a mistake."""
        (self.directory / "accounts").unlink()
        self.assertProblem(MINIMAL, "mapping.file.path: cannot read ")

    def test_malformedMappingFile(self) -> None:
        """Every bad line, with its number."""
        path = self.write("accounts", "anna\nben old\ncarol\n")
        problems = self.problems(MINIMAL)
        self.assertEqual(len(problems), 2)
        self.assertTrue(problems[0].startswith(f"mapping.file.path: {path.absolute()}:1: "))
        self.assertTrue(problems[1].startswith(f"mapping.file.path: {path.absolute()}:3: "))

    def test_badLinesAndUndeclaredDestinationsComeTogether(self) -> None:
        """One kind of mistake does not hide the other."""
        self.write("accounts", "anna\nben odl\n")
        problems = self.problems(MINIMAL)
        self.assertEqual(len(problems), 2)
        self.assertIn(":1: ", problems[0])
        self.assertIn('destination "odl" is not declared', problems[1])

    def test_mappingToAnUndeclaredDestination(self) -> None:
        """At its first line."""
        path = self.write("accounts", "ben old\nanna odl\n")
        line = self.assertProblem(MINIMAL, f"mapping.file.path: {path.absolute()}:2: ")
        self.assertIn('destination "odl" is not declared', line)

    def test_twoDestinationsForOneIdentifier(self) -> None:
        """Both lines are named."""
        self.write("accounts", "anna old\nanna new\n")
        line = self.assertProblem(
            changed(
                extra="[destination.new]\nhost = 'h'\nprotocol.imap = {port=1, tls='starttls'}"
            ),
            "mapping.file.path: ",
        )
        self.assertIn('accounts:2: "anna" was mapped to "old" on line 1', line)

    def test_mappingToADestinationWithoutAServedProtocol(self) -> None:
        """A moved account could not log in there."""
        self.write("accounts", "anna new\n")
        extra = "[destination.new]\nhost = 'h'\nprotocol.pop3 = { port = 1, tls = 'implicit' }\n"
        line = self.assertProblem(changed(extra=extra), "mapping.file.path: ")
        self.assertIn('accounts:1: destination "new" lacks imap', line)

    def test_brokenDestinationIsBlamedOnce(self) -> None:
        """Its mistake is told, not that it lacks protocols or is not declared."""
        text = changed(('host = "old.example.com"', "host = 1"))
        self.assertProblem(text, "destination.old.host: 1 is not text")

    def test_otherSourcesNeedNoFile(self) -> None:
        """A file that is not used is not read."""
        (self.directory / "accounts").unlink()
        self.load(changed(('source = "file"', 'source = "redis"\nredis.url = "redis://h"')))


class CheckMappingTests(ConfigTestCase):
    """A new table against the configuration in force."""

    def test_sameRulesAsAtTheStart(self) -> None:
        """Undeclared destinations and missing protocols; none for a sound table."""
        config = self.load(changed(extra="[destination.new]\nhost = 'h'\n"))
        self.assertEqual(checkMapping(config, parseTable(b"anna old\n")), [])
        problems = checkMapping(config, parseTable(b"anna odl\nben new\n"), "map")
        self.assertEqual([one.split(": ")[0] for one in problems], ["map:1", "map:2"])


class UnmatchedTests(ConfigTestCase):
    """Entries of a mapping table that no login will ever find."""

    TABLE = parseTable(b"anna old\nBen old\ncarl%admin old\ndora old\n")

    def test_whatIsNeverAskedFor(self) -> None:
        """A master user's name is cut off; letters count only where all are made small."""
        for normalize, count in (("lowercase", "2 entries are"), ("none", "1 entry is")):
            mapping = f'source = "file"\nnormalize = "{normalize}"'
            config = self.load(changed(('source = "file"', mapping)))
            (warning,) = unmatched(config, self.TABLE)
            self.assertTrue(warning.startswith(f"mapping.file.path: {count} never found"), warning)

    def test_othersAreFound(self) -> None:
        """Nothing is said of them."""
        self.assertEqual(unmatched(self.load(MINIMAL), parseTable(b"anna old\nBen old\n")), [])


class TokenTests(ConfigTestCase):
    """The management API's token."""

    def token(self, text: str, **environment: str) -> str:
        """The token in force."""
        admin = self.load(text, **environment).admin
        assert admin is not None
        return admin.token.get_secret_value()

    def test_fromTheFile(self) -> None:
        """White space around it is none of it."""
        self.write("token", f" {TOKEN}\n")
        text = changed(extra=ADMIN + "bearer_token_file = 'token'\n")
        self.assertEqual(self.token(text), TOKEN)

    def test_written(self) -> None:
        """In the configuration itself."""
        self.assertEqual(self.token(changed(extra=f"{ADMIN}bearer_token = '{TOKEN}'\n")), TOKEN)

    def test_precedence(self) -> None:
        """The environment beats the file, the file beats what is written."""
        self.write("token", "f" * 40)
        text = changed(extra=f"{ADMIN}bearer_token = '{TOKEN}'\nbearer_token_file = 'token'\n")
        self.assertEqual(self.token(text), "f" * 40)
        self.assertEqual(self.token(text, PROXY_ADMIN_TOKEN="e" * 32), "e" * 32)
        self.assertEqual(self.token(text, PROXY_ADMIN_TOKEN=""), "f" * 40)

    def test_noneAtAll(self) -> None:
        """The management API does not start open."""
        self.assertProblem(changed(extra=ADMIN), "admin.bearer_token: there is no token")
        self.assertEqual(self.token(changed(extra=ADMIN), PROXY_ADMIN_TOKEN=TOKEN), TOKEN)

    def test_tooShort(self) -> None:
        """The message names where it came from and never the token."""
        text = changed(extra=ADMIN + "bearer_token = 'hush'\n")
        line = self.assertProblem(text, "admin.bearer_token: the token has 4 characters")
        self.assertNotIn("hush", line)
        self.assertProblem(text, "PROXY_ADMIN_TOKEN: the token has 5", PROXY_ADMIN_TOKEN="hush!")
        self.assertEqual(self.token(f"{text}min_token_len = 4\n"), "hush")

    def test_unusable(self) -> None:
        """What a header cannot carry."""
        for wrong in ("a b" * 20, "é" * 40):
            text = changed(extra=f"{ADMIN}bearer_token = '{wrong}'\n")
            self.assertProblem(text, "admin.bearer_token: the token must be printable ASCII")

    def test_unreadableFile(self) -> None:
        """The reason is told."""
        text = changed(extra=ADMIN + "bearer_token_file = 'none'\n")
        self.assertProblem(text, "admin.bearer_token_file: cannot read ")

    def test_neverInARepr(self) -> None:
        """Nor in a copy as JSON."""
        config = self.load(changed(extra=ADMIN), PROXY_ADMIN_TOKEN=TOKEN)
        self.assertNotIn(TOKEN, repr(config) + str(config) + config.model_dump_json())


class EnvironmentTests(ConfigTestCase):
    """The log level from outside."""

    def test_environmentBeatsTheFile(self) -> None:
        """`PROXY_LOG` is for one start."""
        text = changed(extra="[server]\nlog_level = 'error'\n")
        self.assertIs(self.load(text).server.log_level, LogLevel.ERROR)
        self.assertIs(self.load(text, PROXY_LOG="debug").server.log_level, LogLevel.DEBUG)
        self.assertIs(self.load(text, PROXY_LOG="").server.log_level, LogLevel.ERROR)

    def test_badLevelIsRefused(self) -> None:
        """With the choices."""
        self.assertProblem(
            MINIMAL, 'PROXY_LOG: "loud" is not one of debug, info, warn, error', PROXY_LOG="loud"
        )


class WarningTests(ConfigTestCase):
    """What starts, but somebody should look at."""

    def assertWarning(self, text: str, start: str) -> None:
        """Check that there is one warning and how it begins."""
        found = warnings(self.load(text))
        self.assertEqual(len(found), 1, found)
        self.assertTrue(found[0].startswith(start), found)

    def test_noneForASoundFile(self) -> None:
        """A sound file is met with silence."""
        self.assertEqual(warnings(self.load(MINIMAL)), [])

    def test_expiredCertificate(self) -> None:
        """It may still be better than none, so it is served."""
        expired = Issued("a.example", not_after=datetime.now(UTC) - timedelta(days=1))
        self.write("main.pem", expired.leaf)
        self.write("main.key", expired.key)
        self.assertWarning(MINIMAL, "tls.certificate.main.cert: ")
        self.assertIn("expired at", warnings(self.load(MINIMAL))[0])

    def test_anyCertificateAccepted(self) -> None:
        """At each start."""
        text = changed(('host = "old', 'tls_allow_invalid_certs = true\nhost = "old'))
        self.assertWarning(text, "destination.old.tls_allow_invalid_certs: ")

    def test_secretsThatOthersCanRead(self) -> None:
        """The token and each key; the files that hold no secret may be anybody's."""
        self.write("token", TOKEN)
        self.write("client.key", MAIN.key)
        admin = '[admin]\nbind = "127.0.0.1:8443"\ntls = "implicit"\nbearer_token_file = "token"\n'
        client = 'tls_client_cert = "main.pem"\ntls_client_key = "client.key"\nhost = "old'
        text = changed(('host = "old', client), extra=admin)
        (self.directory / "main.pem").chmod(0o644)
        self.assertEqual(warnings(self.load(text)), [])
        for name, key in (
            ("main.key", "tls.certificate.main.key"),
            ("client.key", "destination.old.tls_client_key"),
            ("token", "admin.bearer_token_file"),
        ):
            (self.directory / name).chmod(0o640)
            self.assertWarning(text, f"{key}: ")
            (self.directory / name).chmod(0o600)

    def test_noCertificate(self) -> None:
        """Clients are shown a self-signed one."""
        text = changed(('[tls.certificate.main]\ncert = "main.pem"\nkey = "main.key"\n', ""))
        self.assertWarning(text, "tls.certificate: there is none; ")
        encrypted = 'bind = ["127.0.0.1:993"]\ntls = "implicit"'
        plain = changed((encrypted, encrypted.replace("implicit", "plain")), base=text)
        self.assertEqual(warnings(self.load(plain)), [])

    def test_noDefaultAmongSeveral(self) -> None:
        """Clients that ask for another name are shown a self-signed one."""
        extra = "[tls.certificate.b]\ncert = 'main.pem'\nkey = 'main.key'\n"
        self.assertWarning(changed(extra=extra), "tls.certificate: none is the default")
        self.assertEqual(warnings(self.load(changed(extra=f"{extra}default = true\n"))), [])
        self.assertEqual(warnings(self.load(changed(extra=f"{extra}subjects = ['*']\n"))), [])

    def test_routesThatAreNeverReached(self) -> None:
        """What takes their requests is named."""
        route = "[[http.route]]\ndestination = 'old'\nmatch = '{}'\n"
        text = changed(
            ("protocol.imap =", "protocol.http = { port = 1, tls = 'implicit' }\nprotocol.imap ="),
            extra="".join(map(route.format, ("/a", "/**", "/a"))),
        )
        self.assertWarning(text, 'http.route #3.match: "/a" is never reached, since #1 ("/a") ')

    def test_halfWritableDatabase(self) -> None:
        """One write statement is as good as none."""
        extra = "sql = { url = 'sqlite:///r', query = '?', delete_query = '?' }\n"
        self.assertWarning(changed(extra=extra), "mapping.sql: ")


class EverythingAtOnceTests(ConfigTestCase):
    """Mistakes in many tables are told together, each once."""

    BROKEN = """
[server]
bridge_idle = "30"
thread = 4
[tls.certificate.main]
cert = "none.pem"
key = "main.key"
[listener.imaps]
protocol = "imap"
bind = ["127.0.0.1:993"]
tls = "implict"
[listener.pop3s]
protocol = "pop3"
bind = ["127.0.0.1:995"]
tls = "implicit"
proxy_protocol = "required"
[listener.mx]
protocol = "smtp"
bind = ["127.0.0.1:995"]
tls = "starttls"
[destination.old]
host = "192.0.2.1"
protocol.imap = { port = 143, tls = "plain" }
protocol.submission = { port = 587, tls = "starttls" }
[destination.new]
hots = "new"
[routing]
default_destination = "old"
[mapping]
source = "file"
file.path = "accounts"
[admin]
bind = "127.0.0.1:8443"
bearer_token = "short"
"""

    KEYS = (
        "server.bridge_idle",
        "server.thread",
        "listener.imaps.tls",
        "destination.new.host",
        "destination.new.hots",
        "listener.pop3s.proxy_trusted",
        "listener.mx.tls",
        "listener.mx.bind",
        "destination.old.protocol.imap.tls",
        "destination.old.tls_server_name",
        "listener.pop3s.protocol",
        "routing.smtp_passthrough_destination",
        "tls.certificate.main.cert",
        "mapping.file.path",
        "mapping.file.path",
        "admin.bearer_token",
    )

    def test_eachIsToldOnce(self) -> None:
        """Mistakes inside tables, between them and in files."""
        self.write("accounts", "anna odl\nben old\n")
        keys = [problem.split(": ")[0] for problem in self.problems(self.BROKEN)]
        self.assertEqual(sorted(keys), sorted(self.KEYS))

    def test_nothingOfTheValidatorShows(self) -> None:
        """The error has no other behind it that could be printed with secrets in it."""
        path = self.write("mailproxy.toml", self.BROKEN)
        error = self.assertRaises(ConfigError, load, path, {})
        self.assertIsNone(error.__cause__)
        self.assertIsNone(error.__context__)


class SampleTests(ConfigTestCase):
    """The annotated sample, as it is and with every key in force."""

    def setUp(self) -> None:
        """Make the files that the sample names."""
        super().setUp()
        for name in ("tls/mail.example.com", "tls/client"):
            self.write(f"{name}.pem", MAIN.leaf)
            self.write(f"{name}.key", MAIN.key)
        self.write("accounts", "anna new\n")
        self.write("admin.token", f"{TOKEN}\n")
        self.text = SAMPLE.read_text("utf-8")
        self.whole = re.sub(r"^#(?=\[|[a-z0-9_]+ = )", "", self.text, flags=re.MULTILINE)

    def test_sampleIsSound(self) -> None:
        """Without problems or warnings."""
        self.assertEqual(warnings(self.load(self.text)), [])

    def test_sampleIsSoundWithEveryKey(self) -> None:
        """What stands in comments is right as well."""
        config = self.load(self.whole)
        assert config.mapping.sql is not None
        self.assertTrue(config.mapping.sql.isWritable)
        self.assertEqual(len(config.http.route), 5)

    def test_sampleHasEveryKey(self) -> None:
        """A new key is not forgotten there."""
        config = self.load(self.whole)
        written = config.model_dump(by_alias=True, exclude_unset=True)
        self.assertEqual(_keys(Config.model_json_schema()) - _written(written), set())

    def test_commentedKeysAreDefaults(self) -> None:
        """Where there is a default, the sample tells it truly."""
        examples = (
            "subjects|disable_cipher_suites|groups|source_ips|sieve|tls_pinned_cert_sha256|"
            "tls_client_cert|tls_client_key|bearer_token|url|key_prefix|pool_size|[a-z_]*query|"
            "address"
        )
        defaults = re.sub(rf"^#(?!({examples}) =)(?=[a-z0-9_]+ = )", "", self.text, flags=re.M)
        self.assertNotEqual(defaults, self.text)
        self.assertEqual(self.load(defaults), self.load(self.text))


def _keys(schema: dict[str, Any]) -> set[str]:
    """Every key of every table."""
    tables = [schema, *schema["$defs"].values()]
    return {key for table in tables for key in table.get("properties", ())}


def _written(value: object) -> set[str]:
    """Every key at any depth."""
    if isinstance(value, dict):
        return set(value).union(*map(_written, value.values()))
    if isinstance(value, list | tuple):
        return set().union(*map(_written, value))
    return set()
