"""Us as a ManageSieve server: what a client may say before its login, and what it hears."""

from base64 import b64encode

import attrs

from mailproxy.config.model import Capabilities
from mailproxy.errors import Refusal
from mailproxy.origin import Address
from mailproxy.protocols.base import AuthResult, Command, ServerSettings, Verdict
from mailproxy.protocols.managesieve import ManageSieveServer, ManageSieveServerFactory
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

WORDS = (b"fileinto", b"vacation")
BAD = b'NO "Unknown or malformed command."\r\n'
DONE = b'OK "Completed."\r\n'
FAILED = b'NO "Authentication failed."\r\n'
MALFORMED = b'NO "Malformed authentication message."\r\n'
PRIVACY = b'NO (ENCRYPT-NEEDED) "Secrets are taken over TLS only."\r\n'
MECHANISM = b'NO "Authentication mechanism not supported."\r\n'
LATER = b'(TRYLATER) "Temporarily unavailable, try again later."\r\n'
GO = b'OK "Begin TLS negotiation now."\r\n'
PLAIN = b64encode(b"\0ann\0secret")
TRUSTING = serverSettings(trusts=trustOnly(ORIGIN.client.host), capabilities=WORDS)
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


class ManageSieveCase(DialogueCase):
    """Dialogues with a ManageSieve server."""

    def begin(self, settings: ServerSettings | None = None) -> Talk[ManageSieveServer]:
        """Begin a dialogue; without settings, secrets are taken without TLS."""
        settings = settings or serverSettings(capabilities=WORDS)
        return Talk(ManageSieveServer, settings, self.segments)


class DialogueTests(ManageSieveCase):
    """Capabilities and the small commands."""

    def test_capabilitiesComeFirstAndWhenAsked(self) -> None:
        """The block and its OK (RFC 5804, section 1.7)."""
        talk = self.begin()
        self.assertEqual(talk.greeting, block(ALL))
        self.assertEqual(talk.ask(b"capability\r\n"), block(ALL))

    def test_capabilitiesWithoutPrivacy(self) -> None:
        """On an open leg no mechanism is offered."""
        self.assertEqual(self.begin(plain(capabilities=WORDS)).greeting, block(b""))

    def test_capabilitiesComeAgainAfterTLS(self) -> None:
        """By themselves, for they have changed (section 2.2)."""
        talk = self.begin(startTLS(capabilities=WORDS))
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

    def test_unknownCommandsAreRefused(self) -> None:
        """What is for after the login, or cannot be read."""
        for line in (
            b"LISTSCRIPTS",
            b'HAVESPACE "x" 9',
            b"XYZZY",
            b"",
            b'"NOOP"',
            b"(NOOP)",
            b'NOOP "x',
            b'NOOP "x" "y"',
            b"NOOP (x)",
            b"NO\nOP",
        ):
            self.assertEqual(self.begin().ask(line + b"\r\nNOOP\r\n"), BAD + DONE, line)

    def test_scriptsAreNotTakenForCommands(self) -> None:
        """A refused command takes its literal with it."""
        sent = b'PUTSCRIPT "x" {12+}\r\nLOGOUT\r\n\r\n!!\r\nNOOP\r\n'
        self.assertEqual(self.begin().ask(sent), BAD + DONE)

    def test_twentyMistakesEndTheDialogue(self) -> None:
        """Nobody may guess at us for ever."""
        talk = self.begin()
        self.assertEqual(talk.ask(b"X\r\n" * 20 + b"NOOP\r\n"), BAD * 20)
        self.assertDismissed(talk, Refusal.TOO_MANY)

    def test_noReplyBehindLOGOUT(self) -> None:
        """LOGOUT is answered, and nothing behind it is read."""
        talk = self.begin()
        self.assertEqual(talk.ask(b"LOGOUT\r\nNOOP\r\n"), b'OK "Logging out."\r\n')
        self.assertDismissed(talk, None)


