"""Us as an IMAP client: what a backend may say, and what it hears before and with a login."""

from base64 import b64encode
from collections.abc import Coroutine
from typing import Any, ClassVar

import attrs
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from mailproxy import sasl
from mailproxy.errors import BackendFailed, Stage
from mailproxy.origin import Origin
from mailproxy.protocols.base import AuthResult, Verdict
from mailproxy.protocols.client import ClientSettings
from mailproxy.protocols.imap import IMAPClient
from mailproxy.sasl import Credentials, Mechanism
from tests.protocols.backend import PLAINTEXT, upgrading
from tests.protocols.talk import ORIGIN
from tests.support import Network, Peer, Segments

ALL = b"IMAP4rev1 SASL-IR LITERAL+ ID AUTH=PLAIN AUTH=OAUTHBEARER AUTH=XOAUTH2"
ANN = sasl.fromPassword(b"ann", b"secret")
SECRETS = (b"secret", b64encode(ANN.response))
BEARER = sasl.decode(Mechanism.OAUTHBEARER, b"n,a=ann,\1auth=Bearer token\1\1")
XOAUTH2 = sasl.decode(Mechanism.XOAUTH2, b"user=ann\1auth=Bearer token\1\1")


class ClientCase(SynchronousTestCase):
    """A conversation with a backend that the test plays; subclasses cut its bytes otherwise.

    :cvar segments: how what the backend sends arrives.
    """

    segments: ClassVar[Segments] = Segments.WHOLE

    def begin(self, settings: ClientSettings = PLAINTEXT, origin: Origin = ORIGIN) -> None:
        """Connect, and begin to prepare."""
        self.network, self.backend = Network(self.segments), Peer()
        self.client = IMAPClient(self.network)
        self.client.settings, self.client.origin = settings, origin
        self.network.connect(self.backend, self.client)
        self.asked: list[bytes] = []
        self.challengeAnswer: bytes | None = None
        self.prepared = self.run_(self.client.prepare())

    def run_(self, work: Coroutine[Any, Any, Any]) -> "Deferred[Any]":
        """Let a step begin."""
        deferred: Deferred[Any] = Deferred.fromCoroutine(work)
        self.network.pump()
        return deferred

    def hear(self, data: bytes) -> bytes:
        """Let the backend speak; returns what it hears then."""
        self.backend.say(data)
        self.network.pump()
        return self.backend.take()

    def ready(self, capabilities: bytes = ALL, origin: Origin = ORIGIN) -> None:
        """Bring a backend with these capabilities to where the login is next."""
        self.begin(origin=origin)
        self.hear(b"* OK [CAPABILITY %b] ready\r\n" % capabilities)
        self.successResultOf(self.prepared)

    def login(self, credentials: Credentials = ANN) -> bytes:
        """Begin the login; returns what the backend hears."""
        self.answered: Deferred[AuthResult] = self.run_(
            self.client.login(credentials, self._challenge)
        )
        return self.backend.take()

    async def _challenge(self, message: bytes) -> bytes | None:
        self.asked.append(message)
        return self.challengeAnswer

    def assertResult(self, verdict: Verdict, preamble: bytes, reply: bytes) -> None:
        """The login was answered so."""
        result = self.successResultOf(self.answered)
        self.assertEqual(result, AuthResult(verdict, preamble, reply))

    def failure(self, deferred: "Deferred[Any]") -> BackendFailed:
        """The failure that a step ended in."""
        error = self.failureResultOf(deferred, BackendFailed).value
        assert isinstance(error, BackendFailed)
        return error


