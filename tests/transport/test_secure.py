"""TLS on the socket: handshakes, words before and after them, ends, and what must be waited for."""

import socket
from collections.abc import Callable
from typing import Any, ClassVar, cast

from OpenSSL import SSL
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.trial.unittest import SynchronousTestCase

from mailproxy import openssl
from mailproxy.openssl import WANT_READ, WANT_WRITE, Engine
from mailproxy.tls import BackendTLS, CertificateRefused
from mailproxy.transport import SocketConnection
from tests import test_stream_ends
from tests.protocols.backend import backendTLS
from tests.support import Peer, clientTLS, serverTLS
from tests.tls.handshake import OtherEnd, only
from tests.transport.engines import stumbling
from tests.transport.keys import KeyChanger
from tests.transport.wire import NearWire, Wire

VERSIONS = (SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION)


class WireTLSTests(test_stream_ends.TLSTests):
    """A stream's TLS on a socket, with Twisted's at the other end."""

    medium = Wire


class WireCloseTests(test_stream_ends.CloseTests):
    """Closing it."""

    medium = Wire


class WireDetachTests(test_stream_ends.DetachTests):
    """Handing it over."""

    medium = Wire


class NearTLSTests(test_stream_ends.TLSTests):
    """TLS on the sockets of both ends."""

    medium = NearWire


class NearCloseTests(test_stream_ends.CloseTests):
    """Closing it."""

    medium = NearWire


class SecureCase(SynchronousTestCase):
    """Two peers, on a pair of sockets.

    :cvar engine: what moves the bytes.
    """

    engine: ClassVar[Engine] = openssl.engine

    def setUp(self) -> None:
        """Join them."""
        self.patch(SocketConnection, "engine", self.engine)
        self.join()

    def join(self, capacity: int = 65536) -> None:
        """Join two new ones."""
        self.network = NearWire(capacity=capacity)
        self.server, self.client = Peer(), Peer()
        self.network.connect(self.server, self.client)

    def secure(self, server: object = None, client: object = None) -> None:
        """Put TLS on."""
        self.server.startTLS(server or serverTLS())
        self.client.startTLS(client or clientTLS())
        self.network.pump()

    def assertAgreed(self) -> None:
        """They hear each other."""
        self.assertTrue(self.server.shaken and self.client.shaken)
        self.client.say(b"ping")
        self.server.say(b"pong")
        self.network.pump()
        self.assertEqual((self.server.take(), self.client.take()), (b"ping", b"pong"))


