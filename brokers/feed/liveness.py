"""Liveness deadlines of one connection: when silence is a fault (pure).

    no frame at all ................ dead_after_s             always (the vendor's own heartbeat pause while closed)
    no data on the connection ...... silent_after_s           while a session is open
    one subscription silent ........ symbol_silent_after_s    while a session is open and others receive
    no acknowledgement ............. acknowledge_within_s     three times
    outside all sessions ........... may_sleep                where the settings want that

Guarantees:
    * Times are mono_ns passed in. Heartbeats are frames but not data.
    * A connection that was renewed for silence and stays silent gets twice the time, so that a quiet market does not cause a
      storm of logins.
"""

from __future__ import annotations

from typing import NoReturn

from brokers.errors import SessionExpired
from brokers.subscription import Subscription, SubscriptionTable
from conf.calendar import TradingCalendar
from conf.clock import SECOND_NS
from conf.settings import Settings
from ringbuf.records import STATUS_STREAM

MAX_ATTEMPTS = 3
MAX_TIMEOUT_FACTOR = 8


class LivenessMonitor:
    """One connection's deadlines."""

    def __init__(self, settings: Settings, calendar: TradingCalendar, heartbeat_s: float) -> None:
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
        self.last_frame_ns = 0
        """When the last frame came, heartbeats included; the connection's beginning before the first."""
        self.last_data_ns = 0
        """When market data last came on this connection; 0 before the first."""
        self._streaming_since_ns = 0
        self._timeout_factor = 1

    @property
    def is_open(self) -> bool:
        """Whether a venue of this connection has a session."""
        return bool(self._open_since_ns)

    def on_connected(self, mono_ns: int) -> None:
        """A new connection: everything counts from here."""
        self.last_frame_ns = mono_ns
        self.last_data_ns = self._streaming_since_ns = 0

    def on_frame(self, mono_ns: int) -> None:
        """Something came."""
        self.last_frame_ns = mono_ns

    def on_data(self, mono_ns: int) -> None:
        """Market data came."""
        self.last_data_ns = mono_ns
        self._timeout_factor = 1

    def update_open_venues(self, calendar_ns: int, venues: set[str], mono_ns: int) -> None:
        """Note which of these venues, those of the connection, have a session, and since when."""
        for venue in self._open_since_ns.keys() - venues:  # a list without them is in force since
            del self._open_since_ns[venue]
        for venue in venues:
            if self._calendar.expects_data(venue, calendar_ns):
                self._open_since_ns.setdefault(venue, mono_ns)
            else:
                self._open_since_ns.pop(venue, None)

    def may_disconnect(self, venues: set[str], calendar_ns: int) -> bool:
        """Whether the settings want no connection now: none of `venues` has a session, nor soon, nor had one just now."""
        if self._margin_ns is None:
            return False
        return not self._calendar.is_open(venues, calendar_ns - self._margin_ns, calendar_ns + self._margin_ns)

    def check_connection(self, streaming: bool, mono_ns: int) -> None:
        """SessionExpired if the connection is dead, or silent in a session."""
        no_frame_ns = mono_ns - self.last_frame_ns
        if no_frame_ns > (self._dead_ns if self.is_open else self._closed_dead_ns) * self._timeout_factor:
            self._declare_dead(f"no frame of any kind for {no_frame_ns / SECOND_NS:.0f} s")
        if not streaming or not self.is_open:
            self._streaming_since_ns = 0
            return
        self._streaming_since_ns = self._streaming_since_ns or mono_ns
        no_data_ns = mono_ns - max(self.last_data_ns, self._streaming_since_ns)
        if no_data_ns > self._silent_ns * self._timeout_factor:
            self._declare_dead(f"no market data for {no_data_ns / SECOND_NS:.0f} s inside a session")

    def _declare_dead(self, reason: str) -> NoReturn:
        self._timeout_factor = min(2 * self._timeout_factor, MAX_TIMEOUT_FACTOR)
        raise SessionExpired(reason)

    def unacknowledged_subscriptions(self, subscription_table: SubscriptionTable, mono_ns: int) -> list[Subscription]:
        """Subscriptions to send again. SessionExpired if one has been sent three times without an answer.

        A status counts as refused then: no data depends on it.
        """
        found = []
        for subscription in subscription_table.unacknowledged(mono_ns, self._acknowledge_ns):
            if subscription_table.states[subscription].attempts < MAX_ATTEMPTS:
                found.append(subscription)
                continue
            reason = f"not acknowledged after {MAX_ATTEMPTS} attempts"
            if subscription.stream != STATUS_STREAM:
                raise SessionExpired(f"{subscription}: {reason}")
            subscription_table.on_refused(subscription, reason)
        return found

    def stale_subscriptions(self, subscription_table: SubscriptionTable, mono_ns: int) -> list[Subscription]:
        """Acknowledged subscriptions that stay silent in a session while the connection speaks."""
        since_ns = mono_ns - self._symbol_silent_ns
        if self.last_data_ns < since_ns:
            return []
        return subscription_table.stale(
            since_ns,
            [
                r
                for r in subscription_table.states
                if r.stream != STATUS_STREAM and self._open_since_ns.get(r.instrument.venue, mono_ns) < since_ns
            ],
        )
