"""Smuggling: every published shape over TLS, and what a backend gets to see of it.

The backend reads as the standard writes it; what it cannot read so, it keeps as evidence.
"""

import re
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import ClassVar

import attrs

from tests.integration.front import Table
from tests.integration.process import waitUntil
from tests.integration.recorder import Recorder
from tests.integration.scripted import Peer, ScriptedServer
from tests.integration.smuggling import SMUGGLED, TARGET, Fate, Shape, shapes
from tests.integration.smugglingback import ANSWERS, POISON
from tests.integration.web import Malformed, Message, WebClient
from tests.integration.website import WebTestCase, scriptedSite

BATCH = 40
"""Shapes that are on their way at once."""


@attrs.frozen
class Result:
    """What became of a shape.

    :ivar said: all that the client got.
    :ivar closed: whether the connection ended by itself.
    :ivar reached: the requests that arrived; `unfinished` and `malformed` as the recorder has them.
    """

    shape: Shape
    said: bytes
    closed: bool
    reached: list[Message]
    unfinished: list[bytes]
    malformed: list[str]

    @property
    def statuses(self) -> list[int]:
        """The final statuses of all answers."""
        found = map(int, re.findall(rb"^HTTP/1\.1 (\d{3}) ", self.said, re.MULTILINE))
        return [status for status in found if status >= 200]

    def faults(self) -> Iterator[str]:
        """What should not have been."""
        if self.malformed:
            yield f"malformed: {self.malformed}"
        if len(self.statuses) != 1:
            yield f"answers: {self.statuses}"
        if any(each.target.startswith(b"/smuggled") for each in self.reached):
            yield "the smuggled request arrived"
        if self._wasTaken():
            yield from self._faultsOfOne()
        else:
            yield from self._faultsOfNone()

    def _wasTaken(self) -> bool:
        fate = self.shape.fate
        return fate is Fate.ONE or (fate is Fate.EITHER and bool(self.reached))

    def _faultsOfOne(self) -> Iterator[str]:
        if len(self.reached) != 1 or self.unfinished:
            yield f"reached: {self.reached}, unfinished: {self.unfinished}"
        elif self.shape.body is not None and self.reached[0].body != self.shape.body:
            yield f"body: {self.reached[0].body!r}"
        for message in self.reached:
            if message.headers.names() & _HOPS or b"h2c" in b"".join(
                message.headers.all(b"upgrade")
            ):
                yield f"hops: {message.headers}"

    def _faultsOfNone(self) -> Iterator[str]:
        if self.reached:
            yield f"reached: {self.reached}"
        if self.unfinished and self.shape.fate is not Fate.CUT:
            yield f"unfinished: {self.unfinished}"
        if not self.closed:
            yield "the connection stays open"
        if not set(self.statuses) <= set(self.shape.statuses):
            yield f"status: {self.statuses}"


_HOPS = {b"http2-settings", b"keep-alive", b"te"}


