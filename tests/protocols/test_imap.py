"""Us as an IMAP server: what a client may say before its login, and what it hears."""

from base64 import b64encode
from typing import ClassVar

import attrs
from twisted.trial.unittest import SynchronousTestCase

from mailproxy.config.model import Capabilities
from mailproxy.errors import PeerGone, Refusal
from mailproxy.origin import Address
from mailproxy.protocols.base import AuthResult, Command, Dismissed, Login, ServerSettings, Verdict
from mailproxy.protocols.imap import IMAPServer, IMAPServerFactory
from mailproxy.sasl import Mechanism, fromPassword
from mailproxy.stream import MAX_LINE
from tests.protocols.talk import ORIGIN, Talk, plain, serverSettings, startTLS, trustOnly
from tests.support import Network, Segments

BAD = b"BAD Unknown or malformed command.\r\n"
FAILED = b"NO [AUTHENTICATIONFAILED] Authentication failed.\r\n"
MALFORMED = b"BAD Malformed authentication message.\r\n"
PRIVACY = b"NO [PRIVACYREQUIRED] Secrets are taken over TLS only.\r\n"
TOO_BIG = b"NO [TOOBIG] Command too long.\r\n"
PLAIN = b64encode(b"\0ann\0secret")


class IMAPCase(SynchronousTestCase):
    """Dialogues in one chunk; subclasses cut the same bytes otherwise.

    :cvar segments: how what the client sends arrives.
    """

    segments: ClassVar[Segments] = Segments.WHOLE

    def begin(self, settings: ServerSettings | None = None) -> Talk[IMAPServer]:
        """Begin a dialogue; without settings, secrets are taken without TLS."""
        return Talk(IMAPServer, settings or serverSettings(), self.segments)

    def assertPassword(self, talk: Talk[IMAPServer], user: bytes, password: bytes) -> None:
        """The client has logged in with this name and password."""
        assert talk.login is not None, talk.client.received
        credentials = talk.login.credentials
        self.assertEqual(credentials.response, b"\0" + user + b"\0" + password)

    def assertDismissed(self, talk: Talk[IMAPServer], refusal: Refusal | None) -> None:
        """The dialogue is over, for this reason."""
        assert isinstance(talk.ending, Dismissed), talk.ending
        self.assertIs(talk.ending.refusal, refusal)


