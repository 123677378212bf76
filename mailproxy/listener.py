"""From an accepted socket to a session that can begin: steps 1 to 3 of a connection's life.

Knows sockets, PROXY headers and implicit TLS; must not know any protocol's words or what a session
does. What a new session may use is asked of the proxy at each accept, so that a reload holds for
the next client.
"""

from collections.abc import Awaitable, Callable, Sequence

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from mailproxy import proxyheader
from mailproxy.config.model import Listener as ListenerConfig
from mailproxy.config.values import Network, ProxyProtocol, TLSMode
from mailproxy.errors import ProtocolError
from mailproxy.logs import Logger
from mailproxy.origin import Address, Origin, sessionID
from mailproxy.protocols.base import ServerSettings
from mailproxy.protocols.server import ClientLeg, ProxyServerFactory
from mailproxy.resources import Ingress, Resources, SessionKind
from mailproxy.seat import ALONE, Seat
from mailproxy.session import Session
from mailproxy.stream import Creator
from mailproxy.waiting import TimedOut, within

REFUSAL_PAUSE = 0.25
"""Seconds for which the other processes are not asked for room again, after none had any."""

HEADER_PATIENCE = 1.0
"""Seconds that a server-first protocol waits for the first byte of a header that may not come."""


@attrs.frozen
class ListenerRuntime:
    """What holds for clients that come in now.

    :ivar implicit: makes TLS at once; None where it does not begin so.
    :ivar ttl: hops that a session may take.
    :ivar session: the kind of session that this protocol has.
    """

    settings: ServerSettings
    resources: Resources
    implicit: Creator | None
    ttl: int
    session: SessionKind = Session


