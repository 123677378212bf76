"""Several accounts: which, how many at a time, what is shown, and what Control-C leaves behind."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionRefusedError

from mailproxy.cli.bulk import readIdentifiers
from mailproxy.errors import BadUsage, MappingError, Unanswered
from tests.cli.support import ProxyCase, Screen

ACCOUNTS = [f"user{number}" for number in range(25)]


class FileTests(ProxyCase):
    """Files of identifiers."""

    def write(self, content: bytes) -> str:
        """Make such a file; returns its path."""
        path = Path(self.mktemp())
        path.write_bytes(content)
        return str(path)

    def test_oneIdentifierALine(self) -> None:
        """Comments, blank lines, spaces and either line end do not matter."""
        path = self.write("# staff\n\n ann@example.org \r\nbjörn\n  # more\n\tzoe".encode())
        self.assertEqual(readIdentifiers(path), ["ann@example.org", "björn", "zoe"])

    def test_aByteOrderMarkIsNoLetter(self) -> None:
        """Some editors write one; the mapping file may have it, too."""
        path = self.write(b"\xef\xbb\xbfnina\nzoe\n")
        self.assertEqual(readIdentifiers(path), ["nina", "zoe"])

    def test_whatIsNoListIsRefused(self) -> None:
        """A mapping file has two words in a line: its destinations are no accounts."""
        for content, word in {b"# x\nann new\n": ":2:", b"\xff\n": "UTF-8"}.items():
            path = self.write(content)
            error = self.assertRaises(BadUsage, readIdentifiers, path)
            self.assertIn(word, str(error))
        self.assertRaises(BadUsage, readIdentifiers, "/nonexistent/file")

    def test_standardInputIsAFile(self) -> None:
        """Under the name of `-`."""
        self.patch(__import__("sys"), "stdin", io.TextIOWrapper(io.BytesIO(b"ann\nbob\n")))
        self.assertEqual(readIdentifiers("-"), ["ann", "bob"])


class CrewCase(ProxyCase):
    """A crowd of accounts on `old`."""

    def setUp(self) -> None:
        """Map everybody, each with a session."""
        super().setUp()
        for name in ACCOUNTS:
            self.world.table[name] = "old"
            self.world.begin(name, "old")
            self.world.returning.add(name)

    def cutover(self, *words: str) -> int:
        """Carry out the command to its end."""
        return self.run_("cutover", *words)


class CrewTests(CrewCase):
    """All of them."""

    def test_everybodyIsMoved(self) -> None:
        """Each account has a line, and a line sums up."""
        self.assertEqual(self.cutover(*ACCOUNTS, "new", "--parallel", "4"), 0)
        self.assertEqual(set(self.world.table.values()), {"new"})
        self.assertEqual(self.world.held, {})
        *lines, last = self.printed()
        self.assertEqual(len(lines), len(ACCOUNTS))
        expected = "user3: old -> new: moved (1 session ended; next session there after 0.0 s)"
        self.assertIn(expected, lines)
        self.assertEqual(last, "25 accounts: 25 moved")

    def test_oneAccountNeedsNoSum(self) -> None:
        """Its own line says it all."""
        self.assertEqual(self.cutover("user0", "new"), 0)
        self.assertEqual(len(self.printed()), 1)

    def test_namedTwiceIsMovedOnce(self) -> None:
        """On the command line, in the file, or in both."""
        path = Path(self.mktemp())
        path.write_text("user1\nuser0\nuser1\n")
        self.assertEqual(self.cutover("user0", "new", "--from-file", str(path)), 0)
        self.assertEqual(len(self.world.made("kick")), 2)

    def test_twoNamesOfAnAccountAreOneMove(self) -> None:
        """Side by side, one would end the other's hold; the proxy says what is the same."""
        self.world.returning.clear()
        words = ("user0", "USER0", "user1", "new", "--wait", "0")
        self.assertEqual(self.cutover(*words), 0)
        self.assertEqual(len(self.world.made("kick")), 2)
        lines = self.printed()
        self.assertIn("USER0: named before", lines)
        self.assertEqual(lines[-1], "3 accounts: 2 moved, 1 named before")

    def test_noMoreThanAskedAtATime(self) -> None:
        """The next one is begun when one has ended."""
        most = 0
        delay = self.world._delay

        def watch(identifier: str, seconds: int) -> None:
            nonlocal most
            delay(identifier, seconds)
            most = max(most, len(self.world.held))

        self.world._delay = watch  # type: ignore[method-assign]
        self.world.staying.update(ACCOUNTS)
        self.assertEqual(self.cutover(*ACCOUNTS, "new", "--parallel", "3", "--drain", "1"), 1)
        self.assertEqual(most, 3)

    def test_jsonTellsAll(self) -> None:
        """One object at the end and nothing else."""
        self.assertEqual(self.cutover("user0", "user1", "new", "--json"), 0)
        [line] = self.printed()
        told = json.loads(line)
        self.assertEqual((told["destination"], told["done"], told["not_tried"]), ("new", True, []))
        self.assertEqual(told["counts"]["moved"], 2)
        self.assertEqual([each["result"] for each in told["accounts"]], ["moved"] * 2)
        self.assertEqual(self.err.getvalue(), "")

    def test_anUnknownDestinationTouchesNobody(self) -> None:
        """It is looked for before anything is done, and the known ones are named."""
        self.assertEqual(self.cutover(*ACCOUNTS, "nwe"), 1)
        self.assertIn("unknown destination nwe; the proxy has old, new", self.err.getvalue())
        self.assertEqual([name for name, *_ in self.world.asked], ["destinations"])
        self.assertEqual(self.printed(), [f"{len(ACCOUNTS)} accounts: {len(ACCOUNTS)} not tried"])
        self.cutover(*ACCOUNTS, "nwe", "--json")
        told = json.loads(self.printed()[0])
        self.assertIn("unknown destination nwe", told["error"])
        self.assertEqual((told["status"], told["not_tried"]), (1, list(ACCOUNTS)))

    def test_aWorkerThatHangsStopsNobody(self) -> None:
        """What cannot be looked at is found out by the change, which has the worker ended."""
        self.world.table[ACCOUNTS[0]] = "new"
        silent = Unanswered("worker 1 does not answer")
        self.world.failures["destinations"] = [silent]
        self.world.failures["connections"] = [silent]
        self.assertEqual(self.cutover(ACCOUNTS[0], "new"), 0)
        self.assertIn("moved", self.printed()[0])

    def test_nobodyIsNoJob(self) -> None:
        """A command without an account is wrong usage; nothing is asked."""
        job = self.job("cutover", "new")
        self.failureResultOf(self.begin(job.arguments.run(job)), BadUsage)
        self.assertEqual(self.world.asked, [])

    def test_oneFailureDoesNotStopTheOthers(self) -> None:
        """It is told where it happened and in the sum, and the status is 1."""
        self.world.failures["setMapping"] = [None, MappingError("disk full")]
        status = self.cutover(*ACCOUNTS[:4], "new", "--parallel", "1")
        self.assertEqual(status, 1)
        lines = self.printed()
        problem = "write: the mapping store failed: disk full"
        self.assertIn(f"user1: old -> new: rolled back ({problem})", lines)
        self.assertEqual(lines[-1], "4 accounts: 3 moved, 1 rolled back")

    def test_whatConcernsAllStopsAll(self) -> None:
        """A token that is no longer taken, or a proxy that is gone; the status says which."""
        for spoil, status in ((_withoutToken, 1), (_goneAway, 3)):
            self.setUp()
            self.client = self.clientOf(_Fickle(self.treq.request, spoil))
            words = ("cutover", *ACCOUNTS, "new", "--parallel", "1", "--wait", "0")
            self.assertEqual(self.run_(*words), status)
            self.assertRegex(self.printed()[-1], r"\A25 accounts: 1 moved, .*2\d not tried\Z")


