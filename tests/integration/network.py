"""Ports and processes, asked of the kernel: nothing here connects to a server.

A connection made only to see whether a server is up would show in its log, count as a session or
as a failed login. The tables under `/proc` answer without one.
"""

import functools
import itertools
import os
import random
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PORTS = range(20000, 32000)
"""Below Linux's ephemeral range: no outgoing connection takes a port while its server is down."""

SHARE = 3000
"""How many of them are one process's; after so many the first come again."""

_LISTEN, _ESTABLISHED = "0A", "01"
"""As `/proc/net/tcp` writes them."""

_DEAD = "ZX"
"""States of a process that does nothing any more: a zombie, and dead."""


def freePort(host: str = "127.0.0.1") -> int:
    """A port that nobody uses now and that this process has not given out lately."""
    for port in itertools.islice(_candidates(), SHARE):
        with socket.socket() as probe:
            try:
                probe.bind((host, port))
            except OSError:
                continue
            return port
    raise RuntimeError("no free port on loopback")


@functools.cache
def _candidates() -> Iterator[int]:
    """The ports of this process, one after the other, again and again.

    No other process that runs these tests gives them out: a port is free until its server has
    started, and while it is down. A name that the kernel forgets with the process says that they
    are taken.
    """
    for start in PORTS[::SHARE]:
        with suppress(OSError):
            _claim.bind(f"\0mailproxy-tests-{start}")
            return itertools.cycle(random.sample(range(start, start + SHARE), SHARE))
    raise RuntimeError("too many processes run these tests")


_claim = socket.socket(socket.AF_UNIX)


def isListening(port: int) -> bool:
    """Whether a TCP socket, IPv4 or IPv6, accepts connections on `port` of any address."""
    return any(state == _LISTEN for state in _states(port))


def connectionsTo(port: int) -> int:
    """How many connections to `port` neither side has closed."""
    return sum(state == _ESTABLISHED for state in _states(port))


def _states(port: int) -> Iterator[str]:
    """The states of all TCP sockets whose own port it is."""
    suffix = f":{port:04X}"
    for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        if not table.exists():
            continue
        for row in table.read_text("ascii").splitlines()[1:]:
            fields = row.split()
            if fields[1].endswith(suffix):
                yield fields[3]


def isRunning(pid: int) -> bool:
    """Whether the process `pid` exists and is more than a zombie."""
    return _stateAndGroup(pid)[0] not in _DEAD


def processGroup(leader: int) -> list[int]:
    """The processes that run in the group of `leader`, which need not exist itself any more."""
    return [
        pid
        for pid in (int(path.name) for path in Path("/proc").glob("[0-9]*"))
        for state, group in [_stateAndGroup(pid)]
        if group == leader and state not in _DEAD
    ]


def _stateAndGroup(pid: int) -> tuple[str, int]:
    """A process's state letter and process group, as `proc(5)` has them; `X`, 0 if it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
    except (FileNotFoundError, ProcessLookupError):
        return "X", 0
    state, _, group, *_ = text.rpartition(")")[2].split()
    return state, int(group)


def commandLine(pid: int) -> bytes:
    """The program and the arguments of the process `pid`, NUL behind each; empty if it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def openFiles(pid: int) -> int:
    """How many file descriptors the process `pid` holds."""
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


def residentMemory(pid: int) -> int:
    """The resident set of the process `pid`, in bytes."""
    pages = int(Path(f"/proc/{pid}/statm").read_text("ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def memoryGrowth(pid: int) -> Iterator[Callable[[], int]]:
    """By how many bytes the process's resident set was ever larger than at the block's start."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")
    before = residentMemory(pid)

    def growth() -> int:
        status = Path(f"/proc/{pid}/status").read_text("ascii")
        [peak] = re.findall(r"VmHWM:\s+(\d+) kB", status)
        return int(peak) * 1024 - before

    yield growth


def processTree(pid: int) -> list[int]:
    """The process `pid` and all its descendants, parents first; empty when it is gone.

    Whoever comes or goes meanwhile may be in it or not.
    """
    tasks = Path(f"/proc/{pid}/task")
    if not tasks.exists():
        return []
    tree = [pid]
    for task in tasks.glob("*"):
        with suppress(FileNotFoundError, ProcessLookupError):
            for child in (task / "children").read_text("ascii").split():
                tree += processTree(int(child))
    return tree
