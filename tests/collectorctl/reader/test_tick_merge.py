"""Ticks of both feeds as a live reader has them, against what the writer publishes of the same ticks."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from collectorctl.reader.tick_merge import REMEMBERED_NS, TickMerge
from conf.clock import DAY_NS
from ringbuf.records import TICK, UNDEFINED, FeedId, Flag, Venue, empty_records
from writer.publish.overlap import TickArrays, select

AT_NS = 1_800_000_000_000_000_000
KIS, KIWOOM = FeedId.KIS, FeedId.KIWOOM
Told = tuple[int, int, int, int]
"""Cumulative volume, size, price, feed."""


def ticks(*told: Told, symbol: bytes = b"005930", venue: Venue = Venue.KRX) -> np.ndarray:
    """Records, received one after the other."""
    records = empty_records(TICK, len(told))
    records["symbol"], records["venue"], records["exch_ns"] = symbol, venue, AT_NS
    records["seq"] = np.arange(1, len(told) + 1)
    records["mono_ns"] = AT_NS + records["seq"]
    for name, column in zip(("cum_volume", "size", "price_e4", "line"), zip(*told, strict=True), strict=False):
        records[name] = column
    records["cum_value"] = records["trade_count"] = 1000
    return records


def read(records: np.ndarray, *more: str) -> list[tuple[int, ...]]:
    """Records as `ticks` takes them, and further fields."""
    return list(
        zip(*(records[name].tolist() for name in ("cum_volume", "size", "price_e4", "line", *more)), strict=True)
    )


def test_a_trade_of_both_feeds_comes_once_whichever_look_its_twin_is_in() -> None:
    merge = TickMerge()
    first = merge.merge(ticks((5, 5, 700, KIS), (12, 7, 700, KIS), (12, 7, 700, KIWOOM)))
    second = merge.merge(ticks((12, 7, 700, KIWOOM), (15, 3, 700, KIWOOM), (15, 3, 700, KIS)))

    assert read(first) + read(second) == [(5, 5, 700, KIS), (12, 7, 700, KIS), (15, 3, 700, KIWOOM)]


def test_a_merged_trade_gives_what_it_has_beyond_its_parts_and_only_its_end_has_the_sums() -> None:
    merge = TickMerge()
    merge.merge(ticks((10, 4, 700, KIS)))
    rest = merge.merge(ticks((20, 20, 700, KIWOOM)))

    assert read(rest) == [(6, 6, 700, KIWOOM), (20, 10, 700, KIWOOM)]
    assert rest["flags"].tolist() == [int(Flag.SPLIT)] * 2
    assert rest["cum_value"].tolist() == rest["trade_count"].tolist() == [UNDEFINED, 1000]
    assert not len(merge.merge(ticks((5, 5, 700, KIS), (6, 1, 700, KIS))))  # its parts, later


def test_what_contradicts_comes_flagged_and_what_has_no_volume_always_comes() -> None:
    merge = TickMerge()
    merge.merge(ticks((10, 5, 700, KIS)))
    odd = merge.merge(ticks((10, 5, 701, KIWOOM), (UNDEFINED, 5, 700, KIWOOM), (3, 5, 700, KIS), (3, 5, 700, KIWOOM)))

    assert read(odd) == [(10, 5, 701, KIWOOM), (UNDEFINED, 5, 700, KIWOOM), (3, 5, 700, KIS), (3, 5, 700, KIWOOM)]
    assert odd["flags"].tolist() == [int(Flag.CONFLICT), 0, 0, 0]


def test_symbols_venues_and_days_have_volumes_of_their_own() -> None:
    merge, same = TickMerge(), (10, 5, 700, KIS)
    tomorrow = ticks(same)
    tomorrow["exch_ns"] += DAY_NS

    assert [
        len(merge.merge(found))
        for found in (ticks(same), ticks(same, symbol=b"000660"), ticks(same, venue=Venue.NXT), tomorrow, ticks(same))
    ] == [1, 1, 1, 1, 0]


def test_a_market_of_one_feed_comes_as_it_is() -> None:
    """As in its files, what the feed repeats comes again."""
    repeated = ticks((10, 5, 700, FeedId.US), (10, 5, 700, FeedId.US), symbol=b"AAPL", venue=Venue.NASDAQ)

    assert len(TickMerge().merge(repeated)) == 2


def test_a_twin_that_comes_long_after_comes_again() -> None:
    """In doubt a tick comes: what is forgotten is no reason to leave one out."""
    merge, counts = TickMerge(), []
    for turns in range(3):
        found = ticks((10, 5, 700, KIS))
        found["mono_ns"] += turns * (REMEMBERED_NS + 1)
        counts.append(len(merge.merge(found)))

    assert counts == [1, 0, 1]


def test_one_feed_whose_ticks_do_not_overlap_comes_byte_for_byte() -> None:
    """Also where trades are missing, and out of order."""
    found = ticks((5, 5, 700, KIS), (20, 4, 701, KIS), (12, 7, 700, KIS), (3, 5, 700, KIS))

    assert TickMerge().merge(found).tobytes() == found.tobytes()


@st.composite
def deliveries(draw: st.DrawFn) -> list[list[Told]]:
    """What two feeds delivered of some trades, in looks: each a part, repeated, at times merged, in any order, some odd."""
    ends = np.cumsum(draw(st.lists(st.integers(1, 9), min_size=1, max_size=12))).tolist()
    found: list[Told] = []
    for feed in (KIS, KIWOOM):
        begin, rest = 0, list(ends)
        while rest:
            count = draw(st.integers(1, 3)) if feed is KIWOOM else 1
            end = rest[min(count, len(rest)) - 1]
            del rest[:count]
            price = draw(st.sampled_from([700] * 9 + [701]))
            found += [(end, end - begin, price, int(feed))] * draw(st.sampled_from([0, 1, 1, 1, 2]))
            begin = end
    found += draw(st.lists(st.just((UNDEFINED, 3, 700, int(KIS))), max_size=2))
    found = draw(st.permutations(found))
    cuts = sorted(draw(st.lists(st.integers(0, len(found)), max_size=5)))
    return [found[a:b] for a, b in zip([0, *cuts], [*cuts, len(found)], strict=True)]


def publish(found: list[Told]) -> list[tuple[int, ...]]:
    """What the writer makes of them: cumulative volume, size, price, feed, flags of each row."""
    columns = np.array(found, np.int64).reshape(-1, 4).T
    arrays = TickArrays(np.zeros(len(found), np.int64), *columns)
    none = arrays.take(slice(0))
    rows = select(none, arrays, np.ones(len(found), bool))
    values = (rows.cum_volume, rows.size, arrays.price[rows.tick], arrays.feed[rows.tick], rows.flags)
    return list(zip(*(column.tolist() for column in values), strict=True))


def count_shares(rows: Iterable[tuple[int, ...]]) -> np.ndarray:
    """In how many rows each share is."""
    counts = np.zeros(120, int)
    for volume, size, *_ in rows:
        if volume != UNDEFINED:
            counts[volume - size : volume] += 1
    return counts


@given(deliveries())
def test_one_look_is_what_the_writer_publishes_and_many_looks_have_the_same_shares(looks: list[list[Told]]) -> None:
    everything = [tick for look in looks for tick in look]
    at_once = TickMerge().merge(ticks(*everything))
    merge = TickMerge()
    parts = [merge.merge(ticks(*look)) for look in looks]
    live = [row for part in parts for row in read(part)]

    assert read(at_once, "flags") == publish(everything)
    assert ((count_shares(live) > 0) == (count_shares(everything) > 0)).all()
    assert sum(row[0] == UNDEFINED for row in live) == sum(tick[0] == UNDEFINED for tick in everything)
    if all(tick[2] == 700 for tick in everything):
        assert count_shares(live).max() <= 1
