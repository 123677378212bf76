"""What holds for every protocol that we speak to a backend: each one's test module runs these.

A protocol gives its words to a `ClientCase`, and mixes these into its test cases.
"""

from base64 import b64encode
from typing import TYPE_CHECKING

from mailproxy import sasl
from mailproxy.errors import Stage
from mailproxy.protocols.base import Verdict
from tests.protocols.backend import (
    ANN,
    ANN64,
    BEARER,
    HUGE,
    HUGE64,
    MASTER,
    SECRETS,
    XOAUTH2,
    ClientCase,
    upgrading,
)
from tests.support import Network

if TYPE_CHECKING:
    _Base = ClientCase
else:
    _Base = object


class GreetingContract(_Base):
    """What a backend says first."""

    def test_toldOnceIsEnough(self) -> None:
        """Who has told what it can do is not asked again: the login is next."""
        self.ready(*self.words.all)

    def test_refusalMayBeTriedAgain(self) -> None:
        """A backend that does not greet is full or stopping."""
        for greeting in self.words.full:
            self.begin()
            self.hear(greeting)
            self.assertFailed(Stage.GREETING, retry=True)

    def test_garbage(self) -> None:
        """Another protocol's greeting is a failure, and so is what is none at all."""
        for greeting in self.words.garbage:
            self.begin()
            self.hear(greeting)
            self.assertFailed(Stage.GREETING)

    def test_closedAtOnce(self) -> None:
        """No greeting at all may be tried again."""
        self.begin()
        self.backend.hangUp()
        self.network.pump()
        self.assertFailed(Stage.GREETING, retry=True)


class StartTLSContract(_Base):
    """STARTTLS on the backend's leg: asked for, and never done without."""

    def test_capabilitiesAreToldAgain(self) -> None:
        """What was said before TLS does not count."""
        self.begin(upgrading())
        self.assertEqual(self.tell(self.words.offer, *self.words.all), self.words.startTLS)
        self.assertEqual(self.consent(self.words.consent), self.words.again)
        self.assertNoResult(self.prepared)
        self.tellAgain(*self.offering(b"LOGIN"))
        self.assertReady()
        expected = self.words.exchange.begin(b"LOGIN", b"YW5u").removeprefix(self.words.tag)
        self.assertTrue(self.login().endswith(expected))

    def test_attackerWhoStripsTheOfferGetsNothing(self) -> None:
        """No offer, no login."""
        self.begin(upgrading())
        self.assertEqual(self.tell(*self.words.all), b"")
        self.assertFailed(Stage.PREPARE, retry=False)

    def test_attackerWhoRefusesGetsNothing(self) -> None:
        """STARTTLS that is refused ends it."""
        self.begin(upgrading())
        self.tell(self.words.offer, *self.words.all)
        self.assertEqual(self.hear(self.words.dissent), b"")
        self.assertFailed(Stage.PREPARE, retry=False)


class LoginContract(_Base):
    """How a login is replayed, and what its answer is taken for."""

    def test_plain(self) -> None:
        """One line where PLAIN is offered; the answer is passed on whole."""
        for preamble, reply in self.words.accepted:
            self.ready(*self.words.all)
            self.assertEqual(self.login(), self.words.exchange.begin(b"PLAIN", ANN64))
            self.hear(self.words.answer(preamble, reply))
            self.assertResult(Verdict.ACCEPTED, reply, preamble)

    def test_masterUserIsReplayedUnchanged(self) -> None:
        """Both identities go to a backend that takes PLAIN."""
        self.ready(*self.words.all)
        self.assertEqual(self.login(MASTER), self.words.exchange.send(b"PLAIN", MASTER.response))

    def test_loginMechanism(self) -> None:
        """A backend that has only that gets it."""
        exchange, (preamble, reply) = self.words.exchange, self.words.accepted[0]
        self.ready(*self.offering(b"LOGIN"))
        self.assertEqual(self.login(), exchange.begin(b"LOGIN", b"YW5u"))
        self.assertEqual(self.hear(exchange.ask(b"Password:")), exchange.answer(b"c2VjcmV0"))
        self.hear(self.words.answer(preamble, reply))
        self.assertResult(Verdict.ACCEPTED, reply, preamble)

    def test_noWayToLogIn(self) -> None:
        """What the backend cannot take is not sent in any form."""
        for capabilities, credentials in (
            (self.offering(b"CRAM-MD5"), ANN),
            (self.offering(b"LOGIN"), MASTER),
            (self.offering(b"PLAIN", b"XOAUTH2"), BEARER),
            *(((capability,), credentials) for capability, credentials in self.words.useless),
        ):
            self.ready(*capabilities)
            self.assertEqual(self.login(credentials), b"", capabilities)
            self.assertUnanswered(Stage.UNSUPPORTED)

    def test_commandsCannotBeInjectedByALogin(self) -> None:
        """Whatever a name or password holds is in base64."""
        exchange = self.words.exchange
        credentials = sasl.fromPassword(b'ann"\r\nQUIT', b"x\r\nMAIL FROM:<>")
        user, secret = b64encode(credentials.user), b64encode(credentials.secret)
        self.ready(*self.offering(b"PLAIN"))
        self.assertEqual(self.login(credentials), exchange.send(b"PLAIN", credentials.response))
        self.ready(*self.offering(b"LOGIN"))
        self.assertEqual(self.login(credentials), exchange.begin(b"LOGIN", user))
        self.assertEqual(self.hear(exchange.ask()), exchange.answer(secret))

    def test_refusals(self) -> None:
        """Refused or temporary: never the one for the other."""
        for reply, verdict in self.words.verdicts:
            self.ready(*self.words.all)
            self.login()
            self.hear(self.words.answer(b"", reply))
            self.assertResult(verdict, reply)

    def test_nonsenseIsNoAnswer(self) -> None:
        """What belongs elsewhere, or nowhere, is the backend's failure and not the client's."""
        for line in self.words.nonsense:
            self.ready(*self.words.all)
            self.login()
            self.hear(line)
            self.assertUnanswered()

    def test_leavingIsNoAnswer(self) -> None:
        """A backend that goes has not refused the password."""
        self.ready(*self.words.all)
        self.login()
        self.backend.hangUp()
        self.network.pump()
        self.assertUnanswered()

    def test_secretsComeLast(self) -> None:
        """Up to the login's own line nothing that a backend hears holds a secret."""
        heard = self.introduced(*self.offering(b"LOGIN"))
        self.assertIn(b"198.51.100.7", heard)
        heard += self.login()
        self.assertIn(b"LOGIN", heard)
        for secret in SECRETS:
            self.assertNotIn(secret, heard)


