"""Mistakes inside a table, in the words of the person who made them."""

from twisted.trial.unittest import SynchronousTestCase

from mailproxy.config.problems import keyPath
from tests.config.support import ConfigTestCase, changed


class KeyPathTests(SynchronousTestCase):
    """How a key is named."""

    def test_asInTOML(self) -> None:
        """Dots between, quotes where TOML needs them, places counted from one."""
        self.assertEqual(keyPath(["listener", "imaps", "tls"]), "listener.imaps.tls")
        self.assertEqual(keyPath(["destination", "a.b", "host"]), 'destination."a.b".host')
        self.assertEqual(keyPath(["http", "route", 0, "match"]), "http.route #1.match")


class WordingTests(ConfigTestCase):
    """One line for each kind of mistake."""

    def assertServerProblem(self, line: str, expected: str) -> None:
        """Check the one problem that a line in `[server]` makes."""
        self.assertEqual(self.problems(changed(extra=f"[server]\n{line}\n")), [expected])

    def test_unknownKeyWithANeighbour(self) -> None:
        """A typing error is answered with what was meant."""
        line = self.assertProblem(
            changed(
                ('tls = "implicit"\n\n[dest', 'tls = "implicit"\nproxy_protocl = "off"\n\n[dest')
            ),
            "listener.imaps.proxy_protocl: ",
        )
        self.assertEqual(
            line, "listener.imaps.proxy_protocl: unknown key; did you mean proxy_protocol?"
        )

    def test_unknownKeyInAnotherPlace(self) -> None:
        """Without a neighbour, the keys known there are listed."""
        line = self.assertProblem(changed(extra="[tls.protocols]\nxyz = 1\n"), "tls.protocols.xyz")
        self.assertIn("known here: min_version, ignore_client_order", line)

    def test_unknownKeyNextToOneLikeItsTable(self) -> None:
        """A table named like a key of its own is not mistaken for it."""
        text = changed(
            ("[listener.imaps]", "[listener.bind]"), ('tls = "implicit"\n\n', 'tsl = "plain"\n\n')
        )
        self.assertIn(
            "listener.bind.tsl: unknown key; did you mean tls?",
            self.problems(text),
        )

    def test_unknownTable(self) -> None:
        """A table is called a table, and nothing in it is repeated."""
        line = self.assertProblem(changed(extra="[sever]\npassword = 1\n"), "sever: ")
        self.assertEqual(line, "sever: unknown table; did you mean server?")

    def test_unknownKeyInAnInlineTable(self) -> None:
        """The alias of a field is the key that is suggested."""
        route = "[[http.route]]\nmatch = '/'\nextract = { form = 'authorization' }\n"
        self.assertIn(
            "http.route #1.extract.form: unknown key; did you mean from?",
            self.problems(changed(extra=route)),
        )

    def test_missingKeyWithItsMeaning(self) -> None:
        """What to write is said."""
        line = self.assertProblem(
            changed(('tls = "implicit"\n\n[dest', "\n[dest")), "listener.imaps.tls: "
        )
        self.assertEqual(line, "listener.imaps.tls: missing; write it: implicit, starttls or plain")

    def test_missingTable(self) -> None:
        """A required table is missed as a key is."""
        self.assertProblem(
            changed(('[routing]\ndefault_destination = "old"\n', "")), "routing: missing; "
        )

    def test_notOneOf(self) -> None:
        """The choices are listed."""
        self.assertServerProblem(
            'log_level = "loud"',
            'server.log_level: "loud" is not one of debug, info, warn, error',
        )

    def test_wrongTypes(self) -> None:
        """Each type has its advice."""
        self.assertServerProblem("threads = '4'", 'server.threads: "4" is not a whole number')
        self.assertServerProblem(
            "hostname = 4", "server.hostname: 4 is not text; write it in quotes"
        )

    def test_wrongContainers(self) -> None:
        """A list where a table is expected, and the other way round."""
        self.assertProblem("oauth = 1\n" + changed(), "oauth: 1 is not a table")
        self.assertProblem("capabilities = []\n" + changed(), "capabilities: a list is not a table")
        text = changed(extra="[capabilities.imap]\nsasl = 1\n[tls.protocols]\ngroups = 'X25519'\n")
        self.assertEqual(
            [line.split(";")[0] for line in self.problems(text)],
            [
                'tls.protocols.groups: "X25519" is not a list',
                "capabilities.imap.sasl: 1 is not a list",
            ],
        )

    def test_outOfRange(self) -> None:
        """The nearest allowed number is named."""
        self.assertServerProblem("threads = -1", "server.threads: -1 is too small; at least 0")
        self.assertServerProblem("proxy_ttl = 1", "server.proxy_ttl: 1 is too small; at least 2")
        for port in (0, 65536):
            text = changed(("port = 993", f"port = {port}"))
            self.assertProblem(text, f"destination.old.protocol.imap.port: {port} is too ")

    def test_notTrueOrFalse(self) -> None:
        """Text is not a flag."""
        text = changed(('host = "old', 'proxy_protocol = "no"\nhost = "old'))
        line = self.assertProblem(text, 'destination.old.proxy_protocol: "no" is not true or false')
        self.assertIn("without quotes", line)

    def test_ownMessagesPassAsTheyAre(self) -> None:
        """A duration's message is exactly its parser's."""
        self.assertServerProblem(
            'bridge_idle = "30"',
            'server.bridge_idle: "30" is not a duration; write a whole number and ms, s, m, h or d',
        )

    def test_badNameOfATable(self) -> None:
        """The name is a key: it is named once."""
        line = self.assertProblem(
            changed(extra="[destination.'a b']\nhost = 'a'\n"), 'destination."a b": '
        )
        self.assertIn("cannot be a name", line)

    def test_unknownProtocolOfAnEndpoint(self) -> None:
        """The known ones are listed."""
        self.assertProblem(
            changed(
                ("protocol.imap =", "protocol.imaps = { port = 1, tls = 'plain' }\nprotocol.imap =")
            ),
            'destination.old.protocol.imaps: "imaps" is not one of imap, pop3',
        )

    def test_secretsOfTheWrongTypeAreNotShown(self) -> None:
        """A number in place of a token may be the token."""
        text = changed(extra="[admin]\nbind = '127.0.0.1:1'\nbearer_token = 1234567890\n")
        line = self.assertProblem(text, "admin.bearer_token: the value is not text")
        self.assertNotIn("1234", line)

    def test_badValueInAListIsNamedOnce(self) -> None:
        """The value is quoted, the list as a whole is not blamed as well."""
        self.assertProblem(
            changed(('["127.0.0.1:993"]', '["localhost:993"]')),
            'listener.imaps.bind: "localhost:993": ',
        )
