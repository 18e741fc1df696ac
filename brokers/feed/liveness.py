"""When silence is a fault: the deadlines of one connection (design 5).

    no frame at all ................ dead_after_s             always (the vendor's own heartbeat pause while closed)
    no data on the connection ...... silent_after_s           while a session is open
    one registration silent ........ symbol_silent_after_s    while a session is open and others speak
    no acknowledgement ............. acknowledge_within_s     three times
    outside all sessions ........... may_sleep                where the settings want that

Promises: knows neither socket nor clock, times are mono_ns passed in; heartbeats are frames but no data; a connection that was
renewed for silence and stays silent is given twice the time, so that a quiet market is not answered with a storm of logins.
Leaves to others: doing what follows from it (connection.py).
"""

from __future__ import annotations

from typing import NoReturn

from brokers.errors import SessionLost
from brokers.subscription import Ledger, Registration
from conf.calendar import Calendar
from conf.clock import SECOND_NS
from conf.settings import Settings

TRIES_MOST = 3
PATIENCE_MOST = 8
QUIET = (None, "closing_price")
"""Phases in which silence is normal: trades at the closing price are few, and no book comes with them (spec kiwoom 3.2)."""


class Watch:
    """One connection's deadlines."""

    def __init__(self, settings: Settings, calendar: Calendar, heartbeat_s: float) -> None:
        """`heartbeat_s`: the longest pause the vendor may make between two heartbeats of an idle connection."""
        self._calendar = calendar
        feed = settings.feed
        self._margin_ns = round(feed.sleep_margin_s * SECOND_NS) if feed.sleep_outside_sessions else None
        self._dead_ns = round(feed.dead_after_s * SECOND_NS)
        self._closed_dead_ns = max(self._dead_ns, round(heartbeat_s * SECOND_NS))
        self._silent_ns = round(feed.silent_after_s * SECOND_NS)
        self._acknowledge_ns = round(feed.acknowledge_within_s * SECOND_NS)
        self._symbol_silent_ns = round(feed.symbol_silent_after_s * SECOND_NS)
        self._open_since_ns: dict[str, int] = {}
        self.frame_ns = 0
        """When the last frame came, heartbeats included; the connection's beginning before the first."""
        self._data_ns = 0
        self._streaming_ns = 0
        self._patience = 1

    @property
    def open(self) -> bool:
        """Whether a venue of this connection has a session."""
        return bool(self._open_since_ns)

    def connected(self, mono_ns: int) -> None:
        """A new connection: everything counts from here."""
        self.frame_ns = mono_ns
        self._data_ns = self._streaming_ns = 0

    def frame(self, mono_ns: int) -> None:
        """Something came."""
        self.frame_ns = mono_ns

    def data(self, mono_ns: int) -> None:
        """Market data came."""
        self._data_ns = mono_ns
        self._patience = 1

    def market(self, calendar_ns: int, venues: set[str], mono_ns: int) -> None:
        """Note which venues have a session, and since when."""
        for venue in venues:
            if self._calendar.phase(venue, calendar_ns) in QUIET:
                self._open_since_ns.pop(venue, None)
            else:
                self._open_since_ns.setdefault(venue, mono_ns)

    def may_sleep(self, venues: set[str], calendar_ns: int) -> bool:
        """Whether the settings want no connection now: none of `venues` has a session, nor soon, nor had one just now."""
        if self._margin_ns is None:
            return False
        return not self._calendar.is_open(venues, calendar_ns - self._margin_ns, calendar_ns + self._margin_ns)

    def check_connection(self, streaming: bool, mono_ns: int) -> None:
        """SessionLost if the connection is dead, or silent in a session."""
        still_ns = mono_ns - self.frame_ns
        if still_ns > (self._dead_ns if self.open else self._closed_dead_ns) * self._patience:
            self._lose(f"no frame of any kind for {still_ns / SECOND_NS:.0f} s")
        if not streaming or not self.open:
            self._streaming_ns = 0
            return
        self._streaming_ns = self._streaming_ns or mono_ns
        quiet_ns = mono_ns - max(self._data_ns, self._streaming_ns)
        if quiet_ns > self._silent_ns * self._patience:
            self._lose(f"no market data for {quiet_ns / SECOND_NS:.0f} s inside a session")

    def _lose(self, words: str) -> NoReturn:
        self._patience = min(2 * self._patience, PATIENCE_MOST)
        raise SessionLost(words)

    def overdue(self, ledger: Ledger, mono_ns: int) -> list[Registration]:
        """Registrations to send again. SessionLost if one has been sent three times without an answer."""
        overdue = ledger.overdue(mono_ns, self._acknowledge_ns)
        for registration in overdue:
            if ledger.standing[registration].tries >= TRIES_MOST:
                raise SessionLost(f"{registration}: not acknowledged after {TRIES_MOST} attempts")
        return overdue

    def silent(self, ledger: Ledger, mono_ns: int) -> list[Registration]:
        """Acknowledged registrations that stay silent in a session while the connection speaks."""
        since_ns = mono_ns - self._symbol_silent_ns
        if self._data_ns < since_ns:
            return []
        return ledger.silent(
            since_ns,
            [r for r in ledger.standing if self._open_since_ns.get(r.instrument.venue, mono_ns) < since_ns],
        )
