"""A WebSocket server and its client, both those of PyPI's `websockets`, in threads."""

import ssl
import threading
from types import TracebackType
from typing import Self

from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.sync.client import ClientConnection, connect
from websockets.sync.server import Server, ServerConnection, serve

from tests.integration.network import freePort


class EchoServer:
    """Gives back each message; the first says what it is told about the client.

    A path that begins with `/no` is refused with 403, in the server's own words.

    :ivar requests: the handshakes, as they came.
    """

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.port = freePort()
        self.requests: list[Request] = []
        self._server: Server = serve(
            self._echo,
            "127.0.0.1",
            self.port,
            ssl=context,
            process_request=self._judge,
            max_size=None,
            subprotocols=["jmap", "chat"],  # type: ignore[list-item]
        )
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def _judge(self, connection: ServerConnection, request: Request) -> Response | None:
        self.requests.append(request)
        if request.path.startswith("/no"):
            return connection.respond(403, "not here\n")
        return None

    def _echo(self, connection: ServerConnection) -> None:
        try:
            for message in connection:
                connection.send(message)
        except ConnectionClosed:
            pass

    def __enter__(self) -> Self:
        """Nothing to do: it listens already."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Accept no more."""
        self._server.shutdown()
        self._thread.join()


def openWebSocket(
    port: int, context: ssl.SSLContext, authorization: str, path: str = "/ws"
) -> ClientConnection:
    """A client, its handshake done; the caller closes it."""
    return connect(
        f"wss://localhost:{port}{path}",
        ssl=context,
        additional_headers={"Authorization": authorization},
        subprotocols=["jmap"],  # type: ignore[list-item]
        compression=None,
        open_timeout=20,
        max_size=None,
        proxy=None,
    )
