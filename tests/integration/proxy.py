"""mailproxy itself as a child process, as an operator runs it, and a client for its API."""

import http.client
import json
import os
import ssl
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self
from urllib.parse import urlencode

import attrs

from tests.integration.certificates import Authority
from tests.integration.process import ChildServer
from tests.integration.toml import tomlText

PROJECT = Path(__file__).parents[2]


@attrs.frozen
class Answer:
    """What the management API said."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode("utf-8")

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


class ProxyProcess(ChildServer):
    """`twistd -n mailproxy --config FILE`, trusting the test authority for its backend legs.

    Its log is `log`, as for every child; `stop` sends SIGTERM and returns the exit status.

    :cvar threads: worker processes where a configuration says one; None: what it says.
    :cvar program: what the interpreter does: be twistd.
    :param config: the configuration as nested mappings; change `config` and call `start` or
        send SIGHUP after `writeConfiguration` to try another.
    :param arguments: further ones for the plugin (`--demo`, `--log-format json`).
    :param flags: further ones for twistd itself, in front of it (`--logfile`, `--uid`).
    """

    threads: ClassVar[int | None] = None
    program: ClassVar[str] = "from twisted.scripts.twistd import run; run()"

    def __init__(
        self,
        config: Mapping[str, Any],
        authority: Authority,
        *,
        arguments: Sequence[str] = (),
        flags: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__("proxy")
        self.config = dict(config)
        self.configFile = self.folder / "mailproxy.toml"
        self._authority = authority
        self._arguments, self._flags = arguments, flags
        self._env = env or {}

    def writeConfiguration(self) -> None:
        """Write the configuration file anew."""
        server = self.config.get("server", {})
        if self.threads is not None and server.get("threads") == 1:
            server = {**server, "threads": self.threads}
        self.configFile.write_text(tomlText({**self.config, "server": server}), "utf-8")

    def writeMapping(self, accounts: Mapping[str, str]) -> None:
        """Write the file `mapping` beside the configuration: identifier -> destination."""
        lines = (f"{account}\t{name}\n" for account, name in accounts.items())
        self.mapping.write_text("".join(lines), "utf-8")

    @property
    def mapping(self) -> Path:
        """The mapping file, which a configuration names as `mapping`."""
        return self.folder / "mapping"

    def command(self) -> Sequence[str]:
        """The interpreter that runs the tests, with twistd in the foreground."""
        twistd = [sys.executable, "-c", self.program, "-n", "--pidfile=", *self._flags]
        return [*twistd, "mailproxy", "--config", str(self.configFile), *self._arguments]

    def environment(self) -> Mapping[str, str]:
        """Ours, but with none of the variables that the proxy reads, except those given."""
        own = {name: value for name, value in os.environ.items() if not name.startswith("PROXY_")}
        trust = {"SSL_CERT_FILE": str(self._authority.caFile), "PYTHONPATH": str(PROJECT)}
        return {**own, **trust, **self._env}

    def start(self) -> Self:
        """Run it and return once it serves; several workers begin one after the other.

        :raises ServerFailed: if it ends before that, takes too long, or runs already.
        """
        mark = self.output.mark()
        super().start()
        for number in range(self.threads or 0):
            self.output.waitForLine(f"worker {number + 1} serves", since=mark, timeout=60)
        return self

    def ports(self) -> Sequence[int]:
        """Those of every listener's `bind` and of the management API."""
        tables = [*_tables(self.config.get("listener")), *_tables({"": self.config.get("admin")})]
        binds: list[object] = []
        for table in tables:
            bind = table.get("bind", ())
            binds += [bind] if isinstance(bind, str) else bind
        return [port for port in map(_portOf, binds) if port is not None]

    def modeOf(self, listener: str) -> str:
        """A listener's TLS mode."""
        return str(self.config["listener"][listener]["tls"])

    def portOf(self, listener: str) -> int:
        """The port of a listener's first `bind`."""
        [bind, *_] = self.config["listener"][listener]["bind"]
        port = _portOf(bind)
        assert port is not None, "the first bind is not HOST:PORT"
        return port

    def api(self, method: str, path: str, token: str | None = None, **query: object) -> Answer:
        """Ask this proxy's management API, verifying its certificate for `localhost`."""
        table = self.config["admin"]
        assert isinstance(table, Mapping)
        port = _portOf(table["bind"])
        assert port is not None, "admin.bind is not HOST:PORT"
        target = f"{path}?{urlencode(query)}" if query else path
        return callAPI(port, self._authority.clientContext(), method, target, token)


def callAPI(
    port: int, context: ssl.SSLContext, method: str, target: str, token: str | None = None
) -> Answer:
    """One HTTPS request to `localhost`; `target` is path and query, `token` the bearer's."""
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    connection = http.client.HTTPSConnection("localhost", port, context=context, timeout=20)
    try:
        connection.request(method, target, headers=headers)
        response = connection.getresponse()
        return Answer(response.status, dict(response.getheaders()), response.read())
    finally:
        connection.close()


def _tables(value: object) -> list[Mapping[str, Any]]:
    """The tables among the values of a table of tables."""
    if not isinstance(value, Mapping):
        return []
    return [table for table in value.values() if isinstance(table, Mapping)]


def _portOf(bind: object) -> int | None:
    """The port in `HOST:PORT`; None for an endpoint string, which has a word before its colon."""
    host, _, port = str(bind).rpartition(":")
    return int(port) if port.isdigit() and (host.startswith("[") or "." in host) else None
