"""Retention rule: which files go, by name, age and size (pure).

    quarantine    data/quarantine/date=D/...              days since D; a date with an interrupted reprocess stays whole
    capture       data/capture/FEED/TIME.jsonl.gz         days since its last change; the newest of a feed stays
    staging       data/recover/date=D/INSTRUMENT/...      days since D, where the instrument's day is certified for good
    uncertified   the same                                days since D, where it is not
                  data/recover/backfill/date=D/...        days since D, of the same two kinds: pages of a backfill begun on D
    log           log/NAME.TIME.log, log/NAME.out.N       days since its last change; only rotated ones
    DATASET       data/kr/DATASET/date=D/...              days since D, where the market data of D may go (market_days.py)
                                                          and D is not one of the newest; orderbook, tick, event, feed_health
    us_DATASET    data/us/DATASET/date=D/...              the same of the US market; orderbook, tick, event

Guarantees:
    * A file that is of none of these kinds stays: journal, certificates and their evidence, among it the fetched minutes of
      US days, minute bars, symbols.
    * A kind with 0 days stays for ever; a file stays until its age in days is over the number of its kind.
    * The files of a folder go in an order of which every beginning leaves a valid sequence of pages: the mark of its end first.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Set
from datetime import date
from enum import StrEnum
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import NamedTuple

import msgspec

from collectorctl.recover.download.page_store import END_FILE
from conf.clock import DAY_NS
from conf.market import KR, MARKETS, US, MarketDate
from conf.settings import Retention

_DATE = r"date=(?P<date>\d{4}-\d{2}-\d{2})"
_QUARANTINED = re.compile(rf"data/quarantine/{_DATE}/(?P<name>.+)")
_CAPTURED = re.compile(r"data/capture/[^/]+/[^/]+\.jsonl\.gz")
_FETCHED = re.compile(
    rf"data/recover/(backfill/)?{_DATE}/(?P<folder>[^/]+)/"
    r"((chart|ticks|(bars|trades|prints)-[^/]+)/[^/]+|filled-\d+\.npy|\.evidence\.json\.tmp)"
)
_ROTATED = re.compile(r"log/[^/]+\.(\d{4}-\d{2}-\d{2}_\d{2}-\d{2}-\d{2}_\d{6}(\.\d+)?\.log|(out|log)\.\d+)")
_MARKET = re.compile(rf"data/(?P<market>[^/]+)/(?P<dataset>[^/]+)/{_DATE}/(hour=[^/]+/)?part-[^/]+\.parquet")
_PENDING = "placing-"


class Kind(StrEnum):
    """A kind of files; [retention] has its days."""

    QUARANTINE = "quarantine"
    CAPTURE = "capture"
    STAGING = "staging"
    UNCERTIFIED = "uncertified"
    LOG = "log"
    ORDERBOOK = "orderbook"
    TICK = "tick"
    EVENT = "event"
    FEED_HEALTH = "feed_health"
    US_ORDERBOOK = "us_orderbook"
    US_TICK = "us_tick"
    US_EVENT = "us_event"


NEWEST_KEPT = 3
"""Newest days with market data, which stay whatever their age: a writer that starts counts their feed_health again."""

MARKET_KINDS = {
    Kind.ORDERBOOK: (KR.name, "orderbook"),
    Kind.TICK: (KR.name, "tick"),
    Kind.EVENT: (KR.name, "event"),
    Kind.FEED_HEALTH: (KR.name, "feed_health"),
    Kind.US_ORDERBOOK: (US.name, "orderbook"),
    Kind.US_TICK: (US.name, "tick"),
    Kind.US_EVENT: (US.name, "event"),
}
"""Market and dataset of the kinds of market data."""

_KIND_BY_DATASET = {dataset: kind for kind, dataset in MARKET_KINDS.items()}


class StoredFile(NamedTuple):
    """A regular file: its path below data/ or log/ of the home, with that name in front, bytes, last change (ns since 1970)."""

    path: PurePosixPath
    size: int
    mtime_ns: int


class Removal(msgspec.Struct, frozen=True):
    """A file that goes."""

    kind: Kind
    path: str
    bytes: int
    mtime_ns: int


class KindTotals(msgspec.Struct, frozen=True):
    """What there is of a kind, and what of it goes."""

    kind: Kind
    days: int
    files: int
    bytes: int
    removable_files: int
    removable_bytes: int


class CleanPlan(msgspec.Struct, frozen=True):
    """What goes, in order, the totals of every kind, and why days of market data stay that are over."""

    removals: list[Removal]
    kinds: list[KindTotals]
    kept: list[str] = []


class RetentionClock(NamedTuple):
    """The day of the home's clock, for names; the time of the machine, for last changes (ns since 1970)."""

    today: date
    now_ns: int


