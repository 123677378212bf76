"""What a reload can take into use, and which keys it leaves to a restart."""

from typing import ClassVar

from mailproxy.config.changes import inForce, needRestart, unserved
from mailproxy.config.model import Config
from tests.config.support import MINIMAL, TOKEN, ConfigTestCase, changed

ADMIN = f'\n[admin]\nbind = "127.0.0.1:8443"\nbearer_token = "{TOKEN}"\n'
POP = '\n[listener."pop.3"]\nprotocol = "pop3"\nbind = "127.0.0.1:995"\ntls = "implicit"\n'
SPEAKING_POP = (
    'host = "old.example.com"',
    'host = "old.example.com"\nprotocol.pop3 = { port = 995, tls = "implicit" }',
)
CACHE = 'positive_ttl = "1s"\nnegative_ttl = "1s"\ncache_max_entries = 9\nlookup_timeout = "1s"\n'


class ChangeCase(ConfigTestCase):
    """Two configurations; the file of the old one is `base`."""

    base: ClassVar[str] = MINIMAL

    def setUp(self) -> None:
        """Load the old one."""
        super().setUp()
        self.old = self.load(self.base)

    def change(self, *changes: tuple[str, str], extra: str = "") -> Config:
        """Load the new one."""
        return self.load(changed(*changes, extra=extra, base=self.base))

    def named(self, *changes: tuple[str, str], extra: str = "") -> list[str]:
        """The keys that need a restart."""
        return needRestart(self.old, self.change(*changes, extra=extra))


class NamedTests(ChangeCase):
    """The keys that need a restart."""

    base = MINIMAL + ADMIN

    def test_whatIsTakenIntoUseIsNotNamed(self) -> None:
        """Destinations, routing, source, capabilities, certificates, rules of listeners."""
        self.write("others", "anna new\n")
        changes = (
            ("[destination.old]", '[destination.new]\nhost = "n.example.com"\n[destination.old]'),
            (
                "[destination.new]\n",
                '[destination.new]\nprotocol.imap = {port = 1, tls = "starttls"}\n',
            ),
            ('default_destination = "old"', 'default_destination = "new"'),
            ('tls = "implicit"\n\n[d', 'tls = "starttls"\nmax_connections = 3\n\n[d'),
            ('"accounts"', '"others"'),
            ('source = "file"', 'source = "file"\nnormalize = "lowercase"\non_error = "default"'),
            ('key = "main.key"', 'key = "main.key"\ndefault = true'),
        )
        extra = """
            [server]
            hostname = "mail.example.com"
            shutdown_grace = "1s"
            log_level = "debug"
            [capabilities.imap]
            banner = "hello"
            [tls.protocols]
            min_version = "1.3"
            [oauth]
            jwt_username_claim = "upn"
        """
        self.assertEqual(self.named(*changes, extra=extra), [])
        new = self.change(*changes, extra=extra)
        self.assertEqual(inForce(self.old, new), new)

    def test_noChangeNeedsNothing(self) -> None:
        """The same file again."""
        self.assertEqual(self.named(), [])

    def test_processes(self) -> None:
        """Workers are begun at the start."""
        self.assertEqual(self.named(extra="[server]\nthreads = 3\n"), ["server.threads"])

    def test_sockets(self) -> None:
        """A listener's own, its protocol, and listeners that come or go; in the file's words."""
        self.assertEqual(self.named(("127.0.0.1:993", "127.0.0.1:994")), ["listener.imaps.bind"])
        self.assertEqual(self.named(SPEAKING_POP, extra=POP), ['listener."pop.3"'])
        self.assertEqual(
            self.named(SPEAKING_POP, ("[listener.imaps]", "[listener.mail]")),
            ["listener.imaps", "listener.mail"],
        )
        self.assertEqual(
            self.named(SPEAKING_POP, ('protocol = "imap"', 'protocol = "pop3"')),
            ["listener.imaps.protocol"],
        )

    def test_cache(self) -> None:
        """Its size and its times."""
        keys = ["positive_ttl", "negative_ttl", "cache_max_entries", "lookup_timeout"]
        found = self.named(('source = "file"\n', 'source = "file"\n' + CACHE))
        self.assertEqual(found, [f"mapping.{key}" for key in keys])

    def test_management(self) -> None:
        """Its socket, its token, its rules; or all of it."""
        self.assertEqual(self.named(("8443", "8444")), ["admin.bind"])
        self.assertEqual(self.named((TOKEN, "u" * 40)), ["admin.bearer_token"])
        self.assertEqual(
            self.named(
                (f'"{TOKEN}"', f'"{TOKEN}"\nlockout_threshold = 9\nlockout_duration = "1s"')
            ),
            ["admin.lockout_threshold", "admin.lockout_duration"],
        )
        self.assertEqual(needRestart(self.old, self.load(MINIMAL)), ["admin"])
        self.assertEqual(needRestart(self.load(MINIMAL), self.old), ["admin"])

    def test_tokenIsNamedByItsSource(self) -> None:
        """A token file with another token, though its name is the same."""
        text = changed((f'bearer_token = "{TOKEN}"', 'bearer_token_file = "token"'), base=self.base)
        self.write("token", "v" * 32)
        before = self.load(text)
        self.write("token", "w" * 32)
        self.assertEqual(needRestart(before, self.load(text)), ["admin.bearer_token_file"])

    def test_everythingAtOnceInTheFilesOrder(self) -> None:
        """One answer names them all."""
        found = self.named(
            ("8443", "8444"),
            ("127.0.0.1:993", "127.0.0.1:994"),
            ('source = "file"\n', 'source = "file"\npositive_ttl = "1s"\n'),
            extra="[server]\nthreads = 3\n",
        )
        self.assertEqual(
            found, ["server.threads", "listener.imaps.bind", "mapping.positive_ttl", "admin.bind"]
        )


