"""A real Dovecot (2.3) on loopback ports, with accounts, mail and tokens that a test chooses.

Four ports are always there: IMAP with STARTTLS, IMAP over TLS, and both again behind a PROXY
header; other protocols have as many when they are asked for. What else differs between mail
systems is an option. To know when a test looks at privacy: Dovecot calls a connection secure whose
two addresses are equal, or whose client it trusts, and takes a cleartext login there whatever its
settings are. Come from 127.0.0.2, or name a client in a PROXY header, to be refused.
"""

import enum
import grp
import os
import pwd
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import attrs

from tests.integration.certificates import Authority, CertificateFiles
from tests.integration.messages import Maildir
from tests.integration.network import freePort
from tests.integration.process import ChildServer, LogFile, requireProgram
from tests.integration.services import ServicePorts, listenerSettings, serviceSettings
from tests.integration.tokens import TokenIssuer

LOOPBACK = "127.0.0.0/8"


class Privacy(enum.Enum):
    """Dovecot's `ssl` setting."""

    REQUIRED = "required"
    OFFERED = "yes"
    NONE = "no"


@attrs.frozen
class Account:
    """A mail account or, with `master`, somebody who may open every account.

    The password is bytes, since real ones are not always UTF-8. Dovecot refuses NUL and tab in one.

    :ivar closed: why nobody gets in though the password is right; one word. Empty: they do.
    """

    name: str
    password: bytes = attrs.field(repr=False)
    master: bool = False
    closed: str = ""


@attrs.frozen
class Options:
    """How a Dovecot differs from the usual one.

    :ivar mechanisms: SASL names, lower case. `login` alone makes a server without PLAIN.
    :ivar capability: the IMAP capabilities before the login, without STARTTLS and AUTH=, which
        Dovecot adds; one without SASL-IR, for instance. None: its own.
    :ivar masterSeparator: between account and master user in a login name.
    :ivar trustsIdentity: believe what loopback clients say by ID or XCLIENT about who they are,
        and take their cleartext logins.
    :ivar tokens: whose access tokens are good; the `email` claim names the account.
    :ivar failureDelay: whole seconds before a refused login is answered.
    :ivar protocols: what it speaks beside IMAP: pop3, managesieve, submission, lmtp.
    :ivar saslPort: where other servers ask it for logins; 0: nowhere.
    :ivar extra: further lines for the configuration file; they win.
    """

    privacy: Privacy = Privacy.REQUIRED
    mechanisms: Sequence[str] = ("plain", "login", "xoauth2", "oauthbearer")
    capability: str | None = None
    masterSeparator: str = "*"
    trustsIdentity: bool = False
    tokens: TokenIssuer | None = None
    failureDelay: int = 0
    protocols: Sequence[str] = ()
    saslPort: int = 0
    extra: str = ""


@attrs.frozen
class ServerUsers:
    """The system users that Dovecot's processes run as."""

    internal: str
    login: str
    mail: str

    @classmethod
    def here(cls) -> "ServerUsers":
        """Those of the Debian package when we are root, else ourselves for all of them."""
        if os.geteuid() == 0:
            return cls("dovecot", "dovenull", "nobody")
        own = pwd.getpwuid(os.geteuid()).pw_name
        return cls(own, own, own)


