"""Sessions that end before their time, at each stage of their life: nothing may be left behind."""

from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from typing import cast

import attrs
from twisted.internet.defer import Deferred
from twisted.logger import LogLevel

from mailproxy.errors import Stage
from mailproxy.protocols.client import ClientSettings
from mailproxy.session import Session
from tests.dialling import Backend
from tests.protocols.backend import backendTLS
from tests.stage import BEARER, LOGIN, Client, Scene, StageCase
from tests.stage import Stage as Theatre
from tests.support import Peer, Segments, clientTLS, serverTLS

TRUSTED = {"proxy_protocol": "required", "proxy_trusted": ["198.51.100.0/24"]}
UNDER_TLS = ClientSettings(context=backendTLS(), startTLS=False, cleartext=False, introduces=False)
BYE = b"* BYE [UNAVAILABLE] Temporarily unavailable, try again later.\r\n"


@attrs.define
class Scenes:
    """A stage, the client on it and, once it has been dialled, the backend.

    :ivar greeted: whether the client has heard our greeting, so that it is told of its end.
    """

    stage: Theatre
    client: Client
    backend: Peer | None = None
    greeted: bool = True


def _enter(scene: Scene, said: bytes = b"") -> Scenes:
    """Let a client in and say something, with the default destination down and due for a probe."""
    stage = Theatre(scene)
    for _ in range(3):
        stage.health.admit("old").failed(Stage.CONNECT, "192.0.2.9")
    stage.network.advance(30)
    client = stage.enter()
    stage.ask(client, said)
    return Scenes(stage, client)


def inTheHeader() -> Scenes:
    """The PROXY header is not whole."""
    scenes = _enter(Scene(listener=TRUSTED), b"PROXY TCP4 192.")
    scenes.greeted = False
    return scenes


def inTheHandshake() -> Scenes:
    """The client has begun to say hello."""
    scenes = _enter(Scene(implicit=serverTLS()), b"\x16\x03\x01")
    scenes.greeted = False
    return scenes


def inTheDialogue() -> Scenes:
    """Half a command is here."""
    return _enter(Scene(), b"a LOG")


def inTheUpgrade() -> Scenes:
    """STARTTLS was accepted, no handshake has come."""
    scenes = _enter(Scene(upgrade=serverTLS()), b"a STARTTLS\r\n")
    scenes.greeted = False  # what we could say now would be taken for TLS
    return scenes


def insideTLS() -> Scenes:
    """The client's leg is encrypted, and in the dialogue."""
    scenes = _enter(Scene(implicit=serverTLS()))
    scenes.client.startTLS(clientTLS())
    scenes.stage.network.pump()
    assert scenes.client.take().startswith(b"* OK ")
    return scenes


def onHold() -> Scenes:
    """The account is being moved."""
    scenes = _enter(Scene())
    scenes.stage.registry.hold("ann", 0.5)
    scenes.stage.ask(scenes.client, LOGIN)
    return scenes


def atTheStore() -> Scenes:
    """The store has not answered."""
    scenes = _enter(Scene())
    scenes.stage.source.pending = Deferred()
    scenes.stage.ask(scenes.client, LOGIN)
    return scenes


def atTheResolver() -> Scenes:
    """The host's name is being looked up."""
    scenes = _enter(Scene(target={"host": "old.example.com"}))
    scenes.stage.network.nameResolver.hold("old.example.com")
    scenes.stage.ask(scenes.client, LOGIN)
    return scenes


def onTheCall() -> Scenes:
    """The backend has not taken the call."""
    return _enter(Scene(), LOGIN)


def betweenTwoCalls() -> Scenes:
    """The first call failed, the next one is due in a moment."""
    scenes = _enter(Scene(retries=1), LOGIN)
    scenes.stage.answer(Backend(b"* BYE full\r\n"))
    return scenes


def inTheBackendsHandshake() -> Scenes:
    """The backend does not answer our hello."""
    scenes = _enter(Scene(target={"settings": UNDER_TLS}), LOGIN)
    scenes.backend = Peer()
    scenes.stage.network.call.answer(scenes.backend)
    return scenes


def beforeTheBackendsGreeting() -> Scenes:
    """The backend says nothing."""
    scenes = _enter(Scene(), LOGIN)
    scenes.backend = scenes.stage.answer(Backend(b""))
    return scenes


def inTheLogin() -> Scenes:
    """The backend has got the login and thinks about it."""
    scenes = _enter(Scene(), LOGIN)
    scenes.backend = scenes.stage.answer(Backend(login=b""))
    return scenes


def inTheChallenge() -> Scenes:
    """The client is to answer the backend's challenge."""
    scenes = _enter(Scene(), b"a AUTHENTICATE OAUTHBEARER %b\r\n" % b64encode(BEARER))
    scenes.backend = scenes.stage.answer(Backend(login=b"+ e30=\r\n"))
    return scenes


def afterARefusal() -> Scenes:
    """The client is back in the dialogue."""
    scenes = _enter(Scene(), LOGIN)
    scenes.backend = scenes.stage.answer(Backend(login=b"%t NO no\r\n"))
    return scenes


