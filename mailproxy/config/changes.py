"""What a reload can take into use, and which keys need a restart.

Pure: compares two configurations.
"""

from collections.abc import Iterator

from mailproxy.config.model import Config, Listener

_LISTENER_KEYS = ("protocol", "bind")
_CACHE_KEYS = ("positive_ttl", "negative_ttl", "cache_max_entries", "lookup_timeout")


def needRestart(old: Config, new: Config) -> list[str]:
    """The keys whose new value holds only after a restart, in the order of the file's tables."""
    return [
        *(["server.threads"] if old.server.threads != new.server.threads else []),
        *_listeners(old, new),
        *(
            f"mapping.{key}"
            for key in _CACHE_KEYS
            if getattr(old.mapping, key) != getattr(new.mapping, key)
        ),
        *(["admin"] if old.admin != new.admin else []),
    ]


def _listeners(old: Config, new: Config) -> Iterator[str]:
    """Listeners that have come or gone, and those whose sockets would have to be others."""
    for name in sorted(old.listener.keys() | new.listener.keys()):
        before, after = old.listener.get(name), new.listener.get(name)
        if before is None or after is None:
            yield f"listener.{name}"
        else:
            for key in _LISTENER_KEYS:
                if getattr(before, key) != getattr(after, key):
                    yield f"listener.{name}.{key}"


def inForce(old: Config, new: Config) -> Config:
    """What holds after a reload: the new configuration, with the old one where `needRestart`."""
    kept = {key: getattr(old.mapping, key) for key in _CACHE_KEYS}
    return new.model_copy(
        update={
            "server": new.server.model_copy(update={"threads": old.server.threads}),
            "listener": {name: _listener(old, new, name) for name in old.listener},
            "mapping": new.mapping.model_copy(update=kept),
            "admin": old.admin,
        }
    )


def _listener(old: Config, new: Config, name: str) -> Listener:
    """A listener on the sockets that are open."""
    before, after = old.listener[name], new.listener.get(name)
    if after is None or after.protocol != before.protocol:
        return before
    return after.model_copy(update={"bind": before.bind})
