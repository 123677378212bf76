"""The mapping file's grammar: `identifier<whitespace>destination`, `#` comments, blank lines.

Knows text only: no file, no store, no configuration model. Files have up to some million lines:
the loop per line is short, and what is rare is worked out only once something is known to be wrong.
"""

import io
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping

import attrs

from mailproxy.errors import ConfigError

LONGEST_WORD = 512
"""The longest identifier or destination, in bytes of UTF-8."""

REPORTED = 50
"""Problems that are told one by one; of further ones only the number is."""

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_SURELY_SHORT = LONGEST_WORD // 4  # characters of a line: UTF-8 takes at most four bytes each

_LATER = r'[^\s"\x00-\x1f\x7f-\x9f\ud800-\udfff]'
_FIRST = rf"(?![#\ufeff]){_LATER}"
_WORD = re.compile(f"{_FIRST}{_LATER}*")
_NUMBERED = re.compile(r":([0-9]+): ")
_LINE = re.compile(
    rf"[ \t]*(?:#.*|({_FIRST}{_LATER}*)[ \t]+({_FIRST}{_LATER}*)(?:[ \t]+(?:#.*)?)?)?\r?\n?"
)


@attrs.frozen
class Table:
    """A mapping file's content.

    :ivar entries: identifier -> destination.
    :ivar firstLine: destination -> the number of the first line that names it.
    """

    entries: dict[str, str] = attrs.field(repr=False)
    firstLine: dict[str, int]


def parseTable(data: bytes, name: str = "mapping file") -> Table:
    """Read a whole file.

    :param data: its bytes, UTF-8, lines ended by LF or CRLF.
    :param name: what stands before the line number in messages: the path.
    :raises ConfigError: naming each bad line, and both lines where one identifier is given two
        different destinations.
    """
    table, problems = readTable(data, name)
    if problems:
        raise ConfigError(abridged(problems))
    return table


def readTable(data: bytes, name: str = "mapping file") -> tuple[Table, list[str]]:
    """Read a whole file as `parseTable` does; returns its sound lines, and what is wrong."""
    table, doubtful = _scan(data)
    problems = _explain(data, doubtful, table.entries)
    return table, [f"{name}:{line}: {what}" for line, what in problems]


def _lines(data: bytes) -> Iterator[str]:
    """The lines with their ends, without the mark that some editors put before the first.

    Each is decoded by itself: the whole as text would be a second copy of a large file.
    """
    source = io.BytesIO(data)
    if data.startswith(_BYTE_ORDER_MARK):
        source.seek(len(_BYTE_ORDER_MARK))
    for line in source:
        yield line.decode("utf-8", "surrogateescape")


def _scan(data: bytes) -> tuple[Table, dict[int, str]]:
    """The one pass over all lines; with those, by number, that need a closer look."""
    entries: dict[str, str] = {}
    seen: dict[str, str] = {}
    firstLine: dict[str, int] = {}
    doubtful: dict[int, str] = {}
    match = _LINE.fullmatch
    for number, line in enumerate(_lines(data), 1):
        found = match(line)
        if found is None:
            doubtful[number] = line
            continue
        identifier, destination = found.groups()
        if identifier is None:
            continue
        destination = seen.setdefault(destination, destination)  # one string for a million lines
        firstLine.setdefault(destination, number)
        known = entries.setdefault(identifier, destination)
        if known is not destination or len(line) > _SURELY_SHORT:
            doubtful[number] = line
    return Table(entries, firstLine), doubtful


def formatTable(entries: Mapping[str, str]) -> bytes:
    """Write a file: sorted by identifier, a tab between, one entry per line.

    :raises ValueError: for an entry that could not be read back (see `isStorable`).
    """
    lines = []
    for identifier in sorted(entries):
        destination = entries[identifier]
        if not isStorable(identifier) or not isStorable(destination):
            raise ValueError("an identifier or destination that the file's grammar cannot hold")
        lines.append(f"{identifier}\t{destination}\n")
    return "".join(lines).encode()


