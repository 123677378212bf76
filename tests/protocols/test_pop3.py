"""Us as a POP3 server: what a client may say before its login, and what it hears."""

from base64 import b64encode

import attrs

from mailproxy.config.model import Capabilities
from mailproxy.errors import Refusal
from mailproxy.origin import Address
from mailproxy.protocols.base import AuthResult, ServerSettings, Verdict
from mailproxy.protocols.pop3 import POP3Server, POP3ServerFactory
from mailproxy.sasl import Mechanism
from mailproxy.stream import MAX_LINE
from tests.protocols.talk import (
    ORIGIN,
    DialogueCase,
    Talk,
    plain,
    serverSettings,
    startTLS,
    trustOnly,
)
from tests.support import Segments

OK = b"+OK\r\n"
BAD = b"-ERR Unknown or malformed command.\r\n"
FAILED = b"-ERR [AUTH] Authentication failed.\r\n"
MALFORMED = b"-ERR Malformed authentication message.\r\n"
PRIVACY = b"-ERR Secrets are taken over TLS only.\r\n"
MECHANISM = b"-ERR Authentication mechanism not supported.\r\n"
TEMPORARY = b"-ERR [SYS/TEMP] Temporarily unavailable, try again later.\r\n"
LOGGED_OUT = b"+OK Logging out.\r\n"
PLAIN = b64encode(b"\0ann\0secret")
TRUSTING = serverSettings(trusts=trustOnly(ORIGIN.client.host))


class POP3Case(DialogueCase):
    """Dialogues with a POP3 server."""

    def begin(self, settings: ServerSettings | None = None) -> Talk[POP3Server]:
        """Begin a dialogue; without settings, secrets are taken without TLS."""
        return Talk(POP3Server, settings or serverSettings(), self.segments)

    def capabilities(self, talk: Talk[POP3Server]) -> list[bytes]:
        """Ask for the capabilities."""
        first, *lines, dot, rest = talk.ask(b"CAPA\r\n").split(b"\r\n")
        self.assertEqual((first, dot, rest), (b"+OK Capability list follows.", b".", b""))
        return lines


class DialogueTests(POP3Case):
    """Greeting, capabilities and the small commands."""

    def test_greeting(self) -> None:
        """It holds no timestamp, which would invite APOP, and no word for strangers' proxies."""
        self.assertEqual(self.begin().greeting, b"+OK ready\r\n")

    def test_capabilities(self) -> None:
        """What nearly every backend keeps, and how to log in."""
        self.assertEqual(
            self.capabilities(self.begin()),
            [
                b"TOP",
                b"UIDL",
                b"RESP-CODES",
                b"AUTH-RESP-CODE",
                b"PIPELINING",
                b"USER",
                b"SASL PLAIN LOGIN OAUTHBEARER XOAUTH2",
                b"IMPLEMENTATION mailproxy",
            ],
        )

    def test_capabilitiesWithoutPrivacy(self) -> None:
        """On an open leg neither USER nor a mechanism is offered."""
        found = self.capabilities(self.begin(plain()))
        self.assertEqual([each for each in found if each[:4] in (b"USER", b"SASL", b"STLS")], [])

    def test_capabilitiesBeforeAndAfterTLS(self) -> None:
        """STLS before it, USER and SASL after it."""
        talk = self.begin(startTLS(mechanisms=(Mechanism.PLAIN,)))
        before = self.capabilities(talk)
        self.assertIn(b"STLS", before)
        self.assertNotIn(b"USER", before)
        self.assertEqual(talk.secure(b"STLS\r\n"), b"+OK Begin TLS negotiation now.\r\n")
        after = self.capabilities(talk)
        self.assertNotIn(b"STLS", after)
        self.assertIn(b"USER", after)
        self.assertIn(b"SASL PLAIN", after)

    def test_noop(self) -> None:
        """NOOP does nothing, in any letter case, at a bare LF too."""
        self.assertEqual(self.begin().ask(b"NOOP\r\nnoop\nNoop\r\n"), OK * 3)

    def test_apopIsRefused(self) -> None:
        """A digest cannot be replayed, so it is not taken."""
        talk = self.begin()
        answer = talk.ask(b"APOP ann c4c9334bac560ecc979e58001b3e22fb\r\nNOOP\r\n")
        self.assertEqual(answer, BAD + OK)
        self.assertIsNone(talk.login)

    def test_unknownCommandsAreErrors(self) -> None:
        """What is for after the login, or for nobody."""
        for command in (b"STAT", b"RETR 1", b"XYZZY", b"", b" NOOP", b"USERann", b"\xff\x00"):
            self.assertEqual(self.begin().ask(command + b"\r\nNOOP\r\n"), BAD + OK, command)

    def test_twentyMistakesEndTheDialogue(self) -> None:
        """Nobody may guess at us for ever."""
        talk = self.begin()
        self.assertEqual(talk.ask(b"X\r\n" * 20 + b"NOOP\r\n"), BAD * 20)
        self.assertDismissed(talk, Refusal.TOO_MANY)

    def test_noReplyBehindQUIT(self) -> None:
        """QUIT is answered, and nothing behind it is read."""
        talk = self.begin()
        self.assertEqual(talk.ask(b"QUIT\r\nNOOP\r\nUSER ann\r\n"), LOGGED_OUT)
        self.assertDismissed(talk, None)

    def test_pipelinedCommandsAreAnsweredInOrder(self) -> None:
        """We promise PIPELINING."""
        talk = self.begin()
        answer = talk.ask(b"NOOP\r\nUSER ann\r\nX\r\nPASS secret\r\nSTAT\r\n")
        self.assertEqual(answer, OK + OK + BAD)
        self.assertPassword(talk, b"ann", b"secret")


