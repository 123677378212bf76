"""The cache: how long it remembers, whom it asks and how often, and what it forgets."""

from typing import cast

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from mailproxy.errors import MappingError
from mailproxy.mapping.cache import CacheSettings, Known, MappingCache
from mailproxy.mapping.interfaces import IMappingSource


@implementer(IMappingSource)
class SlowSource:
    """A source that answers when the test says so.

    :ivar questions: each lookup in turn, with the Deferred that answers it.
    """

    def __init__(self) -> None:
        self.questions: list[tuple[str, Deferred[str | None]]] = []
        self.cancelled: list[str] = []

    def lookup(self, identifier: str) -> Deferred[str | None]:
        """Note the question and let it wait."""
        answer: Deferred[str | None] = Deferred(lambda _: self.cancelled.append(identifier))
        self.questions.append((identifier, answer))
        return answer

    def answer(self, destination: str | None) -> None:
        """Answer the latest question."""
        self.questions[-1][1].callback(destination)

    def fail(self, error: Exception) -> None:
        """Let the latest question fail."""
        self.questions[-1][1].errback(error)


@implementer(IMappingSource)
class TableSource:
    """A source that answers at once."""

    def __init__(self, table: dict[str, str]) -> None:
        self.table = table
        self.asked: list[str] = []

    def lookup(self, identifier: str) -> Deferred[str | None]:
        """Look into the table."""
        self.asked.append(identifier)
        return succeed(self.table.get(identifier))


class CacheCase(SynchronousTestCase):
    """A cache over a source that waits for the test."""

    settings = CacheSettings(positiveTTL=600, negativeTTL=30, maxEntries=100, lookupTimeout=5)

    def setUp(self) -> None:
        """Start with an empty cache."""
        self.clock = Clock()
        self.source = SlowSource()
        self.cache = MappingCache(self.source, self.clock, self.settings)

    def fill(self, identifier: str, destination: str | None) -> None:
        """Have an answer remembered."""
        waiter = self.cache.lookup(identifier)
        self.source.answer(destination)
        self.successResultOf(waiter)

    def breakDown(self, identifier: str) -> None:
        """Have a failure remembered."""
        waiter = self.cache.lookup(identifier)
        self.source.fail(MappingError("store down"))
        self.failureResultOf(waiter, MappingError)


class LifetimeTests(CacheCase):
    """How long each kind of answer is used."""

    def test_mappingLivesForPositiveTTL(self) -> None:
        """A mapping is answered from memory until its lifetime has passed, and then asked anew."""
        self.fill("ann", "new")
        self.clock.advance(599)
        self.assertEqual(self.successResultOf(self.cache.lookup("ann")), "new")
        self.assertEqual(len(self.source.questions), 1)
        self.clock.advance(1)
        self.assertNoResult(self.cache.lookup("ann"))
        self.assertEqual(len(self.source.questions), 2)

    def test_useDoesNotProlong(self) -> None:
        """An entry in constant use is asked for again all the same."""
        self.fill("ann", "new")
        for _ in range(6):
            self.clock.advance(100)
            self.cache.lookup("ann")
        self.assertEqual(len(self.source.questions), 2)

    def test_absenceLivesForNegativeTTL(self) -> None:
        """That an identifier is not mapped is remembered too, for its own time."""
        self.fill("ann", None)
        self.clock.advance(29)
        self.assertIsNone(self.successResultOf(self.cache.lookup("ann")))
        self.clock.advance(1)
        self.assertNoResult(self.cache.lookup("ann"))

    def test_failureLivesForFiveSeconds(self) -> None:
        """A store that is down is asked for an identifier at most every five seconds."""
        self.breakDown("ann")
        self.clock.advance(4.9)
        self.failureResultOf(self.cache.lookup("ann"), MappingError)
        self.assertEqual(len(self.source.questions), 1)
        self.clock.advance(0.1)
        self.assertNoResult(self.cache.lookup("ann"))

    def test_failureNeverOutlivesNegativeTTL(self) -> None:
        """A negative lifetime below five seconds bounds failures as well."""
        self.cache = MappingCache(self.source, self.clock, CacheSettings(negativeTTL=2))
        self.breakDown("ann")
        self.clock.advance(1.9)
        self.failureResultOf(self.cache.lookup("ann"), MappingError)
        self.clock.advance(0.1)
        self.assertNoResult(self.cache.lookup("ann"))

    def test_nothingIsRememberedWithLifetimesOfZero(self) -> None:
        """With lifetimes of 0 every lookup asks."""
        self.cache = MappingCache(
            self.source, self.clock, CacheSettings(positiveTTL=0, negativeTTL=0)
        )
        self.fill("ann", "new")
        self.fill("ann", None)
        self.breakDown("ann")
        self.fill("ann", "new")
        self.assertEqual(len(self.source.questions), 4)


