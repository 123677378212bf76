"""The cache at scale: what an account costs in memory."""

import os
import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

from tests.integration.proxy import PROJECT

ENTRIES = 250_000
"""A quarter of a million: Python's tables are as full of them as they are of a million."""

BYTES = 250

_MEASURE = """
import gc, os, sys
from twisted.internet.defer import succeed
from twisted.internet.task import Clock
from mailproxy.mapping.cache import CacheSettings, MappingCache

class Source:
    def lookup(self, identifier):
        return succeed("new")

def resident():
    gc.collect()
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

count, clock = int(sys.argv[1]), Clock()
cache = MappingCache(Source(), clock, CacheSettings(maxEntries=count))
before = resident()
for number in range(count):
    clock.rightNow = number / 1000
    cache.lookup(f"account{number:07d}@example.net").addErrback(print)
print((resident() - before) / cache.entries)
for number in range(0, count, 2):
    cache.lookup(f"account{number:07d}@example.net").addErrback(print)
print((resident() - before) / cache.entries)
"""


class MemoryTests(SynchronousTestCase):
    """Entries whose identifiers have 26 letters, each with a time of its own."""

    def test_bytesPerEntry(self) -> None:
        """Under 250, when they are new and after half of them have been used again."""
        done = subprocess.run(
            [sys.executable, "-c", _MEASURE, str(ENTRIES)],
            check=True,
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(PROJECT)},
        )
        for found in done.stdout.split():
            self.assertLess(float(found), BYTES)
