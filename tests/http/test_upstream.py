"""The backend's leg, and the connections that wait for the next request."""

from typing import Any, cast

import attrs
import h11
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from mailproxy.dial import Target
from mailproxy.errors import BackendFailed, Stage
from mailproxy.http.bodies import CHUNKED, Framing, Kind
from mailproxy.http.upstream import HTTPClient, HTTPClientFactory, Upstreams
from tests.http.test_bodies import begin
from tests.protocols.backend import PLAINTEXT
from tests.support import Network, Peer

TARGET = Target("old", "203.0.113.1", 80, PLAINTEXT, HTTPClientFactory, False, {}, False)


class ClientCase(SynchronousTestCase):
    """Our side towards a backend."""

    def setUp(self) -> None:
        """Connect one."""
        self.network = Network()
        self.client, self.backend = self.connect()

    def connect(self) -> tuple[HTTPClient, Peer]:
        """Connect another one."""
        client, backend = HTTPClient(self.network), Peer()
        client.settings = PLAINTEXT
        self.network.connect(backend, client)
        return client, backend

    def say(self, data: bytes) -> None:
        """Let the backend say something."""
        self.backend.say(data)
        self.network.pump()


class ResponseTests(ClientCase):
    """What it reads."""

    def read(self) -> "Deferred[Any]":
        """Begin to read a response's head."""
        machine = h11.Connection(h11.CLIENT)
        machine.send(h11.Request(method=b"GET", target=b"/", headers=[(b"Host", b"a")]))
        return Deferred.fromCoroutine(self.client.readResponse(1000, machine, b"GET"))

    def assertFailed(self, reading: "Deferred[Any]", *, retry: bool) -> None:
        """It failed; the request may be sent again, or not."""
        error = self.failureResultOf(reading, BackendFailed).value
        assert isinstance(error, BackendFailed)
        self.assertEqual((error.stage, error.retry), (Stage.ANSWER, retry))

    def test_privacy(self) -> None:
        """No request is written to a leg that may be listened to."""
        self.successResultOf(Deferred.fromCoroutine(self.client.prepare()))
        self.client.settings = attrs.evolve(PLAINTEXT, cleartext=False)
        preparing = Deferred.fromCoroutine(self.client.prepare())
        self.failureResultOf(preparing, BackendFailed)

    def test_head(self) -> None:
        """A sound one."""
        reading = self.read()
        self.say(b"HTTP/1.1 200 OK\r\n\r\n")
        self.assertEqual(self.successResultOf(reading).status, 200)

    def test_closedUnanswered(self) -> None:
        """May be asked elsewhere, unless an answer had begun."""
        for said, retry in ((b"", True), (b"H", False)):
            self.client, self.backend = self.connect()
            reading = self.read()
            self.say(said)
            self.backend.hangUp()
            self.network.pump()
            self.assertFailed(reading, retry=retry)

    def test_malformed(self) -> None:
        """In its head, or in what it says of its body; no empty line may come first."""
        for said in (b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", b"\r\n"):
            self.client, self.backend = self.connect()
            reading = self.read()
            self.say(said + b"HTTP/1.1 200 OK\r\n\r\n")
            self.assertFailed(reading, retry=False)

    def test_bodyCutShort(self) -> None:
        """Or one whose framing is broken."""
        reading = Deferred.fromCoroutine(self.client.readPayload(begin(Framing(Kind.LENGTH, 5))))
        self.backend.hangUp()
        self.network.pump()
        self.assertFailed(reading, retry=False)
        self.client, self.backend = self.connect()
        reading = Deferred.fromCoroutine(self.client.readPayload(begin(CHUNKED)))
        self.say(b"x\r\n")
        self.assertFailed(reading, retry=False)
        self.client, self.backend = self.connect()
        self.say(b"x\r\n")
        body = begin(CHUNKED)
        self.assertRaises(BackendFailed, self.client.takePayload, body)

    def test_factory(self) -> None:
        """Makes such legs, of HTTP/1.1."""
        self.assertEqual(HTTPClientFactory.alpn, (b"http/1.1",))
        client = HTTPClientFactory(self.network).buildProtocol(None)
        self.assertIsInstance(client, HTTPClient)


class UpstreamsTests(ClientCase):
    """Connections that wait."""

    def setUp(self) -> None:
        """Let one wait."""
        super().setUp()
        self.upstreams = Upstreams()
        self.upstreams.keep(TARGET, self.client)

    def test_takenOnce(self) -> None:
        """By a request to the same target."""
        self.assertIsNone(self.upstreams.take(attrs.evolve(TARGET, destination="new")))
        self.assertIs(self.upstreams.take(TARGET), self.client)
        self.assertIsNone(self.upstreams.take(TARGET))

    def assertGone(self) -> None:
        """It is not given to anybody, and is closed."""
        self.assertIsNone(self.upstreams.take(TARGET))
        self.network.pump()
        self.assertTrue(self.backend.ended or self.backend.lost is not None)

    def test_closedByTheBackend(self) -> None:
        """Is forgotten at once."""
        self.backend.finish()
        self.network.pump()
        self.assertEqual(self.upstreams._waiting, {})
        self.assertGone()

    def test_saysSomething(self) -> None:
        """What nobody has asked for answers nothing."""
        self.say(b"HTTP/1.1 200 OK\r\n\r\n")
        self.assertGone()

    def test_ofAnotherTarget(self) -> None:
        """A destination that is another after a reload, under the same name."""
        self.assertIsNone(self.upstreams.take(attrs.evolve(TARGET, port=81)))
        self.assertGone()

    def test_notFresh(self) -> None:
        """Is not kept at all."""
        self.client, self.backend = self.connect()
        self.say(b"x")
        self.upstreams = Upstreams()
        self.upstreams.keep(TARGET, self.client)
        self.assertGone()

    def test_close(self) -> None:
        """With the client's connection they all go."""
        self.upstreams.close()
        self.assertGone()
        self.assertEqual(cast(Any, self.upstreams)._waiting, {})
