"""A fleet in memory: real workers with real proxies, in one process and on one clock."""

from collections.abc import Callable, Mapping
from typing import Any, cast

from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ProcessExitedAlready

from mailproxy.config.model import Config
from mailproxy.dial import DialReactor
from mailproxy.logs import Logger
from mailproxy.mapping.interfaces import IMappingSource
from mailproxy.proxy import Proxy
from mailproxy.seat import Seat
from mailproxy.served import PROTOCOLS
from mailproxy.sources import ProxyReactor, SourceMaker
from mailproxy.workers.adopter import FleetAdopter
from mailproxy.workers.control import FleetControl
from mailproxy.workers.fleet import Fleet
from mailproxy.workers.handle import Handle
from mailproxy.workers.recruiter import Recruiter
from mailproxy.workers.setup import KeyFiles
from mailproxy.workers.shared import Shared
from mailproxy.workers.sockets import HeldSockets
from mailproxy.workers.worker import Parts, Worker
from tests.config.support import ConfigTestCase
from tests.dialling import Dialling
from tests.mapping.test_file import atOnce
from tests.stage import Client, MemorySource, endAll
from tests.test_proxy import TEXT


class FakeProcess:
    """A process that is a worker in this one.

    :ivar hangs: whether it is killed without a trace yet.
    """

    def __init__(self, house: "House", handle: Handle, worker: Worker, pid: int) -> None:
        self._house, self._handle, self.worker, self.pid = house, handle, worker, pid
        self.alive = True

    def signalProcess(self, signalID: str) -> None:
        """Take SIGKILL only."""
        if not self.alive:
            raise ProcessExitedAlready()
        assert signalID == "KILL"
        self.die("signal 9")

    def die(self, reason: str) -> None:
        """End, and be heard of."""
        if self.alive:
            self.alive = False
            endAll(self.worker._proxy.registry) if self.worker._begun else None
            if self.worker.peer.transport is not None:
                cast(Any, self.worker.peer.transport).abortConnection()
            self._house.network.pump()
            self._handle.ended(reason)


class House:
    """Everything that a parent has, and its workers.

    :ivar refusals: errors with which the next spawns fail.
    :ivar written: how workers were told to write lines of the log.
    :ivar stillborn: seats whose workers end at the first word.
    """

    def __init__(self, config: Config, count: int) -> None:
        self.network = Dialling()
        self.processes: list[FakeProcess] = []
        self.stillborn: set[int] = set()
        self.written: list[object] = []
        self.refusals: list[OSError] = []
        files = KeyFiles()
        seat = Seat(0, count, files.read)
        source: IMappingSource = MemorySource()
        self.proxy = Proxy(cast(DialReactor, self.network), PROTOCOLS, config, source, seat)
        self.shared = Shared(self.proxy.clock)
        recruiter = Recruiter(HeldSockets(set()), self.shared, count, self.spawn)
        self.fleet = Fleet(self.proxy.clock, recruiter.plan(), self.shared.hooks(), 5.0)
        self.shared.fleet, self.fleet.heard = self.fleet, self.shared.counted
        listeners = lambda: self.proxy.runtime.config.listener  # noqa: E731
        self.shared.limitOf = lambda name: listeners()[name].max_connections
        self.adopter = FleetAdopter(self.fleet, self.proxy, files, atOnce)
        self.adopter.adopted = self.shared.adopted
        recruiter.adopter, recruiter.bound = self.adopter, self.proxy.bound
        rules = lambda: self.proxy.runtime.rules  # noqa: E731
        self.control = FleetControl(self.fleet, self.shared, self.adopter, rules, self.reload)
        self.later: list[str] = []

    def reload(self) -> Deferred[list[str]]:
        """Answer what the test has written down."""
        return succeed(self.later)

    def spawn(self, handle: Handle, descriptors: Mapping[int, int]) -> None:
        """Make a worker, and connect it."""
        if self.refusals:
            raise self.refusals.pop(0)
        reactor = cast(ProxyReactor, self.network)
        process: FakeProcess
        parts = Parts(
            reactor=reactor,
            protocols=PROTOCOLS,
            stores=lambda warns: SourceMaker(reactor, atOnce, warns),
            inThread=atOnce,
            stop=lambda: self._stop(process),
            abort=lambda: process.die("aborted"),
        )
        process = FakeProcess(self, handle, Worker(parts), 1000 + len(self.processes))
        self.processes.append(process)
        process.worker.written = lambda *words: self.written.append(words)
        handle.peer, handle.transport = handle.makePeer(), cast(Any, process)
        if handle.number in self.stillborn:
            process.worker.peer.dataReceived = lambda data: process.die("exit status 1")  # type: ignore[method-assign]
        self.network.connect(handle.peer, process.worker.peer)

    def _stop(self, process: FakeProcess) -> None:
        process.worker.stop().addCallback(lambda _: process.die("it has ended by itself"))

    @property
    def workers(self) -> list[Worker]:
        """Those that live, in the order of their start."""
        return [each.worker for each in self.processes if each.alive]


