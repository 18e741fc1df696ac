"""Series of a report: what each minute of the day has, by instrument, feed and process (pure).

    StoredDay, TradingCalendar ──build_series()──> DaySeries: cells by instrument, feeds, gaps, incidents, quotes ──> page.py

A cell of books is the first of these that holds:

    AHEAD     the minute is yet to come                     UNKNOWN  its hour is not published, or not counted
    HOLE      in session, and no feed was subscribed to the book, or no instrument has any
    AUCTION   a book in an auction        BOTH, FIRST, SECOND  which feeds had books      NONE  in session, no book came
    CLOSED    no session, or one that is quiet by nature

Guarantees:
    * Every instrument that is expected, subscribed, stored or certified has a row.
    * The cells of an instrument that are not CLOSED are the minutes that its shares are of.

Not handled here:
    * What a vendor left out between two books of one minute.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from itertools import pairwise

import numpy as np
import pyarrow as pa

from collectorctl.recover.certificate.certify import Certificate
from collectorctl.report.reader import StoredDay
from conf.calendar import PhaseSpan, TradingCalendar
from conf.clock import DAY_NS, HOUR_NS, MINUTE_NS
from conf.instrument import Instrument
from conf.market import KR
from writer.feeds.day_events import BlindSpan, DayEvents, Incident

FEEDS = KR.feeds
AUCTIONS = ("opening_auction", "closing_auction", "intraday_auction")
_RESIDUAL = re.compile(r"(\d\d):(\d\d) ([+-]\d+)")


class Cell(IntEnum):
    """What the books of an instrument have in a minute."""

    CLOSED = 0
    BOTH = 1
    FIRST = 2
    SECOND = 3
    AUCTION = 4
    NONE = 5
    HOLE = 6
    UNKNOWN = 7
    AHEAD = 8


class TickCell(IntEnum):
    """What the ticks of an instrument have in a minute."""

    EMPTY = 0
    LIVE = 1
    RECOVERED = 2
    MISSING = 3


@dataclass(frozen=True)
class Axis:
    """Minutes from `begin_ns` on."""

    begin_ns: int
    minutes: int

    @property
    def starts_ns(self) -> np.ndarray:
        """The start of each minute."""
        return self.begin_ns + np.arange(self.minutes) * MINUTE_NS

    def position(self, ns: int) -> float:
        """Where an instant is, in minutes, within the axis."""
        return min(max((ns - self.begin_ns) / MINUTE_NS, 0.0), float(self.minutes))


@dataclass(frozen=True)
class InstrumentSeries:
    """One instrument: `books` (Cell) and `ticks` (TickCell) by minute; shares that live ticks lacked, were fetched, are missing.

    `live_ticks`, `recovered_ticks`: rows. `lacking`: None if not known.
    """

    instrument: Instrument
    books: np.ndarray
    ticks: np.ndarray
    certificate: Certificate | None
    live_ticks: int
    recovered_ticks: int
    recovered_shares: int
    missing_shares: int | None

    @property
    def lacking(self) -> int | None:
        """Shares that were missing before recovery."""
        return None if self.missing_shares is None else self.missing_shares + self.recovered_shares

    def count(self, *cells: Cell) -> int:
        """Minutes with one of these cells."""
        return int(np.isin(self.books, cells).sum())


@dataclass(frozen=True)
class FeedSeries:
    """All instruments together, by minute; NaN where nothing is known. Lags in ms: the second feed behind the first."""

    books: np.ndarray
    """Shape (2, minutes): of each feed."""
    ticks: np.ndarray
    first: np.ndarray
    """Shape (2, minutes): books that both had, by which was first."""
    lag_ms: np.ndarray
    """Shape (3, minutes): the instruments' 1st, 50th and 99th percentile, each the median over the instruments."""


@dataclass(frozen=True)
class HoleSpan:
    """Minutes from `begin_ns` to `end_ns` in which these instruments have a hole."""

    begin_ns: int
    end_ns: int
    instruments: list[str]


