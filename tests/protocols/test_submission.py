"""Us as a submission server: what a client may say before its login, and what it hears."""

from base64 import b64encode
from typing import Any

import attrs

from mailproxy.config.model import Capabilities
from mailproxy.errors import Refusal
from mailproxy.origin import Address
from mailproxy.protocols.base import AuthResult, Dismissed, ServerSettings, Verdict
from mailproxy.protocols.submission import SubmissionServer, SubmissionServerFactory
from mailproxy.sasl import Mechanism
from mailproxy.stream import MAX_LINE
from tests.protocols.talk import (
    ORIGIN,
    DialogueCase,
    Talk,
    moved,
    plain,
    serverSettings,
    startTLS,
    trustOnly,
)
from tests.support import Segments

WORDS = (b"PIPELINING", b"SIZE")
HELLO = b"EHLO there.example\r\n"
OK = b"250 2.0.0 OK\r\n"
BAD = b"503 5.5.1 Not now, or unknown.\r\n"
MALFORMED_LINE = b"500 5.5.2 Malformed command.\r\n"
NAMELESS = b"501 5.5.4 A name is required.\r\n"
NO_MAIL = b"530 5.7.0 Authentication required.\r\n"
FAILED = b"535 5.7.8 Authentication failed.\r\n"
MALFORMED = b"501 5.5.2 Malformed authentication message.\r\n"
PRIVACY = b"538 5.7.11 Encryption required for requested authentication mechanism.\r\n"
MECHANISM = b"504 5.5.4 Authentication mechanism not supported.\r\n"
TEMPORARY = b"454 4.7.0 Temporary authentication failure.\r\n"
GO = b"220 2.0.0 Begin TLS negotiation now.\r\n"
EXTENSIONS = (
    b"250-[192.0.2.1]\r\n250-PIPELINING\r\n250-SIZE\r\n250 AUTH PLAIN LOGIN OAUTHBEARER XOAUTH2\r\n"
)
PLAIN = b64encode(b"\0ann\0secret")
NONE = b"250-[192.0.2.1]\r\n250-PIPELINING\r\n250 SIZE\r\n"


def trusting(**changes: Any) -> ServerSettings:
    """Settings of a listener whose clients are proxies."""
    return serverSettings(trusts=trustOnly(ORIGIN.client.host), capabilities=WORDS, **changes)


class SubmissionCase(DialogueCase):
    """Dialogues with a submission server."""

    def begin(self, settings: ServerSettings | None = None) -> Talk[SubmissionServer]:
        """Begin a dialogue; without settings, secrets are taken without TLS."""
        settings = settings or serverSettings(capabilities=WORDS)
        return Talk(SubmissionServer, settings, self.segments)

    def greeted(self, settings: ServerSettings | None = None) -> Talk[SubmissionServer]:
        """A dialogue in which EHLO has been said."""
        talk = self.begin(settings)
        self.assertTrue(talk.ask(HELLO).startswith(b"250-"))
        return talk


class DialogueTests(SubmissionCase):
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
        settings = plain(capabilities=WORDS)
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

    def test_unknownCommands(self) -> None:
        """503, and the dialogue goes on."""
        for command in (b"VRFY ann", b"XYZZY", b"", b" EHLO x", b"BDAT 1 LAST", b"\xff"):
            self.assertEqual(self.begin().ask(command + b"\r\nNOOP\r\n"), BAD + OK, command)

    def test_twentyMistakesEndTheDialogue(self) -> None:
        """Nobody may guess at us for ever."""
        talk = self.begin()
        self.assertEqual(talk.ask(b"X\r\n" * 20 + b"NOOP\r\n"), BAD * 20)
        self.assertDismissed(talk, Refusal.TOO_MANY)

    def test_noReplyBehindQUIT(self) -> None:
        """QUIT is answered, and nothing behind it is read."""
        talk = self.begin()
        self.assertEqual(talk.ask(b"QUIT\r\nNOOP\r\nMAIL\r\n"), b"221 2.0.0 Bye.\r\n")
        self.assertDismissed(talk, None)

    def test_pipelinedCommandsAreAnsweredInOrder(self) -> None:
        """We promise PIPELINING; what follows a login waits for its verdict."""
        talk = self.begin()
        answer = talk.ask(b"NOOP\r\n" + HELLO + b"MAIL\r\nAUTH PLAIN %b\r\nNOOP\r\n" % PLAIN)
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
            talk.ask(b"AUTH PLAIN\r\n%b\nNOOP\r\nNOOP\r\n" % PLAIN), b"334 \r\n" + MALFORMED + OK
        )
        self.assertIsNone(talk.login)


