"""Us as a ManageSieve client: what a backend may say, and what it hears before and with a login."""

from base64 import b64encode

from mailproxy import sasl
from mailproxy.errors import Stage
from mailproxy.origin import Address, Origin
from mailproxy.protocols.base import Verdict
from mailproxy.protocols.managesieve import ManageSieveClient, ManageSieveClientFactory
from tests.protocols import clientcontract as contract
from tests.protocols.backend import ANN, ANN64, HUGE, HUGE64, PLAINTEXT, XCLIENT, ClientCase
from tests.protocols.talk import ORIGIN, moved
from tests.protocols.words import ClientWords, Exchange
from tests.support import Segments

SASL = b'"SASL" "PLAIN LOGIN OAUTHBEARER XOAUTH2"'


def block(*lines: bytes) -> bytes:
    """Write a capability block."""
    return b"\r\n".join([b'"IMPLEMENTATION" "x"', *lines, b'OK "ready."', b""])


WORDS = ClientWords(
    factory=ManageSieveClientFactory,
    exchange=Exchange(b'AUTHENTICATE "%b"', string=b'"%b"', challenge=b'"%b"\r\n'),
    garbage=(b"* OK hi\r\n", b"+OK hi\r\n", b"220 hi\r\n", b'"x\r\n', b"(OK\r\n"),
    full=(b'BYE (TRYLATER) "full"\r\n', b'"SIEVE" "x"\r\nNO\r\n'),
    all=(SASL,),
    offer=b'"STARTTLS"',
    startTLS=b"STARTTLS\r\n",
    consent=b'OK "go"\r\n',
    dissent=b'NO "not today"\r\n',
    injected=block(SASL),
    again=b"",  # the block comes by itself
    accepted=(
        (b"", b"OK"),
        (b"", b'OK (SASL "YQ==") "in"'),
        (b"", b"OK (SASL {4}\r\nYQ==) {2}\r\nhi"),
    ),
    verdicts=(
        (b'NO "no"', Verdict.REFUSED),
        (b"NO", Verdict.REFUSED),
        (b'NO "(TRYLATER)"', Verdict.REFUSED),
        (b'NO (AUTH-TOO-WEAK) "no"', Verdict.REFUSED),
        (b'NO (TRYLATER) "later"', Verdict.TEMPORARY),
        (b"no (trylater) {5}\r\nlater", Verdict.TEMPORARY),
        (b'NO (TRYLATER "5 s") "later"', Verdict.TEMPORARY),
    ),
    nonsense=(
        b'BYE (TRYLATER) "x"\r\n',
        b"MAYBE\r\n",
        b'"a" "b"\r\n',
        b"\r\n",
        b"(x)\r\n",
        b'OK "\r\n',
    ),
    useless=((b'"SIEVE" "x"', ANN), (b'"SASL" ""', ANN)),
)


class ManageSieveCase(ClientCase):
    """A conversation with a ManageSieve backend."""

    conversation = ManageSieveClient
    words = WORDS

    def tell(self, *lines: bytes) -> bytes:
        """By the block that comes by itself."""
        return self.hear(block(*lines))

    def tellAgain(self, *lines: bytes) -> None:
        """By the same."""
        self.hear(block(*lines))

    def offering(self, *mechanisms: bytes) -> tuple[bytes, ...]:
        """SASL's line."""
        return (b'"SASL" "%b"' % b" ".join(mechanisms),)

    def introduced(self, *lines: bytes) -> bytes:
        """By XCLIENT."""
        self.begin(XCLIENT)
        heard = self.tell(b'"XCLIENT" "ADDR"', *lines) + self.hear(b"OK\r\n")
        self.assertReady()
        return heard


class GreetingTests(contract.GreetingContract, ManageSieveCase):
    """What a backend says first."""

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


class StartTLSTests(contract.StartTLSContract, ManageSieveCase):
    """STARTTLS on the backend's leg."""


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

    def test_wordsCannotBeInjected(self) -> None:
        """What came from elsewhere is in xtext, without a character that ends an atom."""
        origin = moved(session='a"(b)\\{9}', client=Address("2001:db8::7", 1))
        told = self.introduction(b'"XCLIENT" "ADDR SESSION"', origin)
        self.assertEqual(told, b"XCLIENT ADDR=2001:db8::7 SESSION=a+22+28b+29+5C+7B9+7D\r\n")


class LoginTests(contract.LoginContract, ManageSieveCase):
    """How a login is replayed, and what its answer is taken for."""

    def test_longPasswordIsALiteral(self) -> None:
        """A quoted string holds 1024 bytes."""
        self.ready(SASL)
        credentials = sasl.fromPassword(b"ann", b"p" * 1000)
        text = b64encode(credentials.response)
        expected = b'AUTHENTICATE "PLAIN" {%d+}\r\n%b\r\n' % (len(text), text)
        self.assertEqual(self.login(credentials), expected)


class ChallengeTests(contract.ChallengeContract, ManageSieveCase):
    """OAuth: the backend's error challenge."""

    def test_literalChallenge(self) -> None:
        """A backend's string may be of either kind."""
        self.ready(*self.offering(b"LOGIN"))
        self.login()
        self.assertEqual(self.hear(b"{12}\r\nUGFzc3dvcmQ6\r\n"), b'"c2VjcmV0"\r\n')

    def test_longTokenIsALiteral(self) -> None:
        """It goes at once."""
        self.ready(SASL)
        expected = b'AUTHENTICATE "OAUTHBEARER" {%d+}\r\n%b\r\n' % (len(HUGE64), HUGE64)
        self.assertEqual(self.login(HUGE), expected)


class LinesTests(GreetingTests, StartTLSTests, IntroductionTests, LoginTests, ChallengeTests):
    """The same, one line per segment."""

    segments = Segments.LINES


class BytesTests(GreetingTests, StartTLSTests, IntroductionTests, LoginTests, ChallengeTests):
    """The same, one byte per segment."""

    segments = Segments.BYTES


class InjectionTests(contract.InjectionContract, ManageSieveCase):
    """What depends on the segments that the network makes, and what never ends."""

    def test_endlessBlocks(self) -> None:
        """Neither many capabilities, nor one again and again, nor a huge one."""
        numbers = b"".join(b'"C%d" "x"\r\n' % number for number in range(1000))
        for sent in (numbers, b'"C" "x"\r\n' * 1000, b'"C" {70000}\r\n', b'"' + b"x" * 100_000):
            self.begin()
            self.hear(sent)
            self.assertFailed(Stage.GREETING)


class FactoryTests(contract.FactoryContract, ManageSieveCase):
    """What a dialled connection is."""
