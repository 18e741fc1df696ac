"""The timeline as text: a head, one line a row, words only where figures do not do."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest

from collectorctl.explain.render import format_timeline
from collectorctl.explain.timeline import StoredRow, Timeline, UncoveredInterval, VisibilityAt
from collectorctl.explain.visibility import UNKNOWN
from collectorctl.tail import format_row
from conf.clock import KST

TEN = datetime(2026, 11, 20, 10, 0, 0, tzinfo=KST)
LEVELS = {"ask_price_1": 2555, "ask_size_1": 127, "bid_price_1": 2545, "bid_size_1": 56, "cum_volume": 7114}
TRADE = {"price": 2545, "size": 4, "side": -1, "cum_volume": 7118, "source": "live"}
FILE = "kr/orderbook/date=2026-11-20/hour=10/part-0.parquet"


def book(row: int, at_s: float, lag_ms: float | None, file: str = FILE, **other: Any) -> StoredRow:
    """A book that kis had first, so many seconds after ten."""
    came = TEN + timedelta(seconds=at_s)
    twin = {} if lag_ms is None else {"kiwoom": came + timedelta(milliseconds=lag_ms)}
    stored = StoredRow(TEN, {"kis": came} | twin, "kis", "a reason", [], LEVELS, file, row, lag_ms=lag_ms)
    return msgspec.structs.replace(stored, **other)


def timeline(**other: Any) -> Timeline:
    """Of both feeds, with nothing in it."""
    seen = [VisibilityAt(feed, stream, True) for feed in ("kis", "kiwoom") for stream in ("orderbook", "tick")]
    return msgspec.structs.replace(Timeline("005930", "KRX", TEN, 1.5, [], [], [], seen, []), **other)


def test_the_head_has_instrument_span_zone_feeds_and_numbers() -> None:
    """The zone once; no word about feeds that received all."""
    assert list(format_timeline(timeline(books=[book(1, 0.1, 50.0)]))) == [
        "005930 KRX  2026-11-20 09:59:58.500 to 10:00:01.500, all times KST",
        "feeds kis, kiwoom: 1 book, no tick, no gap, no event",
        "  orderbooks received by kis, kiwoom",
        "  ticks received by kis, kiwoom",
        f"books, out of data/{FILE}",
        "  exchange  received      first  ms later  bid        ask         volume  row",
        "  10:00:00  10:00:00.100  kis        50.0  56 @ 2545  127 @ 2555    7114    1",
    ]


def test_a_name_of_the_table_of_symbols_stands_behind_the_code() -> None:
    """In the head alone."""
    head, *_ = format_timeline(timeline(name="삼성전자"))

    assert head.startswith("005930 삼성전자 KRX  2026-11-20 ")


def test_an_empty_side_of_a_book_is_a_dash() -> None:
    """Null in the files; no price of nothing, here and in `tail`."""
    empty = LEVELS | {"ask_price_1": None, "ask_size_1": None}
    *_, shown = format_timeline(timeline(books=[book(1, 0.1, 50.0, content=empty)]))
    tailed = format_row(
        "orderbook", empty | {"recv_time": TEN, "exch_time": TEN, "broker": "kis", "symbol": "005930", "venue": "KRX"}
    )

    assert "56 @ 2545  -" in shown
    assert "56 @ 2545 | - " in tailed and "None" not in tailed


def test_a_us_timeline_names_the_zone_of_new_york() -> None:
    """It has one feed: no lag."""
    at = datetime(2026, 11, 20, 10, 0, tzinfo=ZoneInfo("America/New_York"))
    alone = StoredRow(at, {"us": at}, "us", "", [], LEVELS, "journal", 4)
    head, feeds, _, place, columns, _ = format_timeline(
        timeline(time=at, books=[alone], visibility=[VisibilityAt("us", "orderbook", True)])
    )

    assert head.endswith("all times EST") and feeds.startswith("feeds us: 1 book,") and place == "books, out of journal"
    assert "ms later" not in columns


def test_words_stand_where_the_feeds_differ_and_nowhere_else() -> None:
    """A book of one feed is a dash, explained once; an outage, and a row of the same levels, are sentences behind the row."""
    apart = f"not one book with {FILE} row 2, 113.7 ms before, of equal levels: kis delivered both"
    outage = "only kis: kiwoom had an outage (disconnected)"
    rows = [
        book(1, 0.1, 50.0, pairing=["one book: both feeds have these levels"]),
        book(2, 0.2, None),
        book(3, 0.3, 20.0, pairing=["one book: ...", apart], remarks=[apart], flags=["LATE"]),
        book(4, 0.4, None, remarks=[outage]),
    ]
    lines = list(format_timeline(timeline(books=rows)))

    assert sum("left out, or lost" in line for line in lines) == 1
    assert not any("one book: " in line or "a reason" in line for line in lines)
    first, second, third, fourth = lines[-4:]
    assert re.fullmatch(r".* 50\.0 .*7114    1", first) and re.fullmatch(r".* - .*7114    2", second)
    assert third.endswith(
        "7114    3  [LATE]  not one book with row 2, 113.7 ms before, of equal levels: kis delivered both"
    )
    assert fourth.endswith(f"7114    4  {outage}")
    assert all(len(line) <= 80 for line in (first, second))


def test_rows_of_several_files_have_the_number_of_theirs() -> None:
    """The open hour beside the one before."""
    lines = list(format_timeline(timeline(books=[book(9, 0.1, 1.0), book(3, 0.2, 1.0, file="journal")])))

    assert lines[4:7] == ["books, out of (file:row)", f"  1: data/{FILE}", "  2: journal"]
    assert [line.split()[-1] for line in lines[-2:]] == ["1:9", "2:3"]


def test_a_fetched_tick_says_so_in_place_of_its_arrival() -> None:
    """One that came live has its arrival and no words."""
    live = StoredRow(TEN, {"kis": TEN}, "kis", "kis collects", [], TRADE, "journal", 1)
    fetched = StoredRow(TEN, {}, "kiwoom", "fetched", [], TRADE | {"source": "recovered"}, "journal", 2)
    lines = list(format_timeline(timeline(ticks=[live, fetched])))

    assert [line.split() for line in lines[-2:]] == [
        ["10:00:00", "10:00:00.000", "kis", "2545", "4", "sell", "7118", "1"],
        ["10:00:00", "recovered", "kiwoom", "2545", "4", "sell", "7118", "2"],
    ]


def test_an_outage_a_gap_and_an_event_have_their_date_where_it_is_another() -> None:
    """The evening before; a gap that begins with the day says that."""
    before = TEN - timedelta(days=1)
    seen = [
        VisibilityAt("kis", "orderbook", True),
        VisibilityAt("kiwoom", "orderbook", False, before, TEN, "stopped"),
        VisibilityAt("us", "orderbook", False, reason=UNKNOWN),
    ]
    event = {"time": before, "line": "kis", "kind": "stopped", "since": None, "message": "asked to stop"}
    event |= dict.fromkeys(("symbol", "venue", "stream"))
    lines = list(
        format_timeline(
            timeline(
                visibility=seen, gaps=[UncoveredInterval(0, 7, 7, None, TEN)], events=[event], certificate="PROVEN"
            )
        )
    )

    assert lines[2:] == [
        "  orderbooks received by kis; us not known to have been subscribed",
        "  kiwoom OUTAGE of orderbooks from 2026-11-19 10:00:00.000 to 10:00:00.000: stopped",
        "gap  7 shares (0 to 7) have no tick, between the beginning of the day and 10:00:00.000",
        "events",
        "  2026-11-19 10:00:00.000 kis    stopped       asked to stop",
        "certificate of the day: PROVEN",
    ]


@pytest.mark.parametrize("price", [231.5, 2_545])
def test_no_line_has_nanoseconds(price: float) -> None:
    """Thirteen digits and more are none a person reads."""
    rows = [book(1, 0.1, 50.0, content=LEVELS | {"ask_price_1": price}), book(2, 0.2, None)]

    assert not re.search(r"\d{13}|_ns", "\n".join(format_timeline(timeline(books=rows))))
