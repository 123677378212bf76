"""A backend that does what a test says, line by line, however wrong that is.

A *script* is a function of one connection; it runs in a thread of its own. What clients sent is
kept, so that a test can see that no secret was among it.
"""

import socket
import ssl
import threading
from collections.abc import Callable, Iterable
from typing import Self, TypeAlias

from tests.integration.wire import Wire

MOST_KEPT = 1_000_000
"""Bytes that are kept of what clients sent."""


class Peer(Wire):
    """The server's end of a connection.

    :ivar upgrade: what STARTTLS is to be done with; None where there is no such thing.
    :ivar history: what the client sent on this connection, from its begin.
    """

    def __init__(
        self, connection: socket.socket, received: bytearray, upgrade: ssl.SSLContext | None
    ) -> None:
        super().__init__(connection)
        self._received = received
        self.upgrade = upgrade
        self.history = bytearray()

    def startTLS(self, context: ssl.SSLContext) -> None:
        """Do the handshake now, as the server."""
        self._unread = b""
        self.socket = context.wrap_socket(self.socket, server_side=True)

    def answer(self, text: bytes) -> bytes:
        """Read a command and answer with its tag and `text`; the command, without its tag."""
        tag, _, command = self.readLine().partition(b" ")
        self.send(tag + b" " + text + b"\r\n")
        return command

    def hold(self) -> None:
        """Say nothing until the other side has closed."""
        self.readToEnd()

    def _receive(self) -> bytes:
        data = super()._receive()
        for kept in (self._received, self.history):
            if len(kept) < MOST_KEPT:
                kept += data
        return data


Script: TypeAlias = Callable[[Peer], None]


class ScriptedServer:
    """Runs a script for each connection to a port of its own.

    The connection is closed when the script returns, and a peer that goes ends it quietly.

    :ivar received: all that clients sent, TLS undone.
    :ivar connections: how many there were; `active`: how many there are.
    :ivar failures: what went wrong in scripts: a test should find it empty.
    """

    def __init__(
        self,
        script: Script,
        context: ssl.SSLContext | None = None,
        upgrade: ssl.SSLContext | None = None,
    ) -> None:
        """Listen at once.

        :param context: begin each connection with TLS.
        :param upgrade: for scripts that begin TLS themselves.
        """
        self._script, self._context, self._upgrade = script, context, upgrade
        self.received = bytearray()
        self.failures: list[BaseException] = []
        self.connections = self.active = 0
        self._counting = threading.Lock()
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port: int = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self._count(1)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with Peer(connection, self.received, self._upgrade) as peer:
            try:
                if self._context is not None:
                    peer.startTLS(self._context)
                self._script(peer)
            except (EOFError, OSError):
                pass  # the peer has gone, which is its right
            except BaseException as failure:
                self.failures.append(failure)
        self._count(-1)

    def _count(self, change: int) -> None:
        with self._counting:
            self.active += change
            self.connections += max(0, change)

    def close(self) -> None:
        """Accept no more; scripts that run end with their connections."""
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()

    def __enter__(self) -> Self:
        """Nothing to do: it listens already."""
        return self

    def __exit__(self, *ignored: object) -> None:
        """Close it."""
        self.close()


def greeting(capabilities: bytes = b"SASL-IR AUTH=PLAIN", status: bytes = b"OK") -> bytes:
    """An IMAP greeting that tells its capabilities."""
    return b"* %b [CAPABILITY IMAP4rev1 %b] scripted\r\n" % (status, capabilities)


def wellBehaved(peer: Peer) -> None:
    """Take any login and give back every line that follows."""
    peer.send(greeting())
    peer.answer(b"OK Logged in")
    while True:
        peer.send(b"* echo " + peer.readLine() + b"\r\n")


def saying(data: bytes, *, thenHold: bool = False) -> Script:
    """Say one thing at once, and close or keep silent."""

    def script(peer: Peer) -> None:
        peer.send(data)
        if thenHold:
            peer.hold()

    return script


def answering(texts: Iterable[bytes], capabilities: bytes = b"SASL-IR AUTH=PLAIN") -> Script:
    """Greet, answer each command in turn with a text for its tagged line, and hold."""
    texts = tuple(texts)

    def script(peer: Peer) -> None:
        peer.send(greeting(capabilities))
        for text in texts:
            peer.answer(text)
        peer.hold()

    return script
