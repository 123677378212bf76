"""What HTTP backends are told about clients, by PROXY header and by forwarding headers."""

import subprocess
import time
from contextlib import ExitStack
from typing import ClassVar

from mailproxy.listener import HEADER_PATIENCE
from tests.integration.accounts import STRANGER, VIP, at
from tests.integration.front import Table, reaching
from tests.integration.house import SOMEBODY
from tests.integration.network import freePort
from tests.integration.process import requireProgram
from tests.integration.proxy import ProxyProcess
from tests.integration.web import Message
from tests.integration.website import (
    ExchangeTestCase,
    WebTestCase,
    basic,
    byAuthorization,
    scriptedSite,
    webListener,
)
from tests.integration.wire import proxyHeader

OLD, NEW, TOLD, UNTOLD = (basic(at(name)) for name in ("old", "new", "told", "untold"))
SPOOFED = {
    "Forwarded": "for=203.0.113.66",
    "X_Forwarded_For": "203.0.113.66",
    "X_Forwarded_Proto": "gopher",
    "X_Forwarded_Host": "evil.example",
    "X_Forwarded_Port": "666",
    "X_Forwarded_Server": "evil.example",
    "X_Real_IP": "203.0.113.66",
}
"""What a client says who would like to be somebody else."""

_NAMES = {name.replace("_", "-").lower().encode() for name in SPOOFED}