def plan_removal(
    files: Iterable[StoredFile],
    retention: Retention,
    clock: RetentionClock,
    certified: Mapping[str, Set[str]],
    obstacles: Mapping[MarketDate, str] = MappingProxyType({}),
) -> CleanPlan:
    """What goes.

    Args:
        files: all there are.
        retention: the days of each kind.
        clock: what ages are counted from.
        certified: by date, folders of recovery with a final certificate; a date that is not in it stays.
        obstacles: by day, why its market data stay, "" for nothing; those of a day that is not in it stay.
    """
    may_go = {day for day, reason in obstacles.items() if not reason}
    known = [(file, found) for file in files if (found := _classify(file, clock, certified, may_go)) is not None]
    pending = {
        match["date"]
        for file, _ in known
        if (match := _QUARANTINED.fullmatch(str(file.path))) and match["name"].startswith(_PENDING)
    }
    newest: dict[PurePosixPath, PurePosixPath] = {}
    for file, (kind, _) in known:
        if kind is Kind.CAPTURE:
            newest[file.path.parent] = max(file.path, newest.get(file.path.parent, file.path))
    removals = [
        Removal(kind, str(file.path), file.size, file.mtime_ns)
        for file, (kind, age_days) in sorted(known, key=lambda one: one[0].path.name, reverse=True)
        if 0 < get_days(retention, kind) < age_days
        and file.path != newest.get(file.path.parent)
        and not any(f"data/quarantine/date={day}" in map(str, file.path.parents) for day in pending)
    ]
    removals.sort(key=_order)
    totals = [_sum_kind(kind, retention, known, removals) for kind in Kind]
    return CleanPlan(removals, totals, [obstacles[day] for day in sorted(obstacles) if obstacles[day]])


def get_days(retention: Retention, kind: Kind) -> int:
    """The days of a kind; 0: for ever."""
    return int(getattr(retention, f"{kind}_days"))


def is_enabled(retention: Retention) -> bool:
    """Whether anything is ever removed."""
    return any(get_days(retention, kind) for kind in Kind)


def find_market_dates(files: Iterable[StoredFile], retention: Retention, today: date) -> set[MarketDate]:
    """The days of which market data are older than their days, but for each market's NEWEST_KEPT."""
    named = {found for file in files if (found := _parse_market_file(str(file.path)))}
    days = sorted({one for _, one in named})
    newest = {one for market in MARKETS for one in [day for day in days if day.market == market][-NEWEST_KEPT:]}
    return {one for kind, one in named if 0 < get_days(retention, kind) < (today - one.day).days and one not in newest}


def parse_market_date(removal: Removal) -> MarketDate | None:
    """The day whose market data a removal takes; None: it takes something else."""
    found = _parse_market_file(removal.path)
    return found[1] if found else None


def _parse_market_file(name: str) -> tuple[Kind, MarketDate] | None:
    """Kind and day of a file of market data; None for any other."""
    if not (match := _MARKET.fullmatch(name)):
        return None
    kind, day = _KIND_BY_DATASET.get((match["market"], match["dataset"])), _parse_date(match["date"])
    return None if kind is None or day is None else (kind, MarketDate(match["market"], day))


def find_recovery_dates(files: Iterable[StoredFile]) -> set[date]:
    """The days of which recovery has files."""
    dates = (_parse_date(match["date"]) for file in files if (match := _FETCHED.fullmatch(str(file.path))))
    return {day for day in dates if day is not None}


def _classify(
    file: StoredFile, clock: RetentionClock, certified: Mapping[str, Set[str]], may_go: Set[MarketDate]
) -> tuple[Kind, float] | None:
    """Kind and age in days of a file; None for one that stays whatever its age."""
    name = str(file.path)
    changed_days = (clock.now_ns - file.mtime_ns) / DAY_NS
    if _CAPTURED.fullmatch(name):
        return Kind.CAPTURE, changed_days
    if _ROTATED.fullmatch(name):
        return Kind.LOG, changed_days
    if found := _parse_market_file(name):
        kind, one = found
        return kind, (clock.today - one.day).days * (one in may_go)
    if match := _QUARANTINED.fullmatch(name):
        day = _parse_date(match["date"])
        return None if day is None else (Kind.QUARANTINE, (clock.today - day).days)
    if (match := _FETCHED.fullmatch(name)) and match["date"] in certified:
        day = _parse_date(match["date"])
        kind = Kind.STAGING if match["folder"] in certified[match["date"]] else Kind.UNCERTIFIED
        return None if day is None else (kind, (clock.today - day).days)
    return None


def _parse_date(text: str) -> date | None:
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None


def _order(removal: Removal) -> tuple[Kind, PurePosixPath, bool]:
    path = PurePosixPath(removal.path)
    return removal.kind, path.parent, path.name != END_FILE


def _sum_kind(
    kind: Kind,
    retention: Retention,
    known: Iterable[tuple[StoredFile, tuple[Kind, float]]],
    removals: Iterable[Removal],
) -> KindTotals:
    sizes = [file.size for file, (one, _) in known if one is kind]
    going = [removal.bytes for removal in removals if removal.kind is kind]
    return KindTotals(kind, get_days(retention, kind), len(sizes), sum(sizes), len(going), sum(going))
