"""Each symptom of the troubleshooting page is provoked, and what the page promises is seen."""

import errno
import re
import socket
from pathlib import Path
from typing import Any

from attrs import evolve
from twisted.internet.error import ConnectionRefusedError
from twisted.logger import LogLevel
from twisted.trial.unittest import SynchronousTestCase

from mailproxy.config import warnings
from mailproxy.config.bind import SocketAddress
from mailproxy.errors import ConfigError
from mailproxy.management.api import CALLS
from mailproxy.mapping.plugins import makePluginSource
from mailproxy.origin import Address
from mailproxy.protocols.client import ClientSettings
from mailproxy.sockets import bindSockets
from mailproxy.tls.contexts import KeyPair
from tests.config.support import MAIN, ConfigTestCase, changed
from tests.dialling import Backend
from tests.http.support import GET, POST, HTTPCase, rules
from tests.stage import LOGIN, OLD_HOST, Scene, StageCase
from tests.test_control import ControlCase
from tests.tls.handshake import OtherEnd
from tests.tls.test_backend import (
    BackendCase,
    authority,
    backendTLS,
    issued,
    server,
    strangers,
)

PAGE = " ".join((Path(__file__).parents[1] / "docs/troubleshooting.rst").read_text().split())
"""The page, on one line."""


class PageCase(SynchronousTestCase):
    """Tests of what the page promises."""

    def assertPromised(self, words: str, *seen: str) -> None:
        """The page has these words as something to be seen, and they are seen in each text.

        `...` in the page's words stands for what differs.
        """
        self.assertTrue(re.search(f"``[^`]*{re.escape(words)}", PAGE), f"not in the page: {words}")
        pattern = ".*".join(re.escape(part) for part in words.split("..."))
        for text in seen:
            self.assertRegex(text, pattern)

    def assertCall(self, method: str, path: str) -> None:
        """The page names a call, and there is one."""
        self.assertIn(f"``{method} {path}", PAGE)
        self.assertIn((method, path), {(call.method, call.path) for call in CALLS})


class StartTests(PageCase, ConfigTestCase):
    """The proxy does not start."""

    def problem(self, *changes: tuple[str, str], extra: str = "") -> str:
        """What is said of a changed configuration."""
        return "\n".join(self.problems(changed(*changes, extra=extra)))

    def test_undeclaredDefault(self) -> None:
        """A typing error in its name."""
        found = self.problem(('default_destination = "old"', 'default_destination = "odl"'))
        self.assertPromised('routing.default_destination: destination "..." is not declared', found)
        self.assertIn("declared are: old", found)

    def test_defaultLacksAProtocol(self) -> None:
        """A listener whose protocol it does not declare."""
        pop3 = '\n[listener.p]\nprotocol = "pop3"\nbind = ["127.0.0.1:995"]\ntls = "implicit"\n'
        found = self.problem(extra=pop3)
        self.assertPromised('the default destination "..." does not declare pop3', found)
        self.assertIn("[destination.old.protocol.pop3]", found)

    def test_plainCredentials(self) -> None:
        """An endpoint without TLS; the key that the page names lets it pass."""
        plain = ('port = 993, tls = "implicit"', 'port = 143, tls = "plain"')
        self.assertPromised("plain would send credentials unencrypted", self.problem(plain))
        allowed = ('host = "old.', 'allow_plaintext_auth = true\nhost = "old.')
        self.load(changed(plain, allowed))

    def test_addressWithoutAName(self) -> None:
        """TLS to an IP address."""
        found = self.problem(('host = "old.example.com"', 'host = "192.0.2.1"'))
        self.assertPromised("tls_server_name: missing; host is the IP address", found)

    def test_passThroughWithStartTLS(self) -> None:
        """On a listener."""
        mx = '\n[listener.mx]\nprotocol = "smtp"\nbind = ["127.0.0.1:25"]\ntls = "starttls"\n'
        self.assertPromised("starttls cannot be used with smtp", self.problem(extra=mx))

    def test_sourceWithoutItsTable(self) -> None:
        """Redis is chosen, and nothing says where it is."""
        found = self.problem(('source = "file"', 'source = "redis"'))
        self.assertPromised("mapping.redis: missing", found)

    def test_missingPlugin(self) -> None:
        """A source that nobody has installed."""
        error = self.assertRaises(ConfigError, makePluginSource, "mine", {}, None)
        self.assertPromised('there is no mapping plugin "..."', str(error))
        self.assertIn("installed are: ", str(error))

    def test_mappingToNowhere(self) -> None:
        """A destination that is not declared, by file and line."""
        self.write("accounts", "anna odl\n")
        self.assertPromised('accounts:1: destination "..." is not declared', self.problem())

    def test_portIsTaken(self) -> None:
        """By somebody who listens there."""
        with socket.create_server(("127.0.0.1", 0)) as other:
            place = SocketAddress("127.0.0.1", other.getsockname()[1])
            error = self.assertRaises(
                ConfigError, bindSockets, None, [("listener.imaps.bind", place)], set()
            )
        self.assertPromised("address already in use", str(error))
        self.assertIn("listener.imaps.bind", str(error))


