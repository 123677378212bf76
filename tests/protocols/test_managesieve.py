"""Us as a ManageSieve server: what a client may say before its login, and what it hears."""

from base64 import b64encode

from mailproxy.errors import Refusal
from mailproxy.origin import Address
from mailproxy.protocols.managesieve import ManageSieveServer, ManageSieveServerFactory
from mailproxy.sasl import Mechanism
from tests.protocols import servercontract as contract
from tests.protocols.talk import HUGE, ORIGIN, PLAIN, ServerCase, moved, plain, startTLS
from tests.protocols.words import Exchange, ServerWords, byXCLIENT
from tests.support import Segments

BAD = b'NO "Unknown or malformed command."\r\n'
DONE = b'OK "Completed."\r\n'
MALFORMED = b'NO "Malformed authentication message."\r\n'
LATER = b'(TRYLATER) "Temporarily unavailable, try again later."\r\n'
GO = b'OK "Begin TLS negotiation now."\r\n'
ALL = b"PLAIN LOGIN OAUTHBEARER XOAUTH2"


def block(mechanisms: bytes, *more: bytes) -> bytes:
    """Write a capability block."""
    lines = [
        b'"IMPLEMENTATION" "ready"',
        b'"SIEVE" "fileinto vacation"',
        b'"SASL" "%b"' % mechanisms,
        b'"VERSION" "1.0"',
    ]
    return b"\r\n".join([*lines, *more, b'OK "Ready."', b""])


WORDS = ServerWords(
    protocol="managesieve",
    server=ManageSieveServer,
    factory=ManageSieveServerFactory,
    keys=("implementation", "sieve"),
    advertised=(
        b"fileinto",
        b"reject",
        b"envelope",
        b"vacation",
        b"imap4flags",
        b"subaddress",
        b"relational",
        b"comparator-i;ascii-numeric",
        b"copy",
        b"variables",
        b"body",
    ),
    exchange=Exchange(b'AUTHENTICATE "%b"', string=b'"%b"', challenge=b'"%b"\r\n'),
    noop=b"NOOP\r\n",
    done=DONE,
    bad=BAD,
    unknown=(
        b"X\r\n",
        b"LISTSCRIPTS\r\n",
        b'HAVESPACE "x" 9\r\n',
        b"\r\n",
        b'"NOOP"\r\n',
        b"(NOOP)\r\n",
        b'NOOP "x\r\n',
        b'NOOP "x" "y"\r\n',
        b"NOOP (x)\r\n",
        b"NO\nOP\r\n",
    ),
    miswritten=(
        b"AUTHENTICATE\r\n",
        b'AUTHENTICATE "PLAIN" "x" "y"\r\n',
        b'AUTHENTICATE ("PLAIN")\r\n',
    ),
    quit=b"LOGOUT\r\n",
    bye=b'OK "Logging out."\r\n',
    startTLS=b"STARTTLS\r\n",
    go=GO,
    injected=(b'NOOP "evil"\r\nX {40+}\r\nNO', b'AUTHENTICATE "PLAIN" "x"\r\nNO'),
    again=block(ALL),
    refusals={
        Refusal.AUTHENTICATION: b'NO "Authentication failed."\r\n',
        Refusal.TEMPORARY: b"NO " + LATER,
        Refusal.PRIVACY: b'NO (ENCRYPT-NEEDED) "Secrets are taken over TLS only."\r\n',
        Refusal.MECHANISM: b'NO "Authentication mechanism not supported."\r\n',
        Refusal.ENCODING: MALFORMED,
        Refusal.CANCELLED: b'NO "Authentication cancelled."\r\n',
    },
    farewells={
        Refusal.UNAVAILABLE: b"BYE " + LATER,
        Refusal.TIMEOUT: b'BYE "Disconnected for inactivity during authentication."\r\n',
        Refusal.SHUTDOWN: b'BYE (TRYLATER) "Server shutting down, try again later."\r\n',
        Refusal.TOO_BIG: b'BYE "Command too long."\r\n',
        Refusal.TOO_MANY: b'BYE "Too many failures."\r\n',
    },
    unavailable=b"NO " + LATER + b"BYE " + LATER,
    accepted=(
        (b"", b'OK (SASL "cnNwYXV0aD0=") "in"'),
        (b"", b"OK (SASL {4}\r\nYQ==) {2}\r\n\r\n"),
    ),
    refused=(b"", b'NO "db7: no such user"'),
    later=(b'NO (TRYLATER) "db7: later"',),
    introduction=byXCLIENT(
        b'ADDR=2001:db8::7 "PORT=5123" SESSION=outer+2B1 TTL=3 LOGIN=root',
        answer=b'OK "Updated."\r\n',
        origin=moved(client=Address("2001:db8::7", 5123), session="outer+1", ttl=3),
        refusal=BAD,
    ),
)


