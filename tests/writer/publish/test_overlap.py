"""Ticks that came more than once are published once: every share in one row, nothing lost, contradictions kept and flagged."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.writer_data import NINE_NS, SECOND_NS

from collectorctl.recover.matching.day_coverage import DayCoverage
from collectorctl.recover.store.day_ticks import load_ticks
from conf.instrument import Instrument
from ringbuf.records import TICK, UNDEFINED, FeedId, Flag, Side, Venue, empty_records
from writer.journal.entries import JOURNAL, build_entries
from writer.journal.journal import Journal
from writer.publish import dedup
from writer.publish.overlap import TickArrays, deduplicate
from writer.publish.partition import PublishTask, publish

KIS, KIWOOM = int(FeedId.KIS), int(FeedId.KIWOOM)


def received(*ticks: tuple[int, int, int, int]) -> TickArrays:
    """Ticks of one symbol as (cumulative volume, size, price, line), in order of arrival."""
    columns = np.array(ticks, np.int64).reshape(-1, 4).T
    return TickArrays(np.zeros(len(ticks), np.int64), *columns)


def judged(*ticks: tuple[int, int, int, int]) -> tuple[list[int], list[int]]:
    """Which of them stay, which contradict, by position."""
    stays, odd = deduplicate(received(*ticks))
    return np.flatnonzero(stays).tolist(), np.flatnonzero(odd).tolist()


def test_the_same_trade_of_two_lines_is_the_one_that_was_received_first() -> None:
    """And a repeat of one line is no trade."""
    assert judged((10, 5, 700, KIWOOM), (10, 5, 700, KIS), (10, 5, 700, KIWOOM)) == ([0], [])


def test_of_a_merged_print_and_its_parts_the_parts_are_kept_if_they_are_all_there() -> None:
    """Whoever came first; where a part is missing the merged print covers more."""
    merged, first, second = (10, 10, 700, KIWOOM), (4, 4, 700, KIS), (10, 6, 700, KIS)

    assert judged(merged, first, second) == ([1, 2], [])
    assert judged(first, second, merged) == ([0, 1], [])
    assert judged(merged, second) == ([0], [])


def test_what_contradicts_stays_and_is_flagged() -> None:
    """Another price for the same shares or a part of them, intervals that cross, one line's tick within another of its own."""
    assert judged((10, 5, 700, KIS), (10, 5, 701, KIWOOM)) == ([0, 1], [0, 1])
    assert judged((10, 10, 700, KIS), (10, 5, 701, KIWOOM)) == ([0, 1], [0, 1])
    assert judged((10, 6, 700, KIS), (12, 6, 700, KIWOOM)) == ([0, 1], [0, 1])
    assert judged((10, 10, 700, KIS), (10, 5, 700, KIS)) == ([0, 1], [0, 1])


def test_ticks_without_a_cumulative_volume_are_never_touched() -> None:
    """However alike they are; nor is one whose size is larger than the volume."""
    assert judged(*[(UNDEFINED, 5, 700, KIS)] * 3, *[(3, 5, 700, KIS)] * 2) == ([0, 1, 2, 3, 4], [])


@st.composite
def deliveries(draw: st.DrawFn) -> tuple[list[int], list[tuple[int, int, int, int]]]:
    """Sizes of true trades, and what two lines delivered of them: each a part, repeated, its neighbours at times merged."""
    sizes = draw(st.lists(st.integers(1, 9), min_size=1, max_size=12))
    ends = np.cumsum(sizes).tolist()
    told = []
    for line in (KIS, KIWOOM):
        at = 0
        while at < len(sizes):
            count = draw(st.integers(1, 3)) if line == KIWOOM else 1
            last = min(at + count, len(sizes)) - 1
            tick = (ends[last], sum(sizes[at : last + 1]), 700, line)
            told += [tick] * draw(st.sampled_from([0, 1, 1, 1, 2]))
            at = last + 1
    return sizes, draw(st.permutations(told))


