"""The file source: what it reads, how it rewrites, and what it never destroys."""

import errno
import fcntl
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred, execute
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface.verify import verifyObject

from mailproxy.config.table import Table
from mailproxy.errors import ConfigError, InvalidIdentifier, MappingError
from mailproxy.mapping import file
from mailproxy.mapping.file import Check, FileSource
from mailproxy.mapping.interfaces import IReloadableMappingSource
from tests.mapping.contract import SourceContract

T = TypeVar("T")


def atOnce(function: Callable[[], T]) -> Deferred[T]:
    """Do a thread's work without a thread."""
    return execute(function)


class HeldThread:
    """A thread that works when the test says so.

    :ivar jobs: what it was given to do, in turn.
    """

    def __init__(self) -> None:
        self.jobs: list[Callable[[], object]] = []

    def __call__(self, function: Callable[[], T], /) -> Deferred[T]:
        """Keep the work for later."""
        done: Deferred[T] = Deferred()
        self.jobs.append(lambda: execute(function).chainDeferred(done))
        return done

    def work(self) -> None:
        """Do the next piece of work."""
        self.jobs.pop(0)()


def onlyOldAndNew(table: Table) -> list[str]:
    """Refuse every destination but two."""
    extra = set(table.entries.values()) - {"old", "new"}
    return [f'destination "{name}" is not declared' for name in sorted(extra)]


class ContractTests(SourceContract, TestCase):
    """The file source is a writable source like any other."""

    refused = ("#hash@example.org",)

    async def makeSource(self) -> FileSource:
        """A source over an empty file, with real threads."""
        path = Path(self.mktemp())
        path.touch()
        source = FileSource(path, deferToThread)
        await source.reload()
        return source


class FileCase(SynchronousTestCase):
    """A directory with one file of two mappings, and a source that has read it."""

    def setUp(self) -> None:
        """Write the file and load it."""
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir()
        self.path = self.directory / "accounts"
        self.path.write_bytes(b"# moved so far\nbob  old\n\nann\tnew\n")
        self.source = FileSource(self.path, atOnce, onlyOldAndNew)
        self.source.load()

    def find(self, identifier: str) -> str | None:
        """What the source answers."""
        return self.successResultOf(self.source.lookup(identifier))

    def isAlone(self) -> None:
        """Assert that no other file lies beside the mapping file."""
        self.assertEqual([entry.name for entry in self.directory.iterdir()], ["accounts"])


