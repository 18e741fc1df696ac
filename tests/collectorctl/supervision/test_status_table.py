"""What a person reads about missing ticks."""

from __future__ import annotations

import numpy as np

from collectorctl.supervision.status_table import format_ticks
from ringbuf.records import TICK, Venue, empty_records
from writer.volume.gap_tracker import GapReport, GapTracker

NINE_NS = 1_795_132_800_000_000_000
DAY_NS = 86_400_000_000_000


def ticks(symbol: bytes, volume: list[int], exch_ns: int = NINE_NS) -> np.ndarray:
    """Ticks of ten shares at these cumulative volumes, 100 won each."""
    found = empty_records(TICK, len(volume))
    found["symbol"], found["venue"], found["exch_ns"] = symbol, Venue.KRX, exch_ns
    found["size"], found["cum_volume"], found["price_e4"] = 10, volume, 100 * 10_000
    found["cum_value"] = found["cum_volume"] * 100
    return found


def said(line: GapTracker) -> str:
    """The line in the table."""
    return format_ticks(GapReport("2026-11-20 09:00:00", "", "", 0, line.export_symbols()))


def test_the_table_names_totals_and_the_worst_symbol() -> None:
    """Gaps, won, doubles, what was before the start, and where most is missing; of the newest day only."""
    line = GapTracker()
    assert said(line) == "ticks: none since 2026-11-20 09:00:00"

    line.add_ticks(ticks(b"000660", [10, 20]))
    assert said(line) == "ticks of 2026-11-20 since 2026-11-20 09:00:00: no gap"

    line.add_ticks(ticks(b"005930", [1010, 2020, 2020]))
    assert said(line) == (
        "ticks of 2026-11-20 since 2026-11-20 09:00:00: 1 gap (1,000 shares, 100,000 won); 1 twice; "
        "1,000 shares before the start; worst 005930 KRX: 1,000 shares"
    )

    line.add_ticks(ticks(b"000660", [10], NINE_NS + DAY_NS))
    assert said(line) == "ticks of 2026-11-21 since 2026-11-20 09:00:00: no gap"
