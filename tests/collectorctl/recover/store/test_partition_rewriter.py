"""An hour's file written anew, symbol by symbol, against the same done with the whole hour in memory."""

from __future__ import annotations

import os
from datetime import date
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.writer_data import make_home

from brokers.history import TRADE_ROW
from collectorctl.recover.store.partition_rewriter import SCHEMA, ExistingPartition, rewrite
from collectorctl.recover.store.publish import publish, to_published_rows
from collectorctl.recover.store.staging import StagingArea
from conf.instrument import Instrument
from ringbuf.records import Session
from writer import durable_io
from writer.publish.verified_file import PartitionWriteError

SYMBOLS = ["000660", "005930", "0074K0", "373220"]
ROW = st.tuples(st.sampled_from(SYMBOLS), st.sampled_from(["KRX", "NXT"]), st.one_of(st.none(), st.integers(1, 30)))


def table(rows: list[tuple[str, str, int | None]], source: str, first: int = 0) -> pa.Table:
    """Rows of (symbol, venue, cumulative volume), numbered by their size."""
    columns: dict[str, list] = {name: [None] * len(rows) for name in SCHEMA.names}
    for name, at in (("symbol", 0), ("venue", 1), ("cum_volume", 2)):
        columns[name] = [row[at] for row in rows]
    columns["size"] = list(range(first, first + len(rows)))
    columns["source"] = [source] * len(rows)
    return pa.table(columns, schema=SCHEMA)


def added(rows: list[tuple[str, str, int | None]]) -> list:
    """What is put in, by symbol and venue."""
    found = []
    for symbol, venue in sorted({row[:2] for row in rows}):
        mine = [row for row in rows if row[:2] == (symbol, venue)]
        found.append((symbol, partial(table, mine, "recovered", 1000 + 100 * len(found))))
    return found


def expected(old: pa.Table, gone: list[int], new: list) -> list[tuple]:
    """Symbol, venue, number of each row, in the order they must have."""
    rows = old.take(pa.array(np.setdiff1d(np.arange(len(old)), gone))).to_pylist()
    for _, make in new:
        rows += make().to_pylist()
    groups: dict[tuple[str, str], list] = {}
    before: tuple[tuple[str, str] | None, int] = (None, -1)
    for row in rows:
        name, at = (row["symbol"], row["venue"]), row["cum_volume"]
        if at is None:  # it stays behind the row it follows
            at = before[1] if before[0] == name else -1
        before = name, at
        groups.setdefault(name, []).append((at, len(groups.get(name, [])), row["size"]))
    return [(*name, size) for name in sorted(groups) for _, _, size in sorted(groups[name])]


@given(
    st.lists(ROW, max_size=40),
    st.lists(ROW, max_size=20),
    st.sets(st.integers(0, 39)),
    st.integers(1, 9),
    st.booleans(),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_it_is_the_same_as_with_the_whole_hour_in_memory(
    tmp_path: Path, rows: list, new: list, gone: set[int], rows_each: int, in_order: bool
) -> None:
    """Any rows, in any row groups, sorted by symbol or not: each that stays is there once, in its place; the count is right."""
    path = tmp_path / "part-0.parquet"
    path.unlink(missing_ok=True)
    old = table(sorted(rows, key=lambda row: row[0]) if in_order else rows, "live").replace_schema_metadata({"a": "b"})
    pq.write_table(old, path, row_group_size=rows_each)
    new = [row for row in new if row[2] is not None]
    goes = sorted(at for at in gone if at < len(old))

    file = ExistingPartition(path)
    rewrite(path, file, np.array(goes, np.int64), partial(added, new), rows_each)
    file.close()

    found = pq.ParquetFile(path)
    stored = found.read()
    assert expected(old, goes, added(new)) == list(
        zip(*(stored.column(name).to_pylist() for name in ("symbol", "venue", "size")), strict=True)
    )
    assert {b"a": b"b", b"recovered_rows": str(len(new)).encode()} == stored.schema.metadata
    groups = [found.metadata.row_group(n).num_rows for n in range(found.num_row_groups)]
    assert all(number == rows_each for number in groups[:-1])
    assert groups[-1] <= rows_each
    assert len(pd.read_parquet(path)) == len(stored)


def test_what_reads_back_otherwise_is_not_put_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that changes a row: the old file stays, and nothing is left behind."""
    path = tmp_path / "part-0.parquet"
    pq.write_table(table([("005930", "KRX", 5)], "live"), path)
    before, sync = path.read_bytes(), durable_io.sync
    other = table([("005930", "KRX", 6)], "live")

    def spoil(fd: int) -> None:
        sync(fd)
        pq.write_table(other, path.with_name(f".{path.name}.{os.getpid()}.tmp"))

    monkeypatch.setattr(durable_io, "sync", spoil)
    file = ExistingPartition(path)
    with pytest.raises(PartitionWriteError, match="contents differ"):
        rewrite(path, file, np.zeros(0, np.int64), list, 100)

    assert [path] == list(tmp_path.iterdir())
    assert before == path.read_bytes()


def test_a_file_of_another_version_is_refused(tmp_path: Path) -> None:
    """Its columns are not those of now."""
    path = tmp_path / "part-0.parquet"
    pq.write_table(pa.table({"symbol": ["005930"]}), path)

    with pytest.raises(PartitionWriteError, match="another version"):
        ExistingPartition(path)


def test_what_goes_is_found_in_whatever_row_group_it_lies(tmp_path: Path) -> None:
    """Copies over two files, each of several row groups: the first of each stays, no other row goes, one file is untouched."""
    rows = [("005930", "KRX", at) for at in range(1, 21)]
    home = tmp_path / "date=2026-11-20" / "hour=09"
    home.mkdir(parents=True)
    for number, mine in enumerate((rows[:12], [*rows[12:], rows[15], rows[7]], [("000660", "KRX", 3)])):
        told = table(mine, "live").set_column(SCHEMA.get_field_index("size"), "size", pa.array([1] * len(mine)))
        pq.write_table(told, home / f"part-{number}.parquet", row_group_size=4)
    gone = {("005930", "KRX", at, 1, "live"): 1 for at in (8, 16)}

    changed = publish(tmp_path, date(2026, 11, 20), StagingArea(lambda _: tmp_path), gone, "kiwoom", 4, lambda *_: None)

    stored = [pq.ParquetFile(path).read().column("cum_volume").to_pylist() for path in sorted(home.iterdir())]
    assert [list(range(1, 13)), list(range(13, 21)), [3]] == stored
    assert [home / "part-1.parquet"] == changed


def test_a_recovered_trade_has_the_session_of_its_time(tmp_path: Path) -> None:
    """By the calendar, in the words of received ones: a filter by session loses no share. Outside every session: unknown."""
    calendar = make_home(tmp_path).load_calendar()
    trades = np.zeros(4, TRADE_ROW)
    nine_ns = 1_795_132_800 * 10**9
    trades["exch_ns"] = nine_ns + np.array([0, 6 * 3600, 6 * 3600 + 1500, -6 * 3600]) * 10**9

    rows = to_published_rows(Instrument("005930", "KRX"), trades, "kiwoom", calendar.label)

    assert rows["session"].to_pylist() == ["regular", "regular", "closing_auction", "unknown"]
    assert {session.name.lower() for session in Session} >= set(rows["session"].to_pylist())
