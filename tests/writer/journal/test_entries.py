"""Journal entries: records whole, and those of the version before as records."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from support.former_journal import write_segment_of_version_1
from support.writer_data import NINE_NS, SECOND_NS, make_books, make_ticks

from conf.market import KR
from ringbuf.records import RINGS, UNDEFINED, EventType, FeedId, Flag
from writer import schema
from writer.ingest.book_arbiter import BookArbiter
from writer.journal.entries import EXPANDED, JOURNAL, build_entries, expand_entries, read_records
from writer.journal.former_entries import convert_entries
from writer.journal.journal import Journal
from writer.journal.reader import read_rows
from writer.journal.segment import Damage, scan_segment

LINEAGE = "0123456789abcdef0123456789abcdef"


def make_records(dataset: str) -> np.ndarray:
    """Records of a dataset with everything that a record may have: text, quotes, nulls, a fetched tick, twins."""
    market, stream = schema.parse_dataset(dataset)
    if stream == "event":
        events = np.zeros(3, RINGS["event"])
        events["line"] = (FeedId.KIS, FeedId.WRITER, FeedId.US)
        events["kind"] = (EventType.VI, EventType.STARTED, EventType.HALT)
        events["recv_ns"], events["value"], events["since_ns"] = NINE_NS, (1, UNDEFINED, 0), (UNDEFINED, 5, UNDEFINED)
        events["symbol"], events["venue"], events["stream"] = (b"005930", b"", b"NVDA"), (1, 0, 11), (2, 0, 1)
        events["message"], events["flags"], events["connection"] = ("멈춤".encode(), b"", b"x"), 7, (1, 0, 2)
        return events
    records = make_books(range(6)) if stream == "orderbook" else make_ticks(range(6))
    records["line"] = FeedId.US if market is not KR else (1, 2, 1, 2, 1, 2)
    records["venue"] = 11 if market is not KR else (1, 2, 3, 1, 1, 2)
    records["extra"], records["flags"] = (b"", b"1^2", b"", "값".encode(), b"", b""), int(Flag.SNAPSHOT)
    if stream == "orderbook":
        records["mid_price_e4"], records["mid_size"] = (0, 70_000_000, 0, UNDEFINED, 0, 0), (0, 3, 0, UNDEFINED, 0, 0)
        return records
    records["cum_value"], records["side"] = (UNDEFINED, 1, 2, 3, 4, 5), (1, -1, 0, 1, 1, 1)
    if market is KR:
        records["line"][5] = FeedId.GAPFILL
    else:
        records["price_e4"] = np.arange(6) * 12_345 + 1  # fractions of a cent
    return records


def build(dataset: str, records: np.ndarray) -> pa.RecordBatch:
    """The entries of records."""
    arbiter = BookArbiter(SECOND_NS, ["KRX"]) if schema.is_merged(dataset) else None
    result = arbiter.arbitrate(records, schema.compute_hours(records), 1) if arbiter else None
    return build_entries(dataset, records, 1, result)


@pytest.mark.parametrize("dataset", schema.PARQUET)
def test_a_record_comes_back_from_its_entry_bit_by_bit(dataset: str) -> None:
    records = make_records(dataset)

    entries = build(dataset, records)

    assert read_records(entries).tobytes() == records.tobytes()
    assert read_records(entries.slice(2, 2)).tobytes() == records[2:4].tobytes()
    assert read_records(entries.slice(0, 0)).dtype == records.dtype


@pytest.mark.parametrize("dataset", schema.PARQUET)
def test_entries_of_the_version_before_are_published_as_they_would_have_been(dataset: str) -> None:
    """Converted and expanded again, every column has what it had."""
    former = expand_entries(dataset, build(dataset, make_records(dataset)))

    found = convert_entries(former, JOURNAL[dataset])

    assert expand_entries(dataset, found).equals(former)


def test_a_twin_of_the_version_before_keeps_its_arrival_and_its_flag() -> None:
    """Of two twins, one that differs in a detail."""
    records = make_books([1, 1, 2, 2], symbols=2)
    records["line"] = (FeedId.KIS, FeedId.KIWOOM) * 2
    result = BookArbiter(SECOND_NS, ["KRX"]).arbitrate(records, schema.compute_hours(records), 1)
    result = result._replace(differs=np.array([False, False, False, True]))
    former = expand_entries("kr.orderbook", build_entries("kr.orderbook", records, 1, result))
    assert former["twin_of"].to_pylist() == [None, 1, None, 3]

    found = expand_entries("kr.orderbook", convert_entries(former, JOURNAL["kr.orderbook"]))

    assert found.equals(former)
    assert found["flags"].to_pylist()[1:4:2] == [None, int(Flag.TWIN_DIFFERS)]


def write_former(path: Path) -> None:
    """A segment with two batches of seven ticks, entries as the version before wrote them."""
    appended = []
    for first in (1, 8):
        entries = build_entries("kr.tick", make_ticks(range(first, first + 7)), first, None)
        metadata = {"positions": {"kis.tick": [1, first + 7]}, "last_row": first + 6}
        appended.append((expand_entries("kr.tick", entries), metadata))
    write_segment_of_version_1(path, EXPANDED["kr.tick"], LINEAGE, appended)


def read_volumes(place: Path) -> list[int]:
    """The cumulative volumes of everything in a journal."""
    batches = read_rows(place, JOURNAL["kr.tick"])
    return [volume for entries in batches for volume in read_records(entries)["cum_volume"].tolist()]


def test_a_segment_of_the_version_before_is_read_and_rewritten_once(place: Path) -> None:
    """By readers before the new writer has begun, and by the writer, which goes on in it."""
    path = place / "000000000001.journal"
    write_former(path)
    expected = make_ticks(range(1, 15))["cum_volume"].tolist()
    assert read_volumes(place) == expected

    journal = Journal.open(place, JOURNAL["kr.tick"])
    rewritten = path.read_bytes()
    journal.roll([])
    journal.append(build_entries("kr.tick", make_ticks([15]), 15, None), journal.positions)
    journal.close()
    again = Journal.open(place, JOURNAL["kr.tick"])

    assert (LINEAGE, 15, {"kis.tick": [1, 15]}) == (again.lineage, again.last_row, again.positions)
    assert read_volumes(place) == [*expected, *make_ticks([15])["cum_volume"].tolist()]
    assert path.read_bytes() == rewritten
    assert list(place.glob("*.damaged")) == []


def test_a_damaged_segment_of_the_version_before_is_kept_and_reported(place: Path) -> None:
    """What is whole of it is used; the damage is that of the file as it was, once."""
    path, damages = place / "000000000001.journal", list[Damage]()
    write_former(path)
    data = bytearray(path.read_bytes())
    *_, first_batch, _ = scan_segment(path)
    data[first_batch.end - 1] ^= 1
    path.write_bytes(data)

    Journal.open(place, JOURNAL["kr.tick"], on_damage=damages.append)
    Journal.open(place, JOURNAL["kr.tick"], on_damage=damages.append)

    assert read_volumes(place) == make_ticks(range(8, 15))["cum_volume"].tolist()
    assert [damage.lost_rows for damage in damages] == [7]
    assert path.with_name(path.name + ".damaged").read_bytes() == bytes(data)
