"""A Redis in memory, as far as a mapping source can tell, which fails as a test wants it to."""

from collections.abc import Callable
from typing import cast

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionRefusedError as Refused
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.protocol import Protocol
from zope.interface import implementer

from tests.support import Network


class RedisServer:
    """What all connections share.

    :ivar table: keys and values.
    :ivar said: every command, its words joined by spaces.
    :ivar answer: asked first for each command; None lets the table answer.
    :ivar silent: whether nothing is answered at all.
    :ivar connections: those that are open.
    """

    def __init__(self) -> None:
        self.table: dict[bytes, bytes] = {}
        self.said: list[bytes] = []
        self.answer: Callable[[list[bytes]], bytes | None] = lambda words: None
        self.silent = False
        self.connections: list[RedisPeer] = []

    def execute(self, words: list[bytes]) -> bytes:
        """One command's answer."""
        self.said.append(b" ".join(words))
        found = self.answer(words)
        if found is not None:
            return found
        name, *arguments = words
        if name == b"GET":
            value = self.table.get(arguments[0])
            return b"$-1\r\n" if value is None else b"$%d\r\n%b\r\n" % (len(value), value)
        if name == b"DEL":
            return b":%d\r\n" % (self.table.pop(arguments[0], None) is not None)
        if name == b"SET":
            self.table[arguments[0]] = arguments[1]
        return b"+OK\r\n"

    def commands(self, name: bytes) -> list[bytes]:
        """All commands of that name."""
        return [each for each in self.said if each.startswith(name)]

    def hangUp(self) -> None:
        """Close every connection."""
        for connection in list(self.connections):
            assert connection.transport is not None
            connection.transport.loseConnection()


class RedisPeer(Protocol):
    """The server's end of one connection."""

    def __init__(self, server: RedisServer) -> None:
        self._server, self._unread = server, b""

    def connectionMade(self) -> None:
        """Count it."""
        self._server.connections.append(self)

    def connectionLost(self, reason: object = None) -> None:
        """Count it no more."""
        self._server.connections.remove(self)

    def dataReceived(self, data: bytes) -> None:
        """Answer each command that is complete."""
        self._unread += data
        while (words := self._take()) is not None:
            if not self._server.silent:
                assert self.transport is not None
                self.transport.write(self._server.execute(words))

    def _take(self) -> list[bytes] | None:
        """The next command's words; no value of a test holds a line end."""
        lines = self._unread.split(b"\r\n")
        if len(lines) == 1 or len(lines) <= 1 + 2 * (count := int(lines[0][1:])):
            return None
        self._unread = b"\r\n".join(lines[1 + 2 * count :])
        return lines[2 : 2 + 2 * count : 2]


@implementer(IStreamClientEndpoint)
class RedisEndpoint:
    """Leads to a server in memory.

    :ivar down: whether connections are refused.
    :ivar attempts: how many there were.
    """

    def __init__(self, network: Network, server: RedisServer) -> None:
        self._network, self._server = network, server
        self.down = False
        self.attempts = 0

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """Connect at once, or fail."""
        self.attempts += 1
        if self.down:
            return fail(Refused())
        client = protocolFactory.buildProtocol(None)  # type: ignore[arg-type]
        self._network.connect(RedisPeer(self._server), cast(Protocol, client))
        return succeed(cast(IProtocol, client))
