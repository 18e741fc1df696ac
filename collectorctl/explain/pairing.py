"""Why stored books of equal levels are one row or several (pure).

    row 7  kis, kiwoom  mid 12      one book: both feeds have it, 81 ms apart where 78 ms is usual
    row 9  kis          mid 14      not one book with row 7: kis delivered both; mid_size 12, then 14

Guarantees:
    * A sentence is what the rows show: who delivered them, in what they differ, how far apart they were received.

Not handled here:
    * What a twin said beyond levels and cumulative volume: of two arrivals in one row only the first one's content is stored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from statistics import median
from typing import Any, NamedTuple

from ringbuf.records import LEVELS, Flag

Row = Mapping[str, Any]

_LEVEL_COLUMNS = [
    f"{side}_{what}_{level}" for side in ("ask", "bid") for what in ("price", "size") for level in range(1, LEVELS + 1)
]
_DETAIL_COLUMNS = ("total_ask_size", "total_bid_size", "expected_price", "expected_size", "mid_price", "mid_size")


class Pairing(NamedTuple):
    """Why a row's two arrivals are one book (none: ""), and what the row needs words for."""

    together: str = ""
    remarks: Sequence[str] = ()


def explain_pairings(
    rows: Sequence[Row], feeds: Sequence[str], speed: float, window_s: float, has_volume: bool
) -> list[Pairing]:
    """For each row, in order of arrival: why its two arrivals are one book, and why the row of its levels before it is another.

    `speed`: of the clock of the arrivals. `window_s`: how far apart twins may be received, in real seconds. `has_volume`: whether
    books are compared by cumulative volume as well.
    """
    columns = [*_LEVEL_COLUMNS, *["cum_volume"] * has_volume]
    what = f"these levels{' and this cumulative volume' * has_volume}"
    arrivals = [{feed: row[f"recv_time_{feed}"] for feed in feeds if row.get(f"recv_time_{feed}")} for row in rows]
    lags_ms = [_measure_lag(one, feeds, speed) for one in arrivals if len(one) == 2]
    usual = f", where {_format_ms(median(lags_ms))} is usual" if len(lags_ms) > 2 else ""
    latest: dict[tuple, int] = {}
    found = []
    for place, (row, here) in enumerate(zip(rows, arrivals, strict=True)):
        together, remarks = "", []
        if len(here) == 2:
            lag_ms = _measure_lag(here, feeds, speed)
            together = f"one book: both feeds have {what}, {_format_lag(lag_ms, feeds)}{usual}"
            if (row.get("flags") or 0) & Flag.TWIN_DIFFERS:
                remarks.append(
                    "the feeds state another midpoint, total or expected trade, which told no two books apart then"
                )
        content = tuple(row[name] for name in columns)
        if (before := latest.get(content)) is not None:
            apart_ms = _measure_ms(min(arrivals[before].values()), min(here.values()), speed)
            reasons = "; ".join(_explain_apart(rows[before], row, arrivals[before], here, apart_ms, window_s, usual))
            where = f"{rows[before]['file']} row {rows[before]['row']}"
            remarks.append(f"not one book with {where}, {_format_ms(apart_ms)} before, of equal levels: {reasons}")
        if here:
            latest[content] = place
        found.append(Pairing(together, remarks))
    return found


def _explain_apart(
    before: Row,
    row: Row,
    arrivals_before: Mapping[str, datetime],
    arrivals: Mapping[str, datetime],
    apart_ms: float,
    window_s: float,
    usual: str,
) -> list[str]:
    """What keeps two rows apart."""
    both = [feed for feed in arrivals_before if feed in arrivals]
    reasons = [f"{' and '.join(both)} delivered both"] if both else []
    for name in _DETAIL_COLUMNS:
        if before[name] != row[name]:
            reasons.append(f"{name} {_format_value(before[name])}, then {_format_value(row[name])}")
    if reasons:
        return reasons
    if apart_ms > window_s * 1000:
        return [f"equal in all fields, but received further apart than {window_s:g} s"]
    return [f"equal in all fields, but not received as twins are{usual}"]


def _measure_lag(arrivals: Mapping[str, datetime], feeds: Sequence[str], speed: float) -> float:
    first, second = (arrivals[feed] for feed in feeds)
    return _measure_ms(first, second, speed)


def _measure_ms(begin: datetime, end: datetime, speed: float) -> float:
    return (end - begin).total_seconds() * 1000 / speed


def _format_lag(lag_ms: float, feeds: Sequence[str]) -> str:
    first, second = feeds
    return f"{second} {_format_ms(abs(lag_ms))} {'before' if lag_ms < 0 else 'after'} {first}"


def _format_ms(ms: float) -> str:
    return f"{ms:.1f} ms" if abs(ms) < 1000 else f"{ms / 1000:.3f} s"


def _format_value(value: Any) -> str:
    return "none" if value is None else str(value)
