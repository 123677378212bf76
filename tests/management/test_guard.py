"""The guard: who is let in, who is locked out, and for how long."""

import hmac

from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from mailproxy.config.model import Admin
from mailproxy.management import guard as module
from mailproxy.management.guard import Guard, Verdict

TOKEN = "correct-horse-battery-staple-0123456789"
RIGHT = f"Bearer {TOKEN}".encode()
WRONG = b"Bearer wrong"
CLIENT, OTHER = "192.0.2.1", "192.0.2.2"


class GuardCase(SynchronousTestCase):
    """A guard that locks out for a minute at three wrong tokens, with a clock set by hand."""

    def setUp(self) -> None:
        """Start with nobody locked out."""
        self.clock = Clock()
        self.guard = Guard(TOKEN, 3, 60.0, self.clock)

    def judge(self, authorization: bytes | None, client: str = CLIENT) -> Verdict:
        """Let the guard decide."""
        return self.guard.judge(client, authorization)

    def failTimes(self, count: int, client: str = CLIENT) -> None:
        """Send so many wrong tokens, none of which may be let in."""
        for _ in range(count):
            self.assertIsNot(self.judge(WRONG, client), Verdict.ALLOWED)


class TokenTests(GuardCase):
    """What is taken for the token."""

    def test_theTokenIsAllowed(self) -> None:
        """The token under the scheme Bearer, in any case (RFC 9110, 11.1)."""
        for value in (RIGHT, b"bearer " + TOKEN.encode(), b"BEARER  " + TOKEN.encode()):
            self.assertIs(self.judge(value), Verdict.ALLOWED, value)

    def test_anythingElseIsRefused(self) -> None:
        """No part of the token, no other scheme, no other writing."""
        token = TOKEN.encode()
        for value in (
            None,
            b"",
            b"B",
            b"Bearer",
            b"Bearer ",
            b"Bearer " + token[:-1],
            b"Bearer " + token + b"x",
            b"Bearer " + token.upper(),
            b"Bearer \xff\xfe",
            b"Bearer\t" + token,
            b"Basic " + token,
            token,
            b" " + RIGHT,
            RIGHT + b", " + RIGHT,
        ):
            self.guard = Guard(TOKEN, 3, 60.0, self.clock)
            self.assertIs(self.judge(value), Verdict.REFUSED, value)

    @given(st.binary(max_size=80))
    def test_nonsenseIsNeverAllowed(self, value: bytes) -> None:
        """Whatever the bytes, they are refused without an exception."""
        self.assertIs(Guard(TOKEN, 3, 60.0, self.clock).judge(CLIENT, value), Verdict.REFUSED)

    def test_aTokenMayHoldAnyCharacter(self) -> None:
        """It is compared as its UTF-8 bytes."""
        self.guard = Guard("pässwörd-☃", 3, 60.0, self.clock)
        self.assertIs(self.judge("Bearer pässwörd-☃".encode()), Verdict.ALLOWED)
        self.assertIs(self.judge("Bearer pässwörd-☃".encode("utf-16")), Verdict.REFUSED)

    def test_theComparisonTakesConstantTime(self) -> None:
        """The attack by timing: every token is compared by `compare_digest`, as bytes."""
        compared: list[tuple[bytes, bytes]] = []

        def compare(one: bytes, other: bytes) -> bool:
            compared.append((one, other))
            return False

        self.patch(hmac, "compare_digest", compare)
        for value in (RIGHT, WRONG, b"Basic x"):
            self.assertIs(self.judge(value), Verdict.REFUSED)
        own = TOKEN.encode()
        self.assertEqual(compared, [(own, own), (b"wrong", own), (b"x", own)])

    def test_theTokenIsNotShown(self) -> None:
        """Neither the guard's repr nor what it logs holds the token or a guess."""
        with capturedLogs() as events:
            self.failTimes(5)
            self.judge(RIGHT)
        shown = repr([self.guard, events])
        self.assertTrue(events)
        self.assertNotIn(TOKEN, shown)
        self.assertNotIn("Bearer", shown)

    def test_theTableIsObeyed(self) -> None:
        """Token, threshold and duration come from `[admin]`."""
        admin = Admin(bind="127.0.0.1:1", bearer_token=SecretStr(TOKEN), lockout_threshold=1)
        self.guard = Guard.fromConfig(admin, self.clock)
        self.assertIs(self.judge(RIGHT), Verdict.ALLOWED)
        self.assertIs(self.judge(WRONG), Verdict.REFUSED)
        self.assertIs(self.judge(RIGHT), Verdict.LOCKED)
        self.assertEqual(self.guard.retryAfter(CLIENT), 300)


