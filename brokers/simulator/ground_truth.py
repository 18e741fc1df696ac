"""Ground-truth log: what the market did, and what each feed delivered of it.

    DIR/
      meta.json           seed, symbols, options of the run
      books.bin           BOOKS   every book of the market        id 1, 2, 3 ...
      trades.bin          TRADES  every trade of the market       id 1, 2, 3 ...
      earlier.bin         TRADES  trades of the days before   id 1, 2, 3 ... of its own
      blocks.jsonl        one line for each volume that was traded off the book
      sent.bin            SENT    for every subscribed (symbol, stream) of every connection: what became of it
      acts.jsonl          one line for each command of a scenario
      connections.jsonl   one line for each connection that ended

Guarantees:
    * Files are only appended to, and reach the kernel at least every FLUSH_S; a record torn by a kill is dropped on reading.
    * Prices are won, or 1/10,000 of a dollar; an app key is written as a hash only.

Not handled here:
    * What still lay in the kernel's buffers when a connection was cut: such records are SENT and may never have arrived.
      Their mono_ns is within milliseconds of the connection's ended_mono_ns, unless the client had stopped reading.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from enum import IntEnum
from hashlib import sha256
from pathlib import Path
from typing import IO, Any

import numpy as np

from brokers.simulator.exchange.models import Book, Trade
from conf.instrument import Instrument

FLUSH_S = 0.2

FILES = ("books.bin", "trades.bin", "earlier.bin", "sent.bin", "connections.jsonl", "blocks.jsonl", "acts.jsonl")
_LEVELS = (10,)
BOOKS = np.dtype(
    [
        ("id", "<u8"),
        ("symbol", "S15"),
        ("venue", "S10"),
        ("exch_s", "<i8"),  # the book's time on the wire, seconds since 1970 UTC
        ("mono_ns", "<i8"),  # CLOCK_MONOTONIC when it arose
        ("ask_price", "<i8", _LEVELS),
        ("ask_size", "<i8", _LEVELS),
        ("bid_price", "<i8", _LEVELS),
        ("bid_size", "<i8", _LEVELS),
        ("total_ask", "<i8"),
        ("total_bid", "<i8"),
        ("cum_volume", "<i8"),
        ("expected_price", "<i8"),
        ("expected_size", "<i8"),
        ("mid_price", "<i8"),
        ("mid_size", "<i8"),
    ]
)
TRADES = np.dtype(
    [
        ("id", "<u8"),
        ("symbol", "S15"),
        ("venue", "S10"),
        ("exch_s", "<i8"),
        ("mono_ns", "<i8"),
        ("price", "<i8"),
        ("size", "<i8"),
        ("side", "<i8"),  # 1 buyer was the aggressor, -1 seller, 0 auction
        ("cum_volume", "<i8"),
        ("cum_value", "<i8"),  # won
        ("sells", "<i8"),  # trades of the day so far, by aggressor
        ("buys", "<i8"),
        ("ask_price_1", "<i8"),
        ("bid_price_1", "<i8"),
    ]
)
DELIVERIES = np.dtype(
    [
        ("line", "u1"),
        ("stream", "u1"),
        ("outcome", "u1"),
        ("connection", "<i4"),
        ("first_id", "<u8"),  # a merged trade covers the trades first_id .. last_id of that symbol
        ("last_id", "<u8"),
        ("mono_ns", "<i8"),  # when it was written to the socket, or dropped
    ]
)
_BOOK = struct.Struct("<Q15s10sqq40q7q")
_TRADE = struct.Struct("<Q15s10sqq9q")
_DELIVERY = struct.Struct("<BBBiQQq")


class FeedId(IntEnum):
    """Feeds by number."""

    KIS = 1
    KIWOOM = 2
    US = 3


class Stream(IntEnum):
    """Streams by number."""

    BOOK = 1
    TICK = 2


class DeliveryOutcome(IntEnum):
    """The outcome of one record on its way to one client."""

    SENT = 0
    LOST = 1
    CONFLATED = 2
    CORRUPTED = 3
    REPEATED = 4


class GroundTruthWriter:
    """The writing side. Without a directory everything is counted and nothing is stored."""

    def __init__(self, directory: Path | None, meta: dict[str, object]) -> None:
        self.counts: dict[tuple[int, int, int], int] = {}
        self._files: dict[str, IO[bytes]] = {}
        if directory is None:
            return
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "meta.json").write_text(json.dumps(meta, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        for name in FILES:
            self._files[name] = (directory / name).open("wb", buffering=1 << 20)

    def record_book(self, book: Book) -> None:
        """A book arose."""
        if not self._files:
            return
        self._files["books.bin"].write(
            _BOOK.pack(
                book.id,
                book.instrument.symbol.encode(),
                book.instrument.venue.encode(),
                book.exch_s,
                book.mono_ns,
                *book.ask_price,
                *book.ask_size,
                *book.bid_price,
                *book.bid_size,
                book.total_ask,
                book.total_bid,
                book.cum_volume,
                book.expected_price,
                book.expected_size,
                book.mid_price,
                book.mid_size,
            )
        )

    def record_trade(self, trade: Trade) -> None:
        """A trade happened."""
        if not self._files:
            return
        self._files["trades.bin"].write(
            _TRADE.pack(
                trade.id,
                trade.instrument.symbol.encode(),
                trade.instrument.venue.encode(),
                trade.exch_s,
                trade.mono_ns,
                trade.price,
                trade.size,
                trade.side,
                trade.day.cum_volume,
                trade.day.cum_value,
                trade.day.sells,
                trade.day.buys,
                trade.book.ask_price[0],
                trade.book.bid_price[0],
            )
        )

    def record_generated_trades(
        self, file: str, instrument: Instrument, rows: np.ndarray, first_id: int, mono_ns: int
    ) -> None:
        """Trades that were generated at once, `rows` as in the trade history: into "trades.bin" or "earlier.bin"."""
        if not self._files:
            return
        records = np.zeros(len(rows), TRADES)
        for name in set(TRADES.names or ()) & set(rows.dtype.names or ()):
            records[name] = rows[name]
        records["id"] = np.arange(first_id, first_id + len(rows))
        records["symbol"], records["venue"], records["mono_ns"] = *(part.encode() for part in instrument), mono_ns
        self._files[file].write(records.tobytes())

    def record_block(self, instrument: Instrument, exch_s: int, price: int, shares: int, cum_volume: int) -> None:
        """Volume was traded off the book; `cum_volume` is the day's with it."""
        if self._files:
            row = {"symbol": instrument.symbol, "venue": instrument.venue, "exch_s": exch_s, "price": price}
            row |= {"shares": shares, "cum_volume": cum_volume}
            self._files["blocks.jsonl"].write(json.dumps(row).encode() + b"\n")

    def record_command(self, at: str, command: str, mono_ns: int) -> None:
        """A script's command was given; `at`: the exchange time it was meant for."""
        if self._files:
            row = {"at": at, "command": command, "mono_ns": mono_ns}
            self._files["acts.jsonl"].write(json.dumps(row).encode() + b"\n")

    def record_delivery(
        self,
        feed: int,
        stream: Stream,
        outcome: DeliveryOutcome,
        connection: int,
        first_id: int,
        last_id: int,
        mono_ns: int,
    ) -> None:
        """The outcome of one record on a connection of a feed."""
        key = (feed, stream, outcome)
        self.counts[key] = self.counts.get(key, 0) + 1
        if self._files:
            self._files["sent.bin"].write(_DELIVERY.pack(feed, stream, outcome, connection, first_id, last_id, mono_ns))

    def record_connection(
        self, feed: int, number: int, app_key: str, opened_ns: int, ended_ns: int, reason: str
    ) -> None:
        """A connection ended."""
        if not self._files:
            return
        row = {
            "line": feed,
            "connection": number,
            "app_key_hash": hash_app_key(app_key),
            "opened_mono_ns": opened_ns,
            "ended_mono_ns": ended_ns,
            "how": reason,
        }
        self._files["connections.jsonl"].write(json.dumps(row).encode() + b"\n")

    def flush(self) -> None:
        """Hand what is buffered to the kernel."""
        for file in self._files.values():
            file.flush()

    def close(self) -> None:
        """Flush and close."""
        for file in self._files.values():
            file.close()
        self._files = {}