class Dovecot(ChildServer):
    """One Dovecot; several run at once under different names.

    :ivar hostname: the name in its certificate, `NAME.test`; `localhost` and `127.0.0.1` are there
        too.
    :ivar doors: the ports of each protocol.
    :ivar imap: port with STARTTLS (or plain); `imaps`: implicit TLS; `imapProxied` and
        `imapsProxied`: the same, and a PROXY header comes first.
    """

    stopsAsGroup = True

    def __init__(
        self,
        name: str,
        authority: Authority,
        accounts: Iterable[Account],
        options: Options = Options(),
    ) -> None:
        self._program = requireProgram("dovecot", "dovecot-imapd")
        super().__init__(name)
        self.log = LogFile(self.folder / "dovecot.log")
        self.hostname = f"{name}.test"
        self.accounts = {account.name: account for account in accounts}
        self.options = options
        self.imap, self.imaps = freePort(), freePort()
        self.imapProxied, self.imapsProxied = freePort(), freePort()
        self.doors: Mapping[str, ServicePorts] = {
            "imap": ServicePorts(self.imap, self.imaps, self.imapProxied, self.imapsProxied),
            **{name: ServicePorts.free() for name in options.protocols},
        }
        self.certificate = authority.issue(self.hostname, "localhost", "127.0.0.1")
        self._users = ServerUsers.here()

    def ports(self) -> Sequence[int]:
        """Those of all protocols; without TLS half of them."""
        doors = [port for each in self.doors.values() for port in each.ports(tls=self.hasTLS)]
        return [*doors, self.options.saslPort] if self.options.saslPort else doors

    @property
    def hasTLS(self) -> bool:
        """Whether it has any."""
        return self.options.privacy is not Privacy.NONE

    def command(self) -> Sequence[str]:
        """Dovecot's master process in the foreground."""
        return [self._program, "-F", "-c", str(self.folder / "dovecot.conf")]

    def deliver(self, account: str, content: bytes, folder: str = "INBOX") -> None:
        """Put a message into an account's mailbox, whether the server runs or not."""
        owner = pwd.getpwnam(self._users.mail)
        mailbox = Maildir(self._mail / account / "Maildir", owner.pw_uid, owner.pw_gid)
        mailbox.deliver(content, folder)

    @property
    def _mail(self) -> Path:
        return self.folder / "mail"

    def writeConfiguration(self) -> None:
        """Write the settings, the accounts, the key for tokens, and make the mail folder."""
        self._write("users", _passwdLines(self.accounts.values(), master=False))
        self._write("masters", _passwdLines(self.accounts.values(), master=True))
        self._writeTokenKey()
        self._makeFolders()
        sections = [
            _baseSettings(self.folder, self._users),
            _tlsSettings(self.options.privacy, self.certificate),
            _loginSettings(self.options),
            _accountSettings(self.folder, self.options.tokens is not None),
            _listenerSettings(self),
            serviceSettings(self.doors, tls=self.hasTLS),
            self.options.extra,
        ]
        self._write("dovecot.conf", "\n".join(sections))

    def _write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.write_text(text, "utf-8")
        path.chmod(0o644)

    def _makeFolders(self) -> None:
        (self.folder / "run").mkdir(mode=0o755, exist_ok=True)
        # Who is killed while it starts leaves this, and the next one would wait for it in silence.
        (self.folder / "run" / "instances.lock").unlink(missing_ok=True)
        self._mail.mkdir(mode=0o700, exist_ok=True)
        owner = pwd.getpwnam(self._users.mail)
        os.chown(self._mail, owner.pw_uid, owner.pw_gid)

    def _writeTokenKey(self) -> None:
        """The key lies at `azp`/`alg`/`kid`; a token without `azp` or `kid` means `default`."""
        if self.options.tokens is None:
            return
        keys = self.folder / "keys" / "default" / "ES256"
        keys.mkdir(parents=True, exist_ok=True)
        (keys / "default").write_bytes(self.options.tokens.publicKey)
        self._write(
            "oauth2.conf.ext",
            "introspection_mode = local\n"
            f"local_validation_key_dict = fs:posix:prefix={self.folder}/keys/\n"
            "username_attribute = email\n",
        )


def _passwdLines(accounts: Iterable[Account], *, master: bool) -> str:
    """A passwd-file; passwords in hexadecimal, so that a colon or a quote in one is no matter."""
    return "".join(
        f"{account.name}:{{PLAIN.HEX}}{account.password.hex()}::::::{_closed(account)}\n"
        for account in accounts
        if account.master == master
    )


def _closed(account: Account) -> str:
    return f"nologin reason={account.closed}" if account.closed else ""


