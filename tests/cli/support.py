"""A proxy that lives in memory behind the real management API, and streams to read from."""

import io
from collections.abc import Coroutine
from typing import Any, TypeVar

from treq.testing import StubTreq
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from mailproxy.cli.arguments import makeParser
from mailproxy.cli.client import ManagementClient
from mailproxy.cli.commands import Job
from mailproxy.cli.output import Output, Terminal
from mailproxy.cli.place import Place, Trust
from mailproxy.control import Facts, IControl
from mailproxy.errors import UnknownDestination
from mailproxy.management import Guard, ManagementAPI
from tests.management.support import TOKEN, FakeControl

T = TypeVar("T")

URL = "https://proxy.example:8443"
LONGEST_RUN = 600
"""Seconds of the clock after which a command is held to run for ever."""


class Screen(io.StringIO):
    """A stream that is a terminal."""

    def isatty(self) -> bool:
        """Say so."""
        return True


@implementer(IControl)
class World(FakeControl):
    """A proxy's accounts and sessions; destinations `old` (the default) and `new`.

    :ivar table: identifier -> destination.
    :ivar sessions: the live ones, as the API tells of them.
    :ivar held: seconds that an identifier's logins wait.
    :ivar returning: identifiers whose clients come back at the release, wherever they are routed.
    :ivar staying: identifiers whose sessions do not end when they are kicked.
    :ivar failures: what the next calls of a method fail with, in turn; None lets one pass.
    :ivar asked: the calls that were made, by name and arguments.
    """

    def __init__(self) -> None:
        super().__init__()
        self.table: dict[str, str] = {}
        self.sessions: list[Facts] = []
        self.held: dict[str, int] = {}
        self.returning: set[str] = set()
        self.staying: set[str] = set()
        self.failures: dict[str, list[Exception | None]] = {}
        self.ground: str | None = None
        self._ids = 0

    def begin(self, identifier: str, destination: str, protocol: str = "imap") -> None:
        """Have a session begin."""
        self._ids += 1
        facts = {
            "id": f"s{self._ids}",
            "protocol": protocol,
            "listener": f"{protocol}s",
            "client": "192.0.2.1:50000",
            "identifier": identifier,
            "destination": destination,
            "since": 0.0,
            "bytes_received": 10,
            "bytes_sent": 20,
        }
        self.sessions.append(facts)

    def made(self, name: str) -> list[list[Any]]:
        """Return the arguments of the calls of one method."""
        return [arguments for method, *arguments in self.asked if method == name]

    def _answer(self, *asked: Any) -> Deferred[Any]:
        self.asked.append(asked)
        failures = self.failures.get(asked[0], [])
        failure = failures.pop(0) if failures else None
        if failure is not None:
            return fail(failure)
        return succeed(getattr(self, f"_{asked[0]}")(*asked[1:]))

    def _stats(self) -> Facts:
        active = [{"protocol": "imap", "destination": "old", "active": len(self.sessions)}]
        return {
            "cache_hits": 3,
            "cache_misses": 1,
            "hit_rate_pct": 75.0,
            "cache_entries": 1,
            "active_connections": len(self.sessions),
            "connections": active if self.sessions else [],
        }

    def _destinations(self) -> list[Facts]:
        facts = {"consecutive_failures": 0, "failure_sources": 0, "host_level_failure": False}
        return [{"destination": name, **facts, "down": False} for name in ("old", "new")]

    def _resetDestination(self, destination: str) -> None:
        pass

    def _mapping(self, identifier: str) -> Facts:
        name = identifier.lower()
        destination = self.table.get(name, "old")
        return {
            "identifier": identifier,
            "normalized": name,
            "destination": destination,
            "routed_to_default": name not in self.table,
            "cached": False,
            "ground": self.ground or ("mapped" if name in self.table else "not mapped"),
            "source": "file",
            "endpoints": {"imap": {"host": f"{destination}.test", "port": 993, "tls": "implicit"}},
        }

    def setMapping(self, identifier: str, destination: str) -> Deferred[None]:
        """Write it, if the destination is declared."""
        if destination not in ("old", "new"):
            return fail(UnknownDestination(destination))
        return self._answer("setMapping", identifier, destination)

    def _setMapping(self, identifier: str, destination: str) -> None:
        self.table[identifier] = destination

    def _removeMapping(self, identifier: str) -> bool:
        return self.table.pop(identifier, None) is not None

    def _reloadMappings(self) -> None:
        pass

    def _invalidate(self, identifier: str | None) -> None:
        pass

    def _connections(
        self, identifier: str | None, destination: str | None, protocol: str | None
    ) -> list[Facts]:
        wanted = {"identifier": identifier, "destination": destination, "protocol": protocol}
        return [
            each
            for each in self.sessions
            if all(value in (None, each[key]) for key, value in wanted.items())
        ]

    def _kick(self, identifier: str) -> int:
        own = self._connections(identifier, None, None)
        if identifier not in self.staying:
            self.sessions = [each for each in self.sessions if each not in own]
        return len(own)

    def _delay(self, identifier: str, seconds: int) -> None:
        if seconds:
            self.held[identifier] = seconds
            return
        self.held.pop(identifier, None)
        if identifier in self.returning:
            self.begin(identifier, self.table.get(identifier, "old"))


class ProxyCase(SynchronousTestCase):
    """Commands against a world, whose clock goes on as long as a command waits for it."""

    def setUp(self) -> None:
        """Create the world."""
        self.world = World()
        self.clock = Clock()
        self.out, self.err = io.StringIO(), io.StringIO()
        api = ManagementAPI(self.world, Guard(TOKEN, 3, 60.0, self.clock))
        self.treq: Any = StubTreq(api.resource())
        self.client = self.clientOf(self.treq)

    def clientOf(self, sender: Any, token: str = TOKEN) -> ManagementClient:
        """Make a client that sends its requests this way."""
        return ManagementClient(sender, Place(URL, token, "the test", Trust()), self.clock)

    def job(self, *words: str) -> Job:
        """Read a command line and make what the command works with."""
        arguments = makeParser().parse_args(words)
        output = Output(Terminal({}, self.out, self.err), asJSON=arguments.json)
        return Job(self.client, arguments, output, self.clock)

    def begin(self, work: Coroutine[Any, Any, T]) -> "Deferred[T]":
        """Begin something that may have to wait for the clock."""
        return Deferred.fromCoroutine(work)

    def finish(self, work: "Coroutine[Any, Any, T] | Deferred[T]") -> T:
        """Let the time pass that something takes; returns what comes of it."""
        running = work if isinstance(work, Deferred) else self.begin(work)
        ended: list[object] = []

        def note(result: Any) -> Any:
            ended.append(result)
            return result

        running.addBoth(note)
        while not ended and self.clock.seconds() < LONGEST_RUN:
            self.clock.advance(0.05)
        return self.successResultOf(running)

    def run_(self, *words: str) -> int:
        """Carry out a command; returns its exit status."""
        job = self.job(*words)
        status: int = self.finish(job.arguments.run(job))
        return status

    def printed(self) -> list[str]:
        """Return what was written to standard output since this was last asked."""
        lines = self.out.getvalue().splitlines()
        self.out.seek(0)
        self.out.truncate()
        return lines
