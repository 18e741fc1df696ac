"""US recovery job: minute bars of a day, and how far the live ticks agree with them; the market has no list of trades.

    minute bars, page by page ─> data/us/bar_1m/date=D/part-0.parquet ─┐
    data/us/tick, rows of that session's day ──────────────────────────┴─> MINUTE_ONLY ─> data/us/completeness/date=D/

Guarantees:
    * Stored pages are used before anything is fetched, so a killed run is resumed; a run that finds nothing new changes no
      byte.
    * Ticks are never changed; the certificate can be computed again from files alone.
    * A day of which a minute cannot be read is INCOMPLETE, and is asked for again by the next run.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from datetime import date, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from brokers.history import PageRequest, open_history
from collectorctl.disk import retired
from collectorctl.disk.guard import require_space
from collectorctl.recover.certificate import store
from collectorctl.recover.certificate.certify import Certificate, Grade
from collectorctl.recover.download import minute_bars
from collectorctl.recover.download.page_store import PageSequence, recovery_folder
from collectorctl.recover.download.pager import FetchError, NoAnswer, ProgressCallback, ThrottledClient, fetch_pages
from collectorctl.recover.horizon import DayUnavailable
from collectorctl.recover.job import DayNotReady, recovery_lock
from collectorctl.recover.store import day_ticks, table_file
from conf.clock import KST, MINUTE_NS, SECOND_NS, floor_to_hour, to_kst
from conf.home import Home
from conf.instrument import Instrument
from conf.market import US, hours_of
from writer.catalog import find_partitions

BROKER = "us"
PAGES_FOLDER = "minutes"
NO_TRADES = "no list of trades exists: minute bars are all there is"
MAX_RESIDUALS = 40

_EMPTY_VALUES: dict[Any, Any] = {str: "", int: 0, int | None: None, bool: False, list[str]: []}
EMPTY_CERTIFICATE = {field.name: _EMPTY_VALUES[field.type] for field in msgspec.structs.fields(Certificate)}
"""A certificate of a day without trades to check."""


class DayState(msgspec.Struct):
    """An instrument's day before a run: live ticks, stored bars, stored pages."""

    instrument: str
    live_ticks: int
    minutes: int
    pages: int


