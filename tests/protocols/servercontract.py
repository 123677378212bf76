"""What holds for every protocol that we serve up to a login: each one's test module runs these.

A protocol gives its words to a `ServerCase`, and mixes these into its test cases.
"""

from base64 import b64encode
from typing import TYPE_CHECKING, Any

import attrs

from mailproxy.config.model import Capabilities
from mailproxy.errors import Refusal
from mailproxy.protocols.base import Advertised, AuthResult, Verdict
from mailproxy.sasl import Mechanism
from mailproxy.stream import MAX_LINE
from tests.protocols.talk import (
    BEARER,
    HUGE,
    ORIGIN,
    PLAIN,
    ServerCase,
    Talk,
    plain,
    serverSettings,
    startTLS,
    trustOnly,
)
from tests.support import Network, Segments

if TYPE_CHECKING:
    _Base = ServerCase
else:
    _Base = object


class DialogueContract(_Base):
    """The small commands, and mistakes."""

    def test_unknownCommands(self) -> None:
        """What is for after the login, for nobody, or cannot be read; the dialogue goes on."""
        for line in self.words.unknown:
            talk = self.begin()
            self.assertEqual(talk.ask(line + self.words.noop), self.words.bad + self.words.done)
            self.assertEqual((talk.login, talk.server.mistakes), (None, 1), line)

    def test_twentyMistakesEndTheDialogue(self) -> None:
        """Nobody may guess at us for ever; each mistake is answered, the last one too."""
        line, talk = self.words.unknown[0], self.begin()
        heard = talk.ask(line * 19)
        self.assertEqual(heard, self.words.bad * 19)
        self.assertIsNone(talk.ending)
        self.assertEqual(talk.ask(line + self.words.noop), self.words.bad)
        self.assertDismissed(talk, Refusal.TOO_MANY)

    def test_noReplyBehindTheClientsGoodBye(self) -> None:
        """It is answered, and nothing behind it is read."""
        talk = self.greeted()
        login = self.words.exchange.begin(b"PLAIN", PLAIN)
        self.assertEqual(talk.ask(self.words.quit + self.words.noop + login), self.words.bye)
        self.assertDismissed(talk, None)
        self.assertIsNone(talk.login)


