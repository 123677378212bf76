"""Real mail clients: Python's imaplib, and programs from Debian's packages.

They share a `Target`, and each program returns what it printed: a test asserts on that and on what
came out of the mailbox.
"""

import imaplib
import ssl
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs

from tests.integration.dovecot import Account
from tests.integration.process import requireProgram

PROGRAM_TIMEOUT = 180.0
"""Seconds that one run of a program may take."""


@attrs.frozen
class Target:
    """The server that a client is pointed at: Dovecot itself, or a proxy before it.

    :ivar implicit: TLS from the first byte; else STARTTLS, and the client must insist on it.
    :ivar caFile: what the client trusts; it verifies `host` too.
    """

    port: int
    caFile: Path
    implicit: bool = True
    host: str = "localhost"


@attrs.frozen
class Finished:
    """How a program ended. `output` is standard output and error together."""

    status: int
    output: str


def runProgram(
    command: Sequence[str], package: str, *, stdin: str = "", env: Mapping[str, str] | None = None
) -> Finished:
    """Run `command` to its end; skips the test if its Debian `package` is missing."""
    program = requireProgram(command[0], package)
    done = subprocess.run(
        [program, *command[1:]],
        input=stdin.encode(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=env,
        timeout=PROGRAM_TIMEOUT,
        check=False,
    )
    return Finished(done.returncode, done.stdout.decode("utf-8", "backslashreplace"))


def openIMAP(target: Target, context: ssl.SSLContext) -> imaplib.IMAP4:
    """An imaplib client, TLS done, not logged in; the caller shuts it down."""
    if target.implicit:
        return imaplib.IMAP4_SSL(target.host, target.port, ssl_context=context, timeout=20)
    client = imaplib.IMAP4(target.host, target.port, timeout=20)
    client.starttls(context)
    return client


def subjects(client: imaplib.IMAP4, folder: str = "INBOX") -> list[str]:
    """The subjects in a folder of a logged-in client: which server's mailbox is it?"""
    client.select(folder, readonly=True)
    _, parts = client.fetch("1:*", "(BODY.PEEK[HEADER.FIELDS (SUBJECT)])")
    headers = [part[1].decode() for part in parts if isinstance(part, tuple)]
    return [header.removeprefix("Subject: ").strip() for header in headers]


def mbsync(folder: Path, target: Target, account: Account) -> Finished:
    """Copy every folder of an account to `folder`/mail with isync, one Maildir per folder."""
    (folder / "mail").mkdir(exist_ok=True)
    rc = folder / "mbsyncrc"
    rc.write_text(f"""\
IMAPAccount a
Host {target.host}
Port {target.port}
User {account.name}
Pass {_quoted(account.password.decode())}
SSLType {"IMAPS" if target.implicit else "STARTTLS"}
SystemCertificates no
CertificateFile {target.caFile}

{_MBSYNC_CHANNEL.format(mail=folder / "mail")}""")
    return runProgram(["mbsync", "--config", str(rc), "--all"], "isync")


_MBSYNC_CHANNEL = """\
IMAPStore far
Account a

MaildirStore near
Path {mail}/
Inbox {mail}/INBOX
SubFolders Verbatim

Channel all
Far :far:
Near :near:
Patterns *
Create Near
SyncState *
"""


def fetchmail(folder: Path, target: Target, account: Account, protocol: str = "imap") -> Finished:
    """Fetch an account's inbox, deleting nothing, and append each message to `folder`/fetched."""
    rc = folder / "fetchmailrc"
    password = _quoted(account.password.decode(), quote="\\x22")
    security = "ssl" if target.implicit else "sslproto tls1.2+"
    rc.write_text(f"""\
poll {target.host} service {target.port} protocol {protocol} auth password
  user "{account.name}" password {password} keep fetchall no rewrite
  {security} sslcertck sslcertfile "{target.caFile}" sslcommonname "{target.host}"
  mda "cat >> {folder}/fetched"
""")
    rc.chmod(0o600)
    command = ["fetchmail", "--fetchmailrc", str(rc), "--nodetach", "--nosyslog", "-v"]
    env = {
        "HOME": str(folder),
        "FETCHMAILHOME": str(folder),
        "LC_ALL": "C",
        "PATH": "/usr/bin:/bin",
    }
    # The second is one for all of root's otherwise, and only one of them runs.
    own = ["--idfile", str(folder / "ids"), "--pidfile", str(folder / "pid")]
    return runProgram([*command, *own], "fetchmail", env=env)


def curl(target: Target, account: Account | None, scheme: str, path: str, *more: str) -> Finished:
    """Ask for `scheme`://host:port/`path`; a cleartext scheme must upgrade or fail.

    The login goes in by standard input, so that it is in no list of processes.
    """
    command = ["curl", "--silent", "--show-error", "--cacert", str(target.caFile), *more]
    if not scheme.endswith("s"):
        command.append("--ssl-reqd")
    url = f"{scheme}://{target.host}:{target.port}/{path}"
    return runProgram([*command, "--config", "-", url], "curl", stdin=_curlLogin(account))


def curlWeb(caFile: Path, account: Account | None, *arguments: str) -> Finished:
    """Run curl with these arguments; the login goes in by standard input."""
    command = ["curl", "--silent", "--show-error", "--cacert", str(caFile), *arguments]
    return runProgram([*command, "--config", "-"], "curl", stdin=_curlLogin(account))


def _curlLogin(account: Account | None) -> str:
    if account is None:
        return ""
    login = f"{account.name}:{account.password.decode()}"
    return f"user = {_quoted(login)}\n"


def swaks(target: Target, account: Account | None, *more: str) -> Finished:
    """Send a message by SMTP; the server's certificate is verified.

    `more` holds at least `--from` and `--to`.
    """
    command = ["swaks", "--server", target.host, "--port", str(target.port), "--timeout", "20s"]
    command += ["--tls-on-connect" if target.implicit else "--tls", "--tls-verify"]
    command += ["--tls-ca-path", str(target.caFile)]
    if account is not None:
        password = account.password.decode()
        command += ["--auth-user", account.name, "--auth-password", password]
    return runProgram([*command, *more], "swaks")


def msmtp(
    folder: Path, target: Target, account: Account, recipient: str, content: bytes
) -> Finished:
    """Send `content` with msmtp, the server's certificate verified."""
    rc = folder / "msmtprc"
    rc.write_text(f"""\
account default
host {target.host}
port {target.port}
from {account.name}
auth on
user {account.name}
password {_quoted(account.password.decode())}
tls on
tls_starttls {"off" if target.implicit else "on"}
tls_trust_file {target.caFile}
""")
    rc.chmod(0o600)
    command = ["msmtp", "--file", str(rc), "--debug", "--", recipient]
    return runProgram(command, "msmtp", stdin=content.decode())


def opensslClient(target: Target, protocol: str, stdin: str, *more: str) -> Finished:
    """Shake hands with `openssl s_client`, verifying, and send `stdin` as it is.

    `protocol` is a name that its `-starttls` takes; used unless the target is implicit.
    """
    command = ["openssl", "s_client", "-connect", f"{target.host}:{target.port}", "-CAfile"]
    command += [str(target.caFile), "-verify_return_error", "-verify_hostname", target.host]
    command += ["-servername", target.host, "-ign_eof", "-nocommands"]
    if not target.implicit:
        command += ["-starttls", protocol]
    return runProgram([*command, *more], "openssl", stdin=stdin)


def _quoted(text: str, quote: str = '\\"') -> str:
    """`text` in double quotes, with backslashes; fetchmail knows a `quote` only by its number."""
    escaped = text.replace("\\", "\\\\").replace('"', quote)
    return f'"{escaped}"'
