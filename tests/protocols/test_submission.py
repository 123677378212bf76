"""Us as a submission server: what a client may say before its login, and what it hears."""

import attrs

from mailproxy.config.model import Capabilities
from mailproxy.errors import Refusal
from mailproxy.origin import Address
from mailproxy.protocols.base import AuthResult, Dismissed, Verdict
from mailproxy.protocols.submission import SubmissionServer, SubmissionServerFactory
from mailproxy.stream import MAX_LINE
from tests.protocols import servercontract as contract
from tests.protocols.talk import ORIGIN, PLAIN, ServerCase, moved, plain, serverSettings, startTLS
from tests.protocols.words import Exchange, ServerWords, byXCLIENT
from tests.support import Segments

HELLO = b"EHLO there.example\r\n"
LOGIN = b"AUTH PLAIN %b\r\n" % PLAIN
OK = b"250 2.0.0 OK\r\n"
BAD = b"503 5.5.1 Not now, or unknown.\r\n"
MALFORMED_LINE = b"500 5.5.2 Malformed command.\r\n"
NAMELESS = b"501 5.5.4 A name is required.\r\n"
NO_MAIL = b"530 5.7.0 Authentication required.\r\n"
MALFORMED = b"501 5.5.2 Malformed authentication message.\r\n"
LATER = b"421 4.3.2 Temporarily unavailable, try again later.\r\n"
GO = b"220 2.0.0 Begin TLS negotiation now.\r\n"
EXTENSIONS = (
    b"250-[192.0.2.1]\r\n250-PIPELINING\r\n250-SIZE\r\n250 AUTH PLAIN LOGIN OAUTHBEARER XOAUTH2\r\n"
)
NONE = b"250-[192.0.2.1]\r\n250-PIPELINING\r\n250 SIZE\r\n"

WORDS = ServerWords(
    protocol="submission",
    server=SubmissionServer,
    factory=SubmissionServerFactory,
    keys=("banner", "ehlo"),
    advertised=(b"PIPELINING", b"SIZE", b"8BITMIME", b"ENHANCEDSTATUSCODES"),
    exchange=Exchange(b"AUTH %b", challenge=b"334 %b\r\n"),
    hello=HELLO,
    noop=b"NOOP\r\n",
    done=OK,
    bad=BAD,
    unknown=(
        b"X\r\n",
        b"VRFY ann\r\n",
        b"\r\n",
        b" EHLO x\r\n",
        b"BDAT 1 LAST\r\n",
        b"\xff\r\n",
    ),
    miswritten=(b"AUTH\r\n", b"AUTH PLAIN eA== eA==\r\n"),
    quit=b"QUIT\r\n",
    bye=b"221 2.0.0 Bye.\r\n",
    startTLS=b"STARTTLS\r\n",
    go=GO,
    injected=(b"EHLO mallory\r\nAUTH PLAIN x\r\nNO",),
    refusals={
        Refusal.AUTHENTICATION: b"535 5.7.8 Authentication failed.\r\n",
        Refusal.TEMPORARY: b"454 4.7.0 Temporary authentication failure.\r\n",
        Refusal.PRIVACY: (
            b"538 5.7.11 Encryption required for requested authentication mechanism.\r\n"
        ),
        Refusal.MECHANISM: b"504 5.5.4 Authentication mechanism not supported.\r\n",
        Refusal.ENCODING: MALFORMED,
        Refusal.CANCELLED: b"501 5.7.0 Authentication cancelled.\r\n",
    },
    farewells={
        Refusal.UNAVAILABLE: LATER,
        Refusal.TIMEOUT: b"421 4.4.2 Timeout while waiting for a login.\r\n",
        Refusal.SHUTDOWN: b"421 4.3.2 Server shutting down, try again later.\r\n",
        Refusal.TOO_BIG: b"500 5.5.6 Line too long.\r\n",
        Refusal.TOO_MANY: b"421 4.7.0 Too many errors.\r\n",
    },
    unavailable=LATER,
    accepted=((b"", b"235 in"), (b"235-2.7.0 well,\r\n", b"235 2.7.0 in")),
    refused=(b"535-5.7.8 no,\r\n", b"535 5.7.8 db7: no such user"),
    later=(b"454 4.7.0 db7: later", b"421 4.3.2 db7: going down"),
    introduction=byXCLIENT(
        b"ADDR=IPV6:2001:db8::7 PORT=5123 HELO=far+2Bout PROTO=ESMTP SESSION=one TTL=3 "
        b"LOGIN=root NAME=[UNAVAILABLE]",
        answer=b"220 [192.0.2.1] ESMTP ready\r\n",
        origin=moved(client=Address("2001:db8::7", 5123), helo=b"far+out", session="one", ttl=3),
        refusal=BAD,
    ),
)


