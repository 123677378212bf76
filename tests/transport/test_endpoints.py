"""Connections that are accepted and dialled, on loopback."""

import socket
from collections.abc import Awaitable, Callable
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint, UNIXServerEndpoint
from twisted.internet.error import ConnectBindError, ConnectionRefusedError, UserError
from twisted.internet.interfaces import IAddress, IReactorTCP
from twisted.internet.protocol import ClientFactory, Factory, Protocol
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
