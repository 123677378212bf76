"""The memory in front of a mapping source: one question at a time, its answer kept for a while.

Knows lifetimes and who waits for what; must not know which store it asks, nor what an absent
mapping or a failure means to a login. No entry has a timer: lifetimes are looked at when read.
"""

import math
import sys
from collections.abc import Iterable
from itertools import islice
from typing import Protocol

import attrs
from twisted.internet.defer import CancelledError, Deferred, fail, maybeDeferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from mailproxy.errors import MappingError
from mailproxy.logs import Logger
from mailproxy.mapping.interfaces import IMappingSource
from mailproxy.mapping.outage import Outage

__all__ = ["CacheSettings", "Known", "MappingCache", "Observer"]

_LONGEST_FAILURE = 5.0
"""Seconds that a failed lookup is remembered at most."""

_EVICTION_SHARE = 256
"""A full cache drops this fraction of itself at once: the walk to a dict's oldest entries costs
more than dropping them."""


@attrs.frozen
class CacheSettings:
    """How long and how much to remember; times in seconds.

    :ivar lookupTimeout: how long the source may take before a lookup counts as failed.
    """

    positiveTTL: float = 600.0
    negativeTTL: float = 30.0
    maxEntries: int = 1_000_000
    lookupTimeout: float = 5.0

    @property
    def failureTTL(self) -> float:
        """How long a failure is remembered."""
        return min(_LONGEST_FAILURE, self.negativeTTL)


@attrs.frozen
class Known:
    """An answer that a source gave once: a destination, or None for "not mapped"."""

    destination: str | None


_PAST = -math.inf
"""When what was invalidated has expired, whatever becomes of the clock; one number for all."""


@attrs.define(weakref_slot=False)
class _Answer:
    """The source's last answer, current until `expires` and kept past it."""

    destination: str | None
    expires: float


@attrs.define(weakref_slot=False)
class _Failure:
    """The source failed; `last` is what it said before that, if it is remembered."""

    last: Known | None
    expires: float


class Observer(Protocol):
    """Hears of each question that the source has answered, or failed to."""

    def __call__(self, seconds: float, *, failed: bool = False) -> None:
        """Note how long it took."""


def nobody(seconds: float, *, failed: bool = False) -> None:
    """Observe nothing."""


class _Query:
    """One question to the source, and everybody who waits for its answer.

    :ivar asked: when it was put, in the clock's seconds.
    :ivar timer: set while the source has not answered.
    :ivar outdated: whether what it asks about has been invalidated since it was put.
    """

    def __init__(self, asked: float) -> None:
        self.asked = asked
        self.outdated = False
        self.waiters: dict[Deferred[str | None], None] = {}
        self.work: Deferred[None] | None = None
        self.timer: IDelayedCall | None = None
        self.settled = False

    def settle(self, result: str | Failure | None) -> None:
        """Answer everybody who still waits; one may cancel another when it hears."""
        self.stopTimer()
        self.settled = True
        waiters, self.waiters = self.waiters, {}
        for waiter in waiters:
            if not waiter.called:
                waiter.callback(result)

    def stopTimer(self) -> None:
        """Wait for the source no longer."""
        timer, self.timer = self.timer, None
        if timer is not None and timer.active():
            timer.cancel()


