"""The command line: every command, what it takes, and what the documentation shows of it."""

import io
import re
import shlex
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from mailproxy.cli.arguments import LONGEST_DRAIN, MOST_PARALLEL, makeParser
from mailproxy.cli.client import PATIENCE
from mailproxy.cli.cutover import HOLD
from mailproxy.management.api import CALLS
from mailproxy.management.site import MOST_CONNECTIONS

PROJECT = Path(__file__).parents[2]
PAGE = (PROJECT / "docs" / "management.rst").read_text()


def commandsOf(text: str) -> list[list[str]]:
    """Return the indented lines of a page that call the tool, as words."""
    lines = re.findall(r"^    mailproxy (.*)$", text, re.MULTILINE)
    return [shlex.split(line, comments=True) for line in lines]


class ParserTests(SynchronousTestCase):
    """What is read."""

    def wrong(self, *words: str) -> str:
        """Read what is wrong usage; returns the last line that is printed."""
        err = io.StringIO()
        self.patch(sys, "stderr", err)
        self.assertEqual(self.assertRaises(SystemExit, makeParser().parse_args, words).code, 2)
        return err.getvalue().splitlines()[-1]

    def test_everyCommandHasJSONAndHelp(self) -> None:
        """And those for a proxy can be told where it is."""
        table = makeParser()._subparsers
        assert table is not None
        [choices] = [each.choices for each in table._group_actions]
        assert isinstance(choices, dict)
        for name, command in choices.items():
            options = set(command._option_string_actions)
            self.assertIn("--json", options, name)
            self.assertTrue(command.description, name)
            if name not in ("check", "schema"):
                wanted = {"--url", "--config", "--token-file", "--ca", "--insecure"}
                self.assertLessEqual(wanted, options, name)

    def test_theLastWordIsTheDestination(self) -> None:
        """All before it are accounts, of which there may be none."""
        for words, accounts in {
            ("a", "b", "new"): ["a", "b"],
            ("new", "--from-file", "f"): [],
            ("--parallel", "20", "--from-file", "f", "a", "new"): ["a"],
            ("a", "--wait", "0", "new"): ["a"],
            ("a", "b", "--wait", "0", "c", "--json", "new"): ["a", "b", "c"],
        }.items():
            found = makeParser().parse_args(["cutover", *words])
            self.assertEqual((found.identifiers, found.destination), (accounts, "new"))

    def test_surplusIsRefusedWithTheRightUsage(self) -> None:
        """That of the command: the program's own says nothing of what is wrong."""
        for words in (("route", "ann", "bob"), ("cutover", "ann", "new", "--wiat", "0")):
            self.assertRegex(self.wrong(*words), f"mailproxy {words[0]}: error: unrec.*{words[-1]}")

    def test_numbersHaveBounds(self) -> None:
        """What is none, or out of them, is wrong usage."""
        for words, bounds in {
            ("delay", "ann", "121"): "from 0 to 120",
            ("delay", "ann", "1.5"): "from 0 to 120",
            ("delay", "ann", "٣"): "from 0 to 120",
            ("cutover", "a", "b", "--parallel", "0"): f"from 1 to {MOST_PARALLEL}",
            ("cutover", "a", "b", "--drain", "99"): f"from 0 to {LONGEST_DRAIN}",
        }.items():
            self.assertIn(bounds, self.wrong(*words))

    def test_trustIsOneOrTheOther(self) -> None:
        """Whoever names an authority does not mean that anything goes."""
        self.assertIn("not allowed", self.wrong("status", "--ca", "x", "--insecure"))

    def test_onlyRoutedProtocolsAreExplained(self) -> None:
        """What is passed through is not routed by account."""
        self.assertIn("invalid choice", self.wrong("explain", "ann", "--protocol", "smtp"))


class BoundTests(SynchronousTestCase):
    """Numbers that must fit together."""

    def test_theHoldOutlastsTheMove(self) -> None:
        """With every call between hold and write as slow as can be, and with the longest drain."""
        callsBeforeTheWriteIsDone = 2
        self.assertGreater(HOLD, callsBeforeTheWriteIsDone * PATIENCE + LONGEST_DRAIN)

    def test_othersCanCallToo(self) -> None:
        """A crew leaves connections free."""
        self.assertLess(MOST_PARALLEL, MOST_CONNECTIONS)


class DocumentationTests(SynchronousTestCase):
    """What the page on management tells a reader to type."""

    def test_itsCommandsAreCommands(self) -> None:
        """Each line can be read."""
        found = commandsOf(PAGE)
        self.assertGreater(len(found), 12)
        for words in found:
            makeParser().parse_args(words)

    def test_readmesCommandsAreCommands(self) -> None:
        """There, too."""
        for words in commandsOf((PROJECT / "README.rst").read_text()):
            makeParser().parse_args(words)

    def test_everyCallIsShown(self) -> None:
        """As a curl line, and no other is."""
        shown = set()
        for line in re.findall(r"^    api (.*)$", PAGE, re.MULTILINE):
            words = shlex.split(line)
            method = words[words.index("-X") + 1] if "-X" in words else "GET"
            shown.add(f"{method} /{words[-1].split('/', 3)[-1].partition('?')[0]}")
        self.assertEqual(shown, {f"{call.method} {call.path}" for call in CALLS})

    def test_itsStatusesAreTrue(self) -> None:
        """The calls of its table are those that there are."""
        rows = set(re.findall(r"^``((?:GET|PUT|POST|DELETE) /[a-z/.]+)", PAGE, re.MULTILINE))
        self.assertEqual(rows, {f"{call.method} {call.path}" for call in CALLS})
