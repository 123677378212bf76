"""Us as a submission client: what a backend may say, and what it hears before and with a login."""

from base64 import b64encode

from mailproxy import sasl
from mailproxy.errors import Stage
from mailproxy.origin import Address, Origin
from mailproxy.protocols.base import Verdict
from mailproxy.protocols.submission import SubmissionClient, SubmissionClientFactory
from tests.protocols.backend import (
    ANN,
    ANN64,
    BEARER,
    HUGE,
    HUGE64,
    MASTER,
    PLAINTEXT,
    SECRETS,
    XCLIENT,
    XOAUTH2,
    BackendCase,
    upgrading,
)
from tests.protocols.talk import moved
from tests.support import Network, Segments

GREETING = b"220 mail ESMTP\r\n"
NAMED = moved(helo=b"there.example")
EHLO = b"EHLO there.example\r\n"
ALL = b"AUTH PLAIN LOGIN OAUTHBEARER XOAUTH2"
ATTRIBUTES = b"XCLIENT NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT"


def extensions(*words: bytes) -> bytes:
    """Write the answer to EHLO."""
    *most, last = b"mail", *words
    return b"".join(b"250-%b\r\n" % each for each in most) + b"250 %b\r\n" % last


class SubmissionCase(BackendCase):
    """A conversation with a submission backend."""

    conversation = SubmissionClient

    def ready(self, *words: bytes) -> None:
        """Bring a backend with these extensions to where the login is next."""
        self.begin(origin=NAMED)
        self.assertEqual(self.hear(GREETING), EHLO)
        self.hear(extensions(*words))
        self.assertReady()


class GreetingTests(SubmissionCase):
    """What a backend says first."""

    def test_clientsOwnNameIsSaid(self) -> None:
        """Once; then the login is next."""
        self.ready(ALL)

    def test_clientWithoutANameIsItsAddress(self) -> None:
        """As an address literal (RFC 5321, section 4.1.3)."""
        for host, name in (("192.0.2.9", b"[192.0.2.9]"), ("2001:db8::9", b"[IPv6:2001:db8::9]")):
            self.begin(origin=moved(client=Address(host, 1)))
            self.assertEqual(self.hear(GREETING), b"EHLO %b\r\n" % name)

    def test_severalLinesAreOneGreeting(self) -> None:
        """EHLO waits for the last."""
        self.begin(origin=NAMED)
        self.assertEqual(self.hear(b"220-mail\r\n"), b"")
        self.assertEqual(self.hear(b"220 ESMTP\r\n"), EHLO)
        self.assertEqual(self.client.opening, b"220-mail\r\n220 ESMTP\r\n")

    def test_refusalMayBeTriedAgain(self) -> None:
        """A backend that does not greet is full or stopping."""
        for greeting in (b"421 4.3.2 full\r\n", b"554-no\r\n554 service\r\n"):
            self.begin()
            self.hear(greeting)
            self.assertFailed(Stage.GREETING, retry=True)

    def test_refusedNameIsTheEnd(self) -> None:
        """Only a temporary refusal may be tried again."""
        for reply, retry in ((b"501 what?\r\n", False), (b"421 full\r\n", True)):
            self.begin(origin=NAMED)
            self.hear(GREETING)
            self.hear(reply)
            self.assertFailed(Stage.PREPARE, retry=retry)

    def test_garbage(self) -> None:
        """Another protocol's greeting is a failure, and so is a reply that is none."""
        for greeting in (b"* OK hi\r\n", b"+OK hi\r\n", b"\r\n", b"220hi\r\n", b"22 hi\r\n"):
            self.begin()
            self.hear(greeting)
            self.assertFailed(Stage.GREETING)

    def test_bareCodeIsAReply(self) -> None:
        """RFC 5321, section 4.2: text may be missing."""
        self.begin(origin=NAMED)
        self.assertEqual(self.hear(b"220\r\n"), EHLO)
        self.hear(b"250\r\n")
        self.assertReady()

    def test_bareLFNeverEndsALine(self) -> None:
        """What could be read in two ways is not read."""
        self.begin(origin=NAMED)
        self.assertEqual(self.hear(b"220 mail\n"), b"")
        self.hear(b"220 more\r\n")
        self.assertFailed(Stage.GREETING)


class StartTLSTests(SubmissionCase):
    """STARTTLS on the backend's leg."""

    def test_ehloIsSaidAgain(self) -> None:
        """What was said before TLS does not count."""
        self.begin(upgrading(), NAMED)
        self.hear(GREETING)
        self.assertEqual(self.hear(extensions(b"STARTTLS", ALL)), b"STARTTLS\r\n")
        self.assertEqual(self.consent(b"220 go\r\n"), EHLO)
        self.hear(extensions(b"AUTH LOGIN"))
        self.assertReady()
        self.assertEqual(self.login(), b"AUTH LOGIN YW5u\r\n")

    def test_attackerWhoStripsTheOfferGetsNothing(self) -> None:
        """No offer, no login."""
        self.begin(upgrading(), NAMED)
        self.hear(GREETING)
        self.assertEqual(self.hear(extensions(ALL)), b"")
        self.assertFailed(Stage.PREPARE, retry=False)

    def test_attackerWhoRefusesGetsNothing(self) -> None:
        """STARTTLS that is refused ends it."""
        self.begin(upgrading(), NAMED)
        self.hear(GREETING)
        self.hear(extensions(b"STARTTLS", ALL))
        self.assertEqual(self.hear(b"502 not today\r\n"), b"")
        self.assertFailed(Stage.PREPARE, retry=False)


