"""Real stores on loopback ports: Redis, PostgreSQL and MariaDB, each with a login and TLS.

All keep their data over a restart. Started as root, the databases run as their package's user.
"""

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import ClassVar, Self
from unittest import SkipTest

from tests.integration.certificates import Authority
from tests.integration.network import freePort, processTree
from tests.integration.process import (
    START_TIMEOUT,
    ChildServer,
    ServerFailed,
    requireProgram,
    waitUntil,
)

USER, PASSWORD, DATABASE = "proxy", "p@ss/w:rd #1%", "mail"
"""The login of all three; the password is one that must be percent-encoded in a URL."""

ENCODED = "p%40ss%2Fw%3Ard%20%231%25"


class StoreServer(ChildServer):
    """A store that a source can be pointed at.

    :ivar port: where it speaks; PostgreSQL and MariaDB have TLS on the same port.
    """

    def __init__(self, name: str, authority: Authority) -> None:
        super().__init__(name)
        self.port = freePort()
        files = authority.issue(f"{name}.test", "localhost")
        self.ca, self.cert = authority.caFile, self.folder / "tls.pem"
        self.key = self.folder / "tls.key"
        shutil.copy(files.cert, self.cert)
        shutil.copy(files.key, self.key)

    @property
    def url(self) -> str:
        """How a source finds it."""
        raise NotImplementedError

    def ports(self) -> Sequence[int]:
        """The one."""
        return [self.port]

    stopSignal: ClassVar[signal.Signals] = signal.SIGTERM
    """What asks the leader to end without waiting for clients."""

    def stop(self) -> int:
        """Ask it to end."""
        if self._process is None:
            return 0
        self.resume()
        self.signal(self.stopSignal)
        return self.wait()


class RedisServer(StoreServer):
    """Redis; `tlsPort` has TLS. The default user's password is `PASSWORD`, `USER` has it too."""

    def __init__(self, authority: Authority) -> None:
        self._program = requireProgram("redis-server", "redis-server")
        super().__init__("redis", authority)
        self.tlsPort = freePort()

    @property
    def url(self) -> str:
        """Without a user, which is how most are written; database 3."""
        return f"redis://:{ENCODED}@localhost:{self.port}/3"

    def ports(self) -> Sequence[int]:
        """Both."""
        return [self.port, self.tlsPort]

    def writeConfiguration(self) -> None:
        """Every write is in the file that a restart reads."""
        (self.folder / "redis.conf").write_text(
            f"bind 127.0.0.1\nport {self.port}\ntls-port {self.tlsPort}\n"
            f"tls-cert-file {self.cert}\ntls-key-file {self.key}\ntls-auth-clients no\n"
            f'dir {self.folder}\nsave ""\n'
            f'appendonly yes\nrequirepass "{PASSWORD}"\n'
            f"user {USER} on ~* +@all #{sha256(PASSWORD.encode()).hexdigest()}\n"
        )

    def command(self) -> Sequence[str]:
        """In the foreground."""
        return [self._program, str(self.folder / "redis.conf")]

    def ask(self, *words: str) -> str:
        """Have redis-cli do something in database 3, as `USER`."""
        command = ["redis-cli", "-p", str(self.port), "-n", "3", "-e", "--no-auth-warning"]
        return _output([*command, "--user", USER, "--pass", PASSWORD, *words])


