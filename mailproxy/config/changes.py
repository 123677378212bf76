"""What a reload can take into use, and which keys need a restart.

Pure: compares two configurations.
"""

from collections.abc import Iterator

from mailproxy.config.checks import checkTables
from mailproxy.config.draft import Draft, leads
from mailproxy.config.model import Admin, Config, Listener
from mailproxy.config.problems import keyPath

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
        *_admin(old.admin, new.admin),
    ]


def _listeners(old: Config, new: Config) -> Iterator[str]:
    """Listeners that have come or gone, and those whose sockets would have to be others."""
    for name in sorted(old.listener.keys() | new.listener.keys()):
        before, after = old.listener.get(name), new.listener.get(name)
        if before is None or after is None:
            yield keyPath(("listener", name))
        else:
            for key in _LISTENER_KEYS:
                if getattr(before, key) != getattr(after, key):
                    yield keyPath(("listener", name, key))


def _admin(old: Admin | None, new: Admin | None) -> Iterator[str]:
    """Management's keys; a token is named by the key that it is read from."""
    if old is None or new is None:
        if old is not new:
            yield "admin"
        return
    changed = {key for key in Admin.model_fields if getattr(old, key) != getattr(new, key)}
    if "bearer_token" in changed and new.bearer_token_file is not None:
        changed = changed - {"bearer_token"} | {"bearer_token_file"}
    yield from (f"admin.{key}" for key in Admin.model_fields if key in changed)


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


def unserved(config: Config) -> list[str]:
    """What a configuration in force lacks for listeners that are gone from the file but open."""
    parts = Draft(
        listeners=config.listener,
        hasListeners=bool(config.listener),
        destinations=config.destination,
        declared=frozenset(config.destination),
        certificates=config.tls.certificate,
        protocols=config.tls.protocols,
        routing=config.routing,
        mapping=config.mapping,
        leads=leads([route.model_dump(exclude_none=True) for route in config.http.route]),
        hasRoutes=bool(config.http.route),
        admin=config.admin,
    )
    return [f"{problem} (its listener is open until a restart)" for problem in checkTables(parts)]
