"""The mapping file at scale, under kill -9, on a full disk, and written by a thousand at once."""

import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import IO, ClassVar, TypeVar

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase, TestCase

from mailproxy.mapping.file import FileSource, TableFile
from tests.integration.front import TOKEN, ProxyTestCase, destination, settings, standardListeners
from tests.integration.network import freePort
from tests.integration.proxy import PROJECT
from tests.integration.wire import LineClient

T = TypeVar("T")

LINES = 1_000_000
LOAD_SECONDS, LOAD_MEGABYTES = 3.0, 250.0
SLOWER = 4.0
"""Where a machine is too slow for those seconds: how many times what Python's own reading costs."""

KILLS = 200
WRITERS, CALLERS = 1000, 50

_MEASURE = """
import re, sys, time
from pathlib import Path
from mailproxy.mapping.file import TableFile
started = time.process_time()
content = TableFile(Path(sys.argv[1])).read()
seconds = time.process_time() - started
[peak] = re.findall(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())
started = time.process_time()
plain = dict(line.split() for line in open(sys.argv[1]))
print(len(content.entries), seconds, int(peak) / 1024, time.process_time() - started)
"""


class ScaleTests(SynchronousTestCase):
    """A file of a million lines."""

    def test_aMillionLines(self) -> None:
        """They are read within 3 s of computing, by a process that never has 250 MB.

        A machine that is slow, or busy, has in proportion more.
        """
        path = Path(self.mktemp())
        with path.open("w") as file:
            for number in range(LINES):
                file.write(f"account{number:07d}@example.com\t{('old', 'new')[number % 2]}\n")
        done = subprocess.run(
            [sys.executable, "-c", _MEASURE, str(path)],
            check=True,
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(PROJECT)},
        )
        entries, seconds, megabytes, plain = map(float, done.stdout.split())
        self.assertEqual(entries, LINES)
        self.assertLess(seconds, max(LOAD_SECONDS, SLOWER * plain))
        self.assertLess(megabytes, LOAD_MEGABYTES)


class MergeTests(TestCase):
    """A thousand writes at once, to the source itself."""

    async def test_aThousandWritesAreTwoRewrites(self) -> None:
        """The first one begins at once; all that come meanwhile are done together."""
        path = Path(self.mktemp())
        path.touch()
        rewrites: list[object] = []

        def inThread(function: Callable[[], T], /) -> Deferred[T]:
            rewrites.append(function)
            return deferToThread(function)

        source = FileSource(path, inThread)
        source.load()
        names = [f"writer{number:04d}" for number in range(WRITERS)]

        def isThere(_: None, name: str) -> None:
            self.assertIn(f"{name}\tnew\n", path.read_text())

        await gatherResults(
            [source.store(name, "new").addCallback(isThere, name) for name in names]
        )
        self.assertEqual(len(rewrites), 2)
        self.assertEqual(path.read_text().count("\n"), WRITERS)


