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

    def read(handle: object) -> int:
        return next(steps, 0) or sure.read(handle)

    def gather(handle: object) -> tuple[int, int]:
        why = next(steps, 0)
        return (0, why) if why else sure.gather(handle)

    def put(handle: object, count: int) -> int:
        return 0 if next(steps, 0) else sure.put(handle, count)

    def send(handle: object, data: bytes | memoryview) -> int:
        return next(steps, 0) or sure.send(handle, data)

    return attrs.evolve(sure, name="stumbling", read=read, gather=gather, put=put, send=send)