class DestinationTests(PageCase, ControlCase):
    """An account goes to the wrong destination."""

    def mapping(self, identifier: str) -> dict[str, Any]:
        """What `GET /mappings` says."""
        self.assertCall("GET", "/mappings")
        found: dict[str, Any] = self.successResultOf(self.control.mapping(identifier))
        for key in ("normalized", "destination", "routed_to_default", "cached"):
            self.assertIn(f"``{key}``", PAGE)
            self.assertIn(key, found)
        return found

    def test_rememberedAnswer(self) -> None:
        """The store has changed, the answer has not; the page's call mends it."""
        self.login("ann@example.org")
        self.source.table["ann@example.org"] = "old"
        found = self.mapping("ann@example.org")
        self.assertEqual((found["destination"], found["cached"]), ("new", True))
        self.assertCall("POST", "/cache/invalidate")
        self.successResultOf(self.control.invalidate("ann@example.org"))
        self.assertEqual(self.mapping("ann@example.org")["destination"], "old")

    def test_editedFile(self) -> None:
        """The page's call has the source read again, and forgets what it said."""
        self.login("ann@example.org")
        self.assertCall("POST", "/mappings/reload")
        self.successResultOf(self.control.reloadMappings())
        self.assertEqual(self.source.reloads, 1)
        self.assertFalse(self.mapping("ann@example.org")["cached"])

    def test_letterCase(self) -> None:
        """An entry in mixed case is never found; what is looked up is shown."""
        self.source.table["Eve@example.org"] = "new"
        found = self.mapping("Eve@Example.org")
        self.assertTrue(found["routed_to_default"])
        self.assertEqual(found["normalized"], "eve@example.org")
        self.assertIn('``normalize = "lowercase"``', PAGE)

    def test_masterUser(self) -> None:
        """A separator that is not configured leaves both names; the default one does not."""
        self.assertIn("``anna*admin``", PAGE)
        self.assertEqual(self.mapping("anna*admin")["normalized"], "anna*admin")
        self.assertEqual(self.mapping("anna%admin")["normalized"], "anna")


class UndeclaredTests(PageCase, StageCase):
    """The store names a destination that nobody knows."""

    def test_isSaidInTheLog(self) -> None:
        """As a warning, with both names."""
        stage = self.begin()
        stage.source.table["ann"] = "gone"
        stage.ask(stage.enter(), LOGIN)
        (line,) = self.logged(LogLevel.warn)
        self.assertPromised("which is not declared: the default is used", line)


