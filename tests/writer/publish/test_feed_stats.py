"""What each line did by minute: against pandas, and on disk."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pandas as pd
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.writer_data import make_books, make_home, make_ticks, start_writer, stop_writer, wait_for
from support.writer_data import read_counter as count_of

from conf.clock import MINUTE_NS
from conf.home import Home
from conf.market import KR
from ringbuf.records import ORDERBOOK, TICK, UNDEFINED, FeedId, Flag
from ringbuf.ring import Producer
from writer.publish import feed_stats
from writer.publish.feed_stats import NO_FEED, BookColumns, MinuteStats, TickColumns
from writer.publish.feed_stats_file import find_newest_dates, refresh
from writer.schema import timestamp_type

COLUMNS = feed_stats.build_schema(timestamp_type(KR), ("kis", "kiwoom"))
NAMES = [("000660", "KRX"), ("005930", "NXT"), ("005930", "KRX")]
one_book = st.tuples(
    st.integers(0, 2),
    st.integers(0, 2),
    st.one_of(st.none(), st.integers(0, 40)),
    st.one_of(st.none(), st.integers(0, 40)),
    st.booleans(),
    st.booleans(),
    st.booleans(),
).filter(lambda row: row[2] is not None or row[3] is not None)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(one_book, max_size=60),
    st.sampled_from([1.0, 200.0]),
    st.lists(st.integers(0, 60), max_size=3),
    st.integers(1, 70),
)
def test_it_is_what_pandas_says_of_the_same_books(
    rows: list[tuple], speed: float, cuts: list[int], block_rows: int
) -> None:
    """Counts, wins among twins, nearest-rank percentiles of the lags in real milliseconds, by minute, symbol and venue.

    However many pieces the books come in, and however many are sorted at once.
    """
    frame = pd.DataFrame(rows, columns=["name", "minute", "kis", "kiwoom", "late", "timed", "differs"])
    recv = frame[["kis", "kiwoom"]].map(
        lambda ms: UNDEFINED if ms is None or math.isnan(ms) else int(ms * 10**6 * speed)
    )
    won = [int(not (kiwoom is None or (kis is not None and kis <= kiwoom))) for _, _, kis, kiwoom, *_ in rows]
    made = BookColumns(
        frame["name"].to_numpy(np.int64),
        frame["minute"].to_numpy(np.int64) * MINUTE_NS,
        recv.to_numpy(np.int64).reshape(-1, 2),
        np.array(won, np.int8),
        frame["late"].to_numpy(bool),
        frame["differs"].to_numpy(bool),
        frame["timed"].to_numpy(bool),
    )

    stats = MinuteStats()
    for begin, end in pairwise([0, *sorted(at for at in cuts if at < len(rows)), len(rows)]):
        stats.add_books(BookColumns(*(column[begin:end] for column in made)))
    with patch.object(feed_stats, "BLOCK_ROWS", block_rows):
        table = stats.build_table(NAMES, {}, speed, COLUMNS).to_pandas()

    keys = sorted({(*NAMES[row[0]], row[1]) for row in rows})
    assert keys == [(row.symbol, row.venue, row.minute.minute) for row in table.itertuples()]
    for row in table.itertuples():
        mine = [
            (*found, first)
            for found, first in zip(rows, won, strict=True)
            if (*NAMES[found[0]], found[1]) == (row.symbol, row.venue, row.minute.minute)
        ]
        both = [found for found in mine if None not in (found[2], found[3])]
        lags = sorted(float(found[3] - found[2]) for found in both if found[5])
        assert (row.books, row.twins, row.timed) == (len(mine), len(both), len(lags))
        assert row.books_kis == sum(found[2] is not None for found in mine)
        assert row.books_kiwoom == sum(found[3] is not None for found in mine)
        assert (row.first_kis, row.first_kiwoom) == (sum(f[-1] == 0 for f in both), sum(f[-1] == 1 for f in both))
        assert (row.late, row.differ) == (sum(found[4] for found in mine), sum(found[6] for found in mine))
        for percent, value in ((1, row.lag_p01_ms), (50, row.lag_p50_ms), (99, row.lag_p99_ms)):
            if lags:
                assert value == pytest.approx(lags[max(math.ceil(len(lags) * percent / 100), 1) - 1])
            else:
                assert math.isnan(value)


@pytest.mark.parametrize("block_rows", [1, 1000])
@pytest.mark.parametrize("pieces", [[slice(None)], [slice(2, None), slice(2)]])
def test_a_gap_is_counted_in_the_minute_of_the_tick_behind_it(
    pieces: list[slice], block_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One inside the hour, one that began in the hour before; before the day's first tick nothing is known."""
    name = np.array([0, 0, 0, 1, 1])
    minute = np.array([0, 0, 3, 1, 2]) * MINUTE_NS
    line = np.array([0, 1, NO_FEED, 0, 0])
    size, high = np.array([10, 5, 10, 7, 7]), np.array([110, 115, 160, 1007, 1014])

    stats = MinuteStats()
    for piece in pieces:
        stats.add_ticks(TickColumns(*(column[piece] for column in (name, minute, line, size, high))))
    monkeypatch.setattr(feed_stats, "BLOCK_ROWS", block_rows)
    table = stats.build_table(NAMES, {NAMES[0]: 80, NAMES[2]: 9}, 1.0, COLUMNS).to_pandas()

    assert table[["symbol", "gaps", "gap_shares", "volume"]].to_numpy().tolist() == [
        ["000660", 1, 20, 115],
        ["000660", 1, 35, 160],
        ["005930", 0, 0, 1007],
        ["005930", 0, 0, 1014],
    ]
    assert table[["ticks", "ticks_kis", "ticks_kiwoom"]].to_numpy().tolist() == [
        [2, 1, 1],
        [1, 0, 0],
        [1, 1, 0],
        [1, 1, 0],
    ]


