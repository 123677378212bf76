"""WebSockets through the proxy: by a real server and a real client, routed, listed, kicked."""

import random
import signal
import time
from contextlib import ExitStack
from typing import ClassVar

from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection

from tests.integration.accounts import at
from tests.integration.certificates import serverContext
from tests.integration.front import Table, destination
from tests.integration.network import memoryGrowth
from tests.integration.website import WebTestCase, basic
from tests.integration.websocket import EchoServer, openWebSocket

CHAT, OLD = at("chat"), at("old")


class WebSocketTests(WebTestCase):
    """An echo server over TLS beside the nginxes."""

    echo: ClassVar[EchoServer]

    @classmethod
    def startOthers(cls, stack: ExitStack) -> None:
        """The echo server."""
        files = cls.authority.issue("chat.test")
        cls.echo = stack.enter_context(EchoServer(serverContext(files)))

    @classmethod
    def places(cls) -> tuple[str, ...]:
        """Its accounts too."""
        return ("old", "new", "chat")

    @classmethod
    def destinations(cls) -> dict[str, Table]:
        """It learns of clients by headers."""
        endpoint = {"http": {"port": cls.echo.port, "tls": "implicit"}}
        chat = destination(1, "chat.test", protocol=endpoint, forwarded=True)
        return {**super().destinations(), "chat": chat}

    @classmethod
    def configuration(cls) -> Table:
        """Time for those who are in the middle of something when the proxy stops."""
        config = super().configuration()
        config["server"]["shutdown_grace"] = "3s"
        return config

    def open(self, path: str = "/ws") -> ClientConnection:
        """A WebSocket of the account's."""
        client = openWebSocket(self.proxy.portOf("https"), self.context, basic(CHAT), path)
        self.addCleanup(client.close)
        return client

    def test_messagesGoBothWays(self) -> None:
        """Text and bytes of any size; ping and close; the subprotocol is the server's choice."""
        client = self.open()
        self.assertEqual(client.subprotocol, "jmap")
        for message in ("hello", b"\x00\xff", "", random.Random(1).randbytes(2_000_000)):
            client.send(message)
            self.assertEqual(client.recv(timeout=20), message)
        self.assertTrue(client.ping().wait(10))
        client.close(1000, "done")
        self.assertEqual(client.close_code, 1000)
        self.assertEventually(lambda: not self.connections(), "the session stays")

    def test_theServerIsToldWhoItIs(self) -> None:
        """The handshake is a request like others: its headers go along, ours are added."""
        self.open("/ws?a=b")
        request = self.echo.requests[-1]
        self.assertEqual(request.path, "/ws?a=b")
        self.assertEqual(request.headers["Authorization"], basic(CHAT))
        self.assertEqual(request.headers["X-Forwarded-For"], "127.0.0.1")
        self.assertEqual(request.headers["Upgrade"].lower(), "websocket")

    def test_aRefusedHandshakeIsAnAnswer(self) -> None:
        """The server's 403 arrives; a server that knows no WebSockets answers as it does."""
        with self.assertRaises(InvalidStatus) as caught:
            self.open("/no")
        self.assertEqual(caught.exception.response.status_code, 403)
        client = self.web()
        fields = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
        for _ in range(2):
            answer = client.ask("/x", Authorization=basic(OLD), **fields)
            self.assertFrom("old", answer)

    def test_itIsListedWithItsBytes(self) -> None:
        """As a session of its account, for as long as it lasts."""
        client = self.open()
        client.send(b"x" * 1000)
        client.recv(timeout=20)
        address, port = client.socket.getsockname()
        (session,) = (
            each
            for each in self.connections(identifier=CHAT.name)
            if each["client"] == f"{address}:{port}"
        )
        self.assertEqual((session["destination"], session["protocol"]), ("chat", "http"))
        self.assertGreater(session["bytes_received"], 1000)
        self.assertGreater(session["bytes_sent"], 1000)

    def test_itIsKicked(self) -> None:
        """The client sees the connection end."""
        client = self.open()
        self.api("POST", "/connections/kick", identifier=CHAT.name)
        with self.assertRaises(ConnectionClosed):
            client.recv(timeout=20)
        self.assertEventually(lambda: not self.connections(), "the session stays")
        self.proxy.log.waitForLine("on chat, kicked")

    def test_aDeadServerEndsIt(self) -> None:
        """And a dead client does."""
        client = self.open()
        self.web().ask("/x", Authorization=basic(OLD))
        client.socket.close()
        self.assertEventually(lambda: not self.connections(), "the session stays")

    def test_memoryStaysFlat(self) -> None:
        """100 MB of messages through one WebSocket."""
        client, block = self.open(), bytes(1_000_000)
        with memoryGrowth(self.proxy.pid) as growth:
            for _ in range(50):
                client.send(block)
                self.assertEqual(client.recv(timeout=20), block)
            self.assertLess(growth(), 12_000_000)

    def test_itIsDrained(self) -> None:
        """It may go on for the grace time after SIGTERM, and is cut then; the log says so."""
        client = self.open()
        idle = self.web()
        idle.ask("/x", Authorization=basic(OLD))
        started = time.monotonic()
        self.proxy.signal(signal.SIGTERM)
        self.addCleanup(self.proxy.start)
        self.assertEqual(idle.readToEnd(), b"")
        client.send("still here")
        self.assertEqual(client.recv(timeout=20), "still here")
        with self.assertRaises(ConnectionClosed):
            client.recv(timeout=20)
        self.assertEqual(self.proxy.wait(), 0)
        self.assertGreater(time.monotonic() - started, 2.5)
        self.assertLess(time.monotonic() - started, 15)
        self.proxy.log.waitForLine("on chat, .*shutdown")
