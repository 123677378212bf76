"""The conversation with a backend, as all protocols share it, in the words of none of them."""

from base64 import b64encode
from typing import Any, cast

import attrs
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.interfaces import IConnector
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from mailproxy import sasl
from mailproxy.errors import BackendFailed, PeerGone, ProtocolError, Stage
from mailproxy.protocols.base import AuthResult, Verdict
from mailproxy.protocols.client import ClientSettings, ProxyClient, ProxyClientFactory
from mailproxy.sasl import Credentials, Mechanism
from tests.protocols.backend import PLAINTEXT, backendTLS, upgrading
from tests.protocols.talk import ORIGIN
from tests.support import Network, Peer

PASSWORD = b"correct horse"
CREDENTIALS = sasl.fromPassword(b"ann", PASSWORD)


class WordClient(ProxyClient):
    """A protocol of plain words: each step sends its name and reads one line."""

    def __init__(self, clock: Any) -> None:
        super().__init__(clock)
        self.steps: list[str] = []
        self.offered = frozenset({b"PLAIN"})
        self.atOnce, self.plainly = True, False

    async def _say(self, word: bytes) -> bytes:
        self.steps.append(word.decode())
        self.send(word + b"\n")
        line = await self.readLine()
        if line == b"nonsense":
            raise ProtocolError("nonsense")
        return line

    async def readGreeting(self) -> None:
        """Read a line."""
        self.steps.append("greeting")
        if await self.readLine() == b"nonsense":
            raise ProtocolError("nonsense")

    async def requestTLS(self) -> None:
        """Ask for TLS."""
        await self._say(b"tls")

    async def readCapabilities(self) -> None:
        """Ask what is offered."""
        await self._say(b"capabilities")

    async def introduce(self) -> None:
        """Say who the client is."""
        await self._say(b"introduce")

    @property
    def mechanisms(self) -> frozenset[bytes]:
        """What the test says."""
        return self.offered

    def sendAuthenticate(self, mechanism: bytes, initial: bytes) -> bool:
        """Send both at once, or the mechanism alone."""
        self.steps.append("login")
        self.send(mechanism + (b" " + initial if self.atOnce else b"") + b"\n")
        return self.atOnce

    async def readStep(self) -> bytes | AuthResult:
        """Read `?challenge` or the answer."""
        line = await self.readLine()
        if line == b"nonsense":
            raise ProtocolError("nonsense")
        return line[1:] if line[:1] == b"?" else AuthResult(Verdict.ACCEPTED, b"", line)

    async def logInPlainly(self, credentials: Credentials) -> AuthResult | None:
        """Send the password, if the test allows it."""
        if not self.plainly:
            return None
        self.send(b"plainly " + credentials.secret + b"\n")
        return AuthResult(Verdict.ACCEPTED, b"", await self.readLine())


class WordClientFactory(ProxyClientFactory):
    """Connects for plain words."""

    conversation = WordClient


async def noChallenge(_: bytes) -> None:
    """Answer nothing."""


async def echo(message: bytes) -> bytes:
    """Answer what was asked."""
    return message


class ClientCase(SynchronousTestCase):
    """A conversation with a backend that the test plays."""

    def begin(self, settings: ClientSettings) -> None:
        """Connect, and begin to prepare."""
        self.network, self.backend = Network(), Peer()
        self.client = WordClient(self.network)
        self.client.settings, self.client.origin = settings, ORIGIN
        self.network.connect(self.backend, self.client)
        self.prepared = Deferred.fromCoroutine(self.client.prepare())

    def say(self, data: bytes) -> None:
        """Let the backend speak."""
        self.backend.say(data)
        self.network.pump()

    def upgrade(self) -> None:
        """Let the backend consent to TLS and begin it."""
        self.backend.say(b"go\n")
        self.backend.startTLS()
        self.network.pump()

    def prepareWholly(self, settings: ClientSettings = PLAINTEXT) -> None:
        """Bring the backend to where the login is next."""
        self.begin(settings)
        self.say(b"hello\n")
        self.say(b"some\n")
        self.say(b"welcome\n")
        self.say(b"more\n")
        self.successResultOf(self.prepared)

    def failure(self, deferred: "Deferred[Any]") -> BackendFailed:
        """The failure that a step ended in."""
        error = self.failureResultOf(deferred, BackendFailed).value
        assert isinstance(error, BackendFailed)
        return error


