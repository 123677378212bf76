"""Us as a POP3 client: what a backend may say, and what it hears before and with a login."""

import attrs

from mailproxy import sasl
from mailproxy.errors import Stage
from mailproxy.origin import Address
from mailproxy.protocols.base import Verdict
from mailproxy.protocols.pop3 import POP3Client, POP3ClientFactory
from tests.protocols import clientcontract as contract
from tests.protocols.backend import MASTER, PLAINTEXT, XCLIENT, ClientCase
from tests.protocols.talk import ORIGIN
from tests.protocols.words import ClientWords, Exchange
from tests.support import Segments

HELLO = b"+OK ready\r\n"
INVITATION = b"+OK [XCLIENT] ready\r\n"
ALL = (b"USER", b"SASL PLAIN LOGIN OAUTHBEARER XOAUTH2")
INTRODUCTION = (
    b"XCLIENT ADDR=198.51.100.7 PORT=40000 DESTADDR=192.0.2.1 DESTPORT=993 "
    b"SESSION=session-one TTL=6 CLIENT-TRANSPORT=insecure\r\n"
)


def capabilities(*lines: bytes) -> bytes:
    """Write the answer to CAPA."""
    return b"\r\n".join([b"+OK here", *lines, b".", b""])


WORDS = ClientWords(
    factory=POP3ClientFactory,
    exchange=Exchange(b"AUTH %b"),
    garbage=(b"* OK hi\r\n", b"220 hi\r\n", b"\r\n", b"+ hi\r\n"),
    full=(b"-ERR [SYS/TEMP] too many connections\r\n", b"-ERR\r\n"),
    all=ALL,
    offer=b"STLS",
    startTLS=b"STLS\r\n",
    consent=b"+OK go\r\n",
    dissent=b"-ERR not today\r\n",
    injected=capabilities(*ALL),
    again=b"CAPA\r\n",
    accepted=((b"", b"+OK 2 messages"), (b"", b"+OK")),
    verdicts=(
        (b"-ERR [AUTH] no", Verdict.REFUSED),
        (b"-ERR", Verdict.REFUSED),
        (b"-ERR the word [SYS/TEMP] in a text", Verdict.REFUSED),
        (b"-ERR [SYS/TEMP] later", Verdict.TEMPORARY),
        (b"-ERR [sys/temp] later", Verdict.TEMPORARY),
        (b"-ERR [SYS/PERM] broken", Verdict.TEMPORARY),
        (b"-ERR [IN-USE] locked", Verdict.TEMPORARY),
        (b"-ERR [LOGIN-DELAY] slowly", Verdict.TEMPORARY),
    ),
    nonsense=(b"250 OK\r\n", b"* OK in\r\n", b"\r\n"),
    useless=((b"USER", MASTER),),
)


class POP3Case(ClientCase):
    """A conversation with a POP3 backend."""

    conversation = POP3Client
    words = WORDS

    def tell(self, *lines: bytes) -> bytes:
        """By CAPA's answer."""
        self.assertEqual(self.hear(HELLO), b"CAPA\r\n")
        return self.hear(capabilities(*lines))

    def tellAgain(self, *lines: bytes) -> None:
        """By the same."""
        self.hear(capabilities(*lines))

    def offering(self, *mechanisms: bytes) -> tuple[bytes, ...]:
        """SASL's line alone."""
        return (b"SASL " + b" ".join(mechanisms),)

    def introduced(self, *lines: bytes) -> bytes:
        """By XCLIENT, behind the capabilities."""
        self.begin(XCLIENT)
        heard = self.hear(INVITATION) + self.hear(capabilities(*lines)) + self.hear(b"+OK\r\n")
        self.assertReady()
        return heard


class GreetingTests(contract.GreetingContract, POP3Case):
    """What a backend says first."""

    def test_backendWithoutCAPA(self) -> None:
        """It has USER and PASS."""
        self.begin()
        self.hear(HELLO)
        self.hear(b"-ERR unknown command\r\n")
        self.assertReady()
        self.assertEqual(self.login(), b"USER ann\r\n")


class StartTLSTests(contract.StartTLSContract, POP3Case):
    """STLS on the backend's leg."""


