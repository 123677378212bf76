"""Us as a ManageSieve client: what a backend may say, and what it hears before and with a login."""

from base64 import b64encode

from mailproxy import sasl
from mailproxy.errors import Stage
from mailproxy.origin import Address, Origin
from mailproxy.protocols.base import Verdict
from mailproxy.protocols.managesieve import ManageSieveClient, ManageSieveClientFactory
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
from tests.protocols.talk import ORIGIN, moved
from tests.support import Network, Segments

SASL = b'"SASL" "PLAIN LOGIN OAUTHBEARER XOAUTH2"'


def block(*lines: bytes) -> bytes:
    """Write a capability block."""
    return b"\r\n".join([b'"IMPLEMENTATION" "x"', *lines, b'OK "ready."', b""])


class ManageSieveCase(BackendCase):
    """A conversation with a ManageSieve backend."""

    conversation = ManageSieveClient

    def ready(self, *lines: bytes) -> None:
        """Bring a backend with these capabilities to where the login is next."""
        self.begin()
        self.hear(block(*lines))
        self.assertReady()


class GreetingTests(ManageSieveCase):
    """What a backend says first."""

    def test_nothingIsAsked(self) -> None:
        """The block comes by itself."""
        self.ready(SASL)

    def test_literalsInTheBlock(self) -> None:
        """Names and values may be literals, whatever these hold; letters' case does not matter."""
        self.begin()
        self.hear(b"{14}\r\nIMPLEMENTATION {6}\r\nOK\r\nNO\r\n")
        self.hear(b"{4}\r\nsasl {5}\r\nplain\r\nok {1}\r\n!\r\n")
        self.assertReady()
        self.assertEqual(self.login(), b'AUTHENTICATE "PLAIN" "%b"\r\n' % ANN64)

    def test_emptyBlock(self) -> None:
        """A bare OK is one; no second is waited for."""
        self.begin()
        self.hear(b"OK\r\n")
        self.assertReady()

    def test_capabilityNamedAsAStatusIsOne(self) -> None:
        """Only an atom ends the block."""
        self.ready(b'"OK" "NO"', b'"BYE"', SASL)

    def test_refusalMayBeTriedAgain(self) -> None:
        """A backend that greets with BYE or NO is full or stopping."""
        for greeting in (b'BYE (TRYLATER) "full"\r\n', b'"SIEVE" "x"\r\nNO\r\n'):
            self.begin()
            self.hear(greeting)
            self.assertFailed(Stage.GREETING, retry=True)

    def test_garbage(self) -> None:
        """Another protocol's greeting is a failure."""
        for greeting in (b"* OK hi\r\n", b"+OK hi\r\n", b"220 hi\r\n", b'"x\r\n', b"(OK\r\n"):
            self.begin()
            self.hear(greeting)
            self.assertFailed(Stage.GREETING)


class StartTLSTests(ManageSieveCase):
    """STARTTLS on the backend's leg."""

    def test_blockIsReadAgain(self) -> None:
        """What was said before TLS does not count; nothing is asked for."""
        self.begin(upgrading())
        self.assertEqual(self.hear(block(b'"STARTTLS"', SASL)), b"STARTTLS\r\n")
        self.assertEqual(self.consent(b'OK "go"\r\n'), b"")
        self.assertNoResult(self.prepared)
        self.hear(block(b'"SASL" "LOGIN"'))
        self.assertReady()
        self.assertEqual(self.login(), b'AUTHENTICATE "LOGIN" "YW5u"\r\n')

    def test_attackerWhoStripsTheOfferGetsNothing(self) -> None:
        """No offer, no login."""
        self.begin(upgrading())
        self.assertEqual(self.hear(block(SASL)), b"")
        self.assertFailed(Stage.PREPARE, retry=False)

    def test_attackerWhoRefusesGetsNothing(self) -> None:
        """STARTTLS that is refused ends it."""
        self.begin(upgrading())
        self.hear(block(b'"STARTTLS"', SASL))
        self.assertEqual(self.hear(b'NO "not today"\r\n'), b"")
        self.assertFailed(Stage.PREPARE, retry=False)