class PrepareTests(ClientCase):
    """The order of steps before a login, and what goes wrong at each."""

    def test_orderWithoutTLS(self) -> None:
        """Greeting, capabilities, introduction, and the capabilities that hold after it."""
        self.begin(PLAINTEXT)
        self.assertEqual(self.client.steps, ["greeting"])
        self.say(b"hello\n")
        self.assertEqual(self.client.steps, ["greeting", "capabilities"])
        self.say(b"some\n")
        self.assertNoResult(self.prepared)
        self.say(b"welcome\n")
        self.assertNoResult(self.prepared)
        self.say(b"more\n")
        self.successResultOf(self.prepared)
        self.assertEqual(
            self.client.steps, ["greeting", "capabilities", "introduce", "capabilities"]
        )

    def test_orderWithStartTLS(self) -> None:
        """TLS comes right behind the greeting, and all else behind TLS."""
        self.begin(upgrading())
        self.say(b"hello\n")
        self.assertEqual(self.backend.take(), b"tls\n")
        self.upgrade()
        self.assertTrue(self.client.secure)
        self.assertEqual(self.backend.take(), b"capabilities\n")
        self.say(b"some\nwelcome\nmore\n")
        self.successResultOf(self.prepared)

    def test_wordsInjectedBehindTheConsentAbort(self) -> None:
        """An attacker's words before the handshake are not taken for the backend's after it."""
        self.begin(upgrading())
        self.say(b"hello\n")
        self.say(b"go\nall, and no login needed\n")
        failed = self.failure(self.prepared)
        self.assertEqual((failed.stage, failed.retry), (Stage.PREPARE, False))
        self.assertEqual(self.client.steps, ["greeting", "tls"])

    def test_failedHandshakeSaysWhy(self) -> None:
        """The reason of a handshake's failure is in the error; another attempt may help."""
        self.begin(upgrading())
        self.say(b"hello\n")
        self.say(b"go\n")
        self.say(b"500 what do you mean\n")
        failed = self.failure(self.prepared)
        self.assertEqual((failed.stage, failed.retry), (Stage.TLS, True))
        self.assertIn("does not speak TLS", str(failed))

    def test_impostorsCertificateIsRefused(self) -> None:
        """A backend that cannot show who it is hears nothing more."""
        settings = attrs.evolve(upgrading(), context=backendTLS(invalid=False))
        self.begin(settings)
        self.say(b"hello\n")
        self.backend.take()
        self.upgrade()
        failed = self.failure(self.prepared)
        self.assertEqual(failed.stage, Stage.TLS)
        self.assertIn("certificate verify failed", str(failed))
        self.assertEqual(self.backend.take(), b"")

    def test_backendThatLeavesOrErrsMayBeTriedAgain(self) -> None:
        """Before the login nothing can have happened: each step names how far it came."""
        for before, stage in ((b"", Stage.GREETING), (b"hello\n", Stage.PREPARE)):
            for hangsUp in (True, False):
                self.begin(PLAINTEXT)
                self.say(before)
                if hangsUp:
                    self.backend.hangUp()
                    self.network.pump()
                else:
                    self.say(b"nonsense\n")
                failed = self.failure(self.prepared)
                self.assertEqual((failed.stage, failed.retry), (stage, True))

    def test_endlessLineIsTheBackendsFault(self) -> None:
        """A backend cannot fill our memory either."""
        self.begin(PLAINTEXT)
        self.say(b"x" * 1_000_000)
        self.assertEqual(self.failure(self.prepared).stage, Stage.GREETING)


class PrivacyTests(ClientCase):
    """No secret goes over a leg that may be listened to."""

    OPEN = attrs.evolve(PLAINTEXT, cleartext=False)

    def test_eavesdropperIsNotEvenIntroduced(self) -> None:
        """An open leg ends right behind the greeting."""
        self.begin(self.OPEN)
        self.say(b"hello\nsome\nwelcome\n")
        failed = self.failure(self.prepared)
        self.assertEqual((failed.stage, failed.retry), (Stage.PREPARE, False))
        self.assertEqual(self.backend.take(), b"")

    def test_eavesdropperGetsNoPassword(self) -> None:
        """The rule is asserted again right before a secret is written, whatever came before."""
        self.prepareWholly()
        self.client.settings = self.OPEN
        self.backend.take()
        login = Deferred.fromCoroutine(self.client.login(CREDENTIALS, noChallenge))
        self.network.pump()
        self.failure(login)
        self.assertEqual(self.backend.take(), b"")

    def test_attackerWhoStripsTLSGetsNoPassword(self) -> None:
        """Where the settings ask for STARTTLS, a leg without it is not used."""
        self.begin(upgrading())
        self.say(b"hello\n")
        self.say(b"go\n")
        self.say(b"some\nwelcome\n")
        self.failure(self.prepared)
        self.assertNotIn(PASSWORD, self.backend.take())


class LoginTests(ClientCase):
    """The answer to a login."""

    def begun(self) -> "Deferred[AuthResult]":
        """Prepare and send the login."""
        self.prepareWholly()
        login = Deferred.fromCoroutine(self.client.login(CREDENTIALS, noChallenge))
        self.network.pump()
        return login

    def test_answer(self) -> None:
        """What the protocol makes of it is given on."""
        login = self.begun()
        self.say(b"in\n")
        self.assertEqual(self.successResultOf(login).reply, b"in")

    def test_lostBackendIsNeverTriedAgain(self) -> None:
        """It may have acted on the login: a second one could count against the account."""
        login = self.begun()
        self.backend.hangUp()
        self.network.pump()
        failed = self.failure(login)
        self.assertEqual((failed.stage, failed.retry), (Stage.LOGIN, False))
        self.assertIsInstance(failed.__cause__, PeerGone)

    def test_nonsenseIsNoRefusal(self) -> None:
        """A backend that errs has not said that the password is wrong."""
        login = self.begun()
        self.say(b"nonsense\n")
        failed = self.failure(login)
        self.assertEqual((failed.stage, failed.retry), (Stage.LOGIN, False))