class IdentityTests(ExchangeTestCase):
    """`told` and `untold` are one backend; the listeners differ in whom they believe."""

    @classmethod
    def places(cls) -> tuple[str, ...]:
        """By their ways."""
        return ("old", "new", "told", "untold", "bare")

    @classmethod
    def destinations(cls) -> dict[str, Table]:
        """`bare` is the nginx without PROXY header."""
        return {
            **super().destinations(),
            "bare": reaching(cls.old, "http"),
            "told": scriptedSite(cls.scripted, forwarded=True),
            "untold": scriptedSite(cls.scripted),
        }

    @classmethod
    def configuration(cls) -> Table:
        """`behind` stands behind another proxy, `trusting` believes headers."""
        config = super().configuration()
        config["listener"] |= {
            "behind": webListener(**_TRUST),
            "perhaps": webListener(**_TRUST | {"proxy_protocol": "optional"}),
            "trusting": webListener(forwarded="trust"),
            "plain": webListener("plain"),
        }
        return config

    def arrived(self, name: str = "https", **headers: str) -> Message:
        """Ask by that listener; what reached the backend."""
        self.assertEqual(self.web(name, source=SOMEBODY).ask("/x", **headers).status, 200)
        return self.recorder.messages()[-1]

    # By PROXY header

    def test_theClientsAddressReachesNginx(self) -> None:
        """Each client's own, on a connection that is its own."""
        connections = set()
        for source in ("127.0.0.5", "127.0.0.6", "127.0.0.5"):
            client = self.web(source=source)
            for _ in range(2):
                answer = client.ask("/x", Authorization=OLD)
                address, port = client.socket.getsockname()
                self.assertEqual(answer.header("x-peer"), f"{address}:{port}")
                connections.add(answer.header("x-connection"))
        self.assertEqual(len(connections), 3)

    def test_aNamedClientIsNamedOn(self) -> None:
        """The address of an inbound PROXY header, IPv4 and IPv6, goes out again."""
        for address in (STRANGER, ("2001:db8::7", 40007)):
            there = VIP if "." in address[0] else ("2001:db8::1", 443)
            client = self.web("behind", preface=proxyHeader(address, there))
            answer = client.ask("/x", Authorization=NEW)
            self.assertEqual(answer.header("x-peer"), f"{address[0]}:{address[1]}")

    def test_aHeaderMayBeLeftOut(self) -> None:
        """Where it is optional a trusted peer without one is served at once, as itself; a header
        of anybody else is no TLS."""
        for preface, source, peer in (
            (proxyHeader(STRANGER, VIP), "127.0.0.1", "192.0.2.7"),
            (b"", "127.0.0.1", "127.0.0.1"),
            (b"", SOMEBODY, SOMEBODY),
        ):
            quickest = min(self.served(preface, source, peer) for _ in range(3))
            self.assertLess(quickest, HEADER_PATIENCE)
        with self.assertRaises((OSError, EOFError)):
            self.web("perhaps", preface=proxyHeader(STRANGER, VIP), source=SOMEBODY)

    def served(self, preface: bytes, source: str, peer: str) -> float:
        """Ask by the listener `perhaps`, be told as that peer; how many seconds it took."""
        started = time.monotonic()
        with self.web("perhaps", preface=preface, source=source) as client:
            answer = client.ask("/x", Authorization=OLD)
        self.assertEqual((answer.header("x-peer") or "").rpartition(":")[0], peer)
        return time.monotonic() - started

    def test_withoutAHeaderNothingIsTold(self) -> None:
        """Nothing is told; a client's connection is its own all the same."""
        seen = set()
        for _ in range(3):
            client = self.web()
            for _ in range(2):
                answer = client.ask("/x", Authorization=basic(at("bare")))
                self.assertEqual(answer.header("x-peer"), ":")
                seen.add(answer.header("x-connection"))
        self.assertEqual(len(seen), 3)

    # By forwarding headers

    def test_spoofedHeadersAreStripped(self) -> None:
        """However they are written; nothing is added where nothing is to be told."""
        request = self.arrived(Authorization=UNTOLD, **SPOOFED)
        self.assertEqual(request.headers.names() & _NAMES, set())
        request = self.arrived(Authorization=UNTOLD, x_FORWARDED_for="203.0.113.66")
        self.assertEqual(request.headers.names() & _NAMES, set())

    def test_theClientIsToldByHeaders(self) -> None:
        """What it says itself is gone, and the truth is there once."""
        request = self.arrived(Authorization=TOLD, Host="mail.test:8443", **SPOOFED)
        self.assertEqual(request.header("x-forwarded-for"), SOMEBODY)
        self.assertEqual(request.header("x-forwarded-proto"), "https")
        self.assertIsNone(request.header("x-forwarded-host"))
        self.assertRegex(
            request.header("forwarded") or "",
            rf'\Afor="?{SOMEBODY}(:\d+)?"?;\s*proto=https;\s*host="mail\.test:8443"\Z',
        )
        self.assertNotIn(b"203.0.113.66", repr(request).encode())

    def test_connectionCannotHideThem(self) -> None:
        """`Connection: X-Forwarded-For` cannot take away what we add: it is refused."""
        for name in ("X-Forwarded-For", "forwarded", "X-Real-IP", "X-Request-Id", "Authorization"):
            answer = self.web().ask("/x", Authorization=TOLD, Connection=f"close, {name}")
            self.assertOurs(400, answer)
        self.assertEqual(self.recorder.messages(), [])

    def test_trustedHeadersAreKeptAndContinued(self) -> None:
        """A listener behind another proxy appends; where nothing is to be told they pass."""
        said = {"Forwarded": "for=192.0.2.9;proto=http", "X_Forwarded_For": "192.0.2.9"}
        request = self.arrived("trusting", Authorization=TOLD, **said)
        forwarded = ", ".join(value.decode() for value in request.headers.all(b"x-forwarded-for"))
        self.assertEqual(forwarded, f"192.0.2.9, {SOMEBODY}")
        told = b", ".join(request.headers.all(b"forwarded")).decode()
        self.assertRegex(told, rf'\Afor=192\.0\.2\.9;proto=http, for="?{SOMEBODY}')
        request = self.arrived("trusting", Authorization=UNTOLD, **said)
        self.assertEqual(request.header("x-forwarded-for"), "192.0.2.9")

    def test_addressesOfIPv6AreQuoted(self) -> None:
        """As RFC 7239 wants it."""
        preface = proxyHeader(("2001:db8::7", 40007), ("2001:db8::1", 443))
        self.web("behind", preface=preface).ask("/x", Authorization=TOLD)
        request = self.recorder.messages()[-1]
        self.assertEqual(request.header("x-forwarded-for"), "2001:db8::7")
        self.assertRegex(request.header("forwarded") or "", r'\Afor="\[2001:db8::7\](:\d+)?";')

    def test_theSchemeIsTold(self) -> None:
        """A client without TLS is told as such."""
        request = self.arrived("plain", Authorization=TOLD)
        self.assertEqual(request.header("x-forwarded-proto"), "http")

    def test_noViaIsAdded(self) -> None:
        """And a client's own passes."""
        self.assertIsNone(self.arrived(Authorization=UNTOLD).header("via"))
        self.assertEqual(self.arrived(Authorization=UNTOLD, Via="1.1 x").header("via"), "1.1 x")

    # Request identifiers

    def test_eachRequestHasAnIdentifier(self) -> None:
        """Made where there is none, kept where it is sane; the log has it."""
        mark = self.proxy.log.mark()
        made = self.arrived(Authorization=UNTOLD).header("x-request-id")
        assert made is not None
        self.assertRegex(made, r"\A[A-Za-z0-9._-]{8,128}\Z")
        self.proxy.log.waitForLine(made, since=mark)
        self.assertNotEqual(self.arrived(Authorization=UNTOLD).header("x-request-id"), made)
        kept = self.arrived(Authorization=UNTOLD, X_Request_Id="abc-123.def")
        self.assertEqual(kept.header("x-request-id"), "abc-123.def")
        self.proxy.log.waitForLine("abc-123.def", since=mark)

    def test_anInsaneIdentifierIsReplaced(self) -> None:
        """It is too long, or holds what no log should hold, or is there twice."""
        for value in ("x" * 2000, "a b", 'a"b', "\x9b31m", "a\tb", ""):
            mark = self.proxy.log.mark()
            found = self.arrived(Authorization=UNTOLD, X_Request_Id=value).header("x-request-id")
            self.assertRegex(found or "", r"\A[A-Za-z0-9._-]{8,128}\Z")
            if value:
                self.assertNotIn(value, self.proxy.log.text(mark))
        twice = self.arrived(Authorization=UNTOLD, X_Request_Id="aaaaaaaa", x_request_id="bbbbbbbb")
        self.assertEqual(len(twice.headers.all(b"x-request-id")), 1)

    # TLS

    def test_ALPN(self) -> None:
        """HTTP/1.1 is what is spoken; a client that offers HTTP/2 too is told so."""
        program, port = requireProgram("openssl", "openssl"), self.proxy.portOf("https")
        for offered in ("http/1.1", "h2,http/1.1"):
            done = subprocess.run(
                [program, "s_client", "-connect", f"localhost:{port}", "-alpn", offered],
                input=b"",
                capture_output=True,
                timeout=20,
                check=False,
            )
            self.assertIn(b"ALPN protocol: http/1.1", done.stdout, offered)
        spoken = self.curl(
            "--http2", "URL/x", "-H", f"Authorization: {NEW}", "-w", "%{http_version}"
        )
        self.assertEqual((spoken.status, spoken.output), (0, "GET /x\n1.1"))