class SubmissionCase(ServerCase):
    """Dialogues with a submission server."""

    words = WORDS
    capabilities = (b"PIPELINING", b"SIZE")


class DialogueTests(contract.DialogueContract, SubmissionCase):
    """Greeting, EHLO and the small commands."""

    def test_greeting(self) -> None:
        """By our name; without one, by the address that the client has connected to."""
        self.assertEqual(self.begin().greeting, b"220 [192.0.2.1] ESMTP ready\r\n")
        settings = attrs.evolve(serverSettings(), hostname=b"mail.example.com")
        self.assertEqual(self.begin(settings).greeting, b"220 mail.example.com ESMTP ready\r\n")

    def test_addressLiteralsOfIPv6AreMarked(self) -> None:
        """RFC 5321, section 4.1.3."""
        talk = self.begin()
        talk.server.origin = moved(local=Address("2001:db8::1", 587))
        self.assertEqual(talk.ask(b"HELO x\r\n"), b"250 [IPv6:2001:db8::1]\r\n")

    def test_extensions(self) -> None:
        """What the operator advertised, and how to log in."""
        self.assertEqual(self.begin().ask(HELLO), EXTENSIONS)

    def test_extensionsWithoutPrivacy(self) -> None:
        """On an open leg no mechanism is offered."""
        settings = plain(capabilities=self.capabilities)
        self.assertEqual(self.begin(settings).ask(HELLO), NONE)

    def test_extensionsBeforeAndAfterTLS(self) -> None:
        """STARTTLS before it, the mechanisms after it."""
        talk = self.begin(startTLS(capabilities=()))
        self.assertEqual(talk.ask(HELLO), b"250-[192.0.2.1]\r\n250 STARTTLS\r\n")
        self.assertEqual(talk.secure(b"STARTTLS\r\n"), GO)
        self.assertEqual(
            talk.ask(HELLO), b"250-[192.0.2.1]\r\n250 AUTH PLAIN LOGIN OAUTHBEARER XOAUTH2\r\n"
        )

    def test_nothingToOfferIsOneLine(self) -> None:
        """The last line has no hyphen, and there is only one."""
        self.assertEqual(self.begin(plain(capabilities=())).ask(HELLO), b"250 [192.0.2.1]\r\n")

    def test_helo(self) -> None:
        """The old greeting is answered in one line; the client's name is kept as for EHLO."""
        talk = self.begin()
        self.assertEqual(talk.ask(b"helo there\r\n"), b"250 [192.0.2.1]\r\n")
        self.assertEqual(talk.server.origin.helo, b"there")

    def test_clientsNameIsKept(self) -> None:
        """The last one counts."""
        talk = self.begin()
        talk.ask(b"EHLO first\r\nEHLO [IPv6:2001:db8::9]\r\n")
        self.assertEqual(talk.server.origin.helo, b"[IPv6:2001:db8::9]")

    def test_nameThatCannotBePassedOnIsRefused(self) -> None:
        """None, two words, 8 bit or too long: a backend is to hear it."""
        for name in (b"", b" ", b"two words", b"\xe4", b"x" * 256, b"a\tb", b"a\0b"):
            talk = self.begin()
            self.assertEqual(talk.ask(b"EHLO " + name + b"\r\nNOOP\r\n"), NAMELESS + OK, name)
            self.assertIsNone(talk.server.origin.helo)

    def test_noopAndRset(self) -> None:
        """They do nothing, in any letter case, before and behind EHLO."""
        self.assertEqual(self.begin().ask(b"NOOP\r\nrset\r\nNoop hello\r\n"), OK * 3)

    def test_mailNeedsALogin(self) -> None:
        """530, whatever is behind it; the rest of an envelope comes at the wrong time."""
        self.assertEqual(
            self.greeted().ask(b"MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\n"),
            NO_MAIL + BAD * 2,
        )

    def test_pipelinedCommandsAreAnsweredInOrder(self) -> None:
        """We promise PIPELINING; what follows a login waits for its verdict."""
        talk = self.begin()
        answer = talk.ask(b"NOOP\r\n" + HELLO + b"MAIL\r\n" + LOGIN + b"NOOP\r\n")
        self.assertEqual(answer, OK + EXTENSIONS + NO_MAIL)
        self.assertPassword(talk, b"ann", b"secret")


