"""Events of depth and trades: the books that they rebuild, their order and times, and hftbacktest's own reading of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectorctl.export import depth_events
from collectorctl.export.depth_events import AT_EXCHANGE, AT_STRATEGY, BUY, DEPTH_CLEAR, SELL, TRADE, build_events
from collectorctl.export.sequence import HOLE, TICK, Books, Ticks, build_sequence
from ringbuf.records import LEVELS, UNDEFINED

SECOND_NS = 1_000_000_000
NINE_NS = 1_795_132_800 * SECOND_NS


@st.composite
def sides(draw: st.DrawFn, count: int, low: int, high: int) -> tuple[np.ndarray, np.ndarray]:
    """Prices and sizes of `count` books: each price once, 0 for an absent level, anywhere among the ten."""
    price, size = np.zeros((2, count, LEVELS), np.int64)
    for row in range(count):
        prices = draw(st.lists(st.integers(low, high), max_size=LEVELS, unique=True))
        at = draw(st.permutations(range(LEVELS)))[: len(prices)]
        price[row, at] = prices
        size[row, at] = draw(st.lists(st.integers(1, 3), min_size=len(at), max_size=len(at)))
    return price, size


@st.composite
def days(draw: st.DrawFn) -> tuple[Books, Ticks, list[int]]:
    """Books, received and recovered trades, and holes within some seconds; times of the exchange are whole seconds, and wrong."""
    count = draw(st.integers(0, 6))
    times = st.integers(0, 8 * SECOND_NS)
    seconds = st.integers(0, 8).map(lambda second: NINE_NS + second * SECOND_NS)
    volumes = st.integers(1, 20)

    def numbers(values: st.SearchStrategy[int], size: int) -> np.ndarray:
        return np.array(draw(st.lists(values, min_size=size, max_size=size)), np.int64)

    bids, asks = draw(sides(count, 1, 12)), draw(sides(count, 13, 24))
    books = Books(
        NINE_NS + np.sort(numbers(times, count)), numbers(seconds, count), numbers(volumes, count), *asks, *bids
    )
    trades = draw(st.integers(0, 6))
    recv = NINE_NS + numbers(times, trades)
    recv[numbers(st.integers(0, 2), trades) == 0] = UNDEFINED
    kinds = st.integers(-1, 1)
    ticks = Ticks(recv, numbers(seconds, trades), numbers(volumes, trades), numbers(volumes, trades), numbers(volumes, trades),
                  numbers(kinds, trades))  # fmt: skip
    return books, ticks, [NINE_NS + draw(times) for _ in range(draw(st.integers(0, 2)))]


def levels_of(price: np.ndarray, size: np.ndarray) -> dict[float, float]:
    return {float(p): float(q) for p, q in zip(price, size, strict=True) if p > 0}


def apply(event: np.void, depth: dict[int, dict[float, float]]) -> None:
    """What hftbacktest's documentation says of an event of depth."""
    kind, side = int(event["ev"]) & 0xFF, int(event["ev"]) & (BUY | SELL)
    if kind == DEPTH_CLEAR:
        depth[side].clear()
    elif kind != TRADE:
        depth[side].pop(event["px"], None)
        if event["qty"]:
            depth[side][event["px"]] = event["qty"]


@settings(max_examples=30, deadline=None)
@given(days())
def test_the_events_up_to_a_book_give_its_levels_and_no_other(day: tuple[Books, Ticks, list[int]]) -> None:
    books, ticks, holes = day
    sequence = build_sequence(books, ticks, holes)
    events = iter(build_events(books, ticks, sequence))
    depth: dict[int, dict[float, float]] = {BUY: {}, SELL: {}}

    expected: list[tuple[dict[float, float], dict[float, float]]] = []
    found: list[tuple[dict[float, float], dict[float, float]]] = []
    event = next(events, None)
    for number, (kind, row) in enumerate(zip(sequence.kind, sequence.row, strict=True)):
        is_last_of_instant = number + 1 == len(sequence.kind) or sequence.recv_ns[number + 1] > sequence.recv_ns[number]
        while event is not None and (event["local_ts"] < sequence.recv_ns[number] or is_last_of_instant):
            if event["local_ts"] > sequence.recv_ns[number]:
                break
            apply(event, depth)
            event = next(events, None)
        if kind != TICK and is_last_of_instant:
            empty = kind == HOLE
            expected.append(
                ({}, {})
                if empty
                else (
                    levels_of(books.bid_price[row], books.bid_size[row]),
                    levels_of(books.ask_price[row], books.ask_size[row]),
                )
            )
            found.append((dict(depth[BUY]), dict(depth[SELL])))
    assert found == expected
    assert event is None


