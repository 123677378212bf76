"""Tests for `mailproxy.tls.server`."""

from collections.abc import Sequence
from pathlib import Path

import trustme
from cryptography import x509
from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mailproxy.config.model import Certificate
from mailproxy.tls.contexts import dnsNames
from mailproxy.tls.server import ServerConnection, ServerTLS
from mailproxy.tls.spare import GENERATED, Spare
from tests.tls.handshake import Configure, Conversation, OtherEnd, entry, only, protocols

authority = trustme.CA()
leaves = {
    name: authority.issue_cert(name)
    for name in ("mail.example.com", "*.example.net", "example.org", "other.example")
}


def suites(tls12: bytes) -> Configure:
    """Offer these TLS 1.2 suites."""
    return lambda context: context.set_cipher_list(tls12)


def suites13(tls13: bytes) -> Configure:
    """Offer these TLS 1.3 suites."""
    return lambda context: context.set_tls13_ciphersuites(tls13)


def fingerprint(server: ServerTLS) -> bytes:
    """Tell the certificates of two servers apart."""
    certificate = ServerConnection(server.contextFor(None), ()).get_certificate()
    assert certificate is not None
    return bytes(certificate.digest("sha256"))


class ServerCase(SynchronousTestCase):
    """Builds servers and asks them for certificates."""

    def setUp(self) -> None:
        """Have a place for files."""
        self.directory = Path(self.mktemp())

    def entryFor(
        self, name: str, subjects: Sequence[str] | None = None, default: bool = False
    ) -> Certificate:
        """Write the table of one of the prepared certificates."""
        return entry(self.directory / name, leaves[name], subjects, default)

    def serving(self, *names: str, default: str = "") -> ServerTLS:
        """Build a server with these certificates."""
        entries = {name: self.entryFor(name, default=name == default) for name in names}
        return ServerTLS(entries, protocols())

    def shown(self, server: ServerTLS, serverName: bytes | None) -> str:
        """Ask for a name in a real handshake; give the name of the certificate that is shown."""
        conversation = Conversation(OtherEnd(serverName=serverName), server)
        self.assertTrue(conversation.agreed)
        certificate = conversation.client.connection.get_peer_certificate(as_cryptography=True)
        assert certificate is not None
        return dnsNames(certificate)[0]