class KillTests(SynchronousTestCase):
    """kill -9 in the middle of rewrites."""

    def setUp(self) -> None:
        """A file of some size, and the program that starts rewriters."""
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir()
        self.path = self.directory / "accounts"
        self.fillers = {f"filler{number:04d}@example.org": "old" for number in range(3000)}
        self.path.write_text("".join(f"{name}\told\n" for name in self.fillers))
        self.program = subprocess.Popen(
            [sys.executable, "-m", "tests.integration.rewriter", str(self.path)],
            cwd=PROJECT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.addCleanup(self.end)

    def end(self) -> None:
        """End the program."""
        for stream in (self.program.stdin, self.program.stdout):
            assert stream is not None
            stream.close()
        self.program.wait(10)

    def turn(self, number: int) -> list[str]:
        """Let a rewriter work for a random while and kill it; the names that it told."""
        stdin, stdout = self.program.stdin, self.program.stdout
        assert stdin is not None and stdout is not None
        stdin.write(b"%d\n" % number)
        stdin.flush()
        told = [self.said(stdout) for _ in range(random.randint(2, 4))]
        time.sleep(random.uniform(0, 0.01))
        [pid] = [int(text.split()[1]) for text in told if text.startswith("pid ")]
        os.kill(pid, signal.SIGKILL)
        while told[-1] != "ended":
            told.append(self.said(stdout))
        return [text.removeprefix("done ") for text in told if text.startswith("done ")]

    def said(self, stream: IO[bytes]) -> str:
        """The program's next line."""
        return stream.readline().decode().rstrip("\n")

    def test_everyAcknowledgedWriteIsThere(self) -> None:
        """Two hundred times: the file is whole, nothing told is missing, no litter is left."""
        acknowledged: set[str] = set()
        interrupted = 0
        for number in range(KILLS):
            acknowledged.update(self.turn(number))
            interrupted += len(list(self.directory.iterdir())) > 1
            entries = TableFile(self.path).read().entries
            self.assertLessEqual(acknowledged, entries.keys())
            self.assertLessEqual(self.fillers.items(), entries.items())
            self.assertLessEqual(len(entries), len(self.fillers) + len(acknowledged) + number + 1)
        self.assertGreater(len(acknowledged), KILLS)
        self.assertGreater(interrupted, 0, "no rewrite was interrupted: the test proves nothing")
        TableFile(self.path).sweep()
        self.assertEqual(list(self.directory.iterdir()), [self.path])


class WriteTests(ProxyTestCase):
    """Writes by the management API of a running proxy."""

    fillers: ClassVar[dict[str, str]]

    @classmethod
    def startServers(cls, stack: ExitStack) -> None:
        """A proxy with a file of a megabyte; nobody logs in here."""
        cls.makeAuthority(stack)
        places = {name: destination(freePort(), "localhost") for name in ("old", "new")}
        cls.fillers = {f"filler{number:05d}@example.org": "old" for number in range(40000)}
        config = settings(cls.authority, standardListeners(), places)
        cls.startProxy(stack, config, cls.fillers)

    def test_aThousandAtOnce(self) -> None:
        """All are answered with 200, each is on disk by then, and few rewrites did it.

        As many connections as the API takes, each with its share of requests under way.
        """
        connections = [self.open() for _ in range(CALLERS)]
        names = [f"writer{number:04d}@example.org" for number in range(WRITERS)]
        watcher = Watcher(self.proxy.mapping)
        watcher.start()
        self.addCleanup(watcher.stop)
        for number, connection in enumerate(connections):
            connection.send(b"".join(map(_put, names[number::CALLERS])))
        for number, name in enumerate(names):
            self.assertEqual(_status(connections[number % CALLERS]), 200)
            self.assertIn(f"\n{name}\tnew\n", self.proxy.mapping.read_text())
        watcher.stop()
        self.assertLess(len(watcher.versions), WRITERS // 10)
        entries = TableFile(self.proxy.mapping).read().entries
        self.assertLessEqual(self.fillers.items(), entries.items())

    def open(self) -> LineClient:
        """A connection to the API, TLS done."""
        port = int(self.proxy.config["admin"]["bind"].rpartition(":")[2])
        connection = LineClient(port, self.context)
        self.addCleanup(connection.close)
        return connection

    def test_fullDisk(self) -> None:
        """500, the file and the answers are as before; with room again the same call works."""
        before = self.proxy.mapping.read_bytes()
        limits = resource.prlimit(self.proxy.pid, resource.RLIMIT_FSIZE)
        self.assertLess(self.proxy.log.mark(), len(before) // 2, "the log would be full first")
        resource.prlimit(self.proxy.pid, resource.RLIMIT_FSIZE, (len(before) // 2, limits[1]))
        try:
            answer = self.move()
        finally:
            resource.prlimit(self.proxy.pid, resource.RLIMIT_FSIZE, limits)
        self.assertEqual(answer, 500)
        self.assertEqual(self.proxy.mapping.read_bytes(), before)
        self.assertEqual(self.whereIs("filler00007@example.org"), "old")
        litter = [path for path in self.proxy.folder.iterdir() if path.name.startswith(".")]
        self.assertEqual(litter, [])
        self.assertEqual(self.move(), 200)
        self.assertEqual(self.whereIs("filler00007@example.org"), "new")

    def move(self) -> int:
        """Ask for a change; the status."""
        return self.api(
            "PUT", "/mappings", identifier="filler00007@example.org", destination="new"
        ).status

    def whereIs(self, identifier: str) -> object:
        """Where an account would go."""
        return self.api("GET", "/mappings", identifier=identifier).json()["destination"]


def _put(name: str) -> bytes:
    """A request to map an account to `new`."""
    lines = (
        f"PUT /mappings?identifier={name}&destination=new HTTP/1.1",
        "Host: localhost",
        f"Authorization: Bearer {TOKEN}",
    )
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode()


def _status(connection: LineClient) -> int:
    """Read one answer; its status."""
    status = int(connection.readLine().split(b" ")[1])
    length = 0
    while line := connection.readLine():
        name, _, value = line.lower().partition(b":")
        length = int(value) if name == b"content-length" else length
    connection.readExactly(length)
    return status


class Watcher(threading.Thread):
    """Collects the versions that a file has had: inode and time of change."""

    def __init__(self, path: Path) -> None:
        super().__init__(daemon=True)
        self.versions: set[tuple[int, int]] = set()
        self._path, self._stopped = path, threading.Event()

    def run(self) -> None:
        """Look all the time."""
        while not self._stopped.wait(0.0005):
            found = self._path.stat()
            self.versions.add((found.st_ino, found.st_mtime_ns))

    def stop(self) -> None:
        """Look no more."""
        self._stopped.set()
        self.join()
