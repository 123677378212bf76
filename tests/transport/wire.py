"""A network whose connections are real sockets: pairs of them, without a reactor.

What was written is there at once, so a test says when bytes move, as with `tests.support`; but TLS
can sit on the socket, and the kernel holds what it holds.
"""

import select
import socket

from twisted.internet.protocol import Protocol

from mailproxy.transport import JoinableConnection
from tests.support import MemoryConnection, Network, Peer

_READ = select.POLLIN | select.POLLHUP | select.POLLERR
_WRITE = select.POLLOUT | select.POLLHUP | select.POLLERR


class WireConnection(MemoryConnection):
    """A connection over a real socket."""

    bindsTLS = True
    pipe = JoinableConnection.pipe  # type: ignore[assignment]

    def unacknowledged(self) -> int:
        """Tell how many bytes the other end has not read: more than TCP's kernel would say."""
        return super(MemoryConnection, self).unacknowledged()


class FarConnection(WireConnection):
    """The same with Twisted's TLS, to test ours against."""

    bindsTLS = False


class Wire(Network):
    """Moves bytes between connected protocols.

    :ivar far: what carries a `Peer`; all else is carried by what is tested.
    """

    resets = False
    far: type[WireConnection] = FarConnection

    def _join(self, server: Protocol, client: Protocol) -> tuple[MemoryConnection, ...]:
        ends = self._pair()
        for end in ends:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self.capacity)
        return tuple(
            (self.far if isinstance(protocol, Peer) else WireConnection)(
                end, protocol, self, protocol is client
            )
            for end, protocol in zip(ends, (server, client), strict=True)
        )

    def _pair(self) -> tuple[socket.socket, socket.socket]:
        return socket.socketpair()

    def _round(self) -> bool:
        poll = select.poll()
        numbers = {each.fileno(): each for each in (*self._readers, *self._writers)}
        for number, each in numbers.items():
            wanted = select.POLLIN if each in self._readers else 0
            poll.register(number, wanted | (select.POLLOUT if each in self._writers else 0))
        moved = False
        for number, event in poll.poll(0):
            each = numbers[number]
            if event & _READ and each in self._readers:
                moved = True
                self._serve(each, each.doRead(), True)
            if event & _WRITE and each in self._writers:
                moved = True
                self._serve(each, each.doWrite(), False)
        return moved


class NearWire(Wire):
    """A wire with our TLS at both ends."""

    far = WireConnection


class TCPWire(NearWire):
    """The same by TCP, on loopback: it has resets."""

    resets = True

    def _pair(self) -> tuple[socket.socket, socket.socket]:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            calling = socket.create_connection(listening.getsockname())
            accepted, _ = listening.accept()
        for each in (accepted, calling):
            each.setblocking(False)
        return accepted, calling
