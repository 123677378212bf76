"""How the connections of this package come about: accepted, and dialled.

They do without what Twisted's own keep for the log, and without turns of the reactor that an IP
address does not need.
"""

import os
import socket
from errno import EALREADY, EINPROGRESS, EISCONN
from typing import Any, cast

from twisted.internet import tcp
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.error import ConnectError, getConnectError
from twisted.internet.interfaces import IConnector, IListeningPort, IReactorTCP
from twisted.internet.posixbase import PosixReactorBase
from twisted.internet.protocol import ClientFactory, Protocol
from twisted.python.failure import Failure

from mailproxy.logs import Logger
from mailproxy.transport.joint import JoinableConnection

MOST_ACCEPTED = 64
"""Connections that are accepted in one turn of the reactor."""


class Server(JoinableConnection, tcp.Server):
    """A connection that was accepted."""

    def __init__(self, sock: socket.socket, protocol: Any, client: Any, reactor: Any) -> None:
        """Begin to read.

        :param client: the peer's address, as the socket module writes it.
        """
        tcp.Connection.__init__(self, sock, protocol, reactor)
        del self.fileno  # the socket has it
        self.client = client
        self.connected = 1
        self.startReading()

    def fileno(self) -> int:
        """Tell the descriptor; -1 when it is gone."""
        return self.socket.fileno() if hasattr(self, "socket") else -1

    def getHost(self) -> IPv4Address | IPv6Address:
        """Tell our own address."""
        return _address(self.socket.getsockname())

    def getPeer(self) -> IPv4Address | IPv6Address:
        """Tell the peer's address."""
        return _address(self.client or self.socket.getpeername())

    def joinTo(self, sink: JoinableConnection | None) -> None:
        """Keep nothing that the system knows too: many are joined for a long time."""
        self.client = ()
        super().joinTo(sink)

    def __repr__(self) -> str:
        """Tell it from others."""
        return f"<{type(self).__name__} at {id(self):#x}>"


class Client(JoinableConnection, tcp.Client):
    """A connection that was dialled."""

    def createInternetSocket(self) -> socket.socket:
        """Make the socket; nothing that is written waits for more."""
        made: socket.socket = super().createInternetSocket()
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return made

    def _finishInit(self, whenDone: Any, skt: Any, error: Any, reactor: Any) -> None:
        """Begin to connect; whatever comes of it is told later."""
        if whenDone is None or self._requiresResolution:
            super()._finishInit(whenDone, skt, error, reactor)
            return
        tcp.Connection.__init__(self, skt, cast(Any, None), reactor)
        self.realAddress = self.addr
        number = skt.connect_ex(self.addr)
        if number in (0, EINPROGRESS):
            self.doRead = self.doWrite = self.doConnect  # type: ignore[method-assign]
            self.startWriting()
        else:
            reactor.callLater(0, self.failIfNotConnected, _reason(number))

    def fileno(self) -> int:
        """Tell the descriptor; -1 when it is gone."""
        return self.socket.fileno() if hasattr(self, "socket") else -1

    def doConnect(self) -> None:
        """Hear that the connection is there, or cannot be."""
        number = self.socket.connect_ex(self.realAddress)
        if number in (EALREADY, EINPROGRESS):
            return
        if number not in (0, EISCONN):
            self.failIfNotConnected(_reason(number))
            return
        del self.doRead, self.doWrite
        self.stopWriting()
        self._connectDone()

    def _connectDone(self) -> None:
        """Hand the connection over; who has dialled it need not hear of its end."""
        connector, self.connector = self.connector, _NOBODY
        protocol = connector.buildProtocol(None)  # whoever wants the address has the transport
        self.connected = 1
        del self.fileno  # the socket has it
        self.protocol = protocol or Protocol()
        if protocol is None:
            self.loseConnection()
        else:
            self.startReading()
            protocol.makeConnection(self)

    def connectionLost(self, reason: Failure) -> None:
        """The connection is gone, or has never been there: then the socket knows why."""
        if not self.connected and hasattr(self, "socket"):
            number = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if number:
                self.failIfNotConnected(_reason(number))
                return
        super().connectionLost(reason)


class _Nobody:
    """Stands for who has dialled a connection that is there."""

    def connectionLost(self, reason: Failure) -> None:
        """Let it be."""


_NOBODY: Any = _Nobody()


class Connector(tcp.Connector):
    """Dials a `Client`; it hears of a failure, but not of the end of a connection."""

    def _makeTransport(self) -> tcp.Client:
        return Client(self.host, self.port, self.bindAddress, self, self.reactor)


def connect(
    reactor: IReactorTCP,
    place: tuple[str, int],
    factory: ClientFactory,
    timeout: float | None,
    bindAddress: tuple[str, int] | None = None,
) -> IConnector:
    """Dial an address, as a reactor's `connectTCP` does.

    :param place: IP address and port.
    :param factory: makes the protocol; it does not hear of the connection's end.
    :param timeout: seconds for the connection to be there; None: who asks sees to that.
    :param bindAddress: the local address to call from; None: any.
    """
    if not isinstance(reactor, PosixReactorBase):
        # A reactor of another kind, one in memory for instance, has connections of its own.
        limit: Any = timeout
        return reactor.connectTCP(*place, factory, timeout=limit, bindAddress=bindAddress)
    connector = Connector(*place, factory, cast(float, timeout), bindAddress, reactor)
    connector.connect()
    return cast(IConnector, connector)


def equip(port: IListeningPort) -> None:
    """Have a listening port make a `Server` of each connection; of other kinds it keeps its own."""
    if isinstance(port, tcp.Port) and port.transport is tcp.Server:
        cast(Any, port).doRead = _Acceptance(port)
        # Accepted sockets inherit it.
        cast(Any, port).socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


class _Acceptance:
    """Accepts a port's connections, at most twice as many in a turn as in the last one."""

    log = Logger()

    def __init__(self, port: tcp.Port) -> None:
        self._port: Any = port
        self._most = 1

    def __call__(self) -> None:
        """Accept those that wait."""
        port, accepted = self._port, 0
        while accepted < self._most:
            try:
                connected, name = port.socket.accept()
            except BlockingIOError:
                break
            except ConnectionAbortedError:
                continue  # it has gone already
            except OSError:
                tcp.Port.doRead(port)  # it knows what to do when there are no descriptors left
                return
            accepted += 1
            try:
                self._begin(connected, name)
            except Exception:
                self.log.failure("a connection met a bug")
        # To look whether one more waits is as dear as the next event: so not every time.
        isFull = accepted == self._most
        self._most = min(2 * accepted if isFull else max(1, accepted), MOST_ACCEPTED)

    def _begin(self, connected: socket.socket, name: Any) -> None:
        protocol = self._port.factory.buildProtocol(None)  # it has the transport
        if protocol is None:
            connected.close()
        else:
            protocol.makeConnection(Server(connected, protocol, name, self._port.reactor))


def _address(name: Any) -> IPv4Address | IPv6Address:
    """Write an address that the socket module has given as Twisted does."""
    return IPv4Address("TCP", *name) if len(name) == 2 else IPv6Address("TCP", *name)


def _reason(number: int) -> ConnectError:
    return cast(ConnectError, getConnectError((number, os.strerror(number))))
