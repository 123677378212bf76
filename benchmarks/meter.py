"""Reads what a process and its descendants have used so far: CPU time and memory."""

import os
import time
from pathlib import Path

from tests.integration.network import processTree

_TICKS = os.sysconf("SC_CLK_TCK")


def cpuOfEach(pid: int) -> dict[int, float]:
    """User and system time of a process and of each of its descendants, in seconds.

    Living ones are read to the nanosecond, ended threads included. Those that have ended are their
    parent's, once it has waited for them, in the kernel's ticks: of 10 ms as a rule, all together.
    """
    return {each: _own(each) + _buried(each) for each in processTree(pid)}


def memoryBytes(pid: int) -> int:
    """Proportional set size of a process and its descendants, in bytes."""
    return sum(map(_proportional, processTree(pid)))


def _own(pid: int) -> float:
    """Ask the clock of a process (clock_getcpuclockid(3): its number, inverted, over 3 bits)."""
    try:
        return time.clock_gettime((~pid << 3) | 2)
    except OSError:
        return 0.0  # it has ended meanwhile: its parent tells


def _buried(pid: int) -> float:
    """Read cutime and cstime (proc(5)); the name before them, in parentheses, may hold spaces."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
    except OSError:
        return 0.0
    return buriedTicks(text) / _TICKS


def buriedTicks(stat: str) -> int:
    """The ticks that ended children have used, out of the line of `/proc/PID/stat`."""
    fields = stat.rpartition(")")[2].split()
    return int(fields[13]) + int(fields[14])


def _proportional(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text("ascii")
    except OSError:
        return 0
    return proportionalBytes(text)


def proportionalBytes(rollup: str) -> int:
    """The sum in the text of `/proc/PID/smaps_rollup`; 0 where there is none."""
    for line in rollup.splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0
