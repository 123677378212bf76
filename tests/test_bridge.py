"""Two legs joined: every byte, both flows held, and every way to end."""

from typing import ClassVar, cast

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.trial.unittest import SynchronousTestCase

from mailproxy.bridge import DRAIN_GRACE, LAST_ANSWER, LAST_LOOKS, Bridge, Ending
from mailproxy.stream import CLOSE_GRACE, Stream
from tests.support import MemoryConnection, Network, Peer, Segments, serverTLS

IDLE = 1800.0

SECURED = ((False, False), (False, True), (True, False), (True, True))
"""Whether the client's and the backend's leg are encrypted: each way."""


class Joint:
    """A client and a backend, each joined to one stream of ours, and a bridge between these."""

    def __init__(self, isSecure: tuple[bool, bool], network: Network) -> None:
        self.network = network
        self.client, self.backend = Peer(), Peer()
        self.streams = Stream(self.network), Stream(self.network)
        for stream, peer, secure in zip(
            self.streams, (self.client, self.backend), isSecure, strict=True
        ):
            self.network.connect(stream, peer)
            if secure:
                stream.startTLS(serverTLS())
                peer.startTLS()
                self.network.pump()
        self.bridge = Bridge(*self.streams, IDLE, self.network)

    def run(self) -> Deferred[Ending]:
        """Join them."""
        self.done = self.bridge.run()
        self.network.pump()
        return self.done

    def transports(self) -> list[MemoryConnection]:
        """Our transports."""
        return [cast(MemoryConnection, stream.transport) for stream in self.streams]


class BridgeCase(SynchronousTestCase):
    """Tells whether all is over.

    :cvar medium: what everybody is joined by.
    """

    medium: ClassVar[type[Network]] = Network

    def joint(
        self, isSecure: tuple[bool, bool] = (False, False), network: Network | None = None
    ) -> Joint:
        """Set a client, a bridge and a backend up."""
        return Joint(isSecure, network or self.medium())

    def assertEnded(self, joint: Joint, ending: Ending) -> None:
        """Both legs are gone for this reason, and nothing waits in the clock."""
        self.assertEqual(self.successResultOf(joint.done), ending)
        self.assertEqual([stream.lost for stream in joint.streams], [True, True])
        self.assertEqual(joint.network.getDelayedCalls(), [])


class ByteTests(BridgeCase):
    """What one says, the other gets."""

    def test_everyByteArrivesOnceAndInOrder(self) -> None:
        """Both ways, in any chunks, whatever of it was there before; and it is counted."""
        chunks = st.lists(st.tuples(st.booleans(), st.binary(max_size=3000)), max_size=20)
        cuts = st.sampled_from([Segments.WHOLE, Segments.LINES])

        @settings(max_examples=60, deadline=None)
        @given(chunks, chunks, cuts, st.sampled_from(SECURED))
        def check(
            early: list[tuple[bool, bytes]],
            late: list[tuple[bool, bytes]],
            cut: Segments,
            secured: tuple[bool, bool],
        ) -> None:
            joint = self.joint(secured, self.medium(cut, 1000))
            for fromClient, data in early:
                (joint.client if fromClient else joint.backend).say(data)
                joint.network.pump()
            joint.run()
            for fromClient, data in late:
                (joint.client if fromClient else joint.backend).say(data)
                joint.network.pump()
            up = b"".join(data for fromClient, data in early + late if fromClient)
            down = b"".join(data for fromClient, data in early + late if not fromClient)
            self.assertEqual((joint.backend.received, joint.client.received), (up, down))
            self.assertEqual((joint.bridge.received, joint.bridge.sent), (len(up), len(down)))

        check()

    def test_singleBytesArriveToo(self) -> None:
        """One byte per segment, on every kind of leg."""
        for secured in SECURED:
            joint = self.joint(secured, self.medium(Segments.BYTES))
            joint.run()
            joint.client.say(b"a NOOP\r\n")
            joint.backend.say(b"a OK\r\n")
            joint.network.pump()
            self.assertEqual(joint.backend.received, b"a NOOP\r\n")
            self.assertEqual(joint.client.received, b"a OK\r\n")

    def test_whatWasSaidBeforeGoesAfterOurOwnWords(self) -> None:
        """The backend's answer, which we sent, comes before what the backend said behind it."""
        joint = self.joint()
        joint.client.say(b"b SELECT\r\n")
        joint.backend.say(b"* 1 EXISTS\r\n")
        joint.network.pump()
        joint.streams[0].send(b"a OK\r\n")
        joint.run()
        self.assertEqual(joint.client.received, b"a OK\r\n* 1 EXISTS\r\n")
        self.assertEqual(joint.backend.received, b"b SELECT\r\n")


