"""An HTTP backend that keeps what reaches it, and answers as a test says."""

import threading
from collections.abc import Callable
from typing import TypeAlias

import attrs

from tests.integration.scripted import Peer
from tests.integration.web import Malformed, Message, readRequestBody, readRequestHead

Answering: TypeAlias = Callable[[Peer, Message], bool]
"""Answers a request; false closes the connection."""


def answerBytes(body: bytes = b"ok\n", status: str = "200 OK", *fields: str) -> bytes:
    """A whole answer with its length."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *fields, "", ""]
    return "\r\n".join(lines).encode("latin-1") + body


def agreeable(peer: Peer, request: Message) -> bool:
    """Answer 200 with the target as body."""
    peer.send(answerBytes(request.target + b"\n"))
    return True


def unhurried(peer: Peer, head: Message) -> bool:
    """Wait for the body."""
    return True


@attrs.frozen
class Recorded:
    """A request as it came.

    :ivar connection: the number of its connection, from 1.
    """

    connection: int
    message: Message


class Recorder:
    """The script of a `ScriptedServer`: reads well-formed requests, one after the other.

    :ivar requests: those that were whole.
    :ivar unfinished: bytes of requests that broke off, by the other side's close.
    :ivar malformed: bytes that are no request; the connection ends with them.
    :ivar answering: how requests are answered; a test may change it.
    :ivar early: what is done with a head before the body is read; false ends the connection.
    """

    def __init__(self, answering: Answering = agreeable) -> None:
        self.requests: list[Recorded] = []
        self.unfinished: list[bytes] = []
        self.malformed: list[str] = []
        self.answering = answering
        self.early: Answering = unhurried
        self._connections = 0
        self._lock = threading.Lock()

    def __call__(self, peer: Peer) -> None:
        """Serve one connection."""
        with self._lock:
            self._connections += 1
            number = self._connections
        while self._one(peer, number):
            pass

    def _one(self, peer: Peer, number: int) -> bool:
        already = len(peer.history) - len(peer.unread)
        try:
            head = readRequestHead(peer)
            if not self.early(peer, head):
                return False
            request = readRequestBody(peer, head)
        except Malformed as error:
            self.malformed.append(f"{error}: {bytes(peer.history[already:])!r}")
            return False
        except (EOFError, OSError):
            if len(peer.history) > already:
                self.unfinished.append(bytes(peer.history[already:]))
            return False
        self.requests.append(Recorded(number, request))
        return self.answering(peer, request)

    def forget(self) -> None:
        """Begin a new record, and answer as at first."""
        self.requests, self.unfinished, self.malformed = [], [], []
        self.answering, self.early = agreeable, unhurried

    def messages(self) -> list[Message]:
        """The requests themselves."""
        return [each.message for each in self.requests]
