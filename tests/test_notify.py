"""What a service manager is told, through a real datagram socket."""

import re
import socket
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.testing import MemoryReactor
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from mailproxy.notify import Notifier


class NotifierTests(SynchronousTestCase):
    """Ready, reloading and stopping."""

    def setUp(self) -> None:
        """Be a manager that listens at a path."""
        folder = TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.address = str(Path(folder.name) / "notify")
        self.manager = self.listen(self.address)
        self.reactor = MemoryReactor()

    def listen(self, address: str) -> socket.socket:
        """Open a manager's socket."""
        manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.addCleanup(manager.close)
        manager.bind(address)
        return manager

    def heard(self, manager: socket.socket) -> list[bytes]:
        """What the manager has been told."""
        said = []
        while True:
            try:
                said.append(manager.recv(1000))
            except BlockingIOError:
                return said

    def make(self, address: str) -> Notifier:
        """Make a notifier on a reactor in memory."""
        return Notifier(cast(Any, self.reactor), address)

    def makeReady(self) -> Notifier:
        """Make one that has said that we are ready."""
        notifier = self.make(self.address)
        notifier.startService()
        self.run_()
        self.assertEqual(self.heard(self.manager), [b"READY=1"])
        return notifier

    def run_(self) -> None:
        """Let the reactor run."""
        for function, words, named in self.reactor.whenRunningHooks:
            function(*words, **named)

    def test_readyOnceTheReactorRuns(self) -> None:
        """Not earlier: until then nobody is served."""
        notifier = self.make(self.address)
        notifier.startService()
        self.assertEqual(self.heard(self.manager), [])
        self.run_()
        self.assertEqual(self.heard(self.manager), [b"READY=1"])

    def test_stopping(self) -> None:
        """Said at once, before what is being drained has ended."""
        notifier = self.make(self.address)
        notifier.startService()
        self.run_()
        self.heard(self.manager)
        self.successResultOf(notifier.stopService())
        self.assertEqual(self.heard(self.manager), [b"STOPPING=1"])

    def test_stoppedBeforeItWasReady(self) -> None:
        """Is never ready."""
        notifier = self.make(self.address)
        notifier.startService()
        notifier.stopService()
        self.run_()
        self.assertEqual(self.heard(self.manager), [b"STOPPING=1"])

    def test_reloading(self) -> None:
        """Said with the time of the monotonic clock; ready again when it has ended, well or not."""
        notifier = self.makeReady()
        for end in ("done", Failure(ValueError())):
            work: Deferred[object] = Deferred()
            before = time.monotonic_ns() // 1000
            result = notifier.whileReloading(iter([work]).__next__)
            (said,) = self.heard(self.manager)
            when = re.fullmatch(rb"RELOADING=1\nMONOTONIC_USEC=(\d+)", said)
            assert when is not None
            self.assertTrue(before <= int(when[1]) <= time.monotonic_ns() // 1000)
            work.callback(end)
            result.addErrback(lambda failure: failure.trap(ValueError))
            self.assertEqual(self.heard(self.manager), [b"READY=1"])

    def test_readyAfterTheLastReload(self) -> None:
        """Those that wait for their turn are reloads too."""
        notifier = self.makeReady()
        first, second = Deferred[None](), Deferred[None]()
        notifier.whileReloading(lambda: first)
        notifier.whileReloading(lambda: second)
        self.heard(self.manager)
        first.callback(None)
        self.assertEqual(self.heard(self.manager), [])
        second.callback(None)
        self.assertEqual(self.heard(self.manager), [b"READY=1"])

    def test_reloadDuringTheStart(self) -> None:
        """Is a part of it: nobody is told that we are ready before somebody serves."""
        begun, work = Deferred[None](), Deferred[None]()
        notifier = Notifier(cast(Any, self.reactor), self.address, lambda: begun)
        notifier.startService()
        self.run_()
        notifier.whileReloading(lambda: work)
        work.callback(None)
        self.assertEqual(self.heard(self.manager), [])
        begun.callback(None)
        self.assertEqual(self.heard(self.manager), [b"READY=1"])

    def test_stoppedWhileReloading(self) -> None:
        """Who stops is not ready any more."""
        notifier = self.makeReady()
        work: Deferred[None] = Deferred()
        notifier.whileReloading(lambda: work)
        notifier.stopService()
        self.heard(self.manager)
        work.callback(None)
        self.assertEqual(self.heard(self.manager), [])

    def test_addressWithoutAFile(self) -> None:
        """`@` stands for the zero byte that such a name begins with."""
        name = f"mailproxy-test-{id(self)}"
        manager = self.listen(f"\0{name}")
        self.make(f"@{name}").tell("READY=1")
        self.assertEqual(self.heard(manager), [b"READY=1"])

    def test_deafManagerIsAWarning(self) -> None:
        """A socket that is gone, and one that is full, keep nobody from serving mail."""
        events: list[LogEvent] = []
        observer = cast(ILogObserver, events.append)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        self.make("/nonexistent/notify").tell("READY=1")
        for _ in range(2000):
            self.make(self.address).tell("READY=1")
            if len(events) > 1:
                break
        for event in events:
            self.assertIn("could not be told READY=1", formatEvent(event))
        self.assertEqual(len(events), 2)
