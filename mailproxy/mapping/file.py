"""The mapping file as a source: held in memory, read again on demand, rewritten as a whole.

`TableFile` does the blocking work and belongs into a thread; `FileSource` answers lookups from
memory and sees to it that reads and rewrites take turns. Other processes may use the same file:
rewrites hold a lock on its directory, and whatever has changed in the file is merged in first.
"""

import errno
import fcntl
import os
import stat
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Protocol, TypeVar

import attrs
from twisted.internet.defer import Deferred, DeferredLock, fail, succeed
from zope.interface import implementer

from mailproxy.config.table import Table, byLine, formatTable, isStorable, readTable
from mailproxy.errors import ConfigError, InvalidIdentifier, MappingError
from mailproxy.logs import Logger
from mailproxy.mapping.interfaces import (
    IReloadableMappingSource,
    IWritableMappingSource,
    Revision,
)

__all__ = ["Change", "Check", "Content", "FileSource", "InThread", "TableFile"]

_ATTEMPTS = 5
"""So often we start again when somebody edits the file under our hands."""

_LOCK_PATIENCE = 10.0
"""Seconds to wait for another process's rewrite."""

_LOCK_PAUSE = 0.02
"""Seconds between two tries to lock the directory."""

T = TypeVar("T")

Check = Callable[[Table], Sequence[str]]
"""Holds a table against the configuration: a line for each problem, none when it may be used."""


class InThread(Protocol):
    """Calls a function in another thread, as `deferToThread` does."""

    def __call__(self, function: Callable[[], T], /) -> Deferred[T]:
        """Fire with what the function returns or raises."""


@attrs.frozen
class Content:
    """A file as it was read or written: its entries and the digest of its bytes."""

    entries: dict[str, str] = attrs.field(repr=False)
    digest: bytes = attrs.field(repr=False)


@attrs.frozen
class Change:
    """One write: an identifier and its new destination, or None to remove it."""

    identifier: str
    destination: str | None

    def applyTo(self, entries: dict[str, str]) -> str | None:
        """Make the change; returns the destination that the identifier had."""
        former = entries.pop(self.identifier, None)
        if self.destination is not None:
            entries[self.identifier] = self.destination
        return former


def noCheck(table: Table) -> Sequence[str]:
    """Accept any table."""
    return ()


