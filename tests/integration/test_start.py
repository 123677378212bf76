"""What the process says when it cannot start, and the limits that it keeps."""

import re
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from unittest import SkipTest

from tests.integration.accounts import ALICE
from tests.integration.front import (
    TOKEN,
    destination,
    listener,
)
from tests.integration.lifecycle import LifecycleTestCase
from tests.integration.network import freePort, isListening
from tests.integration.process import ServerFailed
from tests.integration.proxy import ProxyProcess
from tests.integration.wire import LineClient


class Doomed(ProxyProcess):
    """A proxy that is not meant to start: it is waited for until it ends."""

    def ports(self) -> list[int]:
        """One that nobody will serve."""
        return [1]


class StartTests(LifecycleTestCase):
    """What keeps it from starting is said in plain words, all at once."""

    def assertRefusesToStart(
        self, *expected: str, mapping: str | None = "", arguments: Sequence[str] = ()
    ) -> None:
        """It ends with status 1 and a line for each of these expressions, and nothing is bound.

        :param mapping: the mapping file's content; None: there is none.
        """
        proxy = Doomed(self.proxy.config, self.authority, arguments=arguments)
        self.stack.callback(proxy.close)
        if mapping is not None:
            proxy.mapping.write_text(mapping)
        with self.assertRaisesRegex(ServerFailed, "ended with status 1"):
            proxy.start()
        lines = [line for line in proxy.output.text().splitlines() if line.strip()]
        for pattern in expected:
            self.assertTrue(any(re.search(pattern, line) for line in lines), (pattern, lines))
        self.assertEqual(len(lines), len(expected), lines)
        for secret in self.secrets:
            self.assertNotIn(secret.decode(), proxy.output.text())

    def test_aPortInUse(self) -> None:
        """Each such port is named with its key; the others are not kept."""
        self.proxy.config["listener"]["more"] = listener()
        names = ("imap", "more")
        for name in names:
            address = ("127.0.0.1", self.proxy.portOf(name))
            self.stack.enter_context(socket.create_server(address))
        self.assertRefusesToStart(
            *(
                rf"\Alistener\.{name}\.bind: 127\.0\.0\.1:{self.proxy.portOf(name)}: "
                r"address already in use\Z"
                for name in names
            )
        )
        self.assertFalse(isListening(self.proxy.portOf("imaps")))

    def test_twoListenersOnOnePort(self) -> None:
        """Seen before anything is bound."""
        listeners = self.proxy.config["listener"]
        listeners["imap"]["bind"] = listeners["imaps"]["bind"]
        self.assertRefusesToStart(rf"listener\.imaps?\.bind.*{self.proxy.portOf('imap')}")

    def test_manyMistakesAreReportedTogether(self) -> None:
        """One line for each, beginning with its key."""
        config = self.proxy.config
        config["server"] |= {"backend_timeout": "ten seconds", "colour": "blue"}
        config["listener"]["imap"] |= {"tls": "maybe"}
        config["listener"]["imaps"] |= {"proxy_protocol": "required"}
        config["destination"]["good"] |= {"tls_pinned_cert_sha256": "abc"}
        config["destination"]["silent"] |= {"allow_plaintext_auth": False}
        config["routing"]["default_destination"] = "nowhere"
        config["tls"]["certificate"]["own"]["key"] = "no-such-key.pem"
        config["admin"]["bearer_token"] = "short"
        self.assertRefusesToStart(
            r"\Aserver\.backend_timeout: ",
            r"\Aserver\.colour: ",
            r"\Alistener\.imap\.tls: ",
            r"\Alistener\.imaps\.proxy_trusted: ",
            r"\Adestination\.good\.tls_pinned_cert_sha256: ",
            r"\Adestination\.silent\.protocol\.imap\.tls: ",
            r"\Arouting\.default_destination: .*nowhere",
            r"\Atls\.certificate\.own\.key: .*no-such-key\.pem",
            r"\Aadmin\.bearer_token: ",
        )
        self.assertFalse(any(isListening(port) for port in self.proxy.ports()))

    def test_aMappingFileThatCannotBeUsed(self) -> None:
        """Missing, malformed, or naming what is not declared: with its line."""
        for text, expected in (
            ("a@example.org good extra\n", [r"mapping:1: "]),
            (
                "a@example.org nowhere\nb@example.org neither\n",
                [r"g:1: .*nowhere", r"g:2: .*neither"],
            ),
            ("a@example.org\nb@example.org\n", [r"mapping:1: ", r"mapping:2: "]),
            ("a@example.org good\na@example.org silent\n", [r"mapping:2: "]),
            (None, [r"mapping\.file\.path: .*mapping"]),
        ):
            self.assertRefusesToStart(*expected, mapping=text)

    def test_aConfigurationFileThatCannotBeRead(self) -> None:
        """Missing, or no TOML: its path and the cause."""
        file = self.proxy.folder / "elsewhere.toml"
        for text, expected in ((None, r"elsewhere\.toml"), ("[server\n", r"elsewhere\.toml:1: ")):
            if text is not None:
                file.write_text(text)
            arguments = ["--config", str(file)]
            self.assertRefusesToStart(expected, arguments=arguments)

    def test_aMissingBackendIsNoReason(self) -> None:
        """It starts with every backend down; its clients are told so."""
        self.proxy.config["destination"]["good"] = destination(freePort(), "localhost")
        self.proxy.start()
        self.assertUnavailable(self.logIn(self.greeted(), ALICE))

    def test_theEnvironmentBeatsTheFile(self) -> None:
        """PROXY_ADMIN_TOKEN and PROXY_LOG."""
        env = {"PROXY_ADMIN_TOKEN": "e" * 40, "PROXY_LOG": "error"}
        proxy = ProxyProcess(self.proxy.config, self.authority, env=env)
        self.stack.callback(proxy.close)
        proxy.writeMapping({})
        proxy.start()
        self.assertEqual(proxy.api("GET", "/stats", TOKEN).status, 401)
        self.assertEqual(proxy.api("GET", "/stats", "e" * 40).status, 200)
        LineClient(proxy.portOf("imap")).close()
        self.assertNotIn("session", proxy.log.text())

    def test_aWarningSaysWhatSomebodyShouldLookAt(self) -> None:
        """Certificates that are not checked."""
        self.proxy.config["destination"]["lax"] = destination(
            freePort(), "localhost", tls_allow_invalid_certs=True
        )
        self.proxy.start()
        self.proxy.log.waitForLine(r"#warn\].*destination\.lax\.tls_allow_invalid_certs")


