"""One line a minute for all workers."""

from twisted.logger import LogLevel

from mailproxy.proxy import REPORT_INTERVAL
from mailproxy.workers.fleet import ANSWER_PATIENCE
from mailproxy.workers.report import Report
from tests.stage import Watched
from tests.workers.support import FleetCase


class ReportTests(Watched, FleetCase):
    """The line."""

    def setUp(self) -> None:
        """Report on a fleet."""
        Watched.setUp(self)
        FleetCase.setUp(self)
        self.report = Report(self.control, self.house.proxy.clock)
        self.report.startService()

    def said(self) -> list[str]:
        """The lines with counts."""
        return [line for line in self.logged(LogLevel.info) if "from memory" in line]

    def test_sums(self) -> None:
        """In the words of a single process; no worker has a line of its own."""
        self.network.advance(REPORT_INTERVAL - 0.1)
        for number in (0, 1, 1):
            self.enter(number)
            self.home(number, "ann")
        self.assertEqual(self.said(), [])
        self.network.advance(0.1)
        expected = (
            "sessions: 3, lookups from memory: 1, from the store: 2, remembered: 2, down: none"
        )
        self.assertEqual(self.said(), [expected])
        self.report.stopService()
        self.network.advance(REPORT_INTERVAL)
        self.assertEqual(len(self.said()), 1)

    def test_silentWorker(self) -> None:
        """The counts are without its share, and that is said."""
        self.silence(1)
        self.report._report()
        for _ in range(2):
            self.network.pump()
            self.network.advance(ANSWER_PATIENCE)
        text = "worker 2 does not answer: these counts are without its share"
        self.assertEqual(self.logged(LogLevel.warn).count(text), 1)
        self.assertEqual(len(self.said()), 1)
        self.report.stopService()

    def test_nobodyIsThere(self) -> None:
        """There is a line, too."""
        for process in list(self.house.processes):
            process.die("signal 9")
        self.report._report()
        self.network.pump()
        self.assertIn("no worker serves", "\n".join(self.logged(LogLevel.warn)))
        self.report.stopService()
