"""Oracle of the US feed: stored rows compared with the ground truth (pure).

    truth: market events, what the feed sent ──┐
                                               ├─> DemoResult: missed, doubled, wrong
    Parquet: data/us/orderbook, data/us/tick ──┘

One feed and no merge: each certain delivery is one row, and each row is a delivery. What is certain is as in oracle.py.

Guarantees:
    * Books are compared by levels, totals and second, ticks by price, size, cumulative volume and value, best quotes and second;
      prices to the 1/10,000 dollar. (The feed tells no side of some trades: it is not compared.)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import numpy as np
import pandas as pd

from collectorctl.demo.oracle import (
    BOOK,
    CONFLATED,
    CORRUPTED,
    LOST,
    REPEATED,
    SENT,
    TICK,
    ConnectionInstants,
    compute_certain_until,
)
from collectorctl.demo.result import DemoResult, FeedAccount, StreamAccount
from ringbuf.records import LEVELS, MAX_INT64, PRICE_SCALE

US_FEED = 3
SIDES = ("ask_price", "ask_size", "bid_price", "bid_size")
_TICK_NUMBERS = ("size", "cum_volume")
_TICK_PRICES = ("price", "ask_price_1", "bid_price_1")


def compare_us(
    books: np.ndarray,
    trades: np.ndarray,
    deliveries: np.ndarray,
    ended_ns: ConnectionInstants,
    book_rows: pd.DataFrame,
    tick_rows: pd.DataFrame,
) -> DemoResult:
    """Compare; arguments as of oracle.compare."""
    own = deliveries[deliveries["line"] == US_FEED]
    certain_until = {
        number: compute_certain_until(ended, ()) for (line, number), ended in ended_ns.items() if line == US_FEED
    }
    accounts = [
        _compare(own[own["stream"] == stream], certain_until, dict(zip(table["id"].tolist(), keys, strict=True)), rows)
        for stream, table, keys, rows in (
            (BOOK, books, _book_keys_of_truth(books), _book_keys_of_rows(book_rows)),
            (TICK, trades, _tick_keys_of_truth(trades), _tick_keys_of_rows(tick_rows)),
        )
    ]
    return DemoResult(books=accounts[0], ticks=accounts[1])


def _compare(
    deliveries: np.ndarray, certain_until: dict[int, int], keys: dict[int, tuple], rows: Iterable[tuple]
) -> StreamAccount:
    outcome = deliveries["outcome"]
    sent = deliveries[np.isin(outcome, (SENT, REPEATED))]
    certain, possible, stored = Counter[tuple](), Counter[tuple](), Counter(rows)
    for number, first, mono_ns in zip(
        *(sent[name].tolist() for name in ("connection", "first_id", "mono_ns")), strict=True
    ):
        possible[keys[first]] += 1
        certain[keys[first]] += mono_ns <= certain_until.get(number, MAX_INT64)
    missing, extra = certain - stored, stored - possible
    feed = FeedAccount(
        sent=len(sent),
        in_flight=possible.total() - certain.total(),
        lost=int((outcome == LOST).sum()),
        conflated=int((outcome == CONFLATED).sum()),
        corrupted=int((outcome == CORRUPTED).sum()),
        stored=stored.total(),
        missing=missing.total(),
        extra=extra.total(),
    )
    wrong = sum(count for key, count in extra.items() if key not in possible)
    return StreamAccount(
        feeds={"us": feed},
        available=certain.total(),
        stored=stored.total(),
        missed=missing.total(),
        doubled=extra.total() - wrong,
        wrong=wrong,
    )


def _book_keys_of_truth(books: np.ndarray) -> list[tuple]:
    numbers = [books[side] for side in SIDES] + [books["total_ask"], books["total_bid"], books["exch_s"]]
    return _build_keys(_decode(books["symbol"]), _decode(books["venue"]), np.column_stack(numbers))


def _book_keys_of_rows(rows: pd.DataFrame) -> list[tuple]:
    numbers = []
    for side in SIDES:
        columns = rows[[f"{side}_{level}" for level in range(1, LEVELS + 1)]].fillna(0).to_numpy(np.float64)
        numbers.append(np.rint(columns * (PRICE_SCALE if "price" in side else 1)))
    numbers += [rows["total_ask_size"].to_numpy(), rows["total_bid_size"].to_numpy(), _to_seconds(rows["exch_time"])]
    return _build_keys(rows["symbol"].tolist(), rows["venue"].tolist(), np.column_stack(numbers))


def _tick_keys_of_truth(trades: np.ndarray) -> list[tuple]:
    numbers = [trades[name] for name in (*_TICK_PRICES, *_TICK_NUMBERS)]
    numbers += [trades["cum_value"] // PRICE_SCALE, trades["exch_s"]]
    return _build_keys(_decode(trades["symbol"]), _decode(trades["venue"]), np.column_stack(numbers))


def _tick_keys_of_rows(rows: pd.DataFrame) -> list[tuple]:
    numbers = [np.rint(rows[name].fillna(0).to_numpy(np.float64) * PRICE_SCALE) for name in _TICK_PRICES]
    numbers += [rows[name].to_numpy() for name in (*_TICK_NUMBERS, "cum_value")]
    return _build_keys(
        rows["symbol"].tolist(), rows["venue"].tolist(), np.column_stack([*numbers, _to_seconds(rows["exch_time"])])
    )


def _decode(column: np.ndarray) -> list[str]:
    return [text.decode() for text in column.tolist()]


def _to_seconds(times: pd.Series) -> np.ndarray:
    return times.dt.tz_convert("UTC").dt.tz_localize(None).to_numpy("datetime64[s]").astype(np.int64)


def _build_keys(symbols: list[str], venues: list[str], numbers: np.ndarray) -> list[tuple]:
    return list(zip(symbols, venues, map(tuple, numbers.astype(np.int64).tolist()), strict=True))
