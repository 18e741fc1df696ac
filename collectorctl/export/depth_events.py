"""Events of hftbacktest: depth by price and trades, with the exchange's and the local time (pure).

    Sequence ──> DEPTH, DEPTH_CLEAR, DEPTH_SNAPSHOT, TRADE rows of EVENT

              first book, or one after an empty one    any other book                 an empty book, a hole
    rows      clear both sides, all levels             what went, then what changed   clear both sides

Guarantees:
    * The rows up to a book, applied in order, give its levels and no other.
    * Levels that went come before those that came, so that no row crosses a book that the next one uncrosses.
    * A trade that was not received (recovered) is an event of the exchange alone.
    * Events of the exchange ascend by `exch_ts`, those of the strategy by `local_ts`.
"""

from __future__ import annotations

import numpy as np

from collectorctl.export.sequence import BOOK, TICK, Books, Sequence, Ticks
from ringbuf.records import LEVELS

EVENT = np.dtype(
    [
        ("ev", "<u8"),
        ("exch_ts", "<i8"),
        ("local_ts", "<i8"),
        ("px", "<f8"),
        ("qty", "<f8"),
        ("order_id", "<u8"),
        ("ival", "<i8"),
        ("fval", "<f8"),
    ],
    align=True,
)
"""As hftbacktest 2 documents it; a test compares the two."""

DEPTH, TRADE, DEPTH_CLEAR, DEPTH_SNAPSHOT = 1, 2, 3, 4
AT_EXCHANGE, AT_STRATEGY, BUY, SELL = 1 << 31, 1 << 30, 1 << 29, 1 << 28

CHUNK_BOOKS = 1 << 14
"""Books compared at once: 10 x 10 levels of each are."""

_Rows = list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]
"""(number in the sequence, ev, px, qty) of rows, in the order of the rows of one number."""


def build_events(books: Books, ticks: Ticks, sequence: Sequence) -> np.ndarray:
    """EVENT rows of a sequence."""
    rows = _build_trades(ticks, sequence)
    numbers = np.flatnonzero(sequence.kind != TICK)
    index = np.where(sequence.kind[numbers] == BOOK, sequence.row[numbers], len(books.recv_ns))
    sides = [
        tuple(
            np.vstack([levels, np.zeros((1, LEVELS), levels.dtype)]) for levels in pair
        )  # the last one: an empty book
        for pair in ((books.bid_price, books.bid_size), (books.ask_price, books.ask_size))
    ]
    for begin in range(0, len(numbers), CHUNK_BOOKS):
        now = index[begin : begin + CHUNK_BOOKS]
        before = np.append(index[begin - 1] if begin else len(books.recv_ns), now[:-1])
        rows += _compare_books(numbers[begin : begin + CHUNK_BOOKS], before, now, sides)
    number, ev, px, qty = (np.concatenate(column) for column in zip(*rows, strict=True))
    order = np.argsort(number, kind="stable")
    found = np.zeros(len(order), EVENT)
    number = number[order]
    found["ev"], found["px"], found["qty"] = ev[order], px[order], qty[order]
    found["ev"] |= np.where(sequence.is_received[number], AT_EXCHANGE | AT_STRATEGY, AT_EXCHANGE).astype(np.uint64)
    found["exch_ts"], found["local_ts"] = sequence.exch_ns[number], sequence.recv_ns[number]
    return found


def _build_trades(ticks: Ticks, sequence: Sequence) -> _Rows:
    numbers = np.flatnonzero(sequence.kind == TICK)
    index = sequence.row[numbers]
    side = ticks.side[index]
    ev = np.where(side > 0, TRADE | BUY, np.where(side < 0, TRADE | SELL, TRADE)).astype(np.uint64)
    return [(numbers, ev, ticks.price[index].astype(float), ticks.size[index].astype(float))]


def _compare_books(numbers: np.ndarray, before: np.ndarray, now: np.ndarray, sides: list) -> _Rows:
    """Rows that make of each book the next one; `before`, `now`: indexes of the books."""
    is_empty, was_empty = (
        np.all([(price[which] == 0).all(axis=1) for price, _ in sides], axis=0) for which in (now, before)
    )
    restarts = is_empty | was_empty
    rows: _Rows = []
    for flag, _ in zip((BUY, SELL), sides, strict=True):
        cleared = numbers[restarts]
        rows.append(
            (cleared, _repeat(DEPTH_CLEAR | flag, cleared), np.full(len(cleared), np.nan), np.zeros(len(cleared)))
        )
    changed: _Rows = []
    for flag, (price, size) in zip((BUY, SELL), sides, strict=True):
        old_price, new_price, old_size, new_size = price[before], price[now], size[before], size[now]
        same = (new_price[:, :, None] == old_price[:, None, :]) & (
            new_price[:, :, None] > 0
        )  # (book, new level, old level)
        is_gone = (old_price > 0) & ~same.any(axis=1) & ~restarts[:, None]
        book, level = np.nonzero(is_gone)
        went = numbers[book]
        rows.append((went, _repeat(DEPTH | flag, went), old_price[book, level].astype(float), np.zeros(len(book))))
        stays = (same & (new_size[:, :, None] == old_size[:, None, :])).any(axis=2)
        book, level = np.nonzero((new_price > 0) & ~stays)
        ev = np.where(restarts[book], DEPTH_SNAPSHOT | flag, DEPTH | flag).astype(np.uint64)
        levels = (each[book, level].astype(float) for each in (new_price, new_size))
        changed.append((numbers[book], ev, *levels))
    return rows + changed


def _repeat(ev: int, rows: np.ndarray) -> np.ndarray:
    return np.full(len(rows), ev, np.uint64)
