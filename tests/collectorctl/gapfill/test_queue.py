"""Which gap is asked for next: the newest, the most valuable, none too soon, none for ever."""

from __future__ import annotations

import pytest

from collectorctl.gapfill.queue import CONFIRM_TIMEOUT_S, RETRY_DELAY_S, GapfillLimits, GapQueue
from conf.instrument import Instrument
from writer.volume.gaps import GapReport, OpenGap, SymbolGaps

LIMITS = GapfillLimits(settle_s=3.0, attempts=2, max_trades=300)
NINE_NS = 1_795_132_800_000_000_000
"""2026-11-20 09:00:00 in Korea."""
DAY = "2026-11-20"
VENUES = ["KRX"]


def gap(
    low: int, minute: int = 0, won: int | None = None, trades: int | None = 5, shares: int = 10, end: bool = True
) -> OpenGap:
    """One of ten shares (unless some of them are said to be filled), in a minute after nine."""
    at_ns = NINE_NS + minute * 60_000_000_000
    return OpenGap(low, low + 10, shares, won, trades, at_ns, at_ns + 1_000_000_000 if end else 0)


def report(*gaps: OpenGap, symbol: str = "005930", venue: str = "KRX", day: str = DAY, start: int = 0) -> GapReport:
    """The writer's, with one symbol."""
    sums = dict.fromkeys(
        ["gap_shares", "gap_value", "gap_trades", "gaps_found", "duplicates", "unplaced", "confirmed_by_book"], 0
    )
    rest = {"before_start": 0, "gaps": len(gaps), "behind": 0, "value": None, "change": None, "count": None}
    return GapReport(
        since="",
        written="",
        lineage="",
        row=0,
        symbols=[
            SymbolGaps(
                symbol=symbol, venue=venue, day=day, ticks=1, volume=10**6, start=start, open=list(gaps), **sums, **rest
            )
        ],
    )


def asked(waiting: GapQueue, now_s: float) -> int | None:
    """Where the gap begins that is asked for now."""
    found = waiting.next_gap(VENUES, now_s)
    return found.low if found else None


def test_the_newest_comes_first_and_of_one_minute_the_most_valuable() -> None:
    """After it has rested; one that failed comes behind all others."""
    waiting = GapQueue(LIMITS)
    waiting.update(report(gap(0, 1, won=900), gap(20, 2, won=100), gap(40, 2, won=500), gap(60, 2)), DAY, 100.0)
    order = []
    assert asked(waiting, 102.9) is None
    for _ in range(4):
        found = waiting.next_gap(VENUES, 103.0)
        order.append(found.low)
        assert not waiting.mark_failed(found, 103.0)

    assert [40, 20, 60, 0] == order
    assert (None, 40) == (asked(waiting, 103 + RETRY_DELAY_S - 0.1), asked(waiting, 103 + RETRY_DELAY_S))


def test_a_gap_that_fails_too_often_is_given_up_and_one_that_cannot_be_had_at_once() -> None:
    """It is not asked for again, though every report has it."""
    waiting = GapQueue(LIMITS)
    found = report(gap(0), gap(20))
    waiting.update(found, DAY, 0.0)
    first = waiting.next_gap(VENUES, 10.0)
    assert [False, True] == [waiting.mark_failed(first, 10.0), waiting.mark_failed(first, 50.0)]
    assert waiting.mark_failed(waiting.next_gap(VENUES, 50.0), 50.0, permanently=True)
    waiting.update(found, DAY, 60.0)

    assert (None, 0) == (asked(waiting, 1000.0), len(waiting))


def test_what_was_handed_over_waits_for_the_writer_to_say_so() -> None:
    """Gone from the next report: filled. Still there much later: asked for again. No report: nothing happens."""
    waiting = GapQueue(LIMITS)
    both = report(gap(0), gap(20))
    waiting.update(both, DAY, 0.0)
    for _ in range(2):
        waiting.mark_published(waiting.next_gap(VENUES, 10.0), 10.0)

    assert asked(waiting, 1000.0) is None
    assert [] == waiting.update(both, DAY, 12.0).filled
    assert asked(waiting, 1000.0) is None
    heard = waiting.update(report(gap(20)), DAY, 10.1 + CONFIRM_TIMEOUT_S)

    assert [0] == [one.low for one in heard.filled]
    assert 20 == asked(waiting, 1000.0)


@pytest.mark.parametrize(
    "found",
    [
        report(gap(0), day="2026-11-19"),
        report(gap(0), start=5),
        report(gap(0, shares=7)),
        report(gap(0, end=False)),
        report(gap(0, trades=301)),
        report(gap(0), symbol="005930", venue="NXT"),
    ],
    ids=["of another day", "before the start", "of several", "of no time", "beyond reach", "out of session"],
)
def test_what_calls_cannot_fill_is_not_asked_for(found: GapReport) -> None:
    """Above all what was before the first tick a writer knows of: its ticks may be stored."""
    waiting = GapQueue(LIMITS)

    waiting.update(found, DAY, 0.0)

    assert asked(waiting, 100.0) is None


def test_a_gap_beyond_reach_is_told_once() -> None:
    """So that it can be counted."""
    waiting = GapQueue(LIMITS)
    far = report(gap(0, trades=301), gap(20))

    told = [[one.low for one in waiting.update(far, DAY, at).too_large] for at in (0.0, 5.0)]

    assert [[0], []] == told


def test_the_rows_of_one_call_are_offered_to_all_gaps_of_the_instrument() -> None:
    """Not to another's, and not to one that was given up."""
    waiting = GapQueue(LIMITS)
    two = report(gap(0, won=9), gap(20), gap(40))
    two.symbols += report(gap(0), symbol="000660").symbols
    waiting.update(two, DAY, 0.0)
    beside = waiting.open_gaps_of(waiting.next_gap(VENUES, 10.0))
    waiting.mark_failed(beside[1], 10.0, permanently=True)

    assert [0, 20, 40] == [one.low for one in beside]
    assert {Instrument("005930", "KRX")} == {one.instrument for one in beside}
    assert [0, 40] == [one.low for one in waiting.open_gaps_of(beside[0])]
