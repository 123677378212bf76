"""Several worker processes: what holds for one process holds for them, and one may die.

The first part runs classes of other modules again, with two workers.
"""

import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from twisted.trial.unittest import SkipTest

from tests.integration import (
    test_cutover,
    test_lifecycle,
    test_operator,
    test_reload,
    test_service,
    test_start,
)
from tests.integration.accounts import ALICE
from tests.integration.fleet import PATIENCE, FleetCase, TwoWorkers
from tests.integration.network import isListening, isRunning
from tests.integration.operating import OperatingCase
from tests.integration.process import waitUntil
from tests.integration.proxy import PROJECT, ProxyProcess
from tests.integration.wire import LineClient


class StopTests(TwoWorkers, test_lifecycle.StopTests):
    """How all processes stop."""


class LimitTests(TwoWorkers, test_start.LimitTests):
    """Numbers, times and addresses."""


class NotifyTests(TwoWorkers, test_service.NotifyTests):
    """What the service manager is told."""


class ActivationTests(TwoWorkers, test_service.ActivationTests):
    """Sockets from systemd, which all workers share."""


class CutOverTests(TwoWorkers, test_cutover.CutOverTests):
    """Accounts that move."""


class OperatorTests(TwoWorkers, test_operator.CutOverTests):
    """The operator's command."""


class ChangeTests(TwoWorkers, test_reload.ChangeTests):
    """What a reload changes."""


class CertificateTests(TwoWorkers, test_reload.CertificateTests):
    """Certificates that are renewed."""


