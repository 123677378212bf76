"""What management answers: a status and a short text or JSON, and how that is written.

Knows how a request is answered; must not know any call.
"""

import json
from collections.abc import Mapping
from http import HTTPStatus

import attrs
from twisted.web.iweb import IRequest

__all__ = ["Answer", "asJSON", "lines", "write"]

_TEXT = "text/plain; charset=utf-8"
_JSON = "application/json"


@attrs.frozen
class Answer:
    """An answer to one request.

    :ivar status: the HTTP status.
    :ivar body: ends with a line end.
    :ivar headers: beyond those that every answer has.
    """

    status: int
    body: bytes
    contentType: str = _TEXT
    headers: Mapping[str, str] = attrs.field(factory=dict)


def lines(status: int, *texts: str, **headers: str) -> Answer:
    """Answer with text, one line for each.

    :param headers: further header fields; `_` in a name stands for `-`.
    """
    body = "".join(f"{_oneLine(text)}\n" for text in texts)
    fields = {name.replace("_", "-").title(): value for name, value in headers.items()}
    return Answer(status, body.encode("utf-8", "backslashreplace"), headers=fields)


def asJSON(facts: object) -> Answer:
    """Answer with what was asked for."""
    return Answer(200, json.dumps(facts).encode("ascii") + b"\n", _JSON)


def write(answer: Answer, request: IRequest) -> None:
    """Write the answer, to HEAD without its body; whoever calls finishes the request.

    The version that Twisted has put into `Server` is nobody's business.
    """
    request.setResponseCode(answer.status, HTTPStatus(answer.status).phrase.encode("ascii"))
    fields = {
        "Server": "mailproxy",
        "Content-Type": answer.contentType,
        "Content-Length": str(len(answer.body)),
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
        **answer.headers,
    }
    for name, value in fields.items():
        request.setHeader(name.encode("ascii"), value.encode("ascii"))
    request.write(answer.body)


def _oneLine(text: str) -> str:
    """Make one line of a text that may come from elsewhere, without control characters."""
    return "".join(letter if letter.isprintable() else " " for letter in text).strip()
