"""The `[mapping]` tables: which store knows where accounts live, and how long answers are kept."""

import enum
import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, SecretStr, ValidationInfo, WithJsonSchema

from mailproxy.config.storeurl import parseMySQL, parseRedis, parseSQLite, resolveSQLite
from mailproxy.config.values import (
    Duration,
    FilePath,
    Positive,
    PositiveDuration,
    Section,
    lasting,
    shown,
)


class SourceKind(enum.StrEnum):
    """The kind of store that is asked."""

    FILE = "file"
    REDIS = "redis"
    SQL = "sql"
    PLUGIN = "plugin"


class Normalize(enum.StrEnum):
    """What is done to an identifier before it is looked up."""

    NONE = "none"
    LOWERCASE = "lowercase"


class OnError(enum.StrEnum):
    """Where a session goes while the store cannot tell."""

    STALE = "stale"
    DEFAULT = "default"
    TEMPFAIL = "tempfail"


_REDIS_SCHEMES = ("redis", "rediss")
_SQL_SCHEMES = ("postgres", "postgresql", "mysql", "sqlite")


_PLUGIN_PREFIX = f"{SourceKind.PLUGIN}:"
_SOURCE = re.compile(f"({SourceKind.FILE}|{SourceKind.REDIS}|{SourceKind.SQL}|{_PLUGIN_PREFIX}.+)")


def _checkSource(value: str) -> str:
    if not _SOURCE.fullmatch(value):
        raise ValueError(f"{shown(value)} is not one of file, redis, sql or plugin:NAME")
    return value


def _checkRedisURL(url: SecretStr) -> SecretStr:
    """Errors never quote the URL: it may hold a password."""
    _checkScheme(url, _REDIS_SCHEMES)
    parseRedis(url.get_secret_value())
    return url


def _checkSQLURL(url: SecretStr, info: ValidationInfo) -> SecretStr:
    """Read what can be read without a driver; a relative path gets its directory."""
    text = url.get_secret_value()
    if text.startswith("sqlite:"):
        parseSQLite(text)
        base = info.context.get("base") if isinstance(info.context, dict) else None
        return url if base is None else SecretStr(resolveSQLite(text, Path(base)))
    _checkScheme(url, _SQL_SCHEMES)
    if text.startswith("mysql:"):
        parseMySQL(text)
    return url


def _checkScheme(url: SecretStr, schemes: tuple[str, ...]) -> None:
    scheme, separator, rest = url.get_secret_value().partition("://")
    if scheme not in schemes or not separator or not rest:
        raise ValueError(f"must begin with {' or '.join(f'{one}://' for one in schemes)}")


SourceText = Annotated[
    str,
    AfterValidator(_checkSource),
    WithJsonSchema({"type": "string", "pattern": f"^{_SOURCE.pattern}$"}),
]


class FileStore(Section):
    """The `[mapping.file]` table."""

    path: FilePath = Field(description="The mapping file: identifier, white space, destination.")


class RedisStore(Section):
    """The `[mapping.redis]` table."""

    url: Annotated[SecretStr, AfterValidator(_checkRedisURL)] = Field(
        description="redis:// or rediss:// (TLS), with password and database number if needed."
    )
    key_prefix: str = Field(
        default="route:", description="What stands before the identifier in a key."
    )
    pool_size: Positive = Field(default=16, description="Connections per worker process.")


class SQLStore(Section):
    """The `[mapping.sql]` table."""

    url: Annotated[SecretStr, AfterValidator(_checkSQLURL)] = Field(
        description="postgres://, postgresql://, mysql:// or sqlite://."
    )
    query: str = Field(
        description="One bind parameter, the identifier ($1 on PostgreSQL, else ?); the first "
        "column of the first row is the destination."
    )
    pool_size: Positive = Field(default=16, description="Connections per worker process.")
    upsert_query: str | None = Field(
        default=None,
        description="Two bind parameters: identifier, destination. Needed for writing.",
    )
    delete_query: str | None = Field(
        default=None, description="One bind parameter, the identifier. Needed for writing."
    )

    @property
    def scheme(self) -> str:
        """The part of the URL that says which database it is."""
        return self.url.get_secret_value().partition(":")[0]

    @property
    def isWritable(self) -> bool:
        """Whether both statements that writing needs are there."""
        return self.upsert_query is not None and self.delete_query is not None


class Mapping(Section):
    """The `[mapping]` table."""

    source: SourceText = Field(description="The store: file, redis, sql or plugin:NAME.")
    normalize: Normalize = Field(
        default=Normalize.NONE, description="lowercase: identifiers are looked up in lower case."
    )
    positive_ttl: Duration = lasting("600s", "How long a mapping found is cached.")
    negative_ttl: Duration = lasting("30s", "How long the absence of one is cached.")
    cache_max_entries: Positive = Field(default=1000000, description="Identifiers cached at most.")
    lookup_timeout: PositiveDuration = lasting("5s", "How long the store may take.")
    on_error: OnError = Field(
        default=OnError.STALE,
        description="When the store cannot tell: stale (the last known answer, else the default "
        "destination), default, or tempfail.",
    )
    file: FileStore | None = Field(default=None, description='For source = "file".')
    redis: RedisStore | None = Field(default=None, description='For source = "redis".')
    sql: SQLStore | None = Field(default=None, description='For source = "sql".')
    plugin: dict[str, Any] | None = Field(
        default=None,
        repr=False,
        description='For source = "plugin:NAME": what the plugin asks for.',
    )

    @property
    def kind(self) -> SourceKind:
        """The kind of source."""
        return SourceKind(self.source.partition(":")[0])

    @property
    def pluginName(self) -> str:
        """The plugin's name; empty for another kind of source."""
        return self.source.removeprefix(_PLUGIN_PREFIX) if self.kind is SourceKind.PLUGIN else ""
