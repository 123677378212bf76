"""The parent's end of a worker process: how it is started, and how its end is heard of."""

import os
import sys
from typing import Any, cast

from twisted.internet.error import ProcessDone, ProcessTerminated
from twisted.internet.task import Clock
from twisted.logger import LogLevel
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from mailproxy.workers.handle import (
    COMMAND,
    CONTROL,
    Handle,
    Hooks,
    State,
    _Process,
    environmentFor,
    spawn,
)
from tests.stage import Watched


class SpawnReactor(Clock):
    """A reactor that notes what is spawned and adopted."""

    def __init__(self) -> None:
        super().__init__()
        self.spawned: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
        self.adopted: list[int] = []

    def spawnProcess(self, *words: Any, **named: Any) -> Any:
        """Note it; what the child gets is still open."""
        for descriptor in named["childFDs"].values():
            if isinstance(descriptor, int):
                os.fstat(descriptor)
        self.spawned.append((words, named))
        return self

    def adoptStreamConnection(self, descriptor: int, family: int, factory: Any) -> None:
        """Note it."""
        self.adopted.append(family)
        self.peer = factory.buildProtocol(None)


class SpawnTests(SynchronousTestCase):
    """How a process is started."""

    def setUp(self) -> None:
        """Spawn one."""
        self.reactor = SpawnReactor()
        self.handle = Handle(1, cast(Any, self.reactor), Hooks({}, {}, lambda *words: None))
        read, write = os.pipe()
        self.addCleanup(os.close, read)
        self.addCleanup(os.close, write)
        spawn(cast(Any, self.reactor), self.handle, {4: read})
        ((self.words, self.named),) = self.reactor.spawned

    def test_nothingIsOnItsCommandLine(self) -> None:
        """But the interpreter and the module: whoever lists processes learns nothing."""
        self.assertEqual(self.words[1:], (sys.executable, COMMAND))
        self.assertEqual(COMMAND[1:], ("-P", "-m", "mailproxy.worker"))

    def test_itsDescriptors(self) -> None:
        """No input, output to us, the connection, and the sockets."""
        descriptors = self.named["childFDs"]
        self.assertEqual(set(descriptors), {0, 1, 2, CONTROL, 4})
        self.assertEqual((descriptors[1], descriptors[2]), ("r", "r"))
        self.assertIs(self.handle.peer, self.reactor.peer)

    def test_itsEnvironment(self) -> None:
        """No secrets, no service manager; the modules that we have."""
        ours = {
            "PATH": "/bin",
            "PROXY_ADMIN_TOKEN": "x",
            "PROXY_CONFIG": "y",
            "NOTIFY_SOCKET": "z",
            "LISTEN_FDS": "2",
            "SSL_CERT_FILE": "ca.pem",
        }
        found = environmentFor(ours, ["", "/a", "/b"])
        expected = {"PATH": "/bin", "SSL_CERT_FILE": "ca.pem", "PYTHONPATH": "/a:/b"}
        self.assertEqual(found, expected)


class EndTests(Watched):
    """What is heard of a process."""

    def setUp(self) -> None:
        """Have a process."""
        super().setUp()
        self.reasons: list[str] = []
        hooks = Hooks({}, {}, lambda handle, reason: self.reasons.append(reason))
        self.handle = Handle(0, cast(Any, Clock()), hooks)
        self.process = _Process(self.handle)

    def test_reasons(self) -> None:
        """By itself, with a status, or by a signal."""
        for error, reason in (
            (ProcessDone(None), "it has ended by itself"),
            (ProcessTerminated(exitCode=3), "exit status 3"),
            (ProcessTerminated(signal=9), "signal 9"),
        ):
            handle = Handle(0, cast(Any, Clock()), self.handle._hooks)
            gone = handle.gone()
            _Process(handle).processEnded(Failure(error))
            self.assertEqual((self.reasons[-1], handle.state), (reason, State.ENDED))
            self.successResultOf(gone)

    def test_outputIsLoggedLineByLine(self) -> None:
        """A traceback before there is a log; the last line, too."""
        for data in (b"Trace", b"back\nand ", b"more \xff"):
            self.process.childDataReceived(2, data)
        self.process.processEnded(Failure(ProcessDone(None)))
        warned = self.logged(LogLevel.warn)
        self.assertEqual(warned[0], "worker 1 says: Traceback")
        self.assertEqual(warned[1], "worker 1 says: and more \\xff")