class ReadTests(FileCase):
    """Reading at the start and on reload."""

    def test_isReloadable(self) -> None:
        """The source says that it can be read again."""
        verifyObject(IReloadableMappingSource, self.source)

    def test_readsTheWholeFile(self) -> None:
        """Comments and blank lines are passed over; the rest is known after loading."""
        self.assertEqual([self.find("ann"), self.find("bob"), self.find("#")], ["new", "old", None])

    def test_cannotTellBeforeItWasRead(self) -> None:
        """A source that knows nothing yet does not pretend that nobody is mapped."""
        fresh = FileSource(self.path, atOnce)
        self.failureResultOf(fresh.lookup("ann"), MappingError)

    def test_editTakesEffectOnReloadOnly(self) -> None:
        """Lookups never touch the file."""
        self.path.write_bytes(b"ann old\n")
        self.assertEqual(self.find("ann"), "new")
        self.successResultOf(self.source.reload())
        self.assertEqual(self.find("ann"), "old")
        self.assertIsNone(self.find("bob"))

    def test_malformedFileIsRefused(self) -> None:
        """A reload of a bad file names the line and keeps the old table."""
        self.path.write_bytes(b"ann old\nbob\n")
        error = self.failureResultOf(self.source.reload(), ConfigError).value
        self.assertIn(f"{self.path}:2:", error.problems[0])
        self.assertEqual(self.find("ann"), "new")

    def test_undeclaredDestinationIsRefused(self) -> None:
        """A reload of a file that the configuration cannot use keeps the old table."""
        self.path.write_bytes(b"ann elsewhere\n")
        error = self.failureResultOf(self.source.reload(), ConfigError).value
        self.assertEqual(error.problems, ('destination "elsewhere" is not declared',))
        self.assertEqual(self.find("ann"), "new")

    def test_missingFileIsRefused(self) -> None:
        """Without its file the source keeps what it had, and a new one does not start."""
        self.path.unlink()
        self.failureResultOf(self.source.reload(), ConfigError)
        self.assertEqual(self.find("ann"), "new")
        error = self.assertRaises(ConfigError, FileSource(self.path, atOnce).load)
        self.assertIn(str(self.path), error.problems[0])

    def test_fileThatChangesWhileItIsReadIsReadAgain(self) -> None:
        """A half-written table is not taken for a whole one."""
        real, path = file.TableFile._readOnce, self.path

        def interrupted(reader: file.TableFile) -> tuple[bytes, os.stat_result]:
            self.patch(file.TableFile, "_readOnce", real)
            answer = real(reader)
            path.write_bytes(b"ann new\nbob new\ncat new\n")
            return answer

        path.write_bytes(b"ann new\n")
        self.patch(file.TableFile, "_readOnce", interrupted)
        self.successResultOf(self.source.reload())
        self.assertEqual(self.find("cat"), "new")

    def test_readingHappensInTheThread(self) -> None:
        """Nothing is read on the reactor's own time."""
        thread = HeldThread()
        source = FileSource(self.path, thread)
        waiting = source.reload()
        self.assertNoResult(waiting)
        thread.work()
        self.successResultOf(waiting)
        self.assertEqual(self.successResultOf(source.lookup("ann")), "new")


class RevisionTests(FileCase):
    """Serving on under another configuration."""

    def anywhere(self, table: Table) -> list[str]:
        """Refuse nothing."""
        return []

    def revise(self, check: Check) -> bool:
        """Revise and use it; whether anything has changed."""
        revision = self.successResultOf(self.source.revise(check))
        revision.use()
        return revision.changed

    def test_tellsWhetherTheFileDiffers(self) -> None:
        """Who remembers answers need not forget them for nothing."""
        self.assertFalse(self.revise(onlyOldAndNew))
        self.path.write_bytes(b"ann old\n")
        self.assertTrue(self.revise(onlyOldAndNew))
        self.assertEqual(self.find("ann"), "old")

    def test_anEditThatAWriteTookAlongIsADifference(self) -> None:
        """Nobody has been told of it before; the next revision tells, once."""
        self.path.write_bytes(b"ann new\n")
        self.successResultOf(self.source.store("bob", "old"))
        self.assertEqual(self.find("ann"), "new")
        self.assertTrue(self.revise(onlyOldAndNew))
        self.assertFalse(self.revise(onlyOldAndNew))

    def test_ownWritesAreNoDifference(self) -> None:
        """What went through the source is known."""
        self.successResultOf(self.source.store("ann", "old"))
        self.assertFalse(self.revise(onlyOldAndNew))

    def test_newCheckHoldsFromThenOn(self) -> None:
        """For the file as it is, and for reloads and rewrites later."""
        self.path.write_bytes(b"ann elsewhere\n")
        self.assertTrue(self.revise(self.anywhere))
        self.assertEqual(self.find("ann"), "elsewhere")
        self.successResultOf(self.source.reload())
        self.successResultOf(self.source.store("bob", "new"))

    def test_refusedRevisionChangesNeitherContentNorCheck(self) -> None:
        """Bad lines, and lines that the new configuration has no use for."""
        for content, check in ((b"ann\n", self.anywhere), (b"ann older\n", onlyOldAndNew)):
            self.path.write_bytes(content)
            self.failureResultOf(self.source.revise(check), ConfigError)
            self.assertEqual(self.find("ann"), "new")
            self.path.write_bytes(b"ann elsewhere\n")
            self.failureResultOf(self.source.reload(), ConfigError)

    def test_reloadInBetweenKeepsTheNewCheck(self) -> None:
        """One that was asked for before, and comes after, does not bring the old check back."""
        thread = HeldThread()
        source = FileSource(self.path, thread, onlyOldAndNew)
        source.load()
        revising, reloading = source.revise(self.anywhere), source.reload()
        self.path.write_bytes(b"ann elsewhere\n")
        thread.work()
        self.successResultOf(revising).use()
        thread.work()
        self.successResultOf(reloading)

    def test_cancelledRevisionIsNone(self) -> None:
        """Who leaves changes nothing, and blocks nobody."""
        thread = HeldThread()
        source = FileSource(self.path, thread, onlyOldAndNew)
        source.load()
        self.path.write_bytes(b"ann elsewhere\n")
        revising = source.revise(self.anywhere)
        revising.cancel()
        self.failureResultOf(revising, CancelledError)
        thread.jobs.clear()
        reloading = source.reload()
        thread.work()
        self.failureResultOf(reloading, ConfigError)
        self.assertEqual(self.successResultOf(source.lookup("ann")), "new")

    def test_discardedRevisionIsNone(self) -> None:
        """Neither its content nor its check is used."""
        self.path.write_bytes(b"ann elsewhere\n")
        self.successResultOf(self.source.revise(self.anywhere)).discard()
        self.assertEqual(self.find("ann"), "new")
        self.failureResultOf(self.source.reload(), ConfigError)

    def test_writesWaitForItsOutcome(self) -> None:
        """A write in between would be lost, or take a content along that nobody wants."""
        for settle in ("use", "discard"):
            revision = self.successResultOf(self.source.revise())
            writing = self.source.store("zoe", "old")
            self.assertNoResult(writing)
            self.assertIsNone(self.find("zoe"))
            getattr(revision, settle)()
            self.successResultOf(writing)
            self.successResultOf(self.source.remove("zoe"))


