"""Processes that get a fixed share of a core, by the kernel's control groups.

So a machine with few cores shows what more workers would do on one with many: what they have
together stays far below what there is.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from tests.integration.network import processTree

__all__ = ["available", "quota"]

_PERIOD = 10_000
"""Microseconds in which a group gets its share."""

_V1, _V2 = Path("/sys/fs/cgroup/cpu"), Path("/sys/fs/cgroup")


def _limitsV1(share: float) -> Mapping[str, str]:
    return {"cpu.cfs_period_us": str(_PERIOD), "cpu.cfs_quota_us": str(round(share * _PERIOD))}


def _limitsV2(share: float) -> Mapping[str, str]:
    return {"cpu.max": f"{round(share * _PERIOD)} {_PERIOD}"}


_KINDS: Mapping[Path, Callable[[float], Mapping[str, str]]] = {_V1: _limitsV1, _V2: _limitsV2}


def available() -> bool:
    """Whether groups can be made here: it takes root, and a hierarchy with the CPU controller."""
    try:
        with quota(os.getpid(), 1.0, include=lambda pid: False):
            return True
    except OSError:
        return False


@contextmanager
def quota(
    pid: int, share: float, include: Callable[[int], bool] = lambda pid: True
) -> Iterator[None]:
    """Give a process, and each of its descendants, so much of a core and no more.

    :param include: which of them; the others go on as they did.
    :raises OSError: when that cannot be done here.
    """
    with ExitStack() as stack:
        for each in (pid, *processTree(pid)[1:]):
            root, group = _make(f"mailproxy-bench-{each}", share)
            stack.callback(group.rmdir)
            if include(each):
                (group / "cgroup.procs").write_text(str(each))
                stack.callback(_moveBack, root, each)
        yield


def _make(name: str, share: float) -> tuple[Path, Path]:
    """Make a group; returns the hierarchy's root, and the group."""
    for root, limits in _KINDS.items():
        if (root / "cgroup.procs").exists():
            group = root / name
            group.mkdir(exist_ok=True)
            try:
                for file, text in limits(share).items():
                    (group / file).write_text(text)
            except OSError:
                group.rmdir()
                raise
            return root, group
    raise FileNotFoundError("no hierarchy of control groups")


def _moveBack(root: Path, pid: int) -> None:
    with suppress(OSError):  # it has ended
        (root / "cgroup.procs").write_text(str(pid))