class LineTests(SubmissionCase):
    """Only CRLF ends a line."""

    def test_bareLFNeverEndsALine(self) -> None:
        """What follows it is no command of its own: that is how mail is smuggled."""
        talk = self.begin()
        self.assertEqual(talk.ask(b"NOOP\n"), b"")
        self.assertEqual(talk.ask(b"NOOP\nNOOP\r\nNOOP\r\n"), MALFORMED_LINE + OK)
        self.assertEqual(talk.server.mistakes, 1)

    def test_bareCRNeverEndsALine(self) -> None:
        """Nor may it stand in one."""
        answer = self.begin().ask(b"NOOP\rNOOP\r\nNOOP\r\r\n\rNOOP\r\nNOOP\r\n")
        self.assertEqual(answer, MALFORMED_LINE * 3 + OK)

    def test_nameCannotHoldALine(self) -> None:
        """A backend is told the client's name: none can bring a command with it."""
        for name in (b"x\nQUIT", b"x\rQUIT"):
            talk = self.begin()
            self.assertEqual(talk.ask(b"EHLO %b\r\n" % name), MALFORMED_LINE)
            self.assertIsNone(talk.server.origin.helo)

    def test_bareLFInAnExchange(self) -> None:
        """It is part of the message, which is then not base64."""
        talk = self.greeted()
        self.assertEqual(
            talk.ask(b"AUTH PLAIN\r\n%b\nNOOP\r\nNOOP\r\n" % PLAIN),
            b"334 \r\n" + MALFORMED + OK,
        )
        self.assertIsNone(talk.login)


class AuthTests(contract.ExchangeContract, SubmissionCase):
    """AUTH."""

    def test_needsAGreeting(self) -> None:
        """AUTH is an extension: who has not asked for it does not know it."""
        talk = self.begin()
        self.assertEqual(talk.ask(LOGIN), BAD)
        self.assertEqual(talk.server.failures, 0)


class VerdictTests(contract.VerdictContract, SubmissionCase):
    """What the client hears of its backend's answer."""

    def test_backends421IsSaidOnce(self) -> None:
        """421 announces the close: ours follows, with no other last word, last attempt or not."""
        later = AuthResult(Verdict.TEMPORARY, b"421-4.3.2 so\r\n", b"421 4.3.2 later")
        for attempts, refusal in ((3, Refusal.UNAVAILABLE), (1, Refusal.TOO_MANY)):
            talk = self.loggedIn(serverSettings(maxAttempts=attempts))
            self.assertRaises(Dismissed, self.reject, talk, later)
            self.assertEqual(talk.ask(b""), b"421-4.3.2 so\r\n421 4.3.2 later\r\n")
            talk.server.dismiss(refusal, None)
            self.assertEqual(talk.ask(b""), b"")

    def test_our421IsSaidOnce(self) -> None:
        """The first reason is the one that counts."""
        talk = self.begin()
        talk.server.dismiss(Refusal.SHUTDOWN, None)
        talk.server.dismiss(Refusal.TIMEOUT, None)
        self.assertEqual(talk.ask(b""), WORDS.farewells[Refusal.SHUTDOWN])


