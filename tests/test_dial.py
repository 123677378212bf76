"""From a destination to a backend that waits for the login: calls, retries, loops and verdicts."""

from typing import Any, cast

import attrs
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectBindError, ConnectionRefusedError, NoRouteError
from twisted.trial.unittest import SynchronousTestCase

from mailproxy import proxyheader
from mailproxy.dial import RETRY_PAUSE, Backend, Dialer, DialReactor, Target
from mailproxy.errors import BackendFailed, CircuitOpen, Stage
from mailproxy.health import Health, HealthSettings
from mailproxy.origin import Address, Origin
from mailproxy.protocols.client import ClientSettings
from mailproxy.protocols.imap import IMAPClientFactory
from tests.dialling import Backend as Far
from tests.dialling import Dialling
from tests.protocols.backend import PLAINTEXT, backendTLS
from tests.protocols.talk import CLIENT, LOCAL, ORIGIN
from tests.support import Peer

HOST, OTHER, SIXTH = "203.0.113.1", "203.0.113.2", "2001:db8::1"
NAME = "old.example.com"
TLS = ClientSettings(context=backendTLS(), startTLS=False, cleartext=False, introduces=False)
UPGRADE = attrs.evolve(TLS, startTLS=True)
TARGET = Target(
    destination="old",
    host=HOST,
    port=143,
    settings=PLAINTEXT,
    factory=IMAPClientFactory,
    header=False,
    sources={},
    hideAuthErrors=False,
)


class SecureFar(Far):
    """A backend that begins with TLS."""

    def connectionMade(self) -> None:
        """Begin TLS at once."""
        self.startTLS()

    def handshakeCompleted(self) -> None:
        """Greet."""
        super().handshakeCompleted()
        self.say(self.greeting)


class DialCase(SynchronousTestCase):
    """A dialer on a network in memory, with one retry and ten seconds."""

    def setUp(self) -> None:
        """Start with an empty network."""
        self.network = Dialling()
        self.health = Health(self.network, HealthSettings(1, 2, 30.0))
        self.ours: set[Address] = set()

    def dialer(self, retries: int = 1) -> Dialer:
        """A dialer with ten seconds for all attempts."""
        reactor = cast(DialReactor, self.network)
        return Dialer(reactor, self.health, self.ours.__contains__, 10.0, retries)

    def open(
        self,
        retries: int = 1,
        origin: Origin = ORIGIN,
        dialer: Dialer | None = None,
        **changes: Any,
    ) -> "Deferred[Backend[Any]]":
        """Begin to open a backend."""
        dialer = dialer or self.dialer(retries)
        target = attrs.evolve(TARGET, **changes)
        opened: Deferred[Backend[Any]] = Deferred.fromCoroutine(dialer.open(target, origin))
        self.network.pump()
        return opened

    def answer(self, backend: Peer) -> None:
        """Take the last call."""
        self.network.call.answer(backend)
        self.network.pump()

    def refuse(self) -> None:
        """Refuse the last call."""
        self.network.call.refuse(ConnectionRefusedError())

    @property
    def called(self) -> list[str]:
        """Whom we have called, in order."""
        return [call.host for call in self.network.dialled]

    def assertFailed(self, opened: "Deferred[Backend[Any]]", stage: Stage) -> BackendFailed:
        """It failed at this stage, and left nothing: no call, connection or timer."""
        error = self.failureResultOf(opened, BackendFailed).value
        assert isinstance(error, BackendFailed)
        self.assertIs(error.stage, stage, error)
        self.network.pump()
        self.assertNothingLeft()
        return error

    def assertNothingLeft(self) -> None:
        """Nobody calls, nothing is connected, nothing is due."""
        self.assertEqual([call for call in self.network.dialled if call.open], [])
        self.assertEqual(self.network.getReaders(), [])
        self.assertEqual(self.network.getDelayedCalls(), [])

    def failures(self) -> tuple[int, bool]:
        """How many failures are counted, and whether one of them is the host's."""
        (report,) = self.health.report(["old"])
        return report.consecutiveFailures, report.hostLevelFailure