class ManageSieveCase(ServerCase):
    """Dialogues with a ManageSieve server."""

    words = WORDS
    capabilities = (b"fileinto", b"vacation")


class DialogueTests(contract.DialogueContract, ManageSieveCase):
    """Capabilities and the small commands."""

    def test_capabilitiesComeFirstAndWhenAsked(self) -> None:
        """The block and its OK (RFC 5804, section 1.7)."""
        talk = self.begin()
        self.assertEqual(talk.greeting, block(ALL))
        self.assertEqual(talk.ask(b"capability\r\n"), block(ALL))

    def test_capabilitiesWithoutPrivacy(self) -> None:
        """On an open leg no mechanism is offered."""
        self.assertEqual(self.begin(plain(capabilities=self.capabilities)).greeting, block(b""))

    def test_capabilitiesComeAgainAfterTLS(self) -> None:
        """By themselves, for they have changed (section 2.2)."""
        talk = self.begin(startTLS(capabilities=self.capabilities))
        self.assertEqual(talk.greeting, block(b"", b'"STARTTLS"'))
        self.assertEqual(talk.secure(b"STARTTLS\r\n"), GO)
        self.assertEqual(talk.ask(b""), block(ALL))
        self.assertEqual(talk.ask(b"NOOP\r\n"), DONE)

    def test_noopGivesItsTagBack(self) -> None:
        """As a string of the server's kind: quoted, or a literal without a `+`."""
        for sent, answer in (
            (b"NOOP\r\n", DONE),
            (b'noop "a \\"tag\\""\r\n', b'OK (TAG "a \\"tag\\"") "Completed."\r\n'),
            (b"NOOP {3+}\r\nxyz\r\n", b'OK (TAG "xyz") "Completed."\r\n'),
            (b"NOOP {4+}\r\nx\r\ny\r\n", b'OK (TAG {4}\r\nx\r\ny) "Completed."\r\n'),
            (b'NOOP "\xc3\xa4"\r\n', b'OK (TAG {2}\r\n\xc3\xa4) "Completed."\r\n'),
        ):
            self.assertEqual(self.begin().ask(sent), answer, sent)

    def test_scriptsAreNotTakenForCommands(self) -> None:
        """A refused command takes its literal with it."""
        sent = b'PUTSCRIPT "x" {12+}\r\nLOGOUT\r\n\r\n!!\r\nNOOP\r\n'
        self.assertEqual(self.begin().ask(sent), BAD + DONE)


class AuthenticateTests(contract.ExchangeContract, ManageSieveCase):
    """AUTHENTICATE."""

    def test_spellings(self) -> None:
        """A string may be a literal in either spelling, or, from careless clients, an atom."""
        size, text = len(PLAIN), PLAIN
        for line in (
            b'AUTHENTICATE "PLAIN" {%d+}\r\n%b\r\n' % (size, text),
            b'AUTHENTICATE "PLAIN" {%d}\r\n%b\r\n' % (size, text),
            b"AUTHENTICATE {5+}\r\nPLAIN {%d+}\r\n%b\r\n" % (size, text),
            b"authenticate PLAIN %b\r\n" % text,
        ):
            talk = self.begin()
            self.assertEqual(talk.ask(line), b"")
            self.assertPassword(talk, b"ann", b"secret")

    def test_literalAnswersAChallenge(self) -> None:
        """An answer is a string of any kind."""
        talk = self.begin()
        self.assertEqual(talk.ask(b'AUTHENTICATE "PLAIN"\r\n'), b'""\r\n')
        literal = b"{%d+}\r\n%b\r\n" % (len(PLAIN), PLAIN)
        self.assertEqual(talk.ask(literal), b"")
        self.assertPassword(talk, b"ann", b"secret")

    def test_emptyStringIsAnEmptyResponse(self) -> None:
        """And so a counted failure."""
        talk = self.begin()
        self.assertEqual(talk.ask(b'AUTHENTICATE "PLAIN" ""\r\n'), MALFORMED)
        self.assertEqual(talk.server.failures, 1)

    def test_answerThatIsNoStringIsAMistake(self) -> None:
        """The exchange is over, and nothing of it is taken for a command."""
        for answer in (b"(x)", b'"a" "b"', b'"x', b""):
            talk = self.begin()
            heard = talk.ask(b'AUTHENTICATE "PLAIN"\r\n' + answer + b"\r\nNOOP\r\n")
            self.assertEqual(heard, b'""\r\n' + BAD + DONE)


