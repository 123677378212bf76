"""What parent and worker say to each other: AMP over a pair of Unix sockets.

Knows how questions, answers and errors are carried; must not know any question. Arguments and
answers are JSON. Only the parent hands over Python objects: a worker reads what strangers send, so
nothing that comes from one is unpickled.
"""

import json
import pickle
from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.defer import Deferred, fail, maybeDeferred
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import ITransport
from twisted.internet.protocol import connectionDone
from twisted.protocols import amp
from twisted.python.failure import Failure

from mailproxy.errors import (
    BadParameter,
    ConfigError,
    InvalidIdentifier,
    MailProxyError,
    MappingError,
    PeerGone,
    ReadOnlyMapping,
    Unanswered,
    UnknownDestination,
)
from mailproxy.logs import Logger

__all__ = ["Peer"]

PIECE = 0xFFFF
"""Bytes that one AMP value may have."""

_ERRORS: Mapping[str, type[MailProxyError]] = {
    kind.__name__: kind
    for kind in (
        BadParameter,
        InvalidIdentifier,
        MappingError,
        ReadOnlyMapping,
        Unanswered,
        UnknownDestination,
    )
}
"""Errors that an answer may be; `ConfigError` is another one, with many lines."""


class _Pieces(amp.Argument):
    """A value of any length, carried as several of AMP's."""

    def toBox(
        self, name: bytes, strings: amp.AmpBox, objects: dict[str, Any], proto: amp.AMP
    ) -> None:
        """Cut a value."""
        data = self.toBytes(objects[name.decode("ascii")])
        for number, start in enumerate(range(0, len(data) or 1, PIECE)):
            strings[_pieceName(name, number)] = data[start : start + PIECE]

    def fromBox(
        self, name: bytes, strings: amp.AmpBox, objects: dict[str, Any], proto: amp.AMP
    ) -> None:
        """Put a value together."""
        pieces: list[bytes] = []
        while (key := _pieceName(name, len(pieces))) in strings:
            pieces.append(strings.pop(key))
        objects[name.decode("ascii")] = self.fromBytes(b"".join(pieces))

    def toBytes(self, value: Any) -> bytes:
        """Write a value."""
        raise NotImplementedError

    def fromBytes(self, data: bytes) -> Any:
        """Read a value."""
        raise NotImplementedError


def _pieceName(name: bytes, number: int) -> bytes:
    return b"%b.%d" % (name, number)


class _JSON(_Pieces):
    """What JSON can say."""

    def toBytes(self, value: Any) -> bytes:
        """Write it, in ASCII."""
        return json.dumps(value, separators=(",", ":")).encode("ascii")

    def fromBytes(self, data: bytes) -> Any:
        """Read it."""
        return json.loads(data)


class _Object(_Pieces):
    """Any object of ours; only for what the parent says."""

    def toBytes(self, value: Any) -> bytes:
        """Write it."""
        return pickle.dumps(value)

    def fromBytes(self, data: bytes) -> Any:
        """Read it."""
        return pickle.loads(data)


class Ask(amp.Command):
    """A question."""

    arguments = [(b"method", amp.Unicode()), (b"arguments", _JSON())]
    response = [(b"answer", _JSON())]


class Hand(amp.Command):
    """An object that the parent hands to a worker."""

    arguments = [(b"object", _Object())]
    response = [(b"answer", _JSON())]


class Say(amp.Command):
    """Something that needs no answer."""

    arguments = [(b"topic", amp.Unicode()), (b"facts", _JSON())]
    requiresAnswer = False


Methods = Mapping[str, Callable[..., Any]]
"""What can be asked, or said: functions that give a value or a Deferred, by name."""


