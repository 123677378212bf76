"""Figures: what the runs come to. Medians, spreads, ratios, and whether a goal is met.

Pure arithmetic; knows proxies by their titles only.
"""

import statistics
from collections.abc import Iterable, Mapping, Sequence

import attrs

__all__ = ["OURS", "Figure", "Goal", "Section", "Spread", "Verdict", "judge"]

OURS = "mailproxy"
"""The title of what is compared with the others."""


@attrs.frozen
class Spread:
    """What several runs come to."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Of at least one run."""
        return cls(statistics.median(values), min(values), max(values))


@attrs.frozen
class Figure:
    """One row of a table.

    :ivar key: its name in the JSON file, unique in its section.
    :ivar title: its name in the table.
    :ivar cost: whether less of it is better, and the others' are to be compared with ours.
    :ivar runs: for each proxy what each run came to.
    """

    key: str
    title: str
    unit: str
    runs: Mapping[str, Sequence[float]]
    cost: bool = True

    @property
    def spreads(self) -> dict[str, Spread]:
        """What the runs of each proxy come to."""
        return {peer: Spread.of(values) for peer, values in self.runs.items() if values}

    def ratio(self, peer: str, ours: str = OURS) -> float | None:
        """How many times another's median ours is; None where either is missing."""
        spreads = self.spreads
        if ours not in spreads or peer not in spreads or not spreads[peer].median:
            return None
        return spreads[ours].median / spreads[peer].median


@attrs.frozen
class Section:
    """One table: figures that were measured in the same place.

    :ivar note: what has to be known to read it.
    :ivar failures: for each proxy how many runs went wrong, and were run again; who has none may
        be missing.
    """

    key: str
    title: str
    figures: Sequence[Figure]
    note: str = ""
    failures: Mapping[str, int] = attrs.field(factory=dict)


@attrs.frozen
class Goal:
    """What a ratio must not exceed, or, with `atLeast`, must reach.

    :ivar ours: whose figure is compared, and `peer` with whose.
    """

    section: str
    figure: str
    peer: str
    limit: float
    atLeast: bool = False
    ours: str = OURS

    def met(self, ratio: float) -> bool:
        """Whether a ratio is good enough."""
        return ratio >= self.limit if self.atLeast else ratio <= self.limit


@attrs.frozen
class Verdict:
    """A goal and what came of it."""

    goal: Goal
    title: str
    ratio: float
    met: bool


def judge(sections: Iterable[Section], goals: Iterable[Goal]) -> list[Verdict]:
    """Compare with the goals; one whose figures were not measured is left out."""
    known = {(each.key, figure.key): figure for each in sections for figure in each.figures}
    verdicts = []
    for goal in goals:
        figure = known.get((goal.section, goal.figure))
        ratio = None if figure is None else figure.ratio(goal.peer, goal.ours)
        if figure is not None and ratio is not None:
            verdicts.append(Verdict(goal, figure.title, ratio, goal.met(ratio)))
    return verdicts
