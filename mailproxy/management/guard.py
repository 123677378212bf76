"""Who may use the management API: the token, and the lock-out of those who guess it.

Pure: it knows a clock, client addresses as text and one header; no request and no socket.
"""

import enum
import hmac
import math
from collections import OrderedDict

import attrs
from twisted.internet.interfaces import IReactorTime

from mailproxy.config.model import Admin
from mailproxy.logs import Logger
from mailproxy.origin import Address

__all__ = ["MOST_ADDRESSES", "Guard", "Verdict"]

MOST_ADDRESSES = 10_000
"""So many addresses that failed are remembered; the one that failed longest ago goes first."""

_SCHEME = b"bearer"


class Verdict(enum.Enum):
    """What becomes of a request."""

    ALLOWED = "allowed"
    REFUSED = "refused"
    LOCKED = "locked out"


@attrs.frozen
class _Record:
    """The failures of one address.

    :ivar last: when the latest was; they are forgotten all together, one `duration` after it.
    """

    failures: int
    last: float


class Guard:
    """Compares tokens and counts wrong ones by client address.

    Only a guess is counted: a request without `Authorization` tells nobody anything about the
    token, and must not lock out the operator behind the same address. While an address is locked
    out nothing is compared or counted, so a lock ends when it was said to end, not before or after.
    """

    log = Logger()

    def __init__(self, token: str, threshold: int, duration: float, clock: IReactorTime) -> None:
        """Begin with nobody locked out.

        :param threshold: wrong tokens from one address that lock it out.
        :param duration: seconds that it stays locked out.
        """
        self._token = token.encode("utf-8")
        self._threshold, self._duration, self._clock = threshold, duration, clock
        self._records: OrderedDict[str, _Record] = OrderedDict()

    @classmethod
    def fromConfig(cls, admin: Admin, clock: IReactorTime) -> "Guard":
        """Make the guard that the `[admin]` table asks for."""
        token = admin.token.get_secret_value()
        return cls(token, admin.lockout_threshold, admin.lockout_duration, clock)

    def judge(self, client: str, authorization: bytes | None) -> Verdict:
        """Decide about one request; a success forgets the address's failures.

        :param client: the client's address without its port.
        :param authorization: the header's value as it came; None when there is none.
        """
        self._forgetExpired()
        key = _counted(client)
        if self._isLocked(key):
            return Verdict.LOCKED
        if authorization is None:
            return Verdict.REFUSED
        if self._isRight(authorization):
            self._records.pop(key, None)
            return Verdict.ALLOWED
        self._countFailure(key)
        return Verdict.REFUSED

    def retryAfter(self, client: str) -> int:
        """Whole seconds until the address is heard again; 0 when it is not locked out."""
        key = _counted(client)
        if not self._isLocked(key):
            return 0
        return math.ceil(max(0.0, self._records[key].last + self._duration - self._clock.seconds()))

    @property
    def remembered(self) -> int:
        """How many addresses are remembered for their failures."""
        return len(self._records)

    def _isRight(self, authorization: bytes) -> bool:
        """Compare in a time that tells nothing of where the difference is (RFC 6750, 2.1)."""
        scheme, _, presented = authorization.partition(b" ")
        same = hmac.compare_digest(presented.strip(b" "), self._token)
        return same and scheme.lower() == _SCHEME

    def _isLocked(self, key: str) -> bool:
        record = self._records.get(key)
        return record is not None and record.failures >= self._threshold

    def _countFailure(self, key: str) -> None:
        record = self._records.pop(key, None)
        failures = 1 if record is None else record.failures + 1
        self._records[key] = _Record(failures, self._clock.seconds())
        if len(self._records) > MOST_ADDRESSES:
            self._records.popitem(last=False)
        if failures == self._threshold:
            self.log.warn(
                "management: {client} sent {failures} wrong tokens and is locked out for "
                "{duration:g} s",
                client=key,
                failures=failures,
                duration=self._duration,
            )

    def _forgetExpired(self) -> None:
        """Drop failures that are old enough; they stand in the order of their times."""
        now = self._clock.seconds()
        while self._records:
            key, oldest = next(iter(self._records.items()))
            if oldest.last + self._duration > now:
                return
            del self._records[key]


def _counted(client: str) -> str:
    """Under what an address is counted: an IPv6 host has another of its /64 for each guess."""
    try:
        return Address.parse(client, 0).neighbourhood
    except ValueError:
        return client
