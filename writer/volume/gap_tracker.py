"""Streaming gap detection by cumulative volume (pure).

    ticks (0 ────────────][──────][  gap  ][──────] top          a tick that begins above `top` leaves a gap,
    books                                         . . . . |      one below it fills a gap or is a duplicate;
                                                  witness ┘      a book beyond `top` for two seconds: a missing tick

Guarantees:
    * Memory per symbol and venue is constant: at most MAX_OPEN_GAPS open gaps are kept, of older ones the sums.
    * A new day begins empty; what was missed before the first tick is kept apart from what was missed after it.
    * `restore` continues from `symbols`.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

import numpy as np

from ringbuf.records import ORDERBOOK, PRICE_SCALE, TICK, UNDEFINED, Flag, Side, Venue, encode_instruments, field_offset
from writer.ingest.trading_day import compute_session_days
from writer.volume.gaps import OpenGap, SymbolGaps

BOOK_AHEAD_TOLERANCE_NS = 2_000_000_000
"""How long a book may be ahead of the ticks (mono_ns) before it witnesses that one is missing."""

MAX_OPEN_GAPS = 64
MAX_VOLUME = 1 << 40
"""A cumulative volume beyond it is a mistake, not a volume."""

_FEED_COUNT = 4
_NAME = "S16"
_VENUES = [int(venue) for venue in Venue]
_NO_DAY = -(2**31)

_STATE = np.dtype(
    [
        ("day", "<i8"),  # of its venue's sessions, days since 1970
        ("top", "<i8"),  # how far the ticks reach
        ("top_ns", "<i8"),  # when that was, exchange time
        ("value", "<i8"),  # at `top`: cum_value where exact, value_change and trade_count
        ("change", "<i8"),
        ("count", "<i8"),
        ("ticks", "<i8"),
        ("unlaid", "<i8"),
        ("start", "<i8"),  # where the first tick seen began
        ("found", "<i8"),
        ("duplicates", "<i8"),
        ("witnessed", "<i8"),
        ("ahead", "?"),  # a book has witnessed a missing tick, and none has come since
        ("book", "<i8", (_FEED_COUNT,)),  # the volume that waits for its tick, per line; 0 for none
        ("book_ns", "<i8", (_FEED_COUNT,)),
    ]
)


class GapTracker:
    """What is known of every symbol and venue."""

    def __init__(self) -> None:
        self._slots: dict[bytes, int] = {}
        self._state = np.zeros(0, _STATE)
        self._open: list[list[OpenGap]] = []

    def add_ticks(self, ticks: np.ndarray) -> None:
        """Follow ticks (TICK, in receive order)."""
        # volume that names another venue is no part of this venue
        named = np.isin(ticks["venue"], _VENUES) & ((ticks["flags"] & Flag.VENUE_MISMATCH) == 0)
        if not named.all():
            ticks = ticks[named]
        days = _compute_days(ticks)
        for day in np.unique(days).tolist():
            self._add_day_ticks(ticks[days == day] if (days != day).any() else ticks, day)

    def add_books(self, books: np.ndarray) -> None:
        """Process books (ORDERBOOK, in receive order) of symbols that had a tick that day, as evidence of missing ticks."""
        volume = books["cum_volume"]
        slots = np.array([self._slots.get(name, -1) for name in _instrument_keys(books)], np.int64)
        known = (slots >= 0) & (volume > 0) & (volume < MAX_VOLUME) & (books["line"] < _FEED_COUNT)
        known[known] &= self._state["day"][slots[known]] == _compute_days(books)[known]
        at = np.flatnonzero(known)[::-1]
        _, last = np.unique(slots[at] * _FEED_COUNT + books["line"][at], return_index=True)  # the latest of each feed
        at = at[last]
        slot, feed, volume = slots[at], books["line"][at], volume[at]
        pending, top = self._state["book"][slot, feed], self._state["top"][slot]
        ahead = volume > top
        new = ahead & ((pending == 0) | (volume < pending))
        self._state["book"][slot, feed] = np.where(new, volume, np.where(ahead, pending, 0))
        self._state["book_ns"][slot[new], feed[new]] = books["mono_ns"][at[new]]

    def check(self, through_ns: int) -> None:
        """Every tick received up to `through_ns` (mono_ns) was given: count the symbols that wait too long for one."""
        state = self._state
        late = (state["book"] > state["top"][:, None]) & (through_ns - state["book_ns"] > BOOK_AHEAD_TOLERANCE_NS)
        ahead = late.any(axis=1)
        state["witnessed"] += ahead & ~state["ahead"]
        state["ahead"] |= ahead

    def export_symbols(self) -> list[SymbolGaps]:
        """Everything, by symbol and venue."""
        names = sorted(self._slots)
        return [
            self._build_symbol_gaps(name, self._slots[name])
            for name in names
            if self._state["ticks"][self._slots[name]]
        ]

    def find_open_gaps(self, tick: np.ndarray) -> list[tuple[int, int]]:
        """The open gaps (low, high] of the symbol, venue and day of one tick (TICK, shape (1,)), as far as they can be filled."""
        slot = self._slots.get(_instrument_keys(tick)[0], -1)
        if slot < 0 or self._state["day"][slot] != _compute_days(tick)[0]:
            return []
        start = int(self._state["start"][slot])
        return [(gap.low, gap.high) for gap in self._open[slot] if gap.is_fillable(start)]

    def restore(self, symbols: Iterable[SymbolGaps]) -> None:
        """Continue from what `symbols` gave."""
        for known in symbols:
            name = known.symbol.encode().ljust(15, b"\0") + bytes([Venue[known.venue]])
            slot = self._ensure_slot(name)
            sums = [UNDEFINED if sum_ is None else sum_ for sum_ in (known.value, known.change, known.count)]
            day = (datetime.fromisoformat(known.day).replace(tzinfo=UTC) - datetime.fromtimestamp(0, UTC)).days
            row = self._state[slot]
            for field, number in zip(("value", "change", "count"), sums, strict=True):
                row[field] = number
            row["day"], row["top"], row["found"] = day, known.volume, known.gaps_found
            row["top_ns"] = known.volume_ns
            row["ticks"], row["unlaid"], row["start"] = known.ticks, known.unplaced, known.start
            row["duplicates"], row["witnessed"] = known.duplicates, known.confirmed_by_book
            self._open[slot] = list(known.open)

    def _build_symbol_gaps(self, name: bytes, slot: int) -> SymbolGaps:
        row = self._state[slot]
        start = int(row["start"])
        gaps = [gap for gap in self._open[slot] if gap.low >= start]
        value, change, count = (None if row[f] == UNDEFINED else int(row[f]) for f in ("value", "change", "count"))
        return SymbolGaps(
            symbol=name[:15].rstrip(b"\0").decode(errors="backslashreplace"),
            venue=Venue(name[15]).name,
            day=f"{datetime.fromtimestamp(int(row['day']) * 86_400, UTC):%Y-%m-%d}",
            ticks=int(row["ticks"]),
            volume=int(row["top"]),
            start=start,
            before_start=sum(gap.shares for gap in self._open[slot] if gap.low < start),
            gaps=len(gaps),
            gap_shares=sum(gap.shares for gap in gaps),
            gap_value=sum(gap.value or 0 for gap in gaps),
            gap_trades=sum(gap.trades or 0 for gap in gaps),
            gaps_found=int(row["found"]),
            duplicates=int(row["duplicates"]),
            unplaced=int(row["unlaid"]),
            confirmed_by_book=int(row["witnessed"]),
            behind=max(0, int(row["book"].max()) - int(row["top"])) if row["ahead"] else 0,
            value=value,
            change=change,
            count=count,
            open=self._open[slot],
            volume_ns=int(row["top_ns"]),
        )

    def _ensure_slot(self, name: bytes) -> int:
        slot = self._slots.setdefault(name, len(self._slots))
        if slot == len(self._open):
            self._open.append([])
        if slot >= len(self._state):
            more = np.zeros(max(64, len(self._state)), _STATE)
            more["day"] = _NO_DAY
            self._state = np.concatenate([self._state, more])
        return slot

    def _begin_day(self, slots: np.ndarray, day: int) -> None:
        for slot in np.unique(slots[self._state["day"][slots] < day]).tolist():
            self._state[slot] = np.zeros((), _STATE)
            self._state["day"][slot] = day
            self._open[slot] = []

    def _add_day_ticks(self, ticks: np.ndarray, day: int) -> None:
        """Ticks of one day."""
        slots = np.array([self._ensure_slot(name) for name in _instrument_keys(ticks)], np.int64)
        self._begin_day(slots, day)
        now = self._state["day"][slots] == day
        volume, size = ticks["cum_volume"], ticks["size"]
        placed = now & (size > 0) & (volume >= size) & (volume < MAX_VOLUME)
        np.add.at(self._state["unlaid"], slots[now & ~placed], 1)
        order = np.flatnonzero(placed)
        order = order[np.argsort(slots[order], kind="stable")]
        if len(order):
            self._advance(ticks[order], slots[order])

    def _advance(self, ticks: np.ndarray, slots: np.ndarray) -> None:
        """Ticks by slot, each slot's in receive order."""
        state, count = self._state, len(ticks)
        first = np.ones(count, bool)
        first[1:] = slots[1:] != slots[:-1]
        starts = np.flatnonzero(first)
        group = np.cumsum(first) - 1
        high = ticks["cum_volume"]
        low = high - ticks["size"]
        value = np.where(ticks["flags"] & Flag.VALUE_ROUNDED, UNDEFINED, ticks["cum_value"])
        fresh = state["ticks"][slots[starts]] == 0
        seed = np.where(fresh, low[starts], state["top"][slots[starts]])
        for at in starts[fresh].tolist():
            self._record_first_tick(int(slots[at]), ticks[at], int(value[at]))
        lift = group * MAX_VOLUME
        reach = np.maximum.accumulate(np.maximum(high, seed[group]) + lift) - lift
        top = np.where(first, seed[group], np.concatenate([[0], reach[:-1]]))
        ahead = np.maximum.accumulate(np.where(high > top, np.arange(count), -1))  # the tick that reaches furthest
        for at in np.flatnonzero(low != top).tolist():
            slot, before = int(slots[at]), int(ahead[at - 1]) if at else -1
            if low[at] > top[at]:
                sums = value, ticks["value_change"], ticks["trade_count"]
                left = [state[slot][name] for name in ("value", "change", "count", "top_ns")]
                if before >= starts[group[at]]:
                    left = [column[before] for column in (*sums, ticks["exch_ns"])]
                self._open_gap(slot, int(top[at]), ticks[at], [int(n) for n in left], [int(c[at]) for c in sums])
            else:
                self._fill_gaps(slot, int(low[at]), int(high[at]), int(top[at]), int(ticks["price_e4"][at]))
        ends = np.append(starts[1:], count) - 1
        mine = slots[ends]
        state["ticks"][mine] += ends - starts + 1
        moved = ahead[ends] >= starts
        holder = ahead[ends][moved]
        columns = (("value", value), ("change", ticks["value_change"]), ("count", ticks["trade_count"]))
        for name, column in (*columns, ("top_ns", ticks["exch_ns"])):
            state[name][mine[moved]] = column[holder]
        state["top"][mine] = reach[ends]
        state["ahead"][mine[moved]] = False
        book = state["book"][mine]
        state["book"][mine] = np.where(book > reach[ends][:, None], book, 0)

    def _record_first_tick(self, slot: int, tick: np.void, value: int) -> None:
        """The day's first tick: what is below it was missed before the start."""
        self._state["start"][slot] = tick["cum_volume"] - tick["size"]
        if tick["cum_volume"] > tick["size"]:
            self._open_gap(slot, 0, tick, [0, UNDEFINED, 0, 0], [value, UNDEFINED, int(tick["trade_count"])])

    def _open_gap(self, slot: int, top: int, tick: np.void, left: list[int], right: list[int]) -> None:
        """(top, tick's beginning] is missing; `left`, `right`: cum_value, value_change, trade_count at its ends; left: when."""
        low = int(tick["cum_volume"]) - int(tick["size"])
        own = int(tick["size"]) * int(tick["price_e4"]) // PRICE_SCALE
        *left, begin_ns = left
        sums = [None if UNDEFINED in ends else ends[1] - ends[0] for ends in zip(left, right, strict=True)]
        value = next((sum_ - own for sum_ in (sums[1], sums[0]) if sum_ is not None), None)
        trades = None if sums[2] is None else sums[2] - int(tick["side"] != Side.NONE)
        start, gaps = int(self._state["start"][slot]), self._open[slot]
        self._state["found"][slot] += top >= start
        gaps.append(OpenGap(top, low, low - top, value, trades, begin_ns, int(tick["exch_ns"])))
        if len(gaps) > MAX_OPEN_GAPS:  # the two oldest become one that nothing fills any more
            at = sum(gap.low < start for gap in gaps)
            at = at if at < len(gaps) - 1 else 0
            one, two = gaps[at : at + 2]
            value = None if one.value is None or two.value is None else one.value + two.value
            trades = None if one.trades is None or two.trades is None else one.trades + two.trades
            shares = one.shares + two.shares
            gaps[at : at + 2] = [OpenGap(one.low, two.high, shares, value, trades, one.begin_ns, two.end_ns)]

    def _fill_gaps(self, slot: int, low: int, high: int, top: int, price_e4: int) -> None:
        """A tick that begins below `top`: its new part fills gaps, else it is a duplicate."""
        new = max(0, high - top)
        remaining = []
        for gap in self._open[slot]:
            begin, end = max(low, gap.low), min(high, gap.high)
            if begin >= end or not gap.is_contiguous:
                remaining.append(gap)
                continue
            new += end - begin
            remaining += _split_gap(gap, begin, end, price_e4)
        self._open[slot] = remaining
        if new < high - low:
            self._state["duplicates"][slot] += 1


