"""What the client processes share: addresses from the command line, no network beyond loopback, one JSON line as the result."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Iterable
from typing import Any

ENOUGH = 40
WAIT_S = 60.0
READY: dict[str, dict[str, str]] = json.loads(sys.argv[1])
"""The simulator's addresses, as it prints them."""
SYMBOLS: list[str] = sys.argv[2].split(",")

_find_addresses = socket.getaddrinfo


def _find_loopback_addresses(host: Any, *arguments: Any, **options: Any) -> Any:
    if host not in ("127.0.0.1", "localhost", None):
        raise OSError(f"{host}: only loopback is allowed here")
    return _find_addresses(host, *arguments, **options)


socket.getaddrinfo = _find_loopback_addresses


class Received:
    """Trades (symbol, price, size, cumulative volume) and books (symbol, ask prices, bid prices, ask sizes, bid sizes)."""

    def __init__(self) -> None:
        self.trades: list[list[Any]] = []
        self.books: list[list[Any]] = []
        self.rest: dict[str, Any] = {}

    def add_trade(self, symbol: str, *numbers: str | int) -> None:
        """A trade; the price without the sign that Kiwoom gives it."""
        price, size, volume = map(int, numbers)
        self.trades.append([symbol, abs(price), size, volume])

    def add_book(self, symbol: str, levels: Iterable[str | int]) -> None:
        """A book of four times ten numbers."""
        self.books.append([symbol, *(abs(int(number)) for number in levels)])

    def is_enough(self) -> bool:
        """Whether there is enough of both."""
        return min(len(self.trades), len(self.books)) >= ENOUGH

    def print_result(self) -> None:
        """Print everything."""
        print(json.dumps({"trades": self.trades, "books": self.books, "rest": self.rest}), flush=True)
