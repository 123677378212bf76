"""Listening sockets: all or none, each failure named, both families on one port."""

import errno
import gc
import os
import socket
from pathlib import Path
from typing import Any, cast

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IStreamServerEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer

from mailproxy.config.bind import Bind, EndpointString, SocketAddress
from mailproxy.errors import ConfigError
from mailproxy.origin import Address
from mailproxy.sockets import ListeningSocket, bindSockets
from tests.integration.network import freePort


def openSockets() -> set[str]:
    """Tell which sockets this process has open."""
    found = set()
    for each in Path("/proc/self/fd").iterdir():
        try:
            target = str(each.readlink())
        except OSError:
            continue
        if target.startswith("socket:"):
            found.add(target)
    return found


class SocketCase(SynchronousTestCase):
    """Sockets on loopback addresses, closed after each test."""

    def setUp(self) -> None:
        """Note what is open before; what earlier tests have left is no matter."""
        gc.collect()
        self.reactor = cast(Any, MemoryReactorClock())
        self.bound: set[Address] = set()
        self.before = openSockets()

    def make(self, *places: tuple[str, Bind]) -> list[ListeningSocket]:
        """Bind places, to be closed after the test."""
        listening = bindSockets(self.reactor, places, self.bound)
        for each in listening:
            number = getattr(each._endpoint, "fileno", None)
            if number is not None:
                self.addCleanup(os.close, number)
        return listening

    def port(self, listening: ListeningSocket) -> int:
        """Tell a socket's port."""
        number = cast(Any, listening._endpoint).fileno
        with socket.socket(fileno=os.dup(number)) as copy:
            return int(copy.getsockname()[1])

    def taken(self, host: str = "127.0.0.1") -> SocketAddress:
        """Have a port taken by somebody else."""
        other = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        self.addCleanup(other.close)
        other.bind((host, 0))
        other.listen()
        self.before = openSockets()
        return SocketAddress(host, other.getsockname()[1])

    def problems(self, *places: tuple[str, Bind]) -> tuple[str, ...]:
        """Fail to bind; nothing stays open."""
        error = self.assertRaises(ConfigError, bindSockets, self.reactor, places, self.bound)
        self.assertEqual(openSockets(), self.before)
        return cast(ConfigError, error).problems


class BindTests(SocketCase):
    """Binding while we may still say what is wrong."""

    def test_bothFamiliesFitOnOnePort(self) -> None:
        """An IPv6 socket takes no IPv4: `0.0.0.0:P` and `[::]:P` bind, in either order."""
        for hosts in (("0.0.0.0", "::"), ("::", "0.0.0.0")):
            port = freePort()
            places = [(host, SocketAddress(host, port)) for host in hosts]
            first, second = self.make(*places)
            self.assertEqual((self.port(first), self.port(second)), (port, port))

    def test_aConnectionWaitsBeforeTheServiceRuns(self) -> None:
        """Bound is listening already: a client that comes early is kept."""
        (listening,) = self.make(("a", SocketAddress("127.0.0.1", 0)))
        with socket.create_connection(("127.0.0.1", self.port(listening)), timeout=2):
            pass

    def test_anAddressInUseIsNamed(self) -> None:
        """By its key, with the address and the reason in plain words."""
        place = self.taken()
        (problem,) = self.problems(("listener.imaps.bind", place))
        reason = os.strerror(errno.EADDRINUSE).lower()
        self.assertEqual(problem, f"listener.imaps.bind: 127.0.0.1:{place.port}: {reason}")

    def test_anIPv6AddressIsWrittenInBrackets(self) -> None:
        """As in the configuration."""
        place = self.taken("::1")
        (problem,) = self.problems(("a", place))
        self.assertIn(f"[::1]:{place.port}", problem)

    def test_everyProblemIsToldAndNothingIsKept(self) -> None:
        """All that cannot be had are named in their order; what could be had is closed again."""
        found = self.problems(
            ("first", self.taken()),
            ("fine", SocketAddress("127.0.0.1", 0)),
            ("second", SocketAddress("203.0.113.77", 0)),
            ("third", EndpointString("nonsense:1")),
            ("fourth", EndpointString("tcp:port=many")),
            ("fine too", EndpointString("tcp:0:interface=127.0.0.1")),
        )
        keys = [problem.partition(":")[0] for problem in found]
        self.assertEqual(keys, ["first", "second", "third", "fourth"])
        self.assertIn("nonsense:1", found[2])

    def test_twoKeysForOneAddressAreAProblem(self) -> None:
        """The second one is named."""
        place = SocketAddress("127.0.0.1", self.freePort())
        (problem,) = self.problems(("first", place), ("second", place))
        self.assertTrue(problem.startswith("second: "))

    def freePort(self) -> int:
        """Find a port that nobody uses."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            return int(free.getsockname()[1])

    def test_aPortInTimeWaitCanBeHad(self) -> None:
        """A restart need not wait for the last connection's ghost."""
        with socket.socket() as server:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as ours does
            server.bind(("127.0.0.1", 0))
            server.listen()
            port = server.getsockname()[1]
            with socket.create_connection(("127.0.0.1", port), timeout=2):
                server.accept()[0].close()  # closed by the server first: its side lingers
        self.make(("a", SocketAddress("127.0.0.1", port)))

    def test_nothingIsNothing(self) -> None:
        """No places, no sockets."""
        self.assertEqual(self.make(), [])