class IntroductionTests(ManageSieveCase):
    """XCLIENT: who the client is."""

    def introduction(self, offer: bytes, origin: Origin = ORIGIN) -> bytes:
        """What a backend with this offer is told."""
        self.begin(XCLIENT, origin)
        return self.hear(block(offer, SASL))

    def test_onlyWhatIsListedIsSaid(self) -> None:
        """With one hop less; the login is next."""
        told = self.introduction(b'"XCLIENT" "addr PORT SESSION TTL LOGIN"')
        expected = b"XCLIENT ADDR=198.51.100.7 PORT=40000 SESSION=session-one TTL=6\r\n"
        self.assertEqual(told, expected)
        self.hear(b'OK "Updated."\r\n')
        self.assertReady()

    def test_nothingToSay(self) -> None:
        """Without an offer, without one that we can fill, or without the wish: nothing."""
        for offer in (b'"X"', b'"XCLIENT" "NAME"'):
            self.assertEqual(self.introduction(offer), b"", offer)
            self.assertReady()
        self.begin(PLAINTEXT)
        self.assertEqual(self.hear(block(b'"XCLIENT" "ADDR"')), b"")
        self.assertReady()

    def test_offerWithoutAListIsOneOfAll(self) -> None:
        """So Pigeonhole offers it, and takes all."""
        told = self.introduction(b'"XCLIENT"')
        self.assertTrue(told.startswith(b"XCLIENT ADDR=198.51.100.7 PORT=40000 "), told)
        self.assertIn(b" TTL=6 CLIENT-TRANSPORT=insecure\r\n", told)

    def test_refusedIntroductionIsAFailure(self) -> None:
        """The backend would take us for the client."""
        self.introduction(b'"XCLIENT" "ADDR"')
        self.hear(b'NO "not you"\r\n')
        self.assertFailed(Stage.PREPARE)

    def test_commandsCannotBeInjected(self) -> None:
        """What came from elsewhere is in xtext, without a character that ends an atom."""
        origin = moved(session='a"(b)\\{9}', client=Address("2001:db8::7", 1))
        told = self.introduction(b'"XCLIENT" "ADDR SESSION"', origin)
        self.assertEqual(told, b"XCLIENT ADDR=2001:db8::7 SESSION=a+22+28b+29+5C+7B9+7D\r\n")


class LoginTests(ManageSieveCase):
    """How a login is replayed, and what its answer is taken for."""

    def test_plain(self) -> None:
        """One line; the answer is passed on whole, SASL data and literals too."""
        for reply in (b"OK", b'OK (SASL "YQ==") "in"', b"OK (SASL {4}\r\nYQ==) {2}\r\nhi"):
            self.ready(SASL)
            self.assertEqual(self.login(), b'AUTHENTICATE "PLAIN" "%b"\r\n' % ANN64)
            self.hear(reply + b"\r\n")
            self.assertResult(Verdict.ACCEPTED, reply)

    def test_longPasswordIsALiteral(self) -> None:
        """A quoted string holds 1024 bytes."""
        self.ready(SASL)
        credentials = sasl.fromPassword(b"ann", b"p" * 1000)
        text = b64encode(credentials.response)
        expected = b'AUTHENTICATE "PLAIN" {%d+}\r\n%b\r\n' % (len(text), text)
        self.assertEqual(self.login(credentials), expected)

    def test_loginMechanism(self) -> None:
        """A backend without PLAIN gets LOGIN; answers are strings."""
        self.ready(b'"SASL" "LOGIN"')
        self.assertEqual(self.login(), b'AUTHENTICATE "LOGIN" "YW5u"\r\n')
        for prompt in (b'"UGFzc3dvcmQ6"\r\n', b"{12}\r\nUGFzc3dvcmQ6\r\n"):
            self.ready(b'"SASL" "LOGIN"')
            self.login()
            self.assertEqual(self.hear(prompt), b'"c2VjcmV0"\r\n')
        self.hear(b"OK\r\n")
        self.assertResult(Verdict.ACCEPTED, b"OK")

    def test_noWayToLogIn(self) -> None:
        """What the backend cannot take is not sent in any form."""
        for line, credentials in (
            (b'"SIEVE" "x"', ANN),
            (b'"SASL" ""', ANN),
            (b'"SASL" "CRAM-MD5"', ANN),
            (b'"SASL" "LOGIN"', MASTER),
            (b'"SASL" "PLAIN XOAUTH2"', BEARER),
        ):
            self.ready(line)
            self.assertEqual(self.login(credentials), b"", line)
            self.assertUnanswered(Stage.UNSUPPORTED)

    def test_commandsCannotBeInjected(self) -> None:
        """Whatever a name or password holds is in base64."""
        for mechanism in (b"PLAIN", b"LOGIN"):
            self.ready(b'"SASL" "%b"' % mechanism)
            heard = self.login(sasl.fromPassword(b'ann"\r\nLOGOUT', b'x"\r\nLOGOUT'))
            heard += self.hear(b'""\r\n') if mechanism == b"LOGIN" else b""
            self.assertNotIn(b"LOGOUT", heard)

    def test_refusals(self) -> None:
        """NO is a refusal, with TRYLATER a temporary one: never the one for the other."""
        for reply, verdict in (
            (b"NO", Verdict.REFUSED),
            (b'NO "(TRYLATER)"', Verdict.REFUSED),
            (b'NO (AUTH-TOO-WEAK) "no"', Verdict.REFUSED),
            (b'NO (TRYLATER) "later"', Verdict.TEMPORARY),
            (b"no (trylater) {5}\r\nlater", Verdict.TEMPORARY),
            (b'NO (TRYLATER "5 s") "later"', Verdict.TEMPORARY),
        ):
            self.ready(SASL)
            self.login()
            self.hear(reply + b"\r\n")
            self.assertResult(verdict, reply)

    def test_nonsenseIsNoAnswer(self) -> None:
        """Neither is BYE, two strings, or no reply at all."""
        for reply in (b'BYE (TRYLATER) "x"', b"MAYBE", b'"a" "b"', b"", b"(x)", b'OK "'):
            self.ready(SASL)
            self.login()
            self.hear(reply + b"\r\n")
            self.assertUnanswered()
        self.ready(SASL)
        self.login()
        self.backend.hangUp()
        self.network.pump()
        self.assertUnanswered()

    def test_secretsComeLast(self) -> None:
        """Up to the login's own line nothing that a backend hears holds a secret."""
        self.begin(XCLIENT)
        heard = self.hear(block(b'"XCLIENT" "ADDR"', b'"SASL" "LOGIN"')) + self.hear(b"OK\r\n")
        heard += self.login()
        for secret in SECRETS:
            self.assertNotIn(secret, heard)


