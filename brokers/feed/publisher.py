"""Publisher: decoded rows into the feed's rings, flagged, with their session, counted.

    DecodedBatch (rows of one poll) --> flags and session into each row --> one publish per stream

A poll has one or two rows at the pace of a real day: they stay packed bytes, since a dozen calls of numpy cost ten times as much.

Guarantees:
    * Threads may publish at once: each batch goes in whole; records of one instrument and stream come from one thread and
      stay in order.
    * The first record of a subscription carries SNAPSHOT; records within a minute of a wall-clock step carry CLOCK_STEP.
    * The session is taken from the calendar where the frame did not name it.
"""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Sequence

import numpy as np

from brokers.decoded import DecodedBatch, to_records
from brokers.feed.halts import HaltTracker
from conf.clock import MINUTE_NS, SECOND_NS, Clock
from conf.home import Home
from ringbuf.events import EventPublisher
from ringbuf.records import STREAMS, FeedId, Flag, Session, Venue, field_offset
from ringbuf.ring import Producer
from ringbuf.vitals import Vitals

CLOCK_STEP_WINDOW_NS = 60 * SECOND_NS
_SNAPSHOT, _CHECKSUM, _HALTED = int(Flag.SNAPSHOT), int(Flag.CHECKSUM), int(Flag.HALTED)
_CLOCK_STEP = int(Flag.CLOCK_STEP)
_VENUE_MISMATCH = int(Flag.VENUE_MISMATCH)
_UNKNOWN_SESSION = int(Session.UNKNOWN)
_FLAGS = struct.Struct("<I")


class _RowFields:
    """Where a packed row of a stream has what is read or changed here."""

    def __init__(self, dtype: np.dtype) -> None:
        mono, exch, venue, self.flags_at, self.session_at = (
            field_offset(dtype, name) for name in ("mono_ns", "exch_ns", "venue", "flags", "session")
        )
        gaps = (
            exch - mono - 8,
            venue - exch - 8,
            self.flags_at - venue - 1,
            self.session_at - self.flags_at - _FLAGS.size,
        )
        self.read = struct.Struct("<{}xq{}xq{}xB{}xI{}xB".format(mono, *gaps)).unpack_from
        """mono_ns, exch_ns, venue, flags, session of a row."""


_ROW_FIELDS = {stream: _RowFields(dtype) for stream, dtype in STREAMS.items()}


