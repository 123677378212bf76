"""A third party's source: the documentation's example, in a running proxy."""

from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.integration.certificates import Authority
from tests.integration.front import Table
from tests.integration.proxy import PROJECT, ProxyProcess
from tests.integration.stores import StoreCase
from tests.mapping.test_plugins import example


class PluginTests(StoreCase):
    """`source = "plugin:by-letter"`."""

    @classmethod
    def startStore(cls, stack: ExitStack, authority: Authority) -> Table:
        """Nothing to start."""
        options = {"first": "old", "rest": "new"}
        return {"source": "plugin:by-letter", "plugin": options}

    @classmethod
    def fill(cls, accounts: Iterable[tuple[str, str]]) -> None:
        """Nothing to fill."""

    @classmethod
    def startProxy(cls, stack: ExitStack, config: Table, accounts: object = None) -> None:
        """With the plugin on the Python path, and nowhere in the package."""
        path = Path(stack.enter_context(TemporaryDirectory()))
        folder = path / "twisted" / "plugins"
        folder.mkdir(parents=True)
        (folder / "by_letter.py").write_text(example())
        cls.proxy = ProxyProcess(config, cls.authority, env={"PYTHONPATH": f"{PROJECT}:{path}"})
        stack.enter_context(cls.proxy)

    def test_loginsAreRoutedByIt(self) -> None:
        """Each to its half of the alphabet; it takes no writes."""
        self.assertEqual(self.login("ann@example.org").answer, b"a OK on old")
        self.assertEqual(self.login("zoe@example.org").answer, b"a OK on new")
        answer = self.api("PUT", "/mappings", identifier="ann@example.org", destination="new")
        self.assertEqual(answer.status, 501)
