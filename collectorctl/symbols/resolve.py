"""Resolution of the universe: expressions become the list in force, and the record of what was in force on a day.

    universe.kr ──newest table of symbols──> UniverseList ──put_in_force──> data/universe/date=TODAY.json, run/universe.json

Guarantees:
    * A selection that cannot be made, or is much smaller than asked for, is a fault; then nothing is put in force.
    * A dated list is written whole, once, and never replaced; a list in force is replaced whole.
    * The days of a home of codes alone are not recorded by a start, unless some were before.
"""

from __future__ import annotations

import hashlib
from datetime import date
from pathlib import Path

import msgspec

from conf.clock import to_kst
from conf.files.replacement import read_replaced, replace_file
from conf.home import Home
from conf.instrument import parse_instrument
from conf.loader import SETTINGS_FILE
from conf.settings import Fault, SettingsError
from conf.universe.listing import (
    UniverseList,
    format_dated_name,
    has_expressions,
    is_expression,
    parse_dated_name,
    parse_expression,
)
from writer import durable_io

MIN_SHARE = 0.9
"""Of what an expression asks for; fewer come of a table that was cut short, or of a number beyond what there is."""


def resolve_universe(home: Home) -> UniverseList:
    """What the universe of the settings means today; what is in force does not matter. SettingsError with every fault."""
    universe = home.settings.universe
    if not has_expressions(universe.kr):
        return UniverseList(entries=universe.kr, table_day=None, kr=universe.kr, us=universe.us)
    from collectorctl.symbols.selection import (
        COLUMNS,
        SelectionError,
        select_symbols,
    )  # pyarrow, for homes that need it
    from collectorctl.symbols.store import SymbolTableError, load_symbols

    expressions = ", ".join(entry for entry in universe.kr if is_expression(entry))
    try:
        newest = load_symbols(home, find_today(home), COLUMNS)
    except SymbolTableError as error:
        raise _refuse(home, "universe_table_unreadable", reason=error) from None
    if newest is None:
        raise _refuse(home, "universe_no_table", expressions=expressions)
    codes: dict[str, None] = {}
    faults: list[Fault] = []
    for entry in universe.kr:
        if not is_expression(entry):
            codes[entry] = None
            continue
        try:
            selected = select_symbols(entry, newest.table)
        except SelectionError:
            values = {"expression": entry, "day": newest.day}
            faults.append(Fault(home.root / SETTINGS_FILE, "universe.kr", "universe_not_in_table", **values))
            continue
        faults += _judge(home, entry, selected, newest.day)
        codes |= dict.fromkeys(selected)
    if faults:
        raise SettingsError(*faults)
    return UniverseList(entries=universe.kr, table_day=newest.day, kr=list(codes), us=universe.us)


def open_resolved(root: Path) -> Home:
    """A home with the list in force; without one, with what a start would put in force now. SettingsError."""
    home = Home(root)
    if home.settings.in_force is None and has_expressions(home.settings.universe.kr):
        return Home(root, msgspec.structs.replace(home.settings, in_force=resolve_universe(home)))
    return home


def _judge(home: Home, entry: str, selected: list[str], day: date) -> list[Fault]:
    """What is wrong with a selection."""
    expected = parse_expression(entry).expected
    if len(selected) < MIN_SHARE * expected:
        values = {"expression": entry, "day": day, "count": len(selected), "expected": expected}
        return [Fault(home.root / SETTINGS_FILE, "universe.kr", "universe_small", **values)]
    for symbol in selected:
        try:
            parse_instrument(symbol)
        except ValueError:
            values = {"expression": entry, "day": day, "found": repr(symbol)}
            return [Fault(home.root / SETTINGS_FILE, "universe.kr", "universe_code", **values)]
    return []


def _refuse(home: Home, code: str, **values: object) -> SettingsError:
    return SettingsError(Fault(home.root / SETTINGS_FILE, "universe.kr", code, **values))


def find_today(home: Home) -> date:
    """Today, in Korea, by the home's clock."""
    return to_kst(home.load_clock().now_ns()).date()


def start_universe(home: Home) -> None:
    """Put in force what the settings' universe means, before a start. SettingsError, OSError."""
    is_recorded = has_expressions(home.settings.universe.kr) or home.universe_directory().exists()
    put_in_force(home, resolve_universe(home), is_recorded, is_start=True)


def put_in_force(home: Home, found: UniverseList, is_recorded: bool = True, *, is_start: bool = False) -> UniverseList:
    """Record a list as that of today, and replace the one in force, by the next number. OSError: that one stays."""
    before = read_replaced(home.universe_path(), UniverseList)
    found = msgspec.structs.replace(found, number=before.number + 1 if before else 1)
    if is_recorded:  # a day without a list has the last one before it
        record_list(home, find_today(home), found)
    replace_file(home.universe_path(), msgspec.json.encode(_stamp(home, found, None if is_start else before)))
    return found


def _stamp(home: Home, found: UniverseList, before: UniverseList | None) -> UniverseList:
    """A list with the settings that processes have which take it up; `before`: the list that they have now, None at a start."""
    settings = home.settings
    shards = msgspec.structs.replace(settings.shards, kis=[], kiwoom=[])
    other = msgspec.structs.replace(settings, universe=None, shards=shards, in_force=None)
    digest = hashlib.sha256(repr(other).encode()).hexdigest()
    if before is not None and before.settings_digest != digest:
        return msgspec.structs.replace(found, settings_digest=before.settings_digest)
    changed_ns = (home.root / SETTINGS_FILE).stat().st_mtime_ns
    return msgspec.structs.replace(found, settings_digest=digest, settings_ns=changed_ns)


def record_list(home: Home, day: date, found: UniverseList) -> None:
    """Record a list as one of a day, unless the day's last one has the same instruments. OSError."""
    directory = home.universe_directory()
    durable_io.create_directory(directory)
    numbers = sorted(
        one[1] for path in directory.glob("*.json") if (one := parse_dated_name(path.name)) and one[0] == day
    )
    if numbers:
        last = msgspec.json.decode((directory / format_dated_name(day, numbers[-1])).read_bytes(), type=UniverseList)
        if (last.kr, last.us) == (found.kr, found.us):
            return
    path = directory / format_dated_name(day, numbers[-1] + 1 if numbers else 1)
    durable_io.create_whole(path, msgspec.json.format(msgspec.json.encode(found), indent=1))