@dataclass(frozen=True)
class GroundTruth:
    """The reading side: one run's files."""

    meta: dict[str, object]
    books: np.ndarray
    trades: np.ndarray
    deliveries: np.ndarray
    connections: list[dict[str, Any]]
    earlier_trades: np.ndarray
    blocks: list[dict[str, object]]
    commands: list[dict[str, object]]


def load(directory: Path) -> GroundTruth:
    """Read a truth directory, also while it is being written. FileNotFoundError when it is none.

    books: BOOKS, trades: TRADES, earlier: TRADES, sent: SENT, each of shape (n,) in the order things happened.
    """
    return GroundTruth(
        json.loads((directory / "meta.json").read_text(encoding="utf-8")),
        _read_records(directory / "books.bin", BOOKS),
        _read_records(directory / "trades.bin", TRADES),
        _read_records(directory / "sent.bin", DELIVERIES),
        _read_json_lines(directory / "connections.jsonl"),
        _read_records(directory / "earlier.bin", TRADES),
        _read_json_lines(directory / "blocks.jsonl"),
        _read_json_lines(directory / "acts.jsonl"),
    )


def hash_app_key(app_key: str) -> str:
    """The name of an app key in the ground truth; empty for a connection that never showed one."""
    return sha256(app_key.encode()).hexdigest()[:16] if app_key else ""


def _read_json_lines(file: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in file.read_text().splitlines(keepends=True) if line.endswith("\n")]


def _read_records(file: Path, dtype: np.dtype) -> np.ndarray:
    data = file.read_bytes()
    return np.frombuffer(data, dtype, count=len(data) // dtype.itemsize)
