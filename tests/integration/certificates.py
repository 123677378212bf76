"""A certificate authority for one test run and the files that servers and clients read."""

import ssl
import tempfile
from contextlib import ExitStack
from datetime import datetime
from hashlib import sha256
from pathlib import Path

import attrs
import trustme


@attrs.frozen
class CertificateFiles:
    """A PEM chain, leaf first, and its key, as paths."""

    cert: Path
    key: Path


class Authority:
    """Signs certificates for tests; nothing trusts it but those who are told to.

    :ivar caFile: its own certificate in PEM; a child trusts it through `SSL_CERT_FILE`.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ca = trustme.CA()
        self.caFile = folder / "ca.pem"
        self._ca.cert_pem.write_to_path(str(self.caFile))

    @classmethod
    def temporary(cls, stack: ExitStack) -> "Authority":
        """One whose files go when `stack` closes."""
        return cls(Path(stack.enter_context(tempfile.TemporaryDirectory())))

    def issue(self, *names: str, expires: datetime | None = None) -> CertificateFiles:
        """A certificate for DNS names or IP addresses; its files are named after the first.

        The first is its common name too: fetchmail 6.4 reads no alternative names without one.

        :param expires: when it does, if that matters; one in the past is an expired certificate.
        """
        issued = self._ca.issue_cert(*names, common_name=names[0], not_after=expires)
        stem = names[0].replace("*", "_")
        files = CertificateFiles(
            self._folder / f"{stem}.cert.pem", self._folder / f"{stem}.key.pem"
        )
        files.cert.write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
        issued.private_key_pem.write_to_path(str(files.key))
        return files

    def clientContext(self) -> ssl.SSLContext:
        """What a verifying client uses; it checks names too, so give it the server's."""
        return ssl.create_default_context(cafile=str(self.caFile))


def serverContext(files: CertificateFiles) -> ssl.SSLContext:
    """What a server with this certificate uses."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.cert, files.key)
    return context


def pinOf(cert: Path) -> str:
    """The SHA-256 of the first certificate in a PEM file: 64 hexadecimal digits."""
    leaf = cert.read_text("ascii").split("-----END")[0] + "-----END CERTIFICATE-----\n"
    return sha256(ssl.PEM_cert_to_DER_cert(leaf)).hexdigest()