class HandshakeTests(SecureCase):
    """How TLS begins."""

    def test_bothVersionsAreSpoken(self) -> None:
        """TLS 1.2 and 1.3, the TLS server being either side of the connection."""
        for version in VERSIONS:
            self.join()
            self.secure(serverTLS(), OtherEnd(only(version)))
            self.assertAgreed()
        self.join()
        self.server.transport.startTLS(clientTLS(), normal=False)
        self.client.transport.startTLS(serverTLS(), normal=False)
        self.network.pump()
        self.assertAgreed()

    def test_wordsBeforeItAreInTheClear(self) -> None:
        """What was written before goes out before, also when the socket was full; what is written
        meanwhile is encrypted."""
        for size in (10, 100_000):
            self.join(capacity=5000)
            self.client.stopReading()
            self.server.say(b"x" * size)
            self.server.startTLS()
            self.server.say(b"secret")
            self.network.pump()
            self.client.startReading()
            self.network.pump()
            self.assertEqual(self.client.take(), b"x" * size)
            self.client.startTLS()
            self.network.pump()
            self.assertEqual(self.client.take(), b"secret")
            self.assertAgreed()

    def test_severalWordsBeforeItAreInTheClear(self) -> None:
        """What still waited behind a full socket goes before the handshake, too."""
        self.join(capacity=5000)
        self.client.stopReading()
        self.server.say(b"x" * 100_000)
        self.server.say(b"OK\r\n")
        self.server.startTLS()
        self.client.startReading()
        self.network.pump()
        self.assertEqual(self.client.take()[-5:], b"xOK\r\n")
        self.client.startTLS()
        self.network.pump()
        self.assertAgreed()

    def test_anAnswerThatLeadsToItIsInTheClear(self) -> None:
        """As with STARTTLS: what is said to the very words that lead to the handshake."""

        def dataReceived(data: bytes) -> None:
            self.server.say(b"s OK\r\n")
            self.server.startTLS()

        self.patch(self.server, "dataReceived", dataReceived)
        self.client.say(b"s STARTTLS\r\n")
        self.network.pump()
        self.assertEqual(self.client.take(), b"s OK\r\n")
        del cast(Any, self.server).dataReceived
        self.client.startTLS()
        self.network.pump()
        self.assertAgreed()

    def test_aClientsWordsBeforeItGoFirstToo(self) -> None:
        """Its first flight waits for them."""
        self.join(capacity=5000)
        left = 100_000

        def dataPeeked(data: bytes) -> None:
            nonlocal left
            self.server.transport.skip(min(left, len(data)))
            left -= min(left, len(data))
            if left:
                self.server.transport.peeking = True
            else:
                self.server.startTLS()

        cast(Any, self.server).dataPeeked = dataPeeked
        self.server.transport.peeking = True
        self.client.say(b"x" * left)
        self.client.startTLS()
        self.network.pump()
        self.assertAgreed()

    def test_theFirstWordsOfAHandshakesHearersGoOutTogether(self) -> None:
        """What the protocol says when it is done, and what it has said before: one record."""
        sizes: list[int] = []

        def send(handle: object, data: bytes | memoryview) -> int:
            sizes.append(len(data))
            return self.engine.send(handle, data)

        self.patch(self.server.transport, "engine", stumbling([], self.engine))

        def speak() -> None:
            self.server.say(b"two")
            self.server.say(b"two")

        self.patch(self.server, "handshakeCompleted", speak)
        object.__setattr__(self.server.transport.engine, "send", send)
        self.server.startTLS()
        self.server.say(b"one")
        self.client.startTLS()
        self.network.pump()
        self.assertEqual((self.client.received, sizes), (b"onetwotwo", [9]))

    def test_aPeerThatGoesIsLost(self) -> None:
        """A handshake that ends in the middle is no error of TLS."""
        self.server.startTLS()
        self.client.hangUp()
        self.network.pump()
        assert self.server.lost is not None
        self.assertIsNotNone(self.server.lost.check(ConnectionLost))

    def test_whoSpeaksNoTLSIsTold(self) -> None:
        """By an alert, although there is more of what it says than OpenSSL has read; we say why."""
        self.server.startTLS()
        self.client.say(b"\x16\x03\x01\x00\x04\x05\x00\x00\x00" + b"nonsense" * 100)
        self.network.pump()
        assert self.server.lost is not None
        self.assertIsInstance(self.server.lost.value, SSL.Error)
        self.assertEqual(self.client.received[:1], b"\x15")
        self.assertTrue(self.client.ended)

    def test_aRefusedCertificateIsTheReason(self) -> None:
        """What a creator raises is what the protocol hears; not one byte passes."""
        creator: BackendTLS = backendTLS(invalid=False)
        for version in VERSIONS:
            self.join()
            leaf = serverTLS()
            only(version)(leaf.context)
            self.server.startTLS(leaf)
            self.server.say(b"welcome")
            self.client.startTLS(creator)
            self.client.say(b"password")
            self.network.pump()
            assert self.client.lost is not None
            self.assertIsInstance(self.client.lost.value, CertificateRefused)
            self.assertEqual((self.server.received, self.client.received), (b"", b""))
            self.assertIsNotNone(self.server.lost)

    def test_aBrokenCreatorEndsItsConnectionOnly(self) -> None:
        """One without a cipher to offer fails at its first step, and tells it later."""
        lame = OtherEnd(lambda context: context.set_cipher_list(b"AES128-SHA"))
        lame.context.set_max_proto_version(SSL.TLS1_1_VERSION)
        self.client.startTLS(lame)
        self.assertIsNone(self.client.lost)
        self.network.pump()
        assert self.client.lost is not None
        self.assertIsInstance(self.client.lost.value, SSL.Error)

    def test_closingInTheMiddleIsCutting(self) -> None:
        """There is nobody yet to say good-bye to."""
        for end in ("loseConnection", "loseWriteConnection"):
            self.join()
            self.server.startTLS()
            getattr(self.server.transport, end)()
            self.network.pump()
            self.assertIsNotNone(self.server.lost)

    def test_handshakesWaitForAFullSocket(self) -> None:
        """A server whose flight does not fit goes on when there is room."""
        self.join(capacity=1)
        self.secure()
        self.assertAgreed()