def _split_gap(gap: OpenGap, begin: int, end: int, price_e4: int) -> list[OpenGap]:
    """What is left of a gap when (begin, end] of it is filled by one tick; the sums stay with the last piece."""
    value = None if gap.value is None else gap.value - (end - begin) * price_e4 // PRICE_SCALE
    trades = None if gap.trades is None else gap.trades - 1
    ends = [(low, high) for low, high in ((gap.low, begin), (end, gap.high)) if low < high]
    if len(ends) != 1:
        value = trades = None
    return [OpenGap(low, high, high - low, value, trades, gap.begin_ns, gap.end_ns) for low, high in ends]


def _compute_days(records: np.ndarray) -> np.ndarray:
    """The day of the session each record belongs to: each venue counts its volume by its own."""
    return compute_session_days(records)


def _instrument_keys(records: np.ndarray) -> list[bytes]:
    """Symbol and venue of each record, 16 bytes; the venue is never zero, so none is cut short."""
    return np.frombuffer(encode_instruments(records), _NAME).tolist()


for _dtype in (TICK, ORDERBOOK):  # `_instrument_keys` reads them as neighbours
    if field_offset(_dtype, "venue") != field_offset(_dtype, "symbol") + 15:
        raise TypeError("symbol and venue of a record must be neighbours")
