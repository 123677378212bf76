"""Where a process stands among those that serve together.

Knows how many there are and which one this is; must not know how they speak to each other.
"""

from collections.abc import Callable
from pathlib import Path

import attrs
from twisted.internet.defer import Deferred, succeed

from mailproxy.config.certificates import Read
from mailproxy.tls.spare import Spare

__all__ = ["ALONE", "Seat"]


def _nothing(listener: str) -> Deferred[int]:
    """Lend nothing: there is nobody else."""
    return succeed(0)


@attrs.frozen
class Seat:
    """One process's place.

    :ivar number: from 0.
    :ivar of: how many there are.
    :ivar read: gives the content of a certificate's file or a key's.
    :ivar borrow: asks the other processes for room in a listener; fires with the number of
        connections that this one may have beside its share, 0 when all are full.
    :ivar spare: the certificate that all of them show where no other fits; None: whoever has this
        seat makes its own.
    :ivar warns: whether what somebody should look at is said here: one says it for all.
    """

    number: int = 0
    of: int = 1
    read: Read = Path.read_bytes
    borrow: Callable[[str], Deferred[int]] = _nothing
    spare: Spare | None = attrs.field(default=None, repr=False)
    warns: bool = True

    def share(self, most: int) -> int:
        """How many of a listener's connections are this process's; all shares add up to `most`."""
        return most // self.of + (self.number < most % self.of)


ALONE = Seat()
"""The place of a process that serves by itself."""
