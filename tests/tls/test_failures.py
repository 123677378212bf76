"""Tests for `mailproxy.tls.failures`."""

from OpenSSL import SSL
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from mailproxy.errors import PeerGone
from mailproxy.tls.failures import CertificateRefused, describe, quoted
from tests.tls.handshake import Conversation, OtherEnd, only
from tests.tls.test_backend import backendTLS, server

CLOSED = "the peer closed the connection"


class DescriptionTests(SynchronousTestCase):
    """What an operator reads."""

    def lostBy(self, client: object, other: object) -> str:
        """Let a handshake fail; give what the client's side says of it."""
        lost = Conversation(client, other).client.application.lost
        assert lost is not None
        return describe(lost)

    def test_aRefusedCertificateSaysWhy(self) -> None:
        """The line says that it is the certificate, and what is wrong with it."""
        self.assertEqual(
            describe(Failure(CertificateRefused("it is self-signed"))),
            "certificate verify failed: it is self-signed",
        )

    def test_noCommonVersionIsSaid(self) -> None:
        """Either side's way to say it gives the same line."""
        old, new = only(SSL.TLS1_2_VERSION), only(SSL.TLS1_3_VERSION)
        self.assertIn("TLS versions", self.lostBy(OtherEnd(old), server(new)))
        self.assertIn("TLS versions", self.lostBy(OtherEnd(new), server(old)))

    def test_noCommonSuiteIsSaid(self) -> None:
        """A backend without a common suite answers with an alert that says little; we say more."""
        narrow = server(
            only(SSL.TLS1_2_VERSION), lambda context: context.set_cipher_list(b"AES128-SHA")
        )
        self.assertIn("no common cipher suite", self.lostBy(backendTLS(), narrow))

    def test_aMissingClientCertificateIsSaid(self) -> None:
        """A backend that asks for a certificate in vain is understood, in TLS 1.3."""
        flags = SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT
        asking = server(lambda context: context.set_verify(flags), only(SSL.TLS1_3_VERSION))
        self.assertIn("asks for a client certificate", self.lostBy(backendTLS(), asking))

    def test_aServerWithoutTLSIsSaid(self) -> None:
        """A port that answers in the clear is the commonest mistake of all."""
        conversation = Conversation(backendTLS(), server())
        fresh = type(conversation.client)(backendTLS(), True, conversation.clock)
        fresh.tls.dataReceived(b"* OK IMAP4rev1 ready\r\n")
        fresh.lose()
        assert fresh.application.lost is not None
        self.assertIn("does not speak TLS", describe(fresh.application.lost))

    def test_anUntrustedCertificateOfOursIsSaid(self) -> None:
        """What the other side thinks of our certificate is told from what we think of its."""
        strict = OtherEnd(lambda context: context.set_verify(SSL.VERIFY_PEER))
        lost = Conversation(strict, server()).server.application.lost
        assert lost is not None
        self.assertIn("does not trust our certificate", describe(lost))

    def test_aClosedConnectionIsSaid(self) -> None:
        """However Twisted or OpenSSL word it, a peer that left has left."""
        for error in (
            ConnectionDone(),
            ConnectionLost(),
            SSL.ZeroReturnError(),
            SSL.SysCallError(-1, "Unexpected EOF"),
            SSL.Error([]),
            SSL.Error(),
            PeerGone("connection closed"),
        ):
            self.assertEqual(describe(error), CLOSED)

    def test_whatAStreamReportsIsDescribedByItsCause(self) -> None:
        """A stream's PeerGone holds what went wrong."""
        gone = PeerGone("connection closed")
        gone.__cause__ = CertificateRefused("it is self-signed")
        self.assertIn("it is self-signed", describe(Failure(gone)))

    def test_otherReasonsAreOpenSSLsOwn(self) -> None:
        """A reason that we have no words for is given as it is."""
        self.assertEqual(describe(SSL.Error([("SSL routines", "", "bad length")])), "bad length")

    def test_otherErrorsShowTheirKindOnly(self) -> None:
        """What an unexpected error says may be anything, so only its kind is told."""
        self.assertEqual(describe(ValueError("secret")), "ValueError")

    def test_aPeersTextIsEscapedAndCut(self) -> None:
        """No control character, no other script and no long text reaches a log."""
        self.assertEqual(quoted("a\r\n\x1b[2Jé"), r"'a\r\n\x1b[2J\xe9'")
        self.assertEqual(len(quoted("x" * 1000)), 105)

    def test_noByteOfTheApplicationIsInIt(self) -> None:
        """What was to be sent does not stand in the line."""
        text = self.lostBy(backendTLS(trusted=None), server())
        self.assertNotIn("from client", text)
