"""The coverage of a day with recovered rows is that of all ticks together."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from brokers.history import TRADE_ROW
from collectorctl.recover.matching.day_coverage import DAY_TICK, DayCoverage, sort_ticks
from ringbuf.records import UNDEFINED

INTERVALS = st.lists(st.tuples(st.integers(0, 40), st.integers(1, 12), st.integers(0, 3)), max_size=15)
TOTALS = st.none() | st.integers(0, 60)


def fill(name: np.dtype, intervals: list[tuple[int, int, int]]) -> np.ndarray:
    """Rows of (low, size, time) each."""
    rows = np.zeros(len(intervals), name)
    for row, (low, size, at) in zip(rows, intervals, strict=True):
        row["cum_volume"], row["size"], row["exch_ns"], row["price"] = low + size, size, at, 100
    return rows


def assert_equal(one: DayCoverage, other: DayCoverage) -> None:
    """Ticks and coverage, field by field."""
    assert one.ticks.tolist() == other.ticks.tolist()
    for own, others in zip(one.coverage, other.coverage, strict=True):
        np.testing.assert_array_equal(own, others)
    np.testing.assert_array_equal(one.placed, other.placed)
    np.testing.assert_array_equal(one.gap_values, other.gap_values)


@given(INTERVALS, INTERVALS, INTERVALS, TOTALS)
def test_fills_count_as_if_they_had_been_stored(
    live: list[tuple[int, int, int]],
    first: list[tuple[int, int, int]],
    second: list[tuple[int, int, int]],
    total: int | None,
) -> None:
    """In one step or in two, whatever overlaps; the day without them stays as it was."""
    stored = fill(DAY_TICK, live)
    stored["live"] = True
    recovered = fill(DAY_TICK, [*first, *second])
    recovered["cum_value"] = recovered["value_change"] = recovered["trade_count"] = UNDEFINED
    day = DayCoverage.of(sort_ticks(stored), total)
    expected = DayCoverage.of(sort_ticks(np.concatenate([stored, recovered])), total)

    assert_equal(expected, day.with_fills(fill(TRADE_ROW, [*first, *second])))
    assert_equal(expected, day.with_fills(fill(TRADE_ROW, first)).with_fills(fill(TRADE_ROW, second)))
    assert_equal(DayCoverage.of(sort_ticks(stored), total), day)
    assert not day.ticks.flags.writeable
