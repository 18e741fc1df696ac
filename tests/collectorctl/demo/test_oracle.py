"""The judge of rehearsals judges rightly: each way of being wrong is found, and nothing else is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from brokers.simulator.ground_truth import BOOKS, DELIVERIES, TRADES
from collectorctl.demo.oracle import MARGIN_NS, compare
from collectorctl.demo.result import Bounds, DemoResult, FeedAccount, StreamAccount, compute_allowance

SECOND_NS = 1_000_000_000
BEGIN_S = 1_763_596_800
LEVELS = range(1, 11)


def market(count: int) -> tuple[np.ndarray, np.ndarray]:
    """`count` books, all different, and as many trades of one symbol."""
    books, trades = np.zeros(count, BOOKS), np.zeros(count, TRADES)
    for table in (books, trades):
        table["id"] = np.arange(1, count + 1)
        table["symbol"], table["venue"] = b"005930", b"KRX"
        table["exch_s"] = BEGIN_S + np.arange(count)
        table["cum_volume"] = 10 * np.arange(1, count + 1)
    books["ask_price"][:, 0] = 70_100
    books["ask_size"][:, 0] = np.arange(count) + 5
    trades["size"], trades["price"], trades["side"] = 10, 70_100, 1
    return books, trades


def deliveries(rows: list[tuple[int, int, int, int, int]]) -> np.ndarray:
    """(line, stream, outcome, first_id, last_id), one a millisecond, all on connection 1."""
    sent = np.zeros(len(rows), DELIVERIES)
    for at, (line, stream, outcome, first, last) in enumerate(rows):
        sent[at] = (line, stream, outcome, 1, first, last, at * 1_000_000)
    return sent


def stored_books(books: np.ndarray, lines: list[tuple[int, bool, bool]]) -> pd.DataFrame:
    """Rows of the dataset: (index of the book, arrived by kis, arrived by kiwoom)."""
    at = [n for n, _, _ in lines]
    told = books[at]
    columns: dict[str, Any] = {"symbol": ["005930"] * len(at), "venue": ["KRX"] * len(at)}
    columns["exch_time"] = pd.to_datetime(told["exch_s"], unit="s", utc=True).tz_convert("Asia/Seoul")
    now = pd.Timestamp("2026-11-20 10:00", tz="Asia/Seoul")
    columns["recv_time_kis"] = [now if kis else pd.NaT for _, kis, _ in lines]
    columns["recv_time_kiwoom"] = [now if kiwoom else pd.NaT for _, _, kiwoom in lines]
    for side in ("ask", "bid"):
        for level in LEVELS:
            columns[f"{side}_price_{level}"] = told[f"{side}_price"][:, level - 1]
            columns[f"{side}_size_{level}"] = told[f"{side}_size"][:, level - 1]
    columns |= {"total_ask_size": told["total_ask"], "total_bid_size": told["total_bid"]}
    columns |= {name: told[name] for name in ("cum_volume", "expected_price", "expected_size", "mid_price", "mid_size")}
    for price in [name for name in columns if "price" in name]:  # null in the files where there is none
        size = price.replace("price", "size")
        is_there = columns[price] > 0
        columns[price], columns[size] = (np.where(is_there, columns[name], np.nan) for name in (price, size))
    return pd.DataFrame(columns)


def stored_ticks(trades: np.ndarray, at: list[int], broker: str = "kis") -> pd.DataFrame:
    """Rows of the dataset for these trades."""
    told = trades[at]
    times = pd.to_datetime(told["exch_s"], unit="s", utc=True).tz_convert("Asia/Seoul")
    columns: dict[str, Any] = {name: told[name] for name in ("price", "size", "side", "cum_volume")}
    text = {"symbol": ["005930"] * len(at), "venue": ["KRX"] * len(at), "broker": [broker] * len(at)} | {
        "source": ["live"] * len(at)
    }
    return pd.DataFrame(text | columns | {"exch_time": times})


def verdict(books: list[tuple[int, bool, bool]], ticks: list[int], ended_ns: dict | None = None) -> DemoResult:
    """Judge a run in which KIS sent books 0..3 and trades 0..2, and Kiwoom books 1..3, against these rows."""
    market_books, trades = market(5)
    sent = deliveries(
        [(1, 1, 0, n, n) for n in (1, 2, 3, 4)]
        + [(2, 1, 0, n, n) for n in (2, 3, 4)]
        + [(1, 2, 0, n, n) for n in (1, 2, 3)]
    )
    rows = stored_books(market_books, books)
    return compare(market_books, trades, sent, ended_ns or {}, rows, stored_ticks(trades, ticks))


WHOLE = [(0, True, False), (1, True, True), (2, True, True), (3, True, True)]


def test_a_complete_run_passes() -> None:
    """Every delivery is there once, with both arrivals where both came."""
    found = verdict(WHOLE, [0, 1, 2])

    assert found.problems() == []
    assert (found.books.available, found.books.stored, found.ticks.available) == (4, 4, 3)


@pytest.mark.parametrize(
    ("books", "ticks", "complaint"),
    [
        (WHOLE[:3], [0, 1, 2], "delivered but not stored"),
        ([*WHOLE, (3, True, False)], [0, 1, 2], "stored but not sent"),
        ([*WHOLE[:3], (3, True, False), (3, False, True)], [0, 1, 2], "1 of 4 doubled"),
        ([(0, True, False), (1, True, False), *WHOLE[2:]], [0, 1, 2], "books of kiwoom: 1 delivered"),
        ([*WHOLE, (4, True, False)], [0, 1, 2], "stored but not sent"),
        (WHOLE, [0, 2], "ticks: 1 missed, 0 doubled"),
        (WHOLE, [0, 1, 1, 2], "ticks: 0 missed, 1 doubled"),
        (WHOLE, [0, 1, 2, 3], "ticks: 1 rows differ"),
    ],
)
def test_each_way_of_being_wrong_is_found(books: list, ticks: list, complaint: str) -> None:
    """Missing, extra, doubled, unmatched, foreign rows."""
    assert any(complaint in said for said in verdict(books, ticks).problems())


def test_a_row_whose_content_changed_is_found() -> None:
    """Totals belong to a book though they do not make it the same book."""
    books, trades = market(5)
    rows = stored_books(books, [(0, True, False)])
    rows.loc[0, "total_ask_size"] += 1

    found = compare(books, trades, deliveries([(1, 1, 0, 1, 1)]), {}, rows, stored_ticks(trades, []))

    assert found.books.wrong == 1


def test_what_was_in_flight_when_a_connection_ended_may_be_there_or_not() -> None:
    """Within the margin of the end nobody can tell; before it a delivery counts."""
    soon, late = {(1, 1): MARGIN_NS // 2}, {(1, 1): 2 * MARGIN_NS, (2, 1): 2 * MARGIN_NS}

    assert not [c for c in verdict(WHOLE[1:], [], soon).problems() if "kis" in c and "stored" in c]
    assert verdict(WHOLE[1:], [], late).books.feeds["kis"].missing == 1


def test_a_merged_print_covers_its_trades() -> None:
    """Kiwoom may send trades 1 and 2 as one print of their joint size (docs/wire/kiwoom.md 2.6)."""
    books, trades = market(5)
    merged = stored_ticks(trades, [1], "kiwoom")
    merged["size"] = 20

    found = compare(books, trades, deliveries([(2, 2, 0, 1, 2)]), {}, stored_books(books, []), merged)

    assert (found.ticks.missed, found.ticks.doubled, found.ticks.wrong) == (0, 0, 0)


@pytest.mark.parametrize(("fetched", "wrong"), [([3], 0), ([3, 4], 0), ([3, 3], 1), ([2], 1)])
def test_a_fetched_tick_has_to_be_a_trade_that_no_line_brought(fetched: list[int], wrong: int) -> None:
    """Once, and as it was; it counts for no line."""
    books, trades = market(5)
    rows = pd.concat(
        [stored_ticks(trades, [0, 1, 2]), stored_ticks(trades, fetched).assign(source="recovered", side=0)]
    )
    for name in ("ask_price_1", "bid_price_1"):
        rows[name] = pd.NA
    sent = deliveries([(1, 2, 0, n, n) for n in (1, 2, 3)])

    found = compare(books, trades, sent, {}, stored_books(books, []), rows).ticks

    assert (3, len(fetched), wrong) == (found.stored, found.fetched, found.wrong)
    assert (0, 0) == (found.feeds["kis"].missing, found.feeds["kis"].extra)


def came_back(rows: list[tuple[int, bool, bool]]) -> DemoResult:
    """Judge a market whose book came back (A, B, A); KIS delivered A and B, Kiwoom B and the second A."""
    books, trades = market(3)
    for side in ("ask_size", "cum_volume"):
        books[side][2] = books[side][0]
    sent = deliveries([(1, 1, 0, n, n) for n in (1, 2)] + [(2, 1, 0, n, n) for n in (2, 3)] + [(1, 2, 0, 1, 1)])
    return compare(books, trades, sent, {}, stored_books(books, rows), stored_ticks(trades, [0]))


@pytest.mark.parametrize(
    ("rows", "figures"),
    [
        ([(0, True, False), (1, True, True), (2, False, True)], (0, 0, 0, 0)),
        ([(0, True, True), (1, True, True)], (1, 0, 0, 0)),  # taken for twins: rebuilt from either line, but one of two
        (
            [(0, True, False), (1, True, True), (0, False, True)],
            (1, 0, 1, 0),
        ),  # the second under the first one's second: a row that is neither
        ([(0, True, False), (1, True, True)], (1, 0, 1, 0)),
        ([(0, True, True)], (2, 0, 1, 0)),
        ([(0, True, False), (1, True, False), (1, False, True), (2, False, True)], (0, 1, 0, 1)),
    ],
)
def test_a_content_that_came_back_explains_only_what_it_can(rows: list, figures: tuple[int, int, int, int]) -> None:
    """Missed, doubled, missed outright, doubled outright; a run without any such excuse has breaches."""
    verdict = came_back(rows)
    found = verdict.books

    assert figures == (found.missed, found.doubled, found.missed_unexplained, found.doubled_unexplained)
    assert any(figures[2:]) == any("explains" in said for said in verdict.strict_problems())


def test_the_allowance_is_the_share_and_chance() -> None:
    """Large runs are held to the share, small ones to what chance makes of it."""
    assert compute_allowance(0.0005, 0) == 0
    assert compute_allowance(0.0005, 10**8) == pytest.approx(50_000, rel=0.02)


@pytest.mark.parametrize("name", Bounds._fields)
def test_each_bound_is_held_to(name: str) -> None:
    """One more than a bound and chance allow is a breach in which the count is said; with another bound it is none."""
    account = StreamAccount({}, available=10_000)
    setattr(account, name, int(compute_allowance(0.01, 10_000)) + 1)
    wide, narrow = Bounds(1, 1, 1), Bounds(1, 1, 1)._replace(**{name: 0.01})
    held = DemoResult(account, StreamAccount({}, available=1))

    assert held.problems(wide) == []
    assert [f"books: {getattr(account, name)} of 10000 " in line for line in held.problems(narrow)] == [True]


def test_each_day_has_a_cumulative_volume_of_its_own() -> None:
    """Three days whose volumes begin at zero: what is whole is called so, a row too many or too few is found on its day."""
    _, day = market(5)
    days = []
    for number in range(3):
        trades = day.copy()
        trades["id"] += 5 * number
        trades["exch_s"] += 86_400 * number
        days.append(trades)
    trades = np.concatenate(days)
    sent = deliveries([(1, 2, 0, n, n) for n in range(1, 16)])

    def judged(at: list[int]) -> tuple[int, int, int]:
        books = stored_books(market(1)[0], [])
        ticks = compare(market(1)[0], trades, sent, {}, books, stored_ticks(trades, at)).ticks
        return ticks.missed, ticks.doubled, ticks.wrong

    assert judged(list(range(15))) == (0, 0, 0)
    assert judged([*range(15), 7]) == (0, 1, 0)
    assert judged([n for n in range(15) if n != 12]) == (1, 0, 0)


@pytest.mark.parametrize(
    ("rows", "says", "never"),
    [
        ([(0, True, False), (1, True, True), (2, False, True)], "each of the 3 books that a feed delivered is stored once", "0"),
        ([(0, True, True), (1, True, True)], "one book that equals another within 0.1 s is stored once with it", "each of"),
        ([(0, True, True), (1, True, True)], "1 of 2 rows with both arrivals have one of another book", "each of"),
        ([(0, True, False), (1, True, True)], "1 of 3 books that a feed delivered are in no row", "each of"),
        ([(0, True, False), (1, True, False), (1, False, True), (2, False, True)], "1 of 4 rows of books", "each of"),
    ],
)  # fmt: skip
def test_the_verdict_says_what_happened_and_no_more(rows: list, says: str, never: str) -> None:
    """Two books of equal content that are one row are said to be that; "each of" is said of nothing that is missed or doubled."""
    books = [line for line in came_back(rows).describe() if "tick" not in line]

    assert [line for line in books if says in line]
    assert not [line for line in books if line.startswith(never)]


accounts = st.builds(
    StreamAccount,
    feeds=st.fixed_dictionaries({"kis": st.builds(FeedAccount, missing=st.integers(0, 2), extra=st.integers(0, 2))}),
    missed=st.integers(0, 2),
    doubled=st.integers(0, 2),
    wrong=st.integers(0, 2),
    available=st.just(9),
)


@given(accounts, accounts)
def test_nothing_is_called_whole_that_is_not(books: StreamAccount, ticks: StreamAccount) -> None:
    """Whatever is wrong with a stream, the sentence of its completeness is left out; else it is there."""
    told = DemoResult(books, ticks).describe()

    for account, sentence in ((books, "each of the 9 books"), (ticks, "each share of the 9 ticks")):
        feed = account.feeds["kis"]
        whole = not (account.missed or account.doubled or account.wrong or feed.missing or feed.extra)
        assert any(line.startswith(sentence) for line in told) == whole