class ChallengeTests(ManageSieveCase):
    """OAuth: the backend's error challenge."""

    def test_challengeIsPutAndItsAnswerSent(self) -> None:
        """Both directions without base64; the refusal after it is the answer to the login."""
        for credentials, answer in ((BEARER, b"\1"), (XOAUTH2, b"")):
            self.ready(SASL)
            self.challengeAnswer = answer
            self.login(credentials)
            sent = self.hear(b'"eyJzdGF0dXMiOiI0MDEifQ=="\r\n')
            self.assertEqual(self.asked, [b'{"status":"401"}'])
            self.assertEqual(sent, b'"%b"\r\n' % b64encode(answer))
            self.hear(b'NO "bad token"\r\n')
            self.assertResult(Verdict.REFUSED, b'NO "bad token"')

    def test_noAnswerCancels(self) -> None:
        """A client that cancels makes us cancel, by a string."""
        self.ready(SASL)
        self.login(BEARER)
        self.assertEqual(self.hear(b'"e30="\r\n'), b'"*"\r\n')

    def test_tokens(self) -> None:
        """A short one is quoted, one of 60 KB is a literal; both go at once."""
        self.ready(SASL)
        self.assertEqual(self.login(BEARER), b'AUTHENTICATE "OAUTHBEARER" "%b"\r\n' % BEARER64)
        self.ready(SASL)
        expected = b'AUTHENTICATE "OAUTHBEARER" {%d+}\r\n%b\r\n' % (len(HUGE64), HUGE64)
        self.assertEqual(self.login(HUGE), expected)

    def test_malformedChallenge(self) -> None:
        """A challenge that is not base64 is the backend's failure."""
        self.ready(SASL)
        self.login(BEARER)
        self.hear(b'"!!!"\r\n')
        self.assertUnanswered()


class LinesTests(GreetingTests, StartTLSTests, IntroductionTests, LoginTests, ChallengeTests):
    """The same, one line per segment."""

    segments = Segments.LINES


class BytesTests(GreetingTests, StartTLSTests, IntroductionTests, LoginTests, ChallengeTests):
    """The same, one byte per segment."""

    segments = Segments.BYTES


class InjectionTests(ManageSieveCase):
    """What depends on the segments that the network makes, and what never ends."""

    def test_blockInjectedBehindTheConsentAborts(self) -> None:
        """Words in the clear behind STARTTLS's OK are not taken for the backend's own."""
        self.begin(upgrading())
        self.hear(block(b'"STARTTLS"'))
        self.hear(b"OK\r\n" + block(SASL))
        self.assertFailed(Stage.PREPARE, retry=False)

    def test_endlessBlocks(self) -> None:
        """Neither many capabilities, nor one again and again, nor a huge one."""
        numbers = b"".join(b'"C%d" "x"\r\n' % number for number in range(1000))
        for sent in (numbers, b'"C" "x"\r\n' * 1000, b'"C" {70000}\r\n', b'"' + b"x" * 100_000):
            self.begin()
            self.hear(sent)
            self.assertFailed(Stage.GREETING)

    def test_factoryMakesClients(self) -> None:
        """The factory makes this conversation."""
        made = ManageSieveClientFactory(Network()).buildProtocol(None)
        self.assertIsInstance(made, ManageSieveClient)
