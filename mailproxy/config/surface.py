"""What clients and operators meet: capabilities, tokens, HTTP routing, the management API."""

import enum
import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, SecretStr, StringConstraints, model_validator

from mailproxy.config.bind import Bind, parseBind
from mailproxy.config.patterns import checkGlob, checkRegex
from mailproxy.config.values import (
    MECHANISMS,
    Count,
    Duration,
    FilePath,
    Flag,
    Mechanisms,
    Name,
    Positive,
    PositiveDuration,
    Printable,
    Section,
    TLSMode,
    Words,
    lasting,
    shown,
)
from mailproxy.errors import ConfigError

_BANNER = "mailproxy ready"
_NonEmpty = Annotated[str, StringConstraints(min_length=1)]


def _checkBind(text: str) -> str:
    parseBind(text)
    return text


BindText = Annotated[str, AfterValidator(_checkBind)]


def _checkHeader(name: str) -> str:
    if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name):
        raise ValueError(f"{shown(name)} is not the name of a header")
    return name


class Dialogue(Section):
    """The keys that every interactive protocol's capabilities have."""

    sasl: Mechanisms = Field(default=MECHANISMS, description="Mechanisms offered, in this order.")
    allow_plain_auth_without_tls: Flag = Field(
        default=False, description="Take logins on an unencrypted client connection."
    )


def _without(*own: str) -> AfterValidator:
    """Refuse capabilities that we add ourselves where they hold; in the clear they may not."""

    def check(lines: tuple[str, ...]) -> tuple[str, ...]:
        for line in lines:
            if re.split("[ =]", line.strip(), maxsplit=1)[0].upper() in own:
                raise ValueError(f"{shown(line)} is said by itself, when it is so; leave it out")
        return lines

    return AfterValidator(check)


class IMAPCapabilities(Dialogue):
    """The `[capabilities.imap]` table."""

    advertise: Annotated[Words, _without("STARTTLS", "LOGINDISABLED", "AUTH")] = Field(
        default=("IMAP4rev1", "SASL-IR", "LITERAL+", "ID", "ENABLE"),
        description="Capabilities before login; those for TLS and login are added.",
    )
    banner: Printable = Field(default=_BANNER, description="The text of the greeting.")


class POP3Capabilities(Dialogue):
    """The `[capabilities.pop3]` table."""

    banner: Printable = Field(default=_BANNER, description="The text of the greeting.")


class SubmissionCapabilities(Dialogue):
    """The `[capabilities.submission]` table."""

    ehlo: Annotated[tuple[Printable, ...], _without("STARTTLS", "AUTH", "XCLIENT")] = Field(
        default=("PIPELINING", "SIZE", "8BITMIME", "ENHANCEDSTATUSCODES"),
        description="Lines of the EHLO reply; those for TLS and login are added.",
    )
    banner: Printable = Field(default=_BANNER, description="The text of the greeting.")


class ManageSieveCapabilities(Dialogue):
    """The `[capabilities.managesieve]` table."""

    sieve: Words = Field(
        default=(
            "fileinto",
            "reject",
            "envelope",
            "vacation",
            "imap4flags",
            "subaddress",
            "relational",
            "comparator-i;ascii-numeric",
            "copy",
            "variables",
            "body",
        ),
        description="Sieve extensions named before login.",
    )
    implementation: Printable = Field(default="mailproxy", description="The IMPLEMENTATION string.")


class Capabilities(Section):
    """The `[capabilities]` tables: what is promised before the backend is known."""

    imap: IMAPCapabilities = Field(default=IMAPCapabilities(), description="IMAP.")
    pop3: POP3Capabilities = Field(default=POP3Capabilities(), description="POP3.")
    submission: SubmissionCapabilities = Field(
        default=SubmissionCapabilities(), description="Submission."
    )
    managesieve: ManageSieveCapabilities = Field(
        default=ManageSieveCapabilities(), description="ManageSieve."
    )


class OAuth(Section):
    """The `[oauth]` table."""

    jwt_username_claim: _NonEmpty = Field(
        default="email",
        description="The claim of a JWT that is tried first for the account's name.",
    )


