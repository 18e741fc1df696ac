"""Reader of everything that a home has stored of one Korean day.

    data/kr/{feed_health,tick,event,orderbook,completeness}/date=D ──Catalog──> StoredDay ──> series.py

Guarantees:
    * Nothing is changed, and a live writer is not disturbed.
    * Memory is a batch of rows and what is kept of each minute: of books only the columns of one instrument are read.
    * A file that cannot be read is named, and the rest is read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from collectorctl.recover.certificate import store
from collectorctl.recover.certificate.certify import Certificate
from collectorctl.symbols.store import load_names
from collectorctl.verdict.acknowledgement import load_acknowledgement
from conf.clock import DAY_NS, HOUR_NS, MINUTE_NS, kst_midnight_ns, to_kst
from conf.home import Home
from conf.instrument import Instrument
from writer.catalog import COMPACTED, Catalog, read_instrument
from writer.feeds.day_events import COLUMNS as EVENT_COLUMNS
from writer.publish.verified_file import PartitionWriteError

LOOK_BACK_DAYS = 7
"""How many days back events are read: a connection may be older than the day."""

BATCH_ROWS = 1 << 16
HEALTH_COLUMNS = (
    *("minute", "symbol", "venue", "books", "books_kis", "books_kiwoom", "twins", "first_kis", "first_kiwoom", "timed"),
    *("lag_p01_ms", "lag_p50_ms", "lag_p99_ms", "ticks", "gaps", "gap_shares"),
)
_QUOTE_COLUMNS = ("ask_price_1", "bid_price_1", "total_ask_size", "total_bid_size")
UNREADABLE = (OSError, pa.ArrowException, PartitionWriteError, KeyError)


@dataclass
class StoredDay:
    """What is stored of a day; instants are ns since 1970 UTC.

    `health`: HEALTH_COLUMNS. `ticks`: minute, symbol, venue, source, rows, shares. `quotes`: the last best prices and depths of
    the chosen instrument in each minute. `events`: from LOOK_BACK_DAYS before. `unpublished`, `uncounted`: hours of which rows
    are in the journal only, hours whose books are in no feed_health. `expected`: instruments that should have data. `names`: of
    symbols, by that day's table.
    """

    day: date
    begin_ns: int
    now_ns: int
    acknowledged_ns: int
    expected: list[Instrument]
    health: pa.Table
    ticks: pa.Table
    events: list[dict[str, Any]]
    certificates: dict[Instrument, Certificate]
    unpublished: set[int]
    uncounted: set[int]
    chosen: Instrument | None = None
    quotes: dict[str, np.ndarray] = field(default_factory=dict)
    unreadable: list[str] = field(default_factory=list)
    names: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_empty(self) -> bool:
        """Whether nothing of the day is stored, published or not."""
        return not (len(self.health) or len(self.ticks) or self.certificates or self.unpublished or self.uncounted)


def read_day(home: Home, day: date, chosen: Instrument | None = None) -> StoredDay:
    """Everything of a day; `chosen`: whose prices are read, None for the instrument with the largest number of books."""
    catalog, unreadable, begin_ns = Catalog(home), [], kst_midnight_ns(day)
    now_ns = home.load_clock().now_ns()
    certificates: dict[Instrument, Certificate] = {}
    try:
        certificates = {Instrument(*key): one for key, one in store.load(home.data, day).items()}
    except UNREADABLE as error:
        unreadable.append(f"certificates of {day}: {error}")
    is_open = not certificates or to_kst(now_ns).date() == day
    found = StoredDay(
        day=day,
        begin_ns=begin_ns,
        now_ns=now_ns,
        acknowledged_ns=load_acknowledgement(home).until_ns,
        expected=home.instruments_of(day) if is_open else [],
        health=_read_health(catalog, day, unreadable),
        ticks=_read_ticks(catalog, day, unreadable),
        events=_read_events(catalog, day, unreadable),
        certificates=certificates,
        unpublished=_find_unpublished(catalog, begin_ns, unreadable),
        uncounted=_find_hours(catalog, "kr.orderbook", day) - _find_hours(catalog, "kr.feed_health", day),
        unreadable=unreadable,
        names=load_names(home, day),
    )
    found.chosen = chosen or _find_busiest(found)
    if found.chosen:
        found.quotes = _read_quotes(catalog, day, found.chosen, unreadable)
    return found


def _batches(catalog: Catalog, dataset: str, day: date, columns: list[str], bad: list[str]) -> Iterator[pa.RecordBatch]:
    """Rows of a day, a batch at a time; unreadable files are added to `bad`."""
    return _read_batches(catalog.partitions(dataset, day), columns, bad)


def _read_batches(paths: Iterable[Path], columns: list[str], bad: list[str]) -> Iterator[pa.RecordBatch]:
    for path in paths:
        try:
            with pq.ParquetFile(path) as file:
                yield from file.iter_batches(BATCH_ROWS, columns=columns)
        except UNREADABLE as error:
            bad.append(_describe(path, error))


def _describe(path: Path, error: BaseException) -> str:
    return f"{'/'.join(path.parts[-4:])}: {type(error).__name__}: {error}".splitlines()[0]


def _read_health(catalog: Catalog, day: date, bad: list[str]) -> pa.Table:
    batches = list(_batches(catalog, "kr.feed_health", day, list(HEALTH_COLUMNS), bad))
    if not batches:
        types = {"symbol": pa.string(), "venue": pa.string()}
        return pa.table({name: pa.array([], types.get(name, pa.float64())) for name in HEALTH_COLUMNS})
    table = pa.Table.from_batches(batches)
    return table.set_column(0, "minute", table["minute"].cast(pa.int64()))


def _read_ticks(catalog: Catalog, day: date, bad: list[str]) -> pa.Table:
    """Rows and shares by minute, instrument and source."""
    keys, pieces = ["minute", "symbol", "venue", "source"], []
    for batch in _batches(catalog, "kr.tick", day, ["symbol", "venue", "exch_time", "size", "source"], bad):
        ns = pc.fill_null(batch.column("exch_time").cast(pa.int64()), 0).to_numpy(zero_copy_only=False)
        columns = [batch.column(name) for name in keys[1:]]
        rows = pa.table([pa.array(ns // MINUTE_NS * MINUTE_NS), *columns, batch.column("size")], [*keys, "size"])
        pieces.append(rows.group_by(keys).aggregate([("size", "sum"), ([], "count_all")]))
    names = [*keys, "shares", "rows"]
    if not pieces:
        types = [pa.int64(), pa.string(), pa.string(), pa.string(), pa.int64(), pa.int64()]
        return pa.table([pa.array([], kind) for kind in types], names)
    table = pa.concat_tables(pieces).group_by(keys).aggregate([("size_sum", "sum"), ("count_all", "sum")])
    return table.select([*keys, "size_sum_sum", "count_all_sum"]).rename_columns(names)


def _read_events(catalog: Catalog, day: date, bad: list[str]) -> list[dict[str, Any]]:
    """Stored and journalled events up to the end of the day, in order."""
    end_ns, columns = kst_midnight_ns(day) + DAY_NS, list(EVENT_COLUMNS)

    def read_journal() -> tuple[list[pa.RecordBatch], str]:
        try:
            return [batch.select(columns) for batch in catalog.unpublished("kr.event")], ""
        except UNREADABLE as error:
            return [], f"kr.event: {error}"

    begin_ns = end_ns - (LOOK_BACK_DAYS + 1) * DAY_NS
    paths, (unpublished, failure) = catalog.read_beside_writer(
        "kr.event", begin_ns, end_ns, lambda paths: (paths, read_journal())
    )
    rows = [row for batch in (*_read_batches(paths, columns, bad), *unpublished) for row in _event_rows(batch)]
    bad += [failure] if failure else []
    return sorted((row for row in rows if row["time"] < end_ns), key=lambda row: row["time"])


def _event_rows(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    table = pa.Table.from_batches([batch])
    for name in ("time", "since"):
        table = table.set_column(table.column_names.index(name), name, table[name].cast(pa.int64()))
    return table.to_pylist()


def _find_unpublished(catalog: Catalog, begin_ns: int, bad: list[str]) -> set[int]:
    found: set[int] = set()
    for dataset in ("kr.orderbook", "kr.tick"):
        try:
            found.update(catalog.journal_only(dataset, begin_ns, begin_ns + DAY_NS))
        except UNREADABLE as error:
            bad.append(f"{dataset}: {error}")
    return found


def _find_hours(catalog: Catalog, dataset: str, day: date) -> set[int]:
    names = {path.parent.name for path in catalog.partitions(dataset, day)} - {COMPACTED}
    return {kst_midnight_ns(day) + int(name.removeprefix("hour=")) * HOUR_NS for name in names}


def _find_busiest(stored: StoredDay) -> Instrument | None:
    if not len(stored.health):
        return None
    total = stored.health.group_by(["symbol", "venue"]).aggregate([("books", "sum")])
    best = max(total.to_pylist(), key=lambda row: (row["books_sum"], row["symbol"]))
    return Instrument(best["symbol"], best["venue"])


def _read_quotes(catalog: Catalog, day: date, chosen: Instrument, bad: list[str]) -> dict[str, np.ndarray]:
    """The last quote of each minute; a side without a price, or a minute without a book, is left out."""
    columns: dict[str, list[np.ndarray]] = {name: [] for name in ("minute", *_QUOTE_COLUMNS)}
    for path in catalog.partitions("kr.orderbook", day):
        with suppress(ValueError):
            try:
                for table in read_instrument(path, chosen, ["exch_time", *_QUOTE_COLUMNS]):
                    _add_quotes(table, columns)
            except UNREADABLE as error:
                bad.append(_describe(path, error))
    joined = {name: np.concatenate(parts) if parts else np.zeros(0, np.int64) for name, parts in columns.items()}
    order = np.argsort(joined["minute"], kind="stable")
    last = np.flatnonzero(np.diff(joined["minute"][order], append=-1))
    return {name: values[order][last] for name, values in joined.items()}


def _add_quotes(table: pa.Table, columns: dict[str, list[np.ndarray]]) -> None:
    """Add the last quote of each minute of some rows in order."""
    values = {name: pc.fill_null(table[name].cast(pa.int64()), 0).to_numpy() for name in ("exch_time", *_QUOTE_COLUMNS)}
    is_quote = (values["exch_time"] > 0) & (values["ask_price_1"] > 0) & (values["bid_price_1"] > 0)
    order = np.flatnonzero(is_quote)
    order = order[np.argsort(values["exch_time"][order], kind="stable")]
    minute = values["exch_time"][order] // MINUTE_NS * MINUTE_NS
    last = np.flatnonzero(np.diff(minute, append=-1))
    columns["minute"].append(minute[last])
    for name in _QUOTE_COLUMNS:
        columns[name].append(values[name][order][last])
