"""What stands behind the proxies: a real Dovecot, or the stand-in where that is in the way."""

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from benchmarks.peers.base import Server
from tests.integration.accounts import ALICE
from tests.integration.certificates import Authority
from tests.integration.dovecot import Dovecot, Options, Privacy
from tests.integration.messages import bigMessage
from tests.integration.network import freePort
from tests.integration.process import ChildServer

HERE = Path(__file__).parents[1]

# A process for each login would take more of the machine than all that is measured.
_REUSED = "service imap {\n  service_count = 0\n}\n"


def startDovecot(stack: ExitStack, authority: Authority, *, tls: bool, size: int) -> Server:
    """Start a Dovecot whose one account has one message.

    :param size: the message's bytes.
    """
    options = Options(privacy=Privacy.REQUIRED if tls else Privacy.NONE, extra=_REUSED)
    dovecot = Dovecot("server", authority, [ALICE], options)
    dovecot.deliver(ALICE.name, bigMessage(size))
    stack.enter_context(dovecot)
    return Server(dovecot.hostname, dovecot.imaps if tls else dovecot.imap, tls)


class StandIn(ChildServer):
    """The stand-in as a process of its own.

    :param tickets: whether TLS sessions can be resumed.
    """

    hostname = "stand-in.test"

    def __init__(self, authority: Authority, *, tls: bool, tickets: bool) -> None:
        super().__init__("stand-in")
        self._tls, self._tickets = tls, tickets
        self._files = authority.issue(self.hostname, "localhost", "127.0.0.1")
        self._port = freePort()

    def ports(self) -> Sequence[int]:
        """Its one port."""
        return [self._port]

    def command(self) -> Sequence[str]:
        """The module, on the interpreter that runs the benchmark."""
        files = [str(self._files.cert), str(self._files.key)] if self._tls else []
        flags = [] if self._tickets else ["--no-tickets"]
        command = [sys.executable, "-m", "benchmarks.standin", str(self._port), *files]
        return ["env", f"PYTHONPATH={HERE}", *command, *flags]

    @property
    def server(self) -> Server:
        """As a proxy is told of it."""
        return Server(self.hostname, self._port, self._tls)
