"""What the benchmark tells: tables for a terminal, a JSON file with every run.

Knows figures; must not know how they came about.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import attrs

from benchmarks.figures import OURS, Figure, Section, Verdict

__all__ = ["asJSON", "asText", "goalsText"]

COMPARED = ("Dovecot", "HAProxy", "nginx")
"""The proxies whose costs ours are divided by in the tables."""

_TITLE, _COLUMN = 34, 20


def asText(section: Section) -> str:
    """Set a section's figures side by side: medians, and in brackets the lowest and highest run."""
    peers = list(dict.fromkeys(peer for figure in section.figures for peer in figure.runs))
    compared = [peer for peer in COMPARED if peer in peers] if OURS in peers else []
    head = [f"{peer:>{_COLUMN}}" for peer in peers] + [f"{f'to {peer}':>11}" for peer in compared]
    lines = [section.title, f"{'':{_TITLE}}{''.join(head)}"]
    lines += [_row(figure, peers, compared) for figure in section.figures]
    lines += filter(None, [section.note, _failures(section)])
    return "\n".join(lines)


def _failures(section: Section) -> str:
    """Say whose runs went wrong; nothing where none did."""
    told = ", ".join(f"{peer} {count}" for peer, count in section.failures.items() if count)
    return f"Runs that went wrong, and were run again: {told}" if told else ""


def _row(figure: Figure, peers: Sequence[str], compared: Sequence[str]) -> str:
    spreads = figure.spreads
    cells = [f"{figure.title}, {figure.unit}".ljust(_TITLE)]
    for peer in peers:
        text = "-"
        if peer in spreads:
            found = spreads[peer]
            text = f"{number(found.median)} [{number(found.low)} {number(found.high)}]"
        cells.append(f"{text:>{_COLUMN}}")
    for peer in compared:
        ratio = figure.ratio(peer) if figure.cost else None
        cells.append(f"{'' if ratio is None else f'{ratio:.2f}':>11}")
    return "".join(cells).rstrip()


def number(value: float) -> str:
    """Write three digits, or all that stand before the point."""
    size = abs(value)
    return f"{value:.{0 if size >= 100 else 1 if size >= 10 else 2}f}"


def goalsText(verdicts: Iterable[Verdict]) -> str:
    """Tell which goals are met."""
    lines = []
    for each in verdicts:
        goal = each.goal
        limit = f"{'at least' if goal.atLeast else 'at most'} {goal.limit:.2f}"
        compared = f"{goal.ours} to {goal.peer}"
        lines.append(
            f"{goal.section + ': ' + each.title:{_TITLE + _COLUMN}}{compared:28}"
            f"{each.ratio:6.2f}  {limit:16}{'met' if each.met else 'MISSED'}"
        )
    return "\n".join(["Goals", *lines]) if lines else "Goals: none was measured"


def asJSON(
    facts: Mapping[str, object], sections: Sequence[Section], verdicts: Sequence[Verdict]
) -> dict[str, Any]:
    """Everything: the machine, every run, medians, ratios, goals."""
    return {
        **facts,
        "sections": {each.key: _section(each) for each in sections},
        "goals": [
            {**attrs.asdict(each.goal), "ratio": each.ratio, "met": each.met} for each in verdicts
        ],
    }


def _section(section: Section) -> dict[str, Any]:
    figures = {figure.key: _figure(figure) for figure in section.figures}
    return {
        "title": section.title,
        "note": section.note,
        "figures": figures,
        "failures": dict(section.failures),
    }


def _figure(figure: Figure) -> dict[str, Any]:
    ratios = {peer: figure.ratio(peer) for peer in figure.runs if peer != OURS}
    return {
        "title": figure.title,
        "unit": figure.unit,
        "cost": figure.cost,
        "peers": {
            peer: {**attrs.asdict(spread), "runs": list(figure.runs[peer])}
            for peer, spread in figure.spreads.items()
        },
        "ratios": {peer: ratio for peer, ratio in ratios.items() if ratio is not None},
    }
