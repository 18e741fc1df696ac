"""Record of the market data of a day that retention removed.

    data/retired/MARKET/2026-10-05.json    written before the first file goes, kept for ever

Guarantees:
    * A day of which one file is gone has its record: whoever finds less of it than there was knows why.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import date
from pathlib import Path
from typing import NamedTuple

import msgspec

from conf.market import KR, Market, MarketDate
from writer import durable_io
from writer.publish.verified_file import PartitionWriteError

SCHEMA_VERSION = 1


class FileTotals(NamedTuple):
    """How many files, of how many bytes."""

    files: int
    bytes: int


class RetiredDataset(msgspec.Struct, frozen=True):
    """What there was when its removal began, on the day `on` (YYYY-MM-DD)."""

    on: str
    files: int
    bytes: int


class RetiredDay(msgspec.Struct, frozen=True):
    """A day; `datasets`: by name, as "tick"."""

    schema: int
    date: str
    datasets: dict[str, RetiredDataset]


def record(data: Path, day: date, found: Mapping[str, FileTotals], today: date, market: Market = KR) -> None:
    """Record, durably, that these datasets of a day go; the first record of one stays. PartitionWriteError, OSError."""
    known = load(data, day, market)
    new = {name: RetiredDataset(str(today), *totals) for name, totals in found.items()}
    one = RetiredDay(SCHEMA_VERSION, str(day), new | (known.datasets if known else {}))
    if one != known:
        path = _name(data, day, market)
        durable_io.create_directory(path.parent)
        durable_io.replace(path, msgspec.json.format(msgspec.json.encode(one), indent=1))


def load(data: Path, day: date, market: Market = KR) -> RetiredDay | None:
    """The record of a day; None: nothing of it was removed. PartitionWriteError: it cannot be read; OSError."""
    path = _name(data, day, market)
    try:
        return msgspec.json.decode(path.read_bytes(), type=RetiredDay)
    except FileNotFoundError:
        return None
    except msgspec.MsgspecError as error:
        raise PartitionWriteError(f"{path}: cannot be read: {error}: take it from a backup of the home") from error


def describe(data: Path, day: date, among: Collection[str] = (), market: Market = KR) -> str:
    """That datasets of a day, or of `among` these, were removed, in words; "" if none was. PartitionWriteError, OSError."""
    found = load(data, day, market)
    names = sorted(name for name in found.datasets if name in among or not among) if found else []
    if not found or not names:
        return ""
    where = MarketDate(market.name, day)
    return f"{where}: retired by retention on {found.datasets[names[0]].on}: {', '.join(names)}"


def describe_sessions(data: Path, day: date, among: Collection[str], market: Market) -> str:
    """The same of the dates under which rows of a day's sessions lie. PartitionWriteError, OSError."""
    return "; ".join(gone for one in market.dates_of_rows(day) if (gone := describe(data, one, among, market)))


def _name(data: Path, day: date, market: Market) -> Path:
    return data / "retired" / market.name / f"{day}.json"
