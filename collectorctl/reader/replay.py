"""Replay of a stored day of one market: the messages of a live stream out of files and journal.

    books, ticks, events ──StoredRows──> records in receive order ─┐
    cumulative volume ─────────────────────────────────────────────┴──pace──> Book Tick Gap FeedDown FeedUp Phase

Guarantees:
    * Every received book and tick of the span and instruments comes once, in receive order; a gap is before the tick that shows it.
    * Memory is bounded by WINDOW_NS of rows, and what only the journal has.
    * With a `speed` no message comes before its time of receipt; a pause moves all that follows.
    * With a `feed` the books are those that it delivered, each at its own arrival, and ticks and events are its own.

Not handled here:
    * Ticks that were fetched or recovered: nobody received them. `count_fetched` has their number.
    * `Lost` is a matter of one reader's ring, and heartbeats of a process are not stored: neither comes.
    * `mono_ns` is not stored: it is `recv_ns` here.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from itertools import pairwise
from typing import Literal, TypeVar

import numpy as np

from collectorctl.reader.live import ClosableStream, GapFinder, RecordBatch
from collectorctl.reader.messages import FeedDown, FeedUp, Gap, Message, Phase, make_books, make_events, make_ticks
from collectorctl.reader.stored import StoredRows, merge_runs
from conf.clock import SECOND_NS
from conf.home import Home
from conf.instrument import Instrument, parse_instrument
from conf.market import KR, MARKETS, Market
from ringbuf.records import STREAMS, TICK

WINDOW_NS = 120 * SECOND_NS
STEP_RECORDS = 500
POLL_S = 0.01
_Found = TypeVar("_Found")
Batch = RecordBatch | Gap | FeedDown | FeedUp | Phase


class Replay(ClosableStream):
    """A stored day as messages. An iterator that ends with the span, or by `close`; not for several threads."""

    def __init__(
        self,
        home: Home,
        day: dt.date,
        symbols: Iterable[str] | None = None,
        streams: Iterable[str] = tuple(STREAMS),
        begin: dt.time | None = None,
        end: dt.time | None = None,
        speed: float | Literal["max"] = "max",
        market: str | None = None,
        feed: str | None = None,
    ) -> None:
        """Hold the day's files. ValueError: an unknown stream, market or feed, symbols of several markets, no span or no speed.

        OSError, PartitionWriteError: an unreadable file. `begin`, `end`: the exchange's time, None for the day's; `market`: None
        for that of the symbols, "kr" if none are named.
        """
        self._streams = list(dict.fromkeys(streams))
        if unknown := set(self._streams) - set(STREAMS):
            raise ValueError(f"{sorted(unknown)}: no such stream: name some of {list(STREAMS)}")
        chosen, instruments = _choose_instruments(home, day, symbols, market)
        self._speed = 0.0 if speed == "max" else float(speed)
        if not 0 <= self._speed < float("inf"):
            raise ValueError(f'speed={speed}: write a factor such as 1 or 10, or "max"')
        self._begin_ns, self._end_ns = chosen.day_bounds_ns(day)
        if begin:
            self._begin_ns = chosen.to_instant_ns(day, begin)
        if end:
            self._end_ns = chosen.to_instant_ns(day, end)
        if self._begin_ns >= self._end_ns:
            raise ValueError(f"end={end} is not after begin={begin}")
        if feed is not None and feed not in chosen.feeds:
            raise ValueError(f"{feed!r}: no such feed: name one of {list(chosen.feeds)}")
        self._rows = StoredRows(home, instruments, day, chosen, feed or "")
        self._origin_s: float | None = None
        self._first_ns = 0
        self._paused_s: float | None = None
        self._is_closed = False
        self._timed: Iterator[tuple[int, Message]] | None = None
        self._next: tuple[int, Message] | None = None

    @property
    def is_empty(self) -> bool:
        """Whether no book and no tick of the day was received."""
        return self._rows.is_empty

    def count_fetched(self) -> int:
        """Ticks of trades in the span that were fetched, not received: they do not come."""
        return self._rows.count_fetched(self._begin_ns, self._end_ns)

    def pause(self) -> None:
        """Let no time of the day pass until `resume`; an iteration waits meanwhile."""
        self._paused_s = self._paused_s or time.monotonic()

    def resume(self) -> None:
        """Go on where `pause` stopped."""
        if self._paused_s is not None and self._origin_s is not None:
            self._origin_s += time.monotonic() - self._paused_s
        self._paused_s = None

    def read_due(self) -> list[tuple[int, Message]] | None:
        """What is due by now, each with its time of receipt, at most STEP_RECORDS messages, perhaps none; None behind the last."""
        if self._timed is None:
            self._timed = self._read_messages()
        due: list[tuple[int, Message]] = []
        while len(due) < STEP_RECORDS and not self._is_closed:
            self._next = self._next or next(self._timed, None)
            if self._next is None:
                return due or None
            if self._find_wait(self._next[0]):
                return due
            due.append(self._next)
            self._next = None
        return due or None

    def batches(self) -> Iterator[Batch]:
        """Numpy records of at most STEP_RECORDS, each batch when its last record is due, with the other messages between them."""
        return self._pace(self._read())

    def __iter__(self) -> Iterator[Message]:
        return self._pace(self._read_messages())

    async def __aiter__(self) -> AsyncIterator[Message]:
        for at_ns, message in self._read_messages():
            while not self._is_closed and (wait_s := self._find_wait(at_ns)):
                await asyncio.sleep(wait_s)
            if self._is_closed:
                return
            yield message

    def close(self) -> None:
        """End the iteration."""
        self._is_closed = True

    def _pace(self, timed: Iterator[tuple[int, _Found]]) -> Iterator[_Found]:
        """What was received, each when its time has come."""
        for at_ns, found in timed:
            while not self._is_closed and (wait_s := self._find_wait(at_ns)):
                time.sleep(wait_s)
            if self._is_closed:
                return
            yield found

    def _find_wait(self, at_ns: int) -> float:
        """How long to sleep before looking again whether what was received at `at_ns` is due, in seconds; 0: it is."""
        if self._paused_s is not None:
            return POLL_S
        if not self._speed:
            return 0.0
        if self._origin_s is None:
            self._origin_s, self._first_ns = time.monotonic(), at_ns
        due_s = self._origin_s + (at_ns - self._first_ns) / SECOND_NS / self._speed
        return max(0.0, min(due_s - time.monotonic(), POLL_S))

    def _read_messages(self) -> Iterator[tuple[int, Message]]:
        for at_ns, batch in self._read():
            if isinstance(batch, RecordBatch):
                made: list = make_ticks(batch.records) if batch.stream == "tick" else make_books(batch.records)
                yield from ((one.recv_ns, one) for one in made)
            else:
                yield at_ns, batch

    def _read(self) -> Iterator[tuple[int, Batch]]:
        """Everything of the span in receive order, each with its time: that of its last record."""
        gaps = GapFinder()
        for begin_ns in range(self._begin_ns, self._end_ns, WINDOW_NS):
            end_ns = min(begin_ns + WINDOW_NS, self._end_ns)
            events = self._read_events(begin_ns, end_ns)
            parts = {stream: self._rows.read(stream, begin_ns, end_ns) for stream in self._streams}
            for stream, records in merge_runs(parts, STEP_RECORDS):
                found: dict[int, Gap] = dict(gaps.find(records)) if records.dtype == TICK else {}
                times = records["recv_ns"]
                ahead = [at_ns for at_ns, _ in events if at_ns <= times[-1]]
                cuts = {0, len(records), *found, *np.searchsorted(times, ahead, "left").tolist()}
                for first, last in pairwise(sorted(cuts)):
                    while events and events[0][0] <= times[first]:
                        yield events.pop(0)
                    if first in found:
                        yield int(times[first]), found[first]
                    yield int(times[last - 1]), RecordBatch(stream, records[first:last])
            yield from events

    def _read_events(self, begin_ns: int, end_ns: int) -> list[tuple[int, FeedDown | FeedUp | Phase]]:
        records = self._rows.read("event", begin_ns, end_ns)
        found = zip(records["recv_ns"].tolist(), make_events(records), strict=True)
        return [(at_ns, message) for at_ns, message in found if message is not None]


def report_not_received(report: Callable[[str], None], gap_shares: int, fetched: int) -> None:
    """What of a span was not played, since nobody received it: shares of gaps, and ticks that were fetched."""
    if gap_shares:
        report(f"{gap_shares} shares were traded and are in no received tick: they were not played")
    if fetched:
        report(f"{fetched} ticks were fetched, not received: they were not played")


def _choose_instruments(
    home: Home, day: dt.date, symbols: Iterable[str] | None, market: str | None
) -> tuple[Market, list[Instrument]]:
    """The market of a replay and its instruments. ValueError."""
    if market is not None and market not in MARKETS:
        raise ValueError(f"{market!r}: no such market: name one of {list(MARKETS)}")
    if symbols is None and market in (None, KR.name):
        return KR, home.instruments_of(day)
    if symbols is None:
        return MARKETS[market or KR.name], home.settings.instruments(market or KR.name)
    found = [parse_instrument(one) for one in ([symbols] if isinstance(symbols, str) else symbols)]
    names = dict.fromkeys([market] if market else []) | dict.fromkeys(one.market.name for one in found)
    if len(names) > 1:
        raise ValueError(f"{', '.join(map(str, found))}: a replay is of one market, not of {' and '.join(names)}")
    return MARKETS[next(iter(names), KR.name)], found
