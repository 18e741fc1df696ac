"""Pages of a chart that goes backwards, split by day; and what is placed of a day whose pages contradict its figures."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from brokers.history import TRADE_ROW
from collectorctl.backfill.job import place
from collectorctl.backfill.split import split_by_day
from collectorctl.recover.certificate.certify import certify
from collectorctl.recover.matching.day_coverage import DAY_TICK, DayCoverage
from collectorctl.recover.store.evidence import Evidence
from conf.clock import HOUR_NS, SECOND_NS, kst_midnight_ns
from conf.instrument import Instrument

FRIDAY = date(2026, 11, 20)


def a_chart(*counts: int) -> np.ndarray:
    """So many trades on Friday, the day before ...: TRADE_ROW without cumulative volume, newest first, sizes that differ."""
    days = []
    for back, count in enumerate(counts):
        rows = np.zeros(count, TRADE_ROW)
        begin_ns = kst_midnight_ns(FRIDAY - timedelta(days=back)) + 9 * HOUR_NS
        rows["exch_ns"] = begin_ns + np.arange(count) * 60 * SECOND_NS
        rows["size"], rows["price"] = np.arange(1, count + 1), 70_000 + back
        days.append(rows[::-1])
    return np.concatenate(days)


def in_pages(rows: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """Pages of `size` rows."""
    return (rows[at : at + size] for at in range(0, len(rows), size))


def test_a_days_edge_inside_a_page_parts_it_and_the_last_day_is_cut() -> None:
    """Friday ends and Thursday begins on the second page; behind Thursday the list says nothing."""
    friday, thursday = split_by_day(in_pages(a_chart(5, 4), 3))

    assert (friday.day, friday.is_whole, friday.pages) == (FRIDAY, True, 2)
    assert friday.rows["size"].tolist() == [1, 2, 3, 4, 5]
    assert (thursday.day, thursday.is_whole) == (FRIDAY - timedelta(days=1), False)
    assert thursday.rows["size"].tolist() == [1, 2, 3, 4]


def test_a_days_edge_between_two_pages_is_one_and_no_page_is_no_day() -> None:
    assert [(one.day.day, one.is_whole) for one in split_by_day(in_pages(a_chart(3, 3), 3))] == [
        (20, True),
        (19, False),
    ]
    assert list(split_by_day([])) == list(split_by_day([a_chart(0)])) == []


def test_midnight_in_korea_is_the_edge() -> None:
    """Not that of UTC, which is nine in the morning."""
    rows = np.zeros(3, TRADE_ROW)
    rows["exch_ns"] = kst_midnight_ns(FRIDAY) + np.array([9 * HOUR_NS, 0, -SECOND_NS])

    assert [(one.day.day, len(one.rows)) for one in split_by_day([rows])] == [(20, 2), (19, 1)]


@given(st.lists(st.integers(1, 7), min_size=1, max_size=5), st.integers(1, 9))
def test_wherever_pages_end_every_row_is_in_its_day_once(counts: list[int], page_rows: int) -> None:
    rows = a_chart(*counts)

    days = list(split_by_day(in_pages(rows, page_rows)))

    assert [one.day for one in days] == [FRIDAY - timedelta(days=back) for back in range(len(counts))]
    assert [one.is_whole for one in days] == [True] * (len(counts) - 1) + [False]
    assert np.concatenate([one.rows[::-1] for one in days]).tolist() == rows.tolist()


def evidence_of(rows: np.ndarray) -> Evidence:
    """The official figures and minutes of a day with these trades, oldest first."""
    found = Evidence(int(rows["size"].sum()), 1, session_over=True, backfilled=True)
    found.bars = [[at, 1, 1, 1, 1, shares, 0] for at, shares in rows[["exch_ns", "size"]].tolist()]
    return found


def test_a_whole_day_is_placed_from_its_first_share_to_its_last() -> None:
    (day, _) = split_by_day([a_chart(30, 1)])
    found = evidence_of(day.rows)

    result = place(DayCoverage.of(np.zeros(0, DAY_TICK), found.volume), day.rows, found, "KRX")

    assert result.trades["cum_volume"].tolist() == np.cumsum(day.rows["size"]).tolist()
    assert (found.findings, len(result.day.gaps)) == ([], 0)


@pytest.mark.parametrize("fault", ["a page repeated", "a page left out"])
def test_a_day_whose_pages_do_not_add_up_is_incomplete(fault: str) -> None:
    """Of a page that came twice nothing is stored twice; of one that never came its shares are missing."""
    pages = list(in_pages(a_chart(30, 1), 10))
    (day, _) = split_by_day(pages)
    found = evidence_of(day.rows)
    (spoiled, _) = split_by_day([*pages[:2], *pages[1:]] if fault == "a page repeated" else [*pages[:1], *pages[2:]])

    result = place(DayCoverage.of(np.zeros(0, DAY_TICK), found.volume), spoiled.rows, found, "KRX")

    made = certify(Instrument("005930", "KRX"), FRIDAY, result.day.ticks, np.zeros(0, np.int64), found)
    assert (made.certificate, made.missing_shares > 0) == ("INCOMPLETE", True)
    assert len(set(result.trades["cum_volume"].tolist())) == len(result.trades)


def test_a_resumed_day_gets_what_it_lacks_and_nothing_twice() -> None:
    """Some hours of it were published before the run was killed."""
    (day, _) = split_by_day([a_chart(30, 1)])
    found = evidence_of(day.rows)
    whole = place(DayCoverage.of(np.zeros(0, DAY_TICK), found.volume), day.rows, found, "KRX").trades
    stored = DayCoverage.of(np.zeros(0, DAY_TICK), found.volume).with_fills(whole[10:17])

    again = place(stored, day.rows, found, "KRX")

    assert again.trades["cum_volume"].tolist() == [*whole["cum_volume"][:10], *whole["cum_volume"][17:]]
    assert place(again.day, day.rows, found, "KRX").trades.tolist() == []
