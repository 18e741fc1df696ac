"""What a person reads about missing ticks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from collectorctl.supervision.status import RingLevel, Status, estimate_full_in
from collectorctl.supervision.status_table import format_rings, format_ticks, mark_age
from ringbuf.records import TICK, Venue, empty_records
from ringbuf.ring import Consumer, Producer
from writer.volume.gap_tracker import GapTracker
from writer.volume.gaps import GapReport

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


def test_the_table_says_what_a_ring_lost_and_which_ring_cannot_be_read() -> None:
    """A damaged or overwritten record is shown as long as the writer runs, and an unreadable ring with its reason."""
    rings = [
        RingLevel("kis.tick", 8, 30, 2),
        RingLevel("us.tick", 0, 0, 0, note="not made yet"),
        RingLevel("kiwoom.tick", 0, 0, 0, "run/ring/kiwoom.tick.ring: magic is 0"),
        RingLevel("kis.event", 8, 30, 6, full_in_s=11.6),
        RingLevel("kis.orderbook", 8, 30, 29),
    ]
    status = Status("home", "now", 1, False, [], rings, lost_records=5, damaged_records=2)

    assert format_rings(status) == [
        "ring kis.tick           2 of 8 waiting, 30 in all",
        "ring us.tick            not made yet",
        "ring kiwoom.tick        UNREADABLE run/ring/kiwoom.tick.ring: magic is 0",
        "ring kis.event          6 of 8 waiting, full in 12 s if they stay, 30 in all",
        "ring kis.orderbook      LOSING RECORDS: 21 of 29 waiting are overwritten, 30 in all",
        "LOST 5 records since the writer's start: 2 damaged, the rest overwritten unread (`tail event`: ring_loss)",
    ]


def test_an_old_figure_carries_its_age_and_is_grey() -> None:
    """A fresh one does not."""
    assert [mark_age("text", age_s).plain for age_s in (None, 9.9, 31.2)] == ["text", "text", "text [31 s old]"]
    assert mark_age("text", 31.2).style == "bright_black"


@pytest.mark.parametrize(("waiting", "full_in_s"), [(50, None), (51, 9.5), (501, 5.0), (1000, 0.0)])
def test_the_time_until_a_ring_is_full_follows_from_its_records(
    tmp_path: Path, waiting: int, full_in_s: float | None
) -> None:
    """A hundred a second into a ring of a thousand; of a twentieth and less nothing is said."""
    producer = Producer.open(tmp_path / "ring", TICK, 1000)
    records = empty_records(TICK, waiting)
    records["mono_ns"] = np.arange(waiting) * 10_000_000
    producer.publish(records)
    ring = Consumer.open(tmp_path / "ring", TICK)

    assert estimate_full_in(ring, waiting) == full_in_s

    ring.close()
    producer.close()
