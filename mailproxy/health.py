"""Which destinations are down: a circuit breaker for each, fed by the verdicts of attempts.

Pure: it knows a clock, destinations by name and clients by address; no reactor and no socket.
Processes that serve the same destinations tell each other their news, so that all circuits are one.
"""

import enum
from collections.abc import Callable, Iterable
from typing import Protocol

import attrs

from mailproxy.errors import CircuitOpen, Stage
from mailproxy.logs import Logger

__all__ = [
    "PROBE_TURN",
    "Attempt",
    "CircuitState",
    "DestinationHealth",
    "Health",
    "HealthSettings",
    "Kind",
    "News",
]

_NO_FAILURE = frozenset({Stage.BREAKER, Stage.LOOP, Stage.LOCAL, Stage.UNSUPPORTED})
"""Stages at which we gave up by ourselves: they say nothing about the destination's health."""

_MOST_CLIENTS = 256
"""So many addresses are remembered of one streak, or `minClients` if that is more."""

PROBE_TURN = 0.1
"""Seconds by which one process probes after another: news of the first is there by then."""

_PROBE_PAUSE = 1.0
"""Seconds to wait that a refused client is told while a probe is under way."""


class Seconds(Protocol):
    """A clock."""

    def seconds(self) -> float:
        """Seconds since any fixed point in time."""


@attrs.frozen
class HealthSettings:
    """When a circuit opens and for how long.

    :ivar threshold: consecutive failures that open it; 0 = never.
    :ivar minClients: client addresses that must share in failures past the connection; 0 = any.
    :ivar cooldown: seconds of refusal before a probe is let through.
    """

    threshold: int = 5
    minClients: int = 2
    cooldown: float = 30.0


@attrs.frozen
class DestinationHealth:
    """What management shows of one destination.

    :ivar failureSources: distinct client addresses in the present streak of failures.
    :ivar hostLevelFailure: whether the streak holds a failure that needs no second witness.
    """

    destination: str
    consecutiveFailures: int
    failureSources: int
    hostLevelFailure: bool
    down: bool


class Kind(enum.Enum):
    """What there is news of."""

    FAILED = "failed"
    SUCCEEDED = "succeeded"
    PROBING = "probing"
    FREED = "probe abandoned"


@attrs.frozen
class News:
    """What another process should know of a destination.

    :ivar probe: whether it comes of the one attempt that an open circuit lets through.
    :ivar stage: at which an attempt failed.
    :ivar client: for whom it failed.
    """

    destination: str
    kind: Kind
    probe: bool = True
    stage: Stage | None = None
    client: str = ""


@attrs.frozen
class CircuitState:
    """All that is known of one destination, for a process that begins.

    :ivar open: seconds since the circuit was opened; None while it is closed.
    :ivar probed: whether a probe is under way.
    """

    destination: str
    failures: int
    clients: tuple[str, ...]
    hostLevel: bool
    open: float | None
    probed: bool


def _keep(news: News) -> None:
    """Tell nobody: there is no other process."""


class _Circuit:
    """The state of one destination.

    An *era* ends when the circuit opens and when an operator resets it. A verdict counts only in
    the era that admitted its attempt: what was under way before says nothing about what is now.

    :ivar openedAt: None while closed.
    :ivar probe: the one attempt admitted since the cool-down ended, until its verdict.
    :ivar probedElsewhere: until when another process is believed to be at it.
    """

    def __init__(self) -> None:
        self.era = 0
        self.failures = 0
        self.clients: set[str] = set()
        self.hostLevel = False
        self.openedAt: float | None = None
        self.probe: Attempt | None = None
        self.probedElsewhere = 0.0

    def isProbed(self, now: float) -> bool:
        """Whether a probe is under way, of ours or of another process."""
        return self.probe is not None or self.probedElsewhere > now

    def open(self, now: float) -> None:
        """Refuse attempts from now on; the streak is kept for the report."""
        self.era += 1
        self.openedAt = now
        self.probe = None
        self.probedElsewhere = 0.0

    def close(self) -> None:
        """Forget the streak and admit attempts."""
        self.failures = 0
        self.clients.clear()
        self.hostLevel = False
        self.openedAt = None
        self.probe = None
        self.probedElsewhere = 0.0


