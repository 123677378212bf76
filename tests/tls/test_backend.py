"""Tests for `mailproxy.tls.backend`."""

import datetime
import gc
import os
import time
from collections.abc import Callable
from pathlib import Path

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from OpenSSL import SSL
from OpenSSL.crypto import X509
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator, ISystemHandle
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from mailproxy import openssl
from mailproxy.config.model import Destination
from mailproxy.errors import ConfigError
from mailproxy.tls import backend
from mailproxy.tls.backend import RESUMABLE, BackendConnection, BackendOptions, BackendTLS
from mailproxy.tls.contexts import KeyPair
from mailproxy.tls.failures import CertificateRefused, describe
from tests.tls.handshake import Configure, Conversation, OtherEnd, only, protocols

authority = trustme.CA()
strangers = trustme.CA()
leaf = authority.issue_cert("mail.example.com")
VERSIONS = (SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION)


def root(ca: trustme.CA) -> x509.Certificate:
    """Read an authority's own certificate."""
    return x509.load_pem_x509_certificate(ca.cert_pem.bytes())


def fingerprint(certificate: trustme.LeafCert) -> bytes:
    """The pin of a certificate."""
    return x509.load_pem_x509_certificate(certificate.cert_chain_pems[0].bytes()).fingerprint(
        SHA256()
    )


def reusedByOpenSSL(connection: SSL.Connection) -> bool:
    """What OpenSSL itself says of a connection's session."""
    private = vars(connection)["_ssl"]
    return bool(vars(SSL)["_lib"].SSL_session_reused(private))


def backendTLS(
    name: str = "mail.example.com",
    pin: bytes | None = None,
    allowInvalid: bool = False,
    clientCertificate: KeyPair | None = None,
    trusted: trustme.CA | None = authority,
    clock: Callable[[], float] = time.monotonic,
) -> BackendTLS:
    """Build a destination's creator that trusts the test authority."""
    authorities = () if trusted is None else (root(trusted),)
    return BackendTLS(
        BackendOptions(name, protocols(), pin, allowInvalid, clientCertificate, authorities),
        clock,
    )


def server(*configure: Configure, certificate: trustme.LeafCert = leaf) -> OtherEnd:
    """A backend with a certificate."""
    return OtherEnd(certificate.configure_cert, *configure)


ALTERNATIVE_NAMES = x509.ObjectIdentifier("2.5.29.17")


def raiser(error: Exception) -> Callable[[object], None]:
    """A check that always raises this."""

    def check(_: object) -> None:
        raise error

    return check


def selfSigned(extension: x509.ExtensionType) -> x509.Certificate:
    """A certificate with an extension that no honest authority signs."""
    key = ec.generate_private_key(ec.SECP256R1())
    pair = KeyPair.generate("evil.example").certificate
    builder = x509.CertificateBuilder(pair.issuer, pair.subject, key.public_key(), 1)
    lasting = builder.not_valid_before(pair.not_valid_before_utc).not_valid_after(
        pair.not_valid_after_utc
    )
    return lasting.add_extension(extension, critical=False).sign(key, SHA256())


