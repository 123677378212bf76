"""Us as a POP3 server: what a client may say before its login, and what it hears."""

import attrs

from mailproxy.errors import Refusal
from mailproxy.origin import Address
from mailproxy.protocols.base import AuthResult, Verdict
from mailproxy.protocols.pop3 import POP3Server, POP3ServerFactory
from mailproxy.sasl import Mechanism
from tests.protocols import servercontract as contract
from tests.protocols.talk import ServerCase, Talk, moved, plain, serverSettings, startTLS
from tests.protocols.words import Exchange, ServerWords, byXCLIENT
from tests.support import Segments

OK = b"+OK\r\n"
BAD = b"-ERR Unknown or malformed command.\r\n"
FAILED = b"-ERR [AUTH] Authentication failed.\r\n"
MALFORMED = b"-ERR Malformed authentication message.\r\n"
PRIVACY = b"-ERR Secrets are taken over TLS only.\r\n"
LATER = b"-ERR [SYS/TEMP] Temporarily unavailable, try again later.\r\n"

WORDS = ServerWords(
    protocol="pop3",
    server=POP3Server,
    factory=POP3ServerFactory,
    keys=("banner", ""),
    advertised=(),
    exchange=Exchange(b"AUTH %b"),
    noop=b"NOOP\r\n",
    done=OK,
    bad=BAD,
    unknown=(
        b"X\r\n",
        b"STAT\r\n",
        b"RETR 1\r\n",
        b"\r\n",
        b" NOOP\r\n",
        b"USERann\r\n",
        b"\xff\x00\r\n",
    ),
    miswritten=(b"AUTH PLAIN eA== eA==\r\n",),
    quit=b"QUIT\r\n",
    bye=b"+OK Logging out.\r\n",
    startTLS=b"STLS\r\n",
    go=b"+OK Begin TLS negotiation now.\r\n",
    injected=(b"USER mallory\r\nPASS x\r\nNO",),
    refusals={
        Refusal.AUTHENTICATION: FAILED,
        Refusal.TEMPORARY: LATER,
        Refusal.PRIVACY: PRIVACY,
        Refusal.MECHANISM: b"-ERR Authentication mechanism not supported.\r\n",
        Refusal.ENCODING: MALFORMED,
        Refusal.CANCELLED: b"-ERR Authentication cancelled.\r\n",
    },
    farewells={
        Refusal.UNAVAILABLE: LATER,
        Refusal.TIMEOUT: b"-ERR [SYS/TEMP] Disconnected for inactivity during authentication.\r\n",
        Refusal.SHUTDOWN: b"-ERR [SYS/TEMP] Server shutting down, try again later.\r\n",
        Refusal.TOO_BIG: b"-ERR Command too long.\r\n",
        Refusal.TOO_MANY: b"",  # the last answer has said it
    },
    unavailable=LATER,
    accepted=((b"", b"+OK 2 messages"),),
    refused=(b"", b"-ERR [AUTH] db7: no such user"),
    later=(b"-ERR [SYS/TEMP] db7: later",),
    introduction=byXCLIENT(
        b"ADDR=2001:db8::7 PORT=5123 SESSION=outer+2B1 TTL=3 LOGIN=root",
        answer=OK,
        origin=moved(client=Address("2001:db8::7", 5123), session="outer+1", ttl=3),
        refusal=BAD,
    ),
)


class POP3Case(ServerCase):
    """Dialogues with a POP3 server."""

    words = WORDS

    def listed(self, talk: Talk[POP3Server]) -> list[bytes]:
        """Ask for the capabilities."""
        first, *lines, dot, rest = talk.ask(b"CAPA\r\n").split(b"\r\n")
        self.assertEqual((first, dot, rest), (b"+OK Capability list follows.", b".", b""))
        return lines


class DialogueTests(contract.DialogueContract, POP3Case):
    """Greeting, capabilities and the small commands."""

    def test_greeting(self) -> None:
        """It holds no timestamp, which would invite APOP, and no word for strangers' proxies."""
        self.assertEqual(self.begin().greeting, b"+OK ready\r\n")

    def test_capabilities(self) -> None:
        """What nearly every backend keeps, and how to log in."""
        self.assertEqual(
            self.listed(self.begin()),
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
        found = self.listed(self.begin(plain()))
        self.assertEqual([each for each in found if each[:4] in (b"USER", b"SASL", b"STLS")], [])

    def test_capabilitiesBeforeAndAfterTLS(self) -> None:
        """STLS before it, USER and SASL after it."""
        talk = self.begin(startTLS(mechanisms=(Mechanism.PLAIN,)))
        before = self.listed(talk)
        self.assertIn(b"STLS", before)
        self.assertNotIn(b"USER", before)
        self.assertEqual(talk.secure(b"STLS\r\n"), b"+OK Begin TLS negotiation now.\r\n")
        after = self.listed(talk)
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


class AuthTests(contract.ExchangeContract, POP3Case):
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


class VerdictTests(contract.VerdictContract, POP3Case):
    """What the client hears of its backend's answer."""


class StartTLSTests(contract.StartTLSContract, POP3Case):
    """STLS on the client's leg."""

    def test_passwordAfterIt(self) -> None:
        """USER and PASS are taken too."""
        talk = self.secured()
        self.assertEqual(talk.ask(b"USER ann\r\nPASS secret\r\n"), OK)
        self.assertPassword(talk, b"ann", b"secret")

    def test_userBeforeItIsForgotten(self) -> None:
        """An attacker may have said it."""
        settings = attrs.evolve(startTLS(), advertised=serverSettings().advertised)
        talk = self.begin(settings)
        self.assertEqual(talk.ask(b"USER mallory\r\n"), OK)
        talk.secure(b"STLS\r\n")
        self.assertEqual(talk.ask(b"PASS secret\r\n"), BAD)
        self.assertIsNone(talk.login)


class XClientTests(contract.IntroductionContract, POP3Case):
    """XCLIENT: what a proxy in front of us says of its client."""

    def test_trustedPeersAreInvited(self) -> None:
        """The greeting's response code says so."""
        self.assertEqual(self.begin(self.trusting()).greeting, b"+OK [XCLIENT] ready\r\n")


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


class VolumeTests(contract.VolumeContract, POP3Case):
    """A great deal at once."""


class FactoryTests(contract.FactoryContract, POP3Case):
    """What the listener's factory reads of `[capabilities.pop3]`."""
