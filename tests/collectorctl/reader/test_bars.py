"""Bars: what they add up to, in whatever order the rows come, and where they say that shares are missing."""

from __future__ import annotations

from datetime import UTC, date, datetime

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.stored_day import at, make_stored_day
from support.writer_data import NINE_NS, SECOND_NS

import collectorctl
from collectorctl.reader.bars import BarClock, compute_bars
from collectorctl.reader.home import HomeReader
from ringbuf.records import Flag
from writer.schema import PARQUET

MINUTE_NS = 60 * SECOND_NS
DAY = "2026-11-20"
CLOCKS = [BarClock(NINE_NS, MINUTE_NS), BarClock(volume=50), BarClock(value=3_000)]

TRADE = st.tuples(st.integers(1, 40), st.integers(0, 90), st.integers(95, 105), st.booleans())
"""Size, seconds after the one before, price, whether it is stored."""


def make_table(trades: list[tuple[int, int, int, bool]]) -> tuple[pa.Table, np.ndarray, np.ndarray]:
    """The stored ones as a table; of all trades cumulative volume and ns."""
    volume = np.cumsum([size for size, *_ in trades], dtype=np.int64)
    times = NINE_NS + np.cumsum([wait for _, wait, *_ in trades], dtype=np.int64) * SECOND_NS
    kind = PARQUET["kr.tick"]
    rows = [
        {
            "exch_time": datetime.fromtimestamp(time // SECOND_NS, UTC),
            "recv_time": datetime.fromtimestamp(time // SECOND_NS, UTC),
            "price": price,
            "size": size,
            "cum_volume": total,
            "side": 1,
            "session": "regular",
            "source": "live",
            "flags": 0,
        }
        for (size, _, price, kept), total, time in zip(trades, volume.tolist(), times.tolist(), strict=True)
        if kept
    ]
    return pa.Table.from_pylist(rows, kind), volume, times


@given(st.lists(TRADE, min_size=1, max_size=30), st.sampled_from(CLOCKS), st.randoms(use_true_random=False))
def test_bars_add_up_and_are_the_same_in_any_order_and_any_chunks(trades: list, clock: BarClock, random) -> None:
    """Volume, value and number of trades are those of the rows; with what is missing they are the exchange's."""
    table, volume, _ = make_table(trades)
    bars = compute_bars(table, clock, int(volume[-1]))
    places = list(range(len(table)))
    random.shuffle(places)
    cut = len(places) // 2
    shuffled = pa.concat_tables([table.take(pa.array(part, pa.int64())) for part in (places[:cut], places[cut:])])

    assert compute_bars(shuffled, clock, int(volume[-1])).equals(bars)
    kept = [(size, price) for size, _, price, is_kept in trades if is_kept]
    assert sum(bars["volume"].to_pylist()) == sum(size for size, _ in kept)
    assert sum(bars["value"].to_pylist()) == sum(size * price for size, price in kept)
    assert sum(bars["count"].to_pylist()) == len(kept)
    if kept:
        assert sum(bars["volume"].to_pylist()) + sum(bars["missing"].to_pylist()) == volume[-1]
        prices = [price for _, price in kept]
        assert (max(bars["high"].drop_null().to_pylist()), min(bars["low"].drop_null().to_pylist())) == (
            max(prices),
            min(prices),
        )


@given(st.lists(TRADE, min_size=1, max_size=30))
def test_a_bar_by_time_is_a_hole_exactly_where_a_missing_trade_may_have_been(trades: list) -> None:
    """From the bar of the trade before it to that of the trade behind it; every other bar is whole, and is the exchange's."""
    table, volume, times = make_table(trades)
    bars = compute_bars(table, CLOCKS[0], int(volume[-1])).to_pylist()
    minutes = ((times - NINE_NS) // MINUTE_NS).tolist()
    kept = [number for number, trade in enumerate(trades) if trade[3]]
    if not kept:
        assert bars == []
        return
    first, last = minutes[kept[0]], minutes[kept[-1]]
    expected = set()
    for number in (number for number, trade in enumerate(trades) if not trade[3]):
        before = max((one for one in kept if one < number), default=None)
        behind = min((one for one in kept if one > number), default=None)
        begin = first if before is None else minutes[before]
        end = last if behind is None else minutes[behind]
        expected |= set(range(begin, end + 1))
    assert {first + number for number, bar in enumerate(bars) if bar["hole"]} == expected
    assert [bar["open"] is None for bar in bars] == [
        minute not in {minutes[one] for one in kept} for minute in range(first, last + 1)
    ]
    for number, bar in enumerate(bars):
        if not bar["hole"]:
            own = [trade for trade, minute in zip(trades, minutes, strict=True) if minute == first + number]
            assert bar["volume"] == sum(size for size, *_ in own)


def test_a_share_that_is_there_twice_counts_once_and_auctions_and_recovered_trades_are_marked() -> None:
    trades = [(10, 0, 100, True), (5, 1, 101, True), (5, 1, 102, True), (4, 70, 103, True)]
    table, *_ = make_table(trades)
    rows = table.to_pylist()
    rows[0] |= {"session": "opening_auction", "side": 0}
    rows[2] |= {"source": "recovered", "side": 0, "recv_time": None, "flags": int(Flag.SPLIT)}
    rows.append(rows[1] | {"broker": "kiwoom"})

    one, two = compute_bars(pa.Table.from_pylist(rows, table.schema), CLOCKS[0]).to_pylist()

    assert (one["volume"], one["count"], one["auction_volume"], one["recovered_volume"]) == (20, 3, 10, 5)
    assert (one["session"], two["session"], one["flags"], two["flags"]) == (None, "regular", int(Flag.SPLIT), 0)
    assert (one["open"], one["high"], one["low"], one["close"], one["vwap"]) == (100, 102, 100, 102, 2015 / 20)
    assert not one["hole"] and not two["hole"]


def test_a_us_day_with_the_trades_of_two_business_dates_has_no_hole_where_the_volume_begins_anew() -> None:
    """In dollars; each date's volume is judged by itself."""
    rows = [
        {
            "exch_time": datetime.fromtimestamp(NINE_NS // SECOND_NS + number, UTC),
            "price": 10.5,
            "size": 4,
            "cum_volume": 4 * (1 + number % 2) + missing,
            "business_date": date(2026, 11, 20 + number // 2),
            "session": "day_market",
            "source": "live",
            "side": 1,
            "flags": 0,
        }
        for number, missing in enumerate((0, 0, 0, 3))
    ]
    table = pa.Table.from_pylist(rows, PARQUET["us.tick"])

    (bar,) = compute_bars(table, CLOCKS[0]).to_pylist()

    assert (bar["volume"], bar["missing"], bar["value"], bar["vwap"], bar["count"]) == (16, 3, 168.0, 10.5, 4)
    assert len(compute_bars(table, BarClock(value=84.0))) == 2


def test_while_no_feed_received_trades_and_no_volume_is_known_bars_are_holes() -> None:
    """Behind the last trade; before it the volume shows that nothing is missing."""
    table, *_ = make_table([(10, 0, 100, True), (5, 70, 101, True)])
    dark = [(NINE_NS, NINE_NS + 30 * SECOND_NS), (NINE_NS + 150 * SECOND_NS, NINE_NS + 240 * SECOND_NS)]

    bars = compute_bars(table, CLOCKS[0], None, dark)

    assert bars["hole"].to_pylist() == [False, False, True, True]
    assert bars["volume"].to_pylist() == [10, 5, 0, 0]
    assert not any(compute_bars(table, CLOCKS[0], 15, dark)["hole"].to_pylist())
    assert compute_bars(table, BarClock(volume=100), None, dark)["hole"].to_pylist() == [True]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> HomeReader:
    return collectorctl.open(make_stored_day(tmp_path_factory.mktemp("home")))


def test_bars_of_a_home_have_the_official_volume_or_the_outages(home: HomeReader) -> None:
    """The seven shares of 000660 that no trade has, behind the last one."""
    bars = home.bars("000660", DAY, "1min")

    assert bars[bars["hole"]][["begin", "missing"]].to_numpy().tolist() == [[at("09:59"), 7]]
    assert bars[bars["recovered_volume"] > 0]["begin"].tolist() == [at("09:40")]
    assert str(bars["begin"].dtype) == "datetime64[ns, Asia/Seoul]"
    assert home.bars("000660", DAY, volume=100, form="arrow")["volume"].to_pandas().sum() == bars["volume"].sum()
    assert home.bars("005930", "2026-11-22", "1min").empty
    unknown_day = home.bars("005930", "2026-11-18", "1min")
    assert len(unknown_day) == 210 and unknown_day["hole"].all()
    for wrong in ({}, {"interval": "1min", "volume": 5}, {"interval": "0.5s"}, {"volume": -1}):
        with pytest.raises(ValueError, match=r"interval"):
            home.bars("005930", DAY, **wrong)


def test_an_outage_to_the_end_of_the_day_is_a_hole_without_a_certificate(home: HomeReader) -> None:
    """The stored day's events know no subscription of a third stock: whether it was traded is unknown."""
    bars = home.bars("373220", DAY, "10min")

    last = bars[bars["volume"] > 0].index[-1]
    assert bars["hole"].tolist() == [number >= last for number in range(len(bars))]
    assert bars["end"].iloc[-1] == pd.Timestamp(f"{DAY} 12:00", tz="Asia/Seoul")
