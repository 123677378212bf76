"""Two connections joined: what a bridge promises, and every byte, whatever the legs go through."""

import itertools
import socket
from typing import Any, ClassVar

import attrs
from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.internet.error import ConnectionLost
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from mailproxy import openssl
from mailproxy.bridge import DRAIN_GRACE, LAST_ANSWER, LAST_LOOKS
from mailproxy.openssl import PIECES, ROUNDS, SIZE, SMALL, WANT_READ, WANT_WRITE, Engine
from mailproxy.stream import CLOSE_GRACE
from mailproxy.transport import SocketConnection, joint
from mailproxy.transport.pipe import LARGE, shared
from tests import support, test_bridge
from tests.support import Peer
from tests.test_bridge import SECURED, Joint
from tests.transport.engines import STUMBLES, stumbling
from tests.transport.keys import KeyChanger
from tests.transport.wire import NearWire, TCPWire, Wire


class WireByteTests(test_bridge.ByteTests):
    """Every byte, between a bridge on sockets and Twisted's TLS."""

    medium = Wire


class WireFlowTests(test_bridge.FlowTests):
    """Slow readers of a bridge on sockets."""

    medium = Wire


class WireHalfCloseTests(test_bridge.HalfCloseTests):
    """Half-close over a bridge on sockets."""

    medium = Wire


class WireLossTests(test_bridge.LossTests):
    """Legs of a bridge on sockets that go."""

    medium = Wire


class WireIdleTests(test_bridge.IdleTests):
    """Silence on a bridge on sockets."""

    medium = Wire


class WireKickTests(test_bridge.KickTests):
    """A bridge on sockets is cut from outside."""

    medium = Wire


class NearHalfCloseTests(test_bridge.HalfCloseTests):
    """The same between ends that can half-close TLS."""

    medium = NearWire


class NearLossTests(test_bridge.LossTests):
    """The same, when they go."""

    medium = NearWire


class ResetBehindAnEndTests(SynchronousTestCase):
    """A reset behind an end that was clean."""

    def test_itIsNoTruncation(self) -> None:
        """All had come: the other leg's reader hears an end, and not that something is missing."""
        for secured in SECURED:
            joint = Joint(secured, NearWire(capacity=2000))
            joint.run()
            joint.client.stopReading()
            joint.backend.say(b"x" * 4000)
            joint.backend.finish()
            for _ in range(3):
                joint.network.pump()
            joint.backend.reset()
            joint.client.say(b"c LOGOUT\r\n")
            joint.network.pump()
            joint.client.startReading()
            for _ in range(20):
                joint.network.advance(1)
            self.assertEqual(len(joint.client.received), 4000, secured)
            self.assertTrue(joint.client.ended, secured)


class ResetTests(SynchronousTestCase):
    """TCP tells a reset once: who writes may hear of it, and who reads is then told of an end."""

    def test_aResetThatAWriteHasMetIsNoEnd(self) -> None:
        """A part is not taken for the whole, whichever leg is reset, and has all the same come."""
        for isClient, isRead in itertools.product((True, False), repeat=2):
            joint = Joint((False, False), TCPWire())
            joint.run()
            order = 1 if isClient else -1
            gone, other = (joint.client, joint.backend)[::order]
            source, sink = joint.transports()[::order]
            gone.say(b"half a mess")
            if isRead:
                joint.network.pump()
            gone.reset()
            Clock.advance(joint.network, 0)
            source.write(b"anybody?")
            joint.network.advance(1)
            self.assertEqual(other.received, b"half a mess")
            self.assertFalse(other.ended)
            assert other.lost is not None
            self.assertIsNotNone(other.lost.check(ConnectionLost))
            self.assertFalse(sink.connected)

    def test_aBridgesOwnWriteIsOne(self) -> None:
        """The bytes of the other leg are what meets it."""
        joint = Joint((False, False), TCPWire())
        joint.run()
        joint.backend.say(b"half a mess")
        joint.network.pump()
        joint.client.say(b"anybody?")
        joint.backend.reset()
        Clock.advance(joint.network, 0)
        joint.transports()[0].doRead()
        joint.network.advance(1)
        self.assertEqual(joint.client.received, b"half a mess")
        self.assertFalse(joint.client.ended)
        assert joint.client.lost is not None
        self.assertIsNotNone(joint.client.lost.check(ConnectionLost))


