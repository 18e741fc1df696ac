"""A day of a market that sells no list of its trades (the US): its minute bars, and how far the live ticks agree with them.

    minute bars, page by page ─> data/us/bar_1m/date=D/part-0.parquet ─┐
    data/us/tick, rows of that session's day ──────────────────────────┴─> MINUTE_ONLY ─> data/us/completeness/date=D/

Promises: pages that are kept are used before anything is asked, so that a run that was killed goes on; a run that finds nothing new
changes no byte; ticks are never touched; the certificate can be made again from files alone.
Leaves to others: the calls (brokers/us/quotes.py), pages (fetch.py, pages.py), the commands' words (command.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, datetime, timedelta
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from brokers.history import BARS, Asked
from collectorctl.recover.certificate import store
from collectorctl.recover.certificate.certify import MINUTE_NS, Certificate, Grade
from collectorctl.recover.download import minute_bars
from collectorctl.recover.download.page_store import Chain, folder
from collectorctl.recover.download.pager import Caller, FetchError, Told, Unanswered, fetch
from collectorctl.recover.horizon import OutOfReach
from collectorctl.recover.store import day_ticks, table_file
from conf.clock import KST, SECOND_NS, korean
from conf.home import Home
from conf.instrument import Instrument
from conf.market import US, hours_of

BROKER = "us"
CHAIN = "minutes"
NO_TRADES = "no list of trades exists: minute bars are all there is"
RESIDUALS_MOST = 40

_NONE = {str: "", int: 0, int | None: None, bool: False, list[str]: []}
NOTHING = {field.name: _NONE[field.type] for field in msgspec.structs.fields(Certificate)}
"""A certificate of a day without trades to judge."""


class NotOver(Exception):
    """The day cannot be recovered yet; the message says why and what to do."""


class Standing(msgspec.Struct):
    """An instrument's day before a run: live ticks, bars that are stored, pages that are kept."""

    instrument: str
    live_ticks: int
    minutes: int
    pages: int


