"""From an accepted socket to a session: limits, PROXY headers, TLS, and who the client is."""

import ipaddress
from typing import Any, ClassVar

import attrs
from twisted.internet.address import UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.testing import StringTransport

from mailproxy import proxyheader
from mailproxy.config.model import Listener as ListenerConfig
from mailproxy.listener import HEADER_PATIENCE, REFUSAL_PAUSE, trust
from mailproxy.origin import Address
from mailproxy.protocols.server import ClientLeg
from mailproxy.seat import Seat
from tests.dialling import Dialling
from tests.stage import Client, Scene, StageCase, Watched, clientAddress
from tests.stage import Stage as Theatre
from tests.support import Segments, clientTLS, serverTLS
from tests.transport.wire import Wire

BALANCER, STRANGER = "198.51.100.7", "203.0.113.66"
HEADER = b"PROXY TCP4 203.0.113.9 192.0.2.25 5000 143\r\n"
CLIENT = Address("203.0.113.9", 5000)
LOCAL = Address("192.0.2.25", 143)
SOCKET = Address(BALANCER, 40000)
BINARY = proxyheader.build(CLIENT, LOCAL)
GREETING = b"* OK [CAPABILITY "
BAD = b"BAD Unknown or malformed command.\r\n"


def theServer(stage: Theatre) -> ClientLeg:
    """The server side of the only connection."""
    (server,) = stage.listener.factory.connections
    return server


def share(stage: Theatre) -> list[Deferred[int]]:
    """Have another process share the limit; gives what it is asked, as it is asked."""
    asked: list[Deferred[int]] = []

    def borrow(listener: str) -> Deferred[int]:
        asked.append(Deferred())
        return asked[-1]

    stage.listener.join(Seat(0, 2, borrow=borrow))
    return asked


class LimitTests(StageCase):
    """How many clients are let in."""

    def test_overTheLimitIsClosedAtOnce(self) -> None:
        """A client over `max_connections` hears nothing; when one leaves, the next is let in."""
        stage = self.begin(Scene(listener={"max_connections": 2}))
        first, second, third = (stage.enter() for _ in range(3))
        self.assertEqual((first.lost, second.lost), (None, None))
        self.assertIsNotNone(third.lost)
        self.assertEqual(third.received, b"")
        self.assertEqual(stage.listener.factory.turnedAway, 1)
        self.assertEqual(stage.registry.count(), 2)
        first.hangUp()
        stage.network.pump()
        self.assertTrue(stage.enter().take().startswith(GREETING))

    def test_roomIsBorrowed(self) -> None:
        """Where several processes share the limit: who waits for room is greeted when there is."""
        stage = self.begin(Scene(listener={"max_connections": 4}))
        asked = share(stage)
        clients = [stage.enter() for _ in range(4)]
        greeted = [client.take().startswith(GREETING) for client in clients]
        self.assertEqual((greeted, len(asked)), ([True, True, False, False], 1))
        self.assertEqual(stage.listener.lend(), 0)
        asked[0].callback(1)
        stage.network.pump()
        self.assertTrue(clients[2].take().startswith(GREETING))
        asked[1].callback(0)
        stage.network.pump()
        self.assertEqual((clients[3].received, clients[3].lost is None), (b"", False))
        self.assertEqual(stage.listener.factory.turnedAway, 1)

    def test_whoLeavesNeedsNoRoom(self) -> None:
        """And nobody is asked again at once, after all were full."""
        stage = self.begin(Scene(listener={"max_connections": 2}))
        asked = share(stage)
        stage.enter()
        stage.enter().reset()
        stage.network.pump()
        asked[0].callback(0)
        self.assertEqual(stage.listener.factory.turnedAway, 0)
        self.assertIsNotNone(stage.enter().lost)
        self.assertEqual(len(asked), 1)
        stage.network.advance(REFUSAL_PAUSE)
        stage.enter()
        self.assertEqual(len(asked), 2)

    def test_bugWhereRoomIsAskedFor(self) -> None:
        """Is logged; those who wait are turned away, and the next client is a new question."""
        stage = self.begin(Scene(listener={"max_connections": 2}))
        asked = share(stage)
        clients = [stage.enter() for _ in range(3)]
        asked[0].errback(ZeroDivisionError())
        stage.network.pump()
        self.assertEqual([client.lost is None for client in clients], [True, False, False])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        stage.network.advance(REFUSAL_PAUSE)
        stage.enter()
        self.assertEqual(len(asked), 2)

    def test_halfOfTheFreeRoomIsLent(self) -> None:
        """All of the last place."""
        stage = self.begin(Scene(listener={"max_connections": 10}))
        stage.listener.join(Seat(0, 2))
        stage.enter()
        self.assertEqual([stage.listener.lend() for _ in range(5)], [2, 1, 1, 0, 0])

    def test_clientOnItsWayOutCountsUntilItIsGone(self) -> None:
        """A connection that lingers over its last words still takes a place."""
        stage = self.begin(Scene(listener={"max_connections": 1}))
        client = stage.enter()
        client.stopReading()
        (session,) = stage.registry.find()
        session.kick()
        stage.network.pump()
        self.assertEqual(stage.registry.count(), 0)
        self.assertIsNotNone(stage.enter().lost)
        client.startReading()
        stage.network.pump()
        self.assertIsNone(stage.enter().lost)