class ExtractFrom(enum.StrEnum):
    """The part of a request that names the account."""

    AUTHORIZATION = "authorization"
    QUERY = "query"
    HEADER = "header"
    BODY = "body"


_COMPANIONS = {"query": "param", "header": "header", "body": "regex"}


class Extract(Section):
    """A route's `extract`: where in a request the account's name is."""

    from_: ExtractFrom = Field(alias="from", description="The part of the request to look at.")
    param: _NonEmpty | None = Field(default=None, description='from = "query": the parameter.')
    header: Annotated[str, AfterValidator(_checkHeader)] | None = Field(
        default=None, description='from = "header": the header.'
    )
    regex: Annotated[str, AfterValidator(checkRegex)] | None = Field(
        default=None,
        description=(
            'from = "body": a regular expression whose first group is the name. The dialect is '
            "RE2's, on bytes: no look-around, no back-references; with (?s) a . matches line ends."
        ),
    )

    @model_validator(mode="after")
    def _hasItsCompanion(self) -> Self:
        needed = _COMPANIONS.get(self.from_)
        given = {key for key in _COMPANIONS.values() if getattr(self, key) is not None}
        if needed is not None and needed not in given:
            raise ValueError(f'from = "{self.from_}" needs {needed}')
        if surplus := sorted(given - {needed}):
            raise ValueError(f'from = "{self.from_}" takes no {surplus[0]}; remove it')
        return self


class Route(Section):
    """One `[[http.route]]`; the first that matches a request's path wins.

    Has either a destination or an extract: loading refuses anything else.
    """

    match: Annotated[str, AfterValidator(checkGlob)] = Field(
        description="Glob on the decoded path: * within a segment, ** across."
    )
    destination: Name | None = Field(default=None, description="Where all of its requests go.")
    extract: Extract | None = Field(default=None, description="How the account is found instead.")
    fallback: Name | None = Field(
        default=None,
        description='Where requests without an account go: a destination or "default".',
    )


class HTTP(Section):
    """The `[http]` table."""

    body_extract_cap: Count = Field(
        default=65536, description="A body of more bytes is not searched for an account."
    )
    max_head_size: Positive = Field(default=65536, description="Bytes of a request's head at most.")
    relay_idle: PositiveDuration = lasting(
        "60s", "A request with no byte either way for this long is ended."
    )
    keepalive_timeout: PositiveDuration = lasting(
        "75s", "How long a client's connection may wait for its next request."
    )
    max_keepalive_requests: Count = Field(
        default=1000, description="Requests on one client connection; 0 = no limit."
    )
    route: tuple[Route, ...] = Field(default=(), description="Tried in order.")


class Admin(Section):
    """The `[admin]` table: the management API, HTTPS only. Without the table there is none."""

    bind: BindText = Field(description='Where it listens: "HOST:PORT" or a Twisted endpoint.')
    tls: Literal[TLSMode.IMPLICIT] = Field(default=TLSMode.IMPLICIT, description="Only implicit.")
    bearer_token_file: FilePath | None = Field(
        default=None, description="A file that holds the token; wins over bearer_token."
    )
    bearer_token: SecretStr | None = Field(
        default=None,
        description="The token itself. PROXY_ADMIN_TOKEN in the environment wins over both.",
    )
    min_token_len: Positive = Field(default=32, description="Characters that the token must have.")
    lockout_threshold: Positive = Field(
        default=5, description="Wrong tokens from one address before it is locked out."
    )
    lockout_duration: Duration = lasting("5m", "How long it stays locked out.")

    @property
    def address(self) -> Bind:
        """Where it listens."""
        return parseBind(self.bind)

    @property
    def token(self) -> SecretStr:
        """The token in force: loading has put it into `bearer_token`, wherever it came from.

        :raises ConfigError: for a table that was not loaded and has none.
        """
        if self.bearer_token is None:
            raise ConfigError(["admin.bearer_token: there is no token"])
        return self.bearer_token
