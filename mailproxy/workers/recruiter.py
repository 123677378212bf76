"""How a worker comes into a fleet: spawned, handed what it begins with, brought up to the others.

Knows what a worker must have before it serves; must not know when one is needed.
"""

from collections.abc import Callable, Mapping

from mailproxy.identity import redactionKey
from mailproxy.origin import Address
from mailproxy.workers.adopter import FleetAdopter
from mailproxy.workers.fleet import START_PATIENCE, Plan
from mailproxy.workers.handle import CONTROL, Handle
from mailproxy.workers.setup import Given, Setup
from mailproxy.workers.shared import Shared
from mailproxy.workers.sockets import HeldSockets

__all__ = ["Recruiter"]


class Recruiter:
    """Mans the seats of a fleet.

    :param spawn: starts the process of a handle, with descriptors: its own -> ours.
    :ivar adopter: has what a worker begins with.
    :ivar bound: the addresses that are our own.
    """

    adopter: FleetAdopter
    bound: set[Address]

    def __init__(
        self,
        held: HeldSockets,
        shared: Shared,
        count: int,
        spawn: Callable[[Handle, Mapping[int, int]], None],
    ) -> None:
        self._held, self._shared, self._count, self._spawn = held, shared, count, spawn
        self._begun: dict[Handle, tuple[Given, str]] = {}

    def plan(self) -> Plan:
        """Say it in a fleet's words."""
        return Plan(self._count, self._start, self._begin, self._introduce)

    def _start(self, handle: Handle) -> None:
        _, ours = self._held.inherited(CONTROL + 1)
        self._spawn(handle, ours)

    async def _begin(self, handle: Handle) -> None:
        given = self.adopter.given
        sockets, _ = self._held.inherited(CONTROL + 1)
        observer = self._shared.observer
        setup = Setup(
            number=handle.number,
            of=self._count,
            given=given,
            sockets=sockets,
            bound=frozenset(self.bound),
            redaction=redactionKey(),
            style=None if observer is None else observer.style,
        )
        self._begun[handle] = given, await handle.hand(START_PATIENCE, setup)

    async def _introduce(self, handle: Handle) -> None:
        given, digest = self._begun.pop(handle)
        await self.adopter.agree(handle, given, digest)
        await self._shared.introduce(handle)
