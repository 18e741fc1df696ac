"""Live stream of a home: an iterator, an async iterator, and batches of numpy records.

    rings ──Tap──> books, ticks ─┐
    events, heartbeats ──────────┼─> Live ─> Book Tick Gap Lost FeedDown FeedUp Phase
    cumulative volume ───────────┘

    with `since`:  published files, journal ──up to one frame──> stored part ─┐
                   rings ──from the positions of that frame──> live part ─────┴─> one list

A reader polls: a look at one word of each ring, then a pause of MIN_PAUSE_S after data, growing to MAX_PAUSE_S while nothing
comes. Nobody has to wake a reader, so that a producer never waits for one.

Guarantees:
    * Nothing is opened for writing, and no process needs to run: a stream that is opened before the home starts begins with it.
    * What this reader did not get is in band, at its place: `Lost` for its own slowness, `Gap` for shares that no tick covers,
      `FeedDown` for a connection that ended or a process that is silent for SILENT_NS.
    * With `since` a stream that is opened at any moment has the books, ticks, gaps and events of one that was there from that
      instant on, each once: the journal's newest frame names the record of each ring at which the stored part ends.
    * A reader that is killed, stopped or slow disturbs nobody.

Not handled here:
    * What was received before the stream was opened, without `since`: that is in the files.
    * With `since`: ticks that were fetched over REST, which nobody received, and the silence of processes before now.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from operator import itemgetter
from pathlib import Path
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
    make_events,
    make_ticks,
)
from collectorctl.reader.since import Since, parse_since
from collectorctl.reader.stored import Instruments, StoredStreams
from collectorctl.reader.tap import BookMerge, Taken, Tap
from collectorctl.reader.tick_merge import TickMerge
from conf.clock import SECOND_NS
from conf.home import Home
from conf.instrument import Instrument, parse_instrument
from conf.market import MARKETS
from ringbuf.records import MAX_INT64, STREAMS, Flag, Venue
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
_MAKERS: dict[str, Callable[[np.ndarray], Sequence[Message | None]]] = {
    "orderbook": make_books,
    "tick": make_ticks,
    "event": make_events,
}


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


class ClosableStream:
    """A stream that a `with` block closes."""

    def close(self) -> None:
        """End the iteration."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class Live(ClosableStream):
    """The live stream of a home. An iterator that ends only by `close`; not for several threads."""

    def __init__(
        self,
        home: Home,
        symbols: Iterable[str] | None = None,
        streams: Iterable[str] = tuple(STREAMS),
        since: Since | None = None,
    ) -> None:
        """Begin now, or with what was received from `since` on.

        ValueError: an unknown symbol or stream, or a `since` that is no instant of the past. With `since` also OSError,
        PartitionWriteError, pa.ArrowException: a stored file is unreadable.

        Args:
            home: whose rings.
            symbols: as in the settings ("005930", "005930_NX", "NAS.AAPL"); None for all.
            streams: of "orderbook" and "tick".
            since: "open", an instant with a zone, or ns since 1970; None for now.
        """
        wanted = list(streams)
        if unknown := set(wanted) - set(STREAMS):
            raise ValueError(f"{sorted(unknown)}: no such stream: name some of {list(STREAMS)}")
        instruments: Instruments = None
        parsed: list[Instrument] = []
        if symbols is not None:
            parsed = [parse_instrument(symbol) for symbol in ([symbols] if isinstance(symbols, str) else symbols)]
            instruments = {(found.symbol.encode(), int(Venue[found.venue])) for found in parsed}
        feeds = [feed for market in MARKETS.values() for feed in market.feeds]
        rings = {(feed, stream): home.ring_path(feed, stream) for stream in (*wanted, "event") for feed in feeds}
        self._since_ns = 0
        self._past: Iterator[Taken] = iter(())
        if since is None:
            self._tap = Tap(rings, _make_merge(home), instruments)
        else:
            self._since_ns = parse_since(since, home, parsed)
            self._tap, self._past = _open_seam(home, rings, wanted, instruments, self._since_ns)
        self._watch = ProcessWatch(home, feeds)
        self._gaps = GapFinder()
        self._pause_s = MIN_PAUSE_S
        self._is_closed = False
        self.is_past = since is not None
        """Whether the last look was one at what had been received before the stream was opened."""

    def read(self) -> list[Message]:
        """Everything that is new, at once; never waits. Of the stored part a window at a time."""
        changes, taken = self._look()
        return [*changes, *taken.lost, *self._merge_streams(taken)]

    def read_batches(self) -> list[RecordBatch | Gap | Lost | FeedDown | FeedUp | Phase]:
        """Everything that is new as numpy records and the other messages; never waits. Of the stored part a window at a time."""
        changes, taken = self._look()
        found: list[RecordBatch | Gap | Lost | FeedDown | FeedUp | Phase] = [*changes, *taken.lost]
        for stream, records in taken.records.items():
            if stream == "event":
                found += (message for message in make_events(records) if message is not None)
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

    def next_pause(self, has_come: bool) -> float:
        """How long to wait before the next look, in seconds; `has_come`: whether the last one found something."""
        self._pause_s = MIN_PAUSE_S if has_come else min(self._pause_s * PAUSE_GROWTH, MAX_PAUSE_S)
        return self._pause_s

    def _look(self) -> tuple[Sequence[FeedDown | FeedUp], Taken]:
        """What processes do, and the next records: first those of the past, then what is new in the rings."""
        past = next(self._past, None)
        self.is_past = past is not None
        changes = [] if past is not None else self._watch.look(time.monotonic_ns())
        taken = past if past is not None else self._tap.look()
        if self._since_ns:  # the journal may have ended before
            for stream, records in taken.records.items():
                taken.records[stream] = records[records["recv_ns"] >= self._since_ns]
        return changes, taken

    def _merge_streams(self, taken: Taken) -> list[Message]:
        """The messages of all streams by the time of receipt; a gap before the tick that shows it."""
        timed: list[tuple[int, Message | None]] = []
        for stream, records in taken.records.items():
            if not len(records):
                continue
            times = np.maximum.accumulate(records[taken.order]).tolist()
            found = list(zip(times, _MAKERS[stream](records), strict=True))
            if stream == "tick":
                for at, gap in reversed(self._gaps.find(records)):
                    found.insert(at, (times[at], gap))
            timed += found
        timed.sort(key=itemgetter(0))  # stable
        return [message for _, message in timed if message is not None]