class ChoiceTests(ServerCase):
    """Which certificate a client is shown."""

    def test_itMakesServerConnections(self) -> None:
        """Twisted takes it wherever it wants a server's connections made."""
        verifyObject(IOpenSSLServerConnectionCreator, self.serving("mail.example.com"))

    def test_theExactNameComesFirst(self) -> None:
        """A certificate with the very name is taken before its parent's."""
        entries = {
            "wild": self.entryFor("*.example.net", ["*.example.com"], default=True),
            "exact": self.entryFor("mail.example.com"),
        }
        server = ServerTLS(entries, protocols())
        self.assertEqual(self.shown(server, b"mail.example.com"), "mail.example.com")
        self.assertEqual(self.shown(server, b"imap.example.com"), "*.example.net")

    def test_aWildcardServesItsHosts(self) -> None:
        """`*.example.net` serves host.example.net, but neither its parent nor deeper names."""
        server = self.serving("*.example.net", "other.example", default="other.example")
        self.assertEqual(self.shown(server, b"host.example.net"), "*.example.net")
        self.assertEqual(self.shown(server, b"example.net"), "other.example")
        self.assertEqual(self.shown(server, b"a.host.example.net"), "other.example")

    def test_aParentServesItsHosts(self) -> None:
        """An entry `example.org` serves host.example.org too, but no deeper name."""
        server = self.serving("example.org", "other.example", default="other.example")
        self.assertEqual(self.shown(server, b"host.example.org"), "example.org")
        self.assertEqual(self.shown(server, b"example.org"), "example.org")
        self.assertEqual(self.shown(server, b"a.host.example.org"), "other.example")

    def test_aWildcardGoesBeforeAParent(self) -> None:
        """Of two entries for a host the wildcard is the closer one."""
        entries = {
            "parent": self.entryFor("example.org", ["example.net"]),
            "wild": self.entryFor("*.example.net"),
        }
        server = ServerTLS(entries, protocols())
        self.assertEqual(self.shown(server, b"host.example.net"), "*.example.net")
        self.assertEqual(self.shown(server, b"example.net"), "example.org")

    def test_theDefaultServesTheRest(self) -> None:
        """Other names, and clients that name none, get the default, also if it is not the first."""
        server = self.serving("mail.example.com", "other.example", default="other.example")
        for name in (b"elsewhere.example", b"com", b".", b"\xff\xfe", None):
            self.assertEqual(self.shown(server, name), "other.example")

    def test_aStarServesTheRest(self) -> None:
        """Without a default the certificate whose subject is `*` is one."""
        entries = {
            "first": self.entryFor("mail.example.com"),
            "star": self.entryFor("other.example", ["*"]),
        }
        self.assertEqual(self.shown(ServerTLS(entries, protocols()), b"x.y"), "other.example")

    def test_aDefaultGoesBeforeAStar(self) -> None:
        """`default` is the stronger word."""
        entries = {
            "star": self.entryFor("other.example", ["*"]),
            "default": self.entryFor("mail.example.com", default=True),
        }
        self.assertEqual(self.shown(ServerTLS(entries, protocols()), None), "mail.example.com")

    def test_aSingleCertificateServesAll(self) -> None:
        """The only certificate is shown whatever the name."""
        server = self.serving("mail.example.com")
        for name in (b"mail.example.com", b"elsewhere.example", None):
            self.assertEqual(self.shown(server, name), "mail.example.com")

    def test_withoutADefaultItIsSelfSigned(self) -> None:
        """Where nothing fits, a generated certificate is shown."""
        server = self.serving("mail.example.com", "other.example")
        self.assertEqual(self.shown(server, b"elsewhere.example"), GENERATED)
        self.assertEqual(self.shown(server, None), GENERATED)
        self.assertEqual(self.shown(server, b"mail.example.com"), "mail.example.com")

    def test_withoutAnyCertificateItIsSelfSigned(self) -> None:
        """A proxy without certificates still speaks TLS."""
        self.assertEqual(self.shown(self.serving(), b"mail.example.com"), GENERATED)

    def test_theGeneratedOneIsKept(self) -> None:
        """Whoever is built with the same spare shows the same: a reload changes nothing."""
        spare = Spare()
        self.assertIsNone(spare.written())
        servers = [ServerTLS({}, protocols(), spare=spare) for _ in range(2)]
        other = ServerTLS({}, protocols())
        shown = [fingerprint(each) for each in (*servers, other)]
        self.assertEqual(shown[0], shown[1])
        self.assertNotEqual(shown[0], shown[2])

    def test_caseAndTrailingDotDoNotMatter(self) -> None:
        """Names are compared as DNS does."""
        entries = {
            "first": self.entryFor("mail.example.com", ["MAIL.Example.COM"]),
            "second": self.entryFor("other.example", default=True),
        }
        server = ServerTLS(entries, protocols())
        for name in (b"mail.example.com", b"Mail.EXAMPLE.com", b"mail.example.com."):
            self.assertEqual(self.shown(server, name), "mail.example.com")

    def test_subjectsReplaceTheCertificatesNames(self) -> None:
        """With `subjects` the names in the certificate do not count."""
        entries = {
            "first": self.entryFor("mail.example.com", ["imap.example.com"]),
            "second": self.entryFor("other.example", default=True),
        }
        server = ServerTLS(entries, protocols())
        self.assertEqual(self.shown(server, b"imap.example.com"), "mail.example.com")
        self.assertEqual(self.shown(server, b"mail.example.com"), "other.example")

    def test_theFirstOfTwoKeepsAName(self) -> None:
        """Of two certificates for one name the first is shown, and the second is warned of."""
        entries = {
            "first": self.entryFor("mail.example.com"),
            "second": self.entryFor("other.example", ["mail.example.com"], default=True),
        }
        server = ServerTLS(entries, protocols())
        self.assertEqual(self.shown(server, b"mail.example.com"), "mail.example.com")
        self.assertEqual(
            server.warnings,
            ["tls.certificate.second: mail.example.com is served by an earlier certificate"],
        )

    def test_theChainIsSent(self) -> None:
        """A client that knows only the root can verify, also behind a switch of certificates."""
        child = authority.create_child_ca()
        entries = {
            "deep": entry(self.directory / "deep", child.issue_cert("deep.example.com")),
            "plain": self.entryFor("other.example", default=True),
        }
        client = OtherEnd(
            authority.configure_trust,
            lambda context: context.set_verify(SSL.VERIFY_PEER),
            serverName=b"deep.example.com",
        )
        self.assertTrue(Conversation(client, ServerTLS(entries, protocols())).agreed)

    def test_contextsAreBuiltOnce(self) -> None:
        """Each connection, and each name, gets the same context again."""
        server = self.serving("mail.example.com", "other.example", default="other.example")
        used = set()
        for name in (b"mail.example.com", b"MAIL.example.com", b"other.example", None, None):
            conversation = Conversation(OtherEnd(serverName=name), server)
            used.add(id(conversation.server.connection.get_context()))
        self.assertEqual(len(used), 2)
        self.assertIs(
            server.contextFor(b"x.mail.example.com"), server.contextFor(b"mail.example.com")
        )

    def test_expiryIsKnown(self) -> None:
        """Each configured certificate's end can be watched."""
        server = self.serving("mail.example.com", "other.example")
        leaf = x509.load_pem_x509_certificate(leaves["other.example"].cert_chain_pems[0].bytes())
        self.assertEqual(set(server.expiries), {"mail.example.com", "other.example"})
        self.assertEqual(server.expiries["other.example"], leaf.not_valid_after_utc)