def issued(commonName: str, *extensions: x509.ExtensionType) -> KeyPair:
    """A certificate of the test authority's with just these extensions, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    signing = serialization.load_pem_private_key(authority.private_key_pem.bytes(), None)
    assert isinstance(signing, ec.EllipticCurvePrivateKey)
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, commonName)])
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder(root(authority).subject, subject, key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    return KeyPair(builder.sign(signing, SHA256()), (), key)


@implementer(ISystemHandle)
class Running:
    """A transport that has not yet noticed that its handshake failed."""

    def __init__(self, connection: SSL.Connection) -> None:
        self.connection = connection

    def getHandle(self) -> SSL.Connection:
        """Give the connection, as TLS transports do."""
        return self.connection


class BackendCase(SynchronousTestCase):
    """Talks to backends."""

    def assertAccepted(self, creator: BackendTLS, other: OtherEnd) -> Conversation:
        """The handshake succeeds and both sides hear each other."""
        conversation = Conversation(creator, other)
        self.assertTrue(conversation.agreed)
        return conversation

    def assertRefused(self, creator: BackendTLS, other: OtherEnd) -> str:
        """The handshake fails, not one byte passes, and the log line is given."""
        conversation = Conversation(creator, other)
        self.assertTrue(conversation.silent, "a byte of the application got through")
        self.assertFalse(conversation.client.application.shaken)
        lost = conversation.client.application.lost
        assert lost is not None
        creator.remember(conversation.client.tls)
        self.assertIsNone(creator._session, "a refused session was remembered")
        return describe(lost)


class VerificationTests(BackendCase):
    """Who is taken for the destination."""

    def test_itMakesClientConnections(self) -> None:
        """Twisted takes it wherever it wants a client's connections made."""
        verifyObject(IOpenSSLClientConnectionCreator, backendTLS())

    def test_aTrustedCertificateForTheNameIsAccepted(self) -> None:
        """A chain to a trusted root, for the very name, in both versions."""
        for version in VERSIONS:
            self.assertAccepted(backendTLS(), server(only(version)))

    def test_aWildcardCertificateIsAccepted(self) -> None:
        """A certificate for `*.example.com` is one for mail.example.com."""
        self.assertAccepted(backendTLS(), server(certificate=authority.issue_cert("*.example.com")))

    def test_aFinalDotDoesNotMatter(self) -> None:
        """An absolute host name is the same name."""
        conversation = self.assertAccepted(backendTLS("mail.example.com."), server())
        self.assertEqual(conversation.server.connection.get_servername(), b"mail.example.com")

    def test_aStrangersCertificateIsRefused(self) -> None:
        """A certificate of an authority that nobody trusts here is refused."""
        for version in VERSIONS:
            other = server(only(version), certificate=strangers.issue_cert("mail.example.com"))
            self.assertIn("its issuer is not trusted here", self.assertRefused(backendTLS(), other))

    def test_aSelfSignedCertificateIsRefused(self) -> None:
        """A certificate that vouches for itself is refused, and the line says so."""
        pair = KeyPair.generate("mail.example.com")
        self.assertIn("it is self-signed", self.assertRefused(backendTLS(), OtherEnd(pair.use)))

    def test_anotherNameIsRefused(self) -> None:
        """A sound certificate of another host is refused; the line names both."""
        for version in VERSIONS:
            other = server(
                only(version), certificate=authority.issue_cert("www.example.com", "a.example")
            )
            text = self.assertRefused(backendTLS(), other)
            self.assertIn(
                "it is for 'www.example.com', 'a.example', not for mail.example.com", text
            )

    def test_anExpiredCertificateIsRefused(self) -> None:
        """A certificate whose time is over is refused, and the line says so."""
        past = datetime.datetime(2020, 1, 1)
        other = authority.issue_cert(
            "mail.example.com", not_before=past, not_after=past + datetime.timedelta(days=1)
        )
        text = self.assertRefused(backendTLS(), server(certificate=other))
        self.assertIn("has expired", text)

    def test_aCommonNameIsNoName(self) -> None:
        """A certificate that has the host as common name only is refused (RFC 9525)."""
        other = authority.issue_cert("a.example", common_name="mail.example.com")
        self.assertIn(
            "not for mail.example.com", self.assertRefused(backendTLS(), server(certificate=other))
        )

    def test_aCommonNameAloneIsNoName(self) -> None:
        """The same without any other name, or any that a host can have; the line says why."""
        mail = x509.SubjectAlternativeName([x509.RFC822Name("root@mail.example.com")])
        for extensions in ((), (x509.SubjectAlternativeName([]),), (mail,)):
            pair = issued("mail.example.com", *extensions)
            for creator in (backendTLS(), backendTLS("192.0.2.1")):
                text = self.assertRefused(creator, OtherEnd(pair.use))
                self.assertIn(f"it is for no name, not for {creator._name}: its common name", text)
                self.assertIn("'mail.example.com' does not count", text)
                self.assertIn("it has no subject alternative name", text)

    def test_aCertificateOfAddressesNamesThem(self) -> None:
        """For who looks which address was meant, its common name is no hint."""
        certificate = authority.issue_cert("192.0.2.7", common_name="mail.example.com")
        text = self.assertRefused(backendTLS(), server(certificate=certificate))
        self.assertTrue(text.endswith("it is for '192.0.2.7', not for mail.example.com"), text)

    def test_aWildcardIsAWholeLabel(self) -> None:
        """`f*.example.test` is nobody's name (RFC 9525, section 6.3), nor is a star further in."""
        cases = (
            ("f*.example.test", "foo.example.test"),
            ("*o.example.test", "foo.example.test"),
            ("*.example.test", "a.foo.example.test"),
            ("foo.*.test", "foo.example.test"),
        )
        for pattern, name in cases:
            names = x509.SubjectAlternativeName([x509.DNSName(pattern)])
            pair = issued("own", names)
            text = self.assertRefused(backendTLS(name), OtherEnd(pair.use))
            self.assertIn(pattern, text)

    def test_aCheckedNameIsNotReadAgain(self) -> None:
        """Where OpenSSL looks at the name, nobody else parses the certificate."""
        creator = backendTLS()
        self.patch(creator, "judge", raiser(AssertionError("it was read")))
        if creator._nameIsChecked:
            self.assertAccepted(creator, server())

    def test_anAddressIsCheckedAndNotAskedFor(self) -> None:
        """For an IP address the certificate must name it, and no server name is sent (RFC 6066)."""
        for address in ("127.0.0.1", "::1"):
            certificate = authority.issue_cert(address)
            conversation = self.assertAccepted(backendTLS(address), server(certificate=certificate))
            self.assertIsNone(conversation.server.connection.get_servername())
            self.assertRefused(backendTLS("192.0.2.1"), server(certificate=certificate))
            self.assertRefused(backendTLS(address), server())

    def test_thePlatformsStoreIsTrusted(self) -> None:
        """Without authorities of our own, OpenSSL's default places count, SSL_CERT_FILE too."""
        self.assertRefused(backendTLS(trusted=None), server())
        path = Path(self.mktemp())
        path.write_bytes(authority.cert_pem.bytes())
        before = os.environ.get("SSL_CERT_FILE")
        os.environ["SSL_CERT_FILE"] = str(path)
        self.addCleanup(self.restore, before)
        self.assertAccepted(backendTLS(trusted=None), server())

    def restore(self, before: str | None) -> None:
        """Put the environment back."""
        del os.environ["SSL_CERT_FILE"]
        if before is not None:
            os.environ["SSL_CERT_FILE"] = before

    def test_anotherPinIsRefused(self) -> None:
        """A pin that does not fit refuses even a certificate that everybody trusts."""
        for version in VERSIONS:
            text = self.assertRefused(backendTLS(pin=bytes(32)), server(only(version)))
            self.assertIn(fingerprint(leaf).hex(), text)

    def test_aPinReplacesTrustStoreAndName(self) -> None:
        """The pinned certificate is accepted whoever issued it and whatever it is for."""
        other = strangers.issue_cert("elsewhere.example")
        for version in VERSIONS:
            self.assertAccepted(
                backendTLS(pin=fingerprint(other)), server(only(version), certificate=other)
            )

    def test_aPinIsTheServersOwnCertificate(self) -> None:
        """A certificate further up the chain does not satisfy a pin."""
        child = authority.create_child_ca()
        other = child.issue_cert("mail.example.com")
        pin = x509.load_pem_x509_certificate(other.cert_chain_pems[1].bytes()).fingerprint(SHA256())
        self.assertRefused(backendTLS(pin=pin), server(certificate=other))

    def test_aPinHoldsWithInvalidCertificatesAllowed(self) -> None:
        """Who pins means it, even where any certificate would do."""
        self.assertRefused(backendTLS(pin=bytes(32), allowInvalid=True), server())

    def test_anyCertificateWillDoIfAllowed(self) -> None:
        """With `tls_allow_invalid_certs` issuer and name do not count."""
        other = strangers.issue_cert("elsewhere.example")
        for version in VERSIONS:
            self.assertAccepted(
                backendTLS(allowInvalid=True), server(only(version), certificate=other)
            )

    def test_hostileNamesAreEscaped(self) -> None:
        """What a certificate holds reaches the log neither as it is nor at full length."""
        names = ["evil\r\n\x1b[2J.example", "x" * 5000, *(f"h{n}.example" for n in range(9))]
        certificate = selfSigned(x509.SubjectAlternativeName([x509.DNSName(n) for n in names]))
        self.patch(openssl, "expectName", lambda *_: False)
        error = self.assertRaises(CertificateRefused, backendTLS().judge, certificate)
        text = describe(error)
        self.assertTrue(text.isprintable() and text.isascii())
        self.assertIn("and more", text)
        self.assertLess(len(text), 400)

    def test_unusableNamesAreRefused(self) -> None:
        """A certificate whose names no host can have is refused with a reason."""
        self.patch(openssl, "expectName", lambda *_: False)
        certificate = selfSigned(x509.SubjectAlternativeName([x509.DNSName("*.*.example.com")]))
        error = self.assertRaises(CertificateRefused, backendTLS().judge, certificate)
        self.assertIn("its names cannot be used", describe(error))

    def test_anAcceptedCertificateVouchesForNoOther(self) -> None:
        """A second look is spared to the same bytes alone; who was refused is refused again."""
        elsewhere = server(certificate=authority.issue_cert("elsewhere.example"))
        renewed = server(certificate=authority.issue_cert("mail.example.com"))
        creator = backendTLS()
        for _ in range(2):
            self.assertAccepted(creator, server())
            self.assertRefused(creator, elsewhere)
            self.assertAccepted(creator, renewed)

    def test_anAcceptedCertificatesChainIsLookedAtAgain(self) -> None:
        """Whose names are known may have lost its issuer's trust."""
        creator = backendTLS()
        stranger = strangers.issue_cert("mail.example.com")
        creator.judge(x509.load_pem_x509_certificate(stranger.cert_chain_pems[0].bytes()))
        self.assertRefused(creator, server(certificate=stranger))

    def test_aCertificateThatCannotBeReadIsRefused(self) -> None:
        """What cryptography cannot parse, but has to, ends the handshake as any refusal does."""
        for error in (ValueError("parse error"), x509.DuplicateExtension("", ALTERNATIVE_NAMES)):
            creator = backendTLS(pin=fingerprint(leaf))
            self.patch(creator, "judge", raiser(error))
            self.assertIn("it cannot be read", self.assertRefused(creator, server()))