class PasswordTests(POP3Case):
    """USER and PASS."""

    def test_everyByteOfAPasswordCounts(self) -> None:
        """Spaces inside, in front and at the end, 8 bit and a tab."""
        for password in (b"a b", b" lead", b"trail ", b"  ", b"\xe4\xff", b"a\tb", b"PASS x"):
            talk = self.begin()
            self.assertEqual(talk.ask(b"USER ann\r\nPASS " + password + b"\r\n"), OK)
            self.assertPassword(talk, b"ann", password)

    def test_passWithoutUser(self) -> None:
        """PASS alone is a mistake, not a failed login."""
        talk = self.begin()
        self.assertEqual(talk.ask(b"PASS secret\r\n"), BAD)
        self.assertEqual((talk.server.failures, talk.server.mistakes), (0, 1))

    def test_userMayBeCorrected(self) -> None:
        """The last USER counts."""
        talk = self.begin()
        talk.ask(b"USER bob\r\nUSER ann\r\nPASS secret\r\n")
        self.assertPassword(talk, b"ann", b"secret")

    def test_emptyUserIsAMistake(self) -> None:
        """A name has to be there."""
        for command in (b"USER\r\n", b"USER \r\n"):
            self.assertEqual(self.begin().ask(command), BAD)

    def test_emptyPasswordIsARefusedLogin(self) -> None:
        """It is answered, and counted, as a wrong one."""
        for command in (b"PASS\r\n", b"PASS \r\n"):
            talk = self.begin()
            self.assertEqual(talk.ask(b"USER ann\r\n" + command), OK + FAILED)
            self.assertEqual(talk.server.failures, 1)

    def test_nulIsMalformed(self) -> None:
        """A NUL would change what PLAIN says."""
        for name, password in ((b"ann\0bob", b"x"), (b"ann", b"x\0y")):
            talk = self.begin()
            answer = talk.ask(b"USER %b\r\nPASS %b\r\n" % (name, password))
            self.assertEqual((answer, talk.server.failures), (OK + MALFORMED, 1))

    def test_userIsForgottenAfterAFailedPASS(self) -> None:
        """The next try begins with USER again, whoever refused the last one."""
        talk = self.begin()
        self.assertEqual(talk.ask(b"USER ann\r\nPASS\r\nPASS secret\r\n"), OK + FAILED + BAD)
        talk.ask(b"USER ann\r\nPASS guess\r\n")
        refused = AuthResult(Verdict.REFUSED, b"", b"-ERR [AUTH] no")
        self.assertEqual(self.reject(talk, refused), b"-ERR [AUTH] no\r\n")
        self.assertEqual(talk.ask(b"PASS secret\r\n"), BAD)
        self.assertIsNone(talk.login)

    def test_eavesdropperGetsNoPassword(self) -> None:
        """On an open leg USER is refused already, so that no PASS follows, and counted."""
        talk = self.begin(plain(maxAttempts=2))
        self.assertEqual(talk.ask(b"USER ann\r\nPASS secret\r\n"), PRIVACY + BAD)
        self.assertEqual(talk.ask(b"USER ann\r\n"), PRIVACY)
        self.assertDismissed(talk, Refusal.TOO_MANY)
        self.assertIsNone(talk.login)


