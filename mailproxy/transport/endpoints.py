"""How the connections of this package come about: accepted, and dialled."""

import socket
from typing import Any, cast

from twisted.internet import tcp
from twisted.internet.interfaces import IConnector, IListeningPort, IReactorTCP
from twisted.internet.posixbase import PosixReactorBase
from twisted.internet.protocol import ClientFactory

from mailproxy.transport.joint import JoinableConnection


class Server(JoinableConnection, tcp.Server):
    """A connection that was accepted."""


class Client(JoinableConnection, tcp.Client):
    """A connection that was dialled."""

    def createInternetSocket(self) -> socket.socket:
        """Make the socket; nothing that is written waits for more."""
        made: socket.socket = super().createInternetSocket()
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return made


class Connector(tcp.Connector):
    """Dials a `Client`."""

    def _makeTransport(self) -> tcp.Client:
        return Client(self.host, self.port, self.bindAddress, self, self.reactor)


def connect(
    reactor: IReactorTCP,
    place: tuple[str, int],
    factory: ClientFactory,
    timeout: float,
    bindAddress: tuple[str, int] | None = None,
) -> IConnector:
    """Dial an address, as a reactor's `connectTCP` does.

    :param place: IP address and port.
    :param timeout: seconds for the connection to be there.
    :param bindAddress: the local address to call from; None: any.
    """
    if not isinstance(reactor, PosixReactorBase):
        # A reactor of another kind, one in memory for instance, has connections of its own.
        return reactor.connectTCP(*place, factory, timeout=timeout, bindAddress=bindAddress)
    connector = Connector(*place, factory, timeout, bindAddress, reactor)
    connector.connect()
    return cast(IConnector, connector)


def equip(port: IListeningPort) -> None:
    """Have a listening port make a `Server` of each connection; of other kinds it keeps its own."""
    if isinstance(port, tcp.Port) and port.transport is tcp.Server:
        port.transport = Server
        # Accepted sockets inherit it.
        cast(Any, port).socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