class WriteTests(FileCase):
    """How the file is rewritten."""

    def test_fileIsSortedAndTabbed(self) -> None:
        """A rewrite leaves one sorted line per mapping, a tab between."""
        self.successResultOf(self.source.store("abe", "old"))
        self.assertEqual(self.path.read_bytes(), b"abe\told\nann\tnew\nbob\told\n")
        self.assertEqual(self.find("abe"), "old")
        self.isAlone()

    def test_removedLineIsGone(self) -> None:
        """A removed mapping is in neither file nor memory."""
        self.assertTrue(self.successResultOf(self.source.remove("bob")))
        self.assertEqual(self.path.read_bytes(), b"ann\tnew\n")
        self.assertIsNone(self.find("bob"))

    def test_nothingIsWrittenForNoChange(self) -> None:
        """What is in the file already needs no rewrite, and keeps its comments."""
        before = self.path.stat()
        self.successResultOf(self.source.store("ann", "new"))
        self.assertFalse(self.successResultOf(self.source.remove("zoe")))
        self.assertEqual(self.path.stat().st_ino, before.st_ino)
        self.assertIn(b"# moved so far", self.path.read_bytes())

    def test_modeIsKept(self) -> None:
        """The new file is as private, or as public, as the old one."""
        for mode in (0o640, 0o604, 0o600, 0o666):
            self.path.chmod(mode)
            self.successResultOf(self.source.store("ann", "old" if mode == 0o640 else "new"))
            self.successResultOf(self.source.store("ann", "old" if mode == 0o604 else "new"))
            self.successResultOf(self.source.remove("ann"))
            self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), mode)

    def test_ownerIsKept(self) -> None:
        """The new file belongs to whom the old one belonged."""
        if os.geteuid() != 0:
            self.skipTest("only root may give files away")
        os.chown(self.path, 12345, 23456)
        self.successResultOf(self.source.store("abe", "old"))
        found = self.path.stat()
        self.assertEqual((found.st_uid, found.st_gid), (12345, 23456))

    def test_ownerThatCannotBeKeptIsAFailedWrite(self) -> None:
        """A file that we may not give back to its owner is left alone."""
        if os.geteuid() != 0:
            self.skipTest("only root may give files away")
        os.chown(self.path, 12345, 23456)
        before = self.path.read_bytes()

        def forbidden(*arguments: object) -> None:
            raise PermissionError(errno.EPERM, "Operation not permitted")

        self.patch(os, "fchown", forbidden)
        self.failureResultOf(self.source.store("abe", "old"), MappingError)
        self.assertEqual(self.path.read_bytes(), before)
        self.isAlone()

    def test_symbolicLinkIsFollowed(self) -> None:
        """The file behind a link is rewritten, in its own directory, and the link stays."""
        link = Path(self.mktemp()).absolute()
        link.symlink_to(self.path)
        source = FileSource(link, atOnce)
        source.load()
        self.successResultOf(source.store("abe", "old"))
        self.assertTrue(link.is_symlink())
        self.assertIn(b"abe\told\n", self.path.read_bytes())
        self.isAlone()

    def test_dataIsSyncedBeforeTheRenameAndTheDirectoryAfter(self) -> None:
        """After a power cut there is the old file or the new one, and never an empty one."""
        events: list[str] = []
        realSync, realReplace = os.fsync, Path.replace

        def sync(descriptor: int) -> None:
            isDirectory = stat.S_ISDIR(os.fstat(descriptor).st_mode)
            events.append("sync directory" if isDirectory else "sync file")
            realSync(descriptor)

        def replace(source: Path, target: Path) -> Path:
            events.append("rename")
            return realReplace(source, target)

        self.patch(os, "fsync", sync)
        self.patch(Path, "replace", replace)
        self.successResultOf(self.source.store("abe", "old"))
        self.assertEqual(events, ["sync file", "rename", "sync directory"])

    def test_unstorableIdentifierIsRefused(self) -> None:
        """What the grammar would read as something else never gets into the file."""
        before = self.path.read_bytes()
        for identifier in ("#ann", "", "a b", "a\nb new"):
            self.failureResultOf(self.source.store(identifier, "new"), InvalidIdentifier)
        self.failureResultOf(self.source.store("ann", "old\nbob new"), MappingError)
        self.assertEqual(self.path.read_bytes(), before)