class FleetCase(ConfigTestCase):
    """Two workers over one mapping file.

    :cvar count: how many workers.
    """

    count = 2
    text = TEXT

    def setUp(self) -> None:
        """Build the parent, and start the fleet."""
        super().setUp()
        self.patch(Logger, "level", Logger.level)
        self.write("accounts", "ann old\n")
        self.house = House(self.load(self.text), self.count)
        self.network, self.fleet = self.house.network, self.house.fleet
        self.control = self.house.control
        self.addCleanup(self.stop)
        self.begin()

    def begin(self) -> None:
        """Start the fleet."""
        self.fleet.startService()
        self.network.pump()
        self.successResultOf(self.fleet.ready())

    def stop(self) -> None:
        """End all workers; no timer is left."""
        if self.fleet.running:
            stopped = self.fleet.stopService()
            self.network.advance(40)
            for process in self.house.processes:
                process.die("the test is over")
            self.successResultOf(stopped)

    def result(self, asked: Deferred[Any]) -> Any:
        """The answer, after all that it takes has been said."""
        self.network.pump()
        return self.successResultOf(asked)

    def failure(self, asked: Deferred[Any], kind: type[Exception]) -> Any:
        """The error, likewise."""
        self.network.pump()
        return self.failureResultOf(asked, kind).value

    def proxyOf(self, number: int) -> Proxy:
        """The proxy of a worker."""
        return self.house.workers[number]._proxy

    def enter(self, number: int, listener: str = "open") -> Client:
        """Let a client come to a worker, which may close it at once."""
        (found,) = [each for each in self.proxyOf(number).listeners if each.name == listener]
        client, server = Client(), found.factory.buildProtocol(None)
        if server is not None:
            self.network.connect(server, client)
        return client

    def silence(self, number: int) -> None:
        """Let a worker hang: nothing that it is asked is heard."""
        self.house.workers[number].peer.dataReceived = lambda data: None  # type: ignore[method-assign]

    def pass_(self, seconds: int) -> None:
        """Let time pass as it does: not all at once."""
        for _ in range(seconds):
            self.network.advance(1)

    def overhear(self, number: int) -> list[tuple[str, tuple[object, ...]]]:
        """Note what a worker is asked from now on; it does it all the same."""
        told: list[tuple[str, tuple[object, ...]]] = []
        peer = self.house.workers[number].peer
        original = peer._methods

        def listening(name: str) -> Callable[..., object]:
            def tell(*words: object) -> object:
                told.append((name, words))
                return original[name](*words)

            return tell

        peer._methods = {name: listening(name) for name in original}
        return told

    def home(self, number: int, identifier: str) -> str:
        """Where a worker routes an account now."""
        route = self.proxyOf(number).runtime.router.route(identifier)
        return str(self.result(Deferred.fromCoroutine(route)).destination)
