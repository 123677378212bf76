"""Connections that are accepted and dialled, on loopback."""

import errno
import socket
from collections.abc import Awaitable, Callable
from typing import Any, cast

from twisted.internet import tcp
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint, UNIXServerEndpoint
from twisted.internet.error import ConnectBindError, ConnectionRefusedError, UserError
from twisted.internet.interfaces import IAddress, IReactorTCP
from twisted.internet.protocol import ClientFactory, Factory, Protocol
from twisted.internet.task import deferLater
from twisted.internet.testing import MemoryReactor
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

from mailproxy.transport import Client, Server, connect, equip


class Made(ClientFactory, Factory):
    """Makes one protocol.

    :ivar made: fires when it is connected, or fails.
    """

    noisy = False

    def __init__(self) -> None:
        self.made: Deferred[Protocol] = Deferred()

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        """Make it."""
        made = Protocol()
        made.connectionMade = lambda: self.made.callback(made)  # type: ignore[method-assign]
        return made

    def clientConnectionFailed(self, connector: object, reason: Failure) -> None:
        """Hear that it cannot be."""
        self.made.errback(reason)


class FullSocket:
    """A socket in a process that has no descriptors left."""

    def accept(self) -> None:
        """Fail."""
        raise OSError(errno.EMFILE, "too many")


class HastySocket:
    """A socket whose first client has gone before it was accepted."""

    def __init__(self, real: socket.socket) -> None:
        self._real, self._gone = real, False

    def accept(self) -> tuple[socket.socket, object]:
        """Fail once."""
        if not self._gone:
            self._gone = True
            raise ConnectionAbortedError(errno.ECONNABORTED, "gone")
        return self._real.accept()