class AuthenticateTests(ManageSieveCase):
    """AUTHENTICATE."""

    def test_allMechanismsWithInitialResponse(self) -> None:
        """Quoted, as a literal in either spelling, or, from careless clients, as atoms."""
        for mechanism, message in (
            (Mechanism.PLAIN, b"ann\0master\0secret"),
            (Mechanism.OAUTHBEARER, b"n,,\1auth=Bearer token\1\1"),
            (Mechanism.XOAUTH2, b"user=ann\1auth=Bearer token\1\1"),
        ):
            name, initial = mechanism.value, b64encode(message)
            for line in (
                b'AUTHENTICATE "%b" "%b"\r\n' % (name.lower(), initial),
                b'AUTHENTICATE "%b" {%d+}\r\n%b\r\n' % (name, len(initial), initial),
                b'AUTHENTICATE "%b" {%d}\r\n%b\r\n' % (name, len(initial), initial),
                b"authenticate %b %b\r\n" % (name, initial),
            ):
                talk = self.begin()
                self.assertEqual(talk.ask(line), b"")
                self.assertMessage(talk, mechanism, message)

    def test_continuation(self) -> None:
        """An empty string asks for the response, which is a string."""
        for answer in (b'"%b"' % PLAIN, b"{%d+}\r\n%b" % (len(PLAIN), PLAIN)):
            talk = self.begin()
            self.assertEqual(talk.ask(b'AUTHENTICATE "PLAIN"\r\n'), b'""\r\n')
            self.assertEqual(talk.ask(answer + b"\r\n"), b"")
            self.assertPassword(talk, b"ann", b"secret")

    def test_loginMechanism(self) -> None:
        """LOGIN prompts for name and password; the name may come at once."""
        for command, heard in (
            (b'AUTHENTICATE "LOGIN"\r\n"YW5u"\r\n', b'"VXNlcm5hbWU6"\r\n"UGFzc3dvcmQ6"\r\n'),
            (b'AUTHENTICATE "LOGIN" "YW5u"\r\n', b'"UGFzc3dvcmQ6"\r\n'),
        ):
            talk = self.begin()
            self.assertEqual(talk.ask(command), heard)
            talk.ask(b'"c2VjcmV0"\r\n')
            self.assertPassword(talk, b"ann", b"secret")

    def test_malformedMessages(self) -> None:
        """Empty, bad base64, a missing NUL: counted failures."""
        for initial in (b"", b"=", b"!", b"YW5u", b"YQ"):
            talk = self.begin()
            self.assertEqual(talk.ask(b'AUTHENTICATE "PLAIN" "%b"\r\n' % initial), MALFORMED)
            self.assertEqual(talk.server.failures, 1)

    def test_answerThatIsNoStringIsAMistake(self) -> None:
        """The exchange is over, and nothing of it is taken for a command."""
        for answer in (b"(x)", b'"a" "b"', b'"x', b""):
            talk = self.begin()
            heard = talk.ask(b'AUTHENTICATE "PLAIN"\r\n' + answer + b"\r\nNOOP\r\n")
            self.assertEqual(heard, b'""\r\n' + BAD + DONE)

    def test_cancel(self) -> None:
        """`"*"` ends the exchange; the dialogue goes on."""
        self.assertEqual(
            self.begin().ask(b'AUTHENTICATE "PLAIN"\r\n"*"\r\nNOOP\r\n'),
            b'""\r\nNO "Authentication cancelled."\r\n' + DONE,
        )

    def test_unknownMechanism(self) -> None:
        """What we do not offer is refused and counted."""
        talk = self.begin(serverSettings(mechanisms=(Mechanism.PLAIN,)))
        sent = b'AUTHENTICATE "CRAM-MD5"\r\nAUTHENTICATE "LOGIN"\r\n'
        self.assertEqual(talk.ask(sent), MECHANISM * 2)
        self.assertEqual(talk.server.failures, 2)

    def test_wrongNumberOfStrings(self) -> None:
        """A mistake and no failed login."""
        for arguments in (b"", b' "PLAIN" "x" "y"', b' ("PLAIN")'):
            talk = self.begin()
            self.assertEqual(talk.ask(b"AUTHENTICATE%b\r\n" % arguments), BAD)
            self.assertEqual(talk.server.failures, 0)

    def test_eavesdropperGetsNoSecret(self) -> None:
        """On an open leg every mechanism is refused before a secret is asked for."""
        for mechanism in Mechanism:
            line = b'AUTHENTICATE "%b"\r\n' % mechanism.value
            self.assertEqual(self.begin(plain()).ask(line), PRIVACY)

    def test_lastAttemptIsAnsweredFirst(self) -> None:
        """The refusal that ends the dialogue arrives, then BYE."""
        talk = self.begin(serverSettings(maxAttempts=1))
        self.assertEqual(talk.ask(b'AUTHENTICATE "PLAIN" "="\r\nNOOP\r\n'), MALFORMED)
        self.assertDismissed(talk, Refusal.TOO_MANY)
        talk.server.dismiss(Refusal.TOO_MANY, None)
        self.assertEqual(talk.ask(b""), b'BYE "Too many failures."\r\n')


