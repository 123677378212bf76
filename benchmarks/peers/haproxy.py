"""HAProxy in TCP mode: it undoes TLS and does it again, and reads nothing in between.

So it routes nobody: what a proxy that knows accounts does beyond that is its price.
"""

from collections.abc import Sequence

from benchmarks.peers.base import Peer, unprivileged


class HAProxy(Peer):
    """One HAProxy with one thread, a log line for each session, and the server verified."""

    title = "HAProxy"
    package = "haproxy"
    binary = "haproxy"

    def writeConfiguration(self) -> None:
        """Write its file, and certificate and key into one."""
        pair = self.folder / "pair.pem"
        pair.write_bytes(self.certificate.cert.read_bytes() + self.certificate.key.read_bytes())
        (self.folder / "haproxy.cfg").write_text(self._settings(), "utf-8")

    def program(self) -> Sequence[str]:
        """One process in the foreground."""
        return [str(self.find()), "-db", "-f", str(self.folder / "haproxy.cfg")]

    def _settings(self) -> str:
        server = self.place.server
        ours = f" ssl crt {self.folder}/pair.pem" if self.place.clientTLS else ""
        theirs = ""
        if server.tls:
            theirs = (
                f" ssl verify required ca-file {self.caFile}"
                f" sni str({server.hostname}) verifyhost {server.hostname}"
            )
        return f"""\
global
    nbthread 1
    maxconn {self.place.sessions}
    log stdout format raw local0 info
    {unprivileged("user nobody")}
    {unprivileged("group nogroup")}
defaults
    mode tcp
    log global
    option tcplog
    timeout connect 10s
    timeout client 30m
    timeout server 30m
frontend clients
    bind 127.0.0.1:{self.port}{ours}
    default_backend servers
backend servers
    server only 127.0.0.1:{server.port}{theirs}
"""
