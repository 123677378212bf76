"""The command line of `mailproxy`: every command, its arguments and its help.

Knows argparse and which function is which command; must not know how any of them works.
"""

import argparse
import re
from collections.abc import Callable
from typing import Any, TypeAlias

from mailproxy import __version__
from mailproxy.cli import bulk, commands, explain, local
from mailproxy.cli.commands import Command
from mailproxy.cli.output import Terminal
from mailproxy.cli.place import CONFIG_VARIABLE, TOKEN_VARIABLE
from mailproxy.config.values import CREDENTIAL_BEARING, PROTOCOLS
from mailproxy.registry import LONGEST_HOLD

__all__ = ["LONGEST_DRAIN", "MOST_PARALLEL", "makeParser"]

MOST_PARALLEL = 50
"""Accounts moved at a time: the API takes 64 connections in all, and others call it, too."""

LONGEST_DRAIN = 30
"""Seconds: with the patience for the calls around it, less than the hold lasts."""

LocalCommand: TypeAlias = Callable[[argparse.Namespace, Terminal], int]
Table: TypeAlias = "argparse._SubParsersAction[_Parser]"

_EPILOG = f"""\
Options stand behind the command: mailproxy COMMAND --help names them.
Commands for a running proxy find it by --url, else by admin.bind of the configuration file
(--config, else {CONFIG_VARIABLE}); the token by --token-file, else {TOKEN_VARIABLE}, else there.
Exit status: 0 done, 1 refused or not done, 2 wrong usage, 3 no proxy reached."""