class LoopbackTests(TestCase):
    """With the reactor that trial runs."""

    def setUp(self) -> None:
        """Find it."""
        from twisted.internet import reactor

        self.reactor = cast(Any, reactor)

    async def listen(self, host: str = "127.0.0.1") -> tuple[Made, int]:
        """Listen on loopback."""
        factory = Made()
        endpoint = TCP4ServerEndpoint(self.reactor, 0, interface=host)
        port = await endpoint.listen(factory)
        self.addCleanup(port.stopListening)
        equip(port)
        return factory, port.getHost().port

    def hangUp(self, *protocols: Protocol) -> None:
        """Leave nothing connected."""
        for each in protocols:
            cast(Any, each.transport).abortConnection()

    async def test_bothSidesAreOurs(self) -> None:
        """Bytes pass between what was accepted and what was dialled, and wait for nothing."""
        accepted, port = await self.listen()
        dialled = Made()
        connect(self.reactor, ("127.0.0.1", port), dialled, 5)
        server, client = await accepted.made, await dialled.made
        self.assertIsInstance(server.transport, Server)
        self.assertIsInstance(client.transport, Client)
        for each in (server, client):
            self.assertTrue(cast(Any, each.transport).getTcpNoDelay())
        heard: Deferred[bytes] = Deferred()
        cast(Any, client).dataReceived = heard.callback
        cast(Any, server.transport).write(b"hello")
        self.assertEqual(await heard, b"hello")
        self.hangUp(server, client)

    async def test_whoIsGoneIsNotSearchedFor(self) -> None:
        """A reactor that is not told the number any more looks through all it has, for each."""
        accepted, port = await self.listen()
        dialled = Made()
        connect(self.reactor, ("127.0.0.1", port), dialled, 5)
        pair = [cast(Any, (await each.made).transport) for each in (accepted, dialled)]
        numbers, remove = [], self.reactor.removeReader

        def note(reader: Any) -> None:
            if reader in pair:
                numbers.append(reader.fileno())
            remove(reader)

        self.patch(self.reactor, "removeReader", note)
        for each in pair:
            each.abortConnection()
        await deferLater(self.reactor, 0.01)
        self.assertEqual([each.fileno() for each in pair], [-1, -1])
        self.assertGreaterEqual(len(numbers), 2)
        self.assertNotIn(-1, numbers)

    async def test_itCallsFromTheAddressThatIsAsked(self) -> None:
        """Any that is the machine's own; with another nobody is called."""
        accepted, port = await self.listen()
        dialled = Made()
        connect(self.reactor, ("127.0.0.1", port), dialled, 5, ("127.0.0.2", 0))
        server, client = await accepted.made, await dialled.made
        self.assertEqual(cast(Any, server.transport).getPeer().host, "127.0.0.2")
        self.hangUp(server, client)
        dialled = Made()
        connect(self.reactor, ("127.0.0.1", port), dialled, 5, ("203.0.113.7", 0))
        await self.assertFailure(dialled.made, ConnectBindError)

    async def test_aRefusalIsTold(self) -> None:
        """Nobody listens there."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        dialled = Made()
        connect(self.reactor, ("127.0.0.1", port), dialled, 5)
        await self.assertFailure(dialled.made, ConnectionRefusedError)

    async def test_aCallCanBeGivenUp(self) -> None:
        """Before anybody has answered."""
        dialled = Made()
        connector = connect(self.reactor, ("127.0.0.1", 9), dialled, 5)
        connector.disconnect()
        await self.assertFailure(dialled.made, UserError)

    async def test_manyAreAcceptedInOneTurn(self) -> None:
        """And none is left waiting, however many there are."""
        accepted, port = await self.listenForMany()
        sockets = [socket.create_connection(("127.0.0.1", port), 5) for _ in range(40)]
        while len(accepted) < len(sockets):
            await deferLater(self.reactor, 0.01)
        self.assertTrue(all(isinstance(each.transport, Server) for each in accepted))
        self.hangUp(*accepted)
        for each in sockets:
            each.close()

    async def listenForMany(self) -> tuple[list[Protocol], int]:
        """Listen; every other connection is not let in."""
        accepted: list[Protocol] = []

        def make(_: object) -> Protocol:
            made = Protocol()
            made.connectionMade = lambda: accepted.append(made)  # type: ignore[method-assign]
            return made

        factory, port = await self.listen()
        cast(Any, factory).buildProtocol = make
        return accepted, port

    async def test_whoIsNotLetInIsClosed(self) -> None:
        """And the next one is asked about again."""
        factory, port = await self.listen()
        cast(Any, factory).buildProtocol = lambda _: None
        for _ in range(2):
            with socket.create_connection(("127.0.0.1", port), 5) as turnedAway:
                turnedAway.setblocking(False)
                await deferLater(self.reactor, 0.05)
                self.assertEqual(turnedAway.recv(1), b"")

    async def test_aBugDoesNotCloseThePort(self) -> None:
        """It is logged, and others are let in."""
        factory, port = await self.listen()
        cast(Any, factory).buildProtocol = lambda _: 1 // 0
        with socket.create_connection(("127.0.0.1", port), 5):
            await deferLater(self.reactor, 0.05)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        del cast(Any, factory).buildProtocol
        with socket.create_connection(("127.0.0.1", port), 5):
            self.hangUp(await factory.made)

    async def test_withoutDescriptorsTwistedDecides(self) -> None:
        """It has one in reserve, to turn clients away with."""
        factory, _ = await self.listen()
        asked: list[object] = []
        self.patch(tcp.Port, "doRead", asked.append)
        listening = [each for each in self.reactor.getReaders() if isinstance(each, tcp.Port)]
        (ours,) = [each for each in listening if each.factory is factory]
        real, ours.socket = ours.socket, FullSocket()
        ours.doRead()
        ours.socket = real
        self.assertEqual(asked, [ours])

    async def test_whoIsGoneIsPassedOver(self) -> None:
        """Those behind are ours as ever."""
        factory, port = await self.listen()
        listening = [each for each in self.reactor.getReaders() if isinstance(each, tcp.Port)]
        (ours,) = [each for each in listening if each.factory is factory]
        real, ours.socket = ours.socket, HastySocket(ours.socket)
        with socket.create_connection(("127.0.0.1", port), 5):
            ours.doRead()
            ours.socket = real
            made = await factory.made
        self.assertIsInstance(made.transport, Server)
        self.hangUp(made)

    async def test_anotherKindOfPortKeepsItsOwn(self) -> None:
        """A Unix socket's connections are Twisted's."""
        path = self.mktemp()
        listen = cast(
            Callable[[Factory], Awaitable[Any]], UNIXServerEndpoint(self.reactor, path).listen
        )
        port = await listen(Made())
        self.addCleanup(port.stopListening)
        before = port.transport
        equip(port)
        self.assertIs(port.transport, before)


class OtherReactorTests(SynchronousTestCase):
    """A reactor that is none of the system's."""

    def test_itDialsByItself(self) -> None:
        """With all that it was told."""
        reactor = MemoryReactor()
        factory = Made()
        connect(cast(IReactorTCP, reactor), ("192.0.2.1", 993), factory, 5, ("192.0.2.9", 0))
        expected = ("192.0.2.1", 993, factory, 5, ("192.0.2.9", 0))
        self.assertEqual(reactor.tcpClients, [expected])
