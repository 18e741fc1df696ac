"""Of two rows of equal levels it is said what makes them one book, or two."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from collectorctl.explain.pairing import explain_pairings
from ringbuf.records import LEVELS, Flag

SPEED, WINDOW_S = 10, 5.0
"""The arrivals are told by a clock that is ten times as fast as the real one."""
DETAILS = ("total_ask_size", "total_bid_size", "expected_price", "expected_size", "mid_price", "mid_size")


def row(number: int, kis_s: float | None, kiwoom_s: float | None, size: int = 7, **other: Any) -> dict[str, Any]:
    """A stored book, received by each feed so many real seconds after ten."""
    levels = {
        f"{side}_{what}_{n}": size
        for side in ("ask", "bid")
        for what in ("price", "size")
        for n in range(1, LEVELS + 1)
    }
    ten = pd.Timestamp("2026-11-20 10:00", tz="Asia/Seoul")
    times = {
        f"recv_time_{feed}": None if at_s is None else ten + pd.Timedelta(seconds=at_s * SPEED)
        for feed, at_s in (("kis", kis_s), ("kiwoom", kiwoom_s))
    }
    return {"file": "part-0", "row": number, "cum_volume": 100} | times | levels | dict.fromkeys(DETAILS, 3) | other


def said(*rows: dict[str, Any], has_volume: bool = True) -> list[str]:
    """What is said of the last row."""
    together, remarks = explain_pairings(rows, ("kis", "kiwoom"), SPEED, WINDOW_S, has_volume)[-1]
    return [*filter(None, [together]), *remarks]


@pytest.mark.parametrize(
    ("before", "here", "reason"),
    [
        (row(1, 0.0, None), row(2, None, 0.1, mid_size=4), "mid_size 3, then 4"),
        (
            row(1, 0.0, None),
            row(2, None, 0.1, mid_size=None, mid_price=None),
            "mid_price 3, then none; mid_size 3, then none",
        ),
        (row(1, 0.0, 0.1), row(2, 0.2, None), "kis delivered both"),
        (
            row(1, 0.0, 0.1),
            row(2, 0.2, 0.3, total_ask_size=9),
            "kis and kiwoom delivered both; total_ask_size 3, then 9",
        ),
        (row(1, 0.0, None), row(2, None, 5.5), "equal in all fields, but received further apart than 5 s"),
        (row(1, 0.0, None), row(2, None, 2.5), "equal in all fields, but not received as twins are"),
    ],
)
def test_two_rows_of_equal_levels_are_kept_apart_by_what_is_said(before: dict, here: dict, reason: str) -> None:
    """A field, a feed that delivered both, the time between them; and which row it is, how much earlier in real time."""
    (sentence,) = [one for one in said(before, here) if one.startswith("not one book")]

    assert sentence.startswith("not one book with part-0 row 1, ")
    assert sentence.endswith(f"before, of equal levels: {reason}")


def test_other_levels_or_another_volume_need_no_reason() -> None:
    """Unless the venue's books are not compared by volume."""
    first = row(1, 0.0, None)

    assert said(first, row(2, None, 0.1, size=8)) == []
    assert said(first, row(2, None, 0.1, cum_volume=101)) == []
    assert len(said(first, row(2, None, 0.1, cum_volume=101), has_volume=False)) == 1


def test_two_arrivals_in_a_row_are_one_book_for_what_both_say_and_when_they_came() -> None:
    """With the lag that is usual around it, once some rows tell; of three equal rows each is held against the one before."""
    rows = [row(n, n / 10, n / 10 + 0.08, size=n) for n in range(3)]

    assert said(rows[0]) == [
        "one book: both feeds have these levels and this cumulative volume, kiwoom 80.0 ms after kis"
    ]
    assert said(*rows, row(4, 0.5, 0.48, size=9)) == [
        "one book: both feeds have these levels and this cumulative volume, kiwoom 20.0 ms before kis, where 80.0 ms is usual"
    ]
    assert "row 5, 100.0 ms before" in said(row(4, 0.0, None), row(5, 0.1, None), row(6, 0.2, None))[0]


def test_a_pair_whose_feeds_state_another_detail_says_so() -> None:
    """By the flag of the row: what the twin stated is not stored."""
    flagged, plain = (said(row(0, 0.0, 0.08, **flags)) for flags in ({"flags": int(Flag.TWIN_DIFFERS)}, {}))

    assert [any("state another midpoint" in text for text in found) for found in (flagged, plain)] == [True, False]