class JoinCase(SynchronousTestCase):
    """A bridge on sockets.

    :cvar engine: what moves the bytes.
    """

    engine: ClassVar[Engine] = openssl.engine

    def setUp(self) -> None:
        """Use the engine."""
        self.patch(SocketConnection, "engine", self.engine)

    def joint(self, isSecure: tuple[bool, bool] = (True, True), capacity: int = 65536) -> Joint:
        """Set a client, a bridge and a backend up, and join them."""
        joint = Joint(isSecure, NearWire(capacity=capacity))
        joint.run()
        return joint


class HalfCloseTests(JoinCase):
    """An end of one direction is not the end of the other, TLS or not."""

    def test_aClientThatHasSaidAllHearsTheAnswers(self) -> None:
        """Its close-notify, or its FIN, leaves it the answers; its backend may take its time."""
        for secured in SECURED:
            joint = self.joint(secured)
            joint.client.say(b"QUIT\r\n")
            joint.client.finish()
            for _ in range(3):
                joint.network.advance(LAST_ANSWER * 0.9)
                joint.backend.say(b"* more\r\n")
                joint.network.pump()
            self.assertEqual(joint.backend.received, b"QUIT\r\n")
            self.assertEqual(joint.client.received, b"* more\r\n" * 3)
            self.assertIsNone(joint.client.lost)

    def test_aBackendThatHasSaidAllHearsTheRest(self) -> None:
        """Its end reaches the client, and what the client still says reaches it."""
        for secured in SECURED:
            joint = self.joint(secured)
            joint.backend.say(b"* BYE\r\n")
            joint.backend.finish()
            joint.network.pump()
            self.assertTrue(joint.client.ended)
            self.assertEqual(joint.client.received, b"* BYE\r\n")
            joint.client.say(b"so long\r\n")
            joint.network.pump()
            self.assertEqual(joint.backend.received, b"so long\r\n")

    def test_aClientThatTakesLongStillHearsTheEnd(self) -> None:
        """It came with the last bytes; their reader knows of it, and has no time, before it has
        taken them."""
        for secured in ((False, True), (True, True)):
            joint = self.joint(secured)
            joint.transports()[0].socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1000)
            joint.client.stopReading()
            joint.backend.say(b"x" * 16_000)
            joint.backend.finish()
            joint.network.pump()
            self.assertTrue(joint.streams[1].ended)
            self.assertFalse(joint.streams[0].finished)
            for _ in range(int(2 * DRAIN_GRACE / CLOSE_GRACE)):
                joint.network.advance(CLOSE_GRACE)
            joint.client.startReading()
            joint.network.pump()
            self.assertEqual(len(joint.client.received), 16_000)
            self.assertTrue(joint.client.ended)

    def test_aClientThatIsReadSlowlyKeepsItsBackend(self) -> None:
        """Silence that is the client's own doing does not count."""
        joint = self.joint(capacity=1000)
        joint.client.finish()
        joint.network.pump()
        joint.client.stopReading()
        joint.backend.say(b"x" * 200_000)
        joint.network.pump()
        for _ in range(3 * LAST_LOOKS):
            joint.network.advance(LAST_ANSWER / LAST_LOOKS)
        self.assertFalse(joint.backend.ended)
        joint.client.startReading()
        joint.network.pump()
        self.assertEqual(len(joint.client.received), 200_000)


