"""The volume line at rest and followed live, judged by a model that colours every single share."""

from __future__ import annotations

import msgspec
import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.writer_data import NINE_NS, SECOND_NS, make_book_at, make_tick_records, share_numbers, volume_columns

from ringbuf.records import UNDEFINED, Flag
from writer.volume.coverage import OverlapKind, compute_coverage, compute_gap_trades, compute_gap_values
from writer.volume.gap_tracker import BOOK_AHEAD_TOLERANCE_NS, MAX_OPEN_GAPS, GapTracker
from writer.volume.gaps import GapReport, SymbolGaps, decode_gap_report

DAY_NS = 86_400 * SECOND_NS

intervals = st.lists(st.tuples(st.integers(0, 25), st.integers(1, 12)), max_size=14)
"""(low, size)."""


def of(line: GapTracker) -> SymbolGaps:
    """The only symbol there is."""
    (symbol,) = line.export_symbols()
    return symbol


@given(intervals, st.one_of(st.none(), st.integers(0, 40)))
@example([(0, 4), (0, 4), (4, 2), (0, 6)], 6)
@example([(0, 2), (0, 3), (1, 2)], None)
@settings(max_examples=500, deadline=None)
def test_it_covers_and_misses_what_the_model_does(ticks: list[tuple[int, int]], total: int | None) -> None:
    """Gaps are the shares nobody covers; what is kept covers all that any tick covers; nothing is kept twice but CROSSED."""
    volume, size = volume_columns(ticks)
    covered = set().union(*(share_numbers(low, low + size) for low, size in ticks))

    found = compute_coverage(volume, size, total)

    day = max(covered, default=0) if total is None else total
    assert (day, total is not None) == (found.total, found.official)
    missing = [share_numbers(low, high) for low, high in found.gaps[["low", "high"]].tolist()]
    assert share_numbers(0, day) - covered == set().union(*missing)
    assert sum(map(len, missing)) == found.gaps["shares"].sum()
    kept = [share_numbers(*ticks[n][:1], ticks[n][0] + ticks[n][1]) for n in np.flatnonzero(found.keep)]
    assert covered == set().union(*kept)
    assert max(0, max(covered, default=0) - day) == found.excess_shares
    crossed = (found.overlaps["why"] == OverlapKind.CROSSED).any()
    assert crossed == (sum(map(len, kept)) > len(covered))
    assert (found.order.tolist(), set(np.flatnonzero(found.keep))) == (
        sorted(found.order.tolist(), key=lambda n: ticks[n][0]),
        set(found.order.tolist()),
    )


@given(intervals, st.integers(0, 40))
@settings(max_examples=300, deadline=None)
def test_a_gap_names_the_ticks_beside_it(ticks: list[tuple[int, int]], total: int) -> None:
    """`after` ends at its low and `before` begins at its high, -1 and n at the day's ends."""
    volume, size = volume_columns(ticks)

    for low, high, _, after, before in compute_coverage(volume, size, total).gaps.tolist():
        assert low == (volume[after] if after >= 0 else 0)
        begins = volume[before] - size[before] if before < len(volume) else total
        assert high == min(begins, total)


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(1, 4)), min_size=1, max_size=10), st.data())
@settings(max_examples=300, deadline=None)
def test_merged_prints_go_where_all_their_parts_are(parts: list[tuple[int, int]], data: st.DataObject) -> None:
    """Each print came merged and in parts, some parts were lost: whole ones are kept in parts, others merged, in any order."""
    ticks, expected = [], []
    low = 0
    for size, count in parts:
        pieces = [(low + n * size, size) for n in range(count)]
        here = [piece for piece in pieces if data.draw(st.booleans())]
        whole = (low, size * count)
        ticks += [*here, whole] if count > 1 else [whole]
        expected += pieces if here == pieces else [whole]
        low += size * count
    ticks = data.draw(st.permutations(ticks))

    found = compute_coverage(*volume_columns(ticks), low)

    assert sorted(expected) == [ticks[n] for n in found.order]
    assert len(found.gaps) == 0


