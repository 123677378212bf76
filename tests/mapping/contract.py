"""What every writable mapping source must do, whatever it keeps its mappings in."""

from typing import TYPE_CHECKING, Any

from twisted.internet.defer import gatherResults
from zope.interface.verify import verifyObject

from mailproxy.errors import InvalidIdentifier
from mailproxy.mapping.interfaces import IMappingSource, IWritableMappingSource

if TYPE_CHECKING:
    from twisted.trial.unittest import TestCase as _Base
else:
    _Base = object

ODD = (
    "#hash@example.org",
    "50%off@example.org",
    "%s%d%1$s@example.org",
    "a/b=c@example.org",
    "o'brien;drop--@example.org",
    "back\\slash@example.org",
    "*?[a-z]{x}$1@example.org",
    "route:colon:@example.org",
    "größe@exämple.org",
    "用户@例子.example",
    "\N{GRINNING FACE}@example.org",
    "x" * 500 + "@example.org",
)
"""Legal identifiers that a careless store would mistake for something else."""


class SourceContract(_Base):
    """Mix into a trial TestCase and provide `makeSource`.

    :cvar refused: those of `ODD` that this store cannot hold and must say so.
    """

    refused: tuple[str, ...] = ()

    async def makeSource(self) -> Any:
        """Build an empty source, ready to be asked; the test case closes it."""
        raise NotImplementedError

    async def test_providesTheInterface(self) -> None:
        """The source says that it is one, and has the methods to show for it."""
        source = await self.makeSource()
        verifyObject(IMappingSource, source)
        verifyObject(IWritableMappingSource, source)

    async def test_absenceIsNone(self) -> None:
        """An identifier that was never stored is absent, which is not an error."""
        source = await self.makeSource()
        self.assertIsNone(await source.lookup("nobody@example.org"))

    async def test_storedMappingIsFound(self) -> None:
        """A stored mapping is found at once, as text, and others stay absent."""
        source = await self.makeSource()
        self.assertIsNone(await source.store("ann@example.org", "new"))
        found = await source.lookup("ann@example.org")
        self.assertEqual(found, "new")
        self.assertIs(type(found), str)
        self.assertIsNone(await source.lookup("bob@example.org"))

    async def test_storeOverwrites(self) -> None:
        """The latest destination counts."""
        source = await self.makeSource()
        await source.store("ann@example.org", "old")
        await source.store("ann@example.org", "new")
        self.assertEqual(await source.lookup("ann@example.org"), "new")

    async def test_storingTheSameTwiceIsFine(self) -> None:
        """A mapping that is there already can be stored again."""
        source = await self.makeSource()
        await source.store("ann@example.org", "new")
        await source.store("ann@example.org", "new")
        self.assertEqual(await source.lookup("ann@example.org"), "new")

    async def test_removeTellsWhetherThereWasOne(self) -> None:
        """Removing a mapping is True once; it is absent from then on."""
        source = await self.makeSource()
        await source.store("ann@example.org", "new")
        self.assertIs(await source.remove("ann@example.org"), True)
        self.assertIs(await source.remove("ann@example.org"), False)
        self.assertIsNone(await source.lookup("ann@example.org"))

    async def test_oddIdentifiersAreHeldOrRefused(self) -> None:
        """A legal identifier comes back as it was stored, or the store says that it cannot."""
        source = await self.makeSource()
        for identifier in ODD:
            if identifier in self.refused:
                await self.assertFailure(source.store(identifier, "new"), InvalidIdentifier)
                self.assertIsNone(await source.lookup(identifier), identifier)
                self.assertIs(await source.remove(identifier), False, identifier)
            else:
                await source.store(identifier, "new")
        for identifier in set(ODD) - set(self.refused):
            self.assertEqual(await source.lookup(identifier), "new", identifier)
            self.assertIs(await source.remove(identifier), True, identifier)

    async def test_identifiersAreComparedExactly(self) -> None:
        """Case and accents make another identifier: normalizing is not the store's business."""
        source = await self.makeSource()
        await source.store("jose@example.org", "new")
        for other in ("Jose@example.org", "josé@example.org", "jose@example.or"):
            self.assertIsNone(await source.lookup(other), other)

    async def test_concurrentWritesAreAllKept(self) -> None:
        """Writes that are under way together are each answered and none is lost."""
        source = await self.makeSource()
        names = [f"account-{number}@example.org" for number in range(25)]
        await gatherResults([source.store(name, "new") for name in names])
        found = await gatherResults([source.lookup(name) for name in names])
        self.assertEqual(found, ["new"] * 25)
        removed = await gatherResults([source.remove(name) for name in names])
        self.assertEqual(removed, [True] * 25)