class Peer(amp.AMP):
    """One end of the connection.

    :param methods: answers questions.
    :param topics: hears what is said; called with one value.
    :param handed: takes what the parent hands over; None in the parent itself, to which nothing is
        handed.
    :param lost: called when the other end is gone.
    """

    log = Logger()

    def __init__(
        self,
        methods: Methods,
        topics: Methods,
        lost: Callable[[], None],
        handed: Callable[[Any], Any] | None = None,
    ) -> None:
        super().__init__()
        self._methods, self._topics, self._lost, self._handed = methods, topics, lost, handed

    def ask(self, method: str, *arguments: Any) -> Deferred[Any]:
        """Ask; fails with the other side's `MailProxyError`, or with `PeerGone`."""
        return self._call(Ask, method=method, arguments=arguments)

    def hand(self, value: object) -> Deferred[Any]:
        """Hand an object over; fails as `ask`."""
        return self._call(Hand, object=value)

    def say(self, topic: str, facts: Any) -> None:
        """Say something; when nobody is there any more, that is all right."""
        if self.transport is not None:
            self.callRemote(Say, topic=topic, facts=facts)

    def _call(self, command: type[amp.Command], **arguments: Any) -> Deferred[Any]:
        if self.transport is None:
            return fail(PeerGone("the other process has ended"))
        asked: Deferred[Any] = maybeDeferred(self.callRemote, command, **arguments)
        # AMP takes what is not handled when the answer comes for a mistake of its own.
        waiter: Deferred[Any] = Deferred()
        asked.addCallbacks(_unwrap, _gone).addCallbacks(waiter.callback, waiter.errback)
        return waiter

    def locateResponder(self, name: bytes) -> Any:
        """Let a worker hand nothing to its parent."""
        if name == Hand.commandName and self._handed is None:
            return None
        return super().locateResponder(name)

    @Ask.responder
    def _asked(self, method: str, arguments: list[Any]) -> Deferred[dict[str, Any]]:
        return self._answer(lambda: self._methods[method](*arguments))

    @Hand.responder
    def _taken(self, object: object) -> Deferred[dict[str, Any]]:
        handed = self._handed
        assert handed is not None, "found by locateResponder"
        return self._answer(lambda: handed(object))

    @Say.responder
    def _heard(self, topic: str, facts: Any) -> dict[str, Any]:
        self._topics[topic](facts)
        return {}

    def _answer(self, work: Callable[[], Any]) -> Deferred[dict[str, Any]]:
        done = maybeDeferred(work)
        return done.addCallbacks(lambda value: {"value": value}, self._wrap).addCallback(
            lambda answer: {"answer": answer}
        )

    def _wrap(self, failure: Failure) -> dict[str, Any]:
        """Word an error for the other side; a mistake of ours is logged on this one."""
        error = failure.value
        if isinstance(error, ConfigError):
            return {"error": "ConfigError", "lines": error.problems}
        if type(error).__name__ not in _ERRORS:
            self.log.failure("a question between our processes met a bug", failure)
            return {"error": "bug", "lines": [type(error).__name__]}
        return {"error": type(error).__name__, "lines": [str(error)]}

    def makeConnection(self, transport: ITransport) -> None:
        """Begin, without AMP's own line in the log."""
        amp.BinaryBoxProtocol.makeConnection(self, transport)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Fail all questions, and tell our side."""
        amp.BinaryBoxProtocol.connectionLost(self, reason)
        self.transport = None
        self._lost()


def _unwrap(response: dict[str, Any]) -> Any:
    """Give an answer's value, or raise its error."""
    answer = response["answer"]
    kind = answer.get("error")
    if kind is None:
        return answer["value"]
    if kind == "ConfigError":
        raise ConfigError(answer["lines"])
    if kind in _ERRORS:
        raise _ERRORS[kind](*answer["lines"])
    raise RuntimeError(f"a bug in another process, see its log: {', '.join(answer['lines'])}")


def _gone(failure: Failure) -> None:
    if failure.check(ConnectionDone, ConnectionLost):
        raise PeerGone("the other process has ended") from failure.value
    failure.raiseException()
