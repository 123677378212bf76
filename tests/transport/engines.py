"""Engines for tests: one that stumbles, to be led through every state."""

from collections.abc import Iterable

import attrs

from mailproxy import openssl
from mailproxy.openssl import WANT_READ, WANT_WRITE, Engine

STUMBLES = (0, 0, WANT_READ, WANT_WRITE)
"""What a call may give: 0 stands for what it gives by itself."""


def stumbling(plan: Iterable[int], sure: Engine = openssl.engine) -> Engine:
    """Make an engine whose calls, in turn, say that they must wait; after the plan none does."""
    steps = iter(plan)

    def read(handle: object, start: int, stop: int) -> int:
        return next(steps, 0) or sure.read(handle, start, stop)

    def write(handle: object, start: int, stop: int) -> int:
        return next(steps, 0) or sure.write(handle, start, stop)

    def send(handle: object, data: bytes | memoryview) -> int:
        return next(steps, 0) or sure.send(handle, data)

    return attrs.evolve(sure, name="stumbling", read=read, write=write, send=send)
