"""What is built for one process, and for several."""

import os
import socket
import sys
from pathlib import Path
from typing import Any, cast

from twisted.application.service import IService
from twisted.internet.testing import MemoryReactorClock

from mailproxy import core
from mailproxy.control import IControl, LocalControl
from mailproxy.core import Core, makeAlone, makeParent, missingIn, workerCount
from mailproxy.errors import ConfigError
from mailproxy.sources import ProxyReactor, SourceMaker
from mailproxy.workers.control import FleetControl
from tests.config.support import MAIN, TOKEN, ConfigTestCase, changed
from tests.mapping.test_file import atOnce

FREE = changed(('"127.0.0.1:993"', '"127.0.0.1:0"'))
ADMIN = f'\n[admin]\nbind = "127.0.0.1:0"\nbearer_token = "{TOKEN}"\n'


class CountTests(ConfigTestCase):
    """How many processes."""

    def setUp(self) -> None:
        """Have three cores."""
        super().setUp()
        self.patch(os, "sched_getaffinity", lambda pid: {4, 6, 7})

    def test_shareOfTime(self) -> None:
        """A control group that may use less gets fewer; in a container its root is what counts."""
        self.assertEqual(core.cores(self.directory), 3)
        self.write("proc/self/cgroup", "0::/system.slice/x.service\n")
        self.assertEqual(core.cores(self.directory), 3)
        own = "sys/fs/cgroup/system.slice/x.service/cpu.max"
        for text, count in (("max 100000", 3), ("200000 100000", 2), ("20000 100000", 1), ("", 3)):
            self.write(own, text)
            self.assertEqual(core.cores(self.directory), count)
        self.write("sys/fs/cgroup/cpu.max", "150000 100000\n")
        self.assertEqual(core.cores(self.directory), 2)

    def test_shareOfTheGroupsAround(self) -> None:
        """The least of all: a slice may use less than its services, and one slice than another."""
        self.write("proc/self/cgroup", "0::/mail.slice/mail-in.slice/x.service\n")
        self.write("sys/fs/cgroup/mail.slice/mail-in.slice/x.service/cpu.max", "max 100000\n")
        self.write("sys/fs/cgroup/mail.slice/mail-in.slice/cpu.max", "200000 100000\n")
        self.assertEqual(core.cores(self.directory), 2)
        self.write("sys/fs/cgroup/mail.slice/cpu.max", "100000 100000\n")
        self.assertEqual(core.cores(self.directory), 1)

    def test_groupsBesideOursDoNotCount(self) -> None:
        """Nor does what lies outside of their tree."""
        self.write("proc/self/cgroup", "0::/mail.slice/x.service\n")
        for place in ("fs/cgroup/mail.slice/y.service", "fs/cgroup/web.slice", "fs"):
            self.write(f"sys/{place}/cpu.max", "100000 100000\n")
        self.assertEqual(core.cores(self.directory), 3)

    def test_asWritten(self) -> None:
        """Or one for each core that this process may use."""
        self.patch(core, "cores", lambda root: 3)
        for threads, count in ((1, 1), (5, 5), (0, 3)):
            config = self.load(changed(extra=f"[server]\nthreads = {threads}\n"))
            self.assertEqual(workerCount(config), count)


class RootTests(ConfigTestCase):
    """Another root directory."""

    def test_whatIsMissing(self) -> None:
        """The null device for all, an interpreter for workers; nothing where the root stays."""
        root = self.directory / "jail"
        self.assertEqual(list(missingIn(Path("/"), 2)), [])
        null, program = missingIn(root, 2)
        self.assertIn("dev/null", null)
        self.assertIn("server.threads = 1", program)
        self.write("jail/dev/null", "")
        self.assertEqual(list(missingIn(root, 1)), [])
        self.assertEqual(list(missingIn(root, 2)), [program])
        self.write(f"jail{sys.executable}", "")
        self.assertEqual(list(missingIn(root, 2)), [])