def _make_merge(home: Home) -> BookMerge:
    table = home.settings.writer
    return BookMerge(round(table.twin_window_s * SECOND_NS), table.identity_cum_volume, home.settings.clock.speed)


def _open_seam(
    home: Home,
    rings: Mapping[tuple[str, str], Path],
    streams: Sequence[str],
    instruments: Instruments,
    since_ns: int,
) -> tuple[Tap, Iterator[Taken]]:
    """The rings from where the stored part ends, and all that was received before now.

    The rings are mapped at once: what is deleted while the stored part is read is there nevertheless.
    """
    stored = StoredStreams(home, streams, instruments, since_ns)
    tap = Tap(rings, _make_merge(home), instruments, stored.positions)
    if tap.gone:  # unless a ring was replaced between the two looks, which the journal knows by now
        tap.close()
        stored = StoredStreams(home, streams, instruments, since_ns)
        tap = Tap(rings, _make_merge(home), instruments, stored.positions)
    return tap, _read_past(stored, tap)


def _read_past(stored: StoredStreams, tap: Tap) -> Iterator[Taken]:
    """The stored part by windows; at its end in one order what the rings have by then.

        orderbook  ──stored──────────┤├──ring──     the journals of two streams end at different instants: what is stored of one
        tick       ──stored──┤├──ring──────────     behind the end of the other is held back until the rings are read
                             seam_ns

    Order is that of the receive times, which files and rings have.
    """
    seam_ns = min(tap.find_unread("recv_ns"), default=MAX_INT64)
    ticks = TickMerge()
    parts: defaultdict[str, list[np.ndarray]] = defaultdict(list)
    for window in stored.read_windows():
        if "tick" in window:
            window["tick"] = ticks.merge(window["tick"])
        ends = {stream: int(np.searchsorted(records["recv_ns"], seam_ns)) for stream, records in window.items()}
        for stream, records in window.items():
            parts[stream].append(records[ends[stream] :])
        if any(ends.values()):
            yield Taken({stream: records[: ends[stream]] for stream, records in window.items()}, [], order="recv_ns")
    lost: list[Lost] = []
    has_more = True
    while has_more:
        taken = tap.look()
        has_more, lost = taken.has_more, lost + taken.lost
        for stream, records in taken.records.items():
            parts[stream].append(records)
    if parts or lost:
        yield Taken({stream: _merge_by_receipt(found) for stream, found in parts.items()}, lost, order="recv_ns")


def _merge_by_receipt(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Records of one stream by receive time; each part keeps its order."""
    records = np.concatenate(parts)
    keys = np.concatenate([np.maximum.accumulate(part["recv_ns"]) for part in parts])
    return records[np.argsort(keys, kind="stable")]