class BackendTests(PageCase, StageCase):
    """A backend cannot be reached."""

    def fail_(self) -> bytes:
        """Let a login fail for a refused connection; returns what the client hears."""
        client = self.stage.enter()
        client.take()
        client.say(LOGIN)
        self.stage.network.pump()
        if self.stage.network.dialled and self.stage.network.call.open:
            self.stage.network.call.refuse(ConnectionRefusedError(errno.ECONNREFUSED))
            self.stage.network.pump()
        return bytes(client.take())

    def test_clientHearsThatItIsTemporary(self) -> None:
        """And the log has the stage and the cause."""
        self.begin()
        heard = self.fail_().decode()
        self.assertPromised("[UNAVAILABLE]", heard)
        self.assertNotIn("AUTHENTICATIONFAILED", heard)
        (line,) = self.ends()
        self.assertPromised("unavailable", line)
        self.assertPromised("connect: 203.0.113.1: Connection refused", line)

    def test_noAnswer(self) -> None:
        """The time is over."""
        stage = self.begin()
        stage.ask(stage.enter(), LOGIN)
        stage.answer(Backend(greeting=b""))
        stage.network.advance(10)
        self.assertPromised("timeout: not ready within 10 s", self.ends()[0])

    def test_downUntilItIsReset(self) -> None:
        """Refused at once, without a call, until the cool-down is over or somebody resets it."""
        stage = self.begin()
        for _ in range(3):
            self.fail_()
        (health,) = stage.health.report(["old"])
        self.assertTrue(health.down)
        self.assertEqual(health.consecutiveFailures, 3)
        for key in ("consecutive_failures", "down"):
            self.assertIn(f"``{key}``", PAGE)
        called = len(stage.network.dialled)
        self.fail_()
        self.assertEqual(len(stage.network.dialled), called)
        self.assertPromised("circuit open: old is down", self.ends()[-1])
        self.assertCall("GET", "/destinations")
        self.assertCall("POST", "/destinations/reset")
        stage.health.reset("old")
        self.fail_()
        self.assertEqual(len(stage.network.dialled), called + 1)

    def test_probeAfterTheCoolDown(self) -> None:
        """One login is let through."""
        stage = self.begin()
        for _ in range(3):
            self.fail_()
        called = len(stage.network.dialled)
        self.assertIn("``server.host_down_cooldown``", PAGE)
        stage.network.advance(30)
        self.fail_()
        self.assertEqual(len(stage.network.dialled), called + 1)


class BackendTLSTests(PageCase, BackendCase):
    """TLS fails on the backend's leg."""

    def test_untrusted(self) -> None:
        """A stranger's certificate, and one that vouches for itself."""
        stranger = server(certificate=strangers.issue_cert("mail.example.com"))
        self.assertPromised(
            "certificate verify failed: its issuer is not trusted here",
            self.assertRefused(backendTLS(), stranger),
        )
        own = OtherEnd(KeyPair.generate("mail.example.com").use)
        self.assertPromised("it is self-signed", self.assertRefused(backendTLS(), own))

    def test_otherName(self) -> None:
        """A sound certificate of another host."""
        other = server(certificate=authority.issue_cert("www.example.com"))
        self.assertPromised(
            "it is for 'www.example.com', not for mail.example.com",
            self.assertRefused(backendTLS(), other),
        )

    def test_commonNameOnly(self) -> None:
        """A certificate from when that was enough."""
        text = self.assertRefused(backendTLS(), OtherEnd(issued("mail.example.com").use))
        self.assertPromised("its common name 'mail.example.com' does not count", text)


class BackendStartTLSTests(PageCase, StageCase):
    """STARTTLS fails on the backend's leg."""

    def test_notOffered(self) -> None:
        """The session ends without a login having been sent."""
        settings = ClientSettings(
            context=backendTLS(), startTLS=True, cleartext=False, introduces=False
        )
        stage = self.begin(Scene(target={"settings": settings}))
        stage.ask(stage.enter(), LOGIN)
        backend = stage.answer(Backend())
        stage.network.advance(1)
        self.assertEqual([line for line in backend.commands if b"AUTH" in line], [])
        self.assertPromised("prepare: STARTTLS is not offered", self.ends()[0])

    def test_noTLSOnThatPort(self) -> None:
        """The backend greets in clear text where TLS is expected."""
        settings = ClientSettings(
            context=backendTLS(), startTLS=False, cleartext=False, introduces=False
        )
        stage = self.begin(Scene(target={"settings": settings}))
        stage.ask(stage.enter(), LOGIN)
        stage.answer(Backend())
        stage.network.advance(1)
        self.assertPromised("the peer does not speak TLS on this port", self.ends()[0])
        self.assertPromised("tls:", self.ends()[0])


