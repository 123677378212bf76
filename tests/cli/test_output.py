"""Terminals and other streams: tables, colours, JSON, and what nobody may write to them."""

import io
import json

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailproxy.cli.output import Line, Output, Table, Terminal, bad, clean, counted, good
from tests.cli.support import Screen

TABLE = Table(["name", "state"], [["old", good("up")], ["new", bad("down")]])


class OutputCase(SynchronousTestCase):
    """Streams of our own."""

    def output(self, *, screen: bool = False, asJSON: bool = False, **variables: str) -> Output:
        """Make an output over new streams."""
        environment = {"TERM": "xterm-256color", "COLUMNS": "80", **variables}
        self.out = Screen() if screen else io.StringIO()
        self.err = io.StringIO()
        return Output(Terminal(environment, self.out, self.err), asJSON=asJSON)


class PlainTests(OutputCase):
    """Files and pipes."""

    def test_tablesAreSeparatedByTabs(self) -> None:
        """For cut and awk; no colour, whatever is marked."""
        self.output().show(TABLE)
        self.assertEqual(self.out.getvalue(), "name\tstate\nold\tup\nnew\tdown\n")

    def test_longLinesStayWhole(self) -> None:
        """Nothing is folded at a width that no pipe has."""
        text = "word " * 100
        self.output().show(Line.of(text))
        self.assertEqual(self.out.getvalue(), f"{text}\n")


class ScreenTests(OutputCase):
    """Terminals."""

    def test_stateHasItsColour(self) -> None:
        """Green and red, in a table whose columns are aligned."""
        self.output(screen=True).show(TABLE)
        text = self.out.getvalue()
        self.assertIn("\x1b[32mup", text)
        self.assertIn("\x1b[1;31mdown", text)

    def test_noColorMeansNone(self) -> None:
        """NO_COLOR is heard."""
        self.output(screen=True, NO_COLOR="1").show(TABLE)
        self.assertNotIn("[32m", self.out.getvalue())

    def test_whatIsLongIsFolded(self) -> None:
        """On a narrow terminal no letter is lost."""
        self.output(screen=True, COLUMNS="30").show(Table(["name"], [["x" * 100]]))
        self.assertEqual(self.out.getvalue().count("x"), 100)

    def test_markupIsText(self) -> None:
        """Brackets in a name are brackets."""
        self.output(screen=True).show(Line.of("[red]ann[/red] :smile: [/]"))
        self.assertIn("[red]ann[/red] :smile: [/]", self.out.getvalue())


class JSONTests(OutputCase):
    """`--json`."""

    def test_factsAreOneLine(self) -> None:
        """What is shown to people is left out; on a terminal it is indented."""
        self.output(asJSON=True).give({"a": [1]}, TABLE)
        self.assertEqual(self.out.getvalue(), '{"a": [1]}\n')
        self.output(asJSON=True, screen=True).give({"a": [1]}, TABLE)
        self.assertEqual(json.loads(self.out.getvalue()), {"a": [1]})

    def test_failuresAreJSONToo(self) -> None:
        """With the exit status; without `--json` they are a line on standard error."""
        self.output(asJSON=True).fail("nobody is there", 3)
        told = {"error": "nobody is there", "status": 3}
        self.assertEqual((json.loads(self.out.getvalue()), self.err.getvalue()), (told, ""))
        self.output().fail("a; b", 1, ["a", "b"])
        self.assertEqual(self.err.getvalue(), "mailproxy: a\nmailproxy: b\n")
        self.err.seek(0)
        self.err.truncate()
        self.output().fail("nobody\nis there", 3)
        self.assertEqual(self.err.getvalue(), "mailproxy: nobody\\nis there\n")


class WordTests(SynchronousTestCase):
    """Small parts."""

    @given(st.text())
    def test_nothingControlsATerminal(self, text: str) -> None:
        """Whatever comes in, what goes out is printable; what was printable is unchanged."""
        self.assertTrue(clean(text).isprintable())
        if text.isprintable():
            self.assertEqual(clean(text), text)

    def test_oneIsNotMany(self) -> None:
        """In English."""
        words = [counted(number, "session") for number in range(3)]
        self.assertEqual(words, ["0 sessions", "1 session", "2 sessions"])

    def test_variablesAreNotShown(self) -> None:
        """A token may be among them."""
        self.assertNotIn("hush", repr(Terminal({"X": "hush"}, io.StringIO(), io.StringIO())))