@given(deliveries())
def test_every_share_that_was_delivered_is_in_exactly_one_row(given_: tuple[list[int], list]) -> None:
    """Two lines, one of which merges prints, with losses and repeats, in any order of arrival."""
    sizes, told = given_
    stays, odd = deduplicate(received(*told))

    counts = np.zeros(sum(sizes) + 1, int)
    for (high, size, _, _), stay in zip(told, stays.tolist(), strict=True):
        counts[high - size + 1 : high + 1] += stay
    delivered = np.zeros(len(counts), bool)
    for high, size, _, _ in told:
        delivered[high - size + 1 : high + 1] = True
    assert not odd.any()
    assert (counts == delivered).all()


def tick(
    numbers: list[int], line: FeedId = FeedId.KIS, size: int = 1, symbol: str = "005930", price: int = 700
) -> np.ndarray:
    """Ticks that end at these cumulative volumes."""
    found = empty_records(TICK, len(numbers))
    found["symbol"], found["venue"], found["line"], found["side"] = symbol.encode(), Venue.KRX, line, Side.BUY
    found["price_e4"], found["size"], found["cum_volume"] = price * 10_000, size, numbers
    found["exch_ns"] = found["recv_ns"] = NINE_NS
    return found


class Kept:
    """A journal of ticks."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.journal = Journal.open(place / "journal", JOURNAL["kr.tick"])
        self.journal.roll([])

    def put(self, *found: np.ndarray) -> None:
        """Journal some ticks, received one after the other."""
        for some in found:
            some["mono_ns"] = self.journal.last_row * SECOND_NS + np.arange(len(some))
            some["seq"] = self.journal.last_row + 1 + np.arange(len(some))
            self.journal.append(build_entries("kr.tick", some, self.journal.last_row + 1, None), {})

    def publish(self, hour: int = NINE_NS) -> list:
        """The hour, as far as it is journalled."""
        self.journal.roll([])
        segments = tuple(segment.path for segment in self.journal.segments if hour in segment.newest_rows)
        task = PublishTask(
            "kr.tick", self.place / "data", self.journal.lineage, hour, self.journal.last_row, segments, 64, 5.0
        )
        return publish(task)

    def rows(self) -> pd.DataFrame:
        """What a user reads."""
        return pd.read_parquet(self.place / "data")


def test_an_hour_in_which_two_lines_collected_has_each_trade_once_and_says_how_many_went(place: Path) -> None:
    """The count stands in the file's metadata; publishing again changes nothing; other symbols and venues are not confused."""
    kept = Kept(place)
    kept.put(tick([*range(1, 301)]), tick([*range(201, 401)], FeedId.KIWOOM), tick([7], FeedId.KIWOOM, symbol="000660"))
    other = tick([7], FeedId.KIWOOM)
    other["venue"] = Venue.NXT
    kept.put(other, tick([300], price=701))

    (part,) = kept.publish()
    before = part.path.read_bytes()

    rows = kept.rows()
    krx = rows[(rows.symbol == "005930") & (rows.venue == "KRX")]
    assert [*range(1, 301), 300, *range(301, 401)] == krx.sort_values(["cum_volume", "seq"]).cum_volume.tolist()
    assert (krx.broker == "kis").sum() == 301
    assert krx[krx["flags"] == int(Flag.CONFLICT)].cum_volume.tolist() == [300, 300]
    assert len(rows) == 403
    metadata = pq.read_metadata(part.path).metadata
    assert (metadata[b"ticks_doubled"], metadata[b"ticks_contradicting"]) == (b"100", b"2")
    assert (part.duplicates, part.conflicts) == (100, 2)
    assert kept.publish() == []
    assert before == part.path.read_bytes()


def test_what_comes_after_a_part_was_published_is_told_apart_from_it(place: Path) -> None:
    """The hour's first part stays as it is: what it covers does not come again, finer or not; what it contradicts is flagged."""
    kept = Kept(place)
    kept.put(tick([*range(1, 201)]), tick([210], size=10), tick([5], symbol="000660"))
    (first,) = kept.publish()
    before = first.path.read_bytes()
    kept.put(
        tick([*range(150, 201)], FeedId.KIWOOM),
        tick([204], FeedId.KIWOOM, size=4),
        tick([210], FeedId.KIWOOM, size=6),
        tick([100], FeedId.KIWOOM, price=701),
        tick([*range(211, 221)], FeedId.KIWOOM),
        tick([5], FeedId.KIWOOM, symbol="000270"),
    )
    (second,) = kept.publish()

    rows = kept.rows()
    mine = rows[rows.symbol == "005930"]
    assert before == first.path.read_bytes()
    assert [*range(1, 101), 100, *range(101, 201), 210, *range(211, 221)] == sorted(mine.cum_volume)
    assert mine[mine["flags"] == int(Flag.CONFLICT)].price.tolist() == [701]
    assert (second.rows, second.duplicates) == (12, 53)
    assert sorted(set(rows.symbol)) == ["000270", "000660", "005930"]


