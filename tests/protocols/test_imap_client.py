"""Us as an IMAP client: what a backend may say, and what it hears before and with a login."""

from base64 import b64encode

import attrs

from mailproxy import sasl
from mailproxy.errors import Stage
from mailproxy.protocols.base import Verdict
from mailproxy.protocols.imap import IMAPClient, IMAPClientFactory
from tests.protocols import clientcontract as contract
from tests.protocols.backend import (
    ANN,
    ANN64,
    BEARER,
    BEARER64,
    MASTER,
    PLAINTEXT,
    XCLIENT,
    ClientCase,
    upgrading,
)
from tests.protocols.talk import ORIGIN
from tests.protocols.words import ClientWords, Exchange
from tests.support import Segments

ALL = b"IMAP4rev1 SASL-IR LITERAL+ ID AUTH=PLAIN AUTH=OAUTHBEARER AUTH=XOAUTH2"

WORDS = ClientWords(
    factory=IMAPClientFactory,
    exchange=Exchange(b"P1 AUTHENTICATE %b"),
    tag=b"P1 ",
    garbage=(b"+OK POP3 here\r\n", b"\r\n", b"* NO no\r\n", b"a OK hi\r\n", b"220 x\r\n"),
    full=(b"* BYE too many connections\r\n", b"* BYE [UNAVAILABLE] later\r\n"),
    all=(ALL,),
    offer=b"STARTTLS",
    startTLS=b"P1 STARTTLS\r\n",
    consent=b"P1 OK [CAPABILITY IMAP4rev1 AUTH=PLAIN SASL-IR] go\r\n",
    dissent=b"P1 NO not today\r\n",
    injected=b"* CAPABILITY IMAP4rev1 AUTH=PLAIN\r\n",
    again=b"P2 CAPABILITY\r\n",
    accepted=(
        (b"", b"OK in"),
        (b"* CAPABILITY IMAP4rev1 IDLE\r\n* OK news\r\n", b"OK [ALERT] in"),
        (b"* X {12}\r\nP1 NO evil\r\n tail\r\n", b"OK in"),  # a literal may hold anything
    ),
    verdicts=(
        (b"NO [AUTHENTICATIONFAILED] no", Verdict.REFUSED),
        (b"NO go away", Verdict.REFUSED),
        (b"NO [EXPIRED] old", Verdict.REFUSED),
        (b"NO [AuthorizationFailed] not you", Verdict.REFUSED),
        (b"NO [ALERT] wrong, and here is why", Verdict.REFUSED),
        (b"NO [X-OUR-OWN 7] no", Verdict.REFUSED),
        (b"NO [CONTACTADMIN] hm", Verdict.TEMPORARY),
        (b"BAD what?", Verdict.TEMPORARY),
        (b"NO [UNAVAILABLE] later", Verdict.TEMPORARY),
        (b"NO [inuse] later", Verdict.TEMPORARY),
        (b"NO [LIMIT] later", Verdict.TEMPORARY),
        (b"NO the word [UNAVAILABLE] in a text", Verdict.REFUSED),
        (b"NO xUNAVAILABLE] later", Verdict.REFUSED),
        (b"NO [UNAVAILABLE later", Verdict.REFUSED),
    ),
    nonsense=(
        b"P1 MAYBE\r\n",
        b"a OK in\r\n",  # it might be the client's own tag
        b"P0 OK in\r\n",
        b"garbage\r\n",
        b"\r\n",
    ),
    useless=(
        (b"IMAP4rev1 LOGINDISABLED", ANN),
        (b"IMAP4rev1", MASTER),
        (b"IMAP4rev1 AUTH=LOGIN", MASTER),
    ),
)


