"""Minute bars: downloaded with every day to check its ticks, stored where ticks are not available.

    data/kr/bar_1m/date=2026-11-20/part-0.parquet
    symbol, venue, time (start of the minute), open high low close volume cum_volume, broker

Guarantees:
    * Bars are never mixed with ticks; a file without changes is not written; bars of other instruments stay.
    * A minute that was not over when it was asked for, or in which nothing was traded, is not stored.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa

from brokers.history import PageRequest, PageRows, keep_finished_bars
from collectorctl.recover.download.pager import FetchError, ThrottledClient
from collectorctl.recover.store import table_file
from conf.clock import kst_midnight_ns
from conf.instrument import Instrument
from conf.market import KR, Market
from ringbuf.records import PRICE_SCALE, UNDEFINED
from writer.schema import timestamp_type

MAX_PAGES = 4
"""A day has some 720 minutes, a page 900."""
_PRICE_COLUMNS = ("open", "high", "low", "close")
_NUMERIC_COLUMNS = (*_PRICE_COLUMNS, "volume", "cum_volume")


def build_schema(market: Market) -> pa.Schema:
    """The columns of a market's bars: prices as its ticks have them."""
    price = pa.int64() if market.integer_prices else pa.float64()
    return pa.schema(
        [
            ("symbol", pa.string()),
            ("venue", pa.string()),
            ("time", timestamp_type(market)),
            *((name, price if name in _PRICE_COLUMNS else pa.int64()) for name in _NUMERIC_COLUMNS),
            ("broker", pa.string()),
        ]
    )


def bars_path(data: Path, day: date, market: Market = KR) -> Path:
    """The file of a day's bars."""
    return data / market.name / "bar_1m" / f"date={day}" / "part-0.parquet"


def fetch_bars(client: ThrottledClient, day: date, instrument: Instrument) -> PageRows:
    """The day's minutes, BAR_ROW, oldest first. FetchError."""
    begin_ns, end_ns = kst_midnight_ns(day), kst_midnight_ns(day + timedelta(days=1))
    pages: list[np.ndarray] = []
    rejects: list[str] = []
    key = ""
    for _ in range(MAX_PAGES):
        response = client.fetch_page(PageRequest("bars", instrument, day, key=key))
        page = client.history.parse_bars(response.content)
        pages.append(page.rows)
        rejects += page.rejects
        key = response.next_key
        if not key or (len(pages[-1]) and pages[-1]["exch_ns"].min() < begin_ns):
            break
    else:
        raise FetchError(f"minute bars of {instrument}: {MAX_PAGES} pages do not reach the beginning of {day}")
    rows = np.concatenate(pages)[::-1]
    rows = rows[(rows["exch_ns"] >= begin_ns) & (rows["exch_ns"] < end_ns)]
    if (np.diff(rows["exch_ns"]) <= 0).any():
        raise FetchError(f"minute bars of {instrument}: the minutes of {day} are not in order")
    return PageRows(rows, rejects)


def save(
    data: Path, day: date, bars: Mapping[Instrument, np.ndarray], asked_ns: int, broker: str, market: Market = KR
) -> None:
    """Store BAR_ROW of these instruments, asked for at that time or later; others' stay. OSError."""
    if not bars:
        return
    finished = {instrument: keep_finished_bars(rows, asked_ns) for instrument, rows in bars.items()}
    tables = [_build_table(instrument, rows, broker) for instrument, rows in finished.items()]
    table_file.merge(bars_path(data, day, market), pa.concat_tables(tables), ["symbol", "venue", "time"])


def _build_table(instrument: Instrument, found: np.ndarray, broker: str) -> pa.Table:
    market = instrument.market
    columns = [
        pa.repeat(instrument.symbol, len(found)),
        pa.repeat(instrument.venue, len(found)),
        pa.array(found["exch_ns"].copy()).cast(timestamp_type(market)),
        *(_to_array(found[name], name in _PRICE_COLUMNS and not market.integer_prices) for name in _NUMERIC_COLUMNS),
        pa.repeat(broker, len(found)),
    ]
    return pa.table(columns, schema=build_schema(market))


def _to_array(values: np.ndarray, is_e4: bool) -> pa.Array:
    """A column; prices in 1/10,000 become the currency's."""
    return pa.array(values / PRICE_SCALE if is_e4 else values.copy(), mask=values == UNDEFINED)
