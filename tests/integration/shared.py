"""Servers that are started once for all tests of a class: trial knows no `setUpClass`."""

import atexit
from contextlib import ExitStack
from typing import ClassVar
from unittest import SkipTest


class SharedServers:
    """A mix-in, before a trial test case: `startServers` runs before the class's first test.

    What it enters into its stack is closed when a test of another class begins, or at exit. The
    attributes that it sets on the class are there for every test.
    """

    _owner: ClassVar[type["SharedServers"] | None] = None
    _stack: ClassVar[ExitStack] = ExitStack()
    _missing: ClassVar[SkipTest | None] = None

    @classmethod
    def startServers(cls, stack: ExitStack) -> None:
        """Start the servers with `stack.enter_context` and keep them as class attributes."""
        raise NotImplementedError

    def setUp(self) -> None:
        """Start this class's servers unless they run; skip if a program of theirs is missing."""
        cls = type(self)
        if SharedServers._owner is not cls:
            _closeShared()
            _startShared(cls)
        if SharedServers._missing is not None:
            raise SharedServers._missing


def _startShared(cls: type[SharedServers]) -> None:
    """Start the servers of `cls`; if that fails, those that did start are closed again."""
    with ExitStack() as stack:
        try:
            cls.startServers(stack)
        except SkipTest as missing:
            SharedServers._missing = missing
        else:
            SharedServers._stack = stack.pop_all()
    SharedServers._owner = cls


@atexit.register
def _closeShared() -> None:
    stack, SharedServers._stack = SharedServers._stack, ExitStack()
    SharedServers._owner = SharedServers._missing = None
    stack.close()