class LockTests(GuardCase):
    """The attack by guessing."""

    def test_theThresholdLocks(self) -> None:
        """The last failure is still refused; from then on nothing is heard."""
        for _ in range(3):
            self.assertIs(self.judge(WRONG), Verdict.REFUSED)
        self.assertIs(self.judge(WRONG), Verdict.LOCKED)
        self.assertIs(self.judge(None), Verdict.LOCKED)

    def test_aLockIsLogged(self) -> None:
        """With the address as it is."""
        with capturedLogs() as events:
            self.failTimes(3)
        (line,) = map(formatEvent, events)
        text = f"management: {CLIENT} sent 3 wrong tokens and is locked out for 60 s"
        self.assertEqual(line, text)

    def test_theRightTokenDoesNotOpenALock(self) -> None:
        """Or a guess that hits would be told apart from one that does not."""
        self.failTimes(3)
        self.assertIs(self.judge(RIGHT), Verdict.LOCKED)
        self.clock.advance(59.9)
        self.assertIs(self.judge(RIGHT), Verdict.LOCKED)

    def test_aLockEndsInTime(self) -> None:
        """After the duration the count begins anew."""
        self.failTimes(3)
        self.clock.advance(60.0)
        self.failTimes(2)
        self.assertIs(self.judge(RIGHT), Verdict.ALLOWED)

    def test_tryingDoesNotProlongALock(self) -> None:
        """A script with an old token may go on; the lock ends when it was said to end."""
        self.failTimes(3)
        for _ in range(59):
            self.clock.advance(1.0)
            self.assertIs(self.judge(WRONG), Verdict.LOCKED)
        self.clock.advance(1.0)
        self.assertIs(self.judge(RIGHT), Verdict.ALLOWED)

    def test_theWaitIsTold(self) -> None:
        """In whole seconds, rounded up, so that who waits so long is heard."""
        self.assertEqual(self.guard.retryAfter(CLIENT), 0)
        self.failTimes(3)
        self.assertEqual(self.guard.retryAfter(CLIENT), 60)
        self.clock.advance(58.5)
        self.assertEqual(self.guard.retryAfter(CLIENT), 2)
        self.assertEqual(self.guard.retryAfter(OTHER), 0)

    def test_aSuccessForgetsFailures(self) -> None:
        """An operator who mistypes now and then is not locked out in the end."""
        for _ in range(5):
            self.failTimes(2)
            self.assertIs(self.judge(RIGHT), Verdict.ALLOWED)
        self.assertEqual(self.guard.remembered, 0)

    def test_failuresAreForgottenInTime(self) -> None:
        """One `duration` after the latest."""
        self.failTimes(2)
        self.clock.advance(60.0)
        self.failTimes(2)
        self.assertIs(self.judge(RIGHT), Verdict.ALLOWED)

    def test_aRequestWithoutATokenIsNoGuess(self) -> None:
        """A misconfigured monitor does not lock out the operator beside it."""
        for _ in range(50):
            self.assertIs(self.judge(None), Verdict.REFUSED)
        self.assertIs(self.judge(RIGHT), Verdict.ALLOWED)

    def test_anEmptyTokenIsAGuess(self) -> None:
        """What is sent in the header counts, whatever it is."""
        for value in (b"", b"B", b"Basic x"):
            self.assertIs(self.judge(value), Verdict.REFUSED)
        self.assertIs(self.judge(RIGHT), Verdict.LOCKED)


class AddressTests(GuardCase):
    """Who is counted as one."""

    def test_addressesAreCountedApart(self) -> None:
        """One host's failures lock nobody else out."""
        self.failTimes(3)
        self.assertIs(self.judge(RIGHT, OTHER), Verdict.ALLOWED)

    def test_anIPv6NetworkIsOneHost(self) -> None:
        """The attack from one's own /64; the next network is somebody else."""
        for host in ("2001:db8::1", "2001:db8::2", "2001:db8:0:0:ffff::3"):
            self.failTimes(1, host)
        self.assertIs(self.judge(RIGHT, "2001:db8::dead"), Verdict.LOCKED)
        self.assertEqual(self.guard.retryAfter("2001:db8::beef"), 60)
        self.assertIs(self.judge(RIGHT, "2001:db8:0:1::1"), Verdict.ALLOWED)

    def test_aMappedAddressIsItsIPv4Address(self) -> None:
        """Or all of IPv4 would be one network."""
        self.failTimes(3, f"::ffff:{CLIENT}")
        self.assertIs(self.judge(RIGHT), Verdict.LOCKED)
        self.assertIs(self.judge(RIGHT, f"::ffff:{OTHER}"), Verdict.ALLOWED)

    def test_linkLocalAddressesMayNameTheirLink(self) -> None:
        """With or without, it is the same network."""
        self.failTimes(3, "fe80::1%eth0")
        self.assertIs(self.judge(RIGHT, "fe80::2%eth0"), Verdict.LOCKED)

    def test_aUnixSocketIsOneClient(self) -> None:
        """What is no address is counted as it stands."""
        self.failTimes(3, "local")
        self.assertIs(self.judge(RIGHT, "local"), Verdict.LOCKED)

    def test_memoryIsBounded(self) -> None:
        """The attack from many addresses: who failed longest ago is forgotten first."""
        self.patch(module, "MOST_ADDRESSES", 10)
        for number in range(10):
            self.failTimes(3, f"198.51.100.{number}")
        self.failTimes(1, "203.0.113.1")
        self.assertEqual(self.guard.remembered, 10)
        self.assertIs(self.judge(RIGHT, "198.51.100.0"), Verdict.ALLOWED)
        self.assertIs(self.judge(RIGHT, "198.51.100.1"), Verdict.LOCKED)

    def test_memoryIsFreedInTime(self) -> None:
        """What has expired goes with the next request, whoever makes it; the rest stays."""
        self.failTimes(1, "198.51.100.1")
        self.failTimes(1, "198.51.100.2")
        self.clock.advance(30.0)
        self.failTimes(1, "198.51.100.1")
        self.clock.advance(30.0)
        self.judge(None, OTHER)
        self.assertEqual(self.guard.remembered, 1)
