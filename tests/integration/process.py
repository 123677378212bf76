"""A server that a test starts as its child, in a folder of its own, on loopback.

`ChildServer` knows how to start, await, signal, stop and clean up a program that stays in the
foreground. It must not know any program: a subclass writes the configuration and names the command
and the ports.
"""

import atexit
import contextlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Self
from unittest import SkipTest

from tests.integration.network import isListening, processGroup

START_TIMEOUT = 60.0
STOP_TIMEOUT = 25.0
"""Seconds; generous, as a loaded machine must not fail a test. The second one is less than the
half minute after which a proxy with a grace time of a minute begins to cut its sessions."""

_SYSTEM_FOLDERS = ("/usr/sbin", "/sbin", "/usr/local/sbin")
_PACKAGES = frozenset(Path(__file__).with_name("packages.txt").read_text("ascii").split())

_UNPACKED = Path("/usr/local/lib/mailproxy-test-servers")
"""Where `.ci/unpack` puts the packages of `unpacked.txt`."""


class ServerFailed(Exception):
    """A child did not start or stop as it should; the text ends with what it printed."""


def requireProgram(program: str, package: str) -> str:
    """The path of `program`; without it the test is skipped, naming the Debian package.

    :raises ValueError: if `packages.txt` does not list the package, installed or not.
    """
    if package not in _PACKAGES:
        raise ValueError(f"packages.txt does not list {package}")
    path = shutil.which(program)
    if path is None:
        path = shutil.which(program, path=os.pathsep.join(_SYSTEM_FOLDERS))
    if path is None:
        raise SkipTest(f"{program} is not installed: apt-get install {package}")
    return path


def requireFile(path: str, package: str) -> str:
    """The same for a file that is no program."""
    if package not in _PACKAGES:
        raise ValueError(f"packages.txt does not list {package}")
    if not Path(path).exists():
        raise SkipTest(f"{path} is missing: apt-get install {package}")
    return path


def requireUnpacked(program: str, package: str) -> str:
    """The path of a program whose package cannot be installed beside another; else a skip.

    :param program: its path from the package's root.
    """
    path = _UNPACKED / program
    if not path.exists():
        raise SkipTest(f"{path} is missing: .ci/unpack {package}")
    return str(path)


def waitUntil(condition: Callable[[], bool], timeout: float) -> bool:
    """Whether `condition` became true within `timeout` seconds; asked every 10 ms."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


class LogFile:
    """A file that a server appends to, read from a mark onwards.

    A mark is an offset in bytes: take one before the action whose trace is wanted.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def text(self, since: int = 0) -> str:
        """What was written after the mark `since`; empty while there is no file."""
        try:
            with self.path.open("rb") as file:
                file.seek(since)
                return file.read().decode("utf-8", "backslashreplace")
        except FileNotFoundError:
            return ""

    def lines(self, since: int = 0) -> list[str]:
        """The complete lines after the mark `since`, without their line ends."""
        return self.text(since).split("\n")[:-1]

    def mark(self) -> int:
        """The present end of the file."""
        return self.path.stat().st_size if self.path.exists() else 0

    def waitForLine(self, pattern: str, since: int = 0, timeout: float = 20.0) -> str:
        """The first line after `since` in which the expression `pattern` is found.

        :raises AssertionError: if none came within `timeout` seconds; it shows the lines that did.
        """
        found: list[str] = []

        def search() -> bool:
            found.extend(line for line in self.lines(since) if re.search(pattern, line))
            return bool(found)

        if not waitUntil(search, timeout):
            raise AssertionError(f"{pattern!r} is not in {self.path}:\n{self.text(since)}")
        return found[0]