@dataclass(frozen=True)
class DaySeries:
    """Everything that a page shows."""

    stored: StoredDay
    axis: Axis
    phases: tuple[PhaseSpan, ...]
    session_over: bool
    instruments: list[InstrumentSeries]
    feeds: FeedSeries
    recovered: np.ndarray
    """Shares fetched, by minute."""
    missing: np.ndarray
    """Shares that minutes lack by their certificates."""
    incidents: list[Incident]
    blind: list[BlindSpan]
    holes: list[HoleSpan]
    shown: Instrument | None
    quotes: dict[str, np.ndarray]
    """By minute, NaN where there is none: mid, spread, ask_size, bid_size."""


def build_series(stored: StoredDay, calendar: TradingCalendar) -> DaySeries:
    """The series of a day."""
    events = DayEvents()
    events.add_rows(stored.events)
    end_ns = stored.begin_ns + DAY_NS
    incidents = [one for one in events.incidents if _overlaps(one, stored.begin_ns, end_ns)]
    blind = [one for one in events.blind_spans() if _overlaps(one, stored.begin_ns, end_ns)]
    instruments = _find_instruments(stored)
    venues = list(dict.fromkeys(one.venue for one in instruments)) or ["KRX"]
    spans = {venue: calendar.phase_spans(venue, stored.day) for venue in venues}
    phases = next((spans[venue] for venue in venues if spans[venue]), ())
    axis = _build_axis(stored, spans)
    health = _Grid(stored.health, axis, instruments)
    ticks = _Grid(stored.ticks, axis, instruments)
    recovered_mask = np.asarray(stored.ticks["source"].to_pylist(), object) == "recovered"
    recovered_shares, recovered_rows = (ticks.sum(name, recovered_mask) for name in ("shares", "rows"))
    live_rows = ticks.sum("rows", ~recovered_mask)
    first, second = (health.sum(f"books_{feed}") for feed in FEEDS)
    any_book = (first + second + health.sum("books")).sum(axis=0) > 0
    gap_shares = health.sum("gap_shares").sum(axis=1)
    minutes = {venue: _classify_minutes(axis, venue, spans[venue], calendar) for venue in venues}
    found, missing = [], np.zeros(axis.minutes)
    for row, instrument in enumerate(instruments):
        is_blind = _mark_spans(axis, [one for one in blind if str_of(instrument) in one.instruments])
        cells = _classify_books(stored, axis, *minutes[instrument.venue], first[row], second[row], is_blind | ~any_book)
        certificate = stored.certificates.get(instrument)
        residuals = _read_residuals(certificate, axis, stored.begin_ns)
        missing += residuals
        tick_cells = np.select(
            [residuals > 0, recovered_rows[row] > 0, live_rows[row] > 0],
            [TickCell.MISSING, TickCell.RECOVERED, TickCell.LIVE],
            TickCell.EMPTY,
        )
        known = certificate.missing_shares if certificate else int(gap_shares[row]) if len(stored.health) else None
        found.append(
            InstrumentSeries(
                instrument,
                cells,
                tick_cells,
                certificate,
                int(live_rows[row].sum()),
                int(recovered_rows[row].sum()),
                int(recovered_shares[row].sum()),
                known,
            )
        )
    return DaySeries(
        stored=stored,
        axis=axis,
        phases=phases,
        session_over=all(span[-1].end_ns <= stored.now_ns for span in spans.values() if span),
        instruments=found,
        feeds=_build_feeds(stored, axis, health, live_rows.sum(axis=0)),
        recovered=recovered_shares.sum(axis=0),
        missing=missing,
        incidents=incidents,
        blind=blind,
        holes=list(_find_holes(axis, found)),
        shown=stored.chosen,
        quotes=_build_quotes(stored, axis),
    )


def str_of(instrument: Instrument) -> str:
    """The instrument as blind spans name it."""
    return f"{instrument.symbol} {instrument.venue}"


def runs(values: np.ndarray) -> Iterator[tuple[int, int, int]]:
    """Begin, end and value of each run of equal values."""
    if len(values):
        edges = [0, *(np.flatnonzero(np.diff(values)) + 1).tolist(), len(values)]
        for begin, end in pairwise(edges):
            yield begin, end, int(values[begin])


