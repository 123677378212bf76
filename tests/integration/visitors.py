"""What the clients of a storm do: one function for each behaviour, good or bad."""

import contextlib
import random
import ssl
from collections.abc import Callable, Sequence

import attrs

from tests.integration.accounts import at
from tests.integration.front import loginLine
from tests.integration.proxy import ProxyProcess
from tests.integration.wire import LineClient

Behaviour = Callable[["Visitor"], None]


@attrs.frozen
class Visitor:
    """One session of the storm: where it comes in, where its account lives, its dice."""

    proxy: ProxyProcess
    context: ssl.SSLContext
    front: str
    backend: str
    dice: random.Random

    def connect(self) -> LineClient:
        """A connection, nothing said."""
        return LineClient(self.proxy.portOf(self.front))

    def secured(self, client: LineClient) -> None:
        """Come past TLS, by whichever way the front has."""
        if self.proxy.modeOf(self.front) == "starttls":
            client.readLine()
            client.command(b"s STARTTLS")
            client.startTLS(self.context)
        else:
            client.startTLS(self.context)
            client.readLine()

    def leave(self, client: LineClient) -> None:
        """Close, or reset."""
        (client.reset if self.dice.random() < 0.5 else client.close)()


def logsIn(visitor: Visitor) -> None:
    """Do all as it should be done; the answer is never that somebody else's fault is ours."""
    with visitor.connect() as client:
        visitor.secured(client)
        client.send(loginLine(at(visitor.backend)))
        answer = client.readUntil(b"l ")[-1]
        expected = {"good": b"l OK ", "wrong": b"l NO [AUTHENTICATIONFAILED] "}
        wanted = expected.get(visitor.backend, b"l NO [UNAVAILABLE] ")
        assert answer.startswith(wanted), f"{visitor.backend}: {answer!r}"
        if visitor.backend == "good":
            client.send(b"ping\r\n")
            assert client.readLine() == b"* echo ping"


def leavesAtOnce(visitor: Visitor) -> None:
    """Connect and go."""
    visitor.leave(visitor.connect())


def leavesInTheHandshake(visitor: Visitor) -> None:
    """Send half a client hello."""
    client = visitor.connect()
    client.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + visitor.dice.randbytes(40))
    visitor.leave(client)


def leavesInTheDialogue(visitor: Visitor) -> None:
    """Break off a command, a literal or a SASL exchange."""
    client = visitor.connect()
    visitor.secured(client)
    unfinished = (
        b"",
        b"a LOG",
        b"a LOGIN {100}\r\n",
        b"a LOGIN {9+}\r\nabc",
        b"a AUTHENTICATE PLAIN\r\n",
    )
    client.send(visitor.dice.choice(unfinished))
    visitor.leave(client)


def leavesAfterTheLogin(visitor: Visitor) -> None:
    """Do not wait for the answer."""
    client = visitor.connect()
    visitor.secured(client)
    client.send(loginLine(at(visitor.backend)))
    if visitor.dice.random() < 0.5:
        with contextlib.suppress(TimeoutError, EOFError, ConnectionError):
            client.readLine(timeout=visitor.dice.random() * 0.2)
    visitor.leave(client)


def talksNonsense(visitor: Visitor) -> None:
    """Send noise, in the clear, to whatever port it is; read what comes."""
    client = visitor.connect()
    with contextlib.suppress(ConnectionError):
        client.send(visitor.dice.randbytes(500) + b"\r\n")
    visitor.leave(client)


def saysNothing(visitor: Visitor) -> None:
    """Wait to be closed, at a door where that takes a second."""
    hasty = attrs.evolve(visitor, front=visitor.dice.choice(["hasty", "hastyup"]))
    with hasty.connect() as client:
        client.readToEnd()


BEHAVIOURS: Sequence[tuple[int, Behaviour]] = (
    (50, logsIn),
    (8, leavesAtOnce),
    (8, leavesInTheHandshake),
    (10, leavesInTheDialogue),
    (16, leavesAfterTheLogin),
    (6, talksNonsense),
    (2, saysNothing),
)
"""How often in a hundred somebody does what."""
