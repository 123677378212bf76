"""`make bench`: what the proxy costs, beside the others that do the same work, in one run.

Prints the tables, and writes every run to a JSON file and the main costs to a chart.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import machine
from benchmarks.chart import Group, draw
from benchmarks.contenders import Contender, Effort, Setting, everybody
from benchmarks.figures import Section, judge
from benchmarks.report import asJSON, asText, goalsText
from benchmarks.sections import CHARTED, GOALS, SECTIONS, USUAL

FULL = Effort(
    rounds=5,
    logins=200,
    size=50_000_000,
    total=200_000_000,
    messages=8000,
    seconds=5,
    sessions=10_000,
    others=2000,
    lookups=20_000,
    soak=1_000_000,
)
QUICK = Effort(
    rounds=3,
    logins=40,
    size=20_000_000,
    total=40_000_000,
    messages=1600,
    seconds=1,
    sessions=200,
    others=200,
    lookups=5000,
    soak=1000,
)


def main() -> None:
    """Measure, and tell."""
    arguments = _arguments()
    facts = machine.facts()
    machine.settle()
    contenders = everybody(arguments.also)
    setting = Setting(QUICK if arguments.quick else FULL, contenders)
    began, sections = time.monotonic(), []
    for name in arguments.only or USUAL:
        sections.append(SECTIONS[name](setting))
        _print(asText(sections[-1]))
    verdicts = judge(sections, GOALS)
    _print(goalsText(verdicts))
    facts |= _versions(contenders)
    facts |= {"load average at the end": os.getloadavg()[0], "seconds": time.monotonic() - began}
    _print("\n".join(f"{name}: {value}" for name, value in facts.items()))
    if arguments.json:
        arguments.json.write_text(json.dumps(asJSON(facts, sections, verdicts), indent=1) + "\n")
    if arguments.chart:
        arguments.chart.write_text(draw("CPU time of the proxy", _groups(sections)))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds")
    parser.add_argument("--json", type=Path, help="write every run there")
    parser.add_argument("--chart", type=Path, help="draw the main costs there, as SVG")
    parser.add_argument("--only", nargs="+", choices=tuple(SECTIONS), help="these sections")
    parser.add_argument(
        "--also", nargs="+", type=Path, default=[], help="checkouts of mailproxy to measure beside"
    )
    return parser.parse_args()


def _versions(contenders: Sequence[Contender]) -> dict[str, object]:
    return {each.title: each.kind.version() for each in contenders}


def _groups(sections: Sequence[Section]) -> list[Group]:
    """What of the figures is drawn."""
    known = {(each.key, figure.key): figure for each in sections for figure in each.figures}
    return [
        Group(title, figure.unit, {peer: each.median for peer, each in figure.spreads.items()})
        for place, title in CHARTED.items()
        if (figure := known.get(place)) is not None
    ]


def _print(text: str) -> None:
    sys.stdout.write(text + "\n\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