class OwnVerificationTests(VerificationTests):
    """The same where OpenSSL cannot be asked to look at names."""

    def setUp(self) -> None:
        """Ask in vain."""
        self.patch(openssl, "expectName", lambda *_: False)


class PresentationTests(BackendCase):
    """What is shown of ourselves."""

    def demanding(self) -> OtherEnd:
        """A backend that asks for a client certificate of the test authority."""
        flags = SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT
        return server(
            authority.configure_trust, lambda context: context.set_verify(flags), only(VERSIONS[0])
        )

    def test_theClientCertificateIsPresented(self) -> None:
        """A backend that asks for a certificate is shown the destination's."""
        directory = Path(self.mktemp())
        directory.mkdir()
        own = authority.issue_cert("proxy.example.com")
        own.private_key_and_cert_chain_pem.write_to_path(str(directory / "both.pem"))
        pair = KeyPair.load(directory / "both.pem", directory / "both.pem")
        conversation = self.assertAccepted(backendTLS(clientCertificate=pair), self.demanding())
        shown = conversation.server.connection.get_peer_certificate(as_cryptography=True)
        self.assertEqual(shown, pair.certificate)

    def test_withoutOneItIsSaidSo(self) -> None:
        """A backend that asks in vain ends the handshake."""
        conversation = Conversation(backendTLS(), self.demanding())
        self.assertTrue(conversation.silent)

    def test_aStrangerSeesNoClientCertificate(self) -> None:
        """A backend with the wrong certificate does not learn who we are."""
        seen: list[X509] = []

        def see(_: SSL.Connection, certificate: X509, *details: int) -> bool:
            seen.append(certificate)
            return True

        other = server(
            lambda context: context.set_verify(SSL.VERIFY_PEER, see),
            certificate=strangers.issue_cert("mail.example.com"),
        )
        pair = KeyPair.generate("proxy.example.com")
        self.assertRefused(backendTLS(clientCertificate=pair), other)
        self.assertEqual(seen, [])

    def test_ourVersionsAndSuitesHold(self) -> None:
        """Removed suites and old versions are not offered to backends either."""
        options = BackendOptions(
            "mail.example.com",
            protocols("1.2", ["TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"]),
            authorities=(root(authority),),
        )
        narrow = server(
            only(SSL.TLS1_2_VERSION),
            lambda context: context.set_cipher_list(b"ECDHE-ECDSA-AES128-GCM-SHA256"),
        )
        self.assertAccepted(backendTLS(), narrow)
        self.assertRefused(BackendTLS(options), narrow)
        newest = BackendOptions(
            "mail.example.com", protocols("1.3"), authorities=(root(authority),)
        )
        self.assertRefused(BackendTLS(newest), server(only(SSL.TLS1_2_VERSION)))
        self.assertAccepted(BackendTLS(newest), server(only(SSL.TLS1_3_VERSION)))

    def test_oldBackendsWithoutForwardSecrecyAreReached(self) -> None:
        """Accounts are moved away from servers that have RSA key exchange only."""
        old = server(
            only(SSL.TLS1_2_VERSION),
            lambda context: context.set_cipher_list(b"AES256-SHA"),
            certificate=authority.issue_cert("mail.example.com", key_type=trustme.KeyType.RSA),
        )
        self.assertAccepted(backendTLS(), old)

    def test_X25519IsOfferedFirst(self) -> None:
        """A current backend agrees on X25519 at once, without asking for another share."""
        conversation = self.assertAccepted(backendTLS(), server())
        self.assertEqual(conversation.client.connection.get_group_name(), "x25519")

    def test_configuredGroupsKeepTheirOrderBehindX25519(self) -> None:
        """The configured groups are offered, with X25519 in front if it is one of them."""
        for groups, offered in (
            (("secp384r1", "X25519", "X448"), ("X25519", "secp384r1", "X448")),
            (("secp384r1", "secp256r1"), ("secp384r1", "secp256r1")),
            ((), backend.GROUPS),
        ):
            self.assertEqual(backend._groups(protocols(groups=groups)), offered)

    def test_applicationProtocolsAreOfferedOnlyIfAsked(self) -> None:
        """ALPN names what we speak; a backend that has another one in mind is told nothing."""

        def choose(_: SSL.Connection, offered: list[bytes]) -> bytes:
            return offered[-1]

        def answer(context: SSL.Context) -> None:
            context.set_alpn_select_callback(choose)

        for alpn, agreed in (((b"http/1.1",), b"http/1.1"), ((), b"")):
            options = BackendOptions("mail.example.com", protocols(), allowInvalid=True)
            creator = BackendTLS(options).another(alpn)
            conversation = self.assertAccepted(creator, server(answer))
            self.assertEqual(conversation.client.connection.get_alpn_proto_negotiated(), agreed)


