"""Who is measured, and how each is put in front of a server."""

import ssl
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import attrs

from benchmarks.figures import OURS
from benchmarks.peers.base import Peer, Place, Server
from benchmarks.peers.dovecot import DovecotProxy
from benchmarks.peers.haproxy import HAProxy
from benchmarks.peers.mailproxy import Mailproxy
from benchmarks.peers.nginx import Nginx
from benchmarks.peers.perdition import Perdition
from benchmarks.rounds import Runner
from benchmarks.work import Line
from tests.integration.certificates import Authority

__all__ = ["DIRECT", "Contender", "Effort", "Setting", "clientContext", "everybody", "lineUp"]

DIRECT = "direct"
"""The title of the way without a proxy."""


@attrs.frozen
class Contender:
    """One of those who are measured.

    :ivar make: makes it for a place.
    """

    title: str
    kind: type[Peer]
    make: Callable[[Place], Peer]


@attrs.frozen
class Effort:
    """How much is done.

    :ivar rounds: after one to warm up.
    :ivar logins: of one run; `messages` likewise.
    :ivar size: bytes of the big message; `total` of one run.
    :ivar seconds: for which HTTP requests are sent in one run.
    :ivar sessions: idle ones in mailproxy; `others` in the other proxies.
    :ivar lookups: identifiers that are looked up.
    :ivar soak: logins of one process.
    """

    rounds: int
    logins: int
    size: int
    total: int
    messages: int
    seconds: int
    sessions: int
    others: int
    lookups: int
    soak: int


@attrs.frozen
class Setting:
    """What a section is told."""

    effort: Effort
    contenders: Sequence[Contender]


def everybody(checkouts: Sequence[Path]) -> list[Contender]:
    """Those that are installed.

    :param checkouts: directories with other versions of mailproxy, to be measured beside this one.
    """
    ours = [Contender(OURS, Mailproxy, Mailproxy)]
    ours += [
        Contender(each.name, Mailproxy, partial(Mailproxy, checkout=each.resolve()))
        for each in checkouts
    ]
    kinds: list[type[Peer]] = [DovecotProxy, HAProxy, Perdition, Nginx]
    return ours + [Contender(each.title, each, each) for each in kinds if each.find() is not None]


def clientContext(authority: Authority, group: str) -> ssl.SSLContext:
    """What clients do TLS with: 1.3, and one way to exchange keys."""
    context = authority.clientContext()
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_ecdh_curve(group)
    return context


def lineUp(
    stack: ExitStack,
    contenders: Sequence[Contender],
    authority: Authority,
    server: Server,
    *,
    clientTLS: bool,
) -> list[Runner]:
    """Start everybody who can do the work in front of a server; last comes the direct line."""
    place = Place(authority, server, clientTLS)
    runners = []
    for each in contenders:
        if server.tls and not each.kind.backendTLS:
            continue
        peer = stack.enter_context(each.make(place))
        context = clientContext(authority, each.kind.group) if clientTLS else None
        runners.append(Runner(each.title, Line(peer.port, context), peer.pid))
    context = clientContext(authority, "X25519") if server.tls else None
    return [*runners, Runner(DIRECT, Line(server.port, context), None)]