class DialogueTests(IMAPCase):
    """Greeting, capabilities and the small commands."""

    def test_greetingHasTheCapabilities(self) -> None:
        """A client need not ask."""
        self.assertEqual(
            self.begin(serverSettings(mechanisms=(Mechanism.PLAIN, Mechanism.LOGIN))).greeting,
            b"* OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN AUTH=LOGIN] ready\r\n",
        )

    def test_capabilitiesWithoutPrivacy(self) -> None:
        """On an open leg without TLS to be had, nobody can log in, and the client is told."""
        self.assertEqual(
            self.begin(plain()).ask(b"a CAPABILITY\r\n"),
            b"* CAPABILITY IMAP4rev1 SASL-IR LOGINDISABLED\r\na OK Capability completed.\r\n",
        )

    def test_capabilitiesBeforeAndAfterTLS(self) -> None:
        """STARTTLS and LOGINDISABLED before it, the mechanisms after it."""
        talk = self.begin(startTLS(mechanisms=(Mechanism.PLAIN,)))
        self.assertEqual(
            talk.greeting,
            b"* OK [CAPABILITY IMAP4rev1 SASL-IR STARTTLS LOGINDISABLED] ready\r\n",
        )
        self.assertEqual(talk.secure(b"a STARTTLS\r\n"), b"a OK Begin TLS negotiation now.\r\n")
        self.assertEqual(
            talk.ask(b"b CAPABILITY\r\n"),
            b"* CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN\r\nb OK Capability completed.\r\n",
        )

    def test_secretsInTheClearBesideSTARTTLS(self) -> None:
        """Where the operator allows both, both are offered."""
        talk = self.begin(attrs.evolve(startTLS(), advertised=serverSettings().advertised))
        self.assertIn(b" STARTTLS AUTH=PLAIN ", talk.greeting)
        self.assertNotIn(b"LOGINDISABLED", talk.greeting)

    def test_noop(self) -> None:
        """NOOP does nothing, with any legal tag, in any case, at a bare LF too."""
        self.assertEqual(
            self.begin().ask(b"a1 NOOP\r\nX.y-2] noop\nb Noop\r\n"),
            b"a1 OK Completed.\r\nX.y-2] OK Completed.\r\nb OK Completed.\r\n",
        )

    def test_unknownCommandsAreBad(self) -> None:
        """What is for after the login, or for nobody, is answered BAD under its tag."""
        for command in (b"SELECT INBOX", b"XYZZY", b"ENABLE CONDSTORE", b"", b"LOGIN2 a b"):
            answer = self.begin().ask(b"a %b\r\nb NOOP\r\n" % command)
            self.assertEqual(answer, b"a " + BAD + b"b OK Completed.\r\n", command)

    def test_lineWithoutATagIsBad(self) -> None:
        """A tag that we could not repeat safely is not repeated."""
        for line in (b"", b"*", b"+ NOOP", b"a* NOOP", b"\xff NOOP", b"(a) NOOP", b" NOOP"):
            answer = self.begin().ask(line + b"\r\nb NOOP\r\n")
            self.assertEqual(answer, b"* " + BAD + b"b OK Completed.\r\n", line)

    def test_twentyMistakesEndTheDialogue(self) -> None:
        """Nobody may guess at us for ever."""
        talk = self.begin()
        self.assertEqual(talk.ask(b"a X\r\n" * 19), (b"a " + BAD) * 19)
        self.assertIsNone(talk.ending)
        self.assertEqual(talk.ask(b"a X\r\na NOOP\r\n"), b"a " + BAD)
        self.assertDismissed(talk, Refusal.TOO_MANY)

    def test_logout(self) -> None:
        """LOGOUT is answered with BYE and OK, and nothing behind it is read."""
        talk = self.begin()
        self.assertEqual(
            talk.ask(b"a LOGOUT\r\nb NOOP\r\n"), b"* BYE Logging out.\r\na OK Completed.\r\n"
        )
        self.assertDismissed(talk, None)

    def test_clientThatLeavesInALiteral(self) -> None:
        """Half a command is no command."""
        talk = self.begin()
        talk.ask(b"a LOGIN {20}\r\nann")
        talk.client.hangUp()
        talk.network.pump()
        self.assertIsInstance(talk.ending, PeerGone)


