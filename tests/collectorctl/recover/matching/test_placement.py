"""Rows on the volume line, judged against days whose truth is known, however equal their trades are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from support.writer_data import NINE_NS, SECOND_NS

from brokers.history import TRADE_ROW
from collectorctl.recover.matching.anchors import BOOK_VOLUME, MINUTE
from collectorctl.recover.matching.minutes import compute_minute_excess
from collectorctl.recover.matching.placement import (
    Placement,
    PlacementError,
    Reason,
    UncoveredRange,
    place_by_alignment,
    place_by_volume,
)
from conf.clock import MINUTE_NS
from ringbuf.records import UNDEFINED
from writer.volume.coverage import Coverage, compute_coverage, compute_gap_values

CHART_FIELDS = ["size", "price", "exch_ns"]
LIVE = np.dtype([*((name, "<i8") for name in (*CHART_FIELDS, "cum_volume", "cum_value")), ("side", "i1")])


class Day(NamedTuple):
    """A day: its trades, volume that passed without a trade before each of them, and its total."""

    trades: np.ndarray
    jumps: np.ndarray
    total: int

    def bars(self, whole: bool = False) -> np.ndarray:
        """Minute bars without the jumps; or the `whole` volume, a jump in the minute of the trade behind it."""
        minutes, which = np.unique(self.trades["exch_ns"] // MINUTE_NS * MINUTE_NS, return_inverse=True)
        bars = np.zeros(len(minutes), MINUTE)
        bars["minute_ns"] = minutes
        np.add.at(bars["shares"], which, self.trades["size"] + (self.jumps if whole else 0))
        return bars


def day_of(size: list[int], price: list[int], step_s: list[int], jumps: list[int], last_jump: int = 0) -> Day:
    """Trades with these sizes, prices and seconds since the one before; `jumps`: volume without a trade before each."""
    trades = np.zeros(len(size), LIVE)
    trades["size"] = size
    trades["price"] = price
    trades["exch_ns"] = NINE_NS + np.cumsum(step_s) * SECOND_NS
    trades["cum_volume"] = np.cumsum(np.array(size, np.int64) + jumps)
    trades["cum_value"] = np.cumsum(np.array(size, np.int64) * price)
    total = int(trades["cum_volume"][-1]) if len(size) else 0
    return Day(trades, np.array(jumps, np.int64), total + last_jump)


def live_of(day: Day, heard: list[bool], merge: list[bool]) -> np.ndarray:
    """What was heard live; a trade that may merge goes with the next if both were heard, at one price in one second."""
    found = []
    for at in range(len(day.trades)):
        if not heard[at]:
            continue
        tick = day.trades[at].copy()
        last = found[-1] if found else None
        follows = last is not None and last["cum_volume"] == tick["cum_volume"] - tick["size"]
        if follows and merge[at] and all(last[name] == tick[name] for name in ("price", "exch_ns")):
            tick["size"] += last["size"]
            found[-1] = tick
        else:
            found.append(tick)
    return np.array(found, LIVE) if found else np.zeros(0, LIVE)


def rows_of(trades: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """Trades as TRADE_ROW with these fields."""
    rows = np.zeros(len(trades), TRADE_ROW)
    for name in names:
        rows[name] = trades[name]
    return rows


def chart_of(day: Day) -> np.ndarray:
    """The rows that a faithful broker would give."""
    return rows_of(day.trades, CHART_FIELDS)


def placed(day: Day, live: np.ndarray, chart: np.ndarray, checks: bool = False) -> tuple[Coverage, Placement]:
    """Lay what was heard, place the rows; with `checks` also against values and minute bars."""
    coverage = compute_coverage(live["cum_volume"], live["size"], day.total)
    unknown = np.full(len(live), UNDEFINED)
    values = (
        compute_gap_values(coverage, live["price"] * 10_000, live["size"], live["cum_value"], unknown)
        if checks
        else None
    )
    return coverage, place_by_alignment(coverage, live, chart, values, day.bars() if checks else None)


def books_of(day: Day) -> np.ndarray:
    """What books showed: each trade's end, and the end of volume without a trade, in the second of the trade behind it."""
    trades = day.trades
    low = trades["cum_volume"] - trades["size"]
    told = np.zeros(2 * len(trades), BOOK_VOLUME)
    told["cum_volume"] = np.concatenate([trades["cum_volume"], low])
    told["first_ns"] = told["last_ns"] = np.concatenate([trades["exch_ns"], trades["exch_ns"]])
    _, first = np.unique(told["cum_volume"], return_index=True)
    return told[first]


