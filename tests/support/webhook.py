"""A web server that keeps what it is sent: a webhook, and an address to ping."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType

import msgspec

TOKEN = "Zq7RtoKeN0fTheWebhook"


class Webhook:
    """`messages`: the texts it took; `pings`: how often it was asked; `refuses`: it answers 500 meanwhile."""

    def __init__(self) -> None:
        self.messages: list[str] = []
        self.pings = 0
        self.refused = 0
        self.refuses = False
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.pings += 1
                self._answer()

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if outer.refuses:
                    outer.refused += 1
                else:
                    outer.messages.append(msgspec.json.decode(body)["message"])
                self._answer()

            def _answer(self) -> None:
                self.send_response(500 if outer.refuses else 200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_port

    def __enter__(self) -> Webhook:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        """As NOTIFY_URL has it."""
        return f"json://127.0.0.1:{self.port}/{TOKEN}"

    @property
    def ping_url(self) -> str:
        """As NOTIFY_PING_URL has it."""
        return f"http://127.0.0.1:{self.port}/{TOKEN}"

    def lines(self, word: str) -> list[str]:
        """The lines with a word of all messages."""
        return [line for message in self.messages for line in message.split("\n") if word in line]
