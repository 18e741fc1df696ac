"""A finished trading day: the real simulator with a day of trades behind it, and a home whose files lack some of them.

The files are what the writer would have published of live ticks: made from the truth with the project's own records and schema.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from click.testing import CliRunner, Result
from support.process_tree import temporary_home, wait_until

from brokers.simulator import ground_truth
from collectorctl.cli import main
from collectorctl.demo.environment import SimulatorProcess, set_addresses
from conf.clock import HOUR_NS, SECOND_NS
from conf.instrument import Instrument, parse_instrument
from ringbuf.records import PRICE_SCALE, TICK, FeedId, Flag, Session, Venue, empty_records
from writer import schema
from writer.publish.partition import hour_directory

DAY = "2026-11-20"
SYMBOLS = ["005930", "000660", "373220"]
KIWOOM_SYMBOLS = {"000660"}
"""Its ticks came live from Kiwoom: the day's value rounded, the change since yesterday exact."""
LossRule = Callable[[np.ndarray], np.ndarray]
"""Which of one symbol's TRADES never arrived; bool (n,)."""


@dataclass
class FinishedDay:
    """A home after the close."""

    root: Path
    simulator: SimulatorProcess
    trades: np.ndarray

    def true_trades(self, name: str) -> np.ndarray:
        """The truth of an instrument, in true order; TRADES."""
        symbol, venue = (word.encode() for word in parse_instrument(name))
        mine = self.trades[(self.trades["symbol"] == symbol) & (self.trades["venue"] == venue)]
        return mine[np.argsort(mine["cum_volume"], kind="stable")]

    def load_stored(self, name: str) -> pd.DataFrame:
        """What is on disk of an instrument, in the order of the files."""
        paths = sorted((self.root / "data/kr/tick" / f"date={DAY}").glob("hour=*/part-*.parquet"))
        tables = [pq.ParquetFile(path).read().to_pandas() for path in paths]
        rows = pd.concat([table for table in tables if len(table)], ignore_index=True)
        symbol, venue = parse_instrument(name)
        return rows[(rows.symbol == symbol) & (rows.venue == venue)].reset_index(drop=True)

    def read_published(self) -> dict[str, bytes]:
        """Every published file and its bytes."""
        data = self.root / "data"
        return {
            str(path.relative_to(data)): path.read_bytes() for path in sorted(data.glob("kr/**/*")) if path.is_file()
        }

    def clear_data(self) -> None:
        """Nothing was ever stored."""
        shutil.rmtree(self.root / "data", ignore_errors=True)
        (self.root / "data").mkdir()

    def run(self, *arguments: str) -> Result:
        """The command on this home, within this process: a second less."""
        return CliRunner().invoke(main, ["--home", str(self.root), *arguments])

    def recover(self, *arguments: str) -> dict[str, dict]:
        """Recover the day; the certificates by instrument."""
        result = self.run("recover", "--date", DAY, "--json", *arguments)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.stdout, result.output
        return {str(Instrument(one["symbol"], one["venue"])): one for one in msgspec.json.decode(result.stdout)}

    def publish_live(self, is_lost: LossRule, names: list[str] = SYMBOLS) -> None:
        """Write the hour files, less what was lost."""
        live = np.concatenate([trades[~is_lost(trades)] for trades in map(self.true_trades, names)])
        publish_ticks(self.root, to_tick_records(live))