def onTheBridge() -> Scenes:
    """The streams are joined."""
    scenes = _enter(Scene())
    scenes.backend = scenes.stage.bridge(scenes.client)
    scenes.greeted = False  # what a client hears there is its backend's
    return scenes


BEFORE_THE_BRIDGE: tuple[Callable[[], Scenes], ...] = (
    inTheHeader,
    inTheHandshake,
    inTheDialogue,
    inTheUpgrade,
    insideTLS,
    onHold,
    atTheStore,
    atTheResolver,
    onTheCall,
    betweenTwoCalls,
    inTheBackendsHandshake,
    beforeTheBackendsGreeting,
    inTheLogin,
    inTheChallenge,
    afterARefusal,
)

DEPARTURES: Mapping[str, Callable[[Client], None]] = {
    "closes": Client.hangUp,
    "resets": Client.reset,
}


class EndCase(StageCase):
    """A session brought to each of its stages."""

    def stages(self, *chosen: Callable[[], Scenes]) -> Iterator[tuple[str, Scenes]]:
        """Bring a session to each of these stages in turn, and forget what was logged before."""
        for make in chosen:
            self.events.clear()
            yield make.__name__, make()
            self.assertNoSecret()

    def assertOver(self, name: str, scenes: Scenes, outcome: str) -> None:
        """The session is over, with one line, and has left nothing; its backend is closed."""
        try:
            self.assertNothingLeft(scenes.stage)
            self.assertProbeFree(scenes.stage)
            if scenes.backend is not None:
                self.assertIsNotNone(scenes.backend.lost)
            (line,) = self.ends()
            self.assertIn(f", {outcome} (", line)
            self.assertNotIn(" ()", line)
            self.assertEqual(self.logged(LogLevel.critical), [])
        except self.failureException as error:
            self.fail(f"{name}: {error}")


class LeavingTests(EndCase):
    """Clients that leave."""

    def test_clientThatLeavesLeavesNothingBehind(self) -> None:
        """Backend closed, call given up, probe's place free, no timer and no session, no bug."""
        for how, leave in DEPARTURES.items():
            for name, scenes in self.stages(*BEFORE_THE_BRIDGE):
                leave(scenes.client)
                scenes.stage.network.pump()
                scenes.stage.registry.hold("ann", 0)
                self.assertOver(f"{name}, {how}", scenes, "client_gone")

    def test_clientThatLeavesTheBridge(self) -> None:
        """The other leg ends too."""
        for how, leave in DEPARTURES.items():
            for name, scenes in self.stages(onTheBridge):
                leave(scenes.client)
                scenes.stage.network.pump()
                self.assertOver(f"{name}, {how}", scenes, "bridged")

    def test_backendThatLeavesTheBridge(self) -> None:
        """The client is closed."""
        for name, scenes in self.stages(onTheBridge):
            assert scenes.backend is not None
            scenes.backend.hangUp()
            scenes.stage.network.pump()
            self.assertOver(name, scenes, "bridged")


class KickTests(EndCase):
    """Sessions that are ended from outside."""

    def test_kickAtEachStage(self) -> None:
        """A kicked session ends at once; a client that was greeted and is not bridged is told."""
        for name, scenes in self.stages(*BEFORE_THE_BRIDGE, onTheBridge):
            scenes.client.take()
            (session,) = scenes.stage.registry.find()
            session.kick()
            session.kick()
            scenes.stage.network.pump()
            scenes.stage.network.advance(1)
            self.assertEqual(scenes.client.take(), BYE if scenes.greeted else b"", name)
            self.assertIsNotNone(scenes.client.lost, name)
            self.assertOver(name, scenes, "kicked")

    def test_kickOfADeadClient(self) -> None:
        """A client that takes nothing is cut off after the grace time."""
        for name, scenes in self.stages(inTheDialogue, inTheLogin, onTheBridge):
            scenes.client.stopReading()
            (session,) = scenes.stage.registry.find()
            session.kick()
            scenes.stage.network.advance(10)
            scenes.client.startReading()
            scenes.stage.network.pump()
            self.assertOver(name, scenes, "kicked")

    def test_lateKickDoesNothing(self) -> None:
        """A session that is over cannot be ended again."""
        for name, scenes in self.stages(inTheDialogue, onTheBridge):
            (session,) = scenes.stage.registry.find()
            scenes.client.hangUp()
            scenes.stage.network.pump()
            session.kick()
            session.shutDown(bridged=True)
            self.assertEqual(len(self.ends()), 1, name)