class ExchangeContract(_Base):
    """SASL exchanges: RFC 4422, and how each protocol carries them."""

    def assertFailures(self, talk: Talk[Any], count: int) -> None:
        """So many logins have failed, none has come through."""
        self.assertEqual((talk.login, talk.server.failures), (None, count))

    def test_allMechanismsWithInitialResponse(self) -> None:
        """A login in one line, in any letter case."""
        exchange = self.words.exchange
        lower = attrs.evolve(exchange, command=exchange.command.lower())
        for mechanism, message in (
            (Mechanism.PLAIN, b"ann\0master\0secret"),
            (Mechanism.OAUTHBEARER, BEARER),
            (Mechanism.XOAUTH2, b"user=ann\1auth=Bearer token\1\1"),
        ):
            name = mechanism.value
            for line in (exchange.send(name, message), lower.send(name.lower(), message)):
                talk = self.greeted()
                self.assertEqual(talk.ask(line), b"")
                self.assertMessage(talk, mechanism, message)

    def test_continuation(self) -> None:
        """Without an initial response an empty challenge asks for it."""
        exchange, talk = self.words.exchange, self.greeted()
        self.assertEqual(talk.ask(exchange.begin(b"PLAIN")), exchange.ask())
        self.assertEqual(talk.ask(exchange.answer(PLAIN)), b"")
        self.assertPassword(talk, b"ann", b"secret")

    def test_loginMechanism(self) -> None:
        """LOGIN prompts for name and password; the name may come at once."""
        exchange = self.words.exchange
        user, password = exchange.ask(b"Username:"), exchange.ask(b"Password:")
        for lines, heard in (
            (exchange.begin(b"LOGIN") + exchange.answer(b"YW5u"), user + password),
            (exchange.begin(b"LOGIN", b"YW5u"), password),
        ):
            talk = self.greeted()
            self.assertEqual(talk.ask(lines), heard)
            self.assertEqual(talk.ask(exchange.answer(b"c2VjcmV0")), b"")
            self.assertPassword(talk, b"ann", b"secret")

    def test_malformedMessages(self) -> None:
        """An empty response (`=`), bad base64 and a missing NUL are counted failures."""
        for initial in (b"=", b"!", b"YW5u", b"YQ"):
            talk = self.greeted()
            heard = talk.ask(self.words.exchange.begin(b"PLAIN", initial))
            self.assertEqual(heard, self.words.refusals[Refusal.ENCODING], initial)
            self.assertFailures(talk, 1)

    def test_emptyUserOrPassword(self) -> None:
        """It fails as a wrong password does; an empty name by LOGIN too."""
        exchange, failed = self.words.exchange, self.words.refusals[Refusal.AUTHENTICATION]
        for lines, heard in (
            (exchange.send(b"PLAIN", b"\0\0secret"), failed),
            (exchange.send(b"PLAIN", b"\0ann\0"), failed),
            (
                exchange.begin(b"LOGIN", b"=") + exchange.answer(b"c2VjcmV0"),
                exchange.ask(b"Password:") + failed,
            ),
        ):
            talk = self.greeted()
            self.assertEqual(talk.ask(lines), heard)
            self.assertFailures(talk, 1)

    def test_cancel(self) -> None:
        """`*` ends the exchange; the dialogue goes on, and no login has failed."""
        exchange, talk = self.words.exchange, self.greeted()
        self.assertEqual(
            talk.ask(exchange.begin(b"PLAIN") + exchange.answer(b"*") + self.words.noop),
            exchange.ask() + self.words.refusals[Refusal.CANCELLED] + self.words.done,
        )
        self.assertFailures(talk, 0)

    def test_unknownMechanism(self) -> None:
        """What we do not offer is refused and counted."""
        settings = serverSettings(mechanisms=(Mechanism.PLAIN,))
        exchange, talk = self.words.exchange, self.greeted(settings)
        heard = talk.ask(exchange.begin(b"CRAM-MD5") + exchange.begin(b"LOGIN"))
        self.assertEqual(heard, self.words.refusals[Refusal.MECHANISM] * 2)
        self.assertFailures(talk, 2)

    def test_miswrittenCommands(self) -> None:
        """No mechanism, or too many words: a mistake and no failed login."""
        for line in self.words.miswritten:
            talk = self.greeted()
            self.assertEqual(talk.ask(line + self.words.noop), self.words.bad + self.words.done)
            self.assertFailures(talk, 0)

    def test_eavesdropperGetsNoSecret(self) -> None:
        """On an open leg every mechanism is refused before a secret is asked for, and counted."""
        for mechanism in Mechanism:
            talk = self.greeted(plain())
            heard = talk.ask(self.words.exchange.begin(mechanism.value))
            self.assertEqual(heard, self.words.refusals[Refusal.PRIVACY])
            self.assertFailures(talk, 1)

    def test_lastAttemptIsAnsweredFirst(self) -> None:
        """The refusal that ends the dialogue arrives as every other one, then our good-bye."""
        talk = self.greeted(serverSettings(maxAttempts=1))
        heard = talk.ask(self.words.exchange.begin(b"PLAIN", b"=") + self.words.noop)
        self.assertEqual(heard, self.words.refusals[Refusal.ENCODING])
        self.assertDismissed(talk, Refusal.TOO_MANY)
        talk.server.dismiss(Refusal.TOO_MANY, None)
        self.assertEqual(talk.ask(b""), self.words.farewells[Refusal.TOO_MANY])


