"""A plain connection: what goes out when, what stays in the socket, and how it is broken off."""

from typing import Any, cast

from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from mailproxy.transport.connection import RESET_PAUSE
from tests.support import MemoryConnection, Network, Peer
from tests.transport.wire import Wire


class Talker(Protocol):
    """Answers each piece of data with several words, and notes what it hears."""

    transport: MemoryConnection

    def __init__(self, *answers: bytes) -> None:
        self.answers = answers
        self.received = b""
        self.shown: list[bytes] = []
        self.skips = 0
        self.lost: Failure | None = None

    def dataReceived(self, data: bytes) -> None:
        """Note it and answer."""
        self.received += data
        for answer in self.answers:
            self.transport.write(answer)

    def dataPeeked(self, data: bytes) -> None:
        """Note it, take some, and answer."""
        self.shown.append(data)
        self.transport.skip(self.skips)
        self.transport.write(b"seen")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Note it."""
        self.lost = reason


class ConnectionCase(SynchronousTestCase):
    """A talker and its peer, on a pair of sockets."""

    def join(self, *answers: bytes, network: Network | None = None) -> None:
        """Join them."""
        self.network = network or Wire()
        self.talker, self.peer = Talker(*answers), Peer()
        self.network.connect(self.talker, self.peer)

    def watch(self) -> list[bytes]:
        """Note each piece that the talker hands to its socket."""
        sent: list[bytes] = []
        write = self.talker.transport.writeSomeData

        def note(data: bytes | memoryview) -> Any:
            if data:
                sent.append(bytes(data))
            return write(data)

        self.patch(self.talker.transport, "writeSomeData", note)
        return sent

    def hear(self, data: bytes) -> None:
        """Let the peer say something."""
        self.peer.say(data)
        self.network.pump()


class WriteTests(ConnectionCase):
    """When words go out."""

    def test_whatIsWrittenGoesOutAtOnce(self) -> None:
        """Without waiting for the reactor, while the socket takes it."""
        self.join()
        sent = self.watch()
        self.talker.transport.write(b"one")
        self.talker.transport.writeSequence([b"t", b"wo"])
        self.assertEqual(sent, [b"one", b"two"])
        self.assertNotIn(self.talker.transport, self.network._writers)
        self.network.pump()
        self.assertEqual(self.peer.received, b"onetwo")

    def test_answersToOneSegmentGoOutTogether(self) -> None:
        """However many they are."""
        self.join(b"a", b"b", b"c")
        sent = self.watch()
        self.hear(b"!")
        self.assertEqual(sent, [b"abc"])

    def test_aFullSocketIsWaitedFor(self) -> None:
        """The rest goes out when there is room, in order, and the producer is told."""
        self.join(network=Wire(capacity=5000))
        producer = Peer()
        notes: list[str] = []
        for verb in ("pauseProducing", "resumeProducing"):
            setattr(producer, verb, lambda verb=verb: notes.append(verb))
        self.talker.transport.registerProducer(producer, True)
        self.peer.stopReading()
        self.talker.transport.write(b"x" * 100_000)
        self.talker.transport.write(b"end")
        self.network.pump()
        self.assertEqual(notes[:1], ["pauseProducing"])
        self.assertNotIn("resumeProducing", notes)
        self.peer.startReading()
        self.network.pump()
        self.assertEqual(self.peer.received, b"x" * 100_000 + b"end")
        self.assertEqual(notes[-1], "resumeProducing")

    def test_whoWritesToALostPeerHearsOfItLater(self) -> None:
        """Not in the middle of writing."""
        self.join()
        cast(Any, self.peer.transport).socket.close()
        self.network._readers.clear()
        self.talker.transport.write(b"anybody?")
        self.assertIsNone(self.talker.lost)
        self.network.pump()
        assert self.talker.lost is not None
        self.assertIsNotNone(self.talker.lost.check(ConnectionLost))

    def test_nothingIsSentAfterTheEnd(self) -> None:
        """Neither after ours nor after the connection's."""
        self.join()
        self.talker.transport.loseWriteConnection()
        self.network.pump()
        self.talker.transport.write(b"one more thing")
        self.talker.transport.abortConnection()
        self.network.pump()
        self.talker.transport.write(b"and another")
        self.network.pump()
        self.assertEqual(self.peer.received, b"")


