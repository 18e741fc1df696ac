"""A wire tap between a collector and a vendor: passes every byte on, keeps what the vendor said.

collector ──> 127.0.0.1:port (this) ──> vendor        `received`: everything that came back, of all connections
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from urllib.parse import urlsplit


class TcpRelay:
    """Listens on a port of its own for one vendor, given by one of its addresses.

    `transform` may change what the vendor said, not how long it is (frames carry their length).
    """

    def __init__(self, url: str) -> None:
        self._vendor = (urlsplit(url).hostname, urlsplit(url).port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._heard: list[bytearray] = []  # one for each connection: two threads that add to one would lose something
        self.transform: Callable[[bytes], bytes] = lambda said: said
        threading.Thread(target=self._accept, daemon=True).start()

    def rewrite_url(self, url: str) -> str:
        """The vendor's address with this port."""
        return url.replace(f":{self._vendor[1]}", f":{self.port}")

    @property
    def received(self) -> bytes:
        """Everything that came back, connection after connection."""
        return b"".join(bytes(said) for said in self._heard)

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return  # closed
            try:
                far = socket.create_connection(self._vendor)
            except OSError:
                near.close()
                continue
            threading.Thread(target=self._pass, args=(near, far, False), daemon=True).start()
            threading.Thread(target=self._pass, args=(far, near, True), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, keep: bool) -> None:
        said = bytearray()
        if keep:
            self._heard.append(said)
        with suppress(OSError):  # the other direction ended it
            while data := source.recv(65536):
                if keep:
                    said += data
                    data = self.transform(data)
                target.sendall(data)
        for end in (source, target):
            with suppress(OSError):  # ended already
                end.shutdown(socket.SHUT_RDWR)  # close() would not wake the thread that reads from it
            end.close()

    def close(self) -> None:
        """Accept no more."""
        self._listener.close()