class OpenTests(DialCase):
    """Backends that answer."""

    def test_readyForTheLogin(self) -> None:
        """The conversation is prepared; its verdict is still owed."""
        opened = self.open()
        self.assertNoResult(opened)
        backend = Far()
        self.answer(backend)
        found = self.successResultOf(opened)
        self.assertEqual(found.client.origin, ORIGIN)
        self.assertIs(found.client.settings, PLAINTEXT)
        self.assertEqual((backend.commands, self.called), ([], [HOST]))
        self.assertEqual(self.network.call.port, 143)
        self.assertEqual(self.network.getDelayedCalls(), [])

    def test_nameIsResolvedEachTime(self) -> None:
        """A backend that has moved is found; an address asks nobody."""
        resolver = self.network.nameResolver
        for host in (HOST, OTHER):
            resolver.names[NAME] = [host]
            self.open(host=NAME)
            self.answer(Far())
        self.assertEqual((self.called, resolver.asked), ([HOST, OTHER], [NAME, NAME]))
        self.open(host=SIXTH)
        self.assertEqual((self.called[-1], len(resolver.asked)), (SIXTH, 2))

    def test_addressesAreTriedInTurn(self) -> None:
        """The next address is called when one refuses, within the same attempt."""
        self.network.nameResolver.names[NAME] = [SIXTH, HOST, OTHER]
        opened = self.open(retries=0, host=NAME)
        self.refuse()
        self.network.call.refuse(NoRouteError())
        self.answer(Far())
        self.successResultOf(opened)
        self.assertEqual(self.called, [SIXTH, HOST, OTHER])
        self.assertEqual(self.failures(), (0, False))

    def test_addressThatIsNoUseIsNotTriedFirstAgain(self) -> None:
        """After a bad greeting the next attempt begins with the next address."""
        self.network.nameResolver.names[NAME] = [HOST, OTHER]
        opened = self.open(host=NAME)
        self.answer(Far(greeting=b"* BYE busy\r\n"))
        self.network.advance(0.2)
        self.answer(Far())
        self.successResultOf(opened)
        self.assertEqual(self.called, [HOST, OTHER])

    def test_silentAddressDoesNotTakeAllTheTime(self) -> None:
        """The time is shared among the addresses."""
        self.network.nameResolver.names[NAME] = [HOST, OTHER]
        opened = self.open(host=NAME)
        self.network.advance(5)
        self.assertEqual(self.called, [HOST, OTHER])
        self.answer(Far())
        self.successResultOf(opened)

    def test_implicitTLS(self) -> None:
        """TLS comes before the greeting."""
        opened = self.open(settings=TLS)
        backend = SecureFar()
        self.answer(backend)
        self.assertTrue(self.successResultOf(opened).client.secure)
        self.assertTrue(backend.shaken)

    def test_sourceAddressesByFamily(self) -> None:
        """Those of the backend's family are used in turn; without one the system chooses."""
        sources = Target.inTurn(["192.0.2.1", "192.0.2.2", "2001:db8::9"])
        for host in (HOST, HOST, HOST, SIXTH, SIXTH):
            self.open(host=host, sources=sources)
        self.open(host=SIXTH, sources=Target.inTurn(["192.0.2.1"]))
        self.assertEqual(
            [call.bind for call in self.network.dialled],
            [
                ("192.0.2.1", 0),
                ("192.0.2.2", 0),
                ("192.0.2.1", 0),
                ("2001:db8::9", 0),
                ("2001:db8::9", 0),
                None,
            ],
        )


HOPS = ((proxyheader.HOPS, bytes([ORIGIN.ttl - 1])),)


class HeaderTests(DialCase):
    """The PROXY header towards a backend."""

    def test_comesFirst(self) -> None:
        """Before anything else, with the client's addresses."""
        self.open(header=True)
        backend = Far()
        self.answer(backend)
        self.assertEqual(backend.received, proxyheader.build(CLIENT, LOCAL, HOPS))

    def test_comesBeforeTLS(self) -> None:
        """It is not inside TLS: the ClientHello follows it."""
        self.open(header=True, settings=TLS)
        backend = Peer()
        self.answer(backend)
        header = proxyheader.build(CLIENT, LOCAL, HOPS)
        self.assertEqual(backend.received[: len(header)], header)
        self.assertEqual(backend.received[len(header) :][:3], b"\x16\x03\x01")

    def test_familiesThatDiffer(self) -> None:
        """Then no addresses are said, but the header comes all the same, and the hops with it."""
        origin = attrs.evolve(ORIGIN, local=Address(SIXTH, 143))
        self.open(header=True, origin=origin)
        backend = Far()
        self.answer(backend)
        self.assertEqual(proxyheader.parse(backend.received), (proxyheader.Header(tlvs=HOPS), 20))

    def test_onlyWhereItIsAskedFor(self) -> None:
        """A backend that expects none gets none."""
        self.open()
        backend = Peer()
        self.answer(backend)
        self.assertEqual(backend.received, b"")