def test_a_part_of_nothing_but_repeats_is_empty_and_read_like_any_other(place: Path) -> None:
    """It remembers how far the hour is published."""
    kept = Kept(place)
    kept.put(tick([1, 2, 3]))
    kept.publish()
    kept.put(tick([1, 2, 3], FeedId.KIWOOM))

    (part,) = kept.publish()

    assert (part.rows, part.duplicates) == (0, 3)
    assert kept.publish() == []
    assert kept.rows().cum_volume.tolist() == [1, 2, 3]


TEN_NS = NINE_NS + 3600 * SECOND_NS


@st.composite
def hour_edges(draw: st.DrawFn) -> tuple[list[np.ndarray | int], np.ndarray]:
    """What happens around ten o'clock, and which shares are delivered.

    Trades are received from a feed that tells each and from one that merges some, or fetched, each perhaps not at all or twice, in
    any order; the stamps of each delivery may be skewed over the edge. Between deliveries an hour may be published.
    """
    sizes = draw(st.lists(st.integers(1, 9), min_size=1, max_size=8))
    ends = np.cumsum(sizes).tolist()
    edge = draw(st.integers(0, len(sizes)))
    told, delivered = [], np.zeros(ends[-1] + 1, bool)
    for line in (FeedId.KIS, FeedId.KIWOOM, FeedId.GAPFILL):
        at = 0
        while at < len(sizes):
            last = min(at + (draw(st.integers(1, 3)) if line == FeedId.KIWOOM else 1), len(sizes)) - 1
            for _ in range(draw(st.sampled_from([0, 1, 1, 2] if line != FeedId.GAPFILL else [0, 0, 1]))):
                one = tick([ends[last]], line, sum(sizes[at : last + 1]))
                is_late = (last >= edge) != (abs(last - edge) <= 2 and draw(st.booleans()))
                one["exch_ns"] = one["recv_ns"] = TEN_NS + SECOND_NS if is_late else TEN_NS - SECOND_NS
                told.append(one)
                delivered[ends[at] - sizes[at] + 1 : ends[last] + 1] = True
            at = last + 1
    events: list[np.ndarray | int] = draw(st.permutations(told))
    for _ in range(draw(st.integers(0, 3))):
        events.insert(draw(st.integers(0, len(events))), draw(st.sampled_from([NINE_NS, TEN_NS])))
    return [*events, *draw(st.permutations([NINE_NS, TEN_NS]))], delivered


@settings(max_examples=80, deadline=None)
@given(hour_edges())
def test_over_the_edge_of_an_hour_every_share_is_in_exactly_one_row_whatever_was_published_first(
    given_: tuple[list[np.ndarray | int], np.ndarray],
) -> None:
    """Skewed stamps, overlaps, merged prints, fetched ticks, any order of publication; then recovery finds nothing to mend."""
    events, delivered = given_
    with TemporaryDirectory(prefix="cc-") as name:
        kept = Kept(Path(name))
        for event in events:
            kept.publish(event) if isinstance(event, int) else kept.put(event)
        rows = kept.rows() if delivered.any() else pd.DataFrame({"cum_volume": [], "size": [], "flags": []})
        stored = load_ticks(Path(name) / "data", date(2026, 11, 20), Instrument("005930", "KRX"))

    counts = np.zeros(len(delivered), int)
    for high, size in zip(rows.cum_volume.astype(int), rows["size"].astype(int), strict=True):
        counts[high - size + 1 : high + 1] += 1
    assert (counts == delivered).all()
    assert not (rows["flags"].astype(int) & int(Flag.CONFLICT)).any()
    day = DayCoverage.of(stored, None)
    assert (len(day.coverage.overlaps), int(day.placed["size"].sum())) == (0, int(delivered.sum()))