class ChallengeContract(_Base):
    """What a backend asks beyond the login's message; OAuth's error challenge above all."""

    def test_tokenGoesAtOnce(self) -> None:
        """In one line, as a password does."""
        for credentials in (BEARER, XOAUTH2):
            self.ready(*self.words.all)
            expected = self.words.exchange.send(credentials.mechanism.value, credentials.response)
            self.assertEqual(self.login(credentials), expected)

    def test_challengeIsPutAndItsAnswerSent(self) -> None:
        """Both directions without base64; the refusal after it is the answer to the login."""
        exchange, (refusal, verdict) = self.words.exchange, self.words.verdicts[0]
        for credentials, answer in ((BEARER, b"\1"), (XOAUTH2, b"")):
            self.ready(*self.words.all)
            self.challengeAnswer = answer
            self.login(credentials)
            sent = self.hear(exchange.ask(b'{"status":"401"}'))
            self.assertEqual(self.asked, [b'{"status":"401"}'])
            self.assertEqual(sent, exchange.answer(b64encode(answer)))
            self.hear(self.words.answer(b"", refusal))
            self.assertResult(verdict, refusal)

    def test_noAnswerCancels(self) -> None:
        """A client that cancels makes us cancel; the backend's word on it is the answer."""
        exchange, (refusal, verdict) = self.words.exchange, self.words.verdicts[0]
        self.ready(*self.words.all)
        self.login(BEARER)
        self.assertEqual(self.hear(exchange.ask(b"{}")), exchange.answer(b"*"))
        self.hear(self.words.answer(b"", refusal))
        self.assertResult(verdict, refusal)

    def test_emptyChallengeBehindTheInitialResponse(self) -> None:
        """A backend that asks once more has not understood: the password is not said twice."""
        exchange = self.words.exchange
        self.ready(*self.words.all)
        self.login()
        self.assertEqual(self.hear(exchange.ask()), exchange.answer(b"*"))
        self.assertEqual(self.asked, [b""])

    def test_malformedChallenge(self) -> None:
        """A challenge that is not base64 is the backend's failure."""
        self.ready(*self.words.all)
        self.login(BEARER)
        self.hear(self.words.exchange.challenge % b"!!!")
        self.assertUnanswered()


class LongTokenContract(_Base):
    """Where a command is short."""

    def test_longTokenWaitsForTheContinuation(self) -> None:
        """What does not fit into a command is sent alone."""
        exchange, (preamble, reply) = self.words.exchange, self.words.accepted[0]
        self.ready(*self.words.all)
        self.assertEqual(self.login(HUGE), exchange.begin(b"OAUTHBEARER"))
        self.assertEqual(self.hear(exchange.ask()), exchange.answer(HUGE64))
        self.hear(self.words.answer(preamble, reply))
        self.assertResult(Verdict.ACCEPTED, reply, preamble)
        self.assertEqual(self.asked, [])


class InjectionContract(_Base):
    """What depends on the segments that the network makes."""

    def test_wordsInjectedBehindTheConsentAbort(self) -> None:
        """What comes in the clear behind STARTTLS's consent is not taken for the backend's own."""
        self.begin(upgrading())
        self.assertEqual(self.tell(self.words.offer), self.words.startTLS)
        self.hear(self.words.consent + self.words.injected)
        self.assertFailed(Stage.PREPARE, retry=False)


class FactoryContract(_Base):
    """What a dialled connection is."""

    def test_factoryMakesClients(self) -> None:
        """The factory makes this conversation."""
        self.assertIsInstance(self.words.factory(Network()).buildProtocol(None), self.conversation)