class Attempt:
    """One admitted attempt to use a destination; its owner owes it exactly one verdict.

    Only the first verdict counts: `abandoned` in a `finally` clause is always safe, and needed,
    since a probe without a verdict keeps everybody else out.
    """

    def __init__(self, health: "Health", destination: str, era: int) -> None:
        self._health: Health | None = health
        self._destination = destination
        self._era = era

    def succeeded(self) -> None:
        """The destination answered as it should (a refused login is such an answer)."""
        health = self._settle()
        if health is not None:
            health._succeeded(self._destination)

    def failed(self, stage: Stage, client: str) -> None:
        """The destination could not be used.

        :param client: the address of the client without its port.
        """
        health = self._settle()
        if health is not None and stage not in _NO_FAILURE:
            health._failed(self._destination, stage, client)

    def reached(self) -> None:
        """The host has taken our call, and no more is known: that ends a streak of vain calls."""
        health = self._settle()
        if health is not None:
            health._reached(self._destination)

    def connected(self) -> None:
        """The host has taken our call; a verdict on what it does then is still owed."""
        health = self._health
        if health is not None and health._circuit(self._destination).era == self._era:
            health._reached(self._destination)

    def abandoned(self) -> None:
        """There is no verdict, as when the client left; a probe's place is free again."""
        self._settle()

    def _settle(self) -> "Health | None":
        """Take the attempt out of the books; None when its verdict comes too late to count."""
        health, self._health = self._health, None
        if health is None:
            return None
        circuit = health._circuit(self._destination)
        if circuit.probe is self:
            circuit.probe = None
            health.tell(News(self._destination, Kind.FREED))
        return health if circuit.era == self._era else None