class InForceTests(ChangeCase):
    """What holds after a reload."""

    base = MINIMAL + ADMIN

    def test_oldHoldsWhereARestartIsNeeded(self) -> None:
        """And nothing that needs one is taken."""
        new = self.change(
            SPEAKING_POP,
            ("8443", "8444"),
            ("127.0.0.1:993", "127.0.0.1:994"),
            ('source = "file"\n', 'source = "file"\n' + CACHE),
            extra="[server]\nthreads = 3\nhostname = 'mail.example.com'\n" + POP,
        )
        config = inForce(self.old, new)
        self.assertEqual(needRestart(self.old, config), [])
        self.assertEqual(set(config.listener), {"imaps"})
        self.assertEqual(config.server.hostname, "mail.example.com")
        self.assertEqual(config.destination, new.destination)

    def test_listenersOtherKeysAreTaken(self) -> None:
        """Though its socket is another in the file."""
        new = self.change(
            ("127.0.0.1:993", "127.0.0.1:994"),
            ("[listener.imaps]", "[listener.imaps]\nmax_connections = 3"),
        )
        listener = inForce(self.old, new).listener["imaps"]
        self.assertEqual((listener.bind, listener.max_connections), (("127.0.0.1:993",), 3))

    def test_listenerWithAnotherProtocolStaysWhole(self) -> None:
        """Its other keys are meant for the protocol that it will have."""
        new = self.change(
            SPEAKING_POP,
            ('protocol = "imap"', 'protocol = "pop3"\nmax_connections = 3'),
        )
        self.assertEqual(inForce(self.old, new).listener, self.old.listener)

    def test_listenerThatIsGoneStays(self) -> None:
        """Its socket is open."""
        new = self.change(SPEAKING_POP, ("[listener.imaps]", "[listener.mail]"))
        self.assertEqual(inForce(self.old, new).listener, self.old.listener)


class UnservedTests(ChangeCase):
    """What an open listener would lose."""

    base = changed(SPEAKING_POP, extra=POP)

    def test_nothingIsMissing(self) -> None:
        """As long as the file leaves what its clients need."""
        self.assertEqual(unserved(self.old), [])
        self.assertEqual(unserved(inForce(self.old, self.change((POP, "")))), [])

    def test_protocolThatGoesWithItsListener(self) -> None:
        """The file alone is sound; with the socket still open it is not."""
        new = self.load(MINIMAL)
        (problem,) = unserved(inForce(self.old, new))
        self.assertTrue(problem.startswith('listener."pop.3".protocol: '), problem)
        self.assertIn("open until a restart", problem)

    def test_passThroughDestinationThatGoesWithItsListener(self) -> None:
        """The same for what has no login."""
        smtp = '\n[listener.mx]\nprotocol = "smtp"\nbind = "127.0.0.1:25"\ntls = "plain"\n'
        through = 'default_destination = "old"\nsmtp_passthrough_destination = "old"'
        endpoint = (
            "protocol.pop3 =",
            'protocol.smtp = { port = 25, tls = "plain" }\nprotocol.pop3 =',
        )
        old = self.change(('default_destination = "old"', through), endpoint, extra=smtp)
        (problem,) = unserved(inForce(old, self.old))
        self.assertTrue(problem.startswith("routing.smtp_passthrough_destination: "), problem)