class MoveTests(JoinCase):
    """How bytes are moved."""

    def test_oneEventDoesNotTakeForEver(self) -> None:
        """A flood is moved in portions: others have their turn."""
        for engine in (openssl.direct(), openssl.public()):
            self.patch(SocketConnection, "engine", engine)
            joint = self.joint((True, True), 1 << 20)
            source, _ = joint.transports()
            source.pauseProducing()
            for _ in range(60):
                joint.client.say(b"x" * 16_384)
            joint.network.pump()
            source.doRead()
            moved = joint.bridge.received
            self.assertGreaterEqual(moved, ROUNDS * 16_384)
            self.assertLessEqual(moved, 16_384 + PIECES * SIZE)
            source.resumeProducing()
            joint.network.pump()
            self.assertEqual(len(joint.backend.received), 60 * 16_384)

    def test_smallRecordsOfALargeWholeGoOutTogether(self) -> None:
        """A sender that writes 4 KiB at a time does not make its reader pay for each."""
        joint = self.joint((True, False), 1 << 20)
        source, sink = joint.transports()
        source.pauseProducing()
        for _ in range(16):
            joint.client.say(b"x" * 4096)
        joint.network.pump()
        sizes: list[int] = []

        def take(count: int, _: object) -> bool:
            sizes.append(count)
            return True

        self.patch(sink, "take", take)
        source.doRead()
        self.assertEqual(sizes, [16_384] * 4)

    def test_whatIsHeldIsBounded(self) -> None:
        """A sink that takes nothing has at most one portion to keep."""
        for secured in SECURED:
            joint = self.joint(secured, 20_000)
            joint.client.stopReading()
            for _ in range(20):
                joint.backend.say(b"x" * 50_000)
                joint.network.pump()
            source, sink = joint.transports()[::-1]
            self.assertTrue(source.paused)
            self.assertLessEqual(sink.unsent, 65_536)

    def test_smallRecordsArePassedOneByOne(self) -> None:
        """Nothing is to be expected behind one, so nothing is waited, nor looked, for."""
        joint = self.joint((True, True))
        source, _ = joint.transports()
        source.pauseProducing()
        for size in (SMALL - 1, 7):
            joint.client.say(b"x" * size)
        joint.network.pump()
        for count in (SMALL - 1, SMALL - 1 + 7):
            source.doRead()
            self.assertEqual(joint.bridge.received, count)
            joint.network.pump()
            self.assertEqual(len(joint.backend.received), count)

    def test_aLostConnectionHoldsNobody(self) -> None:
        """Neither who waited for it, nor whom its bytes went to: what keeps one keeps both."""
        network = NearWire(capacity=5000)
        (near, writer), (far, reader) = pairs = [(Peer(), Peer()) for _ in range(2)]
        for pair in pairs:
            network.connect(*pair)
        source, sink = near.transport, far.transport
        source.joinTo(sink)
        reader.stopReading()
        writer.say(b"x" * 50_000)
        network.pump()
        self.assertTrue(source.held)
        for each in (sink, source):
            each.connectionLost(Failure(ConnectionLost()))
            self.assertEqual((each._sink, each._held), (None, None))

    def test_keysMayChangeWhileASinkIsFull(self) -> None:
        """The client's update, which its leg answers behind what waits; both directions go on."""
        changer = KeyChanger()
        self.patch(support, "clientTLS", lambda: changer.creator)
        joint = self.joint((True, True), 5000)
        wire = joint.client.transport.socket
        joint.client.stopReading()
        joint.backend.say(b"x" * 200_000)
        joint.network.pump()
        self.assertGreater(joint.transports()[0].unsent, 0)
        wire.send(changer.update(joint.client) + changer.record(joint.client, b"a NOOP\r\n"))
        joint.network.pump()
        self.assertEqual(joint.backend.received, b"a NOOP\r\n")
        joint.client.startReading()
        joint.backend.say(b"a OK\r\n")
        joint.network.pump()
        self.assertTrue(joint.client.received == b"x" * 200_000 + b"a OK\r\n")
        wire.send(changer.record(joint.client, b"b NOOP\r\n"))
        joint.network.pump()
        self.assertEqual(joint.backend.received, b"a NOOP\r\nb NOOP\r\n")

    def test_keysMayChangeInTheMiddleOfMuch(self) -> None:
        """Where it is read in pieces, too: the update is answered, and both directions go on."""
        bulks: list[int] = []

        def bulk(*arguments: Any) -> int:
            bulks.append(direct.bulk(*arguments))
            return bulks[-1]

        direct, changer = openssl.direct(), KeyChanger()
        self.patch(SocketConnection, "engine", attrs.evolve(direct, bulk=bulk))
        self.patch(support, "clientTLS", lambda: changer.creator)
        joint = self.joint((True, True), 1 << 20)
        data = bytes(range(250)) * 64
        self.assertGreater(len(data) * 7, SIZE + 2 * 16_384)

        def said() -> bytes:
            return changer.record(joint.client, data)

        for _ in range(3):
            flow = b"".join(changer.update(joint.client) + said() for _ in range(7))
            joint.client.transport.socket.send(flow)
            joint.network.pump()
            joint.backend.say(b"go on\r\n")
            joint.network.pump()
        self.assertTrue(joint.backend.received == data * 21)
        self.assertEqual(joint.client.received, b"go on\r\n" * 3)
        self.assertEqual(set(bulks), {WANT_READ})

    def test_aLostSinkTakesNothing(self) -> None:
        """What comes for it is dropped; its protocol ends the source."""
        joint = self.joint((False, False))
        source, sink = joint.transports()
        sink.abortConnection()
        joint.client.say(b"anybody?")
        joint.network.pump()
        self.assertTrue(joint.streams[1].lost)
        self.assertTrue(sink.take(3, source))

    def test_whoHasPartedHearsItself(self) -> None:
        """The protocol is given the bytes again, and it is its business to pass them on."""
        joint = self.joint((True, True))
        source, _ = joint.transports()
        source.joinTo(None)
        joint.client.say(b"for us")
        joint.network.pump()
        self.assertEqual((joint.backend.received, joint.bridge.received), (b"for us", 6))
        self.assertEqual(source.moved, 0)