class Health:
    """The circuit breakers of all destinations.

    :param turn: seconds that this process waits longer than the cooldown before it sends a probe.
    :ivar settings: may be replaced at any time; what is known of the destinations stays.
    :ivar tell: hears what other processes should know.
    """

    log = Logger()

    def __init__(self, clock: Seconds, settings: HealthSettings, turn: float = 0.0) -> None:
        self.settings, self._turn = settings, turn
        self.tell: Callable[[News], None] = _keep
        self._clock = clock
        self._circuits: dict[str, _Circuit] = {}

    def admit(self, destination: str) -> Attempt:
        """Ask leave to use a destination.

        :raises CircuitOpen: it is down, and this attempt is not the probe.
        """
        circuit = self._circuit(destination)
        if circuit.openedAt is not None and self.settings.threshold == 0:
            self.reset(destination)
        attempt = Attempt(self, destination, circuit.era)
        if circuit.openedAt is None:
            return attempt
        wait = circuit.openedAt + self.settings.cooldown + self._turn - self._clock.seconds()
        if wait > 0:
            raise CircuitOpen(destination, wait)
        if circuit.isProbed(self._clock.seconds()):
            raise CircuitOpen(destination, _PROBE_PAUSE)
        circuit.probe = attempt
        self.tell(News(destination, Kind.PROBING))
        return attempt

    def report(self, destinations: Iterable[str]) -> list[DestinationHealth]:
        """Tell the state of these destinations, in their order."""
        return [self._reportOne(destination) for destination in destinations]

    def reset(self, destination: str) -> None:
        """Close the circuit and forget every failure, those under way included."""
        circuit = self._circuit(destination)
        circuit.era += 1
        circuit.close()

    def _reportOne(self, destination: str) -> DestinationHealth:
        circuit = self._circuits.get(destination) or _Circuit()
        return DestinationHealth(
            destination=destination,
            consecutiveFailures=circuit.failures,
            failureSources=len(circuit.clients),
            hostLevelFailure=circuit.hostLevel,
            down=circuit.openedAt is not None and self.settings.threshold > 0,
        )

    def _circuit(self, destination: str) -> _Circuit:
        return self._circuits.setdefault(destination, _Circuit())

    def _succeeded(self, destination: str) -> None:
        """Count a success: it ends a streak, and a circuit's refusals if it was the probe."""
        circuit = self._circuit(destination)
        wasOpen = circuit.openedAt is not None
        if wasOpen:
            self.log.info("destination {destination} is up again", destination=destination)
        if wasOpen or circuit.failures:
            self.tell(News(destination, Kind.SUCCEEDED, wasOpen))
        circuit.close()

    def _reached(self, destination: str) -> None:
        """Take back what was held against the host, but nothing that happened behind its door."""
        if self._circuit(destination).hostLevel:
            self._succeeded(destination)

    def _failed(self, destination: str, stage: Stage, client: str) -> None:
        """Count a failure, and open the circuit if it was the probe or one too many."""
        circuit = self._circuit(destination)
        self.tell(News(destination, Kind.FAILED, circuit.openedAt is not None, stage, client))
        if self._count(circuit, stage, client):
            self.log.warn(
                "destination {destination} is down after {failures} failures, last at: {stage}",
                destination=destination,
                failures=circuit.failures,
                stage=stage.value,
            )

    def _count(self, circuit: _Circuit, stage: Stage, client: str) -> bool:
        """Enter a failure; tells whether it has opened the circuit."""
        circuit.failures += 1
        circuit.hostLevel = circuit.hostLevel or not stage.reachesHost
        if len(circuit.clients) < max(_MOST_CLIENTS, self.settings.minClients):
            circuit.clients.add(client)
        opens = circuit.openedAt is not None or self._isTooMuch(circuit)
        if opens:
            circuit.open(self._clock.seconds())
        return opens

    def _isTooMuch(self, circuit: _Circuit) -> bool:
        """Whether a closed circuit's streak is long enough and not one client's own doing."""
        settings = self.settings
        if settings.threshold == 0 or circuit.failures < settings.threshold:
            return False
        return circuit.hostLevel or len(circuit.clients) >= settings.minClients

    # Other processes

    def hear(self, news: News) -> None:
        """Take another process's news as if it had happened here.

        Of an open circuit only the probe's verdict counts, here as there.
        """
        circuit = self._circuit(news.destination)
        isOpen = circuit.openedAt is not None
        if news.kind is Kind.PROBING:
            circuit.probedElsewhere = self._clock.seconds() + self.settings.cooldown
        elif news.kind is Kind.FREED:
            circuit.probedElsewhere = 0.0
        elif isOpen and not news.probe:
            return
        elif news.kind is Kind.SUCCEEDED:
            circuit.close()
        elif news.stage is not None:
            self._count(circuit, news.stage, news.client)

    def export(self) -> list[CircuitState]:
        """Tell all that is known, for a process that begins."""
        now = self._clock.seconds()
        return [
            CircuitState(
                destination,
                circuit.failures,
                tuple(circuit.clients),
                circuit.hostLevel,
                None if circuit.openedAt is None else now - circuit.openedAt,
                circuit.isProbed(now),
            )
            for destination, circuit in self._circuits.items()
        ]

    def restore(self, states: Iterable[CircuitState]) -> None:
        """Begin with what another process knows."""
        now = self._clock.seconds()
        for state in states:
            circuit = self._circuits[state.destination] = _Circuit()
            circuit.failures, circuit.hostLevel = state.failures, state.hostLevel
            circuit.clients.update(state.clients)
            if state.open is not None:
                circuit.openedAt = now - state.open
            if state.probed:
                circuit.probedElsewhere = now + self.settings.cooldown