def _baseSettings(folder: Path, users: ServerUsers) -> str:
    """Where things are and who does the work; a normal user can neither chroot nor change uid.

    A client in IDLE hears of its mail alone: Dovecot's "Still here" comes by the clock, not after
    minutes of silence, and would stand where a test looks for something else. It hears of it soon
    even where the system gives no more inotify instances.
    """
    group = grp.getgrgid(pwd.getpwnam(users.internal).pw_gid).gr_name
    mailGroup = grp.getgrgid(pwd.getpwnam(users.mail).pw_gid).gr_name
    settings = f"""\
base_dir = {folder}/run
state_dir = {folder}/run
log_path = {folder}/dovecot.log
listen = 127.0.0.1
default_internal_user = {users.internal}
default_internal_group = {group}
default_login_user = {users.login}
mail_location = maildir:~/Maildir
mail_uid = {users.mail}
mail_gid = {mailGroup}
first_valid_uid = 1
first_valid_gid = 1
mail_max_userip_connections = 0
imap_idle_notify_interval = 0
mailbox_idle_check_interval = 2 secs
postmaster_address = postmaster@localhost
"""
    if users.login == users.mail:
        for service in ("anvil", "imap-login", "stats"):
            settings += f"service {service} {{\n  chroot =\n}}\n"
    return settings


def _tlsSettings(privacy: Privacy, certificate: CertificateFiles) -> str:
    if privacy is Privacy.NONE:
        return "ssl = no\ndisable_plaintext_auth = no\n"
    return f"ssl = {privacy.value}\nssl_cert = <{certificate.cert}\nssl_key = <{certificate.key}\n"


def _loginSettings(options: Options) -> str:
    """How logins go. The penalty that Dovecot gives to an address after failures is off."""
    lines = [
        f"auth_mechanisms = {' '.join(options.mechanisms)}",
        "auth_username_chars =",
        f"auth_failure_delay = {options.failureDelay} secs",
        f"auth_master_user_separator = {options.masterSeparator}",
        f"haproxy_trusted_networks = {LOOPBACK}",
        "login_log_format_elements = user=<%u> method=%m rip=%r rport=%{rport} lip=%l"
        " lport=%{lport} real_rip=%{real_rip} %c session=<%{session}>",
        "service anvil {\n  unix_listener anvil-auth-penalty {\n    mode = 0\n  }\n}",
    ]
    if options.capability is not None:
        lines.append(f"imap_capability = {options.capability}")
    if options.trustsIdentity:
        lines.append(f"login_trusted_networks = {LOOPBACK}")
    return "\n".join(lines) + "\n"


def _accountSettings(folder: Path, tokens: bool) -> str:
    """Who may log in; only accounts in the users' file have mail, tokens and masters or not."""
    oauth2 = f"""\
passdb {{
  driver = oauth2
  mechanisms = xoauth2 oauthbearer
  args = {folder}/oauth2.conf.ext
}}
"""
    return f"{oauth2 if tokens else ''}{_fileSettings(folder)}"


def _fileSettings(folder: Path) -> str:
    return f"""\
passdb {{
  driver = passwd-file
  args = username_format=%u {folder}/masters
  master = yes
}}
passdb {{
  driver = passwd-file
  args = username_format=%u {folder}/users
}}
userdb {{
  driver = passwd-file
  args = username_format=%u {folder}/users
  default_fields = home={folder}/mail/%u
}}
"""


def _listenerSettings(server: Dovecot) -> str:
    """The login process serves many connections: a start per connection would be most of a test."""
    secure, secureProxied = (server.imaps, server.imapsProxied) if server.hasTLS else (0, 0)
    implicit = "ssl = yes\n" if server.hasTLS else ""
    listeners = [
        listenerSettings("imap", server.imap, ""),
        listenerSettings("imap-proxied", server.imapProxied, "haproxy = yes\n"),
        listenerSettings("imaps", secure, implicit),
        listenerSettings("imaps-proxied", secureProxied, f"haproxy = yes\n{implicit}"),
    ]
    sasl = listenerSettings("sasl", server.options.saslPort, "address = 127.0.0.1\n")
    return (
        f"service imap-login {{\nservice_count = 0\n{''.join(listeners)}}}\n"
        f"service auth {{\n{sasl}}}\n"
    )