class RequestTests(WebTestCase):
    """All shapes go to one backend, over connections that are shared."""

    recorder: ClassVar[Recorder]
    scripted: ClassVar[ScriptedServer]
    routes: ClassVar[list[Table]] = [{"match": "**", "destination": "scripted"}]

    @classmethod
    def startServers(cls, stack: ExitStack) -> None:
        """No nginx is needed."""
        cls.makeAuthority(stack)
        cls.recorder = Recorder()
        cls.scripted = stack.enter_context(ScriptedServer(cls.recorder))
        cls.startProxy(stack, cls.configuration())

    @classmethod
    def destinations(cls) -> dict[str, Table]:
        """The one."""
        return {"scripted": scriptedSite(cls.scripted)}

    @classmethod
    def configuration(cls) -> Table:
        """Whatever is not complete is given up soon."""
        config = super().configuration()
        config["listener"]["https"]["preauth_timeout"] = "2s"
        config["http"]["relay_idle"] = "2s"
        return config

    def setUp(self) -> None:
        """Begin a new record."""
        super().setUp()
        self.recorder.forget()

    def test_everyShape(self) -> None:
        """Is refused, or arrives as one request that leaves no doubt."""
        faults: list[str] = []
        everything = list(enumerate(shapes()))
        for first in range(0, len(everything), BATCH):
            for result in self.run_(everything[first : first + BATCH]):
                found = "; ".join(result.faults())
                faults += [f"{result.shape.name}: {found}: {result.said[:60]!r}"] if found else []
        self.assertEqual(faults, [], "\n".join(["", *faults]))
        self.assertEqual(self.scripted.failures, [])

    def run_(self, batch: list[tuple[int, Shape]]) -> list[Result]:
        """Send each over a connection of its own; what came of them."""
        self.recorder.forget()
        ends = []
        for number, shape in batch:
            client = self.web()
            client.send(_numbered(shape.sent, number))
            ends.append(_Listening(client))
        waitUntil(lambda: all(each.settled() for each in ends), 20)
        time.sleep(0.2)  # for a second answer, or a request that follows, where there is one
        results = []
        for end, (number, shape) in zip(ends, batch, strict=True):
            end.settled()
            results.append(self.result(shape, number, end))
            end.client.close()
        return results

    def result(self, shape: Shape, number: int, end: "_Listening") -> Result:
        """Put together what belongs to one shape."""
        mark = _numbered(TARGET, number)
        smuggled = _numbered(SMUGGLED, number).split()[1]
        return Result(
            attrs.evolve(shape, body=_numbered(shape.body, number)),
            end.said,
            end.closed,
            [each for each in self.recorder.messages() if each.target.startswith((mark, smuggled))],
            [each for each in self.recorder.unfinished if mark in each],
            [each for each in self.recorder.malformed if mark.decode() in each],
        )

    def test_aBodyOfAnEarlyAnswerIsNoRequest(self) -> None:
        """0.CL: a backend that does not read a body never gets it as the next request."""
        self.recorder.early = _hasty
        client = self.web()
        client.sendRequest("/early", "POST", SMUGGLED * 20)
        self.assertEqual(client.answer().body, b"early")
        client.close()
        for _ in range(3):
            self.assertEqual(self.web().ask("/next").body, b"/next\n")
        self.assertEqual(self.recorder.malformed, [])
        self.assertNotIn(SMUGGLED.split()[1], {each.target for each in self.recorder.messages()})

    def test_aBodyThatBreaksOffIsNotMadeUp(self) -> None:
        """A client that leaves in its body takes the backend connection with it."""
        arrived = threading.Event()

        def note(peer: Peer, head: Message) -> bool:
            arrived.set()
            return True

        self.recorder.early = note
        client = self.web()
        client.sendRequest("/broken", "POST", Content_Length="1000")
        client.send(b"x" * 10)
        self.assertTrue(arrived.wait(20), "nothing arrives")
        client.close()
        self.assertEventually(lambda: bool(self.recorder.unfinished), "it goes on")
        self.assertEqual(self.web().ask("/next").body, b"/next\n")
        self.assertEqual(self.recorder.malformed, [])

    # Answers

    def test_everyBadAnswer(self) -> None:
        """Is 502 or is cut; the next client gets what it asked for, and nobody else's."""
        faults: list[str] = []
        for name, data in ANSWERS.items():
            self.recorder.forget()
            self.recorder.answering = _Once(data)
            faults += [f"{name}: {each}" for each in self.faultsOfAnswer()]
        self.assertEqual(faults, [], "\n".join(["", *faults]))

    def faultsOfAnswer(self) -> Iterator[str]:
        """Ask once for the bad answer and then for good ones, as the same and as another client."""
        client = self.web()
        client.sendRequest("/bad")
        try:
            answer = client.answer()
            if answer.status == 200:
                yield f"is taken: {answer}"
            elif answer.status != 502:
                yield f"is {answer.status}"
        except (Malformed, EOFError, ConnectionError) as error:
            if POISON in client.unread or isinstance(error, Malformed):
                yield f"{error!r}: {client.unread!r}"
        for other in (self.web(), self.web()):
            answer = other.ask("/next")
            if (answer.status, answer.body) != (200, b"/next\n"):
                yield f"the next one is {answer}"

    def test_whatFollowsAnAnswerBelongsToNobody(self) -> None:
        """Bytes behind an answer, with it or later: the connection is not used again."""
        for pause in (0.0, 0.1):
            self.recorder.answering = _Tail(pause)
            client = self.web()
            self.assertEqual(client.ask("/first").body, b"ok")
            time.sleep(2 * pause)
            for other in (client, self.web(), self.web()):
                answer = other.ask("/next")
                self.assertEqual(answer.body, b"/next\n", pause)


class _Listening:
    """A client whose connection is read as long as something comes."""

    def __init__(self, client: WebClient) -> None:
        self.client, self.said, self.closed = client, b"", False

    def settled(self) -> bool:
        """Read what has come; whether the connection has ended, or may stay behind its answer."""
        self.client.socket.settimeout(0.001)
        try:
            while not self.closed:
                data = self.client.socket.recv(65536)
                self.said, self.closed = self.said + data, not data
        except TimeoutError:
            pass
        except OSError:
            self.closed = True
        return self.closed or bool(re.search(rb"^HTTP/1\.1 2", self.said, re.MULTILINE))


def _numbered(data: bytes | None, number: int) -> bytes:
    """Have the targets in it bear a number."""
    return re.sub(rb"/(shape|smuggled)000", rb"/\g<1>%03d" % number, data or b"")


def _hasty(peer: Peer, head: Message) -> bool:
    """Answer before the body is read, as if the connection could be used again."""
    if head.target != b"/early":
        return True
    peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nearly")
    while True:
        peer.readThrough(b"\r\n\r\n")


class _Once:
    """Answers the first request with given bytes, the others well."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def __call__(self, peer: Peer, request: Message) -> bool:
        """Answer; after the bad one the connection ends, unless it says what it is not asked."""
        if request.target == b"/bad":
            peer.send(self.data)
            time.sleep(0.05)
            return False
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n%b\n" % request.target)
        return True


class _Tail:
    """Sends an answer that nobody asked for behind the first one."""

    def __init__(self, pause: float) -> None:
        self.pause = pause

    def __call__(self, peer: Peer, request: Message) -> bool:
        """Answer."""
        if request.target != b"/first":
            return _Once(b"")(peer, request)
        first = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
        poison = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(POISON), POISON)
        if not self.pause:
            first += poison
        peer.send(first)
        if self.pause:
            time.sleep(self.pause)
            peer.send(poison)
        return True