@implementer(IListeningPort)
class FakePort:
    """A port that is listened on."""

    stopped = False

    def startListening(self) -> None:
        """Nothing: it listens already."""

    def getHost(self) -> Any:
        """An address without a host, as a Unix socket's is."""
        return "/run/imap.sock"

    def stopListening(self) -> Deferred[None]:
        """Note it."""
        self.stopped = True
        return succeed(None)


@implementer(IStreamServerEndpoint)
class FakeEndpoint:
    """Listens, or cannot."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.factory: object = None

    def listen(self, protocolFactory: object) -> Any:
        """Take the factory."""
        self.factory = protocolFactory
        return self.answer


class DoorTests(SynchronousTestCase):
    """A service that is open while it runs."""

    def listening(self, answer: Any) -> ListeningSocket:
        """Make a socket with an endpoint that answers so."""
        self.endpoint = FakeEndpoint(answer)
        self.bound: set[Address] = set()
        listening = ListeningSocket("listener.imap.bind[0]", self.endpoint, self.bound)
        listening.factory = Factory()
        return listening

    def test_itListensWithItsFactory(self) -> None:
        """From the privileged start on, so that low ports work; an unnamed socket is no address."""
        port = FakePort()
        listening = self.listening(succeed(port))
        listening.privilegedStartService()
        self.assertIs(self.endpoint.factory, listening.factory)
        self.assertEqual(self.bound, set())
        self.successResultOf(listening.stopService())
        self.assertTrue(port.stopped)

    def test_whatCannotBeOpenedEndsTheStart(self) -> None:
        """With one line that names the key, not with a traceback."""
        listening = self.listening(fail(CannotListenError("127.0.0.1", 993, OSError(98, "in use"))))
        ended = self.assertRaises(SystemExit, listening.privilegedStartService)
        self.assertTrue(str(ended).startswith("listener.imap.bind[0]: "))
        self.assertNotIn("\n", str(ended))
        self.successResultOf(listening.stopService())

    def test_stoppingTwiceIsStoppingOnce(self) -> None:
        """And stopping what was never started is no error."""
        listening = self.listening(succeed(FakePort()))
        self.successResultOf(listening.stopService())
        listening.privilegedStartService()
        self.successResultOf(listening.stopService())
        self.successResultOf(listening.stopService())


class SystemdTests(SocketCase):
    """Sockets that systemd is to pass."""

    def test_whatWasNotPassedIsSaid(self) -> None:
        """By name or by index: with the key, and where to look."""
        for text in ("systemd:domain=INET:name=imaps", "systemd:domain=INET:index=0"):
            error = self.assertRaises(ConfigError, self.make, ("a", EndpointString(text)))
            self.assertEqual(
                str(error),
                f"a: {text}: systemd has passed no such socket; compare the .socket unit",
            )


class RealDoorTests(TestCase):
    """With the reactor that trial runs."""

    async def test_itServesWhereItIsBound(self) -> None:
        """Its real address is known while it runs, and nothing stays open after it."""
        from twisted.internet import reactor

        before = openSockets()
        bound: set[Address] = set()
        (listening,) = bindSockets(
            cast(Any, reactor), [("a", SocketAddress("127.0.0.1", 0))], bound
        )
        listening.factory = Factory()
        listening.privilegedStartService()
        listening.startService()
        (address,) = bound
        self.assertEqual(address.host, "127.0.0.1")
        with socket.create_connection((address.host, address.port), timeout=2):
            pass
        await listening.stopService()
        self.assertEqual(openSockets(), before)
