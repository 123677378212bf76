"""All worker processes: kept running, asked together, ended together.

Knows handles, when a worker is started again and what is done when one is away; must not know what
a question means.
"""

from collections.abc import Awaitable, Callable, Container, Mapping, Sequence
from typing import Any

import attrs
from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList, fail, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import LoopingCall
from twisted.python.failure import Failure

from mailproxy.errors import ConfigError, MailProxyError, PeerGone, Unanswered
from mailproxy.logs import Logger
from mailproxy.workers.handle import Handle, Hooks, State
from mailproxy.workers.turns import Turns

__all__ = ["ANSWER_PATIENCE", "START_PATIENCE", "Fleet", "Plan"]

ANSWER_PATIENCE = 5.0
"""Seconds that a worker has for an answer that needs no disk and no store."""

START_PATIENCE = 120.0
"""Seconds until a worker must serve: a mapping file of millions of lines takes a while."""

PING_INTERVAL = 5.0
WARN_AFTER, KILL_AFTER = 1, 12
"""Pings without an answer after which a worker is warned of, and taken for dead."""

SOUND = 60.0
"""Seconds that a worker must have lived for its end to count as the first one again."""

PAUSES = (0.1, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
"""Seconds before a worker is started again, after the first, second ... early end in a row."""

LAST_PATIENCE = 10.0
"""Seconds beyond the grace time after which workers that still run are killed."""


@attrs.frozen
class Plan:
    """How a fleet is manned.

    :ivar count: how many workers.
    :ivar spawn: starts the process of a handle.
    :ivar begin: hands a worker what it begins with; fails with ConfigError.
    :ivar introduce: brings a worker up to what has happened since, just before it serves.
    """

    count: int
    spawn: Callable[[Handle], None]
    begin: Callable[[Handle], Awaitable[None]]
    introduce: Callable[[Handle], Awaitable[None]]


class Fleet(Service):
    """Starts workers, and starts them again.

    :ivar turns: changes that must reach all workers take turns with the start of one.
    :ivar ready: fires when all serve for the first time; fails when one cannot.
    :ivar restarts: how many workers have been started anew so far.
    :ivar heard: called with a handle and its counts when it has answered a ping.
    """

    log = Logger()

    def __init__(self, clock: IReactorTime, plan: Plan, hooks: Hooks, grace: float) -> None:
        """Begin.

        :param grace: seconds that workers have to drain; may be changed.
        """
        self._clock, self._plan, self.grace = clock, plan, grace
        self._hooks = attrs.evolve(hooks, ended=self._ended)
        self._atEnd = hooks.ended
        self.turns = Turns()
        self.restarts = 0
        self.heard: Callable[[Handle, Any], None] = lambda handle, counts: None
        self._handles: dict[int, Handle] = {}
        self._failures: dict[int, int] = dict.fromkeys(range(plan.count), 0)
        self._timers: dict[int, IDelayedCall] = {}
        self._begun = False
        self._failure: Failure | None = None
        self._waiters: list[Deferred[None]] = []
        self._pings = LoopingCall(self._ping)
        self._pings.clock = clock

    # Who is there

    @property
    def count(self) -> int:
        """How many seats there are."""
        return self._plan.count

    @property
    def serving(self) -> list[Handle]:
        """The workers that serve, in the order of their seats."""
        found = (self._handles[number] for number in sorted(self._handles))
        return [each for each in found if each.state is State.SERVING]

    @property
    def away(self) -> list[int]:
        """The seats of those that do not."""
        return sorted(set(range(self._plan.count)) - {each.number for each in self.serving})

    def report(self, answered: Container[Handle]) -> list[Mapping[str, object]]:
        """Tell of each worker, in the words of the API.

        :param answered: those that serve and have just answered.
        """
        return [self._reportOne(number, answered) for number in range(self._plan.count)]

    def _reportOne(self, number: int, answered: Container[Handle]) -> Mapping[str, object]:
        handle = self._handles.get(number)
        if handle is None or handle.state is State.ENDED:
            return {"worker": number + 1, "pid": None, "state": State.WAITING.value, "since": None}
        isSilent = handle.state is State.SERVING and handle not in answered
        state = State.SILENT if isSilent else handle.state
        facts = {"pid": handle.pid, "state": state.value, "since": handle.since}
        return {"worker": number + 1, **facts}

    def ready(self) -> Deferred[None]:
        """Wait until all workers serve for the first time; fails when one cannot."""
        if self._begun:
            return succeed(None)
        if self._failure is not None:
            return fail(self._failure)
        waiter: Deferred[None] = Deferred()
        self._waiters.append(waiter)
        return waiter

    # Asking

    async def askAll(
        self, method: str, *arguments: Any, patience: float = ANSWER_PATIENCE
    ) -> list[Any]:
        """Ask every worker as `askEach` does; only the answers."""
        found = await self.askEach(method, *arguments, patience=patience)
        return [answer for _, answer in found]

    async def askEach(
        self, method: str, *arguments: Any, patience: float = ANSWER_PATIENCE
    ) -> list[tuple[Handle, Any]]:
        """Ask every worker that serves; one that ends meanwhile is left out.

        :raises Unanswered: naming who has not answered; or when nobody serves.
        :raises MailProxyError: the first error that is answered.
        """
        return await self._answers(lambda each: each.ask(patience, method, *arguments))

    async def askThoseAwake(self, method: str, *arguments: Any) -> list[tuple[Handle, Any]]:
        """Ask every worker as `askEach` does, but leave out those that do not answer.

        :raises Unanswered: when nobody answers.
        """
        ask = lambda each: each.ask(ANSWER_PATIENCE, method, *arguments)  # noqa: E731
        return await self._answers(ask, areAllNeeded=False)

    async def reachAll(self, method: str, *arguments: Any) -> list[Any]:
        """Have every worker do something that no other may miss; tells what they answer.

        One that shows no life meanwhile is killed, and left out like one that ends. Fails as
        `askEach`.
        """
        found = await self._answers(lambda each: each.watch(self._long(each, method, arguments)))
        return [answer for _, answer in found]

    def _long(self, handle: Handle, method: str, arguments: tuple[Any, ...]) -> Deferred[Any]:
        return handle.ask(START_PATIENCE, method, *arguments)

    async def _answers(
        self, ask: Callable[[Handle], Deferred[Any]], *, areAllNeeded: bool = True
    ) -> list[tuple[Handle, Any]]:
        handles = self.serving
        results = await DeferredList([ask(each) for each in handles], consumeErrors=True)
        failures = [result for done, result in results if not done]
        answers = [
            (handle, result)
            for handle, (done, result) in zip(handles, results, strict=True)
            if done
        ]
        silent = [each.getErrorMessage() for each in failures if each.check(Unanswered)]
        if silent and (areAllNeeded or not answers):
            raise Unanswered("; ".join(silent))
        for failure in failures:
            if failure.check(PeerGone, Unanswered) is None:
                failure.raiseException()
        if not answers:
            raise Unanswered("no worker serves at the moment")
        return answers

    async def askOne(
        self, handles: Sequence[Handle], patience: float, method: str, *arguments: Any
    ) -> Any:
        """Ask the first of these that is still there.

        :raises Unanswered: when it does not answer, or nobody serves.
        """
        ask = lambda each: each.ask(patience, method, *arguments)  # noqa: E731
        return await self._firstAnswer(handles, ask)

    async def reachOne(self, method: str, *arguments: Any) -> Any:
        """Have one worker do something, whichever; one that shows no life meanwhile is killed.

        :raises Unanswered: when nobody serves, or it does not come to an end with it.
        """
        ask = lambda each: each.watch(self._long(each, method, arguments))  # noqa: E731
        return await self._firstAnswer(self.serving, ask)

    async def _firstAnswer(
        self, handles: Sequence[Handle], ask: Callable[[Handle], Deferred[Any]]
    ) -> Any:
        for handle in handles:
            try:
                return await ask(handle)
            except PeerGone:
                continue
        raise Unanswered("no worker serves at the moment")

    # Life

    def startService(self) -> None:
        """Start all workers."""
        super().startService()
        self._pings.start(PING_INTERVAL, now=False)
        started = [Deferred.fromCoroutine(self._start(n)) for n in range(self._plan.count)]
        DeferredList(started, consumeErrors=True).addCallback(self._allStarted)

    def _allStarted(self, results: list[tuple[bool, Any]]) -> None:
        if not self.running:
            return  # it was ended before it had begun
        failures = [result for done, result in results if not done]
        self._begun, self._failure = not failures, failures[0] if failures else None
        for handle in list(self._handles.values()) if self._begun else ():
            if handle.state is State.ENDED:
                self._replace(handle)
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.callback(self._failure)

    async def _start(self, number: int) -> None:
        """Start one worker, and let it serve."""
        handle = self._handles[number] = Handle(number, self._clock, self._hooks)
        try:
            self._plan.spawn(handle)
        except OSError as error:
            del self._handles[number]
            raise MailProxyError(
                f"{handle.name} could not be started: {error}; the proxy's user must be able to "
                "run this program, or write server.threads = 1"
            ) from error
        try:
            await self._plan.begin(handle)
            await self.turns.alone(lambda: self._admit(handle))
        except PeerGone:
            raise MailProxyError(f"{handle.name} has ended before it served") from None
        except BaseException:
            handle.kill()
            raise

    async def _admit(self, handle: Handle) -> None:
        """Let it serve its own clients, and those whose worker is away."""
        await self._plan.introduce(handle)
        away = [seat for seat in self.away if seat != handle.number] if self._begun else []
        await handle.ask(ANSWER_PATIENCE, "serve", [handle.number, *away])
        handle.state = State.SERVING
        self._tellOthers("rest", handle.number)
        self.log.info(
            "worker {worker} serves (process {pid})", worker=handle.number + 1, pid=handle.pid
        )

    def _tellOthers(self, what: str, seat: int) -> None:
        """Have the clients of a seat accepted by others, or no longer."""
        for each in self.serving:
            if each.number != seat:
                each.ask(ANSWER_PATIENCE, what, [seat]).addErrback(self._passOver)

    def _passOver(self, failure: Failure) -> None:
        """Let somebody who is gone or silent be; the next ping will tell."""
        failure.trap(PeerGone, Unanswered)

    def _ended(self, handle: Handle, reason: str) -> None:
        """Hear of the end of a process."""
        self._atEnd(handle, reason)
        if not self.running:
            return
        self.log.warn("worker {worker} is gone: {reason}", worker=handle.number + 1, reason=reason)
        if self._begun:
            self._replace(handle)

    def _replace(self, handle: Handle) -> None:
        """Have another in its place, and its clients accepted until then."""
        self._tellOthers("serve", handle.number)
        self._later(handle.number, handle.since)

    def _later(self, number: int, since: float) -> None:
        """Start another in the place of one, the later the more often it has failed.

        :param since: when that one was started, in the clock's seconds.
        """
        if self._clock.seconds() - since >= SOUND:
            self._failures[number] = 0
        pause = PAUSES[min(self._failures[number], len(PAUSES) - 1)]
        self._failures[number] += 1
        self._timers[number] = self._clock.callLater(pause, self._again, number)

    def _again(self, number: int) -> None:
        del self._timers[number]
        self.restarts += 1
        Deferred.fromCoroutine(self._start(number)).addErrback(self._notStarted, number)

    def _notStarted(self, failure: Failure, number: int) -> None:
        """Say why; a process that has run ends now, and is heard of by its end."""
        if not self.running:
            return  # it was ended: that is why
        error = failure.value
        if isinstance(error, ConfigError):
            for problem in error.problems:
                self.log.warn("worker {worker}: {problem}", worker=number + 1, problem=problem)
        elif isinstance(error, MailProxyError):
            self.log.warn("worker {worker} does not start: {error}", worker=number + 1, error=error)
        else:
            self.log.failure("worker {worker} does not start", failure, worker=number + 1)
        if number not in self._handles:
            self._later(number, self._clock.seconds())

    def _ping(self) -> None:
        """Look whether all are alive; one that answers nothing for a minute is of no use.

        The clients that come to it need not wait so long: others accept them in its stead.
        """
        for each in self.serving:
            each.silent += 1
            if each.silent > KILL_AFTER:
                each.giveUp()
                continue
            if each.silent > WARN_AFTER:
                self._relieve(each)
            each.ask(PING_INTERVAL, "ping").addCallbacks(self._alive, self._passOver, (each,))

    def _relieve(self, handle: Handle) -> None:
        """Have others accept the clients of one that does not answer."""
        if handle.silent == WARN_AFTER + 1:
            text = "worker {worker} does not answer; others accept its clients meanwhile"
            self.log.warn(text, worker=handle.number + 1)
        self._tellOthers("serve", handle.number)

    def _alive(self, counts: Any, handle: Handle) -> None:
        silent, handle.silent = handle.silent, 0
        if silent > WARN_AFTER:
            self.log.info("worker {worker} answers again", worker=handle.number + 1)
            self._tellOthers("rest", handle.number)
        self.heard(handle, counts)

    def stopService(self) -> Deferred[None]:
        """Let all workers drain, and wait for their ends."""
        super().stopService()
        self._pings.stop()
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        return Deferred.fromCoroutine(self._drain())

    async def _drain(self) -> None:
        left = [each for each in self._handles.values() if each.state is not State.ENDED]
        for each in left:
            if each.state is State.SERVING:
                each.ask(ANSWER_PATIENCE, "end").addErrback(self._passOver)
            else:
                each.kill()
        last = self._clock.callLater(self.grace + LAST_PATIENCE, self._killAll)
        await DeferredList([each.watch(each.gone()) for each in left])
        if last.active():
            last.cancel()

    def _killAll(self) -> None:
        for each in self._handles.values():
            if each.state is not State.ENDED:
                self.log.error("worker {worker} does not end: it is killed", worker=each.number + 1)
                each.kill()
