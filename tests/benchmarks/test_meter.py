"""Reading what processes have used."""

import mmap
import os
import subprocess
import sys
import time

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.meter import buriedTicks, cpuOfEach, memoryBytes, proportionalBytes


class CPUTests(SynchronousTestCase):
    """Processor time."""

    def test_aProcessIsReadToTheNanosecond(self) -> None:
        """What its own clock says, not what the kernel's ticks make of it."""
        before = time.process_time()
        found = cpuOfEach(os.getpid())[os.getpid()] - _buried()
        self.assertTrue(before <= found <= time.process_time(), f"{before} {found}")

    def test_endedChildrenAreCounted(self) -> None:
        """By their parent, once it has waited for them."""
        before = _buried()
        subprocess.run([sys.executable, "-c", "sum(range(2_000_000))"], check=True)
        self.assertGreater(_buried(), before)

    def test_aNameMayHoldSpacesAndParentheses(self) -> None:
        """The fields are counted from behind it."""
        fields = " ".join(str(number) for number in range(4, 53))
        self.assertEqual(buriedTicks(f"12 (a) R (b c) S {fields}\n"), 16 + 17)

    def test_whoHasGoneHasNothing(self) -> None:
        """No process, no time and no memory."""
        self.assertEqual(cpuOfEach(2**22 + 1), {})
        self.assertEqual(memoryBytes(2**22 + 1), 0)


class MemoryTests(SynchronousTestCase):
    """Proportional set size."""

    def test_isTheSumInTheFile(self) -> None:
        """Not what of it lies in anonymous memory or in files."""
        text = "Rss:  9 kB\nPss:   7 kB\nPss_Anon:  3 kB\nPss_File:  4 kB\n"
        self.assertEqual(proportionalBytes(text), 7 * 1024)
        self.assertEqual(proportionalBytes("55d5 [rollup]\n"), 0)

    def test_growsWithWhatAProcessTakes(self) -> None:
        """Ten million bytes, written to, are seen."""
        before = memoryBytes(os.getpid())
        with mmap.mmap(-1, 10_000_000) as taken:
            taken.write(b"x" * len(taken))
            self.assertGreater(memoryBytes(os.getpid()) - before, len(taken) * 0.9)


def _buried() -> float:
    """What the ended children of this process have used, in seconds."""
    times = os.times()
    return times.children_user + times.children_system