class MappingCache:
    """Answers lookups from memory, and asks the source once for everybody when it cannot.

    The least recently used entries go first when there are too many.

    :ivar hits: lookups answered from memory, remembered failures among them.
    :ivar misses: lookups that waited for the source.
    """

    log = Logger()

    def __init__(
        self,
        source: IMappingSource,
        clock: IReactorTime,
        settings: CacheSettings,
        observe: Observer = nobody,
    ) -> None:
        self.hits = 0
        self.misses = 0
        self._source = source
        self._clock = clock
        self._settings = settings
        self._observe = observe
        self._outage = Outage()
        self._entries: dict[str, _Answer | _Failure] = {}
        self._queries: dict[str, _Query] = {}

    @property
    def entries(self) -> int:
        """How many identifiers are remembered, those past their lifetime included."""
        return len(self._entries)

    def lookup(self, identifier: str) -> Deferred[str | None]:
        """Find the destination of a normalized identifier; None when it is not mapped.

        Fails with `MappingError` when the source could not tell, now or a moment ago. May be
        cancelled; the source's work is cancelled when nobody waits for it any more.
        """
        entry = self._live(identifier)
        if entry is None:
            self.misses += 1
            return self._ask(identifier)
        self.hits += 1
        del self._entries[identifier]
        self._entries[identifier] = entry
        return _repeat(entry)

    def inquire(self, identifier: str) -> Deferred[str | None]:
        """Find what `lookup` would find now, but count, remember and refresh nothing."""
        entry = self._live(identifier)
        if entry is not None:
            return _repeat(entry)
        query = _Query(self._clock.seconds())
        waiter = self._wait(identifier, query)
        self._start(identifier, query)
        return waiter

    def peek(self, identifier: str) -> bool:
        """Whether `lookup` would find an answer in memory; counts nothing and asks nobody."""
        return isinstance(self._live(identifier), _Answer)

    def stale(self, identifier: str) -> Known | None:
        """The last answer that is remembered, however old; None when there is none."""
        entry = self._entries.get(identifier)
        if isinstance(entry, _Answer):
            return Known(entry.destination)
        return entry.last if entry is not None else None

    def invalidate(self, identifier: str | None = None) -> None:
        """Ask anew for an identifier (None: for all); last answers are kept for when that fails.

        The answer to a question under way is not remembered and nobody gets it: who waits for it
        has the question put again, as a lookup that starts after this has. An account that has
        just been moved would else be sent to its old place.
        """
        entries: Iterable[_Answer | _Failure]
        if identifier is None:
            outdated, entries = list(self._queries.values()), self._entries.values()
            self._queries.clear()
        else:
            query, entry = self._queries.pop(identifier, None), self._entries.get(identifier)
            outdated, entries = [query] if query else [], [entry] if entry else []
        for query in outdated:
            query.outdated = True
        for entry in entries:  # a million of them: new ones would take seconds
            entry.expires = _PAST

    def learn(self, identifier: str, destination: str | None) -> None:
        """Ask anew for an identifier that was just written, or removed (None).

        What was written is the last answer for when that fails. A full cache takes nothing more:
        another account, which may be in use, would lose its own.
        """
        self.invalidate(identifier)
        known = self._entries.pop(identifier, None) is not None
        if known or len(self._entries) < self._settings.maxEntries:
            self._entries[identifier] = _Answer(destination and sys.intern(destination), _PAST)

    def replaceSource(self, source: IMappingSource) -> None:
        """Ask another source from now on."""
        self._source = source
        self.invalidate()

    def _live(self, identifier: str) -> _Answer | _Failure | None:
        entry = self._entries.get(identifier)
        if entry is None or self._clock.seconds() >= entry.expires:
            return None
        return entry

    def _ask(self, identifier: str) -> Deferred[str | None]:
        """Wait for the identifier's question to the source, which is put if nobody has yet."""
        query = self._queries.get(identifier)
        isNew = query is None
        if query is None:
            query = self._queries[identifier] = _Query(self._clock.seconds())
        waiter = self._wait(identifier, query)
        waiter.addBoth(self._unlessOutdated, identifier, query)
        if isNew:
            self._start(identifier, query)
        return waiter

    def _unlessOutdated(
        self, result: str | Failure | None, identifier: str, query: _Query
    ) -> str | Failure | Deferred[str | None] | None:
        """Pass an answer on, or ask again when the mapping may have changed meanwhile."""
        left = isinstance(result, Failure) and result.check(CancelledError) is not None
        return self.lookup(identifier) if query.outdated and not left else result

    def _wait(self, identifier: str, query: _Query) -> Deferred[str | None]:
        """Join those who wait for a question's answer."""
        waiter: Deferred[str | None] = Deferred(lambda gone: self._left(identifier, query, gone))
        query.waiters[waiter] = None
        return waiter

    def _start(self, identifier: str, query: _Query) -> None:
        """Put the question to the source, and bound the wait for its answer."""
        answer = maybeDeferred(self._source.lookup, identifier)
        query.work = answer.addCallback(
            lambda destination: self._answered(identifier, query, destination)
        ).addErrback(lambda failure: self._failed(identifier, query, failure))
        if not query.settled:
            query.timer = self._clock.callLater(
                self._settings.lookupTimeout, self._timedOut, identifier, query
            )

    def _answered(self, identifier: str, query: _Query, destination: str | None) -> None:
        """Remember the source's answer and pass it on."""
        if query.settled:
            return
        lifetime = self._settings.positiveTTL
        if destination is None:
            lifetime = self._settings.negativeTTL
        else:
            destination = sys.intern(destination)
        now = self._clock.seconds()
        self._observe(now - query.asked)
        self._outage.answered(query.asked, now)
        self._keep(identifier, query, _Answer(destination, now + lifetime))
        query.settle(destination)

    def _failed(self, identifier: str, query: _Query, failure: Failure) -> None:
        """Remember that the source failed and pass it on; only `MappingError` is expected."""
        if query.settled:
            return
        if failure.check(MappingError) is None:
            self.log.failure("the mapping source broke its promise", failure)
            failure = Failure(MappingError("the mapping source failed"))
        now = self._clock.seconds()
        self._observe(now - query.asked, failed=True)
        self._outage.failed(now, failure.getErrorMessage())
        expires = now + self._settings.failureTTL
        self._keep(identifier, query, _Failure(self.stale(identifier), expires))
        query.settle(failure)

    def _timedOut(self, identifier: str, query: _Query) -> None:
        """Count a source that is too slow as one that failed."""
        self._failed(identifier, query, Failure(MappingError("the mapping source is too slow")))
        if query.work is not None:
            query.work.cancel()

    def _left(self, identifier: str, query: _Query, waiter: Deferred[str | None]) -> None:
        """Let a waiter go that was cancelled; the last one takes the question along."""
        query.waiters.pop(waiter, None)
        if query.waiters or query.settled:
            return
        query.stopTimer()
        query.settled = True
        if self._queries.get(identifier) is query:
            del self._queries[identifier]
        if query.work is not None:
            query.work.cancel()

    def _keep(self, identifier: str, query: _Query, entry: _Answer | _Failure) -> None:
        """Remember a question's outcome, unless it was invalidated or is a mere inquiry."""
        if self._queries.get(identifier) is not query:
            return
        del self._queries[identifier]
        self._entries.pop(identifier, None)
        self._entries[identifier] = entry
        if len(self._entries) > self._settings.maxEntries:
            count = max(1, self._settings.maxEntries // _EVICTION_SHARE)
            for oldest in list(islice(self._entries, count)):
                del self._entries[oldest]


def _repeat(entry: _Answer | _Failure) -> Deferred[str | None]:
    """Give an answer once more from memory."""
    if isinstance(entry, _Failure):
        return fail(MappingError("the last lookup has failed, and the next one is not due"))
    return succeed(entry.destination)