class AdoptionTests(StageCase):
    """Other rules for a listener that is open."""

    def adopt(self, stage: Theatre, **keys: object) -> None:
        """Have a listener's keys from now on."""
        listener = {"protocol": "imap", "bind": "127.0.0.1:143", "tls": "plain", **keys}
        stage.listener.adopt(ListenerConfig.model_validate(listener))

    def test_limit(self) -> None:
        """Nobody is sent away for a lower one; nobody is let in either until there is room."""
        stage = self.begin()
        first, second = stage.enter(), stage.enter()
        self.adopt(stage, max_connections=1)
        self.assertEqual((first.lost, second.lost), (None, None))
        self.assertIsNotNone(stage.enter().lost)
        self.adopt(stage, max_connections=3)
        self.assertIsNone(stage.enter().lost)

    def test_patience(self) -> None:
        """Who is in has the time that was promised; who comes has the new."""
        stage = self.begin()
        first = stage.enter()
        self.adopt(stage, preauth_timeout="5s")
        second = stage.enter()
        stage.network.advance(6)
        self.assertIsNone(first.lost)
        self.assertIsNotNone(second.lost)

    def test_headers(self) -> None:
        """Whether one is needed is decided at the accept."""
        stage = self.begin()
        first = stage.enter()
        self.adopt(stage, proxy_protocol="required", proxy_trusted=["192.0.2.0/24"])
        self.assertTrue(first.take().startswith(GREETING))
        self.assertEqual(stage.ask(first, b"z NOOP\r\n"), b"z OK Completed.\r\n")
        self.assertIsNotNone(stage.enter().lost)


class HeaderCase(StageCase):
    """A listener with PROXY headers; subclasses cut the bytes otherwise.

    :cvar segments: how what is sent arrives.
    """

    segments: ClassVar[Segments] = Segments.WHOLE

    def arrive(
        self, mode: str, said: bytes, host: str = BALANCER, **scene: Any
    ) -> tuple[Theatre, Client]:
        """Let a client of this address in, and say something at once."""
        listener = {"proxy_protocol": mode, "proxy_trusted": [BALANCER + "/32"], "tls": "starttls"}
        stage = self.begin(
            Scene(
                segments=self.segments,
                listener={**listener, **scene.pop("listener", {})},
                upgrade=serverTLS(),
                **scene,
            )
        )
        client = stage.enter(host)
        stage.network.pump()
        client.say(said)
        stage.network.pump()
        return stage, client

    def assertServedFor(self, stage: Theatre, client: Client, address: Address) -> None:
        """The client was greeted, and is held to be this one."""
        self.assertTrue(client.take().startswith(GREETING))
        self.assertEqual(clientAddress(stage), address)
        self.assertEqual(stage.ask(client, b"z NOOP\r\n"), b"z OK Completed.\r\n")

    def assertClosed(self, stage: Theatre, client: Client) -> None:
        """The client was closed without a word."""
        self.assertEqual(client.received, b"")
        self.assertIsNotNone(client.lost)
        self.assertNothingLeft(stage)
        self.assertEqual(len(self.ends()), 1)


