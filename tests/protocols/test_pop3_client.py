"""Us as a POP3 client: what a backend may say, and what it hears before and with a login."""

from base64 import b64encode

import attrs

from mailproxy import sasl
from mailproxy.errors import Stage
from mailproxy.origin import Address
from mailproxy.protocols.base import Verdict
from mailproxy.protocols.pop3 import POP3Client, POP3ClientFactory
from tests.protocols.backend import (
    ANN,
    ANN64,
    BEARER,
    BEARER64,
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
from tests.protocols.talk import ORIGIN
from tests.support import Network, Segments

HELLO = b"+OK ready\r\n"
ALL = (b"USER", b"SASL PLAIN LOGIN OAUTHBEARER XOAUTH2")
INTRODUCTION = (
    b"XCLIENT ADDR=198.51.100.7 PORT=40000 DESTADDR=192.0.2.1 DESTPORT=993 "
    b"SESSION=session-one TTL=6 CLIENT-TRANSPORT=insecure\r\n"
)


def capabilities(*lines: bytes) -> bytes:
    """Write the answer to CAPA."""
    return b"\r\n".join([b"+OK here", *lines, b".", b""])


class POP3Case(BackendCase):
    """A conversation with a POP3 backend."""

    conversation = POP3Client

    def ready(self, *lines: bytes) -> None:
        """Bring a backend with these capabilities to where the login is next."""
        self.begin()
        self.assertEqual(self.hear(HELLO), b"CAPA\r\n")
        self.hear(capabilities(*lines))
        self.assertReady()


class GreetingTests(POP3Case):
    """What a backend says first."""

    def test_capabilitiesAreAskedOnce(self) -> None:
        """Then the login is next."""
        self.ready(*ALL)

    def test_backendWithoutCAPA(self) -> None:
        """It has USER and PASS."""
        self.begin()
        self.hear(HELLO)
        self.hear(b"-ERR unknown command\r\n")
        self.assertReady()
        self.assertEqual(self.login(), b"USER ann\r\n")

    def test_errorMayBeTriedAgain(self) -> None:
        """A backend that greets with -ERR is full or stopping."""
        self.begin()
        self.hear(b"-ERR [SYS/TEMP] too many connections\r\n")
        self.assertFailed(Stage.GREETING, retry=True)

    def test_garbage(self) -> None:
        """Another protocol's greeting is a failure."""
        for greeting in (b"* OK hi\r\n", b"220 hi\r\n", b"\r\n", b"+ hi\r\n"):
            self.begin()
            self.hear(greeting)
            self.assertFailed(Stage.GREETING)


class StartTLSTests(POP3Case):
    """STLS on the backend's leg."""

    def test_capabilitiesAreAskedAgain(self) -> None:
        """What was said before TLS does not count."""
        self.begin(upgrading())
        self.assertEqual(self.hear(HELLO), b"CAPA\r\n")
        self.assertEqual(self.hear(capabilities(b"STLS", *ALL)), b"STLS\r\n")
        self.assertEqual(self.consent(b"+OK go\r\n"), b"CAPA\r\n")
        self.hear(capabilities(b"USER"))
        self.assertReady()
        self.assertEqual(self.login(), b"USER ann\r\n")

    def test_attackerWhoStripsTheOfferGetsNothing(self) -> None:
        """No offer, no login."""
        self.begin(upgrading())
        self.hear(HELLO)
        self.assertEqual(self.hear(capabilities(*ALL)), b"")
        self.assertFailed(Stage.PREPARE, retry=False)

    def test_attackerWhoRefusesGetsNothing(self) -> None:
        """STLS that is refused ends it."""
        self.begin(upgrading())
        self.hear(HELLO)
        self.hear(capabilities(b"STLS", *ALL))
        self.assertEqual(self.hear(b"-ERR not today\r\n"), b"")
        self.assertFailed(Stage.PREPARE, retry=False)


class IntroductionTests(POP3Case):
    """XCLIENT: who the client is."""

    def test_invitedProxySpeaksForItsClient(self) -> None:
        """Behind the capabilities, before the login, with one hop less."""
        self.begin(XCLIENT)
        self.assertEqual(self.hear(b"+OK [XCLIENT] ready\r\n"), b"CAPA\r\n")
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
        self.hear(b"+OK [XCLIENT] ready\r\n")
        self.hear(capabilities(*ALL))
        self.hear(b"-ERR not you\r\n")
        self.assertFailed(Stage.PREPARE)

    def test_wordsCannotBeInjected(self) -> None:
        """What came from elsewhere is in xtext."""
        origin = attrs.evolve(ORIGIN, session='a+b=(c)"{9}', client=Address("2001:db8::7", 1))
        self.begin(XCLIENT, origin)
        self.hear(b"+OK [XCLIENT] ready\r\n")
        heard = self.hear(capabilities(*ALL))
        self.assertIn(b" SESSION=a+2Bb+3D+28c+29+22+7B9+7D TTL=", heard)
        self.assertIn(b" ADDR=2001:db8::7 ", heard)


class LoginTests(POP3Case):
    """How a login is replayed, and what its answer is taken for."""

    def test_plain(self) -> None:
        """One line where PLAIN is offered; the answer is passed on."""
        self.ready(*ALL)
        self.assertEqual(self.login(), b"AUTH PLAIN %b\r\n" % ANN64)
        self.hear(b"+OK 2 messages\r\n")
        self.assertResult(Verdict.ACCEPTED, b"+OK 2 messages")

    def test_emptyChallengeBehindTheInitialResponse(self) -> None:
        """A backend that asks once more has not understood: the password is not said twice."""
        self.ready(*ALL)
        self.login()
        self.assertEqual(self.hear(b"+ \r\n"), b"*\r\n")
        self.hear(b"-ERR cancelled\r\n")
        self.assertResult(Verdict.REFUSED, b"-ERR cancelled")

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

    def test_commandsCannotBeInjected(self) -> None:
        """A name or password with a line end has no place in USER and PASS: nothing is sent."""
        for user, password in (
            (b"ann\r\nDELE 1", b"x"),
            (b"ann\nDELE 1", b"x"),
            (b"ann", b"x\r\nDELE 1"),
            (b"ann", b"x\rDELE 1"),
        ):
            self.ready(b"USER")
            self.assertEqual(self.login(sasl.fromPassword(user, password)), b"")
            self.assertUnanswered(Stage.UNSUPPORTED)
            self.ready(*ALL)
            line = b64encode(b"\0%b\0%b" % (user, password))
            heard = self.login(sasl.fromPassword(user, password))
            self.assertEqual(heard, b"AUTH PLAIN %b\r\n" % line)

    def test_loginMechanism(self) -> None:
        """A backend that has only that gets it."""
        self.ready(b"SASL LOGIN")
        self.assertEqual(self.login(), b"AUTH LOGIN %b\r\n" % b64encode(b"ann"))
        self.assertEqual(self.hear(b"+ UGFzc3dvcmQ6\r\n"), b64encode(b"secret") + b"\r\n")
        self.hear(b"+OK in\r\n")
        self.assertResult(Verdict.ACCEPTED, b"+OK in")

    def test_noWayToLogIn(self) -> None:
        """What the backend cannot take is not sent in any form."""
        for line, credentials in (
            (b"SASL CRAM-MD5", ANN),
            (b"USER", MASTER),
            (b"SASL LOGIN", MASTER),
            (b"SASL PLAIN XOAUTH2", BEARER),
        ):
            self.ready(line)
            self.assertEqual(self.login(credentials), b"", line)
            self.assertUnanswered(Stage.UNSUPPORTED)

    def test_refusals(self) -> None:
        """An error is a refusal, unless its code says nothing of the password."""
        for reply, verdict in (
            (b"-ERR [AUTH] no", Verdict.REFUSED),
            (b"-ERR", Verdict.REFUSED),
            (b"-ERR the word [SYS/TEMP] in a text", Verdict.REFUSED),
            (b"-ERR [SYS/TEMP] later", Verdict.TEMPORARY),
            (b"-ERR [sys/temp] later", Verdict.TEMPORARY),
            (b"-ERR [SYS/PERM] broken", Verdict.TEMPORARY),
            (b"-ERR [IN-USE] locked", Verdict.TEMPORARY),
            (b"-ERR [LOGIN-DELAY] slowly", Verdict.TEMPORARY),
        ):
            self.ready(*ALL)
            self.login()
            self.hear(reply + b"\r\n")
            self.assertResult(verdict, reply)

    def test_nonsenseIsNoAnswer(self) -> None:
        """Neither is a backend that leaves."""
        self.ready(*ALL)
        self.login()
        self.hear(b"250 OK\r\n")
        self.assertUnanswered()
        self.ready(*ALL)
        self.login()
        self.backend.hangUp()
        self.network.pump()
        self.assertUnanswered()

    def test_secretsComeLast(self) -> None:
        """Up to the login's own line nothing that a backend hears holds a secret."""
        self.begin(XCLIENT)
        heard = self.hear(b"+OK [XCLIENT] ready\r\n") + self.hear(capabilities(b"USER"))
        heard += self.hear(b"+OK\r\n") + self.login()
        for secret in SECRETS:
            self.assertNotIn(secret, heard)


class ChallengeTests(POP3Case):
    """OAuth: the backend's error challenge."""

    def test_challengeIsPutAndItsAnswerSent(self) -> None:
        """Both directions without base64; the refusal after it is the answer to the login."""
        for credentials, answer in ((BEARER, b"\1"), (XOAUTH2, b"")):
            self.ready(*ALL)
            self.challengeAnswer = answer
            self.login(credentials)
            sent = self.hear(b"+ eyJzdGF0dXMiOiI0MDEifQ==\r\n")
            self.assertEqual(self.asked, [b'{"status":"401"}'])
            self.assertEqual(sent, b64encode(answer) + b"\r\n")
            self.hear(b"-ERR [AUTH] bad token\r\n")
            self.assertResult(Verdict.REFUSED, b"-ERR [AUTH] bad token")

    def test_noAnswerCancels(self) -> None:
        """A client that cancels makes us cancel."""
        self.ready(*ALL)
        self.login(BEARER)
        self.assertEqual(self.hear(b"+ e30=\r\n"), b"*\r\n")

    def test_longTokenWaitsForTheContinuation(self) -> None:
        """What does not fit into a command of 255 bytes is sent alone."""
        self.ready(*ALL)
        self.assertEqual(self.login(HUGE), b"AUTH OAUTHBEARER\r\n")
        self.assertEqual(self.hear(b"+ \r\n"), HUGE64 + b"\r\n")
        self.hear(b"+OK in\r\n")
        self.assertResult(Verdict.ACCEPTED, b"+OK in")
        self.assertEqual(self.asked, [])

    def test_shortTokenGoesAtOnce(self) -> None:
        """255 bytes are the limit, line end included."""
        self.ready(*ALL)
        self.assertEqual(self.login(BEARER), b"AUTH OAUTHBEARER %b\r\n" % BEARER64)

    def test_malformedChallenge(self) -> None:
        """A challenge that is not base64 is the backend's failure."""
        self.ready(*ALL)
        self.login(BEARER)
        self.hear(b"+ !!!\r\n")
        self.assertUnanswered()


class LinesTests(GreetingTests, StartTLSTests, IntroductionTests, LoginTests, ChallengeTests):
    """The same, one line per segment."""

    segments = Segments.LINES


class BytesTests(GreetingTests, StartTLSTests, IntroductionTests, LoginTests, ChallengeTests):
    """The same, one byte per segment."""

    segments = Segments.BYTES


class InjectionTests(POP3Case):
    """What depends on the segments that the network makes, and what never ends."""

    def test_responsesInjectedBehindTheConsentAbort(self) -> None:
        """Words in the clear behind STLS's +OK are not taken for the backend's own."""
        self.begin(upgrading())
        self.hear(HELLO)
        self.hear(capabilities(b"STLS"))
        self.hear(b"+OK go\r\n" + capabilities(*ALL))
        self.assertFailed(Stage.PREPARE, retry=False)

    def test_endlessLists(self) -> None:
        """Neither a long list of capabilities nor one of empty lines is read for ever."""
        for line in (b"X" * 100, b""):
            self.begin()
            self.hear(HELLO)
            self.hear(b"+OK here\r\n" + (line + b"\r\n") * 40_000)
            self.assertFailed(Stage.PREPARE)

    def test_factoryMakesClients(self) -> None:
        """The factory makes this conversation."""
        self.assertIsInstance(POP3ClientFactory(Network()).buildProtocol(None), POP3Client)
