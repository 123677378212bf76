"""The border to OpenSSL: what pyOpenSSL's public interface cannot do, and how to do without it.

An *engine* moves the bytes of applications through TLS connections, without an exception per event
and by way of a buffer that all connections share. `direct` calls OpenSSL by the binding that
pyOpenSSL itself uses, which is not promised to stay; `public` keeps to what is promised, and costs
more. Must not know transports, nor who speaks.
"""

import ipaddress
import socket
from collections.abc import Callable, Sequence
from typing import Any

import attrs
from OpenSSL import SSL
from zope.interface import Interface

SIZE = 65536
"""Bytes of the shared buffer."""

PIECES = 4
"""Pieces, of `SIZE` bytes on the wire, that are read at a time; then it is others' turn."""

ROUNDS = 8
"""The same in records, where they are read one by one: at most two of them in a round."""

SMALL = 1300
"""Bytes from which on a record is held to be a part of something large: what follows it may be
here, and is taken along with it. What is smaller is passed on at once."""

RECORD = 16384
"""Bytes of the longest record (RFC 8446, section 5.1): a read that has room for them leaves none
behind, so whatever is still to be read is in the socket, where the reactor sees it."""

_LACKING = (AttributeError, TypeError)
"""What is raised where pyOpenSSL or its binding is not as we know it: something is gone, or takes
something else."""

WANT_READ, WANT_WRITE, ENDED, BROKEN = -1, -2, -3, -4
"""What an engine's functions give instead of a count: try again when the socket can be read, or
written; the peer has said that nothing follows (close-notify); no byte can pass any more, be it for
a reset, a stream cut without notice, or a record that is none."""


class ISocketTLS(Interface):
    """Makes TLS connections that read and write a socket themselves."""

    def connectionOn(connected: socket.socket) -> SSL.Connection:
        """Make a connection on a socket; which side it is to be is set by who asks."""


Bulk = Callable[[Any, socket.socket, Callable[[int], bool]], int]
"""`(handle, socket, take)`: reads what has come of something large. `take` is told how many bytes
are in the buffer, and tells whether it wants more. Gives why there are no more, 0 when there may
be."""


@attrs.frozen
class Engine:
    """How bytes are moved through a TLS connection that is bound to a socket.

    What was to be sent and was not is tried again with the same bytes in front.

    :ivar name: for the log.
    :ivar buffer: what is read into; between two events nobody owns it.
    :ivar handle: gives what the other functions want for a connection.
    :ivar read: `(handle)`: read one record into the buffer; its size, or why there is none.
    :ivar gather: `(handle)`: read one record, or several that belong together, into the buffer:
        less than two of the largest. Gives how many bytes there are and why there are no more, 0
        when there may be more.
    :ivar rounds: read much, a record or two at a time.
    :ivar bulk: read much with fewer calls of the system, where it can; what has left the socket is
        given to `take` in any case. Only while all that was sent has been taken by the peer.
    :ivar put: `(handle, count)`: send so much of the buffer, in records; tells how much could be.
    :ivar send: `(handle, data)`: send these bytes, as one record; at most `RECORD`, not none. Tells
        how much could be, or why nothing.
    """

    name: str
    buffer: memoryview
    handle: Callable[[SSL.Connection], Any]
    read: Callable[[Any], int]
    gather: Callable[[Any], tuple[int, int]]
    rounds: Bulk
    bulk: Bulk
    put: Callable[[Any, int], int]
    send: Callable[[Any, bytes | memoryview], int]


def direct(binding: Any = SSL) -> Engine:
    """Make the engine that calls OpenSSL itself.

    :param binding: where pyOpenSSL keeps what it calls OpenSSL by.
    :raises AttributeError: when something of that is missing.
    """
    lib, ffi = binding._lib, binding._ffi
    area = ffi.new("char[]", SIZE)
    clear = lib.ERR_clear_error

    def handle(connection: SSL.Connection) -> Any:
        clear()  # a handshake that went well may have left some behind
        return connection._ssl

    read, gather = _directReading(lib, area)
    rounds, bulk = _rounds(gather), _directBulk(lib, ffi, gather)
    writing = _directWriting(lib, ffi, area)
    buffer = memoryview(ffi.buffer(area))
    return Engine("direct", buffer, handle, read, gather, rounds, bulk, *writing)