class GreetingTests(ClientCase):
    """What a backend says first."""

    def test_capabilitiesInTheGreeting(self) -> None:
        """Who has told need not be asked."""
        self.begin()
        self.assertEqual(self.hear(b"* OK [CAPABILITY IMAP4rev1 AUTH=PLAIN] hi\r\n"), b"")
        self.successResultOf(self.prepared)

    def test_capabilitiesAreAsked(self) -> None:
        """Who has not told is asked."""
        self.begin()
        self.assertEqual(self.hear(b"* OK hi\r\n"), b"P1 CAPABILITY\r\n")
        self.hear(b"* CAPABILITY IMAP4rev1 AUTH=PLAIN\r\nP1 OK done\r\n")
        self.successResultOf(self.prepared)
        self.assertEqual(self.login(), b"P2 AUTHENTICATE PLAIN\r\n")

    def test_byeMayBeTriedAgain(self) -> None:
        """A backend that greets with BYE is full or stopping."""
        self.begin()
        self.hear(b"* BYE too many connections\r\n")
        failed = self.failure(self.prepared)
        self.assertEqual((failed.stage, failed.retry), (Stage.GREETING, True))

    def test_strangersSessionIsNotUsed(self) -> None:
        """PREAUTH is a session of nobody knows whom: our client must not get it."""
        self.begin()
        self.hear(b"* PREAUTH welcome, root\r\n")
        failed = self.failure(self.prepared)
        self.assertEqual((failed.stage, failed.retry), (Stage.GREETING, False))

    def test_garbage(self) -> None:
        """Another protocol's greeting is a failure."""
        for greeting in (
            b"+OK POP3 here\r\n",
            b"\r\n",
            b"* NO no\r\n",
            b"a OK hi\r\n",
            b"220 x\r\n",
        ):
            self.begin()
            self.hear(greeting)
            self.assertEqual(self.failure(self.prepared).stage, Stage.GREETING, greeting)

    def test_closedAtOnce(self) -> None:
        """No greeting at all may be tried again."""
        self.begin()
        self.backend.hangUp()
        self.network.pump()
        failed = self.failure(self.prepared)
        self.assertEqual((failed.stage, failed.retry), (Stage.GREETING, True))


class StartTLSTests(ClientCase):
    """STARTTLS on the backend's leg: asked for, and never done without."""

    OFFER = b"* OK [CAPABILITY IMAP4rev1 STARTTLS ID AUTH=PLAIN SASL-IR] hi\r\n"

    def assertAborted(self) -> None:
        """It has failed without a retry, and no secret nor introduction was sent."""
        failed = self.failure(self.prepared)
        self.assertEqual((failed.stage, failed.retry), (Stage.PREPARE, False))
        self.assertNotIn(b"ID", self.backend.received)

    def test_attackerWhoHidesTheOfferGetsNothing(self) -> None:
        """STARTTLS that is not offered, in greeting or answer, ends it."""
        self.begin(upgrading())
        self.assertEqual(self.hear(b"* OK [CAPABILITY IMAP4rev1 AUTH=PLAIN] hi\r\n"), b"")
        self.assertAborted()
        self.begin(upgrading())
        self.assertEqual(self.hear(b"* OK hi\r\n"), b"P1 CAPABILITY\r\n")
        self.assertEqual(self.hear(b"* CAPABILITY IMAP4rev1\r\nP1 OK done\r\n"), b"")
        self.assertAborted()

    def test_attackerWhoRefusesGetsNothing(self) -> None:
        """STARTTLS that is refused ends it."""
        self.begin(upgrading())
        self.assertEqual(self.hear(self.OFFER), b"P1 STARTTLS\r\n")
        self.assertEqual(self.hear(b"P1 NO not today\r\n"), b"")
        self.assertAborted()

    def test_capabilitiesAreAskedAgain(self) -> None:
        """What was said before TLS does not count, what the OK itself says neither."""
        self.begin(upgrading())
        self.assertEqual(self.hear(self.OFFER), b"P1 STARTTLS\r\n")
        self.backend.say(b"P1 OK [CAPABILITY IMAP4rev1 AUTH=PLAIN SASL-IR] go\r\n")
        self.backend.startTLS()
        self.network.pump()
        self.assertTrue(self.client.secure)
        self.assertEqual(self.backend.take(), b"P2 CAPABILITY\r\n")
        self.hear(b"* CAPABILITY IMAP4rev1 AUTH=PLAIN\r\nP2 OK done\r\n")
        self.successResultOf(self.prepared)
        self.assertEqual(self.login(), b"P3 AUTHENTICATE PLAIN\r\n")