class IDTests(IMAPCase):
    """ID: what clients and proxies say of themselves."""

    DONE = b"* ID NIL\r\na OK Completed.\r\n"

    def test_nilSaysNothing(self) -> None:
        """NIL is answered with NIL."""
        talk = self.begin()
        self.assertEqual(talk.ask(b"a ID nil\r\n"), self.DONE)
        self.assertEqual(talk.server.origin, ORIGIN)

    def test_fieldsAreKept(self) -> None:
        """Quoted strings, literals and NIL values, in order; we say nothing of ourselves."""
        talk = self.begin()
        answer = talk.ask(b'a ID ("name" "mu\\"tt" "version" {3}\r\n1.2 "os" NIL "nil" "NIL")\r\n')
        self.assertEqual(answer, b"+ OK\r\n" + self.DONE)
        self.assertEqual(
            talk.server.origin.description,
            ((b"name", b'mu"tt'), (b"version", b"1.2"), (b"os", None), (b"nil", b"NIL")),
        )

    def test_emptyListSaysNothing(self) -> None:
        """An empty list is one that holds no field."""
        talk = self.begin()
        self.assertEqual(talk.ask(b"a ID ()\r\n"), self.DONE)
        self.assertEqual(talk.server.origin.description, ())

    def test_malformedListIsBad(self) -> None:
        """No list, an odd one, two, a nested or an open one: BAD, and nothing is kept."""
        for arguments in (
            b"",
            b'"name"',
            b'"NIL"',
            b'("name")',
            b'("a" "b") ("c" "d")',
            b'("a" ("b"))',
            b'("a" "b"',
            b'"a" "b")',
            b'("a" "b)',
        ):
            talk = self.begin()
            answer = talk.ask(b"a ID %b\r\nb NOOP\r\n" % arguments)
            self.assertEqual(answer, b"a " + BAD + b"b OK Completed.\r\n", arguments)
            self.assertEqual(talk.server.origin, ORIGIN)

    def test_strangersForgedFieldsAreDropped(self) -> None:
        """A client cannot choose the address that a backend believes: x- fields vanish."""
        talk = self.begin()
        talk.ask(b'a ID ("name" "x" "X-Originating-IP" "192.0.2.66" "x-proxy-ttl" "99")\r\n')
        self.assertEqual(talk.server.origin, attrs.evolve(ORIGIN, description=((b"name", b"x"),)))

    def test_trustedPeersFieldsAreBelieved(self) -> None:
        """Another proxy says who its client is, and how far the session has come."""
        talk = self.begin(serverSettings(trusts=trustOnly(ORIGIN.client.host)))
        talk.ask(
            b'a ID ("x-originating-ip" "2001:db8::7" "x-originating-port" "5123" '
            b'"x-connected-ip" "2001:db8::1" "x-connected-port" "143" '
            b'"x-proxy-ttl" "3" "x-session-id" "outer/42")\r\n'
        )
        origin = talk.server.origin
        self.assertEqual(origin.client, Address("2001:db8::7", 5123))
        self.assertEqual(origin.local, Address("2001:db8::1", 143))
        self.assertEqual((origin.ttl, origin.session), (3, "outer/42"))
        self.assertEqual(origin.description, ())

    def test_clientBehindATrustedPeerIsNotBelieved(self) -> None:
        """After the proxy's ID comes the client's own: trust goes by the address believed now."""
        talk = self.begin(serverSettings(trusts=trustOnly(ORIGIN.client.host)))
        talk.ask(
            b'a ID ("x-originating-ip" "203.0.113.9")\r\nb ID ("x-originating-ip" "192.0.2.66")\r\n'
        )
        self.assertEqual(talk.server.origin.client.host, "203.0.113.9")


class StartTLSTests(IMAPCase):
    """STARTTLS on the client's leg."""

    def test_commandsInjectedBeforeTheHandshakeAreDropped(self) -> None:
        """What an attacker puts behind STARTTLS in the clear is not served inside TLS."""
        talk = self.begin(startTLS())
        answer = talk.ask(b"a STARTTLS\r\nb LOGIN evil evil\r\nc LOGIN ev")
        self.assertNotIn(b"\r\nb ", answer)
        self.assertIsNone(talk.login)

    def test_attackersWordsEndNoClientsCommand(self) -> None:
        """An attacker's half line in the same segment is not the head of the client's next one."""
        talk = Talk(IMAPServer, startTLS(), Segments.WHOLE)
        talk.secure(b"a STARTTLS\r\nb LOGIN evil {30}\r\nc LOGIN ev")
        self.assertEqual(talk.ask(b"d NOOP\r\n"), b"d OK Completed.\r\n")

    def test_idBeforeItIsForgotten(self) -> None:
        """An attacker may have said it."""
        talk = self.begin(startTLS())
        talk.ask(b'i ID ("name" "evil")\r\n')
        talk.secure(b"a STARTTLS\r\n")
        self.assertEqual(talk.server.origin, attrs.evolve(ORIGIN, secure=True))

    def test_twiceOrNotOfferedIsBad(self) -> None:
        """TLS is begun once, and only where there is a certificate for it."""
        talk = self.begin(startTLS())
        talk.secure(b"a STARTTLS\r\n")
        self.assertEqual(
            talk.ask(b"b STARTTLS\r\nc NOOP\r\n"), b"b " + BAD + b"c OK Completed.\r\n"
        )
        self.assertEqual(self.begin(plain()).ask(b"a STARTTLS\r\n"), b"a " + BAD)

    def test_loginAfterIt(self) -> None:
        """Inside TLS a password is taken."""
        talk = self.begin(startTLS())
        talk.secure(b"a STARTTLS\r\n")
        self.assertEqual(talk.ask(b"b LOGIN ann secret\r\n"), b"")
        self.assertPassword(talk, b"ann", b"secret")