class ChildServer:
    """One program, run in the foreground as the leader of its own process group.

    It ends with the test run in every case: `close` when a test says so, at the interpreter's exit
    if none did, and by the kernel's parent-death signal when the run itself is killed.

    :ivar folder: a directory of its own; removed by `close`. Its path is short, since Unix socket
        names are limited to 108 bytes.
    :ivar output: what the program wrote to its standard output and error.
    :ivar log: where the program logs; the same file unless a subclass says otherwise.
    """

    stopsAsGroup: ClassVar[bool] = False
    """Whether SIGTERM goes to all of its processes (else to the leader, which tells the others)."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.folder = Path(tempfile.mkdtemp(prefix=f"mailproxy-{name}-"))
        self.folder.chmod(0o711)
        self.output = LogFile(self.folder / "output")
        self.log = self.output
        self._process: subprocess.Popen[bytes] | None = None
        _living.add(self)

    def writeConfiguration(self) -> None:
        """Write the files that the program reads; called before each start."""

    def command(self) -> Sequence[str]:
        """The program and its arguments; it must not fork into the background."""
        raise NotImplementedError

    def environment(self) -> Mapping[str, str]:
        """The program's whole environment."""
        return os.environ

    def ports(self) -> Sequence[int]:
        """The ports that it serves once it is up; also what a restart uses again."""
        raise NotImplementedError

    @property
    def pid(self) -> int:
        """The process id of the running leader."""
        if self._process is None:
            raise ServerFailed(f"{self.name} is not running")
        return self._process.pid

    def start(self) -> Self:
        """Run it and return once each port is served.

        :raises ServerFailed: if it ends before that, takes too long, or runs already.
        """
        if self._process is not None:
            raise ServerFailed(f"{self.name} runs already")
        self.writeConfiguration()
        with self.output.path.open("ab") as output:
            self._process = subprocess.Popen(
                [*_dieWithParent(), *self.command()],
                cwd=self.folder,
                env=dict(self.environment()),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self._awaitPorts(self._process)
        return self

    def _awaitPorts(self, process: subprocess.Popen[bytes]) -> None:
        def settled() -> bool:
            return process.poll() is not None or all(isListening(port) for port in self.ports())

        inTime = waitUntil(settled, START_TIMEOUT)
        if not inTime or process.poll() is not None:
            why = f"ended with status {process.poll()}" if inTime else "did not serve in time"
            self.kill()
            raise ServerFailed(f"{self.name} {why}:\n{self._printed()}")

    def _printed(self) -> str:
        return (
            self.output.text()
            if self.log is self.output
            else f"{self.output.text()}{self.log.text()}"
        )

    def stop(self) -> int:
        """SIGTERM, then wait; the exit status. Its folder and ports stay, for another `start`.

        :raises ServerFailed: if it had to be killed.
        """
        if self._process is None:
            return 0
        self.resume()
        self.signal(signal.SIGTERM, group=self.stopsAsGroup)
        return self.wait()

    def wait(self, timeout: float = STOP_TIMEOUT) -> int:
        """Wait for it to end, after a signal of the test's own; the exit status.

        :raises ServerFailed: if it had to be killed after `timeout` seconds.
        """
        if self._process is None:
            raise ServerFailed(f"{self.name} is not running")
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired as error:
            raise ServerFailed(f"{self.name} does not end:\n{self._printed()}") from error
        finally:
            self.kill()

    def kill(self) -> None:
        """SIGKILL to all of its processes, as in a crash; returns when they and its ports are gone.

        The leader's end is not yet that of the others: they die when the kernel gets to them.
        """
        if self._process is None:
            return
        leader = self.pid
        self.signal(signal.SIGKILL, group=True)
        self._process.wait()
        self._process = None
        waitUntil(lambda: not (processGroup(leader) or self._serving()), STOP_TIMEOUT)

    def _serving(self) -> bool:
        return any(isListening(port) for port in self.ports())

    def signal(self, number: signal.Signals, *, group: bool = False) -> None:
        """Send `number` to the leader, or to all of its processes; none left is no error."""
        send = os.killpg if group else os.kill
        with contextlib.suppress(ProcessLookupError):
            send(self.pid, number)

    def pause(self) -> None:
        """Stop all of its processes in their tracks: ports accept, nobody answers."""
        self.signal(signal.SIGSTOP, group=True)

    def resume(self) -> None:
        """End a `pause`."""
        self.signal(signal.SIGCONT, group=True)

    def close(self) -> None:
        """End it, politely or not, and remove its folder."""
        try:
            self.stop()
        finally:
            _living.discard(self)
            shutil.rmtree(self.folder, ignore_errors=True)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """`pause` for the length of a `with` block."""
        self.pause()
        try:
            yield
        finally:
            self.resume()

    def __enter__(self) -> Self:
        """Start it; if that fails it is closed."""
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(self, *ignored: object) -> None:
        """Close it."""
        self.close()


_living: set[ChildServer] = set()


def _dieWithParent() -> list[str]:
    """A prefix that has the kernel send SIGTERM to the child when the test run is gone."""
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "TERM", "--"] if setpriv else []


@atexit.register
def _closeAll() -> None:
    for server in tuple(_living):
        with contextlib.suppress(ServerFailed):
            server.close()
