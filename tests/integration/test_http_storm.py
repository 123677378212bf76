"""Five hundred HTTP clients of every kind at once, and nothing left of them."""

import contextlib
import random
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import ClassVar, TypeAlias

from tests.integration.accounts import at
from tests.integration.front import Table, destination
from tests.integration.network import freePort, memoryGrowth, openFiles
from tests.integration.recorder import Recorder
from tests.integration.scripted import Peer, ScriptedServer
from tests.integration.storm import storm
from tests.integration.web import Message, WebClient, chunks, requestBytes
from tests.integration.website import WebTestCase, basic, scriptedSite

CLIENTS, AT_ONCE = 500, 30
MOST_GROWTH = 40_000_000

Dice: TypeAlias = random.Random
Behaviour: TypeAlias = Callable[[WebClient, Dice, str], None]
"""What a client does, given its connection and the destination of its account."""


def _authorized(place: str) -> str:
    return basic(at(place))


def asks(client: WebClient, dice: Dice, place: str) -> None:
    """Ask some things, and get what was asked for."""
    for _ in range(dice.randrange(1, 5)):
        path = f"/{dice.random()}"
        answer = client.ask(path, Authorization=_authorized(place))
        if place in GOOD:
            assert answer.body == f"GET {path}\n".encode(), answer
            assert answer.header("x-server") == place, answer
        else:
            assert answer.status == 502, answer
        if answer.header("connection") == "close":
            return


def sends(client: WebClient, dice: Dice, place: str) -> None:
    """Send a body in one way or the other, and get it back."""
    body = dice.randbytes(dice.choice([1, 1000, 200_000]))
    said, sent = {"Authorization": _authorized(place)}, body
    if dice.random() < 0.5:
        said["Transfer_Encoding"], sent = "chunked", chunks(body)
    with contextlib.suppress(EOFError, ConnectionError):  # a refusal may come before the body's end
        answer = client.ask("/echo", "POST", sent, **said)
        assert answer.body == body or place not in GOOD, answer


def leaves(client: WebClient, dice: Dice, place: str) -> None:
    """Break off anywhere in a request."""
    whole = requestBytes("POST", "/echo", {"Authorization": _authorized(place)}, b"x" * 5000)
    client.send(whole[: dice.randrange(len(whole))])


def leavesTheAnswer(client: WebClient, dice: Dice, place: str) -> None:
    """Ask for something large or late, and read only the beginning of it."""
    target = dice.choice(["/files/big", "/wait?seconds=5", "/events?seconds=5", "/chunked"])
    client.sendRequest(target, Authorization=_authorized(place))
    with contextlib.suppress(TimeoutError, EOFError, ConnectionError):
        client.socket.settimeout(dice.random() * 0.2)
        client.socket.recv(1000)


def pipelines(client: WebClient, dice: Dice, place: str) -> None:
    """Send many requests at once, and read some of the answers."""
    count = dice.randrange(2, 30)
    for number in range(count):
        client.sendRequest(f"/{number}", Authorization=_authorized(dice.choice(GOOD)))
    for number in range(dice.randrange(count)):
        assert client.answer().body == b"GET /%d\n" % number


def talksNonsense(client: WebClient, dice: Dice, place: str) -> None:
    """Send noise, perhaps behind a request."""
    if dice.random() < 0.5:
        client.sendRequest("/x", Authorization=_authorized(place))
    with contextlib.suppress(ConnectionError):
        client.send(dice.randbytes(500) + b"\r\n\r\n")
        client.readToEnd()


def hasty(client: WebClient, dice: Dice, place: str) -> None:
    """Leave at once."""


GOOD = ("old", "new")
PLACES = (*GOOD, "away", "breaking")

BEHAVIOURS: Sequence[tuple[int, Behaviour]] = (
    (40, asks),
    (16, sends),
    (12, leaves),
    (12, leavesTheAnswer),
    (8, pipelines),
    (6, talksNonsense),
    (6, hasty),
)
"""How often in a hundred somebody does what."""


def _break(peer: Peer, _: Message) -> bool:
    """Begin an answer, and go."""
    peer.send(b"HTTP/1.1 200 OK\r\nContent-Le")
    return False


class StormTests(WebTestCase):
    """All of it at once."""

    breaking: ClassVar[ScriptedServer]

    @classmethod
    def startOthers(cls, stack: ExitStack) -> None:
        """A backend that breaks off each answer, and something large."""
        cls.breaking = stack.enter_context(ScriptedServer(Recorder(_break)))
        for server in (cls.old, cls.new):
            server.putZeros("big", 100_000_000)

    @classmethod
    def places(cls) -> Sequence[str]:
        """One of them is nobody."""
        return PLACES

    @classmethod
    def destinations(cls) -> dict[str, Table]:
        """One that breaks off and one that is nobody, beside the two."""
        nobody = {"http": {"port": freePort(), "tls": "implicit"}}
        return {
            **super().destinations(),
            "breaking": scriptedSite(cls.breaking),
            "away": destination(1, "localhost", protocol=nobody),
        }

    def test_nothingIsLeftOfFiveHundredClients(self) -> None:
        """Who behaves is served, whoever else is there; afterwards files, sessions and memory are
        back where they were, and the next request is answered."""
        self.visit(Dice(0), asks, "old")
        self.assertEventually(lambda: not self.connections(), "the first is still there")
        filesBefore = openFiles(self.proxy.pid)
        with memoryGrowth(self.proxy.pid) as growth:
            wrong = storm(self.visit, BEHAVIOURS, PLACES, CLIENTS, AT_ONCE)
            self.assertEqual(wrong, [])
            self.assertEventually(lambda: not self.connections(), "sessions are left", 20)
            self.assertEventually(
                lambda: openFiles(self.proxy.pid) <= filesBefore, "files are left", 20
            )
            self.assertLess(growth(), MOST_GROWTH)
        self.visit(Dice(0), asks, "new")

    def visit(self, dice: Dice, behaviour: Behaviour, place: str) -> None:
        """One client; it closes or resets."""
        client = WebClient(self.proxy.portOf("https"), self.context)
        try:
            behaviour(client, dice, place)
        finally:
            (client.reset if dice.random() < 0.3 else client.close)()
