"""Event publisher: the producing side of an event ring.

    events.emit(EventType.DISCONNECTED, "no frame for 30 s", connection=1, since_ns=...) --> FEED.event.ring --> kr/event

Guarantees:
    * `emit` never blocks and may be called by any thread of the process; events are numbered in order.
    * A message longer than the record holds is cut between two characters.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Protocol

from ringbuf.records import EVENT, STREAM_NAMES, UNDEFINED, EventType, FeedId, Venue, empty_records, fit_text
from ringbuf.ring import Producer

EVENT_RING_CAPACITY = 8192
"""Events a ring holds, 2 MB: every subscription of a feed, several times over, while the writer is down."""

_MESSAGE_BYTES = EVENT["message"].itemsize


class Clock(Protocol):
    """The clock that stamps events (conf.clock.Clock)."""

    def mono_ns(self) -> int:
        """CLOCK_MONOTONIC."""

    def to_calendar_ns(self, mono_ns: int) -> int:
        """Calendar time of that instant, ns since 1970 UTC."""


class EventPublisher:
    """The events of one feed."""

    def __init__(self, path: Path, feed: FeedId, clock: Clock) -> None:
        """Create or continue the ring at `path`. OSError without room for it; RingError as in Producer.open."""
        self._ring = Producer.open(path, EVENT, EVENT_RING_CAPACITY)
        self._feed = feed
        self._clock = clock
        self._lock = threading.Lock()

    def emit(
        self,
        kind: EventType,
        message: str = "",
        *,
        feed: FeedId | None = None,
        symbol: str = "",
        venue: str = "",
        stream: str = "",
        connection: int = 0,
        value: int = UNDEFINED,
        since_ns: int = UNDEFINED,
        mono_ns: int | None = None,
        exch_ns: int = UNDEFINED,
    ) -> None:
        """Publish an event, at this instant or at `mono_ns`; the fields are described at each EventType (records.py).

        `feed`: the feed it concerns, if not this process's; `venue`: KRX, NXT, UN or none; `stream`: orderbook, tick or none;
        `since_ns`: calendar time.
        """
        event = empty_records(EVENT, 1)
        with self._lock:
            event["mono_ns"] = self._clock.mono_ns() if mono_ns is None else mono_ns
            event["recv_ns"] = self._clock.to_calendar_ns(int(event["mono_ns"][0]))
            event["exch_ns"], event["value"], event["since_ns"] = exch_ns, value, since_ns
            event["symbol"], event["venue"] = symbol.encode(), Venue[venue] if venue else 0
            event["stream"], event["connection"] = STREAM_NAMES.index(stream), connection
            event["line"], event["kind"] = feed or self._feed, kind
            event["message"] = fit_text(message, _MESSAGE_BYTES)
            self._ring.publish(event)

    def emit_started(self, previous_heartbeat_ns: int | None) -> None:
        """The process began; `previous_heartbeat_ns`: mono_ns of the last heartbeat before, None after an orderly stop."""
        since_ns = UNDEFINED if previous_heartbeat_ns is None else self._clock.to_calendar_ns(previous_heartbeat_ns)
        self.emit(EventType.STARTED, f"pid {os.getpid()}", since_ns=since_ns)

    def stored_times_ns(self, kind: EventType, connection: int) -> list[int]:
        """When events of a kind were published for a connection (mono_ns), by earlier processes as well; those in the ring."""
        with self._lock:
            ring = self._ring
            stored = ring.slots[: min(ring.head, ring.capacity)]
            chosen = (stored["kind"] == kind) & (stored["connection"] == connection)
            return sorted(ns for ns in stored["mono_ns"][chosen].tolist() if ns <= self._clock.mono_ns())

    def restore_path(self) -> None:
        """Make the ring again at its path if it was deleted."""
        with self._lock:
            self._ring.restore_path()

    def close(self) -> None:
        """Close the ring; the file stays."""
        self._ring.close()
