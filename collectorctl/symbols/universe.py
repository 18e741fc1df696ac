"""The universe by the newest table of symbols: which of its codes are unknown, delisted or halted.

Guarantees:
    * Without a table nothing is found. A table older than FRESH_DAYS refuses nothing: what it lacks is a warning with its age.

Not handled here:
    * ELWs, which no table has: a code that begins with 5 and is not in the table is a warning.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date

from collectorctl.allocation_report import abbreviate
from collectorctl.check_messages import MESSAGES
from conf.home import Home
from conf.instrument import Instrument
from conf.loader import SETTINGS_FILE
from conf.settings import Fault
from conf.text.language import Count, Language, Texts

FRESH_DAYS = 7


def judge_universe(home: Home, today: date, language: Language = "en") -> tuple[list[Fault], list[str]]:
    """Faults and warnings about the Korean universe."""
    if not home.symbol_path(today).parent.parent.exists():
        return [], []
    from collectorctl.symbols.store import SymbolTableError, load_symbols  # pyarrow, for homes that have a table

    texts = Texts(language, MESSAGES)
    try:
        newest = load_symbols(home, today, ["symbol", "name", "halted", "nxt_eligible"])
    except SymbolTableError as error:
        return [], [texts("symbols_unreadable", reason=error)]
    if newest is None:
        return [], []
    rows = {row["symbol"]: row for row in newest.table.to_pylist()}
    universe = home.settings.instruments("kr")
    missing = list(dict.fromkeys(one.symbol for one in universe if one.symbol not in rows))
    age_days = (today - newest.day).days
    warnings = [texts("symbols_outside", names=symbol) for symbol in missing if _may_be_elw(symbol)]
    judged = [symbol for symbol in missing if not _may_be_elw(symbol)]
    listed_until = _find_last_days(home, newest.day, judged)
    delisted = [f"{symbol} {name} ({day})" for symbol, (name, day) in listed_until.items()]
    unknown = [symbol for symbol in judged if symbol not in listed_until]
    faults = []
    for code, names, old_code in (
        ("symbols_unknown", unknown, "symbols_unknown_old"),
        ("symbols_delisted", delisted, "symbols_delisted_old"),
    ):
        values = {"count": Count(len(names)), "names": abbreviate(names), "day": newest.day}
        if names and age_days <= FRESH_DAYS:
            faults.append(Fault(home.root / SETTINGS_FILE, "universe.kr", code, **values))
        elif names:
            warnings.append(texts(old_code, age_days=age_days, **values))
    present = [one for one in universe if one.symbol in rows]
    halted = _name(rows, [one for one in present if rows[one.symbol]["halted"]])
    off_nxt = _name(rows, [one for one in present if one.venue == "NXT" and rows[one.symbol]["nxt_eligible"] is False])
    for code, names in (("symbols_halted", halted), ("symbols_not_on_nxt", off_nxt)):
        if names:
            warnings.append(texts(code, count=Count(len(names)), names=abbreviate(names), day=newest.day))
    return faults, warnings


def _may_be_elw(symbol: str) -> bool:
    return symbol.startswith("5")


def _name(rows: dict[str, dict[str, object]], instruments: Iterable[Instrument]) -> list[str]:
    return [f"{one} {rows[one.symbol]['name']}" for one in instruments]


def _find_last_days(home: Home, newest: date, symbols: Iterable[str]) -> dict[str, tuple[str, date]]:
    """Name and last day of those symbols that an earlier table has; reads back only as far as there are some left."""
    from collectorctl.symbols.store import SymbolTableError, load_earlier, zip_names

    left, found = set(symbols), dict[str, tuple[str, date]]()
    tables = load_earlier(home, newest, ["symbol", "name"])
    while left:
        try:
            earlier = next(tables, None)
        except SymbolTableError:
            break  # the generator has ended: what is left counts as unknown
        if earlier is None:
            break
        names = zip_names(earlier.table)
        found |= {symbol: (names[symbol], earlier.day) for symbol in left & set(names)}
        left -= set(names)
    return found
