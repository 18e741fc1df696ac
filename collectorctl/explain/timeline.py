"""What became of what the lines delivered around an instant.

    rows, events, the day's ticks, certificate ──> Moment: books and ticks with who was first and why, gaps, sight of each line

Promises: every row within the window is told, with the file and row it became; a reason is what the data say, and where they do not
tell, it says so.
Leaves to others: finding rows (rows.py), telling it to a person (show.py).
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import msgspec
import numpy as np
import pandas as pd

from collectorctl.explain.rows import events, rows, ticks_of_day
from collectorctl.explain.visibility import UNKNOWN, blind
from collectorctl.recover.certificate.store import load
from conf.clock import SECOND_NS
from conf.home import Home
from conf.instrument import Instrument
from conf.market import DAY_NS, Market
from ringbuf.records import UNDEFINED, Flag
from writer.volume.coverage import lay

EVENTS_DAYS = 2
"""How many days of events are looked at for the acknowledgement that a line's sight began with."""
LEVELS = ("ask_price_1", "ask_size_1", "bid_price_1", "bid_size_1", "cum_volume")
TRADE = ("price", "size", "side", "cum_volume", "source")


class Row(msgspec.Struct):
    """One stored row: `arrivals` line -> when, `why` who won, `place` file and row."""

    exch_time: datetime | None
    arrivals: dict[str, datetime]
    won: str
    why: str
    flags: list[str]
    content: dict[str, Any]
    file: str
    row: int


class Gap(msgspec.Struct):
    """Shares (low, high] that no tick covers, between the ticks at these times (exchange time; None: the day's beginning)."""

    low: int
    high: int
    shares: int
    after: datetime | None
    before: datetime | None


class Sight(msgspec.Struct):
    """Whether a line saw a stream at the instant; if not, since when, until when, why."""

    line: str
    stream: str
    seen: bool
    begin: datetime | None = None
    end: datetime | None = None
    why: str = ""


class Moment(msgspec.Struct):
    """A symbol and venue, `window_s` (market time) around `time`."""

    symbol: str
    venue: str
    time: datetime
    window_s: float
    books: list[Row]
    ticks: list[Row]
    gaps: list[Gap]
    sight: list[Sight]
    events: list[dict[str, Any]]
    certificate: str = ""
    reasons: list[str] = []


def explain(home: Home, instrument: Instrument, at: datetime, window_s: float) -> Moment:
    """Everything stored about that moment. OSError, pa.ArrowInvalid: a file that cannot be read."""
    market = instrument.market
    at_ns = round(at.timestamp() * 1e6) * 1000
    around_ns = round(window_s * SECOND_NS)
    begin_ns, end_ns = at_ns - around_ns, at_ns + around_ns
    speed = home.clock().anchor.speed
    happened = events(home, market.name, at_ns - EVENTS_DAYS * DAY_NS, at_ns + DAY_NS)
    sight = [
        _sight(happened, line, instrument, stream, at) for line in market.lines for stream in ("orderbook", "tick")
    ]
    books, ticks = (rows(home, f"{market.name}.{name}", instrument, begin_ns, end_ns) for name in ("orderbook", "tick"))
    certificate = load(home.data, at.date(), market).get((instrument.symbol, instrument.venue))
    return Moment(
        instrument.symbol,
        instrument.venue,
        at,
        window_s,
        [_book(row, market, speed, happened, instrument) for row in books],
        [_tick(row) for row in ticks],
        _gaps(home, instrument, at, begin_ns, end_ns),
        sight,
        _around(
            happened, instrument, at, window_s, [edge for seen in sight for edge in (seen.begin, seen.end) if edge]
        ),
        certificate.certificate if certificate else "",
        certificate.reasons if certificate else [],
    )


def _book(row: dict[str, Any], market: Market, speed: float, happened: pd.DataFrame, instrument: Instrument) -> Row:
    arrivals = {line: row[f"recv_time_{line}"] for line in market.lines if row.get(f"recv_time_{line}")}
    if not arrivals:  # a market with one line keeps its arrival as every row does
        arrivals = {row["broker"]: row["recv_time"]}
    return _row(row, arrivals, _why(row, arrivals, market, speed, happened, instrument), LEVELS)


def _tick(row: dict[str, Any]) -> Row:
    live = row["recv_time"] is not None
    why = f"{row['broker']} collects this symbol's ticks" if live else f"{row['source']}: fetched afterwards"
    return _row(row, {row["broker"]: row["recv_time"]} if live else {}, why, TRADE)