def test_of_copies_the_first_stays_and_what_has_no_interval_is_set_aside() -> None:
    """The same interval three times; a tick without size, one without volume, one larger than its volume."""
    volume = np.array([5, 5, 5, 9, UNDEFINED, 3])
    size = np.array([5, 5, 5, 0, 4, 4])

    found = compute_coverage(volume, size, None)

    assert [True, False, False, False, False, False] == found.keep.tolist()
    assert [False, False, False, True, True, True] == found.unplaced.tolist()
    assert [(0, 5, 0, 1, OverlapKind.SAME), (0, 5, 0, 2, OverlapKind.SAME)] == found.overlaps.tolist()


def test_a_gaps_won_is_exact_from_either_vendors_sums() -> None:
    """KIS gives the value itself, also for what was missed before the first tick; Kiwoom its difference to yesterday's total."""
    price = np.array([100, 110, 120]) * 10_000
    volume, size = np.array([10, 30, 60]), np.array([5, 10, 10])
    value = np.array([1000, 3300, 7000])
    laid = compute_coverage(volume, size, 80)
    unknown = np.full(3, UNDEFINED)

    by_value = compute_gap_values(laid, price, size, value, unknown)
    by_change = compute_gap_values(laid, price, size, unknown, value - 999_999)

    assert [(0, 5), (10, 20), (30, 50), (60, 80)] == laid.gaps[["low", "high"]].tolist()
    assert [500, 1200, 2500, UNDEFINED] == by_value.tolist()
    assert [UNDEFINED, 1200, 2500, UNDEFINED] == by_change.tolist()


@given(st.lists(st.tuples(st.integers(1, 9), st.booleans()), min_size=1, max_size=60), st.integers(1, 20), st.data())
@settings(max_examples=300, deadline=None)
def test_followed_live_it_counts_what_lay_finds(
    trades: list[tuple[int, bool]], batch: int, data: st.DataObject
) -> None:
    """In order with losses and repetitions, in batches of any length: gaps, shares and won as at rest, duplicates as repeated."""
    size = np.array([size for size, _ in trades])
    low = np.cumsum(size) - size
    heard = [(int(low[n]), int(size[n])) for n in range(len(trades)) if trades[n][1]]
    again = [tick for tick in heard if data.draw(st.sampled_from([False, False, True]))]
    stream = sorted([*heard, *again])
    line = GapTracker()

    records = make_tick_records(stream)
    for at in range(0, len(records), batch):
        line.add_ticks(records[at : at + batch])

    if not heard:
        assert line.export_symbols() == []
        return
    laid = compute_coverage(*volume_columns(heard), None)
    gaps = [(low, high) for low, high in laid.gaps[["low", "high"]].tolist() if low > 0 or heard[0][0] == 0]
    found = of(line)
    assert heard[0][0] == found.before_start
    assert [(gap.low, gap.high) for gap in found.open if gap.low >= found.start] == gaps
    assert (len(gaps), len(again)) == (found.gaps_found, found.duplicates)
    assert sum(high - low for low, high in gaps) == found.gap_shares
    assert 100 * found.gap_shares == found.gap_value
    assert max(low + size for low, size in heard) == found.volume


@given(
    st.lists(st.tuples(st.integers(1, 3), st.sampled_from([-1, 0, 1]), st.booleans(), st.booleans()), max_size=30),
    st.integers(0, 5),
)
@settings(max_examples=300, deadline=None)
def test_gaps_between_ticks_that_count_tell_how_many_trades_they_hold(
    trades: list[tuple[int, int, bool, bool]], more: int
) -> None:
    """(size, side, heard, counting) each: auctions' prints are none; beside a tick that does not count nothing is told."""
    size, side, heard, counting = (np.array([trade[n] for trade in trades], np.int64) for n in range(4))
    high, count = np.cumsum(size), np.cumsum(side != 0)
    at = np.flatnonzero(heard)
    told = np.where(counting[at] > 0, count[at], UNDEFINED)

    laid = compute_coverage(high[at], size[at], int(size.sum()) + more)
    found = compute_gap_trades(laid, side[at], told)

    for gap, number in zip(laid.gaps.tolist(), found.tolist(), strict=True):
        low, end, _, after, before = gap
        tells = before < len(at) and told[before] != UNDEFINED and (after < 0 or told[after] != UNDEFINED)
        held = int(((high > low) & (high <= end) & (side != 0)).sum())
        assert number == (held if tells else UNDEFINED)