def intervals(rows: np.ndarray) -> set[tuple[int, ...]]:
    """(end of the interval, size, price, second) of each row."""
    names = ("cum_volume", "size", "price", "exch_ns")
    return set(zip(*(rows[name].tolist() for name in names), strict=True))


@st.composite
def days(draw: st.DrawFn, jumps: bool) -> tuple[Day, np.ndarray]:
    """A small day of very similar trades, and what was heard of it; a jump only where its place was not heard on."""
    count = draw(st.integers(1, 40))

    def each(kind: st.SearchStrategy) -> list:
        return draw(st.lists(kind, min_size=count, max_size=count))

    before = each(st.sampled_from([0, 0, 0, 0, 1, 2, 9])) if jumps else [0] * count
    seconds = each(st.sampled_from([0, 0, 0, 1, 40]))
    day = day_of(each(st.sampled_from([1, 1, 2, 5])), each(st.sampled_from([7, 7, 8])), seconds, before)
    lost = draw(st.sampled_from([2, 4, 8]))
    heard = [n > 0 for n in each(st.integers(0, lost))]
    return day, live_of(day, heard, each(st.booleans()))


@given(days(jumps=False))
@settings(max_examples=200, deadline=None)
def test_a_faithful_chart_fills_every_gap_with_the_true_trades(drawn: tuple[Day, np.ndarray]) -> None:
    """Equal trades in a second, merged prints, losses anywhere: every missing trade at its own place, checks agree, clean."""
    day, live = drawn

    coverage, found = placed(day, live, chart_of(day), checks=True)

    missing = [
        t
        for t in day.trades
        if ((coverage.gaps["low"] < t["cum_volume"]) & (t["cum_volume"] <= coverage.gaps["high"])).any()
    ]
    assert intervals(np.array(missing, LIVE)) == intervals(found.rows)
    assert (found.inconsistencies, found.uncovered, found.anchors_failed) == ([], [], 0)
    assert found.is_clean


def stamp_otherwise(live: np.ndarray, data: st.DataObject) -> np.ndarray:
    """The same ticks, some of them stamped a second later, or some a second earlier."""
    skewed = np.array(data.draw(st.lists(st.booleans(), min_size=len(live), max_size=len(live))), bool)
    live = live.copy()
    live["exch_ns"][skewed] += data.draw(st.sampled_from([-1, 1])) * SECOND_NS
    return live


@given(days(jumps=False), st.data())
@settings(max_examples=300, deadline=None)
def test_a_feed_that_stamps_a_second_otherwise_contradicts_no_chart(
    drawn: tuple[Day, np.ndarray], data: st.DataObject
) -> None:
    """Every missing trade is at its own place, or none is called exact; live ticks have their rows, and minutes agree."""
    day, live = drawn

    _, found = placed(day, stamp_otherwise(live, data), chart_of(day), checks=True)

    exact = found.rows[found.rows["exact"]]
    assert intervals(exact) <= intervals(day.trades)
    assert (found.anchors_failed, found.inconsistencies) == (0, [])
    assert found.is_clean or found.uncovered


@given(days(jumps=True), st.data())
@settings(max_examples=300, deadline=None)
def test_what_is_called_exact_is_true_though_a_feed_stamps_a_second_otherwise(
    drawn: tuple[Day, np.ndarray], data: st.DataObject
) -> None:
    """Beside volume without rows as well."""
    day, live = drawn
    live = stamp_otherwise(live, data)
    coverage = compute_coverage(live["cum_volume"], live["size"], day.total)

    found = place_by_alignment(coverage, live, chart_of(day))

    assert intervals(found.rows[found.rows["exact"]]) <= intervals(day.trades)