class FailedWriteTests(FileCase):
    """Writes that go wrong."""

    def check(self) -> None:
        """Let a write fail and see that nothing has changed, then that the next one works."""
        before = self.path.read_bytes()
        self.failureResultOf(self.source.store("abe", "new"), MappingError)
        self.failureResultOf(self.source.remove("ann"), MappingError)
        self.assertEqual(self.path.read_bytes(), before)
        self.isAlone()
        self.assertEqual([self.find("abe"), self.find("ann")], [None, "new"])

    def test_fullDiskChangesNothing(self) -> None:
        """File and memory stay as they were, no temporary file stays, the next write works."""

        def full(descriptor: int) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        real = os.fsync
        self.patch(os, "fsync", full)
        self.check()
        self.patch(os, "fsync", real)
        self.successResultOf(self.source.store("abe", "new"))
        self.assertEqual(self.find("abe"), "new")

    def test_failedRenameChangesNothing(self) -> None:
        """The last step may fail like the others."""

        def denied(source: Path, target: Path) -> Path:
            raise PermissionError(errno.EACCES, "Permission denied")

        self.patch(Path, "replace", denied)
        self.check()

    def test_missingFileIsNotCreatedAnew(self) -> None:
        """A file that somebody took away is not brought back with our memory of it."""
        self.path.unlink()
        self.failureResultOf(self.source.store("abe", "new"), MappingError)
        self.assertEqual(list(self.directory.iterdir()), [])

    def test_ourOwnMistakeIsLoggedAndAnswered(self) -> None:
        """Whatever happens in the thread, nobody waits forever."""
        self.patch(file, "formatTable", lambda entries: 1 // 0)
        self.failureResultOf(self.source.store("abe", "new"), MappingError)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_leftoverOfAKilledProcessIsSweptAtTheStart(self) -> None:
        """An unfinished rewrite of a process that died does not stay for ever."""
        file._temporaryFor(self.path).write_bytes(b"half a li")
        FileSource(self.path, atOnce).load()
        self.isAlone()

    def test_leftoverDoesNotStopAWrite(self) -> None:
        """A rewrite takes the place of an unfinished one."""
        file._temporaryFor(self.path).write_bytes(b"half a li")
        self.successResultOf(self.source.store("abe", "new"))
        self.isAlone()

    def test_rewriteUnderWayIsNotSwept(self) -> None:
        """A process that starts leaves alone what another one is writing."""
        temporary = file._temporaryFor(self.path)
        temporary.write_bytes(b"half a li")
        descriptor = os.open(self.directory, os.O_RDONLY)
        self.addCleanup(os.close, descriptor)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        FileSource(self.path, atOnce).load()
        self.assertTrue(temporary.exists())

    def test_lockedDirectoryIsNotWaitedForForever(self) -> None:
        """A process that never ends its rewrite fails ours after a while."""
        descriptor = os.open(self.directory, os.O_RDONLY)
        self.addCleanup(os.close, descriptor)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        real = file._lockedDirectory
        self.patch(file, "_lockedDirectory", lambda directory: real(directory, patience=0.05))
        self.check()


class HandEditTests(FileCase):
    """Edits made by hand since the last load."""

    def test_editIsMergedIn(self) -> None:
        """A write keeps what was edited, and the source knows it from then on."""
        self.path.write_bytes(b"ann new\nbob new\ncat old\n")
        self.successResultOf(self.source.store("abe", "old"))
        self.assertEqual(self.path.read_bytes(), b"abe\told\nann\tnew\nbob\tnew\ncat\told\n")
        self.assertEqual([self.find("bob"), self.find("cat")], ["new", "old"])

    def test_editOfEqualSizeInTheSameInstantIsMergedIn(self) -> None:
        """An edit is seen although size, inode and time stamps are the same."""
        before = self.path.stat()
        data = self.path.read_bytes().replace(b"bob  old", b"bob  new")
        self.path.write_bytes(data)
        os.utime(self.path, ns=(before.st_atime_ns, before.st_mtime_ns))
        self.successResultOf(self.source.store("abe", "old"))
        self.assertIn(b"bob\tnew", self.path.read_bytes())

    def test_removedLineStaysRemoved(self) -> None:
        """A line deleted by hand does not come back with the next write."""
        self.path.write_bytes(b"ann new\n")
        self.successResultOf(self.source.store("abe", "old"))
        self.assertEqual(self.path.read_bytes(), b"abe\told\nann\tnew\n")

    def test_badEditRefusesTheWrite(self) -> None:
        """A write into a file that does not parse fails, naming the line; the edit stays."""
        self.path.write_bytes(b"ann new\nbob\n")
        error = self.failureResultOf(self.source.store("abe", "old"), MappingError).value
        self.assertIn(f"{self.path}:2:", str(error))
        self.assertEqual(self.path.read_bytes(), b"ann new\nbob\n")
        self.assertEqual(self.find("bob"), "old")

    def test_unusableEditRefusesTheWrite(self) -> None:
        """A write into a file that names an undeclared destination fails; the edit stays."""
        self.path.write_bytes(b"ann elsewhere\n")
        self.failureResultOf(self.source.store("abe", "old"), MappingError)
        self.assertEqual(self.path.read_bytes(), b"ann elsewhere\n")

    def test_editDuringTheRewriteIsNotOverwritten(self) -> None:
        """An edit saved while our new file is being written makes us start again."""
        real = os.fsync

        def edit(descriptor: int) -> None:
            self.patch(os, "fsync", real)
            self.path.write_bytes(b"ann new\ncat old\n")

        self.patch(os, "fsync", edit)
        self.successResultOf(self.source.store("abe", "old"))
        self.assertEqual(self.path.read_bytes(), b"abe\told\nann\tnew\ncat\told\n")
        self.isAlone()

    def test_fileThatNeverRestsIsLeftAlone(self) -> None:
        """Who edits all the time wins: the write fails."""
        counter = iter(range(100))

        def edit(descriptor: int) -> None:
            self.path.write_bytes(f"ann new\ncat{next(counter)} old\n".encode())

        self.patch(os, "fsync", edit)
        self.failureResultOf(self.source.store("abe", "old"), MappingError)
        self.assertIn(b"cat", self.path.read_bytes())
        self.isAlone()

    def test_writesOfTwoProcessesAreBothKept(self) -> None:
        """Two sources over one file do not undo each other's writes."""
        other = FileSource(self.path, atOnce)
        other.load()
        self.successResultOf(self.source.store("abe", "old"))
        self.successResultOf(other.store("cat", "old"))
        self.successResultOf(self.source.store("dan", "old"))
        self.assertEqual([self.find(name) for name in ("abe", "cat", "dan")], ["old"] * 3)


class ConcurrencyTests(FileCase):
    """Writes, reloads and lookups at the same time."""

    def setUp(self) -> None:
        """Have the work wait for the test."""
        super().setUp()
        self.thread = HeldThread()
        self.source = FileSource(self.path, self.thread)
        self.source.load()

    def test_writesAreMergedIntoOneRewrite(self) -> None:
        """What comes during a rewrite is done together in the next, each answered once on disk."""
        first = self.source.store("abe", "old")
        others = [self.source.store(f"x{number}", "new") for number in range(2000)]
        removed = self.source.remove("bob")
        self.thread.work()
        self.successResultOf(first)
        self.assertNoResult(removed)
        self.assertEqual(self.find("bob"), "old")
        self.thread.work()
        for other in others:
            self.successResultOf(other)
        self.assertTrue(self.successResultOf(removed))
        self.assertEqual(self.thread.jobs, [])
        self.assertEqual(self.path.read_bytes().count(b"\n"), 2002)

    def test_orderWithinARewriteIsKept(self) -> None:
        """The last of several writes to one identifier counts, and each gets its own answer."""
        self.source.store("abe", "old")
        answers: list[Deferred[Any]] = [
            self.source.remove("cat"),
            self.source.store("cat", "old"),
            self.source.remove("cat"),
            self.source.store("cat", "new"),
        ]
        self.thread.work()
        self.thread.work()
        self.assertEqual(
            [self.successResultOf(answer) for answer in answers], [False, None, True, None]
        )
        self.assertEqual(self.find("cat"), "new")

    def test_memoryFollowsTheDisk(self) -> None:
        """A lookup sees a write when it is on disk and not before."""
        written = self.source.store("ann", "old")
        self.assertEqual(self.find("ann"), "new")
        self.thread.work()
        self.successResultOf(written)
        self.assertEqual(self.find("ann"), "old")

    def test_reloadWaitsForARewrite(self) -> None:
        """Reading and rewriting take turns, so neither undoes the other."""
        written = self.source.store("abe", "old")
        reloaded = self.source.reload()
        self.assertEqual(len(self.thread.jobs), 1)
        self.thread.work()
        self.thread.work()
        self.successResultOf(written)
        self.successResultOf(reloaded)
        self.assertEqual(self.find("abe"), "old")

    def test_failureOfOneRewriteSparesTheNext(self) -> None:
        """Writes fail together with their own rewrite only."""
        first = self.source.store("abe", "old")
        second = self.source.store("cat", "old")
        good = self.path.read_bytes()
        self.path.write_bytes(b"ann\n")
        self.thread.work()
        self.failureResultOf(first, MappingError)
        self.path.write_bytes(good)
        self.thread.work()
        self.successResultOf(second)
        self.assertEqual([self.find("abe"), self.find("cat")], [None, "old"])

    def test_callerMayLeave(self) -> None:
        """A caller that does not wait for its write does not disturb it or its companions."""
        first = self.source.store("abe", "old")
        second = self.source.store("cat", "old")
        first.addErrback(lambda failure: None)
        first.cancel()
        self.thread.work()
        self.thread.work()
        self.successResultOf(second)
        self.assertEqual([self.find("abe"), self.find("cat")], ["old", "old"])
