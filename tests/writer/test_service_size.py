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
    books,
    counted,
    home_at,
    parts,
    published,
    reading,
    running,
    start,
    stop,
    wait_for,
)

from ringbuf.records import ORDERBOOK, Line
from ringbuf.ring import Producer

OWN_MOST_BYTES = 400_000_000
STALL_MOST_S = 1.0


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("rows", "symbols"), [(1_000_000, 100), (1_000_000, 1), (2_500_000, 2_000)])
def test_an_hour_of_any_size_is_published_within_the_memory_and_without_a_stall(
    place: Path, rows: int, symbols: int
) -> None:
    """Own memory (resident minus shared) stays below 400 MB, the drain loop comes round, and every row is there."""
    home = home_at(place, grace_s=100.0, twin_window_s=0.5, fsync_every_s=1.0)
    rings = {
        line: Producer.open(home.ring(line.name.lower(), "orderbook"), ORDERBOOK, 65536)
        for line in (Line.KIS, Line.KIWOOM)
    }
    process = start(home)
    wait_for(lambda: running(home, process))
    watched = psutil.Process(process.pid)
    own, gaps, over = [0], [0], threading.Event()

    def watch() -> None:
        beat = reading(home).beat_mono_ns
        while not over.wait(0.005):
            memory, now = watched.memory_info(), reading(home).beat_mono_ns
            own.append(memory.rss - memory.shared)
            gaps.append(now - beat)
            beat = now

    watcher = threading.Thread(target=watch)
    watcher.start()
    for begin in range(0, rows, 5000):
        wait_for(lambda begin=begin: begin - counted(home, "rows_in_kiwoom") < 40_000, 60)
        for line, ring in rings.items():
            ring.publish(books(range(begin, begin + 5000), line, symbols=symbols))
    more = 0
    while counted(home, "hours_published") == 0:
        rings[Line.KIS].publish(books(range(more, more + 20), exch_ns=NINE_NS + 3600 * SECOND_NS))
        more += 20
        time.sleep(0.02)
    over.set()
    watcher.join()
    for ring in rings.values():
        ring.close()
    assert stop(process) == 0

    assert len(published(home)) == rows + more
    assert len(parts(home)) == -(-rows // 1_000_000) + 1
    assert max(own) < OWN_MOST_BYTES
    assert max(gaps) < STALL_MOST_S * SECOND_NS
