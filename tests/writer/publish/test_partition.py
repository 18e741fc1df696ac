"""Publishing: once, whole, sorted, and read back."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.writer_data import NINE_NS, SECOND_NS, make_books

from ringbuf.records import FeedId
from writer import durable_io, schema
from writer.ingest.book_arbiter import BookArbiter
from writer.journal.entries import JOURNAL, build_entries
from writer.journal.journal import Journal
from writer.publish import partition, verified_file
from writer.publish.partition import PublishTask, publish
from writer.publish.verified_file import Cancelled, PartitionWriteError

HOUR = 3600 * SECOND_NS
NINE = Path("date=2026-11-20/hour=09")


class Kept:
    """A journal of books and what belongs to it."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.merge = BookArbiter(5 * SECOND_NS, ["KRX"])
        self.journal = Journal.open(place / "journal", JOURNAL["kr.orderbook"])
        self.journal.roll([])

    def put(self, found: np.ndarray, rows: int = 50) -> None:
        """Journal some books, so many to a batch."""
        for begin in range(0, len(found), rows):
            some = found[begin : begin + rows]
            taken = self.merge.arbitrate(some, schema.compute_hours(some), self.journal.last_row + 1)
            self.journal.append(build_entries("kr.orderbook", some, self.journal.last_row + 1, taken), {})

    def task(self, row_to: int | None = None, hour: int = NINE_NS) -> PublishTask:
        """Publish the hour up to that entry, else everything."""
        self.journal.roll([])
        return PublishTask(
            dataset="kr.orderbook",
            directory=self.place / "data",
            lineage=self.journal.lineage,
            hour=hour,
            row_to=self.journal.last_row if row_to is None else row_to,
            segments=tuple(segment.path for segment in self.journal.segments if hour in segment.newest_rows),
            row_group_rows=64,
            window_s=5.0,
        )


def files_in(place: Path) -> list[str]:
    """Names below the data directory."""
    return sorted(str(path.relative_to(place / "data")) for path in (place / "data").rglob("*") if path.is_file())


