"""Us as an IMAP server: what a client may say before its login, and what it hears."""

import attrs

from mailproxy.errors import PeerGone, Refusal
from mailproxy.origin import Address
from mailproxy.protocols.base import AuthResult, Command, Login, Verdict
from mailproxy.protocols.imap import IMAPServer, IMAPServerFactory
from mailproxy.sasl import Mechanism, fromPassword
from mailproxy.stream import MAX_LINE
from tests.protocols import servercontract as contract
from tests.protocols.talk import ORIGIN, ServerCase, moved, plain, serverSettings, startTLS
from tests.protocols.words import Exchange, Introduction, ServerWords
from tests.support import Segments

BAD = b"BAD Unknown or malformed command.\r\n"
FAILED = b"NO [AUTHENTICATIONFAILED] Authentication failed.\r\n"
MALFORMED = b"BAD Malformed authentication message.\r\n"
PRIVACY = b"NO [PRIVACYREQUIRED] Secrets are taken over TLS only.\r\n"
TOO_BIG = b"NO [TOOBIG] Command too long.\r\n"
LATER = b"[UNAVAILABLE] Temporarily unavailable, try again later.\r\n"
TOLD = b"* ID NIL\r\na OK Completed.\r\n"

WORDS = ServerWords(
    protocol="imap",
    server=IMAPServer,
    factory=IMAPServerFactory,
    keys=("banner", "advertise"),
    advertised=(b"IMAP4rev1", b"SASL-IR", b"LITERAL+", b"ID", b"ENABLE"),
    exchange=Exchange(b"a AUTHENTICATE %b"),
    noop=b"n NOOP\r\n",
    done=b"n OK Completed.\r\n",
    bad=b"a " + BAD,
    unknown=(
        b"a X\r\n",
        b"a SELECT INBOX\r\n",
        b"a XYZZY\r\n",
        b"a ENABLE CONDSTORE\r\n",
        b"a \r\n",
        b"a LOGIN2 a b\r\n",
    ),
    miswritten=(
        b"a AUTHENTICATE\r\n",
        b"a AUTHENTICATE PLAIN eA== eA==\r\n",
        b"a AUTHENTICATE (PLAIN)\r\n",
    ),
    quit=b"q LOGOUT\r\n",
    bye=b"* BYE Logging out.\r\nq OK Completed.\r\n",
    startTLS=b"a STARTTLS\r\n",
    go=b"a OK Begin TLS negotiation now.\r\n",
    injected=(
        b"b LOGIN evil evil\r\nc LOGIN ev",
        b"b LOGIN evil {30}\r\nc LOGIN ev",
        b'b ID ("name" "evil")\r\nc',
    ),
    tag=b"a ",
    refusals={
        Refusal.AUTHENTICATION: b"a " + FAILED,
        Refusal.TEMPORARY: b"a NO " + LATER,
        Refusal.PRIVACY: b"a " + PRIVACY,
        Refusal.MECHANISM: b"a NO [CANNOT] Authentication mechanism not supported.\r\n",
        Refusal.ENCODING: b"a " + MALFORMED,
        Refusal.CANCELLED: b"a BAD Authentication cancelled.\r\n",
    },
    farewells={
        Refusal.UNAVAILABLE: b"* BYE " + LATER,
        Refusal.TIMEOUT: b"* BYE Disconnected for inactivity during authentication.\r\n",
        Refusal.SHUTDOWN: b"* BYE [UNAVAILABLE] Server shutting down, try again later.\r\n",
        Refusal.TOO_BIG: b"* BYE [TOOBIG] Command too long.\r\n",
        Refusal.TOO_MANY: b"* BYE Too many failures.\r\n",
    },
    unavailable=b"a NO " + LATER + b"* BYE " + LATER,
    accepted=(
        (b"", b"OK in"),
        (b"* CAPABILITY IMAP4rev1 IDLE\r\n", b"OK [CAPABILITY IMAP4rev1] in"),
    ),
    refused=(b"* OK db7 has news\r\n", b"NO [AUTHORIZATIONFAILED] db7: no such user"),
    later=(b"NO [INUSE] db7 is busy",),
    introduction=Introduction(
        line=b'a ID ("x-originating-ip" "2001:db8::7" "x-originating-port" "5123" '
        b'"x-connected-ip" "2001:db8::1" "x-connected-port" "143" '
        b'"x-proxy-ttl" "3" "x-session-id" "outer/42")\r\n',
        answer=TOLD,
        origin=moved(
            client=Address("2001:db8::7", 5123),
            local=Address("2001:db8::1", 143),
            session="outer/42",
            ttl=3,
        ),
        forged=b'a ID ("X-Originating-IP" "192.0.2.66" "x-proxy-ttl" "99")\r\n',
        refusal=TOLD,
        malformed=(
            b"a ID \r\n",
            b'a ID "name"\r\n',
            b'a ID "NIL"\r\n',
            b'a ID ("name")\r\n',
            b'a ID ("x-proxy-ttl" "3") ("c" "d")\r\n',
            b'a ID ("x-proxy-ttl" ("3"))\r\n',
            b'a ID ("x-proxy-ttl" "3"\r\n',
            b'a ID "x-proxy-ttl" "3")\r\n',
            b'a ID ("x-proxy-ttl" "3)\r\n',
        ),
    ),
)


class IMAPCase(ServerCase):
    """Dialogues with an IMAP server."""

    words = WORDS
    capabilities = (b"IMAP4rev1", b"SASL-IR")