@given(days(jumps=True), st.sampled_from([None, False, True]), st.sampled_from([0, 1, 3]))
@settings(max_examples=600, deadline=None)
def test_what_is_called_exact_is_true_beside_volume_that_has_no_rows(
    drawn: tuple[Day, np.ndarray], whole: bool | None, each: int
) -> None:
    """Off-book jumps among equal trades: a row that is called exact is the trade of that very interval, and what passed between two
    rows no trade; no live tick fails; minute bars that hold the jumps, or do not, contradict nothing; books of a jump
    in one piece make no difference to that."""
    day, live = drawn
    coverage = compute_coverage(live["cum_volume"], live["size"], day.total)
    books = books_of(day)

    ends = (day.trades["cum_volume"] - day.trades["size"])[day.jumps > 0]
    once = all(np.sum((ends > low) & (ends <= high)) < 2 for low, high in coverage.gaps[["low", "high"]].tolist())
    told = books[::each] if each and once else None
    found = place_by_alignment(
        coverage, live, chart_of(day), None, None if whole is None else day.bars(whole), book_volumes=told
    )

    for residual in found.uncovered:
        if residual.reason == Reason.ROWLESS_BETWEEN_ROWS:
            inside = (day.trades["cum_volume"] > residual.low) & (day.trades["cum_volume"] <= residual.high)
            assert not inside.any()
    exact = found.rows[found.rows["exact"]]
    assert intervals(exact) <= intervals(day.trades)
    assert found.anchors_failed == 0
    assert [finding for finding in found.inconsistencies if finding.minute_ns is None] == []
    if Reason.AMBIGUOUS not in {residual.reason for residual in found.uncovered}:
        assert found.inconsistencies == []
    assert len(np.unique(found.rows["row"])) == len(found.rows)
    uncovered = sum(residual.high - residual.low for residual in found.uncovered)
    assert int(coverage.gaps["shares"].sum()) == uncovered + int(found.rows["size"].sum())
    assert uncovered >= day.jumps.sum()


@given(days(jumps=False), st.data())
@settings(max_examples=150, deadline=None)
def test_rows_missing_in_gaps_never_make_others_wrong(drawn: tuple[Day, np.ndarray], data: st.DataObject) -> None:
    """Rows of missing trades are missing in the chart, too: what is still called exact is true, and the result is not clean."""
    day, live = drawn
    coverage = compute_coverage(live["cum_volume"], live["size"], day.total)
    in_gap = np.array(
        [((coverage.gaps["low"] < v) & (v <= coverage.gaps["high"])).any() for v in day.trades["cum_volume"]]
    )
    gone = in_gap & np.array(data.draw(st.lists(st.booleans(), min_size=len(in_gap), max_size=len(in_gap))))
    assume(gone.any())

    _, found = placed(day, live, chart_of(day)[~gone])

    assert intervals(found.rows[found.rows["exact"]]) <= intervals(day.trades)
    assert not found.is_clean


@given(days(jumps=False), st.data())
@settings(max_examples=300, deadline=None)
def test_a_faulty_chart_is_clean_only_if_no_check_can_tell(drawn: tuple[Day, np.ndarray], data: st.DataObject) -> None:
    """Swap, drop, double, drop one and double another: clean means that all gaps' shares and won and all minutes are true."""
    day, live = drawn
    chart = chart_of(day)
    a, b = (data.draw(st.integers(0, len(chart) - 1)) for _ in range(2))
    fault = data.draw(st.sampled_from(["swap", "drop", "double", "both", "page"]))
    order = np.arange(len(chart))
    if fault == "swap":
        chart["size"][[a, b]] = chart["size"][[b, a]]
    elif fault == "drop":
        chart = np.delete(chart, a)
    elif fault == "double":
        chart = np.insert(chart, a, chart[a])
    elif fault == "both":
        order = np.sort(np.insert(np.delete(order, a), 0, b))
        chart = chart[order]
    else:
        chart = np.delete(chart, slice(min(a, b), max(a, b) + 1))

    coverage, found = placed(day, live, chart, checks=True)

    if not found.is_clean:
        return
    both = np.concatenate([live[coverage.order][CHART_FIELDS], found.rows[CHART_FIELDS]])
    both = both[
        np.argsort(np.concatenate([live["cum_volume"][coverage.order], found.rows["cum_volume"]]), kind="stable")
    ]
    bars = day.bars()
    excess = compute_minute_excess(both["exch_ns"], both["size"], bars["minute_ns"], bars["shares"], settle_edges=False)
    assert not excess[1].any()
    for number, (low, high) in enumerate(coverage.gaps[["low", "high"]].tolist()):
        truth = day.trades[(day.trades["cum_volume"] > low) & (day.trades["cum_volume"] <= high)]
        mine = found.rows[found.rows["gap"] == number]
        assert truth["size"].sum() == mine["size"].sum()
        if coverage.gaps["before"][number] < len(live):
            assert (truth["size"] * truth["price"]).sum() == (mine["size"] * mine["price"]).sum()


