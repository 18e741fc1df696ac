"""Reader of one home: stored books and ticks of an instrument, the certificates of a day, and the live stream.

    data/, journal ──Catalog──> arrow table ──> pandas DataFrame
    rings ───────────Tap──────> Live

Guarantees:
    * Nothing is opened for writing, and no process needs to run.
    * A price that the exchange did not give is null, with its size: the vendors send 0 for an empty level, for the midpoint where
      no midpoint book is traded, and for the expected trade outside auctions.
    * Ticks come in the order of the trades, which is that of the cumulative volume, recovered ones in their places.

Not handled here:
    * The other feed's arrival of a book that is in the journal and in no Parquet file yet.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from collectorctl.reader.live import Live
from conf.home import Home
from conf.instrument import Instrument, parse_instrument
from ringbuf.records import LEVELS, STREAMS
from writer.catalog import PARQUET, Catalog, find_partitions

if TYPE_CHECKING:
    import pandas as pd

Day = str | dt.date
_PRICED = [
    (f"{side}_price_{level}", f"{side}_size_{level}") for side in ("ask", "bid") for level in range(1, LEVELS + 1)
]
_PRICED += [("mid_price", "mid_size"), ("expected_price", "expected_size")]
_BEST = ["ask_price_1", "ask_size_1", "bid_price_1", "bid_size_1", "mid_price"]


class BookAt(NamedTuple):
    """The newest book at an instant, by column, and how old it was then by its time of receipt."""

    book: dict
    age: dt.timedelta


class HomeReader:
    """A home, read only. Instruments are named as in the settings: "005930", "005930_NX", "NAS.AAPL"."""

    def __init__(self, path: str | PathLike[str]) -> None:
        """FileNotFoundError: no home there; SettingsError: its settings cannot be read."""
        root = Path(path).expanduser()
        if not (root / "collector.toml").is_file():
            raise FileNotFoundError(
                f"{root}: no collector.toml there: name the directory that `collectorctl init` laid out"
            )
        self._home = Home(root)
        self._catalog = Catalog(self._home)

    def live(self, symbols: Iterable[str] | None = None, streams: Iterable[str] = tuple(STREAMS)) -> Live:
        """What is received from now on, see docs/live.md; `symbols`: None for all."""
        return Live(self._home, symbols, streams)

    def table(self, stream: str, symbol: str, day: Day) -> pa.Table:
        """Stored rows of an instrument's day in the exchange's zone, "orderbook" or "tick": all columns, for pandas or polars.

        Published rows, and those of the journal. A day without rows has none.
        """
        if stream not in STREAMS:
            raise ValueError(f"{stream!r}: no such stream: name one of {list(STREAMS)}")
        instrument = parse_instrument(symbol)
        dataset = f"{instrument.market.name}.{stream}"
        begin_ns, end_ns = _day_bounds(instrument, day)
        found = self._catalog.read(dataset, instrument, begin_ns, end_ns, PARQUET[dataset].names)
        times = pc.coalesce(found["exch_time"], found["recv_time"]).cast(pa.int64())
        found = found.filter(pc.and_(pc.greater_equal(times, begin_ns), pc.less(times, end_ns)))
        return _order_trades(found) if stream == "tick" else _without_zeros(found)

    def books(self, symbol: str, day: Day) -> pd.DataFrame:
        """The books of an instrument's day in order of receipt."""
        return self.table("orderbook", symbol, day).to_pandas()

    def ticks(self, symbol: str, day: Day, join_books: bool = False) -> pd.DataFrame:
        """The trades of an instrument's day in their order.

        `join_books`: with the best level and the midpoint (`book_...`) of the newest book received before the trade was; null for
        a recovered one, of which nobody knows when it would have been received.
        """
        ticks = self.table("tick", symbol, day).to_pandas()
        if not join_books:
            return ticks
        import pandas as pd

        books = self.books(symbol, day)[["recv_time", *_BEST]].add_prefix("book_").sort_values("book_recv_time")
        received = ticks[ticks["recv_time"].notna()].sort_values("recv_time", kind="stable")
        joined = pd.merge_asof(
            received.reset_index(), books, left_on="recv_time", right_on="book_recv_time", allow_exact_matches=False
        ).set_index("index")
        return ticks.join(joined[books.columns])

    def book_at(self, symbol: str, instant: str | dt.datetime) -> BookAt | None:
        """The newest book received up to an instant of its day; None if there was none. Without a zone: the exchange's."""
        at = dt.datetime.fromisoformat(instant) if isinstance(instant, str) else instant
        zone = parse_instrument(symbol).market.zone
        at = at.replace(tzinfo=zone) if at.tzinfo is None else at.astimezone(zone)
        books = self.table("orderbook", symbol, at.date())
        before = books.filter(pc.less_equal(books["recv_time"], pa.scalar(at, books["recv_time"].type)))
        if not len(before):
            return None
        book = before.slice(
            pc.max(pc.indices_nonzero(pc.equal(before["recv_time"], pc.max(before["recv_time"])))).as_py(), 1
        )
        found = book.to_pylist()[0]
        return BookAt(found, at - found["recv_time"])

    def certificates(self, day: Day, market: str = "kr") -> pd.DataFrame:
        """The certificates of a day, one row per instrument; empty before recovery has run."""
        paths = find_partitions(self._catalog.directory(f"{market}.tick").parent / "completeness", _parse_day(day))
        return (
            pa.concat_tables([pq.read_table(path, partitioning=None) for path in paths]).to_pandas()
            if paths
            else _empty()
        )


def _empty() -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame()


def _parse_day(day: Day) -> dt.date:
    return dt.date.fromisoformat(day) if isinstance(day, str) else day


def _day_bounds(instrument: Instrument, day: Day) -> tuple[int, int]:
    """The calendar day in the exchange's zone, [begin, end) in ns."""
    midnight = dt.datetime.combine(_parse_day(day), dt.time(), instrument.market.zone)
    return tuple(round(at.timestamp()) * 1_000_000_000 for at in (midnight, midnight + dt.timedelta(days=1)))  # type: ignore[return-value]


def _order_trades(ticks: pa.Table) -> pa.Table:
    """In the order of the trades; those without a cumulative volume come last, in order of receipt."""
    return ticks.take(pc.sort_indices(ticks, [("cum_volume", "ascending"), ("recv_time", "ascending")]))


def _without_zeros(books: pa.Table) -> pa.Table:
    """Null prices and sizes where a price is 0."""
    for price, size in _PRICED:
        is_absent = pc.equal(books[price], 0)
        for name in (price, size):
            values = pc.if_else(is_absent, pa.scalar(None, books[name].type), books[name])
            books = books.set_column(books.column_names.index(name), name, values)
    return books
