"""Update of the table of symbols from the vendors' masters.

    each vendor ──fetch, parse──> lists ──build_table──> data/kr/symbol/date=TODAY

Guarantees:
    * A vendor whose list cannot be fetched or read whole contributes nothing, and is reported with the reason.
    * A day's table is not replaced by one of fewer vendors, nor stored if a vendor lists far fewer symbols than the last time: both
      would make symbols look delisted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from brokers.errors import RestError
from brokers.symbols import VENDORS, SymbolRow, open_symbols
from collectorctl.symbols.store import SymbolTable, load_symbols, store_symbols
from collectorctl.symbols.table import Difference, build_table
from conf.clock import to_kst
from conf.home import Home
from conf.settings import SettingsError

MIN_SHARE = 0.9
"""Of the symbols that a vendor listed the last time; in a year a few in a hundred go."""


class VendorReport(msgspec.Struct, frozen=True):
    """How many symbols a vendor listed. `error`: why none; `skipped`: it was not asked, for lack of a key."""

    vendor: str
    symbols: int
    error: str = ""
    skipped: bool = False


class UpdateReport(msgspec.Struct, frozen=True):
    """What an update did. `path`: the file that was stored, "" for none; `reason`: why none."""

    day: date
    path: str
    reason: str
    symbols: int
    vendors: list[VendorReport]
    differences: list[Difference]

    @property
    def is_complete(self) -> bool:
        """Whether every vendor that has a key was read, and the table stored."""
        return bool(self.path) and not any(one.error and not one.skipped for one in self.vendors)


def update_symbols(home: Home) -> UpdateReport:
    """Fetch all lists and store the table of today. OSError, PartitionWriteError, SymbolTableError."""
    day = to_kst(home.load_clock().now_ns()).date()
    lists: dict[str, Sequence[SymbolRow]] = {}
    vendors = []
    for vendor in VENDORS:
        try:
            lists[vendor] = open_symbols(home, vendor)()
            vendors.append(VendorReport(vendor, len(lists[vendor])))
        except SettingsError as error:
            vendors.append(VendorReport(vendor, 0, str(error), skipped=True))
        except RestError as error:
            vendors.append(VendorReport(vendor, 0, str(error)))
    table, differences = build_table(lists)
    reason = find_objection(table, lists, load_symbols(home, day, [f"in_{vendor}" for vendor in VENDORS]), day)
    path = "" if reason else str(store_symbols(home, day, table))
    return UpdateReport(day, path, reason, table.num_rows, vendors, differences)


def find_objection(
    table: pa.Table, lists: Mapping[str, Sequence[SymbolRow]], last: SymbolTable | None, day: date
) -> str:
    """Why the table must not become that of `day`; "" if it may."""
    if not lists:
        return "no vendor's list could be read"
    for vendor in VENDORS:
        before = 0 if last is None else pc.sum(last.table[f"in_{vendor}"]).as_py() or 0
        now = pc.sum(table[f"in_{vendor}"]).as_py() or 0
        if last is not None and last.day == day and before and vendor not in lists:
            return f"the table of {day} has {vendor}'s list as well: it stays; try again"
        if vendor in lists and now < MIN_SHARE * before:
            return (
                f"{vendor} lists {now} symbols, {before} on {last.day if last else day}: that is a list cut short; try again "
                f"later, or remove {last.path.parent if last else ''} if it is right"
            )
    return ""
