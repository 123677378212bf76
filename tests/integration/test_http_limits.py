"""How long and how often an HTTP connection may be used."""

import socket
import time

from tests.integration.accounts import at
from tests.integration.front import Table
from tests.integration.web import requestBytes
from tests.integration.website import ExchangeTestCase, basic

OLD, NEW, SCRIPTED = basic(at("old")), basic(at("new")), basic(at("scripted"))
SOON = 15.0
"""Seconds; every limit is one or two here, and half a minute at least where nobody sets it."""


class LimitTests(ExchangeTestCase):
    """How long and how often a connection may be used."""

    @classmethod
    def configuration(cls) -> Table:
        """All limits are small."""
        config = super().configuration()
        config["listener"]["https"]["preauth_timeout"] = "1s"
        config["http"] |= {
            "keepalive_timeout": "1s",
            "max_keepalive_requests": 3,
            "max_head_size": 4000,
            "relay_idle": "2s",
        }
        return config

    def test_aConnectionIsUsedSoOften(self) -> None:
        """The last answer says that it is the last."""
        client = self.web()
        for last in (False, False, True):
            answer = client.ask("/x", Authorization=OLD)
            self.assertFrom("old", answer)
            self.assertEqual(answer.header("connection") == "close", last)
        self.assertEqual(client.readToEnd(), b"")

    def test_anIdleConnectionIsClosed(self) -> None:
        """Without a word, after its time and not before."""
        client = self.web()
        started = time.monotonic()
        self.assertFrom("old", client.ask("/x", Authorization=OLD))
        self.assertEqual(client.readToEnd(), b"")
        self.assertGreater(time.monotonic() - started, 0.9)
        self.assertLess(time.monotonic() - started, SOON)

    def test_whoSaysNothingIsClosed(self) -> None:
        """Without a word; who begins and does not end is told 408."""
        silent, slow = self.web(), self.web()
        slow.send(b"GET / HTTP/1.1\r\nHost: loc")
        self.assertEqual(silent.readToEnd(), b"")
        answer = slow.answer()
        self.assertOurs(408, answer)
        self.assertEqual(answer.header("connection"), "close")
        self.assertEqual(slow.readToEnd(), b"")

    def test_headsMayBeSoLong(self) -> None:
        """431 over the size and over 100 fields."""
        for extra in ("X-Long: " + "x" * 4100 + "\r\n", "X: 1\r\n" * 101):
            client = self.web()
            client.send(f"GET / HTTP/1.1\r\nHost: localhost\r\n{extra}\r\n".encode())
            self.assertOurs(431, client.answer())
            self.assertEqual(client.readToEnd(), b"")
        many = "X: 1\r\n" * 90
        client = self.web()
        client.send(f"GET / HTTP/1.1\r\nHost: localhost\r\n{many}\r\n".encode())
        self.assertFrom("old", client.answer())

    def test_aStalledBackendIs504(self) -> None:
        """When it says nothing for so long; when it has begun its answer, that is cut."""
        started = time.monotonic()
        client = self.web()
        client.sendRequest("/wait?seconds=30", Authorization=OLD)
        self.assertOurs(504, client.answer())
        self.assertLess(time.monotonic() - started, SOON)
        cut = self.web()
        cut.sendRequest("/events?seconds=30", Authorization=OLD)
        self.assertEqual(cut.head().status, 200)
        self.assertFalse(cut.readToEnd().endswith(b"0\r\n\r\n"))

    def test_aStalledUploadIsCut(self) -> None:
        """A client that promises a body and sends none holds a backend for so long only."""
        started = time.monotonic()
        client = self.web()
        client.sendRequest("/a", "POST", Authorization=SCRIPTED, Content_Length="100")
        client.readToEnd()
        self.assertLess(time.monotonic() - started, SOON)
        self.assertEventually(lambda: self.scripted.active == 0, "the backend is still held")

    def test_aReaderThatStopsIsCut(self) -> None:
        """Who takes nothing of an answer for so long holds a backend no longer."""
        client = self.web()
        self.old.putZeros("big", 50_000_000)
        client.sendRequest("/files/big", Authorization=OLD)
        self.assertEqual(client.head().status, 200)
        self.assertTrue(self.connections())
        self.assertEventually(lambda: not self.connections(), "it stays", timeout=SOON)
        self.assertLess(len(client.readToEnd()), 50_000_000)

    def test_aReaderThatIsSlowIsNotCut(self) -> None:
        """Who takes a little now and then is served for longer than the limit.

        Each time it takes as much as makes room for a segment: with less the kernel would speak of
        the room when its own clock says so, which may be seconds later. In all it is too little to
        have the proxy write more: that the kernel gets rid of what it has is all that moves.
        """
        client = self.web()
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        self.old.putZeros("slow", 30_000_000)
        client.sendRequest("/files/slow", Authorization=OLD)
        self.assertEqual(client.head().status, 200)
        for _ in range(8):
            time.sleep(0.35)
            client.readExactly(70_000)
            (session,) = self.connections()
        self.assertLess(session["bytes_sent"], 20_000_000)

    def test_aLivelyExchangeIsNotStalled(self) -> None:
        """What goes on slowly goes on: 0.4 s between two bytes, for longer than the limit."""
        client = self.web()
        headers = {"Authorization": NEW, "Content-Length": "6"}
        client.send(requestBytes("POST", "/echo", headers))
        for byte in (b"a", b"b", b"c", b"d", b"e", b"f"):
            time.sleep(0.4)
            client.send(byte)
        self.assertEqual(client.answer().body, b"abcdef")