class _Grid:
    """Sums of a table's columns as arrays of shape (instruments, minutes)."""

    def __init__(self, table: pa.Table, axis: Axis, instruments: list[Instrument]) -> None:
        numbers = {one: row for row, one in enumerate(instruments)}
        names = zip(table["symbol"].to_pylist(), table["venue"].to_pylist(), strict=True)
        self._row = np.array([numbers.get(Instrument(*name), -1) for name in names], np.int64)
        self._minute = (self.column(table, "minute").astype(np.int64) - axis.begin_ns) // MINUTE_NS
        self._is_inside = (self._row >= 0) & (self._minute >= 0) & (self._minute < axis.minutes)
        self._table, self._shape = table, (len(instruments), axis.minutes)

    @staticmethod
    def column(table: pa.Table, name: str) -> np.ndarray:
        """A column's values; null as NaN in one of floats."""
        return table[name].to_numpy()

    def sum(self, name: str, mask: np.ndarray | bool = True) -> np.ndarray:
        """Sums of a column, of the rows in `mask`."""
        chosen = self._is_inside & mask
        found = np.zeros(self._shape)
        np.add.at(found, (self._row[chosen], self._minute[chosen]), self.column(self._table, name)[chosen])
        return found

    def medians(self, name: str) -> np.ndarray:
        """The median over the instruments, by minute, NaN without a value."""
        values = self.column(self._table, name)
        chosen = self._is_inside & ~np.isnan(values)
        found = np.full(self._shape[1], np.nan)
        minute, values = self._minute[chosen], values[chosen]
        order = np.lexsort((values, minute))
        minute, values = minute[order], values[order]
        begins = np.flatnonzero(np.diff(minute, prepend=-1))
        middles = (begins + np.append(begins[1:], len(minute)) - 1) // 2
        found[minute[begins]] = values[middles]
        return found


def _overlaps(one: Incident | BlindSpan, begin_ns: int, end_ns: int) -> bool:
    return one.begin_ns < end_ns and (one.end_ns is None or one.end_ns >= begin_ns)


def _find_instruments(stored: StoredDay) -> list[Instrument]:
    """The expected ones in their order, then all others of which anything is known."""
    end_ns = stored.begin_ns + DAY_NS
    others = {
        Instrument(row["symbol"], row["venue"])
        for row in stored.events
        if row["kind"] == "acknowledged" and row["symbol"] and stored.begin_ns <= row["time"] < end_ns
    }
    for table in (stored.health, stored.ticks):
        keys = table.group_by(["symbol", "venue"]).aggregate([])
        others |= {Instrument(*name) for name in zip(*(keys[c].to_pylist() for c in ("symbol", "venue")), strict=True)}
    others |= set(stored.certificates)
    known = [one for one in others if one.symbol and one.venue in KR.venues]
    return list(dict.fromkeys([*stored.expected, *sorted(known)]))


