"""Fetched ticks on their way through the writer: nothing is covered twice, live wins, and the hour is in true order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from support.writer_data import (
    NINE_NS,
    SECOND_NS,
    find_parts,
    make_home,
    make_tick_records,
    read_counter,
    read_published,
    read_running_vitals,
    share_numbers,
    start_writer,
    stop_writer,
    volume_columns,
    wait_for,
)

from ringbuf.records import TICK, UNDEFINED, FeedId, Flag
from ringbuf.ring import Producer
from writer.ingest.backfill_filter import accept_backfill
from writer.publish.overlap import TickArrays, select
from writer.volume.gap_tracker import GapTracker

intervals = st.lists(st.tuples(st.integers(0, 25), st.integers(1, 8), st.booleans()), max_size=12)
"""(low, size, live)."""
gaps = st.lists(st.tuples(st.integers(0, 25), st.integers(1, 12)), max_size=3)


def as_ticks(volume: np.ndarray, size: np.ndarray, live: np.ndarray) -> TickArrays:
    """Ticks of one symbol at one price."""
    feed = np.where(live, int(FeedId.KIS), int(FeedId.GAPFILL))
    return TickArrays(np.zeros(len(size), np.int64), volume, size, np.full(len(size), 700), feed)


NOTHING = as_ticks(*volume_columns([]), np.zeros(0, bool))


def mixed(found: list[tuple[int, int, bool]]) -> np.ndarray:
    """TICK records, some received and some fetched."""
    ticks = make_tick_records([(low, size) for low, size, _ in found])
    ticks["line"] = [FeedId.KIS if live else FeedId.GAPFILL for _, _, live in found]
    return ticks


@given(intervals, gaps)
def test_a_fetched_tick_is_taken_up_where_nothing_else_is(found, open_gaps) -> None:
    """All received ones; fetched ones that lie in a gap and share no share with what is taken up."""
    ticks = mixed(found)
    holes = [(low, low + size) for low, size in open_gaps]

    stays = accept_backfill(ticks, lambda tick: holes)

    live = set().union(*(share_numbers(low, low + size) for low, size, is_live in found if is_live))
    for (low, size, is_live), stayed in zip(found, stays.tolist(), strict=True):
        mine = share_numbers(low, low + size)
        wanted = is_live or (any(mine <= share_numbers(*hole) for hole in holes) and not mine & live)
        assert wanted == stayed
        live |= mine if stayed else set()


@given(st.lists(st.tuples(st.integers(1, 6), st.sampled_from(["live", "fetched", "both", "none"])), max_size=12))
def test_a_fetched_tick_goes_where_received_ones_cover_it(found) -> None:
    """Received ones stay, all of them; with none fetched the order is that of arrival, else that of the volume line."""
    edges = np.cumsum([0, *(size for size, _ in found)]).tolist()
    given_ticks = [
        (edges[at], size, source == "live")
        for at, (size, kind) in enumerate(found)
        for source in ("fetched", "live")
        if kind in (source, "both")
    ][::-1]
    volume, size = volume_columns([(low, size) for low, size, _ in given_ticks])
    live = np.array([is_live for _, _, is_live in given_ticks], bool)

    rows = select(NOTHING, as_ticks(volume, size, live), live)

    stays = [is_live or found[edges.index(low)][1] == "fetched" for low, _, is_live in given_ticks]
    assert np.flatnonzero(stays).tolist() == sorted(rows.tick.tolist())
    assert volume[rows.tick].tolist() == rows.cum_volume.tolist()
    key = (lambda at: at) if live[rows.tick].all() else (lambda at: (volume[at], at))
    assert sorted(rows.tick.tolist(), key=key) == rows.tick.tolist()


def test_of_a_fetched_tick_stays_what_neither_received_nor_published_ones_cover() -> None:
    """Its pieces are marked, and the received tick stays whole."""
    volume, size = volume_columns([(0, 10), (2, 3)])
    live = np.array([False, True])
    published = as_ticks(*volume_columns([(7, 2)]), np.array([True]))

    rows = select(published, as_ticks(volume, size, live), live)

    assert [(0, 2, 2), (1, 5, 3), (0, 7, 2), (0, 10, 1)] == list(
        zip(rows.tick.tolist(), rows.cum_volume.tolist(), rows.size.tolist(), strict=True)
    )
    assert [int(Flag.SPLIT), 0, int(Flag.SPLIT), int(Flag.SPLIT)] == rows.flags.tolist()


def test_a_tick_without_a_volume_stays_behind_its_neighbour() -> None:
    """Where the order is that of the volume."""
    live = np.array([True, True, True, False])
    volume, size = np.array([10, UNDEFINED, 30, 20]), np.array([10, 3, 10, 10])

    assert [0, 1, 3, 2] == select(NOTHING, as_ticks(volume, size, live), live).tick.tolist()


def test_only_gaps_of_which_surely_nothing_is_stored_are_open_to_fetched_ticks() -> None:
    """Not what was before the first tick a writer knows of, which another one may have stored; not another day's or symbol's."""
    line = GapTracker()
    line.add_ticks(make_tick_records([(10, 2), (20, 2), (30, 2)]))
    line.add_ticks(make_tick_records([(24, 2)]))
    asking = make_tick_records([(14, 2)])
    tomorrow = make_tick_records([(14, 2)], exch_ns=NINE_NS + 24 * 3600 * SECOND_NS)
    other = asking.copy()
    other["symbol"] = b"000660"

    assert [(12, 20), (22, 24), (26, 30)] == line.find_open_gaps(asking)
    assert [] == line.find_open_gaps(tomorrow) == line.find_open_gaps(other)


def fetched(begin: int, end: int) -> np.ndarray:
    """Fetched ticks of two shares each."""
    found = heard(begin, end)
    found["line"], found["cum_value"], found["trade_count"] = FeedId.GAPFILL, UNDEFINED, UNDEFINED
    return found


def heard(begin: int, end: int) -> np.ndarray:
    """Ticks of two shares each, as received."""
    found = make_tick_records([(2 * n, 2) for n in range(begin, end)])
    found["mono_ns"] = np.arange(len(found)) + begin
    return found


def test_a_gap_is_filled_once_whatever_is_killed_and_whatever_is_offered(place: Path) -> None:
    """Offered twice, beyond the gap, across the death of the writer, late by the feed itself, and after it was published: each tick
    once, in order."""
    home = make_home(place, grace_s=1000.0, late_every_s=1000.0)
    ticks = Producer.open(home.ring_path("kis", "tick"), TICK, 65536)
    fill = Producer.open(home.ring_path("gapfill", "tick"), TICK, 1024)
    first = start_writer(home)
    wait_for(lambda: read_running_vitals(home, first))
    ticks.publish(heard(0, 100))
    ticks.publish(heard(150, 200))
    wait_for(lambda: read_counter(home, "gap_shares") == 100)
    fill.publish(fetched(90, 130))
    wait_for(lambda: read_counter(home, "rows_in_gapfill") == 30)
    fill.publish(fetched(100, 120))
    wait_for(lambda: read_counter(home, "gapfill_refused_rows") == 30)
    first.kill()
    first.wait()
    fill.publish(fetched(100, 150))
    second = start_writer(home)
    wait_for(lambda: read_running_vitals(home, second) and read_counter(home, "gapfill_refused_rows") == 30)
    wait_for(lambda: read_counter(home, "gap_count") == 0)
    ticks.publish(heard(110, 112))
    ticks.publish(heard(200, 210))
    wait_for(lambda: read_counter(home, "ticks_in") >= 32)

    ticks.close()
    fill.close()
    assert stop_writer(second) == 0

    (part,) = find_parts(home, "tick")
    rows = read_published(home, "tick")
    assert [2 * n + 2 for n in range(210)] == rows.cum_volume.tolist()
    expected = np.full(210, "live", object)
    expected[100:150] = "recovered"
    expected[110:112] = "live"
    assert expected.tolist() == rows.source.tolist()
    assert (rows.recv_time.isna() == (rows.source == "recovered")).all()
    assert (rows.seq.isna() == (rows.source == "recovered")).all()
    assert {"kis"} == set(rows.broker)
    assert rows[["symbol", "venue", "exch_time", "price", "size", "session"]].notna().all(axis=None)
    assert "part-0.parquet" == part.name

    ticks = Producer.open(home.ring_path("kis", "tick"), TICK, 65536)
    ticks.publish(heard(120, 125))
    ticks.close()
    third = start_writer(home)
    wait_for(lambda: read_running_vitals(home, third) and read_counter(home, "ticks_in") == 5)
    assert stop_writer(third) == 0
    assert [2 * n + 2 for n in range(210)] == read_published(home, "tick").cum_volume.tolist()
