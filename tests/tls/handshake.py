"""Two TLS ends joined in memory: real handshakes, no sockets."""

import socket
from collections.abc import Callable, Sequence
from pathlib import Path

import trustme
from OpenSSL import SSL
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import (
    IHandshakeListener,
    IOpenSSLClientConnectionCreator,
    IOpenSSLServerConnectionCreator,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from mailproxy.config.model import Certificate, MinVersion, TLSProtocols
from mailproxy.openssl import ISocketTLS

Configure = Callable[[SSL.Context], object]


@implementer(IOpenSSLServerConnectionCreator, IOpenSSLClientConnectionCreator, ISocketTLS)
class OtherEnd:
    """A plain OpenSSL end, to test ours against."""

    def __init__(self, *configure: Configure, serverName: bytes | None = None) -> None:
        self.context = SSL.Context(SSL.TLS_METHOD)
        self.context.set_session_id(b"other")
        self.serverName = serverName
        self.session: SSL.Session | None = None
        for step in configure:
            step(self.context)

    def serverConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        """Make a server's connection."""
        return SSL.Connection(self.context)

    def clientConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        """Make a client's connection, asking for the name and the session if there is one."""
        return self._named(SSL.Connection(self.context))

    def connectionOn(self, connected: socket.socket) -> SSL.Connection:
        """Make either side's, on a socket."""
        return self._named(SSL.Connection(self.context, connected))

    def _named(self, connection: SSL.Connection) -> SSL.Connection:
        if self.serverName is not None:
            connection.set_tlsext_host_name(self.serverName)
        if self.session is not None:
            connection.set_session(self.session)
        return connection


def only(version: int) -> Configure:
    """Speak one TLS version."""

    def configure(context: SSL.Context) -> None:
        context.set_min_proto_version(version)
        context.set_max_proto_version(version)

    return configure


@implementer(IHandshakeListener)
class Recorder(Protocol):
    """Says something at once and after the handshake, and notes all that happens."""

    def __init__(self, greeting: bytes) -> None:
        self.greeting = greeting
        self.received = b""
        self.shaken = False
        self.lost: Failure | None = None

    def connectionMade(self) -> None:
        """Speak before the handshake: it must wait for it."""
        assert self.transport is not None
        self.transport.write(self.greeting)

    def handshakeCompleted(self) -> None:
        """Note it."""
        self.shaken = True

    def dataReceived(self, data: bytes) -> None:
        """Note it."""
        self.received += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Note it."""
        self.lost = reason


class End:
    """One end of a conversation: an application, TLS under it, and the bytes on the wire."""

    def __init__(self, creator: object, isClient: bool, clock: Clock) -> None:
        self.application = Recorder(b"from client;" if isClient else b"from server;")
        wrapped = Factory.forProtocol(lambda: self.application)
        factory = TLSMemoryBIOFactory(creator, isClient, wrapped, clock)  # type: ignore[arg-type]
        self.tls = factory.buildProtocol(None)
        self.wire = StringTransport()
        self.sent = 0
        self.tls.makeConnection(self.wire)
        self.connection: SSL.Connection = self.tls.getHandle()

    def deliverTo(self, other: "End") -> bool:
        """Move what was written to the other end; tell whether there was anything."""
        data = self.wire.value()
        self.wire.clear()
        self.sent += len(data)
        if data and other.application.lost is None:
            other.tls.dataReceived(data)
        return bool(data)

    def lose(self) -> None:
        """Cut the wire at this end."""
        if self.application.lost is None:
            self.tls.connectionLost(Failure(ConnectionDone()))


class Conversation:
    """A client and a server, joined."""

    def __init__(self, client: object, server: object) -> None:
        self.clock = Clock()
        self.server = End(server, False, self.clock)
        self.client = End(client, True, self.clock)
        self.pump()

    def pump(self) -> None:
        """Carry bytes until both are quiet, or one has hung up."""
        moved = True
        while moved:
            self.clock.advance(0)
            moved = self.client.deliverTo(self.server)
            moved = self.server.deliverTo(self.client) or moved
        if self.client.wire.disconnecting or self.server.wire.disconnecting:
            self.client.lose()
            self.server.lose()

    @property
    def agreed(self) -> bool:
        """Whether both applications have heard each other."""
        return (
            self.client.application.received == b"from server;"
            and self.server.application.received == b"from client;"
        )

    @property
    def silent(self) -> bool:
        """Whether not one byte of an application has come through."""
        return not (self.client.application.received or self.server.application.received)


def protocols(
    version: str = "1.2",
    disabled: Sequence[str] = (),
    groups: Sequence[str] = (),
    ignoreClientOrder: bool = False,
) -> TLSProtocols:
    """Write a `[tls.protocols]` table."""
    return TLSProtocols(
        min_version=MinVersion(version),
        disable_cipher_suites=tuple(disabled),
        groups=tuple(groups),
        ignore_client_order=ignoreClientOrder,
    )


def entry(
    directory: Path,
    leaf: trustme.LeafCert,
    subjects: Sequence[str] | None = None,
    default: bool = False,
) -> Certificate:
    """Write a certificate's files, and the `[tls.certificate.NAME]` table that names them."""
    directory.mkdir(parents=True, exist_ok=True)
    cert, key = directory / "cert.pem", directory / "key.pem"
    cert.write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
    leaf.private_key_pem.write_to_path(str(key))
    return Certificate(
        cert=cert,
        key=key,
        subjects=None if subjects is None else tuple(subjects),
        default=default,
    )