class ChainTests(WebTestCase):
    """Three proxies in a row, and two that send each other everything."""

    chain: ClassVar[list[ProxyProcess]]
    ring: ClassVar[list[ProxyProcess]]

    @classmethod
    def startServers(cls, stack: ExitStack) -> None:
        """The usual ones are the last of the row; two more stand before, and a ring beside."""
        super().startServers(stack)
        cls.chain = [cls.proxy]
        for _ in range(2):
            table = _proxied(cls.chain[-1].portOf("behind"))
            cls.chain.append(cls.startAnother(stack, cls.front({"next": table})))
        cls.ring = []
        listeners = [webListener(**_TRUST) for _ in range(2)]
        for own, other in (listeners, listeners[::-1]):
            port = int(other["bind"][0].rpartition(":")[2])
            config = cls.front({"next": _proxied(port)})
            config["listener"] = {"https": own}
            cls.ring.append(cls.startAnother(stack, config))

    @classmethod
    def configuration(cls) -> Table:
        """The last of the row takes PROXY headers."""
        config = super().configuration()
        config["listener"]["behind"] = webListener(**_TRUST)
        port = freePort()
        config["listener"]["itself"] = webListener(bind=[f"127.0.0.1:{port}"])
        config["destination"]["itself"] = _proxied(port)
        return config

    @classmethod
    def places(cls) -> tuple[str, ...]:
        """One of them is ourselves."""
        return ("old", "new", "itself")

    @classmethod
    def front(cls, destinations: dict[str, Table]) -> Table:
        """A proxy with one destination and a listener that only the first of a row needs."""
        config = super().configuration()
        config["listener"] = {"https": webListener(), "behind": webListener(**_TRUST)}
        config["destination"], config["routing"] = destinations, {"default_destination": "next"}
        config["http"]["route"] = [{"match": "/**", "destination": "next"}, byAuthorization()]
        config["admin"]["bind"] = f"127.0.0.1:{freePort()}"
        return config

    def test_theFirstClientsAddressGoesAllTheWay(self) -> None:
        """Through three proxies, for two accounts on one connection."""
        client = self.webTo(self.chain[-1].portOf("https"), source=SOMEBODY)
        address, port = client.socket.getsockname()
        for authorization, server in ((OLD, "old"), (NEW, "new"), (OLD, "old")):
            answer = client.ask("/x", Authorization=authorization)
            self.assertFrom(server, answer)
            self.assertEqual(answer.header("x-peer"), f"{address}:{port}")

    def test_aRingIsLeft(self) -> None:
        """When no hop is left the request is answered, and all let go."""
        marks = [(proxy, proxy.log.mark()) for proxy in self.ring]
        preface = proxyHeader(STRANGER, VIP)
        client = self.webTo(self.ring[0].portOf("https"), source="127.0.0.1", preface=preface)
        answer = client.ask("/x", Authorization=OLD)
        self.assertIn(answer.status, (502, 508))
        said = "".join(proxy.log.text(mark) for proxy, mark in marks)
        self.assertEqual(said.count("loop: no hop is left"), 1)

    def test_ourselvesAreNoDestination(self) -> None:
        """Nothing is dialled."""
        answer = self.web().ask("/x", Authorization=basic(at("itself")))
        self.assertOurs(502, answer)
        self.proxy.log.waitForLine("loop: .* is our own listener")


_TRUST: Table = {"proxy_protocol": "required", "proxy_trusted": ["127.0.0.1"]}


def _proxied(port: int) -> Table:
    """Another proxy as a destination that is told of clients by PROXY header."""
    endpoint = {"http": {"port": port, "tls": "implicit"}}
    return {
        "host": "127.0.0.1",
        "tls_server_name": "localhost",
        "proxy_protocol": True,
        "protocol": endpoint,
    }
