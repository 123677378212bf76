"""SMTP and LMTP passed through: who speaks before the client is heard, and what is said."""

from typing import ClassVar

import attrs

from mailproxy.config.model import Capabilities
from mailproxy.errors import Refusal, Stage
from mailproxy.protocols.base import Advertised, ServerSettings
from mailproxy.protocols.client import ProxyClient
from mailproxy.protocols.passthrough import (
    LMTPClient,
    LMTPClientFactory,
    PassThroughClient,
    PassThroughServer,
    PassThroughServerFactory,
    SMTPClientFactory,
)
from tests.protocols.backend import PLAINTEXT, XCLIENT, BackendCase, upgrading
from tests.protocols.talk import ORIGIN, trustNobody
from tests.support import Network, Peer, Segments

GREETING = b"220 mx ESMTP Postfix\r\n"
AGAIN = b"220 mx ESMTP again\r\n"
EHLO = b"EHLO [198.51.100.7]\r\n"
OFFER = (
    b"250-mx\r\n250-STARTTLS\r\n250 XCLIENT NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT\r\n"
)
TOLD = b"XCLIENT ADDR=198.51.100.7 PORT=40000 DESTADDR=192.0.2.1 DESTPORT=993\r\n"


class SilentTests(BackendCase):
    """A backend that need not be told of the client: its first byte is for the client."""

    conversation: ClassVar[type[ProxyClient]] = PassThroughClient

    def test_nothingIsSaidAndNothingIsRead(self) -> None:
        """What it says waits for the bridge."""
        self.begin(PLAINTEXT)
        self.assertReady()
        self.assertEqual(self.hear(GREETING), b"")
        self.assertEqual(self.client.opening, b"")
        self.assertEqual(self.client.takeUnread(), GREETING)


class IntroductionTests(BackendCase):
    """A backend that believes our address: it is told whose words follow, before they do."""

    conversation: ClassVar[type[ProxyClient]] = PassThroughClient

    def test_clientIsIntroducedFirst(self) -> None:
        """The greeting that follows is for the client; EHLO is left to it."""
        self.begin(XCLIENT)
        self.assertEqual(self.hear(GREETING), EHLO)
        self.assertEqual(self.hear(OFFER), TOLD)
        self.assertNoResult(self.prepared)
        self.hear(AGAIN)
        self.assertReady()
        self.assertEqual(self.client.opening, AGAIN)

    def test_trustIsNotLent(self) -> None:
        """A backend that cannot be told that it is not us is not used at all."""
        for offer in (
            b"250 mx\r\n",
            b"250-mx\r\n250 XCLIENT\r\n",
            b"250-mx\r\n250 XCLIENT NAME PORT HELO\r\n",
            b"502 what?\r\n",
        ):
            self.begin(XCLIENT)
            self.hear(GREETING)
            self.assertEqual(self.hear(offer), b"", offer)
            self.failure(self.prepared)

    def test_refusedIntroductionIsTheEnd(self) -> None:
        """We would be taken for the client."""
        self.begin(XCLIENT)
        self.hear(GREETING)
        self.hear(OFFER)
        self.hear(b"550 5.7.0 not you\r\n")
        self.assertFailed(Stage.PREPARE, retry=False)

    def test_backendThatDoesNotGreet(self) -> None:
        """It is not tried again: in a circle of proxies that would double at each."""
        self.begin(XCLIENT)
        self.hear(b"421 busy\r\n")
        self.assertFailed(Stage.GREETING, retry=False)


class StartTLSTests(BackendCase):
    """A backend that has to be asked for TLS: we speak first there too."""

    conversation: ClassVar[type[ProxyClient]] = PassThroughClient

    def test_greetingIsPassedOnBehindTheHandshake(self) -> None:
        """The client hears the one that we have read; inside TLS all is its own."""
        self.begin(upgrading())
        self.assertEqual(self.hear(GREETING), EHLO)
        self.assertEqual(self.hear(OFFER), b"STARTTLS\r\n")
        self.assertEqual(self.consent(b"220 go\r\n"), b"")
        self.assertReady()
        self.assertEqual(self.client.opening, GREETING)

    def test_introductionInsideTLS(self) -> None:
        """Nobody on the way learns who the client is."""
        self.begin(attrs.evolve(upgrading(), introduces=True))
        self.hear(GREETING)
        self.hear(OFFER)
        self.assertEqual(self.consent(b"220 go\r\n"), EHLO)
        self.assertEqual(self.hear(OFFER), TOLD)
        self.hear(AGAIN)
        self.assertReady()
        self.assertEqual(self.client.opening, AGAIN)


class LMTPTests(BackendCase):
    """LMTP greets by another verb (RFC 2033)."""

    conversation: ClassVar[type[ProxyClient]] = LMTPClient

    def test_lhlo(self) -> None:
        """The rest is SMTP's."""
        self.begin(XCLIENT)
        self.assertEqual(self.hear(GREETING), b"LHLO [198.51.100.7]\r\n")
        self.assertEqual(self.hear(OFFER), TOLD)
        self.hear(AGAIN)
        self.assertReady()


class LinesTests(SilentTests, StartTLSTests):
    """The same, one line per segment."""

    segments = Segments.LINES


class BytesTests(SilentTests, StartTLSTests):
    """The same, one byte per segment."""

    segments = Segments.BYTES


class IntroductionLinesTests(IntroductionTests):
    """The same, one line per segment."""

    segments = Segments.LINES


class IntroductionBytesTests(IntroductionTests):
    """The same, one byte per segment."""

    segments = Segments.BYTES


class ServerTests(BackendCase):
    """What the client hears of us when there is no backend."""

    def test_421(self) -> None:
        """Whatever the reason, it may come again later."""
        for refusal in (Refusal.UNAVAILABLE, Refusal.TIMEOUT, Refusal.SHUTDOWN):
            network, client = Network(), Peer()
            server = PassThroughServerFactory(network, 1, lambda _: None).buildProtocol(None)
            assert isinstance(server, PassThroughServer)
            server.settings = ServerSettings(Advertised(), 3, None, trustNobody)
            server.origin = ORIGIN
            network.connect(server, client)
            server.dismiss(refusal, None)
            network.pump()
            self.assertRegex(client.take(), rb"\A421 4\.\d\.\d [^\r]+\r\n\Z")

    def test_nothingIsPromised(self) -> None:
        """The backend speaks for itself."""
        self.assertEqual(
            PassThroughServerFactory.advertised(Capabilities()), Advertised(banner=b"mailproxy")
        )

    def test_factories(self) -> None:
        """Each makes its own conversation."""
        pairs = ((SMTPClientFactory, PassThroughClient), (LMTPClientFactory, LMTPClient))
        for factory, conversation in pairs:
            made = factory(Network()).buildProtocol(None)
            self.assertIs(type(made), conversation)
        self.assertIs(PassThroughServerFactory.conversation, PassThroughServer)