class LoginTests(IMAPCase):
    """LOGIN in all its spellings."""

    def test_spellings(self) -> None:
        """Atoms, quoted strings, both kinds of literals, 8 bit, in any mixture."""
        for arguments, user, password, consents in (
            (b"ann secret", b"ann", b"secret", 0),
            (b'"ann" "se\\"c\\\\ret"', b"ann", b'se"c\\ret', 0),
            (b'ann "pass word (1)"', b"ann", b"pass word (1)", 0),
            (b"{3}\r\nann {6}\r\nsecret", b"ann", b"secret", 2),
            (b"{3+}\r\nann {6+}\r\nsecret", b"ann", b"secret", 0),
            (b"ann {8}\r\nse\r\ncret", b"ann", b"se\r\ncret", 1),
            (b'{3+}\r\nann "secret"', b"ann", b"secret", 0),
            (b'"ann" {6}\r\nsecret', b"ann", b"secret", 1),
            ("änn schlüssel".encode(), "änn".encode(), "schlüssel".encode(), 0),
            (b'"ann" "\xe4\xff"', b"ann", b"\xe4\xff", 0),
            (b"ann NIL", b"ann", b"NIL", 0),
            (b"ann@example.org p%*]+{x", b"ann@example.org", b"p%*]+{x", 0),
            (b"{9+}\r\na LOGIN x 12", b"a LOGIN x", b"12", 0),
        ):
            talk = self.begin()
            answer = talk.ask(b"a LOGIN %b\r\n" % arguments)
            self.assertEqual(answer, b"+ OK\r\n" * consents, arguments)
            self.assertPassword(talk, user, password)

    def test_emptyPartsAreRefused(self) -> None:
        """An empty name or password, however spelled, is a counted failure."""
        for arguments in (b'"" secret', b'ann ""', b"{0+}\r\n secret", b"ann {0+}\r\n"):
            talk = self.begin()
            self.assertEqual(talk.ask(b"a LOGIN %b\r\n" % arguments), b"a " + FAILED, arguments)
            self.assertEqual(talk.server.failures, 1)

    def test_nulIsRefused(self) -> None:
        """PLAIN could not carry it, and a backend might cut there."""
        talk = self.begin()
        self.assertEqual(talk.ask(b"a LOGIN {4+}\r\na\0nn secret\r\n"), b"a " + MALFORMED)

    def test_malformedIsBad(self) -> None:
        """Too few or many arguments, lists and open quotes are mistakes, not failed logins."""
        for arguments in (b"", b"ann", b"ann secret more", b"(ann secret)", b'ann "secret', b'"\\'):
            talk = self.begin()
            self.assertEqual(talk.ask(b"a LOGIN %b\r\n" % arguments), b"a " + BAD, arguments)
            self.assertEqual((talk.server.failures, talk.server.mistakes), (0, 1))

    def test_eavesdropperGetsNoPassword(self) -> None:
        """On an open leg LOGIN is refused, and counted until the end."""
        talk = self.begin(plain(maxAttempts=2))
        self.assertEqual(talk.ask(b"a LOGIN ann secret\r\n"), b"a " + PRIVACY)
        self.assertEqual(talk.ask(b"b LOGIN ann secret\r\n"), b"b " + PRIVACY)
        self.assertDismissed(talk, Refusal.TOO_MANY)
        self.assertIsNone(talk.login)

    def test_bytesBehindTheLoginWait(self) -> None:
        """What is pipelined behind a login is not touched until its verdict is there."""
        talk = self.begin()
        self.assertEqual(talk.ask(b"a LOGIN ann secret\r\nb NOOP\r\nc LOGIN bob guess\r\n"), b"")
        assert talk.login is not None
        result = AuthResult(Verdict.REFUSED, b"* OK news\r\n", b"NO [AUTHORIZATIONFAILED] no")
        talk.server.reject(talk.login, result, hide=False)
        talk.resume()
        self.assertEqual(
            talk.client.take(),
            b"* OK news\r\na NO [AUTHORIZATIONFAILED] no\r\nb OK Completed.\r\n",
        )
        self.assertPassword(talk, b"bob", b"guess")


