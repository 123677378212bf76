"""mailproxy itself, as an operator runs it: a log line for each session, the server verified."""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import mailproxy
from benchmarks.peers.base import Peer, Place
from tests.integration.toml import tomlText

HERE = Path(mailproxy.__file__).parents[1]

_RUN = "from twisted.scripts.twistd import run; run()"


class Mailproxy(Peer):
    """One mailproxy; every account goes to the default destination.

    :ivar checkout: the directory whose source is run.
    :ivar threads: worker processes.
    """

    title = "mailproxy"

    def __init__(self, place: Place, checkout: Path = HERE, threads: int = 1) -> None:
        super().__init__(place)
        self.checkout, self.threads = checkout, threads

    def writeConfiguration(self) -> None:
        """Write the configuration, and an empty mapping."""
        (self.folder / "mapping").touch()
        (self.folder / "mailproxy.toml").write_text(tomlText(self._settings()), "utf-8")

    def program(self) -> Sequence[str]:
        """Twistd in the foreground, on the interpreter that runs the benchmark."""
        file = str(self.folder / "mailproxy.toml")
        return [sys.executable, "-c", _RUN, "-n", "--pidfile=", "mailproxy", "--config", file]

    def environment(self) -> Mapping[str, str]:
        """Ours, less what the proxy reads; the authority is trusted, the checkout imported."""
        own = {name: value for name, value in os.environ.items() if not name.startswith("PROXY_")}
        trust = {"SSL_CERT_FILE": str(self.caFile)}
        return {**own, **trust, "PYTHONPATH": str(self.checkout)}

    def _settings(self) -> dict[str, Any]:
        place, server = self.place, self.place.server
        files = {"cert": str(self.certificate.cert), "key": str(self.certificate.key)}
        listener = {
            "protocol": "imap",
            "bind": [f"127.0.0.1:{self.port}"],
            "tls": "implicit" if place.clientTLS else "plain",
            "max_connections": place.sessions,
        }
        endpoint = {"port": server.port, "tls": "implicit" if server.tls else "plain"}
        destination = {
            "host": "127.0.0.1",
            "tls_server_name": server.hostname,
            "proxy_protocol": False,
            "allow_plaintext_auth": not server.tls,
            "protocol": {"imap": endpoint},
        }
        return {
            "server": {"threads": self.threads},
            "tls": {"certificate": {"own": files}},
            "capabilities": {"imap": {"allow_plain_auth_without_tls": not place.clientTLS}},
            "listener": {"clients": listener},
            "destination": {"only": destination},
            "routing": {"default_destination": "only"},
            "mapping": {"source": "file", "file": {"path": "mapping"}},
        }

    @classmethod
    def find(cls) -> str:
        """The interpreter that runs the benchmark has it."""
        return sys.executable

    @classmethod
    def version(cls) -> str:
        """Of this checkout."""
        return mailproxy.__version__
