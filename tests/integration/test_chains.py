"""Proxies behind proxies: chains of them, rings, and destinations that are ourselves."""

import smtplib
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import product
from typing import Any, ClassVar

from tests.integration.accounts import ALICE, at
from tests.integration.backends import DIALOGUES, WAYS, IdentityTestCase, destinationFor
from tests.integration.dialogues import Dialogue
from tests.integration.front import Table, listener, settings
from tests.integration.house import SOMEBODY
from tests.integration.messages import message
from tests.integration.network import freePort
from tests.integration.process import LogFile
from tests.integration.proxy import ProxyProcess


class ChainTests(IdentityTestCase):
    """Three proxies in a row; each trusts the one before, and nobody trusts the client."""

    chain: ClassVar[list[ProxyProcess]]

    @classmethod
    def startServers(cls, stack: ExitStack) -> None:
        """The last one first, as it must be known to the one before."""
        cls.startBackends(stack)
        destinations = cls.backends()
        post, lmtp = cls.postfix.exchangerProxied, cls.dovecot.doors["lmtp"].open
        for protocol, port, forwarding in (("smtp", post, "proxy"), ("lmtp", lmtp, "xclient")):
            endpoint = {"port": port, "tls": "plain", "forwarding": forwarding}
            destinations["header"]["protocol"][protocol] = endpoint
        cls.chain = []
        for place in ("last", "middle", "first"):
            listeners = dict(_listeners(trusted=place != "first"))
            config = settings(cls.authority, listeners, destinations)
            config["routing"]["smtp_passthrough_destination"] = "header"
            cls.chain.append(cls.startAnother(stack, config, {at(way).name: way for way in WAYS}))
            destinations = {way: _proxyDestination(listeners, way) for way in WAYS}
        cls.proxy = cls.chain[-1]

    def test_theFirstClientsAddressReachesTheBackend(self) -> None:
        """By headers all the way, and by XCLIENT and ID; each proxy has had the session."""
        for dialogue, way in product(DIALOGUES, WAYS):
            name = f"{dialogue.protocol}-{way}"
            # A proxy at the end of a chain may hear last that a session is over.
            self.assertEventually(lambda: not any(map(_sessions, self.chain)), "a session stays")
            client = self.connect(name, source=SOMEBODY)
            words = self.enter(dialogue, client, way, upgrade=way == "told")
            address, port = client.socket.getsockname()
            self.assertEqual((words["rip"], words["rport"]), (address, str(port)), name)
            for proxy in self.chain:
                found = [each["client"] for each in _sessions(proxy)]
                self.assertEqual(found, [f"{address}:{port}"], name)
            client.close()

    def test_SMTPBehindThreeProxies(self) -> None:
        """By headers; nobody's trust is lent."""
        port = self.proxy.portOf("smtp-header")
        with smtplib.SMTP("localhost", port, "me.example", source_address=(SOMEBODY, 0)) as client:
            client.sendmail("a@example.org", ["b@example.org"], message("chained"))
            with self.assertRaises(smtplib.SMTPRecipientsRefused):
                client.sendmail("a@example.org", ["b@elsewhere.example"], message("relayed"))
        received = str(self.postfix.awaitMail("chained")["Received"])
        self.assertRegex(received, rf"\Afrom me\.example .*\[{SOMEBODY}\]")

    def test_LMTPBehindThreeProxies(self) -> None:
        """By XCLIENT: each proxy introduces the one before, and at last the client is named."""
        mark, port = self.dovecot.log.mark(), self.proxy.portOf("lmtp-header")
        with smtplib.LMTP("localhost", port, "me.example", source_address=(SOMEBODY, 0)) as client:
            client.sendmail("a@example.org", [at("told").name], message("stored"))
        self.dovecot.log.waitForLine(f"Disconnect from {SOMEBODY}", since=mark)


