"""The command `mailproxy` as a process, on pipes or on a terminal of its own."""

import contextlib
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence

import attrs

from tests.integration.proxy import PROJECT

_RUN = "import sys; from mailproxy.cli import main; sys.exit(main())"
PATIENCE = 240.0
"""Seconds that one command may take."""


@attrs.frozen
class Done:
    """How a command ended."""

    status: int
    out: str
    err: str


class Tool:
    """Runs commands against one proxy.

    :ivar environment: their whole environment.
    """

    def __init__(self, variables: Mapping[str, str]) -> None:
        own = {name: value for name, value in os.environ.items() if not name.startswith("PROXY_")}
        shown = {"PYTHONPATH": str(PROJECT), "TERM": "xterm-256color", "COLUMNS": "100"}
        self.environment = {**own, **shown, **variables}

    def start(self, *words: str) -> "subprocess.Popen[str]":
        """Begin a command on pipes."""
        return subprocess.Popen(
            self._command(words),
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def finish(self, running: "subprocess.Popen[str]") -> Done:
        """Wait for a command's end."""
        try:
            out, err = running.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            running.kill()
            raise
        return Done(running.returncode, out, err)

    def run(self, *words: str) -> Done:
        """Carry out a command on pipes."""
        return self.finish(self.start(*words))

    def interrupt(self, *words: str, after: str) -> Done:
        """Press Control-C as soon as the command's answer holds a text."""
        running = self.start(*words)
        assert running.stdout is not None
        seen = ""
        # By itself the file would read ahead, and `finish` would not see what it keeps.
        while after not in seen and (data := os.read(running.stdout.fileno(), 65536)):
            seen += data.decode("ascii")
        running.send_signal(signal.SIGINT)
        done = self.finish(running)
        return attrs.evolve(done, out=seen + done.out)

    def onTerminal(self, *words: str) -> tuple[int, str]:
        """Carry out a command on a terminal; returns its status and all that was drawn."""
        pid, screen = pty.fork()
        if pid == 0:  # pragma: no cover - another process
            os.execvpe(sys.executable, list(self._command(words)), self.environment)
        try:
            text = _readAll(screen)
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), text
        finally:
            os.close(screen)

    def _command(self, words: Sequence[str]) -> Sequence[str]:
        return [sys.executable, "-c", _RUN, *words]


def _readAll(screen: int) -> str:
    """Read what is drawn until nobody draws any more, which Linux tells as an error."""
    data = b""
    deadline = time.monotonic() + PATIENCE
    with contextlib.suppress(OSError):
        while time.monotonic() < deadline:
            ready, _, _ = select.select([screen], [], [], 1)
            part = os.read(screen, 65536) if ready else b""
            if ready and not part:
                break
            data += part
    return data.decode("utf-8", "replace")
