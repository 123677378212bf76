"""A small sound configuration, and files for it, that tests of the configuration change."""

from pathlib import Path
from typing import Any

import trustme
from twisted.trial.unittest import SynchronousTestCase

from mailproxy.config.load import load
from mailproxy.config.model import Config
from mailproxy.errors import ConfigError

TOKEN = "t" * 32

MINIMAL = """
[tls.certificate.main]
cert = "main.pem"
key = "main.key"

[listener.imaps]
protocol = "imap"
bind = ["127.0.0.1:993"]
tls = "implicit"

[destination.old]
host = "old.example.com"
protocol.imap = { port = 993, tls = "implicit" }

[routing]
default_destination = "old"

[mapping]
source = "file"
file.path = "accounts"
"""

_authority = trustme.CA(key_type=trustme.KeyType.ECDSA)


class Issued:
    """A certificate and its key as PEM."""

    def __init__(self, *names: str, **more: Any) -> None:
        issued = _authority.issue_cert(*names, key_type=trustme.KeyType.ECDSA, **more)
        self.leaf = issued.cert_chain_pems[0].bytes()
        self.key = issued.private_key_pem.bytes()


AUTHORITY_PEM = _authority.cert_pem.bytes()
MAIN = Issued("mail.example.com")


class ConfigTestCase(SynchronousTestCase):
    """Tests that load a configuration from a directory of their own."""

    def setUp(self) -> None:
        """Make the files that `MINIMAL` names."""
        self.directory = Path(self.mktemp())
        self.directory.mkdir(parents=True)
        self.write("main.pem", MAIN.leaf)
        self.write("main.key", MAIN.key)
        self.write("accounts", b"anna old\n")

    def write(self, name: str, data: bytes | str) -> Path:
        """Write a file into the configuration's directory, for its owner alone."""
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data if isinstance(data, bytes) else data.encode())
        path.chmod(0o600)
        return path

    def load(self, text: str, **environment: str) -> Config:
        """Load a configuration file of this text."""
        return load(self.write("mailproxy.toml", text), environment)

    def problems(self, text: str, **environment: str) -> list[str]:
        """What is wrong with a configuration file of this text; fails if nothing is.

        Each line must have a key or file before its message.
        """
        problems = list(self.assertRaises(ConfigError, self.load, text, **environment).problems)
        for problem in problems:
            self.assertRegex(problem, r"^[^\n]+: [^\n]+$")
            self.assertNotIn("pydantic", problem)
        return problems

    def assertProblem(self, text: str, start: str, **environment: str) -> str:
        """Check that there is exactly one problem and how its line begins.

        :returns: the line.
        """
        problems = self.problems(text, **environment)
        self.assertEqual(len(problems), 1, problems)
        self.assertTrue(problems[0].startswith(start), problems[0])
        return problems[0]


def changed(*changes: tuple[str, str], extra: str = "", base: str = MINIMAL) -> str:
    """`MINIMAL` with pieces of its text replaced and more tables at its end."""
    for old, new in changes:
        if old not in base:
            raise AssertionError(f"{old!r} is not in the text")
        base = base.replace(old, new)
    return base + extra
