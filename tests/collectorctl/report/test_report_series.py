"""Series of a report against a day whose holes are known, and against arbitrary days."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.stored_day import DAY, HOLES, HOSTILE, KIWOOM_ONLY, NONE_OF_373220, SYMBOLS, at, make_stored_day

from collectorctl.report.judgement import coverage_shares
from collectorctl.report.reader import HEALTH_COLUMNS, StoredDay, read_day
from collectorctl.report.series import Cell, DaySeries, TickCell, build_series
from conf.calendar import TradingCalendar
from conf.clock import MINUTE_NS, SECOND_NS
from conf.home import Home
from conf.instrument import Instrument

THE_DAY = date.fromisoformat(DAY)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_stored_day(tmp_path_factory.mktemp("stored") / "home")


@pytest.fixture(scope="module")
def series(root: Path) -> DaySeries:
    home = Home(root)
    return build_series(read_day(home, THE_DAY), home.load_calendar())


@pytest.fixture(scope="module")
def calendar(root: Path) -> TradingCalendar:
    return Home(root).load_calendar()


def cell(series: DaySeries, symbol: str, time: str) -> Cell:
    """What the books of an instrument have at a time of the day."""
    found = next(one for one in series.instruments if one.instrument.symbol == symbol)
    return Cell(found.books[(at(time).value - series.axis.begin_ns) // MINUTE_NS])


def test_holes_are_shown_where_the_truth_has_holes(series: DaySeries) -> None:
    """In every instrument's row, and nowhere else in the hours that are counted."""
    for one in series.instruments:
        shown = series.axis.starts_ns[one.books == Cell.HOLE].tolist()
        assert shown == [at(time).value for time in HOLES]
    assert [(span.begin_ns, span.end_ns) for span in series.holes] == [
        (at("08:50").value, at("08:55").value),
        (at("09:10").value, at("09:12").value),
    ]


def test_each_cell_says_which_feeds_had_books(series: DaySeries) -> None:
    """Both, one, none while connected, an auction, an hour that is not counted, and what no session has."""
    assert {cell(series, "005930", time) for time in KIWOOM_ONLY} == {Cell.SECOND}
    assert {cell(series, "373220", time) for time in NONE_OF_373220} == {Cell.NONE}
    assert cell(series, "005930", NONE_OF_373220[0]) is Cell.BOTH
    assert cell(series, "005930", "08:57") is Cell.AUCTION
    assert cell(series, "005930", "11:30") is Cell.UNKNOWN
    assert cell(series, "005930", "08:20") is Cell.CLOSED


def test_recovered_and_missing_ticks_are_in_their_minutes(series: DaySeries) -> None:
    """With their shares, by instrument and in all."""
    row = next(one for one in series.instruments if one.instrument.symbol == "000660")
    minutes = {
        kind: [f"{ns}" for ns in series.axis.starts_ns[row.ticks == kind]]
        for kind in (TickCell.RECOVERED, TickCell.MISSING)
    }

    assert minutes == {
        TickCell.RECOVERED: [f"{at('09:40').value}"],
        TickCell.MISSING: [f"{at('09:50').value}"],
    }
    assert (row.live_ticks, row.recovered_ticks, row.lacking, row.recovered_shares, row.missing_shares) == (
        59,
        1,
        12,
        5,
        7,
    )
    assert (series.recovered.sum(), series.missing.sum()) == (5, 7)


def test_every_instrument_has_a_row_and_its_minutes_add_up(series: DaySeries) -> None:
    """All of the universe, in its order; what is in session and over is in exactly one class."""
    assert tuple(one.instrument.symbol for one in series.instruments) == SYMBOLS
    assert [sum(one.count(kind) for kind in Cell if kind) for one in series.instruments] == [190] * 3  # 08:50 to 12:00
    assert sum(coverage_shares(series).values()) == 3 * 190


def test_incidents_of_the_day_are_kept_with_their_times(series: DaySeries) -> None:
    """What the bands of the processes show."""
    found = [(one.kind, one.feed, one.begin_ns, one.end_ns) for one in series.incidents]

    assert ("disconnect", "kiwoom", at("09:10").value, at("09:11:30").value) in found
    assert ("disconnect", "kis", at("09:20").value, at("09:24").value) in found
    assert ("ring_loss", "kis", at("09:45").value, at("09:45:10").value) in found
    assert HOSTILE in {one.message for one in series.incidents}