class InjectionTests(ClientCase):
    """What depends on the segments that the network makes."""

    def test_responsesInjectedBehindTheConsentAbort(self) -> None:
        """Words in the clear behind STARTTLS's OK are not taken for the backend's own."""
        self.begin(upgrading())
        self.hear(StartTLSTests.OFFER)
        self.hear(b"P1 OK go\r\n* CAPABILITY IMAP4rev1 AUTH=PLAIN\r\n")
        failed = self.failure(self.prepared)
        self.assertEqual((failed.stage, failed.retry), (Stage.PREPARE, False))

    def test_endlessLine(self) -> None:
        """A megabyte without a line end is refused long before its end."""
        self.begin()
        self.hear(b"* OK " + b"x" * 1_000_000)
        self.assertEqual(self.failure(self.prepared).stage, Stage.GREETING)

    def test_endlessLiteral(self) -> None:
        """A literal that is announced as too large is not waited for."""
        self.begin()
        self.hear(b"* OK hi {100000}\r\n")
        self.assertEqual(self.failure(self.prepared).stage, Stage.GREETING)

    def test_endlessPreamble(self) -> None:
        """Untagged lines without end before the answer are no answer."""
        self.ready()
        self.login()
        self.hear(b"* OK and another thing\r\n" * 5000)
        self.assertEqual(self.failure(self.answered).stage, Stage.LOGIN)


class IntroductionTests(ClientCase):
    """ID: who the client is."""

    XCLIENT = attrs.evolve(PLAINTEXT, introduces=True)
    GREETING = b"* OK [CAPABILITY IMAP4rev1 ID AUTH=PLAIN] hi\r\n"
    DESCRIBED = attrs.evolve(
        ORIGIN, description=((b"name", b'mu"tt'), (b"os", None), (b"vendor", b"\xe4"))
    )

    def test_oursAndTheClientsOwn(self) -> None:
        """The client's own fields, then what we know of it, with one hop less."""
        self.begin(self.XCLIENT, self.DESCRIBED)
        self.assertEqual(
            self.hear(self.GREETING),
            b'P1 ID ("name" "mu\\"tt" "os" NIL '
            b'"x-originating-ip" "198.51.100.7" "x-originating-port" "40000" '
            b'"x-connected-ip" "192.0.2.1" "x-connected-port" "993" '
            b'"x-proxy-ttl" "6" "x-session-id" "session-one" '
            b'"x-client-transport" "insecure")\r\n',
        )
        self.hear(b"* ID NIL\r\nP1 OK done\r\n")
        self.successResultOf(self.prepared)

    def test_onlyTheClientsOwn(self) -> None:
        """Without forwarding, what the client has said of itself is sent on all the same."""
        self.begin(PLAINTEXT, self.DESCRIBED)
        self.assertEqual(self.hear(self.GREETING), b'P1 ID ("name" "mu\\"tt" "os" NIL)\r\n')
        self.hear(b"P1 OK done\r\n")
        self.successResultOf(self.prepared)

    def test_nothingToSay(self) -> None:
        """A client that has said nothing is not introduced."""
        self.begin()
        self.assertEqual(self.hear(self.GREETING), b"")
        self.successResultOf(self.prepared)

    def test_backendWithoutID(self) -> None:
        """Who does not advertise ID gets none."""
        self.begin(self.XCLIENT, self.DESCRIBED)
        self.assertEqual(self.hear(b"* OK [CAPABILITY IMAP4rev1 AUTH=PLAIN] hi\r\n"), b"")
        self.successResultOf(self.prepared)

    def test_refusedIDDoesNotMatter(self) -> None:
        """A backend that does not want to know is used all the same."""
        self.begin(self.XCLIENT)
        self.hear(self.GREETING)
        self.hear(b"P1 BAD what?\r\n")
        self.successResultOf(self.prepared)