class TableFile:
    """A mapping file on disk; every method blocks.

    Knows the file system and the grammar; must not know Deferreds or who asks.

    :ivar edited: whether a rewrite has found, and taken along, what somebody else had changed.
    :ivar base: the digest of what the last rewrite began with.
    """

    def __init__(self, path: Path, check: Check = noCheck) -> None:
        self.path = path
        self.check = check
        self.edited = False
        self.base = b""

    def read(self) -> Content:
        """Read and check the whole file.

        :raises ConfigError: it cannot be read, or must not be used.
        """
        try:
            for _ in range(_ATTEMPTS):
                data, before = self._readOnce()
                if _sameFile(before, self.path.stat()):
                    return self._parse(data)
        except OSError as error:
            raise ConfigError([f"{self.path}: cannot be read: {error.strerror}"]) from error
        raise ConfigError([f"{self.path}: changes while it is read; try again"])

    def rewrite(
        self, known: Content | None, changes: Sequence[Change]
    ) -> tuple[Content, list[str | None]]:
        """Make changes in the file as it is now, all of them or none.

        :param known: the content as last read or written, to save parsing it again.
        :returns: the new content, and each changed identifier's former destination.
        :raises ConfigError: the file was edited since and must not be used.
        :raises MappingError: it could not be written, or did not come to rest.
        """
        try:
            for _ in range(_ATTEMPTS):
                target = Path(os.path.realpath(self.path, strict=True))
                with _lockedDirectory(target.parent) as directory:
                    data, before = self._readOnce()
                    content = self._recall(known, data)
                    entries = dict(content.entries)
                    former = [change.applyTo(entries) for change in changes]
                    self._refuse(changes)
                    if entries == content.entries:
                        return content, former
                    new = formatTable(entries)
                    if _replace(target, new, before, directory):
                        return Content(entries, _digest(new)), former
        except OSError as error:
            raise MappingError(f"{self.path}: not written: {error.strerror}") from error
        raise MappingError(f"{self.path}: not written: it keeps changing")

    def _refuse(self, changes: Sequence[Change]) -> None:
        """Write nothing with which the file could not be read again.

        :raises MappingError: when the configuration has changed since a write was asked for.
        """
        wanted = {each.identifier: each.destination for each in changes if each.destination}
        problems = self.check(Table(wanted, dict.fromkeys(wanted.values(), 0)))
        if problems:
            raise MappingError(f"{self.path}: not written: {problems[0]}")

    def sweep(self) -> None:
        """Remove what a killed process left of an unfinished rewrite, if nobody is writing."""
        try:
            target = Path(os.path.realpath(self.path, strict=True))
            leftover = _temporaryFor(target)
            if leftover.exists():
                with _lockedDirectory(target.parent, patience=0):
                    leftover.unlink(missing_ok=True)
        except OSError:
            return  # not ours to remove, or in use; the next rewrite replaces it

    def _readOnce(self) -> tuple[bytes, os.stat_result]:
        """The file's bytes, and its state just before they were read."""
        if not stat.S_ISREG(self.path.stat().st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        with self.path.open("rb") as source:
            before = os.fstat(source.fileno())
            return source.read(), before

    def _recall(self, known: Content | None, data: bytes) -> Content:
        """The content of the file's bytes, parsed only if they are not those that we know."""
        self.base = _digest(data)
        if known is not None and known.digest == self.base:
            return known
        content = self._parse(data)
        self.edited = True
        return content

    def _parse(self, data: bytes) -> Content:
        table, problems = readTable(data, str(self.path))
        problems = byLine([*problems, *self.check(table)])
        if problems:
            raise ConfigError(problems)
        return Content(table.entries, _digest(data))


@implementer(IWritableMappingSource, IReloadableMappingSource)
class FileSource:
    """Answers from the file's last good content, and rewrites the file to change a mapping.

    :param inThread: runs the blocking part.
    :param check: refuses a content that the configuration has no use for.
    """

    log = Logger()

    def __init__(self, path: Path, inThread: InThread, check: Check = noCheck) -> None:
        self._file = TableFile(path, check)
        self._inThread = inThread
        self._content: Content | None = None
        self._pending: list[tuple[Change, Deferred[str | None]]] = []
        self._turn = DeferredLock()

    def load(self) -> None:
        """Read the file for the first time. Blocks: only for before the reactor runs.

        :raises ConfigError: it cannot be used.
        """
        self._content = self._first()

    def reload(self) -> Deferred[None]:
        """Read the file again; fails with `ConfigError`, and keeps what it had, if it is bad."""
        done = self._turn.run(lambda: Deferred.fromCoroutine(self._read()))
        return done.addCallback(lambda content: None)

    def revise(self, check: Check | None = None) -> Deferred[Revision]:
        """Read the file again, and refuse by another check once the revision is in use.

        Fails with `ConfigError` if the file is bad. It has changed if a byte of it differs, or if
        a write has taken an edit along before.
        """
        turn = self._turn.acquire()
        return turn.addCallback(lambda _: Deferred.fromCoroutine(self._revise(check)))

    async def _revise(self, check: Check | None) -> Revision:
        former = self._file.check
        self._file.check = check or former
        try:
            content = await self._inThread(self._file.read)
        except BaseException:
            self._file.check = former
            self._turn.release()
            raise

        def use() -> None:
            self._content, self._file.edited = content, False
            self._turn.release()

        def discard() -> None:
            self._file.check = former
            self._turn.release()

        known = self._content.digest if self._content is not None else None
        changed = self._file.edited or content.digest != known
        return Revision(changed, use, discard, content.digest)

    def lookup(self, identifier: str) -> Deferred[str | None]:
        """Find the destination of an identifier in memory."""
        if self._content is None:
            return fail(MappingError("the mapping file was not read yet"))
        return succeed(self._content.entries.get(identifier))

    def store(self, identifier: str, destination: str) -> Deferred[None]:
        """Map an identifier; fires when the file is on disk, fails with nothing changed.

        Writes that come while the file is rewritten are done together in the next rewrite.
        """
        if not isStorable(identifier):
            return fail(InvalidIdentifier("a mapping file cannot hold it"))
        if not isStorable(destination):
            return fail(MappingError("a mapping file cannot hold this destination"))
        written = self._change(Change(identifier, sys.intern(destination)))
        return written.addCallback(lambda former: None)

    def remove(self, identifier: str) -> Deferred[bool]:
        """Forget an identifier, as `store` does; the answer says whether it was mapped."""
        written = self._change(Change(identifier, None))
        return written.addCallback(lambda former: former is not None)

    def _first(self) -> Content:
        self._file.sweep()
        return self._file.read()

    async def _read(self) -> Content:
        read = self._first if self._content is None else self._file.read
        content = self._content = await self._inThread(read)
        return content

    def _change(self, change: Change) -> Deferred[str | None]:
        """Queue a change; the first in the queue orders the rewrite that takes them all."""
        done: Deferred[str | None] = Deferred()
        self._pending.append((change, done))
        if len(self._pending) == 1:
            self._turn.run(lambda: Deferred.fromCoroutine(self._writePending()))
        return done

    async def _writePending(self) -> None:
        """Make all queued changes in one rewrite and answer each of them."""
        batch, self._pending = self._pending, []
        changes = [change for change, _ in batch]
        try:
            self._content, former = await self._inThread(
                partial(self._file.rewrite, self._content, changes)
            )
        except Exception as error:  # whatever went wrong, somebody waits for each change
            reason = self._reason(error)
            for _, done in batch:
                done.errback(reason)
        else:
            self.rewritten(changes)
            for (_, done), destination in zip(batch, former, strict=True):
                done.callback(destination)

    def rewritten(self, changes: Sequence[Change]) -> None:
        """Hear of a rewrite before those who have asked for its changes."""

    def _reason(self, error: Exception) -> MappingError:
        """Say to those who wait why nothing was written."""
        if isinstance(error, MappingError):
            return error
        if isinstance(error, ConfigError):
            return MappingError(f"not written: the file was edited and is bad: {error.problems[0]}")
        self.log.failure("a rewrite of the mapping file failed")
        return MappingError("the mapping file was not written")


@contextmanager
def _lockedDirectory(directory: Path, patience: float = _LOCK_PATIENCE) -> Iterator[int]:
    """Keep other processes of ours from rewriting files in a directory; yields its descriptor.

    :raises OSError: ETIMEDOUT when another process held it for longer than `patience` seconds.
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        deadline = time.monotonic() + patience
        while not _tryLock(descriptor):
            if time.monotonic() >= deadline:
                raise OSError(errno.ETIMEDOUT, "another process keeps it locked")
            time.sleep(_LOCK_PAUSE)
        yield descriptor
    finally:
        os.close(descriptor)


def _tryLock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _replace(target: Path, data: bytes, original: os.stat_result, directory: int) -> bool:
    """Put new bytes in a file's place, durably; needs the directory's lock.

    :param original: the file's state when it was read: False, and nothing done, if it is another.
    :raises OSError: nothing was changed (but for a directory that could not be synced).
    """
    temporary = _temporaryFor(target)
    temporary.unlink(missing_ok=True)
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as output:
            output.write(data)
            output.flush()
            _resemble(descriptor, original)
            os.fsync(descriptor)
        if not _sameFile(original, target.stat()):
            return False
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    os.fsync(directory)
    return True


def _resemble(descriptor: int, original: os.stat_result) -> None:
    """Give a new file the owner and mode of the one that it replaces."""
    new = os.fstat(descriptor)
    if (new.st_uid, new.st_gid) != (original.st_uid, original.st_gid):
        os.fchown(descriptor, original.st_uid, original.st_gid)
    os.fchmod(descriptor, stat.S_IMODE(original.st_mode))


def _temporaryFor(target: Path) -> Path:
    """Where a file's next content is written: one place, so that a leftover is found again."""
    return target.with_name(f".{target.name}.mailproxy-new")


def _sameFile(one: os.stat_result, other: os.stat_result) -> bool:
    """Whether two looks at a file saw the same one with nothing written in between."""
    return all(
        getattr(one, name) == getattr(other, name)
        for name in ("st_dev", "st_ino", "st_size", "st_mtime_ns", "st_ctime_ns")
    )


def _digest(data: bytes) -> bytes:
    return blake2b(data, digest_size=16).digest()
