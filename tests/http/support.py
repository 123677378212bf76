"""A client and backends of HTTP, played by the test on a stage."""

import re
from base64 import b64encode
from typing import Any, ClassVar

import h11

from mailproxy.config.model import Route
from mailproxy.http.messages import Request, Response
from mailproxy.http.rules import HTTPRules, Rule
from tests.stage import PASSWORD, Client, Scene, StageCase
from tests.support import Peer, Segments

ANN = b"Authorization: Basic " + b64encode(b"ann:" + PASSWORD) + b"\r\n"
BOB = b"Authorization: Basic " + b64encode(b"bob:" + PASSWORD) + b"\r\n"
GET = b"GET / HTTP/1.1\r\nHost: a\r\n" + ANN + b"\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
POST = b"POST / HTTP/1.1\r\nHost: a\r\n" + ANN
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
OK_CHUNKED = b"HTTP/1.1 200 OK\r\n" + CHUNKED
BY_LOGIN = {"match": "/**", "extract": {"from": "authorization"}}


def rules(*routes: dict[str, Any], **limits: Any) -> HTTPRules:
    """Make rules of `[[http.route]]` tables; without any, all requests go by their login."""
    tables = [Route.model_validate(route) for route in routes or (BY_LOGIN,)]
    return HTTPRules(rules=tuple(map(Rule.fromConfig, tables)), **limits)


def request(line: bytes = b"GET / HTTP/1.1", *fields: bytes) -> Request:
    """Read a request's head."""
    return parseRequest(b"\r\n".join([line, b"Host: a", *fields]))


def parseRequest(head: bytes) -> Request:
    """Read the whole of a request's head."""
    return Request.parse(head, h11.Connection(h11.SERVER))


def parseResponse(head: bytes, method: bytes = b"GET", *fields: tuple[bytes, bytes]) -> Response:
    """Read the head of an answer to such a request."""
    machine = h11.Connection(h11.CLIENT)
    asked = h11.Request(method=method, target=b"/", headers=[(b"Host", b"a"), *fields])
    machine.send(asked)
    machine.send(h11.EndOfMessage())
    return Response.parse(head, machine)


class Visitor(Client):
    """A client that looks over what is never the same: the names that we give requests."""

    NAME = re.compile(rb"(?m)^X-Request-Id: \S{12}\r\n")
    NAME_SIZE = len("X-Request-Id: \r\n") + 12

    def take(self) -> bytes:
        """Give what was received since the last time, without them."""
        return self.NAME.sub(b"", super().take())


class Backend(Peer):
    """A backend that hangs up when the proxy does."""

    def readConnectionLost(self) -> None:
        """Hang up."""
        super().readConnectionLost()
        self.hangUp()


class HTTPCase(StageCase):
    """A listener of HTTP; `ann` lives on `old`, `bob` on `new`.

    :cvar segments: how everything arrives.
    """

    segments: ClassVar[Segments] = Segments.WHOLE

    def open(self, http: HTTPRules | None = None, **scene: Any) -> Client:
        """Set a stage and let a client in."""
        stage = self.begin(
            Scene(self.segments, "http", http=http or rules(), client=Visitor, **scene)
        )
        stage.source.table["bob"] = "new"
        return stage.enter()

    def send(self, client: Peer, data: bytes = GET) -> None:
        """Let a client say something."""
        client.say(data)
        self.stage.network.pump()

    def answer(self, answer: bytes = b"", backend: Backend | None = None) -> Backend:
        """Take the last call, with a backend that says something at once."""
        backend = backend or Backend()
        self.stage.take(backend)
        if answer:
            self.reply(backend, answer)
        return backend

    def reply(self, backend: Peer, answer: bytes = OK) -> None:
        """Let a backend say something."""
        backend.say(answer)
        self.stage.network.pump()

    def leave(self, *peers: Peer) -> None:
        """Let peers hang up, and see that nothing is left."""
        for peer in peers:
            peer.hangUp()
        self.stage.network.pump()
        self.assertNothingLeft(self.stage)

    @property
    def calls(self) -> int:
        """How many backends were dialled."""
        return len(self.stage.network.dialled)

    def lines(self) -> list[str]:
        """What the log says of each request."""
        return self.ends()