class LoginTests(ClientCase):
    """How a login is replayed, and what its answer is taken for."""

    def test_initialResponse(self) -> None:
        """With SASL-IR the login is one line, and the answer is passed on without its tag."""
        self.ready()
        line = b"P1 AUTHENTICATE PLAIN %b\r\n" % b64encode(b"\0ann\0secret")
        self.assertEqual(self.login(), line)
        self.hear(b"* CAPABILITY IMAP4rev1 IDLE\r\n* OK news\r\nP1 OK [ALERT] in\r\n")
        self.assertResult(
            Verdict.ACCEPTED, b"* CAPABILITY IMAP4rev1 IDLE\r\n* OK news\r\n", b"OK [ALERT] in"
        )

    def test_continuation(self) -> None:
        """Without SASL-IR the secret is sent only when the backend asks for it."""
        self.ready(b"IMAP4rev1 AUTH=PLAIN")
        self.assertEqual(self.login(), b"P1 AUTHENTICATE PLAIN\r\n")
        self.assertEqual(self.hear(b"* OK wait\r\n"), b"")
        self.assertEqual(self.hear(b"+ \r\n"), b64encode(b"\0ann\0secret") + b"\r\n")
        self.hear(b"P1 OK in\r\n")
        self.assertResult(Verdict.ACCEPTED, b"* OK wait\r\n", b"OK in")

    def test_bareContinuation(self) -> None:
        """A `+` without its space is understood: some servers write it so."""
        self.ready(b"IMAP4rev1 AUTH=PLAIN")
        self.login()
        self.assertEqual(self.hear(b"+\r\n"), b64encode(b"\0ann\0secret") + b"\r\n")

    def test_refusedBeforeTheSecretIsSent(self) -> None:
        """A backend that refuses the mechanism hears no secret."""
        self.ready(b"IMAP4rev1 AUTH=PLAIN")
        self.login()
        self.assertEqual(self.hear(b"P1 NO not that way\r\n"), b"")
        self.assertResult(Verdict.REFUSED, b"", b"NO not that way")

    def test_literalsInTheAnswer(self) -> None:
        """An untagged response with a literal is one response, whatever the literal holds."""
        self.ready()
        self.login()
        self.hear(b"* X {12}\r\nP1 NO evil\r\n tail\r\nP1 OK in\r\n")
        self.assertResult(Verdict.ACCEPTED, b"* X {12}\r\nP1 NO evil\r\n tail\r\n", b"OK in")

    def test_plainLoginCommand(self) -> None:
        """A backend without AUTH=PLAIN gets LOGIN, quoted where that suffices."""
        self.ready(b"IMAP4rev1")
        credentials = sasl.fromPassword(b"ann o'neil", b'se"c\\ret')
        self.assertEqual(self.login(credentials), b'P1 LOGIN "ann o\'neil" "se\\"c\\\\ret"\r\n')
        self.hear(b"P1 OK in\r\n")
        self.assertResult(Verdict.ACCEPTED, b"", b"OK in")

    def test_loginCommandWithLiterals(self) -> None:
        """What cannot be quoted goes as literals, each after the backend's consent."""
        self.ready(b"IMAP4rev1")
        user, password = "änn".encode(), b"se\ncret"
        self.assertEqual(self.login(sasl.fromPassword(user, password)), b"P1 LOGIN {4}\r\n")
        self.assertEqual(self.hear(b"* OK one moment\r\n+ go\r\n"), user + b" {7}\r\n")
        self.assertEqual(self.hear(b"+ go\r\n"), password + b"\r\n")
        self.hear(b"P1 OK in\r\n")
        self.assertResult(Verdict.ACCEPTED, b"* OK one moment\r\n", b"OK in")

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
        self.assertResult(Verdict.TEMPORARY, b"", b"NO [UNAVAILABLE] later")

    def test_loginMechanism(self) -> None:
        """A backend with AUTH=LOGIN only, and LOGIN disabled, is asked that way."""
        self.ready(b"IMAP4rev1 LOGINDISABLED AUTH=LOGIN")
        self.assertEqual(self.login(), b"P1 AUTHENTICATE LOGIN\r\n")
        self.assertEqual(self.hear(b"+ VXNlcm5hbWU6\r\n"), b64encode(b"ann") + b"\r\n")
        self.assertEqual(self.hear(b"+ UGFzc3dvcmQ6\r\n"), b64encode(b"secret") + b"\r\n")
        self.hear(b"P1 OK in\r\n")
        self.assertResult(Verdict.ACCEPTED, b"", b"OK in")

    def test_noWayToLogIn(self) -> None:
        """What the backend cannot take is not sent in any form."""
        master = sasl.decode(Mechanism.PLAIN, b"ann\0root\0secret")
        for capabilities, credentials in (
            (b"IMAP4rev1 LOGINDISABLED", ANN),
            (b"IMAP4rev1", master),
            (b"IMAP4rev1 AUTH=LOGIN", master),
            (b"IMAP4rev1 AUTH=PLAIN AUTH=XOAUTH2", BEARER),
        ):
            self.ready(capabilities)
            self.assertEqual(self.login(credentials), b"", capabilities)
            self.assertEqual(self.failure(self.answered).stage, Stage.UNSUPPORTED)

    def test_masterUserIsReplayedUnchanged(self) -> None:
        """Both identities go to a backend that takes PLAIN."""
        self.ready()
        message = b"ann\0root\0secret"
        line = self.login(sasl.decode(Mechanism.PLAIN, message))
        self.assertEqual(line, b"P1 AUTHENTICATE PLAIN %b\r\n" % b64encode(message))

    def test_refusals(self) -> None:
        """NO is a refusal if its code, or none, is about the credentials; the rest is temporary."""
        for reply, verdict in (
            (b"NO [AUTHENTICATIONFAILED] no", Verdict.REFUSED),
            (b"NO go away", Verdict.REFUSED),
            (b"NO [EXPIRED] old", Verdict.REFUSED),
            (b"NO [AuthorizationFailed] not you", Verdict.REFUSED),
            (b"NO [CONTACTADMIN] hm", Verdict.TEMPORARY),
            (b"BAD what?", Verdict.TEMPORARY),
            (b"NO [UNAVAILABLE] later", Verdict.TEMPORARY),
            (b"NO [inuse] later", Verdict.TEMPORARY),
            (b"NO [LIMIT] later", Verdict.TEMPORARY),
            (b"NO the word [UNAVAILABLE] in a text", Verdict.REFUSED),
            (b"NO xUNAVAILABLE] later", Verdict.REFUSED),
            (b"NO [UNAVAILABLE later", Verdict.REFUSED),
        ):
            self.ready()
            self.login()
            self.hear(b"P1 " + reply + b"\r\n")
            self.assertResult(verdict, b"", reply)

    def test_nonsenseIsNoAnswer(self) -> None:
        """A tagged word that is none of the three is the backend's failure, not the client's."""
        self.ready()
        self.login()
        self.hear(b"P1 MAYBE\r\n")
        self.assertEqual(self.failure(self.answered).stage, Stage.LOGIN)

    def test_anotherTagIsNoAnswer(self) -> None:
        """Nor is it passed on: it might be the client's own tag."""
        for line in (b"a OK in\r\n", b"P0 OK in\r\n", b"garbage\r\n", b"\r\n"):
            self.ready()
            self.login()
            self.hear(line)
            self.assertEqual(self.failure(self.answered).stage, Stage.LOGIN)

    def test_byeThenClosed(self) -> None:
        """A backend that says BYE and goes has not refused the password."""
        self.ready()
        self.login()
        self.backend.say(b"* BYE shutting down\r\n")
        self.backend.hangUp()
        self.network.pump()
        failed = self.failure(self.answered)
        self.assertEqual((failed.stage, failed.retry), (Stage.LOGIN, False))

    def test_byeBesideTheAnswerIsOurs(self) -> None:
        """A backend's BYE concerns our connection to it; the client hears the refusal alone."""
        self.ready()
        self.login()
        self.hear(b"* BYE too many failures\r\nP1 NO no\r\n")
        self.assertResult(Verdict.REFUSED, b"", b"NO no")

    def test_secretsComeLast(self) -> None:
        """Up to the login's own line nothing that a backend hears holds a secret."""
        self.begin(IntroductionTests.XCLIENT)
        heard = self.hear(b"* OK hi\r\n")
        heard += self.hear(b"* CAPABILITY IMAP4rev1 ID LOGINDISABLED AUTH=LOGIN\r\nP1 OK done\r\n")
        heard += self.hear(b"P2 OK done\r\n")
        heard += self.login()
        for secret in (*SECRETS, b64encode(b"secret")):
            self.assertNotIn(secret, heard)


