"""Expressions of `universe.kr`, and the list of instruments that is in force (pure).

    collector.toml   kr = ["005930", "@KOSPI200:50", "@etf:top=20"]
          │ collectorctl start, reload: by the table of symbols
          ├──> run/universe.json                        the list in force, for every process
          └──> data/universe/date=2026-11-20.json       what was in force on a day; .2.json: after a reload on that day

    @market_cap:100     stocks of the largest market capitalisation
    @etf:50  @etn:20    ETFs, ETNs likewise            @etf:top=50 means the same
    @KOSPI200  @KOSDAQ150                              members of an index, all or the largest N

Guarantees:
    * A list is resolved once, by whoever starts or reloads the home; no process reads the table of symbols.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import date
from typing import NamedTuple

import msgspec

MARK = "@"
KINDS = {"market_cap": "STOCK", "etf": "ETF", "etn": "ETN"}
"""Names of selections by market capitalisation, and the kind of symbol that each selects from."""
INDICES = {"kospi200": 200, "kosdaq150": 150}
"""Names of indices, and how many members each has."""

_FORM = re.compile(r"@(\w+)(?::(?:top=)?([1-9][0-9]{0,4}))?")
_DATED_FORM = re.compile(r"date=(\d{4}-\d\d-\d\d)(?:\.([1-9][0-9]*))?\.json")


class Expression(NamedTuple):
    """A selection: its name in lower case; `limit`: how many at most, None for all members of an index."""

    name: str
    limit: int | None

    @property
    def expected(self) -> int:
        """How many symbols it should give."""
        return self.limit or INDICES[self.name]


class UniverseList(msgspec.Struct, frozen=True, kw_only=True):
    """The instruments of both markets in order of priority, as they are written in settings.

    `entries`: universe.kr as it stood in the settings; `table_day`: the day of the table of symbols that resolved them, None if
    none was needed. `number`: one more than the list before it in this home. `placement`: broker -> subscription ("005930 tick") ->
    number of the key of its connection, for what must stay where it is. `settings_ns`: the time of the last change of the settings
    that every process has which has this list, 0 if there are other changes since the last start; `settings_digest`: of what a
    reload does not take up, at the last start.
    """

    number: int = 0
    settings_ns: int = 0
    settings_digest: str = ""
    placement: dict[str, dict[str, int]] = {}
    entries: list[str]
    table_day: date | None
    kr: list[str]
    us: list[str]


def is_expression(entry: str) -> bool:
    """Whether an entry of the settings stands for instruments, well-formed or not."""
    return entry.startswith(MARK)


def has_expressions(entries: Iterable[str]) -> bool:
    """Whether one of them does."""
    return any(map(is_expression, entries))


def parse_expression(text: str) -> Expression:
    """The expression of a text. ValueError: what can be written."""
    match = _FORM.fullmatch(text)
    name = match[1].lower() if match else ""
    if match is None or name not in {**KINDS, **INDICES} or (name in KINDS and not match[2]):
        raise ValueError(
            f"{text!r} is no selection: write @market_cap:N, @etf:N, @etn:N, @KOSPI200 or @KOSDAQ150, the last two "
            "with or without :N, the largest N"
        )
    return Expression(name, int(match[2]) if match[2] else None)


def is_applicable(found: UniverseList, kr: list[str], us: list[str]) -> bool:
    """Whether a list is in force beside settings with these entries: codes that were edited since count as they are written."""
    return has_expressions(kr) or (found.entries == kr and found.us == us)


def parse_dated_name(name: str) -> tuple[date, int] | None:
    """Day and number (1, 2, ...) of a dated list's file; None for any other file."""
    match = _DATED_FORM.fullmatch(name)
    return (date.fromisoformat(match[1]), int(match[2] or 1)) if match else None


def format_dated_name(day: date, number: int) -> str:
    """The name of a dated list's file."""
    return f"date={day}{f'.{number}' if number > 1 else ''}.json"


def choose_dated(known: Iterable[tuple[date, int]], day: date) -> list[tuple[date, int]]:
    """Which of the dated lists were in force on a day, in order: those of the day, else the last one before; none: it has none."""
    earlier = sorted(one for one in known if one[0] <= day)
    return [one for one in earlier if one[0] == day] or earlier[-1:]