class AuthTests(POP3Case):
    """AUTH."""

    def test_aloneItListsTheMechanisms(self) -> None:
        """Those that may be used now."""
        self.assertEqual(
            self.begin(serverSettings(mechanisms=(Mechanism.PLAIN, Mechanism.XOAUTH2))).ask(
                b"AUTH\r\n"
            ),
            b"+OK Mechanisms follow.\r\nPLAIN\r\nXOAUTH2\r\n.\r\n",
        )
        self.assertEqual(self.begin(plain()).ask(b"AUTH\r\n"), b"+OK Mechanisms follow.\r\n.\r\n")

    def test_allMechanismsWithInitialResponse(self) -> None:
        """A login in one line."""
        for mechanism, message in (
            (Mechanism.PLAIN, b"ann\0master\0secret"),
            (Mechanism.OAUTHBEARER, b"n,,\1auth=Bearer token\1\1"),
            (Mechanism.XOAUTH2, b"user=ann\1auth=Bearer token\1\1"),
        ):
            talk = self.begin()
            line = b"AUTH %b %b\r\n" % (mechanism.value.lower(), b64encode(message))
            self.assertEqual(talk.ask(line), b"")
            self.assertMessage(talk, mechanism, message)

    def test_continuation(self) -> None:
        """Without an initial response an empty challenge asks for it."""
        talk = self.begin()
        self.assertEqual(talk.ask(b"AUTH PLAIN\r\n"), b"+ \r\n")
        self.assertEqual(talk.ask(PLAIN + b"\r\n"), b"")
        self.assertPassword(talk, b"ann", b"secret")

    def test_loginMechanism(self) -> None:
        """LOGIN prompts for name and password; the name may come at once."""
        for command, heard in (
            (b"AUTH LOGIN\r\nYW5u\r\n", b"+ VXNlcm5hbWU6\r\n+ UGFzc3dvcmQ6\r\n"),
            (b"AUTH LOGIN YW5u\r\n", b"+ UGFzc3dvcmQ6\r\n"),
        ):
            talk = self.begin()
            self.assertEqual(talk.ask(command), heard)
            talk.ask(b"c2VjcmV0\r\n")
            self.assertPassword(talk, b"ann", b"secret")

    def test_malformedMessages(self) -> None:
        """An empty response (`=`), bad base64 and a missing NUL are counted failures."""
        for initial in (b"=", b"!", b"YW5u", b"YQ"):
            talk = self.begin()
            self.assertEqual(talk.ask(b"AUTH PLAIN %b\r\n" % initial), MALFORMED)
            self.assertEqual(talk.server.failures, 1)

    def test_cancel(self) -> None:
        """`*` ends the exchange; the dialogue goes on."""
        self.assertEqual(
            self.begin().ask(b"AUTH PLAIN\r\n*\r\nNOOP\r\n"),
            b"+ \r\n-ERR Authentication cancelled.\r\n" + OK,
        )

    def test_unknownMechanism(self) -> None:
        """What we do not offer is refused and counted."""
        talk = self.begin(serverSettings(mechanisms=(Mechanism.PLAIN,)))
        self.assertEqual(talk.ask(b"AUTH CRAM-MD5\r\nAUTH LOGIN\r\n"), MECHANISM * 2)
        self.assertEqual(talk.server.failures, 2)

    def test_tooManyWords(self) -> None:
        """A third word is a mistake."""
        self.assertEqual(self.begin().ask(b"AUTH PLAIN eA== eA==\r\n"), BAD)

    def test_eavesdropperGetsNoSecret(self) -> None:
        """On an open leg every mechanism is refused before a secret is asked for."""
        for mechanism in Mechanism:
            self.assertEqual(self.begin(plain()).ask(b"AUTH %b\r\n" % mechanism.value), PRIVACY)

    def test_lastAttemptIsAnsweredOnce(self) -> None:
        """The refusal that ends the dialogue arrives; behind it nothing is left to say."""
        talk = self.begin(serverSettings(maxAttempts=1))
        self.assertEqual(talk.ask(b"AUTH PLAIN =\r\nNOOP\r\n"), MALFORMED)
        self.assertDismissed(talk, Refusal.TOO_MANY)
        talk.server.dismiss(Refusal.TOO_MANY, None)
        self.assertEqual(talk.ask(b""), b"")


