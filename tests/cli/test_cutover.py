"""One account's cut-over: the order of its steps, and what follows when one of them fails."""

from typing import Any

from twisted.internet.error import ConnectionRefusedError as Refused
from zope.interface.verify import verifyObject

from mailproxy.cli.cutover import HOLD, CutOver, Plan, Report, Result
from mailproxy.control import IControl
from mailproxy.errors import MappingError, ReadOnlyMapping
from tests.cli.support import ProxyCase

ANN = "ann@example.org"

DOWN = MappingError("disk full")


class CutOverCase(ProxyCase):
    """Ann lives on `old`, to which she is mapped, and has a session there."""

    isStopped = False
    isTaken = False

    def setUp(self) -> None:
        """Put her there; her client comes back."""
        super().setUp()
        self.world.table[ANN] = "old"
        self.world.begin(ANN, "old")
        self.world.returning.add(ANN)

    def move(self, drain: float = 5, wait: float = 10) -> Report:
        """Move her to `new`."""
        return self.finish(self.start(drain, wait).run())

    def start(self, drain: float = 5, wait: float = 10) -> CutOver:
        """Prepare to do so."""
        plan = Plan("new", drain, wait)
        return CutOver(self.client, self.clock, plan, ANN, self)

    def claim(self, account: str) -> bool:
        """Be the company."""
        return not self.isTaken

    def spoil(self, *failures: Exception | None, method: str = "setMapping") -> None:
        """Have the next calls of a method fail, in turn."""
        self.world.failures[method] = list(failures)

    def steps(self) -> list[tuple[Any, ...]]:
        """Return the calls that change something."""
        changing = ("setMapping", "removeMapping", "invalidate", "kick", "delay")
        return [call for call in self.world.asked if call[0] in changing]

    def assertPutBack(self, report: Report, result: Result = Result.ROLLED_BACK) -> None:
        """She is where she was, nobody is on hold, and the report says what happened."""
        self.assertEqual(report.result, result, report)
        self.assertFalse(report.isDone)
        self.assertEqual(self.world.table, {ANN: "old"})
        self.assertEqual(self.world.held, {})
        self.assertTrue(report.problems)


class OrderTests(CutOverCase):
    """What is done, and when."""

    def test_theWorldIsAControl(self) -> None:
        """It provides what it claims, or these tests show nothing."""
        verifyObject(IControl, self.world)

    def test_theStepsAreInTheSafeOrder(self) -> None:
        """Hold, write, invalidate, kick, release; nothing else is changed."""
        report = self.move()
        expected = [
            ("delay", ANN, HOLD),
            ("setMapping", ANN, "new"),
            ("invalidate", ANN),
            ("kick", ANN),
            ("delay", ANN, 0),
        ]
        self.assertEqual(self.steps(), expected)
        self.assertEqual((report.result, report.problems), (Result.MOVED, ()))
        self.assertTrue(report.isDone)

    def test_theReportTellsTheStory(self) -> None:
        """Where the account was, how many sessions were ended, and when the next one came."""
        self.world.begin(ANN, "old", "pop3")
        report = self.move()
        self.assertEqual((report.origin, report.destination, report.kicked), ("old", "new", 2))
        self.assertIsNotNone(report.arrived)
        told = report.asJSON()
        self.assertEqual((told["from"], told["to"], told["confirmed"]), ("old", "new", True))

    def test_theReleaseComesAfterTheLastOldSession(self) -> None:
        """Logins wait as long as a session is left on the old destination; it is kicked again."""
        self.world.staying.add(ANN)
        moving = self.begin(self.start().run())
        self.clock.advance(1)
        self.assertEqual((self.world.table[ANN], self.world.held), ("new", {ANN: HOLD}))
        self.assertNoResult(moving)
        self.world.staying.clear()
        self.assertEqual(self.finish(moving).result, Result.MOVED)
        self.assertEqual(self.world.held, {})
        self.assertGreater(len(self.world.made("kick")), 1)

    def test_thatNobodyComesIsNoFailure(self) -> None:
        """It is waited for as long as was asked, then said."""
        self.world.returning.clear()
        report = self.move(wait=7)
        self.assertTrue(report.isDone)
        self.assertIsNone(report.arrived)
        self.assertGreaterEqual(report.seconds, 7)
        self.assertIs(report.asJSON()["confirmed"], False)

    def test_whoLingersIsNotTheNextSession(self) -> None:
        """A session that was kicked may take its time on the new destination."""
        self.world.begin(ANN, "new")
        self.world.returning.clear()
        lingering = self.world.sessions[1:]

        def kick(identifier: str) -> int:
            self.world.sessions = lingering
            return 2

        self.world._kick = kick  # type: ignore[method-assign]
        report = self.move(wait=2)
        self.assertEqual((report.result, report.arrived), (Result.MOVED, None))

    def test_nobodyIsExpectedWhereNobodyWas(self) -> None:
        """Without a session that was ended, only a held login could come soon."""
        self.world.sessions.clear()
        self.world.returning.clear()
        self.assertLess(self.move(wait=60).seconds, 2)
        self.assertTrue(self.world.made("connections"))

    def test_oneNeedNotWait(self) -> None:
        """With no time to wait nobody looks for the next session."""
        report = self.move(wait=0)
        self.assertEqual((report.result, report.arrived), (Result.MOVED, None))

    def test_anAccountThatIsThereIsLeftAlone(self) -> None:
        """Mapped and without a session elsewhere: no hold, no kick; a file can be run again."""
        self.world.table[ANN] = "new"
        self.world.sessions.clear()
        self.world.begin(ANN, "new")
        report = self.move()
        self.assertEqual((report.result, report.isDone), (Result.ALREADY, True))
        self.assertEqual(self.steps(), [])

    def test_whatAnotherMovesIsLeftAlone(self) -> None:
        """Whoever has taken the account moves it, holds it, and puts it back if need be."""
        self.isTaken = True
        report = self.move()
        self.assertEqual((report.result, report.isDone), (Result.REPEATED, True))
        self.assertEqual(self.steps(), [])

    def test_aMoveThatWasBegunIsFinished(self) -> None:
        """Mapped, but with a session on the old destination: that one has to go."""
        self.world.table[ANN] = "new"
        self.assertEqual((self.move().result, self.move().result), (Result.MOVED, Result.ALREADY))

    def test_theDefaultIsNoMapping(self) -> None:
        """An account that is there by default is pinned, or it would move with the default."""
        self.world.table.clear()
        self.world.sessions.clear()
        plan = Plan("old", 5, 0)
        report = self.finish(CutOver(self.client, self.clock, plan, ANN, self).run())
        self.assertEqual((report.result, self.world.table), (Result.MOVED, {ANN: "old"}))


