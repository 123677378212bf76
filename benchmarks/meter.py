"""Reads what a process has used so far: CPU time and memory, its children included."""

import os
from pathlib import Path

from tests.integration.network import processTree

_TICKS = os.sysconf("SC_CLK_TCK")


def cpuSeconds(pid: int) -> float:
    """User and system time of a process and its living children, in seconds."""
    return sum(map(_ticks, processTree(pid))) / _TICKS


def memoryBytes(pid: int) -> int:
    """Proportional set size of a process and its living children, in bytes."""
    return sum(map(_proportional, processTree(pid)))


def _ticks(pid: int) -> int:
    # The name, in parentheses, may hold spaces; utime and stime are fields 14 and 15 (proc(5)).
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def _proportional(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0
