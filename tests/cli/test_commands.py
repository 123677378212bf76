"""The commands that ask a proxy: what they ask, what they print, and how they end."""

import json
from typing import Any

from treq.testing import StringStubbingResource, StubTreq

from mailproxy.cli import commands
from mailproxy.errors import CallRefused, Unanswered
from tests.cli.support import ProxyCase

ANN = "ann@example.org"


class QuestionTests(ProxyCase):
    """What changes nothing."""

    def test_statusShowsWhatMatters(self) -> None:
        """Sessions, the cache, and what is down."""
        self.world.begin(ANN, "old")
        self.assertEqual(self.run_("status"), 0)
        text = "\n".join(self.printed())
        for words in ("live sessions: 1", "imap\told\t1", "75.0 % of 4", "destinations down: none"):
            self.assertIn(words, text)

    def test_statusNamesWhatIsDown(self) -> None:
        """One of them is the reason why somebody looks."""
        facts = self.world._destinations()
        facts[1]["down"] = True
        self.world._destinations = lambda: facts  # type: ignore[method-assign]
        self.run_("status")
        self.assertIn("destinations down: new", self.printed())
        self.run_("destinations")
        self.assertEqual(self.printed()[2].split("\t")[:2], ["new", "down"])

    def test_statusTellsOfWorkers(self) -> None:
        """Where there are several; one that is away is what somebody looks for."""
        facts = self.world._stats()
        states = [{"worker": n, "pid": n, "state": "serving", "since": 0.0} for n in (1, 2)]
        facts |= {"workers": states, "worker_restarts": 3}
        self.world._stats = lambda: facts  # type: ignore[method-assign]
        self.run_("status")
        self.assertIn("workers: 2 of 2 serve, 3 restarted since the start", self.printed())
        states[1]["state"] = "waiting to be started"
        self.run_("status")
        self.assertIn("workers: 1 of 2 serve, 3 restarted since the start", self.printed())
        states[1]["state"] = "silent"
        self.run_("status")
        text = "worker 2 does not answer: its share is not counted here"
        self.assertIn(text, self.printed())
        del states[1]
        self.run_("status")
        self.assertNotIn("workers", "".join(self.printed()))

    def test_destinationsAreATable(self) -> None:
        """A heading and a line for each."""
        self.assertEqual(self.run_("destinations"), 0)
        heading, *lines = self.printed()
        self.assertEqual(heading.split("\t")[0], "destination")
        self.assertEqual([line.split("\t")[:2] for line in lines], [["old", "up"], ["new", "up"]])

    def test_routeTellsDestinationAndGround(self) -> None:
        """In one line."""
        self.world.table[ANN] = "new"
        for name, line in {ANN: f"{ANN}: new (mapped)", "bob": "bob: old (not mapped)"}.items():
            self.assertEqual(self.run_("route", name), 0)
            self.assertEqual(self.printed(), [line])

    def test_sessionsAreListed(self) -> None:
        """With the filters that were given; none is told, too."""
        self.world.begin(ANN, "old")
        self.world.begin("bob", "new")
        self.run_("connections", "--destination", "new", "--protocol", "imap")
        heading, line = self.printed()
        self.assertEqual(heading.split("\t")[:2], ["account", "destination"])
        self.assertEqual(line.split("\t")[:2], ["bob", "new"])
        self.assertEqual(self.world.made("connections"), [[None, "new", "imap"]])
        self.run_("connections", "--identifier", "carol")
        self.assertEqual(self.printed(), ["no live session"])

    def test_aTerminalIsNotPlayedWith(self) -> None:
        """What a client has put into its name is escaped."""
        self.world.begin("\x1b]0;gotcha\x07", "old")
        self.run_("connections")
        text = "\n".join(self.printed())
        self.assertNotIn("\x1b", text)
        self.assertIn("\\x1b]0;gotcha\\x07", text)


