"""First arrivals of the ticks of all feeds, by the writer's rule for what overlaps (pure).

    kis      (0  5]  (5  12]           (12  20]               both feeds deliver while one takes over from the other:
    kiwoom           (5  12] (12  15]            (20  21]     every share comes in one tick, as it does in the files
    merged   (0  5]  (5  12] (12  15]  (15  20]  (20  21]     (15  20]: what (12  20] has beyond (12  15], flagged SPLIT

Guarantees:
    * A tick is left out only if ticks that came before it, or come with it, have all of its shares at its price.
    * Ticks that contradict each other all come, flagged CONFLICT; one without a cumulative volume always comes.
    * Ticks of one feed that do not overlap come as they are, and so do all of a market that has one feed.
    * Memory holds the ticks of one to two times REMEMBERED_NS.

Not handled here:
    * A tick whose twin came longer ago than that: it comes again. In doubt a tick comes.
    * A tick that has come is not taken back: of a merged trade that came first, the parts do not come; the files have the parts.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from conf.clock import SECOND_NS
from conf.market import MARKETS
from ringbuf.records import UNDEFINED, Flag, Venue
from writer.ingest.trading_day import compute_session_days
from writer.publish.overlap import NO_FEED, VALUES_AT_END, SelectedRows, TickArrays, select
from writer.schema import may_overlap

REMEMBERED_NS = 60 * SECOND_NS
"""How long a tick may come after its twin; longer than a connection that stands still is kept."""

_MERGED_VENUES = frozenset(
    int(Venue[venue]) for market in MARKETS.values() if may_overlap(f"{market.name}.tick") for venue in market.venues
)
_Group = tuple[bytes, int, int]
"""Symbol, venue, day: what one cumulative volume belongs to."""
_Known = tuple[int, int, int, int]
"""Cumulative volume, size, price and feed of a tick."""


class TickMerge:
    """The ticks that have come, by group, in two generations: the older one is forgotten as a whole."""

    def __init__(self) -> None:
        self._recent: defaultdict[_Group, list[_Known]] = defaultdict(list)
        self._former = self._recent.copy()
        self._reach: dict[_Group, int] = {}
        self._turned_ns = 0

    def merge(self, ticks: np.ndarray) -> np.ndarray:
        """What `ticks` (TICK, in receive order) add to those that have come."""
        if not len(ticks):
            return ticks
        self._forget(int(ticks["mono_ns"].max()))
        positions: defaultdict[_Group, list[int]] = defaultdict(list)
        names = (ticks[name].tolist() for name in ("symbol", "venue"))
        for at, group in enumerate(zip(*names, compute_session_days(ticks).tolist(), strict=True)):
            positions[group].append(at)
        columns = [ticks[name].tolist() for name in ("cum_volume", "size", "price_e4", "line")]
        known: list[_Known] = list(zip(*columns, strict=True))
        chosen = {
            group: rows
            for group, at in positions.items()
            if group[1] in _MERGED_VENUES and (rows := self._add(group, [known[one] for one in at]))
        }
        return _apply(ticks, positions, chosen) if chosen else ticks

    def _add(self, group: _Group, found: list[_Known]) -> SelectedRows | None:
        """The rows that the ticks `found` of one group become; None if all come as they are."""
        reach = self._reach.get(group, 0)
        for volume, size, _, _ in found:
            if 0 < size <= volume:
                if volume - size < reach:
                    break
                reach = volume
        else:
            self._recent[group] += [tick for tick in found if 0 < tick[1] <= tick[0]]
            self._reach[group] = reach
            return None
        ticks = _to_arrays(found)
        low = min(tick[0] - tick[1] for tick in found if 0 < tick[1] <= tick[0])
        near = [tick for known in (self._former.get(group, []), self._recent[group]) for tick in known if tick[0] > low]
        rows = select(_to_arrays(near), ticks, np.ones(len(found), bool))
        feed = np.where(rows.flags & int(Flag.SPLIT), NO_FEED, ticks.feed[rows.tick])
        come = zip(*(c.tolist() for c in (rows.cum_volume, rows.size, ticks.price[rows.tick], feed)), strict=True)
        placed = [tick for tick in come if 0 < tick[1] <= tick[0]]
        self._recent[group] += placed
        self._reach[group] = max(self._reach.get(group, 0), *(tick[0] for tick in placed), 0)
        return rows

    def _forget(self, newest_ns: int) -> None:
        if newest_ns - self._turned_ns > REMEMBERED_NS:
            self._former, self._recent, self._turned_ns = self._recent, defaultdict(list), newest_ns
            self._reach = {group: max(tick[0] for tick in known) for group, known in self._former.items() if known}


def _to_arrays(known: list[_Known]) -> TickArrays:
    columns = np.array(known, np.int64).reshape(-1, 4).T
    return TickArrays(np.zeros(len(known), np.int64), *columns)


def _apply(ticks: np.ndarray, positions: dict[_Group, list[int]], chosen: dict[_Group, SelectedRows]) -> np.ndarray:
    """The ticks with the rows of `chosen` groups in place of theirs, in receive order."""
    whole = np.array([at for group, found in positions.items() if group not in chosen for at in found], np.int64)
    none = np.zeros(len(whole), np.int64)
    parts = [SelectedRows(whole, ticks["cum_volume"][whole], ticks["size"][whole], none)]
    parts += [rows._replace(tick=np.array(positions[group])[rows.tick]) for group, rows in chosen.items()]
    rows = SelectedRows.concatenate(parts)
    order = np.lexsort((rows.cum_volume, rows.tick))
    tick, cum_volume, size, flags = (column[order] for column in rows)
    merged = ticks[tick]
    before_end = cum_volume != merged["cum_volume"]  # what only holds at a tick's own end
    for name in VALUES_AT_END:
        merged[name][before_end] = UNDEFINED
    merged["cum_volume"], merged["size"] = cum_volume, size
    merged["flags"] |= flags.astype(merged["flags"].dtype)
    return merged