class DeathTests(FleetCase):
    """A worker, or the parent, is killed."""

    def test_theOthersSessionsLive(self) -> None:
        """Those of the dead are lost; it is back soon, and the API says so."""
        clients = self.crowd(24)
        victim, survivor = self.workers()
        by = self.stats()["active_connections"]
        self.assertEqual(by, 24)
        os.kill(victim, signal.SIGKILL)
        alive = [client for client in clients if self.lives(client)]
        self.assertTrue(0 < len(alive) < 24, len(alive))
        for _ in range(6):
            self.assertOK(self.logIn(self.greeted("imap"), ALICE))
        self.assertServing(2)
        after = self.stats()
        self.assertEqual(after["worker_restarts"], 1)
        self.assertIn(survivor, self.workers())
        self.assertNotIn(victim, self.workers())
        self.assertTrue(all(self.lives(client) for client in alive))
        self.assertEqual(after["active_connections"], len(self.connections()))
        self.proxy.log.waitForLine("worker 1 is gone: signal 9")
        found = self.api("GET", "/metrics").text
        self.assertIn("mailproxy_worker_restarts_total 1.0", found)

    def test_underLoad(self) -> None:
        """Clients that come all the time are served or cut, never left waiting."""
        served, cut, wrong, stopping = [0], [0], list[str](), threading.Event()

        def come() -> None:
            while not stopping.is_set():
                try:
                    with LineClient(self.proxy.portOf("imaps"), self.context) as client:
                        client.readLine()
                        self.assertOK(self.logIn(client, ALICE))
                    served[0] += 1
                except (TimeoutError, AssertionError) as error:
                    wrong.append(repr(error))
                except (EOFError, OSError):
                    cut[0] += 1

        threads = [threading.Thread(target=come) for _ in range(4)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(2):
                time.sleep(0.5)
                victim = self.workers()[0]
                os.kill(victim, signal.SIGKILL)
                self.assertEventually(lambda pid=victim: pid not in self.workers(), "it lives")
                self.assertServing(2)
        finally:
            stopping.set()
            for thread in threads:
                thread.join()
        self.assertEqual(wrong, [])
        self.assertGreater(served[0], 20)
        self.assertLess(cut[0], 40)

    def test_aWorkerThatCannotLive(self) -> None:
        """It is tried again and again, ever more slowly; the other one serves on."""
        survivor = self.workers()[1]
        original = self.proxy.mapping.read_text()
        self.proxy.mapping.write_text("broken\n")
        os.kill(self.workers()[0], signal.SIGKILL)
        self.proxy.log.waitForLine(r"worker 1: .*mapping:1", timeout=PATIENCE)
        self.assertEqual(self.workers(), [survivor])
        self.assertOK(self.logIn(self.greeted(), ALICE))
        self.proxy.mapping.write_text(original)
        self.assertServing(2)

    def test_withoutAParentTheyEnd(self) -> None:
        """Sessions may end by themselves; nobody listens any more, then nobody is left."""
        clients, pids = self.crowd(4), self.workers()
        self.proxy.signal(signal.SIGKILL)
        self.assertEventually(
            lambda: not any(isListening(port) for port in self.proxy.ports()), "it still listens"
        )
        self.assertTrue(all(self.lives(client) for client in clients))
        for client in clients:
            client.close()
        self.assertEventually(lambda: not any(map(isRunning, pids)), "workers are left", PATIENCE)


class SignalTests(FleetCase):
    """Signals of a terminal, which reach all processes."""

    grace = "60s"

    def test_toTheWholeGroup(self) -> None:
        """Control-C drains like any other end: workers leave it to their parent."""
        client = self.crowd(1)[0]
        self.proxy.signal(signal.SIGINT, group=True)
        time.sleep(0.5)
        self.assertTrue(self.lives(client))
        client.close()
        self.assertEqual(self.proxy.wait(), 0)

    def test_hangUpToTheWholeGroup(self) -> None:
        """Is one reload."""
        mark = self.proxy.log.mark()
        self.proxy.signal(signal.SIGHUP, group=True)
        self.proxy.log.waitForLine("reloaded; nothing needs a restart", since=mark)
        self.assertEqual(len(self.workers()), 2)

    def test_secondSignalEndsTheWorkersToo(self) -> None:
        """At once, whatever sessions do."""
        client, pids = self.crowd(1)[0], self.workers()
        self.proxy.signal(signal.SIGTERM)
        self.proxy.log.waitForLine("SIGTERM: shutting down")
        time.sleep(0.2)
        self.proxy.signal(signal.SIGTERM)
        self.assertEventually(lambda: not any(map(isRunning, pids)), "workers are left")
        self.assertFalse(self.lives(client))
        self.assertEqual(self.proxy.wait(), -signal.SIGTERM)


class ReloadTests(FleetCase):
    """Reloads, half of them broken."""

    def banner(self) -> set[bytes]:
        """What clients are greeted with, whichever worker it is."""
        found = set()
        for _ in range(8):
            with LineClient(self.proxy.portOf("imap")) as client:
                found.add(client.readLine().rpartition(b"] ")[2].strip())
        return found

    def test_allOrNone(self) -> None:
        """Fifty in a row: the last good one holds, at both workers."""
        for number in range(50):
            banner = f"number {number}"
            self.proxy.config["capabilities"] = {"imap": {"banner": banner}}
            default = "good" if number % 2 == 0 else "nowhere"
            self.proxy.config["routing"]["default_destination"] = default
            self.proxy.writeConfiguration()
            answer = self.api("POST", "/config/reload")
            self.assertEqual(answer.status, 200 if default == "good" else 400, answer.text)
        self.assertEqual(self.banner(), {b"number 48"})
        self.assertOK(self.logIn(self.greeted(), ALICE))


class SecretTests(TwoWorkers, OperatingCase):
    """What can be seen of workers from outside."""

    def test_nothingInTheirEnvironmentOrCommandLine(self) -> None:
        """The token is in neither; they leave no core file."""
        token = "environment-" * 4
        self.run_(env={"PROXY_ADMIN_TOKEN": token})
        pids = [each["pid"] for each in self.api("GET", "/stats", token).json()["workers"]]
        self.assertEqual(len(pids), 2)
        for pid in pids:
            for name in ("environ", "cmdline"):
                text = Path(f"/proc/{pid}/{name}").read_bytes()
                self.assertNotIn(b"environment-", text)
                self.assertNotIn(b"PROXY_", text)
            limits = Path(f"/proc/{pid}/limits").read_text()
            self.assertRegex(limits, r"Max core file size +0 +0 ")


class LogTests(TwoWorkers, OperatingCase):
    """What workers say goes where the parent's log goes."""

    def test_everyLineIsWhole(self) -> None:
        """Of all workers, in JSON, with the number of the worker."""
        self.run_(arguments=("--log-format", "json"))
        for _ in range(12):
            self.guess()
        self.assertTrue(waitUntil(lambda: self._refusals() == 12, PATIENCE))
        events = [json.loads(line) for line in self.proxy.log.lines()]
        self.assertEqual({each["worker"] for each in events if "worker" in each}, {1, 2})

    def _refusals(self) -> int:
        return sum("refused by only" in line for line in self.proxy.log.lines())


class Reachable(ProxyProcess):
    """A proxy whose interpreter and modules every user can read: a worker starts without rights."""

    def command(self) -> Sequence[str]:
        """Debian's interpreter of our version, where ours is in somebody's home."""
        _, *words = super().command()
        return [self._interpreter(), *words]

    def environment(self) -> Mapping[str, str]:
        """With the modules that this process has, from a copy where need be."""
        folders = [PROJECT, *(Path(each) for each in sys.path if each.endswith("site-packages"))]
        path = os.pathsep.join(str(self._reachable(each)) for each in folders)
        return {**super().environment(), "PYTHONPATH": path}

    def _interpreter(self) -> str:
        for path in (sys.executable, f"/usr/bin/python{sys.version_info[0]}.{sys.version_info[1]}"):
            if Path(path).exists() and _isReachable(Path(path).resolve()):
                return path
        raise SkipTest("no interpreter of this version is within reach of other users")

    def _reachable(self, folder: Path) -> Path:
        if _isReachable(folder):
            return folder
        copy = self.folder / folder.name
        if not copy.exists():
            names = ("mailproxy", "twisted") if folder == PROJECT else ("",)
            for name in names:
                shutil.copytree(folder / name, copy / name, dirs_exist_ok=True)
        return copy


def _isReachable(path: Path) -> bool:
    return all(each.stat().st_mode & 0o001 for each in path.parents)


class PrivilegeTests(TwoWorkers, test_service.PrivilegeTests):
    """Workers are started when the rights are given up, and have none."""

    kind = Reachable