class IMAPCase(ClientCase):
    """A conversation with an IMAP backend."""

    conversation = IMAPClient
    words = WORDS

    def tell(self, *capabilities: bytes) -> bytes:
        """In the greeting."""
        return self.hear(b"* OK [CAPABILITY %b] ready\r\n" % b" ".join(capabilities))

    def tellAgain(self, *capabilities: bytes) -> None:
        """When asked."""
        self.hear(b"* CAPABILITY %b\r\nP2 OK done\r\n" % b" ".join(capabilities))

    def offering(self, *mechanisms: bytes) -> tuple[bytes, ...]:
        """A capability for each, and no LOGIN command."""
        words = [b"AUTH=" + mechanism for mechanism in mechanisms]
        return (b"IMAP4rev1", b"SASL-IR", b"LOGINDISABLED", *words)

    def introduced(self, *capabilities: bytes) -> bytes:
        """By ID."""
        self.begin(XCLIENT)
        heard = self.tell(b"ID", *capabilities) + self.hear(b"* ID NIL\r\nP1 OK done\r\n")
        self.assertReady()
        return heard


class GreetingTests(contract.GreetingContract, IMAPCase):
    """What a backend says first."""

    def test_capabilitiesAreAsked(self) -> None:
        """Who has not told is asked."""
        self.begin()
        self.assertEqual(self.hear(b"* OK hi\r\n"), b"P1 CAPABILITY\r\n")
        self.hear(b"* CAPABILITY IMAP4rev1 AUTH=PLAIN\r\nP1 OK done\r\n")
        self.assertReady()
        self.assertEqual(self.login(), b"P2 AUTHENTICATE PLAIN\r\n")

    def test_strangersSessionIsNotUsed(self) -> None:
        """PREAUTH is a session of nobody knows whom: our client must not get it."""
        self.begin()
        self.hear(b"* PREAUTH welcome, root\r\n")
        self.assertFailed(Stage.GREETING, retry=False)


class StartTLSTests(contract.StartTLSContract, IMAPCase):
    """STARTTLS on the backend's leg: asked for, and never done without."""

    def test_attackerWhoHidesTheOfferGetsNothing(self) -> None:
        """Nor is STARTTLS done without where a backend that is asked does not offer it."""
        self.begin(upgrading())
        self.assertEqual(self.hear(b"* OK hi\r\n"), b"P1 CAPABILITY\r\n")
        self.assertEqual(self.hear(b"* CAPABILITY IMAP4rev1 ID\r\nP1 OK done\r\n"), b"")
        self.assertFailed(Stage.PREPARE, retry=False)


class InjectionTests(contract.InjectionContract, IMAPCase):
    """What depends on the segments that the network makes."""

    def test_endlessLine(self) -> None:
        """A megabyte without a line end is refused long before its end."""
        self.begin()
        self.hear(b"* OK " + b"x" * 1_000_000)
        self.assertFailed(Stage.GREETING)

    def test_endlessLiteral(self) -> None:
        """A literal that is announced as too large is not waited for."""
        self.begin()
        self.hear(b"* OK hi {100000}\r\n")
        self.assertFailed(Stage.GREETING)

    def test_endlessPreamble(self) -> None:
        """Untagged lines without end before the answer are no answer."""
        self.ready(ALL)
        self.login()
        self.hear(b"* OK and another thing\r\n" * 5000)
        self.assertUnanswered()