class VerdictTests(ManageSieveCase):
    """What the client hears of its backend's answer."""

    def loggedIn(self) -> Talk[ManageSieveServer]:
        """A dialogue with a login in it."""
        talk = self.begin()
        talk.ask(b'AUTHENTICATE "PLAIN" "%b"\r\nNOOP\r\n' % PLAIN)
        return talk

    def test_answerIsPassedOnWhole(self) -> None:
        """SASL data and literals in the backend's spelling."""
        for reply in (b'OK (SASL "cnNwYXV0aD0=") "in"', b"OK (SASL {4}\r\nYQ==) {2}\r\n\r\n"):
            self.assertEqual(self.accept(self.loggedIn(), b"", reply), reply + b"\r\n")

    def test_refusalIsPassedOnAndTheDialogueGoesOn(self) -> None:
        """What was pipelined behind the login is served by us."""
        refused = AuthResult(Verdict.REFUSED, b"", b'NO "db7: no"')
        self.assertEqual(self.reject(self.loggedIn(), refused), b'NO "db7: no"\r\n' + DONE)

    def test_hiddenRefusal(self) -> None:
        """With `hide_auth_errors` in our words; a temporary one stays temporary."""
        refused = AuthResult(Verdict.REFUSED, b"", b'NO "db7: no such user"')
        self.assertEqual(self.reject(self.loggedIn(), refused, hide=True), FAILED + DONE)
        later = AuthResult(Verdict.TEMPORARY, b"", b'NO (TRYLATER) "db7"')
        heard = self.reject(self.loggedIn(), later, hide=True)
        self.assertEqual(heard, b"NO " + LATER + DONE)

    def begunBearer(self) -> Talk[ManageSieveServer]:
        """A dialogue with a token in it."""
        talk = self.begin()
        bearer = b64encode(b"n,,\1auth=Bearer token\1\1")
        talk.ask(b'AUTHENTICATE "OAUTHBEARER" "%b"\r\n' % bearer)
        return talk

    def test_challengeIsRelayed(self) -> None:
        """A token's refusal is shown, and answered by the client."""
        self.assertEqual(self.begunBearer().relay(b"{}", b'"AQ=="\r\n'), b"\1")

    def test_longChallengeIsALiteral(self) -> None:
        """A quoted string holds 1024 bytes; a server's literal has no `+`."""
        talk = self.begunBearer()
        message = b"x" * 900
        heard: list[bytes] = []
        self.patch(talk.client, "dataReceived", heard.append)
        self.assertEqual(talk.relay(message, b'"AQ=="\r\n'), b"\1")
        self.assertEqual(b"".join(heard), b"{1200}\r\n" + b64encode(message) + b"\r\n")

    def test_nonsenseIsNoAnswerAndNobodysFault(self) -> None:
        """A client cannot have a backend declared down by answering what is no string."""
        for answer in (b'"*"', b'"!"', b"(x)", b'"a" "b"', b'"x', b""):
            self.assertIsNone(self.begunBearer().relay(b"{}", answer + b"\r\n"), answer)

    def test_everyEndingHasItsWords(self) -> None:
        """One BYE; a command that waits is answered before it."""
        for refusal in (
            Refusal.UNAVAILABLE,
            Refusal.TIMEOUT,
            Refusal.SHUTDOWN,
            Refusal.TOO_MANY,
            Refusal.TOO_BIG,
        ):
            talk = self.begin()
            talk.server.dismiss(refusal, None)
            self.assertRegex(talk.ask(b""), rb"\ABYE [^\r]+\r\n\Z")
        talk = self.begin()
        talk.server.dismiss(Refusal.UNAVAILABLE, Command(b"", b"AUTHENTICATE"))
        self.assertEqual(talk.ask(b""), b"NO " + LATER + b"BYE " + LATER)


class StartTLSTests(ManageSieveCase):
    """STARTTLS on the client's leg."""

    def test_loginAfterIt(self) -> None:
        """Inside TLS a password is taken."""
        talk = self.begin(startTLS())
        talk.secure(b"STARTTLS\r\n")
        talk.ask(b'AUTHENTICATE "PLAIN" "%b"\r\n' % PLAIN)
        self.assertPassword(talk, b"ann", b"secret")
        self.assertTrue(talk.server.origin.secure)

    def test_twiceOrNotOfferedIsAnError(self) -> None:
        """TLS is begun once, and only where there is a certificate for it."""
        talk = self.begin(startTLS())
        talk.secure(b"STARTTLS\r\n")
        talk.ask(b"")
        self.assertEqual(talk.ask(b"STARTTLS\r\nNOOP\r\n"), BAD + DONE)
        self.assertEqual(self.begin().ask(b"STARTTLS\r\n"), BAD)

    def test_commandsInjectedBeforeTheHandshakeAreDropped(self) -> None:
        """What an attacker puts behind STARTTLS in the clear is not served inside TLS."""
        talk = Talk(ManageSieveServer, startTLS(capabilities=WORDS), Segments.WHOLE)
        self.assertEqual(talk.secure(b'STARTTLS\r\nNOOP "evil"\r\nX {40+}\r\nNO'), GO)
        self.assertEqual(talk.ask(b"NOOP\r\n"), block(ALL) + DONE)