class DialogueTests(contract.DialogueContract, IMAPCase):
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

    def test_lineWithoutATagIsBad(self) -> None:
        """A tag that we could not repeat safely is not repeated."""
        for line in (b"", b"*", b"+ NOOP", b"a* NOOP", b"\xff NOOP", b"(a) NOOP", b" NOOP"):
            answer = self.begin().ask(line + b"\r\nb NOOP\r\n")
            self.assertEqual(answer, b"* " + BAD + b"b OK Completed.\r\n", line)

    def test_clientThatLeavesInALiteral(self) -> None:
        """Half a command is no command."""
        talk = self.begin()
        talk.ask(b"a LOGIN {20}\r\nann")
        talk.client.hangUp()
        talk.network.pump()
        self.assertIsInstance(talk.ending, PeerGone)


class IDTests(contract.IntroductionContract, IMAPCase):
    """ID: what clients and proxies say of themselves."""

    def test_nilSaysNothing(self) -> None:
        """NIL is answered with NIL."""
        talk = self.begin()
        self.assertEqual(talk.ask(b"a ID nil\r\n"), TOLD)
        self.assertEqual(talk.server.origin, ORIGIN)

    def test_fieldsAreKept(self) -> None:
        """Quoted strings, literals and NIL values, in order; we say nothing of ourselves."""
        talk = self.begin()
        answer = talk.ask(b'a ID ("name" "mu\\"tt" "version" {3}\r\n1.2 "os" NIL "nil" "NIL")\r\n')
        self.assertEqual(answer, b"+ OK\r\n" + TOLD)
        self.assertEqual(
            talk.server.origin.description,
            ((b"name", b'mu"tt'), (b"version", b"1.2"), (b"os", None), (b"nil", b"NIL")),
        )

    def test_emptyListSaysNothing(self) -> None:
        """An empty list is one that holds no field."""
        talk = self.begin()
        self.assertEqual(talk.ask(b"a ID ()\r\n"), TOLD)
        self.assertEqual(talk.server.origin.description, ())

    def test_strangersForgedFieldsAreDropped(self) -> None:
        """A client cannot choose the address that a backend believes: x- fields vanish."""
        talk = self.begin()
        talk.ask(b'a ID ("name" "x" "X-Originating-IP" "192.0.2.66" "x-proxy-ttl" "99")\r\n')
        self.assertEqual(talk.server.origin, attrs.evolve(ORIGIN, description=((b"name", b"x"),)))


class StartTLSTests(contract.StartTLSContract, IMAPCase):
    """STARTTLS on the client's leg."""

    def test_idBeforeItIsForgotten(self) -> None:
        """An attacker may have said it."""
        talk = self.begin(startTLS())
        talk.ask(b'i ID ("name" "evil")\r\n')
        talk.secure(b"a STARTTLS\r\n")
        self.assertEqual(talk.server.origin, attrs.evolve(ORIGIN, secure=True))

    def test_passwordAfterIt(self) -> None:
        """LOGIN is taken too."""
        talk = self.secured()
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

    def test_becomesPlain(self) -> None:
        """What we hand on is what PLAIN would have said, and the command that waits for it."""
        talk = self.begin()
        talk.ask(b"a LOGIN ann secret\r\n")
        command = Command(b"a", b"LOGIN", [b"ann secret"])
        self.assertEqual(talk.login, Login(command, fromPassword(b"ann", b"secret")))

    def test_bytesBehindTheLoginWait(self) -> None:
        """What is pipelined behind a login is not touched until its verdict is there."""
        talk = self.begin()
        self.assertEqual(talk.ask(b"a LOGIN ann secret\r\nb NOOP\r\nc LOGIN bob guess\r\n"), b"")
        result = AuthResult(Verdict.REFUSED, b"* OK news\r\n", b"NO [AUTHORIZATIONFAILED] no")
        self.assertEqual(
            self.reject(talk, result),
            b"* OK news\r\na NO [AUTHORIZATIONFAILED] no\r\nb OK Completed.\r\n",
        )
        self.assertPassword(talk, b"bob", b"guess")


class AuthenticateTests(contract.ExchangeContract, IMAPCase):
    """AUTHENTICATE."""


class VerdictTests(contract.VerdictContract, IMAPCase):
    """What the client hears of its backend's answer."""


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
        talk = self.begin()
        talk.ask(b"a LOGIN {100+}\r\n" + b"x" * 100 + b" " * 65500 + b"y\r\n")
        self.assertDismissed(talk, Refusal.TOO_BIG)
        self.assertIsNone(talk.login)


class LinesTests(
    DialogueTests, IDTests, StartTLSTests, LoginTests, AuthenticateTests, VerdictTests
):
    """The same, one line per segment."""

    segments = Segments.LINES


class BytesTests(
    DialogueTests,
    IDTests,
    StartTLSTests,
    LoginTests,
    AuthenticateTests,
    VerdictTests,
    LiteralLimitTests,
):
    """The same, one byte per segment."""

    segments = Segments.BYTES


class VolumeTests(contract.VolumeContract, IMAPCase):
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
        """All are answered, in order, each under its own tag."""
        count = 9000
        sent = b"".join(b"t%d NOOP\r\n" % number for number in range(count))
        expected = b"".join(b"t%d OK Completed.\r\n" % number for number in range(count))
        self.assertEqual(self.begin().ask(sent), expected)


class FactoryTests(contract.FactoryContract, IMAPCase):
    """What the listener's factory reads of `[capabilities.imap]`."""
