"""The parent's listening sockets, which its workers accept from.

Knows addresses, endpoint strings and how sockets are shared; must not know what is served on them.
Where an address is given, each worker has a socket of its own on it (SO_REUSEPORT) and the kernel
spreads the clients; what comes from systemd or an endpoint string is one socket for all.
"""

import os
import socket
from collections.abc import Iterable
from typing import Any, cast

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred, succeed
from twisted.internet.endpoints import (
    AdoptedStreamServerEndpoint,
    TCP4ServerEndpoint,
    TCP6ServerEndpoint,
    UNIXServerEndpoint,
)
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IStreamServerEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.tcp import Port
from twisted.internet.unix import Port as UNIXPort
from twisted.python.failure import Failure

from mailproxy.config.bind import Bind, SocketAddress
from mailproxy.errors import ConfigError
from mailproxy.origin import Address
from mailproxy.sockets import SocketReactor, bindAddress, boundAddresses, fromString, refusal
from mailproxy.transport import equip
from mailproxy.workers.setup import Inherited

__all__ = ["HeldSockets", "InheritedSocket", "holdSockets"]

_SHAREABLE = (
    AdoptedStreamServerEndpoint,
    TCP4ServerEndpoint,
    TCP6ServerEndpoint,
    UNIXServerEndpoint,
)


class _Nobody(Factory):
    """Makes nothing: nobody is accepted in the parent."""

    noisy = False


class HeldSockets(Service):
    """Sockets that are bound, and not accepted from in this process.

    :ivar bound: the addresses are entered here.
    """

    def __init__(self, bound: set[Address]) -> None:
        self._bound = bound
        self._sockets: list[tuple[str, socket.socket, int | None]] = []
        self._endpoints: list[tuple[str, IStreamServerEndpoint]] = []
        self._ports: list[IListeningPort] = []

    def add(self, key: str, bound: socket.socket, seat: int | None) -> None:
        """Hold a socket.

        :param seat: the worker that it is for; None: for all.
        """
        self._bound.update(boundAddresses(bound))
        self._sockets.append((key, bound, seat))

    def addEndpoint(self, key: str, endpoint: IStreamServerEndpoint) -> None:
        """Hold what an endpoint binds when the service starts.

        :raises ValueError: when its socket is no use to another process.
        """
        if not isinstance(endpoint, _SHAREABLE):
            raise ValueError(
                "this kind of endpoint cannot be shared by worker processes; write "
                "server.threads = 1, or tcp:, tcp6:, unix: or systemd:"
            )
        self._endpoints.append((key, endpoint))

    def privilegedStartService(self) -> None:
        """Bind what is bound by endpoints; what cannot be had ends the start."""
        super().privilegedStartService()
        for key, endpoint in self._endpoints:
            opened: list[Any] = []
            endpoint.listen(_Nobody()).addBoth(opened.append)
            (port,) = opened
            if isinstance(port, Failure):
                raise SystemExit(f"{key}: {port.getErrorMessage()}")
            port.stopReading()
            self._ports.append(port)
            copy = port.socket.dup()
            copy.setblocking(False)  # which a copy is not, by itself
            self.add(key, copy, None)

    def inherited(self, first: int) -> tuple[tuple[Inherited, ...], dict[int, int]]:
        """Tell what a worker gets.

        :param first: the first of its descriptors.
        :returns: what it is told, and for each of its descriptors ours.
        """
        told = tuple(
            Inherited(key, first + number, bound.family, seat)
            for number, (key, bound, seat) in enumerate(self._sockets)
        )
        ours = {
            first + number: bound.fileno() for number, (_, bound, _) in enumerate(self._sockets)
        }
        return told, ours

    def close(self) -> None:
        """Close our own copies: only who accepts may keep a client waiting."""
        sockets, self._sockets = self._sockets, []
        for _, bound, _ in sockets:
            bound.close()

    def stopService(self) -> Deferred[None]:
        """Close everything; a Unix socket's file is removed."""
        super().stopService()
        self.close()
        ports, self._ports = self._ports, []
        closed = DeferredList([maybeDeferred(port.stopListening) for port in ports])
        return closed.addCallback(lambda _: None)


def holdSockets(
    reactor: SocketReactor, places: Iterable[tuple[str, Bind]], bound: set[Address], count: int
) -> HeldSockets:
    """Bind all addresses for so many workers, while we may still say what is wrong.

    :param places: pairs of the key to name in a message and the place.
    :raises ConfigError: naming every place that cannot be had; then none is kept.
    """
    held = HeldSockets(bound)
    problems: list[str] = []
    for key, place in places:
        try:
            if isinstance(place, SocketAddress):
                for number, one in enumerate(_bindFor(place, count)):
                    held.add(key, one, number)
            else:
                held.addEndpoint(key, fromString(reactor, place.text))
        except (OSError, ValueError, TypeError, LookupError, ImportError) as error:
            problems.append(refusal(key, place, error))
    if problems:
        held.close()
        raise ConfigError(problems)
    return held


def _bindFor(address: SocketAddress, count: int) -> list[socket.socket]:
    """Bind one address so many times.

    Another proxy of ours would be let in as well: so the address is first asked for alone.
    """
    bindAddress(address, listens=False).close()
    found = [bindAddress(address, shares=True)]
    try:
        same = SocketAddress(address.host, found[0].getsockname()[1])
        found += [bindAddress(same, shares=True) for _ in range(count - 1)]
    except OSError:
        for one in found:
            one.close()
        raise
    return found


class _InheritedUNIXPort(UNIXPort):
    """A Unix socket whose file is the parent's: neither its mode nor its path is touched."""

    _preexistingSocket: socket.socket | None

    def startListening(self) -> None:
        """Accept."""
        found = self._preexistingSocket
        assert found is not None, "made of a descriptor"
        self._shouldShutdown = False
        assert self.factory is not None
        self.factory.doStart()
        self.connected = True
        self.socket, self.fileno = found, found.fileno  # type: ignore[method-assign]
        self.numberAccepts = 100
        self.startReading()

    def connectionLost(self, reason: Failure) -> None:
        """Close our copy."""
        Port.connectionLost(self, reason)


class InheritedSocket:
    """A worker's listening socket: accepted from, or kept for a worker that is away.

    :ivar factory: makes the protocol of each connection.
    """

    def __init__(
        self, reactor: SocketReactor, inherited: Inherited, factory: IProtocolFactory
    ) -> None:
        self._reactor, self._inherited, self._factory = reactor, inherited, factory
        self._port: IListeningPort | None = None
        self._closed = False

    @property
    def seat(self) -> int | None:
        """Whose it is; None: everybody's."""
        return self._inherited.seat

    def open(self) -> None:
        """Accept clients; to do so already is no mistake."""
        if self._port is not None or self._closed:
            return
        descriptor, family = self._inherited.descriptor, self._inherited.family
        if family == socket.AF_UNIX:
            port = _InheritedUNIXPort._fromListeningDescriptor(
                self._reactor, descriptor, self._factory
            )
            port.startListening()
            self._port = port
        else:
            self._port = self._reactor.adoptStreamPort(
                descriptor, socket.AddressFamily(family), cast(Any, self._factory)
            )
            equip(self._port)

    def pause(self) -> Deferred[None]:
        """Accept no more; another worker does."""
        port, self._port = self._port, None
        if port is None:
            return succeed(None)
        return maybeDeferred(port.stopListening).addCallback(lambda _: None)

    def close(self) -> Deferred[None]:
        """Let go of it for good."""
        if not self._closed:
            self._closed = True
            os.close(self._inherited.descriptor)
        return self.pause()
