"""A mapping file that several processes hold in memory: one writes, the others follow.

Knows what a rewrite was made of; must not know how the processes speak to each other.
"""

from collections.abc import Callable, Sequence

import attrs
from twisted.internet.defer import Deferred

from mailproxy.errors import ConfigError
from mailproxy.mapping.file import Change, Content, FileSource

__all__ = ["Rewrite", "SharedFileSource"]


@attrs.frozen
class Rewrite:
    """What one process has made of the file.

    :ivar base: the digest of the content that it began with.
    :ivar digest: of the content that it has written.
    """

    base: bytes
    digest: bytes
    changes: tuple[Change, ...] = attrs.field(repr=False)


def _keep(rewrite: Rewrite) -> None:
    """Tell nobody: there is no other process."""


class SharedFileSource(FileSource):
    """One process's copy of the file.

    :ivar tell: hears of each rewrite before it is answered.
    """

    tell: Callable[[Rewrite], None] = staticmethod(_keep)

    @property
    def digest(self) -> bytes:
        """Of the content in memory: two processes with the same one answer alike."""
        return b"" if self._content is None else self._content.digest

    def rewritten(self, changes: Sequence[Change]) -> None:
        """Tell the others."""
        self.tell(Rewrite(self._file.base, self.digest, tuple(changes)))

    def follow(self, rewrite: Rewrite) -> Deferred[None]:
        """Have in memory what another process has written.

        Who had what that one began with makes the same changes; else the file is read again, for an
        edit by hand was taken along.
        """
        return self._turn.run(lambda: Deferred.fromCoroutine(self._follow(rewrite)))

    async def _follow(self, rewrite: Rewrite) -> None:
        content = self._content
        if self.digest == rewrite.digest:
            return
        if content is not None and content.digest == rewrite.base:
            for change in rewrite.changes:
                change.applyTo(content.entries)
            self._content = Content(content.entries, rewrite.digest)
            return
        try:
            self._content = await self._inThread(self._file.read)
        except ConfigError as error:
            self.log.warn("the mapping file was not read again: {error}", error=error)
