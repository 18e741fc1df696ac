"""A batch of decoded rows into the line's rings: flagged, given its session, counted.

    Decoded (rows of one poll) --> array per stream --> one publish each

Promises: threads may publish at once: each batch goes in whole, in the order in which they come, and records of one instrument and
stream, which come from one thread, stay in order; one publish per stream and batch; the first record of a registration after its
subscription carries SNAPSHOT, records within a minute of a wall-clock step carry CLOCK_STEP; where the frame did not name its
session, the calendar does.
Leaves to others: decoding, who is heard first (ledger.py), rings (ringbuf/ring.py).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

import numpy as np

from brokers.decoded import Decoded, records
from brokers.feed.halts import Halts
from conf.clock import SECOND_NS, Clock
from conf.home import Home
from ringbuf.events import Events
from ringbuf.records import STREAMS, Flag, Line, Session, Venue
from ringbuf.ring import Producer
from ringbuf.vitals import Vitals

STEP_SHADOW_NS = 60 * SECOND_NS
_SNAPSHOT = np.uint32(Flag.SNAPSHOT)
_MINUTE_NS = 60 * SECOND_NS


class Rings:
    """The rings of one line; `events` is the one of what happens to it."""

    def __init__(self, home: Home, line: str, vitals: Vitals, clock: Clock) -> None:
        """OSError if there is no room for them; then none is held."""
        table = home.settings.ring
        capacities = {"orderbook": table.orderbook_capacity, "tick": table.tick_capacity}
        self._producers: dict[str, Producer] = {}
        self.events = Events(home.ring(line, "event"), Line[line.upper()], clock)
        try:
            for stream, dtype in STREAMS.items():
                self._producers[stream] = Producer.open(home.ring(line, stream), dtype, capacities[stream])
        except OSError:
            self.close()
            raise
        self._vitals = vitals
        self._sessions = Sessions(home)
        self._halts = Halts()
        self._stepped_ns = -STEP_SHADOW_NS
        self._lock = threading.Lock()

    def started(self) -> None:
        """Tell that the line began, and since when nobody was there: the last heartbeat before, or the last record, if later."""
        former_ns = self._vitals.former_ns
        if former_ns is not None:
            rings = [ring for ring in self._producers.values() if ring.head]
            newest = [int(ring.slots["mono_ns"][(ring.head - 1) % ring.capacity]) for ring in rings]
            former_ns = max([former_ns, *newest])
        self.events.started(former_ns)

    def clock_stepped(self, mono_ns: int) -> None:
        """The wall clock was found stepped at `mono_ns`."""
        self._stepped_ns = mono_ns

    def publish(self, batch: Decoded, first_books: Sequence[int], first_ticks: Sequence[int], mono_ns: int) -> None:
        """Publish a batch; `first_...` are the positions of records that are the first since their subscription."""
        with self._lock:
            common = np.uint32(Flag.CLOCK_STEP if mono_ns - self._stepped_ns < STEP_SHADOW_NS else 0)
            for stream, rows, firsts, counter in (
                ("orderbook", batch.book_rows, first_books, "books"),
                ("tick", batch.tick_rows, first_ticks, "ticks"),
            ):
                if not rows:
                    continue
                array = records(STREAMS[stream], rows)
                array["flags"] |= common
                array["flags"][firsts] |= _SNAPSHOT
                self._sessions.fill(array)
                self._producers[stream].publish(array)
                self._vitals.add(counter, len(array))
                if failed := np.count_nonzero(array["flags"] & Flag.CHECKSUM):
                    self._vitals.add("checksum_failed", int(failed))
                if odd := np.count_nonzero(array["flags"] & Flag.VENUE_ODD):
                    self._vitals.add("venue_odd", int(odd))
                if stream == "tick":
                    self._tell_halts(array, mono_ns)
        # frames of one batch that left the socket together waited equally long
        now_ns = time.monotonic_ns()
        for received_ns, count in batch.received.items():
            self._vitals.latency(now_ns - received_ns, count)

    def _tell_halts(self, ticks: np.ndarray, mono_ns: int) -> None:
        for kind, words, (symbol, venue), number, exch_ns in self._halts.changed(ticks):
            self.events.tell(kind, words, symbol=symbol, venue=venue, number=number, mono_ns=mono_ns, exch_ns=exch_ns)

    def close(self) -> None:
        """Let go of the rings; they stay."""
        for producer in (*self._producers.values(), self.events):
            producer.close()


class Sessions:
    """The calendar's session of an instant, looked up once a minute and venue."""

    def __init__(self, home: Home) -> None:
        self._calendar = home.calendar()
        self._known: dict[tuple[int, int], int] = {}

    def fill(self, array: np.ndarray) -> None:
        """Set `session` where it is UNKNOWN."""
        for at in np.flatnonzero(array["session"] == Session.UNKNOWN):
            key = (int(array["venue"][at]), int(array["exch_ns"][at]) // _MINUTE_NS)
            session = self._known.get(key)
            if session is None:
                name = self._calendar.phase(Venue(key[0]).name, key[1] * _MINUTE_NS)
                if len(self._known) > 10_000:
                    self._known.clear()
                session = self._known[key] = Session[name.upper()] if name else Session.UNKNOWN
            array["session"][at] = session
