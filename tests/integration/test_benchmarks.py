"""The benchmark's own parts: the load, the stand-in and the meter, with mailproxy in between."""

import os
from contextlib import ExitStack
from typing import ClassVar

from twisted.trial.unittest import SynchronousTestCase

from benchmarks import http, machine
from benchmarks.contenders import DIRECT, Contender, lineUp
from benchmarks.figures import OURS
from benchmarks.peers.mailproxy import Mailproxy
from benchmarks.rounds import Runner, Sample, play
from benchmarks.servers import StandIn, startDovecot
from benchmarks.work import Download, Load, Logins, Messages, Upload
from tests.integration.certificates import Authority
from tests.integration.network import processTree
from tests.integration.shared import SharedServers

SIZE = 100_000


class BenchmarkTests(SharedServers, SynchronousTestCase):
    """Small loads."""

    runners: ClassVar[dict[str, list[Runner]]]

    @classmethod
    def startServers(cls, stack: ExitStack) -> None:
        """Put a proxy in front of each kind of server."""
        authority = Authority.temporary(stack)
        standIn = stack.enter_context(StandIn(authority, tls=True, tickets=False)).server
        dovecot = startDovecot(stack, authority, tls=True, size=SIZE)
        ours = [Contender(OURS, Mailproxy, Mailproxy)]
        cls.runners = {
            name: lineUp(stack, ours, authority, server, clientTLS=True)
            for name, server in {"stand-in": standIn, "dovecot": dovecot}.items()
        }

    def run_(self, name: str, *loads: Load) -> list[Sample]:
        """Play one round."""
        return list(play(name, loads, self.runners[name], 1))

    def test_everyLoadGoesThroughAndHasItsCosts(self) -> None:
        """Those of the proxy; the direct line has none."""
        loads = Logins(3), Logins(3, resumed=True), Download(SIZE, 4 * SIZE)
        samples = self.run_("dovecot", *loads, Upload(SIZE, 4 * SIZE), Messages(20))
        for each in samples:
            self.assertEqual((each.cpu or 0.0) > 0, each.peer == OURS, str(each))
            self.assertGreater(each.wall, 0)
        self.assertEqual(
            [each.load for each in samples if each.peer == DIRECT],
            ["login", "login_resumed", "down", "up", "message"],
        )

    def test_theStandInServesTheSameDialogue(self) -> None:
        """As far as it goes: logins and small commands."""
        samples = self.run_("stand-in", Logins(3), Messages(20))
        self.assertEqual(len(samples), 4)


class HTTPTests(SynchronousTestCase):
    """Those who stand between wrk and a web server."""

    def test_eachProxyHasTheProxiesCore(self) -> None:
        """With all its processes; load and server would be in its way."""
        with ExitStack() as stack:
            ways = list(http.ways(stack))
            for way in ways[:-1]:
                assert way.pid is not None
                for pid in processTree(way.pid):
                    self.assertEqual(os.sched_getaffinity(pid), set(machine.PROXY), way.name)
        self.assertEqual([way.name for way in ways], [OURS, "nginx", DIRECT])