class PeekTests(ConnectionCase):
    """Seeing without taking."""

    def test_whatIsShownStays(self) -> None:
        """It is read by the next read, except for what was skipped."""
        for skips, rest in ((0, b"PROXY hello"), (6, b"hello"), (11, b"")):
            self.join()
            self.talker.skips = skips
            self.talker.transport.peeking = True
            self.hear(b"PROXY hello")
            self.assertEqual((self.talker.shown, self.talker.received), ([b"PROXY hello"], rest))
            self.assertEqual(self.peer.received, b"seen")

    def test_itIsShownOnce(self) -> None:
        """Who wants to see more asks again."""
        self.join()
        self.talker.transport.peeking = True
        self.hear(b"a")
        self.hear(b"b")
        self.assertEqual((self.talker.shown, self.talker.received), ([b"a"], b"ab"))

    def test_anEndIsNotShown(self) -> None:
        """It is an end."""
        self.join()
        self.talker.transport.peeking = True
        self.peer.hangUp()
        self.network.pump()
        assert self.talker.lost is not None
        self.assertIsNotNone(self.talker.lost.check(ConnectionDone))
        self.assertEqual(self.talker.shown, [])


class CutTests(ConnectionCase):
    """Breaking off."""

    def test_itIsNoEndToThePeer(self) -> None:
        """It hears all that was written, and then a reset; not before it has had all."""
        self.join(network=Network(capacity=1000))
        self.peer.stopReading()
        self.talker.transport.write(b"x" * 5000)
        self.talker.transport.cutConnection()
        self.network.advance(10 * RESET_PAUSE)
        self.assertIsNone(self.talker.lost)
        self.peer.startReading()
        for _ in range(5):
            self.network.advance(RESET_PAUSE)
        self.assertEqual(self.peer.received, b"x" * 5000)
        assert self.peer.lost is not None and self.talker.lost is not None
        self.assertIsNotNone(self.peer.lost.check(ConnectionLost))
        self.assertFalse(self.peer.ended)
        self.assertEqual(self.network.getDelayedCalls(), [])

    def test_aPeerThatTakesNothingCanBeAborted(self) -> None:
        """While its last bytes are waited for."""
        self.join()
        self.peer.stopReading()
        self.talker.transport.write(b"x")
        self.talker.transport.cutConnection()
        self.network.advance(RESET_PAUSE)
        self.assertIsNone(self.talker.lost)
        self.talker.transport.abortConnection()
        self.network.advance(RESET_PAUSE)
        self.assertIsNotNone(self.talker.lost)
        self.assertEqual(self.network.getDelayedCalls(), [])

    def test_onARealSocketUnreadBytesAreSeen(self) -> None:
        """What the peer has not taken is counted, and no more once it has."""
        self.join()
        self.peer.stopReading()
        self.assertEqual(self.talker.transport.unacknowledged(), 0)
        self.talker.transport.write(b"abc")
        self.assertGreater(self.talker.transport.unacknowledged(), 0)
        self.peer.startReading()
        self.network.pump()
        self.assertEqual(self.talker.transport.unacknowledged(), 0)


class EndTests(ConnectionCase):
    """Ends of one side."""

    def test_anEndedSideIsNotReadAgain(self) -> None:
        """Whoever asks to: it would be told of its end once more."""
        network = Wire()
        ended, peer = Peer(), Peer()
        network.connect(ended, peer)
        peer.finish()
        network.pump()
        self.assertTrue(ended.ended)
        ended.ended = False
        ended.transport.resumeProducing()
        network.pump()
        self.assertFalse(ended.ended)

    def test_whatIsAbortedIsNotClosedInGoodOrder(self) -> None:
        """Although somebody asks for that before the connection is gone."""
        network = Network()
        aborted, peer = Peer(), Peer()
        network.connect(aborted, peer)
        aborted.reset()
        aborted.hangUp()
        network.pump()
        assert peer.lost is not None
        self.assertIsNotNone(peer.lost.check(ConnectionLost))

    def test_withNothingToSayItEndsAtOnce(self) -> None:
        """Half or whole; else it waits for the socket."""
        for data, isLater in ((b"", False), (b"x" * 200_000, True)):
            for end in ("loseConnection", "loseWriteConnection"):
                network = Wire()
                ended, peer = Peer(), Peer()
                network.connect(ended, peer)
                ended.say(data)
                getattr(ended.transport, end)()
                self.assertEqual(ended.transport in network._writers, isLater)
                network.pump()
                self.assertEqual((len(peer.received), peer.ended), (len(data), True))