class RequiredTests(HeaderCase):
    """`proxy_protocol = "required"`."""

    def test_bothVersionsAreBelieved(self) -> None:
        """The header names the client and the address that it connected to."""
        for header in (HEADER, BINARY):
            stage, client = self.arrive("required", header)
            self.assertEqual(theServer(stage).origin.local, LOCAL)
            self.assertServedFor(stage, client, CLIENT)

    def test_bytesBehindTheHeaderAreTheClients(self) -> None:
        """Nothing of what follows is lost, or read twice."""
        for header in (HEADER, BINARY):
            _, client = self.arrive("required", header + b"a NOOP\r\nb NOOP\r\n")
            greeting, _, answers = client.take().partition(b"\r\n")
            self.assertTrue(greeting.startswith(GREETING))
            self.assertEqual(answers, b"a OK Completed.\r\nb OK Completed.\r\n")

    def test_localKeepsTheSocketsAddress(self) -> None:
        """A health check of the balancer's own, in either version."""
        for header in (b"PROXY UNKNOWN\r\n", proxyheader.SIGNATURE_V2 + b"\x20\x00\x00\x00"):
            stage, client = self.arrive("required", header)
            self.assertServedFor(stage, client, SOCKET)

    def test_hopsOfAnotherOfUsCount(self) -> None:
        """Our own field says how far a session may still go, even where no address is said."""
        for source, address in ((CLIENT, CLIENT), (None, SOCKET)):
            header = proxyheader.build(source, LOCAL, [(proxyheader.HOPS, b"\x03")])
            stage, client = self.arrive("required", header)
            self.assertEqual(theServer(stage).origin.ttl, 3)
            self.assertServedFor(stage, client, address)

    def test_hopsThatMakeNoSenseArePassedOver(self) -> None:
        """Other fields, and one of another length, say nothing about hops."""
        for field in ((proxyheader.HOPS, b""), (proxyheader.HOPS, b"\0\3"), (0xE0, b"\x03")):
            stage, _ = self.arrive("required", proxyheader.build(CLIENT, LOCAL, [field]))
            self.assertEqual(theServer(stage).origin.ttl, 7)

    def test_forgedHeaderOfAStrangerIsNotBelieved(self) -> None:
        """Who is not trusted is closed, with a header or without."""
        for said in (HEADER, b"a NOOP\r\n", b""):
            self.events.clear()
            self.assertClosed(*self.arrive("required", said, STRANGER))

    def test_withoutAHeader(self) -> None:
        """A trusted peer that sends none, or no sound one, is closed."""
        for said in (
            b"a NOOP\r\n",
            b"PROXY TCP4 203.0.113.9 192.0.2.25 5000\r\n",
            b"PROXY TCP4 203.0.113.9 192.0.2.25 5000 70000\r\n",
            b"PROXY " + b"x" * 1100,
            proxyheader.SIGNATURE_V2 + b"\x21\x11\x10\x01",
        ):
            self.events.clear()
            self.assertClosed(*self.arrive("required", said))

    def test_nothingIsSaidBeforeTheHeader(self) -> None:
        """The greeting waits for it."""
        stage, client = self.arrive("required", HEADER[:-1])
        stage.network.advance(5)
        self.assertEqual(client.take(), b"")
        stage.ask(client, HEADER[-1:])
        self.assertEqual(clientAddress(stage), CLIENT)

    def test_clientBehindTheBalancerCannotForgeItsAddress(self) -> None:
        """Trust in the balancer is no trust in its clients: their x- fields do not count."""
        stage, client = self.arrive("required", HEADER)
        stage.ask(client, b'a ID ("x-originating-ip" "192.0.2.1" "x-originating-port" "1")\r\n')
        self.assertEqual(clientAddress(stage), CLIENT)

    def test_trustedPeerBehindTheBalancerIsBelieved(self) -> None:
        """When the header names a trusted proxy, that proxy's ID counts."""
        header = HEADER.replace(b"203.0.113.9", BALANCER.encode())
        stage, client = self.arrive("required", header)
        stage.ask(client, b'a ID ("x-originating-ip" "192.0.2.99" "x-originating-port" "1")\r\n')
        self.assertEqual(clientAddress(stage), Address("192.0.2.99", 1))


