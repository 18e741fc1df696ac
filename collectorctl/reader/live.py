"""Live stream of a home: an iterator, an async iterator, and batches of numpy records.

    rings ──Tap──> books, ticks ─┐
    events, heartbeats ──────────┼─> Live ─> Book Tick Gap Lost FeedDown FeedUp Phase
    cumulative volume ───────────┘

A reader polls: a look at one word of each ring, then a pause of MIN_PAUSE_S after data, growing to MAX_PAUSE_S while nothing
comes. Nobody has to wake a reader, so that a producer never waits for one.

Guarantees:
    * Nothing is opened for writing, and no process needs to run: a stream that is opened before the home starts begins with it.
    * What this reader did not get is in band, at its place: `Lost` for its own slowness, `Gap` for shares that no tick covers,
      `FeedDown` for a connection that ended or a process that is silent for SILENT_NS.
    * A reader that is killed, stopped or slow disturbs nobody.

Not handled here:
    * What was received before the stream was opened: that is in the files.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from itertools import count
from types import TracebackType
from typing import NamedTuple, Self

import numpy as np

from collectorctl.reader.messages import (
    FeedDown,
    FeedUp,
    Gap,
    Lost,
    Message,
    Phase,
    make_books,
    make_event,
    make_ticks,
)
from collectorctl.reader.tap import BookMerge, Taken, Tap
from conf.clock import SECOND_NS
from conf.home import Home
from conf.instrument import parse_instrument
from conf.market import MARKETS
from ringbuf.records import STREAMS, Flag, Venue
from ringbuf.vitals import VitalsError, read_snapshot
from writer.ingest.trading_day import compute_session_days
from writer.volume.gap_tracker import MAX_VOLUME

MIN_PAUSE_S, MAX_PAUSE_S = 0.0005, 0.005
"""Pause between two looks: while data comes, and after some tenths of a second without any."""

PAUSE_GROWTH = 1.02
SILENT_NS = 5 * SECOND_NS
"""A process whose last heartbeat is older is down; collectors have one a second."""

VITALS_EVERY_NS = SECOND_NS // 2
_VENUE_MISMATCH = int(Flag.VENUE_MISMATCH)


class RecordBatch(NamedTuple):
    """Records of one stream in receive order, as ringbuf.records has them: prices in 1/10,000, UNDEFINED for what is absent."""

    stream: str
    records: np.ndarray


class GapFinder:
    """Shares that were traded and are in no tick so far, by each instrument's cumulative volume (pure).

    The writer's GapTracker counts what is missing now, with sums and witnesses; this names each gap once, before the tick that
    shows it. They share the day and the bounds of a volume.
    """

    def __init__(self) -> None:
        self._high_water: dict[tuple[bytes, int], tuple[int, int]] = {}

    def find(self, ticks: np.ndarray) -> list[tuple[int, Gap]]:
        """The gaps before these ticks (TICK), each with the index of the tick that shows it.

        The first tick of an instrument, and of a day, shows none: what was before is not this reader's.
        """
        gaps = []
        names = ("symbol", "venue", "size", "cum_volume", "flags", "recv_ns")
        columns = (ticks[name].tolist() for name in names)
        for at, (symbol, venue, size, volume, flags, recv_ns, day) in enumerate(
            zip(*columns, compute_session_days(ticks).tolist(), strict=True)
        ):
            if not 0 < size <= volume < MAX_VOLUME or flags & _VENUE_MISMATCH:
                continue
            known_day, high_water = self._high_water.get((symbol, venue), (day, volume - size))
            if day < known_day:
                continue
            if day > known_day:
                high_water = volume - size
            if volume - size > high_water:
                gap = Gap(symbol.decode("latin-1"), Venue(venue).name, high_water, volume - size, recv_ns)
                gaps.append((at, gap))
            self._high_water[symbol, venue] = (day, max(high_water, volume))
        return gaps


class ProcessWatch:
    """Whether the collectors live, by the heartbeats in their vitals pages."""

    def __init__(self, home: Home, feeds: Iterable[str]) -> None:
        self._paths = {feed: home.vitals_path(feed) for feed in feeds}
        self._is_up: dict[str, bool] = {}
        self._looked_ns = 0

    def look(self, now_ns: int) -> list[FeedDown | FeedUp]:
        """What has changed; at the first look what is: a feed whose process never ran is not mentioned."""
        if now_ns - self._looked_ns < VITALS_EVERY_NS:
            return []
        self._looked_ns = now_ns
        found: list[FeedDown | FeedUp] = []
        for feed, path in self._paths.items():
            try:
                vitals = read_snapshot(path)
            except (OSError, VitalsError):
                continue
            age_ns = now_ns - vitals.heartbeat_mono_ns
            is_up = 0 <= age_ns < SILENT_NS and vitals.state != "stopped"
            if self._is_up.get(feed) == is_up:
                continue
            self._is_up[feed] = is_up
            silence = f"no heartbeat for {age_ns / SECOND_NS:.0f} s" if vitals.state != "stopped" else "stopped"
            found.append(FeedUp(feed, 0) if is_up else FeedDown(feed, 0, silence, None))
        return found


class Live:
    """The live stream of a home. An iterator that ends only by `close`; not for several threads."""

    def __init__(
        self, home: Home, symbols: Iterable[str] | None = None, streams: Iterable[str] = tuple(STREAMS)
    ) -> None:
        """Begin now.

        Args:
            home: whose rings.
            symbols: as in the settings ("005930", "005930_NX", "NAS.AAPL"); None for all.
            streams: of "orderbook" and "tick".
        """
        wanted = list(streams)
        if unknown := set(wanted) - set(STREAMS):
            raise ValueError(f"{sorted(unknown)}: no such stream: name some of {list(STREAMS)}")
        instruments = None
        if symbols is not None:
            parsed = [parse_instrument(symbol) for symbol in ([symbols] if isinstance(symbols, str) else symbols)]
            instruments = {(found.symbol.encode(), int(Venue[found.venue])) for found in parsed}
        feeds = [feed for market in MARKETS.values() for feed in market.feeds]
        settings = home.settings
        merge = BookMerge(
            round(settings.writer.twin_window_s * SECOND_NS), settings.writer.identity_cum_volume, settings.clock.speed
        )
        rings = {(feed, stream): home.ring_path(feed, stream) for stream in (*wanted, "event") for feed in feeds}
        self._tap = Tap(rings, merge, instruments)
        self._watch = ProcessWatch(home, feeds)
        self._gaps = GapFinder()
        self._pause_s = MIN_PAUSE_S
        self._is_closed = False

    def read(self) -> list[Message]:
        """Everything that is new, at once; never waits."""
        messages: list[Message] = [*self._watch.look(time.monotonic_ns())]
        taken = self._tap.look()
        messages += taken.lost
        return messages + self._merge_streams(taken)

    def read_batches(self) -> list[RecordBatch | Gap | Lost | FeedDown | FeedUp | Phase]:
        """Everything that is new as numpy records and the other messages; never waits."""
        found: list[RecordBatch | Gap | Lost | FeedDown | FeedUp | Phase] = [*self._watch.look(time.monotonic_ns())]
        taken = self._tap.look()
        found += taken.lost
        for stream, records in taken.records.items():
            if stream == "event":
                found += (message for message in map(make_event, records) if message is not None)
            elif len(records):
                if stream == "tick":
                    found += (gap for _, gap in self._gaps.find(records))
                found.append(RecordBatch(stream, records))
        return found

    def batches(self) -> Iterator[RecordBatch | Gap | Lost | FeedDown | FeedUp | Phase]:
        """Numpy records as they come, with the other messages between them; waits for ever."""
        while not self._is_closed:
            found = self.read_batches()
            yield from found
            time.sleep(self.next_pause(bool(found)))

    def __iter__(self) -> Iterator[Message]:
        while not self._is_closed:
            messages = self.read()
            yield from messages
            time.sleep(self.next_pause(bool(messages)))

    async def __aiter__(self) -> AsyncIterator[Message]:
        while not self._is_closed:
            messages = self.read()
            for message in messages:
                yield message
            await asyncio.sleep(self.next_pause(bool(messages)))

    def close(self) -> None:
        """End the iteration and unmap everything."""
        self._is_closed = True
        self._tap.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def next_pause(self, has_come: bool) -> float:
        """How long to wait before the next look, in seconds; `has_come`: whether the last one found something."""
        self._pause_s = MIN_PAUSE_S if has_come else min(self._pause_s * PAUSE_GROWTH, MAX_PAUSE_S)
        return self._pause_s

    def _merge_streams(self, taken: Taken) -> list[Message]:
        """The messages of all streams by the time of receipt; a gap before the tick that shows it."""
        keyed: list[tuple[int, int, Message]] = []
        order = count()
        for stream, records in taken.records.items():
            if not len(records):
                continue
            times = np.maximum.accumulate(records["mono_ns"]).tolist()
            if stream == "event":
                events = [(at, message) for at, message in zip(times, map(make_event, records), strict=True) if message]
                keyed += [(at, next(order), message) for at, message in events]
                continue
            gaps: dict[int, Gap] = dict(self._gaps.find(records)) if stream == "tick" else {}
            made: list = make_ticks(records) if stream == "tick" else make_books(records)
            for number, (at, message) in enumerate(zip(times, made, strict=True)):
                if number in gaps:
                    keyed.append((at, next(order), gaps[number]))
                keyed.append((at, next(order), message))
        return [message for _, _, message in sorted(keyed, key=lambda item: item[:2])]