class FailureTests(CutOverCase):
    """Before the release, every failure leads back."""

    def test_aStoreThatFailsChangesNothing(self) -> None:
        """The old mapping is written again, as nobody knows what the store has kept."""
        self.spoil(DOWN)
        report = self.move()
        self.assertPutBack(report)
        self.assertEqual(self.world.made("setMapping"), [[ANN, "new"], [ANN, "old"]])
        self.assertEqual(report.problems[0], "write: the mapping store failed: disk full")

    def test_aStoreThatTakesNothingIsLookedAt(self) -> None:
        """If it can't be written again either, what counts is where the account goes now."""
        self.spoil(DOWN, DOWN)
        report = self.move()
        self.assertPutBack(report, Result.UNTOUCHED)
        self.assertEqual(len(report.problems), 2)

    def test_aRollbackThatFailsIsTold(self) -> None:
        """The account goes to the new destination, and somebody has to look at it."""
        self.world.staying.add(ANN)
        self.spoil(None, DOWN)
        report = self.move()
        self.assertEqual((report.result, self.world.table[ANN]), (Result.UNCLEAR, "new"))
        self.assertIn("roll back: the mapping store failed: disk full", report.problems)
        self.assertEqual(self.world.held, {})

    def test_aReadOnlyStoreIsNotWrittenTwice(self) -> None:
        """It has said no; there is nothing to put back."""
        self.spoil(ReadOnlyMapping())
        self.assertPutBack(self.move(), Result.UNTOUCHED)
        self.assertEqual(len(self.world.made("setMapping")), 1)

    def test_aDestinationThatIsGoneChangesNothing(self) -> None:
        """One that a reload has taken away meanwhile."""
        plan = Plan("nwe", 5, 0)
        report = self.finish(CutOver(self.client, self.clock, plan, ANN, self).run())
        self.assertPutBack(report, Result.UNTOUCHED)

    def test_eachStepThatFailsLeadsBack(self) -> None:
        """Whichever it is, once the new mapping is written; sessions that it got are ended."""
        for method, step in {"invalidate": "invalidate", "kick": "kick"}.items():
            self.spoil(DOWN, method=method)
            report = self.move()
            self.assertPutBack(report)
            self.assertTrue(report.problems[0].startswith(f"{step}: "), report.problems)

    def test_aMappingThatDoesNotHoldLeadsBack(self) -> None:
        """If the proxy still routes the account elsewhere, it isn't released to two places."""
        world = self.world
        world._setMapping = lambda identifier, destination: None  # type: ignore[method-assign]
        self.assertPutBack(self.move())

    def test_sessionsThatDoNotEndLeadBack(self) -> None:
        """In time; nobody may be left on the old destination while others are on the new one."""
        self.world.staying.add(ANN)
        report = self.move(drain=5)
        self.assertPutBack(report)
        self.assertIn("sessions elsewhere that do not end: 1", report.problems[0])
        self.assertGreaterEqual(report.seconds, 5)

    def test_whoWasNotMappedIsNotMappedAfterwards(self) -> None:
        """Put back means removed for an account that was at the default."""
        del self.world.table[ANN]
        self.world.staying.add(ANN)
        report = self.move()
        self.assertEqual((report.result, self.world.table), (Result.ROLLED_BACK, {}))

    def test_whoCameToTheNewDestinationIsEnded(self) -> None:
        """A login that was asking the store at the wrong moment goes there before the release."""
        self.world.staying.add(ANN)
        self.world.begin(ANN, "new")
        self.move()
        self.assertEqual(self.world.asked[-2:], [("kick", ANN), ("delay", ANN, 0)])

    def test_aFailureBeforeTheHoldTouchesNothing(self) -> None:
        """If nobody can tell where the account is, there would be no way back."""
        self.spoil(DOWN, method="mapping")
        self.assertPutBack(self.move(), Result.UNTOUCHED)
        self.world.ground = "store failed, last known answer"
        self.assertPutBack(self.move(), Result.UNTOUCHED)
        self.assertEqual(self.steps(), [])

    def test_aHoldThatFailsIsReleased(self) -> None:
        """It may have been taken all the same."""
        self.spoil(DOWN, method="delay")
        self.assertPutBack(self.move(), Result.UNTOUCHED)
        self.assertEqual(self.world.made("delay"), [[ANN, HOLD], [ANN, 0]])

    def test_aReleaseIsTriedAgain(self) -> None:
        """Somebody waits for it; one that works in the end is no failure."""
        self.spoil(None, DOWN, DOWN, method="delay")
        report = self.move()
        self.assertTrue(report.isDone, report)
        self.assertEqual(self.world.held, {})

    def test_aReleaseThatFailsIsTold(self) -> None:
        """The account has moved; the report says how long its logins may wait."""
        self.spoil(None, DOWN, DOWN, DOWN, method="delay")
        report = self.move()
        self.assertEqual((report.result, report.isDone), (Result.MOVED, False))
        self.assertIn(f"up to {HOLD} s", report.problems[0])

    def test_aSessionThatGoesElsewhereIsTold(self) -> None:
        """After the release nothing is put back: somebody else has changed the mapping."""
        self.world.returning.clear()
        moving = self.begin(self.start().run())
        self.clock.advance(0.1)
        self.world.begin(ANN, "old")
        report = self.finish(moving)
        self.assertEqual((report.result, report.isDone), (Result.MOVED, False))
        self.assertEqual(report.problems, ("confirm: a new session has gone to old",))


