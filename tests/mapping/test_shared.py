"""Two processes hold one mapping file: what the one writes, the other has too."""

from twisted.internet.defer import Deferred

from mailproxy.mapping.shared import Rewrite, SharedFileSource
from tests.mapping.test_file import FileCase, HeldThread, atOnce, onlyOldAndNew


class SharedCase(FileCase):
    """A writer and a follower over one file.

    :ivar told: the rewrites that the writer has told of.
    """

    def setUp(self) -> None:
        """Load both."""
        super().setUp()
        self.told: list[Rewrite] = []
        self.writer = SharedFileSource(self.path, atOnce, onlyOldAndNew)
        self.thread = HeldThread()
        self.follower = SharedFileSource(self.path, self.thread, onlyOldAndNew)
        for source in (self.writer, self.follower):
            source.load()
        self.writer.tell = self.told.append

    def follow(self) -> Deferred[None]:
        """Let the follower hear of the last rewrite."""
        return self.follower.follow(self.told[-1])

    def assertAlike(self) -> None:
        """Both hold what is on the disk."""
        fresh = SharedFileSource(self.path, atOnce, onlyOldAndNew)
        fresh.load()
        self.assertEqual((self.writer.digest, self.follower.digest), (fresh.digest, fresh.digest))
        for name in ("ann", "bob", "zoe"):
            expected = self.successResultOf(fresh.lookup(name))
            self.assertEqual(self.successResultOf(self.follower.lookup(name)), expected)


class FollowTests(SharedCase):
    """What the follower does."""

    def test_changesAreMadeInMemory(self) -> None:
        """Nothing is read for that: the file may have a million lines."""
        self.successResultOf(self.writer.store("zoe", "old"))
        self.successResultOf(self.follow())
        self.assertEqual(self.thread.jobs, [])
        self.assertAlike()
        self.successResultOf(self.writer.remove("ann"))
        self.successResultOf(self.follow())
        self.assertAlike()

    def test_itIsToldBeforeTheAnswer(self) -> None:
        """Who asked for the write may rely on everybody's knowing."""
        order: list[str] = []
        self.writer.tell = lambda rewrite: order.append("told")
        self.writer.store("zoe", "old").addCallback(lambda _: order.append("answered"))
        self.assertEqual(order, ["told", "answered"])

    def test_editThatWasTakenAlongIsRead(self) -> None:
        """Its lines are not among the changes."""
        self.path.write_bytes(b"ann old\nbob new\n")
        self.successResultOf(self.writer.store("zoe", "old"))
        following = self.follow()
        self.thread.work()
        self.successResultOf(following)
        self.assertAlike()

    def test_rewriteThatWasMissedIsMadeUpFor(self) -> None:
        """The next one has another base than what we hold."""
        self.successResultOf(self.writer.store("zoe", "old"))
        self.successResultOf(self.writer.store("bob", "new"))
        following = self.follow()
        self.thread.work()
        self.successResultOf(following)
        self.assertAlike()

    def test_sameRewriteTwiceIsOne(self) -> None:
        """Several writes are answered by one rewrite."""
        self.successResultOf(self.writer.store("zoe", "old"))
        for _ in range(2):
            self.successResultOf(self.follow())
        self.assertEqual(self.thread.jobs, [])
        self.assertAlike()

    def test_badFileIsNotTaken(self) -> None:
        """Somebody has broken it meanwhile: what is in memory stays."""
        self.path.write_bytes(b"ann old\n")
        self.successResultOf(self.writer.store("zoe", "old"))
        self.path.write_bytes(b"ann\n")
        following = self.follow()
        self.thread.work()
        self.successResultOf(following)
        self.assertEqual(self.successResultOf(self.follower.lookup("ann")), "new")
