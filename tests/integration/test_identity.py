"""Who the client is: what trusted peers say of it is believed and passed on in every protocol."""

import select
import time
from contextlib import ExitStack
from itertools import product

from tests.integration.accounts import STRANGER, VIP, at
from tests.integration.backends import DIALOGUES, WAYS, IdentityTestCase
from tests.integration.dialogues import Dialogue
from tests.integration.front import Table, listener, settings
from tests.integration.house import SOMEBODY
from tests.integration.wire import LineClient, proxyHeader

BALANCER, RELAY = "127.0.0.2", "127.0.0.3"
"""Two peers that listeners trust."""


class InboundTests(IdentityTestCase):
    """A proxy with listeners that trust a balancer or a relay, in each protocol."""

    @classmethod
    def startServers(cls, stack: ExitStack) -> None:
        """For each protocol: headers required, headers optional, and a relay before us."""
        cls.startBackends(stack)
        listeners: dict[str, Table] = {}
        for each in (dialogue.protocol for dialogue in DIALOGUES):
            header = {"protocol": each, "proxy_trusted": [f"{BALANCER}/32"]}
            listeners |= {
                f"{each}-required": listener("implicit", proxy_protocol="required", **header),
                f"{each}-optional": listener("starttls", proxy_protocol="optional", **header),
                f"{each}-hasty": listener("implicit", proxy_protocol="optional", **header),
                f"{each}-relayed": listener("implicit", protocol=each, proxy_trusted=[RELAY]),
            }
        config = settings(cls.authority, listeners, cls.backends())
        cls.startProxy(stack, config, {at(way).name: way for way in WAYS})

    # PROXY headers

    def test_aTrustedPeersHeaderIsBelievedAndPassedOn(self) -> None:
        """Versions 1 and 2, before TLS of either kind, in one segment or many; on to both ways."""
        v1 = f"PROXY TCP4 {STRANGER[0]} {VIP[0]} {STRANGER[1]} {VIP[1]}\r\n"
        for dialogue, header in product(DIALOGUES, (v1.encode(), proxyHeader(STRANGER, VIP))):
            for mode, way in (("required", "header"), ("optional", "told"), ("hasty", "header")):
                name = f"{dialogue.protocol}-{mode}"
                client = self.connect(name, source=BALANCER, preface=header)
                words = self.enter(dialogue, client, way, upgrade=mode == "optional")
                self.assertEqual((words["rip"], words["rport"]), ("192.0.2.7", "40007"), name)
                client.close()

    def test_aHeaderMayComeByteByByte(self) -> None:
        """In each protocol, also where we would speak first after a second."""
        for dialogue in DIALOGUES:
            port = self.proxy.portOf(f"{dialogue.protocol}-optional")
            client = LineClient(port, source=BALANCER)
            self.addCleanup(client.close)
            client.sendSlowly(proxyHeader(STRANGER, VIP))
            words = self.enter(dialogue, client, "header", upgrade=True)
            self.assertEqual(words["rip"], "192.0.2.7", dialogue.protocol)

    def test_aTrustedPeerMayLeaveAnOptionalHeaderOut(self) -> None:
        """We wait for its first byte for a second, and then greet."""
        started = time.monotonic()
        clients = [self.connect(f"{each.protocol}-optional", source=BALANCER) for each in DIALOGUES]
        self.assertTrue(any(select.select([client.socket for client in clients], [], [], 30)))
        self.assertGreater(time.monotonic() - started, 0.9, "somebody is greeted at once")
        for dialogue, client in zip(DIALOGUES, clients, strict=True):
            dialogue.greet(client)
        self.assertLess(time.monotonic() - started, 10)

    def waits(self, dialogue: Dialogue, source: str) -> float:
        """How many seconds a client without a header waits for its greeting."""
        started = time.monotonic()
        dialogue.greet(self.connect(f"{dialogue.protocol}-optional", source=source))
        return time.monotonic() - started

    def test_aStrangerNeverWaits(self) -> None:
        """Who is not trusted is greeted at once, and its header is a mistake of its own."""
        for dialogue in DIALOGUES:
            name = f"{dialogue.protocol}-optional"
            # Were it the proxy that waits, no time would be less than a second.
            self.assertLess(min(self.waits(dialogue, SOMEBODY) for _ in range(3)), 0.9)
            client = self.connect(name, source=SOMEBODY)
            words = self.enter(dialogue, client, "header", upgrade=True)
            self.assertEqual(words["rip"], SOMEBODY)
            preface = b"PROXY TCP4 192.0.2.7 198.51.100.1 1 2\r\n"
            client = self.connect(name, source=SOMEBODY, preface=preface)
            client.readLine()
            self.assertNotEqual(client.readLine(), b"")

    def test_aRequiredHeaderMustCome(self) -> None:
        """Neither a stranger nor a trusted peer without one is greeted."""
        for dialogue, source in product(DIALOGUES, (SOMEBODY, BALANCER)):
            port = self.proxy.portOf(f"{dialogue.protocol}-required")
            client = LineClient(port, source=source, preface=b"NOOP\r\n")
            self.addCleanup(client.close)
            self.assertEqual(client.readToEnd(), b"", (dialogue.protocol, source))

    # XCLIENT and ID

    def introduce(self, dialogue: Dialogue, client: LineClient, ttl: int) -> bytes:
        """Say as a proxy does who the client is; the answer."""
        words = f"ADDR=192.0.2.7 PORT=40007 SESSION=outer-1 TTL={ttl} LOGIN=mallory".encode()
        if dialogue.protocol == "imap":
            fields = b'"x-originating-ip" "192.0.2.7" "x-originating-port" "40007"'
            fields += b' "x-session-id" "outer-1" "x-proxy-ttl" "%d"' % ttl
            return client.command(b"i ID (" + fields + b")")[-1]
        client.send(b"XCLIENT " + words + b"\r\n")
        answer = client.readLine()
        if dialogue.protocol == "submission" and answer.startswith(b"220"):
            client.send(b"EHLO again\r\n")
            client.readUntil(b"250 ")
        return answer

    def test_aTrustedPeersWordIsBelieved(self) -> None:
        """Address, port and session name reach the backend by either way; LOGIN is nothing."""
        for dialogue, way in product(DIALOGUES, WAYS):
            client = self.connect(f"{dialogue.protocol}-relayed", source=RELAY)
            mark = self.dovecot.log.mark()
            self.assertIn(
                b"XCLIENT" if dialogue.protocol != "imap" else b"", dialogue.greet(client)
            )
            self.assertNotRegex(self.introduce(dialogue, client, 4), rb"\A(-ERR|NO|5)")
            self.assertRegex(dialogue.logIn(client, at(way)), dialogue.accepted)
            words = self.seen(way, mark)
            self.assertEqual((words["rip"], words["rport"]), ("192.0.2.7", "40007"), way)
            if way == "told":
                self.assertEqual(words["session"], "outer-1", dialogue.protocol)

    def test_aStrangersWordIsNot(self) -> None:
        """It is offered nothing, and what it says all the same is refused or passed over."""
        for dialogue, way in product(DIALOGUES, WAYS):
            client = self.connect(f"{dialogue.protocol}-relayed", source=SOMEBODY)
            mark = self.dovecot.log.mark()
            self.assertNotIn(b"XCLIENT", dialogue.greet(client))
            self.introduce(dialogue, client, 1)
            self.assertRegex(dialogue.logIn(client, at(way)), dialogue.accepted)
            self.assertEqual(self.seen(way, mark)["rip"], SOMEBODY, dialogue.protocol)

    def test_theLastHopIsRefused(self) -> None:
        """A session that has been passed on too often goes no further, and the log says why."""
        for dialogue in DIALOGUES:
            client = self.connect(f"{dialogue.protocol}-relayed", source=RELAY)
            dialogue.greet(client)
            self.introduce(dialogue, client, 1)
            mark = self.proxy.log.mark()
            self.assertRegex(dialogue.logIn(client, at("told")), dialogue.unavailable)
            self.proxy.log.waitForLine("loop: no hop is left", since=mark)
