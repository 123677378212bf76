"""The parent's end of one worker process: started, asked, and seen to its end.

Knows a process, its descriptors and the connection to it; must not know what is asked, nor what
becomes of a worker that has ended.
"""

import enum
import os
import socket
import sys
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone, ProcessExitedAlready
from twisted.internet.interfaces import (
    IAddress,
    IProcessTransport,
    IReactorProcess,
    IReactorSocket,
    IReactorTime,
)
from twisted.internet.protocol import Factory, ProcessProtocol
from twisted.python.failure import Failure

from mailproxy.errors import Unanswered
from mailproxy.logs import Logger
from mailproxy.workers.vigil import Vigil
from mailproxy.workers.wire import Methods, Peer

__all__ = [
    "CONTROL",
    "Handle",
    "Hooks",
    "State",
    "WorkerReactor",
    "connect",
    "environmentFor",
    "spawn",
]

T = TypeVar("T")

CONTROL = 3
"""The worker's descriptor of the connection to its parent; listening sockets follow."""

COMMAND = (sys.executable, "-P", "-m", "mailproxy.worker")
"""Without the current directory on the module path: others may write there."""

_WITHHELD = ("PROXY_", "NOTIFY_SOCKET", "LISTEN_", "WATCHDOG_")
"""Variables that are for the parent alone begin so."""


class WorkerReactor(IReactorProcess, IReactorSocket, IReactorTime):
    """What handles need of a reactor."""


class State(enum.Enum):
    """What a worker is doing, in the words of the API.

    Silent is only what is told of one that serves and has not answered.
    """

    STARTING = "starting"
    SERVING = "serving"
    SILENT = "silent"
    WAITING = "waiting to be started"
    ENDED = "ended"


@attrs.define
class Hooks:
    """Who hears from a worker.

    :ivar methods: what it may ask, each called with the handle first.
    :ivar topics: what it may say, likewise.
    :ivar ended: called with the handle and a text when its process has ended.
    """

    methods: Mapping[str, Callable[..., Any]]
    topics: Mapping[str, Callable[..., Any]]
    ended: Callable[["Handle", str], None]


