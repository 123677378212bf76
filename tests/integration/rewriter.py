"""Rewrites a mapping file until it is killed: `python -m tests.integration.rewriter FILE`.

Each line on its standard input starts one rewriter, a fork of this process, so that two hundred
cost no two hundred interpreters. It says `pid N`, then `done NAME` for each name that is on disk,
and, when the rewriter was killed, `ended`.
"""

import os
import sys
from itertools import count
from pathlib import Path

from mailproxy.mapping.file import Change, TableFile


def rewrite(path: Path, turn: str) -> None:
    """Map one name after the other, for ever; each is told once it is on disk."""
    file = TableFile(path)
    content = file.read()
    for number in count():
        name = f"turn{turn}-{number}"
        content, _ = file.rewrite(content, [Change(name, "new")])
        say(f"done {name}")


def say(text: str) -> None:
    """Write a line at once: nothing may stay in a buffer of somebody who is killed."""
    os.write(1, f"{text}\n".encode())


def main() -> None:
    """Start rewriters as told."""
    for turn in sys.stdin:
        pid = os.fork()
        if pid == 0:
            rewrite(Path(sys.argv[1]), turn.strip())
        say(f"pid {pid}")
        os.waitpid(pid, 0)
        say("ended")


if __name__ == "__main__":
    main()
