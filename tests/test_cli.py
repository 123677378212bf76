"""The operator's command as a whole: how it ends, and that it never ends in a traceback."""

import io
import json
import os
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from mailproxy import cli
from mailproxy.cli import Terminal, runCommand, statusOf
from mailproxy.errors import BadUsage, CallRefused, NotDone, Unreachable


class CommandTests(SynchronousTestCase):
    """Command lines from their first word to their exit status."""

    def command(self, *words: str, **environment: str) -> tuple[int, str, str]:
        """Return the exit status, standard output and standard error of one command."""
        out, err = io.StringIO(), io.StringIO()
        status = runCommand(words, Terminal(environment, out, err))
        return status, out.getvalue(), err.getvalue()

    def test_unknownCommandIsWrongUsage(self) -> None:
        """An unknown command, or none, ends with status 2 and a line of usage."""
        for words in ([], ["chekc"]):
            err = io.StringIO()
            self.patch(sys, "stderr", err)
            self.assertEqual(self.assertRaises(SystemExit, self.command, *words).code, 2)
            self.assertIn("usage: mailproxy", err.getvalue())

    def test_aProxyThatIsNotNamedIsWrongUsage(self) -> None:
        """One line on standard error; with `--json` one object on standard output."""
        status, out, err = self.command("status")
        self.assertEqual((status, out, len(err.splitlines())), (2, "", 1))
        self.assertTrue(err.startswith("mailproxy: where is the proxy?"), err)
        status, out, err = self.command("status", "--json")
        self.assertEqual((status, err), (2, ""))
        self.assertEqual(json.loads(out)["status"], 2)

    def test_eachFailureHasItsStatus(self) -> None:
        """For scripts: 1 the proxy said no, 2 wrong usage, 3 nobody there."""
        for error, status in (
            (NotDone(""), 1),
            (CallRefused(500, ""), 1),
            (BadUsage(""), 2),
            (Unreachable(""), 3),
        ):
            self.assertEqual(statusOf(error), status)

    def test_ourMistakesAreOneLine(self) -> None:
        """Whoever runs it at night has no use for a traceback."""

        def spoiled(*_: object) -> None:
            raise ZeroDivisionError("oops")

        self.patch(cli, "findProxy", spoiled)
        status, out, err = self.command("status")
        self.assertEqual((status, out), (1, ""))
        self.assertEqual(err, "mailproxy: internal error: ZeroDivisionError: oops\n")

    def test_aReaderWhoHasSeenEnoughIsNoProblem(self) -> None:
        """`| head` closes the pipe: nothing is said about it, and nothing is written at exit."""
        reading, writing = os.pipe()
        os.close(reading)
        with os.fdopen(writing, "w") as out:
            self.patch(sys, "stdout", out)
            self.patch(sys, "argv", ["mailproxy", "schema"])
            self.assertEqual(cli.main(), 1)

    def test_theConsoleScriptIsThis(self) -> None:
        """`setup.cfg` names it."""
        setup = Path(__file__).parent.parent / "setup.cfg"
        self.assertIn("mailproxy = mailproxy.cli:main", setup.read_text())
