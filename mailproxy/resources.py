"""What sessions of any kind are given, and what makes one of a connection.

Knows the parts that a session works with; must not know what a session does.
"""

from collections.abc import Callable, Coroutine, Mapping
from typing import Any
from typing import Protocol as Structural

import attrs
from twisted.internet.interfaces import IReactorTime

from mailproxy.dial import Dialer, Target
from mailproxy.http.rules import HTTPRules
from mailproxy.identity import IdentityRules
from mailproxy.metrics import Metrics
from mailproxy.registry import Registry
from mailproxy.routing import Router


@attrs.frozen
class Resources:
    """What sessions work with; a session keeps those that it began with.

    :ivar targets: endpoints by destination and protocol.
    :ivar authTimeout: seconds that a backend has to answer a login.
    :ivar bridgeIdle: seconds without a byte that end a bridge.
    :ivar passThrough: the destination of sessions without a login; empty where there are none.
    :ivar http: where requests go, and what they may cost.
    """

    clock: IReactorTime
    rules: IdentityRules
    router: Router
    dialer: Dialer
    targets: Mapping[tuple[str, str], Target]
    registry: Registry
    metrics: Metrics
    authTimeout: float
    bridgeIdle: float
    passThrough: str = ""
    http: HTTPRules = attrs.field(factory=HTTPRules)


@attrs.frozen
class Ingress:
    """Where a session came in.

    :ivar patience: seconds from accept to a complete login.
    :ivar now: gives what holds by now, where that counts for a connection that has begun before.
    """

    listener: str
    protocol: str
    patience: float
    now: Callable[[], Resources] = attrs.field(eq=False, repr=False)


class Story(Structural):
    """What a connection that was let in becomes."""

    def start(self, introduction: Coroutine[Any, Any, None]) -> object:
        """Begin."""


SessionKind = Callable[[Any, Ingress, Resources], Story]
"""Makes it of the client's leg, which is of the kind that the protocol's factory makes."""