def test_an_hour_of_many_batches_and_segments_comes_out_whole_and_sorted(place: Path) -> None:
    """Every book of either line once; both arrivals; sorted by symbol, then arrival; small row groups; other hours stay."""
    kept = Kept(place)
    random = np.random.default_rng(1)
    for turn in range(6):
        numbers = random.permutation(np.arange(turn * 100, turn * 100 + 100))
        kept.put(make_books(numbers, FeedId.KIS, mono_ns=turn * SECOND_NS))
        kept.put(make_books(numbers[:60], FeedId.KIWOOM, mono_ns=turn * SECOND_NS + 900_000))
        kept.put(make_books([turn], FeedId.KIS, NINE_NS + HOUR, mono_ns=turn * SECOND_NS))
        kept.journal.roll([])

    (part,) = publish(kept.task())

    frame = pd.read_parquet(place / "data")
    assert [600, str(NINE / "part-0.parquet")] == [part.rows, files_in(place)[0]]
    assert sorted(range(600)) == sorted(frame["cum_volume"])
    assert (frame["recv_time_kis"].notna().sum(), frame["recv_time_kiwoom"].notna().sum()) == (600, 360)
    assert frame["symbol"].is_monotonic_increasing
    expected = make_books(frame["cum_volume"].to_numpy())
    for side in ("ask", "bid"):
        for n in range(10):
            assert (expected[f"{side}_price_e4"][:, n] // 10_000 == frame[f"{side}_price_{n + 1}"]).all()
            assert (expected[f"{side}_size"][:, n] == frame[f"{side}_size_{n + 1}"]).all()
    assert [symbol.decode() for symbol in expected["symbol"]] == frame["symbol"].tolist()
    assert pq.ParquetFile(part.path).num_row_groups == 10


def test_symbols_are_sorted_by_name_whenever_they_came(place: Path) -> None:
    """The last to come is the first in the alphabet."""
    kept = Kept(place)
    for number in (3, 2, 1, 0, 3, 1):
        kept.put(make_books([number]))

    publish(kept.task())

    frame = pd.read_parquet(place / "data")
    assert frame["symbol"].tolist() == ["000000", "000010", "000010", "000020", "000030", "000030"]


def test_a_whole_file_with_other_contents_is_found_out(place: Path) -> None:
    """A readable file of the right length is not enough: its values must be those that were written."""
    kept = Kept(place)
    kept.put(make_books(range(100)))
    (part,) = publish(kept.task())
    right = [verified_file._checksum(pq.ParquetFile(part.path).read_row_group(group)) for group in range(2)]
    verified_file._verify(part.path, 100, right)

    for rows, checksums in ((100, [right[0], right[1] + 1]), (99, right), (100, right[:1])):
        with pytest.raises(PartitionWriteError, match="read back"):
            verified_file._verify(part.path, rows, checksums)


def test_publishing_again_changes_nothing(place: Path) -> None:
    """The same task a second time makes no file and touches none."""
    kept = Kept(place)
    kept.put(make_books(range(100)))
    task = kept.task()
    publish(task)
    before = {name: (place / "data" / name).stat() for name in files_in(place)}

    assert publish(task) == []

    assert before == {name: (place / "data" / name).stat() for name in files_in(place)}


def test_rows_that_come_later_go_to_another_part(place: Path) -> None:
    """part-1 holds only what part-0 did not; together they are the hour."""
    kept = Kept(place)
    kept.put(make_books(range(100)))
    publish(kept.task())
    kept.put(make_books(range(100, 130)))

    publish(kept.task())

    assert [str(NINE / "part-0.parquet"), str(NINE / "part-1.parquet")] == files_in(place)
    assert list(range(130)) == sorted(pd.read_parquet(place / "data")["cum_volume"])
    assert pq.ParquetFile(place / "data" / NINE / "part-1.parquet").metadata.num_rows == 30


def test_only_settled_rows_are_published_but_with_twins_journalled_after_them(place: Path) -> None:
    """The range ends at a row; a twin that was journalled behind it still finds its row."""
    kept = Kept(place)
    kept.put(make_books(range(10), FeedId.KIS, mono_ns=0))
    kept.put(make_books(range(10, 20), FeedId.KIS, mono_ns=SECOND_NS))
    kept.put(make_books(range(20), FeedId.KIWOOM, mono_ns=2 * SECOND_NS))

    publish(kept.task(row_to=10))
    frame = pd.read_parquet(place / "data")

    assert (list(range(10)), 10) == (sorted(frame["cum_volume"]), frame["recv_time_kiwoom"].notna().sum())

    publish(kept.task())

    assert list(range(20)) == sorted(pd.read_parquet(place / "data")["cum_volume"])


def test_the_winner_is_who_received_first_even_if_journalled_second(place: Path) -> None:
    """A straggler: stamped earlier, published to its ring later. Broker, receive time and seq are its own; order follows."""
    kept = Kept(place)
    kis = make_books([4, 8], FeedId.KIS, mono_ns=1000, symbols=1)
    kiwoom = make_books([8], FeedId.KIWOOM, mono_ns=500, symbols=1)
    kiwoom["recv_ns"] = NINE_NS + 1
    kis["seq"], kiwoom["seq"] = (1, 2), 77
    kept.put(np.concatenate([kis, kiwoom]))

    publish(kept.task())
    frame = pd.read_parquet(place / "data")

    assert list(zip(frame["cum_volume"], frame["broker"], frame["seq"], strict=True)) == [
        (8, "kiwoom", 77),
        (4, "kis", 1),
    ]
    assert NINE_NS + 1 == frame["recv_time"][0].value == frame["recv_time_kiwoom"][0].value
    assert int(kis["recv_ns"][1]) == frame["recv_time_kis"][0].value


def test_an_hour_beyond_the_largest_part_becomes_several(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each part sorted, none overlapping, twins included."""
    monkeypatch.setattr(partition, "MAX_PART_ROWS", 70)
    kept = Kept(place)
    kept.put(make_books(range(200), FeedId.KIS, mono_ns=0))
    kept.put(make_books(range(200), FeedId.KIWOOM, mono_ns=SECOND_NS))

    made = publish(kept.task())
    frame = pd.read_parquet(place / "data")

    assert [part.rows for part in made] == [70, 70, 60]
    assert list(range(200)) == sorted(frame["cum_volume"])
    assert frame["recv_time_kiwoom"].notna().all()


def test_a_file_that_reads_back_otherwise_is_not_published(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that changes a byte behind our back: an error, no part, no leftover; the next try succeeds."""
    kept = Kept(place)
    kept.put(make_books(range(100)))
    task = kept.task()

    def damaging(fd: int) -> None:
        middle = os.fstat(fd).st_size // 2
        os.pwrite(fd, bytes(octet ^ 0xFF for octet in os.pread(fd, 64, middle)), middle)

    with monkeypatch.context() as context:
        context.setattr(durable_io, "sync", damaging)
        with pytest.raises((PartitionWriteError, OSError)):
            publish(task)
    assert files_in(place) == []

    publish(task)

    assert [str(NINE / "part-0.parquet")] == files_in(place)


def test_a_checksum_sees_every_column() -> None:
    """Changing any one value of any column changes it; so does a null in place of a zero."""
    found = make_books(range(20))
    found["extra"] = b"x"
    table = pa.table(schema.build_columns("kr.orderbook", found), schema.PARQUET["kr.orderbook"])
    before = verified_file._checksum(table)

    for number, name in enumerate(table.column_names):
        values = table.column(name).to_pylist()
        other = [None if values[0] is not None else _some(table.schema.field(name).type), *values[1:]]
        changed = table.set_column(number, table.schema.field(name), pa.array(other, table.schema.field(name).type))
        assert before != verified_file._checksum(changed), name


def _some(kind: object) -> object:
    return "something" if str(kind) == "string" else 0


def test_a_leftover_of_a_killed_publication_goes(place: Path) -> None:
    """`.part-0.parquet.tmp` is never read and does not stay."""
    kept = Kept(place)
    kept.put(make_books(range(100)))
    (place / "data" / NINE).mkdir(parents=True)
    (place / "data" / NINE / ".part-0.parquet.tmp").write_bytes(b"half")

    publish(kept.task())

    assert [str(NINE / "part-0.parquet")] == files_in(place)


def test_temporary_files_of_dead_processes_go_and_those_of_living_ones_stay(place: Path) -> None:
    """Whoever lives may still write into its own."""
    kept = Kept(place)
    kept.put(make_books(range(100)))
    (place / "data" / NINE).mkdir(parents=True)
    with subprocess.Popen(["/bin/true"]) as dead:
        dead.wait()
    for pid in (dead.pid, os.getpid(), os.getppid()):
        (place / "data" / NINE / f".part-7.parquet.{pid}.tmp").write_bytes(b"half")

    publish(kept.task())

    assert [str(NINE / f".part-7.parquet.{os.getppid()}.tmp"), str(NINE / "part-0.parquet")] == files_in(place)


def test_a_new_part_never_takes_the_place_of_another_processes_file(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever locks nothing may be there: its file stays, and the hour is published beside it at the next try."""
    kept = Kept(place)
    kept.put(make_books(range(100)))
    task, path, sync = kept.task(), place / "data" / NINE / "part-0.parquet", durable_io.sync
    strange = pa.table({"symbol": ["005930"]})

    def sync_beside_another(fd: int) -> None:
        sync(fd)
        pq.write_table(strange, path)

    with monkeypatch.context() as context:
        context.setattr(durable_io, "sync", sync_beside_another)
        with pytest.raises(PartitionWriteError, match=r"part-0\.parquet: another process made this file"):
            publish(task)
    assert [str(NINE / "part-0.parquet")] == files_in(place)

    publish(task)

    assert [str(NINE / "part-0.parquet"), str(NINE / "part-1.parquet")] == files_in(place)
    assert pq.ParquetFile(path).read().equals(strange)


def test_a_cancelled_publication_leaves_nothing(place: Path) -> None:
    """The process has to end: no file, no leftover."""
    kept = Kept(place)
    kept.put(make_books(range(100)))

    with pytest.raises(Cancelled):
        publish(kept.task(), lambda: True)

    assert files_in(place) == []


def test_an_unreadable_part_stops_the_hour_with_words(place: Path) -> None:
    """Nobody knows what it holds: guessing could double."""
    kept = Kept(place)
    kept.put(make_books(range(100)))
    (place / "data" / NINE).mkdir(parents=True)
    (place / "data" / NINE / "part-0.parquet").write_bytes(b"PAR1 not")

    with pytest.raises(PartitionWriteError, match="move it away"):
        publish(kept.task())


def test_the_hour_is_the_exchange_hour_in_korea_also_over_midnight(place: Path) -> None:
    """23:59 KST and 00:00 KST are two dates, whatever UTC says."""
    kept = Kept(place)
    kept.put(make_books([1], exch_ns=NINE_NS + 15 * HOUR - SECOND_NS))
    kept.put(make_books([2], exch_ns=NINE_NS + 15 * HOUR))

    publish(kept.task(hour=NINE_NS + 14 * HOUR))
    publish(kept.task(hour=NINE_NS + 15 * HOUR))

    assert files_in(place) == ["date=2026-11-20/hour=23/part-0.parquet", "date=2026-11-21/hour=00/part-0.parquet"]
    assert pd.read_parquet(place / "data").sort_values("cum_volume")["hour"].astype(int).tolist() == [23, 0]


def test_the_metadata_say_what_made_it(place: Path) -> None:
    """Schema version, writer version, rule, window, and the range that makes publishing repeatable."""
    kept = Kept(place)
    kept.put(make_books(range(10)))

    (part,) = publish(kept.task())
    metadata = pq.read_metadata(part.path).metadata

    assert metadata[b"arbitration_rule"] == b"first-wins/3" and metadata[b"twin_window_s"] == b"5.0"
    assert (metadata[b"row_from"], metadata[b"row_to"]) == (b"0", b"10")
    assert {b"schema_version", b"writer_version", b"lineage"} <= metadata.keys()
