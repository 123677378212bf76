"""What the documentation tells a reader to type is what works."""

import json
import re
import sys
from pathlib import Path
from subprocess import run
from textwrap import dedent

from twisted.trial.unittest import SynchronousTestCase

from mailproxy.config import load
from mailproxy.demo.files import CERTIFICATE, KEY, PREFERRED_PORTS, TOKEN, writeFiles
from mailproxy.demo.guide import instructions
from mailproxy.logformat import asJSON
from mailproxy.mapping.sql import Statements
from mailproxy.metrics import Outcome
from tests.config.support import MINIMAL, ConfigTestCase, changed
from tests.integration import statements
from tests.stage import StageCase
from tests.test_metrics import eventfulMetrics, samples

PROJECT = Path(__file__).parent.parent
README = PROJECT / "README.rst"
QUICK_START = PROJECT / "docs" / "quickstart.rst"
MAPPING = MINIMAL[MINIMAL.index("[mapping]") :]


class DemonstrationTests(SynchronousTestCase):
    """The lines of the quick start."""

    def test_commandsAreThoseOfTheDemonstration(self) -> None:
        """Each curl line is one that the demonstration prints when its usual ports are free."""
        printed = instructions(Path("/tmp/mailproxy-demo"), PREFERRED_PORTS).splitlines()
        for page in (README, QUICK_START):
            lines = re.findall(r"^    curl --cacert .*$", page.read_text(), re.MULTILINE)
            self.assertGreaterEqual(len(lines), 2)
            for line in lines:
                self.assertIn(line, printed)


class ReferenceTests(SynchronousTestCase):
    """The page of all keys."""

    def test_itSaysWhatTheModelSays(self) -> None:
        """`python docs/reference.py > docs/reference.rst` writes it anew."""
        made = run([sys.executable, PROJECT / "docs" / "reference.py"], capture_output=True)
        self.assertEqual(made.returncode, 0, made.stderr)
        page = PROJECT / "docs" / "reference.rst"
        self.assertEqual(page.read_text(encoding="utf-8"), made.stdout.decode("utf-8"))


class StorePagesTests(ConfigTestCase):
    """The pages about stores."""

    PAGES = ("file", "redis", "postgresql", "mysql", "sqlite", "plugin")

    def test_configurationsAreSound(self) -> None:
        """What each page shows can be put into a configuration as it is."""
        self.write("accounts", "anna old\n")
        for page in self.PAGES:
            table = block(self.text(page), ".. code-block:: toml")
            config = self.load(changed((MAPPING, table)))
            self.assertEqual(config.mapping.on_error, "stale", page)

    def test_statementsAndSchemaAreTheTestedOnes(self) -> None:
        """Those that the tests of real servers use."""
        for page, known, schema in (
            ("postgresql", statements.POSTGRESQL, statements.POSTGRESQL_TABLE),
            ("mysql", statements.MYSQL, statements.MYSQL_TABLE),
            ("sqlite", statements.SQLITE, statements.SQLITE_TABLE),
        ):
            text = self.text(page)
            sql = self.load(changed((MAPPING, block(text, ".. code-block:: toml")))).mapping.sql
            assert sql is not None
            self.assertEqual(Statements(sql.query, sql.upsert_query, sql.delete_query), known)
            self.assertIn(schema, block(text, ".. code-block:: sql"))

    def text(self, page: str) -> str:
        """A page's source."""
        return (PROJECT / "docs" / f"stores-{page}.rst").read_text("utf-8")


class OperationsTests(StageCase):
    """What the page on operations lists."""

    page = (PROJECT / "docs" / "operations.rst").read_text()

    def test_metrics(self) -> None:
        """The table has each metric, the alerts use no other."""
        counted = {
            re.sub("_(bucket|count|sum|created)$", "", name)
            for name, _ in samples(eventfulMetrics())
        }
        counted |= {"mailproxy_workers", "mailproxy_worker_restarts_total"}
        counted -= {name.removesuffix("_total") for name in counted if name.endswith("_total")}
        listed = set(re.findall(r"^``(mailproxy_\w+)``", self.page, re.MULTILINE))
        self.assertEqual(listed, counted)
        self.assertEqual(set(re.findall(r"\bmailproxy_\w+", self.page)) - counted, set())

    def test_fieldsOfASessionsEnd(self) -> None:
        """Each field is listed, and each outcome."""
        stage = self.begin()
        stage.enter().hangUp()
        stage.network.pump()
        event = self.events[-1]
        (table,) = re.findall(r"^=+  =+\n``session``.*?^=+  =+$", self.page, re.M | re.S)
        said = set(re.findall(r"``(\w+)``", table))
        fields = json.loads(asJSON(event) or "").keys() - {"time", "level", "system", "message"}
        outcomes = {outcome.value for outcome in Outcome}
        self.assertEqual(said, fields | outcomes)


class ConfigurationTests(SynchronousTestCase):
    """The configuration that README shows."""

    def test_theMinimalConfigurationIsValid(self) -> None:
        """It is complete: with the files that it names in place, nothing is missing."""
        directory = Path(self.mktemp())
        directory.mkdir()
        writeFiles(directory, PREFERRED_PORTS)
        (directory / CERTIFICATE).rename(directory / "mail.example.org.pem")
        (directory / KEY).rename(directory / "mail.example.org.key")
        self.assertTrue((directory / TOKEN).is_file())
        (directory / "mapping").write_text(self.block("mapping`` names"))
        path = directory / "mailproxy.toml"
        path.write_text(self.block(".. code-block:: toml").replace("/etc/mailproxy/", ""))
        config = load(path, {})
        self.assertEqual(set(config.destination), {"old", "new"})

    def block(self, heading: str) -> str:
        """Return the indented block that follows a line of README."""
        return block(README.read_text(), heading)


def block(text: str, heading: str) -> str:
    """Return the indented block that follows a line of a page."""
    _, _, rest = text.partition(heading)
    found = re.search(r"\n\n((?:    .*\n|\n)+)", rest)
    assert found is not None, heading
    return dedent(found[1])
