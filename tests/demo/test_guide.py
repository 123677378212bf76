"""The text that the demonstration prints."""

import shlex
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from mailproxy.demo.files import PREFERRED_PORTS
from mailproxy.demo.guide import CUT_OVER_STEPS, PROTOCOL_STEPS, instructions

DIRECTORY = Path("/tmp/with space/demo")


def commands(text: str) -> list[str]:
    """Return the indented lines, which are what a reader pastes."""
    return [line.strip() for line in text.splitlines() if line.startswith("    ")]


class InstructionsTests(SynchronousTestCase):
    """Lines to paste."""

    def setUp(self) -> None:
        """Write the text for a directory whose name needs quoting."""
        self.text = instructions(DIRECTORY, PREFERRED_PORTS)
        self.commands = commands(self.text)

    def test_everyStepIsPrinted(self) -> None:
        """There is one command for each step, in order, and nothing is left to fill in."""
        self.assertEqual(len(self.commands), len(PROTOCOL_STEPS) + len(CUT_OVER_STEPS))
        for command in self.commands:
            self.assertNotIn("{", command)

    def test_commandsAreOneShellWordEach(self) -> None:
        """A path with a space stays one word, and no shell cuts a URL at its `&` or `;`."""
        for command in self.commands:
            words = shlex.split(command)
            self.assertEqual(words[:3], ["curl", "--cacert", f"{DIRECTORY}/certificate.pem"])
            self.assertTrue(words[-1].startswith(("imap://", "imaps://", "https://")))

    def test_theCutOverEndsWithTheFirstLine(self) -> None:
        """The last command is the first once more: what differs is the server that answers."""
        self.assertEqual(self.commands[-1], self.commands[0])

    def test_theTokenIsNotPrinted(self) -> None:
        """The commands read the token from its file; the text, which may be logged, has none."""
        moving = next(command for command in self.commands if "-X PUT" in command)
        self.assertIn("Bearer $(cat '/tmp/with space/demo/token')", moving)
        self.assertIn("identifier=anna&destination=new", moving)
