"""Shares of a core."""

import subprocess
import sys
from pathlib import Path
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.quota import available, quota

SPIN = """
import time
print("ready", flush=True)
input()
began = time.monotonic()
while time.monotonic() - began < 0.5:
    pass
print(time.process_time(), flush=True)
"""


class QuotaTests(SynchronousTestCase):
    """One process."""

    def setUp(self) -> None:
        """Skip where there are no control groups, or no right to make one."""
        if not available():
            raise SkipTest("no control groups can be made here")

    def test_aProcessGetsItsShareAndNoMore(self) -> None:
        """A fifth of half a second; what groups there were are gone afterwards."""
        command = [sys.executable, "-c", SPIN]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as child:
            assert child.stdin is not None and child.stdout is not None
            child.stdout.readline()
            with quota(child.pid, 0.2):
                groups = self.groups()
                spent = float(child.communicate("\n")[0])
        self.assertEqual(len(groups), 1)
        self.assertEqual(self.groups(), [])
        self.assertLess(spent, 0.25)

    def groups(self) -> list[Path]:
        """Those of ours that there are now."""
        return list(Path("/sys/fs/cgroup").glob("**/mailproxy-bench-*"))
