"""`mailproxy cutover`: one account or a file of them, several at a time.

Knows which accounts are meant, how many are under way, and how that is shown; must not know the
steps of a cut-over. Control-C begins no further account and lets those under way wind up: nobody
stays on hold.
"""

import sys
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar, cast

from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.python.failure import Failure

from mailproxy.cli.commands import Job, requireDestination
from mailproxy.cli.cutover import CutOver, Plan, Report, Result
from mailproxy.cli.output import Line, Progress, bad, counted, dim, good
from mailproxy.errors import BadUsage, CommandError, Unreachable

__all__ = ["Crew", "cutover", "readIdentifiers"]

T = TypeVar("T")


async def cutover(job: Job) -> int:
    """Move accounts to a destination: hold, write, invalidate, kick, wait, release, confirm.

    An account whose move fails before the release is put back where it was.
    """
    identifiers = _chosen(job.arguments.identifiers, job.arguments.from_file)
    destination = job.arguments.destination
    plan = Plan(destination, job.arguments.drain, job.arguments.wait)
    crew = Crew(job, plan, identifiers)
    try:
        await requireDestination(job.client, destination)
    except CommandError as error:
        return _tellNobodyMoved(job, crew, error)
    with job.output.progress(f"moving to {destination}", len(identifiers)) as progress:
        await crew.run(progress)
    _conclude(job, crew)
    if any(isinstance(report.fatal, Unreachable) for report in crew.reports):
        return 3
    return 0 if crew.isDone else 1


def _chosen(named: Sequence[str], file: str | None) -> list[str]:
    """Return the accounts of the command line and of the file, each once, in order."""
    found = [*named, *(readIdentifiers(file) if file else ())]
    if not found:
        raise BadUsage("no account: name some, or write --from-file FILE")
    return list(dict.fromkeys(found))


def readIdentifiers(file: str) -> list[str]:
    """Read identifiers, one a line; blank lines and those that begin with `#` are passed over.

    The mark that some editors put before the first line is none of it.

    :param file: a path; `-` is standard input.
    :raises BadUsage: when it cannot be read, or a line holds more than an identifier.
    """
    try:
        data = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
        lines = data.decode("utf-8-sig").splitlines()
    except OSError as error:
        raise BadUsage(f"cannot read {file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise BadUsage(f"{file}: is not UTF-8") from error
    return list(_identifiersOf(file, lines))


def _identifiersOf(file: str, lines: Iterable[str]) -> Iterator[str]:
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if len(words) > 1:
            raise BadUsage(f"{file}:{number}: holds more than an identifier")
        yield words[0]


class Crew:
    """Several cut-overs at a time, until all accounts are moved or somebody says stop.

    :ivar reports: what has become of those that were begun, in the order of their ends.
    :ivar waiting: those that were not begun.
    :ivar isStopped: whether no further one is begun.
    """

    def __init__(self, job: Job, plan: Plan, identifiers: Sequence[str]) -> None:
        self.reports: list[Report] = []
        self.waiting = deque(identifiers)
        self.isStopped = False
        self._job, self._plan = job, plan
        self._accounts: set[str] = set()

    @property
    def isDone(self) -> bool:
        """Whether every account is where it should be."""
        return not self.waiting and all(report.isDone for report in self.reports)

    async def run(self, progress: Progress) -> None:
        """Move the accounts.

        When this is cancelled no further one is begun, those under way wind up, and it returns as
        if nothing had happened: what was done is to be told all the same.
        """
        size = min(self._job.arguments.parallel, len(self.waiting))
        working: list[Deferred[None]] = [
            Deferred.fromCoroutine(self._work(progress)) for _ in range(size)
        ]
        everybody = DeferredList(working, consumeErrors=True)
        try:
            await _onlooker(everybody)
        except CancelledError:
            self.isStopped = True
            self._job.output.warn("stopping: accounts under way are put in order first")
        for succeeded, result in await everybody:
            if not succeeded:
                cast(Failure, result).raiseException()

    async def _work(self, progress: Progress) -> None:
        """Move one account after the other."""
        while self.waiting and not self.isStopped:
            identifier = self.waiting.popleft()
            client, clock = self._job.client, self._job.clock
            report = await CutOver(client, clock, self._plan, identifier, self).run()
            self.reports.append(report)
            self.isStopped = self.isStopped or report.fatal is not None
            progress.done(_tell(report, self._plan))

    def claim(self, account: str) -> bool:
        """Take an account, by its normalized identifier; false if it is taken: it has two names."""
        isFree = account not in self._accounts
        self._accounts.add(account)
        return isFree


def _onlooker(work: Deferred[T]) -> Deferred[None]:
    """Wait for work that is not to be cancelled when the wait is."""
    waiter: Deferred[None] = Deferred()

    def ended(result: T) -> T:
        if not waiter.called:
            waiter.callback(None)
        return result

    work.addCallback(ended)
    return waiter


def _tell(report: Report, plan: Plan) -> Line:
    """Say in a line what has become of an account."""
    idle = report.result in (Result.ALREADY, Result.REPEATED)
    mark = dim if idle else good if report.result is Result.MOVED else bad
    parts = [report.identifier, ": "]
    if report.origin is not None and not idle:
        parts.append(f"{report.origin} -> {report.destination}: ")
    details = [*report.problems]
    if report.result is Result.MOVED and not report.problems:
        details = [counted(report.kicked, "session") + " ended", _arrival(report, plan)]
    rest = "; ".join(filter(None, details))
    return Line.of(*parts, mark(report.result.value), f" ({rest})" if rest else "")


def _arrival(report: Report, plan: Plan) -> str:
    if report.arrived is not None:
        return f"next session there after {report.arrived:.1f} s"
    return "no new session yet" if plan.wait else ""


def _tellNobodyMoved(job: Job, crew: Crew, error: CommandError) -> int:
    """Say why no account was begun, and sum up; return the exit status."""
    status = 3 if isinstance(error, Unreachable) else 1
    if not job.output.asJSON:
        job.output.warn(str(error))
    _conclude(job, crew, {"error": str(error), "status": status})
    return status


def _conclude(job: Job, crew: Crew, trouble: Mapping[str, object] | None = None) -> None:
    """Sum up: in JSON with every report, else in a line if there is something to sum.

    :param trouble: why no account was begun, for JSON.
    """
    counts = Counter(report.result for report in crew.reports)
    facts = {
        "destination": job.arguments.destination,
        "done": crew.isDone,
        "counts": {result.value: counts[result] for result in Result},
        "not_tried": list(crew.waiting),
        "accounts": [report.asJSON() for report in crew.reports],
        **(trouble or {}),
    }
    said = [f"{counts[result]} {result.value}" for result in Result if counts[result]]
    if crew.waiting:
        said.append(f"{len(crew.waiting)} not tried")
    total = len(crew.reports) + len(crew.waiting)
    if job.output.asJSON or total > 1:
        job.output.give(facts, Line.of(f"{total} accounts: {', '.join(said)}"))