class VerdictTests(POP3Case):
    """What the client hears of its backend's answer."""

    def loggedIn(self) -> Talk[POP3Server]:
        """A dialogue with a login in it."""
        talk = self.begin()
        talk.ask(b"USER ann\r\nPASS secret\r\nNOOP\r\n")
        return talk

    def test_answerIsPassedOn(self) -> None:
        """In the backend's words."""
        talk = self.loggedIn()
        self.assertEqual(self.accept(talk, b"", b"+OK 2 messages"), b"+OK 2 messages\r\n")

    def test_refusalIsPassedOnAndTheDialogueGoesOn(self) -> None:
        """What was pipelined behind the login is served by us."""
        refused = AuthResult(Verdict.REFUSED, b"", b"-ERR [AUTH] db7: no")
        heard = self.reject(self.loggedIn(), refused)
        self.assertEqual(heard, b"-ERR [AUTH] db7: no\r\n" + OK)

    def test_hiddenRefusal(self) -> None:
        """With `hide_auth_errors` in our words; a temporary one stays temporary."""
        refused = AuthResult(Verdict.REFUSED, b"", b"-ERR db7: no such user")
        self.assertEqual(self.reject(self.loggedIn(), refused, hide=True), FAILED + OK)
        later = AuthResult(Verdict.TEMPORARY, b"", b"-ERR [SYS/TEMP] db7: later")
        self.assertEqual(self.reject(self.loggedIn(), later, hide=True), TEMPORARY + OK)

    def test_challengeIsRelayed(self) -> None:
        """A token's refusal is shown, and answered by the client."""
        talk = self.begin()
        bearer = b64encode(b"n,,\1auth=Bearer token\1\1")
        talk.ask(b"AUTH OAUTHBEARER %b\r\n" % bearer)
        self.assertEqual(talk.relay(b"{}", b"AQ==\r\n"), b"\1")

    def test_everyEndingHasItsWords(self) -> None:
        """One line; nothing about the password."""
        for refusal in (Refusal.UNAVAILABLE, Refusal.TIMEOUT, Refusal.SHUTDOWN):
            talk = self.begin()
            talk.server.dismiss(refusal, None)
            self.assertRegex(talk.ask(b""), rb"\A-ERR \[SYS/TEMP\] [^\r]+\r\n\Z")
        talk = self.begin()
        talk.server.dismiss(Refusal.TOO_BIG, None)
        self.assertEqual(talk.ask(b""), b"-ERR Command too long.\r\n")


class StartTLSTests(POP3Case):
    """STLS on the client's leg."""

    def test_userBeforeItIsForgotten(self) -> None:
        """An attacker may have said it."""
        settings = attrs.evolve(startTLS(), advertised=serverSettings().advertised)
        talk = self.begin(settings)
        self.assertEqual(talk.ask(b"USER mallory\r\n"), OK)
        talk.secure(b"STLS\r\n")
        self.assertEqual(talk.ask(b"PASS secret\r\n"), BAD)
        self.assertIsNone(talk.login)

    def test_loginAfterIt(self) -> None:
        """Inside TLS a password is taken."""
        talk = self.begin(startTLS())
        talk.secure(b"STLS\r\n")
        talk.ask(b"USER ann\r\nPASS secret\r\n")
        self.assertPassword(talk, b"ann", b"secret")
        self.assertTrue(talk.server.origin.secure)

    def test_twiceOrNotOfferedIsAnError(self) -> None:
        """TLS is begun once, and only where there is a certificate for it."""
        talk = self.begin(startTLS())
        talk.secure(b"STLS\r\n")
        self.assertEqual(talk.ask(b"STLS\r\nNOOP\r\n"), BAD + OK)
        self.assertEqual(self.begin().ask(b"STLS\r\n"), BAD)

    def test_commandsInjectedBeforeTheHandshakeAreDropped(self) -> None:
        """What an attacker puts behind STLS in the clear is not served inside TLS."""
        talk = Talk(POP3Server, startTLS(), Segments.WHOLE)
        answer = talk.secure(b"STLS\r\nUSER mallory\r\nPASS x\r\nNO")
        self.assertEqual(answer, b"+OK Begin TLS negotiation now.\r\n")
        self.assertTrue(talk.client.shaken)
        self.assertEqual(talk.ask(b"NOOP\r\n"), OK)
        self.assertIsNone(talk.login)


