"""Another program's reading of HTTP/1.1: h11 sees what we see, in what comes and what we send."""

from collections.abc import Sequence

import h11
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailproxy.http.heads import BadMessage
from mailproxy.http.messages import Request, Response
from tests.http.support import ANN, BOB, HTTPCase
from tests.support import Peer

SOUND_LINES = (
    *(b"X: y", b"X:", b"x:\ty \t", b"X: \xff", b"Cookie: a=b; c=d", b"Cookie: e", ANN.strip()),
    *(b"Connection: close", b"Connection: keep-alive, TE", b"Connection: Upgrade", b"TE: trailers"),
    *(b"Upgrade: websocket", b"Upgrade: h2c", b"Expect: 100-continue", b"Forwarded: for=1.2.3.4"),
    *(b"X_Forwarded_For: 1.2.3.4", b"X-Request-Id: not sane", b"Accept: */*", b"Range: bytes=0-1"),
)
DOUBTFUL_LINES = (
    *(b"Host: b", b"Host : a", b"Host: ", b" X: y", b"X : y", b": y", b"X", b"X\xff: y", b"X: \0"),
    *(b"Content-Length: 5", b"Content-Length: 0", b"Content-Length:6", b"Content-Length: +5"),
    *(b"Content-Length: 5, 5", b"Content-Length: 0x5", b"Content-Length:", b"Content_Length: 5"),
    *(b"Transfer-Encoding: chunked", b"Transfer-Encoding: x", b"Transfer-Encoding: \x0bchunked"),
    *(b"Transfer-Encoding: chunked, chunked", b"Transfer-Encoding:\tChunked ", b"X: y\rZ: z"),
    *(b"Connection: content-length", BOB.strip(), ANN.strip()),
)
FRAMED = (
    (b"Content-Length: 5", b"hello"),
    (b"Content-Length: 0", b""),
    (b"X: y", b""),
    (b"Transfer-Encoding: chunked", b"5\r\nhello\r\n0\r\n\r\n"),
    (b"transfer-encoding:CHUNKED", b"2;x=y\r\nhe\r\n3\r\nllo\r\n0\r\nX-Sum: y\r\n\r\n"),
    (b"Transfer-Encoding: chunked", b"5\nhello\r\n0\r\n\r\n"),
    (b"Transfer-Encoding: chunked", b"5\r\nhello0\r\n\r\n"),
    (b"Transfer-Encoding: chunked", b"0\r\nContent-Length: 9\r\n\r\n"),
    (b"Content-Length: 5", b"hello!"),
    (b"Content-Length: 5", b"hell"),
)
SOUND_STARTS = (
    *(b"GET / HTTP/1.1", b"POST /x?y=z HTTP/1.1", b"HEAD / HTTP/1.1", b"PUT /%00 HTTP/1.1"),
    *(b"GET http://a/ HTTP/1.1", b"OPTIONS * HTTP/1.1", b"get / HTTP/1.1", b"GET / HTTP/1.0"),
)
DOUBTFUL_STARTS = (
    *(b"GET  / HTTP/1.1", b"GET /\t HTTP/1.1", b"GET / HTTP/1.2", b"GET /", b"G\x7f / HTTP/1.1"),
)


def mostly(*sound: bytes, seldom: tuple[bytes, ...], one: int) -> st.SearchStrategy[bytes]:
    """One of the sound ones, or one time in so many one of the others."""
    choices = st.integers(1, one)
    return choices.flatmap(lambda n: st.sampled_from(seldom if n == 1 else sound))


LINES = mostly(*SOUND_LINES, seldom=DOUBTFUL_LINES, one=12)
STARTS = mostly(*SOUND_STARTS, seldom=DOUBTFUL_STARTS, one=12)
STATUSES = st.sampled_from((b"HTTP/1.1 200 OK", b"HTTP/1.0 404 x", b"HTTP/1.1 204 "))
ENDS = mostly(b"\r\n", seldom=(b"\n", b"\r", b"\r\r\n", b"\r\n "), one=60)


@st.composite
def messages(draw: st.DrawFn, starts: st.SearchStrategy[bytes] = STARTS) -> tuple[bytes, bytes]:
    """A head with its empty line, and what follows it; most of them sound."""
    framing, body = draw(st.sampled_from(FRAMED))
    lines = [b"Host: a", framing, *draw(st.lists(LINES, max_size=5))]
    if draw(st.integers(1, 20)) == 1:
        lines.remove(b"Host: a")
    lines = [draw(starts), *draw(st.permutations(lines))]
    return b"".join(line + draw(ENDS) for line in lines) + b"\r\n", body


