"""Two thousand sessions of every kind at once, and nothing left of them."""

import random

from tests.integration.network import memoryGrowth, openFiles
from tests.integration.storm import storm
from tests.integration.test_imap_abuse import AbuseTestCase
from tests.integration.visitors import BEHAVIOURS, Behaviour, Visitor, logsIn

SESSIONS, AT_ONCE = 2000, 40
MOST_GROWTH = 60_000_000


class StormTests(AbuseTestCase):
    """All of it at once."""

    def test_nothingIsLeftOfTwoThousandSessions(self) -> None:
        """Every kind of client meets every kind of backend; then files, sessions and memory are
        back where they were, each session has left one line, and the next login works."""
        self.visit(random.Random(0), logsIn, "good")
        self.assertEventually(lambda: not self.connections(), "the first is still there")
        filesBefore, mark = openFiles(self.proxy.pid), self.proxy.log.mark()
        with memoryGrowth(self.proxy.pid) as growth:
            wrong = storm(self.visit, BEHAVIOURS, self.backends, SESSIONS, AT_ONCE)
            self.assertEqual(wrong, [])
            self.assertEventually(lambda: not self.connections(), "sessions are left", 20)
            self.assertEventually(
                lambda: openFiles(self.proxy.pid) <= filesBefore, "files are left", 20
            )
            self.assertLess(growth(), MOST_GROWTH)
        ended = [line for line in self.proxy.log.lines(mark) if " bytes in, " in line]
        self.assertEqual(len(ended), SESSIONS)
        self.visit(random.Random(0), logsIn, "good")

    def visit(self, dice: random.Random, behaviour: Behaviour, backend: str) -> None:
        """One session."""
        front = dice.choice(["imaps", "imap"])
        behaviour(Visitor(self.proxy, self.context, front, backend, dice))
