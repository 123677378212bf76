"""A control that does as it is told, and a client that speaks to a site in plain bytes."""

from collections.abc import Mapping
from typing import Any

import attrs
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IAddress
from twisted.internet.testing import StringTransport
from twisted.web.server import Site
from zope.interface import implementer

from mailproxy.control import Facts, IControl

TOKEN = "correct-horse-battery-staple-0123456789"
BEARER = f"Bearer {TOKEN}"
CLIENT = IPv4Address("TCP", "192.0.2.1", 40000)


@implementer(IControl)
class FakeControl:
    """Notes what is asked, and answers what the test has set.

    :ivar asked: method's name and arguments of each question.
    :ivar result: the next answers; an exception makes them failures, a Deferred leaves them open.
    """

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.result: Any = None

    def _answer(self, *asked: Any) -> Deferred[Any]:
        self.asked.append(asked)
        if isinstance(self.result, Exception):
            return fail(self.result)
        return self.result if isinstance(self.result, Deferred) else succeed(self.result)

    def stats(self) -> Deferred[Facts]:
        """Note it."""
        return self._answer("stats")

    def metrics(self) -> Deferred[str]:
        """Note it."""
        return self._answer("metrics").addCallback(str)

    def destinations(self) -> Deferred[list[Facts]]:
        """Note it."""
        return self._answer("destinations")

    def resetDestination(self, destination: str) -> Deferred[None]:
        """Note it."""
        return self._answer("resetDestination", destination)

    def mapping(self, identifier: str) -> Deferred[Facts]:
        """Note it."""
        return self._answer("mapping", identifier)

    def setMapping(self, identifier: str, destination: str) -> Deferred[None]:
        """Note it."""
        return self._answer("setMapping", identifier, destination)

    def removeMapping(self, identifier: str) -> Deferred[bool]:
        """Note it."""
        return self._answer("removeMapping", identifier)

    def reloadMappings(self) -> Deferred[None]:
        """Note it."""
        return self._answer("reloadMappings")

    def invalidate(self, identifier: str | None) -> Deferred[None]:
        """Note it."""
        return self._answer("invalidate", identifier)

    def connections(
        self, identifier: str | None, destination: str | None, protocol: str | None
    ) -> Deferred[list[Facts]]:
        """Note it."""
        return self._answer("connections", identifier, destination, protocol)

    def kick(self, identifier: str) -> Deferred[int]:
        """Note it."""
        return self._answer("kick", identifier)

    def reload(self) -> Deferred[list[str]]:
        """Note it."""
        return self._answer("reload")

    def delay(self, identifier: str, seconds: int) -> Deferred[None]:
        """Note it."""
        return self._answer("delay", identifier, seconds)


@attrs.frozen
class Reply:
    """A response, as it came."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode("utf-8")

    @classmethod
    def parse(cls, data: bytes) -> "Reply":
        """Read the one response that these bytes are, whose end is that of the bytes."""
        head, _, body = data.partition(b"\r\n\r\n")
        first, *fields = head.decode("latin-1").split("\r\n")
        pairs = (field.split(": ", 1) for field in fields)
        return cls(int(first.split(" ")[1]), {name.lower(): value for name, value in pairs}, body)


class Wire:
    """One connection to a site.

    :ivar transport: the site's side.
    """

    def __init__(self, site: Site, client: IAddress = CLIENT) -> None:
        self.transport = StringTransport(peerAddress=client)
        self._channel: Any = site.buildProtocol(client)
        self._channel.makeConnection(self.transport)

    def send(self, data: bytes) -> None:
        """Say something."""
        self._channel.dataReceived(data)

    def received(self) -> bytes:
        """What has come since this was last asked."""
        data: bytes = self.transport.value()
        self.transport.clear()
        return data

    def ask(self, target: bytes, *fields: bytes, method: bytes = b"GET") -> Reply:
        """Make a request, with the right token if no field is given."""
        fields = fields or (b"Authorization: " + BEARER.encode(),)
        head = [method + b" " + target + b" HTTP/1.1", b"Host: proxy", *fields]
        self.send(b"\r\n".join([*head, b"", b""]))
        return Reply.parse(self.received())

    def lose(self, reason: Any) -> None:
        """End the connection from outside."""
        self._channel.connectionLost(reason)

    @property
    def open(self) -> bool:
        """Whether the site has not hung up."""
        return not (self.transport.disconnecting or self.transport.disconnected)