def test_lag_and_first_arrivals_are_those_of_the_stored_books(series: DaySeries) -> None:
    """Kiwoom is 40 ms behind KIS in every minute that both had; a minute that only one had has no lag."""
    nine, twenty = ((at(time).value - series.axis.begin_ns) // MINUTE_NS for time in ("09:00", "09:20"))

    assert series.feeds.lag_ms[:, nine].tolist() == [40.0] * 3
    assert np.isnan(series.feeds.lag_ms[:, twenty]).all()
    assert series.feeds.first.sum(axis=1).tolist() == [340 + 15, 0]


def test_an_hour_that_is_not_counted_is_not_shown_as_zero(series: DaySeries) -> None:
    """A line that falls to zero would be an outage that never was."""
    eleven = (at("11:30").value - series.axis.begin_ns) // MINUTE_NS

    assert np.isnan(series.feeds.books[:, eleven]).all()


def test_prices_are_those_of_the_chosen_instrument(root: Path) -> None:
    """The last book of each minute; a minute without one has none."""
    home = Home(root)
    found = build_series(read_day(home, THE_DAY, Instrument("373220", "KRX")), home.load_calendar())
    at_time = {time: (at(time).value - found.axis.begin_ns) // MINUTE_NS for time in ("09:01", "09:30")}

    assert found.quotes["mid"][at_time["09:01"]] == 70_150
    assert found.quotes["ask_size"][at_time["09:01"]] == 1001
    assert np.isnan(found.quotes["mid"][at_time["09:30"]])


MINUTES = 30
FEED_SPANS = st.lists(st.tuples(st.integers(1, MINUTES * 60 - 2), st.integers(1, 400)), max_size=3)


@settings(max_examples=60, deadline=None)
@given(
    counts=st.lists(st.tuples(*[st.integers(0, 2)] * 4), min_size=MINUTES, max_size=MINUTES),
    outages=st.tuples(FEED_SPANS, FEED_SPANS),
    now_minute=st.integers(0, MINUTES + 5),
)
def test_whatever_was_stored_each_minute_in_session_has_the_class_of_its_own(
    calendar: TradingCalendar,
    counts: list[tuple[int, int, int, int]],
    outages: tuple[list[tuple[int, int]], list[tuple[int, int]]],
    now_minute: int,
) -> None:
    """Against a second reading, minute by minute: an outage of both feeds is a hole of any length."""
    begin_ns, names = at("10:00").value, [Instrument("005930", "KRX"), Instrument("000660", "KRX")]
    stored = make_day(begin_ns, names, counts, outages, begin_ns + now_minute * MINUTE_NS)
    found = build_series(stored, calendar)
    down = [{s for begin, length in spans for s in range(begin, begin + length)} for spans in outages]
    blind = {second // 60 for second in down[0] & down[1]}
    for row, one in enumerate(found.instruments):
        offset = (begin_ns - found.axis.begin_ns) // MINUTE_NS
        for minute in range(MINUTES):
            kis, kiwoom = counts[minute][2 * row : 2 * row + 2]
            if minute >= now_minute and not (kis or kiwoom):
                expected = Cell.AHEAD
            elif minute in blind or not any(counts[minute]):
                expected = Cell.HOLE
            else:
                expected = {(1, 1): Cell.BOTH, (1, 0): Cell.FIRST, (0, 1): Cell.SECOND}.get(
                    (min(kis, 1), min(kiwoom, 1)), Cell.NONE
                )
            assert Cell(one.books[offset + minute]) is expected, (minute, kis, kiwoom)


def make_day(
    begin_ns: int,
    names: list[Instrument],
    counts: list[tuple[int, int, int, int]],
    outages: tuple[list[tuple[int, int]], list[tuple[int, int]]],
    now_ns: int,
) -> StoredDay:
    """A day as `read_day` gives it: books by minute, and outages in seconds from `begin_ns` on."""
    rows = [
        {"minute": begin_ns + minute * MINUTE_NS, "symbol": one.symbol, "venue": "KRX"}
        | {"books_kis": row[2 * n], "books_kiwoom": row[2 * n + 1], "books": max(row[2 * n : 2 * n + 2])}
        for minute, row in enumerate(counts)
        for n, one in enumerate(names)
    ]
    blank = dict.fromkeys(HEALTH_COLUMNS, 0.0)
    events = []
    for feed, spans in zip(("kis", "kiwoom"), outages, strict=True):
        seconds = {s for begin, length in spans for s in range(begin, begin + length)}
        edges = [(-60, "acknowledged")]
        for second in sorted(seconds | {one + 1 for one in seconds}):
            if second in seconds and second - 1 not in seconds:
                edges.append((second, "disconnected"))
            elif second not in seconds:
                edges.append((second, "acknowledged"))
        for second, kind in edges:
            for one in names if kind == "acknowledged" else names[:1]:
                is_one = kind == "acknowledged"
                name = {"symbol": one.symbol, "venue": "KRX", "stream": "orderbook"} if is_one else {}
                empty = {"symbol": None, "venue": None, "stream": None, "value": None, "since": None, "message": ""}
                time_ns = begin_ns + second * SECOND_NS
                events.append(empty | {"time": time_ns, "line": feed, "kind": kind, "connection": 1} | name)
    return StoredDay(
        day=THE_DAY,
        begin_ns=at("00:00").value,
        now_ns=now_ns,
        acknowledged_ns=0,
        expected=names,
        health=pa.Table.from_pylist([blank | row for row in rows]),
        ticks=pa.table(
            {
                "minute": pa.array([], pa.int64()),
                "symbol": pa.array([], pa.string()),
                "venue": pa.array([], pa.string()),
                "source": pa.array([], pa.string()),
                "shares": pa.array([], pa.int64()),
                "rows": pa.array([], pa.int64()),
            }
        ),
        events=sorted(events, key=lambda event: event["time"]),
        certificates={},
        unpublished=set(),
        uncounted=set(),
    )
