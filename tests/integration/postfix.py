"""A real Postfix (3.7) on loopback ports: submission for a Dovecot's accounts, and an exchanger.

All mail that it takes, for whomever, lies in one Maildir afterwards. It needs root, as its master
starts its processes under the system's `postfix` user.
"""

import os
import pwd
from collections.abc import Mapping, Sequence
from email import message_from_bytes
from email.message import Message
from pathlib import Path
from unittest import SkipTest

import attrs

from tests.integration.certificates import Authority
from tests.integration.network import freePort
from tests.integration.process import ChildServer, LogFile, requireProgram, waitUntil
from tests.integration.services import ServicePorts

LOCAL_DOMAIN = "example.org"
"""What everybody may send to; elsewhere only who has logged in, or comes from `TRUSTED`."""

TRUSTED = "127.0.0.1"
"""Who may send everywhere, and say who it is: a proxy, or whoever is taken for it."""

_MASTER = "/usr/lib/postfix/sbin/master"

_QUEUE_FOLDERS = (
    *("active", "bounce", "corrupt", "defer", "deferred", "flush", "hold", "incoming"),
    *("maildrop", "private", "public", "saved", "trace"),
)
"""The folders of a queue that are Postfix's own."""


@attrs.frozen
class _Service:
    """What Postfix calls an smtpd: a port and the settings in which it differs."""

    port: int
    settings: Sequence[str]


