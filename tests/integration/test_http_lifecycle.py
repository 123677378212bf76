"""How a proxy with HTTP clients stops, what it logs and counts, and the example that has HTTP."""

import json
import re
import signal
import threading
import time
import tomllib
from contextlib import ExitStack
from pathlib import Path
from typing import Any, ClassVar

from tests.integration.accounts import at
from tests.integration.front import TOKEN, Table
from tests.integration.network import freePort, isListening
from tests.integration.proxy import ProxyProcess
from tests.integration.recorder import agreeable
from tests.integration.scripted import Peer
from tests.integration.web import Message, WebClient
from tests.integration.website import ExchangeTestCase, WebTestCase, basic

OLD, NEW, SCRIPTED = basic(at("old")), basic(at("new")), basic(at("scripted"))
EXAMPLE = Path(__file__).parents[2] / "etc" / "examples" / "upgrade-with-http.toml"


class StopTests(ExchangeTestCase):
    """SIGTERM with clients of every kind; each test starts the proxy anew."""

    released: threading.Event

    def begin(self, grace: str) -> None:
        """Start it with that grace time; the last test has ended it, if there was one."""
        self.proxy.stop()
        self.proxy.config["server"]["shutdown_grace"] = grace
        self.proxy.start()

    def inFlight(self) -> WebClient:
        """A client whose answer comes when `released` is set."""
        self.released = released = threading.Event()
        self.addCleanup(released.set)

        def later(peer: Peer, request: Message) -> bool:
            return released.wait(60) and agreeable(peer, request)

        self.recorder.answering = later
        client = self.web()
        client.sendRequest("/late", Authorization=SCRIPTED)
        self.assertEventually(lambda: bool(self.recorder.requests), "it does not arrive")
        return client

    def test_requestsInFlightEnd(self) -> None:
        """Idle clients are closed at once; an answer that is awaited comes, and is the last."""
        self.begin("20s")
        idle, silent, busy = self.web(), self.web(), self.inFlight()
        self.assertFrom("old", idle.ask("/x", Authorization=OLD))
        started = time.monotonic()
        self.proxy.signal(signal.SIGTERM)
        self.assertEqual(idle.readToEnd(), b"")
        self.assertEqual(silent.readToEnd(), b"")
        self.released.set()
        answer = busy.answer()
        self.assertEqual((answer.body, answer.header("connection")), (b"/late\n", "close"))
        self.assertEqual(busy.readToEnd(), b"")
        for client in (idle, silent, busy):
            client.close()
        self.assertEqual(self.proxy.wait(), 0)
        self.assertLess(time.monotonic() - started, 10, "somebody was left for the grace time")

    def test_theGraceTimeEnds(self) -> None:
        """A request that goes on is cut; the status is 0 all the same."""
        self.begin("1s")
        busy, started = self.inFlight(), time.monotonic()
        self.proxy.signal(signal.SIGTERM)
        self.assertNotIn(b"200", busy.readToEnd())
        busy.close()
        self.assertEqual(self.proxy.wait(), 0)
        self.assertGreater(time.monotonic() - started, 0.9)

    def test_noNewClients(self) -> None:
        """While it waits for the last, nobody else comes in."""
        self.begin("20s")
        busy = self.inFlight()
        self.proxy.signal(signal.SIGTERM)
        self.assertEventually(lambda: not isListening(self.proxy.portOf("https")), "it listens")
        self.released.set()
        self.assertEqual(busy.answer().body, b"/late\n")
        busy.close()
        self.assertEqual(self.proxy.wait(), 0)