@given(st.permutations(range(12)), st.integers(1, 12))
@settings(max_examples=200, deadline=None)
def test_what_comes_out_of_order_fills_its_gap(order: list[int], batch: int) -> None:
    """All ticks of a line in any order: in the end no gap is open, nothing came twice, and no won or share is missing."""
    records = make_tick_records([(n * 3, 3) for n in order])
    records["trade_count"] = records["cum_volume"] // 3
    line = GapTracker()

    for at in range(0, len(records), batch):
        line.add_ticks(records[at : at + batch])

    found = of(line)
    assert (found.gaps, found.gap_shares, found.duplicates, found.before_start, found.open) == (0, 0, 0, 0, [])
    assert found.volume == 36


def test_a_gaps_trades_and_won_are_told_where_the_vendor_says_them() -> None:
    """KIS's triple gives trades and won; a rounded value gives none, an exact change does."""
    for flags, change, won in (
        (0, UNDEFINED, 1500),
        (Flag.VALUE_ROUNDED, UNDEFINED, 0),
        (Flag.VALUE_ROUNDED, 10**6, 1500),
    ):
        records = make_tick_records([(0, 5), (20, 5)])
        records["trade_count"] = [1, 5]
        records["flags"] = flags
        if change != UNDEFINED:
            records["value_change"] = records["cum_value"] - change
        line = GapTracker()
        line.add_ticks(records)

        found = of(line)

        assert (1, 15, won, 3) == (found.gaps, found.gap_shares, found.gap_value, found.gap_trades)


def test_a_tick_that_names_another_venue_is_no_part_of_the_line() -> None:
    """Its volume is that of the other venue: it neither leaves a gap nor fills one."""
    line = GapTracker()
    ticks = make_tick_records([(0, 10), (500, 7), (10, 5)])
    ticks["flags"][1] |= Flag.VENUE_MISMATCH

    line.add_ticks(ticks)

    assert (of(line).gaps, of(line).gap_shares) == (0, 0)


def test_a_new_day_begins_with_nothing_and_a_straggler_of_the_old_one_changes_nothing() -> None:
    """Korean days; volumes restart."""
    line = GapTracker()
    line.add_ticks(make_tick_records([(0, 5), (20, 5)]))
    line.add_ticks(make_tick_records([(0, 7), (8, 1)], exch_ns=NINE_NS + DAY_NS))
    line.add_ticks(make_tick_records([(40, 5)]))

    found = of(line)

    assert ("2026-11-21", 2, 9, 1) == (found.day, found.ticks, found.volume, found.gap_shares)


def test_memory_stays_bounded_and_sums_stay_right_however_many_gaps_there_are() -> None:
    """Of a thousand gaps the newest are kept, the sums are of all."""
    line = GapTracker()
    line.add_ticks(make_tick_records([(n * 10 + 7, 5) for n in range(1001)]))

    found = of(line)

    assert (MAX_OPEN_GAPS, 5000, 500_000, 1000) == (
        len(found.open),
        found.gap_shares,
        found.gap_value,
        found.gaps_found,
    )
    assert found.before_start == 7


