"""A real Cyrus (3.6) on loopback ports: IMAP, POP3, ManageSieve, LMTP, and HTTP if asked for.

It needs root, as its master becomes the system's `cyrus` user. It logs by syslog alone, so tests
see what it does by its answers and by its mail.
"""

import os
import pwd
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from unittest import SkipTest

from tests.integration.certificates import Authority
from tests.integration.dovecot import Account
from tests.integration.network import freePort
from tests.integration.process import ChildServer, requireFile, requireProgram, requireUnpacked
from tests.integration.services import ServicePorts

_MASTER = "/usr/lib/cyrus/bin/master"
_HTTPD = "/usr/lib/cyrus/bin/httpd"
_FOLDERS = ("db", "lock", "log", "msg", "proc", "socket", "user")


class Cyrus(ChildServer):
    """One Cyrus; several run at once under different names.

    Passwords are in a SASL database: PLAIN and LOGIN are the mechanisms. A login makes the
    account's inbox, and so does the first message for it.

    :ivar hostname: the name in its certificate, `NAME.test`.
    :ivar doors: the ports of IMAP, POP3 and ManageSieve; the last has no TLS from the first byte,
        and none takes PROXY headers: this version falls over them.
    :ivar passwordsOnly: POP3 over TLS that lists no mechanism, only USER.
    :ivar lmtp: takes mail from everybody.
    :ivar doors: with `web`, HTTP too: JMAP, CalDAV and CardDAV; this build has no WebSockets, and
        its event source says that it has nothing to tell.
    """

    def __init__(
        self, name: str, authority: Authority, accounts: Iterable[Account], *, web: bool = False
    ) -> None:
        requireProgram(_MASTER, "cyrus-common")
        requireProgram("saslpasswd2", "sasl2-bin")
        self._imapd = requireUnpacked("usr/lib/cyrus/bin/imapd", "cyrus-imapd")
        self._pop3d = requireUnpacked("usr/lib/cyrus/bin/pop3d", "cyrus-pop3d")
        if os.geteuid() != 0:
            raise SkipTest("Cyrus needs root")
        super().__init__(name)
        self.hostname = f"{name}.test"
        if web:
            requireFile(_HTTPD, "cyrus-caldav")
        self._web = web
        self.doors: Mapping[str, ServicePorts] = {
            name: ServicePorts(freePort(), freePort(), 0, 0)
            for name in ("imap", "pop3", "managesieve", *(["http"] if web else []))
        }
        self.lmtp, self.passwordsOnly = freePort(), freePort()
        self.certificate = authority.issue(self.hostname, "localhost", "127.0.0.1")
        self._accounts = list(accounts)

    def ports(self) -> Sequence[int]:
        """All of them."""
        return list(self._services())

    def command(self) -> Sequence[str]:
        """The master in the foreground."""
        files = ["-C", str(self.folder / "imapd.conf"), "-M", str(self.folder / "cyrus.conf")]
        return [_MASTER, *files, "-p", str(self.folder / "conf" / "pid"), "-D"]

    def writeConfiguration(self) -> None:
        """Write both files, the accounts, and make the folders; all are the `cyrus` user's."""
        self.folder.chmod(0o755)
        if (self.folder / "imapd.conf").exists():
            return
        for name in ("conf", "spool", "sieve", *(f"conf/{each}" for each in _FOLDERS)):
            (self.folder / name).mkdir(mode=0o755)
        for kind in ("cert", "key"):
            shutil.copy(getattr(self.certificate, kind), self.folder / f"{kind}.pem")
        (self.folder / "imapd.conf").write_text(self._settings())
        (self.folder / "cyrus.conf").write_text(self._processes())
        for account in self._accounts:
            self._addAccount(account)
        owner = pwd.getpwnam("cyrus")
        for path in (self.folder, *self.folder.rglob("*")):
            os.chown(path, owner.pw_uid, owner.pw_gid)

    def _addAccount(self, account: Account) -> None:
        user, _, realm = account.name.partition("@")
        command = ["saslpasswd2", "-p", "-c", "-f", str(self._database), "-u", realm, user]
        subprocess.run(command, input=account.password, check=True, capture_output=True)

    @property
    def _database(self) -> Path:
        return self.folder / "sasldb2"

    def _settings(self) -> str:
        return f"""\
configdirectory: {self.folder}/conf
proc_path: {self.folder}/conf/proc
mboxname_lockpath: {self.folder}/conf/lock
defaultpartition: default
partition-default: {self.folder}/spool
sieveusehomedir: no
sievedir: {self.folder}/sieve
servername: {self.hostname}
virtdomains: userid
defaultdomain: {self.hostname}
unixhierarchysep: yes
admins: cyrus
allowplaintext: no
autocreate_quota: 0
autocreate_post: yes
sasl_pwcheck_method: auxprop
sasl_auxprop_plugin: sasldb
sasl_sasldb_path: {self._database}
sasl_mech_list: PLAIN LOGIN
passwordsonly_sasl_mech_list: ANONYMOUS
tls_server_cert: {self.folder}/cert.pem
tls_server_key: {self.folder}/key.pem
tls_session_timeout: 0
popminpoll: 0
failedloginpause: 0
lmtpsocket: {self.folder}/conf/socket/lmtp
{_WEB if self._web else ""}"""

    def _services(self) -> dict[int, tuple[str, str]]:
        """Port -> name and command; in a name only letters, as settings can begin with it."""
        imap, pop3, sieve = (self.doors[name] for name in ("imap", "pop3", "managesieve"))
        web: dict[int, tuple[str, str]] = {}
        if self._web:
            doors = self.doors["http"]
            web = {doors.open: ("http", _HTTPD), doors.secure: ("https", f"{_HTTPD} -s")}
        return {
            **web,
            imap.open: ("imap", self._imapd),
            imap.secure: ("imaps", f"{self._imapd} -s"),
            pop3.open: ("pop", self._pop3d),
            pop3.secure: ("pops", f"{self._pop3d} -s"),
            self.passwordsOnly: ("passwordsonly", f"{self._pop3d} -s"),
            sieve.open: ("sieve", "timsieved"),
            self.lmtp: ("lmtp", "lmtpd -a"),
        }

    def _processes(self) -> str:
        settings = f"-C {self.folder}/imapd.conf"
        services = "".join(
            f'{name} cmd="{command} {settings}" listen="127.0.0.1:{port}" prefork=1\n'
            for port, (name, command) in self._services().items()
        )
        start = f'recover cmd="ctl_cyrusdb {settings} -r"\n'
        return f"START {{\n{start}}}\nSERVICES {{\n{services}}}\nEVENTS {{\n}}\n"


_WEB = """\
httpmodules: caldav carddav jmap
httpallowcompress: no
conversations: yes
conversations_db: twoskip
caldav_create_default: yes
"""
"""What HTTP needs; JMAP wants conversations."""
