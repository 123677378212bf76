"""Another program's reading: whatever a client sends, a backend sees what we have written."""

from collections.abc import Sequence
from typing import ClassVar

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.web.http import HTTPChannel, Request

from tests.http.support import ANN, BOB, HTTPCase

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
ENDS = mostly(b"\r\n", seldom=(b"\n", b"\r", b"\r\r\n", b"\r\n "), one=60)


@st.composite
def messages(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """A head with its empty line, and what follows it; most of them sound."""
    framing, body = draw(st.sampled_from(FRAMED))
    lines = [b"Host: a", framing, *draw(st.lists(LINES, max_size=5))]
    if draw(st.integers(1, 20)) == 1:
        lines.remove(b"Host: a")
    lines = [draw(STARTS), *draw(st.permutations(lines))]
    return b"".join(line + draw(ENDS) for line in lines) + b"\r\n", body


class Recorder(Request):
    """A request that another server has read; it is answered at once.

    :cvar names: what each has called itself.
    """

    names: ClassVar[list[bytes]] = []

    def process(self) -> None:
        """Note it, and answer."""
        self.names.append(self.getHeader(b"x-request-id") or b"")
        self.write(b"ok")
        self.finish()


class Oracle(HTTPChannel):
    """A backend: the HTTP server of Twisted, whose parser is not ours.

    :cvar refused: how many requests it could not make sense of.
    """

    refused = 0
    requestFactory = Recorder
    timeOut = None

    def _respondToBadRequestAndDisconnect(self) -> None:
        type(self).refused += 1
        super()._respondToBadRequestAndDisconnect()


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
        Oracle.refused = 0
        Recorder.names.clear()
        client = self.open()
        client.say(b"".join(head + body for head, body in said))
        self.stage.network.pump()
        while self.stage.network.dialled and self.stage.network.call.open:
            self.stage.network.call.answer(Oracle())
            self.stage.network.pump()
        client.reset()
        self.stage.network.pump()
        names = Recorder.names
        lines = {line.rpartition(" ")[2].encode(): line for line in self.lines()}
        answered = {name for name, line in lines.items() if " 200 of " in line}
        self.assertEqual((Oracle.refused, len(names)), (0, len(set(names))), said)
        self.assertLessEqual(answered, set(names), said)
        self.assertLessEqual(set(names), lines.keys(), said)