@pytest.mark.parametrize("whole", [None, False, True])
def test_books_tell_between_which_rows_volume_off_the_book_passed(whole: bool | None) -> None:
    """A block in each of two outages: with books every row has its place and the blocks stand alone; without, they hide rows."""
    plain = a_day()
    jumps = np.zeros(len(plain.trades), np.int64)
    jumps[[700, 920]] = 5000, 1234
    day = day_of(
        plain.trades["size"].tolist(),
        plain.trades["price"].tolist(),
        np.diff(plain.trades["exch_ns"] // SECOND_NS, prepend=plain.trades["exch_ns"][0] // SECOND_NS).tolist(),
        jumps.tolist(),
    )
    lost = [*range(600, 800), *range(900, 1000)]
    live = heard_of(day, lost)
    coverage = compute_coverage(live["cum_volume"], live["size"], day.total)
    bars = None if whole is None else day.bars(whole)
    ends = day.trades["cum_volume"][[700, 920]] - day.trades["size"][[700, 920]]

    without = place_by_alignment(coverage, live, chart_of(day), None, bars)
    told = place_by_alignment(coverage, live, chart_of(day), None, bars, book_volumes=books_of(day))

    assert not without.rows["exact"].all()
    assert [(end - jump, end) for end, jump in zip(ends.tolist(), (5000, 1234), strict=True)] == [
        (one.low, one.high) for one in told.uncovered
    ]
    assert {Reason.ROWLESS_BETWEEN_ROWS} == {one.reason for one in told.uncovered}
    assert intervals(day.trades[lost]) == intervals(told.rows[told.rows["exact"]])
    assert told.inconsistencies == []


def test_a_book_is_told_from_one_of_the_other_offset_by_its_second() -> None:
    """Trades of one share each: by volume alone any book behind the block could be one of before it."""
    count = 200
    day = day_of([1] * count, [7, 8] * (count // 2), [5] * count, [0] * 100 + [50] + [0] * 99)
    live = heard_of(day, slice(1, count - 1))
    coverage = compute_coverage(live["cum_volume"], live["size"], day.total)

    found = place_by_alignment(coverage, live, chart_of(day), book_volumes=books_of(day))

    assert [UncoveredRange(100, 150, Reason.ROWLESS_BETWEEN_ROWS)] == found.uncovered
    assert intervals(day.trades[1:-1]) == intervals(found.rows[found.rows["exact"]])


def test_books_that_suit_no_growth_of_the_volume_are_not_believed() -> None:
    """A book's volume in the middle of a row: as if there were no books."""
    day = day_of([5, 5, 5, 5, 5], [7, 8, 7, 8, 7], [40] * 5, [0, 0, 100, 0, 0])
    live = heard_of(day, slice(1, 4))
    coverage = compute_coverage(live["cum_volume"], live["size"], day.total)
    books = books_of(day)
    books["cum_volume"][2] -= 2

    found = place_by_alignment(coverage, live, chart_of(day), book_volumes=books)

    assert {Reason.NO_ROWS} == {one.reason for one in found.uncovered}
    assert not found.rows["exact"].any()


def a_day(seed: int = 1, count: int = 2000) -> Day:
    """An ordinary day of a busy symbol: equal trades in one second are normal."""
    random = np.random.default_rng(seed)
    price = 70_000 + 100 * np.cumsum(random.choice([-1, 0, 0, 0, 1], count))
    size, step_s = random.choice([1, 1, 1, 2, 5, 10, 33], count), random.choice([0, 0, 0, 1, 2], count)
    return day_of(size.tolist(), price.tolist(), step_s.tolist(), [0] * count)


def heard_of(day: Day, lost: slice | range | list[int]) -> np.ndarray:
    """What was heard when these trades were lost."""
    keep = np.ones(len(day.trades), bool)
    keep[lost] = False
    return day.trades[keep]


def test_two_swapped_sizes_are_seen_wherever_they_are() -> None:
    """Both in the gap: the value tells; one in it or none: a live tick has no rows; in other minutes: the minute bars tell, too."""
    day = a_day()
    live = heard_of(day, slice(500, 700))
    for one, other in ((520, 640), (480, 520), (100, 1500)):
        other += int(np.flatnonzero(day.trades["size"][other:] != day.trades["size"][one])[0])
        chart = chart_of(day)
        chart["size"][[one, other]] = chart["size"][[other, one]]

        _, found = placed(day, live, chart, checks=True)

        assert not found.is_clean
        assert found.inconsistencies != []
        assert (found.anchors_failed > 0) == (one < 500)


def test_minute_bars_alone_tell_a_trade_dropped_and_another_doubled() -> None:
    """One price all day, the same size: shares and won of the gap agree; the minutes do not."""
    day = day_of([10] * 600, [100] * 600, [1] * 600, [0] * 600)
    live = heard_of(day, slice(100, 400))
    chart = np.insert(np.delete(chart_of(day), 350), 150, chart_of(day)[150])

    _, unchecked = placed(day, live, chart)
    _, found = placed(day, live, chart, checks=True)

    assert unchecked.is_clean
    minutes = [(finding.message, (finding.minute_ns - NINE_NS) // MINUTE_NS) for finding in found.inconsistencies]
    assert [("+10 shares against the minute bar", 2), ("-10 shares against the minute bar", 5)] == minutes
    assert not found.is_clean


def test_a_doubled_row_out_of_its_time_is_seen_by_itself() -> None:
    """Rows that go back in time are a finding without any check."""
    day = day_of([10] * 100, [100] * 100, [1] * 100, [0] * 100)
    chart = np.insert(np.delete(chart_of(day), 30), 60, chart_of(day)[20])

    _, found = placed(day, heard_of(day, slice(10, 90)), chart)

    assert ["row 60 is earlier than the one before it; 1 such rows"] == [
        finding.message for finding in found.inconsistencies
    ]


@pytest.mark.parametrize(
    "page", [slice(550, 650), slice(450, 550), slice(650, 750), slice(400, 800), slice(0, 100), slice(1900, 2000)]
)
def test_a_dropped_page_is_never_clean_and_the_rest_is_right(page: slice) -> None:
    """Inside the gap, over its edges, over all of it, elsewhere: what is called exact is true; what is missing is named."""
    day = a_day()
    live = heard_of(day, slice(500, 700))

    _, found = placed(day, live, np.delete(chart_of(day), page))

    assert not found.is_clean
    assert intervals(found.rows[found.rows["exact"]]) <= intervals(day.trades)
    lost = day.trades["size"][max(500, page.start) : min(700, page.stop)].sum() if page.start < 700 else 0
    assert sum(residual.high - residual.low for residual in found.uncovered) >= lost
    if page.start >= 700 or page.stop <= 500:
        assert (found.uncovered, found.anchors_failed) == ([], 100)
        assert len(found.inconsistencies) == 1


def test_off_book_volume_is_listed_and_the_rows_around_it_are_kept() -> None:
    """A block in an outage: its shares are the residual, laid behind the rows, which are not called exact; other gaps are."""
    jumps = [0] * 2000
    jumps[600] = 5000
    plain = a_day()
    day = day_of(
        plain.trades["size"].tolist(),
        plain.trades["price"].tolist(),
        np.diff(plain.trades["exch_ns"] // SECOND_NS, prepend=NINE_NS // SECOND_NS).tolist(),
        jumps,
    )
    live = heard_of(day, [*range(500, 700), *range(900, 910)])

    coverage, found = placed(day, live, chart_of(day), checks=True)

    end = int(coverage.gaps["high"][0])
    assert [UncoveredRange(end - 5000, end, Reason.NO_ROWS)] == found.uncovered
    assert [*range(500, 700), *range(900, 910)] == found.rows["row"].tolist()
    assert [False] * 200 + [True] * 10 == found.rows["exact"].tolist()
    assert (found.inconsistencies, found.anchors_failed, found.anchors_checked) == ([], 0, 1790)

    minute = place_by_alignment(coverage, live, chart_of(day), None, day.bars(whole=True))

    at = day.trades["exch_ns"] // MINUTE_NS
    same = (at == at[600])[minute.rows["row"]] & (minute.rows["row"] < 900)
    assert (~minute.rows["exact"]).tolist() == same.tolist()
    assert intervals(minute.rows[minute.rows["exact"]]) <= intervals(day.trades)
    assert minute.inconsistencies == []
    assert [5000] == [residual.high - residual.low for residual in minute.uncovered]


def test_rows_fetched_only_back_to_the_gap_are_enough() -> None:
    """The newest pages of the day: earlier live ticks are not held against them, earlier gaps are not fetched."""
    day = a_day()
    live = heard_of(day, [*range(100, 110), *range(500, 700)])
    coverage = compute_coverage(live["cum_volume"], live["size"], day.total)

    found = place_by_alignment(coverage, live, chart_of(day)[450:], from_start=False)

    assert [*range(50, 250)] == found.rows["row"].tolist()
    assert intervals(day.trades[500:700]) == intervals(found.rows)
    assert [Reason.NOT_FETCHED] == [residual.reason for residual in found.uncovered]
    assert (found.inconsistencies, found.anchors_failed) == ([], 0)


def test_during_the_day_rows_are_placed_up_to_the_last_live_tick() -> None:
    """No official volume: rows that are newer than what was heard wait; ticks newer than the rows are not held against them."""
    day = a_day()
    live = heard_of(day, slice(500, 700))[:1500]
    for chart in (chart_of(day)[300:1900], chart_of(day)[300:1650]):
        coverage = compute_coverage(live["cum_volume"], live["size"], None)

        found = place_by_alignment(coverage, live, chart, from_start=False)

        assert found.is_clean
        assert intervals(day.trades[500:700]) == intervals(found.rows)


def test_a_symbol_without_live_ticks_is_placed_whole_if_the_rows_are_the_days_volume() -> None:
    """Nothing anchors it but the day's beginning and end; one share too few or too many is said."""
    day = a_day(count=50)
    none = np.zeros(0, LIVE)

    for more in (0, 1, -1):
        found = place_by_alignment(compute_coverage([], [], day.total + more), none, chart_of(day))

        assert (more == 0) == found.is_clean
        assert found.anchors_checked == 0
    assert intervals(day.trades) == intervals(placed(day, none, chart_of(day))[1].rows)
    assert ["the rows sum to 1 shares more than the day's volume"] == [
        finding.message for finding in found.inconsistencies
    ]


def test_no_rows_are_no_fill_and_rows_of_another_day_fill_nothing() -> None:
    """Every gap stays, with the reason; a live tick that finds no rows is counted as failed."""
    day = a_day(count=300)
    live = heard_of(day, range(0, 300, 3))
    foreign = chart_of(a_day(2, 300))
    foreign["exch_ns"] += 7 * 86_400 * SECOND_NS

    coverage, empty = placed(day, live, chart_of(day)[:0])
    _, found = placed(day, live, foreign)

    assert {Reason.NO_ROWS} == {residual.reason for residual in empty.uncovered}
    for each in (empty, found):
        assert len(each.rows) == 0
        assert coverage.gaps["shares"].sum() == sum(residual.high - residual.low for residual in each.uncovered)
        assert not each.is_clean
    assert found.anchors_failed == len(live)


def test_a_wrong_live_tick_costs_only_the_gap_beside_it() -> None:
    """Its price is garbled: the gap beside it is not filled, all others are, and it is counted."""
    day = a_day()
    live = heard_of(day, [*range(100, 110), *range(500, 700)])
    live["price"][100] += 5

    coverage, found = placed(day, live, chart_of(day))

    assert [*range(500, 700)] == found.rows["row"].tolist()
    assert [UncoveredRange(*coverage.gaps[0][["low", "high"]].tolist(), Reason.NOT_ANCHORED)] == found.uncovered
    assert found.anchors_failed == 1


def test_a_row_without_size_is_refused() -> None:
    """The sentinel row of an empty answer is no trade (docs/wire/kiwoom.md 8.17)."""
    rows = np.zeros(2, TRADE_ROW)
    rows["size"] = [5, 0]

    with pytest.raises(PlacementError, match="row 1 of 2 has no size"):
        place_by_alignment(compute_coverage([], [], 5), np.zeros(0, LIVE), rows)


def numbered(day: Day) -> np.ndarray:
    """The trades as rows that carry their cumulative volume."""
    return rows_of(day.trades, [*CHART_FIELDS, "cum_volume", "side"])


@given(days(jumps=True), st.data())
@settings(max_examples=200, deadline=None)
def test_numbered_rows_go_exactly_where_nobody_is(drawn: tuple[Day, np.ndarray], data: st.DataObject) -> None:
    """In any order, with page overlaps: accepted are the missing trades once, everything else is covered."""
    day, live = drawn
    coverage = compute_coverage(live["cum_volume"], live["size"], day.total)
    twice = data.draw(st.lists(st.integers(0, len(day.trades) - 1), max_size=10))
    rows = numbered(day)[data.draw(st.permutations([*range(len(day.trades)), *twice]))]

    found = place_by_volume(coverage.gaps, rows)

    missing = [((coverage.gaps["low"] < v) & (v <= coverage.gaps["high"])).any() for v in day.trades["cum_volume"]]
    assert intervals(day.trades[missing]) == intervals(rows[found.accepted])
    assert sum(missing) == found.accepted.sum()
    assert (found.accepted ^ found.covered).all()
    assert found.inconsistencies == []


def test_numbered_rows_that_contradict_are_errors() -> None:
    """A row over a gap's edge, two rows for one interval, rows that cross, a row without interval; a gap not worth its won."""
    gaps = compute_coverage([10, 30], [10, 10], 60).gaps
    rows = np.zeros(7, TRADE_ROW)
    rows["cum_volume"] = [15, 20, 20, 25, 45, 50, 3]
    rows["size"] = [5, 5, 5, 8, 10, 10, 4]
    rows["price"] = [1, 2, 3, 1, 1, 1, 1]

    found = place_by_volume(gaps, rows, np.array([14, UNDEFINED]))

    assert [(10, 20), (30, 60)] == gaps[["low", "high"]].tolist()
    assert [True, True, False, False, True, True, False] == found.accepted.tolist()
    assert [
        ("a row reaches over the edge of a gap", 17, 25),
        ("row 6 has no interval: size or cumulative volume", None, None),
    ] == [(error.message, error.low, error.high) for error in found.inconsistencies[:2]]
    assert {("two different rows for the same volume", 15, 20), ("two different rows for the same volume", 40, 45)} <= {
        (error.message, error.low, error.high) for error in found.inconsistencies
    }
    assert "rows are worth +1 won against the ticks around them" in [error.message for error in found.inconsistencies]


def test_numbered_rows_without_gaps_are_all_covered() -> None:
    """Nothing is missing: nothing is accepted."""
    day = a_day(count=20)

    found = place_by_volume(compute_coverage(day.trades["cum_volume"], day.trades["size"], None).gaps, numbered(day))

    assert found.covered.all()
    assert not found.accepted.any()


@pytest.mark.parametrize("name", ["price", "exch_ns"])
@pytest.mark.parametrize("at", [[100], [101], [100, 101]])
def test_a_live_tick_is_rows_of_its_own_price_and_second(name: str, at: list[int]) -> None:
    """A merged print and the two rows it was: one or both with another price or second, and the tick has no rows."""
    day = day_of([5] * 300, [100] * 300, [0, 1, 0] * 100, [0] * 300)
    live = heard_of(day, [100, *range(150, 160)])
    live["size"][100] = 10
    assert placed(day, live, chart_of(day))[1].is_clean
    chart = chart_of(day)
    chart[name][at] += 1 if name == "price" else 2 * SECOND_NS  # of one second, brokers may be apart

    _, found = placed(day, live, chart)

    assert (1, len(found.rows)) == (found.anchors_failed, 10)
    assert not found.is_clean


def test_minute_bars_that_contradict_the_rows_do_not_tell_where_volume_passed() -> None:
    """A block in an outage; a bar has shares that belong into another: nothing is exact, and it is said."""
    jumps = [0] * 600
    jumps[300] = 500
    day = day_of([10] * 600, [100] * 600, [1] * 600, jumps)
    live = heard_of(day, slice(200, 400))
    coverage = compute_coverage(live["cum_volume"], live["size"], day.total)
    bars = day.bars(whole=True)
    assert place_by_alignment(coverage, live, chart_of(day), None, bars).rows["exact"].sum() == 140
    bars["shares"][[3, 4]] += [900, -900]

    found = place_by_alignment(coverage, live, chart_of(day), None, bars)

    assert not found.rows["exact"].any()
    assert found.inconsistencies != []
