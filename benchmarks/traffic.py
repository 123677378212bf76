"""Many connections in one thread, each led by a script: the load, and the stand-in backend.

Knows sockets, TLS and lines; must not know any proxy, nor what is measured. The load must cost
little beside what is measured, so nothing here is done twice: what is received is dropped as soon
as its size is known.
"""

import selectors
import socket
import ssl
from collections.abc import Callable, Generator, Iterable, Iterator
from itertools import islice
from typing import TypeAlias, TypeVar

import attrs

__all__ = ["Connection", "Job", "Script", "Stalled", "Swarm"]

T = TypeVar("T")
Wait: TypeAlias = Generator[int, None, T]
"""Yields the events that it waits for, and ends with a value."""
Script: TypeAlias = Generator[int, None, None]

PATIENCE = 60.0
"""Seconds without any event after which a run has failed."""

_CHUNK = 262144
_READ, _WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE


class Stalled(Exception):
    """A peer has said nothing for too long, or not what it should."""


class Connection:
    """One end of a connection that does not block.

    :ivar socket: as it is; in TLS if it was made with a context.
    """

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = connection
        self._unread = bytearray()

    @classmethod
    def to(
        cls,
        port: int,
        context: ssl.SSLContext | None = None,
        session: ssl.SSLSession | None = None,
    ) -> "Connection":
        """Connect to a port of this machine.

        :param context: makes TLS, verified for `localhost`; the handshake is the script's.
        :param session: to be resumed.
        """
        made = cls(socket.create_connection(("127.0.0.1", port)))
        if context is not None:
            made.socket = context.wrap_socket(
                made.socket,
                server_hostname="localhost",
                do_handshake_on_connect=False,
                session=session,
            )
        return made

    @classmethod
    def of(cls, accepted: socket.socket, context: ssl.SSLContext | None) -> "Connection":
        """Serve a connection; the handshake is the script's."""
        made = cls(accepted)
        if context is not None:
            made.socket = context.wrap_socket(
                accepted, server_side=True, do_handshake_on_connect=False
            )
        return made

    def handshake(self) -> Wait[None]:
        """Shake hands; nothing to do without TLS."""
        if isinstance(self.socket, ssl.SSLSocket):
            yield from _persist(self.socket.do_handshake, _READ)

    def line(self) -> Wait[bytes]:
        """Read one line, without its end.

        :raises EOFError: when the other side has closed.
        """
        while (end := self._unread.find(b"\n")) < 0:
            self._unread += yield from self._receive()
        line = bytes(self._unread[:end]).removesuffix(b"\r")
        del self._unread[: end + 1]
        return line

    def _receive(self) -> Wait[bytes]:
        data = yield from _persist(lambda: self.socket.recv(_CHUNK), _READ)
        if not data:
            raise EOFError("closed")
        return data

    def skip(self, count: int) -> Wait[None]:
        """Read so many bytes and keep none.

        :raises EOFError: when the other side has closed.
        """
        known = min(count, len(self._unread))
        del self._unread[:known]
        count -= known
        while count:
            most = min(count, _CHUNK)
            got = yield from _persist(lambda: self.socket.recv_into(_waste, most), _READ)  # noqa: B023
            if not got:
                raise EOFError("closed")
            count -= got

    def send(self, data: bytes) -> Wait[None]:
        """Send all bytes."""
        rest = memoryview(data)
        while rest:
            sent = yield from _persist(lambda: self.socket.send(rest), _WRITE)  # noqa: B023
            rest = rest[sent:]

    def ended(self) -> Wait[None]:
        """Wait for the other side to close."""
        try:
            while (yield from _persist(lambda: self.socket.recv_into(_waste), _READ)):
                pass
        except (ssl.SSLError, ConnectionError):
            pass  # it need not be polite

    def close(self) -> None:
        """Close without a word."""
        self.socket.close()


_waste = bytearray(_CHUNK)


def _persist(operation: Callable[[], T], wanted: int) -> Wait[T]:
    """Try until it does not have to wait."""
    while True:
        try:
            return operation()
        except ssl.SSLWantReadError:
            yield _READ
        except ssl.SSLWantWriteError:
            yield _WRITE
        except BlockingIOError:
            yield wanted


@attrs.frozen
class Job:
    """A connection and what is to be done with it.

    :ivar kept: whether it stays open behind the script.
    """

    connection: Connection
    script: Script
    kept: bool = False


class Swarm:
    """Leads scripts, each on its own connection."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()

    def run(self, jobs: Iterable[Job], width: int) -> None:
        """Bring all jobs to their ends, so many at a time; each is made when there is room.

        :raises Stalled: when nothing has happened for `PATIENCE` seconds.
        """
        waiting = iter(jobs)
        with self._selector:
            for job in islice(waiting, width):
                self._begin(job, waiting)
            while open_ := len(self._selector.get_map()):
                events = self._selector.select(PATIENCE)
                if not events:
                    raise Stalled(f"nothing for {PATIENCE:g} s on {open_} connections")
                for key, _ in events:
                    self._advance(key.data, waiting)

    def serve(self, listening: socket.socket, answer: Callable[[socket.socket], Job]) -> None:
        """Lead a script on each connection that is accepted, for ever."""
        listening.setblocking(False)
        self._selector.register(listening, _READ)
        while True:
            for key, _ in self._selector.select():
                if key.data is None:
                    self._begin(answer(listening.accept()[0]), iter(()))
                else:
                    self._advance(key.data, iter(()))

    def _begin(self, job: Job, waiting: Iterator[Job]) -> None:
        self._selector.register(job.connection.socket, _READ, job)
        self._advance(job, waiting)

    def _advance(self, job: Job, waiting: Iterator[Job]) -> None:
        """Lead a script on; where it ends, the next job takes its place."""
        wanted = next(job.script, None)
        if wanted is None:
            self._leave(job)
            for another in islice(waiting, 1):
                self._begin(another, waiting)
        elif self._selector.get_key(job.connection.socket).events != wanted:
            self._selector.modify(job.connection.socket, wanted, job)

    def _leave(self, job: Job) -> None:
        self._selector.unregister(job.connection.socket)
        if not job.kept:
            job.connection.close()