def _row(row: dict[str, Any], arrivals: dict[str, datetime], why: str, content: tuple[str, ...]) -> Row:
    flags = [flag.name or "" for flag in Flag if (row["flags"] or 0) & flag]
    named = {name: row[name] for name in content}
    return Row(row["exch_time"], arrivals, row["broker"] or "", why, flags, named, row["file"], row["row"])


def _why(
    row: dict[str, Any],
    arrivals: dict[str, datetime],
    market: Market,
    speed: float,
    happened: pd.DataFrame,
    instrument: Instrument,
) -> str:
    """Who had it first and by how much, or why only one had it."""
    won = row["broker"]
    if len(arrivals) > 1:
        (other,) = (line for line in arrivals if line != won)
        ahead_ms = (pd.Timestamp(arrivals[other]) - pd.Timestamp(arrivals[won])).total_seconds() * 1000 / speed
        stepped = ", by the monotonic clock: the wall clock had been stepped" if ahead_ms < 0 else ""
        return f"{won} was first, {other} {abs(ahead_ms):.1f} ms later{stepped}"
    for line in market.lines:
        if line == won:
            continue
        seen = _sight(happened, line, instrument, "orderbook", arrivals[won])
        if seen.seen:
            return (
                f"only {won}: {line} saw this symbol, but had no such book within the twin window (left out, or lost)"
            )
        if seen.why == UNKNOWN:
            return f"only {won}: {line} is not known to have been registered for this symbol"
        return f"only {won}: {line} was blind ({seen.why})"
    return f"{won} is the only line"


def _sight(happened: pd.DataFrame, line: str, instrument: Instrument, stream: str, at: datetime) -> Sight:
    moment = pd.Timestamp(at)
    for begin, end, why in blind(happened, line, instrument.symbol, stream, instrument.venue):
        if (pd.isna(begin) or begin <= moment) and (pd.isna(end) or moment < end):
            return Sight(line, stream, False, _time(begin), _time(end), why)
    return Sight(line, stream, True)


def _gaps(home: Home, instrument: Instrument, at: datetime, begin_ns: int, end_ns: int) -> list[Gap]:
    """Intervals of the day's volume line that no tick covers and whose ends enclose or touch the window."""
    day_ns = round(at.replace(hour=0, minute=0, second=0, microsecond=0).timestamp()) * SECOND_NS
    ticks = ticks_of_day(home, f"{instrument.market.name}.tick", instrument, day_ns, day_ns + DAY_NS)
    ticks = ticks[ticks.exch_time.dt.date == at.date()] if len(ticks) else ticks
    if ticks.empty:
        return []
    volume, size = (ticks[name].fillna(UNDEFINED).to_numpy(np.int64) for name in ("cum_volume", "size"))
    found, count = [], len(ticks)
    for low, high, shares, after, before in lay(volume, size, None).gaps.tolist():
        times = [ticks.exch_time.iloc[at] if 0 <= at < count else pd.NaT for at in (after, before)]
        begins, ends = (None if pd.isna(time) else time.value for time in times)
        # an exchange second is a second long
        if (begins is None or begins <= end_ns) and (ends is None or ends + SECOND_NS >= begin_ns):
            found.append(Gap(low, high, shares, *map(_time, times)))
    return found


def _around(
    happened: pd.DataFrame, instrument: Instrument, at: datetime, window_s: float, edges: list[datetime]
) -> list[dict[str, Any]]:
    """Events that concern the symbol or nobody in particular: of the moment, and those that `edges` of blindness come from."""
    near = abs(happened.time - pd.Timestamp(at)) <= timedelta(seconds=window_s)
    near |= happened.time.isin(edges) | happened.since.isin(edges)
    reaches = (happened.since <= pd.Timestamp(at)) & (happened.time >= pd.Timestamp(at))
    mine = happened.symbol.isna() | ((happened.symbol == instrument.symbol) & (happened.venue == instrument.venue))
    names = ["time", "line", "kind", "symbol", "venue", "stream", "connection", "number", "since", "words"]
    chosen = happened.loc[(near | reaches) & mine, names]
    return [
        {name: None if pd.isna(value) else value for name, value in row.items()} for row in chosen.to_dict("records")
    ]


def _time(time: pd.Timestamp) -> datetime | None:
    return None if pd.isna(time) else time