class ReadingTests(SynchronousTestCase):
    """What we take, h11 takes, and it reads the same."""

    @given(messages())
    @settings(max_examples=300)
    def test_requests(self, message: tuple[bytes, bytes]) -> None:
        """Method, framing and fields."""
        head, _ = message
        ours = Request.parse(head[:-4]) if self.isSound(Request, head) else None
        if ours is None:
            return
        connection = h11.Connection(h11.SERVER)
        connection.receive_data(head)
        theirs = connection.next_event()
        assert isinstance(theirs, h11.Request)
        self.assertEqual(theirs.method, ours.method)
        lengths = {value for name, value in theirs.headers if name == b"content-length"}
        self.assertLessEqual(lengths, {b"%d" % ours.framing.length})
        self.assertEqual(
            {name for name, _ in theirs.headers}, {lower for lower, _, _ in ours.fields.items}
        )

    @given(messages(STATUSES))
    @settings(max_examples=300)
    def test_responses(self, message: tuple[bytes, bytes]) -> None:
        """Status and framing."""
        head, _ = message
        if not self.isSound(Response, head):
            return
        ours = Response.parse(head[:-4])
        connection = h11.Connection(h11.CLIENT)
        connection.send(h11.Request(method=b"GET", target=b"/", headers=[(b"Host", b"a")]))
        connection.receive_data(head)
        theirs = connection.next_event()
        assert isinstance(theirs, h11.Response)
        self.assertEqual(theirs.status_code, ours.status)

    def isSound(self, kind: type[Request] | type[Response], head: bytes) -> bool:
        """Whether we take a head, and know where its body ends."""
        if head.count(b"\r\n\r\n") != 1:
            return False
        try:
            message = kind.parse(head[:-4])
            if isinstance(message, Response):
                message.framing(b"GET")
        except BadMessage:
            return False
        return True


class Oracle(Peer):
    """A backend that reads with h11 and answers each whole request.

    :ivar requests: what it has read.
    :ivar errors: what it could not make sense of.
    """

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[h11.Request] = []
        self.errors: list[h11.RemoteProtocolError] = []
        self._connection = h11.Connection(h11.SERVER)

    def dataReceived(self, data: bytes) -> None:
        """Read as far as it goes."""
        super().dataReceived(data)
        self._connection.receive_data(data)
        try:
            while (event := self._connection.next_event()) is not h11.NEED_DATA:
                if isinstance(event, h11.Request):
                    self.requests.append(event)
                if isinstance(event, h11.EndOfMessage):
                    self._answer()
        except h11.RemoteProtocolError as error:
            self.errors.append(error)

    def _answer(self) -> None:
        self.say(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")
        if self.requests[-1].method != b"HEAD":
            self.say(b"ok")
        head = h11.Response(status_code=200, headers=[(b"Content-Length", b"0")])
        self._connection.send(head)
        self._connection.send(h11.EndOfMessage())
        self._connection.start_next_cycle()

    def readConnectionLost(self) -> None:
        """Hang up when the proxy does."""
        super().readConnectionLost()
        self.hangUp()


class PassingTests(HTTPCase):
    """Whatever a client sends, a backend reads requests that we have written, and nothing else."""

    secrets: Sequence[bytes] = ()

    @given(st.lists(messages(), min_size=1, max_size=3))
    @settings(
        max_examples=300,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.differing_executors],
    )
    def test_everyRequestIsOurs(self, said: list[tuple[bytes, bytes]]) -> None:
        """Each has the name that we gave it, once; nothing comes that has no line in the log."""
        self.events.clear()
        client = self.open()
        oracles: list[Oracle] = []
        client.say(b"".join(head + body for head, body in said))
        self.stage.network.pump()
        while self.stage.network.dialled and self.stage.network.call.open:
            oracles.append(Oracle())
            self.stage.take(oracles[-1])
        client.reset()
        self.stage.network.pump()
        for oracle in oracles:
            self.assertEqual(oracle.errors, [])
        names = [
            value
            for oracle in oracles
            for request in oracle.requests
            for name, value in request.headers
            if name == b"x-request-id"
        ]
        lines = {line.rpartition(" ")[2].encode(): line for line in self.lines()}
        answered = {name for name, line in lines.items() if " 200 of " in line}
        self.assertEqual(len(names), len(set(names)))
        self.assertLessEqual(answered, set(names), said)
        self.assertLessEqual(set(names), lines.keys(), said)