class IntroductionTests(SubmissionCase):
    """XCLIENT: who the client is."""

    def introduction(self, offer: bytes, origin: Origin = NAMED) -> bytes:
        """What a backend with this offer is told."""
        self.begin(XCLIENT, origin)
        self.hear(GREETING)
        return self.hear(extensions(offer, ALL))

    def test_onlyWhatIsListedIsSaid(self) -> None:
        """Then the backend greets anew, and EHLO is said again."""
        self.assertEqual(
            self.introduction(ATTRIBUTES),
            b"XCLIENT ADDR=198.51.100.7 PORT=40000 DESTADDR=192.0.2.1 DESTPORT=993 "
            b"HELO=there.example PROTO=ESMTP\r\n",
        )
        self.assertEqual(self.hear(b"220 mail again\r\n"), EHLO)
        self.hear(extensions(ALL))
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
        self.begin(PLAINTEXT, NAMED)
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

    def test_commandsCannotBeInjected(self) -> None:
        """What came from elsewhere is in xtext."""
        told = self.introduction(b"XCLIENT HELO SESSION", moved(helo=b"a=b+c", session="x=y"))
        self.assertEqual(told, b"XCLIENT SESSION=x+3Dy HELO=a+3Db+2Bc\r\n")


class LoginTests(SubmissionCase):
    """How a login is replayed, and what its answer is taken for."""

    def test_plain(self) -> None:
        """One line where PLAIN is offered; the answer is passed on, all lines of it."""
        self.ready(ALL)
        self.assertEqual(self.login(), b"AUTH PLAIN %b\r\n" % ANN64)
        self.hear(b"235-2.7.0 well,\r\n235-\r\n235 2.7.0 in\r\n")
        self.assertResult(Verdict.ACCEPTED, b"235 2.7.0 in", b"235-2.7.0 well,\r\n235-\r\n")

    def test_masterUserIsReplayedUnchanged(self) -> None:
        """Both identities go to a backend that takes PLAIN."""
        self.ready(ALL)
        line = b"AUTH PLAIN %b\r\n" % b64encode(MASTER.response)
        self.assertEqual(self.login(MASTER), line)

    def test_loginMechanism(self) -> None:
        """A backend without PLAIN gets LOGIN."""
        self.ready(b"AUTH LOGIN NTLM")
        self.assertEqual(self.login(), b"AUTH LOGIN YW5u\r\n")
        self.assertEqual(self.hear(b"334 UGFzc3dvcmQ6\r\n"), b64encode(b"secret") + b"\r\n")
        self.hear(b"235 in\r\n")
        self.assertResult(Verdict.ACCEPTED, b"235 in")

    def test_longNameAndPasswordByLOGIN(self) -> None:
        """What does not fit into a command waits for its prompt."""
        self.ready(b"AUTH LOGIN")
        user, password = b"a" * 400, b"p" * 400
        self.assertEqual(self.login(sasl.fromPassword(user, password)), b"AUTH LOGIN\r\n")
        self.assertEqual(self.hear(b"334 VXNlcm5hbWU6\r\n"), b64encode(user) + b"\r\n")
        self.assertEqual(self.hear(b"334 UGFzc3dvcmQ6\r\n"), b64encode(password) + b"\r\n")

    def test_noWayToLogIn(self) -> None:
        """What the backend cannot take is not sent in any form."""
        for line, credentials in (
            (b"SIZE", ANN),
            (b"AUTH", ANN),
            (b"AUTH NTLM", ANN),
            (b"AUTH LOGIN", MASTER),
            (b"AUTH PLAIN XOAUTH2", BEARER),
        ):
            self.ready(line)
            self.assertEqual(self.login(credentials), b"", line)
            self.assertUnanswered(Stage.UNSUPPORTED)

    def test_commandsCannotBeInjected(self) -> None:
        """Whatever a name or password holds is in base64."""
        for mechanism in (b"AUTH PLAIN", b"AUTH LOGIN"):
            self.ready(mechanism)
            heard = self.login(sasl.fromPassword(b"ann\r\nQUIT", b"x\r\nMAIL FROM:<>"))
            heard += self.hear(b"334 \r\n") if mechanism == b"AUTH LOGIN" else b""
            self.assertNotIn(b"QUIT", heard)
            self.assertNotIn(b"MAIL", heard)

    def test_refusals(self) -> None:
        """5xx is a refusal, 4xx is temporary: never the one for the other."""
        for reply, verdict in (
            (b"535 5.7.8 no", Verdict.REFUSED),
            (b"535", Verdict.REFUSED),
            (b"534 5.7.9 too weak", Verdict.REFUSED),
            (b"454 4.7.0 later", Verdict.TEMPORARY),
            (b"421 4.3.2 closing", Verdict.TEMPORARY),
            (b"432 4.7.12 change it", Verdict.TEMPORARY),
        ):
            self.ready(ALL)
            self.login()
            self.hear(reply + b"\r\n")
            self.assertResult(verdict, reply)

    def test_nonsenseIsNoAnswer(self) -> None:
        """Neither a code that does not belong there, nor no reply at all."""
        for reply in (b"250 ok", b"354 go", b"220 hi", b"+OK", b"", b"535 a\nb", b"5350 no"):
            self.ready(ALL)
            self.login()
            self.hear(reply + b"\r\n")
            self.assertUnanswered()
        self.ready(ALL)
        self.login()
        self.backend.hangUp()
        self.network.pump()
        self.assertUnanswered()

    def test_secretsComeLast(self) -> None:
        """Up to the login's own line nothing that a backend hears holds a secret."""
        self.begin(XCLIENT, NAMED)
        heard = self.hear(GREETING) + self.hear(extensions(ATTRIBUTES))
        heard += self.hear(GREETING) + self.hear(extensions(b"AUTH LOGIN")) + self.login()
        for secret in SECRETS:
            self.assertNotIn(secret, heard)