class CoreCase(ConfigTestCase):
    """Cores over real sockets on free ports, which nobody accepts from."""

    def setUp(self) -> None:
        """Have a reactor in memory."""
        super().setUp()
        self.reactor = MemoryReactorClock()

    def make(self, text: str, *, several: bool) -> Core:
        """Build one; its sockets are closed at the test's end."""
        config = self.load(text)
        reactor = cast(ProxyReactor, self.reactor)
        sources = SourceMaker(reactor, atOnce)
        make = makeParent if several else makeAlone
        made = make(reactor, config, sources, atOnce)
        self.addCleanup(self.close, made)
        return made

    def close(self, made: Core) -> None:
        """Close its sockets."""
        for service in made.services:
            for name in ("close", "release"):
                getattr(service, name, int)()

    def refused(self, text: str, *, several: bool) -> list[str]:
        """Why it cannot be built."""
        return list(self.assertRaises(ConfigError, self.make, text, several=several).problems)


class SameTests(CoreCase):
    """What both have in common."""

    def test_parts(self) -> None:
        """Management, services, and who answers."""
        for several, kind in ((False, LocalControl), (True, FleetControl)):
            made = self.make(FREE + ADMIN, several=several)
            self.assertIsNotNone(made.admin)
            self.assertIn(made.admin, made.services)
            control = made.control(lambda: cast(Any, None))
            self.assertTrue(IControl.providedBy(control))
            self.assertIsInstance(control, kind)
            for service in made.services:
                self.assertTrue(IService.providedBy(service))
            self.assertEqual(made.adopter.config, made.proxy.runtime.config)

    def test_withoutManagement(self) -> None:
        """There is no socket for it."""
        for several in (False, True):
            self.assertIsNone(self.make(FREE, several=several).admin)

    def test_everyPlaceThatCannotBeHadIsNamed(self) -> None:
        """Management's, too; what could be had is let go."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            text = changed(('"127.0.0.1:993"', f'"127.0.0.1:{port}", "127.0.0.2:{port}"'))
            admin = ADMIN.replace("127.0.0.1:0", f"127.0.0.1:{port}")
            self.assertEqual(len(self.refused(text + ADMIN, several=True)), 1)
            text = text.replace(f'"127.0.0.1:{port}", ', "")
            for several in (False, True):
                (line,) = self.refused(text + admin, several=several)
                self.assertTrue(line.startswith("admin.bind: "), line)
            self.assertRaises(OSError, socket.create_connection, ("127.0.0.2", port))

    def test_whatOpenSSLRefuses(self) -> None:
        """Is found at once, not by the workers."""
        config = self.load(FREE)
        self.write("main.key", MAIN.leaf)
        reactor = cast(ProxyReactor, self.reactor)
        for make in (makeAlone, makeParent):
            self.assertRaises(
                ConfigError, make, reactor, config, SourceMaker(reactor, atOnce), atOnce
            )


class ParentTests(CoreCase):
    """What is special to a parent."""

    def test_storesAreTriedFirst(self) -> None:
        """A plugin or driver that is missing ends the start in plain words."""
        text = FREE.replace('source = "file"', 'source = "plugin:none"')
        (line,) = self.refused(text, several=True)
        self.assertTrue(line.startswith('mapping.source: there is no mapping plugin "none"'), line)

    def test_itHoldsNoMapping(self) -> None:
        """A million lines are with the workers, not here."""
        made = self.make(FREE, several=True)
        lookup = made.proxy.runtime.source.lookup("anna")
        self.failureResultOf(lookup)

    def test_readyWithTheWorkers(self) -> None:
        """And not before."""
        made = self.make(FREE, several=True)
        self.assertNoResult(made.ready())
        self.successResultOf(self.make(FREE, several=False).ready())

    def test_oneSocketForEachWorker(self) -> None:
        """On each address."""
        self.patch(core, "workerCount", lambda config: 3)
        made = self.make(FREE, several=True)
        held: Any = made.services[0]
        told, _ = held.inherited(4)
        self.assertEqual([each.seat for each in told], [0, 1, 2])
