"""The border to OpenSSL: both engines keep one contract, and the cheaper one is taken."""

import socket
from types import SimpleNamespace
from typing import Any, ClassVar, cast

from hypothesis import given, settings
from hypothesis import strategies as st
from OpenSSL import SSL
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mailproxy import openssl
from mailproxy.openssl import BROKEN, ENDED, RECORD, SIZE, WANT_READ, WANT_WRITE, Engine, ISocketTLS
from tests.support import clientTLS, serverTLS


class Line:
    """Two TLS connections on a pair of sockets, shaken."""

    def __init__(self, engine: Engine) -> None:
        self.sockets = socket.socketpair()
        for each in self.sockets:
            each.setblocking(False)
        creators = clientTLS(), serverTLS()
        self.ends = tuple(
            creator.connectionOn(each) for creator, each in zip(creators, self.sockets, strict=True)
        )
        self.ends[0].set_connect_state()
        self.ends[1].set_accept_state()
        waiting = set(self.ends)
        while waiting:
            for end in list(waiting):
                try:
                    end.do_handshake()
                except SSL.WantReadError:
                    continue
                waiting.remove(end)
        self.client, self.server = map(engine.handle, self.ends)
        engine.read(self.client)  # the server's tickets

    def close(self) -> None:
        """Close both sockets."""
        for each in self.sockets:
            each.close()


def leaveAnError() -> None:
    """Put something into OpenSSL's list of errors, as a call does that nobody asks about."""
    context = vars(SSL.Context(SSL.TLS_METHOD))["_context"]
    vars(SSL)["_lib"].SSL_CTX_set_cipher_list(context, b"nonesuch")


def _cut(line: Line) -> None:
    """Send a FIN without a close-notify."""
    line.sockets[0].shutdown(socket.SHUT_WR)


class Noting:
    """What notes which of its names are looked up.

    :param gone: one that it does not have.
    """

    def __init__(self, whole: Any, gone: str = "") -> None:
        self._whole, self._gone = whole, gone
        self.names: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        """Note it."""
        self.names.add(name)
        if name == self._gone:
            raise AttributeError(name)
        return getattr(self._whole, name)


