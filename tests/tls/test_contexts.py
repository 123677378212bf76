"""Tests for `mailproxy.tls.contexts`."""

from pathlib import Path
from typing import cast

import trustme
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import dsa, ec, x25519
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID
from OpenSSL import SSL
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from mailproxy import openssl
from mailproxy.errors import ConfigError
from mailproxy.tls.contexts import (
    KeyPair,
    commonNames,
    dnsNames,
    hostNames,
    makeContext,
    setGroups,
)
from tests.tls.handshake import Conversation, OtherEnd, protocols

authority = trustme.CA()
leaf = authority.issue_cert("mail.example.com", "*.example.net", common_name="ignored")


class ContextTests(SynchronousTestCase):
    """What both legs share."""

    def test_aContextTakesNoPartInOldMistakes(self) -> None:
        """Compression and renegotiation are off."""
        context = makeContext(SSL.TLS_METHOD, protocols())
        for option in (SSL.OP_NO_COMPRESSION, SSL.OP_NO_RENEGOTIATION):
            self.assertTrue(context.set_options(0) & option)

    def test_idleConnectionsHoldNoBuffers(self) -> None:
        """Release-buffers mode is on: thousands of idle sessions cost little."""
        context = makeContext(SSL.TLS_METHOD, protocols())
        self.assertTrue(context.set_mode(0) & SSL.MODE_RELEASE_BUFFERS)

    def test_groupsAreOfferedInOrder(self) -> None:
        """A client sends its share for the first group, and a server that has it agrees."""
        for groups in (("X25519MLKEM768", "X25519"), ("secp384r1", "X25519"), ("X25519", "X448")):
            client, server = OtherEnd(), OtherEnd(leaf.configure_cert)
            for end in (client, server):
                setGroups(end.context, groups)
            conversation = Conversation(client, server)
            agreed = conversation.client.connection.get_group_name()
            self.assertEqual(str(agreed).lower(), groups[0].lower())

    def test_anUnknownGroupIsAConfigurationMistake(self) -> None:
        """A group that the linked OpenSSL lacks is named with its key."""
        context = makeContext(SSL.TLS_METHOD, protocols())
        error = self.assertRaises(ConfigError, setGroups, context, ("X25519", "nonesuch"))
        self.assertIn("tls.protocols.groups: ", str(error))
        self.assertIn("nonesuch", str(error))

    def test_withoutThePrivateNameGroupsStayAsTheyAre(self) -> None:
        """Without what `setGroups` borrows, OpenSSL's own groups stay and the log says so."""
        events: list[LogEvent] = []
        observer = cast(ILogObserver, events.append)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        self.patch(openssl, "setGroups", lambda context, groups: None)
        setGroups(makeContext(SSL.TLS_METHOD, protocols()), ("X25519",))
        self.assertEqual(len(events), 1)