class XClientTests(POP3Case):
    """XCLIENT: what a proxy in front of us says of its client."""

    WORDS = b"XCLIENT ADDR=2001:db8::7 PORT=5123 SESSION=outer+2B1 TTL=3 LOGIN=root\r\n"

    def test_trustedPeersAreInvited(self) -> None:
        """The greeting's response code says so."""
        self.assertEqual(self.begin(TRUSTING).greeting, b"+OK [XCLIENT] ready\r\n")

    def test_trustedPeersAreBelieved(self) -> None:
        """Address, name and hops are taken over; LOGIN is not."""
        talk = self.begin(TRUSTING)
        self.assertEqual(talk.ask(self.WORDS), OK)
        expected = attrs.evolve(
            ORIGIN, client=Address("2001:db8::7", 5123), session="outer+1", ttl=3
        )
        self.assertEqual(talk.server.origin, expected)
        self.assertIsNone(talk.login)

    def test_strangersForgeryIsRefused(self) -> None:
        """A client cannot choose the address that a backend believes."""
        talk = self.begin()
        self.assertEqual(talk.ask(self.WORDS), BAD)
        self.assertEqual(talk.server.origin, ORIGIN)
        self.assertNotIn(b"XCLIENT", b" ".join(self.capabilities(talk)))

    def test_clientBehindATrustedPeerIsNotBelieved(self) -> None:
        """Trust goes by the address believed now."""
        talk = self.begin(TRUSTING)
        self.assertEqual(talk.ask(self.WORDS + b"XCLIENT ADDR=192.0.2.66\r\n"), OK + BAD)
        self.assertEqual(talk.server.origin.client.host, "2001:db8::7")

    def test_malformedWordsChangeNothing(self) -> None:
        """A word without a value, and bad xtext."""
        for words in (b"ADDR", b"TTL=3 X", b"ADDR=+ZZ", b"TTL=2 SESSION=a+"):
            talk = self.begin(TRUSTING)
            self.assertEqual(talk.ask(b"XCLIENT %b\r\n" % words), BAD, words)
            self.assertEqual(talk.server.origin, ORIGIN)

    def test_introductionInTheClearIsForgottenAfterTLS(self) -> None:
        """An attacker between the proxy and us may have said it."""
        talk = self.begin(startTLS(trusts=trustOnly(ORIGIN.client.host)))
        talk.ask(self.WORDS)
        talk.secure(b"STLS\r\n")
        self.assertEqual(talk.server.origin, attrs.evolve(ORIGIN, secure=True))


class LinesTests(
    DialogueTests, PasswordTests, AuthTests, VerdictTests, StartTLSTests, XClientTests
):
    """The same, one line per segment."""

    segments = Segments.LINES


class BytesTests(
    DialogueTests, PasswordTests, AuthTests, VerdictTests, StartTLSTests, XClientTests
):
    """The same, one byte per segment."""

    segments = Segments.BYTES


class VolumeTests(POP3Case):
    """A great deal at once."""

    def test_hugeToken(self) -> None:
        """60 KB arrive whole, in the command and behind a continuation."""
        message = b"n,,\1auth=Bearer %b\1\1" % (b"t" * 45_000)
        for lines in (
            b"AUTH OAUTHBEARER %b\r\n" % b64encode(message),
            b"AUTH OAUTHBEARER\r\n%b\r\n" % b64encode(message),
        ):
            talk = self.begin()
            talk.ask(lines)
            self.assertMessage(talk, Mechanism.OAUTHBEARER, message)

    def test_endlessLine(self) -> None:
        """A line over the limit is not waited for, in the dialogue or in an exchange."""
        for before in (b"", b"AUTH PLAIN\r\n"):
            talk = self.begin()
            talk.ask(before + b"x" * (MAX_LINE + 2))
            self.assertDismissed(talk, Refusal.TOO_BIG)

    def test_nineThousandCommandsInOneChunk(self) -> None:
        """All are answered, without recursion."""
        self.assertEqual(self.begin().ask(b"NOOP\r\n" * 9000), OK * 9000)


class FactoryTests(DialogueCase):
    """What the listener's factory reads of the configuration."""

    def test_promises(self) -> None:
        """`[capabilities.pop3]`."""
        table = {"sasl": ["XOAUTH2"], "banner": "hello", "allow_plain_auth_without_tls": True}
        found = POP3ServerFactory.advertised(Capabilities.model_validate({"pop3": table}))
        self.assertEqual(found.mechanisms, (Mechanism.XOAUTH2,))
        self.assertEqual((found.banner, found.cleartext), (b"hello", True))
        self.assertIs(POP3ServerFactory.conversation, POP3Server)