class PostgreSQLServer(StoreServer):
    """PostgreSQL; a login by password from everywhere, and TLS where a client asks for it."""

    stopSignal = signal.SIGINT

    def __init__(self, authority: Authority) -> None:
        self._binaries = _postgresBinaries()
        super().__init__("postgresql", authority)
        self._own(self.folder)
        self._own(self.key, 0o600)
        self._initialize()

    @property
    def url(self) -> str:
        """By TCP."""
        return f"postgres://{USER}:{ENCODED}@localhost:{self.port}/{DATABASE}"

    @property
    def socketURL(self) -> str:
        """By the Unix socket in its folder."""
        folder = str(self.folder).replace("/", "%2F")
        return f"postgresql://{USER}:{ENCODED}@{folder}:{self.port}/{DATABASE}"

    def command(self) -> Sequence[str]:
        """In the foreground; the kernel's word that the parent is gone is lost with the user."""
        options = {
            "port": self.port,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": self.folder,
            "fsync": "off",
            "ssl": "on",
            "ssl_cert_file": self.cert,
            "ssl_key_file": self.key,
            "max_connections": 60,
            "lc_messages": "C",
        }
        words = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        program = [str(self._binaries / "postgres"), "-D", str(self.folder / "data"), *words]
        return [*_as("postgres", signal.SIGINT), *program]

    def signal(self, number: signal.Signals, *, group: bool = False) -> None:
        """Its processes are each their own group: a signal to all goes to the whole tree."""
        if not group:
            super().signal(number)
            return
        for pid in processTree(self.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def ask(self, statement: str, database: str = DATABASE) -> str:
        """Have psql do something as the superuser."""
        command = ["psql", "-h", str(self.folder), "-p", str(self.port), "-U", "postgres", "-qtAX"]
        return _output([*command, "-v", "ON_ERROR_STOP=1", "-d", database, "-c", statement])

    def start(self) -> Self:
        """Start it, with the user and the database in place."""
        super().start()
        self._settle()
        return self

    def _settle(self) -> None:
        """Wait until it takes connections, which is later than that it listens."""

        def found() -> str:
            return self.ask(f"SELECT 1 FROM pg_roles WHERE rolname = '{USER}'", "postgres")

        if not waitUntil(lambda: _succeeds(found), START_TIMEOUT):
            raise ServerFailed(f"{self.name} is not ready:\n{self.output.text()}")
        if not found():
            self.ask(f"CREATE USER {USER} PASSWORD '{PASSWORD}'", "postgres")
            self.ask(f"CREATE DATABASE {DATABASE} OWNER {USER}", "postgres")

    def _initialize(self) -> None:
        command = [str(self._binaries / "initdb"), "-D", str(self.folder / "data"), "-U"]
        options = ["postgres", "-N", "-E", "UTF8", "--locale=C", "-A", "trust"]
        _output([*_as("postgres"), *command, *options], cwd=self.folder)
        (self.folder / "data" / "pg_hba.conf").write_text(
            "local all postgres trust\nlocal all all scram-sha-256\n"
            "host all all 127.0.0.1/32 scram-sha-256\n"
        )

    def _own(self, path: Path, mode: int = 0o755) -> None:
        path.chmod(mode)
        if os.geteuid() == 0:
            shutil.chown(path, "postgres", "postgres")


class MariaDBServer(StoreServer):
    """MariaDB; root without a password by its Unix socket, `USER` by TCP."""

    def __init__(self, authority: Authority) -> None:
        self._program = requireProgram("mariadbd", "mariadb-server")
        super().__init__("mariadb", authority)
        self.socket = self.folder / "socket"
        for path, mode in ((self.folder, 0o755), (self.key, 0o600)):
            path.chmod(mode)
            if os.geteuid() == 0:
                shutil.chown(path, "mysql", "mysql")
        self._initialize()

    @property
    def url(self) -> str:
        """By TCP."""
        return f"mysql://{USER}:{ENCODED}@localhost:{self.port}/{DATABASE}"

    @property
    def socketURL(self) -> str:
        """By the Unix socket in its folder."""
        return f"mysql://{USER}:{ENCODED}@localhost/{DATABASE}?socket={self.socket}"

    def command(self) -> Sequence[str]:
        """In the foreground."""
        return [
            *(self._program, "--no-defaults", *_mysqlUser()),
            *(f"--datadir={self.folder}/data", f"--socket={self.socket}", f"--port={self.port}"),
            *(f"--pid-file={self.folder}/pid", "--bind-address=127.0.0.1", "--skip-name-resolve"),
            *(f"--ssl-cert={self.cert}", f"--ssl-key={self.key}"),
            *("--innodb-flush-log-at-trx-commit=0", "--innodb-buffer-pool-size=16M"),
        ]

    def ask(self, statement: str, database: str = DATABASE) -> str:
        """Have the client do something as root."""
        return _output(
            [
                "mariadb",
                "--no-defaults",
                f"--socket={self.socket}",
                "-u",
                "root",
                "-N",
                "--default-character-set=utf8mb4",
                "-e",
                statement,
                database,
            ]
        )

    def start(self) -> Self:
        """Start it, with the user and the database in place."""
        super().start()
        self.ask(f"CREATE DATABASE IF NOT EXISTS {DATABASE}", "")
        self.ask(f"CREATE USER IF NOT EXISTS {USER} IDENTIFIED BY '{PASSWORD}'")
        self.ask(f"GRANT ALL ON {DATABASE}.* TO {USER}")
        return self

    def _initialize(self) -> None:
        _output(
            [
                *("mariadb-install-db", "--no-defaults", *_mysqlUser(), "--skip-test-db"),
                *(f"--datadir={self.folder}/data", "--auth-root-authentication-method=normal"),
            ]
        )


def _as(user: str, orphaned: signal.Signals = signal.SIGTERM) -> list[str]:
    """A prefix that gives root's rights up; the signal comes when the test run is gone."""
    if os.geteuid() != 0:
        return []
    word = orphaned.name.removeprefix("SIG")
    return [
        "setpriv",
        f"--reuid={user}",
        f"--regid={user}",
        "--clear-groups",
        "--pdeathsig",
        word,
        "--",
    ]


def _mysqlUser() -> list[str]:
    return ["--user=mysql"] if os.geteuid() == 0 else []


def _postgresBinaries() -> Path:
    """The folder of the newest version's programs, which Debian puts on no path."""
    found = sorted(
        Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name)
    )
    if not found or not (found[-1] / "postgres").exists():
        raise SkipTest("postgres is not installed: apt-get install postgresql")
    return found[-1]


def _succeeds(attempt: Callable[[], object]) -> bool:
    try:
        attempt()
    except subprocess.CalledProcessError:
        return False
    return True


def _output(command: Sequence[str], cwd: Path | None = None) -> str:
    """What a program prints.

    :raises CalledProcessError: when it fails.
    """
    done = subprocess.run(
        command, cwd=cwd, check=True, capture_output=True, stdin=subprocess.DEVNULL, timeout=60
    )
    return done.stdout.decode("utf-8").strip()