class OptionalTests(HeaderCase):
    """`proxy_protocol = "optional"` where we greet first."""

    def test_headerIsBelieved(self) -> None:
        """A trusted peer's header counts, and nobody waits once it is here."""
        for header in (HEADER, BINARY):
            self.assertServedFor(*self.arrive("optional", header), CLIENT)

    def test_strangersHeaderIsTheProtocolsOwn(self) -> None:
        """Who is not trusted is greeted at once, and its header is a bad command."""
        stage, client = self.arrive("optional", HEADER, STRANGER)
        greeting, _, answer = client.take().partition(b"\r\n")
        self.assertTrue(greeting.startswith(GREETING))
        self.assertEqual(answer, b"PROXY " + BAD)
        self.assertEqual(clientAddress(stage), Address(STRANGER, 40000))

    def test_silentPeerIsGreetedAfterASecond(self) -> None:
        """A trusted peer without a header waits for our greeting: for its first byte, 1 s."""
        stage, client = self.arrive("optional", b"")
        stage.network.advance(HEADER_PATIENCE - 0.01)
        self.assertEqual(client.take(), b"")
        stage.network.advance(0.01)
        self.assertServedFor(stage, client, SOCKET)

    def test_lateHeader(self) -> None:
        """The second is for the first byte; the rest may take its time."""
        stage, client = self.arrive("optional", b"")
        stage.network.advance(HEADER_PATIENCE - 0.01)
        stage.ask(client, HEADER[:1])
        stage.network.advance(5)
        self.assertEqual(client.take(), b"")
        client.say(HEADER[1:])
        stage.network.pump()
        self.assertServedFor(stage, client, CLIENT)

    def test_headerAfterTheSecondIsTooLate(self) -> None:
        """What comes behind the greeting is the protocol's own."""
        stage, client = self.arrive("optional", b"")
        stage.network.advance(HEADER_PATIENCE)
        client.take()
        self.assertEqual(stage.ask(client, HEADER), b"PROXY " + BAD)
        self.assertEqual(clientAddress(stage), SOCKET)

    def test_hastyClientLosesNothing(self) -> None:
        """A client that talks before our greeting is served, byte for byte."""
        for said in (b"a NOOP\r\n", b"PROx NOOP\r\n", b"PROXY\r\n"):
            stage, client = self.arrive("optional", said)
            greeting, _, answer = client.take().partition(b"\r\n")
            self.assertTrue(greeting.startswith(GREETING))
            self.assertIn(answer, (said.split()[0] + b" OK Completed.\r\n", b"PROXY " + BAD))
            self.assertEqual(clientAddress(stage), SOCKET)

    def test_brokenHeaderIsNoCommand(self) -> None:
        """What begins as a header and is none closes the connection: a balancer is at fault."""
        self.assertClosed(*self.arrive("optional", b"PROXY TCP4 nonsense\r\n"))


class ImplicitTests(HeaderCase):
    """PROXY headers in front of implicit TLS."""

    def arriveForTLS(self, mode: str, said: bytes = b"") -> tuple[Theatre, Client]:
        """Let a client in that begins TLS right behind what it says."""
        stage, client = self.arrive(mode, b"", implicit=serverTLS(), listener={"tls": "implicit"})
        client.say(said)
        client.startTLS(clientTLS())
        stage.network.pump()
        return stage, client

    def test_headerThenTLS(self) -> None:
        """The bytes behind the header are the handshake's, even those read with it."""
        for mode in ("required", "optional"):
            for header in (HEADER, BINARY):
                stage, client = self.arriveForTLS(mode, header)
                self.assertTrue(theServer(stage).origin.secure)
                self.assertServedFor(stage, client, CLIENT)

    def test_noHeaderThenTLS(self) -> None:
        """Clients of implicit TLS speak first: nobody waits for a header that does not come."""
        for mode in ("optional", "off"):
            stage, client = self.arriveForTLS(mode)
            self.assertServedFor(stage, client, SOCKET)

    def test_slowHeaderThenTLS(self) -> None:
        """Where the client speaks first, a header may come as late as the handshake may."""
        stage, client = self.arrive(
            "optional", b"", implicit=serverTLS(), listener={"tls": "implicit"}
        )
        stage.network.advance(HEADER_PATIENCE * 5)
        client.say(HEADER)
        client.startTLS(clientTLS())
        stage.network.pump()
        self.assertServedFor(stage, client, CLIENT)

    def test_headerThatIsOff(self) -> None:
        """Where headers are off, one is no TLS."""
        stage, client = self.arriveForTLS("off", HEADER)
        self.assertEqual(client.received, b"")
        self.assertIsNotNone(client.lost)
        self.assertNothingLeft(stage)

    def test_headerInsideTLSIsTheProtocolsOwn(self) -> None:
        """A client cannot say inside TLS what only a balancer may say before it."""
        stage, client = self.arriveForTLS("optional")
        client.take()
        self.assertEqual(stage.ask(client, HEADER), b"PROXY " + BAD)
        self.assertEqual(clientAddress(stage), SOCKET)


