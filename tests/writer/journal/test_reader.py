"""A journal that is read again and again while it grows."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.writer_data import NINE_NS, make_ticks

from writer.journal.entries import JOURNAL, build_entries
from writer.journal.journal import Journal
from writer.journal.reader import read_rows


@pytest.mark.parametrize("cut", [0, 1, 40])
def test_each_reading_gives_what_came_since_the_one_before(place: Path, cut: int) -> None:
    """Over new segments, and past the beginning of a batch that was not whole yet; nothing is read twice."""
    journal = Journal.open(place, JOURNAL["kr.tick"])
    journal.roll([])
    ends: dict[Path, int] = {}
    readings = []
    for step in range(6):
        first = journal.last_row + 1
        journal.append(build_entries("kr.tick", make_ticks(range(first, first + 3), exch_ns=NINE_NS), first, None), {})
        path = journal.current.path
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) - cut])
        torn = [row for batch in read_rows(place, None, ends) for row in batch.column("row").to_pylist()]
        assert torn == ([] if cut else [first, first + 1, first + 2])
        path.write_bytes(whole)
        readings += torn + [row for batch in read_rows(place, None, ends) for row in batch.column("row").to_pylist()]
        if step % 2:
            journal.roll([])
    journal.close()

    assert readings == list(range(1, 19))
