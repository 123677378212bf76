"""Perdition: a mail proxy with a process for each session."""

from collections.abc import Sequence

from benchmarks.peers.base import Peer, unprivileged


class Perdition(Peer):
    """One Perdition that sends everybody to the same server and passes on that server's answer."""

    title = "Perdition"
    package = "perdition"
    binary = "perdition.imap4s"
    forks = True
    group = "prime256v1"

    def writeConfiguration(self) -> None:
        """Make its log, which it opens again when it has given up its rights."""
        log = self.folder / "perdition.log"
        log.touch()
        log.chmod(0o666)

    def program(self) -> Sequence[str]:
        """One process in the foreground, and one for each session."""
        place = self.place
        modes = ["ssl_listen"] * place.clientTLS + ["ssl_outgoing"] * place.server.tls
        return [
            str(self.find()),
            "--no_daemon",
            "--protocol=IMAP4S",
            "--bind_address=127.0.0.1",
            f"--listen_port={self.port}",
            f"--outgoing_server=127.0.0.1:{place.server.port}",
            f"--log_facility={self.folder}/perdition.log",
            "--map_library=",
            "--pid_file=",
            "--no_lookup",
            "--server_resp_line",
            f"--ssl_mode={','.join(modes) or 'none'}",
            f"--ssl_cert_file={self.certificate.cert}",
            f"--ssl_key_file={self.certificate.key}",
            f"--ssl_ca_file={self.caFile}",
            "--ssl_no_client_cert_verify",
            "--ssl_no_cn_verify",
            *unprivileged("--username=nobody --group=nogroup").split(),
        ]
