"""The filter that is shipped, run by fail2ban itself."""

import subprocess
from pathlib import Path

from tests.integration.process import requireProgram

FILTER = Path(__file__).parents[2] / "etc" / "fail2ban" / "filter.d" / "mailproxy.conf"


def requireFail2ban() -> str:
    """Find the program that tries a filter; skip the test where it is missing."""
    return requireProgram("fail2ban-regex", "fail2ban")


def banned(text: str, path: Path) -> list[str]:
    """The addresses that the filter finds in a log, a line for each hit.

    :param path: a file that the log may be written to.
    :raises AssertionError: when the filter cannot be run.
    """
    path.write_text(text)
    command = [requireFail2ban(), "--out", "ip", str(path), str(FILTER)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.split()