class ResumptionTests(BackendCase):
    """Sessions that are taken up again."""

    def test_aRememberedSessionIsResumed(self) -> None:
        """The next connection takes up the session, in both versions, and again after that."""
        for version in VERSIONS:
            creator, other = backendTLS(), server(only(version))
            first = self.assertAccepted(creator, other)
            self.assertFalse(creator.resumed(first.client.tls))
            creator.remember(first.client.tls)
            for _ in range(2):
                again = self.assertAccepted(creator, other)
                self.assertTrue(creator.resumed(again.client.tls))
                self.assertTrue(reusedByOpenSSL(again.client.connection))
                creator.remember(again.client.tls)

    def test_anHourAfterTheLastFullHandshakeTheChainIsLookedAtAgain(self) -> None:
        """However often a session was resumed meanwhile, and brought a new ticket."""
        now = [1000.0]
        creator, other = backendTLS(clock=lambda: now[0]), server()
        resumed = []
        for _ in range(4):
            conversation = self.assertAccepted(creator, other)
            resumed.append(creator.resumed(conversation.client.tls))
            creator.remember(conversation.client.tls)
            now[0] += 1500
        self.assertEqual(resumed, [False, True, True, False])

    def test_whatIsNotRememberedIsNotResumed(self) -> None:
        """A session that nobody vouched for is not offered."""
        creator, other = backendTLS(), server()
        for _ in range(2):
            self.assertFalse(creator.resumed(self.assertAccepted(creator, other).client.tls))

    def test_aSessionNeverServesAnotherDestination(self) -> None:
        """Two destinations on one backend do not share sessions, nor take each other's."""
        one, two, other = backendTLS(), backendTLS(), server()
        first = self.assertAccepted(one, other)
        one.remember(first.client.tls)
        two.remember(first.client.tls)
        self.assertFalse(two.resumed(self.assertAccepted(two, other).client.tls))
        self.assertFalse(two.resumed(first.client.tls))

    def test_aForgottenSessionIsAFullHandshake(self) -> None:
        """A backend that lost its keys gets a full handshake, with all checks."""
        creator = backendTLS()
        creator.remember(self.assertAccepted(creator, server()).client.tls)
        again = self.assertAccepted(creator, server())
        self.assertFalse(creator.resumed(again.client.tls))
        creator.remember(again.client.tls)
        impostor = server(certificate=strangers.issue_cert("mail.example.com"))
        conversation = Conversation(creator, impostor)
        self.assertTrue(conversation.silent)
        self.assertIsNotNone(conversation.client.application.lost)

    def test_aHandshakeWithoutCertificatesNeedsASessionOfOurs(self) -> None:
        """Where none was offered the server's certificate is judged before any byte passes."""
        for version in VERSIONS:
            creator, other = backendTLS(), server(only(version))
            first = self.assertAccepted(creator, other)  # as garbage it would spoil its session
            creator.remember(first.client.tls)
            self.patch(creator, "judge", self.refuse)
            self.patch(BackendConnection, "offered", property(lambda _: False, lambda *_: None))
            conversation = Conversation(creator, other)
            self.assertTrue(reusedByOpenSSL(conversation.client.connection))
            self.assertEqual(conversation.client.application.received, b"")
            self.assertEqual(conversation.server.application.received, b"")
            self.assertFalse(conversation.client.application.shaken)
            creator._session = None
            creator.remember(Running(conversation.client.connection))
            self.assertIsNone(creator._session)

    def refuse(self, certificate: x509.Certificate | None) -> None:
        """Refuse what was accepted before; it is the same certificate."""
        assert certificate is not None
        self.assertEqual(certificate.fingerprint(SHA256()), fingerprint(leaf))
        raise CertificateRefused("not any more")

    def test_anotherEndpointHasItsOwnSessions(self) -> None:
        """Two endpoints of a destination share their context alone."""
        one, other = backendTLS(), server()
        first = self.assertAccepted(one, other)
        one.remember(first.client.tls)
        two = one.another()
        second = self.assertAccepted(two, other)
        self.assertFalse(two.resumed(second.client.tls))
        contexts = [each.client.connection.get_context() for each in (first, second)]
        self.assertIs(*contexts)
        one.remember(second.client.tls)
        two.remember(second.client.tls)
        for creator in (one, two):
            again = self.assertAccepted(creator, other)
            self.assertTrue(creator.resumed(again.client.tls))

    def test_aBrokenConnectionCostsAFullHandshakeAtMost(self) -> None:
        """When the connection that gave the session is cut, the next one works all the same."""
        creator, other = backendTLS(), server()
        first = self.assertAccepted(creator, other)
        creator.remember(first.client.tls)
        first.client.lose()
        first.server.lose()
        del first
        gc.collect()
        self.assertAccepted(creator, other)

    def test_onlyTLSConnectionsAreRemembered(self) -> None:
        """A transport without TLS, or one that is gone, is passed over."""
        creator = backendTLS()
        conversation = self.assertAccepted(creator, server())
        conversation.client.lose()
        for transport in (StringTransport(), conversation.client.tls, None):
            creator.remember(transport)
            self.assertFalse(creator.resumed(transport))
        self.assertIsNone(creator._session)

    def test_anOldSessionDoesNotBecomeYoung(self) -> None:
        """What is resumed was looked at when its first handshake was, whoever else came between."""
        now = [0.0]
        creator, other = backendTLS(clock=lambda: now[0]), server()
        first = self.assertAccepted(creator, other)
        creator.remember(first.client.tls)
        now[0] = RESUMABLE - 1
        old = self.assertAccepted(creator, other)
        self.assertTrue(creator.resumed(old.client.tls))
        now[0] = RESUMABLE + 1
        fresh = self.assertAccepted(creator, other)
        self.assertFalse(creator.resumed(fresh.client.tls))
        creator.remember(fresh.client.tls)
        creator.remember(old.client.tls)  # its login is answered later
        again = self.assertAccepted(creator, other)
        self.assertFalse(creator.resumed(again.client.tls))

    def test_theContextIsBuiltOnce(self) -> None:
        """All connections of a destination use one context."""
        creator = backendTLS()
        used = {
            id(Conversation(creator, server()).client.connection.get_context()) for _ in range(3)
        }
        self.assertEqual(len(used), 1)


