"""Backends that fail in every way: the client is told that it is nobody's fault, and no secret
goes astray."""

from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, ClassVar

from tests.integration.accounts import ALICE, at
from tests.integration.certificates import Authority, CertificateFiles, pinOf, serverContext
from tests.integration.faults import AT_LOGIN, BEFORE_LOGIN, WITHOUT_STARTTLS, afterSTARTTLS
from tests.integration.front import ProxyTestCase, Table, destination, settings, standardListeners
from tests.integration.scripted import Script, ScriptedServer, answering, wellBehaved
from tests.integration.wire import base64Of, oauthBearer, plain


class BackendFaultTests(ProxyTestCase):
    """One proxy with short patience; each account lives on a backend with a fault of its own."""

    servers: ClassVar[dict[str, ScriptedServer]]

    @classmethod
    def startServers(cls, stack: ExitStack) -> None:
        """All backends; those with a certificate that is no good speak well otherwise."""
        cls.makeAuthority(stack)
        cls.keepSecret(ALICE)
        cls.servers = {}
        destinations = cls.standard(stack) | cls.secured(stack)
        config = settings(cls.authority, standardListeners(), destinations)
        config["server"] |= {
            "backend_timeout": "1s",
            "backend_auth_timeout": "1s",
            "host_down_threshold": 0,
        }
        cls.startProxy(stack, config, {at(name).name: name for name in destinations})

    @classmethod
    def standard(cls, stack: ExitStack) -> dict[str, Table]:
        """The backends without TLS, and those that are to be upgraded."""
        tables = {}
        refusing = answering([b"NO [AUTHENTICATIONFAILED] Own words"] * 3)
        later = answering([b"NO [UNAVAILABLE] Later, please"] * 3)
        plain = {**BEFORE_LOGIN, **AT_LOGIN, "good": wellBehaved}
        for name, script in {**plain, "words": refusing, "later": later}.items():
            port = cls.script(stack, name, script).port
            tables[name] = destination(port, "localhost", "plain", allow_plaintext_auth=True)
        for name, of in (("hiddenwords", "words"), ("hiddenlater", "later")):
            tables[name] = {**tables[of], "hide_auth_errors": True}
        upgrade = serverContext(cls.authority.issue("good.test"))
        for name, script in {**WITHOUT_STARTTLS, "upgraded": afterSTARTTLS(b"")}.items():
            able = upgrade if name in ("injected", "upgraded") else None
            port = cls.script(stack, name, script, upgrade=able).port
            tables[name] = destination(port, "good.test", "starttls")
        return tables

    @classmethod
    def script(cls, stack: ExitStack, name: str, script: Script, **more: Any) -> ScriptedServer:
        """Start a backend."""
        cls.servers[name] = stack.enter_context(ScriptedServer(script, **more))
        return cls.servers[name]

    @classmethod
    def secured(cls, stack: ExitStack) -> dict[str, Table]:
        """The backends that speak TLS."""
        past = datetime.now(UTC) - timedelta(days=1)
        good = cls.authority.issue("good.test")
        foreign = Authority.temporary(stack).issue("good.test")
        certificates: dict[str, CertificateFiles] = {
            "certgood": good,
            "certname": cls.authority.issue("other.test"),
            "certexpired": cls.authority.issue("late.test", "good.test", expires=past),
            "certforeign": foreign,
            "certpinned": foreign,
            "certmispinned": good,
        }
        tables = {}
        for name, files in certificates.items():
            port = cls.script(stack, name, wellBehaved, context=serverContext(files)).port
            tables[name] = destination(port, "good.test")
        tables["certpinned"]["tls_pinned_cert_sha256"] = pinOf(foreign.cert)
        tables["certmispinned"]["tls_pinned_cert_sha256"] = pinOf(foreign.cert)
        for name in ("silence", "http", "closed", "reset"):
            tables[f"tls{name}"] = destination(cls.servers[name].port, "good.test")
        return tables

    def assertAllUnavailable(self, *names: str) -> None:
        """Logins to each get the temporary failure, a good-bye and the end; all wait at once."""
        waiting = {name: self.sendLogin(at(name)) for name in names}
        for name, client in waiting.items():
            reply = client.readUntil(b"l ")
            self.assertEqual(len(reply), 1, name)
            self.assertUnavailable(reply)
            self.assertRegex(client.readLine(), rb"\A\* BYE \[UNAVAILABLE\] ", name)
            self.assertTrue(client.atEnd(), name)

    def assertReceivedNoSecret(self, *names: str) -> None:
        """Nothing of the password came to these backends."""
        for name in names:
            received = bytes(self.servers[name].received)
            self.assertNotIn(ALICE.password, received)
            self.assertNotIn(base64Of(plain(at(name).name, ALICE.password)), received)
            self.assertNotIn(b"AUTHENTICATE", received)

    # No answer that can be used

    def test_aBackendThatFailsBeforeTheLogin(self) -> None:
        """Silence, resets, half and endless lines, strange greetings: unavailable, in time."""
        self.assertAllUnavailable(*BEFORE_LOGIN)
        self.assertReceivedNoSecret(*BEFORE_LOGIN)

    def test_aBackendThatFailsAtTheLogin(self) -> None:
        """It may have acted on the login, so it is asked only once; and nobody was refused."""
        before = {name: self.servers[name].connections for name in AT_LOGIN}
        self.assertAllUnavailable(*AT_LOGIN)
        after = {name: self.servers[name].connections for name in AT_LOGIN}
        self.assertEqual(after, {name: count + 1 for name, count in before.items()})

    def test_aBackendThatFailsAfterTheLogin(self) -> None:
        """The client is let in before the bridge ends; then its connection ends too."""
        client = self.sendLogin(at("good"))
        self.assertOK(client.readUntil(b"l "))
        client.send(b"hello\r\n")
        self.assertEqual(client.readLine(), b"* echo hello")

    # TLS that must be there

    def test_noSecretWithoutTheUpgrade(self) -> None:
        """STARTTLS not offered, refused, with bytes behind its OK, or without a handshake."""
        self.assertAllUnavailable(*WITHOUT_STARTTLS)
        self.assertReceivedNoSecret(*WITHOUT_STARTTLS)
        self.assertOK(self.sendLogin(at("upgraded")).readUntil(b"l "))

    def test_injectedBytesAreNamedInTheLog(self) -> None:
        """Whoever looks into it finds what was wrong."""
        mark = self.proxy.log.mark()
        self.assertAllUnavailable("injected")
        self.proxy.log.waitForLine("bytes before the TLS handshake", since=mark)

    def test_aCertificateMustBeTheDestinations(self) -> None:
        """Wrong name, expired, from a foreign authority, not the one that is pinned."""
        bad = ("certname", "certexpired", "certforeign", "certmispinned")
        self.assertAllUnavailable(*bad)
        self.assertReceivedNoSecret(*bad)
        for name in ("certgood", "certpinned"):
            self.assertOK(self.sendLogin(at(name)).readUntil(b"l "))

    def test_theLogTellsWhatIsWrongWithACertificate(self) -> None:
        """Each cause in words that an operator can act on."""
        for name, words in (
            ("certname", "other.test"),
            ("certexpired", "expired"),
            ("certforeign", "trusted"),
            ("certmispinned", "pin"),
            ("tlshttp", "TLS|tls"),
        ):
            mark = self.proxy.log.mark()
            self.assertAllUnavailable(name)
            line = self.proxy.log.waitForLine("unavailable", since=mark)
            self.assertRegex(line, rf"unavailable \(tls: .*({words})")

    def test_aBackendThatSpeaksNoTLS(self) -> None:
        """A TLS endpoint that is silent, closes or speaks in the clear."""
        names = ("silence", "http", "closed", "reset")
        self.assertAllUnavailable(*(f"tls{name}" for name in names))
        self.assertReceivedNoSecret(*names)

    # Refusals

    def test_theBackendsOwnWordsAreVerbatimOrHidden(self) -> None:
        """The refusal arrives as it was said, or as ours; a temporary one stays temporary."""
        for name, words in (
            ("words", b"l NO [AUTHENTICATIONFAILED] Own words"),
            ("later", b"l NO [UNAVAILABLE] Later, please"),
            ("hiddenwords", b"l NO [AUTHENTICATIONFAILED] Authentication failed."),
            ("hiddenlater", b"l NO [UNAVAILABLE] Temporarily unavailable, try again later."),
        ):
            client = self.sendLogin(at(name))
            self.assertEqual(client.readUntil(b"l "), [words])
            self.assertOK(self.logIn(client, at("good")))

    def test_aMechanismThatTheBackendLacks(self) -> None:
        """A token for a backend that takes passwords alone is no authentication error."""
        client = self.greeted()
        sent = base64Of(oauthBearer(at("good").name, "a-token-that-nobody-wants"))
        self.secrets.add(b"a-token-that-nobody-wants")
        self.assertUnavailable(client.command(b"a AUTHENTICATE OAUTHBEARER " + sent))

    # Clients that leave meanwhile

    def test_aClientThatLeavesTakesItsBackendWithIt(self) -> None:
        """While we dial, while we wait for the answer, and bridged."""
        for name in ("silence", "tlssilence", "loginsilent", "good"):
            mark = self.proxy.log.mark()
            client = self.sendLogin(at(name))
            address = "{}:{}".format(*client.socket.getsockname())
            found = partial(self.sessionsOn, name, address)
            self.assertEventually(found, f"no session on {name}")
            client.reset()
            line = self.proxy.log.waitForLine(f"from {address}: .* on {name}, ", since=mark)
            self.assertRegex(line, r"client_gone \(|bridged \(client closed\)")
            self.assertEqual(found(), [])
            self.assertEventually(partial(self.backendIsLeft, name), f"{name} is held")

    def sessionsOn(self, name: str, address: str) -> list[Table]:
        """The live sessions of the client at that address on a backend."""
        return [each for each in self.connections(destination=name) if each["client"] == address]

    def backendIsLeft(self, name: str) -> bool:
        """Whether nobody is connected to a backend."""
        return self.servers[name.removeprefix("tls")].active == 0

    def tearDown(self) -> None:
        """No script has met a mistake of its own."""
        for name, server in self.servers.items():
            self.assertEqual(server.failures, [], name)