class _Parser(argparse.ArgumentParser):
    """Refuses surplus words with the usage of the command behind which they stand.

    :ivar takes: what a command makes of them; whether it has.
    """

    takes: Callable[[argparse.Namespace, list[str]], bool] = staticmethod(lambda _, __: False)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Read a command line; nothing of it is left."""
        found, words = super().parse_known_args(args, namespace)
        if words and not self.takes(found, words):
            self.error(f"unrecognized arguments: {' '.join(words)}")
        return found, []


def makeParser() -> argparse.ArgumentParser:
    """Make what reads a command line.

    What it finds has `isLocal`, and `run`: a `LocalCommand` if that is true, else a `Command`.
    """
    parser = _Parser(prog="mailproxy", description="Look after a mailproxy.", epilog=_EPILOG)
    parser.add_argument("--version", action="version", version=f"mailproxy {__version__}")
    table = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _addLocal(table)
    _addQuestions(table)
    _addChanges(table)
    _addCutOver(table)
    return parser


def _addLocal(table: Table) -> None:
    """Add what needs no proxy."""
    checking = _local(table, "check", local.check, "validate a configuration file")
    checking.add_argument(
        "file", metavar="FILE", nargs="?", help=f"default: the variable {CONFIG_VARIABLE}"
    )
    _local(table, "schema", local.schema, "print the JSON Schema of the configuration")


def _addQuestions(table: Table) -> None:
    """Add what changes nothing."""
    _remote(table, "status", commands.status, "live sessions, cache, destinations that are down")
    _remote(table, "destinations", commands.destinations, "the health of each destination")
    found = _remote(table, "connections", commands.connections, "list live sessions")
    found.add_argument("--identifier", metavar="ID", help="those of an account")
    found.add_argument("--destination", metavar="DEST", help="those on a destination")
    found.add_argument("--protocol", choices=PROTOCOLS, help="those of a protocol")
    _takesIdentifier(_remote(table, "route", commands.route, "where an account goes"))
    told = _remote(table, "explain", explain.explain, "why an account goes where it goes")
    _takesIdentifier(told)
    choices = [name for name in PROTOCOLS if name in CREDENTIAL_BEARING]
    told.add_argument("--protocol", choices=choices, help="whose server is told (default: all)")


def _addChanges(table: Table) -> None:
    """Add what changes one thing."""
    mapping = _remote(table, "map", commands.mapAccount, "write where an account lives")
    _takesIdentifier(mapping)
    _takesDestination(mapping)
    _takesIdentifier(_remote(table, "unmap", commands.unmap, "remove an account's mapping"))
    _takesIdentifier(_remote(table, "kick", commands.kick, "end an account's live sessions"))
    held = _remote(table, "delay", commands.delay, "let an account's new logins wait")
    _takesIdentifier(held)
    held.add_argument(
        "seconds", metavar="SECONDS", type=_seconds(int(LONGEST_HOLD)), help="0: no longer"
    )
    forgotten = _remote(table, "invalidate", commands.invalidate, "forget remembered mappings")
    forgotten.add_argument("identifier", metavar="ID", nargs="?", help="default: all accounts")
    _takesDestination(_remote(table, "reset", commands.reset, "forget a destination's failures"))
    again = _remote(table, "reload", commands.reload, "read the configuration again")
    again.add_argument("--mappings", action="store_true", help="only the mapping store")


def _addCutOver(table: Table) -> None:
    command = _remote(table, "cutover", bulk.cutover, "move accounts to a destination")
    command.add_argument("identifiers", metavar="ID", nargs="*", help="accounts to move")
    _takesDestination(command)
    command.takes = _takeLater
    command.add_argument(
        "--from-file", metavar="FILE", help="more accounts, one a line (-: standard input)"
    )
    command.add_argument(
        "--parallel",
        metavar="N",
        type=_number(1, MOST_PARALLEL),
        default=10,
        help=f"accounts moved at a time, at most {MOST_PARALLEL} (default: %(default)s)",
    )
    command.add_argument(
        "--drain",
        metavar="SECONDS",
        type=_seconds(LONGEST_DRAIN),
        default=15,
        help="for ended sessions to leave, or all is put back (default: %(default)s)",
    )
    command.add_argument(
        "--wait",
        metavar="SECONDS",
        type=_seconds(3600),
        default=10,
        help="for the next session, if some were ended; 0: do not look (default: %(default)s)",
    )


def _takeLater(found: argparse.Namespace, words: list[str]) -> bool:
    """Take words that stand behind an option: the last of all is the destination."""
    if any(word.startswith("-") for word in words):
        return False
    found.identifiers = [*found.identifiers, found.destination, *words]
    found.destination = found.identifiers.pop()
    return True


def _local(table: Table, name: str, run: LocalCommand, summary: str) -> _Parser:
    command = _command(table, name, run.__doc__, summary)
    command.set_defaults(run=run, isLocal=True)
    return command


def _remote(table: Table, name: str, run: Command, summary: str) -> _Parser:
    """Add a command for a running proxy."""
    command = _command(table, name, run.__doc__, summary)
    command.set_defaults(run=run, isLocal=False)
    proxy = command.add_argument_group("the proxy")
    proxy.add_argument("--url", metavar="https://HOST:PORT", help="its management API")
    proxy.add_argument("--config", metavar="FILE", help=f"default: the variable {CONFIG_VARIABLE}")
    proxy.add_argument("--token-file", metavar="FILE", help="holds the bearer token")
    verified = proxy.add_mutually_exclusive_group()
    verified.add_argument(
        "--ca", metavar="FILE", help="PEM certificates to trust besides the system's"
    )
    verified.add_argument(
        "--insecure", action="store_true", help="take any certificate: the token may be stolen"
    )
    return command


def _command(table: Table, name: str, doc: str | None, summary: str) -> _Parser:
    """Add one command; each has `--json`."""
    command = table.add_parser(name, help=summary, description=doc)
    command.add_argument("--json", action="store_true", help="answer in JSON")
    return command


def _takesIdentifier(command: argparse.ArgumentParser) -> None:
    command.add_argument("identifier", metavar="ID", help="an account, as a client names it")


def _takesDestination(command: argparse.ArgumentParser) -> None:
    command.add_argument("destination", metavar="DEST", help="a destination's name")


def _seconds(most: int) -> Callable[[str], int]:
    return _number(0, most)


def _number(least: int, most: int) -> Callable[[str], int]:
    """Make what reads a whole number within bounds."""

    def read(text: str) -> int:
        sound = re.fullmatch("[0-9]{1,9}", text) is not None
        if not sound or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"must be a whole number from {least} to {most}")
        return int(text)

    return read