def _directReading(
    lib: Any, area: Any
) -> tuple[Callable[[Any], int], Callable[[Any], tuple[int, int]]]:
    """Make the functions that read into an area of memory."""
    sslRead, meaning = lib.SSL_read, _meaning(lib)

    def read(handle: Any) -> int:
        count: int = sslRead(handle, area, RECORD)
        return count if count > 0 else meaning(handle, count)

    def gather(handle: Any) -> tuple[int, int]:
        count: int = sslRead(handle, area, RECORD)
        if count <= 0:
            return 0, meaning(handle, count)
        if count >= SMALL:
            while count < RECORD:
                more: int = sslRead(handle, area + count, RECORD)
                if more <= 0:
                    return count, meaning(handle, more)
                count += more
        return count, 0

    return read, gather


def _rounds(gather: Callable[[Any], tuple[int, int]]) -> Bulk:
    """Make the function that reads much, a record or two at a time."""

    def rounds(handle: Any, connected: socket.socket, take: Callable[[int], bool]) -> int:
        for _ in range(ROUNDS):
            count, meaning = gather(handle)
            isWanted = take(count) if count else False
            if meaning or not isWanted:
                return meaning
        return 0

    return rounds


def _directBulk(lib: Any, ffi: Any, gather: Callable[[Any], tuple[int, int]]) -> Bulk:
    """Make the function that reads much with few calls of the system.

    By itself OpenSSL asks the socket twice for each record. Here it is given what the socket has in
    one piece, as if that were its connection, until it has used it up: then it has nothing more of
    the piece, though perhaps the beginning of a record. What it would say meanwhile, an alert or
    the answer to a key update, is said after: there is room for it, since nothing is under way.
    """
    area = ffi.new("char[]", SIZE)
    view = memoryview(ffi.buffer(area))
    feed, release = _feeding(lib, area)

    def bulk(handle: Any, connected: socket.socket, take: Callable[[int], bool]) -> int:
        writer, meaning, isWanted = None, WANT_READ, True
        try:
            for _ in range(PIECES):
                size = _receive(connected, view)
                if not size:
                    break
                writer = feed(handle, size, writer)
                meaning = 0
                while not meaning:
                    count, meaning = gather(handle)
                    if count:
                        isWanted = take(count) and isWanted
                if meaning != WANT_READ or not isWanted or size < SIZE:
                    break
        finally:
            if writer is not None:
                size = release(handle, writer, connected)
                if size > 0 and not _sendAll(connected, view[:size]):
                    meaning = BROKEN
        return meaning

    return bulk


def _feeding(
    lib: Any, area: Any
) -> tuple[Callable[[Any, int, Any], Any], Callable[[Any, Any, socket.socket], int]]:
    """Make the functions that have a connection read an area of memory, and its socket again.

    The first gives where the connection writes meanwhile, which is None before the first piece. The
    second puts what was written there into the area, and tells how many bytes that is.
    """
    newPiece, setEnd = lib.BIO_new_mem_buf, lib.BIO_set_mem_eof_return
    newMemory, memory, readMemory = lib.BIO_new, lib.BIO_s_mem, lib.BIO_read
    setBoth, setSocket = lib.SSL_set_bio, lib.SSL_set_fd

    def feed(handle: Any, size: int, writer: Any) -> Any:
        reader = newPiece(area, size)
        setEnd(reader, -1)
        writer = writer or newMemory(memory())
        setBoth(handle, reader, writer)
        return writer

    def release(handle: Any, writer: Any, connected: socket.socket) -> int:
        size: int = readMemory(writer, area, SIZE)
        setSocket(handle, connected.fileno())
        return size

    return feed, release


def _receive(connected: socket.socket, into: memoryview) -> int:
    """Receive a piece; none when there is nothing, or never will be: the next read tells which."""
    try:
        return connected.recv_into(into)
    except OSError:
        return 0


def _sendAll(connected: socket.socket, data: memoryview) -> bool:
    """Send a few bytes; tells whether the socket has taken all of them."""
    try:
        return connected.send(data) == len(data)
    except OSError:
        return False


def _directWriting(
    lib: Any, ffi: Any, area: Any
) -> tuple[Callable[[Any, int], int], Callable[[Any, bytes | memoryview], int]]:
    """Make the functions that send what is in an area of memory, and other bytes."""
    sslWrite, meaning, fromBuffer = lib.SSL_write, _meaning(lib), ffi.from_buffer

    def put(handle: Any, count: int) -> int:
        done: int = sslWrite(handle, area, count if count < RECORD else RECORD)
        sent = done
        while done > 0 and sent < count:
            done = sslWrite(handle, area + sent, min(count - sent, RECORD))
            sent += done
        if done <= 0:
            meaning(handle, done)
            sent -= done
        return sent

    def send(handle: Any, data: bytes | memoryview) -> int:
        count: int = sslWrite(handle, fromBuffer(data), len(data))
        return count if count > 0 else meaning(handle, count)

    return put, send