class RetryTests(DialCase):
    """Attempts that fail."""

    def test_secondAttemptAfterAPause(self) -> None:
        """200 ms after a failure that may pass, on a fresh connection."""
        opened = self.open()
        self.refuse()
        self.network.advance(RETRY_PAUSE - 0.01)
        self.assertEqual(self.called, [HOST])
        self.network.advance(0.01)
        self.assertEqual(self.called, [HOST, HOST])
        self.answer(Far())
        self.successResultOf(opened)
        self.assertEqual(self.failures(), (0, False))

    def test_asManyAsTheOperatorWants(self) -> None:
        """`backend_connect_retries` further attempts, and one verdict for all."""
        for retries in (0, 1, 3):
            self.setUp()
            opened = self.open(retries=retries)
            for _ in range(retries):
                self.refuse()
                self.network.advance(RETRY_PAUSE)
            self.refuse()
            self.assertFailed(opened, Stage.CONNECT)
            self.assertEqual(len(self.called), retries + 1)
            self.assertEqual(self.failures(), (1, True))

    def test_whatCannotPassIsNotTriedAgain(self) -> None:
        """A backend without STARTTLS, or with somebody's session, will not change in 200 ms."""
        for settings, greeting, stage in (
            (UPGRADE, b"* OK [CAPABILITY IMAP4rev1] hi\r\n", Stage.PREPARE),
            (PLAINTEXT, b"* PREAUTH hi\r\n", Stage.GREETING),
        ):
            self.setUp()
            opened = self.open(settings=settings)
            self.answer(Far(greeting))
            self.assertFailed(opened, stage)
            self.assertEqual(self.called, [HOST])

    def test_timeIsForAllAttemptsTogether(self) -> None:
        """`backend_timeout` covers the pause and every attempt."""
        opened = self.open()
        self.network.advance(4)
        self.refuse()
        self.network.advance(RETRY_PAUSE)
        self.answer(Far(b""))
        self.network.advance(5.7)
        self.assertNoResult(opened)
        self.network.advance(0.1)
        self.assertFailed(opened, Stage.TIMEOUT)
        self.assertEqual(self.failures(), (1, True))


class StageTests(DialCase):
    """How far a connection came before it failed, and what that says about the host."""

    def fail_(self, stage: Stage, *, host: bool) -> None:
        """The only attempt failed so, and was counted so."""
        self.assertFailed(self.opened, stage)
        self.assertEqual(self.failures(), (1, host))

    def test_resolve(self) -> None:
        """A name without an address."""
        self.opened = self.open(retries=0, host=NAME)
        self.fail_(Stage.RESOLVE, host=True)

    def test_resolverThatDoesNotAnswer(self) -> None:
        """The time limit holds for names too; an answer that comes later is nobody's."""
        resolver = self.network.nameResolver
        resolver.hold(NAME)
        self.opened = self.open(retries=0, host=NAME)
        self.network.advance(10)
        self.fail_(Stage.TIMEOUT, host=True)
        receiver = resolver.held[NAME]
        assert receiver is not None
        resolver.finish(receiver, [HOST])
        self.assertEqual(self.called, [])

    def test_connect(self) -> None:
        """The message names the address."""
        self.opened = self.open(retries=0)
        self.network.call.refuse(ConnectionRefusedError())
        self.assertIn(HOST, str(self.opened.result))
        self.fail_(Stage.CONNECT, host=True)

    def test_whatWeLackIsNotTheDestinationsFault(self) -> None:
        """No descriptor, no port, or an own address that cannot be used: nothing is counted."""
        opened = self.open(retries=0)
        self.network.call.refuse(ConnectBindError())
        failed = self.failureResultOf(opened, BackendFailed).value
        self.assertEqual(failed.stage, Stage.LOCAL)
        self.assertIn(HOST, str(failed))
        self.assertEqual(self.failures(), (0, False))

    def test_sessionsShareALookUp(self) -> None:
        """A name server that does not answer takes one thread a name; each session may leave."""
        resolver = self.network.nameResolver
        resolver.hold(NAME)
        dialer = self.dialer()
        first, second, third = (self.open(dialer=dialer, host=NAME) for _ in range(3))
        self.assertEqual(resolver.asked, [NAME])
        second.cancel()
        self.failureResultOf(second, CancelledError)
        receiver = resolver.held[NAME]
        assert receiver is not None
        resolver.finish(receiver, [HOST])
        self.assertEqual(self.called, [HOST, HOST])
        for opened in (first, third):
            opened.cancel()
            self.failureResultOf(opened, CancelledError)
        self.open(dialer=dialer, host=NAME)
        self.assertEqual(resolver.asked, [NAME, NAME])

    def test_noAnswerToTheCall(self) -> None:
        """A host that drops our packets."""
        self.opened = self.open(retries=0)
        self.network.advance(10)
        error = self.failureResultOf(self.opened, BackendFailed).value
        assert isinstance(error, BackendFailed)
        self.assertIn(error.stage, (Stage.CONNECT, Stage.TIMEOUT))
        self.assertNothingLeft()
        self.assertEqual(self.failures(), (1, True))

    def test_tls(self) -> None:
        """No TLS on that port."""
        self.opened = self.open(retries=0, settings=TLS)
        self.answer(Far())
        self.fail_(Stage.TLS, host=False)

    def test_greeting(self) -> None:
        """Closed before it has said anything."""
        self.opened = self.open(retries=0)
        backend = Far(b"")
        self.answer(backend)
        backend.hangUp()
        self.network.pump()
        self.fail_(Stage.GREETING, host=False)

    def test_prepare(self) -> None:
        """Closed before the login."""
        self.opened = self.open(retries=0)
        backend = Far(b"* OK hi\r\n")
        backend.answers.clear()
        self.answer(backend)
        backend.hangUp()
        self.network.pump()
        self.fail_(Stage.PREPARE, host=False)

    def test_silentBackend(self) -> None:
        """A backend that answers the call and nothing else has used up all the time."""
        self.opened = self.open(retries=0)
        self.answer(Far(b""))
        self.network.advance(10)
        self.fail_(Stage.TIMEOUT, host=True)