class Handle:
    """One worker process, from its start to its end.

    :ivar number: its seat.
    :ivar state: what it is doing.
    :ivar since: when it was started, in the clock's seconds.
    :ivar silent: pings that it has not answered.
    :ivar peer: our end of the connection.
    :ivar transport: the process.
    """

    log = Logger()
    peer: Peer
    transport: IProcessTransport

    def __init__(self, number: int, clock: IReactorTime, hooks: Hooks) -> None:
        self.number, self._clock, self._hooks = number, clock, hooks
        self.state = State.STARTING
        self.since = clock.seconds()
        self.silent = 0
        self._vigil = Vigil(lambda: self.peer.ask("alive"), self.giveUp, clock)
        self._gone: Deferred[None] = Deferred()

    @property
    def pid(self) -> int | None:
        """Its process id; None when it has none any more."""
        number: int | None = self.transport.pid
        return number

    @property
    def name(self) -> str:
        """What it is called: workers count from 1 for people."""
        return f"worker {self.number + 1}"

    def makePeer(self) -> Peer:
        """Make our end; what it hears is told with this handle in front."""

        def bound(functions: Mapping[str, Callable[..., Any]]) -> Methods:
            return {name: self._with(function) for name, function in functions.items()}

        return Peer(bound(self._hooks.methods), bound(self._hooks.topics), lambda: None)

    def _with(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *words: function(self, *words)

    # Asking

    def ask(self, patience: float, method: str, *arguments: Any) -> Deferred[Any]:
        """Ask it something.

        Fails with `PeerGone` when it ends meanwhile, with `Unanswered` after so many seconds, and
        with whatever error it answers.
        """
        return self._within(patience, self.peer.ask(method, *arguments), _forget)

    def askFor(
        self, patience: float, late: Callable[[Any], None], method: str, *arguments: Any
    ) -> Deferred[Any]:
        """Ask it for something that must not be lost.

        Fails as `ask`; `late` takes an answer, or a failure, that comes when nobody waits any more.
        """
        return self._within(patience, self.peer.ask(method, *arguments), late)

    def hand(self, patience: float, value: object) -> Deferred[Any]:
        """Hand an object over; fails as `ask`."""
        return self._within(patience, self.peer.hand(value), _forget)

    def watch(self, asked: Deferred[T]) -> Deferred[T]:
        """Kill it if it shows no life while this is waited for, which fails with `PeerGone` then.

        For what must be done by all who go on: however long that takes, nobody is waited for who
        does nothing, and nobody goes on who has not done it.
        """
        return self._vigil.over(asked)

    def _within(
        self, patience: float, asked: Deferred[Any], late: Callable[[Any], None]
    ) -> Deferred[Any]:
        def expired(result: Any, _: float) -> Any:
            raise Unanswered(f"{self.name} (process {self.pid}) does not answer")

        # A question cannot be taken back: its answer may come later.
        waiter: Deferred[Any] = Deferred()
        asked.addBoth(lambda result: late(result) if waiter.called else waiter.callback(result))
        return waiter.addTimeout(patience, self._clock, expired)

    # Ending

    def giveUp(self) -> None:
        """Kill it, and say so: it hangs."""
        self.log.error("worker {worker} does not answer: it is killed", worker=self.number + 1)
        self.kill()

    def kill(self) -> None:
        """End it at once."""
        try:
            self.transport.signalProcess("KILL")
        except ProcessExitedAlready:
            return

    def gone(self) -> Deferred[None]:
        """Wait until the process has ended."""
        waiter: Deferred[None] = Deferred()
        self._gone.addCallback(lambda _: waiter.callback(None))
        return waiter

    def ended(self, reason: str) -> None:
        """Hear that the process has ended."""
        self.state = State.ENDED
        self._hooks.ended(self, reason)
        self._gone.callback(None)

    def printed(self, line: str) -> None:
        """Hear what the process has printed, which it does only when it cannot log."""
        self.log.warn("worker {worker} says: {line}", worker=self.number + 1, line=line)


def _forget(answer: Any) -> None:
    """Leave an answer that comes too late alone."""


class _Process(ProcessProtocol):
    """Hears of a process's output and its end."""

    def __init__(self, handle: Handle) -> None:
        self._handle = handle
        self._output = b""

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        """Cut output into lines."""
        *lines, self._output = (self._output + data)[-65536:].split(b"\n")
        for line in lines:
            self._handle.printed(line.decode("utf-8", "backslashreplace"))

    def processEnded(self, reason: Failure) -> None:
        """Tell how it ended."""
        if self._output:
            self._handle.printed(self._output.decode("utf-8", "backslashreplace"))
        error = reason.value
        if isinstance(error, ProcessDone):
            self._handle.ended("it has ended by itself")
        else:
            signal = getattr(error, "signal", None)
            status = getattr(error, "exitCode", None)
            self._handle.ended(f"signal {signal}" if signal else f"exit status {status}")


class _One(Factory):
    """Makes the one protocol of a connection that is there already."""

    noisy = False

    def __init__(self, peer: Peer) -> None:
        self._peer = peer

    def buildProtocol(self, addr: IAddress | None) -> Peer:
        """Give the peer."""
        return self._peer


def connect(reactor: IReactorSocket, end: socket.socket, peer: Peer) -> None:
    """Let a peer speak over our end of a pair of sockets, which is closed here."""
    end.setblocking(False)
    reactor.adoptStreamConnection(end.fileno(), socket.AF_UNIX, _One(peer))  # type: ignore[arg-type]
    end.close()


def spawn(reactor: WorkerReactor, handle: Handle, descriptors: Mapping[int, int]) -> None:
    """Start the process of a handle.

    :param descriptors: what else it inherits: its own descriptor -> ours.
    """
    ours, theirs = socket.socketpair()
    nothing = os.open(os.devnull, os.O_RDONLY)
    try:
        handle.peer = handle.makePeer()
        connect(reactor, ours, handle.peer)
        children: dict[int, int | str] = {0: nothing, 1: "r", 2: "r", CONTROL: theirs.fileno()}
        handle.transport = reactor.spawnProcess(
            _Process(handle),
            COMMAND[0],
            COMMAND,
            env=environmentFor(os.environ, sys.path),
            childFDs={**children, **descriptors},
        )
    finally:
        theirs.close()
        os.close(nothing)


def environmentFor(ours: Mapping[str, str], path: list[str]) -> dict[str, str]:
    """Make a worker's environment: no secrets, and the modules that we have ourselves."""
    kept = {name: value for name, value in ours.items() if not name.startswith(_WITHHELD)}
    return {**kept, "PYTHONPATH": os.pathsep.join(filter(None, path))}
