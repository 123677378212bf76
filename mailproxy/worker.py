"""`python -m mailproxy.worker`: a worker process, started by its parent and by nobody else.

With `tap` and `cli` the only place that names the reactor. Signals are left to the parent: those of
a terminal reach every process of its group.
"""

import os
import signal
import socket
from typing import Any, cast

from twisted.internet import reactor as globalReactor
from twisted.internet.defer import Deferred
from twisted.logger import globalLogBeginner

from mailproxy.eventloop import lighten
from mailproxy.garbage import settle
from mailproxy.served import PROTOCOLS
from mailproxy.sources import ProxyReactor, SourceMaker, makeThread
from mailproxy.workers.handle import CONTROL, connect
from mailproxy.workers.logs import LogRelay
from mailproxy.workers.worker import Parts, Worker


def main() -> None:
    """Serve until the parent says otherwise, or is gone."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    reactor = cast(ProxyReactor, globalReactor)
    lighten(reactor)
    reactor.callWhenRunning(settle)
    worker = makeWorker(reactor)
    relay = LogRelay(worker.peer.say, reactor, reactor.callFromThread)
    worker.written = relay.write
    globalLogBeginner.beginLoggingTo([relay], redirectStandardIO=False)
    connect(reactor, socket.socket(fileno=CONTROL), worker.peer)
    cast(Any, worker.peer.transport).registerProducer(relay, True)
    reactor.addSystemEventTrigger("before", "shutdown", lambda: _end(worker, relay))
    reactor.run(installSignalHandlers=False)  # type: ignore[call-arg]


def _end(worker: Worker, relay: LogRelay) -> Deferred[None]:
    """End everything, the log last."""

    async def end() -> None:
        await worker.stop()
        relay.flush()
        await worker.goodbye()

    return Deferred.fromCoroutine(end())


def makeWorker(reactor: ProxyReactor) -> Worker:
    """Put a worker together."""
    inThread = makeThread(reactor)
    return Worker(
        Parts(
            reactor=reactor,
            protocols=PROTOCOLS,
            stores=lambda warns: SourceMaker(reactor, inThread, warns),
            inThread=inThread,
            stop=reactor.stop,
            abort=lambda: os._exit(0),
        )
    )


if __name__ == "__main__":
    main()
