"""A reactor with less work per event: the same events, the same ends."""

import os
import socket
import struct
from collections.abc import Callable
from threading import Thread
from types import SimpleNamespace
from typing import Any, cast

from twisted.internet.epollreactor import EPollReactor
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHalfCloseableDescriptor
from twisted.internet.selectreactor import SelectReactor
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from mailproxy.eventloop import lighten


@implementer(IHalfCloseableDescriptor)
class Watched:
    """A descriptor that notes what it is told.

    :ivar answers: what its next reads and writes give, or raise.
    """

    def __init__(self, end: socket.socket) -> None:
        self.socket = end
        self.fileno = end.fileno
        self.notes: list[object] = []
        self.answers: list[object] = []

    def _answer(self, verb: str) -> object:
        self.notes.append(verb)
        answer = self.answers.pop(0) if self.answers else None
        if isinstance(answer, ZeroDivisionError):
            raise answer
        return answer() if callable(answer) else answer

    def doRead(self) -> object:
        """Be told."""
        return self._answer("read")

    def doWrite(self) -> object:
        """Be told."""
        return self._answer("write")

    def readConnectionLost(self, reason: Failure) -> None:
        """Be told."""
        self.notes.append(("ended", reason.type))

    def writeConnectionLost(self, reason: Failure) -> None:
        """Nobody tells this."""

    def connectionLost(self, reason: Failure) -> None:
        """Be told."""
        self.notes.append(("lost", reason.type))

    def logPrefix(self) -> str:
        """Be named."""
        return "watched"


class LoopCase(SynchronousTestCase):
    """A reactor of our own, and pairs of sockets.

    :cvar light: whether it is lightened: else what is tested is Twisted's own.
    """

    light = True

    def setUp(self) -> None:
        """Make the reactor."""
        self.reactor = EPollReactor()
        self.addCleanup(self.tearReactorDown)
        if self.light:
            self.assertTrue(lighten(self.reactor))

    def tearReactorDown(self) -> None:
        """Close what it holds."""
        reactor = cast(Any, self.reactor)
        for each in reactor._internalReaders:
            each.connectionLost(None)
        reactor._poller.close()

    def pair(self) -> tuple[Watched, socket.socket]:
        """Make a descriptor and its other end."""
        near, far = socket.socketpair()
        for each in (near, far):
            each.setblocking(False)
            self.addCleanup(each.close)
        return Watched(near), far

    def turn(self) -> None:
        """Let what is due happen."""
        self.reactor.doIteration(0)