class GuardTests(DialCase):
    """Calls that are not made."""

    def test_ownListenerIsNotCalled(self) -> None:
        """One address that is ours is enough: no call, and nobody's failure."""
        self.ours.add(Address(OTHER, 143))
        self.network.nameResolver.names[NAME] = [HOST, OTHER]
        self.assertFailed(self.open(host=NAME), Stage.LOOP)
        self.assertEqual(self.called, [])
        self.assertEqual(self.failures(), (0, False))

    def test_mappedAddressIsTheSame(self) -> None:
        """`::ffff:a.b.c.d` is a.b.c.d: it does not lead around the guard."""
        self.ours.add(Address(HOST, 143))
        self.assertFailed(self.open(host="::ffff:" + HOST), Stage.LOOP)

    def test_anotherPortOfOursIsNoLoop(self) -> None:
        """A backend on this machine may be called."""
        self.ours.add(Address(HOST, 993))
        self.open()
        self.assertEqual(self.called, [HOST])

    def test_circleOfProxiesEnds(self) -> None:
        """With one hop left, or fewer, the session is refused before anything is asked."""
        for ttl, calls in ((2, [HOST]), (1, [HOST]), (0, [HOST]), (-5, [HOST])):
            opened = self.open(origin=attrs.evolve(ORIGIN, ttl=ttl))
            self.assertEqual(self.called, calls)
            if ttl > 1:
                opened.cancel()
                self.failureResultOf(opened, CancelledError)
            else:
                self.assertFailed(opened, Stage.LOOP)
        self.assertEqual(self.failures(), (0, False))

    def test_openCircuit(self) -> None:
        """A destination that is down is not even looked up."""
        self.health.admit("old").failed(Stage.CONNECT, "192.0.2.9")
        error = self.assertFailed(self.open(host=NAME), Stage.BREAKER)
        self.assertIsInstance(error, CircuitOpen)
        self.assertEqual(self.network.nameResolver.asked, [])


class CancelTests(DialCase):
    """Clients that leave while we dial."""

    def assertGivenUp(self, opened: "Deferred[Backend[Any]]") -> None:
        """Cancelled, nothing left, no verdict, and the next probe is admitted."""
        opened.cancel()
        self.failureResultOf(opened, CancelledError)
        self.network.pump()
        self.assertNothingLeft()
        self.health.admit("old").abandoned()

    def probe(self, **changes: Any) -> "Deferred[Backend[Any]]":
        """Begin to open a destination that is down and due for its probe."""
        self.setUp()
        self.health.admit("old").failed(Stage.CONNECT, "192.0.2.9")
        self.network.advance(30)
        opened = self.open(**changes)
        self.assertRaises(CircuitOpen, self.health.admit, "old")
        return opened

    def test_callIsGivenUp(self) -> None:
        """Nobody connects for a client that has gone."""
        self.assertGivenUp(self.probe())

    def test_pauseIsGivenUp(self) -> None:
        """The next attempt is not made."""
        opened = self.probe()
        self.refuse()
        self.assertGivenUp(opened)
        self.network.advance(1)
        self.assertEqual(self.called, [HOST])

    def test_backendIsClosed(self) -> None:
        """A backend that was answering, or shaking hands, is closed."""
        for settings in (PLAINTEXT, TLS):
            opened = self.probe(settings=settings)
            backend = Peer()
            self.answer(backend)
            self.assertGivenUp(opened)
            self.assertIsNotNone(backend.lost)