def test_a_trade_stamped_in_two_hours_is_published_in_the_hour_that_comes_first(place: Path) -> None:
    """KIS says 09:59:59, Kiwoom 10:00:00; the merged print of both hours' trades goes as well."""
    kept = Kept(place)
    late = tick([4], FeedId.KIWOOM, size=4), tick([10], FeedId.KIWOOM, size=10), tick([10], size=6)
    for one in late:
        one["exch_ns"] += 3600 * SECOND_NS
    kept.put(tick([4], size=4), *late)

    (first,), (second,) = kept.publish(), kept.publish(TEN_NS)

    assert [(first.rows, first.duplicates), (second.rows, second.duplicates)] == [(1, 0), (1, 2)]
    assert [(4, 4), (10, 6)] == sorted(zip(kept.rows().cum_volume, kept.rows()["size"], strict=True))
    assert not kept.rows()["flags"].any()


def test_of_a_merged_print_stays_the_rest_where_a_part_of_it_was_published(place: Path) -> None:
    """The rest of it is marked; what is known of its end only is not told of a piece before it. Again it comes to nothing."""
    kept = Kept(place)
    kept.put(tick([7], size=3))
    kept.publish()
    merged = tick([10], FeedId.KIWOOM, size=10)
    merged["exch_ns"] += 3600 * SECOND_NS
    merged["cum_value"], merged["value_change"] = 7000, 7000
    kept.put(merged)
    kept.publish(TEN_NS)
    before = kept.rows()
    kept.put(merged.copy())
    (again,) = kept.publish(TEN_NS)

    rows = kept.rows().sort_values("cum_volume")
    assert [(4, 4, True), (7, 3, False), (10, 3, True)] == [
        (int(row.cum_volume), int(row.size_), bool(row.flags_ & int(Flag.SPLIT)))
        for row in rows.rename(columns={"size": "size_", "flags": "flags_"}).itertuples()
    ]
    assert [True, False] == rows[rows.broker == "kiwoom"].cum_value.isna().tolist()
    assert (again.rows, again.duplicates, len(before)) == (0, 1, len(rows))


def test_a_copy_of_a_tick_that_contradicts_another_is_no_third_row(place: Path) -> None:
    """Neither within an hour nor after it was published."""
    assert judged((10, 5, 700, KIS), (10, 5, 701, KIWOOM), (10, 5, 701, KIWOOM)) == ([0, 1], [0, 1])
    kept = Kept(place)
    kept.put(tick([5], size=5), tick([5], FeedId.KIWOOM, size=5, price=701))
    kept.publish()
    kept.put(tick([5], FeedId.KIWOOM, size=5, price=701))

    (part,) = kept.publish()

    assert (part.rows, len(kept.rows())) == (0, 2)


def test_ticks_of_an_hour_beside_it_are_read_only_where_they_overlap(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the statistics of row groups, then by the volume: a price is read of what overlaps alone."""
    kept = Kept(place)
    kept.put(tick([*range(1, 301)]), tick([*range(1, 301)], symbol="000660"))
    kept.publish()
    read, real = list[list[str]](), pq.ParquetFile.read_row_group

    def read_row_group(
        file: pq.ParquetFile, number: int, columns: list[str] | None = None, **options: bool
    ) -> pa.Table:
        read.extend([columns] if columns else [])
        return real(file, number, columns, **options)

    after, over = tick([*range(301, 401)]), tick([300, 301])
    for one in (after, over):
        one["exch_ns"] += 3600 * SECOND_NS
    kept.put(after)
    monkeypatch.setattr(dedup.pq.ParquetFile, "read_row_group", read_row_group)
    kept.publish(TEN_NS)
    assert not [columns for columns in read if "price" in columns]
    assert len(read) <= 2

    kept.put(over)
    (part,) = kept.publish(TEN_NS)
    assert (part.rows, part.duplicates) == (0, 2)
    assert len([columns for columns in read if "price" in columns]) <= 2