class InterruptionTests(CutOverCase):
    """Somebody loses patience."""

    def test_anInterruptedMoveIsPutBack(self) -> None:
        """While it waits for the old sessions: nobody stays on hold."""
        self.world.staying.add(ANN)
        moving = self.begin(self.start(drain=30).run())
        self.clock.advance(0.05)
        self.isStopped = True
        report = self.finish(moving)
        self.assertPutBack(report)
        self.assertIn("wait for the old sessions: interrupted", report.problems)
        self.assertLess(report.seconds, 2)

    def test_noStepIsBegunAfterAnInterruption(self) -> None:
        """Before the hold nothing is touched at all."""
        self.isStopped = True
        self.assertPutBack(self.move(), Result.UNTOUCHED)
        self.assertEqual(self.world.asked, [])

    def test_whoHasMovedStaysMoved(self) -> None:
        """Only the wait for the next session is cut short."""
        self.world.returning.clear()
        moving = self.begin(self.start(wait=60).run())
        self.clock.advance(0.1)
        self.isStopped = True
        report = self.finish(moving)
        self.assertEqual((report.result, self.world.table[ANN]), (Result.MOVED, "new"))


class FatalTests(CutOverCase):
    """What the next account would meet as well."""

    def test_whatConcernsEverybodyIsMarked(self) -> None:
        """A proxy that is gone, or a token that is wrong; not what concerns one account."""
        self.spoil(DOWN)
        self.assertIsNone(self.move().fatal)
        self.client = self.clientOf(self.treq, token="wrong")
        self.assertIsNotNone(self.move().fatal)

        class Gone:
            """A network without a proxy."""

            def request(self, *_: object, **__: object) -> object:
                """Refuse the connection."""
                raise Refused()

        self.client = self.clientOf(Gone())
        self.assertIsNotNone(self.move().fatal)
