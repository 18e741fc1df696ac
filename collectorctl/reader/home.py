"""Reader of one home: stored books and ticks of an instrument, the certificates of a day, and the live stream.

    data/, journal ──Catalog──> arrow table ──> pandas, polars or as it is
    rings ───────────Tap──────> Live

Guarantees:
    * Nothing is opened for writing, and no process needs to run. Rows that only the journal has are as they will be published.
    * A price that the exchange did not give is null, with its size, whatever version wrote the file.
    * Ticks come in the order of the trades, which is that of the cumulative volume, recovered ones in their places, and each
      with the session of its time.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from collectorctl.explain.rows import read_events
from collectorctl.explain.visibility import find_outages
from collectorctl.reader.bars import BarClock, Span, compute_bars, intersect
from collectorctl.reader.feed_view import rebuild_feed
from collectorctl.reader.live import Live
from collectorctl.reader.replay import Replay
from collectorctl.reader.since import Since
from collectorctl.recover.certificate.store import SCHEMA, certificates_path, load
from collectorctl.recover.store import table_file
from conf.calendar import TradingCalendar
from conf.clock import DAY_NS, SECOND_NS
from conf.home import Home
from conf.instrument import Instrument, parse_instrument
from conf.market import MARKETS
from ringbuf.records import STREAMS
from writer.catalog import PARQUET, Catalog

if TYPE_CHECKING:
    import pandas as pd

Day = str | dt.date
Form = Literal["pandas", "arrow", "polars"]
EVENT_LOOKBACK_NS = 2 * DAY_NS
"""How far before a day events are read to find the acknowledgement of a subscription."""
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

    def live(
        self,
        symbols: Iterable[str] | None = None,
        streams: Iterable[str] = tuple(STREAMS),
        since: Since | None = None,
    ) -> Live:
        """What is received from now on, see docs/live.md; `symbols`: None for all.

        `since`: "open" for today's open, an instant with a zone, or ns since 1970: what was received from then on comes first, out
        of files and journal, and is followed by the rings without a seam.
        """
        return Live(self._home, symbols, streams, since)

    def replay(
        self,
        day: Day,
        symbols: Iterable[str] | None = None,
        streams: Iterable[str] = tuple(STREAMS),
        begin: dt.time | None = None,
        end: dt.time | None = None,
        speed: float | Literal["max"] = "max",
        market: str | None = None,
        feed: str | None = None,
    ) -> Replay:
        """The messages of `live` out of a stored day of one market, see docs/live.md; `speed`: times the pace of receipt.

        `market`: None for that of the symbols, "kr" if none are named; `feed`: as this feed delivered them ("kis", "kiwoom"),
        instead of the first of both.
        """
        return Replay(self._home, _parse_day(day), symbols, streams, begin, end, speed, market, feed)

    def table(self, stream: str, symbol: str, day: Day) -> pa.Table:
        """Stored rows of an instrument's day in the exchange's zone, "orderbook" or "tick": all columns, for pandas or polars.

        Published rows, and those of the journal. A day without rows has none.
        """
        if stream not in STREAMS:
            raise ValueError(f"{stream!r}: no such stream: name one of {list(STREAMS)}")
        instrument = parse_instrument(symbol)
        dataset = f"{instrument.market.name}.{stream}"
        begin_ns, end_ns = instrument.market.day_bounds_ns(_parse_day(day))
        found = self._catalog.read(dataset, instrument, begin_ns, end_ns, PARQUET[dataset].names)
        times = pc.coalesce(found["exch_time"], found["recv_time"]).cast(pa.int64())
        found = found.filter(pc.and_(pc.greater_equal(times, begin_ns), pc.less(times, end_ns)))
        if stream == "tick":
            return _order_trades(self._label_sessions(found, instrument))
        return found.sort_by([("recv_time", "ascending")])

    @overload
    def books(self, symbol: str, day: Day) -> pd.DataFrame: ...
    @overload
    def books(self, symbol: str, day: Day, form: Literal["pandas"]) -> pd.DataFrame: ...
    @overload
    def books(self, symbol: str, day: Day, form: Literal["arrow"]) -> pa.Table: ...
    @overload
    def books(self, symbol: str, day: Day, form: Literal["polars"]) -> Any: ...
    def books(self, symbol: str, day: Day, form: Form = "pandas") -> Any:
        """The books of an instrument's day in order of receipt."""
        return to_form(self.table("orderbook", symbol, day), form)

    @overload
    def feed_books(self, feed: str, symbol: str, day: Day) -> pd.DataFrame: ...
    @overload
    def feed_books(self, feed: str, symbol: str, day: Day, form: Form) -> Any: ...
    def feed_books(self, feed: str, symbol: str, day: Day, form: Form = "pandas") -> Any:
        """The books as one feed delivered them, rebuilt from the merged rows: see docs/reading.md for what cannot be."""
        feeds = parse_instrument(symbol).market.feeds
        if feed not in feeds:
            raise ValueError(f"{feed!r}: {symbol} comes by {' and '.join(feeds)}")
        books = self.table("orderbook", symbol, day)
        return to_form(rebuild_feed(books, feed, self._home.settings.writer.identity_cum_volume), form)

    @overload
    def ticks(self, symbol: str, day: Day, join_books: bool = False) -> pd.DataFrame: ...
    @overload
    def ticks(self, symbol: str, day: Day, join_books: bool = False, *, form: Literal["pandas"]) -> pd.DataFrame: ...
    @overload
    def ticks(self, symbol: str, day: Day, join_books: bool = False, *, form: Literal["arrow"]) -> pa.Table: ...
    @overload
    def ticks(self, symbol: str, day: Day, join_books: bool = False, *, form: Literal["polars"]) -> Any: ...
    def ticks(self, symbol: str, day: Day, join_books: bool = False, *, form: Form = "pandas") -> Any:
        """The trades of an instrument's day in their order.

        `join_books`: with the best level and the midpoint (`book_...`) of the newest book received before the trade was; null for
        a recovered one, of which nobody knows when it would have been received.
        """
        ticks = self.table("tick", symbol, day)
        return to_form(_join_books(ticks, self.table("orderbook", symbol, day)) if join_books else ticks, form)

    @overload
    def bars(
        self, symbol: str, day: Day, interval: str | None = None, *, volume: int = 0, value: float = 0
    ) -> pd.DataFrame: ...
    @overload
    def bars(
        self, symbol: str, day: Day, interval: str | None = None, *, volume: int = 0, value: float = 0, form: Form
    ) -> Any: ...
    def bars(
        self,
        symbol: str,
        day: Day,
        interval: str | None = None,
        *,
        volume: int = 0,
        value: float = 0,
        form: Form = "pandas",
    ) -> Any:
        """Bars of an instrument's day, with their holes marked: see docs/reading.md.

        Of an `interval` ("1min"), of so many shares, or of so much value: one of the three.
        """
        instrument = parse_instrument(symbol)
        begin_ns, end_ns = instrument.market.day_bounds_ns(_parse_day(day))
        clock = BarClock(begin_ns, _parse_interval(interval), volume, value)
        if sum(bool(one) for one in clock[1:]) != 1 or min(clock[1:]) < 0:
            raise ValueError('name one of an interval ("1min"), volume=SHARES or value=AMOUNT')
        ticks = self.table("tick", symbol, day)
        known = load(self._home.data, _parse_day(day), instrument.market).get((instrument.symbol, instrument.venue))
        total = known.official_volume if known is not None else None
        dark = self._find_dark(instrument, begin_ns, end_ns) if total is None else []
        return to_form(compute_bars(ticks, clock, total, dark), form)

    def _find_dark(self, instrument: Instrument, begin_ns: int, end_ns: int) -> list[Span]:
        """When in a day's sessions no feed received the trades of an instrument, by the events of it and the days before."""
        calendar = TradingCalendar(self._home.settings)
        days = {calendar.trading_day(instrument.venue, at_ns) for at_ns in (begin_ns, end_ns - 1)}
        phases = [span for day in sorted(days) for span in calendar.phase_spans(instrument.venue, day)]
        dark = intersect([(begin_ns, self._limit_to_now(end_ns))], [(span.begin_ns, span.end_ns) for span in phases])
        market = instrument.market
        events = read_events(self._home, market.name, begin_ns - EVENT_LOOKBACK_NS, end_ns)
        for feed in market.feeds:
            spans = find_outages(events, feed, instrument.symbol, "tick", instrument.venue)
            bounds = [(_to_ns(span.begin, 0), _to_ns(span.end, end_ns)) for span in spans]
            dark = intersect(dark, bounds)
        return dark

    def _limit_to_now(self, end_ns: int) -> int:
        """`end_ns`, or the present if that is earlier; a simulated clock is not started for it."""
        is_known = not self._home.settings.clock.start or (self._home.run / "clock.json").exists()
        return min(end_ns, self._home.load_clock().now_ns()) if is_known else end_ns

    def _label_sessions(self, ticks: pa.Table, instrument: Instrument) -> pa.Table:
        """Each recovered trade with the session of its time: files of before have another word for it."""
        session = pc.utf8_lower(ticks["session"])
        is_unknown = pc.and_(pc.equal(session, "unknown"), pc.equal(ticks["source"], "recovered"))
        if pc.any(is_unknown).as_py():
            calendar = TradingCalendar(self._home.settings)  # a day with trades is no holiday
            times = ticks["exch_time"].cast(pa.int64()).filter(is_unknown).to_pylist()
            labels = [calendar.label(instrument.venue, at_ns) or "unknown" for at_ns in times]
            session = pc.replace_with_mask(session, is_unknown.combine_chunks(), pa.array(labels, pa.string()))
        return ticks.set_column(ticks.column_names.index("session"), "session", session)

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

    def certificate(self, day: Day, market: str = "kr") -> pd.DataFrame:
        """The certificates of a day, one row per instrument; no row before recovery has run."""
        path = certificates_path(self._home.data, _parse_day(day), MARKETS[market])
        return (table_file.read(path) or SCHEMA.empty_table()).to_pandas()


