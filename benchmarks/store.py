"""Bytes, write and read of the Parquet files, beside what others write of the same rows: `python -m benchmarks.store`.

    simulated market ─publish─┬─> one table a dataset ──each way, in turns──> file ──one symbol of it──> pandas, polars, DuckDB
    hour files of a home ─────┘

"this": row groups and encodings as the writer's (writer/publish/verified_file.py), reading back and fsync included. "pyarrow": its
defaults with the same row groups and zstd. "pandas": `to_parquet` with zstd. polars and DuckDB are left out where they are not
installed. Without --home rows are those of a market that is simulated at its own speed, since a faster calendar has other
times: books of both feeds with the lags of the demo, ticks sharded. CPU is user and system of this process, threads included.
"""

from __future__ import annotations

import argparse
import importlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq

from benchmarks.pairing import FEEDS, LINES, deliver, play_market, to_book_records
from brokers.simulator.exchange.models import MarketUpdate
from conf.clock import SECOND_NS
from conf.loader import load_settings
from ringbuf.records import PRICE_SCALE, TICK, Flag, Session, Venue, empty_records
from writer.publish.records import publish_records
from writer.publish.verified_file import write_verified

ROW_GROUP_ROWS = 65536
DATASETS = ("orderbook", "tick")
Write = Callable[[pa.Table, Path], object]
Read = Callable[[Path, str], object]


def write_this(table: pa.Table, path: Path) -> None:
    """As the writer does, reading back included."""
    groups = (table.slice(at, ROW_GROUP_ROWS) for at in range(0, table.num_rows, ROW_GROUP_ROWS))
    write_verified(path, table.schema, groups)


def write_pyarrow(table: pa.Table, path: Path) -> None:
    """pyarrow's defaults, compressed by the same method."""
    pq.write_table(table, path, compression="zstd", row_group_size=ROW_GROUP_ROWS)


def write_pandas(table: pa.Table, path: Path) -> None:
    """What `DataFrame.to_parquet` makes of it; the conversion is part of it."""
    table.to_pandas().to_parquet(path, compression="zstd", row_group_size=ROW_GROUP_ROWS)


WRITES: dict[str, Write] = {"this": write_this, "pyarrow": write_pyarrow, "pandas": write_pandas}


def find_reads() -> dict[str, Read]:
    """The ways to read one symbol that are installed."""
    reads: dict[str, Read] = {"pandas": lambda path, symbol: pd.read_parquet(path, filters=[("symbol", "=", symbol)])}
    for name in ("polars", "duckdb"):
        try:
            module = importlib.import_module(name)
        except ImportError:
            continue
        if name == "polars":
            reads[name] = lambda path, symbol, pl=module: (
                pl.scan_parquet(path).filter(pl.col("symbol") == symbol).collect()
            )
        else:
            reads[name] = lambda path, symbol, duck=module: duck.sql(
                f"select * from '{path}' where symbol = '{symbol}'"
            ).arrow()
    return reads


def measure_ms(call: Callable[[], object]) -> float:
    """CPU of one call."""
    begin_s = time.process_time()
    call()
    return (time.process_time() - begin_s) * 1e3


def compare(table: pa.Table, place: Path, times: int) -> None:
    """Print a line for each way to write."""
    reads, symbol = find_reads(), table["symbol"][0].as_py()
    wanted = int(pa.compute.sum(pa.compute.equal(table["symbol"], symbol)).as_py())
    costs: dict[str, dict[str, list[float]]] = {way: {"write": [], **{name: [] for name in reads}} for way in WRITES}
    paths = {way: place / f"{way}.parquet" for way in WRITES}
    for _ in range(times):
        for way, write in WRITES.items():
            paths[way].unlink(missing_ok=True)
            costs[way]["write"].append(measure_ms(lambda write=write, way=way: write(table, paths[way])))
            for name, read in reads.items():
                found: list[object] = []
                costs[way][name].append(
                    measure_ms(lambda read=read, way=way, found=found: found.append(read(paths[way], symbol)))
                )
                rows = len(found[0].read_all() if hasattr(found[0], "read_all") else found[0])  # type: ignore[arg-type,attr-defined]
                assert rows == wanted, (
                    f"{name} read {rows} rows of {symbol} from the file of {way}, {wanted} were written"
                )
    size = {way: path.stat().st_size for way, path in paths.items()}
    print(
        f"{'':<10}{'bytes a row':>12}{'of pyarrow':>12}{'write us a row':>16}"
        + "".join(f"{name + ' ms':>14}" for name in reads)
    )
    for way, cost in costs.items():
        write_us = statistics.median(cost["write"]) * 1e3 / table.num_rows
        print(
            f"{way:<10}{size[way] / table.num_rows:>12.1f}{size[way] / size['pyarrow']:>12.2f}{write_us:>16.2f}"
            + "".join(f"{statistics.median(cost[name]):>14.1f}" for name in reads)
        )