def check_recoverable(home: Home, day: date, venues: Iterable[str]) -> None:
    """DayUnavailable for a day without a session; DayNotReady while one lasts or hours are unpublished."""
    if gone := retired.describe_sessions(home.data, day, ("tick", "orderbook"), US):
        raise DayUnavailable(f"{gone}: there is nothing to recover: take the day from a copy")
    calendar, now_ns = home.load_calendar(), home.load_clock().now_ns()
    bounds: list[int] = []
    for venue in sorted(set(venues)):
        if day > calendar.trading_day(venue, now_ns):
            raise DayUnavailable(f"{day}: is in the future")
        if reason := calendar.closed_reason(venue, day):
            raise DayUnavailable(f"{day}: {reason}, without a session: name a trading day")
        spans = calendar.phase_spans(venue, day)
        if spans and now_ns < spans[-1].end_ns:
            end = datetime.fromtimestamp(spans[-1].end_ns // SECOND_NS, hours_of(venue).zone)
            raise DayNotReady(f"{day}: the session of {venue} is over at {end:%Y-%m-%d %H:%M %Z}: recover it then")
        bounds += [spans[0].begin_ns, spans[-1].end_ns] if spans else []
    # hours of these sessions only: the day market's next one begins while New York's date is still this one
    begin_ns, end_ns = floor_to_hour(min(bounds, default=0)), max(bounds, default=0)
    if unpublished := day_ticks.find_unpublished_between(home, US, begin_ns, end_ns):
        raise DayNotReady(
            f"{day}: hours are still in the journal ({', '.join(unpublished)}): `collectorctl stop` publishes them, or wait "
            "until the writer has; then recover again"
        )


def load_day_states(home: Home, day: date, instruments: Iterable[Instrument]) -> list[DayState]:
    """The state of the day, from files alone."""
    return [
        DayState(
            str(one),
            len(load_live_ticks(home.data, day, one)),
            len(load_bars(home.data, day, one)),
            _open_pages(home.data, day, one).count,
        )
        for one in instruments
    ]


def recover(
    home: Home,
    day: date,
    instruments: Iterable[Instrument],
    on_progress: ProgressCallback,
    on_instrument: Callable[[Instrument], object] = lambda _: None,
) -> list[Certificate]:
    """Fetch and store the bars of each instrument, and certify.

    `on_instrument` is called before each; failures that concern one instrument are messages for `on_progress`. DayUnavailable,
    AlreadyRunning, SettingsError, and what is in job.FAILURES.
    """
    instruments = sorted(instruments)
    check_recoverable(home, day, {one.venue for one in instruments})
    fd = recovery_lock(home)
    try:
        history = open_history(home, BROKER)
        try:
            client = ThrottledClient(history, home.settings.recover, on_progress, partial(require_space, home))
            return _recover(home, client, day, instruments, on_progress, on_instrument)
        finally:
            history.close()
    finally:
        os.close(fd)


def _recover(
    home: Home,
    client: ThrottledClient,
    day: date,
    instruments: list[Instrument],
    on_progress: ProgressCallback,
    on_instrument: Callable[[Instrument], object],
) -> list[Certificate]:
    asked_ns = home.load_clock().now_ns()
    for one in instruments:
        on_instrument(one)
        require_space(home)
        try:
            rows = _fetch_bars(home, client, day, one)
        except NoAnswer:
            raise
        except FetchError as error:
            on_progress(f"{one}: {error}")
            continue
        if rejects := _count_rejects(_open_pages(home.data, day, one)):
            on_progress(f"{one}: {rejects} minute bars cannot be read")
        if len(rows):
            minute_bars.save(home.data, day, {one: rows}, asked_ns, BROKER, US)
    made_at = f"{to_kst(home.load_clock().now_ns()):%Y-%m-%dT%H:%M:%S%z}"
    certificates = [compute_certificate(home.data, day, one) for one in instruments]
    return store.save(home.data, day, certificates, made_at, US)


def _fetch_bars(home: Home, client: ThrottledClient, day: date, instrument: Instrument) -> np.ndarray:
    """BAR_ROW of that day's session, oldest first. FetchError."""
    if hours_of(instrument.venue).zone is KST and day != home.load_calendar().trading_day(
        instrument.venue, home.load_clock().now_ns()
    ):
        raise FetchError("the day market's bars can be had on their own day only")
    begin_ns, end_ns = _compute_day_bounds(home, day, instrument)
    sequence = _open_pages(home.data, day, instrument)
    if _count_rejects(sequence):
        sequence.clear()
    rows = fetch_pages(
        client,
        sequence,
        PageRequest("bars", instrument, day),
        client.history.parse_bars,
        ("exch_ns", begin_ns),
    )
    rows = rows[(rows["exch_ns"] >= begin_ns) & (rows["exch_ns"] < end_ns)]
    if (np.diff(rows["exch_ns"]) <= 0).any():
        raise FetchError(f"the minutes of {day} are not in order")
    return rows


def _open_pages(data: Path, day: date, instrument: Instrument) -> PageSequence:
    return PageSequence(recovery_folder(data, str(day), instrument) / PAGES_FOLDER)


def _count_rejects(sequence: PageSequence) -> int:
    """Rows of a complete sequence that could not be read."""
    return int((sequence.end_record or {}).get("rejects", 0))


def _compute_day_bounds(home: Home, day: date, instrument: Instrument) -> tuple[int, int]:
    """The calendar day of the venue's sessions, [begin, end) in ns."""
    zone = hours_of(instrument.venue).zone
    begin, end = (
        round(datetime(at.year, at.month, at.day, tzinfo=zone).timestamp()) * SECOND_NS
        for at in (day, day + timedelta(days=1))
    )
    return begin, end


def load_live_ticks(data: Path, day: date, instrument: Instrument) -> np.ndarray:
    """(exch_ns, size) of the live ticks of that session's day, int64, shape (n, 2)."""
    wanted = [("symbol", "=", instrument.symbol), ("venue", "=", instrument.venue), ("business_date", "=", day)]
    tables = [
        pq.read_table(path, columns=["exch_time", "size"], filters=wanted, partitioning=None)
        for near in US.dates_of_rows(day)
        for path in find_partitions(data / US.name / "tick", near)
    ]
    if not tables:
        return np.zeros((0, 2), np.int64)
    table = pa.concat_tables(tables)
    return np.column_stack([table.column("exch_time").cast(pa.int64()).to_numpy(), table.column("size").to_numpy()])


def load_bars(data: Path, day: date, instrument: Instrument) -> np.ndarray:
    """(minute, volume) of the stored bars, int64, shape (n, 2)."""
    table = table_file.read(minute_bars.bars_path(data, day, US))
    if table is None:
        return np.zeros((0, 2), np.int64)
    is_instrument = pc.and_(
        pc.equal(table.column("symbol"), instrument.symbol), pc.equal(table.column("venue"), instrument.venue)
    )
    table = table.filter(is_instrument)
    return np.column_stack([table.column("time").cast(pa.int64()).to_numpy(), table.column("volume").to_numpy()])


def compute_certificate(data: Path, day: date, instrument: Instrument) -> Certificate:
    """The certificate of an instrument's day, from files alone."""
    minutes, ticks = load_bars(data, day, instrument), load_live_ticks(data, day, instrument)
    sequence = _open_pages(data, day, instrument)
    differences = _compare_minutes(minutes, ticks)
    reasons = [NO_TRADES]
    if not len(minutes):
        reasons.append("there are no minute bars")
    elif differences:
        reasons.append(f"{len(differences)} minutes of live ticks differ from the minute bars")
    if sequence.end_record is None:
        reasons.append("the list of pages is incomplete")
    if rejects := _count_rejects(sequence):
        reasons.append(f"{rejects} minute bars cannot be read: recover again")
    is_complete = len(minutes) > 0 and sequence.end_record is not None and not rejects
    fields = {
        "symbol": instrument.symbol,
        "venue": instrument.venue,
        "certificate": Grade.MINUTE_ONLY if is_complete else Grade.INCOMPLETE,
        "live_ticks": len(ticks),
        "live_shares": int(ticks[:, 1].sum()),
        "missing_shares": sum(shares for shares in differences.values() if shares > 0),
        "residuals": [
            f"{US.to_local(at):%H:%M} {shares:+}" for at, shares in list(differences.items())[:MAX_RESIDUALS]
        ],
        "minutes": len(minutes),
        "minutes_agree": len(minutes) > 0 and not differences,
        "pages": sequence.count,
        "pages_complete": sequence.end_record is not None,
        "reasons": reasons,
    }
    return Certificate(**EMPTY_CERTIFICATE | fields)


def _compare_minutes(minutes: np.ndarray, ticks: np.ndarray) -> dict[int, int]:
    """Minute (ns) -> shares that its live ticks lack against its bar (negative: have more), where they differ."""
    sums: dict[int, int] = {}
    for at, shares in minutes.tolist():
        sums[at] = sums.get(at, 0) + shares
    for at, shares in zip((ticks[:, 0] // MINUTE_NS * MINUTE_NS).tolist(), ticks[:, 1].tolist(), strict=True):
        sums[at] = sums.get(at, 0) - shares
    return {at: shares for at, shares in sorted(sums.items()) if shares}
