"""The operator's command, `mailproxy`.

`check` and `schema` need no running proxy (`local`). The others find one (`place`), call its
management API (`client`) and show what it answers (`commands`, `explain`, `output`); `cutover` is
the order in which one account is moved, `bulk` moves several. `arguments` knows all commands.

The exit status is 0 done, 1 the proxy said no or it was not done, 2 wrong usage, 3 no proxy was
reached, 128 and more after a signal. Nothing ends in a traceback.
"""

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any

from mailproxy.cli.arguments import MOST_PARALLEL, makeParser
from mailproxy.cli.client import ManagementClient, makeSender
from mailproxy.cli.commands import Job
from mailproxy.cli.errand import Errand
from mailproxy.cli.output import Output, Terminal
from mailproxy.cli.place import findProxy
from mailproxy.errors import BadUsage, CommandError, Unreachable

__all__ = ["Terminal", "main", "runCommand"]


def runCommand(words: Sequence[str], terminal: Terminal) -> int:
    """Carry out one command line, without the program's name; return the exit status.

    One for a running proxy uses the global reactor up: it can be called once.
    """
    arguments = makeParser().parse_args(words)
    output = Output(terminal, asJSON=arguments.json)
    try:
        if arguments.isLocal:
            status: int = arguments.run(arguments, terminal)
            return status
        return _askProxy(arguments, terminal, output)
    except CommandError as error:
        status = statusOf(error)
        output.fail(str(error), status, error.problems)
    except BrokenPipeError:
        raise
    except Exception as error:  # the top of a command
        status = 1
        output.fail(f"internal error: {type(error).__name__}: {error}", status)
    return status


def statusOf(error: CommandError) -> int:
    """Choose the exit status for a command that has come to nothing."""
    if isinstance(error, BadUsage):
        return 2
    return 3 if isinstance(error, Unreachable) else 1


def _askProxy(arguments: argparse.Namespace, terminal: Terminal, output: Output) -> int:
    """Carry out a command against a running proxy."""
    from twisted.internet import reactor as globalReactor

    reactor: Any = globalReactor
    place = findProxy(arguments, terminal.environment)
    if arguments.insecure:
        output.warn("--insecure: whoever answers is given the token")
    sender = makeSender(reactor, place.trust, MOST_PARALLEL)
    job = Job(ManagementClient(sender, place, reactor), arguments, output, reactor)
    return Errand(reactor, lambda: arguments.run(job)).run()


def main() -> int:
    """Carry out the process's command line; the entry point of the console script."""
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # they are for programmers
    try:
        return runCommand(sys.argv[1:], Terminal(os.environ, sys.stdout, sys.stderr))
    except BrokenPipeError:
        # Whoever read the answer has seen enough; nothing more may be written at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
