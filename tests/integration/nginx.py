"""A real nginx (1.22) on loopback ports, whose every answer says where it comes from.

What is asked of it decides what it does: each location is a behaviour that a test wants to see
through a proxy. Behind `/files/` there are real files, to be read and written (RFC 4918).
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs

from tests.integration.certificates import Authority
from tests.integration.process import ChildServer, LogFile, requireFile, requireProgram
from tests.integration.services import ServicePorts

_MODULE = "/usr/lib/nginx/modules/ngx_http_echo_module.so"


@attrs.frozen
class Options:
    """How an nginx differs from the usual one.

    :ivar keepalive: whole seconds for which it keeps an idle connection.
    :ivar requests: how many requests it takes on one connection.
    :ivar extra: further lines for the block `http`, a server of its own for instance.
    :ivar ports: the ports of such servers.
    """

    keepalive: int = 75
    requests: int = 10000
    extra: str = ""
    ports: Sequence[int] = ()


class Nginx(ChildServer):
    """One nginx, one worker; several run at once under different names.

    An answer's `X-Server` is the name, `X-Connection` the number of the connection, `X-Request` the
    request's number on it, `X-Peer` the client's address and port by PROXY header. The log has a
    line for each request: method, target, status, bytes of its body, and what ended it.

    :ivar hostname: the name in its certificate, `NAME.test`; `localhost` and `127.0.0.1` are there
        too.
    :ivar files: what `/files/` shows.
    """

    def __init__(self, name: str, authority: Authority, options: Options = Options()) -> None:
        self._program = requireProgram("nginx", "nginx-light")
        requireFile(_MODULE, "libnginx-mod-http-echo")
        super().__init__(name)
        self.log = LogFile(self.folder / "access.log")
        self.errors = LogFile(self.folder / "error.log")
        self.hostname = f"{name}.test"
        self.options = options
        self.doors: Mapping[str, ServicePorts] = {"http": ServicePorts.free()}
        self.certificate = authority.issue(self.hostname, "localhost", "127.0.0.1")
        self.files = self.folder / "files"

    def ports(self) -> Sequence[int]:
        """Those of its own server, and those that it was told of."""
        return [*self.doors["http"].ports(tls=True), *self.options.ports]

    def command(self) -> Sequence[str]:
        """The master in the foreground."""
        settings = ["-p", str(self.folder), "-c", str(self.folder / "nginx.conf")]
        return [self._program, *settings, "-e", str(self.errors.path), "-g", "daemon off;"]

    def writeConfiguration(self) -> None:
        """Write the settings and make the folder for files."""
        self.files.mkdir(exist_ok=True)
        text = _whole(self.folder, self.options, self._server())
        (self.folder / "nginx.conf").write_text(text)

    def put(self, name: str, content: bytes) -> None:
        """Put a file behind `/files/NAME`."""
        (self.files / name).write_bytes(content)

    def putZeros(self, name: str, size: int) -> None:
        """Put a file of that many zeros there, which takes no room."""
        with (self.files / name).open("wb") as file:
            file.truncate(size)

    def size(self, name: str) -> int:
        """The length of a file; -1 if it is not there."""
        path = self.files / name
        return path.stat().st_size if path.exists() else -1

    def _server(self) -> str:
        doors = self.doors["http"]
        return f"""\
listen 127.0.0.1:{doors.open};
listen 127.0.0.1:{doors.secure} ssl;
listen 127.0.0.1:{doors.openProxied} proxy_protocol;
listen 127.0.0.1:{doors.secureProxied} ssl proxy_protocol;
server_name {self.hostname};
ssl_certificate {self.certificate.cert};
ssl_certificate_key {self.certificate.key};
{_headers(self.name)}
{_LOCATIONS}"""


def _headers(name: str) -> str:
    """What every answer carries, refusals too."""
    values = {
        "X-Server": name,
        "X-Connection": "$connection",
        "X-Request": "$connection_requests",
        "X-Peer": "$proxy_protocol_addr:$proxy_protocol_port",
    }
    return "".join(f"add_header {key} {value} always;\n" for key, value in values.items())


def _whole(folder: Path, options: Options, server: str) -> str:
    """The configuration file; as root its worker stays root, and may write anywhere in `folder`."""
    user = "user root root;\n" if os.geteuid() == 0 else ""
    places = "".join(
        f"{kind}_temp_path {folder}/{kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    return f"""\
{user}load_module {_MODULE};
pid {folder}/nginx.pid;
worker_processes 1;
events {{ worker_connections 8192; }}
http {{
{_LOG_FORMAT}
access_log {folder}/access.log story;
error_log {folder}/error.log info;
{places}
types {{ }}
default_type text/plain;
sendfile on;
tcp_nodelay on;
client_max_body_size 0;
client_header_timeout 30s;
large_client_header_buffers 8 128k;
keepalive_timeout {options.keepalive}s;
keepalive_requests {options.requests};
server_tokens off;
ssl_protocols TLSv1.2 TLSv1.3;
root {folder};
server {{
{server}
}}
{options.extra}
}}
"""


_LOG_FORMAT = """\
log_format story escape=json '$request_method $request_uri $status body=$request_length '
  'sent=$bytes_sent completed=$request_completion connection=$connection id=$http_x_request_id';"""

_LOCATIONS = r"""
location / { return 200 "$request_method $request_uri\n"; }
location /head { echo -n $echo_client_request_headers; }
location /echo { echo_read_request_body; echo_request_body; }
location /nothing { return 204; }
location /moved { return 302 https://elsewhere.test/; }
location /broken { return 503 "its own words\n"; }
location /wait { echo_sleep $arg_seconds; echo waited; }
location /events {
  default_type text/event-stream;
  echo "data: first\n"; echo_flush; echo_sleep 1;
  echo "data: second\n"; echo_flush; echo_sleep $arg_seconds; echo "data: last\n";
}
location /chunked {
  add_trailer X-Checksum the-sum;
  echo_duplicate 1000 "0123456789"; echo_flush; echo_duplicate 1000 "abcdefghij";
}
location /files/ {
  dav_methods PUT DELETE MKCOL COPY MOVE;
  create_full_put_path on;
  etag on;
}
location /slow/ { rewrite ^/slow/(.*) /files/$1 break; limit_rate 100k; }
"""
