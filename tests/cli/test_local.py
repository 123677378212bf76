"""`check` and `schema`: what they print, where, and with which exit status."""

import io
import json
import re
import tomllib
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from mailproxy.cli import Terminal, local, runCommand
from mailproxy.demo.files import PREFERRED_PORTS, writeFiles
from mailproxy.errors import ConfigError

BROKEN = """\
[listener.imaps]
protocol = "imap"
bind = ["127.0.0.1:10993"]
tls = "implicitly"

[routing]
default_destination = "nowhere"
"""


class CommandTestCase(SynchronousTestCase):
    """Runs commands with written-down streams and variables."""

    def setUp(self) -> None:
        """Start with an empty directory and no variables."""
        self.directory = Path(self.mktemp())
        self.directory.mkdir()
        self.environment: dict[str, str] = {}

    def command(self, *words: str) -> tuple[int, str, str]:
        """Return the exit status, standard output and standard error of one command."""
        terminal = Terminal(self.environment, io.StringIO(), io.StringIO())
        status = runCommand(words, terminal)
        assert isinstance(terminal.out, io.StringIO)
        assert isinstance(terminal.err, io.StringIO)
        return status, terminal.out.getvalue(), terminal.err.getvalue()

    def broken(self) -> str:
        """Return the path of a configuration with more than one mistake."""
        path = self.directory / "broken.toml"
        path.write_text(BROKEN)
        return str(path)

    def sound(self) -> str:
        """Return the path of a configuration without mistakes."""
        return str(writeFiles(self.directory, PREFERRED_PORTS))


