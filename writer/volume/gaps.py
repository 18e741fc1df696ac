"""Gaps in the cumulative volume, by symbol, as they are published (pure)."""

from __future__ import annotations

import msgspec


class OpenGap(msgspec.Struct, array_like=True):
    """An open gap (low, high]: `shares` of it are still missing; value and trades where the vendor's sums have them.

    `begin_ns`, `end_ns`: exchange times of the ticks around it; 0: of the day's beginning, or not known.
    """

    low: int
    high: int
    shares: int
    value: int | None
    trades: int | None
    begin_ns: int = 0
    end_ns: int = 0

    @property
    def is_contiguous(self) -> bool:
        """Whether it is one interval, and not several that were put together."""
        return self.shares == self.high - self.low

    def is_fillable(self, start: int) -> bool:
        """Whether it is certain that no tick of the interval is stored.

        What was before `start` may have been read by a writer whose knowledge is lost.
        """
        return self.is_contiguous and self.low >= start


class SymbolGaps(msgspec.Struct):
    """One symbol and venue on `day` (YYYY-MM-DD). Missing now: `gaps`, `gap_shares`; value and trades of gaps that have them.

    `before_start`: shares missing below `start`, where the first tick seen began, not among the gaps; `volume`: how far the ticks
    reach, and `volume_ns` when (exchange time); `gaps_found`: gaps ever seen that day; `open`: what is missing, by interval,
    below `start` too; `duplicates`, `unlaid`: ticks; `witnessed`: how often books proved a missing tick; `behind`: shares that
    books are ahead now.
    """

    symbol: str
    venue: str
    day: str
    ticks: int
    volume: int
    start: int
    before_start: int
    gaps: int
    gap_shares: int
    gap_value: int = msgspec.field(name="gap_won")  # these names are in files written before
    gap_trades: int
    gaps_found: int
    duplicates: int
    unplaced: int = msgspec.field(name="unlaid")
    confirmed_by_book: int = msgspec.field(name="witnessed")
    behind: int
    value: int | None
    change: int | None
    count: int | None
    open: list[OpenGap]
    volume_ns: int = 0


class GapReport(msgspec.Struct):
    """`symbols` as they were after entry `row` of the tick journal `lineage`; `since`, `written`: Korean time."""

    since: str
    written: str
    lineage: str
    row: int
    symbols: list[SymbolGaps]

    def newest_day(self) -> list[SymbolGaps]:
        """The symbols of the newest day."""
        day = max((symbol.day for symbol in self.symbols), default="")
        return [symbol for symbol in self.symbols if symbol.day == day]


def decode_gap_report(text: bytes) -> GapReport | None:
    """A report from its JSON; None if it is none, or one of another version."""
    try:
        return msgspec.json.decode(text, type=GapReport)
    except msgspec.DecodeError:
        return None