class ClientTLSTests(PageCase, ConfigTestCase):
    """TLS fails on the client's leg."""

    NONE = ('[tls.certificate.main]\ncert = "main.pem"\nkey = "main.key"\n', "")

    def test_noCertificate(self) -> None:
        """The start says what clients will see."""
        (warning,) = warnings(self.load(changed(self.NONE)))
        self.assertPromised("clients are shown a self-signed one", warning)

    def test_noDefault(self) -> None:
        """Several certificates, and none for the other names; the page's key mends it."""
        self.write("other.pem", MAIN.leaf)
        self.write("other.key", MAIN.key)
        two = '\n[tls.certificate.other]\ncert = "other.pem"\nkey = "other.key"\n'
        (warning,) = warnings(self.load(changed(extra=two)))
        self.assertIn("are shown a self-signed one", " ".join(warning.split()))
        self.assertIn("``default = true``", PAGE)
        self.assertEqual(warnings(self.load(changed(extra=f"{two}default = true\n"))), [])


class BalancerTests(PageCase, StageCase):
    """Client addresses are those of the load balancer."""

    HEADER = b"PROXY TCP4 203.0.113.9 192.0.2.25 5000 143\r\n"

    def arrive(self, **listener: Any) -> str:
        """Let a balancer bring a client, which leaves; returns the session's line."""
        stage = self.begin(Scene(listener=listener))
        client = stage.enter()
        stage.ask(client, self.HEADER)
        client.hangUp()
        stage.network.pump()
        return self.ends()[-1]

    def test_withoutTheKeysItIsTheBalancer(self) -> None:
        """And with them the client."""
        self.assertIn("from 198.51.100.7:", self.arrive())
        for mode in ("optional", "required"):
            self.assertIn(f"``{mode}``", PAGE)
            line = self.arrive(proxy_protocol=mode, proxy_trusted=["198.51.100.0/24"])
            self.assertIn("from 203.0.113.9:5000", line)
        self.assertIn("``proxy_trusted``", PAGE)

    def test_fromAnywhereElseItIsNotBelieved(self) -> None:
        """Ignored where it is optional; where it is required the reason is in the log."""
        elsewhere = ["192.0.2.0/24"]
        line = self.arrive(proxy_protocol="optional", proxy_trusted=elsewhere)
        self.assertIn("from 198.51.100.7:", line)
        line = self.arrive(proxy_protocol="required", proxy_trusted=elsewhere)
        self.assertPromised("a PROXY header is required, and this peer is not trusted", line)


class LoopTests(PageCase, StageCase):
    """A routing loop is reported."""

    def test_ownListener(self) -> None:
        """The destination is an address of ours."""
        stage = self.begin()
        stage.runtime.resources.dialer._isOurs = Address(OLD_HOST, 143).__eq__
        stage.ask(stage.enter(), LOGIN)
        self.assertPromised("port 143 is our own listener", self.ends()[0])
        self.assertIn(f"loop: {OLD_HOST} port 143", self.ends()[0])

    def test_circle(self) -> None:
        """No hop is left."""
        stage = self.begin()
        stage.runtime = evolve(stage.runtime, ttl=1)
        stage.ask(stage.enter(), LOGIN)
        self.assertPromised(
            "loop: no hop is left: proxies send sessions in a circle", self.ends()[0]
        )
        self.assertIn("``server.proxy_ttl``", PAGE)


class RequestTests(PageCase, HTTPCase):
    """HTTP clients get an answer of the proxy's own."""

    def test_reasons(self) -> None:
        """Each is in the request's line."""
        for data, reason in (
            (b"GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", "a target that is not for the Host"),
            (GET.replace(b"GET /", b"GET /x"), "no route"),
            (GET, "the backend is silent"),
            (POST + b"Content-Length: 2\r\n\r\nx", "the client's body stopped"),
        ):
            client = self.open(rules({"match": "/", "destination": "old"}, idle=5.0))
            self.send(client, data)
            if self.stage.network.dialled:
                self.answer()
            self.stage.network.advance(5)
            self.assertPromised(reason, self.lines()[-1])
            self.leave(client)

    def test_malformedAnswer(self) -> None:
        """The reason says that it is the answer."""
        client = self.open()
        self.send(client)
        self.answer(b"nonsense\r\n\r\n")
        self.assertPromised("answer:", self.lines()[-1])
        self.leave(client)