class AuthTests(SubmissionCase):
    """AUTH."""

    def test_needsAGreeting(self) -> None:
        """AUTH is an extension: who has not asked for it does not know it."""
        talk = self.begin()
        self.assertEqual(talk.ask(b"AUTH PLAIN %b\r\n" % PLAIN), BAD)
        self.assertEqual(talk.server.failures, 0)

    def test_allMechanismsWithInitialResponse(self) -> None:
        """A login in one line."""
        for mechanism, message in (
            (Mechanism.PLAIN, b"ann\0master\0secret"),
            (Mechanism.OAUTHBEARER, b"n,,\1auth=Bearer token\1\1"),
            (Mechanism.XOAUTH2, b"user=ann\1auth=Bearer token\1\1"),
        ):
            talk = self.greeted()
            line = b"auth %b %b\r\n" % (mechanism.value.lower(), b64encode(message))
            self.assertEqual(talk.ask(line), b"")
            self.assertMessage(talk, mechanism, message)

    def test_continuation(self) -> None:
        """Without an initial response an empty challenge asks for it."""
        talk = self.greeted()
        self.assertEqual(talk.ask(b"AUTH PLAIN\r\n"), b"334 \r\n")
        self.assertEqual(talk.ask(PLAIN + b"\r\n"), b"")
        self.assertPassword(talk, b"ann", b"secret")

    def test_loginMechanism(self) -> None:
        """LOGIN prompts for name and password; the name may come at once."""
        for command, heard in (
            (b"AUTH LOGIN\r\nYW5u\r\n", b"334 VXNlcm5hbWU6\r\n334 UGFzc3dvcmQ6\r\n"),
            (b"AUTH LOGIN YW5u\r\n", b"334 UGFzc3dvcmQ6\r\n"),
        ):
            talk = self.greeted()
            self.assertEqual(talk.ask(command), heard)
            talk.ask(b"c2VjcmV0\r\n")
            self.assertPassword(talk, b"ann", b"secret")

    def test_malformedMessages(self) -> None:
        """An empty response (`=`), bad base64 and a missing NUL are counted failures."""
        for initial in (b"=", b"!", b"YW5u", b"YQ"):
            talk = self.greeted()
            self.assertEqual(talk.ask(b"AUTH PLAIN %b\r\n" % initial), MALFORMED)
            self.assertEqual(talk.server.failures, 1)

    def test_emptyUserOrPassword(self) -> None:
        """It fails as a wrong password does."""
        for message in (b"\0\0secret", b"\0ann\0"):
            answer = self.greeted().ask(b"AUTH PLAIN %b\r\n" % b64encode(message))
            self.assertEqual(answer, FAILED)

    def test_cancel(self) -> None:
        """`*` ends the exchange; the dialogue goes on."""
        self.assertEqual(
            self.greeted().ask(b"AUTH PLAIN\r\n*\r\nNOOP\r\n"),
            b"334 \r\n501 5.7.0 Authentication cancelled.\r\n" + OK,
        )

    def test_unknownMechanism(self) -> None:
        """What we do not offer is refused and counted."""
        talk = self.greeted(serverSettings(mechanisms=(Mechanism.PLAIN,)))
        self.assertEqual(talk.ask(b"AUTH CRAM-MD5\r\nAUTH LOGIN\r\n"), MECHANISM * 2)
        self.assertEqual(talk.server.failures, 2)

    def test_wrongNumberOfWords(self) -> None:
        """No mechanism, or a third word, is a mistake and no failed login."""
        for command in (b"AUTH\r\n", b"AUTH PLAIN eA== eA==\r\n"):
            talk = self.greeted()
            self.assertEqual(talk.ask(command), BAD)
            self.assertEqual(talk.server.failures, 0)

    def test_eavesdropperGetsNoSecret(self) -> None:
        """On an open leg every mechanism is refused before a secret is asked for."""
        for mechanism in Mechanism:
            talk = self.greeted(plain(capabilities=WORDS))
            self.assertEqual(talk.ask(b"AUTH %b\r\n" % mechanism.value), PRIVACY)
            self.assertEqual(talk.server.failures, 1)

    def test_lastAttemptIsAnsweredFirst(self) -> None:
        """The refusal that ends the dialogue arrives, then 421."""
        talk = self.greeted(serverSettings(maxAttempts=1, capabilities=WORDS))
        self.assertEqual(talk.ask(b"AUTH PLAIN =\r\nNOOP\r\n"), MALFORMED)
        self.assertDismissed(talk, Refusal.TOO_MANY)
        talk.server.dismiss(Refusal.TOO_MANY, None)
        self.assertEqual(talk.ask(b""), b"421 4.7.0 Too many errors.\r\n")


