"""From one plain socket to another without coming here: through a pipe of the kernel (splice(2)).

Between two events the pipe is empty, so all connections share it. Must not know connections.
"""

import contextlib
import fcntl
import os
import socket

__all__ = ["LARGE", "Pipe", "makePipe", "shared"]

LARGE = 16384
"""Bytes in one event from which on this is cheaper than to read and to write them."""

_CAPACITY = 1 << 18
_NOW = getattr(os, "SPLICE_F_NONBLOCK", 0) | getattr(os, "SPLICE_F_MOVE", 0)


class Pipe:
    """A pipe that is filled and emptied at once."""

    def __init__(self) -> None:
        """Make it.

        :raises OSError: when there are no descriptors left.
        """
        self._reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        with contextlib.suppress(OSError):  # a smaller one does, too
            fcntl.fcntl(self._writer, fcntl.F_SETPIPE_SZ, _CAPACITY)

    def fill(self, source: socket.socket) -> int:
        """Take what has come on a socket; tells how many bytes, 0: its end.

        :raises OSError: as `recv` does.
        """
        return os.splice(source.fileno(), self._writer, _CAPACITY, flags=_NOW)

    def empty(self, count: int, sink: socket.socket) -> bytes:
        """Send the bytes that are in it; gives those that the socket does not take.

        :raises OSError: as `send` does; they are still in it.
        """
        with contextlib.suppress(BlockingIOError):
            count -= os.splice(self._reader, sink.fileno(), count, flags=_NOW)
        return self.rest(count)

    def rest(self, count: int) -> bytes:
        """Take the bytes that are in it."""
        return os.read(self._reader, count) if count else b""

    def close(self) -> None:
        """Give the descriptors back."""
        for each in (self._reader, self._writer):
            os.close(each)


def makePipe() -> Pipe | None:
    """Make a pipe, and try it; None where the system, or what guards it, does not let us."""
    if not hasattr(os, "splice"):
        return None
    try:
        pipe = Pipe()
    except OSError:
        return None
    if _works(pipe):
        return pipe
    pipe.close()
    return None


def _works(pipe: Pipe) -> bool:
    """Whether a byte goes through."""
    try:
        near, far = socket.socketpair()
        with near, far:
            near.send(b"x")
            return pipe.fill(far) == 1 and not pipe.empty(1, near)
    except OSError:
        return False


shared = makePipe()
"""This process's; made while there are descriptors."""
