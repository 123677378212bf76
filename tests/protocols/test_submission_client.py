"""Us as a submission client: what a backend may say, and what it hears before and with a login."""

from base64 import b64encode

from mailproxy import sasl
from mailproxy.errors import Stage
from mailproxy.origin import Address, Origin
from mailproxy.protocols.base import Verdict
from mailproxy.protocols.submission import SubmissionClient, SubmissionClientFactory
from tests.protocols import clientcontract as contract
from tests.protocols.backend import ANN, PLAINTEXT, XCLIENT, ClientCase
from tests.protocols.talk import moved
from tests.protocols.words import ClientWords, Exchange
from tests.support import Segments

GREETING = b"220 mail ESMTP\r\n"
NAMED = moved(helo=b"there.example")
EHLO = b"EHLO there.example\r\n"
AUTH = b"AUTH PLAIN LOGIN OAUTHBEARER XOAUTH2"
ATTRIBUTES = b"XCLIENT NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT"


def extensions(*words: bytes) -> bytes:
    """Write the answer to EHLO."""
    *most, last = b"mail", *words
    return b"".join(b"250-%b\r\n" % each for each in most) + b"250 %b\r\n" % last


WORDS = ClientWords(
    factory=SubmissionClientFactory,
    exchange=Exchange(b"AUTH %b", challenge=b"334 %b\r\n"),
    garbage=(b"* OK hi\r\n", b"+OK hi\r\n", b"\r\n", b"220hi\r\n", b"22 hi\r\n"),
    full=(b"421 4.3.2 full\r\n", b"554-no\r\n554 service\r\n"),
    all=(AUTH,),
    offer=b"STARTTLS",
    startTLS=b"STARTTLS\r\n",
    consent=b"220 go\r\n",
    dissent=b"502 not today\r\n",
    injected=extensions(AUTH),
    again=EHLO,
    accepted=((b"235-2.7.0 well,\r\n235-\r\n", b"235 2.7.0 in"), (b"", b"235 in")),
    verdicts=(
        (b"535 5.7.8 no", Verdict.REFUSED),
        (b"535", Verdict.REFUSED),
        (b"534 5.7.9 too weak", Verdict.REFUSED),
        (b"454 4.7.0 later", Verdict.TEMPORARY),
        (b"421 4.3.2 closing", Verdict.TEMPORARY),
        (b"432 4.7.12 change it", Verdict.TEMPORARY),
    ),
    nonsense=(
        b"250 ok\r\n",
        b"354 go\r\n",
        b"220 hi\r\n",
        b"+OK\r\n",
        b"\r\n",
        b"535 a\nb\r\n",
        b"5350 no\r\n",
    ),
    useless=((b"SIZE", ANN), (b"AUTH", ANN)),
)


class SubmissionCase(ClientCase):
    """A conversation with a submission backend."""

    conversation = SubmissionClient
    words = WORDS
    origin = NAMED

    def tell(self, *words: bytes) -> bytes:
        """By EHLO's answer."""
        self.assertEqual(self.hear(GREETING), EHLO)
        return self.hear(extensions(*words))

    def tellAgain(self, *words: bytes) -> None:
        """By the same."""
        self.hear(extensions(*words))

    def offering(self, *mechanisms: bytes) -> tuple[bytes, ...]:
        """AUTH's line."""
        return (b"AUTH " + b" ".join(mechanisms),)

    def introduced(self, *words: bytes) -> bytes:
        """By XCLIENT; then the backend greets anew, and EHLO is said again."""
        self.begin(XCLIENT)
        heard = self.hear(GREETING) + self.hear(extensions(ATTRIBUTES))
        heard += self.hear(GREETING) + self.hear(extensions(*words))
        self.assertReady()
        return heard


class GreetingTests(contract.GreetingContract, SubmissionCase):
    """What a backend says first."""

    def test_clientWithoutANameIsItsAddress(self) -> None:
        """As an address literal (RFC 5321, section 4.1.3)."""
        for host, name in (("192.0.2.9", b"[192.0.2.9]"), ("2001:db8::9", b"[IPv6:2001:db8::9]")):
            self.begin(origin=moved(client=Address(host, 1)))
            self.assertEqual(self.hear(GREETING), b"EHLO %b\r\n" % name)

    def test_severalLinesAreOneGreeting(self) -> None:
        """EHLO waits for the last."""
        self.begin()
        self.assertEqual(self.hear(b"220-mail\r\n"), b"")
        self.assertEqual(self.hear(b"220 ESMTP\r\n"), EHLO)
        self.assertEqual(self.client.opening, b"220-mail\r\n220 ESMTP\r\n")

    def test_refusedNameIsTheEnd(self) -> None:
        """Only a temporary refusal may be tried again."""
        for reply, retry in ((b"501 what?\r\n", False), (b"421 full\r\n", True)):
            self.begin()
            self.hear(GREETING)
            self.hear(reply)
            self.assertFailed(Stage.PREPARE, retry=retry)

    def test_bareCodeIsAReply(self) -> None:
        """RFC 5321, section 4.2: text may be missing."""
        self.begin()
        self.assertEqual(self.hear(b"220\r\n"), EHLO)
        self.hear(b"250\r\n")
        self.assertReady()

    def test_bareLFNeverEndsALine(self) -> None:
        """What could be read in two ways is not read."""
        self.begin()
        self.assertEqual(self.hear(b"220 mail\n"), b"")
        self.hear(b"220 more\r\n")
        self.assertFailed(Stage.GREETING)