class Postfix(ChildServer):
    """One Postfix, with its own queue; several run at once under different names.

    :ivar hostname: the name in its certificate, `NAME.test`; `localhost` and `127.0.0.1` are there
        too. It greets with it.
    :ivar doors: submission for the accounts; TLS is a must.
    :ivar introduced: submission with STARTTLS, where `TRUSTED` may say by XCLIENT who it is.
    :ivar exchanger: anybody's mail for `LOCAL_DOMAIN`, that of `TRUSTED` for everywhere;
        `exchangerProxied` behind a PROXY header, `exchangerIntroduced` with XCLIENT.
    :ivar saslPort: where a Dovecot that knows the accounts is to serve SASL.
    """

    stopsAsGroup = True

    def __init__(self, name: str, authority: Authority) -> None:
        requireProgram("postfix", "postfix")
        if os.geteuid() != 0:
            raise SkipTest("Postfix needs root")
        super().__init__(name)
        self.log = LogFile(self.folder / "postfix.log")
        self.hostname = f"{name}.test"
        self.doors: Mapping[str, ServicePorts] = {"submission": ServicePorts.free()}
        self.introduced = freePort()
        self.exchanger, self.exchangerProxied = freePort(), freePort()
        self.exchangerIntroduced = freePort()
        self.certificate = authority.issue(self.hostname, "localhost", "127.0.0.1")
        self.saslPort = freePort()

    def ports(self) -> Sequence[int]:
        """All of them."""
        return [each.port for each in self._services()]

    def command(self) -> Sequence[str]:
        """The master in the foreground; Postfix's scripts would take it out of our group."""
        return [_MASTER, "-c", str(self._settings), "-d"]

    def received(self) -> list[Message]:
        """The messages that have arrived."""
        return [message_from_bytes(path.read_bytes()) for path in self._inbox.glob("new/*")]

    def awaitMail(self, subject: str) -> Message:
        """The first message with that subject, once it has arrived.

        :raises AssertionError: if it takes too long.
        """
        found: list[Message] = []

        def search() -> bool:
            found.extend(each for each in self.received() if each["Subject"] == subject)
            return bool(found)

        if not waitUntil(search, 60):
            raise AssertionError(f"no mail about {subject}:\n{self.log.text()[-3000:]}")
        return found[0]

    def queued(self) -> int:
        """How many messages are on their way."""
        queues = ("maildrop", "incoming", "active", "deferred")
        return sum(
            path.is_file() for queue in queues for path in (self._queue / queue).glob("**/*")
        )

    def forget(self) -> None:
        """Remove what has arrived."""
        for path in self._inbox.glob("new/*"):
            path.unlink()

    @property
    def _settings(self) -> Path:
        return self.folder / "etc"

    @property
    def _queue(self) -> Path:
        return self.folder / "queue"

    @property
    def _inbox(self) -> Path:
        return self.folder / "mail" / "inbox"

    def writeConfiguration(self) -> None:
        """Write both files and make the folders, which is otherwise the work of its scripts."""
        self.folder.chmod(0o755)
        nobody = pwd.getpwnam("nobody")
        for path, mode in ((self._settings, 0o755), (self._queue, 0o755)):
            path.mkdir(mode=mode, exist_ok=True)
        _makeFolder(self.folder / "data", "postfix", 0o700)
        _makeFolder(self.folder / "mail", "nobody", 0o700)
        _makeFolder(self._queue / "pid", "root", 0o755)
        for name in _QUEUE_FOLDERS:
            _makeFolder(self._queue / name, "postfix", 0o700)
        (self._settings / "main.cf").write_text(self._main(nobody.pw_uid, nobody.pw_gid))
        (self._settings / "master.cf").write_text(self._master())

    def _main(self, uid: int, gid: int) -> str:
        return f"""\
compatibility_level = 3.6
maillog_file = {self.log.path}
maillog_file_prefixes = {self.folder}
queue_directory = {self._queue}
data_directory = {self.folder}/data
inet_interfaces = loopback-only
inet_protocols = ipv4
myhostname = {self.hostname}
mydestination =
mynetworks = {TRUSTED}/32
smtpd_tls_cert_file = {self.certificate.cert}
smtpd_tls_key_file = {self.certificate.key}
smtpd_tls_security_level = may
smtpd_tls_received_header = yes
smtpd_sasl_type = dovecot
smtpd_sasl_path = inet:127.0.0.1:{self.saslPort}
smtpd_sasl_security_options = noanonymous
smtpd_peername_lookup = no
smtpd_error_sleep_time = 0
smtpd_client_connection_count_limit = 0
smtpd_discard_ehlo_keywords =
virtual_mailbox_domains = {LOCAL_DOMAIN}
virtual_mailbox_base = {self.folder}/mail
virtual_mailbox_maps = static:inbox/
virtual_minimum_uid = 1
virtual_uid_maps = static:{uid}
virtual_gid_maps = static:{gid}
default_transport = virtual
virtual_alias_maps =
alias_maps =
local_recipient_maps =
"""

    def _services(self) -> list[_Service]:
        login = [
            "smtpd_tls_security_level=encrypt",
            "smtpd_tls_auth_only=yes",
            "smtpd_sasl_auth_enable=yes",
            "smtpd_relay_restrictions=permit_sasl_authenticated,reject",
        ]
        implicit = [*login, "smtpd_tls_wrappermode=yes"]
        header = "smtpd_upstream_proxy_protocol=haproxy"
        believing = f"smtpd_authorized_xclient_hosts={TRUSTED}"
        exchange = ["smtpd_relay_restrictions=permit_mynetworks,reject_unauth_destination"]
        doors = self.doors["submission"]
        return [
            _Service(doors.open, login),
            _Service(doors.secure, implicit),
            _Service(doors.openProxied, [*login, header]),
            _Service(doors.secureProxied, [*implicit, header]),
            _Service(self.introduced, [*login, believing]),
            _Service(self.exchanger, exchange),
            _Service(self.exchangerProxied, [*exchange, header]),
            _Service(self.exchangerIntroduced, [*exchange, believing]),
        ]

    def _master(self) -> str:
        """Nothing is chrooted; only what mail passes on its way to the Maildir is there."""
        smtpds = [
            f"127.0.0.1:{each.port} inet n - n - - smtpd\n"
            + "".join(f"  -o {setting}\n" for setting in each.settings)
            for each in self._services()
        ]
        return "".join(smtpds) + _INNER


_INNER = """\
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
proxymap unix - - n - - proxymap
tlsmgr unix - - n 1000? 1 tlsmgr
virtual unix - n n - - virtual
error unix - - n - - error
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
"""


def _makeFolder(path: Path, owner: str, mode: int) -> None:
    path.mkdir(exist_ok=True)
    path.chmod(mode)
    os.chown(path, pwd.getpwnam(owner).pw_uid, pwd.getpwnam(owner).pw_gid)