class PublicMoveTests(MoveTests):
    """The same with the engine that keeps to pyOpenSSL's public interface."""

    engine = openssl.public()


SIZES = st.one_of(
    st.integers(1, 20),
    st.integers(1200, 1400),
    st.integers(16_300, 16_500),
    st.integers(1, 100_000),
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.booleans(), SIZES),
        st.tuples(st.booleans(), st.sampled_from(["stop", "start", "finish", "pump"])),
    ),
    max_size=25,
)


class Speaker:
    """A peer that says what can be told apart, and remembers what it has said."""

    def __init__(self, peer: Peer, seed: int) -> None:
        self.peer, self.seed = peer, seed
        self.said = bytearray()
        self.finished = False

    def perform(self, step: int | str) -> None:
        """Do one step."""
        if isinstance(step, int):
            self.say(step)
        elif step == "stop":
            self.peer.stopReading()
        elif step == "start":
            self.peer.startReading()
        elif step == "finish" and not self.finished:
            self.finished = True
            self.peer.finish()

    def say(self, size: int) -> None:
        """Say so many bytes, unless all has been said."""
        if not self.finished:
            start = len(self.said)
            data = bytes((at * 31 + self.seed) >> 3 & 255 for at in range(start, start + size))
            self.said += data
            self.peer.say(data)


class EveryByteTests(JoinCase):
    """Any chunks, any stalls, any ends, on every kind of leg."""

    examples = 60
    secured: ClassVar[tuple[tuple[bool, bool], ...]] = SECURED

    def test_everyByteArrives(self) -> None:
        """Once, in order, and counted; and an end arrives after the last of them."""

        @settings(max_examples=self.examples, deadline=None)
        @example(
            (True, False),
            NearWire,
            5000,
            [(False, "finish"), (True, 16300), (True, 1200), (False, "pump")],
            [0, WANT_WRITE],
        )
        @example(
            (True, True),
            NearWire,
            5000,
            [(True, "finish"), (False, "pump"), (False, "finish")],
            [WANT_WRITE, WANT_WRITE],
        )
        @example(
            (False, False),
            NearWire,
            5000,
            [(False, 100_000), (False, "pump"), (True, "stop"), (False, 100_000), (False, "pump")],
            [],
        )
        @given(
            st.sampled_from(self.secured),
            st.sampled_from([Wire, NearWire]),
            st.sampled_from([5_000, 100_000]),
            STEPS,
            st.lists(st.sampled_from(STUMBLES), max_size=60),
        )
        def check(
            secured: tuple[bool, bool],
            medium: type[Wire],
            capacity: int,
            steps: list[tuple[bool, int | str]],
            plan: list[int],
        ) -> None:
            if any(step == "finish" for _, step in steps):
                # To Twisted's TLS one end is both. And nothing more comes from who has said all, so
                # no write must be told to wait for that.
                medium = NearWire
                plan = [0 if each == WANT_READ else each for each in plan]
            joint = Joint(secured, medium(capacity=capacity))
            joint.run()
            for transport in joint.transports():
                transport.engine = stumbling(plan, self.engine)  # type: ignore[misc]
            self.play(joint, steps)

        check()

    def play(self, joint: Joint, steps: list[tuple[bool, int | str]]) -> None:
        """Do the steps, let all come to rest, and compare."""
        speakers = Speaker(joint.client, 3), Speaker(joint.backend, 7)
        for isClient, step in steps:
            speakers[0 if isClient else 1].perform(step)
            if step == "pump":
                joint.network.pump()
        for speaker, transport in zip(speakers, joint.transports(), strict=True):
            transport.engine = self.engine  # type: ignore[misc]  # who waits still waits
            speaker.peer.startReading()
        for _ in range(6):
            for speaker in speakers:
                speaker.say(1)  # who waits to be read hears something
            joint.network.advance(1)
        for _ in range(2 * LAST_LOOKS):
            joint.network.advance(LAST_ANSWER / LAST_LOOKS)
        client, backend = speakers
        self.assertTrue(joint.backend.received == bytes(client.said))
        self.assertTrue(joint.client.received == bytes(backend.said))
        self.assertEqual(joint.bridge.received, len(client.said))
        self.assertEqual(joint.bridge.sent, len(backend.said))
        for speaker, other in (speakers, speakers[::-1]):
            heard = other.peer.ended or other.peer.lost is not None
            self.assertTrue(heard or not speaker.finished)