def isStorable(word: str) -> bool:
    """Whether an identifier or destination can stand in the file.

    A legal identifier that cannot is one with a leading `#`: that would be a comment.
    """
    return _WORD.fullmatch(word) is not None and len(word.encode()) <= LONGEST_WORD


def checkTable(
    table: Table,
    declared: Mapping[str, Collection[str]],
    required: Collection[str],
    name: str = "mapping file",
) -> list[str]:
    """Hold a table against the configuration.

    :param declared: destination -> the protocols that it declares.
    :param required: the protocols that listeners serve and a mapped account may use.
    :returns: a line for each destination that cannot be used, with the first line that names it.
    """
    wrong: dict[str, str] = {}
    for destination in table.firstLine:
        if destination not in declared:
            wrong[destination] = "is not declared; declare it, or map to one that is"
        elif missing := [one for one in required if one not in declared[destination]]:
            wrong[destination] = f"lacks {', '.join(missing)}, which a listener serves"
    uses = Counter(table.entries.values()) if wrong else Counter[str]()
    problems = []
    for destination, what in wrong.items():
        more = f" (first of {uses[destination]} entries)" if uses[destination] > 1 else ""
        line = table.firstLine[destination]
        problems.append(f'{name}:{line}: destination "{destination}" {what}{more}')
    return abridged(problems)


def byLine(problems: Iterable[str]) -> list[str]:
    """Put messages in the order of the lines that they name; the first of them, if many."""

    def line(problem: str) -> int:
        found = _NUMBERED.search(problem)
        return int(found[1]) if found else 0

    return abridged(sorted(problems, key=line))


def abridged(problems: list[str]) -> list[str]:
    """The first problems, and how many more there are."""
    if len(problems) <= REPORTED:
        return problems
    return [*problems[:REPORTED], f"and {len(problems) - REPORTED} more"]


def _explain(
    data: bytes, doubtful: Mapping[int, str], entries: Mapping[str, str]
) -> list[tuple[int, str]]:
    """Say what is the matter with each line that the loop could not take as it stood."""
    problems: list[tuple[int, str]] = []
    conflicts: dict[int, str] = {}
    for number, line in doubtful.items():
        found = _LINE.fullmatch(line)
        if found is None:
            problems.append((number, _malformed(line)))
        elif any(len(word.encode()) > LONGEST_WORD for word in found.groups()):
            problems.append((number, f"longer than {LONGEST_WORD} bytes"))
        elif entries[found[1]] != found[2]:
            conflicts[number] = found[1]
    earlier = _linesOf(set(conflicts.values()), data)
    for number, identifier in conflicts.items():
        problems.append((number, _conflict(identifier, earlier[identifier], entries)))
    return sorted(problems)


def _malformed(line: str) -> str:
    words = line.split()
    if any("\ud800" <= letter <= "\udfff" for letter in line):
        return "not UTF-8"
    if len(words) == 1 or (len(words) > 1 and words[1].startswith("#")):
        return "no destination; write identifier, white space, destination"
    if len(words) > 2 and all(map(_WORD.fullmatch, words[:2])) and not words[2].startswith("#"):
        return "more than two words; write identifier, white space, destination"
    return "holds a control character, a quote or white space other than space and tab"


def _conflict(identifier: str, line: int, entries: Mapping[str, str]) -> str:
    return f'"{identifier}" was mapped to "{entries[identifier]}" on line {line}; keep one of them'


def _linesOf(identifiers: set[str], data: bytes) -> dict[str, int]:
    """The first line of each of some identifiers."""
    lines: dict[str, int] = {}
    if identifiers:
        for number, line in enumerate(_lines(data), 1):
            found = _LINE.fullmatch(line)
            if found is not None and found[1] in identifiers:
                lines.setdefault(found[1], number)
    return lines
