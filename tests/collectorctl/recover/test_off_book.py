"""Volume off the book on a day of which only a tick chart is left: what can be placed and explained, and what not."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from support.day_fixture import SYMBOLS, FinishedDay, a_finished_day, collect_grades, lose_long_and_short, publish_books


@pytest.fixture(scope="module")
def the_day() -> Iterator[FinishedDay]:
    """Three trading days ago, each symbol with six blocks among its trades, with this seed one of them within the outage."""
    options = ("--seed", "2", "--blocks", "6")
    with a_finished_day(*options, trades="6000", clock="2026-11-25T20:30:00+09:00", days_ago=3) as day:
        yield day


@pytest.fixture
def finished(the_day: FinishedDay) -> FinishedDay:
    """The same day, of which nothing is stored."""
    the_day.clear_data()
    return the_day


def blocks(trades: np.ndarray) -> set[tuple[int, int]]:
    """(low, high] that no trade covers."""
    low = trades["cum_volume"] - trades["size"]
    before = np.concatenate([[0], trades["cum_volume"][:-1]])
    return {(int(a), int(b)) for a, b in zip(before, low, strict=True) if a < b}


def right_rows(day: FinishedDay, name: str) -> int:
    """How many rows are stored of an instrument; each must be a trade of its own, with its volume, price and second."""
    stored, trades = day.load_stored(name), day.true_trades(name)
    at = np.searchsorted(trades["cum_volume"], stored.cum_volume)
    assert len(np.unique(at)) == len(stored)
    for column in ("cum_volume", "size", "price"):
        assert trades[column][at].tolist() == stored[column].tolist()
    assert (trades["exch_s"][at] * 10**9).tolist() == stored.exch_time.astype("int64").tolist()
    return len(stored)


def test_blocks_within_an_outage_are_listed_and_every_tick_has_its_place_where_books_show_them(
    finished: FinishedDay,
) -> None:
    """The other broker's books went on: they tell between which trades a block passed, the counter that no trade is missing."""
    finished.publish_live(lose_long_and_short)
    publish_books(finished.root, np.concatenate([finished.true_trades(name) for name in SYMBOLS]))

    certificates = finished.recover()

    for name in SYMBOLS:
        trades, one = finished.true_trades(name), certificates[name]
        lost = lose_long_and_short(trades)
        within = [low for low, _ in blocks(trades) if lost[np.searchsorted(trades["cum_volume"], low)]]
        assert within, "the seed must put a block into the outage"
        assert len(trades) == right_rows(finished, name)
        assert ("RECONCILED", 6) == (one["certificate"], len(one["off_book"])), one
        assert all(f"volume {low} to {high}" in " ".join(one["off_book"]) for low, high in blocks(trades))
        assert one["missing_shares"] == sum(high - low for low, high in blocks(trades))
    before = finished.read_published()
    assert {"RECONCILED"} == collect_grades(finished.recover())
    assert before == finished.read_published()
    assert 0 == finished.run("verify", "--date", "2026-11-20").exit_code


def test_without_books_what_is_certain_is_stored_and_the_day_stays_incomplete(finished: FinishedDay) -> None:
    """Minute bars tell the minute of a block; the trades of that minute are left out, since any of them may be before it."""
    finished.publish_live(lose_long_and_short)

    certificates = finished.recover()

    assert {"INCOMPLETE"} == collect_grades(certificates)
    for name in SYMBOLS:
        trades, one = finished.true_trades(name), certificates[name]
        lost = int(lose_long_and_short(trades).sum())
        assert len(trades) - lost < right_rows(finished, name) < len(trades)
        assert one["recovered_ticks"] > 0.9 * lost
        assert [] == one["off_book"]
