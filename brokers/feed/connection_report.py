"""Report of one connection: each occurrence as an event, in the counters and, where it matters, in the log."""

from __future__ import annotations

from collections.abc import Collection

from loguru import logger

from brokers.feed.connection_events import ConnectionEvents
from brokers.feed.heartbeat import ThreadHeartbeat
from brokers.subscription import Subscription, SubscriptionTable


class ConnectionReport:
    """One connection's report; `key`: the number of its key, 1, 2, ..."""

    def __init__(self, events: ConnectionEvents, heartbeat: ThreadHeartbeat, key: int) -> None:
        self._events = events
        self._heartbeat = heartbeat
        self._key = key
        self._frames = self._bytes = 0

    def connected(self, url: str) -> None:
        """The handshake is done."""
        logger.info("connected to {}", url)
        self._heartbeat.add("connects")
        self._heartbeat.set("connected", 1)
        self._events.connected(url)

    def disconnected(self, reason: str, last_frame_ns: int, subscription_table: SubscriptionTable) -> None:
        """The connection has ended."""
        self.store_received()
        self._events.subscription_answers(subscription_table)
        self._events.disconnected(reason, last_frame_ns)
        self._heartbeat.set("up_keys", 0)
        self._heartbeat.set("connected", 0)
        self._heartbeat.add("disconnects")

    def streaming(self) -> None:
        """Everything has been subscribed since the connection began; failover of other feeds reads it."""
        self._heartbeat.set("up_keys", 1 << self._key - 1)

    def received(self, frames: int, size: int) -> None:
        """One poll brought that many frames and bytes: counted here, see `store_received`."""
        self._frames += frames
        self._bytes += size

    def store_received(self) -> None:
        """Add what was received since the last call to the counters."""
        if self._frames:
            self._heartbeat.add_all({"frames": self._frames, "bytes": self._bytes})
            self._frames = self._bytes = 0

    def subscriptions(self, subscription_table: SubscriptionTable) -> None:
        """Requested, acknowledged and refused are levels of the present connection."""
        self._events.subscription_answers(subscription_table)
        states = subscription_table.states.values()
        self._heartbeat.set("requested", sum(1 for state in states if state.requested_ns))
        self._heartbeat.set("acknowledged", sum(1 for state in states if state.acknowledged_ns))
        self._heartbeat.set("refused", sum(1 for state in states if state.refusal))

    def resubscribed(self, subscriptions: Collection[Subscription], reason: str) -> None:
        """These are sent again."""
        logger.warning("{}, registering again: {}", reason, ", ".join(map(str, subscriptions)))
        self._events.resubscribed(subscriptions, reason)
