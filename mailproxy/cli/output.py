"""What a command says and how: tables and colours on a terminal, plain lines elsewhere, or JSON.

Knows streams and rich; must not know any command. What comes from elsewhere is written without
control characters, so that no name of an account can play with somebody's terminal.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TextIO

import attrs
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.table import Table as Grid
from rich.text import Text

__all__ = [
    "Line",
    "Output",
    "Progress",
    "Table",
    "Terminal",
    "bad",
    "clean",
    "counted",
    "dim",
    "good",
]

GOOD, BAD, DIM = "green", "bold red", "dim"


@attrs.frozen
class Terminal:
    """What a command may read and write besides files.

    :ivar environment: the process's variables.
    """

    environment: Mapping[str, str] = attrs.field(repr=False)
    out: TextIO
    err: TextIO

    def say(self, line: str) -> None:
        """Write one line of the answer, at once."""
        print(line, file=self.out, flush=True)

    def complain(self, line: str) -> None:
        """Write one line about what is wrong, at once."""
        print(clean(line), file=self.err, flush=True)


def clean(value: object) -> str:
    """Write a value without what a terminal would obey: control characters become escapes."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii")
        for letter in str(value)
    )


def counted(number: int, noun: str) -> str:
    """Write a number of things."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def good(value: object) -> Text:
    """Mark what is as it should be."""
    return Text(clean(value), GOOD)


def bad(value: object) -> Text:
    """Mark what somebody should look at."""
    return Text(clean(value), BAD)


def dim(value: object) -> Text:
    """Mark what matters less."""
    return Text(clean(value), DIM)


@attrs.frozen
class Line:
    """A line whose parts may be marked; they are joined as they are."""

    parts: Sequence[Text | str]

    @classmethod
    def of(cls, *parts: Text | str) -> "Line":
        """Make one of its parts."""
        return cls(parts)

    def assemble(self) -> Text:
        """Put it together."""
        return Text.assemble(*(_cell(part) for part in self.parts))


@attrs.frozen
class Table:
    """Rows under a heading; elsewhere than on a terminal their cells are separated by tabs."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Text | str]]

    def lines(self) -> Iterator[str]:
        """Write it without a terminal, the heading first."""
        yield "\t".join(self.columns)
        for row in self.rows:
            yield "\t".join(_cell(value).plain for value in row)

    def grid(self) -> Grid:
        """Draw it for a terminal; what is too long for its column is folded, never cut."""
        grid = Grid(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
        for column in self.columns:
            grid.add_column(column, overflow="fold")
        for row in self.rows:
            grid.add_row(*(_cell(value) for value in row))
        return grid


class Progress:
    """How far a long job is; without a bar it only passes lines on."""

    def __init__(self, output: "Output", bar: Bar | None, name: str, total: int) -> None:
        self._output, self._bar = output, bar
        self._task = None if bar is None else bar.add_task(name, total=total)

    def done(self, line: Line) -> None:
        """Say what became of one part of the job; in JSON that comes at the end."""
        if self._bar is not None and self._task is not None:
            self._bar.advance(self._task)
        if not self._output.asJSON:
            self._output.show(line)


class Output:
    """Writes a command's answer in the form that was asked for.

    :ivar asJSON: whether the answer is one JSON value.
    """

    def __init__(self, terminal: Terminal, *, asJSON: bool) -> None:
        self.asJSON = asJSON
        self._terminal = terminal
        self._console = _console(terminal, terminal.out)

    def give(self, facts: object, *shown: Line | Table) -> None:
        """Answer: with the facts in JSON, else with what is to be shown of them."""
        if self.asJSON:
            indent = 2 if self._console is not None else None
            self._terminal.say(json.dumps(facts, indent=indent))
            return
        for each in shown:
            self.show(each)

    def show(self, shown: Line | Table) -> None:
        """Write a line or a table."""
        if self._console is not None:
            drawn = shown.assemble() if isinstance(shown, Line) else shown.grid()
            self._console.print(drawn, soft_wrap=isinstance(shown, Line))
            return
        lines = [shown.assemble().plain] if isinstance(shown, Line) else shown.lines()
        for line in lines:
            self._terminal.say(line)

    def fail(self, text: str, status: int, problems: Sequence[str] = ()) -> None:
        """Say that the command has come to nothing.

        :param problems: the same, to be shown line by line.
        """
        if self.asJSON:
            self.give({"error": clean(text), "status": status})
            return
        for each in problems or [text]:
            self.warn(each)

    def warn(self, text: str) -> None:
        """Say something beside the answer."""
        self._terminal.complain(f"mailproxy: {text}")

    @contextmanager
    def progress(self, name: str, total: int) -> Iterator[Progress]:
        """Show a bar for a job of several parts, where there is a terminal to draw it on.

        Beside JSON it is drawn on standard error, if that is one.
        """
        console = self._console
        if self.asJSON:
            console = _console(self._terminal, self._terminal.err)
        if console is None or total < 2:
            yield Progress(self, None, name, total)
            return
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        bar = Bar(
            *columns,
            console=console,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        with bar:
            yield Progress(self, bar, name, total)


def _cell(value: Text | str) -> Text:
    return value if isinstance(value, Text) else Text(clean(value))


def _console(terminal: Terminal, stream: TextIO) -> Console | None:
    """Make what draws on a terminal; None when the stream is none.

    The variables (`NO_COLOR`, `TERM` and such) are those that we were given.
    """
    if not stream.isatty():
        return None
    return Console(
        file=stream, highlight=False, markup=False, emoji=False, _environ=terminal.environment
    )