class _Fickle:
    """Sends requests, and spoils them from the eleventh on."""

    def __init__(self, request: Any, spoil: Callable[[dict[str, Any]], None]) -> None:
        self._request, self._spoil = request, spoil
        self._count = 0

    def request(self, method: str, url: str, **options: Any) -> Any:
        """Send it, spoilt or not."""
        self._count += 1
        if self._count > 10:
            self._spoil(options)
        return self._request(method, url, **options)


def _withoutToken(options: dict[str, Any]) -> None:
    options["headers"] = {}


def _goneAway(_: dict[str, Any]) -> None:
    raise ConnectionRefusedError()


class InterruptionTests(CrewCase):
    """Control-C."""

    def test_nobodyStaysOnHold(self) -> None:
        """Those under way are put back, the others aren't begun, and the sum is told."""
        self.world.staying.update(ACCOUNTS[2:])
        job = self.job("cutover", *ACCOUNTS, "new", "--parallel", "4", "--drain", "30")
        running: Deferred[int] = self.begin(job.arguments.run(job))
        self.clock.advance(0.05)
        self.assertEqual(len(self.world.held), 4)
        running.cancel()
        self.assertNoResult(running)
        self.assertEqual(self.finish(running), 1)
        self.assertEqual(self.world.held, {})
        moved = [name for name, destination in self.world.table.items() if destination == "new"]
        self.assertEqual(moved, ACCOUNTS[:2])
        self.assertEqual(self.printed()[-1], "25 accounts: 2 moved, 4 rolled back, 19 not tried")
        self.assertIn("stopping", self.err.getvalue())


class BarTests(CrewCase):
    """On a terminal."""

    def test_aBarIsDrawn(self) -> None:
        """It counts the accounts; their lines stand above it, and the sum below."""
        self.out = Screen()
        self.assertEqual(self.cutover(*ACCOUNTS[:3], "new"), 0)
        text = self.out.getvalue()
        self.assertIn("moving to new", text)
        self.assertIn("3/3", text)
        self.assertIn("3 accounts: 3 moved", text)

    def test_jsonHasItsBarBeside(self) -> None:
        """Drawn on standard error, so that the answer stays JSON."""
        self.err = Screen()
        self.assertEqual(self.cutover(*ACCOUNTS[:3], "new", "--json"), 0)
        self.assertTrue(json.loads(self.out.getvalue())["done"])
        self.assertIn("moving to new", self.err.getvalue())

    def test_oneAccountNeedsNoBar(self) -> None:
        """Its line is all."""
        self.out = Screen()
        self.assertEqual(self.cutover("user0", "new"), 0)
        self.assertNotIn("moving to new", self.out.getvalue())
