"""A pipe between sockets: filled, emptied, and empty again whatever happens."""

import os
import socket
import struct

from twisted.trial.unittest import SynchronousTestCase

from mailproxy.transport.pipe import Pipe, makePipe, shared


class PipeTests(SynchronousTestCase):
    """Two connections over TCP with a pipe between."""

    def setUp(self) -> None:
        """Make all of them."""
        self.pipe = Pipe()
        self.addCleanup(self.pipe.close)
        self.speaker, self.source = self.connection()
        self.sink, self.listener = self.connection()

    def connection(self) -> tuple[socket.socket, socket.socket]:
        """Make both ends of one; neither waits."""
        with socket.create_server(("127.0.0.1", 0)) as server:
            near = socket.create_connection(server.getsockname())
            far, _ = server.accept()
        for each in (near, far):
            each.setblocking(False)
            self.addCleanup(each.close)
        return near, far

    def test_bytesGoThrough(self) -> None:
        """All, and in order."""
        self.speaker.send(b"one two three")
        self.assertEqual(self.pipe.fill(self.source), 13)
        self.assertEqual(self.pipe.empty(13, self.sink), b"")
        self.assertEqual(self.listener.recv(100), b"one two three")

    def test_whatIsNotTakenIsGivenBack(self) -> None:
        """By a socket that is full, or takes a part: what is left is what has not gone."""
        sent = 0
        data = bytes(range(256)) * 256
        while True:
            self.speaker.send(data)
            count = self.pipe.fill(self.source)
            rest = self.pipe.empty(count, self.sink)
            sent += count - len(rest)
            if rest:
                break
        self.assertRaises(BlockingIOError, self.pipe.rest, 1)
        got = b""
        while len(got) < sent:
            got += self.listener.recv(1 << 20)
        whole = data * (1 + (sent + len(rest)) // len(data))
        self.assertTrue(got + rest == whole[: sent + len(rest)])

    def test_anEndIsNoByte(self) -> None:
        """As with any read; and nothing at all is told as to any read."""
        self.assertRaises(BlockingIOError, self.pipe.fill, self.source)
        self.speaker.shutdown(socket.SHUT_WR)
        self.assertEqual(self.pipe.fill(self.source), 0)

    def test_aResetIsToldToBoth(self) -> None:
        """What was to be sent is still there, to be taken out."""
        self.speaker.send(b"lost")
        count = self.pipe.fill(self.source)
        for end in (self.speaker, self.listener):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            end.close()
        self.assertRaises(ConnectionResetError, self.pipe.fill, self.source)
        self.assertRaises(OSError, self.pipe.empty, count, self.sink)
        self.assertEqual(self.pipe.rest(count), b"lost")
        self.assertRaises(BlockingIOError, self.pipe.rest, 1)

    def test_anUrgentByteIsInTheWay(self) -> None:
        """It is told as nothing, though there is something: for who asks by another way."""
        self.speaker.send(b"!", socket.MSG_OOB)
        self.speaker.send(b"behind it")
        self.assertRaises(BlockingIOError, self.pipe.fill, self.source)
        self.assertEqual(self.source.recv(100), b"behind it")


class MakeTests(SynchronousTestCase):
    """Whether there is one."""

    def test_whereTheSystemLetsUs(self) -> None:
        """It works, and the process has one."""
        pipe = makePipe()
        assert pipe is not None
        self.addCleanup(pipe.close)
        self.assertIsNotNone(shared)

    def test_whereItDoesNot(self) -> None:
        """A filter of system calls may refuse it; nothing is left open."""

        def refused(*_: object, **__: object) -> int:
            raise PermissionError

        make, made = os.pipe2, []

        def note(flags: int) -> tuple[int, int]:
            made.append(make(flags))
            return made[-1]

        self.patch(os, "splice", refused)
        self.patch(os, "pipe2", note)
        self.assertIsNone(makePipe())
        for each in made[0]:
            self.assertRaises(OSError, os.fstat, each)