@pytest.fixture
def published(place: Path) -> Home:
    """A home with an hour published by a real writer: kiwoom has every second book, 80 ms later; ticks with a gap of 100."""
    home = make_home(place, twin_window_s=1.0, grace_s=1.5)
    rings = {
        (line, stream): Producer.open(home.ring_path(line.name.lower(), stream), dtype, 4096)
        for line in (FeedId.KIS, FeedId.KIWOOM)
        for stream, dtype in (("orderbook", ORDERBOOK), ("tick", TICK))
    }
    first = make_books(range(1000), FeedId.KIS)
    second = make_books(range(0, 1000, 2), FeedId.KIWOOM, mono_ns=int(first["mono_ns"][0]) + 80_000_000)
    second["recv_ns"] = first["recv_ns"][::2] + 80_000_000
    second["flags"][:50] = Flag.CLOCK_STEP
    rings[FeedId.KIS, "orderbook"].publish(first)
    rings[FeedId.KIWOOM, "orderbook"].publish(second)
    numbers = np.array([*range(50, 60), *range(160, 170)])
    some = make_ticks(numbers, FeedId.KIS)
    some["size"] = 1
    rings[FeedId.KIS, "tick"].publish(some)
    process = start_writer(home)
    for ring in rings.values():
        ring.close()
    wait_for(lambda: count_of(home, "books_twins") == 500)
    assert stop_writer(process) == 0
    return home


def read(home: Home) -> pd.DataFrame:
    """As a user reads it."""
    return pd.read_parquet(home.data / "kr" / "feed_health")


def test_a_published_hour_has_its_health_beside_it(published: Home) -> None:
    """Made by the writer when it publishes; pandas reads it without options."""
    found = read(published)

    assert (found.books.sum(), found.books_kis.sum(), found.books_kiwoom.sum(), found.twins.sum()) == (
        1000,
        1000,
        500,
        500,
    )
    assert (found.first_kis.sum(), found.first_kiwoom.sum()) == (500, 0)
    assert found.lag_p50_ms.dropna().unique().tolist() == [80.0]
    assert (found.gaps.sum(), found.gap_shares.sum(), found.volume.max()) == (1, 100, 169)
    assert str(found.minute.dt.tz) == "Asia/Seoul"
    assert found.date.astype(str).unique().tolist() == ["2026-11-20"]
    assert find_newest_dates(published.data / "kr", 5) == ["2026-11-20"]


def test_it_is_made_again_only_of_other_files_and_then_comes_out_the_same(published: Home) -> None:
    """Twice changes nothing; deleted, damaged or with another part it is made again, of all parts."""
    root = published.data / "kr"
    (path,) = root.glob("feed_health/*/*/*.parquet")
    before, content = path.stat(), path.read_bytes()

    refresh(root, KR, "2026-11-20", 1.0)
    assert path.stat() == before

    for spoil in (path.unlink, lambda: path.write_bytes(b"PAR1 damaged")):
        spoil()
        refresh(root, KR, "2026-11-20", 1.0)
        assert path.read_bytes() == content

    (part,) = root.glob("orderbook/*/*/*.parquet")
    pq.write_table(pq.read_table(part, partitioning=None).slice(0, 10), part.with_name("part-1.parquet"))
    refresh(root, KR, "2026-11-20", 1.0)
    assert read(published).books.sum() == 1010
    assert list(path.parent.iterdir()) == [path]


def test_a_fetched_tick_is_no_lines(published: Home) -> None:
    """Whichever broker told it: it closes gaps, but no line brought it."""
    root = published.data / "kr"
    (part,) = root.glob("tick/*/*/*.parquet")
    whole = pq.read_table(part, partitioning=None)
    at = whole.schema.get_field_index("recv_time")
    received = pc.if_else(pc.less(whole.column("cum_volume"), 55), None, whole.column("recv_time"))
    pq.write_table(whole.set_column(at, whole.schema.field(at), received), part)

    refresh(root, KR, "2026-11-20", 1.0)

    found = read(published)
    assert (20, 15) == (found.ticks.sum(), found.ticks_kis.sum())


def test_an_hour_knows_how_far_the_ticks_reached_before_it(published: Home) -> None:
    """The next hour's first tick leaves a gap to the last of this one."""
    root = published.data / "kr"
    (part,) = root.glob("tick/*/*/*.parquet")
    later = pq.read_table(part, partitioning=None)
    columns = {name: later.column(name) for name in later.column_names}
    columns["cum_volume"] = pd.Series(columns["cum_volume"].to_pandas() + 1000)
    columns["exch_time"] = columns["exch_time"].to_pandas() + pd.Timedelta(hours=1)
    hour = part.parent.with_name("hour=10")
    hour.mkdir()
    pd.DataFrame(
        {
            name: pd.Series(column.to_pandas() if hasattr(column, "to_pandas") else column)
            for name, column in columns.items()
        }
    ).to_parquet(hour / part.name)

    refresh(root, KR, "2026-11-20", 1.0)

    found = read(published)
    assert found.groupby("hour", observed=True).gap_shares.sum().tolist() == [100, 1049 - 169 + 100]