class HandshakeTests(BackendCase):
    """The last gate, whatever came before it."""

    def test_aServerWithoutCertificateIsRefused(self) -> None:
        """Nobody is accepted for having shown nothing."""
        for creator in (backendTLS(), backendTLS(pin=bytes(32)), backendTLS(allowInvalid=True)):
            self.assertRaises(CertificateRefused, creator.judge, None)

    def test_aConnectionBeginsUnaccepted(self) -> None:
        """Before its handshake a connection is neither accepted nor remembered."""
        creator = backendTLS()
        conversation = Conversation(creator, OtherEnd(lambda context: None))
        connection = conversation.client.connection
        assert isinstance(connection, BackendConnection)
        self.assertFalse(connection.accepted)


class ConfigurationTests(SynchronousTestCase):
    """A destination's keys."""

    def test_theServerNameGoesBeforeTheHost(self) -> None:
        """`tls_server_name` is verified; without it, `host`."""
        named = Destination(host="192.0.2.1", tls_server_name="mail.example.com")
        self.assertEqual(
            BackendOptions.fromConfig(named, protocols()).serverName, "mail.example.com"
        )
        plain = Destination(host="imap.example.com")
        self.assertEqual(
            BackendOptions.fromConfig(plain, protocols()),
            BackendOptions("imap.example.com", protocols()),
        )

    def test_everyKeyIsTaken(self) -> None:
        """Pin, permission and client certificate are what the table says."""
        path = Path(self.mktemp())
        leaf.private_key_and_cert_chain_pem.write_to_path(str(path))
        destination = Destination.model_validate(
            {
                "host": "mail.example.com",
                "tls_pinned_cert_sha256": "AB:" * 31 + "ab",
                "tls_allow_invalid_certs": True,
                "tls_client_cert": str(path),
                "tls_client_key": str(path),
            }
        )
        options = BackendOptions.fromConfig(destination, protocols(), [root(authority)])
        self.assertEqual(options.pin, b"\xab" * 32)
        self.assertTrue(options.allowInvalid)
        assert options.clientCertificate is not None
        self.assertEqual(
            options.clientCertificate.certificate, KeyPair.load(path, path).certificate
        )
        self.assertEqual(options.authorities, (root(authority),))

    def test_anUnreadableClientCertificateIsNamed(self) -> None:
        """A file that has gone since the check is a configuration mistake."""
        destination = Destination(
            host="mail.example.com", tls_client_cert=Path("/gone"), tls_client_key=Path("/gone")
        )
        error = self.assertRaises(ConfigError, BackendOptions.fromConfig, destination, protocols())
        self.assertIn("/gone", str(error))
