"""What publishing a large hour costs beside the drain loop: minutes, so only with `-m long`."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import psutil
import pytest
from support.writer_data import (
    NINE_NS,
    SECOND_NS,
    find_parts,
    make_books,
    make_home,
    read_counter,
    read_published,
    read_running_vitals,
    read_vitals,
    start_writer,
    stop_writer,
    wait_for,
)

from collectorctl.supervision.status import STALE_S
from ringbuf.records import ORDERBOOK, FeedId
from ringbuf.ring import Producer

OWN_MOST_BYTES = 400_000_000
STALL_MOST_S = STALE_S
"""What everybody else takes for a hang."""


@pytest.mark.long
@pytest.mark.parametrize(("rows", "symbols"), [(1_000_000, 100), (1_000_000, 1), (2_500_000, 2_000)])
def test_an_hour_of_any_size_is_published_within_the_memory_and_without_a_stall(
    place: Path, rows: int, symbols: int
) -> None:
    """Own memory (resident minus shared) stays below 400 MB, the drain loop comes round, and every row is there."""
    home = make_home(place, grace_s=100.0, twin_window_s=0.5, fsync_every_s=1.0)
    rings = {
        line: Producer.open(home.ring_path(line.name.lower(), "orderbook"), ORDERBOOK, 65536)
        for line in (FeedId.KIS, FeedId.KIWOOM)
    }
    process = start_writer(home)
    wait_for(lambda: read_running_vitals(home, process))
    watched = psutil.Process(process.pid)
    own, gaps, over = [0], [0], threading.Event()

    def watch() -> None:
        beat = read_vitals(home).heartbeat_mono_ns
        while not over.wait(0.005):
            memory, now = watched.memory_info(), read_vitals(home).heartbeat_mono_ns
            own.append(memory.rss - memory.shared)
            gaps.append(now - beat)
            beat = now

    watcher = threading.Thread(target=watch)
    watcher.start()
    for begin in range(0, rows, 5000):
        wait_for(lambda begin=begin: begin - read_counter(home, "rows_in_kiwoom") < 40_000, 60)
        for line, ring in rings.items():
            ring.publish(make_books(range(begin, begin + 5000), line, symbols=symbols))
    more = 0
    while read_counter(home, "hours_published") == 0:
        rings[FeedId.KIS].publish(make_books(range(more, more + 20), exch_ns=NINE_NS + 3600 * SECOND_NS))
        more += 20
        time.sleep(0.02)
    over.set()
    watcher.join()
    for ring in rings.values():
        ring.close()
    assert stop_writer(process) == 0

    assert len(read_published(home)) == rows + more
    parts = [path for path in find_parts(home) if path.parent.name == "hour=09"]
    assert len(parts) >= -(-rows // 1_000_000)  # more where the machine took longer for the rows than the grace
    assert max(own) < OWN_MOST_BYTES
    assert max(gaps) < STALL_MOST_S * SECOND_NS