class LimitTests(LifecycleTestCase):
    """Numbers, times and addresses that the configuration sets."""

    def test_oneConnectionTooMany(self) -> None:
        """It is closed at once, without a word; when another leaves there is room again."""
        self.proxy.config["listener"]["imap"]["max_connections"] = 2
        self.proxy.start()
        first, second = self.connect("imap"), self.connect("imap")
        self.assertTrue(first.readLine().startswith(b"* OK"))
        self.assertTrue(second.readLine().startswith(b"* OK"))
        self.assertEqual(self.connect("imap").readToEnd(), b"")
        self.assertOK(self.logIn(self.greeted("imaps"), ALICE))
        first.command(b"z LOGOUT")
        first.close()
        self.assertEventually(self.hasRoom, "no room")

    def hasRoom(self) -> bool:
        """Whether a further client is greeted."""
        try:
            return self.connect("imap").readLine().startswith(b"* OK")
        except (EOFError, ConnectionError):
            return False

    def test_anIdleBridgeIsClosed(self) -> None:
        """Silence ends it after `bridge_idle`; one byte now and then keeps it."""
        self.proxy.config["server"]["bridge_idle"] = "2s"
        self.proxy.start()
        started = time.monotonic()
        silent, busy = self.loggedIn(ALICE), self.loggedIn(ALICE, "imap")
        silent.socket.settimeout(0.1)
        ended = None
        while ended is None and time.monotonic() < started + 20:
            busy.send(b"x\r\n")
            self.assertEqual(busy.readLine(), b"* echo x")
            ended = _endWithin(silent)
        self.assertTrue(ended)
        self.assertGreater(time.monotonic() - started, 1.9)
        silent.close()
        self.proxy.log.waitForLine(r"bridged \(idle\)")
        busy.send(b"y\r\n")
        self.assertEqual(busy.readLine(), b"* echo y")

    def test_bothFamiliesOnOnePort(self) -> None:
        """IPv4 and IPv6, on loopback and on wildcard addresses, each a socket of its own."""
        if not _hasIPv6():
            raise SkipTest("this machine has no IPv6 loopback address")
        ports = freePort(), freePort()
        listeners = self.proxy.config["listener"]
        listeners["imaps"]["bind"] = [f"127.0.0.1:{ports[0]}", f"[::1]:{ports[0]}"]
        listeners["imap"]["bind"] = [f"[::]:{ports[1]}", f"0.0.0.0:{ports[1]}"]
        self.proxy.start()
        for host in ("127.0.0.1", "::1"):
            for name in ("imaps", "imap"):
                client = self.loggedIn(ALICE, name, host=host)
                client.send(b"hello\r\n")
                self.assertEqual(client.readLine(), b"* echo hello")
        clients = {each["client"].rpartition(":")[0] for each in self.connections()}
        self.assertEqual(clients, {"127.0.0.1", "[::1]"})

    def test_aWildcardListenerIsNoBackend(self) -> None:
        """Any address of this machine with its port is ourselves."""
        port = freePort()
        self.proxy.config["listener"]["imap"]["bind"] = [f"0.0.0.0:{port}"]
        self.proxy.config["destination"]["good"] = {
            **destination(port, "localhost"),
            "host": "127.0.0.99",
        }
        self.proxy.start()
        self.assertUnavailable(self.logIn(self.greeted(), ALICE))
        self.proxy.log.waitForLine("unavailable.*loop: ")


def _endWithin(client: LineClient) -> bool | None:
    """Whether the connection has ended; None when it still lives."""
    try:
        return client.atEnd()
    except TimeoutError:
        return None


def _hasIPv6() -> bool:
    return "00000000000000000000000000000001" in Path("/proc/net/if_inet6").read_text("ascii")
