"""What a stream asks of its transport, ours gives."""

import socket
from typing import cast

from twisted.internet.interfaces import ISystemHandle, ITCPTransport, ITLSTransport
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import providedBy
from zope.interface.verify import verifyObject

from tests.support import Network, Peer
from tests.transport.wire import Wire


class TransportTests(SynchronousTestCase):
    """A connection of ours."""

    def test_itIsATransportAsTwistedKnowsThem(self) -> None:
        """In memory and on a socket."""
        for network in (Network(), Wire()):
            server, client = Peer(), Peer()
            network.connect(server, client)
            for interface in (ITLSTransport, ITCPTransport, ISystemHandle):
                self.assertIn(interface, providedBy(server.transport).flattened())
            verifyObject(ISystemHandle, server.transport)

    def test_itsHandleIsItsSocketUntilTLSIsOn(self) -> None:
        """Then it is OpenSSL's connection, which says how the leg is secured."""
        network = Wire()
        server, client = Peer(), Peer()
        network.connect(server, client)
        self.assertIsInstance(server.transport.getHandle(), socket.socket)
        for peer in (server, client):
            peer.startTLS()
        network.pump()
        handle = cast(object, server.transport.getHandle())
        self.assertIn("TLSv1.3", handle.get_protocol_version_name())  # type: ignore[attr-defined]
