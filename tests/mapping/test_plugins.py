"""Sources of third parties: found as Twisted plugins, and refused when they are none."""

import re
import sys
from pathlib import Path
from textwrap import dedent
from typing import Any

from twisted.plugin import getPlugins
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from mailproxy.errors import ConfigError
from mailproxy.mapping import plugins
from mailproxy.mapping.interfaces import IMappingPlugin, IMappingSource
from mailproxy.mapping.plugins import makePluginSource
from twisted import plugins as twistedPlugins

PAGE = Path(__file__).parents[2] / "docs" / "stores-plugin.rst"


def example() -> str:
    """The plugin that the documentation shows."""
    found = re.search(r"\.\. code-block:: python\n\n((?:    .*\n|\n)+)", PAGE.read_text("utf-8"))
    assert found is not None
    return dedent(found[1])


@implementer(IMappingPlugin)
class Plugin:
    """A plugin whose source is what the test says."""

    name = "mine"

    def __init__(self, make: Any) -> None:
        self._make = make

    def makeSource(self, options: Any, reactor: Any) -> Any:
        """Make it."""
        return self._make()


class ExampleTests(SynchronousTestCase):
    """The documentation's plugin, installed as the page says."""

    def setUp(self) -> None:
        """Put it where Twisted looks."""
        folder = Path(self.mktemp()).absolute() / "twisted" / "plugins"
        folder.mkdir(parents=True)
        (folder / "by_letter.py").write_text(example())
        path = list(twistedPlugins.__path__)
        self.patch(twistedPlugins, "__path__", [*path, str(folder)])
        self.addCleanup(sys.modules.pop, "twisted.plugins.by_letter", None)

    def test_worksAsWritten(self) -> None:
        """It is a source that answers."""
        source = makePluginSource("by-letter", {"first": "old", "rest": "new"}, None)
        verifyObject(IMappingSource, source)
        self.assertEqual(self.successResultOf(source.lookup("ann@example.org")), "old")
        self.assertEqual(self.successResultOf(source.lookup("zoe@example.org")), "new")

    def test_hasAboutTenLines(self) -> None:
        """Imports aside, it is no more than that."""
        lines = [line for line in example().splitlines() if line.strip()]
        code = [line for line in lines if not line.startswith(("from ", "import "))]
        self.assertLessEqual(len(code), 10)

    def test_isAPlugin(self) -> None:
        """With all that the interface asks for."""
        [found] = [plugin for plugin in getPlugins(IMappingPlugin) if plugin.name == "by-letter"]
        verifyObject(IMappingPlugin, found)


class RefusalTests(SynchronousTestCase):
    """What is not used."""

    def refused(self, name: str, make: Any) -> str:
        """The problem's line."""
        self.patch(plugins, "getPlugins", lambda interface: [Plugin(make)])
        [problem] = self.assertRaises(ConfigError, makePluginSource, name, {}, None).problems
        self.assertTrue(problem.startswith("mapping.source: "), problem)
        return str(problem)

    def test_unknownName(self) -> None:
        """Those that are there are named."""
        self.assertIn('no mapping plugin "other"; installed are: mine', self.refused("other", None))

    def test_notASource(self) -> None:
        """What it makes must be one."""
        self.assertIn("is no mapping source", self.refused("mine", object))

    def test_failingPlugin(self) -> None:
        """It is named, and its mistake is in the log."""
        self.assertIn("failed: ZeroDivisionError", self.refused("mine", lambda: 1 / 0))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_ownProblems(self) -> None:
        """A plugin may say what is wrong with its options."""

        def make() -> None:
            raise ConfigError(["mapping.source: the address is missing"])

        self.assertIn("the address is missing", self.refused("mine", make))
