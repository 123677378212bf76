"""What a real backend learns of the client, and whom the proxy believes about that."""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import ClassVar

from tests.integration.accounts import ALICE, STRANGER, VIP, at
from tests.integration.dovecot import Dovecot, Options
from tests.integration.front import (
    ProxyTestCase,
    behind,
    destination,
    listener,
    settings,
    standardListeners,
)
from tests.integration.wire import LineClient, proxyHeader

BALANCER, RELAY, SOMEBODY = "127.0.0.2", "127.0.0.3", "127.0.0.5"
"""Where clients come from: two peers that listeners trust, and one that nobody does."""

STRANGER6, VIP6 = ("2001:db8::7", 40006), ("2001:db8::1", 993)


class OriginTests(ProxyTestCase):
    """One Dovecot that takes PROXY headers at two ports and believes our ID at the others."""

    server: ClassVar[Dovecot]
    destinations = ("header", "upgraded", "told", "silent", "elsewhere", "loop")

    @classmethod
    def startServers(cls, stack: ExitStack) -> None:
        """Each destination is the same server, told in its own way who the client is."""
        cls.makeAuthority(stack)
        cls.keepSecret(ALICE)
        accounts = [at(name) for name in cls.destinations]
        options = Options(trustsIdentity=True, extra="imap_id_log = *")
        cls.server = stack.enter_context(Dovecot("legacy", cls.authority, accounts, options))
        listeners = {
            **standardListeners(),
            "required": listener(proxy_protocol="required", proxy_trusted=[BALANCER]),
            "optional": listener(proxy_protocol="optional", proxy_trusted=[BALANCER]),
            "upgrading": listener(
                "starttls", proxy_protocol="optional", proxy_trusted=[f"{BALANCER}/32"]
            ),
            "relayed": listener(proxy_trusted=[RELAY]),
        }
        destinations = {
            "header": behind(cls.server, proxy_protocol=True),
            "upgraded": behind(cls.server, "starttls", proxy_protocol=True),
            "told": behind(cls.server, forwarding="xclient"),
            "silent": behind(cls.server),
            "elsewhere": behind(cls.server, source_ips=["127.0.0.77", "::1"]),
        }
        config = settings(cls.authority, listeners, destinations)
        own = int(listeners["imaps"]["bind"][0].rpartition(":")[2])
        config["destination"]["loop"] = destination(own, "localhost")
        cls.startProxy(stack, config, {at(name).name: name for name in cls.destinations})

    @contextmanager
    def seen(self, name: str) -> Iterator[Callable[[], dict[str, str]]]:
        """What Dovecot logs of that account's login within the block: its `key=value` words."""
        mark = self.server.log.mark()

        def words() -> dict[str, str]:
            line = self.server.log.waitForLine(f"Login: user=<{at(name).name}>", since=mark)
            return dict(re.findall(r"([a-z_]+)=<?([^,>\s]*)", line))

        yield words

    def assertSeen(
        self, words: dict[str, str], client: tuple[str, int], own: tuple[str, int]
    ) -> None:
        """Dovecot knows the client, and the address that it connected to."""
        found = words["rip"], words["rport"], words["lip"], words["lport"]
        self.assertEqual(found, (client[0], str(client[1]), own[0], str(own[1])))

    # Out

    def test_aProxyHeaderNamesTheClient(self) -> None:
        """By PROXY v2, before TLS of either kind, for clients of either listener."""
        for name in ("header", "upgraded"):
            for front in ("imaps", "imap"):
                with self.seen(name) as words:
                    client = self.loggedIn(at(name), front, source=SOMEBODY)
                own = ("127.0.0.1", self.proxy.portOf(front))
                self.assertSeen(words(), client.socket.getsockname(), own)
                self.assertEqual(words()["real_rip"], "127.0.0.1")

    def test_anIDCommandNamesTheClient(self) -> None:
        """A backend that believes us learns address, port and our name for the session."""
        with self.seen("told") as words:
            client = self.loggedIn(at("told"), source=SOMEBODY)
        own = ("127.0.0.1", self.proxy.portOf("imaps"))
        self.assertSeen(words(), client.socket.getsockname(), own)
        session = self.sessionOf(client)
        self.assertEqual(session["identifier"], at("told").name)
        self.assertEqual(words()["session"], session["id"])

    def test_nothingIsSaidWhereNothingIsToBeSaid(self) -> None:
        """Without forwarding the backend sees us."""
        with self.seen("silent") as words:
            self.loggedIn(at("silent"), source=SOMEBODY)
        self.assertEqual(words()["rip"], "127.0.0.1")

    def test_aClientCannotClaimAnotherAddress(self) -> None:
        """The backend believes us, so what a stranger says in ID must not come through us."""
        for name, rip in (("silent", "127.0.0.1"), ("told", SOMEBODY), ("header", SOMEBODY)):
            with self.seen(name) as words:
                client = self.greeted(source=SOMEBODY)
                client.command(
                    b'a ID ("name" "x" "X-Originating-IP" "192.0.2.66" "x-proxy-ttl" "1")'
                )
                self.assertOK(self.logIn(client, at(name)))
            self.assertEqual(words()["rip"], rip)

    def test_theClientsOwnIDReachesTheBackend(self) -> None:
        """Name and version of the client's program are passed on, in either way to forward."""
        for name in ("silent", "told", "header"):
            mark = self.server.log.mark()
            client = self.greeted()
            client.command(b'a ID ("name" "Pelican \\"3\\"" "version" NIL)')
            self.assertOK(self.logIn(client, at(name)))
            self.server.log.waitForLine('ID sent: name=Pelican "3", version=', since=mark)

    def test_backendsAreCalledFromTheAddressThatIsSet(self) -> None:
        """`source_ips` of the backend's family; the other ones wait for their turn elsewhere."""
        for _ in range(2):
            with self.seen("elsewhere") as words:
                self.loggedIn(at("elsewhere"))
            self.assertEqual(words()["rip"], "127.0.0.77")

    # In

    def test_aTrustedPeersHeaderIsBelievedAndPassedOn(self) -> None:
        """Versions 1 and 2, both families, in one segment or many, TLS behind it or later."""
        v1 = f"PROXY TCP4 {STRANGER[0]} {VIP[0]} {STRANGER[1]} {VIP[1]}\r\n"
        for header, source, own in (
            (v1.encode(), STRANGER, VIP),
            (proxyHeader(STRANGER, VIP), STRANGER, VIP),
            (proxyHeader(STRANGER6, VIP6), STRANGER6, VIP6),
        ):
            for front, name in (
                ("required", "header"),
                ("optional", "told"),
                ("upgrading", "upgraded"),
            ):
                with self.seen(name) as words:
                    client = self.loggedIn(at(name), front, source=BALANCER, preface=header)
                self.assertSeen(words(), source, own)
                client.command(b"z LOGOUT")

    def test_aHeaderMayComeInManySegments(self) -> None:
        """Byte by byte, with TLS or a greeting after it."""
        for front in ("required", "upgrading"):
            with self.seen("header") as words:
                client = LineClient(self.proxy.portOf(front), source=BALANCER)
                self.addCleanup(client.close)
                client.sendSlowly(proxyHeader(STRANGER, VIP))
                if front == "required":
                    client.startTLS(self.context)
                client.readLine()
                if front == "upgrading":
                    client.command(b"s STARTTLS")
                    client.startTLS(self.context)
                self.assertOK(self.logIn(client, at("header")))
            self.assertSeen(words(), STRANGER, VIP)

    def test_aHeaderThatNamesNobodyKeepsTheSocketsAddresses(self) -> None:
        """LOCAL of version 2, as health checks send it, and UNKNOWN of version 1."""
        local = b"\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00"
        for header in (local, b"PROXY UNKNOWN\r\n", b"PROXY UNKNOWN a b c d\r\n"):
            with self.seen("header") as words:
                self.loggedIn(at("header"), "required", source=BALANCER, preface=header)
            self.assertEqual(words()["rip"], BALANCER)

    def test_aStrangersHeaderIsNotBelieved(self) -> None:
        """Where a header is required the stranger is closed; else the bytes are its own."""
        header = b"PROXY TCP4 192.0.2.7 198.51.100.1 1 2\r\n"
        client = LineClient(self.proxy.portOf("required"), source=SOMEBODY, preface=header)
        self.addCleanup(client.close)
        self.assertEqual(client.readToEnd(), b"")
        with self.seen("header") as words:
            client = self.connect("upgrading", source=SOMEBODY, preface=header)
            self.assertTrue(client.readLine().startswith(b"* OK "))
            self.assertRegex(client.readLine(), rb"\APROXY BAD ")
            client.command(b"s STARTTLS")
            client.startTLS(self.context)
            self.assertOK(self.logIn(client, at("header")))
        self.assertEqual(words()["rip"], SOMEBODY)

    def test_aTrustedPeerMayLeaveAnOptionalHeaderOut(self) -> None:
        """It is served; where we speak first, long before we lose our patience with it."""
        for front in ("optional", "upgrading"):
            started = time.monotonic()
            with self.seen("header") as words:
                self.loggedIn(at("header"), front, source=BALANCER)
            self.assertEqual(words()["rip"], BALANCER)
            self.assertLess(time.monotonic() - started, 15)

    def test_aRequiredHeaderMustComeAndBeSound(self) -> None:
        """A trusted peer without one, or with a bad one, is closed without a word."""
        for sent in (b"a NOOP\r\n", b"PROXY TCP4 1.2.3.4\r\n", b"PROXY UNKNOWN " + b"x" * 1100):
            client = LineClient(self.proxy.portOf("required"), source=BALANCER, preface=sent)
            self.addCleanup(client.close)
            self.assertEqual(client.readToEnd(), b"")

    def test_aTrustedPeersIDIsBelieved(self) -> None:
        """A proxy before us names the client by ID; the hops left are counted down."""
        mark = self.server.log.mark()
        with self.seen("told") as words:
            client = self.greeted("relayed", source=RELAY)
            client.command(
                b'a ID ("x-originating-ip" "192.0.2.7" "x-originating-port" "40007" '
                b'"x-connected-ip" "198.51.100.1" "x-connected-port" "993" '
                b'"x-session-id" "outer-1" "x-proxy-ttl" "4")'
            )
            self.assertOK(self.logIn(client, at("told")))
        self.assertSeen(words(), STRANGER, VIP)
        self.assertEqual(words()["session"], "outer-1")
        self.server.log.waitForLine("x-proxy-ttl=3", since=mark)

    # Loops

    def test_ourOwnListenerIsNoBackend(self) -> None:
        """A destination that is ourselves is refused before anything is dialled."""
        client = self.greeted()
        mark = self.proxy.log.mark()
        self.assertUnavailable(self.logIn(client, at("loop")))
        self.assertTrue(client.readLine().startswith(b"* BYE"))
        self.assertTrue(client.atEnd())
        self.proxy.log.waitForLine("unavailable.*loop: ", since=mark)
        self.assertEqual(self.health("loop")["consecutive_failures"], 0)

    def test_theLastHopIsRefused(self) -> None:
        """A session that a chain of proxies has passed on too often goes no further."""
        client = self.greeted("relayed", source=RELAY)
        client.command(b'a ID ("x-proxy-ttl" "1")')
        self.assertUnavailable(self.logIn(client, at("told")))
