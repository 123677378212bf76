"""Dovecot as a proxy: its login process, in front of another server's mailboxes."""

from collections.abc import Sequence

from benchmarks.peers.base import Peer
from tests.integration.dovecot import ServerUsers


class DovecotProxy(Peer):
    """One Dovecot with one login process, which serves all sessions."""

    title = "Dovecot"
    package = "dovecot-imapd"
    binary = "dovecot"
    stopsAsGroup = True

    def writeConfiguration(self) -> None:
        """Write its file."""
        (self.folder / "run").mkdir(mode=0o755, exist_ok=True)
        (self.folder / "dovecot.conf").write_text(self._settings(), "utf-8")

    def program(self) -> Sequence[str]:
        """Its master process in the foreground."""
        return [str(self.find()), "-F", "-c", str(self.folder / "dovecot.conf")]

    def _settings(self) -> str:
        server, most = self.place.server, 2 * self.place.sessions + 100
        users = ServerUsers.here()
        return f"""\
base_dir = {self.folder}/run
state_dir = {self.folder}/run
log_path = {self.folder}/output
listen = 127.0.0.1
protocols = imap
default_internal_user = {users.internal}
default_login_user = {users.login}
mail_max_userip_connections = 0
default_vsz_limit = 0
{self._tls()}
import_environment = TZ SSL_CERT_FILE={self.caFile}
passdb {{
  driver = static
  args = nopassword=y proxy=y host={server.hostname} hostip=127.0.0.1 port={server.port} {
            "ssl=yes" if server.tls else ""
        }
}}
service imap-login {{
  chroot =
  service_count = 0
  process_limit = 1
  client_limit = {most}
  inet_listener imap {{
    port = {0 if self.place.clientTLS else self.port}
  }}
  inet_listener imaps {{
    port = {self.port if self.place.clientTLS else 0}
    ssl = yes
  }}
}}
service anvil {{
  client_limit = {most}
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
service auth {{
  client_limit = {most}
}}
"""

    def _tls(self) -> str:
        if not self.place.clientTLS:
            return "ssl = no\ndisable_plaintext_auth = no"
        files = self.certificate
        return f"ssl = required\nssl_cert = <{files.cert}\nssl_key = <{files.key}"
