"""What a worker begins with."""

import io

from mailproxy.identity import redactionKey
from mailproxy.logformat import LineObserver, Style
from mailproxy.workers.setup import Given
from tests.workers.support import FleetCase


class RecruitTests(FleetCase):
    """A worker that comes into a fleet."""

    def test_seats(self) -> None:
        """Each has its own, and its share of each limit."""
        shares = [
            {each.name: each.share for each in self.proxyOf(number).listeners} for number in (0, 1)
        ]
        self.assertEqual(shares[0], shares[1])
        self.assertEqual(shares[0]["open"], 4096)

    def test_newestConfiguration(self) -> None:
        """The parent's, at the time of its start."""
        given = self.house.adopter.given
        level = given.config.server.model_copy(update={"log_level": "error"})
        config = given.config.model_copy(update={"server": level})
        self.house.adopter.given = Given(config, given.files)
        self.house.processes[1].die("signal 9")
        self.network.advance(1)
        self.assertEqual(self.proxyOf(1).runtime.config.server.log_level, "error")

    def test_oneHashForAnAccount(self) -> None:
        """In all logs: the key is the parent's (and in this test, all are one process)."""
        own = redactionKey()
        self.addCleanup(redactionKey, own)
        self.house.processes[1].die("signal 9")
        redactionKey(b"p" * 16)
        self.network.advance(1)
        self.assertEqual(redactionKey(), b"p" * 16)

    def test_linesAreMadeByTheWorker(self) -> None:
        """Where the parent does nothing else with events; they are written as they come."""
        out = io.StringIO()
        self.house.shared.observer = LineObserver(out, Style.JSON)
        self.house.processes[1].die("signal 9")
        self.network.advance(1)
        self.assertEqual(self.house.written, [(1, None), (2, None), (2, Style.JSON)])
        self.house.workers[1].peer.say("lines", ["a\n", "b\n"])
        self.network.pump()
        self.assertEqual(out.getvalue(), "a\nb\n")
