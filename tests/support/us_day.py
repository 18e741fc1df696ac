"""A stored day of New York's whose trades, gaps and events are known: Parquet as the writer publishes it, made without a process.

00:00  the day market's session of the 20th is still on      20:00  its next session begins, volume anew
09:30  NVDA: a trade comes twice, a fraction of a share makes no whole one, five shares are missing
10:00  BRK/B         11:59 to 12:05  no books of NVDA
"""

from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
from support.writer_data import SECOND_NS, make_books, make_home, make_ticks

from brokers.history import BAR_ROW, PageResponse
from collectorctl.recover import us_job
from collectorctl.recover.certificate import store
from collectorctl.recover.download import minute_bars
from collectorctl.recover.download.page_store import PageSequence, recovery_folder
from conf.clock import MINUTE_NS
from conf.home import Home
from conf.market import US
from ringbuf.records import EVENT, STREAM_NAMES, EventType, FeedId, Flag, Session, Venue, empty_records
from writer.journal.entries import JOURNAL, build_entries
from writer.journal.journal import Journal
from writer.publish.records import publish_records

DAY = "2026-11-20"
NEXT = "2026-11-21"
"""The day of the day market's session that begins on DAY's evening."""
SETTINGS = """[universe]
us = ["NAS.NVDA", "BAQ.NVDA", "NYS.BRK/B"]
[clock]
start = "2026-11-23T12:00:00-05:00"
speed = 1.0
"""
PRICE_E4 = 1_803_250
TRADES = [  # received, venue, cumulative volume, size
    (f"{DAY} 00:00:00.2", Venue.NASDAQ_DAY, 90, 1),  # stamped a second earlier, on the 19th
    (f"{DAY} 09:30:01.1", Venue.NASDAQ, 10, 10),
    (f"{DAY} 09:30:01.2", Venue.NASDAQ, 10, 10),
    (f"{DAY} 09:30:02.1", Venue.NASDAQ, 10, 0),
    (f"{DAY} 09:30:03.1", Venue.NASDAQ, 16, 1),
    (f"{DAY} 10:00:00.5", Venue.NYSE, 2, 2),
    (f"{DAY} 20:00:01.1", Venue.NASDAQ_DAY, 4, 4),
    (f"{DAY} 23:59:59.9", Venue.NASDAQ_DAY, 5, 1),
    ("2026-11-21 00:00:00.1", Venue.NASDAQ_DAY, 6, 1),  # stamped on the 20th
]
BOOKS = [(f"{DAY} 09:30:01", Venue.NASDAQ), (f"{DAY} 10:00:00", Venue.NYSE), (f"{DAY} 15:59:59", Venue.NASDAQ)]
EVENTS = [
    (f"{DAY} 03:00:00", EventType.STARTED, 0),
    (f"{DAY} 03:00:01", EventType.CONNECTED, 1),
    (f"{DAY} 03:00:02", EventType.ACKNOWLEDGED, 1),
    (f"{DAY} 12:00:00", EventType.DISCONNECTED, 1),
    (f"{DAY} 12:05:00", EventType.ACKNOWLEDGED, 1),
]
"""Acknowledged are the books of NVDA."""


def ny(text: str) -> int:
    """An instant of New York's, ns since 1970 UTC."""
    return int(pd.Timestamp(text, tz=US.zone_name).value)


def make_us_day(root: Path) -> Home:
    """A home with that day."""
    made = make_home(root)
    with (root / "collector.toml").open("a") as settings:
        settings.write(SETTINGS)
    home = Home(root)
    for stream, records in (("orderbook", make_us_books()), ("tick", make_us_ticks()), ("event", _make_events())):
        directory = home.data / US.name / stream
        publish_records(directory, f"us.{stream}", records, stream, made.settings.writer, SECOND_NS)
    return home