class TermsTests(ServerCase):
    """On what terms a client is served."""

    def server(self, *alpn: bytes, **table: object) -> ServerTLS:
        """Build a server with one certificate and this `[tls.protocols]` table."""
        entries = {"mail": self.entryFor("mail.example.com")}
        return ServerTLS(entries, protocols(**table), alpn)  # type: ignore[arg-type]

    def cipher(self, server: ServerTLS, *configure: Configure) -> str | None:
        """The suite that a client so configured ends up with; None: the handshake fails."""
        conversation = Conversation(OtherEnd(*configure), server)
        agreed = conversation.agreed
        return conversation.client.connection.get_cipher_name() if agreed else None

    def test_oldVersionsAreRefused(self) -> None:
        """By default TLS 1.2 is the oldest; with `min_version` 1.3 that is refused as well."""
        older = only(SSL.TLS1_1_VERSION), suites(b"ALL:@SECLEVEL=0")
        willing = OtherEnd(leaves["mail.example.com"].configure_cert, *older)
        self.assertTrue(Conversation(OtherEnd(*older), willing).agreed)
        self.assertIsNone(self.cipher(self.server(), *older))
        self.assertIsNotNone(self.cipher(self.server(), only(SSL.TLS1_2_VERSION)))
        self.assertIsNone(self.cipher(self.server(version="1.3"), only(SSL.TLS1_2_VERSION)))
        self.assertIsNotNone(self.cipher(self.server(version="1.3"), only(SSL.TLS1_3_VERSION)))

    def test_aRemovedTLS13SuiteIsNotAgreedOn(self) -> None:
        """A client that has only a removed suite fails; one that has another gets that."""
        server = self.server(disabled=["TLS_AES_256_GCM_SHA384"])
        one = only(SSL.TLS1_3_VERSION)
        self.assertEqual(self.cipher(server, one), "TLS_CHACHA20_POLY1305_SHA256")
        self.assertIsNone(self.cipher(server, one, suites13(b"TLS_AES_256_GCM_SHA384")))
        self.assertIsNotNone(self.cipher(self.server(), one, suites13(b"TLS_AES_256_GCM_SHA384")))

    def test_aRemovedTLS12SuiteIsNotAgreedOn(self) -> None:
        """The same holds in TLS 1.2."""
        server = self.server(disabled=["TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"])
        one, wanted = only(SSL.TLS1_2_VERSION), suites(b"ECDHE-ECDSA-AES128-GCM-SHA256")
        self.assertIsNone(self.cipher(server, one, wanted))
        self.assertEqual(self.cipher(self.server(), one, wanted), "ECDHE-ECDSA-AES128-GCM-SHA256")

    def test_withoutTLS13SuitesItIsNotSpoken(self) -> None:
        """When all of TLS 1.3 is removed, such a client falls back or fails."""
        disabled = [
            "TLS_AES_256_GCM_SHA384",
            "TLS_CHACHA20_POLY1305_SHA256",
            "TLS_AES_128_GCM_SHA256",
        ]
        server = self.server(disabled=disabled)
        self.assertIn("ECDHE", str(self.cipher(server)))
        self.assertIsNone(self.cipher(server, only(SSL.TLS1_3_VERSION)))

    def test_suitesWithoutForwardSecrecyAreNotOffered(self) -> None:
        """A key that is lost later opens no recorded session."""
        leaf = authority.issue_cert("rsa.example.com", key_type=trustme.KeyType.RSA)
        server = ServerTLS({"rsa": entry(self.directory / "rsa", leaf)}, protocols())
        one = only(SSL.TLS1_2_VERSION)
        self.assertIsNone(self.cipher(server, one, suites(b"AES128-GCM-SHA256")))
        self.assertIsNotNone(self.cipher(server, one, suites(b"ECDHE-RSA-AES128-GCM-SHA256")))

    def test_theClientsOrderHoldsUnlessIgnored(self) -> None:
        """The client's first suite is taken; with `ignore_client_order` it is ours."""
        reverse = (
            only(SSL.TLS1_2_VERSION),
            suites(b"ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384"),
        )
        self.assertEqual(self.cipher(self.server(), *reverse), "ECDHE-ECDSA-AES128-GCM-SHA256")
        self.assertEqual(
            self.cipher(self.server(ignoreClientOrder=True), *reverse),
            "ECDHE-ECDSA-AES256-GCM-SHA384",
        )

    def test_groupsAreThoseConfigured(self) -> None:
        """A group that is not in the list is not agreed on; without a list it is OpenSSL's own."""
        conversation = Conversation(OtherEnd(), self.server(groups=["secp384r1"]))
        self.assertEqual(conversation.client.connection.get_group_name(), "secp384r1")
        conversation = Conversation(OtherEnd(), self.server())
        self.assertEqual(conversation.client.connection.get_group_name(), "X25519MLKEM768")

    def test_applicationProtocolsAreAgreedOnOnlyIfAsked(self) -> None:
        """ALPN is answered with our best common name; with none in common it is left out."""

        def offer(context: SSL.Context) -> None:
            context.set_alpn_protos([b"h2", b"http/1.1"])

        for alpn, agreed in (((b"http/1.1",), b"http/1.1"), ((b"imap",), b""), ((), b"")):
            conversation = Conversation(OtherEnd(offer), self.server(*alpn))
            self.assertTrue(conversation.agreed)
            self.assertEqual(conversation.client.connection.get_alpn_proto_negotiated(), agreed)

    def test_listenersShareCertificatesAndAgreeOnTheirOwn(self) -> None:
        """Application protocols belong to the listener, contexts to all."""

        def offer(context: SSL.Context) -> None:
            context.set_alpn_protos([b"imap", b"http/1.1"])

        mail = self.server(b"imap")
        web = mail.offering((b"http/1.1",))
        self.assertIs(web.contextFor(b"a.example"), mail.contextFor(b"a.example"))
        for server, agreed in ((web, b"http/1.1"), (mail, b"imap")):
            conversation = Conversation(OtherEnd(offer), server)
            self.assertEqual(conversation.client.connection.get_alpn_proto_negotiated(), agreed)

    def test_clientsResumeTheirSessions(self) -> None:
        """A ticket saves a returning client the full handshake, in both versions."""
        server = self.serving("mail.example.com", "other.example", default="other.example")
        for version in (SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION):
            client = OtherEnd(only(version), serverName=b"mail.example.com")
            first = Conversation(client, server)
            client.session = first.client.connection.get_session()
            second = Conversation(client, server)
            self.assertTrue(second.agreed)
            self.assertLess(second.server.sent, first.server.sent - 300)

    def test_anotherProcessServesInFull(self) -> None:
        """Each makes its own ticket keys: what it cannot read costs a handshake, nothing else."""
        names = ("mail.example.com", "other.example")
        one, other = (self.serving(*names, default="other.example") for _ in range(2))
        for version in (SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION):
            client = OtherEnd(only(version), serverName=b"mail.example.com")
            first = Conversation(client, one)
            client.session = first.client.connection.get_session()
            second = Conversation(client, other)
            self.assertTrue(second.agreed)
            self.assertGreater(second.server.sent, first.server.sent - 300)

    def test_renegotiationIsRefused(self) -> None:
        """A TLS 1.2 client that asks for a new handshake gets none, and hurts nobody."""
        server = self.server()
        conversation = Conversation(OtherEnd(only(SSL.TLS1_2_VERSION)), server)
        connection = conversation.client.connection
        connection.renegotiate()
        self.assertRaises(SSL.WantReadError, connection.do_handshake)
        conversation.client.tls._flushSendBIO()
        conversation.pump()
        self.assertEqual(conversation.server.connection.total_renegotiations(), 0)
        self.assertEqual(conversation.server.application.received, b"from client;")
        self.assertTrue(Conversation(OtherEnd(), server).agreed)

    def test_garbageIsNoHandshake(self) -> None:
        """A client that does not speak TLS is hung up on and nothing reaches the application."""
        for garbage in (b"GET / HTTP/1.1\r\n\r\n", b"a LOGIN anna secret\r\n", bytes(200)):
            conversation = Conversation(OtherEnd(), self.server())
            fresh = type(conversation.server)(self.server(), False, conversation.clock)
            fresh.tls.dataReceived(garbage)
            self.assertTrue(fresh.wire.disconnecting)
            self.assertEqual(fresh.application.received, b"")
            self.assertFalse(fresh.application.shaken)