class ResumptionTests(SecureCase):
    """Sessions are taken up again."""

    def test_anAbruptEndDoesNotSpoilASession(self) -> None:
        """OpenSSL would take it for a broken one: each way to end, in both versions."""
        ends: tuple[Callable[[Peer], None], ...] = (Peer.reset, Peer.hangUp)
        for version in VERSIONS:
            server, client = serverTLS(), OtherEnd(only(version))
            server.context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
            for end in ends:
                self.join()
                self.secure(server, client)
                self.assertAgreed()
                client.session = cast(Any, self.client.transport.getHandle()).get_session()
                end(self.client)
                self.network.pump()
                self.join()
                self.secure(server, client)
                handle = vars(cast(Any, self.client.transport.getHandle()))["_ssl"]
                self.assertTrue(vars(SSL)["_lib"].SSL_session_reused(handle), (version, end))

    def test_nothingIsRememberedOfALostConnection(self) -> None:
        """It is asked all the same, when its last words are read after its end."""
        creator = backendTLS()
        self.secure(client=creator)
        transport = self.client.transport
        self.client.reset()
        self.network.pump()
        creator.remember(transport)
        self.assertFalse(creator.resumed(transport))
        self.assertIsNone(creator._session)


class EndTests(SecureCase):
    """Ends of one direction and of both."""

    def test_oneDirectionEnds(self) -> None:
        """By a close-notify and a FIN; the other goes on, and ends by itself."""
        self.secure()
        self.client.say(b"all")
        self.client.finish()
        self.network.pump()
        self.assertEqual(self.server.received, b"all")
        self.assertTrue(self.server.ended)
        self.server.say(b"well")
        self.network.pump()
        self.assertEqual(self.client.received, b"well")
        self.server.hangUp()
        self.network.pump()
        self.assertTrue(self.client.ended)

    def test_aCutIsALoss(self) -> None:
        """Truncation: a FIN without a close-notify, and a connection that is broken off."""
        for cut in (Peer.truncate, lambda peer: peer.transport.cutConnection()):
            self.join()
            self.secure()
            self.client.say(b"half a mess")
            cut(self.client)
            self.network.pump()
            self.assertEqual(self.server.received, b"half a mess")
            self.assertFalse(self.server.ended)
            assert self.server.lost is not None
            self.assertIsNotNone(self.server.lost.check(ConnectionLost))

    def test_aCloseIsCleanAtBothEnds(self) -> None:
        """After all that was written, however much."""
        self.join(capacity=5000)
        self.secure()
        self.server.say(b"x" * 200_000)
        self.server.hangUp()
        self.network.pump()
        self.assertEqual(len(self.client.received), 200_000)
        self.assertTrue(self.client.ended)
        assert self.server.lost is not None
        self.assertIsNotNone(self.server.lost.check(ConnectionDone))

    def test_aGoodByeWaitsForAFullSocket(self) -> None:
        """It is sent when there is room, whole or half."""
        for half in (False, True):
            self.join(capacity=1)
            self.secure()
            self.client.stopReading()
            socketOf(self.server).setblocking(False)
            while self.server.transport.unsent == 0:
                self.server.say(b"x" * 100)
            (self.server.finish if half else self.server.hangUp)()
            self.network.pump()
            self.assertIsNone(self.server.lost)
            self.client.startReading()
            self.network.pump()
            self.assertTrue(self.client.ended)

    def test_nothingIsLeftOfALostConnection(self) -> None:
        """OpenSSL's part is let go with the socket, whose number is soon another's."""
        self.secure()
        transport = self.server.transport
        self.server.reset()
        self.network.pump()
        self.assertFalse(transport.tlsOnSocket)


def socketOf(peer: Peer) -> socket.socket:
    """A peer's socket."""
    return cast(socket.socket, cast(Any, peer.transport).socket)


