"""What a parent hands to its workers.

Values only. A worker runs exactly what the parent has checked: the configuration is handed over as
it was read, with the files of certificates, so that nothing can change in between, and a worker
that is started later needs no rights that have been given up.
"""

from collections.abc import Mapping
from pathlib import Path

import attrs

from mailproxy.config.model import Config
from mailproxy.logformat import Style
from mailproxy.origin import Address

__all__ = ["Given", "Inherited", "KeyFiles", "Setup"]


@attrs.frozen
class Given:
    """A configuration to prepare.

    :ivar files: the content of every file of a certificate or key.
    :ivar sameStore: leave the mapping alone.
    :ivar spare: the generated certificate and its key, as `Spare` writes them.
    """

    config: Config = attrs.field(repr=False)
    files: Mapping[Path, bytes] = attrs.field(repr=False)
    sameStore: bool = False
    spare: bytes | None = attrs.field(default=None, repr=False)


@attrs.frozen
class Inherited:
    """A listening socket that a worker finds open when it starts.

    :ivar key: the `bind` that it belongs to, by the configuration's names.
    :ivar descriptor: in the worker.
    :ivar seat: whose clients come to it; None: all workers take turns.
    """

    key: str
    descriptor: int
    family: int
    seat: int | None


@attrs.frozen
class Setup:
    """Everything that a worker begins with.

    :ivar number: its seat, from 0, of so many.
    :ivar bound: the addresses that are our own.
    :ivar redaction: the key of redacted identifiers.
    :ivar style: how lines of the log are written; None: the parent writes them.
    """

    number: int
    of: int
    given: Given
    sockets: tuple[Inherited, ...]
    bound: frozenset[Address]
    redaction: bytes = attrs.field(repr=False)
    style: Style | None = None


class KeyFiles:
    """The files of certificates and keys: read once, by the parent, and kept for its workers."""

    def __init__(self, files: Mapping[Path, bytes] | None = None) -> None:
        """Begin.

        :param files: what another process has read; None: read from the disk.
        """
        self._given = files
        self._files: dict[Path, bytes] = {}

    def read(self, path: Path) -> bytes:
        """Give a file's content."""
        content = path.read_bytes() if self._given is None else self._given.get(path)
        if content is None:
            raise FileNotFoundError(f"{path} was not handed over")
        self._files[path] = content
        return content

    def replace(self, files: Mapping[Path, bytes]) -> None:
        """Give these contents from now on."""
        self._given = files

    def taken(self) -> Mapping[Path, bytes]:
        """What has been read since the last time."""
        files, self._files = self._files, {}
        return files


def forWorkers(config: Config) -> Config:
    """Leave out what only the parent may know: management's token."""
    return config.model_copy(update={"admin": None})
