"""Sockets that a parent holds and workers accept from."""

import os
import socket
from pathlib import Path
from typing import Any, cast

from twisted.internet.endpoints import serverFromString
from twisted.internet.protocol import Factory
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from mailproxy.config.bind import Bind, SocketAddress, parseBind
from mailproxy.errors import ConfigError
from mailproxy.origin import Address
from mailproxy.workers.setup import Inherited
from mailproxy.workers.sockets import HeldSockets, InheritedSocket, holdSockets


class SocketReactor(MemoryReactorClock):
    """A reactor that adopts sockets by noting so.

    :ivar adopted: the descriptors.
    :ivar closed: how many of these ports were closed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.adopted: list[int] = []
        self.closed = 0

    def adoptStreamPort(self, descriptor: int, family: int, factory: Factory) -> Any:
        """Note it."""
        self.adopted.append(descriptor)
        return self

    def stopListening(self) -> None:
        """Note it."""
        self.closed += 1


class HoldTests(SynchronousTestCase):
    """The parent's side."""

    def setUp(self) -> None:
        """Have a reactor in memory."""
        self.reactor = SocketReactor()
        self.bound: set[Address] = set()

    def hold(self, *places: Bind, count: int = 3) -> HeldSockets:
        """Hold sockets until the test's end."""
        named = [(f"listener.{number}.bind", place) for number, place in enumerate(places)]
        held = holdSockets(cast(Any, self.reactor), named, self.bound, count)
        self.addCleanup(held.close)
        return held

    def test_oneForEachSeat(self) -> None:
        """All on one address, which is our own; each listens."""
        held = self.hold(SocketAddress("127.0.0.1", 0))
        told, ours = held.inherited(4)
        self.assertEqual([each.seat for each in told], [0, 1, 2])
        self.assertEqual([each.descriptor for each in told], [4, 5, 6])
        names = {socket.socket(fileno=os.dup(each)).getsockname() for each in ours.values()}
        self.assertEqual(len(names), 1)
        ((host, port),) = names
        self.assertEqual(self.bound, {Address(host, port)})
        socket.create_connection((host, port)).close()

    def test_addressInUse(self) -> None:
        """By whomever, another proxy of ours included: it would be let in."""
        held = self.hold(SocketAddress("127.0.0.1", 0))
        _, ours = held.inherited(4)
        port = socket.socket(fileno=os.dup(ours[4])).getsockname()[1]
        place = SocketAddress("127.0.0.1", port)
        error = self.assertRaises(ConfigError, self.hold, place, place)
        line = f"bind: 127.0.0.1:{port}: address already in use"
        self.assertEqual([each.partition(".")[2][2:] for each in error.problems], [line, line])

    def test_nothingIsKeptOfARefusal(self) -> None:
        """A port that could be had is free again."""
        with socket.create_server(("127.0.0.1", 0)) as taken, socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
            free.close()
            used = SocketAddress("127.0.0.1", taken.getsockname()[1])
            self.assertRaises(ConfigError, self.hold, SocketAddress("127.0.0.1", port), used)
            self.assertRaises(OSError, socket.create_connection, ("127.0.0.1", port))

    def test_endpointsAreOneForAll(self) -> None:
        """Bound when the service starts; not accepted from in the parent."""
        path = Path(self.mktemp())
        held = self.hold(parseBind(f"unix:{path.absolute()}"))
        self.assertEqual(held.inherited(4), ((), {}))
        self.assertFalse(path.exists())

    def test_whatCannotBeSharedIsRefused(self) -> None:
        """A wrapper would be lost on the way: clients would speak to the bare socket."""
        wrapped = serverFromString(self.reactor, "haproxy:tcp:1")
        held = HeldSockets(self.bound)
        error = self.assertRaises(ValueError, held.addEndpoint, "k", wrapped)
        self.assertIn("server.threads = 1", str(error))
        for text in ("tcp:1", "tcp6:1", "unix:/x"):
            held.addEndpoint("k", serverFromString(self.reactor, text))

    def test_closed(self) -> None:
        """So that nobody waits at a port that nobody accepts from."""
        held = self.hold(SocketAddress("127.0.0.1", 0))
        ((_, port),) = {(each.host, each.port) for each in self.bound}
        self.successResultOf(held.stopService())
        self.assertRaises(OSError, socket.create_connection, ("127.0.0.1", port))


class InheritTests(SynchronousTestCase):
    """The worker's side."""

    def setUp(self) -> None:
        """Inherit a descriptor of a socket."""
        self.reactor = SocketReactor()
        listening = socket.create_server(("127.0.0.1", 0))
        self.descriptor = listening.detach()
        inherited = Inherited("k", self.descriptor, socket.AF_INET, 1)
        self.socket = InheritedSocket(cast(Any, self.reactor), inherited, Factory())

    def test_openedOnce(self) -> None:
        """However often it is asked for; and again after a rest."""
        self.assertEqual(self.socket.seat, 1)
        self.socket.open()
        self.socket.open()
        self.assertEqual(self.reactor.adopted, [self.descriptor])
        self.successResultOf(self.socket.pause())
        self.successResultOf(self.socket.pause())
        self.assertEqual(self.reactor.closed, 1)
        self.socket.open()
        self.assertEqual(len(self.reactor.adopted), 2)
        self.successResultOf(self.socket.close())

    def test_closedForGood(self) -> None:
        """The descriptor too: a copy anywhere keeps a port open."""
        self.socket.open()
        self.successResultOf(self.socket.close())
        self.assertRaises(OSError, os.fstat, self.descriptor)
        self.socket.open()
        self.assertEqual(len(self.reactor.adopted), 1)
        self.successResultOf(self.socket.close())