class EngineContract:
    """What is asked of each engine.

    :cvar engine: the one that is tested.
    """

    engine: ClassVar[Engine]

    def line(self: Any) -> Line:
        """Make a line, closed after the test."""
        line = Line(self.engine)
        self.addCleanup(line.close)
        return line

    def put(self, data: bytes) -> int:
        """Fill the buffer."""
        self.engine.buffer[: len(data)] = data
        return len(data)

    def got(self, start: int, stop: int) -> bytes:
        """See a part of the buffer."""
        return bytes(self.engine.buffer[start:stop])

    def test_theBufferHoldsSeveralRecords(self: Any) -> None:
        """It is one, and writable."""
        self.assertEqual(len(self.engine.buffer), SIZE)
        self.assertFalse(self.engine.buffer.readonly)

    def test_whatIsWrittenIsRead(self: Any) -> None:
        """From the buffer and into it; and from bytes of one's own."""
        line = self.line()
        self.assertEqual(self.engine.put(line.client, self.put(b"hello")), 5)
        self.put(b".....")
        self.assertEqual(self.engine.read(line.server), 5)
        self.assertEqual(self.got(0, 5), b"hello")
        for data in (b"there", memoryview(b"there")):
            self.assertEqual(self.engine.send(line.server, data), 5)
            self.assertEqual(self.engine.read(line.client), 5)
            self.assertEqual(self.got(0, 5), b"there")

    def test_aReadTakesOneRecord(self: Any) -> None:
        """And leaves the next one in the socket."""
        line = self.line()
        for data in (b"one", b"x" * RECORD):
            self.engine.send(line.client, data)
        self.assertEqual(self.engine.read(line.server), 3)
        self.assertEqual(self.engine.read(line.server), RECORD)
        self.assertEqual(self.engine.read(line.server), WANT_READ)

    def test_smallRecordsOfALargeWholeAreGathered(self: Any) -> None:
        """Until there is a full record's worth; a small record by itself is given at once."""
        line = self.line()
        for size in (4096, 4096, 4096, 4096, 4096, 20, 30):
            self.engine.send(line.client, b"x" * size)
        self.assertEqual(self.engine.gather(line.server), (16_384, 0))
        self.assertEqual(self.engine.gather(line.server), (4146, WANT_READ))
        self.assertEqual(self.engine.gather(line.server), (0, WANT_READ))
        for size in (20, 30):
            self.engine.send(line.client, b"y" * size)
        self.assertEqual(self.engine.gather(line.server), (20, 0))
        self.engine.send(line.client, b"z" * RECORD)
        self.assertEqual(self.engine.gather(line.server), (30, 0))
        self.assertEqual(self.engine.gather(line.server), (RECORD, 0))

    def test_whatIsGatheredFitsTheBuffer(self: Any) -> None:
        """In the worst case, too: one byte less than a record, and a whole one."""
        line = self.line()
        for size in (RECORD - 1, RECORD):
            self.engine.send(line.client, b"x" * size)
        self.assertEqual(self.engine.gather(line.server), (2 * RECORD - 1, 0))

    def test_whatIsGatheredBeforeAnEndIsGiven(self: Any) -> None:
        """And the end is told with it."""
        for end, meaning in ((lambda line: line.ends[0].shutdown(), ENDED), (_cut, BROKEN)):
            line = self.line()
            self.engine.send(line.client, b"x" * 5000)
            end(line)
            self.assertEqual(self.engine.gather(line.server), (5000, meaning))

    def test_muchIsPutInRecords(self: Any) -> None:
        """As far as the socket takes it."""
        line = self.line()
        data = bytes(range(256)) * (SIZE // 256)
        self.assertEqual(self.engine.put(line.client, self.put(data)), SIZE)
        received = b""
        while (count := self.engine.read(line.server)) > 0:
            received += self.got(0, count)
        self.assertEqual(received, data)
        sent = 0
        while (count := self.engine.put(line.client, self.put(data))) == SIZE:
            sent += count
        self.assertLess(count, SIZE)
        self.assertEqual(count % RECORD, 0)

    def test_aFullSocketWantsToBeWritten(self: Any) -> None:
        """The same bytes in front, the rest may have grown: each arrives once."""
        line = self.line()
        chunk, sent = bytes(range(256)) * 64, 0
        while (count := self.engine.send(line.client, chunk)) > 0:
            self.assertEqual(count, RECORD)
            sent += count
        self.assertEqual(count, WANT_WRITE)
        received = b""
        while (count := self.engine.read(line.server)) > 0:
            received += self.got(0, count)
        self.assertEqual(self.engine.send(line.client, chunk), RECORD)
        while (count := self.engine.read(line.server)) > 0:
            received += self.got(0, count)
        self.assertEqual(received, chunk * (sent // RECORD + 1))

    def test_aCloseNotifyIsAnEnd(self: Any) -> None:
        """After what was sent before it; and as often as one looks."""
        line = self.line()
        self.engine.send(line.client, b"bye")
        line.ends[0].shutdown()
        self.assertEqual(self.engine.read(line.server), 3)
        for _ in range(2):
            self.assertEqual(self.engine.read(line.server), ENDED)

    def test_oneDirectionEndsByItself(self: Any) -> None:
        """Who has sent its close-notify still reads."""
        line = self.line()
        line.ends[0].shutdown()
        self.assertEqual(self.engine.send(line.server, b"and?"), 4)
        self.assertEqual(self.engine.read(line.client), 4)

    def test_aCutIsNoEnd(self: Any) -> None:
        """Truncation: a FIN without a close-notify."""
        line = self.line()
        line.sockets[0].shutdown(socket.SHUT_WR)
        self.assertEqual(self.engine.read(line.server), BROKEN)

    def test_whatIsNoRecordBreaksOneConnectionOnly(self: Any) -> None:
        """Its error is not taken for another connection's."""
        line, other = self.line(), self.line()
        line.sockets[0].send(b"this is no record at all")
        self.assertEqual(self.engine.read(line.server), BROKEN)
        self.assertEqual(self.engine.read(other.server), WANT_READ)
        self.assertEqual(self.engine.send(other.server, b"fine"), 4)

    def test_noErrorIsLeftBehind(self: Any) -> None:
        """OpenSSL keeps one list for all, and before 4.0 took what is in it for the next one's."""
        lib = vars(SSL)["_lib"]
        line = self.line()
        line.sockets[0].send(b"this is no record at all")
        self.assertEqual(self.engine.read(line.server), BROKEN)
        self.assertEqual(lib.ERR_peek_error(), 0)

    def test_aForgedRecordIsNotRead(self: Any) -> None:
        """A byte that was changed on its way breaks the connection."""
        line = self.line()
        self.engine.send(line.client, b"pay 1")
        record = bytearray(line.sockets[1].recv(1000))
        record[-1] ^= 1
        line.sockets[0].send(record)
        self.assertEqual(self.engine.read(line.server), BROKEN)

    def test_aGoneSocketIsBroken(self: Any) -> None:
        """For who writes, too."""
        line = self.line()
        line.sockets[1].close()
        self.assertEqual(self.engine.send(line.client, b"anybody?"), BROKEN)
        self.assertEqual(self.engine.put(line.client, 1), 0)

    def test_recordsOfAnySizeArrive(self: Any) -> None:
        """In order, each byte once, whatever the sizes."""
        line = self.line()

        @settings(max_examples=30, deadline=None)
        @given(st.lists(st.binary(min_size=1, max_size=RECORD), max_size=5))
        def check(chunks: list[bytes]) -> None:
            for chunk in chunks:
                self.assertEqual(self.engine.send(line.client, chunk), len(chunk))
                count = self.engine.read(line.server)
                self.assertEqual(self.got(0, count), chunk)

        check()


class DirectTests(EngineContract, SynchronousTestCase):
    """The engine that calls OpenSSL."""

    engine = openssl.direct()

    def test_aHandshakesErrorsAreNotTheConnections(self) -> None:
        """What one that went well has left behind is gone before the first record."""
        line = self.line()
        lib = vars(SSL)["_lib"]
        leaveAnError()
        self.assertNotEqual(lib.ERR_peek_error(), 0)
        self.assertEqual(self.engine.read(self.engine.handle(line.ends[1])), WANT_READ)
        self.assertEqual(lib.ERR_peek_error(), 0)

    def bulk(self, line: Line, wants: bool = True) -> tuple[int, list[bytes]]:
        """Read much; gives why there is no more, and what was read."""

        read: list[bytes] = []

        def take(count: int) -> bool:
            read.append(self.got(0, count))
            return wants

        return self.engine.bulk(line.server, line.sockets[1], take), read

    def test_muchIsReadWithFewCalls(self) -> None:
        """Each byte once, in order, whatever was read before and is read after."""
        line = self.line()
        data = bytes(range(256)) * 256
        for size in (100, 4096, 5000, RECORD):
            pieces = [data[at : at + size] for at in range(0, len(data) // 2, size)][:20]
            for piece in pieces:
                self.assertEqual(self.engine.send(line.client, piece), len(piece))
            meaning, read = self.bulk(line)
            self.assertEqual(meaning, WANT_READ)
            self.assertTrue(b"".join(read) == b"".join(pieces))
            self.engine.send(line.server, b"and back")
            self.assertEqual(self.engine.read(line.client), 8)
            self.engine.send(line.client, b"small")
            self.assertEqual(self.engine.read(line.server), 5)

    def test_aPieceMayEndAnywhere(self) -> None:
        """In the middle of a record, or of its head: the rest is waited for."""
        line = self.line()
        self.engine.send(line.client, b"x" * 3000)
        wire = line.sockets[1].recv(10_000)
        start = 0
        for stop in (1, 5, 6, 1000):
            line.sockets[0].send(wire[start:stop])
            self.assertEqual(self.bulk(line), (WANT_READ, []))
            start = stop
        line.sockets[0].send(wire[start:])
        self.assertEqual(self.bulk(line), (WANT_READ, [b"x" * 3000]))

    def test_endsAreToldInBulkToo(self) -> None:
        """A close-notify, a record that is none (which is answered by an alert), and a reset."""
        line = self.line()
        self.engine.send(line.client, b"x" * 5000)
        line.ends[0].shutdown()
        self.assertEqual(self.bulk(line), (ENDED, [b"x" * 5000]))
        line = self.line()
        self.engine.send(line.client, b"x" * 5000)
        line.sockets[0].send(b"\x17\x03\x03\x00\x40" + b"x" * 64)
        self.assertEqual(self.bulk(line), (BROKEN, [b"x" * 5000]))
        self.assertEqual(line.sockets[0].recv(100)[:1], b"\x17")  # the alert, encrypted
        line = self.line()
        line.sockets[0].close()
        self.assertEqual(self.bulk(line), (WANT_READ, []))
        self.assertEqual(self.engine.read(line.server), BROKEN)

    def test_whoWantsNoMoreGetsWhatIsHere(self) -> None:
        """What has left the socket must go somewhere; the rest stays there."""
        line = self.line()
        for _ in range(10):
            self.engine.send(line.client, b"x" * RECORD)
        meaning, read = self.bulk(line, wants=False)
        self.assertEqual(meaning, WANT_READ)
        total = len(b"".join(read))
        self.assertLessEqual(total, SIZE)
        while (count := self.engine.read(line.server)) > 0:
            total += count
        self.assertEqual(total, 10 * RECORD)

    def test_anErrorOfWhoTakesIsNotSwallowed(self) -> None:
        """Nor is it held for one of the socket's; the connection is on its socket again."""
        line = self.line()
        self.engine.send(line.client, b"x" * RECORD)

        def take(count: int) -> bool:
            raise OSError("no room left")

        self.assertRaises(OSError, self.engine.bulk, line.server, line.sockets[1], take)
        self.engine.send(line.client, b"small")
        self.assertEqual(self.engine.read(line.server), 5)


class PublicTests(EngineContract, SynchronousTestCase):
    """The engine that keeps to what pyOpenSSL promises."""

    engine = openssl.public()


class ChoiceTests(SynchronousTestCase):
    """Which engine is taken."""

    def test_theDirectOneWherePossible(self) -> None:
        """With the pyOpenSSL that we are tested with."""
        self.assertEqual(openssl.choose().name, "direct")
        self.assertEqual(openssl.engine.name, "direct")

    def test_thePublicOneWhereSomethingLacks(self) -> None:
        """The binding itself, a function of it, or a connection's own handle."""
        lacking = SimpleNamespace(_lib=SimpleNamespace(SSL_read=None), _ffi=None)
        for binding in (SimpleNamespace(), lacking):
            self.assertEqual(openssl.choose(binding).name, "public")
        strangers = {**vars(SSL), "Connection": lambda context: SimpleNamespace()}
        self.patch(openssl, "SSL", SimpleNamespace(**strangers))
        self.assertEqual(openssl.choose(SSL).name, "public")

    def test_thePublicOneWithoutAnyOneCall(self) -> None:
        """Each is looked up when the direct one is made: none is missed when large things move."""
        lib, ffi = Noting(vars(SSL)["_lib"]), Noting(vars(SSL)["_ffi"])
        engine = openssl.direct(SimpleNamespace(_lib=lib, _ffi=ffi))
        names = lib.names | ffi.names
        line = Line(engine)
        self.addCleanup(line.close)
        for size in (SIZE, 5):
            self.assertEqual(engine.put(line.client, size), size)
            self.assertEqual(engine.send(line.client, b"and more"), 8)
            engine.bulk(line.server, line.sockets[1], lambda count: True)
        self.assertEqual(lib.names | ffi.names, names)
        for name in names:
            lacking = SimpleNamespace(_lib=Noting(lib, name), _ffi=Noting(ffi, name))
            self.assertEqual(openssl.choose(lacking).name, "public", name)

    def test_thePublicOneWhereSomethingIsOtherwise(self) -> None:
        """A function that takes something else."""
        changed = SimpleNamespace(_lib=vars(SSL)["_lib"], _ffi=SimpleNamespace(new=lambda: None))
        self.assertEqual(openssl.choose(changed).name, "public")


class GroupTests(SynchronousTestCase):
    """Key exchange groups."""

    def test_whatOpenSSLKnowsIsTaken(self) -> None:
        """One that it does not know is told."""
        context = SSL.Context(SSL.TLS_METHOD)
        self.assertIs(openssl.setGroups(context, ("X25519", "secp256r1")), True)
        self.assertIs(openssl.setGroups(context, ("X25519", "nonesuch")), False)

    def test_aMistakeBreaksNoConnection(self) -> None:
        """A reload that is refused for an unknown group leaves no error to be taken for theirs."""
        context = SSL.Context(SSL.TLS_METHOD)
        self.assertIs(openssl.setGroups(context, ("x" * 100,)), False)
        self.assertEqual(vars(SSL)["_lib"].ERR_peek_error(), 0)

    def test_withoutAWayNothingIsTold(self) -> None:
        """And nothing is changed."""
        context = SSL.Context(SSL.TLS_METHOD)
        for lacking in (SimpleNamespace(), SimpleNamespace(_lib=object())):
            self.assertIsNone(openssl.setGroups(context, ("X25519",), lacking))
        stranger = cast(SSL.Context, SimpleNamespace(_context="another kind of handle"))
        self.assertIsNone(openssl.setGroups(stranger, ("X25519",)))


class NameTests(SynchronousTestCase):
    """Names that a peer's certificate must be for; who is accepted is tested with the backends."""

    def test_aNameOrAnAddressIsExpected(self) -> None:
        """As OpenSSL writes them."""
        context = SSL.Context(SSL.TLS_METHOD)
        self.assertTrue(openssl.expectName(context, "mail.example.com", False))
        for address in ("192.0.2.1", "2001:db8::1"):
            self.assertTrue(openssl.expectName(context, address, True))

    def test_withoutAWayItIsStillToBeDone(self) -> None:
        """The binding, a function of it, or a name that OpenSSL cannot be told."""
        context = SSL.Context(SSL.TLS_METHOD)
        for lacking in (SimpleNamespace(), SimpleNamespace(_lib=object())):
            self.assertFalse(openssl.expectName(context, "mail.example.com", False, lacking))
        stranger = cast(SSL.Context, SimpleNamespace(_context="another kind of handle"))
        self.assertFalse(openssl.expectName(stranger, "mail.example.com", False))
        lame = (("b\u00fccher.example", False), ("mail.example.com", True), ("", False))
        for name, isAddress in (*lame, (".example.com", False)):
            self.assertFalse(openssl.expectName(context, name, isAddress))


class CreatorTests(SynchronousTestCase):
    """What makes connections on sockets."""

    def test_theTestsOwnKeepTheInterface(self) -> None:
        """As ours do, which their own tests see to."""
        verifyObject(ISocketTLS, serverTLS())
