"""The operator's command, `mailproxy`.

`check` and `schema` need no running proxy. Each command is a function of the parsed arguments and a
`Terminal`; it returns the exit status: 0 done, 1 not. Wrong usage ends with 2, as argparse has it.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TextIO

import attrs

from mailproxy import __version__
from mailproxy.config import Config, load, warnings
from mailproxy.errors import ConfigError

CONFIG_VARIABLE = "PROXY_CONFIG"


@attrs.frozen
class Terminal:
    """What a command may read and write besides files.

    :ivar environment: the process's variables.
    """

    environment: Mapping[str, str] = attrs.field(repr=False)
    out: TextIO
    err: TextIO

    def say(self, line: str) -> None:
        """Write one line of the answer."""
        print(line, file=self.out)

    def complain(self, line: str) -> None:
        """Write one line about what is wrong."""
        print(line, file=self.err)


def check(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """Validate a configuration file; name every problem, one per line."""
    path = arguments.file or terminal.environment.get(CONFIG_VARIABLE)
    if path:
        findings = _examine(Path(path), terminal.environment)
    else:
        findings = Findings([f"no FILE given and {CONFIG_VARIABLE} is not set"])
    if arguments.json:
        terminal.say(json.dumps({"file": path, **findings.asJSON()}))
    else:
        for line in findings.lines():
            terminal.complain(line)
        if findings.valid:
            terminal.say(f"{path}: no problems found")
    return 0 if findings.valid else 1


@attrs.frozen
class Findings:
    """What is to be said about a configuration file; one line of text each."""

    problems: Sequence[str]
    warnings: Sequence[str] = ()

    @property
    def valid(self) -> bool:
        """Whether the proxy would start with the file; warnings do not stop it."""
        return not self.problems

    def lines(self) -> Sequence[str]:
        """Return a line for each finding."""
        return [*self.problems, *(f"warning: {warning}" for warning in self.warnings)]

    def asJSON(self) -> dict[str, object]:
        """Return the fields of the answer to `--json`."""
        found = {"problems": list(self.problems), "warnings": list(self.warnings)}
        return {"valid": self.valid, **found}


def _examine(path: Path, environment: Mapping[str, str]) -> Findings:
    try:
        config = load(path, environment)
    except ConfigError as error:
        return Findings(error.problems)
    return Findings([], warnings(config))


def schema(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """Print the JSON Schema of the configuration, for editors; with or without `--json`."""
    terminal.say(json.dumps(Config.model_json_schema(), indent=2))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="mailproxy", description="Look after a mailproxy.")
    parser.add_argument("--version", action="version", version=f"mailproxy {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    checking = _addCommand(commands, "check", check, "validate a configuration file")
    checking.add_argument(
        "file", metavar="FILE", nargs="?", help=f"default: the variable {CONFIG_VARIABLE}"
    )
    _addCommand(commands, "schema", schema, "print the JSON Schema of the configuration")
    return parser


def _addCommand(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    run: Callable[[argparse.Namespace, Terminal], int],
    summary: str,
) -> argparse.ArgumentParser:
    """Add one command; each has `--json`."""
    command = commands.add_parser(name, help=summary, description=run.__doc__)
    command.add_argument("--json", action="store_true", help="answer in JSON")
    command.set_defaults(run=run)
    return command


def runCommand(words: Sequence[str], terminal: Terminal) -> int:
    """Carry out one command line, without the program's name; return the exit status."""
    arguments = _parser().parse_args(words)
    status: int = arguments.run(arguments, terminal)
    return status


def main() -> int:
    """Carry out the process's command line; the entry point of the console script."""
    return runCommand(sys.argv[1:], Terminal(os.environ, sys.stdout, sys.stderr))
