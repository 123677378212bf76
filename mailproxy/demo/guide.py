"""What the demonstration prints: lines that work when they are pasted into a shell."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from shlex import quote

import attrs

from mailproxy.demo.files import CERTIFICATE, CONFIGURATION, MAPPING, TOKEN
from mailproxy.demo.mail import ACCOUNTS


@attrs.frozen
class Step:
    """One thing to try.

    :ivar title: what it shows.
    :ivar command: a shell command with the names of `_words` in braces.
    """

    title: str
    command: str


PROTOCOL_STEPS: Sequence[Step] = (
    Step(
        "IMAP: anna's newest mail, from the server where she lives (legacy)",
        "curl --cacert {certificate} --user {anna} 'imaps://127.0.0.1:{imaps}/INBOX;UID=2'",
    ),
    Step(
        "IMAP with STARTTLS, and carol, who has moved already (new)",
        "curl --cacert {certificate} --ssl-reqd --user {carol}"
        " 'imap://127.0.0.1:{imap}/INBOX;UID=2'",
    ),
    Step(
        "HTTP: anna's web page, from the same server as her mail (legacy)",
        "curl --cacert {certificate} --user {anna} https://127.0.0.1:{https}/",
    ),
)
"""At least one line for each protocol that the demonstration serves."""

CUT_OVER_STEPS: Sequence[Step] = (
    Step("Where does anna's next login go, and why?", "{api} '{admin}/mappings?identifier=anna'"),
    Step(
        "Move anna to the server new",
        "{api} -X PUT '{admin}/mappings?identifier=anna&destination=new'",
    ),
    Step("Her page again, from the server new", PROTOCOL_STEPS[2].command),
    Step(
        "Her mail again: the same line, the other server",
        PROTOCOL_STEPS[0].command,
    ),
)
"""The cut-over of one account through the management API."""

_HEAD = """\
Two servers, legacy and new, and the proxy in front of them are starting on 127.0.0.1.
Accounts (name:password): {accounts}
Configuration: {configuration}
Mapping:       {mapping}

In another terminal, try:
"""

_TAIL = "\nStop with Control-C; the files are removed then.\n"


def instructions(directory: Path, ports: Mapping[str, int]) -> str:
    """Return the whole text, ending with a line end."""
    words = _words(directory, ports)
    steps = [
        f"\n{number}. {step.title}\n\n    {step.command.format(**words)}\n"
        for number, step in enumerate((*PROTOCOL_STEPS, *CUT_OVER_STEPS), 1)
    ]
    return _HEAD.format(**words) + "".join(steps) + _TAIL


def _words(directory: Path, ports: Mapping[str, int]) -> dict[str, str]:
    """Return what the commands name, quoted for a shell where it may need it."""
    logins = {name: f"{name}:{password}" for name, password in ACCOUNTS.items()}
    certificate = quote(str(directory / CERTIFICATE))
    token = quote(str(directory / TOKEN))
    bearer = f'-H "Authorization: Bearer $(cat {token})"'
    return {
        **{name: str(port) for name, port in ports.items()},
        **logins,
        "accounts": " ".join(logins.values()),
        "certificate": certificate,
        "configuration": str(directory / CONFIGURATION),
        "mapping": str(directory / MAPPING),
        "admin": f"https://127.0.0.1:{ports['admin']}",
        "api": f"curl --cacert {certificate} {bearer}",
    }
