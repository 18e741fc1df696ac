"""Stored rows as a reader finds them: by day, by hour, by instrument, published or only in the journal."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.writer_data import NINE_NS, SECOND_NS, make_home, make_ticks

from conf.home import Home
from conf.instrument import Instrument
from writer import schema
from writer.catalog import Catalog, read_row_groups
from writer.journal.entries import JOURNAL, build_entries
from writer.journal.journal import Journal
from writer.journal.reader import list_segments, read_lineage
from writer.publish.partition import PublishTask, publish
from writer.publish.records import publish_records
from writer.publish.verified_file import PartitionWriteError

HOUR_NS = 3600 * SECOND_NS
DAY = date(2026, 11, 20)
SAMSUNG = Instrument("005930", "KRX")


@pytest.fixture
def home(place: Path) -> Home:
    """A home whose journal holds ticks 1..9 of nine o'clock, of which 1..6 are published, and 10..12 of ten o'clock."""
    home = make_home(place)
    journal = Journal.open(home.journal_directory("kr.tick"), JOURNAL["kr.tick"])
    journal.roll([])
    for numbers, exch_ns in ((range(1, 7), NINE_NS), (range(7, 10), NINE_NS), (range(10, 13), NINE_NS + HOUR_NS)):
        ticks = make_ticks(numbers, exch_ns=exch_ns)
        journal.append(build_entries("kr.tick", ticks, journal.last_row + 1, None), {})
    journal.sync()
    publish(
        PublishTask(
            dataset="kr.tick",
            directory=home.data / "kr" / "tick",
            lineage=journal.lineage,
            hour=NINE_NS,
            row_to=6,
            segments=(journal.current.path,),
            row_group_rows=64,
            window_s=5.0,
        )
    )
    journal.close()
    return home


def test_a_reader_finds_each_row_once_whether_published_or_not(home: Home) -> None:
    """Rows 1..6 come from the partition, 7..12 from the journal, though the journal still holds all twelve."""
    catalog = Catalog(home)

    found = catalog.read("kr.tick", SAMSUNG, NINE_NS, NINE_NS + HOUR_NS, ["cum_volume"])

    assert found.column("cum_volume").to_pylist() == list(range(1, 13))
    assert [row for batch in catalog.unpublished("kr.tick") for row in batch.column("row").to_pylist()] == [
        *range(7, 13)
    ]
    assert sum(batch.num_rows for batch in catalog.journal("kr.tick")) == 12


@pytest.mark.parametrize("way", ["read", "read_between"])
def test_a_row_that_is_published_while_it_is_looked_for_is_found_once(home: Home, way: str) -> None:
    """Published between the list of the files and the look at the journal, where it is then no longer unpublished."""
    (segment,) = list_segments(home.journal_directory("kr.tick"))
    lineage = read_lineage(segment) or ""

    class BesideWriter(Catalog):
        def unpublished(
            self, dataset: str, instruments: Collection[Instrument] | None = None
        ) -> Iterator[pa.RecordBatch]:
            directory = self.directory(dataset)
            publish(PublishTask(dataset, directory, lineage, NINE_NS, 9, (segment,), 64, 5.0))
            return super().unpublished(dataset, instruments)

    catalog, span = BesideWriter(home), (NINE_NS, NINE_NS + HOUR_NS, ["cum_volume"])
    ways = {"read": lambda: [catalog.read("kr.tick", SAMSUNG, *span)]}
    ways["read_between"] = lambda: list(catalog.read_between("kr.tick", *span))
    found = pa.concat_tables(ways[way]())

    assert sorted(found["cum_volume"].to_pylist()) == list(range(1, 13))


def test_hours_that_only_the_journal_has_are_named(home: Home) -> None:
    """An hour that is published in part counts, one outside the bounds does not."""
    catalog = Catalog(home)

    assert catalog.journal_only("kr.tick", NINE_NS, NINE_NS + 2 * HOUR_NS) == [NINE_NS, NINE_NS + HOUR_NS]
    assert catalog.journal_only("kr.tick", NINE_NS, NINE_NS + HOUR_NS) == [NINE_NS]
    assert catalog.journal_only("kr.orderbook", NINE_NS, NINE_NS + 2 * HOUR_NS) == []


def test_a_damaged_partition_of_another_hour_does_not_matter(home: Home) -> None:
    """Whether ten o'clock is published is not asked of nine o'clock's file."""
    (part,) = (home.data / "kr" / "tick").rglob("part-*.parquet")
    part.write_bytes(b"PAR1 not")

    assert Catalog(home).journal_only("kr.tick", NINE_NS + HOUR_NS, NINE_NS + 2 * HOUR_NS) == [NINE_NS + HOUR_NS]
    with pytest.raises(PartitionWriteError, match="move it away"):
        Catalog(home).journal_only("kr.tick", NINE_NS, NINE_NS + HOUR_NS)


def test_partitions_are_found_by_day_and_by_hour(home: Home) -> None:
    """A span that touches an hour includes it; its end does not."""
    catalog = Catalog(home)
    (part,) = (home.data / "kr" / "tick").rglob("part-*.parquet")

    assert catalog.partitions("kr.tick", DAY) == [part]
    assert catalog.partitions("kr.tick", date(2026, 11, 21)) == []
    assert catalog.partitions_between("kr.tick", NINE_NS + HOUR_NS - 1, NINE_NS + HOUR_NS) == [part]
    assert catalog.partitions_between("kr.tick", NINE_NS - HOUR_NS, NINE_NS) == []


def test_row_groups_that_cannot_hold_the_symbol_are_not_read(place: Path) -> None:
    """Sorted by symbol, two rows a group: 000030 lies in the second, whose first row is number 2."""
    path = place / "part-0.parquet"
    pq.write_table(pa.table({"symbol": ["000010", "000020", "000030", "000030", "000040"]}), path, row_group_size=2)

    found = [(first_row, table.column("symbol").to_pylist()) for first_row, table in read_row_groups(path, "000030")]

    assert found == [(2, ["000030", "000030"])]


def test_a_byte_that_changed_in_a_published_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    """Also where the page still decodes: each has a checksum."""
    home = make_home(tmp_path)
    ticks = make_ticks(range(100))
    publish_records(home.data / "kr/tick", "kr.tick", ticks, "a", home.settings.writer, SECOND_NS)
    (path,) = Catalog(home).partitions("kr.tick", date(2026, 11, 20))
    whole = path.read_bytes()
    column = pq.ParquetFile(path).metadata.row_group(0).column(schema.PARQUET["kr.tick"].get_field_index("price"))
    end = column.data_page_offset + column.total_compressed_size

    for place in range(end - 30, end):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(PartitionWriteError, match=f"{path}: cannot be read"):
            list(read_row_groups(path, "005930"))
