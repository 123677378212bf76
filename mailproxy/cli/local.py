"""The commands that need no running proxy: `check` and `schema`."""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import attrs

from mailproxy.cli.output import Terminal
from mailproxy.cli.place import CONFIG_VARIABLE
from mailproxy.config import Config, load, warnings
from mailproxy.config.load import unmatchedInFile
from mailproxy.config.model import SourceKind
from mailproxy.errors import ConfigError
from mailproxy.sources import ProxyReactor, SourceMaker, makeThread
from mailproxy.tls import BackendOptions, BackendTLS, ServerTLS

__all__ = ["Findings", "check", "schema"]


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
        found = _tryTLS(config)
        _trySource(config)
    except ConfigError as error:
        return Findings(error.problems)
    return Findings((), [*warnings(config), *found, *unmatchedInFile(config)])


def _tryTLS(config: Config) -> list[str]:
    """Build the contexts that a start would build: some things only OpenSSL can refuse.

    :returns: the warnings of a start.
    """
    server = ServerTLS(config.tls.certificate, config.tls.protocols)
    for destination in config.destination.values():
        BackendTLS(BackendOptions.fromConfig(destination, config.tls.protocols))
    return server.warnings


def _trySource(config: Config) -> None:
    """Make the mapping source that a start would make: its driver or plugin may be missing.

    It is not started, so no store is asked. A mapping file has been read by now.
    """
    if config.mapping.kind is not SourceKind.FILE:
        from twisted.internet import reactor as globalReactor

        reactor = cast(ProxyReactor, globalReactor)
        SourceMaker(reactor, makeThread(reactor)).make(config)


def schema(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """Print the JSON Schema of the configuration, for editors; with or without `--json`."""
    terminal.say(json.dumps(Config.model_json_schema(), indent=2))
    return 0
