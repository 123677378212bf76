"""A stand-in for an IMAP server: takes any login and answers at once, for thousands of sessions.

Knows just enough IMAP for the loads and for the proxies' own dialogues. A real server has a process
for each session: it could neither hold so many nor stay out of the way of what is measured. Run by
itself: `python -m benchmarks.standin PORT [CERTIFICATE KEY]`.
"""

import gc
import resource
import socket
import ssl
import sys
from collections.abc import Generator

from benchmarks.traffic import Connection, Job, Script, Swarm

NO_TICKETS = "--no-tickets"
"""With this flag no TLS session can be resumed."""

CAPABILITIES = b"CAPABILITY IMAP4rev1 SASL-IR LITERAL+ ID ENABLE AUTH=PLAIN"

SIZE = 1_000_000
"""Bytes of every message."""

_MESSAGE = b"* 1 FETCH (BODY[] {%d}\r\n%b)\r\n" % (SIZE, b"x" * SIZE)


def session(connection: Connection) -> Script:
    """Serve one client until it leaves."""
    try:
        yield from connection.handshake()
        yield from connection.send(b"* OK [%b] ready\r\n" % CAPABILITIES)
        while True:
            yield from _serve(connection, (yield from _command(connection)))
    except (EOFError, OSError):
        pass  # the other side has gone, which is its right


def _command(connection: Connection) -> Generator[int, None, bytes]:
    """Read one command; its literals are dropped."""
    line = yield from connection.line()
    while line.endswith(b"}"):
        size = line[line.rindex(b"{") + 1 : -1]
        if not size.endswith(b"+"):
            yield from connection.send(b"+ go on\r\n")
        yield from connection.skip(int(size.removesuffix(b"+")))
        line = line[: line.rindex(b"{")] + (yield from connection.line())
    return line


def _serve(connection: Connection, command: bytes) -> Script:
    """Answer one command."""
    tag, _, rest = command.partition(b" ")
    verb, _, arguments = rest.upper().partition(b" ")
    answer = b"%b OK done\r\n" % tag
    if verb == b"CAPABILITY":
        answer = b"* %b\r\n%b" % (CAPABILITIES, answer)
    elif verb == b"FETCH":
        answer = _MESSAGE + answer
    elif verb == b"AUTHENTICATE" and b" " not in arguments:
        yield from connection.send(b"+ \r\n")
        yield from connection.line()
    elif verb == b"LOGOUT":
        answer = b"* BYE\r\n" + answer
    yield from connection.send(answer)
    if verb == b"LOGOUT":
        raise EOFError("logged out")


def main(arguments: list[str]) -> None:
    """Serve for ever."""
    port, *files = (each for each in arguments if each != NO_TICKETS)
    context = None
    if files:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*files)
        if NO_TICKETS in arguments:
            context.num_tickets = 0
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    gc.disable()  # sessions hold each other in no circle, and there are too many to look at

    def answer(accepted: socket.socket) -> Job:
        connection = Connection.of(accepted, context)
        return Job(connection, session(connection))

    Swarm().serve(socket.create_server(("127.0.0.1", int(port)), backlog=4096), answer)


if __name__ == "__main__":
    main(sys.argv[1:])
