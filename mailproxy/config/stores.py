"""The `[mapping]` tables: which store knows where accounts live, and how long answers are kept."""

import enum
import re
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr

from mailproxy.config.values import Duration, FilePath, Positive, PositiveDuration, Section, lasting


class SourceKind(enum.StrEnum):
    """The store that is asked."""

    FILE = "file"
    REDIS = "redis"
    SQL = "sql"


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


def _checkRedisURL(url: SecretStr) -> SecretStr:
    """Errors never quote the URL: it may hold a password."""
    _checkScheme(url, _REDIS_SCHEMES)
    try:
        parts = urlsplit(url.get_secret_value())
        sound = parts.port != 0 and bool(parts.hostname)
    except ValueError:
        sound = False
    if not sound or not re.fullmatch("/?[0-9]*", parts.path):
        raise ValueError(
            "not a Redis URL; write redis://[USER:PASSWORD@]HOST[:PORT][/DATABASE NUMBER], "
            "special characters in the password as %XX"
        )
    return url


def _checkSQLURL(url: SecretStr) -> SecretStr:
    _checkScheme(url, _SQL_SCHEMES)
    return url


def _checkScheme(url: SecretStr, schemes: tuple[str, ...]) -> None:
    scheme, separator, rest = url.get_secret_value().partition("://")
    if scheme not in schemes or not separator or not rest:
        raise ValueError(f"must begin with {' or '.join(f'{one}://' for one in schemes)}")


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

    source: SourceKind = Field(description="The store: file, redis or sql.")
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
