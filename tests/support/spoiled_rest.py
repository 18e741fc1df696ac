"""A vendor's REST of which some answers have rows that cannot be read: everything passes, one answer is changed on its way."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import msgspec

Spoil = Callable[[str, dict[str, Any]], None]
"""(API id or TR id, body): changes the body in place."""


@contextmanager
def spoiled_rest(url: str, spoil: Spoil) -> Iterator[str]:
    """The address of a server that passes calls on to `url`, and answers through `spoil`."""
    host, port = urlsplit(url).hostname or "", urlsplit(url).port

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._pass_on()

        def do_POST(self) -> None:
            self._pass_on()

        def _pass_on(self) -> None:
            content = self.rfile.read(int(self.headers.get("content-length", 0)))
            connection = http.client.HTTPConnection(host, port, timeout=30)
            connection.request(self.command, self.path, content, dict(self.headers))
            answer = connection.getresponse()
            received = answer.read()
            connection.close()
            if answer.status == 200:
                body = msgspec.json.decode(received)
                spoil(self.headers.get("api-id") or self.headers.get("tr_id") or "", body)
                received = msgspec.json.encode(body)
            self.send_response(answer.status)
            for name in ("content-type", "cont-yn", "next-key", "tr_cont"):
                if name in answer.headers:
                    self.send_header(name, answer.headers[name])
            self.send_header("content-length", str(len(received)))
            self.end_headers()
            self.wfile.write(received)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # a client that went away
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