class FailureTests(CacheCase):
    """Sources that cannot tell."""

    def test_slowSourceIsAFailure(self) -> None:
        """After the time-out the waiters get `MappingError` and the source's work is cancelled."""
        waiter = self.cache.lookup("ann")
        self.clock.advance(4.9)
        self.assertNoResult(waiter)
        self.clock.advance(0.1)
        self.failureResultOf(waiter, MappingError)
        self.assertEqual(self.source.cancelled, ["ann"])
        self.failureResultOf(self.cache.lookup("ann"), MappingError)
        self.assertEqual(len(self.source.questions), 1)

    def test_timeoutDoesNotDependOnTheSourcesGoodWill(self) -> None:
        """A source that does not heed its cancellation keeps nobody waiting."""
        never: Deferred[str | None] = Deferred()
        answer: Deferred[str | None] = Deferred()
        answer.addErrback(lambda _: never)
        self.patch(self.source, "lookup", lambda identifier: answer)
        waiter = self.cache.lookup("ann")
        self.clock.advance(5)
        self.failureResultOf(waiter, MappingError)
        never.callback("late")
        self.assertFalse(self.cache.peek("ann"))

    def test_noTimerIsLeftBehind(self) -> None:
        """An answered, failed or abandoned question has no timer."""
        self.fill("ann", "new")
        self.breakDown("bob")
        waiter = self.cache.lookup("cat")
        waiter.cancel()
        self.failureResultOf(waiter, CancelledError)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_unforeseenErrorIsLoggedAndTranslated(self) -> None:
        """Whatever else a source fails with is our bug: logged, and a failed lookup."""
        waiter = self.cache.lookup("ann")
        self.source.fail(ZeroDivisionError())
        self.failureResultOf(waiter, MappingError)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_raisingSourceIsAFailedLookup(self) -> None:
        """A source that raises instead of failing its Deferred is treated alike."""
        self.patch(self.source, "lookup", lambda identifier: 1 // 0)
        self.failureResultOf(self.cache.lookup("ann"), MappingError)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_answerOfTheWrongTypeIsAFailedLookup(self) -> None:
        """Bytes are not a destination."""
        waiter = self.cache.lookup("ann")
        self.source.questions[-1][1].callback(b"new")  # type: ignore[arg-type]
        self.failureResultOf(waiter, MappingError)
        self.assertEqual(len(self.flushLoggedErrors(TypeError)), 1)


class StaleTests(CacheCase):
    """The last known answer."""

    def test_nothingIsKnownAtFirst(self) -> None:
        """An identifier that was never answered has no last answer, even after a failure."""
        self.assertIsNone(self.cache.stale("ann"))
        self.breakDown("ann")
        self.assertIsNone(self.cache.stale("ann"))

    def test_answerIsKeptPastItsLifetime(self) -> None:
        """The last answer outlives its lifetime and any number of failures."""
        self.fill("ann", "new")
        for _ in range(3):
            self.clock.advance(1000)
            self.breakDown("ann")
        self.assertEqual(self.cache.stale("ann"), Known("new"))

    def test_knownAbsenceDiffersFromNothingKnown(self) -> None:
        """A store that said "not mapped" has said something."""
        self.fill("ann", None)
        self.clock.advance(1000)
        self.breakDown("ann")
        self.assertEqual(self.cache.stale("ann"), Known(None))

    def test_newAnswerReplacesTheLast(self) -> None:
        """Only the latest answer is kept."""
        self.fill("ann", "old")
        self.clock.advance(600)
        self.breakDown("ann")
        self.clock.advance(5)
        self.fill("ann", "new")
        self.assertEqual(self.cache.stale("ann"), Known("new"))


class SharingTests(CacheCase):
    """One question for many waiters."""

    def test_concurrentLookupsAskOnce(self) -> None:
        """Everyone who asks while a question is under way waits for the same answer."""
        waiters = [self.cache.lookup("ann") for _ in range(5)]
        self.assertEqual(len(self.source.questions), 1)
        self.source.answer("new")
        self.assertEqual([self.successResultOf(waiter) for waiter in waiters], ["new"] * 5)

    def test_concurrentLookupsFailTogether(self) -> None:
        """A failure reaches every waiter."""
        waiters = [self.cache.lookup("ann") for _ in range(3)]
        self.source.fail(MappingError("store down"))
        for waiter in waiters:
            self.failureResultOf(waiter, MappingError)

    def test_differentIdentifiersAskApart(self) -> None:
        """Only equal identifiers share a question."""
        self.cache.lookup("ann")
        self.cache.lookup("bob")
        self.assertEqual([name for name, _ in self.source.questions], ["ann", "bob"])

    def test_oneWaiterMayLeave(self) -> None:
        """Cancelling one lookup disturbs neither the others nor the source."""
        first, second = self.cache.lookup("ann"), self.cache.lookup("ann")
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.assertEqual(self.source.cancelled, [])
        self.source.answer("new")
        self.assertEqual(self.successResultOf(second), "new")

    def test_lastWaiterTakesTheQuestionAlong(self) -> None:
        """When nobody waits any more the source is told, and the next lookup asks anew."""
        waiters = [self.cache.lookup("ann") for _ in range(2)]
        for waiter in waiters:
            waiter.cancel()
            self.failureResultOf(waiter, CancelledError)
        self.assertEqual(self.source.cancelled, ["ann"])
        self.fill("ann", "new")
        self.assertEqual(len(self.source.questions), 2)
        self.assertEqual(self.cache.stale("ann"), Known("new"))

    def test_oneWaiterMayCancelAnother(self) -> None:
        """A waiter that cancels the next one when it is answered disturbs nothing."""
        first, second, third = (self.cache.lookup("ann") for _ in range(3))
        first.addCallback(lambda _: second.cancel())
        self.source.answer("new")
        self.failureResultOf(second, CancelledError)
        self.assertEqual(self.successResultOf(third), "new")

    def test_answerIsInPlaceWhenWaitersHearIt(self) -> None:
        """A waiter that looks up again at once is served from memory."""
        again = self.cache.lookup("ann").addCallback(lambda _: self.cache.lookup("ann"))
        self.source.answer("new")
        self.assertEqual(self.successResultOf(again), "new")
        self.assertEqual(len(self.source.questions), 1)


class InquiryTests(CacheCase):
    """What an operator asks."""

    def test_inquiryLeavesNoTrace(self) -> None:
        """It asks the source and neither counts nor remembers; nor do logins join it."""
        asked = self.cache.inquire("ann")
        self.cache.lookup("ann")
        self.assertEqual(len(self.source.questions), 2)
        self.source.questions[0][1].callback("new")
        self.assertEqual(self.successResultOf(asked), "new")
        self.assertEqual((self.cache.hits, self.cache.misses, self.cache.entries), (0, 1, 0))

    def test_failedInquiryLeavesNoTrace(self) -> None:
        """A store that fails an operator is still asked by the next login."""
        asked = self.cache.inquire("ann")
        self.source.fail(MappingError("store down"))
        self.failureResultOf(asked, MappingError)
        self.assertEqual(self.cache.entries, 0)

    def test_inquiryFindsWhatALookupWould(self) -> None:
        """While an answer or a failure is current in memory, that is what a login meets."""
        self.fill("ann", "old")
        self.breakDown("bob")
        self.assertEqual(self.successResultOf(self.cache.inquire("ann")), "old")
        self.failureResultOf(self.cache.inquire("bob"), MappingError)
        self.assertEqual(len(self.source.questions), 2)
        self.assertEqual(self.cache.hits, 0)

    def test_inquiryIsBoundedAndMayBeCancelled(self) -> None:
        """It waits no longer than a lookup, and leaves no timer when its asker does."""
        asked = self.cache.inquire("ann")
        self.clock.advance(5)
        self.failureResultOf(asked, MappingError)
        left = self.cache.inquire("bob")
        left.cancel()
        self.failureResultOf(left, CancelledError)
        self.assertEqual(self.source.cancelled, ["ann", "bob"])
        self.assertEqual(self.clock.getDelayedCalls(), [])


class InvalidationTests(CacheCase):
    """What a changed mapping makes us forget."""

    def test_oneIdentifierIsAskedForAnew(self) -> None:
        """Its answer is nobody's any more; others stay."""
        self.fill("ann", "old")
        self.fill("bob", "old")
        self.cache.invalidate("ann")
        self.assertFalse(self.cache.peek("ann"))
        self.assertTrue(self.cache.peek("bob"))
        self.fill("ann", "new")
        self.assertEqual(self.cache.stale("ann"), Known("new"))

    def test_lastAnswerIsKeptForAFailure(self) -> None:
        """Of one account and of all: whoever clears up in an outage must not make it worse."""
        for identifier in ("ann", None):
            self.fill("ann", "new")
            self.cache.invalidate(identifier)
            self.assertFalse(self.cache.peek("ann"))
            self.breakDown("ann")
            self.assertEqual(self.cache.stale("ann"), Known("new"))
            self.cache.invalidate()

    def test_failureIsNotRemembered(self) -> None:
        """The next lookup asks at once; the answer from before the failure is still the last."""
        self.fill("ann", "new")
        for identifier in ("ann", None):
            self.clock.advance(600)
            self.breakDown("ann")
            self.cache.invalidate(identifier)
            self.assertEqual(self.cache.stale("ann"), Known("new"))
            waiter = self.cache.lookup("ann")
            self.assertNoResult(waiter)
            self.source.answer("new")
            self.assertEqual(self.successResultOf(waiter), "new")

    def test_itHoldsWhenTheClockGoesBack(self) -> None:
        """What was invalidated does not come back with a clock that is set right."""
        self.fill("ann", "old")
        self.cache.invalidate("ann")
        self.clock.rightNow -= 60
        self.assertFalse(self.cache.peek("ann"))

    def test_whatIsNotKnownStaysUnknown(self) -> None:
        """Nothing is remembered of an identifier that nobody has asked for."""
        self.cache.invalidate("bob")
        self.assertEqual(self.cache.entries, 0)
        self.assertIsNone(self.cache.stale("bob"))

    def test_everythingIsAskedForAnew(self) -> None:
        """Without an identifier no answer is current, and questions under way are put again."""
        self.fill("ann", "old")
        waiter = self.cache.lookup("bob")
        self.cache.invalidate()
        self.source.answer("old")
        self.assertNoResult(waiter)
        self.assertFalse(self.cache.peek("ann"))
        self.assertIsNone(self.cache.stale("bob"))
        self.source.answer("new")
        self.assertEqual(self.successResultOf(waiter), "new")

    def test_questionUnderWayIsPutAgain(self) -> None:
        """Nobody gets an answer that was fetched before the change: not even who waited for it."""
        waiter = self.cache.lookup("ann")
        self.cache.invalidate("ann")
        self.source.answer("old")
        self.assertNoResult(waiter)
        self.assertFalse(self.cache.peek("ann"))
        self.assertIsNone(self.cache.stale("ann"))
        self.source.answer("new")
        self.assertEqual(self.successResultOf(waiter), "new")
        self.assertTrue(self.cache.peek("ann"))

    def test_questionPutAgainCanBeLeft(self) -> None:
        """A waiter whose question is put again may still go; the new question goes with it."""
        waiter = self.cache.lookup("ann")
        self.cache.invalidate("ann")
        self.source.answer("old")
        waiter.cancel()
        self.failureResultOf(waiter, CancelledError)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_failureUnderWayIsNotRemembered(self) -> None:
        """A failure from before the change is nobody's answer: the question is put again."""
        waiter = self.cache.lookup("ann")
        self.cache.invalidate("ann")
        self.source.fail(MappingError("store down"))
        self.assertNoResult(waiter)
        self.source.answer("new")
        self.assertEqual(self.successResultOf(waiter), "new")

    def test_laterLookupDoesNotJoinTheOlderQuestion(self) -> None:
        """A lookup after the change asks anew, and the old answer, coming last, changes nothing."""
        before = self.cache.lookup("ann")
        self.cache.invalidate("ann")
        after = self.cache.lookup("ann")
        self.assertEqual(len(self.source.questions), 2)
        self.source.answer("new")
        self.source.questions[0][1].callback("old")
        self.assertEqual(self.successResultOf(before), "new")
        self.assertEqual(self.successResultOf(after), "new")
        self.assertEqual(self.successResultOf(self.cache.lookup("ann")), "new")

    def test_leavingTheOlderQuestionSparesTheNewer(self) -> None:
        """Cancelling, or the time-out of, an outdated question does not touch its successor."""
        before = self.cache.lookup("ann")
        self.clock.advance(1)
        self.cache.invalidate("ann")
        after = self.cache.lookup("ann")
        before.cancel()
        self.failureResultOf(before, CancelledError)
        joined = self.cache.lookup("ann")
        self.assertEqual(len(self.source.questions), 2)
        self.source.answer("new")
        self.assertEqual(self.successResultOf(after), "new")
        self.assertEqual(self.successResultOf(joined), "new")

    def test_outdatedQuestionStillTimesOut(self) -> None:
        """An invalidation does not free a question from its time limit, nor the one put anew."""
        waiter = self.cache.lookup("ann")
        self.cache.invalidate("ann")
        self.clock.advance(5)
        self.assertNoResult(waiter)
        self.clock.advance(5)
        self.failureResultOf(waiter, MappingError)

    def test_replacedSourceIsAskedFromThenOn(self) -> None:
        """After a reload no answer is the old source's."""
        self.fill("ann", "old")
        waiter = self.cache.lookup("bob")
        self.cache.replaceSource(TableSource({"ann": "new", "bob": "new"}))
        self.source.answer("old")
        for answer in (waiter, self.cache.lookup("ann")):
            self.assertEqual(self.successResultOf(answer), "new")

    def test_replacedSourceMayFailAtOnce(self) -> None:
        """A store that is named in an outage may be down too: what the old one said still helps."""
        self.fill("ann", "new")
        self.source = SlowSource()
        self.cache.replaceSource(self.source)
        self.breakDown("ann")
        self.assertEqual(self.cache.stale("ann"), Known("new"))


class LearningTests(CacheCase):
    """What was written to the source."""

    def test_theSourceIsAskedAllTheSame(self) -> None:
        """The next lookup waits for it; when that fails the answer is what was written."""
        for before in (None, "old", "far"):
            self.cache.learn("ann", "new")
            self.assertFalse(self.cache.peek("ann"))
            self.breakDown("ann")
            self.assertEqual(self.cache.stale("ann"), Known("new"))
            self.clock.advance(5)
            self.fill("ann", before)
            self.assertEqual(self.cache.stale("ann"), Known(before))

    def test_removalIsLearned(self) -> None:
        """The former place is nobody's last answer any more."""
        self.fill("ann", "new")
        self.cache.learn("ann", None)
        self.breakDown("ann")
        self.assertEqual(self.cache.stale("ann"), Known(None))

    def test_overtakenAnswerIsNotRemembered(self) -> None:
        """A question from before the write is put again; if that fails what was written holds."""
        waiter = self.cache.lookup("ann")
        self.cache.learn("ann", "new")
        self.source.answer("old")
        self.assertNoResult(waiter)
        self.source.fail(MappingError("store down"))
        self.failureResultOf(waiter, MappingError)
        self.assertEqual(self.cache.stale("ann"), Known("new"))

    def test_fullCacheTakesNothingMore(self) -> None:
        """Who is remembered stays so, and is written of; a stranger has no place."""
        self.cache = MappingCache(self.source, self.clock, CacheSettings(maxEntries=2))
        for name in ("ann", "bob"):
            self.fill(name, "old")
        self.cache.learn("zoe", "new")
        self.cache.learn("ann", "new")
        known = [self.cache.stale(name) for name in ("ann", "bob", "zoe")]
        self.assertEqual(known, [Known("new"), Known("old"), None])
        self.assertEqual(self.cache.entries, 2)

    def test_destinationsAreSharedByAllEntries(self) -> None:
        """However many accounts are written, a destination's name is in memory once."""
        for name in ("ann", "bob"):
            self.cache.learn(name, "".join(["n", "e", "w"]))
        first, second = (self.cache.stale(name) for name in ("ann", "bob"))
        assert first is not None and second is not None
        self.assertIs(first.destination, second.destination)


class BoundTests(SynchronousTestCase):
    """How much is remembered, and how that is counted."""

    def setUp(self) -> None:
        """Start with room for three entries."""
        self.source = TableSource({"ann": "new", "bob": "old"})
        self.clock = Clock()
        self.cache = MappingCache(self.source, self.clock, CacheSettings(maxEntries=3))

    def test_leastRecentlyUsedGoesFirst(self) -> None:
        """One entry too many drops the one that was not used for longest."""
        for identifier in ("ann", "bob", "cat", "ann", "dan"):
            self.cache.lookup(identifier)
        self.assertEqual(self.cache.entries, 3)
        self.assertTrue(self.cache.peek("ann"))
        self.assertFalse(self.cache.peek("bob"))

    def test_refreshedEntryIsTheYoungest(self) -> None:
        """An entry that was asked for again counts as used."""
        for identifier in ("ann", "bob", "cat"):
            self.cache.lookup(identifier)
        self.clock.advance(600)
        for identifier in ("ann", "dan", "eve"):
            self.cache.lookup(identifier)
        self.assertTrue(self.cache.peek("ann"))

    def test_largeCacheStaysWithinItsBound(self) -> None:
        """However many identifiers come, no more than the bound is kept, and little less."""
        self.cache = MappingCache(self.source, Clock(), CacheSettings(maxEntries=1000))
        for number in range(5000):
            self.cache.lookup(f"account-{number}")
            self.assertLessEqual(self.cache.entries, 1000)
        self.assertGreater(self.cache.entries, 990)
        self.assertTrue(self.cache.peek("account-4999"))

    def test_hitsAndMissesAreCounted(self) -> None:
        """Each lookup is a hit or a miss; looking in without a lookup is neither."""
        for identifier in ("ann", "ann", "bob", "ann"):
            self.cache.lookup(identifier)
        self.cache.peek("ann")
        self.cache.peek("zoe")
        self.cache.stale("ann")
        self.assertEqual((self.cache.hits, self.cache.misses, self.cache.entries), (2, 2, 2))
        self.assertEqual(self.source.asked, ["ann", "bob"])

    def test_peekIsFalsePastTheLifetime(self) -> None:
        """An entry kept as the last answer does not count as cached."""
        self.cache.lookup("ann")
        self.clock.advance(600)
        self.assertFalse(self.cache.peek("ann"))
        self.assertEqual(self.cache.stale("ann"), Known("new"))


class ObservationTests(CacheCase):
    """What others hear of the questions to the source."""

    def setUp(self) -> None:
        """Note each question's time and outcome."""
        super().setUp()
        self.heard: list[tuple[float, bool]] = []
        self.cache = MappingCache(self.source, self.clock, self.settings, self.hear)
        self.lines: list[str] = []
        observer = cast(ILogObserver, lambda event: self.lines.append(formatEvent(event)))
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

    def hear(self, seconds: float, *, failed: bool = False) -> None:
        """Note one."""
        self.heard.append((seconds, failed))

    def test_everyAnswerAndItsTime(self) -> None:
        """Once for all who waited; not again from memory."""
        waiters = [self.cache.lookup("ann") for _ in range(3)]
        self.clock.advance(2)
        self.source.answer("new")
        self.assertEqual([self.successResultOf(each) for each in waiters], ["new"] * 3)
        self.successResultOf(self.cache.lookup("ann"))
        self.assertEqual(self.heard, [(2, False)])

    def test_failuresAndTimeouts(self) -> None:
        """They count as such; who leaves does not."""
        self.breakDown("ann")
        waiter = self.cache.lookup("bob")
        self.clock.advance(5)
        self.failureResultOf(waiter, MappingError)
        left = self.cache.lookup("zoe")
        left.cancel()
        self.failureResultOf(left, CancelledError)
        self.assertEqual(self.heard, [(0, True), (5, True)])

    def test_answerOfTheWrongTypeIsHeardOnce(self) -> None:
        """As a failure."""
        self.cache.lookup("ann").addErrback(lambda failure: None)
        self.source.questions[-1][1].callback(7)  # type: ignore[arg-type]
        self.flushLoggedErrors()
        self.assertEqual(self.heard, [(0, True)])

    def test_oneWarningPerOutage(self) -> None:
        """However many accounts it meets, and a line when it is over."""
        for name in ("ann", "bob", "zoe"):
            self.breakDown(name)
        self.assertEqual(len(self.lines), 1, self.lines)
        self.assertIn("store down", self.lines[0])
        self.clock.advance(10)
        self.fill("ann", "new")
        self.fill("bob", "new")
        self.assertEqual(len(self.lines), 2, self.lines)
        self.assertIn("answers again", self.lines[1])