class IntroductionTests(POP3Case):
    """XCLIENT: who the client is."""

    def test_invitedProxySpeaksForItsClient(self) -> None:
        """Behind the capabilities, before the login, with one hop less."""
        self.begin(XCLIENT)
        self.assertEqual(self.hear(INVITATION), b"CAPA\r\n")
        self.assertEqual(self.hear(capabilities(*ALL)), INTRODUCTION)
        self.assertNoResult(self.prepared)
        self.hear(b"+OK Updated\r\n")
        self.assertReady()

    def test_onlyWhereBothWant(self) -> None:
        """A backend that does not invite, or an endpoint that does not ask for it: nothing."""
        for settings, greeting in ((XCLIENT, HELLO), (PLAINTEXT, b"+OK [XCLIENT] hi\r\n")):
            self.begin(settings)
            self.hear(greeting)
            self.assertEqual(self.hear(capabilities(*ALL)), b"")
            self.assertReady()

    def test_refusedIntroductionIsAFailure(self) -> None:
        """The backend would take us for the client, and count its failures against us."""
        self.begin(XCLIENT)
        self.hear(INVITATION)
        self.hear(capabilities(*ALL))
        self.hear(b"-ERR not you\r\n")
        self.assertFailed(Stage.PREPARE)

    def test_wordsCannotBeInjected(self) -> None:
        """What came from elsewhere is in xtext."""
        origin = attrs.evolve(ORIGIN, session='a+b=(c)"{9}', client=Address("2001:db8::7", 1))
        self.begin(XCLIENT, origin)
        self.hear(INVITATION)
        heard = self.hear(capabilities(*ALL))
        self.assertIn(b" SESSION=a+2Bb+3D+28c+29+22+7B9+7D TTL=", heard)
        self.assertIn(b" ADDR=2001:db8::7 ", heard)


class LoginTests(contract.LoginContract, POP3Case):
    """How a login is replayed, and what its answer is taken for."""

    def test_userAndPass(self) -> None:
        """A backend without PLAIN gets them, each after its answer."""
        self.ready(b"USER")
        self.assertEqual(self.login(sasl.fromPassword(b"ann", b" a b ")), b"USER ann\r\n")
        self.assertEqual(self.hear(b"+OK\r\n"), b"PASS  a b \r\n")
        self.hear(b"+OK in\r\n")
        self.assertResult(Verdict.ACCEPTED, b"+OK in")

    def test_refusedUserGetsNoPassword(self) -> None:
        """USER's refusal is the login's, temporary or not."""
        for reply, verdict in (
            (b"-ERR no such user", Verdict.REFUSED),
            (b"-ERR [SYS/TEMP] later", Verdict.TEMPORARY),
        ):
            self.ready(b"USER")
            self.login()
            self.assertEqual(self.hear(reply + b"\r\n"), b"")
            self.assertResult(verdict, reply)

    def test_challengeToUserOrPassIsNonsense(self) -> None:
        """There is nothing to be asked; no other way is tried behind it."""
        for replies in (b"+ go on\r\n", b"+OK\r\n+ go on\r\n"):
            self.ready(b"USER", b"SASL LOGIN")
            self.login()
            self.hear(replies)
            self.assertUnanswered()

    def test_linesCannotBeInjectedByUSERAndPASS(self) -> None:
        """A name or password with a line end has no place there: nothing is sent."""
        for user, password in (
            (b"ann\r\nDELE 1", b"x"),
            (b"ann\nDELE 1", b"x"),
            (b"ann", b"x\r\nDELE 1"),
            (b"ann", b"x\rDELE 1"),
        ):
            self.ready(b"USER")
            self.assertEqual(self.login(sasl.fromPassword(user, password)), b"")
            self.assertUnanswered(Stage.UNSUPPORTED)


class ChallengeTests(contract.ChallengeContract, contract.LongTokenContract, POP3Case):
    """OAuth: the backend's error challenge."""


class LinesTests(GreetingTests, StartTLSTests, IntroductionTests, LoginTests, ChallengeTests):
    """The same, one line per segment."""

    segments = Segments.LINES


class BytesTests(GreetingTests, StartTLSTests, IntroductionTests, LoginTests, ChallengeTests):
    """The same, one byte per segment."""

    segments = Segments.BYTES


class InjectionTests(contract.InjectionContract, POP3Case):
    """What depends on the segments that the network makes, and what never ends."""

    def test_endlessLists(self) -> None:
        """Neither a long list of capabilities nor one of empty lines is read for ever."""
        for line in (b"X" * 100, b""):
            self.begin()
            self.hear(HELLO)
            self.hear(b"+OK here\r\n" + (line + b"\r\n") * 40_000)
            self.assertFailed(Stage.PREPARE)


class FactoryTests(contract.FactoryContract, POP3Case):
    """What a dialled connection is."""