class XClientTests(ManageSieveCase):
    """XCLIENT: what a proxy in front of us says of its client."""

    LINE = b'XCLIENT ADDR=2001:db8::7 "PORT=5123" SESSION=outer+2B1 TTL=3 LOGIN=root\r\n'
    UPDATED = b'OK "Updated."\r\n'

    def test_trustedPeersAreInvited(self) -> None:
        """By a line of the block."""
        offer = b'"XCLIENT" "ADDR PORT DESTADDR DESTPORT SESSION TTL CLIENT-TRANSPORT"'
        self.assertEqual(self.begin(TRUSTING).greeting, block(ALL, offer))

    def test_trustedPeersAreBelieved(self) -> None:
        """Address, name and hops are taken over; LOGIN is not. Then it is a client's leg."""
        talk = self.begin(TRUSTING)
        self.assertEqual(talk.ask(self.LINE), self.UPDATED)
        expected = moved(client=Address("2001:db8::7", 5123), session="outer+1", ttl=3)
        self.assertEqual(talk.server.origin, expected)
        self.assertIsNone(talk.login)
        self.assertEqual(talk.ask(b"CAPABILITY\r\n"), block(ALL))
        self.assertEqual(talk.ask(b"XCLIENT ADDR=192.0.2.66\r\n"), BAD)
        self.assertEqual(talk.server.origin, expected)

    def test_strangersForgeryIsRefused(self) -> None:
        """A client cannot choose the address that a backend believes, nor is it invited to."""
        talk = self.begin()
        self.assertNotIn(b"XCLIENT", talk.greeting)
        self.assertEqual(talk.ask(self.LINE), BAD)
        self.assertEqual(talk.server.origin, ORIGIN)

    def test_malformedWordsChangeNothing(self) -> None:
        """A word without a value, a list, and bad xtext."""
        for words in (b"ADDR", b"TTL=3 X", b"ADDR=+ZZ", b"TTL=2 (SESSION=a)"):
            talk = self.begin(TRUSTING)
            self.assertEqual(talk.ask(b"XCLIENT %b\r\n" % words), BAD, words)
            self.assertEqual(talk.server.origin, ORIGIN)

    def test_introductionInTheClearIsForgottenAfterTLS(self) -> None:
        """An attacker between the proxy and us may have said it."""
        talk = self.begin(startTLS(trusts=trustOnly(ORIGIN.client.host)))
        talk.ask(self.LINE)
        talk.secure(b"STARTTLS\r\n")
        self.assertEqual(talk.server.origin, attrs.evolve(ORIGIN, secure=True))


class LinesTests(DialogueTests, AuthenticateTests, VerdictTests, StartTLSTests, XClientTests):
    """The same, one line per segment."""

    segments = Segments.LINES


class BytesTests(DialogueTests, AuthenticateTests, VerdictTests, StartTLSTests, XClientTests):
    """The same, one byte per segment."""

    segments = Segments.BYTES


class VolumeTests(ManageSieveCase):
    """A great deal at once."""

    def test_hugeToken(self) -> None:
        """60 KB arrive whole, quoted or as a literal, at once or behind a continuation."""
        message = b"n,,\1auth=Bearer %b\1\1" % (b"t" * 45_000)
        text = b64encode(message)
        for string in (b'"%b"' % text, b"{%d+}\r\n%b" % (len(text), text)):
            for between in (b" ", b"\r\n"):
                talk = self.begin()
                talk.ask(b'AUTHENTICATE "OAUTHBEARER"' + between + string + b"\r\n")
                self.assertMessage(talk, Mechanism.OAUTHBEARER, message)

    def test_endlessLinesAndLiterals(self) -> None:
        """What is over the limit is not waited for, in the dialogue or in an exchange."""
        for before in (b"", b'AUTHENTICATE "PLAIN"\r\n'):
            for sent in (b"x" * (MAX_LINE + 2), b"X {65537+}\r\n", b"X {65537}\r\n"):
                talk = self.begin()
                talk.ask(before + sent)
                self.assertDismissed(talk, Refusal.TOO_BIG)

    def test_nineThousandCommandsInOneChunk(self) -> None:
        """All are answered, without recursion."""
        self.assertEqual(self.begin().ask(b"NOOP\r\n" * 9000), DONE * 9000)


class FactoryTests(DialogueCase):
    """What the listener's factory reads of the configuration."""

    def test_promises(self) -> None:
        """`[capabilities.managesieve]`."""
        table = {"sasl": ["XOAUTH2"], "implementation": "hello", "sieve": ["reject"]}
        config = Capabilities.model_validate({"managesieve": table})
        found = ManageSieveServerFactory.advertised(config)
        self.assertEqual((found.mechanisms, found.banner), ((Mechanism.XOAUTH2,), b"hello"))
        self.assertEqual(found.capabilities, (b"reject",))
        self.assertIs(ManageSieveServerFactory.conversation, ManageSieveServer)
