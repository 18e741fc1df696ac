"""Events of one connection.

    connected .. acknowledged, acknowledged, refused .. phase, halt .. resubscribed .. quarantined (a burst is one) .. disconnected

Guarantees:
    * Of quarantined frames the first is emitted at once; those that follow within BURST_NS are summed up in one event.
    * Market events of the vendor beyond MAX_MARKET_EVENTS in that time are dropped, and the drop is an event.
    * A message is one line, without control characters and without a secret of this process.
    * Nothing here blocks.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from brokers.decoded import MarketEvent
from brokers.errors import to_safe_text
from brokers.subscription import Subscription, SubscriptionTable
from conf.clock import SECOND_NS, Clock
from ringbuf.events import EventPublisher
from ringbuf.records import UNDEFINED, EventType

BURST_NS = 60 * SECOND_NS
MAX_MARKET_EVENTS = 1000
"""Market events of the vendor per BURST_NS: more than a turbulent market has, fewer than fill a ring."""


class ConnectionEvents:
    """One connection's events; `connection`: 1, 2, ... within its feed."""

    def __init__(self, events: EventPublisher, clock: Clock, connection: int) -> None:
        self._events = events
        self._clock = clock
        self._connection = connection
        self._quarantined_count = 0
        self._quarantine_reason = ""
        self._quarantine_emitted_ns = -BURST_NS
        self._market_event_count = 0
        self._market_events_since_ns = 0

    def connected(self, url: str) -> None:
        """The handshake is done; nothing is subscribed yet."""
        self._emit(EventType.CONNECTED, url)

    def disconnected(self, reason: str, frame_ns: int) -> None:
        """The connection is no more; its last frame came at `frame_ns` (mono_ns)."""
        self._flush()
        since_ns = self._clock.to_calendar_ns(frame_ns)
        self._emit(EventType.DISCONNECTED, reason, since_ns=since_ns)

    def subscription_answers(self, subscription_table: SubscriptionTable) -> None:
        """Emit the responses that the subscription table has collected."""
        answers, subscription_table.answers = subscription_table.answers, []
        for subscription, refusal in answers:
            self._emit_for_subscription(EventType.REFUSED if refusal else EventType.ACKNOWLEDGED, refusal, subscription)

    def unsubscribed(self, subscriptions: Iterable[Subscription]) -> None:
        """These are given up on purpose."""
        for subscription in subscriptions:
            self._emit_for_subscription(EventType.RELEASED, "", subscription)

    def resubscribed(self, subscriptions: Iterable[Subscription], reason: str) -> None:
        """These are sent again."""
        for subscription in subscriptions:
            self._emit_for_subscription(EventType.RESUBSCRIBED, reason, subscription)

    def market_events(self, events: Iterable[MarketEvent], mono_ns: int) -> None:
        """Emit a market event of the vendor, received at `mono_ns`."""
        if mono_ns - self._market_events_since_ns >= BURST_NS:
            self._market_event_count, self._market_events_since_ns = 0, mono_ns
        for kind, message, instrument, value, exch_ns, _ in events:
            self._market_event_count += 1
            if self._market_event_count == MAX_MARKET_EVENTS:
                message = f"the {MAX_MARKET_EVENTS}th within a minute: the rest of that minute is left out"
                instrument, value, exch_ns = None, UNDEFINED, UNDEFINED
            elif self._market_event_count > MAX_MARKET_EVENTS:
                return
            symbol, venue = instrument or ("", "")
            self._emit(kind, message, symbol=symbol, venue=venue, value=value, mono_ns=mono_ns, exch_ns=exch_ns)

    def quarantined(self, reason: str, mono_ns: int) -> None:
        """A frame was quarantined; the reason is without secrets."""
        self._quarantined_count += 1
        self._quarantine_reason = reason
        self.flush_if_due(mono_ns)

    def flush_if_due(self, mono_ns: int) -> None:
        """About once a second: emit the sum of quarantined frames if it is due."""
        if self._quarantined_count and mono_ns - self._quarantine_emitted_ns >= BURST_NS:
            self._quarantine_emitted_ns = mono_ns
            self._flush()

    def _flush(self) -> None:
        if self._quarantined_count:
            reason, count = self._quarantine_reason, self._quarantined_count
            self._emit(EventType.QUARANTINED, reason, value=count)
        self._quarantined_count = 0

    def _emit_for_subscription(self, kind: EventType, message: str, subscription: Subscription) -> None:
        (symbol, venue), stream = subscription
        self._emit(kind, message, symbol=symbol, venue=venue, stream=stream)

    def _emit(self, kind: EventType, message: str, **fields: Any) -> None:
        self._events.emit(kind, to_safe_text(message), connection=self._connection, **fields)