class CheckTests(CommandTestCase):
    """`mailproxy check FILE`."""

    def test_soundFileEndsWithZero(self) -> None:
        """A file without mistakes is named on standard output, and the status is 0."""
        path = self.sound()
        self.assertEqual(self.command("check", path), (0, f"{path}: no problems found\n", ""))

    def test_whatOnlyOpenSSLCanRefuseIsFoundToo(self) -> None:
        """A check that passes is a start that gets as far as its sockets."""

        def refuse(*words: object) -> None:
            raise ConfigError(["tls.certificate.main: OpenSSL refuses the certificate or key"])

        self.patch(local, "ServerTLS", refuse)
        status, _, err = self.command("check", self.sound())
        self.assertEqual(status, 1)
        self.assertIn("tls.certificate.main: ", err)

    def stored(self, kind: str, tables: str = "") -> str:
        """Return the path of a configuration whose accounts are in such a store."""
        path = Path(self.sound())
        source = f'source = "{kind}"\n{tables}'
        path.write_text(re.sub('(?m)^source = "file"$', source, path.read_text()))
        return str(path)

    def test_aSourceThatCannotBeMadeIsFoundToo(self) -> None:
        """A plugin that is not there, a file that the driver reads; in the words of the start."""
        url = "mysql://u:hush@h/d?ssl-ca=/nonexistent"
        table = f'sql.url = "{url}"\nsql.query = "SELECT ?"'
        for kind, tables, words in (
            ("plugin:foo", "", 'mapping.source: there is no mapping plugin "foo"'),
            ("sql", table, "mapping.sql.url: ssl-ca"),
        ):
            status, out, err = self.command("check", self.stored(kind, tables))
            self.assertEqual((status, out), (1, ""))
            self.assertTrue(err.startswith(words), err)

    def test_storesAreNotAsked(self) -> None:
        """A source that is made is no problem, whether its store answers or not."""
        for kind, url, more in (
            ("redis", "rediss://127.0.0.1:1", ""),
            ("sql", "postgres://u:p@127.0.0.1:1/d", 'sql.query = "SELECT $1"'),
            ("sql", "sqlite:///nonexistent/x.db", 'sql.query = "SELECT ?"'),
        ):
            path = self.stored(kind, f'{kind}.url = "{url}"\n{more}')
            self.assertEqual(self.command("check", path), (0, f"{path}: no problems found\n", ""))

    def test_everyProblemHasItsLine(self) -> None:
        """Each mistake is one line on standard error, and the status is 1."""
        status, out, err = self.command("check", self.broken())
        self.assertEqual((status, out), (1, ""))
        keys = [line.partition(":")[0] for line in err.splitlines()]
        self.assertIn("listener.imaps.tls", keys)
        self.assertIn("routing.default_destination", keys)
        self.assertEqual(len(keys), len(set(keys)))

    def test_missingFileIsAProblem(self) -> None:
        """A file that is not there is reported in a line that names it; nothing is raised."""
        path = str(self.directory / "absent.toml")
        status, _, err = self.command("check", path)
        self.assertEqual(status, 1)
        self.assertIn(path, err)
        self.assertEqual(len(err.splitlines()), 1)

    def test_aProblemIsOneLine(self) -> None:
        """Whatever the name of the file."""
        status, _, err = self.command("check", str(self.directory / "a\nb\x1b"))
        self.assertEqual((status, len(err.splitlines())), (1, 1))
        self.assertTrue(err.strip().isprintable(), err)

    def test_fileFromTheEnvironment(self) -> None:
        """PROXY_CONFIG names the file when the command line does not."""
        self.environment["PROXY_CONFIG"] = self.broken()
        self.assertEqual(self.command("check")[0], 1)
        self.environment["PROXY_CONFIG"] = self.sound()
        self.assertEqual(self.command("check")[0], 0)

    def test_commandLineBeatsTheEnvironment(self) -> None:
        """A FILE on the command line is checked whatever PROXY_CONFIG says."""
        self.environment["PROXY_CONFIG"] = self.broken()
        self.assertEqual(self.command("check", self.sound())[0], 0)

    def test_noFileAtAllIsAProblem(self) -> None:
        """Without FILE and PROXY_CONFIG the command says so and ends with 1."""
        status, out, err = self.command("check")
        self.assertEqual((status, out), (1, ""))
        self.assertIn("PROXY_CONFIG", err)

    def test_aWarningIsNoProblem(self) -> None:
        """What only deserves a look is marked as a warning on standard error; the status is 0."""
        path = Path(self.sound())
        loose = path.read_text().replace("proxy_protocol = false", "tls_allow_invalid_certs = true")
        path.write_text(loose)
        status, out, err = self.command("check", str(path))
        self.assertEqual((status, out), (0, f"{path}: no problems found\n"))
        self.assertTrue(err.startswith("warning: destination."), err)
        answer = json.loads(self.command("check", "--json", str(path))[1])
        self.assertEqual([f"warning: {one}" for one in answer["warnings"]], err.splitlines())

    def test_twoCertificatesForOneName(self) -> None:
        """The second is not shown to who asks for that name, as the log of a start says, too."""
        path = Path(self.sound())
        text = path.read_text()
        (table,) = re.findall(r"(?s)\[tls\.certificate\.\w+\].*?(?=\n\[)", text)
        twice = re.sub(r"\[tls\.certificate\.\w+\]", "[tls.certificate.second]", table)
        twice = twice.replace("default = true", "default = false")
        path.write_text(text.replace(table, f"{table}\n{twice}\n"))
        _, _, err = self.command("check", str(path))
        self.assertIn("is served by an earlier certificate", err)

    def test_entriesThatNobodyFinds(self) -> None:
        """The mapping file is looked through for them."""
        path = Path(self.sound())
        text = re.sub("(?m)^normalize.*$", "", path.read_text())
        path.write_text(text.replace("[mapping]", "[mapping]\nnormalize = 'lowercase'"))
        mapping = path.parent / tomllib.loads(text)["mapping"]["file"]["path"]
        mapping.write_text("Anna legacy\n")
        self.assertIn("1 entry is never found", self.command("check", str(path))[2])

    def test_jsonCarriesTheProblems(self) -> None:
        """With --json the answer is one JSON object on standard output, and the status the same."""
        path = self.broken()
        status, out, err = self.command("check", "--json", path)
        answer = json.loads(out)
        self.assertEqual((status, err), (1, ""))
        self.assertEqual((answer["file"], answer["valid"]), (path, False))
        self.assertEqual(answer["problems"], self.command("check", path)[2].splitlines())

    def test_jsonOfASoundFile(self) -> None:
        """With --json a sound file is valid and has no problems."""
        path = self.sound()
        status, out, _ = self.command("check", path, "--json")
        self.assertEqual(status, 0)
        self.assertEqual(
            json.loads(out), {"file": path, "valid": True, "problems": [], "warnings": []}
        )


class SchemaTests(CommandTestCase):
    """`mailproxy schema`."""

    def test_schemaDescribesTheConfiguration(self) -> None:
        """The schema is JSON, knows the tables, and is the same with and without --json."""
        status, out, err = self.command("schema")
        self.assertEqual((status, err), (0, ""))
        self.assertLessEqual(
            {"listener", "destination", "routing"}, set(json.loads(out)["properties"])
        )
        self.assertEqual(self.command("schema", "--json"), (0, out, ""))
