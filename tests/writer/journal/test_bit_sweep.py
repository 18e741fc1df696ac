"""Every bit of a small journal and of a small ring flipped, one at a time: all is read as it was written, or named as damage."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from support.writer_data import NINE_NS, make_ticks

from ringbuf import ring
from ringbuf.records import TICK
from ringbuf.ring import Producer
from writer.ingest.ring_reader import NO_LIMIT_NS, RingReader
from writer.journal import frame, segment
from writer.journal.journal import Journal
from writer.journal.segment import Damage, JournalBatch, scan_segment

SCHEMA = pa.schema([("row", pa.int64()), ("twin_of", pa.int64()), ("hour", pa.int64()), ("name", pa.string())])
ROWS_OF_A_BATCH, BATCHES = 2, 3


def make_segment(place: Path) -> Path:
    """A closed segment of three batches of two rows, and the one that follows it."""
    journal = Journal.open(place, SCHEMA)
    journal.roll([["005930", 1, 20000, 77]])
    for _ in range(BATCHES):
        rows = [journal.last_row + n for n in range(1, ROWS_OF_A_BATCH + 1)]
        batch = pa.RecordBatch.from_pylist(
            [{"row": row, "hour": NINE_NS, "name": f"row {row}"} for row in rows], SCHEMA
        )
        journal.append(batch, {"kis.tick": [1, rows[-1] + 1]})
    journal.roll([])
    journal.close()
    return place / "000000000001.journal"


def contents(found: list[JournalBatch | Damage]) -> list[tuple[Any, ...]]:
    """What was read, comparable."""
    return [
        (batch.begin, batch.end, batch.last_row, batch.metadata, batch.entries.to_pylist())
        for batch in found
        if isinstance(batch, JournalBatch)
    ]


def flipped_bits(path: Path) -> Iterator[int]:
    """Each bit of a file, which has it flipped meanwhile; by the number of its byte."""
    data = path.read_bytes()
    fd = os.open(path, os.O_RDWR)
    try:
        for at, octet in enumerate(data):
            for bit in range(8):
                os.pwrite(fd, bytes([octet ^ 1 << bit]), at)
                yield at
            os.pwrite(fd, bytes([octet]), at)
    finally:
        os.close(fd)


def test_each_flipped_bit_of_a_segment_costs_its_frame_and_no_other(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exactly the frame that was hit is missing; its extent and its number of rows are told; the other frames are as written."""
    monkeypatch.setattr(frame, "PAGE_BYTES", 8)  # no padding to flip
    path = make_segment(place)
    whole = contents(list(scan_segment(path)))
    assert [0, 0, *[ROWS_OF_A_BATCH] * BATCHES] == [len(rows) for *_, rows in whole]

    for at in flipped_bits(path):
        found = list(scan_segment(path, after_row=0))

        (hit,) = (batch for batch in whole if batch[0] <= at < batch[1])
        assert [batch for batch in whole if batch is not hit] == contents(found), at
        (damage,) = (damage for damage in found if isinstance(damage, Damage))
        assert hit[:2] == (damage.begin, damage.end), at
        is_last_header = hit is whole[-1] and at < hit[0] + frame.HEADER_BYTES
        assert damage.lost_rows == (None if is_last_header else len(hit[-1])), at


def test_each_flipped_bit_of_a_segment_is_reported_by_the_journal_with_its_rows(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One bit of each byte, through `Journal.open`: the rows of every other frame, the right positions, one report."""
    monkeypatch.setattr(frame, "PAGE_BYTES", 8)
    path = make_segment(place)
    whole = contents(list(scan_segment(path)))

    for number, at in enumerate(flipped_bits(path)):
        if number % 8 != at % 8:
            continue
        damages: list[Damage] = []
        rows: list[int] = []

        journal = Journal.open(
            place, SCHEMA, lambda batch, rows=rows: rows.extend(batch.entries["row"].to_pylist()), damages.append
        )

        (hit,) = (batch for batch in whole if batch[0] <= at < batch[1])
        lost = [entry["row"] for entry in hit[-1]]
        assert [row for row in range(1, 7) if row not in lost] == rows, at
        assert (6, {"kis.tick": [1, 7]}) == (journal.last_row, journal.positions), at
        assert [len(lost)] == [damage.lost_rows for damage in damages], at


@pytest.mark.parametrize("page", range(4))
def test_a_page_that_cannot_be_read_costs_the_frames_in_it(
    place: Path, monkeypatch: pytest.MonkeyPatch, page: int
) -> None:
    """EIO in place of a signal; one opening is always left, since they lie in different pages."""
    path = make_segment(place)
    whole = contents(list(scan_segment(path)))
    size, pread, begin = path.stat().st_size, os.pread, page * 4096
    assert size < 3 * 4096

    def failing(fd: int, count: int, at: int) -> bytes:
        if at < begin + 4096 and at + count > begin and min(at + count, size) > begin:
            raise OSError(errno.EIO, "bad sector")
        return pread(fd, count, at)

    monkeypatch.setattr(os, "pread", failing)
    found = list(scan_segment(path, after_row=0))

    assert [batch for batch in whole if batch[1] <= begin or batch[0] >= begin + 4096] == contents(found)
    assert sum(isinstance(damage, Damage) for damage in found) == int(begin < size)


def test_a_length_that_lies_costs_one_frame(place: Path) -> None:
    """A header with a right checksum and a wrong length, as a bug would write it: reading goes on at the next frame."""
    path = make_segment(place)
    whole = contents(list(scan_segment(path)))
    third = whole[3]
    data = bytearray(path.read_bytes())
    header = frame.decode_header(bytes(data[third[0] : third[0] + frame.HEADER_BYTES]), third[0])
    fields = (frame.MAGIC, *header._replace(body_bytes=1 << 40, lineage=bytes.fromhex(header.lineage)))
    packed = frame._FIELDS.pack(*fields)
    data[third[0] : third[0] + frame.HEADER_BYTES] = packed + frame._compute_header_checksum(packed)
    path.write_bytes(data)

    found = list(segment.scan_segment(path, after_row=0))

    assert [batch for batch in whole if batch is not third] == contents(found)


def test_each_flipped_bit_of_a_ring_costs_its_record_and_no_other(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A record is read as it was published, or is in a loss, or the ring as a whole is refused in words."""
    monkeypatch.setattr(ring, "RETRY_S", 0.0)
    path = place / "kis.tick.ring"
    producer = Producer.open(path, TICK, 2)
    ticks = make_ticks(range(1, 3))
    producer.publish(ticks)
    producer.close()
    size = path.stat().st_size

    for number, at in enumerate(flipped_bits(path)):
        if 256 <= at < 4096 and number % 8 != at % 8:  # the unused rest of the header
            continue
        reader = RingReader({"kis.tick": path}, TICK, {})
        reader.attach()
        read: list[bytes] = []
        lost: list[int] = []
        for _ in range(4):
            batch = reader.peek(NO_LIMIT_NS, NO_LIMIT_NS, 100)
            read += [record.tobytes() for record in batch.records]
            lost += [seq for report in batch.losses for seq in range(report.loss.first_seq, report.loss.last_seq + 1)]
            reader.advance(batch)
        is_refused = bool(reader.unreadable)
        reader.close()

        expected = [tick.tobytes() for n, tick in enumerate(ticks, 1) if n not in lost]
        assert is_refused or (expected == read and len(lost) == int(at >= 4096)), (at, lost, len(read))
        assert at < 4096 or not is_refused, at
    assert at == size - 1