class RingTests(IdentityTestCase):
    """Two proxies that send each other everything, and destinations that are ourselves."""

    other: ClassVar[ProxyProcess]

    @classmethod
    def startServers(cls, stack: ExitStack) -> None:
        """`header` and `told` lead to the other and back; `own` and `wild` to ourselves."""
        cls.makeAuthority(stack)
        cls.keepSecret(ALICE)
        sides = [dict(_listeners(trusted=True)) for _ in range(2)]
        accounts = {at(way).name: way for way in (*WAYS, "own", "wild")}
        proxies = []
        for listeners, others in (sides, sides[::-1]):
            wild = {f"{each.protocol}-wild": _wild(each.protocol) for each in DIALOGUES}
            destinations = {way: _proxyDestination(others, way) for way in WAYS}
            own = {**listeners, **wild}
            destinations["own"] = _proxyDestination(listeners, "told", host="localhost")
            destinations["wild"] = _proxyDestination(wild, "wild", host="127.0.0.9")
            for way in ("header", "own", "wild"):
                destinations[way]["protocol"].setdefault(
                    "smtp", destinations["header"]["protocol"]["smtp"]
                )
            config = settings(cls.authority, own, destinations)
            config["routing"]["smtp_passthrough_destination"] = "header"
            config["server"]["backend_connect_retries"] = 0
            proxies.append(cls.startAnother(stack, config, accounts))
        cls.proxy, cls.other = proxies

    def refusal(self, dialogue: Dialogue, name: str, way: str) -> None:
        """A login that leads nowhere is answered as nobody's fault, before our patience ends."""
        client = self.connect(name, source="127.0.0.1", preface=_local(name))
        dialogue.greet(client)
        if self.proxy.modeOf(name) == "starttls":
            dialogue.startTLS(client, self.context)
        started = time.monotonic()
        self.assertRegex(dialogue.logIn(client, at(way)), dialogue.unavailable, (name, way))
        self.assertLess(time.monotonic() - started, 9)

    def test_aRingOfProxiesIsLeft(self) -> None:
        """When no hop is left, by header or by XCLIENT, the last one says so and all let go."""
        for dialogue, way in product(DIALOGUES, WAYS):
            marks = [(proxy.log, proxy.log.mark()) for proxy in (self.proxy, self.other)]
            self.refusal(dialogue, f"{dialogue.protocol}-{way}", way)
            said = partial(_said, marks)
            # Whoever says so may answer before it writes.
            self.assertEventually(said, "nobody says so")
            self.assertEqual(said(), 1, (dialogue.protocol, way))

    def test_aRingOfPassThroughIsLeft(self) -> None:
        """By header: 421 from the one that has no hop left, all the way back."""
        stranger = b"PROXY TCP4 203.0.113.9 127.0.0.1 40000 25\r\n"
        client = self.connect("smtp-header", source="127.0.0.1", preface=stranger)
        self.assertRegex(client.readLine(), rb"\A421 ")
        self.assertEqual(client.readToEnd(), b"")

    def test_ourselvesAreNoDestination(self) -> None:
        """By name, and by another address of a bind to all of them; nothing is dialled."""
        for dialogue, way in product(DIALOGUES, ("own", "wild")):
            mark = self.proxy.log.mark()
            self.refusal(dialogue, f"{dialogue.protocol}-told", way)
            self.proxy.log.waitForLine("loop: .* is our own listener", since=mark)


def _local(name: str) -> bytes:
    """The header of a peer that speaks for itself, where one is required."""
    return b"PROXY UNKNOWN\r\n" if name.endswith("-header") else b""


def _said(marks: Sequence[tuple[LogFile, int]]) -> int:
    """How often somebody has said since then that there is no hop left."""
    return sum(log.text(mark).count("loop: no hop is left") for log, mark in marks)


def _sessions(proxy: ProxyProcess) -> list[Table]:
    """The live sessions of that proxy."""
    token = str(proxy.config["admin"]["bearer_token"])
    found: list[Table] = proxy.api("GET", "/connections", token).json()
    return found


def _wild(protocol: str) -> Table:
    """A listener on all addresses of this machine."""
    return listener("implicit", protocol=protocol, bind=[f"0.0.0.0:{freePort()}"])


def _listeners(*, trusted: bool) -> Iterator[tuple[str, Table]]:
    """Two for each protocol: one takes headers, if anybody is trusted, and one does not."""
    header: dict[str, Any] = {"proxy_protocol": "required"} if trusted else {}
    trust: dict[str, Any] = {"proxy_trusted": ["127.0.0.1"]} if trusted else {}
    for each in (dialogue.protocol for dialogue in DIALOGUES):
        yield f"{each}-header", listener("implicit", protocol=each, **header, **trust)
        yield f"{each}-told", listener("starttls", protocol=each, **trust)
    yield "smtp-header", listener("plain", protocol="smtp", **header, **trust)
    yield "lmtp-header", listener("plain", protocol="lmtp")


def _proxyDestination(listeners: dict[str, Table], way: str, host: str = "127.0.0.1") -> Table:
    """A proxy with those listeners, as a destination reached by them."""
    endpoints = {
        table["protocol"]: {
            "port": int(table["bind"][0].rpartition(":")[2]),
            "tls": table["tls"],
            **({"forwarding": "xclient"} if table["protocol"] == "lmtp" else {}),
        }
        for name, table in listeners.items()
        if name.endswith(f"-{way}")
    }
    return destinationFor("localhost", endpoints, way, host)