class AuthenticateTests(IMAPCase):
    """AUTHENTICATE."""

    def test_initialResponse(self) -> None:
        """SASL-IR: all in one line."""
        talk = self.begin()
        self.assertEqual(talk.ask(b"a AUTHENTICATE plain %b\r\n" % PLAIN), b"")
        self.assertPassword(talk, b"ann", b"secret")

    def test_continuation(self) -> None:
        """Without an initial response an empty challenge asks for it."""
        talk = self.begin()
        self.assertEqual(talk.ask(b"a AUTHENTICATE PLAIN\r\n"), b"+ \r\n")
        self.assertEqual(talk.ask(PLAIN + b"\r\n"), b"")
        self.assertPassword(talk, b"ann", b"secret")

    def test_loginMechanism(self) -> None:
        """LOGIN prompts for name and password; the name may come at once."""
        for initial, prompts in ((b"", b"+ VXNlcm5hbWU6\r\n"), (b" YW5u", b"")):
            talk = self.begin()
            answer = talk.ask(b"a AUTHENTICATE LOGIN%b\r\n" % initial)
            if not initial:
                answer += talk.ask(b"YW5u\r\n")
            self.assertEqual(answer, prompts + b"+ UGFzc3dvcmQ6\r\n")
            talk.ask(b"c2VjcmV0\r\n")
            self.assertPassword(talk, b"ann", b"secret")

    def test_malformedMessages(self) -> None:
        """An empty response (`=`), bad base64 and a missing NUL are counted failures."""
        for initial in (b"=", b"!", b"YW5u", b"YQ"):
            talk = self.begin()
            self.assertEqual(talk.ask(b"a AUTHENTICATE PLAIN %b\r\n" % initial), b"a " + MALFORMED)
            self.assertEqual(talk.server.failures, 1)

    def test_emptyUser(self) -> None:
        """LOGIN with an empty name (`=`) fails as a wrong password does."""
        talk = self.begin()
        self.assertEqual(
            talk.ask(b"a AUTHENTICATE LOGIN =\r\nc2VjcmV0\r\n"),
            b"+ UGFzc3dvcmQ6\r\na " + FAILED,
        )

    def test_cancel(self) -> None:
        """`*` ends the exchange; the dialogue goes on."""
        self.assertEqual(
            self.begin().ask(b"a AUTHENTICATE PLAIN\r\n*\r\nb NOOP\r\n"),
            b"+ \r\na BAD Authentication cancelled.\r\nb OK Completed.\r\n",
        )

    def test_unknownMechanism(self) -> None:
        """What we do not offer is refused and counted."""
        talk = self.begin(serverSettings(mechanisms=(Mechanism.PLAIN,)))
        for mechanism in (b"GSSAPI", b"LOGIN"):
            self.assertEqual(
                talk.ask(b"a AUTHENTICATE %b\r\n" % mechanism),
                b"a NO [CANNOT] Authentication mechanism not supported.\r\n",
            )
        self.assertEqual(talk.server.failures, 2)

    def test_eavesdropperGetsNoSecret(self) -> None:
        """On an open leg every mechanism is refused, tokens included."""
        for mechanism in (b"PLAIN", b"LOGIN", b"OAUTHBEARER", b"XOAUTH2"):
            answer = self.begin(plain()).ask(b"a AUTHENTICATE %b\r\n" % mechanism)
            self.assertEqual(answer, b"a " + PRIVACY)

    def test_malformedCommandIsBad(self) -> None:
        """No mechanism, or too many words, is a mistake and no failed login."""
        for arguments in (b"", b" PLAIN eA== eA==", b" (PLAIN)"):
            talk = self.begin()
            self.assertEqual(talk.ask(b"a AUTHENTICATE%b\r\n" % arguments), b"a " + BAD, arguments)
            self.assertEqual(talk.server.failures, 0)

    def test_lastAttemptIsAnsweredFirst(self) -> None:
        """The refusal that ends the dialogue arrives as every other one."""
        talk = self.begin(serverSettings(maxAttempts=1))
        self.assertEqual(talk.ask(b"a AUTHENTICATE PLAIN =\r\nb NOOP\r\n"), b"a " + MALFORMED)
        self.assertDismissed(talk, Refusal.TOO_MANY)


