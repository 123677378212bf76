"""The machine that is measured on: its processors and how they are shared out, what runs on it."""

import os
import platform
import resource
import ssl
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from OpenSSL import SSL

__all__ = ["CORES", "OURS", "PROXY", "descriptors", "facts", "pinned", "settle"]

CORES = tuple(sorted(os.sched_getaffinity(0)))
"""All processors that we may use."""

PROXY = CORES[:1]
"""The one that a proxy has for itself."""

OURS = CORES[1:] or CORES
"""Those of the load and of the servers."""


def settle() -> None:
    """Go to our own processors, children included, and take all the descriptors that we may."""
    os.sched_setaffinity(0, OURS)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def pinned(cores: Sequence[int] = PROXY) -> list[str]:
    """What a command begins with to be run on these processors alone."""
    return ["taskset", "--cpu-list", ",".join(map(str, cores))]


def descriptors() -> int:
    """How many descriptors a process may have."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[1]


def facts() -> dict[str, object]:
    """When and on what; the load average tells whether anybody else was at work."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{_processor()}, {len(CORES)} cores",
        "system": f"{_distribution()}, Linux {platform.release()}",
        "python": platform.python_version(),
        "twisted": version("twisted"),
        "openssl": SSL.SSLeay_version(SSL.SSLEAY_VERSION).decode(),
        "openssl of the load": ssl.OPENSSL_VERSION,
        "commit": _commit(),
        "load average at the start": os.getloadavg()[0],
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()


def _distribution() -> str:
    return platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")


def _commit() -> str:
    """The source's, marked when it has been changed since."""
    command = ["git", "describe", "--always", "--dirty"]
    here = Path(__file__).parent
    done = subprocess.run(command, cwd=here, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"
