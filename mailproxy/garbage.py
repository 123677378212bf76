"""The collector's work, fitted to a process whose sessions leave no circles behind.

What is loaded at the start lives as long as the process, and what a session was made of goes when
it ends, by itself; to look for more, again and again, is a few hundredths of a login. What does
leave circles, a reload for one, is still found, a little later.
"""

import gc

THRESHOLDS = (20_000, 20, 50)
"""Objects that are made before the youngest are looked at, and how often that is until the older
ones, and then the oldest, are."""


def settle() -> None:
    """Look once, and at nothing of what is here now any more."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