class Listener:
    """One `[listener.NAME]`: accepts connections and makes sessions of them.

    :param runtime: gives what holds now.
    :ivar share: how many of its connections this process may have; a further one waits until
        another process has lent its room, or is closed.
    """

    log = Logger()

    def __init__(
        self,
        name: str,
        config: ListenerConfig,
        factory: type[ProxyServerFactory],
        runtime: Callable[[], ListenerRuntime],
        clock: IReactorTime,
    ) -> None:
        self.name = name
        self._runtime, self._clock = runtime, clock
        self._seat = ALONE
        self._waiting: list[ClientLeg] = []
        self._fullUntil = 0.0
        self.factory = factory(clock, config.max_connections, self._accepted)
        self.config = config
        self.share = self._seat.share(config.max_connections)
        self.adopt(config)

    def adopt(self, config: ListenerConfig) -> None:
        """Let this hold for clients that come in from now on; the sockets stay.

        What was lent stays lent, unless there is less to be had: then all shares begin anew.
        """
        former, self.config = self.config.max_connections, config
        self._ingress = Ingress(
            self.name, config.protocol, config.preauth_timeout, lambda: self._runtime().resources
        )
        self.factory.limit = config.max_connections
        share = self._seat.share(config.max_connections)
        less = config.max_connections < former
        self.share = share if less else self.share + share - self._seat.share(former)

    # Room, when several processes have one limit

    def join(self, seat: Seat) -> None:
        """Be one of several processes that accept for this listener."""
        self._seat = seat
        self.share = seat.share(self.config.max_connections)

    def lend(self) -> int:
        """Give half of the free room to another process; tells for how many connections."""
        given = max(0, self.share - self._admitted + 1) // 2
        self.share -= given
        return given

    @property
    def _admitted(self) -> int:
        """How many connections have a place."""
        waiting = sum(each in self.factory.connections for each in self._waiting)
        return len(self.factory.connections) - waiting

    def _accepted(self, server: ClientLeg) -> None:
        """Begin, or wait for room that another process may have."""
        if self._admitted <= self.share:
            self._begin(server)
        elif self._clock.seconds() < self._fullUntil:
            self._turnAway(server)
        else:
            self._waiting.append(server)
            if len(self._waiting) == 1:
                Deferred.fromCoroutine(self._borrow()).addErrback(self._notBorrowed)

    async def _borrow(self) -> None:
        """Ask for room until everybody who waits has a place, or nobody has any left."""
        while self._waiting:
            given = await self._seat.borrow(self.name)
            self.share += given
            self._waiting = [each for each in self._waiting if each in self.factory.connections]
            while self._waiting and self._admitted < self.share:
                self._begin(self._waiting.pop(0))
            if not given:
                self._refuse()

    def _refuse(self) -> None:
        """Let nobody wait any longer."""
        self._fullUntil = self._clock.seconds() + REFUSAL_PAUSE
        refused, self._waiting = self._waiting, []
        for server in refused:
            self._turnAway(server)

    def _notBorrowed(self, failure: Failure) -> None:
        """Forget nobody for a mistake of ours: those who wait have no session that would end."""
        self.log.failure("other processes could not be asked for room", failure)
        self._refuse()

    def _turnAway(self, server: ClientLeg) -> None:
        self.factory.turnedAway += 1
        server.transport.loseConnection()

    # One connection

    def _begin(self, server: ClientLeg) -> None:
        runtime = self._runtime()
        server.settings = runtime.settings
        server.origin = Origin(
            session=sessionID(),
            client=_address(server.transport.getPeer()),
            local=_address(server.transport.getHost()),
            ttl=runtime.ttl,
            secure=runtime.implicit is not None,  # nobody is asked before it is
        )
        session = runtime.session(server, self._ingress, runtime.resources)
        session.start(self._introduce(server, runtime))

    async def _introduce(self, server: ClientLeg, runtime: ListenerRuntime) -> None:
        """Learn who the client is, then secure its leg."""
        await self._readHeader(server)
        if runtime.implicit is not None:
            await server.startTLS(runtime.implicit, server.takeUnread())

    async def _readHeader(self, server: ClientLeg) -> None:
        """Read a PROXY header where one may come and is believed."""
        mode = self.config.proxy_protocol
        trusted = server.settings.trusts(server.origin.client)
        if mode is ProxyProtocol.OFF or (mode is ProxyProtocol.OPTIONAL and not trusted):
            return
        if not trusted:
            raise ProtocolError("a PROXY header is required, and this peer is not trusted")
        header = await self._header(server, optional=mode is ProxyProtocol.OPTIONAL)
        if header is not None:
            server.origin = _relayed(server.origin, header)

    async def _header(self, server: ClientLeg, *, optional: bool) -> proxyheader.Header | None:
        """Read the header; None, with every byte given back, when an optional one does not come."""
        patience = HEADER_PATIENCE if optional and self._speaksFirst else None
        data = b""
        while True:
            try:
                shown = await self._glimpse(server, patience)
            except TimedOut:
                return None
            if optional and not proxyheader.isPrefix(data + shown):
                server.putBack(data)
                return None
            step = proxyheader.parse(data + shown)
            if not isinstance(step, proxyheader.NeedMore):
                header, size = step
                server.skip(size - len(data))
                return header
            server.skip(len(shown))
            data, patience = data + shown, None

    def _glimpse(self, server: ClientLeg, patience: float | None) -> Awaitable[bytes]:
        """See what comes next, which stays where it is; `patience` in seconds, None: any."""
        if patience is None:
            return server.peek()
        return within(self._clock, patience, _peek(server))

    @property
    def _speaksFirst(self) -> bool:
        """Whether clients wait for our greeting, so that one without a header sends nothing."""
        return self.config.tls is not TLSMode.IMPLICIT and self.config.protocol != "http"


def _relayed(origin: Origin, header: proxyheader.Header) -> Origin:
    """Believe a trusted peer's header: addresses, and the hops that another of us has left."""
    if header.source is not None and header.destination is not None:
        origin = attrs.evolve(origin, client=header.source, local=header.destination)
    elif not header.local:
        origin = attrs.evolve(origin, nameless=True)
    for kind, value in header.tlvs:
        if kind == proxyheader.HOPS and len(value) == 1:
            origin = attrs.evolve(origin, ttl=value[0])
    return origin


async def _peek(server: ClientLeg) -> bytes:
    return await server.peek()


def _address(peer: object) -> Address:
    """Read a transport's address; a Unix socket's is this machine's own."""
    return Address.parse(getattr(peer, "host", "127.0.0.1"), getattr(peer, "port", 0))


def trust(networks: Sequence[Network]) -> Callable[[Address], bool]:
    """Make the test whether an address lies in one of these networks."""
    return lambda address: any(address.ip in network for network in networks)
