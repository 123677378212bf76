"""Listening sockets: bound while we may still say what is wrong, opened when the service starts.

Knows addresses and endpoint strings; must not know what is served on them.
"""

import os
import socket
from collections.abc import Callable, Iterable
from typing import cast

from twisted.application.service import Service
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.endpoints import AdoptedStreamServerEndpoint, serverFromString
from twisted.internet.interfaces import (
    IListeningPort,
    IProtocolFactory,
    IReactorCore,
    IReactorSocket,
    IStreamServerEndpoint,
)
from twisted.python.failure import Failure

from mailproxy.config.bind import Bind, SocketAddress
from mailproxy.errors import ConfigError
from mailproxy.origin import Address
from mailproxy.transport import equip

BACKLOG = 4096
"""Connections that may wait to be accepted; the kernel has a limit of its own."""


class SocketReactor(IReactorSocket, IReactorCore):
    """What listening needs of a reactor."""


class ListeningSocket(Service):
    """One place to listen at, open while the service runs.

    :ivar key: what the configuration calls it.
    :ivar factory: makes the protocol of each connection; set before the service starts.
    :ivar bound: the address that we listen on is entered here.
    """

    factory: IProtocolFactory

    def __init__(self, key: str, endpoint: IStreamServerEndpoint, bound: set[Address]) -> None:
        self.key, self._endpoint, self._bound = key, endpoint, bound
        self._port: IListeningPort | None = None

    def release(self) -> None:
        """Let go of what was bound, and will not be opened."""
        if isinstance(self._endpoint, AdoptedStreamServerEndpoint):
            os.close(self._endpoint.fileno)

    def privilegedStartService(self) -> None:
        """Accept connections; what cannot be opened ends the start."""
        super().privilegedStartService()
        failures: list[Failure] = []
        self._endpoint.listen(self.factory).addCallbacks(self._opened, failures.append)
        if failures:
            raise SystemExit(f"{self.key}: {failures[0].getErrorMessage()}")

    def _opened(self, port: IListeningPort) -> None:
        self._port = port
        equip(port)
        host = port.getHost()
        if isinstance(host, IPv4Address | IPv6Address):
            self._bound.add(Address.parse(host.host, host.port))
            if host.host == "::" and not _isV6Only(port):
                self._bound.add(Address("0.0.0.0", host.port))

    def stopService(self) -> Deferred[None]:
        """Accept no more."""
        super().stopService()
        port, self._port = self._port, None
        if port is None:
            return succeed(None)
        return cast(Deferred[None], maybeDeferred(cast(Callable[[], object], port.stopListening)))


def bindSockets(
    reactor: SocketReactor, places: Iterable[tuple[str, Bind]], bound: set[Address]
) -> list[ListeningSocket]:
    """Bind all addresses, so that ports below 1024 work and nothing can go wrong later.

    :param places: pairs of the key to name in a message and the place.
    :raises ConfigError: naming every place that cannot be had; then none is kept.
    """
    listening: list[ListeningSocket] = []
    sockets: list[socket.socket] = []
    problems: list[str] = []
    for key, place in places:
        try:
            if isinstance(place, SocketAddress):
                sockets.append(bindAddress(place))
                endpoint = _adopt(reactor, sockets[-1])
            else:
                endpoint = fromString(reactor, place.text)
        except (OSError, ValueError, TypeError, LookupError, ImportError) as error:
            problems.append(refusal(key, place, error))
        else:
            listening.append(ListeningSocket(key, endpoint, bound))
    if problems:
        for each in sockets:
            each.close()
        raise ConfigError(problems)
    for each in sockets:
        each.detach()  # the endpoint closes it
    return listening


def _adopt(reactor: SocketReactor, bound: socket.socket) -> IStreamServerEndpoint:
    return AdoptedStreamServerEndpoint(reactor, bound.fileno(), bound.family)


def refusal(key: str, place: Bind, error: Exception) -> str:
    """Say in one line why a place cannot be had."""
    system = isinstance(error, OSError) and error.errno
    reason = os.strerror(system).lower() if system else str(error)
    return f"{key}: {_shown(place)}: {reason}"


def fromString(reactor: SocketReactor, text: str) -> IStreamServerEndpoint:
    """Read an endpoint string; what systemd has not passed cannot be had."""
    try:
        endpoint: IStreamServerEndpoint = serverFromString(reactor, text)
    except LookupError:
        if text.startswith("systemd:"):
            raise ValueError(
                "systemd has passed no such socket; compare the .socket unit"
            ) from None
        raise
    return endpoint


def _shown(bind: Bind) -> str:
    if isinstance(bind, SocketAddress):
        return str(Address(bind.host, bind.port))
    return bind.text


def bindAddress(
    address: SocketAddress, *, shares: bool = False, listens: bool = True
) -> socket.socket:
    """Bind a TCP socket; an IPv6 one takes no IPv4, so that both can be had on one port.

    :param shares: whether others of ours may bind the same address.
    :param listens: whether clients may come at once; they wait until they are accepted.
    """
    family = socket.AF_INET6 if address.isIPv6 else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shares:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if address.isIPv6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        bound.bind((address.host, address.port))
        if listens:
            bound.listen(BACKLOG)
        bound.setblocking(False)
    except OSError:
        bound.close()
        raise
    return bound


def boundAddresses(bound: socket.socket) -> list[Address]:
    """Tell the addresses that a bound socket answers for; none for a Unix socket."""
    if bound.family not in (socket.AF_INET, socket.AF_INET6):
        return []
    host, port, *_ = bound.getsockname()
    if host == "::" and not bound.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY):
        return [Address("::", port), Address("0.0.0.0", port)]
    return [Address.parse(host, port)]


def _isV6Only(port: IListeningPort) -> bool:
    """Whether an IPv6 socket that was not bound here (`tcp6:`, `systemd:`) takes IPv4 too."""
    bound = getattr(port, "socket", None)
    if not isinstance(bound, socket.socket):
        return True
    return bool(bound.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY))


def isLocal(address: Address) -> bool:
    """Whether an address is this machine's own: then it is where we would call it from."""
    if address.ip.is_loopback:
        return True
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((address.host, 9))  # a datagram socket sends nothing by that
        except OSError:
            return False
        return Address.parse(probe.getsockname()[0], 0).host == address.host