class StartTLSTests(contract.StartTLSContract, SubmissionCase):
    """STARTTLS on the client's leg."""

    def test_ehloHasToBeSaidAgain(self) -> None:
        """The name before it is forgotten: an attacker may have said it."""
        talk = self.greeted(startTLS())
        talk.secure(b"STARTTLS\r\n")
        self.assertEqual(talk.server.origin, moved(secure=True))
        self.assertEqual(talk.ask(LOGIN), BAD)
        talk.ask(HELLO)
        self.assertEqual(talk.ask(LOGIN), b"")
        self.assertPassword(talk, b"ann", b"secret")
        self.assertEqual(talk.server.origin.helo, b"there.example")


class XClientTests(contract.IntroductionContract, SubmissionCase):
    """XCLIENT: what a proxy in front of us says of its client."""

    def test_trustedPeersAreInvited(self) -> None:
        """EHLO lists what we take."""
        answer = self.begin(self.trusting()).ask(HELLO)
        offer = b"\r\n250 XCLIENT ADDR PORT PROTO HELO DESTADDR DESTPORT SESSION TTL\r\n"
        self.assertTrue(answer.endswith(offer), answer)

    def test_dialogueBeginsAnewBehindIt(self) -> None:
        """EHLO has to be said again; then it is a client's leg, which is not invited."""
        talk = self.greeted(self.trusting())
        talk.ask(WORDS.introduction.line)
        self.assertEqual(talk.ask(LOGIN), BAD)
        self.assertEqual(talk.ask(HELLO), EXTENSIONS)
        self.assertEqual(talk.ask(LOGIN), b"")
        self.assertPassword(talk, b"ann", b"secret")

    def test_whatIsNotKnownStays(self) -> None:
        """A proxy says [UNAVAILABLE] of what it does not know."""
        talk = self.greeted(self.trusting())
        talk.ask(b"XCLIENT ADDR=[UNAVAILABLE] HELO=[tempunavail] TTL=2\r\n")
        self.assertEqual(talk.server.origin, moved(helo=b"there.example", ttl=2, nameless=True))

    def test_linesCannotBeSmuggledInXtext(self) -> None:
        """Not even a trusted peer makes us say a line to a backend by a client's name."""
        talk = self.greeted(self.trusting())
        talk.ask(b"XCLIENT HELO=x+0D+0AQUIT SESSION=y+0A\r\n")
        self.assertEqual(talk.server.origin, attrs.evolve(ORIGIN, nameless=True))


class LinesTests(DialogueTests, LineTests, AuthTests, VerdictTests, StartTLSTests, XClientTests):
    """The same, one line per segment."""

    segments = Segments.LINES


class BytesTests(DialogueTests, LineTests, AuthTests, VerdictTests, StartTLSTests, XClientTests):
    """The same, one byte per segment."""

    segments = Segments.BYTES


class VolumeTests(contract.VolumeContract, SubmissionCase):
    """A great deal at once."""

    def test_endlessLineOfBareLF(self) -> None:
        """What ends no line does not make it shorter."""
        for before in (b"", b"AUTH PLAIN\r\n"):
            talk = self.greeted()
            talk.ask(before + b"\n" * (MAX_LINE + 2))
            self.assertDismissed(talk, Refusal.TOO_BIG)


class FactoryTests(contract.FactoryContract, SubmissionCase):
    """What the listener's factory reads of `[capabilities.submission]`."""

    def test_linesMayHoldSpaces(self) -> None:
        """An extension may have parameters."""
        table = Capabilities.model_validate({"submission": {"ehlo": ["SIZE 1000"]}})
        found = SubmissionServerFactory.advertised(table)
        self.assertEqual(found.capabilities, (b"SIZE 1000",))
