"""Stored ticks that say the same of the same volume: which go when a day is recovered."""

from __future__ import annotations

import numpy as np
import pytest
from support.writer_data import NINE_NS, SECOND_NS

from collectorctl.recover.matching.day_coverage import DAY_TICK, DayCoverage, sort_ticks
from collectorctl.recover.plan import find_redundant_rows
from conf.instrument import Instrument

SAMSUNG = Instrument("005930", "KRX")
Row = tuple[int, int, bool]


def ticks(*rows: Row, price: int = 100) -> np.ndarray:
    """(low, high, live) each, in the order in which they are read."""
    found = np.zeros(len(rows), DAY_TICK)
    found["price"] = price
    found["cum_volume"] = [high for _, high, _ in rows]
    found["size"] = [high - low for low, high, _ in rows]
    found["live"] = [live for *_, live in rows]
    return sort_ticks(found)


def gone(stored: np.ndarray) -> tuple[list[Row], int]:
    """What goes, and how many shares then are covered: never other ones than before."""
    line = DayCoverage.of(stored, None)
    found = []
    left = find_redundant_rows(SAMSUNG, line)
    seen = dict.fromkeys(left, 0)
    for tick in stored:
        source = "live" if tick["live"] else "recovered"
        key = (*SAMSUNG, int(tick["cum_volume"]), int(tick["size"]), source)
        if key in left:
            seen[key] += 1
            if seen[key] > left[key]:
                found.append((int(tick["cum_volume"] - tick["size"]), int(tick["cum_volume"]), bool(tick["live"])))
    assert not line.coverage.unplaced.any()
    return found, int(line.placed["size"].sum())


@pytest.mark.parametrize(
    ("rows", "goes"),
    [
        ([(0, 5, True), (0, 5, False)], [(0, 5, False)]),
        ([(0, 5, True), (0, 5, True)], [(0, 5, True)]),
        ([(0, 2, True), (2, 5, True), (0, 5, True)], [(0, 5, True)]),  # a merged print and its parts
        (
            [(0, 2, False), (2, 5, False), (0, 5, True)],
            [(0, 2, False), (2, 5, False)],
        ),  # fetched parts: the received one stays
        ([(0, 5, True), (2, 5, False)], [(2, 5, False)]),
        ([(0, 2, True), (2, 5, True), (0, 5, False)], [(0, 5, False)]),
        ([(0, 2, True), (2, 5, True), (1, 4, False)], [(1, 4, False)]),
        ([(0, 5, True), (5, 8, False), (8, 9, True)], []),
        ([(0, 5, True), (3, 8, False)], []),  # they contradict
    ],
)
def test_of_ticks_that_cover_the_same_the_received_ones_stay(rows: list[Row], goes: list[Row]) -> None:
    """However they overlap; of received ones the finer."""
    found, shares = gone(ticks(*rows))

    assert sorted(goes) == sorted(found)
    high = max(high for _, high, _ in rows)
    assert shares == high or not goes


def test_a_trade_that_two_feeds_stamped_in_two_hours_is_one() -> None:
    """09:59:59 by one, 10:00:00 by the other: the later one goes."""
    stored = ticks((0, 5, True), (0, 5, True), (5, 8, True))
    stored["exch_ns"] = [NINE_NS, NINE_NS + 3600 * SECOND_NS, NINE_NS + 3601 * SECOND_NS]

    assert ([(0, 5, True)], 8) == gone(stored)


def test_ticks_that_contradict_each_other_stay() -> None:
    """The same volume at two prices: nobody here knows which is right."""
    stored = ticks((0, 5, True), (0, 5, False))
    stored["price"][1] += 1

    assert ([], 5) == gone(stored)
