"""Large bodies and slow readers: a gigabyte each way, and memory that stays as it is."""

import http.client
import socket
import threading
import time
from contextlib import ExitStack
from typing import ClassVar

from mailproxy.stream import CLOSE_GRACE
from tests.integration.accounts import at
from tests.integration.front import Table
from tests.integration.network import memoryGrowth
from tests.integration.scripted import Peer, ScriptedServer
from tests.integration.web import readAnswer, readRequestHead, requestBytes
from tests.integration.website import WebTestCase, basic, scriptedSite

NEW, SINK = basic(at("new")), basic(at("sink"))
GIGABYTE = 1_000_000_000
SOME, PARTS = 400_000, 10
PAUSE = (CLOSE_GRACE + 4) / PARTS
"""Bytes for a slow reader, who takes so many parts of it, and the seconds between two of them."""

FLAT = 12_000_000
"""Bytes by which a transfer may grow the proxy: its buffers, and what the allocator keeps."""

_BLOCK = bytes(1 << 20)

_heard = threading.Event()
"""Nobody waits any more for whom nobody listens to."""


def _sink(peer: Peer) -> None:
    """Count bodies, keep nothing; answer with the count. For `/deaf` read nothing, till told."""
    while True:
        head = readRequestHead(peer)
        if head.target == b"/deaf":
            _heard.wait(60)
            return
        missing = int(head.header("content-length") or 0)
        peer.send(b"HTTP/1.1 200 OK\r\n")
        count = len(peer.readExactly(min(missing, len(peer.unread))))
        while count < missing:
            count += peer.socket.recv_into(bytearray(1 << 18))
        peer.send(b"Content-Length: %d\r\n\r\n%d" % (len(str(count)), count))


class BulkTests(WebTestCase):
    """A download from nginx, an upload to a backend that counts."""

    sink: ClassVar[ScriptedServer]

    @classmethod
    def startOthers(cls, stack: ExitStack) -> None:
        """A file of zeros, and the backend that counts."""
        cls.new.putZeros("big", GIGABYTE)
        cls.new.putZeros("some", SOME)
        cls.sink = stack.enter_context(ScriptedServer(_sink))

    @classmethod
    def places(cls) -> tuple[str, ...]:
        """Accounts on both."""
        return ("new", "sink")

    @classmethod
    def destinations(cls) -> dict[str, Table]:
        """The counter has no TLS."""
        return {**super().destinations(), "sink": scriptedSite(cls.sink)}

    def test_aGigabyteComesDown(self) -> None:
        """Whole, and the proxy does not grow."""
        connection = self.connection()
        with memoryGrowth(self.proxy.pid) as growth:
            connection.request("GET", "/files/big", headers={"Authorization": NEW})
            answer = connection.getresponse()
            count, buffer = 0, bytearray(1 << 20)
            while read := answer.readinto(buffer):
                count += read
            self.assertEqual(count, GIGABYTE)
            self.assertLess(growth(), FLAT)

    def test_aGigabyteGoesUp(self) -> None:
        """The same, the other way."""
        connection = self.connection()
        with memoryGrowth(self.proxy.pid) as growth:
            connection.putrequest("POST", "/up")
            connection.putheader("Authorization", SINK)
            connection.putheader("Content-Length", str(GIGABYTE))
            connection.endheaders()
            missing = GIGABYTE
            while missing:
                connection.send(_BLOCK[: min(missing, len(_BLOCK))])
                missing -= min(missing, len(_BLOCK))
            self.assertEqual(connection.getresponse().read(), str(GIGABYTE).encode())
            self.assertLess(growth(), FLAT)

    def test_aSlowReaderGetsTheLastByte(self) -> None:
        """Of an answer behind which we close, long after all of it has left us."""
        client = self.web()
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
        client.sendRequest("/files/some", Authorization=NEW, Connection="close")
        self.assertEqual(client.head().header("content-length"), str(SOME))
        started = time.monotonic()
        for number in range(PARTS):
            # Small windows make each part last, how long is up to the kernel: it counts.
            time.sleep(max(0.0, started + (number + 1) * PAUSE - time.monotonic()))
            client.readExactly(SOME // PARTS)
        self.assertGreater(time.monotonic() - started, CLOSE_GRACE + 3)
        self.assertEqual(client.readToEnd(), b"")

    def connection(self) -> http.client.HTTPSConnection:
        """Python's own client."""
        connection = http.client.HTTPSConnection(
            "localhost", self.proxy.portOf("https"), context=self.context, timeout=30
        )
        self.addCleanup(connection.close)
        return connection

    def test_aReaderThatStopsHoldsTheBackendBack(self) -> None:
        """What is not read stays with the server, and others are served meanwhile."""
        with memoryGrowth(self.proxy.pid) as growth:
            client = self.web()
            client.sendRequest("/files/big", Authorization=NEW)
            self.assertEqual(client.head().header("content-length"), str(GIGABYTE))
            sent = self.stalled()
            self.assertLess(sent, 20_000_000)
            self.assertFrom("new", self.web().ask("/x", Authorization=NEW))
            client.readExactly(50_000_000)
            self.assertLess(growth(), FLAT)
        client.close()
        self.assertEventually(lambda: not self.connections(), "the session stays")

    def stalled(self) -> int:
        """Wait until the one request in flight moves no more; the bytes that it has sent."""
        before = -1
        while True:
            (session,) = self.connections(protocol="http")
            if session["bytes_sent"] == before:
                return int(before)
            before = session["bytes_sent"]
            time.sleep(0.3)

    def test_aBackendThatStopsHoldsTheWriterBack(self) -> None:
        """An upload that nobody reads fills no memory of ours."""
        _heard.clear()
        self.addCleanup(_heard.set)
        with memoryGrowth(self.proxy.pid) as growth:
            client = self.web()
            headers = {"Authorization": SINK, "Content-Length": str(GIGABYTE)}
            client.send(requestBytes("POST", "/deaf", headers))
            client.socket.settimeout(1)
            count = 0
            with self.assertRaises(TimeoutError):
                while count < 200_000_000:
                    count += client.socket.send(_BLOCK)
            self.assertLess(count, 20_000_000)
            self.assertLess(growth(), FLAT)

    def test_pipeliningFillsNoMemory(self) -> None:
        """Requests that wait behind a long answer are read when their turn comes."""
        with memoryGrowth(self.proxy.pid) as growth:
            client = self.web()
            client.sendRequest("/files/big", Authorization=NEW)
            client.head()
            client.socket.settimeout(1)
            more, count = requestBytes("GET", "/x" + "x" * 8000, {"Authorization": NEW}), 0
            with self.assertRaises(TimeoutError):
                while count < 200_000_000:
                    count += client.socket.send(more)
            self.assertLess(growth(), FLAT)

    def test_smallChunksAreNoBurden(self) -> None:
        """A megabyte, a byte in each chunk, arrives whole and soon."""
        count = 200_000
        client = self.web()
        client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        started = time.monotonic()
        client.sendRequest("/echo", "POST", Authorization=NEW, Transfer_Encoding="chunked")
        client.send(b"1\r\nx\r\n" * count + b"0\r\n\r\n")
        self.assertEqual(readAnswer(client).body, b"x" * count)
        self.assertLess(time.monotonic() - started, 30)
