"""Publisher: decoded rows into the feed's rings, flagged, with their session, counted.

    DecodedBatch (rows of one poll) --> array per stream --> one publish each

Guarantees:
    * Threads may publish at once: each batch goes in whole; records of one instrument and stream come from one thread and
      stay in order.
    * The first record of a subscription carries SNAPSHOT; records within a minute of a wall-clock step carry CLOCK_STEP.
    * The session is taken from the calendar where the frame did not name it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

import numpy as np

from brokers.decoded import DecodedBatch, to_records
from brokers.feed.halts import HaltTracker
from conf.clock import MINUTE_NS, SECOND_NS, Clock
from conf.home import Home
from ringbuf.events import EventPublisher
from ringbuf.records import STREAMS, FeedId, Flag, Session, Venue
from ringbuf.ring import Producer
from ringbuf.vitals import Vitals

CLOCK_STEP_WINDOW_NS = 60 * SECOND_NS
_SNAPSHOT = np.uint32(Flag.SNAPSHOT)


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
        with self._lock:
            common_flags = np.uint32(Flag.CLOCK_STEP if mono_ns - self._clock_stepped_ns < CLOCK_STEP_WINDOW_NS else 0)
            for stream, rows, firsts, counter in (
                ("orderbook", batch.book_rows, first_books, "books"),
                ("tick", batch.tick_rows, first_ticks, "ticks"),
            ):
                if not rows:
                    continue
                array = to_records(STREAMS[stream], rows)
                array["flags"] |= common_flags
                array["flags"][firsts] |= _SNAPSHOT
                self._session_resolver.resolve(array)
                self._producers[stream].publish(array)
                self._vitals.add(counter, len(array))
                if failed := np.count_nonzero(array["flags"] & Flag.CHECKSUM):
                    self._vitals.add("checksum_failed", int(failed))
                if venue_mismatches := np.count_nonzero(array["flags"] & Flag.VENUE_MISMATCH):
                    self._vitals.add("venue_mismatches", int(venue_mismatches))
                if stream == "tick":
                    self._emit_halts(array, mono_ns)
        # frames of one batch that left the socket together waited equally long
        now_ns = time.monotonic_ns()
        for received_ns, count in batch.rows_by_mono_ns.items():
            self._vitals.record_latency(now_ns - received_ns, count)

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
            key = (int(array["venue"][at]), int(array["exch_ns"][at]) // MINUTE_NS)
            session = self._cache.get(key)
            if session is None:
                name = self._calendar.label(Venue(key[0]).name, key[1] * MINUTE_NS)
                if len(self._cache) > 10_000:
                    self._cache.clear()
                session = self._cache[key] = Session[name.upper()] if name else Session.UNKNOWN
            array["session"][at] = session
