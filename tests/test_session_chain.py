"""Proxies behind proxies: our IMAP client talks to our IMAP server, through two whole sessions."""

from typing import Any, ClassVar

import attrs

from mailproxy.protocols.client import ClientSettings
from tests.dialling import LOCAL, Backend, Dialling
from tests.protocols.backend import PLAINTEXT, upgrading
from tests.stage import LOGIN, Client, Scene, StageCase, clientAddress
from tests.stage import Stage as Theatre
from tests.support import Segments, serverTLS

TRUSTING = {"proxy_trusted": [LOCAL + "/32"]}
INTRODUCING = attrs.evolve(PLAINTEXT, introduces=True)


class ChainCase(StageCase):
    """An outer proxy whose only backend is an inner one.

    :cvar segments: how everything arrives.
    """

    segments: ClassVar[Segments] = Segments.WHOLE

    def join(self, settings: ClientSettings = INTRODUCING, **inner: Any) -> None:
        """Set both proxies up; the inner one trusts the outer one, unless told otherwise."""
        network = Dialling(self.segments)
        self.outer = Theatre(Scene(self.segments, target={"settings": settings}), network)
        listener = inner.pop("listener", TRUSTING)
        self.inner = Theatre(
            Scene(self.segments, listener=listener, target={"settings": INTRODUCING}, **inner),
            network,
        )

    def logIn(self) -> Client:
        """Let a client log in at the outer proxy, which reaches the inner one."""
        client = self.outer.enter()
        client.take()
        client.say(b'i ID ("name" "mutt" "x-originating-ip" "192.0.2.66")\r\n' + LOGIN)
        self.outer.network.pump()
        server = self.inner.listener.factory.buildProtocol(None)
        assert server is not None
        self.outer.network.call.answer(server)
        self.outer.network.pump()
        return client


class ChainTests(ChainCase):
    """Two proxies in a row."""

    def test_loginGoesThroughBoth(self) -> None:
        """The innermost backend's answer arrives at the client, and both are joined to the end."""
        self.join()
        client = self.logIn()
        backend = Backend(login=b"* CAPABILITY IMAP4rev1\r\n%t OK in\r\n")
        self.inner.answer(backend)
        self.assertTrue(client.take().endswith(b"* CAPABILITY IMAP4rev1\r\na OK in\r\n"))
        self.outer.ask(client, b"b NOOP\r\n")
        self.assertEqual(backend.bridged, b"b NOOP\r\n")
        client.hangUp()
        self.outer.network.pump()
        self.assertNothingLeft(self.outer)
        self.assertNothingLeft(self.inner)
        self.assertIsNotNone(backend.lost)

    def test_innerProxyKnowsTheClient(self) -> None:
        """Address, session and hops are handed through; what the client forged is not."""
        self.join()
        self.logIn()
        self.assertEqual(str(clientAddress(self.inner)), "198.51.100.7:40000")
        (session,) = self.outer.registry.find()
        backend = Backend()
        self.inner.answer(backend)
        (said,) = [line for line in backend.commands if b" ID (" in line]
        self.assertIn(b'"name" "mutt" "x-originating-ip" "198.51.100.7"', said)
        self.assertIn(b'"x-proxy-ttl" "5" "x-session-id" "%b"' % session.id.encode(), said)
        self.assertNotIn(b"192.0.2.66", said)

    def test_outerProxyThatIsNotTrusted(self) -> None:
        """Without trust the inner one sees the outer one's address alone."""
        self.join(listener={})
        self.logIn()
        self.assertEqual(clientAddress(self.inner).host, LOCAL)

    def test_startTLSBetweenThem(self) -> None:
        """Our own STARTTLS on both ends."""
        self.join(attrs.evolve(upgrading(), introduces=True), upgrade=serverTLS())
        client = self.logIn()
        backend = self.inner.answer()
        self.assertTrue(client.take().endswith(b"a OK in\r\n"))
        self.outer.ask(client, b"b NOOP\r\n")
        self.assertEqual(backend.bridged, b"b NOOP\r\n")
        (said,) = [line for line in backend.commands if b" ID (" in line]
        self.assertIn(b'"x-client-transport" "insecure"', said)  # the first client's leg

    def test_refusalGoesThroughBoth(self) -> None:
        """A refusal leaves the client in the outer dialogue, and nothing of the inner session."""
        self.join()
        client = self.logIn()
        self.inner.answer(Backend(login=b"%t NO [AUTHENTICATIONFAILED] db7: wrong\r\n"))
        self.assertTrue(client.take().endswith(b"a NO [AUTHENTICATIONFAILED] db7: wrong\r\n"))
        self.assertEqual(self.outer.ask(client, b"b NOOP\r\n"), b"b OK Completed.\r\n")
        self.assertEqual(self.inner.registry.count(), 0)


class LinesTests(ChainTests):
    """The same, one line per segment."""

    segments = Segments.LINES


class BytesTests(ChainTests):
    """The same, one byte per segment."""

    segments = Segments.BYTES


class CircleTests(ChainCase):
    """A proxy that is its own backend, by a way that the loop guard cannot see."""

    def test_circleEnds(self) -> None:
        """Each round costs a hop; at the last one the login is refused as unavailable."""
        stage = self.begin(Scene(listener=TRUSTING, target={"settings": INTRODUCING}))
        client = stage.enter()
        client.take()
        stage.ask(client, LOGIN)
        while any(call.open for call in stage.network.dialled):
            server = stage.listener.factory.buildProtocol(None)
            assert server is not None
            stage.network.call.answer(server)
            stage.network.pump()
        self.assertEqual(len(stage.network.dialled), 6)
        self.assertTrue(client.take().startswith(b"a NO [UNAVAILABLE]"))
        self.assertEqual(stage.registry.count(), 1)
        client.hangUp()
        stage.network.pump()
        self.assertNothingLeft(stage)