class LiteralLimitTests(IMAPCase):
    """Literals that announce more than we take."""

    def test_synchronisingLiteralIsRefused(self) -> None:
        """A client that waits for our consent is told no, and goes on."""
        self.assertEqual(
            self.begin().ask(b"a LOGIN {65537}\r\nb LOGIN ann {4294967296}\r\nc NOOP\r\n"),
            b"a " + TOO_BIG + b"b " + TOO_BIG + b"c OK Completed.\r\n",
        )

    def test_nonSynchronisingLiteralEndsTheDialogue(self) -> None:
        """A client that does not wait would send it all: the connection is closed."""
        talk = self.begin()
        self.assertEqual(talk.ask(b"a LOGIN {65537+}\r\n"), b"")
        self.assertDismissed(talk, Refusal.TOO_BIG)

    def test_absurdLiteralEndsTheDialogue(self) -> None:
        """Its content is never taken for commands."""
        talk = self.begin()
        self.assertEqual(talk.ask(b"a LOGIN {99999999999999999999999999+}\r\nb NOOP\r\n"), b"")
        self.assertDismissed(talk, Refusal.TOO_BIG)

    def test_literalOfABadCommandIsNoCommand(self) -> None:
        """Neither behind a bad tag nor alone on its line."""
        for start in (b"a+ NOOP {8+}", b"* x {8+}", b"{8+}"):
            self.assertEqual(
                self.begin().ask(start + b"\r\nb NOOP\r\n\r\nc NOOP\r\n"),
                b"* BAD Unknown or malformed command.\r\nc OK Completed.\r\n",
            )

    def test_literalsCountTogether(self) -> None:
        """64 KiB is the limit for a whole command, not for each of its parts."""
        talk = self.begin()
        talk.ask(b"a LOGIN {100+}\r\n" + b"x" * 100 + b" {65500+}\r\n")
        self.assertDismissed(talk, Refusal.TOO_BIG)

    def test_textBehindALiteralCountsToo(self) -> None:
        """Each part may be short enough, and the command too long all the same."""
        talk = Talk(IMAPServer, serverSettings(), Segments.WHOLE)
        talk.ask(b"a LOGIN {100+}\r\n" + b"x" * 100 + b" " * 65500 + b"y\r\n")
        self.assertDismissed(talk, Refusal.TOO_BIG)
        self.assertIsNone(talk.login)


class LinesTests(DialogueTests, IDTests, StartTLSTests, LoginTests, AuthenticateTests):
    """The same, one line per segment."""

    segments = Segments.LINES


class BytesTests(
    DialogueTests, IDTests, StartTLSTests, LoginTests, AuthenticateTests, LiteralLimitTests
):
    """The same, one byte per segment."""

    segments = Segments.BYTES


class VolumeTests(IMAPCase):
    """A great deal at once."""

    def test_longestLine(self) -> None:
        """A line of 64 KiB is served, one of a byte more is not."""
        talk = self.begin()
        self.assertEqual(
            talk.ask(b"a NOOP " + b"x" * (MAX_LINE - 7) + b"\r\n"), b"a OK Completed.\r\n"
        )
        talk.ask(b"a NOOP " + b"x" * (MAX_LINE - 5) + b"\r\n")
        self.assertDismissed(talk, Refusal.TOO_BIG)

    def test_longestLiteral(self) -> None:
        """A literal may fill what its line leaves of 64 KiB."""
        line = b"a LOGIN ann {65500+}"
        talk = self.begin()
        talk.ask(line + b"\r\n" + b"x" * 65500 + b"\r\n")
        self.assertPassword(talk, b"ann", b"x" * 65500)

    def test_nineThousandCommandsInOneChunk(self) -> None:
        """All are answered, in order, without recursion."""
        count = 9000
        sent = b"".join(b"t%d NOOP\r\n" % number for number in range(count))
        expected = b"".join(b"t%d OK Completed.\r\n" % number for number in range(count))
        self.assertEqual(self.begin().ask(sent), expected)