class FlowTests(BridgeCase):
    """A slow reader holds the fast writer, not our memory."""

    SIZE = 2_000_000
    LIMIT = 256 * 1024

    def test_aSlowReaderHoldsTheWriter(self) -> None:
        """Either way, on every kind of leg; then all of it arrives."""
        for secured in SECURED:
            for fromClient in (True, False):
                self.check(secured, fromClient)

    def check(self, secured: tuple[bool, bool], fromClient: bool) -> None:
        """Let one end write far more than the other reads."""
        joint = self.joint(secured, self.medium(capacity=20_000))
        joint.run()
        writer, reader = (joint.client, joint.backend)[:: 1 if fromClient else -1]
        source, sink = joint.transports()[:: 1 if fromClient else -1]
        data = bytes(range(256)) * (self.SIZE // 256)
        reader.stopReading()
        for at in range(0, len(data), 10_000):
            writer.say(data[at : at + 10_000])
            joint.network.pump()
            self.assertLess(sink.unsent, self.LIMIT)
        self.assertTrue(source.paused)
        self.assertGreater(writer.transport.unsent, self.SIZE - 2 * self.LIMIT)
        reader.startReading()
        joint.network.pump()
        self.assertTrue(reader.received == data)
        self.assertFalse(source.paused)

    def test_oneHeldDirectionDoesNotHoldTheOther(self) -> None:
        """A client that does not read its download can still send."""
        joint = self.joint(network=self.medium(capacity=1000))
        joint.run()
        joint.client.stopReading()
        joint.backend.say(b"x" * 500_000)
        joint.network.pump()
        joint.client.say(b"DONE\r\n")
        joint.network.pump()
        self.assertEqual(joint.backend.received, b"DONE\r\n")

    def test_aLegThatWasHeldBeforeIsFree(self) -> None:
        """A client that was paused, or that took no answers, before the login flows on after it."""
        joint = self.joint(network=self.medium(capacity=1000))
        joint.client.say(b"x" * 300_000)
        joint.network.pump()
        joint.client.stopReading()
        joint.streams[0].send(b"y" * 100_000)
        joint.network.pump()
        self.assertTrue(joint.transports()[0].paused)
        joint.run()
        joint.backend.say(b"z" * 100_000)
        joint.network.pump()
        self.assertEqual(len(joint.backend.received), 300_000)
        joint.client.startReading()
        joint.network.pump()
        self.assertEqual(joint.client.received, b"y" * 100_000 + b"z" * 100_000)

    def test_aClientThatTookNoAnswersIsHeard(self) -> None:
        """Its answers still pile up, but what it says now is the backend's to take."""
        joint = self.joint(network=self.medium(capacity=1000))
        joint.client.stopReading()
        joint.streams[0].send(b"y" * 100_000)
        joint.network.pump()
        self.assertTrue(joint.transports()[0].paused)
        joint.run()
        joint.client.say(b"b SELECT\r\n")
        joint.network.pump()
        self.assertEqual(joint.backend.received, b"b SELECT\r\n")


class HalfCloseTests(BridgeCase):
    """Who has said all may still listen."""

    def test_anEndIsCarriedOver(self) -> None:
        """A FIN becomes a FIN; the answer comes back; the second end ends the bridge."""
        joint = self.joint()
        joint.run()
        joint.client.say(b"QUIT\r\n")
        joint.client.finish()
        joint.network.pump()
        self.assertEqual(joint.backend.received, b"QUIT\r\n")
        self.assertTrue(joint.backend.ended)
        joint.backend.say(b"221 bye\r\n")
        joint.network.pump()
        self.assertEqual(joint.client.received, b"221 bye\r\n")
        self.assertNoResult(joint.done)
        joint.backend.hangUp()
        joint.network.pump()
        self.assertTrue(joint.client.ended)
        self.assertEnded(joint, Ending.CLIENT)

    def test_aBackendsEndIsCarriedOverToo(self) -> None:
        """The other way round; who ended first is the reason that is told."""
        joint = self.joint()
        joint.run()
        joint.backend.say(b"* BYE\r\n")
        joint.backend.finish()
        joint.network.pump()
        self.assertEqual(joint.client.received, b"* BYE\r\n")
        self.assertTrue(joint.client.ended)
        joint.client.say(b"still here")
        joint.network.pump()
        self.assertEqual(joint.backend.received, b"still here")
        joint.client.hangUp()
        joint.network.pump()
        self.assertEnded(joint, Ending.BACKEND)

    def test_aClientHasItsTimeToClose(self) -> None:
        """Once it knows that its backend has ended; while it still speaks it is heard."""
        for secured in SECURED:
            joint = self.joint(secured)
            joint.run()
            joint.backend.say(b"* BYE\r\n")
            joint.backend.finish()
            joint.network.pump()
            if joint.backend.lost is None and joint.client.lost is None:  # as with Twisted's TLS
                for _ in range(3):
                    joint.network.advance(CLOSE_GRACE * 0.9)
                    joint.client.say(b"wait\r\n")
                    joint.network.pump()
                self.assertEqual(joint.backend.received, b"wait\r\n" * 3)
            for _ in range(4):
                joint.network.advance(CLOSE_GRACE)
            self.assertEqual(joint.client.received, b"* BYE\r\n")
            self.assertEnded(joint, Ending.BACKEND)

    def test_aClientThatIsStillReadingHasMore(self) -> None:
        """It knows of the end when it has read all before it, however long that takes."""
        for secured in SECURED:
            joint = self.joint(secured, self.medium(capacity=1000))
            joint.run()
            if not all(stream.endsByHalves for stream in joint.streams):
                continue  # to Twisted's TLS one end is both
            joint.client.stopReading()
            joint.backend.say(b"x" * 20_000)
            joint.backend.finish()
            for _ in range(int(2 * DRAIN_GRACE / CLOSE_GRACE)):
                joint.network.advance(CLOSE_GRACE)
            joint.client.startReading()
            joint.network.pump()
            self.assertEqual(len(joint.client.received), 20_000)
            lost = joint.client.lost  # as Twisted's TLS tells an end
            self.assertTrue(joint.client.ended or (lost and lost.check(ConnectionDone)))

    def test_anEndBecomesANoticeOnTLS(self) -> None:
        """A TLS backend hears that no byte follows once it has been silent: it may stop at that."""
        joint = self.joint((False, True))
        joint.run()
        joint.client.say(b"QUIT\r\n")
        joint.client.finish()
        for _ in range(3):
            joint.network.advance(LAST_ANSWER - 1)
            joint.backend.say(b"* more\r\n")
            joint.network.pump()
        self.assertEqual(joint.backend.received, b"QUIT\r\n")
        self.assertEqual(joint.client.received, b"* more\r\n" * 3)
        self.assertIsNone(joint.backend.lost)
        look = LAST_ANSWER / LAST_LOOKS
        for _ in range(LAST_LOOKS):
            joint.network.advance(look)
            self.assertFalse(joint.backend.ended or joint.backend.lost)
        joint.network.advance(look)
        if joint.backend.lost is None:  # it may go on: only one direction has ended
            self.assertTrue(joint.backend.ended)
            joint.backend.hangUp()
            joint.network.pump()
        assert joint.backend.lost is not None
        self.assertIsNotNone(joint.backend.lost.check(ConnectionDone))
        self.assertEnded(joint, Ending.CLIENT)

    def test_aLongAnswerAfterAnEndIsHeldToo(self) -> None:
        """Back-pressure goes on in the direction that is left."""
        for secured in ((False, False), (True, False)):
            joint = self.joint(secured, self.medium(capacity=1000))
            joint.run()
            joint.backend.finish()
            joint.network.pump()
            if joint.client.lost is None:
                joint.backend.stopReading()
                joint.client.say(b"x" * 400_000)
                joint.network.pump()
                self.assertLess(joint.transports()[1].unsent, 256 * 1024)
                joint.backend.startReading()
                joint.network.pump()
                self.assertEqual(len(joint.backend.received), 400_000)

    def test_aLegThatHadEndedBeforeIsCarriedOver(self) -> None:
        """A client that pipelined everything and ended its side gets its answers."""
        for secured in ((False, False), (False, True)):
            joint = self.joint(secured)
            joint.client.say(b"b LOGOUT\r\n")
            joint.client.finish()
            joint.network.pump()
            joint.backend.stopReading()
            joint.run()
            joint.backend.say(b"* BYE\r\n")
            joint.network.pump()
            self.assertEqual(joint.client.received, b"* BYE\r\n")
            joint.backend.startReading()
            joint.network.pump()
            self.assertEqual(joint.backend.received, b"b LOGOUT\r\n")
            joint.backend.hangUp()
            joint.network.pump()
            self.assertEnded(joint, Ending.CLIENT)


class LossTests(BridgeCase):
    """One leg goes: the other follows, after what is on its way."""

    def test_aResetEndsTheOtherLeg(self) -> None:
        """On every kind of leg, whichever is reset."""
        for secured in SECURED:
            for ending in (Ending.CLIENT, Ending.BACKEND):
                joint = self.joint(secured)
                joint.run()
                peers = {Ending.CLIENT: joint.client, Ending.BACKEND: joint.backend}
                lost = peers.pop(ending)
                (other,) = peers.values()
                lost.say(b"last words")
                joint.network.pump()
                lost.reset()
                joint.network.advance(0)
                self.assertEqual(other.received, b"last words")
                if other.lost is None:
                    other.hangUp()
                    joint.network.pump()
                self.assertEnded(joint, ending)

    def test_theLastBytesReachASlowReader(self) -> None:
        """A backend that is gone has said what its client is still reading."""
        for secured in SECURED:
            joint = self.joint(secured, self.medium(capacity=1000))
            joint.run()
            joint.client.stopReading()
            joint.backend.say(b"x" * 50_000)
            joint.backend.hangUp()
            joint.network.advance(DRAIN_GRACE / 2)
            joint.client.startReading()
            joint.network.pump()
            self.assertEqual(len(joint.client.received), 50_000)
            joint.client.hangUp()
            joint.network.pump()
            self.assertEnded(joint, Ending.BACKEND)

    def test_aReaderThatNeverReadsIsCut(self) -> None:
        """After its grace it does not keep us any longer."""
        joint = self.joint((False, True), self.medium(capacity=1000))
        joint.run()
        joint.client.stopReading()
        joint.backend.say(b"x" * 4000)
        joint.network.pump()
        joint.streams[1].transport.pauseProducing()
        joint.backend.say(b"x" * 4000)
        joint.network.pump()
        joint.backend.truncate()
        for _ in range(2):  # what has come may be read before its end is
            joint.streams[1].transport.resumeProducing()
            joint.network.advance(0)
        joint.network.advance(DRAIN_GRACE - 1)
        self.assertNoResult(joint.done)
        joint.network.advance(1)
        self.assertEnded(joint, Ending.BACKEND)

    def test_aNoticeEndsTheBridge(self) -> None:
        """A TLS client that says good-bye is gone; its backend, plain or not, is closed cleanly."""
        for secured in ((True, False), (True, True)):
            joint = self.joint(secured)
            joint.run()
            joint.client.hangUp()
            joint.network.pump()
            joint.backend.hangUp()
            joint.network.pump()
            assert joint.backend.lost is not None
            self.assertIsNotNone(joint.backend.lost.check(ConnectionDone))
            self.assertEnded(joint, Ending.CLIENT)

    def test_truncatedTLSClosesTheOtherLeg(self) -> None:
        """Truncation: who is cut off without notice has not ended, and its backend hears so."""
        for secured in ((True, False), (True, True)) if self.medium.resets else ((True, True),):
            joint = self.joint(secured)
            joint.run()
            joint.client.say(b"half a mess")
            joint.network.pump()
            joint.client.truncate()
            joint.network.advance(1)
            self.assertTrue(joint.streams[0].lost)
            self.assertEqual(joint.backend.received, b"half a mess")
            self.assertFalse(joint.backend.ended)
            assert joint.backend.lost is not None
            self.assertIsNotNone(joint.backend.lost.check(ConnectionLost))
            self.assertEnded(joint, Ending.CLIENT)

    def test_legsThatWereLostBefore(self) -> None:
        """Either leg, or both, may go between the login's answer and the bridge."""
        for secured in SECURED:
            for gone in ((0,), (1,), (0, 1)):
                joint = self.joint(secured)
                peers = joint.client, joint.backend
                for each in gone:
                    peers[each].say(b"last words")
                    joint.network.pump()
                    peers[each].reset()
                joint.network.advance(0)
                joint.run()
                for other in {0, 1} - set(gone):
                    self.assertEqual(peers[other].received, b"last words")
                    peers[other].hangUp()
                joint.network.advance(1)
                self.assertEnded(joint, Ending.BACKEND if gone == (1,) else Ending.CLIENT)

    def test_aTruncationBeforeTheBridgeIsALoss(self) -> None:
        """Cut TLS, bytes unread: they are passed on, and the other leg is cut too."""
        joint = self.joint((True, True))
        joint.backend.say(b"* 1 EXISTS\r\n")
        joint.network.pump()
        joint.backend.truncate()
        joint.network.pump()
        joint.run()
        self.assertEqual(joint.client.received, b"* 1 EXISTS\r\n")
        assert joint.client.lost is not None
        self.assertIsNotNone(joint.client.lost.check(ConnectionLost))
        self.assertEnded(joint, Ending.BACKEND)


class IdleTests(BridgeCase):
    """Silence ends a bridge, in time."""

    def test_silenceEndsIt(self) -> None:
        """From the start, after one idle time and at most a quarter more."""
        joint = self.joint()
        joint.run()
        self.wait(joint, IDLE - 1)
        self.assertFalse(joint.client.ended or joint.backend.ended)
        self.wait(joint, IDLE / 4 + 10)  # each step is a little late
        self.settle(joint)

    def test_aByteEitherWayPutsItOff(self) -> None:
        """Whenever it comes, and whoever sends it."""
        for moment in (0.0, 0.1, 0.25, 0.3, 0.5, 0.77, 0.99):
            for fromClient in (True, False):
                joint = self.joint()
                joint.run()
                self.wait(joint, IDLE * moment)
                (joint.client if fromClient else joint.backend).say(b"x")
                joint.network.pump()
                self.wait(joint, IDLE - 1)
                self.assertFalse(joint.client.ended, moment)
                self.wait(joint, IDLE / 4 + 10)  # each step is a little late
                self.settle(joint)

    def test_aBusyBridgeLives(self) -> None:
        """A byte in each idle time is enough."""
        joint = self.joint((True, True))
        joint.run()
        for _ in range(20):
            joint.network.advance(IDLE * 0.9)
            joint.backend.say(b"* OK still here\r\n")
            joint.network.pump()
        self.assertNoResult(joint.done)
        self.assertEqual(len(joint.network.getDelayedCalls()), 1)

    def wait(self, joint: Joint, seconds: float) -> None:
        """Let time pass in small steps, as it does: a leap would make every timer late."""
        for _ in range(1000):
            joint.network.advance(seconds / 1000)

    def settle(self, joint: Joint) -> None:
        """Both ends find themselves closed, and close."""
        self.assertTrue(joint.client.ended and joint.backend.ended)
        joint.client.hangUp()
        joint.backend.hangUp()
        joint.network.pump()
        self.assertEnded(joint, Ending.IDLE)


class KickTests(BridgeCase):
    """A bridge is cut from outside."""

    def test_bothLegsAreClosed(self) -> None:
        """On every kind of leg, at once for the owner and within the grace for the peers."""
        for secured in SECURED:
            joint = self.joint(secured)
            joint.run().cancel()
            self.failureResultOf(joint.done, CancelledError)
            joint.network.pump()
            for peer in (joint.client, joint.backend):
                self.assertTrue(peer.ended or peer.lost)
            joint.network.advance(CLOSE_GRACE)
            self.assertEqual([stream.lost for stream in joint.streams], [True, True])
            self.assertEqual(joint.network.getDelayedCalls(), [])

    def test_whoReadsNothingIsCut(self) -> None:
        """A kick does not wait for a slow reader as a drain does."""
        for secured in SECURED:
            joint = self.joint(secured, self.medium(capacity=1000))
            joint.run()
            for peer, other in ((joint.client, joint.backend), (joint.backend, joint.client)):
                peer.stopReading()
                other.say(b"x" * 300_000)
            joint.network.pump()
            joint.done.addErrback(lambda _: None)
            joint.done.cancel()
            joint.network.advance(CLOSE_GRACE)
            self.assertEqual([stream.lost for stream in joint.streams], [True, True])
            self.assertEqual(joint.network.getDelayedCalls(), [])

    def test_theCountsStay(self) -> None:
        """What went over a bridge is told after its end."""
        joint = self.joint()
        joint.run()
        joint.client.say(b"12345")
        joint.backend.say(b"123")
        joint.network.pump()
        joint.done.addErrback(lambda _: None)
        joint.done.cancel()
        joint.client.say(b"more")
        joint.network.pump()
        self.assertEqual((joint.bridge.received, joint.bridge.sent), (5, 3))