class ChallengeTests(SubmissionCase):
    """OAuth: the backend's error challenge."""

    def test_challengeIsPutAndItsAnswerSent(self) -> None:
        """Both directions without base64; the refusal after it is the answer to the login."""
        for credentials, answer in ((BEARER, b"\1"), (XOAUTH2, b"")):
            self.ready(ALL)
            self.challengeAnswer = answer
            self.login(credentials)
            sent = self.hear(b"334 eyJzdGF0dXMiOiI0MDEifQ==\r\n")
            self.assertEqual(self.asked, [b'{"status":"401"}'])
            self.assertEqual(sent, b64encode(answer) + b"\r\n")
            self.hear(b"535 5.7.8 bad token\r\n")
            self.assertResult(Verdict.REFUSED, b"535 5.7.8 bad token")

    def test_noAnswerCancels(self) -> None:
        """A client that cancels makes us cancel."""
        self.ready(ALL)
        self.login(BEARER)
        self.assertEqual(self.hear(b"334 e30=\r\n"), b"*\r\n")

    def test_longTokenWaitsForTheContinuation(self) -> None:
        """What does not fit into a command of 512 bytes is sent alone."""
        self.ready(ALL)
        self.assertEqual(self.login(HUGE), b"AUTH OAUTHBEARER\r\n")
        self.assertEqual(self.hear(b"334 \r\n"), HUGE64 + b"\r\n")
        self.hear(b"235 in\r\n")
        self.assertResult(Verdict.ACCEPTED, b"235 in")
        self.assertEqual(self.asked, [])

    def test_malformedChallenge(self) -> None:
        """A challenge that is not base64 is the backend's failure."""
        self.ready(ALL)
        self.login(BEARER)
        self.hear(b"334 !!!\r\n")
        self.assertUnanswered()


class LinesTests(GreetingTests, StartTLSTests, IntroductionTests, LoginTests, ChallengeTests):
    """The same, one line per segment."""

    segments = Segments.LINES


class BytesTests(GreetingTests, StartTLSTests, IntroductionTests, LoginTests, ChallengeTests):
    """The same, one byte per segment."""

    segments = Segments.BYTES


class InjectionTests(SubmissionCase):
    """What depends on the segments that the network makes, and what never ends."""

    def test_repliesInjectedBehindTheConsentAbort(self) -> None:
        """Words in the clear behind STARTTLS's 220 are not taken for the backend's own."""
        self.begin(upgrading(), NAMED)
        self.hear(GREETING)
        self.hear(extensions(b"STARTTLS"))
        self.hear(b"220 go\r\n" + extensions(ALL))
        self.assertFailed(Stage.PREPARE, retry=False)

    def test_endlessReplies(self) -> None:
        """A reply whose last line does not come is not read for ever."""
        self.begin(origin=NAMED)
        self.hear(GREETING)
        self.hear(b"250-\r\n" * 40_000)
        self.assertFailed(Stage.PREPARE)
        self.begin()
        self.hear(b"220 " + b"x" * 1_000_000)
        self.assertFailed(Stage.GREETING)

    def test_factoryMakesClients(self) -> None:
        """The factory makes this conversation."""
        made = SubmissionClientFactory(Network()).buildProtocol(None)
        self.assertIsInstance(made, SubmissionClient)
