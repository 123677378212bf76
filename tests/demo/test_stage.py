"""The demonstration before anything listens."""

import tempfile
from pathlib import Path

from twisted.application.service import IService
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from mailproxy.demo import prepare, prepareTemporary
from mailproxy.demo.stage import SERVER_NAMES


class PrepareTests(SynchronousTestCase):
    """Files, servers and text together."""

    def setUp(self) -> None:
        """Make a directory that stands for the system's temporary one, and a reactor in memory."""
        self.directory = Path(self.mktemp())
        self.directory.mkdir()
        self.patch(tempfile, "tempdir", str(self.directory))
        self.reactor = MemoryReactorClock()

    def test_bothServersListenOnLoopback(self) -> None:
        """Once started, two sockets of each listen, on loopback only; before, none."""
        setup = prepare(self.directory, self.reactor)
        self.assertEqual(self.listening(), [])
        setup.service.startService()
        self.addCleanup(setup.service.stopService)
        self.assertEqual(len(self.listening()), 2 * len(SERVER_NAMES))
        self.assertEqual(set(self.listening()), {"127.0.0.1"})

    def listening(self) -> list[str]:
        """Return the interface of each listening socket."""
        return [interface for _, _, _, _, interface in self.reactor.sslServers] + [
            interface for _, _, _, interface in self.reactor.tcpServers
        ]

    def test_theTextNamesTheFiles(self) -> None:
        """The configuration exists and is named in the text."""
        setup = prepare(self.directory, self.reactor)
        self.assertTrue(setup.configPath.is_file())
        self.assertIn(str(setup.configPath), setup.instructions)
        self.assertTrue(IService.providedBy(setup.service))

    def test_aTemporaryDirectoryGoesWithTheService(self) -> None:
        """The directory has the documented name, is private, and is gone after the stop."""
        setup = prepareTemporary(self.reactor)
        directory = setup.configPath.parent
        self.assertEqual(directory, self.directory / "mailproxy-demo")
        self.assertEqual(directory.stat().st_mode & 0o077, 0)
        setup.service.startService()
        self.assertTrue(directory.is_dir())
        self.successResultOf(setup.service.stopService())
        self.assertFalse(directory.exists())

    def test_aSecondDemonstrationHasItsOwnDirectory(self) -> None:
        """While one runs, another takes a directory of a new name."""
        first = prepareTemporary(self.reactor).configPath.parent
        second = prepareTemporary(self.reactor).configPath.parent
        self.assertNotEqual(first, second)
        self.assertEqual(second.stat().st_mode & 0o077, 0)
        self.assertTrue(first.is_dir())