class KeyPairTests(SynchronousTestCase):
    """Certificates and keys."""

    def setUp(self) -> None:
        """Write a pair to files."""
        self.directory = Path(self.mktemp())
        self.directory.mkdir()
        self.cert = self.write("cert.pem", leaf.cert_chain_pems[0].bytes())
        self.key = self.write("key.pem", leaf.private_key_pem.bytes())

    def write(self, name: str, data: bytes) -> Path:
        """Write one file."""
        path = self.directory / name
        path.write_bytes(data)
        return path

    def test_aPairIsReadWithItsChain(self) -> None:
        """The first certificate is the pair's own, the others follow in order."""
        child = authority.create_child_ca()
        deep = child.issue_cert("deep.example.com")
        blobs = b"".join(blob.bytes() for blob in deep.cert_chain_pems)
        key = self.write("deep.pem", deep.private_key_pem.bytes())
        pair = KeyPair.load(self.write("chain.pem", blobs), key)
        self.assertEqual(dnsNames(pair.certificate), ("deep.example.com",))
        self.assertEqual(len(pair.chain), len(deep.cert_chain_pems) - 1)
        self.assertGreater(len(pair.chain), 0)

    def test_anUnusableFileIsNamed(self) -> None:
        """A file that is missing or holds something else is named, without a traceback's words."""
        junk = self.write("junk.pem", b"junk")
        for cert, key, named in (
            (junk, self.key, junk),
            (self.directory / "gone", self.key, self.directory / "gone"),
            (self.cert, junk, junk),
            (self.cert, self.directory / "gone", self.directory / "gone"),
        ):
            error = self.assertRaises(ConfigError, KeyPair.load, cert, key)
            self.assertEqual([line.partition(":")[0] for line in error.problems], [str(named)])

    def test_anEncryptedKeyIsRefused(self) -> None:
        """A key with a passphrase is refused: nobody is there to type it."""
        key = load_pem_private_key(leaf.private_key_pem.bytes(), None)
        locked = key.private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")
        )
        error = self.assertRaises(
            ConfigError, KeyPair.load, self.cert, self.write("locked.pem", locked)
        )
        self.assertIn("unencrypted", str(error))

    def test_aKeyThatCannotSignIsRefused(self) -> None:
        """Key agreement keys and DSA keys are of no use to TLS."""
        for key in (x25519.X25519PrivateKey.generate(), dsa.generate_private_key(1024)):
            data = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            error = self.assertRaises(
                ConfigError, KeyPair.load, self.cert, self.write("odd.pem", data)
            )
            self.assertIn("odd.pem", str(error))

    def test_aKeyOfAnotherCertificateIsRefused(self) -> None:
        """Certificate and key that differ are a configuration mistake, not an OpenSSL error."""
        other = authority.issue_cert("other.example.com")
        pair = KeyPair.load(self.cert, self.write("other.pem", other.private_key_pem.bytes()))
        error = self.assertRaises(ConfigError, pair.use, makeContext(SSL.TLS_METHOD, protocols()))
        self.assertIn("key values mismatch", str(error))

    def test_theKeyIsNotShown(self) -> None:
        """A pair's representation does not mention its key."""
        self.assertNotIn("key=", repr(KeyPair.load(self.cert, self.key)))

    def test_aGeneratedPairIsSound(self) -> None:
        """A generated pair is ECDSA on P-256, in force, for its name and signed by itself."""
        pair = KeyPair.generate("mail.invalid")
        pair.use(makeContext(SSL.TLS_METHOD, protocols()))
        pair.certificate.verify_directly_issued_by(pair.certificate)
        self.assertEqual(dnsNames(pair.certificate), ("mail.invalid",))
        assert isinstance(pair.key, ec.EllipticCurvePrivateKey)
        self.assertEqual(pair.key.curve.name, "secp256r1")
        self.assertLess(pair.certificate.not_valid_before_utc, pair.certificate.not_valid_after_utc)

    def test_alternativeNamesComeBeforeTheCommonName(self) -> None:
        """The DNS alternative names are a certificate's; only without any is it its common name."""
        certificate = x509.load_pem_x509_certificate(leaf.cert_chain_pems[0].bytes())
        self.assertEqual(dnsNames(certificate), ("mail.example.com", "*.example.net"))
        address = authority.issue_cert("127.0.0.1", common_name="old.example.com")
        old = x509.load_pem_x509_certificate(address.cert_chain_pems[0].bytes())
        self.assertEqual(len(old.subject.get_attributes_for_oid(NameOID.COMMON_NAME)), 1)
        self.assertEqual(dnsNames(old), ("old.example.com",))
        self.assertEqual((hostNames(old), commonNames(old)), (("127.0.0.1",), ("old.example.com",)))

    def test_aCommonNameIsNoHosts(self) -> None:
        """For who is asked whether a certificate is the right one; nor is a mail address."""
        certificate = x509.load_pem_x509_certificate(leaf.cert_chain_pems[0].bytes())
        self.assertEqual(hostNames(certificate), ("mail.example.com", "*.example.net"))
        bare = KeyPair.generate("mail.invalid").certificate
        builder = x509.CertificateBuilder(bare.issuer, bare.subject, bare.public_key(), 1)
        key = ec.generate_private_key(ec.SECP256R1())
        signed = (
            builder.not_valid_before(bare.not_valid_before_utc)
            .not_valid_after(bare.not_valid_after_utc)
            .sign(key, SHA256())
        )
        self.assertEqual((hostNames(signed), commonNames(signed)), ((), ("mail.invalid",)))