class VerdictTests(SubmissionCase):
    """What the client hears of its backend's answer."""

    def loggedIn(self, maxAttempts: int = 3) -> Talk[SubmissionServer]:
        """A dialogue with a login in it."""
        talk = self.greeted(serverSettings(maxAttempts=maxAttempts, capabilities=WORDS))
        talk.ask(b"AUTH PLAIN %b\r\nNOOP\r\n" % PLAIN)
        return talk

    def test_answerIsPassedOnWhole(self) -> None:
        """All lines of it, in the backend's words."""
        heard = self.accept(self.loggedIn(), b"235-2.7.0 well,\r\n", b"235 2.7.0 in")
        self.assertEqual(heard, b"235-2.7.0 well,\r\n235 2.7.0 in\r\n")

    def test_refusalIsPassedOnAndTheDialogueGoesOn(self) -> None:
        """EHLO needs not be said again; what was pipelined is served by us."""
        refused = AuthResult(Verdict.REFUSED, b"535-5.7.8 no,\r\n", b"535 5.7.8 db7: no")
        talk = self.loggedIn()
        heard = self.reject(talk, refused)
        self.assertEqual(heard, b"535-5.7.8 no,\r\n535 5.7.8 db7: no\r\n" + OK)
        self.assertEqual(talk.ask(b"AUTH PLAIN\r\n"), b"334 \r\n")

    def test_hiddenRefusal(self) -> None:
        """With `hide_auth_errors` in our words; a temporary one stays temporary."""
        refused = AuthResult(Verdict.REFUSED, b"", b"535 db7: no such user")
        self.assertEqual(self.reject(self.loggedIn(), refused, hide=True), FAILED + OK)
        for reply in (b"454 4.7.0 db7: later", b"421 4.3.2 db7: going down"):
            later = AuthResult(Verdict.TEMPORARY, b"", reply)
            self.assertEqual(self.reject(self.loggedIn(), later, hide=True), TEMPORARY + OK)

    def test_backends421IsSaidOnce(self) -> None:
        """421 announces the close: ours follows, with no other last word, last attempt or not."""
        later = AuthResult(Verdict.TEMPORARY, b"421-4.3.2 so\r\n", b"421 4.3.2 later")
        for attempts, refusal in ((3, Refusal.UNAVAILABLE), (1, Refusal.TOO_MANY)):
            talk = self.loggedIn(attempts)
            self.assertRaises(Dismissed, self.reject, talk, later)
            self.assertEqual(talk.ask(b""), b"421-4.3.2 so\r\n421 4.3.2 later\r\n")
            talk.server.dismiss(refusal, None)
            self.assertEqual(talk.ask(b""), b"")

    def test_challengeIsRelayed(self) -> None:
        """A token's refusal is shown, and answered by the client."""
        talk = self.greeted()
        talk.ask(b"AUTH OAUTHBEARER %b\r\n" % b64encode(b"n,,\1auth=Bearer token\1\1"))
        self.assertEqual(talk.relay(b"{}", b"AQ==\r\n"), b"\1")

    def test_everyEndingHasItsWords(self) -> None:
        """421 with an enhanced code; a line too long has its own."""
        for refusal in (
            Refusal.UNAVAILABLE,
            Refusal.TIMEOUT,
            Refusal.SHUTDOWN,
            Refusal.TOO_MANY,
        ):
            talk = self.begin()
            talk.server.dismiss(refusal, None)
            talk.server.dismiss(refusal, None)
            self.assertRegex(talk.ask(b""), rb"\A421 4\.\d\.\d [^\r]+\r\n\Z")
        talk = self.begin()
        talk.server.dismiss(Refusal.TOO_BIG, None)
        self.assertEqual(talk.ask(b""), b"500 5.5.6 Line too long.\r\n")


