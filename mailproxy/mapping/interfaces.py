"""What a store of mappings can be asked. No store is named here."""

from collections.abc import Callable, Mapping
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface

__all__ = [
    "IMappingPlugin",
    "IMappingSource",
    "IReloadableMappingSource",
    "IWritableMappingSource",
    "Revision",
]


def _nothing() -> None:
    """Do nothing."""


@attrs.frozen
class Revision:
    """A copy of a store that was read again and is not in use yet.

    Until one of both calls, the source takes no writes.

    :ivar changed: whether it differs from the copy in use.
    :ivar use: takes it into use; cannot fail.
    :ivar discard: forgets it.
    :ivar digest: two copies with the same one answer alike; empty where there is no copy.
    """

    changed: bool = False
    use: Callable[[], None] = _nothing
    discard: Callable[[], None] = _nothing
    digest: bytes = b""


class IMappingSource(Interface):
    """A store that knows the destinations of identifiers.

    Identifiers are normalized already. A source that must be started and stopped is a Twisted
    service too.
    """

    def lookup(identifier: str) -> Deferred[str | None]:
        """Find the destination of an identifier; None when it is not mapped.

        Fails with `MappingError` when the store could not tell. May be cancelled.
        """


class IWritableMappingSource(IMappingSource):
    """A source whose mappings can be changed."""

    def store(identifier: str, destination: str) -> Deferred[None]:
        """Map an identifier, whether it was mapped before or not.

        Fires when the store keeps it for good. Fails with `MappingError` when nothing was
        changed, and with `ReadOnlyMapping` when the store is configured to take no writes.
        """

    def remove(identifier: str) -> Deferred[bool]:
        """Forget an identifier; the answer says whether it was mapped. Fails as `store` does."""


class IReloadableMappingSource(IMappingSource):
    """A source that holds a copy of its store and can read it again."""

    def reload() -> Deferred[None]:
        """Read the store again.

        Fails with `ConfigError`, and keeps what it had, when the store cannot be used.
        """


class IMappingPlugin(Interface):
    """Makes sources of a third party's own; found as a Twisted plugin (`IPlugin`)."""

    name = Attribute("What the configuration calls it: `plugin:NAME`.")

    def makeSource(options: Mapping[str, Any], reactor: Any) -> IMappingSource:
        """Make a source; raises `ConfigError` when the options are not as they must be.

        Opens nothing: a configuration that is only checked has its source made, too.

        :param options: the configuration's `[mapping.plugin]` table, empty when there is none.
        """
