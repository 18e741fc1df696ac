"""Timeline of an instant: stored books and ticks, who was first and why, gaps, visibility of each feed.

    rows, events, the day's ticks, certificate ──> Timeline

Guarantees:
    * Every row within the window is listed, with its file and row.
    * A reason is what the data show; where they do not, that is stated.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import msgspec
import numpy as np
import pandas as pd

from collectorctl.explain.pairing import Pairing, explain_pairings
from collectorctl.explain.rows import find_rows, is_within, read_events, read_ticks
from collectorctl.explain.visibility import UNKNOWN, find_outages
from collectorctl.recover.certificate.store import load
from collectorctl.symbols.store import load_names
from conf.clock import DAY_NS, SECOND_NS
from conf.home import Home
from conf.instrument import Instrument
from conf.market import KR, Market
from ringbuf.records import UNDEFINED, Flag
from writer.ingest.book_arbiter import STALL_WINDOWS
from writer.volume.coverage import compute_coverage

EVENT_LOOKBACK_DAYS = 2
"""How many days of events are read to find the acknowledgement of a subscription."""
BOOK_COLUMNS = ("ask_price_1", "ask_size_1", "bid_price_1", "bid_size_1", "cum_volume")
TICK_COLUMNS = ("price", "size", "side", "cum_volume", "source")


class StoredRow(msgspec.Struct):
    """One stored row: `arrivals` feed -> when; `winner`, the first feed, and `reason`.

    `lag_ms`: how much later, in real time, the other feed had it. `pairing`: why a book's two arrivals are one book, and why the
    row of its levels before it is another. `remarks`: of all these sentences, those without which the figures do not explain it.
    """

    exch_time: datetime | None
    arrivals: dict[str, datetime]
    winner: str
    reason: str
    flags: list[str]
    content: dict[str, Any]
    file: str
    row: int
    pairing: list[str] = []
    lag_ms: float | None = None
    remarks: list[str] = []


class UncoveredInterval(msgspec.Struct):
    """Shares (low, high] that no tick covers, between the ticks at these times (exchange time; None: the day's beginning)."""

    low: int
    high: int
    shares: int
    after: datetime | None
    before: datetime | None


class VisibilityAt(msgspec.Struct):
    """Whether a feed received a stream at the instant; if not, since when, until when, why."""

    feed: str
    stream: str
    visible: bool
    begin: datetime | None = None
    end: datetime | None = None
    reason: str = ""


class Timeline(msgspec.Struct):
    """A symbol and venue, `window_s` (market time) around `time`. `name`: by that day's table of symbols, "" without one."""

    symbol: str
    venue: str
    time: datetime
    window_s: float
    books: list[StoredRow]
    ticks: list[StoredRow]
    gaps: list[UncoveredInterval]
    visibility: list[VisibilityAt]
    events: list[dict[str, Any]]
    certificate: str = ""
    reasons: list[str] = []
    name: str = ""


def build_timeline(home: Home, instrument: Instrument, at: datetime, window_s: float) -> Timeline:
    """Everything stored about that moment. OSError, pa.ArrowInvalid: a file that cannot be read."""
    market = instrument.market
    at_ns = round(at.timestamp() * 1e6) * 1000
    around_ns = round(window_s * SECOND_NS)
    begin_ns, end_ns = at_ns - around_ns, at_ns + around_ns
    speed = home.load_clock().anchor.speed
    day_events = read_events(home, market.name, at_ns - EVENT_LOOKBACK_DAYS * DAY_NS, at_ns + DAY_NS)
    visibility = [
        _find_visibility(day_events, line, instrument, stream, at)
        for line in market.feeds
        for stream in ("orderbook", "tick")
    ]
    ticks = find_rows(home, f"{market.name}.tick", instrument, begin_ns, end_ns)
    books = _find_books(home, instrument, begin_ns, end_ns, speed)
    certificate = load(home.data, at.date(), market).get((instrument.symbol, instrument.venue))
    return Timeline(
        instrument.symbol,
        instrument.venue,
        at,
        window_s,
        [_build_book_row(row, pairing, market, speed, day_events, instrument) for row, pairing in books],
        [_build_tick_row(row) for row in ticks],
        _find_gaps(home, instrument, at, begin_ns, end_ns),
        visibility,
        _select_events(
            day_events,
            instrument,
            at,
            window_s,
            [edge for seen in visibility for edge in (seen.begin, seen.end) if edge],
        ),
        certificate.certificate if certificate else "",
        certificate.reasons if certificate else [],
        load_names(home, at.date()).get(instrument.symbol, "") if market is KR else "",
    )


def _find_books(
    home: Home, instrument: Instrument, begin_ns: int, end_ns: int, speed: float
) -> list[tuple[dict[str, Any], Pairing]]:
    """Books between two instants, each with what keeps it together and apart from the one of its levels before it."""
    market, writer = instrument.market, home.settings.writer
    before_ns = round(STALL_WINDOWS * writer.twin_window_s * speed * SECOND_NS) if len(market.feeds) == 2 else 0
    rows = find_rows(home, f"{market.name}.orderbook", instrument, begin_ns - before_ns, end_ns)
    pairings = [Pairing() for _ in rows]
    if before_ns:
        has_volume = instrument.venue in writer.identity_cum_volume
        pairings = explain_pairings(rows, market.feeds, speed, writer.twin_window_s, has_volume)
    return [found for found in zip(rows, pairings, strict=True) if is_within(found[0], begin_ns, end_ns)]


def _build_book_row(
    row: dict[str, Any],
    pairing: Pairing,
    market: Market,
    speed: float,
    day_events: pd.DataFrame,
    instrument: Instrument,
) -> StoredRow:
    arrivals = {line: row[f"recv_time_{line}"] for line in market.feeds if row.get(f"recv_time_{line}")}
    if not arrivals:  # a market with one feed has its arrival in recv_time
        arrivals = {row["broker"]: row["recv_time"]}
    lag_ms, is_plain, reason = _explain_winner(row, arrivals, market, speed, day_events, instrument)
    return msgspec.structs.replace(
        _build_row(row, arrivals, reason, BOOK_COLUMNS),
        pairing=[*filter(None, (pairing.together,)), *pairing.remarks],
        lag_ms=lag_ms,
        remarks=[*([] if is_plain else [reason]), *pairing.remarks],
    )


def _build_tick_row(row: dict[str, Any]) -> StoredRow:
    live = row["recv_time"] is not None
    reason = f"{row['broker']} collects this symbol's ticks" if live else f"{row['source']}: fetched afterwards"
    return _build_row(row, {row["broker"]: row["recv_time"]} if live else {}, reason, TICK_COLUMNS)


def _build_row(row: dict[str, Any], arrivals: dict[str, datetime], reason: str, content: tuple[str, ...]) -> StoredRow:
    flags = [flag.name or "" for flag in Flag if (row["flags"] or 0) & flag]
    values = {name: row[name] for name in content}
    return StoredRow(row["exch_time"], arrivals, row["broker"] or "", reason, flags, values, row["file"], row["row"])


def _explain_winner(
    row: dict[str, Any],
    arrivals: dict[str, datetime],
    market: Market,
    speed: float,
    day_events: pd.DataFrame,
    instrument: Instrument,
) -> tuple[float | None, bool, str]:
    """By how many ms the other feed had it later, whether nothing is odd about it, and who had it first or why only one had it."""
    winner = row["broker"]
    if len(arrivals) > 1:
        (other,) = (feed for feed in arrivals if feed != winner)
        ahead_ms = (pd.Timestamp(arrivals[other]) - pd.Timestamp(arrivals[winner])).total_seconds() * 1000 / speed
        stepped = ", by the monotonic clock: the wall clock had been stepped" if ahead_ms < 0 else ""
        return ahead_ms, not stepped, f"{winner} was first, {other} {abs(ahead_ms):.1f} ms later{stepped}"
    for line in market.feeds:
        if line == winner:
            continue
        visibility = _find_visibility(day_events, line, instrument, "orderbook", arrivals[winner])
        if visibility.visible:
            missed = f"{line} was subscribed, but had no such book within the twin window (left out, or lost)"
            return None, True, f"only {winner}: {missed}"
        if visibility.reason == UNKNOWN:
            return None, False, f"only {winner}: {line} is not known to have been subscribed to this symbol"
        return None, False, f"only {winner}: {line} had an outage ({visibility.reason})"
    return None, True, f"{winner} is the only feed"


def _find_visibility(
    day_events: pd.DataFrame, feed: str, instrument: Instrument, stream: str, at: datetime
) -> VisibilityAt:
    moment = pd.Timestamp(at)
    for begin, end, reason in find_outages(day_events, feed, instrument.symbol, stream, instrument.venue):
        if (pd.isna(begin) or begin <= moment) and (pd.isna(end) or moment < end):
            return VisibilityAt(feed, stream, False, _to_datetime(begin), _to_datetime(end), reason)
    return VisibilityAt(feed, stream, True)


def _find_gaps(home: Home, instrument: Instrument, at: datetime, begin_ns: int, end_ns: int) -> list[UncoveredInterval]:
    """Intervals of the day's volume line that no tick covers and whose ends enclose or touch the window."""
    day_ns = round(at.replace(hour=0, minute=0, second=0, microsecond=0).timestamp()) * SECOND_NS
    ticks = read_ticks(home, f"{instrument.market.name}.tick", instrument, day_ns, day_ns + DAY_NS)
    ticks = ticks[ticks.exch_time.dt.date == at.date()] if len(ticks) else ticks
    if ticks.empty:
        return []
    volume, size = (ticks[name].fillna(UNDEFINED).to_numpy(np.int64) for name in ("cum_volume", "size"))
    found, count = [], len(ticks)
    for low, high, shares, after, before in compute_coverage(volume, size, None).gaps.tolist():
        times = [ticks.exch_time.iloc[at] if 0 <= at < count else pd.NaT for at in (after, before)]
        begins, ends = (None if pd.isna(time) else time.value for time in times)
        # an exchange second is a second long
        if (begins is None or begins <= end_ns) and (ends is None or ends + SECOND_NS >= begin_ns):
            found.append(UncoveredInterval(low, high, shares, *map(_to_datetime, times)))
    return found


def _select_events(
    day_events: pd.DataFrame, instrument: Instrument, at: datetime, window_s: float, edges: list[datetime]
) -> list[dict[str, Any]]:
    """Events of the symbol or of no instrument: of the instant, and those at the `edges` of outages."""
    near = abs(day_events.time - pd.Timestamp(at)) <= timedelta(seconds=window_s)
    near |= day_events.time.isin(edges) | day_events.since.isin(edges)
    reaches = (day_events.since <= pd.Timestamp(at)) & (day_events.time >= pd.Timestamp(at))
    relevant = day_events.symbol.isna() | (
        (day_events.symbol == instrument.symbol) & (day_events.venue == instrument.venue)
    )
    names = ["time", "line", "kind", "symbol", "venue", "stream", "connection", "value", "since", "message"]
    chosen = day_events.loc[(near | reaches) & relevant, names]
    return [
        {str(name): None if pd.isna(value) else value for name, value in row.items()}
        for row in chosen.to_dict("records")
    ]


def _to_datetime(time: Any) -> datetime | None:
    return None if pd.isna(time) else time
