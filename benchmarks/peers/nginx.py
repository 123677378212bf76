"""nginx's mail proxy: it knows no TLS towards servers, so it is measured where nobody has any."""

from collections.abc import Sequence
from pathlib import Path

from benchmarks.peers.base import Peer, Place, unprivileged
from tests.integration.network import freePort
from tests.integration.process import ChildServer

_HEAD = """\
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/output info;
daemon off;
{user}
"""


class _Oracle(ChildServer):
    """Tells nginx where an account lives: another nginx, whose costs are not the proxy's.

    :param server: the port of the server that all accounts are on.
    """

    def __init__(self, program: str, server: int) -> None:
        self._program, self._server, self.port = program, server, freePort()
        super().__init__("nginx-auth")

    def ports(self) -> Sequence[int]:
        """Its one port."""
        return [self.port]

    def command(self) -> Sequence[str]:
        """Run it in the foreground."""
        return [self._program, "-c", str(self.folder / "nginx.conf"), "-p", str(self.folder)]

    def writeConfiguration(self) -> None:
        """Let every question have the same answer."""
        text = f"""\
{_head(self.folder)}
events {{ }}
http {{
    access_log off;
    server {{
        listen 127.0.0.1:{self.port};
        location / {{
            add_header Auth-Status OK;
            add_header Auth-Server 127.0.0.1;
            add_header Auth-Port {self._server};
            return 200;
        }}
    }}
}}
"""
        (self.folder / "nginx.conf").write_text(text, "utf-8")


class Nginx(Peer):
    """One nginx with one worker, and the server that it asks where an account lives."""

    title = "nginx"
    package = "libnginx-mod-mail"
    binary = "nginx"
    backendTLS = False

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self._oracle = _Oracle(str(self.find()), place.server.port)

    def writeConfiguration(self) -> None:
        """Start who is asked, and write the file that names it."""
        self._oracle.start()
        tls = f"""
        ssl_certificate {self.certificate.cert};
        ssl_certificate_key {self.certificate.key};
        ssl_protocols TLSv1.3;"""
        text = f"""\
{_head(self.folder)}
load_module /usr/lib/nginx/modules/ngx_mail_module.so;
worker_rlimit_nofile {2 * self.place.sessions + 100};
events {{ worker_connections {2 * self.place.sessions + 100}; }}
mail {{
    auth_http 127.0.0.1:{self._oracle.port}/;
    proxy_timeout 30m;
    imap_capabilities IMAP4rev1 LITERAL+ SASL-IR;
    imap_auth plain login;
    server {{
        listen 127.0.0.1:{self.port}{" ssl" if self.place.clientTLS else ""} backlog=1024;
        protocol imap;{tls if self.place.clientTLS else ""}
    }}
}}
"""
        (self.folder / "nginx.conf").write_text(text, "utf-8")

    def program(self) -> Sequence[str]:
        """Run it in the foreground."""
        return [str(self.find()), "-c", str(self.folder / "nginx.conf"), "-p", str(self.folder)]

    def close(self) -> None:
        """End both."""
        super().close()
        self._oracle.close()


def _head(folder: Path) -> str:
    return _HEAD.format(folder=folder, user=unprivileged("user nobody nogroup;"))
