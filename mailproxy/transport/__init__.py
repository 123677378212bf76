"""TCP transports whose TLS sits on the socket itself.

Twisted's own TLS stands between a transport and its protocol: each byte goes through the socket's
buffer, a buffer of OpenSSL's and Python's before anybody sees it. Here OpenSSL reads and writes the
socket, and two transports that are *joined* move bytes from one to the other by one shared buffer
without waking their protocols.

`Server` and `Client` are the transports, `listen` and `connect` put them to use. Whoever makes TLS
connections for them provides `openssl.ISocketTLS`; with any other creator TLS is Twisted's own,
over these transports.
"""

from mailproxy.transport.connection import SocketConnection
from mailproxy.transport.endpoints import Client, Connector, Server, connect, equip
from mailproxy.transport.interfaces import IStreamTransport, Receiver
from mailproxy.transport.joint import JoinableConnection

__all__ = [
    "Client",
    "Connector",
    "IStreamTransport",
    "JoinableConnection",
    "Receiver",
    "Server",
    "SocketConnection",
    "connect",
    "equip",
]
