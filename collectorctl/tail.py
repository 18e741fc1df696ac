"""Tail of a dataset: the newest rows, read from the journal while the writer writes it.

    data/journal/kr.tick/*.journal ──whole batches──> rows newer than the last one shown

Guarantees:
    * Complete rows are shown, each once, as soon as they are accepted, before their twin is known.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from collectorctl.terminal import format_event_value, format_level
from conf.home import Home
from writer.catalog import Catalog, expand

POLL_S = 0.5


def read_newest_rows(
    home: Home, dataset: str, max_rows: int, follow: bool, is_exact: bool = True
) -> Iterator[dict[str, Any]]:
    """The last `max_rows` rows of a dataset's journal, oldest first, as column -> value; with `follow` also later ones.

    Unless `is_exact`, times are in microseconds, for which pandas is not loaded.
    """
    last_row, ends = 0, dict[Path, int]()
    while True:
        batches: deque[pa.RecordBatch] = deque()
        for batch in Catalog(home).journal(dataset, ends):
            if batch.column("row")[-1].as_py() <= last_row:
                continue
            batches.append(batch)
            while not last_row and sum(b.num_rows for b in batches) - batches[0].num_rows > 4 * max_rows:
                batches.popleft()  # the rows wanted lie in the later batches, twins' arrivals among them
        rows = [
            row
            for found in expand(dataset, batches)
            for row in (found if is_exact else _to_microseconds(found)).to_pylist()
            if row["row"] > last_row and row["twin_of"] is None
        ]
        yield from rows if last_row else rows[-max_rows:]
        if batches:
            last_row = batches[-1].column("row")[-1].as_py()
        if not follow:
            return
        time.sleep(POLL_S)


def _to_microseconds(batch: pa.RecordBatch) -> pa.RecordBatch:
    columns = [
        column.cast(pa.timestamp("us", column.type.tz), safe=False) if pa.types.is_timestamp(column.type) else column
        for column in batch.columns
    ]
    return pa.record_batch(columns, batch.schema.names)


def format_row(stream: str, row: dict[str, Any]) -> str:
    """A row on one line, as a person reads it."""
    if stream == "event":
        return _format_event(row)
    received = f"{row['recv_time']:%H:%M:%S.%f}" if row["recv_time"] else f"{row['source']:<15}"
    head = f"{received} {row['exch_time']:%H:%M:%S} {row['broker']:<6} {row['symbol']} {row['venue']}"
    if stream == "tick":
        side = {1: "buy", -1: "sell"}.get(row["side"], "auction")
        return f"{head} {row['price']:>9} x {row['size']:<7} {side:<7} cum {row['cum_volume']}"
    bid, ask = (format_level(row[f"{side}_size_1"], row[f"{side}_price_1"]) for side in ("bid", "ask"))
    return f"{head} {bid:>16} | {ask:<16} cum {row['cum_volume']}"


def _format_event(row: dict[str, Any]) -> str:
    subject = " ".join(str(row[name]) for name in ("symbol", "venue", "stream") if row[name])
    value = format_event_value(row["kind"], row["value"])
    since = f"since {row['since']:%H:%M:%S.%f}" if row["since"] else ""
    text = " ".join(filter(None, (subject, value, row["message"], since)))
    return f"{row['time']:%H:%M:%S.%f} {row['line']:<6} {row['kind']:<13} {text}"
