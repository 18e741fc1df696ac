"""The newest rows, read from the journal while the writer writes it.

    data/journal/kr.tick/*.arrows ──whole batches──> rows newer than the last one shown

Promises: disturbs nobody; shows whole rows only, each once; a row is shown when it is accepted, before its twin is known.
Leaves to others: the journal's form (writer/journal.py), rows that are already published (pandas).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from conf.home import Home
from writer.journal.journal import read_rows

POLL_S = 0.5


def newest(home: Home, dataset: str, most: int, follow: bool) -> Iterator[dict[str, Any]]:
    """The last `most` rows of a dataset's journal, oldest first, as column -> value; with `follow` what comes after, too."""
    shown = 0
    while True:
        last: deque[pa.RecordBatch] = deque()
        for batch in read_rows(home.journal(dataset)):
            if batch.column("row")[-1].as_py() <= shown:
                continue
            last.append(batch)
            while not follow and sum(b.num_rows for b in last) - last[0].num_rows > 4 * most:
                last.popleft()  # the rows wanted lie in the later batches, twins' arrivals among them
        rows = [row for batch in last for row in batch.to_pylist() if row["row"] > shown and row["twin_of"] is None]
        yield from rows if shown else rows[-most:]
        if last:
            shown = last[-1].column("row")[-1].as_py()
        if not follow:
            return
        time.sleep(POLL_S)


def render(stream: str, row: dict[str, Any]) -> str:
    """A row on one line, as a person reads it."""
    if stream == "event":
        return _event(row)
    received = f"{row['recv_time']:%H:%M:%S.%f}" if row["recv_time"] else f"{row['source']:<15}"
    head = f"{received} {row['exch_time']:%H:%M:%S} {row['broker']:<6} {row['symbol']} {row['venue']}"
    if stream == "tick":
        side = {1: "buy", -1: "sell"}.get(row["side"], "auction")
        return f"{head} {row['price']:>9} x {row['size']:<7} {side:<7} cum {row['cum_volume']}"
    bid, ask = (f"{row[f'{s}_size_1']} @ {row[f'{s}_price_1']}" for s in ("bid", "ask"))
    return f"{head} {bid:>16} | {ask:<16} cum {row['cum_volume']}"


def _event(row: dict[str, Any]) -> str:
    what = " ".join(str(row[name]) for name in ("symbol", "venue", "stream") if row[name])
    number = "" if row["number"] is None else str(row["number"])
    since = f"since {row['since']:%H:%M:%S.%f}" if row["since"] else ""
    said = " ".join(filter(None, (what, number, row["words"], since)))
    return f"{row['time']:%H:%M:%S.%f} {row['line']:<6} {row['kind']:<13} {said}"