class IntroductionTests(IMAPCase):
    """ID: who the client is."""

    GREETING = b"* OK [CAPABILITY IMAP4rev1 ID AUTH=PLAIN] hi\r\n"
    DESCRIBED = attrs.evolve(
        ORIGIN, description=((b"name", b'mu"tt'), (b"os", None), (b"vendor", b"\xe4"))
    )

    def test_oursAndTheClientsOwn(self) -> None:
        """The client's own fields, then what we know of it, with one hop less."""
        self.begin(XCLIENT, self.DESCRIBED)
        self.assertEqual(
            self.hear(self.GREETING),
            b'P1 ID ("name" "mu\\"tt" "os" NIL '
            b'"x-originating-ip" "198.51.100.7" "x-originating-port" "40000" '
            b'"x-connected-ip" "192.0.2.1" "x-connected-port" "993" '
            b'"x-proxy-ttl" "6" "x-session-id" "session-one" '
            b'"x-client-transport" "insecure")\r\n',
        )
        self.hear(b"* ID NIL\r\nP1 OK done\r\n")
        self.assertReady()

    def test_onlyTheClientsOwn(self) -> None:
        """Without forwarding, what the client has said of itself is sent on all the same."""
        self.begin(PLAINTEXT, self.DESCRIBED)
        self.assertEqual(self.hear(self.GREETING), b'P1 ID ("name" "mu\\"tt" "os" NIL)\r\n')
        self.hear(b"P1 OK done\r\n")
        self.assertReady()

    def test_nothingToSay(self) -> None:
        """A client that has said nothing is not introduced."""
        self.begin()
        self.assertEqual(self.hear(self.GREETING), b"")
        self.assertReady()

    def test_backendWithoutID(self) -> None:
        """Who does not advertise ID gets none."""
        self.begin(XCLIENT, self.DESCRIBED)
        self.assertEqual(self.hear(b"* OK [CAPABILITY IMAP4rev1 AUTH=PLAIN] hi\r\n"), b"")
        self.assertReady()

    def test_refusedIDDoesNotMatter(self) -> None:
        """A backend that does not want to know is used all the same."""
        self.begin(XCLIENT)
        self.hear(self.GREETING)
        self.hear(b"P1 BAD what?\r\n")
        self.assertReady()