def check(home: Home, of: date, venues: Iterable[str]) -> None:
    """OutOfReach for a day that has, or had, no session; NotOver while one lasts or hours are unpublished."""
    calendar, now_ns = home.calendar(), home.clock().now_ns()
    for venue in sorted(set(venues)):
        if of > calendar.day(venue, now_ns):
            raise OutOfReach(f"{of}: is in the future")
        if why := calendar.why_closed(venue, of):
            raise OutOfReach(f"{of}: {why}, without a session: name a trading day")
        spans = calendar.spans(venue, of)
        if spans and now_ns < spans[-1].end_ns:
            over = datetime.fromtimestamp(spans[-1].end_ns // SECOND_NS, hours_of(venue).zone)
            raise NotOver(f"{of}: the session of {venue} is over at {over:%Y-%m-%d %H:%M %Z}: recover it then")
    if waiting := day_ticks.unpublished(home, of, US):
        raise NotOver(
            f"{of}: hours are still in the journal ({', '.join(waiting)}): `collectorctl stop` publishes them, or wait "
            "until the writer has; then recover again"
        )


def standing(home: Home, of: date, instruments: Iterable[Instrument]) -> list[Standing]:
    """How the day stands, from files alone."""
    return [
        Standing(
            str(one),
            len(live_ticks(home.data, of, one)),
            len(stored(home.data, of, one)),
            Chain(folder(home.data, str(of), one) / CHAIN).count,
        )
        for one in instruments
    ]


def recover(home: Home, caller: Caller, of: date, instruments: Iterable[Instrument], told: Told) -> list[Certificate]:
    """Fetch and store the bars of each instrument, and certify. Unanswered, OSError; other failures are told, and one's own."""
    instruments = sorted(instruments)
    for one in instruments:
        try:
            rows = _fetched(home, caller, of, one)
        except Unanswered:
            raise
        except FetchError as error:
            told(f"{one}: {error}")
            continue
        if len(rows):
            minute_bars.keep(home.data, of, {one: [list(row) for row in rows.tolist()]}, BROKER, US)
    made_at = f"{korean(home.clock().now_ns()):%Y-%m-%dT%H:%M:%S%z}"
    certificates = [judge(home.data, of, one) for one in instruments]
    return store.keep(home.data, of, certificates, made_at, US)


def _fetched(home: Home, caller: Caller, of: date, one: Instrument) -> np.ndarray:
    """BARS of that day's session, oldest first. FetchError."""
    if hours_of(one.venue).zone is KST and of != home.calendar().day(one.venue, home.clock().now_ns()):
        raise FetchError("the day market's bars can be had on their own day only")
    begin_ns, end_ns = _session(home, of, one)
    chain = Chain(folder(home.data, str(of), one) / CHAIN)
    fetch(
        caller,
        chain,
        Asked("bars", one, of),
        caller.quotes.bars,
        lambda rows: bool(rows["exch_ns"].min() < begin_ns),
    )
    pages = [caller.quotes.bars(content) for content in chain]
    rows = np.concatenate([np.zeros(0, BARS), *pages])[::-1]
    rows = rows[(rows["exch_ns"] >= begin_ns) & (rows["exch_ns"] < end_ns)]
    if (np.diff(rows["exch_ns"]) <= 0).any():
        raise FetchError(f"the minutes of {of} are not in order")
    return rows


def _session(home: Home, of: date, one: Instrument) -> tuple[int, int]:
    """The calendar day of the venue's sessions, [begin, end) in ns."""
    zone = hours_of(one.venue).zone
    begin, end = (
        round(datetime(at.year, at.month, at.day, tzinfo=zone).timestamp()) * SECOND_NS
        for at in (of, of + timedelta(days=1))
    )
    return begin, end


def live_ticks(data: Path, of: date, one: Instrument) -> np.ndarray:
    """(exch_ns, size) of the live ticks of that session's day, int64, shape (n, 2)."""
    wanted = [("symbol", "=", one.symbol), ("venue", "=", one.venue), ("business_date", "=", of)]
    tables = [
        pq.read_table(path, columns=["exch_time", "size"], filters=wanted, partitioning=None)
        for near in (of - timedelta(days=1), of)  # a day market's session begins on the evening before
        for path in day_ticks.parts(data / US.name / "tick", near)
    ]
    if not tables:
        return np.zeros((0, 2), np.int64)
    table = pa.concat_tables(tables)
    return np.column_stack([table.column("exch_time").cast(pa.int64()).to_numpy(), table.column("size").to_numpy()])


def stored(data: Path, of: date, one: Instrument) -> np.ndarray:
    """(minute, volume) of the stored bars, int64, shape (n, 2)."""
    table = table_file.read(minute_bars.file(data, of, US))
    if table is None:
        return np.zeros((0, 2), np.int64)
    mine = pc.and_(pc.equal(table.column("symbol"), one.symbol), pc.equal(table.column("venue"), one.venue))
    table = table.filter(mine)
    return np.column_stack([table.column("time").cast(pa.int64()).to_numpy(), table.column("volume").to_numpy()])


def judge(data: Path, of: date, one: Instrument) -> Certificate:
    """The certificate of an instrument's day, from files alone."""
    minutes, ticks = stored(data, of, one), live_ticks(data, of, one)
    chain = Chain(folder(data, str(of), one) / CHAIN)
    lacks = _lacks(minutes, ticks)
    reasons = [NO_TRADES]
    if not len(minutes):
        reasons.append("there are no minute bars")
    elif lacks:
        reasons.append(f"{len(lacks)} minutes of live ticks differ from the minute bars")
    if chain.ended is None:
        reasons.append("the list of pages is not whole")
    whole = len(minutes) > 0 and chain.ended is not None
    told = {
        "symbol": one.symbol,
        "venue": one.venue,
        "certificate": Grade.MINUTE_ONLY if whole else Grade.INCOMPLETE,
        "live_ticks": len(ticks),
        "live_shares": int(ticks[:, 1].sum()),
        "missing_shares": sum(shares for shares in lacks.values() if shares > 0),
        "residuals": [f"{US.local(at):%H:%M} {shares:+}" for at, shares in list(lacks.items())[:RESIDUALS_MOST]],
        "minutes": len(minutes),
        "minutes_agree": len(minutes) > 0 and not lacks,
        "pages": chain.count,
        "pages_chain": chain.ended is not None,
        "reasons": reasons,
    }
    return Certificate(**NOTHING | told)


def _lacks(minutes: np.ndarray, ticks: np.ndarray) -> dict[int, int]:
    """Minute (ns) -> shares that its live ticks lack against its bar (negative: have more), where they differ."""
    sums: dict[int, int] = {}
    for at, shares in minutes.tolist():
        sums[at] = sums.get(at, 0) + shares
    for at, shares in zip((ticks[:, 0] // MINUTE_NS * MINUTE_NS).tolist(), ticks[:, 1].tolist(), strict=True):
        sums[at] = sums.get(at, 0) - shares
    return {at: shares for at, shares in sorted(sums.items()) if shares}
