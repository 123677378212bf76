"""The cut-over of one account, in the order that loses nobody's mail.

Hold the account's logins; write the new mapping; forget the old answer and see that the new one is
given; end the live sessions and wait until none is left elsewhere; release the logins; see where
the next session goes. Before the release nobody can have delivered or read anything on the new
destination by the new mapping, so until then every failure is answered by going back.

Knows one account and the calls; must not know what else is moved, or how it is shown.
"""

import enum
from typing import Protocol

import attrs
from twisted.internet.interfaces import IReactorTime

from mailproxy.cli.client import SILENT, Facts, ManagementClient
from mailproxy.errors import CallRefused, CommandError, NotDone
from mailproxy.registry import LONGEST_HOLD
from mailproxy.waiting import pause

__all__ = ["HOLD", "Company", "CutOver", "Plan", "Report", "Result", "Step"]

HOLD = int(LONGEST_HOLD)
"""Seconds that logins are held at most: if we are killed, the hold ends by itself after them."""

_BRIEFLY = 1.0
"""Seconds to wait for a session of an account that had none: only a held login comes so soon."""

_RELEASE_ATTEMPTS = 3
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 1.0
_REFUSED_WRITES = (400, 401, 404, 405, 429, 501)
"""Answers to a write after which nothing can have been written."""


class Result(enum.Enum):
    """What has become of an account."""

    MOVED = "moved"
    ALREADY = "already there"
    REPEATED = "named before"
    UNTOUCHED = "not moved"
    ROLLED_BACK = "rolled back"
    UNCLEAR = "unclear"


_DONE = (Result.MOVED, Result.ALREADY, Result.REPEATED)


class Step(enum.Enum):
    """What a cut-over was about to do."""

    LOOK_UP = "look up"
    HOLD = "hold"
    WRITE = "write"
    INVALIDATE = "invalidate"
    KICK = "kick"
    DRAIN = "wait for the old sessions"
    RELEASE = "release"
    CONFIRM = "confirm"


@attrs.frozen
class Plan:
    """What is to be done.

    :ivar drain: seconds that ended sessions have to leave.
    :ivar wait: seconds to wait for the next session; 0 means not to look for one.
    """

    destination: str
    drain: float
    wait: float


@attrs.frozen
class Report:
    """What has become of an account.

    :ivar origin: where it went before; None when that could not be found out.
    :ivar kicked: sessions that were ended.
    :ivar arrived: seconds from the release to the next session on the new destination; None when
        none came, or nobody looked.
    :ivar problems: what went wrong, step by step; one line each.
    :ivar fatal: whether the next account would meet the same problem.
    """

    identifier: str
    origin: str | None
    destination: str
    result: Result
    kicked: int
    arrived: float | None
    seconds: float
    problems: tuple[str, ...]
    fatal: CommandError | None

    @property
    def isDone(self) -> bool:
        """Whether the account is where it should be, and nothing is left to look at."""
        return self.result in _DONE and not self.problems

    def asJSON(self) -> dict[str, object]:
        """Return it for the answer to `--json`."""
        return {
            "identifier": self.identifier,
            "from": self.origin,
            "to": self.destination,
            "result": self.result.value,
            "kicked": self.kicked,
            "confirmed": self.arrived is not None,
            "arrived_after": None if self.arrived is None else round(self.arrived, 3),
            "seconds": round(self.seconds, 3),
            "problems": list(self.problems),
        }


class Company(Protocol):
    """The run that a cut-over is a part of."""

    @property
    def isStopped(self) -> bool:
        """Whether somebody has lost patience: asked before each step."""

    def claim(self, account: str) -> bool:
        """Take an account, by its normalized identifier; false if another one has taken it."""