class StartTLSTests(SubmissionCase):
    """STARTTLS on the client's leg."""

    def test_ehloHasToBeSaidAgain(self) -> None:
        """The name before it is forgotten: an attacker may have said it."""
        talk = self.greeted(startTLS())
        talk.secure(b"STARTTLS\r\n")
        self.assertEqual(talk.server.origin, moved(secure=True))
        self.assertEqual(talk.ask(b"AUTH PLAIN %b\r\n" % PLAIN), BAD)
        talk.ask(HELLO)
        self.assertEqual(talk.ask(b"AUTH PLAIN %b\r\n" % PLAIN), b"")
        self.assertPassword(talk, b"ann", b"secret")
        self.assertEqual(talk.server.origin.helo, b"there.example")

    def test_twiceOrNotOfferedIsAnError(self) -> None:
        """TLS is begun once, and only where there is a certificate for it."""
        talk = self.begin(startTLS())
        talk.secure(b"STARTTLS\r\n")
        self.assertEqual(talk.ask(b"STARTTLS\r\nNOOP\r\n"), BAD + OK)
        self.assertEqual(self.begin().ask(b"STARTTLS\r\n"), BAD)

    def test_commandsInjectedBeforeTheHandshakeAreDropped(self) -> None:
        """What an attacker puts behind STARTTLS in the clear is not served inside TLS."""
        talk = Talk(SubmissionServer, startTLS(), Segments.WHOLE)
        self.assertEqual(talk.secure(b"STARTTLS\r\nEHLO mallory\r\nAUTH PLAIN x\r\nNO"), GO)
        self.assertTrue(talk.client.shaken)
        self.assertEqual(talk.ask(b"NOOP\r\n"), OK)
        self.assertIsNone(talk.server.origin.helo)


class XClientTests(SubmissionCase):
    """XCLIENT: what a proxy in front of us says of its client."""

    LINE = (
        b"XCLIENT ADDR=IPV6:2001:db8::7 PORT=5123 HELO=far+2Bout PROTO=ESMTP SESSION=one TTL=3 "
        b"LOGIN=root NAME=[UNAVAILABLE]\r\n"
    )

    def test_trustedPeersAreInvited(self) -> None:
        """EHLO lists what we take."""
        answer = self.begin(trusting()).ask(HELLO)
        offer = b"\r\n250 XCLIENT ADDR PORT PROTO HELO DESTADDR DESTPORT SESSION TTL\r\n"
        self.assertTrue(answer.endswith(offer), answer)

    def test_trustedPeersAreBelieved(self) -> None:
        """The dialogue begins anew, with a greeting; LOGIN is no login."""
        talk = self.greeted(trusting())
        self.assertEqual(talk.ask(self.LINE), b"220 [192.0.2.1] ESMTP ready\r\n")
        expected = moved(client=Address("2001:db8::7", 5123), helo=b"far+out", session="one", ttl=3)
        self.assertEqual(talk.server.origin, expected)
        self.assertIsNone(talk.login)
        self.assertEqual(talk.ask(b"AUTH PLAIN %b\r\n" % PLAIN), BAD)

    def test_whatIsNotKnownStays(self) -> None:
        """A proxy says [UNAVAILABLE] of what it does not know."""
        talk = self.greeted(trusting())
        talk.ask(b"XCLIENT ADDR=[UNAVAILABLE] HELO=[tempunavail] TTL=2\r\n")
        self.assertEqual(talk.server.origin, moved(helo=b"there.example", ttl=2, nameless=True))

    def test_strangersForgeryIsRefused(self) -> None:
        """A client cannot choose the address that a backend believes, nor is it invited to."""
        talk = self.begin()
        self.assertNotIn(b"XCLIENT", talk.ask(HELLO))
        self.assertEqual(talk.ask(self.LINE), BAD)
        self.assertEqual(talk.server.origin, moved(helo=b"there.example"))

    def test_clientBehindATrustedPeerIsNotBelieved(self) -> None:
        """Trust goes by the address believed now; it is not invited any more."""
        talk = self.greeted(trusting())
        talk.ask(self.LINE)
        self.assertNotIn(b"XCLIENT", talk.ask(HELLO))
        self.assertEqual(talk.ask(b"XCLIENT ADDR=192.0.2.66\r\n"), BAD)
        self.assertEqual(talk.server.origin.client.host, "2001:db8::7")

    def test_malformedWordsChangeNothing(self) -> None:
        """A word without a value, and bad xtext."""
        for words in (b"ADDR", b"TTL=3 X", b"ADDR=+ZZ", b"TTL=2 SESSION=a+", b"TTL=2 HELO=+0"):
            talk = self.begin(trusting())
            self.assertEqual(talk.ask(b"XCLIENT %b\r\n" % words), BAD, words)
            self.assertEqual(talk.server.origin, ORIGIN)

    def test_linesCannotBeSmuggledInXtext(self) -> None:
        """Not even a trusted peer makes us say a line to a backend by a client's name."""
        talk = self.greeted(trusting())
        talk.ask(b"XCLIENT HELO=x+0D+0AQUIT SESSION=y+0A\r\n")
        self.assertEqual(talk.server.origin, attrs.evolve(ORIGIN, nameless=True))