def to_tick_records(trades: np.ndarray) -> np.ndarray:
    """TRADES as the TICK records that a collector makes of them."""
    ticks = empty_records(TICK, len(trades))
    ticks["exch_ns"] = trades["exch_s"] * SECOND_NS
    ticks["recv_ns"] = ticks["exch_ns"] + 250_000_000
    ticks["mono_ns"] = np.arange(1, len(trades) + 1)
    ticks["seq"] = np.arange(1, len(trades) + 1)
    ticks["symbol"], ticks["size"], ticks["side"] = trades["symbol"], trades["size"], trades["side"]
    ticks["venue"] = [Venue[venue.decode()] for venue in trades["venue"]]
    for name in ("price", "ask_price_1", "bid_price_1"):
        ticks[f"{name}_e4"] = trades[name] * PRICE_SCALE
    ticks["cum_volume"], ticks["cum_value"] = trades["cum_volume"], trades["cum_value"]
    ticks["trade_count"] = trades["sells"] + trades["buys"]
    kiwoom = np.isin(trades["symbol"], [symbol.encode() for symbol in KIWOOM_SYMBOLS])
    ticks["line"] = np.where(kiwoom, FeedId.KIWOOM, FeedId.KIS)
    ticks["value_change"] = np.where(kiwoom, trades["cum_value"] - 123_456_789, ticks["value_change"])
    ticks["cum_value"] = np.where(kiwoom, (trades["cum_value"] + 500_000) // 1_000_000 * 1_000_000, trades["cum_value"])
    ticks["flags"] = np.where(kiwoom, int(Flag.VALUE_ROUNDED), 0)
    ticks["session"] = Session.REGULAR
    return ticks


def publish_ticks(root: Path, ticks: np.ndarray) -> None:
    """Hour files of ticks, as the writer makes them: sorted by symbol, the journal's lineage in the metadata."""
    hours = schema.compute_hours(ticks)
    for hour in np.unique(hours).tolist():
        mine = ticks[hours == hour]
        mine = mine[np.argsort(mine["symbol"], kind="stable")]
        table = pa.table(schema.build_columns("kr.tick", mine), schema.PARQUET["kr.tick"])
        hour_dir = hour_directory(root / "data/kr/tick", hour)
        hour_dir.mkdir(parents=True, exist_ok=True)
        metadata = {"lineage": "a-journal", "row_from": "0", "row_to": str(len(mine)), "schema_version": "1"}
        number = len(list(hour_dir.glob("part-*.parquet")))
        pq.write_table(table.replace_schema_metadata(metadata), hour_dir / f"part-{number}.parquet", compression="zstd")


def publish_books(root: Path, trades: np.ndarray) -> None:
    """Hour files of books, before and after each of these TRADES: of all that a book says, when it was and the volume so far."""
    before = trades.copy()
    before["cum_volume"] -= trades["size"]
    trades = np.concatenate([before, trades])
    hours = trades["exch_s"] * SECOND_NS // HOUR_NS * HOUR_NS
    fields = schema.PARQUET["kr.orderbook"]
    for hour in np.unique(hours).tolist():
        mine = trades[hours == hour]
        known = {
            "symbol": pa.array(mine["symbol"].astype(str).tolist()),
            "venue": pa.array(mine["venue"].astype(str).tolist()),
            "exch_time": pa.array(mine["exch_s"] * SECOND_NS).cast(fields.field("exch_time").type),
            "cum_volume": pa.array(mine["cum_volume"].copy()),
        }
        hour_dir = hour_directory(root / "data/kr/orderbook", hour)
        hour_dir.mkdir(parents=True, exist_ok=True)
        columns = [known.get(field.name, pa.nulls(len(mine), field.type)) for field in fields]
        pq.write_table(pa.table(columns, schema=fields), hour_dir / "part-0.parquet")


@contextmanager
def a_finished_day(
    *options: str,
    trades: str = "1500",
    clock: str = f"{DAY}T20:30:00+09:00",
    names: list[str] = SYMBOLS,
    days_ago: int = 0,
) -> Iterator[FinishedDay]:
    """A home at half past eight in the evening, and the simulator that had `trades` of each instrument on that day; so many
    trading days ago, which `clock` must say as well."""
    universe = ", ".join(f'"{name}"' for name in names)
    settings = f'[universe]\nkr = [{universe}]\n[clock]\nstart = "{clock}"\n'
    settings += "[recover]\ncalls_per_s_first = 40\nmax_calls_per_s = 40\n"
    with temporary_home(settings) as root:
        truth_dir = root / "truth"
        history_options = (
            ["--earlier-days", str(days_ago), "--earlier-trades", trades] if days_ago else ["--history", trades]
        )
        with SimulatorProcess(
            root, truth_dir, *history_options, "--kiwoom-burst", "200", "--kiwoom-calls-per-s", "50", *options
        ) as simulator:
            set_addresses(root, simulator.addresses)
            begin_s = pd.Timestamp(DAY, tz="Asia/Seoul").timestamp()

            def on_disk() -> np.ndarray:
                run = ground_truth.load(truth_dir)
                found = np.concatenate([run.earlier_trades, run.trades])
                return found[(found["exch_s"] >= begin_s) & (found["exch_s"] < begin_s + 86_400)]

            wait_until("the truth is on disk", lambda: len(on_disk()) >= len(names) * 600)
            yield FinishedDay(root, simulator, on_disk())


def lose_between(begin: str, end: str) -> LossRule:
    """Everything between two times of day is lost."""
    begin_s, end_s = (pd.Timestamp(f"{DAY} {at}", tz="Asia/Seoul").timestamp() for at in (begin, end))
    return lambda trades: (trades["exch_s"] >= begin_s) & (trades["exch_s"] < end_s)


def lose_randomly(share: float, seed: int = 1) -> LossRule:
    """Each trade is lost with this probability."""
    return lambda trades: np.random.default_rng(seed + len(trades)).random(len(trades)) < share


def lose_long_and_short(trades: np.ndarray) -> np.ndarray:
    """An outage of an hour and a half over three hour files, and one trade in a hundred besides."""
    return lose_between("10:00", "11:30")(trades) | lose_randomly(0.01)(trades)


def collect_grades(certificates: dict[str, dict]) -> set[str]:
    """What the certificates say."""
    return {one["certificate"] for one in certificates.values()}


def assert_matches_truth(day: FinishedDay, names: list[str] = SYMBOLS) -> None:
    """What is stored is the truth, trade by trade and in order."""
    for instrument in names:
        stored, trades = day.load_stored(instrument), day.true_trades(instrument)
        assert trades["cum_volume"].tolist() == stored.cum_volume.tolist()
        for name in ("price", "size"):
            assert trades[name].tolist() == stored[name].tolist()
        assert (trades["exch_s"] * 10**9).tolist() == stored.exch_time.astype("int64").tolist()