class VerdictTests(contract.VerdictContract, ManageSieveCase):
    """What the client hears of its backend's answer."""

    def test_longChallengeIsALiteral(self) -> None:
        """A quoted string holds 1024 bytes; a server's literal has no `+`."""
        talk = self.bearing()
        message = b"x" * 900
        heard: list[bytes] = []
        self.patch(talk.client, "dataReceived", heard.append)
        self.assertEqual(talk.relay(message, b'"AQ=="\r\n'), b"\1")
        self.assertEqual(b"".join(heard), b"{1200}\r\n" + b64encode(message) + b"\r\n")

    def test_whatIsNoStringIsNoAnswerAndNobodysFault(self) -> None:
        """Nor can a client do so by what it writes in a string's place."""
        for answer in (b"(x)", b'"a" "b"', b'"x', b""):
            self.assertIsNone(self.bearing().relay(b"{}", answer + b"\r\n"), answer)


class StartTLSTests(contract.StartTLSContract, ManageSieveCase):
    """STARTTLS on the client's leg."""


class XClientTests(contract.IntroductionContract, ManageSieveCase):
    """XCLIENT: what a proxy in front of us says of its client."""

    def test_trustedPeersAreInvited(self) -> None:
        """By a line of the block."""
        offer = b'"XCLIENT" "ADDR PORT DESTADDR DESTPORT SESSION TTL CLIENT-TRANSPORT"'
        self.assertEqual(self.begin(self.trusting()).greeting, block(ALL, offer))

    def test_listIsNoWord(self) -> None:
        """Strings alone are taken."""
        talk = self.begin(self.trusting())
        self.assertEqual(talk.ask(b"XCLIENT TTL=2 (SESSION=a)\r\n"), BAD)
        self.assertEqual(talk.server.origin, ORIGIN)

    def test_strangersAreNotInvited(self) -> None:
        """Nor is the client behind a proxy that has introduced it."""
        self.assertEqual(self.begin().greeting, block(ALL))
        talk = self.begin(self.trusting())
        talk.ask(WORDS.introduction.line)
        self.assertEqual(talk.ask(b"CAPABILITY\r\n"), block(ALL))


class LinesTests(DialogueTests, AuthenticateTests, VerdictTests, StartTLSTests, XClientTests):
    """The same, one line per segment."""

    segments = Segments.LINES


class BytesTests(DialogueTests, AuthenticateTests, VerdictTests, StartTLSTests, XClientTests):
    """The same, one byte per segment."""

    segments = Segments.BYTES


class VolumeTests(contract.VolumeContract, ManageSieveCase):
    """A great deal at once."""

    def test_hugeTokenAsALiteral(self) -> None:
        """60 KB arrive whole, at once or behind a continuation."""
        text = b64encode(HUGE)
        for between in (b" ", b"\r\n"):
            talk = self.begin()
            literal = b"{%d+}\r\n%b\r\n" % (len(text), text)
            talk.ask(b'AUTHENTICATE "OAUTHBEARER"' + between + literal)
            self.assertMessage(talk, Mechanism.OAUTHBEARER, HUGE)

    def test_endlessLiterals(self) -> None:
        """What is over the limit is not waited for, in the dialogue or in an exchange."""
        for before in (b"", b'AUTHENTICATE "PLAIN"\r\n'):
            for sent in (b"X {65537+}\r\n", b"X {65537}\r\n"):
                talk = self.begin()
                talk.ask(before + sent)
                self.assertDismissed(talk, Refusal.TOO_BIG)


class FactoryTests(contract.FactoryContract, ManageSieveCase):
    """What the listener's factory reads of `[capabilities.managesieve]`."""