class LinesTests(DialogueTests, LineTests, AuthTests, VerdictTests, StartTLSTests, XClientTests):
    """The same, one line per segment."""

    segments = Segments.LINES


class BytesTests(DialogueTests, LineTests, AuthTests, VerdictTests, StartTLSTests, XClientTests):
    """The same, one byte per segment."""

    segments = Segments.BYTES


class VolumeTests(SubmissionCase):
    """A great deal at once."""

    def test_hugeToken(self) -> None:
        """60 KB arrive whole, in the command and behind a continuation."""
        message = b"n,,\1auth=Bearer %b\1\1" % (b"t" * 45_000)
        for lines in (
            b"AUTH OAUTHBEARER %b\r\n" % b64encode(message),
            b"AUTH OAUTHBEARER\r\n%b\r\n" % b64encode(message),
        ):
            talk = self.greeted()
            talk.ask(lines)
            self.assertMessage(talk, Mechanism.OAUTHBEARER, message)

    def test_endlessLine(self) -> None:
        """A line over the limit is not waited for, in the dialogue or in an exchange."""
        for before in (b"", b"AUTH PLAIN\r\n"):
            for filler in (b"x", b"\n"):
                talk = self.greeted()
                talk.ask(before + filler * (MAX_LINE + 2))
                self.assertDismissed(talk, Refusal.TOO_BIG)

    def test_nineThousandCommandsInOneChunk(self) -> None:
        """All are answered, without recursion."""
        self.assertEqual(self.begin().ask(b"NOOP\r\n" * 9000), OK * 9000)


class FactoryTests(DialogueCase):
    """What the listener's factory reads of the configuration."""

    def test_promises(self) -> None:
        """`[capabilities.submission]`; by default nothing that not every backend keeps."""
        table = {"sasl": ["XOAUTH2"], "banner": "hello", "ehlo": ["SIZE 1000"]}
        found = SubmissionServerFactory.advertised(
            Capabilities.model_validate({"submission": table})
        )
        self.assertEqual((found.mechanisms, found.banner), ((Mechanism.XOAUTH2,), b"hello"))
        self.assertEqual(found.capabilities, (b"SIZE 1000",))
        words = SubmissionServerFactory.advertised(Capabilities()).capabilities
        self.assertEqual(words, (b"PIPELINING", b"SIZE", b"8BITMIME", b"ENHANCEDSTATUSCODES"))
        self.assertIs(SubmissionServerFactory.conversation, SubmissionServer)