class RingPublisher:
    """The rings of one line; `events` is the one of what happens to it."""

    def __init__(self, home: Home, feed: str, vitals: Vitals, clock: Clock) -> None:
        """OSError without room for the rings; whatever fails, none stays open."""
        table = home.settings.ring
        capacities = {"orderbook": table.orderbook_capacity, "tick": table.tick_capacity}
        self._session_resolver = SessionResolver(home)
        self._producers: dict[str, Producer] = {}
        self.events = EventPublisher(home.ring_path(feed, "event"), FeedId[feed.upper()], clock)
        try:
            for stream, dtype in STREAMS.items():
                self._producers[stream] = Producer.open(home.ring_path(feed, stream), dtype, capacities[stream])
        except BaseException:
            self.close()
            raise
        self._vitals = vitals
        self._halt_tracker = HaltTracker()
        self._clock_stepped_ns = -CLOCK_STEP_WINDOW_NS
        self._lock = threading.Lock()

    def emit_started(self) -> None:
        """Emit that the feed began, and since when it was absent: last heartbeat or last record before, whichever is later."""
        previous_heartbeat_ns = self._vitals.previous_heartbeat_ns
        if previous_heartbeat_ns is not None:
            rings = [ring for ring in self._producers.values() if ring.head]
            newest = [int(ring.slots["mono_ns"][(ring.head - 1) % ring.capacity]) for ring in rings]
            previous_heartbeat_ns = max([previous_heartbeat_ns, *newest])
        self.events.emit_started(previous_heartbeat_ns)

    def on_clock_step(self, mono_ns: int) -> None:
        """The wall clock was found stepped at `mono_ns`."""
        self._clock_stepped_ns = mono_ns

    def publish(
        self, batch: DecodedBatch, first_books: Sequence[int], first_ticks: Sequence[int], mono_ns: int
    ) -> None:
        """Publish a batch; `first_...` are the positions of records that are the first since their subscription."""
        counts: dict[str, int] = {}
        rows_by_mono_ns: dict[int, int] = {}
        with self._lock:
            common_flags = _CLOCK_STEP if mono_ns - self._clock_stepped_ns < CLOCK_STEP_WINDOW_NS else 0
            if batch.book_rows:
                counts["books"] = len(batch.book_rows)
                self._publish_rows("orderbook", batch.book_rows, first_books, common_flags, counts, rows_by_mono_ns)
            if batch.tick_rows:
                counts["ticks"] = len(batch.tick_rows)
                all_flags, ticks = self._publish_rows(
                    "tick", batch.tick_rows, first_ticks, common_flags, counts, rows_by_mono_ns
                )
                if all_flags & _HALTED or self._halt_tracker.is_any_halted:
                    self._emit_halts(to_records(STREAMS["tick"], ticks), mono_ns)
        self._vitals.add_all(counts)
        # frames of one batch that left the socket together waited equally long
        now_ns = time.monotonic_ns()
        for received_ns, count in rows_by_mono_ns.items():
            self._vitals.record_latency(now_ns - received_ns, count)

    def _publish_rows(
        self,
        stream: str,
        rows: Sequence[bytes],
        firsts: Sequence[int],
        common_flags: int,
        counts: dict[str, int],
        rows_by_mono_ns: dict[int, int],
    ) -> tuple[int, list[bytearray]]:
        """Publish rows of one stream and count them by finding and by receipt; every flag among them, and the finished rows."""
        fields, find_session = _ROW_FIELDS[stream], self._session_resolver.find
        all_flags = failed = venue_mismatches = 0
        finished = []
        for nth, packed in enumerate(rows):
            row = bytearray(packed)
            received_ns, exch_ns, venue, flags, session = fields.read(row)
            rows_by_mono_ns[received_ns] = rows_by_mono_ns.get(received_ns, 0) + 1
            flags |= common_flags
            if nth in firsts:
                flags |= _SNAPSHOT
            if flags:
                _FLAGS.pack_into(row, fields.flags_at, flags)
                all_flags |= flags
                failed += flags & _CHECKSUM != 0
                venue_mismatches += flags & _VENUE_MISMATCH != 0
            if session == _UNKNOWN_SESSION:
                row[fields.session_at] = find_session(venue, exch_ns)
            finished.append(row)
        self._producers[stream].publish_rows(finished)
        if failed:
            counts["checksum_failed"] = counts.get("checksum_failed", 0) + failed
        if venue_mismatches:
            counts["venue_mismatches"] = counts.get("venue_mismatches", 0) + venue_mismatches
        return all_flags, finished

    def _emit_halts(self, ticks: np.ndarray, mono_ns: int) -> None:
        for kind, message, instrument, value, exch_ns, _ in self._halt_tracker.detect_changes(ticks):
            symbol, venue = instrument or ("", "")
            self.events.emit(kind, message, symbol=symbol, venue=venue, value=value, mono_ns=mono_ns, exch_ns=exch_ns)

    def restore_paths(self) -> None:
        """Make rings again whose paths were deleted; call about once a second."""
        with self._lock:
            for producer in self._producers.values():
                producer.restore_path()
        self.events.restore_path()

    def close(self) -> None:
        """Close the rings; the files stay."""
        for producer in self._producers.values():
            producer.close()
        self.events.close()


class SessionResolver:
    """The calendar's session of an instant, looked up once a minute and venue."""

    def __init__(self, home: Home) -> None:
        self._calendar = home.load_calendar()
        self._cache: dict[tuple[int, int], int] = {}

    def resolve(self, array: np.ndarray) -> None:
        """Set `session` where it is UNKNOWN."""
        for at in np.flatnonzero(array["session"] == Session.UNKNOWN):
            array["session"][at] = self.find(int(array["venue"][at]), int(array["exch_ns"][at]))

    def find(self, venue: int, exch_ns: int) -> int:
        """The session of an instant."""
        key = venue, exch_ns // MINUTE_NS
        session = self._cache.get(key)
        if session is None:
            name = self._calendar.label(Venue(venue).name, key[1] * MINUTE_NS)
            if len(self._cache) > 10_000:
                self._cache.clear()
            session = self._cache[key] = int(Session[name.upper()] if name else Session.UNKNOWN)
        return session
