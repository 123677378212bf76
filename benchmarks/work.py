"""The loads: what is sent through a proxy, and what one unit of it is.

Knows IMAP as a client speaks it; must not know which proxy is in between, nor how its costs are
read.
"""

import ssl
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, cast

import attrs

from benchmarks.traffic import Connection, Job, Script, Stalled, Swarm
from tests.integration.accounts import ALICE

WIDTH = 8
"""Connections at a time, for every load but the idle sessions."""

_LOGIN = b"LOGIN %b %b" % (ALICE.name.encode(), ALICE.password)


@attrs.frozen
class Line:
    """A way to the server: through a proxy, or straight.

    :ivar context: what clients do TLS with; None: they do none.
    """

    port: int
    context: ssl.SSLContext | None

    def connect(self, session: ssl.SSLSession | None = None) -> Connection:
        """Make a connection; its handshake is still to come."""
        return Connection.to(self.port, self.context, session)


def command(connection: Connection, text: bytes) -> Script:
    """Send a command and read to its tagged answer, which must be OK."""
    yield from connection.send(b"a %b\r\n" % text)
    yield from answered(connection, b"OK")


def answered(connection: Connection, status: bytes) -> Script:
    """Read to the tagged answer; literals on the way are dropped.

    :raises Stalled: when it is another than is expected.
    """
    while not (line := (yield from connection.line())).startswith(b"a "):
        if line.endswith(b"}"):
            yield from connection.skip(int(line[line.rindex(b"{") + 1 : -1]))
    if not line.startswith(b"a " + status):
        raise Stalled(f"the server has answered {line!r}")


def logIn(connection: Connection) -> Script:
    """Shake hands and log in."""
    yield from connection.handshake()
    yield from connection.line()
    yield from command(connection, _LOGIN)


def logOut(connection: Connection) -> Script:
    """Log out, and wait for the close."""
    yield from command(connection, b"LOGOUT")
    yield from connection.ended()


def openAll(line: Line, count: int) -> list[Connection]:
    """Log in so often; the connections stay open."""
    made = []

    def jobs() -> Iterator[Job]:
        for _ in range(count):
            connection = line.connect()
            made.append(connection)
            yield Job(connection, logIn(connection), kept=True)

    Swarm().run(jobs(), WIDTH)
    return made


def closeAll(connections: list[Connection]) -> None:
    """Log out everywhere."""
    Swarm().run((Job(each, logOut(each)) for each in connections), WIDTH)


class Load(Protocol):
    """Work of one kind.

    :ivar key: its name in the JSON file.
    :ivar amount: what one run is, in units: logins, bytes or messages.
    """

    key: str
    amount: float

    def ready(self, line: Line) -> AbstractContextManager[Callable[[], None]]:
        """Prepare, which is not measured; gives a function that does the work."""


class Logins:
    """Connect, log in, log out.

    :param resumed: whether the clients resume their TLS sessions.
    :param width: how many at a time.
    """

    def __init__(self, count: int, *, resumed: bool = False, width: int = WIDTH) -> None:
        self.key = "login_resumed" if resumed else "login"
        self.amount = float(count)
        self._count, self._resumed, self._width = count, resumed, width

    @contextmanager
    def ready(self, line: Line) -> Iterator[Callable[[], None]]:
        """Get a session to resume."""
        session = _sessionOf(line) if self._resumed else None

        def work() -> None:
            connections = (line.connect(session) for _ in range(self._count))
            Swarm().run((Job(each, self._visit(each)) for each in connections), self._width)

        yield work

    def _visit(self, connection: Connection) -> Script:
        yield from logIn(connection)
        if self._resumed and not cast(ssl.SSLSocket, connection.socket).session_reused:
            raise Stalled("a session is not resumed")
        yield from logOut(connection)


def _sessionOf(line: Line) -> ssl.SSLSession | None:
    """Log in once: a server's tickets are here when it has said something."""
    [connection] = openAll(line, 1)
    session = cast(ssl.SSLSocket, connection.socket).session
    closeAll([connection])
    return session


class _Open:
    """What is done on connections that are open already; a subclass gives the script."""

    key: str
    amount: float
    width = WIDTH

    @contextmanager
    def ready(self, line: Line) -> Iterator[Callable[[], None]]:
        """Log in and go to the mailbox."""
        connections = openAll(line, self.width)
        Swarm().run((_kept(each, command(each, b"SELECT INBOX")) for each in connections), WIDTH)

        def work() -> None:
            Swarm().run((_kept(each, self.script(each)) for each in connections), WIDTH)

        yield work
        closeAll(connections)

    def script(self, connection: Connection) -> Script:
        """Do one connection's share."""
        raise NotImplementedError


class Download(_Open):
    """Fetch the first message again and again.

    :param size: its bytes.
    :param total: bytes of a run, about.
    """

    key, width = "down", 2

    def __init__(self, size: int, total: int) -> None:
        self._times = max(1, total // size // self.width)
        self.amount = float(self._times * self.width * size)

    def script(self, connection: Connection) -> Script:
        """Fetch it."""
        for _ in range(self._times):
            yield from command(connection, b"FETCH 1 (BODY.PEEK[])")


class Upload(_Open):
    """Append a message to a mailbox that is not there: the server reads it all, and keeps nothing.

    :param size: its bytes.
    :param total: bytes of a run, about.
    """

    key, width = "up", 2

    def __init__(self, size: int, total: int) -> None:
        self._message, self._times = b"x" * size, max(1, total // size // self.width)
        self.amount = float(self._times * self.width * size)

    def script(self, connection: Connection) -> Script:
        """Send it, as a literal that does not wait for consent (RFC 7888)."""
        for _ in range(self._times):
            yield from connection.send(b"a APPEND Nowhere {%d+}\r\n" % len(self._message))
            yield from connection.send(self._message)
            yield from connection.send(b"\r\n")
            yield from answered(connection, b"NO")


class Messages(_Open):
    """Send small commands, each after the answer to the last.

    :param count: commands; each and its answer are two messages.
    """

    key = "message"

    def __init__(self, count: int) -> None:
        self._each = max(1, count // self.width)
        self.amount = 2.0 * self._each * self.width

    def script(self, connection: Connection) -> Script:
        """Ask for nothing."""
        for _ in range(self._each):
            yield from command(connection, b"NOOP")


def _kept(connection: Connection, script: Script) -> Job:
    return Job(connection, script, kept=True)