@settings(max_examples=30, deadline=None)
@given(days())
def test_both_times_ascend_and_a_received_row_keeps_its_own(day: tuple[Books, Ticks, list[int]]) -> None:
    books, ticks, holes = day
    sequence = build_sequence(books, ticks, holes)
    events = build_events(books, ticks, sequence)

    for name in ("exch_ts", "local_ts"):
        assert (np.diff(events[name]) >= 0).all()
    assert (events["exch_ts"] <= events["local_ts"]).all()
    received = np.concatenate([books.recv_ns, ticks.recv_ns[ticks.recv_ns != UNDEFINED], np.array(holes, np.int64)])
    assert sorted(sequence.recv_ns[sequence.is_received].tolist()) == sorted(received.tolist())
    assert len(sequence.kind) == len(books.recv_ns) + len(ticks.recv_ns) + len(holes)


@settings(max_examples=30, deadline=None)
@given(days())
def test_each_trade_is_there_once_and_a_recovered_one_is_the_exchanges_alone(
    day: tuple[Books, Ticks, list[int]],
) -> None:
    books, ticks, holes = day
    events = build_events(books, ticks, build_sequence(books, ticks, holes))
    trades = events[(events["ev"] & 0xFF) == TRADE]

    def described(price: int, size: int, side: int, is_received: bool) -> tuple[float, float, int]:
        flags = {1: BUY, -1: SELL, 0: 0}[side] | AT_EXCHANGE | (AT_STRATEGY if is_received else 0)
        return float(price), float(size), TRADE | flags

    expected = [
        described(int(p), int(q), int(side), recv != UNDEFINED)
        for p, q, side, recv in zip(ticks.price, ticks.size, ticks.side, ticks.recv_ns, strict=True)
    ]
    assert sorted((e["px"], e["qty"], int(e["ev"])) for e in trades) == sorted(expected)


def make_day(count: int) -> tuple[Books, Ticks]:
    """Books a tenth of a second apart that move now and then; a trade at every fifth of them, of which one is recovered."""
    rng = np.random.default_rng(1)
    number = np.arange(count)
    middle = 70_000 + 100 * np.cumsum(rng.integers(-1, 2, count) * (rng.random(count) < 0.3))
    step = 100 * np.arange(LEVELS)
    recv = NINE_NS + number * (SECOND_NS // 10) + 12_345
    exch = recv // SECOND_NS * SECOND_NS
    ask, bid = middle[:, None] + 100 + step, middle[:, None] - step
    books = Books(recv, exch, number, ask, rng.integers(1, 9, ask.shape), bid, rng.integers(1, 9, bid.shape))
    at = number[::5]
    tick_recv = recv[at] - 1000
    tick_recv[3:4] = UNDEFINED
    ticks = Ticks(tick_recv, exch[at], at, middle[at], np.full(len(at), 2), np.where(at % 2, 1, -1))
    return books, ticks


def test_a_recovered_trade_stands_before_the_first_row_that_shows_its_volume() -> None:
    books, ticks = make_day(50)
    sequence = build_sequence(books, ticks)

    place = int(np.flatnonzero(~sequence.is_received)[0])
    following = [(sequence.kind[n], sequence.row[n]) for n in (place - 1, place, place + 1)]
    assert following == [(1, 14), (0, 3), (1, 15)]
    assert sequence.recv_ns[place] == books.recv_ns[15]


def test_hftbacktest_reads_the_file_and_has_the_same_best_prices(tmp_path: Path) -> None:
    """With its own event type, its own check of the order, and its own depth."""
    hbt = pytest.importorskip("hftbacktest", reason="extra [export]")
    from hftbacktest.data.validation import validate_event_order

    books, ticks = make_day(300)
    hole_ns = int(books.recv_ns[200]) + 1
    later = Books(*(np.concatenate([each[:201], each[230:]]) for each in books))
    events = build_events(later, ticks, build_sequence(later, ticks, [hole_ns]))
    np.savez_compressed(tmp_path / "day.npz", data=events)

    assert depth_events.EVENT == hbt.types.event_dtype
    validate_event_order(events)
    asset = (
        hbt.BacktestAsset()
        .data([str(tmp_path / "day.npz")])
        .linear_asset(1.0)
        .constant_order_latency(0, 0)
        .risk_adverse_queue_model()
        .no_partial_fill_exchange()
        .trading_value_fee_model(0.0, 0.0)
        .tick_size(100.0)
        .lot_size(1.0)
        .last_trades_capacity(1000)
    )
    test = hbt.HashMapMarketDepthBacktest([asset])
    begin_ns, best, trades = int(events["local_ts"][0]), {}, 0
    test.elapse(0)
    while test.elapse(SECOND_NS // 20) == 0:
        depth = test.depth(0)
        best[test.current_timestamp] = depth.best_bid, depth.best_ask
        trades += len(test.last_trades(0))
        test.clear_last_trades(0)
    test.close()

    assert best
    for at_ns, quotes in best.items():
        newest = np.searchsorted(later.recv_ns, at_ns, "right") - 1
        if hole_ns <= at_ns and later.recv_ns[newest] < hole_ns:
            assert np.isnan(quotes).all(), (at_ns - begin_ns, quotes)
        else:
            assert quotes == (later.bid_price[newest, 0], later.ask_price[newest, 0]), at_ns - begin_ns
    assert trades == (ticks.recv_ns != UNDEFINED).sum()