class ChangeTests(ProxyCase):
    """What changes one thing."""

    def test_changesAreMadeAndTold(self) -> None:
        """Each is one call and one line."""
        self.world.begin(ANN, "old")
        for words, asked, line in (
            (("map", ANN, "new"), ("setMapping", ANN, "new"), f"{ANN}: mapped to new"),
            (("unmap", ANN), ("removeMapping", ANN), f"{ANN}: mapping removed"),
            (("unmap", ANN), ("removeMapping", ANN), f"{ANN}: was not mapped"),
            (("kick", ANN), ("kick", ANN), f"{ANN}: 1 session ended"),
            (("kick", ANN), ("kick", ANN), f"{ANN}: 0 sessions ended"),
            (("delay", ANN, "9"), ("delay", ANN, 9), f"{ANN}: new logins wait for 9 s"),
            (("delay", ANN, "0"), ("delay", ANN, 0), f"{ANN}: new logins go on"),
            (("invalidate", ANN), ("invalidate", ANN), f"{ANN}: forgotten"),
            (("invalidate",), ("invalidate", None), "every account: forgotten"),
            (("reset", "new"), ("resetDestination", "new"), "new: reset"),
            (("reload", "--mappings"), ("reloadMappings",), "mappings reloaded"),
        ):
            self.assertEqual(self.run_(*words), 0)
            self.assertEqual((self.world.asked[-1], self.printed()), (asked, [line]))

    def test_unknownDestinationsAreNamed(self) -> None:
        """With those that there are; nothing is written."""
        for words in (("map", ANN, "nwe"), ("reset", "nwe")):
            job = self.job(*words)
            failure = self.failureResultOf(self.begin(job.arguments.run(job)), CallRefused)
            text = "unknown destination nwe; the proxy has old, new"
            self.assertEqual(str(failure.value), text)
        self.assertEqual({name for name, *_ in self.world.asked}, {"destinations"})

    def test_aLookThatCannotBeHadIsNoObstacle(self) -> None:
        """A worker hangs: the change itself has it ended, and tells whether all is well."""
        for name, status in {"new": 0, "nwe": 1}.items():
            self.world.failures["destinations"] = [Unanswered("worker 1 does not answer")]
            if status:
                job = self.job("map", ANN, name)
                self.failureResultOf(self.begin(job.arguments.run(job)), CallRefused)
            else:
                self.assertEqual(self.run_("map", ANN, name), 0)
        self.assertEqual(self.world.table, {ANN: "new"})

    def test_aReloadTellsItsNote(self) -> None:
        """What has to wait for a restart is on a line of its own."""
        for facts, status in (
            ({"reloaded": True, "note": "needs a restart: admin.bind"}, 0),
            ({"reloaded": False}, 1),
        ):
            body = json.dumps(facts).encode()
            stub = StubTreq(StringStubbingResource(lambda *_, body=body: (200, {}, body)))
            self.client = self.clientOf(stub)
            self.assertEqual(self.run_("reload"), status)
        self.assertIn("needs a restart: admin.bind", self.printed())


class JSONTests(ProxyCase):
    """`--json`, for every command."""

    def test_everyCommandAnswersInJSON(self) -> None:
        """One value on standard output, and nothing else anywhere."""
        for words in (
            ("status",),
            ("destinations",),
            ("connections",),
            ("route", ANN),
            ("explain", ANN),
            ("map", ANN, "new"),
            ("unmap", ANN),
            ("kick", ANN),
            ("delay", ANN, "1"),
            ("invalidate",),
            ("reset", "new"),
            ("reload", "--mappings"),
            ("cutover", ANN, "new"),
        ):
            self.assertEqual(self.run_(*words, "--json"), 0, words)
            [line] = self.printed()
            self.assertIsInstance(json.loads(line), dict | list)
        self.assertEqual(self.err.getvalue(), "")

    def test_itIsTheAnswerOfTheAPI(self) -> None:
        """Where there is one: a script reads the same from both."""
        for words, method in {
            ("route", ANN): self.world._mapping(ANN),
            ("destinations",): self.world._destinations(),
        }.items():
            self.run_(*words, "--json")
            self.assertEqual(json.loads(self.printed()[0]), method)


class MomentTests(ProxyCase):
    """Times in a table."""

    def test_longAgoHasItsDate(self) -> None:
        """A session that began before today's noon or so is not one of a moment ago."""
        now: Any = 1_700_000_000.0
        self.assertRegex(commands._moment(now - 60, now), r"\A\d\d:\d\d:\d\d\Z")
        self.assertRegex(commands._moment(now - 90_000, now), r"\A\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\Z")
