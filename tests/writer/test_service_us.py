"""The US datasets through a real writer: nights in which clocks change, dollars, one line without a twin."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from support.writer_data import (
    find_parts,
    make_books,
    make_home,
    make_ticks,
    read_running_vitals,
    start_writer,
    stop_writer,
    wait_for,
)

from conf.home import Home
from conf.market import US
from ringbuf.records import ORDERBOOK, TICK, FeedId, Session, Venue
from ringbuf.ring import Producer
from writer.publish.partition import hour_directory

HOUR_NS = 3600 * 10**9


def ns(text: str, zone: str = "UTC") -> int:
    """An instant, by pandas."""
    return int(pd.Timestamp(text, tz=zone).value)


def us_home(place: Path) -> Home:
    """A home that collects the US feed."""
    make_home(place)
    with (place / "collector.toml").open("a") as file:
        file.write("[us]\nenabled = true\n")
    return Home(place)


def us(records: np.ndarray, venue: Venue = Venue.NASDAQ) -> np.ndarray:
    """The same records as the US feed's."""
    records["line"], records["venue"], records["symbol"], records["session"] = (
        FeedId.US,
        venue,
        b"AAPL",
        Session.REGULAR,
    )
    return records


def collect(home: Home, *batches: np.ndarray) -> None:
    """Ring the batches, one writer killed after the first of them."""
    rings = {
        dtype: Producer.open(home.ring_path("us", stream), dtype, 4096)
        for stream, dtype in (("orderbook", ORDERBOOK), ("tick", TICK))
    }
    first = start_writer(home)
    wait_for(lambda: read_running_vitals(home, first), 30)
    rings[batches[0].dtype].publish(batches[0])
    wait_for(lambda: read_running_vitals(home, first).counters["rows_in_us"] >= len(batches[0]), 30)
    os.kill(first.pid, signal.SIGKILL)
    first.wait(30)
    second = start_writer(home)
    wait_for(lambda: read_running_vitals(home, second), 30)
    for batch in batches[1:]:
        rings[batch.dtype].publish(batch)
    for ring in rings.values():
        ring.close()
    assert stop_writer(second) == 0


@pytest.mark.parametrize(
    ("first", "hours"),
    [
        # clocks are set back: one o'clock comes twice
        ("2026-11-01 04:30", [("2026-11-01", 0), ("2026-11-01", 1), ("2026-11-01", 1), ("2026-11-01", 2)]),
        # clocks are set forward: two o'clock does not come
        ("2027-03-14 05:30", [("2027-03-14", 0), ("2027-03-14", 1), ("2027-03-14", 3), ("2027-03-14", 4)]),
    ],
)
def test_hours_are_new_yorks_also_when_clocks_change(place: Path, first: str, hours: list[tuple[str, int]]) -> None:
    """Four hours one after the other, in the directories New York would name; every row once, also after a kill.

    Both hours called one o'clock lie in one directory, and a part of the second says so: how far each is published is told apart.
    """
    home, begin_ns = us_home(place), ns(first)
    batches = [us(make_books(range(n * 40, n * 40 + 40), exch_ns=begin_ns + n * HOUR_NS)) for n in range(4)]

    collect(home, *batches)

    rows = pd.read_parquet(home.data / "us" / "orderbook")
    found = rows.groupby("exch_time").agg(date=("date", "first"), hour=("hour", "first"), rows=("seq", "count"))
    assert [(date, hour, 40) for date, hour in hours] == [
        (str(date), int(hour), count) for date, hour, count in found.itertuples(index=False)
    ]
    assert str(rows["exch_time"].dtype) == "datetime64[ns, America/New_York]"
    assert sorted(rows["seq"]) == list(range(1, 161))
    metadata = [pq.read_metadata(path).metadata for path in (home.data / "us" / "orderbook").rglob("part-*.parquet")]
    assert [b"1"] * (len(hours) - len(set(hours))) == [told[b"fold"] for told in metadata if b"fold" in told]
    assert {b"one-line/1"} == {told[b"arbitration_rule"] for told in metadata}
    for number, (date, hour) in enumerate(hours):
        directory = hour_directory(Path(), begin_ns + number * HOUR_NS, US)
        assert directory == Path(f"date={date}") / f"hour={hour:02}"


def test_prices_are_dollars_and_a_day_markets_business_date_is_koreas(place: Path) -> None:
    """float64 nearest to the 1/10,000. A book that comes back is stored again: one line has no twins, and no arrivals of others.

    The evening of the 19th in New York is the day market's session of the 20th; an exchange's own evening is not.
    """
    home, at_ns = us_home(place), ns("2026-11-20 01:30")  # 20:30 in New York, 10:30 in Korea
    found, same = us(make_ticks(range(1, 40), exch_ns=at_ns)), us(make_books([7] * 30, exch_ns=at_ns), Venue.NASDAQ_DAY)
    found["price_e4"] = 1_828_500 + np.arange(len(found))
    same["ask_price_e4"][:, 0] = 1_828_750

    collect(home, found, same)

    rows, seen = pd.read_parquet(home.data / "us" / "tick"), pd.read_parquet(home.data / "us" / "orderbook")
    assert [n / 10_000 for n in range(1_828_500, 1_828_539)] == sorted(rows["price"])
    assert rows["price"].dtype == "float64" and rows["size"].dtype == "int64"
    assert 30 == len(seen) and {182.875} == set(seen["ask_price_1"])
    assert not {"recv_time_kis", "recv_time_kiwoom"} & set(seen.columns)
    assert ({"us"}, {"us"}) == (set(rows["broker"]), set(seen["broker"]))
    assert find_parts(home) == []  # nothing Korean
    for table, day in ((rows, "2026-11-19"), (seen, "2026-11-20")):
        assert {day} == set(map(str, table["business_date"]))
        assert {("2026-11-19", 20)} == {
            (str(date), int(hour)) for date, hour in zip(table["date"], table["hour"], strict=True)
        }