class PublicEveryByteTests(EveryByteTests):
    """The same with the engine that keeps to pyOpenSSL's public interface."""

    engine = openssl.public()
    examples = 25


class PipedEveryByteTests(EveryByteTests):
    """The same where everything is large enough for a pipe."""

    examples = 40
    secured = ((False, False),)

    def setUp(self) -> None:
        """Make all of it so."""
        super().setUp()
        self.patch(joint, "LARGE", 1)


class PipeTests(JoinCase):
    """From one plain leg to another."""

    def large(self, capacity: int) -> tuple[Joint, Any]:
        """Join two and have much come; gives the connection that it has come to."""
        found = self.joint((False, False), capacity)
        found.backend.say(b"x" * 2 * LARGE)
        found.network.pump()
        self.assertEqual(len(found.client.received), 2 * LARGE)
        return found, found.transports()[1]

    def test_whatIsLargeIsNotReadByUs(self) -> None:
        """It is counted all the same; what is small is read, again."""
        found, source = self.large(1 << 20)
        self.patch(source, "engine", attrs.evolve(self.engine, buffer=memoryview(b"")))
        found.backend.say(b"y" * 3 * LARGE)
        found.network.pump()
        self.assertEqual((len(found.client.received), found.bridge.sent), (5 * LARGE, 5 * LARGE))
        del source.engine
        for _ in range(2):
            found.backend.say(b"z" * 10)
            found.network.pump()
        self.assertTrue(found.client.received.endswith(b"y" + b"z" * 20))

    def test_whatASinkDoesNotTakeIsKept(self) -> None:
        """No more than the pipe holds, and in its place; the source waits."""
        found, source = self.large(1 << 16)
        found.client.stopReading()
        for _ in range(30):
            found.backend.say(b"y" * 2 * LARGE)
            found.network.pump()
        self.assertTrue(source.held)
        self.assertLessEqual(found.transports()[0].unsent, 1 << 18)
        found.client.startReading()
        found.network.pump()
        self.assertTrue(found.client.received == b"x" * 2 * LARGE + b"y" * 60 * LARGE)

    def test_aLostSinkLeavesNothingInThePipe(self) -> None:
        """Which others use."""
        found, _ = self.large(1 << 20)
        found.client.reset()
        found.backend.say(b"y" * 2 * LARGE)
        found.network.pump()
        assert shared is not None
        self.assertRaises(BlockingIOError, shared.rest, 1)
        other, _ = self.large(1 << 20)
        self.assertEqual(other.client.received, b"x" * 2 * LARGE)

    def test_anUrgentByteHoldsNothingUp(self) -> None:
        """No pipe takes one, and epoll says all the same that there is something."""
        found = Joint((False, False), TCPWire(capacity=1 << 20))
        found.run()
        wire = found.backend.transport.socket
        found.backend.say(b"x" * 2 * LARGE)
        found.network.pump()
        wire.send(b"!", socket.MSG_OOB)
        wire.send(b"behind it")
        found.network.pump()
        self.assertTrue(found.client.received == b"x" * 2 * LARGE + b"behind it")