def test_a_book_ahead_of_the_ticks_for_too_long_is_a_witness_once() -> None:
    """Not within the patience, not when the tick comes in time, not before the symbol's first tick; then once until ticks go on."""
    line = GapTracker()
    line.add_books(make_book_at(50, 0))
    line.add_ticks(make_tick_records([(0, 5)]))
    line.check(10 * BOOK_AHEAD_TOLERANCE_NS)
    assert (0, 0) == (of(line).confirmed_by_book, of(line).behind)
    line.add_books(make_book_at(9, 1000))
    line.check(1000 + BOOK_AHEAD_TOLERANCE_NS)
    assert of(line).confirmed_by_book == 0
    line.add_books(make_book_at(12, 2000))
    line.check(1001 + BOOK_AHEAD_TOLERANCE_NS)
    line.check(1002 + BOOK_AHEAD_TOLERANCE_NS)

    assert (1, 4) == (of(line).confirmed_by_book, of(line).behind)

    line.add_ticks(make_tick_records([(9, 3)]))
    line.check(100 * BOOK_AHEAD_TOLERANCE_NS)
    assert (1, 0, 1, 4) == (of(line).confirmed_by_book, of(line).behind, of(line).gaps, of(line).gap_shares)


def test_a_tick_in_time_silences_the_witness_and_a_wrong_volume_is_withdrawn() -> None:
    """A steady small lead of books over ticks is no gap; a book that says less later takes the claim back."""
    line = GapTracker()
    line.add_ticks(make_tick_records([(0, 5)]))
    for n in range(1, 50):
        line.add_books(make_book_at(5 * n + 5, n * BOOK_AHEAD_TOLERANCE_NS // 2))
        line.check(n * BOOK_AHEAD_TOLERANCE_NS // 2)
        line.add_ticks(make_tick_records([(5 * n, 5)]))
    line.add_books(make_book_at(10**6, 100 * BOOK_AHEAD_TOLERANCE_NS))
    line.add_books(make_book_at(250, 100 * BOOK_AHEAD_TOLERANCE_NS + 1))
    line.check(200 * BOOK_AHEAD_TOLERANCE_NS)

    assert (0, 0) == (of(line).confirmed_by_book, of(line).behind)


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 9)), min_size=1, max_size=40), st.integers(0, 40))
@settings(max_examples=200, deadline=None)
def test_a_restored_line_goes_on_like_the_one_that_was_lost(ticks: list[tuple[int, int]], cut: int) -> None:
    """Through JSON and back anywhere: the same afterwards as without."""
    records = make_tick_records(ticks)
    lived, lost, found = GapTracker(), GapTracker(), GapTracker()
    lived.add_ticks(records[:cut])
    lived.add_ticks(records[cut:])
    lost.add_ticks(records[:cut])

    text = msgspec.json.encode(GapReport("", "", "", 0, lost.export_symbols()))
    found.restore(decode_gap_report(text).symbols)
    found.add_ticks(records[cut:])

    assert lived.export_symbols() == found.export_symbols()


def test_no_garbage_stops_it() -> None:
    """Sizes of zero, volumes undefined, huge or too small, venues nobody knows: counted as having no place, and that is all."""
    records = make_tick_records([(0, 5)] * 6)
    records["cum_volume"] = [5, UNDEFINED, 2**62, 3, 5, 5]
    records["size"][4] = 0
    records["venue"][5] = 0
    line = GapTracker()

    line.add_ticks(records)
    line.add_books(make_book_at(UNDEFINED, 0))

    assert (1, 4, 5) == (of(line).ticks, of(line).unplaced, of(line).volume)
    assert decode_gap_report(b"{}") is None
    assert decode_gap_report(b"garbage") is None


def test_a_gap_knows_when_it_was_also_after_a_restart() -> None:
    """The exchange times of the ticks around it: of one batch, of two, and of two lives."""
    first = make_tick_records([(0, 2), (4, 2)])
    first["exch_ns"] = [NINE_NS, NINE_NS + 3 * SECOND_NS]
    line = GapTracker()
    line.add_ticks(first)
    line.add_ticks(make_tick_records([(8, 2)], exch_ns=NINE_NS + 5 * SECOND_NS))
    again = GapTracker()
    again.restore(line.export_symbols())
    again.add_ticks(make_tick_records([(12, 2)], exch_ns=NINE_NS + 9 * SECOND_NS))

    told = [
        (gap.low, (gap.begin_ns - NINE_NS) // SECOND_NS, (gap.end_ns - NINE_NS) // SECOND_NS) for gap in of(again).open
    ]

    assert [(2, 0, 3), (6, 3, 5), (10, 5, 9)] == told