class EventTests(LoopCase):
    """What descriptors are told."""

    def test_whoCanBeReadReads(self) -> None:
        """While it wants to, as long as there is something."""
        watched, far = self.pair()
        self.reactor.addReader(cast(Any, watched))
        self.turn()
        self.assertEqual(watched.notes, [])
        far.send(b"x")
        self.turn()
        self.turn()
        self.assertEqual(watched.notes, ["read", "read"])
        self.reactor.removeReader(cast(Any, watched))
        self.turn()
        self.assertEqual(watched.notes, ["read", "read"])

    def test_whoCanBeWrittenWrites(self) -> None:
        """And reads first if it can do both."""
        watched, far = self.pair()
        self.reactor.addWriter(cast(Any, watched))
        self.turn()
        self.reactor.addReader(cast(Any, watched))
        far.send(b"x")
        self.turn()
        self.assertEqual(watched.notes, ["write", "read", "write"])

    def test_anEndIsHalfAnEnd(self) -> None:
        """What a read tells to be an end is told as one, and nothing is read any more."""
        watched, far = self.pair()
        self.reactor.addReader(cast(Any, watched))
        watched.answers = [ConnectionDone()]
        far.close()
        self.turn()
        self.turn()
        self.assertEqual(watched.notes, ["read", ("ended", ConnectionDone)])

    def test_aLossIsALoss(self) -> None:
        """Told by a read or by a write, or when a descriptor that only writes has no other end."""
        for verb in ("read", "write"):
            watched, far = self.pair()
            watched.answers = [ConnectionLost()]
            far.send(b"x")
            (self.reactor.addReader if verb == "read" else self.reactor.addWriter)(
                cast(Any, watched)
            )
            self.turn()
            self.turn()
            self.assertEqual(watched.notes, [verb, ("lost", ConnectionLost)])
        watched, far = self.pair()
        self.reactor.addWriter(cast(Any, watched))
        far.close()
        self.turn()
        self.assertEqual(watched.notes, [("lost", ConnectionLost)])

    def test_aBugEndsItsConnectionOnly(self) -> None:
        """It is logged, and the others are served."""
        watched, far = self.pair()
        other, further = self.pair()
        watched.answers = [ZeroDivisionError()]
        for each in (watched, other):
            self.reactor.addReader(cast(Any, each))
        for end in (far, further):
            end.send(b"x")
        self.turn()
        self.assertEqual(watched.notes, ["read", ("lost", ZeroDivisionError)])
        self.assertEqual(other.notes, ["read"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_timersRun(self) -> None:
        """In the same turns."""
        called: list[int] = []
        self.reactor.callLater(0, called.append, 1)
        self.reactor.iterate(0)
        self.assertEqual(called, [1])


class TwistedsEventTests(EventTests):
    """The same with Twisted's own loop: so it is the same."""

    light = False


class GoneTests(LoopCase):
    """The other end has gone, and epoll says that alone: there is nothing left to be read."""

    def gone(self) -> Watched:
        """Make a descriptor, read from, that the other end of has gone: a pipe says just that."""
        near, far = os.pipe()
        os.close(far)
        watched = Watched(cast(Any, SimpleNamespace(fileno=lambda: near)))
        self.addCleanup(os.close, near)
        self.reactor.addReader(cast(Any, watched))
        return watched

    def test_aReadTellsHow(self) -> None:
        """A loss is not taken for an end, nor an end for a loss."""
        for why, told in ((ConnectionDone, "ended"), (ConnectionLost, "lost")):
            watched = self.gone()
            watched.answers = [why()]
            for _ in range(2):
                self.turn()
            self.assertEqual(watched.notes, ["read", (told, why)])

    def test_whoFindsNothingIsLost(self) -> None:
        """It would be told the same in every turn."""
        watched = self.gone()
        for _ in range(2):
            self.turn()
        self.assertEqual(watched.notes, ["read", ("lost", ConnectionLost)])

    def test_whoLeavesIsLeft(self) -> None:
        """Who has closed itself while reading hears no more."""
        watched = self.gone()
        watched.answers = [lambda: self.reactor.removeReader(cast(Any, watched))]
        for _ in range(2):
            self.turn()
        self.assertEqual(watched.notes, ["read"])

    def test_aResetTellsItselfAfterTheLastWords(self) -> None:
        """On a socket: who reads has what came before, and the true reason."""
        listening = socket.create_server(("127.0.0.1", 0))
        far = socket.create_connection(listening.getsockname())
        near, _ = listening.accept()
        for each in (listening, near):
            self.addCleanup(each.close)
        near.setblocking(False)
        watched, found = Watched(near), list[object]()

        def read() -> object:
            try:
                found.append(near.recv(5))
            except ConnectionResetError:
                return ConnectionLost()
            return None

        watched.answers = [read] * 3
        self.reactor.addReader(cast(Any, watched))
        self.reactor.addWriter(cast(Any, watched))
        far.send(b"words")
        far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        far.close()
        for _ in range(3):
            self.turn()
        self.assertEqual(found[0], b"words")
        self.assertEqual(watched.notes[-1], ("lost", ConnectionLost))


class MainLoopTests(LoopCase):
    """What becomes due between the events."""

    def go(self) -> None:
        """Run the reactor until somebody stops it."""
        self.reactor.callLater(10, self.reactor.crash)
        self.reactor.run(installSignalHandlers=False)
        self.assertTrue(self.reactor._stopped, "nobody has stopped it")

    def event(self, answer: Callable[[], object]) -> None:
        """Have something done by a descriptor that can be read."""
        watched, far = self.pair()

        def once() -> None:
            self.reactor.removeReader(cast(Any, watched))
            answer()

        watched.answers = [once]
        self.reactor.addReader(cast(Any, watched))
        far.send(b"x")

    def test_timersRunInTheirOrder(self) -> None:
        """Those that an event has set, too."""
        called: list[str] = []
        self.reactor.callLater(0.04, self.reactor.stop)
        self.reactor.callLater(0.02, called.append, "second")
        self.reactor.callLater(0, called.append, "first")
        self.event(lambda: self.reactor.callLater(0.03, called.append, "third"))
        self.go()
        self.assertEqual(called, ["first", "second", "third"])

    def test_aTimerIsMoved(self) -> None:
        """By an event: sooner, or away."""
        called: list[str] = []
        sooner = self.reactor.callLater(9, self.reactor.stop)
        never = self.reactor.callLater(0.01, called.append, "never")

        def move() -> None:
            never.cancel()
            sooner.reset(0.02)

        self.event(move)
        self.go()
        self.assertEqual(called, [])

    def test_threadsAreHeard(self) -> None:
        """While nothing else happens."""
        thread = Thread(target=lambda: self.reactor.callFromThread(self.reactor.stop))
        self.event(lambda: self.reactor.callLater(0, thread.start))
        self.go()
        thread.join()

    def test_anEventMayStopIt(self) -> None:
        """At once."""
        self.event(self.reactor.stop)
        self.go()

    def test_aBugDoesNotEndIt(self) -> None:
        """It is logged."""
        honest = self.reactor.timeout

        def once() -> float | None:
            self.patch(self.reactor, "timeout", honest)
            raise ZeroDivisionError

        self.patch(self.reactor, "timeout", once)
        self.reactor.callLater(0.01, self.reactor.stop)
        self.go()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class TwistedsMainLoopTests(MainLoopTests):
    """The same with Twisted's own loop: so it is the same."""

    light = False


class ReuseTests(LoopCase):
    """Numbers of descriptors are used again."""

    def test_anEventIsForWhoWasThere(self) -> None:
        """Not for who has the number of one that was closed in the same turn."""
        first, farFirst = self.pair()
        second, farSecond = self.pair()
        newcomer, _ = self.pair()

        def replace(closed: Watched) -> None:
            number = closed.fileno()
            self.reactor.removeReader(cast(Any, closed))
            os.dup2(newcomer.fileno(), number)
            newcomer.fileno = lambda: number
            self.reactor.addReader(cast(Any, newcomer))

        first.answers = [lambda: replace(second)]
        second.answers = [lambda: replace(first)]
        for each in (first, second):
            self.reactor.addReader(cast(Any, each))
        for end in (farFirst, farSecond):
            end.send(b"x")
        self.turn()
        self.assertEqual(sorted([first.notes, second.notes]), [[], ["read"]])
        self.assertEqual(newcomer.notes, [])

    def test_whoLeavesWhileReadingWritesNoMore(self) -> None:
        """Although it could have."""
        watched, far = self.pair()
        for add in (self.reactor.addReader, self.reactor.addWriter):
            add(cast(Any, watched))

        def leave() -> None:
            for remove in (self.reactor.removeReader, self.reactor.removeWriter):
                remove(cast(Any, watched))

        watched.answers = [leave]
        far.send(b"x")
        self.turn()
        self.assertEqual(watched.notes, ["read"])


class ChoiceTests(SynchronousTestCase):
    """Which reactors are touched."""

    def test_othersStayAsTheyAre(self) -> None:
        """Another class, one in memory, and one whose insides are not what they were."""

        class Own(EPollReactor):
            """Somebody's own."""

        strange = EPollReactor.__new__(EPollReactor)
        for reactor in (
            Own.__new__(Own),
            SelectReactor.__new__(SelectReactor),
            Clock(),
            strange,
        ):
            self.assertFalse(lighten(reactor))
            for name in ("doIteration", "mainLoop"):
                self.assertNotIn(name, vars(reactor))