def _build_axis(stored: StoredDay, spans: dict[str, tuple[PhaseSpan, ...]]) -> Axis:
    """Whole hours with every session and every minute that has data."""
    edges = [ns for venue in spans.values() for one in venue for ns in (one.begin_ns, one.end_ns)]
    for table in (stored.health, stored.ticks):
        minutes = table["minute"].to_numpy().astype(np.int64)
        minutes = minutes[(minutes >= stored.begin_ns) & (minutes < stored.begin_ns + DAY_NS)]
        if len(minutes):
            edges += [int(minutes.min()), int(minutes.max()) + MINUTE_NS]
    edges += [ns for hour in (stored.unpublished | stored.uncounted) for ns in (hour, hour + HOUR_NS)]
    if not edges:
        edges = [stored.begin_ns + 9 * HOUR_NS, stored.begin_ns + 16 * HOUR_NS]
    begin_ns, end_ns = min(edges) // HOUR_NS * HOUR_NS, -(-max(edges) // HOUR_NS) * HOUR_NS
    return Axis(begin_ns, (end_ns - begin_ns) // MINUTE_NS)


def _classify_minutes(
    axis: Axis, venue: str, spans: tuple[PhaseSpan, ...], calendar: TradingCalendar
) -> tuple[np.ndarray, np.ndarray]:
    """Which minutes must have books, and which are in an auction."""
    starts = axis.starts_ns
    expected = np.array([calendar.expects_data(venue, ns) for ns in starts.tolist()], bool)
    auction = np.zeros(axis.minutes, bool)
    for span in spans:
        if span.phase in AUCTIONS:
            auction |= (starts >= span.begin_ns) & (starts < span.end_ns)
    return expected, auction


def _mark_spans(axis: Axis, spans: list[BlindSpan]) -> np.ndarray:
    """Minutes that a span touches."""
    found = np.zeros(axis.minutes, bool)
    for span in spans:
        begin = (span.begin_ns - axis.begin_ns) // MINUTE_NS
        end = axis.minutes if span.end_ns is None else -(-(span.end_ns - axis.begin_ns) // MINUTE_NS)
        found[max(begin, 0) : max(end, 0)] = True
    return found


def _classify_books(
    stored: StoredDay,
    axis: Axis,
    expected: np.ndarray,
    auction: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    is_hole: np.ndarray,
) -> np.ndarray:
    starts, has_book = axis.starts_ns, (first > 0) | (second > 0)
    hours = starts // HOUR_NS * HOUR_NS
    unknown = np.isin(hours, sorted(stored.unpublished | stored.uncounted)) & ~has_book
    conditions = [
        (starts >= stored.now_ns) & ~has_book & expected,
        unknown & expected,
        expected & is_hole,
        has_book & auction,
        (first > 0) & (second > 0),
        first > 0,
        second > 0,
        expected,
    ]
    cells = [Cell.AHEAD, Cell.UNKNOWN, Cell.HOLE, Cell.AUCTION, Cell.BOTH, Cell.FIRST, Cell.SECOND, Cell.NONE]
    return np.select(conditions, cells, Cell.CLOSED)


def _read_residuals(certificate: Certificate | None, axis: Axis, midnight_ns: int) -> np.ndarray:
    """Shares that minutes lack by a certificate ("09:31 +120")."""
    found = np.zeros(axis.minutes)
    for text in certificate.residuals if certificate else []:
        if (match := _RESIDUAL.fullmatch(text)) and int(match[3]) > 0:
            ns = midnight_ns + int(match[1]) * HOUR_NS + int(match[2]) * MINUTE_NS
            at = (ns - axis.begin_ns) // MINUTE_NS
            if 0 <= at < axis.minutes:
                found[at] += int(match[3])
    return found


def _find_holes(axis: Axis, instruments: list[InstrumentSeries]) -> Iterator[HoleSpan]:
    """Spans in which the same instruments have a hole."""
    if not instruments:
        return
    holes = np.array([one.books == Cell.HOLE for one in instruments])
    _, groups = np.unique(holes, axis=1, return_inverse=True)
    for begin, end, _ in runs(groups.reshape(-1)):
        names = [str_of(one.instrument) for one, is_hole in zip(instruments, holes[:, begin], strict=True) if is_hole]
        if names:
            yield HoleSpan(axis.begin_ns + begin * MINUTE_NS, axis.begin_ns + end * MINUTE_NS, names)


def _build_feeds(stored: StoredDay, axis: Axis, health: _Grid, ticks: np.ndarray) -> FeedSeries:
    starts = axis.starts_ns
    hours, is_ahead = starts // HOUR_NS * HOUR_NS, starts >= stored.now_ns
    books = np.array([health.sum(f"books_{feed}").sum(axis=0) for feed in FEEDS])
    is_unknown = is_ahead | np.isin(hours, sorted(stored.unpublished | stored.uncounted))
    return FeedSeries(
        books=np.where(is_unknown & (books == 0), np.nan, books),
        ticks=np.where((is_ahead | np.isin(hours, sorted(stored.unpublished))) & (ticks == 0), np.nan, ticks),
        first=np.array([health.sum(f"first_{feed}").sum(axis=0) for feed in FEEDS]),
        lag_ms=np.array([health.medians(f"lag_p{percent}_ms") for percent in ("01", "50", "99")]),
    )


def _build_quotes(stored: StoredDay, axis: Axis) -> dict[str, np.ndarray]:
    found = {name: np.full(axis.minutes, np.nan) for name in ("mid", "spread", "ask_size", "bid_size")}
    if stored.quotes:
        at = (stored.quotes["minute"] - axis.begin_ns) // MINUTE_NS
        chosen = (at >= 0) & (at < axis.minutes)
        quotes = {name: values[chosen].astype(float) for name, values in stored.quotes.items()}
        ask, bid = quotes["ask_price_1"], quotes["bid_price_1"]
        values = (ask + bid) / 2, ask - bid, quotes["total_ask_size"], quotes["total_bid_size"]
        for name, column in zip(found, values, strict=True):
            found[name][at[chosen]] = column
    return found