class CutOver:
    """Moves one account; made for one run."""

    def __init__(
        self,
        client: ManagementClient,
        clock: IReactorTime,
        plan: Plan,
        identifier: str,
        company: Company,
    ) -> None:
        self._client, self._clock, self._plan = client, clock, plan
        self._identifier, self._company = identifier, company
        self._step = Step.LOOK_UP
        self._result = Result.UNTOUCHED
        self._old: Facts | None = None
        self._seen: set[str] = set()
        self._kicked = 0
        self._written = False
        self._arrived: float | None = None
        self._problems: list[str] = []
        self._fatal: CommandError | None = None

    async def run(self) -> Report:
        """Move the account; tells how that went and never raises a `CommandError`."""
        started = self._clock.seconds()
        try:
            if await self._isRepeated():
                self._result = Result.REPEATED
            elif await self._isThere():
                self._result = Result.ALREADY
            elif await self._move():
                await self._confirm()
        except CommandError as error:
            self._note(error)
        return Report(
            identifier=self._identifier,
            origin=None if self._old is None else str(self._old["destination"]),
            destination=self._plan.destination,
            result=self._result,
            kicked=self._kicked,
            arrived=self._arrived,
            seconds=self._clock.seconds() - started,
            problems=tuple(self._problems),
            fatal=self._fatal,
        )

    # The steps

    async def _isRepeated(self) -> bool:
        """Look the account up; whether it is moved already: two would undo each other's steps."""
        self._begin(Step.LOOK_UP)
        self._old = await self._client.mapping(self._identifier)
        return not self._company.claim(str(self._old["normalized"]))

    async def _isThere(self) -> bool:
        """See where the account is; whether nothing is left to do.

        An answer that was given without the store is nothing to come back to.
        """
        assert self._old is not None
        ground = str(self._old.get("ground", ""))
        if ground.startswith("store failed"):
            raise NotDone(f"the mapping store cannot tell where the account is ({ground})")
        return self._isRoutedBy(self._old) and not await self._maySessionsBeElsewhere()

    async def _maySessionsBeElsewhere(self) -> bool:
        """Look for them; a worker that cannot tell, since it hangs, is ended by the hold."""
        try:
            return bool(await self._sessionsElsewhere())
        except CallRefused as error:
            if error.status == SILENT:
                return True
            raise

    async def _move(self) -> bool:
        """Do what has to be done while the logins wait, and go back if it cannot be done."""
        try:
            await self._underHold()
        except CommandError as error:
            self._note(error)
            await self._goBack()
            return False
        finally:
            await self._release()
        self._result = Result.MOVED
        return True

    async def _underHold(self) -> None:
        client, identifier = self._client, self._identifier
        self._begin(Step.HOLD)
        await client.delay(identifier, HOLD)
        self._begin(Step.WRITE)
        await self._write()
        self._begin(Step.INVALIDATE)
        await client.invalidate(identifier)
        if not self._isRoutedBy(await client.mapping(identifier)):
            raise NotDone(f"the account is not routed to {self._plan.destination}")
        self._begin(Step.KICK)
        self._seen = {str(each["id"]) for each in await client.connections(identifier)}
        self._kicked = await client.kick(identifier)
        self._begin(Step.DRAIN)
        await self._drain()

    async def _write(self) -> None:
        """Write the mapping, and note whether it may have been written."""
        self._written = True
        try:
            await self._client.setMapping(self._identifier, self._plan.destination)
        except CallRefused as error:
            self._written = error.status not in _REFUSED_WRITES
            raise

    async def _drain(self) -> None:
        """Wait until no session is left elsewhere; one that was overlooked is ended, too."""
        deadline = self._clock.seconds() + self._plan.drain
        delay = _FIRST_PAUSE
        while left := await self._sessionsElsewhere():
            if self._clock.seconds() >= deadline:
                raise NotDone(f"sessions elsewhere that do not end: {len(left)}")
            await self._pause(delay)
            delay = min(2 * delay, _LONGEST_PAUSE)
            await self._client.kick(self._identifier)

    async def _confirm(self) -> None:
        """See where the next session goes; that none comes is no failure."""
        self._begin(Step.CONFIRM)
        released = self._clock.seconds()
        patience = self._plan.wait if self._kicked else min(self._plan.wait, _BRIEFLY)
        delay = _FIRST_PAUSE
        while self._clock.seconds() - released < patience:
            for session in await self._client.connections(self._identifier):
                if str(session["id"]) in self._seen:
                    continue
                if session["destination"] != self._plan.destination:
                    raise NotDone(f"a new session has gone to {session['destination']}")
                self._arrived = self._clock.seconds() - released
                return
            await self._pause(delay)
            delay = min(2 * delay, _LONGEST_PAUSE)

    # Going back

    async def _goBack(self) -> None:
        """Restore the mapping that was there; where nothing was written there is nothing to do."""
        if not self._written or self._old is None:
            return
        client, identifier = self._client, self._identifier
        try:
            if self._old["routed_to_default"]:
                await client.removeMapping(identifier)
            else:
                await client.setMapping(identifier, self._old["destination"])
            if await client.connections(identifier, self._plan.destination):
                await client.kick(identifier)
            self._result = Result.ROLLED_BACK
        except CommandError as error:
            self._problems.append(f"roll back: {error}")
            self._result = await self._whereItStands()

    async def _whereItStands(self) -> Result:
        """Look once more after neither write was taken: often the store has kept the old one."""
        assert self._old is not None
        try:
            found = await self._client.mapping(self._identifier)
        except CommandError:
            return Result.UNCLEAR
        keys = ("destination", "routed_to_default")
        if any(found[key] != self._old[key] for key in keys):
            return Result.UNCLEAR
        return Result.UNTOUCHED

    async def _release(self) -> None:
        """Let the logins go on, whatever happened; tried again, since somebody waits for it."""
        for attempt in range(1, _RELEASE_ATTEMPTS + 1):
            try:
                await self._client.delay(self._identifier, 0)
                return
            except CommandError as error:
                if attempt == _RELEASE_ATTEMPTS:
                    text = f"{error}; logins may wait for up to {HOLD} s"
                    self._problems.append(f"{Step.RELEASE.value}: {text}")
                else:
                    await pause(self._clock, _LONGEST_PAUSE)

    # Small parts

    def _begin(self, step: Step) -> None:
        """Go on to a step, unless somebody has lost patience."""
        self._step = step
        if self._company.isStopped:
            raise NotDone("interrupted")

    async def _pause(self, seconds: float) -> None:
        await pause(self._clock, seconds)
        self._begin(self._step)

    def _note(self, error: CommandError) -> None:
        """Keep what went wrong."""
        self._problems.append(f"{self._step.value}: {error}")
        if not isinstance(error, NotDone) or getattr(error, "status", 0) in (401, 429):
            self._fatal = error

    def _isRoutedBy(self, facts: Facts) -> bool:
        """Whether the account is mapped to the new destination, not only by default."""
        return (facts["destination"], facts["routed_to_default"]) == (self._plan.destination, False)

    async def _sessionsElsewhere(self) -> list[Facts]:
        sessions = await self._client.connections(self._identifier)
        return [each for each in sessions if each["destination"] != self._plan.destination]