class WordsTests(SynchronousTestCase):
    """What we say of ourselves and of endings."""

    def server(self) -> Talk[IMAPServer]:
        """A dialogue with a login in it."""
        talk = Talk(IMAPServer, serverSettings(), Segments.WHOLE)
        talk.ask(b"a LOGIN ann secret\r\n")
        return talk

    def test_acceptedIsPassedOnUnderTheClientsTag(self) -> None:
        """Untagged lines and response codes arrive as the backend wrote them."""
        talk = self.server()
        assert talk.login is not None
        preamble, reply = b"* CAPABILITY IMAP4rev1 IDLE\r\n", b"OK [CAPABILITY IMAP4rev1] in"
        talk.server.accept(talk.login, AuthResult(Verdict.ACCEPTED, preamble, reply))
        self.assertEqual(talk.ask(b""), preamble + b"a " + reply + b"\r\n")

    def test_hiddenTemporaryTroubleStaysTemporary(self) -> None:
        """[UNAVAILABLE] never becomes a wrong password."""
        talk = self.server()
        assert talk.login is not None
        result = AuthResult(Verdict.TEMPORARY, b"* OK secret host\r\n", b"NO [INUSE] db3 is busy")
        talk.server.reject(talk.login, result, hide=True)
        self.assertRegex(talk.ask(b""), rb"\Aa NO \[UNAVAILABLE\] [^\r]*\r\n\Z")

    def test_everyEndingHasItsWords(self) -> None:
        """Whatever ends a dialogue is said in one BYE; a waiting command is answered first."""
        for refusal in (
            Refusal.UNAVAILABLE,
            Refusal.TOO_BIG,
            Refusal.TOO_MANY,
            Refusal.TIMEOUT,
            Refusal.SHUTDOWN,
        ):
            talk = self.server()
            talk.server.dismiss(refusal, None)
            self.assertRegex(talk.ask(b""), rb"\A\* BYE [^\r]+\r\n\Z")
        talk = self.server()
        talk.server.dismiss(Refusal.UNAVAILABLE, Command(b"a", b"LOGIN"))
        self.assertRegex(talk.ask(b""), rb"\Aa NO \[UNAVAILABLE\] [^\r]+\r\n\* BYE [^\r]+\r\n\Z")

    def test_promisesComeFromTheConfiguration(self) -> None:
        """`[capabilities.imap]`: words, mechanisms, banner, and what may go in the clear."""
        table = {"advertise": ["IMAP4rev1", "ID"], "sasl": ["XOAUTH2"], "banner": "hello"}
        found = IMAPServerFactory.advertised(Capabilities.model_validate({"imap": table}))
        self.assertEqual(found.capabilities, (b"IMAP4rev1", b"ID"))
        self.assertEqual(found.mechanisms, (Mechanism.XOAUTH2,))
        self.assertEqual((found.banner, found.cleartext), (b"hello", False))

    def test_defaultPromisesAreModest(self) -> None:
        """By default only what nearly every backend keeps is advertised."""
        found = IMAPServerFactory.advertised(Capabilities())
        words = b"IMAP4rev1 SASL-IR LITERAL+ ID ENABLE".split()
        self.assertEqual(list(found.capabilities), words)
        self.assertEqual(found.mechanisms, tuple(Mechanism))

    def test_factoryMakesServers(self) -> None:
        """The listener's factory makes this conversation."""
        made = IMAPServerFactory(Network(), 1, lambda server: None).buildProtocol(None)
        self.assertIsInstance(made, IMAPServer)

    def test_loginIsReplayedUnchanged(self) -> None:
        """What we hand on is what PLAIN would have said."""
        talk = self.server()
        self.assertEqual(
            talk.login,
            Login(Command(b"a", b"LOGIN", [b"ann secret"]), fromPassword(b"ann", b"secret")),
        )