class WaitTests(SecureCase):
    """OpenSSL may have to write to read, and to read to write."""

    def stumble(self, *plan: int) -> None:
        """Put TLS on, and have the server's next calls say so."""
        self.secure()
        self.patch(self.server.transport, "engine", stumbling(plan, self.engine))

    def test_aReadThatWantsToWrite(self) -> None:
        """It is repeated once the socket can be written, and what follows is read too."""
        self.stumble(WANT_WRITE)
        self.client.say(b"hello")
        self.network.pump()
        self.assertEqual(self.server.received, b"hello")
        self.assertNotIn(self.server.transport, self.network._writers)

    def test_anEndOfOursIsNotForgottenMeanwhile(self) -> None:
        """Both wait for the same event."""
        self.stumble(WANT_WRITE)
        self.client.say(b"hello")
        self.network._round()
        self.server.finish()
        self.network.pump()
        self.assertTrue(self.client.ended)
        self.assertEqual(self.server.received, b"hello")

    def test_ourEndComesOnceAlthoughTheReadIsRepeated(self) -> None:
        """OpenSSL would take what the peer still says for a mistake."""
        self.stumble(WANT_WRITE)
        self.client.say(b"hello")
        for _ in range(2):
            self.network._round()
        self.server.finish()
        self.client.say(b" and more")
        self.network.pump()
        self.assertEqual(self.server.received, b"hello and more")
        self.assertIsNone(self.server.lost)

    def test_anEndThatWantedToWriteIsAnEnd(self) -> None:
        """Not a loss."""
        self.stumble(WANT_WRITE)
        self.client.finish()
        self.network.pump()
        self.assertTrue(self.server.ended)
        self.assertIsNone(self.server.lost)

    def test_aWriteThatWantsToRead(self) -> None:
        """It is repeated once something has come, and not before: nothing spins meanwhile."""
        self.stumble(WANT_READ)
        self.server.say(b"hello")
        self.network.pump()
        self.assertEqual(self.client.received, b"")
        self.assertNotIn(self.server.transport, self.network._writers)
        self.client.say(b"now")
        self.network.pump()
        self.assertEqual((self.client.received, self.server.received), (b"hello", b"now"))

    def test_aWriteThatWantsToReadFromWhoHasEnded(self) -> None:
        """It is repeated, and the end is told once."""
        self.secure()
        self.client.finish()
        self.network.pump()
        self.server.ended = False
        self.patch(self.server.transport, "engine", stumbling([WANT_READ], self.engine))
        self.server.say(b"hello")
        self.network.pump()
        self.assertEqual(self.client.received, b"hello")
        self.assertFalse(self.server.ended)


class KeyTests(SecureCase):
    """TLS 1.3's keys change in the middle of a connection."""

    def test_anUpdateWhileAWriteWaits(self) -> None:
        """Its answer comes behind the record that is on its way, and no byte is lost."""
        self.join(capacity=5000)
        changer = KeyChanger()
        self.secure(client=changer.creator)
        self.client.stopReading()
        data = bytes(range(256)) * 800
        self.server.say(data)
        self.network.pump()
        self.assertGreater(self.server.transport.unsent, 0)
        wire = socketOf(self.client)
        wire.send(changer.update(self.client) + changer.record(self.client, b"a NOOP\r\n"))
        self.network.pump()
        self.assertEqual(self.server.take(), b"a NOOP\r\n")
        self.server.say(b"a OK\r\n")
        self.client.startReading()
        self.network.pump()
        self.assertTrue(self.client.received == data + b"a OK\r\n")
        wire.send(changer.record(self.client, b"b NOOP\r\n"))
        self.network.pump()
        self.assertEqual(self.server.take(), b"b NOOP\r\n")
        self.assertIsNone(self.server.lost or self.client.lost)


class PublicKeyTests(KeyTests):
    """The same with the engine that keeps to pyOpenSSL's public interface."""

    engine = openssl.public()


class PublicHandshakeTests(HandshakeTests):
    """The same with the engine that keeps to pyOpenSSL's public interface."""

    engine = openssl.public()


class PublicEndTests(EndTests):
    """The same with the engine that keeps to pyOpenSSL's public interface."""

    engine = openssl.public()
