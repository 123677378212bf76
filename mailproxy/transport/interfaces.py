"""What is asked of a connection, and what it tells of."""

from typing import Protocol

from twisted.internet.interfaces import IConsumer, IPushProducer, ITLSTransport
from twisted.python.failure import Failure


class IStreamTransport(ITLSTransport, IConsumer, IPushProducer):
    """What a stream and a bridge need of a connection; a `SocketConnection` can more."""


class Receiver(Protocol):
    """Who hears of a connection whose bytes are only to be passed on."""

    def dataReceived(self, data: bytes) -> None:
        """Take the next bytes."""

    def readConnectionLost(self) -> None:
        """Know that no byte will follow, while we may still write."""

    def connectionLost(self, reason: Failure) -> None:
        """Know that the connection is gone."""
