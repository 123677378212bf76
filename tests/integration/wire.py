"""The wire as a test wants it: exact lines to and from a mail server, over a blocking socket."""

import base64
import contextlib
import ipaddress
import socket
import ssl
import struct
from typing import Self

TIMEOUT = 60.0
"""Seconds that any single read or write may take; a loaded machine needs some for a login."""


class Wire:
    """One end of a connection: sends what it is told and reads lines; knows no protocol.

    :ivar socket: owned by this object from now on.
    """

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.socket.settimeout(TIMEOUT)
        self._unread = b""

    @property
    def unread(self) -> bytes:
        """What has come and was not asked for yet."""
        return self._unread

    def send(self, data: bytes) -> None:
        """Send `data` as it is."""
        self.socket.sendall(data)

    def sendSlowly(self, data: bytes) -> None:
        """Send `data` with a segment for each byte."""
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(len(data)):
            self.socket.sendall(data[at : at + 1])

    def readLine(self, timeout: float = TIMEOUT) -> bytes:
        """The next line without its CRLF.

        :raises EOFError: if the peer closes first.
        :raises TimeoutError: if nothing comes for `timeout` seconds.
        """
        self.socket.settimeout(timeout)
        while b"\n" not in self._unread:
            self._unread += self._receive()
        line, _, self._unread = self._unread.partition(b"\n")
        return line.removesuffix(b"\r")

    def readExactly(self, count: int) -> bytes:
        """The next `count` bytes; in memory, so 50 MB are fine and more is unkind."""
        parts, missing = [self._unread], count - len(self._unread)
        while missing > 0:
            parts.append(self._receive())
            missing -= len(parts[-1])
        data = b"".join(parts)
        self._unread = data[count:]
        return data[:count]

    def readThrough(self, delimiter: bytes) -> bytes:
        """The next bytes up to and with `delimiter`."""
        while delimiter not in self._unread:
            self._unread += self._receive()
        data, found, self._unread = self._unread.partition(delimiter)
        return data + found

    def readUntil(self, prefix: bytes) -> list[bytes]:
        """The lines up to and with the first that begins with `prefix`, a tag for instance."""
        lines = [self.readLine()]
        while not lines[-1].startswith(prefix):
            lines.append(self.readLine())
        return lines

    def readToEnd(self) -> bytes:
        """All that still comes before the peer closes, however it does."""
        data, self._unread = self._unread, b""
        with contextlib.suppress(EOFError, ConnectionError):
            while True:
                data += self._receive()
        return data

    def atEnd(self) -> bool:
        """Wait for the peer to close; false if it says something instead."""
        try:
            self._unread += self._receive()
        except EOFError:
            return True
        return False

    def close(self) -> None:
        """Close it, politely or not."""
        self.socket.close()

    def reset(self) -> None:
        """Close it by a reset, as a crash does."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def _receive(self) -> bytes:
        data = self.socket.recv(262144)
        if not data:
            raise EOFError("the peer closed the connection")
        return data

    def __enter__(self) -> Self:
        """Nothing to do: it is connected since it was made."""
        return self

    def __exit__(self, *ignored: object) -> None:
        """Close it."""
        self.close()


class LineClient(Wire):
    """A connection to a server on loopback.

    :param context: start with TLS at once, verifying the name `hostname`.
    :param preface: bytes before everything else, a PROXY header for instance.
    :param source: the address to come from; all of 127.0.0.0/8 is ours to use.
    :param host: the address to go to.
    """

    def __init__(
        self,
        port: int,
        context: ssl.SSLContext | None = None,
        *,
        hostname: str = "localhost",
        preface: bytes = b"",
        source: str = "",
        host: str = "127.0.0.1",
    ) -> None:
        self._hostname = hostname
        super().__init__(
            socket.create_connection((host, port), TIMEOUT, source_address=(source, 0))
        )
        self.send(preface)
        if context is not None:
            self.startTLS(context)

    def startTLS(self, context: ssl.SSLContext) -> None:
        """Do the handshake now; bytes read before it and not yet taken are dropped."""
        self._unread = b""
        self.socket = context.wrap_socket(self.socket, server_hostname=self._hostname)

    def command(self, line: bytes) -> list[bytes]:
        """Send a tagged IMAP command without its CRLF; the answer up to its tagged line."""
        self.send(line + b"\r\n")
        return self.readUntil(line.split(b" ", 1)[0] + b" ")


def proxyHeader(source: tuple[str, int], destination: tuple[str, int]) -> bytes:
    """A PROXY v2 header for TCP, from its specification and not by the code under test."""
    addresses = [ipaddress.ip_address(host) for host, _ in (source, destination)]
    family = 0x11 if addresses[0].version == 4 else 0x21
    body = b"".join(address.packed for address in addresses)
    body += struct.pack("!HH", source[1], destination[1])
    return b"\r\n\r\n\x00\r\nQUIT\n" + struct.pack("!BBH", 0x21, family, len(body)) + body


def plain(user: str, password: bytes, authzid: str = "") -> bytes:
    """The SASL PLAIN message, not yet in base64."""
    return b"\0".join([authzid.encode(), user.encode(), password])


def xoauth2(user: str, token: str) -> bytes:
    """The XOAUTH2 message, not yet in base64."""
    return f"user={user}\x01auth=Bearer {token}\x01\x01".encode()


def oauthBearer(user: str, token: str) -> bytes:
    """The OAUTHBEARER message (RFC 7628), not yet in base64."""
    return f"n,a={user},\x01auth=Bearer {token}\x01\x01".encode()


def base64Of(message: bytes) -> bytes:
    """A SASL message as it goes into a command."""
    return base64.b64encode(message)