class VerdictContract(_Base):
    """What the client hears of its backend's answer."""

    def test_answerIsPassedOnWhole(self) -> None:
        """All of it, in the backend's words; what is behind the login waits."""
        for preamble, reply in self.words.accepted:
            heard = self.accept(self.loggedIn(), preamble, reply)
            self.assertEqual(heard, self.words.passedOn(preamble, reply))

    def test_refusalIsPassedOnAndTheDialogueGoesOn(self) -> None:
        """What was pipelined behind the login is served by us, and another may begin."""
        talk, refused = self.loggedIn(), AuthResult(Verdict.REFUSED, *self.words.refused)
        expected = self.words.passedOn(*self.words.refused) + self.words.done
        self.assertEqual(self.reject(talk, refused), expected)
        exchange = self.words.exchange
        self.assertEqual(talk.ask(exchange.begin(b"PLAIN")), exchange.ask())

    def test_hiddenRefusal(self) -> None:
        """With `hide_auth_errors` in our words."""
        refused = AuthResult(Verdict.REFUSED, *self.words.refused)
        expected = self.words.refusals[Refusal.AUTHENTICATION] + self.words.done
        self.assertEqual(self.reject(self.loggedIn(), refused, hide=True), expected)

    def test_hiddenTemporaryTroubleStaysTemporary(self) -> None:
        """It never becomes a wrong password, which a client would forget."""
        expected = self.words.refusals[Refusal.TEMPORARY] + self.words.done
        for reply in self.words.later:
            later = AuthResult(Verdict.TEMPORARY, b"", reply)
            self.assertEqual(self.reject(self.loggedIn(), later, hide=True), expected)

    def test_challengeIsRelayed(self) -> None:
        """A token's refusal is shown, and answered by the client."""
        talk, heard = self.bearing(), list[bytes]()
        self.patch(talk.client, "dataReceived", heard.append)
        self.assertEqual(talk.relay(b"{}", self.words.exchange.answer(b"AQ==")), b"\1")
        self.assertEqual(b"".join(heard), self.words.exchange.ask(b"{}"))

    def test_nonsenseIsNoAnswerAndNobodysFault(self) -> None:
        """A client cannot have a backend declared down by what it answers."""
        for text in (b"*", b"!"):
            self.assertIsNone(self.bearing().relay(b"{}", self.words.exchange.answer(text)))

    def test_everyEndingHasItsWords(self) -> None:
        """A few words for each reason, none about the password."""
        for refusal, words in self.words.farewells.items():
            talk = self.begin()
            talk.server.dismiss(refusal, None)
            self.assertEqual(talk.ask(b""), words, refusal)

    def test_waitingLoginIsAnswered(self) -> None:
        """A client whose login cannot be served hears so before the end."""
        talk = self.loggedIn()
        assert talk.login is not None
        talk.server.dismiss(Refusal.UNAVAILABLE, talk.login.command)
        self.assertEqual(talk.ask(b""), self.words.unavailable)


class StartTLSContract(_Base):
    """STARTTLS on the client's leg."""

    def test_loginAfterIt(self) -> None:
        """Inside TLS a password is taken."""
        talk = self.secured()
        talk.ask(self.words.hello)
        self.assertEqual(talk.ask(self.words.exchange.begin(b"PLAIN", PLAIN)), b"")
        self.assertPassword(talk, b"ann", b"secret")
        self.assertTrue(talk.server.origin.secure)

    def test_twiceOrNotOfferedIsAnError(self) -> None:
        """TLS is begun once, and only where there is a certificate for it."""
        for talk in (self.secured(), self.begin(), self.begin(plain())):
            heard = talk.ask(self.words.startTLS + self.words.noop)
            self.assertEqual(heard, self.words.bad + self.words.done)

    def test_clientThatTalksOnInTheClearIsNotServed(self) -> None:
        """Nothing but a handshake may follow, in the same segment or not."""
        talk = self.greeted(startTLS())
        login = self.words.exchange.begin(b"PLAIN", PLAIN)
        heard = talk.ask(self.words.startTLS + login + self.words.noop)
        self.assertNotIn(self.words.done, heard)
        self.assertIsNone(talk.login)

    def test_commandsInjectedBeforeTheHandshakeAreDropped(self) -> None:
        """What an attacker says in the clear, whole or half, is not served inside TLS."""
        for injected in self.words.injected:
            settings = startTLS(capabilities=self.capabilities)
            talk = Talk(self.words.server, settings, Segments.WHOLE)
            self.assertEqual(talk.secure(self.words.startTLS + injected), self.words.go)
            self.assertTrue(talk.client.shaken)
            self.assertEqual(talk.ask(self.words.noop), self.words.again + self.words.done)
            self.assertIsNone(talk.login)
            self.assertEqual(talk.server.origin, attrs.evolve(ORIGIN, secure=True))