def to_form(table: pa.Table, form: Form) -> Any:
    """A table as a pandas DataFrame, an Arrow table or a polars DataFrame. ValueError for any other word."""
    if form == "arrow":
        return table
    if form == "pandas":
        return table.to_pandas()
    if form != "polars":
        raise ValueError(f"{form!r}: no such form: name one of {list(get_args(Form))}")
    try:
        import polars  # type: ignore[import-not-found,unused-ignore]
    except ImportError as error:
        raise ImportError("polars is not installed: `pip install polars`, or ask for form='arrow'") from error
    return polars.from_arrow(table)


def _parse_interval(interval: str | None) -> int:
    """An interval in ns, 0 for none. ValueError."""
    if interval is None:
        return 0
    import pandas as pd

    width_ns = pd.Timedelta(interval).value
    if width_ns <= 0 or width_ns % SECOND_NS:
        raise ValueError(f"{interval!r}: an interval of whole seconds, as the exchange's times are")
    return width_ns


def _to_ns(at: pd.Timestamp, unknown_ns: int) -> int:
    return unknown_ns if at is None or at != at else at.value  # NaT equals nothing


def _join_books(ticks: pa.Table, books: pa.Table) -> pa.Table:
    """Ticks with the newest book received before each of them."""
    arrivals, received = (table["recv_time"].cast(pa.int64()) for table in (books, ticks))
    at = np.searchsorted(arrivals.to_numpy(), pc.fill_null(received, 0).to_numpy()) - 1
    found = books.take(pa.array(at, mask=at < 0))
    for name in ("recv_time", *_BEST):
        ticks = ticks.append_column(f"book_{name}", found[name])
    return ticks


def _parse_day(day: Day) -> dt.date:
    return dt.date.fromisoformat(day) if isinstance(day, str) else day


def _order_trades(ticks: pa.Table) -> pa.Table:
    """In the order of the trades; those without a cumulative volume come last, in order of receipt.

    The volume begins anew with a business date, and a US day has the trades of two.
    """
    names = [name for name in ("business_date", "cum_volume", "recv_time") if name in ticks.column_names]
    return ticks.sort_by([(name, "ascending") for name in names])