class LoginTests(contract.LoginContract, IMAPCase):
    """How a login is replayed, and what its answer is taken for."""

    def test_continuation(self) -> None:
        """Without SASL-IR the secret is sent only when the backend asks for it."""
        self.ready(b"IMAP4rev1 AUTH=PLAIN")
        self.assertEqual(self.login(), b"P1 AUTHENTICATE PLAIN\r\n")
        self.assertEqual(self.hear(b"* OK wait\r\n"), b"")
        self.assertEqual(self.hear(b"+ \r\n"), ANN64 + b"\r\n")
        self.hear(b"P1 OK in\r\n")
        self.assertResult(Verdict.ACCEPTED, b"OK in", b"* OK wait\r\n")

    def test_bareContinuation(self) -> None:
        """A `+` without its space is understood: some servers write it so."""
        self.ready(b"IMAP4rev1 AUTH=PLAIN")
        self.login()
        self.assertEqual(self.hear(b"+\r\n"), ANN64 + b"\r\n")

    def test_refusedBeforeTheSecretIsSent(self) -> None:
        """A backend that refuses the mechanism hears no secret."""
        self.ready(b"IMAP4rev1 AUTH=PLAIN")
        self.login()
        self.assertEqual(self.hear(b"P1 NO not that way\r\n"), b"")
        self.assertResult(Verdict.REFUSED, b"NO not that way")

    def test_plainLoginCommand(self) -> None:
        """A backend without AUTH=PLAIN gets LOGIN, quoted where that suffices."""
        self.ready(b"IMAP4rev1")
        credentials = sasl.fromPassword(b"ann o'neil", b'se"c\\ret')
        self.assertEqual(self.login(credentials), b'P1 LOGIN "ann o\'neil" "se\\"c\\\\ret"\r\n')
        self.hear(b"P1 OK in\r\n")
        self.assertResult(Verdict.ACCEPTED, b"OK in")

    def test_loginCommandWithLiterals(self) -> None:
        """What cannot be quoted goes as literals, each after the backend's consent."""
        self.ready(b"IMAP4rev1")
        user, password = "änn".encode(), b"se\ncret"
        self.assertEqual(self.login(sasl.fromPassword(user, password)), b"P1 LOGIN {4}\r\n")
        self.assertEqual(self.hear(b"* OK one moment\r\n+ go\r\n"), user + b" {7}\r\n")
        self.assertEqual(self.hear(b"+ go\r\n"), password + b"\r\n")
        self.hear(b"P1 OK in\r\n")
        self.assertResult(Verdict.ACCEPTED, b"OK in", b"* OK one moment\r\n")

    def test_loginCommandWithOneLiteral(self) -> None:
        """Literal and quoted string mix in either order."""
        self.ready(b"IMAP4rev1")
        self.assertEqual(
            self.login(sasl.fromPassword(b"ann", "schlüssel".encode())),
            b'P1 LOGIN "ann" {10}\r\n',
        )
        self.assertEqual(self.hear(b"+ go\r\n"), "schlüssel\r\n".encode())
        self.ready(b"IMAP4rev1")
        self.assertEqual(self.login(sasl.fromPassword(b"\xe4", b"secret")), b"P1 LOGIN {1}\r\n")
        self.assertEqual(self.hear(b"+ go\r\n"), b'\xe4 "secret"\r\n')

    def test_loginCommandWithLiteralsUnasked(self) -> None:
        """With LITERAL+ nobody waits."""
        self.ready(b"IMAP4rev1 LITERAL+")
        self.assertEqual(
            self.login(sasl.fromPassword(b"\xe4", b"\xf6")),
            b"P1 LOGIN {1+}\r\n\xe4 {1+}\r\n\xf6\r\n",
        )

    def test_refusedLiteralIsTheAnswer(self) -> None:
        """A backend may answer in the literal's stead; then no secret was sent."""
        self.ready(b"IMAP4rev1")
        self.login(sasl.fromPassword(b"ann", b"\xe4"))
        self.assertEqual(self.hear(b"P1 NO [UNAVAILABLE] later\r\n"), b"")
        self.assertResult(Verdict.TEMPORARY, b"NO [UNAVAILABLE] later")

    def test_loginMechanismWithoutInitialResponse(self) -> None:
        """A backend with AUTH=LOGIN only, and LOGIN disabled, is asked that way."""
        self.ready(b"IMAP4rev1 LOGINDISABLED AUTH=LOGIN")
        self.assertEqual(self.login(), b"P1 AUTHENTICATE LOGIN\r\n")
        self.assertEqual(self.hear(b"+ VXNlcm5hbWU6\r\n"), b64encode(b"ann") + b"\r\n")
        self.assertEqual(self.hear(b"+ UGFzc3dvcmQ6\r\n"), b64encode(b"secret") + b"\r\n")
        self.hear(b"P1 OK in\r\n")
        self.assertResult(Verdict.ACCEPTED, b"OK in")

    def test_byeThenClosed(self) -> None:
        """A backend that says BYE and goes has not refused the password."""
        self.ready(ALL)
        self.login()
        self.backend.say(b"* BYE shutting down\r\n")
        self.backend.hangUp()
        self.network.pump()
        self.assertUnanswered()

    def test_byeBesideTheAnswerIsOurs(self) -> None:
        """A backend's BYE concerns our connection to it; the client hears the refusal alone."""
        self.ready(ALL)
        self.login()
        self.hear(b"* BYE too many failures\r\nP1 NO no\r\n")
        self.assertResult(Verdict.REFUSED, b"NO no")


class ChallengeTests(contract.ChallengeContract, IMAPCase):
    """OAuth: the backend's error challenge."""

    def test_tokenWithoutInitialResponse(self) -> None:
        """The first `+` asks for the token, the second is the challenge."""
        self.ready(b"IMAP4rev1 AUTH=OAUTHBEARER")
        self.challengeAnswer = b"\1"
        self.assertEqual(self.login(BEARER), b"P1 AUTHENTICATE OAUTHBEARER\r\n")
        self.assertEqual(self.hear(b"+ \r\n"), BEARER64 + b"\r\n")
        self.assertEqual(self.hear(b"+ e30=\r\n"), b"AQ==\r\n")
        self.assertEqual(self.asked, [b"{}"])


class LinesTests(GreetingTests, StartTLSTests, IntroductionTests, LoginTests, ChallengeTests):
    """The same, one line per segment."""

    segments = Segments.LINES


class BytesTests(GreetingTests, StartTLSTests, IntroductionTests, LoginTests, ChallengeTests):
    """The same, one byte per segment."""

    segments = Segments.BYTES


class FactoryTests(contract.FactoryContract, IMAPCase):
    """What a dialled connection is."""