def to_tick_records(updates: Sequence[MarketUpdate]) -> np.ndarray:
    """The trades (TICK) of these updates, in order of symbols and instants; `mono_ns` when they were made, `line` as sharded."""
    trades = [trade for update in updates for trade in update.trades]
    found = empty_records(TICK, len(trades))
    columns = (
        "size",
        "side",
        "price_e4",
        "ask_price_1_e4",
        "bid_price_1_e4",
        "cum_volume",
        "cum_value",
        "trade_count",
        "mono_ns",
    )
    rows = [
        (
            *(one.size, one.side, one.price * PRICE_SCALE),
            *(one.book.ask_price[0] * PRICE_SCALE, one.book.bid_price[0] * PRICE_SCALE),
            *(one.day.cum_volume, one.day.cum_value, one.day.buys + one.day.sells, one.mono_ns),
        )
        for one in trades
    ]
    for name, column in zip(columns, zip(*rows, strict=True), strict=True):
        found[name] = column
    found["symbol"], found["venue"] = [one.instrument.symbol.encode() for one in trades], Venue.KRX
    found["exch_ns"] = np.array([one.exch_s for one in trades]) * SECOND_NS
    found["seq"], found["session"] = np.arange(len(trades)), Session.REGULAR
    is_kiwoom = found["symbol"].astype("i8") // 10 % 2 == 1
    previous = np.array([one.day.previous_value for one in trades])
    found["value_change"] = np.where(is_kiwoom, found["cum_value"] - previous, found["value_change"])
    found["cum_value"] = np.where(is_kiwoom, np.rint(found["cum_value"] / 1e6) * 1_000_000, found["cum_value"])
    found["flags"] = np.where(is_kiwoom, int(Flag.VALUE_ROUNDED), 0)
    found["line"] = np.where(is_kiwoom, FEEDS[1], FEEDS[0])
    return found


def simulate_home(root: Path, seconds: float, symbols: int, rate: float) -> None:
    """Hour files of a simulated market below `root`, as the writer publishes them."""
    updates, random = play_market(seconds, symbols, rate, 1), np.random.default_rng(1)
    lines, settings = LINES["as in the demo"], load_settings(root).writer
    books, ticks = to_book_records(updates), to_tick_records(updates)
    delivered = {
        "orderbook": [deliver(books, feed, line, random) for feed, line in zip(FEEDS, lines, strict=True)],
        "tick": [
            deliver(ticks[ticks["line"] == feed], feed, line._replace(loss=0.0, books_per_s=0.0), random)
            for feed, line in zip(FEEDS, lines, strict=True)
        ],
    }
    for stream, parts in delivered.items():
        records = np.concatenate(parts)
        records = records[np.argsort(records["mono_ns"], kind="stable")]
        directory = root / "data" / "kr" / stream
        directory.mkdir(parents=True)
        publish_records(directory, f"kr.{stream}", records, "simulated", settings, 5 * SECOND_NS)


def main() -> None:
    """Print a table a dataset."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, help="a home with collected days")
    parser.add_argument("--seconds", type=float, default=600, help="length of the simulated market")
    parser.add_argument("--symbols", type=int, default=20)
    parser.add_argument("--rate", type=float, default=10.0, help="events a second of a symbol")
    parser.add_argument("--times", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="cc-") as directory:
        home = options.home or Path(directory) / "home"
        if options.home is None:
            home.mkdir()
            simulate_home(home, options.seconds, options.symbols, options.rate)
        for dataset in DATASETS:
            files = pads.dataset(sorted((home / "data" / "kr" / dataset).rglob("*.parquet")))
            if not files.files:
                sys.exit(f"{home}: no {dataset} is stored: name a home with collected days")
            table = files.to_table()
            print(
                f"\n{dataset}: {table.num_rows:,} rows of {len(files.files)} hour files, median of {options.times}, one symbol read"
            )
            compare(table, Path(directory), options.times)


if __name__ == "__main__":
    main()