class StartTLSTests(contract.StartTLSContract, SubmissionCase):
    """STARTTLS on the backend's leg."""


class IntroductionTests(SubmissionCase):
    """XCLIENT: who the client is."""

    def introduction(self, offer: bytes, origin: Origin = NAMED) -> bytes:
        """What a backend with this offer is told."""
        self.begin(XCLIENT, origin)
        self.hear(GREETING)
        return self.hear(extensions(offer, AUTH))

    def test_onlyWhatIsListedIsSaid(self) -> None:
        """Then the backend greets anew, and EHLO is said again."""
        self.assertEqual(
            self.introduction(ATTRIBUTES),
            b"XCLIENT ADDR=198.51.100.7 PORT=40000 DESTADDR=192.0.2.1 DESTPORT=993 "
            b"HELO=there.example PROTO=ESMTP\r\n",
        )
        self.assertEqual(self.hear(b"220 mail again\r\n"), EHLO)
        self.hear(extensions(AUTH))
        self.assertReady()
        self.assertEqual(self.client.opening, b"220 mail again\r\n")

    def test_everything(self) -> None:
        """To a backend that takes all: our own names too, with one hop less."""
        told = self.introduction(ATTRIBUTES + b" SESSION TTL CLIENT-TRANSPORT")
        self.assertIn(b" SESSION=session-one TTL=6 CLIENT-TRANSPORT=insecure ", told)
        self.assertNotIn(b"LOGIN=", told)
        self.assertNotIn(b"NAME=", told)

    def test_addressesOfIPv6AreMarked(self) -> None:
        """As Postfix wants them."""
        origin = moved(client=Address("2001:db8::7", 1), local=Address("2001:db8::1", 587))
        self.assertEqual(
            self.introduction(b"XCLIENT ADDR DESTADDR", origin),
            b"XCLIENT ADDR=IPV6:2001:db8::7 DESTADDR=IPV6:2001:db8::1\r\n",
        )

    def test_attributesInAnyCase(self) -> None:
        """An offer's letters do not matter."""
        self.assertEqual(self.introduction(b"xclient addr"), b"XCLIENT ADDR=198.51.100.7\r\n")

    def test_nothingToSay(self) -> None:
        """Without an offer, without one that we can fill, or without the wish: nothing."""
        for offer in (b"SIZE", b"XCLIENT", b"XCLIENT NAME LOGIN"):
            self.assertEqual(self.introduction(offer), b"", offer)
            self.assertReady()
        self.begin(PLAINTEXT)
        self.hear(GREETING)
        self.assertEqual(self.hear(extensions(ATTRIBUTES)), b"")
        self.assertReady()

    def test_longNameIsLeftOut(self) -> None:
        """A command has 512 bytes: the address is worth more than the name."""
        told = self.introduction(ATTRIBUTES, moved(helo=b"+" * 255))
        self.assertNotIn(b"HELO=", told)
        self.assertIn(b" PROTO=ESMTP\r\n", told)
        self.assertLessEqual(len(told), 512)

    def test_refusedIntroductionIsAFailure(self) -> None:
        """The backend would take us for the client."""
        for reply, retry in ((b"550 5.7.0 not you\r\n", False), (b"421 later\r\n", True)):
            self.introduction(ATTRIBUTES)
            self.hear(reply)
            self.assertFailed(Stage.PREPARE, retry=retry)

    def test_wordsCannotBeInjected(self) -> None:
        """What came from elsewhere is in xtext."""
        told = self.introduction(b"XCLIENT HELO SESSION", moved(helo=b"a=b+c", session="x=y"))
        self.assertEqual(told, b"XCLIENT SESSION=x+3Dy HELO=a+3Db+2Bc\r\n")


class LoginTests(contract.LoginContract, SubmissionCase):
    """How a login is replayed, and what its answer is taken for."""

    def test_longNameAndPasswordByLOGIN(self) -> None:
        """What does not fit into a command waits for its prompt."""
        self.ready(b"AUTH LOGIN")
        user, password = b"a" * 400, b"p" * 400
        self.assertEqual(self.login(sasl.fromPassword(user, password)), b"AUTH LOGIN\r\n")
        self.assertEqual(self.hear(b"334 VXNlcm5hbWU6\r\n"), b64encode(user) + b"\r\n")
        self.assertEqual(self.hear(b"334 UGFzc3dvcmQ6\r\n"), b64encode(password) + b"\r\n")


class ChallengeTests(contract.ChallengeContract, contract.LongTokenContract, SubmissionCase):
    """OAuth: the backend's error challenge."""


class LinesTests(GreetingTests, StartTLSTests, IntroductionTests, LoginTests, ChallengeTests):
    """The same, one line per segment."""

    segments = Segments.LINES


class BytesTests(GreetingTests, StartTLSTests, IntroductionTests, LoginTests, ChallengeTests):
    """The same, one byte per segment."""

    segments = Segments.BYTES


class InjectionTests(contract.InjectionContract, SubmissionCase):
    """What depends on the segments that the network makes, and what never ends."""

    def test_endlessReplies(self) -> None:
        """A reply whose last line does not come is not read for ever."""
        self.begin()
        self.hear(GREETING)
        self.hear(b"250-\r\n" * 40_000)
        self.assertFailed(Stage.PREPARE)
        self.begin()
        self.hear(b"220 " + b"x" * 1_000_000)
        self.assertFailed(Stage.GREETING)


class FactoryTests(contract.FactoryContract, SubmissionCase):
    """What a dialled connection is."""