class WayTests(ClientCase):
    """Which way a login goes, and what is said on it."""

    def begun(
        self, credentials: Credentials, *offered: bytes, plainly: bool = False, atOnce: bool = True
    ) -> bytes:
        """Log in at a backend with these mechanisms; returns what it hears."""
        self.prepareWholly()
        self.client.offered = frozenset(offered)
        self.client.plainly, self.client.atOnce = plainly, atOnce
        self.backend.take()
        self.login = Deferred.fromCoroutine(self.client.login(credentials, echo))
        self.network.pump()
        return self.backend.take()

    def test_clientsOwnWayComesFirst(self) -> None:
        """Whatever else is offered: the message goes on unchanged."""
        line = b64encode(CREDENTIALS.response)
        heard = self.begun(CREDENTIALS, b"LOGIN", b"PLAIN", plainly=True)
        self.assertEqual(heard, b"PLAIN %b\n" % line)

    def test_thenTheProtocolsOwnCommandThenLOGIN(self) -> None:
        """For a password that these can carry."""
        heard = self.begun(CREDENTIALS, b"LOGIN", plainly=True)
        self.assertEqual(heard, b"plainly %b\n" % PASSWORD)
        self.assertEqual(self.begun(CREDENTIALS, b"LOGIN"), b"LOGIN YW5u\n")
        self.say(b"?eA==\n")
        self.assertEqual(self.backend.take(), b64encode(PASSWORD) + b"\r\n")
        self.say(b"in\n")
        self.assertEqual(self.successResultOf(self.login).reply, b"in")

    def test_noWayIsNoRefusal(self) -> None:
        """A master user or a token does not fit into name and password: nothing is sent."""
        master = sasl.decode(Mechanism.PLAIN, b"ann\0root\0secret")
        token = sasl.decode(Mechanism.XOAUTH2, b"user=ann\1auth=Bearer token\1\1")
        for credentials in (master, token):
            self.assertEqual(self.begun(credentials, b"LOGIN", plainly=True), b"")
            failed = self.failure(self.login)
            self.assertEqual((failed.stage, failed.retry), (Stage.UNSUPPORTED, False))

    def test_whatIsAskedBeyondIsTheClients(self) -> None:
        """Once our own message is said, each challenge is the client's to answer."""
        heard = self.begun(CREDENTIALS, b"PLAIN", atOnce=False)
        self.assertEqual(heard, b"PLAIN\n")
        self.say(b"?\n")
        self.assertEqual(self.backend.take(), b64encode(CREDENTIALS.response) + b"\r\n")
        for challenge in (b"eA==", b"eHk=", b""):
            self.say(b"?%b\n" % challenge)
            self.assertEqual(self.backend.take(), challenge + b"\r\n")
        self.say(b"in\n")
        self.successResultOf(self.login)


class FakeConnector:
    """Notes that it was told to give up, and reports it as the reactor would."""

    given = 0

    def __init__(self, factory: ProxyClientFactory) -> None:
        self.factory = factory

    def disconnect(self) -> None:
        """Give up."""
        self.given += 1
        self.factory.clientConnectionFailed(
            cast(IConnector, self), Failure(ConnectionRefusedError())
        )


class FactoryTests(SynchronousTestCase):
    """How a conversation begins."""

    def setUp(self) -> None:
        """Begin to connect."""
        self.factory = WordClientFactory(Clock())
        self.connector = FakeConnector(self.factory)
        self.factory.startedConnecting(cast(IConnector, self.connector))

    def test_conversationComesWithItsTransport(self) -> None:
        """It is handed over once something can be sent, not before."""
        client = self.factory.buildProtocol(None)
        self.assertNoResult(self.factory.connected)
        client.makeConnection(StringTransport())
        self.assertIs(self.successResultOf(self.factory.connected), client)

    def test_failureIsPassedOn(self) -> None:
        """The reactor's reason is the Deferred's."""
        reason = Failure(ConnectionRefusedError())
        self.factory.clientConnectionFailed(cast(IConnector, self.connector), reason)
        self.failureResultOf(self.factory.connected, ConnectionRefusedError)

    def test_cancelStopsConnecting(self) -> None:
        """Who does not wait any more leaves no attempt behind."""
        self.factory.connected.cancel()
        self.failureResultOf(self.factory.connected, CancelledError)
        self.assertEqual(self.connector.given, 1)
