"""Oracle: stored rows compared with the ground truth (pure).

    truth: market events, what each feed sent ──┐
                                                ├─> DemoResult: missed, doubled, wrong
    Parquet: orderbook rows, tick rows        ──┘

A delivery is *certain* if its connection lasted MARGIN_NS after it was written to the socket, else *in flight*: what lay in the
kernel when a collector was killed cannot be known. Certain deliveries must be stored, in-flight ones may be. Only time in which
the collector could run counts: a stopped one (SIGSTOP) reads nothing while its connection lasts and its deliveries wait in the
kernel; if it is killed before it has run for MARGIN_NS again, they are lost with it.

Guarantees:
    * Every stored row is accounted for, whatever its place in the files.
    * The arrivals of a feed are matched to its deliveries by the ground truth's book id (pairing.py), so that a row with both
      arrivals shows whether they are of one book. The content of a row is that of one of its books in full (levels, totals,
      cumulative volume, expected and midpoint, exchange second).
    * Ticks are compared by everything that no vendor rounds, and by shares: every share that was certainly delivered, by
      whichever feed and in whichever pieces, is in exactly one row, and every row was delivered.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from collectorctl.demo.pairing import Delivered, Stored, Truth, pair
from collectorctl.demo.reconcile import reconcile, to_kst_days
from collectorctl.demo.result import DemoResult, FeedAccount, StreamAccount
from ringbuf.records import LEVELS, MAX_INT64

MARGIN_NS = 1_000_000_000
"""A collector that is alive has read and ringed a delivery long before this; its latency is a few ms."""

FEEDS = {1: "kis", 2: "kiwoom"}
ConnectionInstants = Mapping[tuple[int, int], int]
"""(feed, connection) -> monotonic ns."""
BOOK, TICK = 1, 2
SENT, LOST, CONFLATED, CORRUPTED, REPEATED = range(5)
_NO_STAMP = pd.Timestamp(0, tz="Asia/Seoul")


class _Deliveries:
    """What one feed certainly delivered, and what it may have, as counts by key."""

    def __init__(self) -> None:
        self.certain: Counter[tuple] = Counter()
        self.possible: Counter[tuple] = Counter()


def compare(
    books: np.ndarray,
    trades: np.ndarray,
    deliveries: np.ndarray,
    ended_ns: ConnectionInstants,
    book_rows: pd.DataFrame,
    tick_rows: pd.DataFrame,
    stopped_ns: Mapping[int, Sequence[tuple[int, int]]] | None = None,
    compare_stamps: bool = True,
    compare_midpoint: bool = True,
) -> DemoResult:
    """Compare.

    `books`, `trades`, `sent`: tables of the ground truth. `ended_ns`: (feed, connection) -> monotonic
    instant at which it ended, absent while it lives. `book_rows`, `tick_rows`: the datasets as pandas reads them.
    `stopped_ns`: feed -> the spans (begin, end), monotonic, in which its collector was stopped by a signal.
    `compare_stamps`: False where feeds stamp differently; then exchange seconds are not compared.
    `compare_midpoint`: False where a feed does not have the midpoint; then it is not compared.
    """
    trade_days, row_days = to_kst_days(trades["exch_s"]), to_kst_days(_to_unix_seconds(tick_rows["exch_time"]))
    if not compare_stamps:
        books, trades = (_clear(table, "exch_s") for table in (books, trades))
        book_rows, tick_rows = (rows.assign(exch_time=_NO_STAMP) for rows in (book_rows, tick_rows))
    if not compare_midpoint:
        books = _clear(books, "mid_price", "mid_size")
        book_rows = book_rows.assign(mid_price=0, mid_size=0)
    stops = stopped_ns or {}
    certain_until_ns = {
        (line, number): compute_certain_until(ended, stops.get(line, ())) for (line, number), ended in ended_ns.items()
    }
    return DemoResult(
        books=_compare_books(books, _select_stream(deliveries, BOOK), certain_until_ns, book_rows),
        ticks=_compare_ticks(
            trades, trade_days, _select_stream(deliveries, TICK), certain_until_ns, tick_rows, row_days
        ),
    )


def _clear(table: np.ndarray, *names: str) -> np.ndarray:
    table = table.copy()
    table[list(names)] = 0
    return table


def compute_certain_until(ended_ns: int, stops: Sequence[tuple[int, int]]) -> int:
    """Until when deliveries of a connection that ended at `ended_ns` are certain: MARGIN_NS of running time before that."""
    left_ns, at_ns = MARGIN_NS, ended_ns
    for begin_ns, end_ns in sorted(stops, reverse=True):
        if begin_ns >= at_ns:
            continue
        ran_ns = at_ns - min(end_ns, at_ns)
        if ran_ns >= left_ns:
            break
        left_ns -= ran_ns
        at_ns = begin_ns
    return at_ns - left_ns


def _select_stream(deliveries: np.ndarray, stream: int) -> np.ndarray:
    return deliveries[deliveries["stream"] == stream]


def _count_outcomes(deliveries: np.ndarray) -> dict[str, FeedAccount]:
    accounts = {}
    for code, feed in FEEDS.items():
        outcome = deliveries["outcome"][deliveries["line"] == code]
        accounts[feed] = FeedAccount(
            sent=int(np.isin(outcome, (SENT, REPEATED)).sum()),
            lost=int((outcome == LOST).sum()),
            conflated=int((outcome == CONFLATED).sum()),
            corrupted=int((outcome == CORRUPTED).sum()),
        )
    return accounts


def _compare_books(
    books: np.ndarray, deliveries: np.ndarray, certain_until_ns: ConnectionInstants, rows: pd.DataFrame
) -> StreamAccount:
    account = StreamAccount(feeds=_count_outcomes(deliveries), stored=len(rows))
    keys = _book_keys_of_truth(books)
    by_id = dict(zip(books["id"].tolist(), keys, strict=True))
    delivered = _count_deliveries(deliveries, certain_until_ns, lambda first, _: _identity(by_id[first]))
    stored = _book_keys_of_rows(rows)
    identities = [_identity(key) for key in stored]
    for feed, feed_account in account.feeds.items():
        arrived = rows[f"recv_time_{feed}"].notna().to_numpy()
        _compare_feed(
            feed_account, delivered[feed], [key for key, here in zip(identities, arrived, strict=True) if here]
        )
    found = pair(
        Truth(
            by_id,
            {book: _identity(key) for book, key in by_id.items()},
            dict(zip(books["id"].tolist(), books["mono_ns"].tolist(), strict=True)),
        ),
        {feed: _select_delivered(deliveries, code, certain_until_ns) for code, feed in FEEDS.items()},
        Stored(stored, identities, {feed: _to_ns(rows[f"recv_time_{feed}"]) for feed in FEEDS.values()}),
    )
    account.available, account.missed, account.doubled = found.available, found.missed, found.doubled
    account.pairs, account.wrong_pairs, account.wrong = found.pairs, found.wrong_pairs, found.foreign
    account.merged, account.doubled_unexplained = found.merged, found.doubled_alone
    account.wrong_pairs_apart_s, account.merged_apart_s = found.wrong_apart_ns / 1e9, found.merged_apart_ns / 1e9
    return account


def _select_delivered(deliveries: np.ndarray, code: int, certain_until_ns: ConnectionInstants) -> Delivered:
    """The books that a feed delivered."""
    own = deliveries[(deliveries["line"] == code) & np.isin(deliveries["outcome"], (SENT, REPEATED))]
    certain = ~_find_in_flight(own, certain_until_ns)
    return Delivered(own["first_id"].tolist(), own["mono_ns"].tolist(), certain.tolist())


def _to_ns(times: pd.Series) -> list[int]:
    """Ns since 1970 UTC of a zoned column, 0 for none."""
    ns = pd.to_datetime(times, utc=True).dt.tz_localize(None).to_numpy("datetime64[ns]").astype(np.int64)
    return np.where(times.isna(), 0, ns).tolist()


def _compare_ticks(
    trades: np.ndarray,
    trade_days: np.ndarray,
    deliveries: np.ndarray,
    certain_until_ns: ConnectionInstants,
    rows: pd.DataFrame,
    row_days: np.ndarray,
) -> StreamAccount:
    """Account of the ticks; `trade_days`, `row_days`: the day of each trade and row, on which its cumulative volume counts."""
    live = (rows["source"] == "live").to_numpy()
    # backfilled ticks that no feed delivered: they have to be trades that no live row has
    fetched = reconcile(trades, rows) if not live.all() else []
    rows, row_days = rows[live], row_days[live]
    account = StreamAccount(feeds=_count_outcomes(deliveries), stored=len(rows), fetched=int((~live).sum()))
    at = {trade: place for place, trade in enumerate(trades["id"].tolist())}
    columns = {
        name: trades[name].tolist() for name in ("symbol", "venue", "price", "side", "cum_volume", "size", "exch_s")
    } | {"day": trade_days.tolist()}

    def key(first: int, last: int) -> tuple:
        # a merged trade ends where its last trade ends and covers everything since its first began
        begin, end = at[first], at[last]
        size = columns["cum_volume"][end] - columns["cum_volume"][begin] + columns["size"][begin]
        return (
            columns["day"][end],
            columns["symbol"][end].decode(),
            columns["venue"][end].decode(),
            columns["cum_volume"][end],
            size,
            columns["price"][end],
            columns["side"][end],
            columns["exch_s"][end],
        )

    delivered = _count_deliveries(deliveries, certain_until_ns, key)
    stored = _tick_keys_of_rows(rows, row_days)
    covered, account.doubled = _build_coverage(stored)
    certain, possible = set[tuple](), set[tuple]()
    for feed, feed_account in account.feeds.items():
        feed_deliveries = delivered[feed]
        own = Counter(k for k, here in zip(stored, (rows["broker"] == feed).tolist(), strict=True) if here)
        feed_account.stored = own.total()
        feed_account.in_flight = feed_deliveries.possible.total() - feed_deliveries.certain.total()
        feed_account.missing = sum(count for k, count in feed_deliveries.certain.items() if not covered(k))
        feed_account.extra = sum(count for k, count in own.items() if k not in feed_deliveries.possible)
        certain |= {k for k, count in feed_deliveries.certain.items() if count}
        possible |= set(feed_deliveries.possible)
    account.wrong = sum(k not in possible for k in stored) + sum(one.wrong for one in fetched)
    account.available = len(certain)
    account.missed = sum(not covered(k) for k in certain)
    return account


def _build_coverage(stored: Iterable[tuple]) -> tuple[Callable[[tuple], bool], int]:
    """Coverage of shares by stored ticks, for keys (day, symbol, venue, cumulative volume, size, ...).

    Returns:
        A function that says whether all shares of a key are covered by `stored`, and the number of stored ticks that cover a
        share which another one covers already.
    """
    spans: dict[tuple, list[list[int]]] = {}
    doubled = 0
    for *name, high, size, _, _, _ in sorted(stored, key=lambda k: (k[:3], k[3] - k[4], k[3])):
        mine = spans.setdefault(tuple(name), [])
        if mine and high - size <= mine[-1][1]:
            doubled += high - size < mine[-1][1]
            mine[-1][1] = max(mine[-1][1], high)
        else:
            mine.append([high - size, high])

    def covered(key: tuple) -> bool:
        *name, high, size, _, _, _ = key
        mine = spans.get(tuple(name), [])
        at = bisect_right(mine, high - size, key=lambda span: span[0]) - 1
        return at >= 0 and high <= mine[at][1]

    return covered, doubled


def _find_in_flight(deliveries: np.ndarray, certain_until_ns: ConnectionInstants) -> np.ndarray:
    """Deliveries so shortly before the end of their connection that their arrival is unknown; shape of `sent`."""
    limit_ns = np.array(
        [
            certain_until_ns.get((line, number), MAX_INT64)
            for line, number in zip(deliveries["line"].tolist(), deliveries["connection"].tolist(), strict=True)
        ],
        dtype=np.int64,
    )
    return deliveries["mono_ns"] > limit_ns


def _count_deliveries(
    deliveries: np.ndarray, certain_until_ns: ConnectionInstants, key: object
) -> dict[str, _Deliveries]:
    by_feed = {}
    for code, feed in FEEDS.items():
        own = deliveries[(deliveries["line"] == code) & np.isin(deliveries["outcome"], (SENT, REPEATED))]
        by_feed[feed] = _Deliveries()
        in_flight = _find_in_flight(own, certain_until_ns)
        for first, last, is_in_flight in zip(
            own["first_id"].tolist(), own["last_id"].tolist(), in_flight.tolist(), strict=True
        ):
            content = key(first, last)  # type: ignore[operator]
            by_feed[feed].possible[content] += 1
            by_feed[feed].certain[content] += not is_in_flight
    return by_feed


def _compare_feed(account: FeedAccount, delivered: _Deliveries, stored: Iterable[tuple]) -> None:
    counts = Counter(stored)
    account.stored = counts.total()
    account.in_flight = delivered.possible.total() - delivered.certain.total()
    account.missing = (delivered.certain - counts).total()
    account.extra = (counts - delivered.possible).total()


_SCALARS = (
    ("cum_volume", "cum_volume"),
    ("total_ask", "total_ask_size"),
    ("total_bid", "total_bid_size"),
    ("expected_price", "expected_price"),
    ("expected_size", "expected_size"),
    ("mid_price", "mid_price"),
    ("mid_size", "mid_size"),
)


_NULLS = {"cum_volume": -1, "total_ask_size": -1, "total_bid_size": -1}
"""Null is 0 in the truth where it is a price that there was not, or the size beside it."""

_IDENTITY_BYTES = 8 * (4 * LEVELS + 1)
"""The numbers of a book that identify it: levels, then cumulative volume."""


def _identity(key: tuple) -> tuple:
    symbol, venue, numbers = key
    return symbol, venue, numbers[:_IDENTITY_BYTES]


def _book_keys_of_truth(books: np.ndarray) -> list[tuple]:
    numbers = np.column_stack(
        [
            *(books[side] for side in ("ask_price", "ask_size", "bid_price", "bid_size")),
            *(books[name] for name, _ in _SCALARS),
            books["exch_s"],
        ]
    )
    return _build_keys(
        [s.decode() for s in books["symbol"].tolist()], [v.decode() for v in books["venue"].tolist()], numbers
    )


def _book_keys_of_rows(rows: pd.DataFrame) -> list[tuple]:
    sides = [
        f"{side}_{level}"
        for side in ("ask_price", "ask_size", "bid_price", "bid_size")
        for level in range(1, LEVELS + 1)
    ]
    numbers = np.column_stack(
        [
            rows[[*sides, *(name for _, name in _SCALARS)]].fillna(_NULLS).fillna(0).to_numpy(np.int64),
            _to_unix_seconds(rows["exch_time"]),
        ]
    )
    return _build_keys(rows["symbol"].tolist(), rows["venue"].tolist(), numbers)


def _tick_keys_of_rows(rows: pd.DataFrame, days: np.ndarray) -> list[tuple]:
    columns = [days.tolist()] + [
        rows[name].tolist() for name in ("symbol", "venue", "cum_volume", "size", "price", "side")
    ]
    return list(zip(*columns, _to_unix_seconds(rows["exch_time"]).tolist(), strict=True))


def _to_unix_seconds(times: pd.Series) -> np.ndarray:
    """Unix seconds of a zoned column, int64."""
    return times.dt.tz_convert("UTC").dt.tz_localize(None).to_numpy("datetime64[s]").astype(np.int64)


def _build_keys(symbols: list[str], venues: list[str], numbers: np.ndarray) -> list[tuple]:
    numbers = np.ascontiguousarray(numbers, "<i8")
    return [(s, v, row.tobytes()) for s, v, row in zip(symbols, venues, numbers, strict=True)]