def _meaning(lib: Any) -> Callable[[Any, int], int]:
    """Make the function that says why a call has moved nothing."""
    getError, clear = lib.SSL_get_error, lib.ERR_clear_error
    meanings = {
        lib.SSL_ERROR_WANT_READ: WANT_READ,
        lib.SSL_ERROR_WANT_WRITE: WANT_WRITE,
        lib.SSL_ERROR_ZERO_RETURN: ENDED,
    }

    def meaning(handle: Any, result: int) -> int:
        found = meanings.get(getError(handle, result), BROKEN)
        if found == BROKEN:
            clear()  # OpenSSL before 4.0 would take them for the next connection's
        return found

    return meaning


def public() -> Engine:
    """Make the engine that keeps to pyOpenSSL's public interface."""
    buffer = memoryview(bytearray(SIZE))

    def receive(connection: SSL.Connection, start: int) -> int:
        data = connection.recv(RECORD)
        buffer[start : start + len(data)] = data
        return len(data)

    def read(connection: SSL.Connection) -> int:
        return _attempt(receive, connection, 0)

    def gather(connection: SSL.Connection) -> tuple[int, int]:
        count = read(connection)
        if count <= 0:
            return 0, count
        while SMALL <= count < RECORD:
            more = _attempt(receive, connection, count)
            if more <= 0:
                return count, more
            count += more
        return count, 0

    def put(connection: SSL.Connection, count: int) -> int:
        sent = 0
        while sent < count:
            done = _attempt(connection.send, buffer[sent : min(count, sent + RECORD)])
            if done <= 0:
                break
            sent += done
        return sent

    def send(connection: SSL.Connection, data: bytes | memoryview) -> int:
        return _attempt(connection.send, data)

    rounds = _rounds(gather)
    return Engine("public", buffer, lambda each: each, read, gather, rounds, rounds, put, send)


def _attempt(step: Callable[..., int], *arguments: Any) -> int:
    """Take a step of pyOpenSSL's; its exceptions are what the engines give instead of a count."""
    try:
        return step(*arguments)
    except SSL.WantReadError:
        return WANT_READ
    except SSL.WantWriteError:
        return WANT_WRITE
    except SSL.ZeroReturnError:
        return ENDED
    except SSL.Error:
        return BROKEN


def choose(binding: Any = SSL) -> Engine:
    """Take the cheapest engine that this pyOpenSSL can have."""
    try:
        found = direct(binding)
        found.handle(SSL.Connection(SSL.Context(SSL.TLS_METHOD)))
    except _LACKING:
        return public()
    return found


engine = choose()
"""What this process uses."""


def setGroups(context: SSL.Context, groups: Sequence[str], binding: Any = SSL) -> bool | None:
    """Offer these key exchange groups, best first.

    pyOpenSSL has no public way to name more than one, or a hybrid one.

    :returns: whether OpenSSL knows all of them; None when it cannot be told.
    """
    names = ":".join(groups).encode()
    try:
        lib, handle = binding._lib, context._context
        known = lib.SSL_CTX_set1_curves_list(handle, names) == 1
        lib.ERR_clear_error()  # as with any connection's
    except _LACKING:
        return None
    return bool(known)


def expectName(context: SSL.Context, name: str, isAddress: bool, binding: Any = SSL) -> bool:
    """Have OpenSSL itself check that a peer's certificate is for a name (RFC 9525).

    The names are those of the certificate's extension alone, a wildcard stands for one whole label.

    :returns: whether it will; else it is still to be done.
    """
    if not name or name.startswith("."):
        return False  # to OpenSSL, any name and any name below
    try:
        expected = ipaddress.ip_address(name).packed if isAddress else name.encode("ascii")
    except ValueError:
        return False
    try:
        lib, handle = binding._lib, context._context
        flags = lib.X509_CHECK_FLAG_NEVER_CHECK_SUBJECT | lib.X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS
        parameters = lib.SSL_CTX_get0_param(handle)
        lib.X509_VERIFY_PARAM_set_hostflags(parameters, flags)
        expect = lib.X509_VERIFY_PARAM_set1_ip if isAddress else lib.X509_VERIFY_PARAM_set1_host
        taken = expect(parameters, expected, len(expected)) == 1
        lib.ERR_clear_error()
    except _LACKING:
        return False
    return bool(taken)