class ChallengeTests(ClientCase):
    """OAuth: the backend's error challenge."""

    def test_challengeIsPutAndItsAnswerSent(self) -> None:
        """Both directions without base64; the refusal after it is the answer to the login."""
        for credentials, answer in ((BEARER, b"\1"), (XOAUTH2, b"")):
            self.ready()
            self.challengeAnswer = answer
            self.login(credentials)
            sent = self.hear(b"+ eyJzdGF0dXMiOiI0MDEifQ==\r\n")
            self.assertEqual(self.asked, [b'{"status":"401"}'])
            self.assertEqual(sent, b64encode(answer) + b"\r\n")
            self.hear(b"P1 NO [AUTHENTICATIONFAILED] bad token\r\n")
            self.assertResult(Verdict.REFUSED, b"", b"NO [AUTHENTICATIONFAILED] bad token")

    def test_noAnswerCancels(self) -> None:
        """A client that cancels makes us cancel."""
        self.ready()
        self.login(BEARER)
        self.assertEqual(self.hear(b"+ e30=\r\n"), b"*\r\n")
        self.hear(b"P1 BAD cancelled\r\n")
        self.assertResult(Verdict.TEMPORARY, b"", b"BAD cancelled")

    def test_tokenWithoutInitialResponse(self) -> None:
        """The first `+` asks for the token, the second is the challenge."""
        self.ready(b"IMAP4rev1 AUTH=OAUTHBEARER")
        self.challengeAnswer = b"\1"
        self.assertEqual(self.login(BEARER), b"P1 AUTHENTICATE OAUTHBEARER\r\n")
        self.assertEqual(self.hear(b"+ \r\n"), b64encode(BEARER.response) + b"\r\n")
        self.assertEqual(self.hear(b"+ e30=\r\n"), b"AQ==\r\n")
        self.assertEqual(self.asked, [b"{}"])

    def test_malformedChallenge(self) -> None:
        """A challenge that is not base64 is the backend's failure."""
        self.ready()
        self.login(BEARER)
        self.hear(b"+ !!!\r\n")
        self.assertEqual(self.failure(self.answered).stage, Stage.LOGIN)


class LinesTests(GreetingTests, StartTLSTests, IntroductionTests, LoginTests, ChallengeTests):
    """The same, one line per segment."""

    segments = Segments.LINES


class BytesTests(GreetingTests, StartTLSTests, IntroductionTests, LoginTests, ChallengeTests):
    """The same, one byte per segment."""

    segments = Segments.BYTES
