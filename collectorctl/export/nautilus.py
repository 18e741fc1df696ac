"""Catalog of nautilus_trader, written by its own interface (extra [export]).

    books  ──> OrderBookDepth10   an empty one where a hole begins
    trades ──> TradeTick          ts_init of a recovered one: of the first row received that shows it

Guarantees:
    * `ts_event` is the time of the exchange and `ts_init` that of receipt, as in sequence.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
from nautilus_trader.model.data import NULL_ORDER, BookOrder, OrderBookDepth10, TradeTick
from nautilus_trader.model.enums import AggressorSide, OrderSide
from nautilus_trader.model.identifiers import InstrumentId, Symbol, TradeId, Venue
from nautilus_trader.model.instruments import Equity
from nautilus_trader.model.objects import Currency, Price, Quantity
from nautilus_trader.persistence.catalog import ParquetDataCatalog

from collectorctl.export.gaps import Hole
from collectorctl.export.sequence import TICK, Books, Sequence, Ticks, build_sequence, read_books, read_ticks
from conf.instrument import Instrument
from conf.market import KR, US, Market
from ringbuf.records import LEVELS

_SIDES = {1: AggressorSide.BUYER, -1: AggressorSide.SELLER}
_NO_COUNTS = [0] * LEVELS
_CURRENCIES = {KR.name: ("KRW", 0), US.name: ("USD", 4)}
"""By market the currency, and how many decimals a price has."""


def write_catalog(
    directory: Path, instrument: Instrument, books: pa.Table, ticks: pa.Table, holes: list[Hole]
) -> list[tuple[Path, int]]:
    """Add an instrument's day to a catalog; the new files with their rows."""
    before = set(directory.rglob("*.parquet"))
    directory.mkdir(exist_ok=True)
    catalog = ParquetDataCatalog(str(directory))
    name = InstrumentId(Symbol(instrument.symbol), Venue(instrument.venue))
    found_books, found_ticks = read_books(books), read_ticks(ticks)
    sequence = build_sequence(found_books, found_ticks, [hole.begin_ns for hole in holes])
    begin_ns = int(sequence.recv_ns[0]) if len(sequence.recv_ns) else 0
    catalog.write_data([_make_equity(name, instrument.market, begin_ns)])
    decimals = _CURRENCIES[instrument.market.name][1]
    for rows in (
        list(_make_depths(name, decimals, found_books, sequence)),
        list(_make_trades(name, decimals, found_ticks, sequence)),
    ):
        if rows:
            catalog.write_data(rows)
    return [
        (path, pa.parquet.read_metadata(path).num_rows) for path in sorted(set(directory.rglob("*.parquet")) - before)
    ]


def _make_equity(name: InstrumentId, market: Market, ns: int) -> Equity:
    """The tick size varies with the price: the increment is the smallest one, a won or 1/10,000 dollar."""
    currency, decimals = _CURRENCIES[market.name]
    increment, one = Price(10.0**-decimals, decimals), Quantity.from_int(1)
    return Equity(name, name.symbol, Currency.from_str(currency), decimals, increment, one, ts_event=ns, ts_init=ns)


def _make_depths(name: InstrumentId, decimals: int, books: Books, sequence: Sequence) -> Iterable[OrderBookDepth10]:
    nothing = [NULL_ORDER] * LEVELS
    levels = [
        (OrderSide.BUY, books.bid_price, books.bid_size),
        (OrderSide.SELL, books.ask_price, books.ask_size),
    ]
    for number in np.flatnonzero(sequence.kind != TICK).tolist():
        row = int(sequence.row[number])
        bids, asks = (
            (nothing, nothing)
            if sequence.kind[number] > TICK + 1
            else ([*_make_orders(side, decimals, price[row], size[row])] for side, price, size in levels)
        )
        yield OrderBookDepth10(
            name,
            bids,
            asks,
            _NO_COUNTS,
            _NO_COUNTS,
            0,
            0,
            int(sequence.exch_ns[number]),
            int(sequence.recv_ns[number]),
        )


def _make_orders(side: OrderSide, decimals: int, prices: np.ndarray, sizes: np.ndarray) -> Iterable[BookOrder]:
    for price, size in zip(prices.tolist(), sizes.tolist(), strict=True):
        yield BookOrder(side, Price(price, decimals), Quantity.from_int(size), 0) if price else NULL_ORDER


def _make_trades(name: InstrumentId, decimals: int, ticks: Ticks, sequence: Sequence) -> Iterable[TradeTick]:
    for count, number in enumerate(np.flatnonzero(sequence.kind == TICK).tolist()):
        row = int(sequence.row[number])
        yield TradeTick(
            name,
            Price(float(ticks.price[row]), decimals),
            Quantity.from_int(int(ticks.size[row])),
            _SIDES.get(int(ticks.side[row]), AggressorSide.NO_AGGRESSOR),
            TradeId(str(count + 1)),
            int(sequence.exch_ns[number]),
            int(sequence.recv_ns[number]),
        )
