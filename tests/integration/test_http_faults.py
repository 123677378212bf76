"""HTTP backends that are down, slow, or go while a connection to them is kept."""

import contextlib
import time
from contextlib import ExitStack
from pathlib import Path
from typing import ClassVar

from tests.integration.accounts import at
from tests.integration.bans import banned, requireFail2ban
from tests.integration.front import Table, destination, reaching
from tests.integration.network import connectionsTo, freePort
from tests.integration.nginx import Nginx, Options
from tests.integration.recorder import Recorder, answerBytes
from tests.integration.scripted import Peer, ScriptedServer, saying
from tests.integration.web import Message
from tests.integration.website import WebTestCase, basic, scriptedSite

OLD, NEW = basic(at("old")), basic(at("new"))
AWAY, MUTE, SCRIPTED = basic(at("away")), basic(at("mute")), basic(at("scripted"))


class FaultTests(WebTestCase):
    """Two nginxes that keep connections for two seconds, and backends that fail on purpose."""

    recorder: ClassVar[Recorder]
    scripted: ClassVar[ScriptedServer]
    mute: ClassVar[ScriptedServer]

    @classmethod
    def options(cls) -> Options:
        """Connections are kept for two seconds or three requests."""
        return Options(keepalive=2, requests=3)

    @classmethod
    def startOthers(cls, stack: ExitStack) -> None:
        """One that is told what to do, and one that never says a word, not even in TLS."""
        cls.recorder = Recorder()
        cls.scripted = stack.enter_context(ScriptedServer(cls.recorder))
        cls.mute = stack.enter_context(ScriptedServer(saying(b"", thenHold=True)))

    @classmethod
    def places(cls) -> tuple[str, ...]:
        """All of them, and one that is nobody."""
        return ("old", "new", "scripted", "mute", "away", "misnamed")

    @classmethod
    def destinations(cls) -> dict[str, Table]:
        """`misnamed` has a certificate of another name."""
        nobody = {"http": {"port": freePort(), "tls": "implicit"}}
        mute = {"http": {"port": cls.mute.port, "tls": "implicit"}}
        return {
            **super().destinations(),
            "scripted": scriptedSite(cls.scripted),
            "away": destination(1, "localhost", protocol=nobody),
            "mute": destination(1, "localhost", protocol=mute),
            "misnamed": reaching(cls.old, "http") | {"tls_server_name": "other.test"},
        }

    @classmethod
    def configuration(cls) -> Table:
        """Failures count; what is slow is given up soon."""
        config = super().configuration()
        config["server"] |= {"backend_timeout": "2s", "host_down_threshold": 3}
        config["server"] |= {"host_down_min_clients": 0, "host_down_cooldown": "2s"}
        return config

    def setUp(self) -> None:
        """Begin anew, with every destination in good health."""
        super().setUp()
        self.recorder.forget()
        for name in self.places():
            self.api("POST", "/destinations/reset", destination=name)

    def test_aBackendThatIsDownIs502(self) -> None:
        """In our words; the connection goes on, and others are served."""
        client = self.web()
        for authorization in (AWAY, basic(at("misnamed"))):
            self.assertOurs(502, client.ask("/x", Authorization=authorization))
            head = client.ask("/x", "HEAD", Authorization=authorization)
            self.assertEqual((head.status, head.body), (502, b""))
            self.assertFrom("old", client.ask("/x", Authorization=OLD))

    def test_anUploadToABackendThatIsDownIsAnswered(self) -> None:
        """Whatever becomes of its body, none of it is taken for a request."""
        client = self.web()
        client.sendRequest("/x", "POST", b"GET /smuggled HTTP/1.1\r\n\r\n", Authorization=AWAY)
        self.assertOurs(502, client.answer())
        with contextlib.suppress(EOFError, ConnectionError):
            self.assertFrom("old", client.ask("/y", Authorization=OLD))
        self.assertNotIn("/smuggled", self.old.log.text())

    def test_anOpenCircuitIs503(self) -> None:
        """With the time after which to try again; then it is served again."""
        client = self.web()
        statuses = [client.ask("/x", Authorization=AWAY).status for _ in range(3)]
        self.assertEqual(statuses, [502] * 3)
        answer = client.ask("/x", Authorization=AWAY)
        self.assertOurs(503, answer)
        self.assertIn(int(answer.header("retry-after") or 0), (1, 2))
        self.assertTrue(self.health("away")["down"])
        self.assertFrom("old", client.ask("/x", Authorization=OLD))
        time.sleep(2.1)
        self.assertOurs(502, client.ask("/x", Authorization=AWAY))

    def test_aBackendThatSaysNothingIs504(self) -> None:
        """When it does not come to TLS in its time."""
        started = time.monotonic()
        self.assertOurs(504, self.web().ask("/x", Authorization=MUTE))
        self.assertLess(time.monotonic() - started, 8, "it has taken the default, ten seconds")

    # Kept connections

    def test_backendConnectionsAreKept(self) -> None:
        """Requests of one client share one, and a backend that counts them is obeyed."""
        client = self.web()
        seen = [client.ask("/x", Authorization=OLD) for _ in range(7)]
        self.assertEqual([each.header("x-request") for each in seen], list("1231231"))
        self.assertEqual(len({each.header("x-connection") for each in seen}), 3)

    def test_eachServerHasItsOwn(self) -> None:
        """In turns between two accounts nothing is opened anew."""
        client = self.web()
        seen = [client.ask("/x", Authorization=each) for each in (OLD, NEW) * 3]
        self.assertEqual([each.header("x-request") for each in seen], list("112233"))

    def test_anIdleConnectionThatClosedIsReplaced(self) -> None:
        """For any method: the backend has gone before the request came."""
        clients = {method: self.web() for method in ("GET", "POST", "PATCH")}
        for _ in range(2):
            for method, client in clients.items():
                self.assertFrom("old", client.ask("/echo", method, b"body", Authorization=OLD))
            self.assertEventually(
                lambda: not _established(self.old), "the backend does not close", timeout=20
            )

    def test_aConnectionThatIsToCloseIsNotUsedAgain(self) -> None:
        """What a backend will close is left, even if it is still there at the next request."""
        for answer in (
            answerBytes(b"ok\n", "200 OK", "Connection: close"),
            answerBytes().replace(b"HTTP/1.1", b"HTTP/1.0"),
        ):
            self.recorder.forget()
            self.recorder.answering = _Always(answer)
            client = self.web()
            for _ in range(2):
                self.assertEqual(client.ask("/x", "POST", b"x", Authorization=SCRIPTED).status, 200)
            one, other = self.recorder.requests
            self.assertNotEqual(one.connection, other.connection)

    def test_anIdempotentRequestIsTriedAgain(self) -> None:
        """When a kept connection breaks at its request, and nothing came back: once."""
        for method in ("GET", "HEAD", "OPTIONS", "DELETE"):
            self.recorder.forget()
            client = self.web()
            self.assertEqual(client.ask("/first", Authorization=SCRIPTED).status, 200)
            self.recorder.answering = Failing(1)
            answer = client.ask("/again", method, Authorization=SCRIPTED)
            self.assertEqual(answer.status, 200, method)
            first, *tries = self.recorder.requests
            self.assertEqual([each.message.target for each in tries], [b"/again"] * 2)
            self.assertEqual(first.connection, tries[0].connection)
            self.assertNotEqual(first.connection, tries[1].connection)

    def test_othersAreNot(self) -> None:
        """A POST may have been acted upon: 502, and it is sent once only."""
        for method in ("POST", "PATCH"):
            self.recorder.forget()
            client = self.web()
            self.assertEqual(client.ask("/first", Authorization=SCRIPTED).status, 200)
            self.recorder.answering = Failing(1)
            answer = client.ask("/once", method, b"body", Authorization=SCRIPTED)
            self.assertOurs(502, answer)
            self.assertEqual(len(self.recorder.requests), 2)

    def test_nothingIsTriedForEver(self) -> None:
        """A backend that breaks each time: 502 after two at most."""
        self.recorder.answering = Failing(100)
        self.assertOurs(502, self.web().ask("/x", Authorization=SCRIPTED))
        self.assertLessEqual(len(self.recorder.requests), 2)

    def test_anAnswerThatBeganIsNotAskedForAgain(self) -> None:
        """Half a head came back: 502, and the request was sent once."""

        def half(peer: Peer, _: Message) -> bool:
            peer.send(b"HTTP/1.1 200 OK\r\nContent-Le")
            return False

        client = self.web()
        client.ask("/first", Authorization=SCRIPTED)
        self.recorder.answering = half
        self.assertOurs(502, client.ask("/x", Authorization=SCRIPTED))
        self.assertEqual(len(self.recorder.requests), 2)

    def test_oneBadURLKeepsNobodyOut(self) -> None:
        """Malformed answers do not count; fresh connections that are closed unanswered do."""
        self.recorder.answering = _Always(b"HTTP/1.1 200 OK\r\nno field\r\n\r\n")
        for _ in range(5):
            self.assertOurs(502, self.web().ask("/bad", Authorization=SCRIPTED))
        self.assertEqual(self.health("scripted")["consecutive_failures"], 0)
        self.recorder.answering = Failing(3)
        for _ in range(3):
            self.assertOurs(502, self.web().ask("/x", Authorization=SCRIPTED))
        self.assertTrue(self.health("scripted")["down"])

    def test_refusedLoginsAreFoundByFail2ban(self) -> None:
        """A 401 to who has brought a password, and no other answer."""
        requireFail2ban()
        refusal = answerBytes(b"no\n", "401 Unauthorized", 'WWW-Authenticate: Basic realm="x"')
        self.recorder.answering = _Always(refusal)
        client = self.web()
        before = banned(self.proxy.log.text(), Path(self.mktemp()))
        self.assertEqual(client.ask("/in", Authorization=SCRIPTED).status, 401)
        self.recorder.answering = _Always(answerBytes(b"no\n", "403 Forbidden"))
        self.assertEqual(client.ask("/in", Authorization=SCRIPTED).status, 403)
        found = banned(self.proxy.log.text(), Path(self.mktemp()))
        self.assertEqual(found, [*before, "127.0.0.1"])

    def test_aClientThatLeavesFreesTheBackend(self) -> None:
        """Its request ends there, and the backend's health is as before."""
        self.recorder.answering = _hold
        client = self.web()
        client.sendRequest("/x", Authorization=SCRIPTED)
        self.assertEventually(lambda: bool(self.recorder.requests), "it did not arrive")
        client.close()
        self.assertEventually(lambda: self.scripted.active == 0, "the backend is still held")
        self.assertEqual(self.health("scripted")["consecutive_failures"], 0)
        self.assertEventually(lambda: not self.connections(), "the session stays")

    def test_aServerThatRestartsIsFound(self) -> None:
        """502 while it is away, its answer afterwards, on the same client connection."""
        client = self.web()
        self.assertFrom("new", client.ask("/x", Authorization=NEW))
        self.new.stop()
        self.assertOurs(502, client.ask("/x", Authorization=NEW))
        self.new.start()
        self.assertFrom("new", client.ask("/x", Authorization=NEW))


class _Always:
    """Gives the same answer to all, and keeps the connection."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def __call__(self, peer: Peer, _: Message) -> bool:
        """Answer."""
        peer.send(self.data)
        return True


class Failing:
    """Closes the connection instead of so many answers."""

    def __init__(self, times: int) -> None:
        self.times = times

    def __call__(self, peer: Peer, request: Message) -> bool:
        """Answer, or do not."""
        self.times -= 1
        if self.times >= 0:
            return False
        peer.send(answerBytes(b"" if request.method == b"HEAD" else b"ok\n"))
        return True


def _hold(peer: Peer, _: Message) -> bool:
    peer.hold()
    return False


def _established(server: Nginx) -> int:
    """How many connections it keeps."""
    return sum(map(connectionsTo, server.ports()))