def certify_us_days(home: Home, lacking: str = "") -> None:
    """MINUTE_ONLY for what has ticks of the sessions of DAY and NEXT, with the pages that recovery would have left.

    `lacking`: of this day the list of pages has no end, so that it is INCOMPLETE.
    """
    for session in (DAY, NEXT):
        day, found = date.fromisoformat(session), []
        for one in home.settings.instruments(US.name):
            if not len(ticks := us_job.load_live_ticks(home.data, day, one)):
                continue
            minutes = np.unique(ticks[:, 0] // MINUTE_NS * MINUTE_NS)
            bars = np.zeros(len(minutes), BAR_ROW)
            bars["exch_ns"] = minutes
            bars["volume"] = [ticks[ticks[:, 0] // MINUTE_NS * MINUTE_NS == at, 1].sum() for at in minutes]
            minute_bars.save(home.data, day, {one: bars}, home.load_clock().now_ns(), "us", US)
            pages = PageSequence(recovery_folder(home.data, session, one) / us_job.PAGES_FOLDER)
            pages.clear()
            pages.add(PageResponse(b"{}", ""))
            if session != lacking:
                pages.mark_complete(rejects=0)
            found.append(us_job.compute_certificate(home.data, day, one))
        store.save(home.data, day, found, f"{session}T20:10:00-0500", US)


def journal_evening_trade(home: Home) -> None:
    """A trade of the session that begins on DAY's evening, which only the journal has."""
    journal = Journal.open(home.journal_directory("us.tick"), JOURNAL["us.tick"])
    journal.roll([])
    records = make_ticks([1], FeedId.US, ny(f"{DAY} 20:30"))
    records["symbol"], records["venue"] = b"NVDA", Venue.NASDAQ_DAY
    journal.append(build_entries("us.tick", records, journal.last_row + 1, None), {})
    journal.close()


def make_us_ticks() -> np.ndarray:
    """TRADES, received as listed."""
    ticks = make_ticks(range(len(TRADES)), FeedId.US)
    for name, values in zip(("recv_ns", "venue", "cum_volume", "size"), zip(*TRADES, strict=True), strict=True):
        ticks[name] = [ny(value) for value in values] if name == "recv_ns" else values
    ticks["price_e4"], ticks["cum_value"] = PRICE_E4, ticks["cum_volume"] * 180
    ticks["ask_price_1_e4"], ticks["bid_price_1_e4"] = PRICE_E4 + 50, PRICE_E4 - 50
    ticks["symbol"] = _name(ticks["venue"])
    ticks["exch_ns"] = (ticks["recv_ns"] // SECOND_NS - 1) * SECOND_NS
    ticks["session"] = np.where(ticks["venue"] == Venue.NASDAQ_DAY, Session.DAY_MARKET, Session.REGULAR)
    ticks["flags"] = np.where(ticks["size"] == 0, int(Flag.SIZE_ROUNDED), 0)
    ticks["seq"] = np.arange(len(ticks)) + 1
    return ticks


def make_us_books() -> np.ndarray:
    """BOOKS, of ten levels each."""
    books = make_books(range(1, len(BOOKS) + 1), FeedId.US)
    books["recv_ns"], books["venue"] = [ny(at) for at, _ in BOOKS], [venue for _, venue in BOOKS]
    books["symbol"], books["exch_ns"] = _name(books["venue"]), books["recv_ns"] // SECOND_NS * SECOND_NS
    books["cum_volume"] = np.iinfo(np.int64).min
    books["ask_price_e4"] = PRICE_E4 + 50 + 100 * np.arange(10)
    books["bid_price_e4"] = PRICE_E4 - 50 - 100 * np.arange(10)
    books["seq"] = np.arange(len(books)) + 1
    return books


def _name(venues: np.ndarray) -> list[bytes]:
    return [b"BRK/B" if venue == Venue.NYSE else b"NVDA" for venue in venues.tolist()]


def _make_events() -> np.ndarray:
    events = empty_records(EVENT, len(EVENTS))
    times, events["kind"], events["connection"] = zip(*EVENTS, strict=True)
    events["recv_ns"], events["line"] = [ny(at) for at in times], FeedId.US
    is_own = events["kind"] == EventType.ACKNOWLEDGED
    events["symbol"][is_own], events["venue"][is_own] = b"NVDA", Venue.NASDAQ
    events["stream"][is_own] = STREAM_NAMES.index("orderbook")
    events["since_ns"][events["kind"] == EventType.DISCONNECTED] = ny(f"{DAY} 11:59:00")
    events["seq"] = np.arange(len(events)) + 1
    return events