class IntroductionContract(_Base):
    """What a proxy in front of us says of its client."""

    def test_trustedPeersAreBelieved(self) -> None:
        """Address, name and hops are taken over; a login is not."""
        introduction, talk = self.words.introduction, self.begin(self.trusting())
        self.assertEqual(talk.ask(introduction.line), introduction.answer)
        self.assertEqual(talk.server.origin, introduction.origin)
        self.assertIsNone(talk.login)

    def test_strangersForgeryIsNotBelieved(self) -> None:
        """A client cannot choose the address that a backend believes."""
        introduction, talk = self.words.introduction, self.begin()
        self.assertEqual(talk.ask(introduction.forged), introduction.refusal)
        self.assertEqual(talk.server.origin, ORIGIN)

    def test_clientBehindATrustedPeerIsNotBelieved(self) -> None:
        """After the proxy's words come the client's own: trust goes by the address believed now."""
        first, talk = self.words.introduction, self.begin(self.trusting())
        self.assertEqual(talk.ask(first.line + first.forged), first.answer + first.refusal)
        self.assertEqual(talk.server.origin, first.origin)

    def test_malformedWordsChangeNothing(self) -> None:
        """Not even those that could be understood."""
        for line in self.words.introduction.malformed:
            talk = self.begin(self.trusting())
            heard = talk.ask(line + self.words.noop)
            self.assertEqual(heard, self.words.bad + self.words.done, line)
            self.assertEqual(talk.server.origin, ORIGIN)

    def test_introductionInTheClearIsForgottenAfterTLS(self) -> None:
        """An attacker between the proxy and us may have said it."""
        talk = self.begin(startTLS(trusts=trustOnly(ORIGIN.client.host)))
        talk.ask(self.words.introduction.line)
        self.assertEqual(talk.server.origin, self.words.introduction.origin)
        talk.secure(self.words.startTLS)
        self.assertEqual(talk.server.origin, attrs.evolve(ORIGIN, secure=True))


class VolumeContract(_Base):
    """A great deal at once."""

    def test_hugeToken(self) -> None:
        """60 KB arrive whole, in the command and behind a continuation."""
        exchange, text = self.words.exchange, b64encode(HUGE)
        for lines in (
            exchange.begin(b"OAUTHBEARER", text),
            exchange.begin(b"OAUTHBEARER") + exchange.answer(text),
        ):
            talk = self.greeted()
            talk.ask(lines)
            self.assertMessage(talk, Mechanism.OAUTHBEARER, HUGE)

    def test_endlessLine(self) -> None:
        """A line over the limit is not waited for, in the dialogue or in an exchange."""
        for before in (b"", self.words.exchange.begin(b"PLAIN")):
            talk = self.greeted()
            talk.ask(before + b"x" * (MAX_LINE + 2))
            self.assertDismissed(talk, Refusal.TOO_BIG)

    def test_nineThousandCommandsInOneChunk(self) -> None:
        """All are answered, without recursion."""
        self.assertEqual(self.begin().ask(self.words.noop * 9000), self.words.done * 9000)


class FactoryContract(_Base):
    """What the listener's factory makes, and what it reads of the configuration."""

    def test_promisesComeFromTheConfiguration(self) -> None:
        """The protocol's own table: mechanisms, banner, words, and what may go in the clear."""
        banner, advertise = self.words.keys
        table = {"sasl": ["XOAUTH2"], "allow_plain_auth_without_tls": True, banner: "hello"}
        if advertise:
            table[advertise] = ["ONE", "TWO"]
        found = self.words.factory.advertised(
            Capabilities.model_validate({self.words.protocol: table})
        )
        words = (b"ONE", b"TWO") if advertise else ()
        self.assertEqual(found, Advertised((Mechanism.XOAUTH2,), True, words, b"hello"))

    def test_defaultPromisesAreModest(self) -> None:
        """Only what nearly every backend keeps, and no secret in the clear."""
        found = self.words.factory.advertised(Capabilities())
        self.assertEqual(found.capabilities, self.words.advertised)
        self.assertEqual((found.mechanisms, found.cleartext), (tuple(Mechanism), False))

    def test_factoryMakesServers(self) -> None:
        """Of this protocol."""
        made = self.words.factory(Network(), 1, lambda server: None).buildProtocol(None)
        self.assertIsInstance(made, self.words.server)