class RecordTests(WebTestCase):
    """A line for each request, counters, and no secret."""

    def line(self, since: int, words: str) -> str:
        """The line about a request's end."""
        return self.proxy.log.waitForLine(rf"{words}", since=since)

    def test_eachRequestHasItsLine(self) -> None:
        """Account, destination, method, path without query, status, identifier, bytes."""
        client, mark = self.web(source="127.0.0.5"), self.proxy.log.mark()
        address, port = client.socket.getsockname()
        secret = "hush-hush-0123"
        self.secrets.add(secret.encode())
        target = f"/a/path?token={secret}"
        answer = client.ask(target, "POST", b"12345", Authorization=NEW, X_Request_Id="the-id-1234")
        self.assertEqual(answer.header("x-request-id"), "the-id-1234")
        line = self.line(mark, "the-id-1234.*POST|POST.*the-id-1234")
        for words in (
            *("http", "https", f"from {address}:{port}", "on new", "POST", "/a/path", "200"),
            *(r"ali~[0-9a-f]{8}", r"\d+ bytes in", r"\d+ out", r"\d+\.\d+ s"),
        ):
            self.assertRegex(line, words)
        self.assertNotIn("token", line)
        self.assertNotIn("alice", line)

    def test_oddPathsAreEscaped(self) -> None:
        """What comes off the wire can forge no line."""
        client, mark = self.web(), self.proxy.log.mark()
        client.ask("/%0d%0aforged:%20line/%1b[2J/", Authorization=NEW)
        line = self.line(mark, "GET.*forged")
        self.assertNotRegex(line, r"[\x00-\x1f\x7f-\xff]")
        self.assertIn("%0d%0aforged", line)

    def test_theyAreCounted(self) -> None:
        """In /metrics and /stats, by destination."""
        pattern = r'mailproxy_sessions_total\{[^}]*protocol="http"[^}]*\} (\d+)'

        def ended() -> int:
            text = self.api("GET", "/metrics").text
            return sum(int(float(number)) for number in re.findall(pattern, text))

        client, before = self.web(), ended()
        for _ in range(5):
            client.ask("/x", Authorization=NEW)
        self.assertEventually(lambda: ended() == before + 5, "they are not counted")
        stats = self.api("GET", "/stats").json()
        self.assertEqual(stats["active_connections"], 0)

    def test_theyAreJSON(self) -> None:
        """With `--log-format json` the fields are there by name."""
        config = self.configuration()
        proxy = ProxyProcess(config, self.authority, arguments=("--log-format", "json"))
        proxy.writeMapping({at("new").name: "new"})
        with proxy:
            client = self.webTo(proxy.portOf("https"))
            client.ask("/a?b=c", Authorization=NEW, X_Request_Id="the-id-json")
            proxy.log.waitForLine("the-id-json")
            client.close()
            events = [json.loads(line) for line in proxy.log.lines()]
        (event,) = [each for each in events if each.get("outcome") and "the-id-json" in str(each)]
        expected = {"protocol": "http", "destination": "new", "method": "GET", "path": "/a"}
        self.assertEqual({key: event.get(key) for key in expected}, expected)
        self.assertEqual(int(event["status"]), 200)


class ExampleTests(WebTestCase):
    """`etc/examples/upgrade-with-http.toml`, with the two nginxes as both versions."""

    example: ClassVar[Table]

    @classmethod
    def startServers(cls, stack: ExitStack) -> None:
        """Only what must be of this machine is changed: addresses, ports, files."""
        super().startServers(stack)
        cls.proxy = cls.startAnother(stack, cls.adapted(), {at("new").name: "v2"})

    @classmethod
    def adapted(cls) -> Table:
        """The example, fit for loopback."""
        config: dict[str, Any] = tomllib.loads(EXAMPLE.read_text())
        files = cls.authority.issue("mail.example.com", "localhost")
        config["tls"]["certificate"]["mail"] |= {"cert": str(files.cert), "key": str(files.key)}
        for listener in config["listener"].values():
            listener["bind"] = [f"127.0.0.1:{freePort()}"]
        for name, server in (("v1", cls.old), ("v2", cls.new)):
            destination = config["destination"][name]
            destination |= {"host": "127.0.0.1", "tls_server_name": server.hostname}
            destination["protocol"]["http"]["port"] = server.doors["http"].secureProxied
        config["mapping"]["file"]["path"] = "mapping"
        config["admin"] = {"bind": f"127.0.0.1:{freePort()}", "bearer_token": TOKEN}
        config["server"] = {"log_level": "debug"}
        return config

    def test_eachOfItsRoutesWorks(self) -> None:
        """For an account that has moved and for one that has not."""
        client, moved = self.web(), at("new").name
        address = b"<EMailAddress>%b</EMailAddress>" % moved.encode()
        for target, server in (
            ("/jmap/api/", "new"),
            ("/dav/calendars/", "new"),
            ("/webmail", "new"),
        ):
            self.assertFrom(server, client.ask(target, Authorization=NEW))
            self.assertFrom(server, client.ask(target, Authorization=self.bearer(moved)))
            self.assertFrom("old", client.ask(target, Authorization=OLD))
            self.assertFrom("old", client.ask(target))
        self.assertFrom("new", client.ask("/.well-known/acme-challenge/token"))
        found = client.ask("/autodiscover/autodiscover.xml", "POST", address)
        self.assertFrom("new", found)
        self.assertFrom("old", client.ask("/autodiscover/autodiscover.xml", "POST", b"<x/>"))
        self.assertFrom("new", client.ask(f"/mail/config-v1.1.xml?emailaddress={moved}"))