class OverrunTests(EndCase):
    """Clients that do not wait for the answer to their login."""

    def test_tooMuchBehindALogin(self) -> None:
        """Over 64 KiB, wherever the login is: an error and the end; no store or backend waits."""
        for name, scenes in self.stages(
            onHold, atTheStore, atTheResolver, onTheCall, beforeTheBackendsGreeting, inTheLogin
        ):
            scenes.client.take()
            flood = [b"b NOOP " + b"x" * 9991 + b"\r\n"] * 7
            heard = b"".join(scenes.stage.ask(scenes.client, each) for each in flood)
            scenes.stage.network.advance(1)
            self.assertEqual(heard, b"* BYE [TOOBIG] Command too long.\r\n", name)
            self.assertIsNotNone(scenes.client.lost, name)
            scenes.stage.registry.hold("ann", 0)
            self.assertOver(name, scenes, "limit")

    def test_asMuchAsMayBe(self) -> None:
        """Up to 64 KiB wait for the login, and the backend gets them all."""
        said = b"".join(b"b%05d NOOP\r\n" % number for number in range(5000))
        self.assertTrue(60_000 < len(said) < 65_536)
        for name, scenes in self.stages(onTheCall):
            scenes.stage.ask(scenes.client, said)
            backend = scenes.stage.answer(Backend())
            self.assertEqual(backend.bridged, said, name)


class ShutdownTests(EndCase):
    """Sessions that end because we stop."""

    def test_whoHasNotLoggedInIsSentAway(self) -> None:
        """Before the bridge a session ends at once, with a word why."""
        for name, scenes in self.stages(*BEFORE_THE_BRIDGE):
            scenes.client.take()
            (session,) = scenes.stage.registry.find()
            session.shutDown(bridged=False)
            scenes.stage.network.pump()
            scenes.stage.network.advance(1)
            heard = scenes.client.take()
            self.assertEqual(heard.startswith(b"* BYE [UNAVAILABLE]"), scenes.greeted, name)
            self.assertOver(name, scenes, "shutdown")

    def test_bridgesMayFinish(self) -> None:
        """A bridged session goes on until its time is over too."""
        for name, scenes in self.stages(onTheBridge):
            (session,) = scenes.stage.registry.find()
            session.shutDown(bridged=False)
            scenes.stage.network.pump()
            self.assertIsNone(scenes.client.lost)
            session.shutDown(bridged=True)
            scenes.stage.network.pump()
            self.assertOver(name, scenes, "shutdown")


class TimeoutTests(EndCase):
    """Clients that are too slow."""

    def test_loginThatIsLate(self) -> None:
        """Header, handshake and dialogue have `preauth_timeout`; who was greeted is told."""
        for name, scenes in self.stages(
            inTheHeader, inTheHandshake, inTheDialogue, inTheUpgrade, insideTLS, afterARefusal
        ):
            scenes.client.take()
            scenes.stage.network.advance(29.5)
            self.assertIsNone(scenes.client.lost, name)
            scenes.stage.network.advance(0.5)
            scenes.stage.network.advance(1)
            heard = scenes.client.take()
            self.assertEqual(heard.startswith(b"* BYE Disconnected"), scenes.greeted, name)
            self.assertOver(name, scenes, "timeout")

    def test_takingAByteNowAndThenDoesNotHelp(self) -> None:
        """Nobody who has not logged in keeps his place by what he has yet to take."""
        for name, scenes in self.stages(inTheDialogue):
            (session,) = scenes.stage.registry.find()
            server = cast(Session, session).server
            left = iter(range(1000, 0, -1))
            self.patch(server, "_untaken", lambda left=left: next(left))
            scenes.client.stopReading()
            scenes.stage.network.advance(30)
            for _ in range(4):
                scenes.stage.network.advance(1)
                self.assertFalse(server.lost, name)
            scenes.stage.network.advance(1)
            self.assertTrue(server.lost, name)

    def test_dripFeedingDoesNotHelp(self) -> None:
        """The time is for the whole dialogue, however busy it is."""
        for name, scenes in self.stages(inTheDialogue):
            scenes.stage.ask(scenes.client, b"\r\n")
            for _ in range(15):
                scenes.stage.ask(scenes.client, b"a NOOP\r\n")
                scenes.stage.network.advance(2)
            self.assertOver(name, scenes, "timeout")

    def test_idleBridge(self) -> None:
        """A bridge without a byte is closed between its idle time and a quarter more."""
        for name, scenes in self.stages(onTheBridge):
            for _ in range(179):
                scenes.stage.network.advance(10)
            self.assertIsNone(scenes.client.lost)
            for _ in range(46):
                scenes.stage.network.advance(10)
            self.assertOver(name, scenes, "bridged")
            self.assertIn("(idle)", self.ends()[0])


class DribbleTests(StageCase):
    """The whole way of a session, a byte at a time."""

    def test_headerHandshakeLoginAndBridge(self) -> None:
        """PROXY header, TLS, login and bridge work whatever the segments are."""
        for segments in Segments:
            stage = self.begin(Scene(segments=segments, listener=TRUSTED, implicit=serverTLS()))
            client = stage.enter()
            client.say(b"PROXY TCP4 203.0.113.9 192.0.2.25 5000 993\r\n")
            client.startTLS(clientTLS())
            stage.network.pump()
            self.assertTrue(client.take().startswith(b"* OK "))
            (session,) = stage.registry.find()
            self.assertEqual(session.client, "203.0.113.9:5000")
            backend = stage.bridge(client)
            stage.ask(client, b"b NOOP\r\n")
            self.assertEqual(backend.bridged, b"b NOOP\r\n")
            client.finish()
            stage.network.pump()
            self.assertNothingLeft(stage)