class LinesTests(RequiredTests, OptionalTests, ImplicitTests):
    """The same, one line per segment."""

    segments = Segments.LINES


class BytesTests(RequiredTests, OptionalTests, ImplicitTests):
    """The same, one byte per segment."""

    segments = Segments.BYTES


class WiredDialling(Dialling, Wire):
    """A network to dial on, whose connections are real sockets."""


class SocketTests(ImplicitTests):
    """The same with TLS on the socket: there the header must be all that is taken."""

    medium = WiredDialling

    def test_TLSIsOnTheSocket(self) -> None:
        """With a header in the same segment as its first bytes, and without one."""
        for mode, header in (("required", BINARY), ("optional", HEADER), ("optional", b"")):
            stage, _ = self.arriveForTLS(mode, header)
            transport = theServer(stage).transport
            self.assertTrue(transport.tlsOnSocket)  # type: ignore[attr-defined]


class OriginTests(StageCase):
    """Who the client is."""

    def test_socketsAddresses(self) -> None:
        """Both ends, the hops left, no TLS, and a name of its own."""
        stage = self.begin()
        stage.enter()
        origin = theServer(stage).origin
        self.assertEqual((origin.client, origin.local), (SOCKET, Address("192.0.2.1", 993)))
        self.assertEqual((origin.ttl, origin.secure, origin.description), (7, False, ()))
        stage.enter()
        names = {server.origin.session for server in stage.listener.factory.connections}
        self.assertEqual(len(names), 2)

    def test_ipv4MappedAddressIsTheIPv4One(self) -> None:
        """`::ffff:192.0.2.7` is 192.0.2.7, for trust and for backends."""
        stage = self.begin()
        stage.enter("::ffff:198.51.100.9")
        self.assertEqual(theServer(stage).origin.client, Address("198.51.100.9", 40000))

    def test_unixSocketIsThisMachine(self) -> None:
        """A peer without an IP address is a local one."""
        stage = self.begin()
        server = stage.listener.factory.buildProtocol(None)
        assert server is not None
        here = UNIXAddress("/run/x")
        server.makeConnection(StringTransport(here, here))
        self.assertEqual(server.origin.client, Address("127.0.0.1", 0))
        server.connectionLost()

    def test_eachClientGetsWhatHoldsAtItsAccept(self) -> None:
        """After a reload the next client has the new settings; those before keep theirs."""
        stage = self.begin()
        before = stage.enter()
        before.take()
        advertised = attrs.evolve(stage.runtime.settings.advertised, capabilities=(b"NEW",))
        settings = attrs.evolve(stage.runtime.settings, advertised=advertised)
        stage.runtime = attrs.evolve(stage.runtime, settings=settings)
        self.assertIn(b"CAPABILITY NEW", stage.enter().take())
        self.assertNotIn(b"CAPABILITY NEW", stage.ask(before, b"a CAPABILITY\r\n"))


class TrustTests(Watched):
    """`proxy_trusted`."""

    def test_networks(self) -> None:
        """An address is trusted when one of the networks has it; versions do not mix."""
        trusts = trust([ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("2001:db8::/32")])
        self.assertTrue(trusts(Address("10.1.2.3", 1)))
        self.assertTrue(trusts(Address("2001:db8::1", 1)))
        self.assertFalse(trusts(Address("11.0.0.1", 1)))
        self.assertFalse(trusts(Address("2001:db9::1", 1)))
        self.assertFalse(trust([])(Address("127.0.0.1", 1)))
