"""Failover policy: when a feed subscribes to another feed's ticks, and when it releases them (pure).

    the peer     ─up────┐                                   ┌──────────up─────────────────────
                        └───────────down────────────────────┘
    its ticks    peer   | no feed (a gap)  | this feed      | both (deduplicated by volume)    | peer
                          takeover_after_s                    give_back_after_s of being up

A peer is down if it is not connected with everything subscribed, if its heartbeat stopped, or if it is silent. Silence is relative:
both feeds carry the books of the same instruments, so a peer is silent if this feed received data in the last seconds and the peer
did not. If both are quiet, neither is down.

Guarantees:
    * A feed that goes down and up within the two times is neither taken over nor given back.
    * While both feeds are down, or no venue has a session, nothing is taken over.
    * No connection gets more than its limit; equal inputs give equal decisions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from brokers.allocation.allocate import PlannedConnection, capacity_unit
from brokers.subscription import Subscription
from conf.clock import SECOND_NS

HEARTBEAT_TIMEOUT_NS = 5 * SECOND_NS
"""A collector sends a heartbeat at least every second; after this long it hangs or has exited."""
SILENCE_TIMEOUT_NS = 5 * SECOND_NS
"""Data of one feed reaches the other within a second; after this long the other is silent."""


class FeedState(NamedTuple):
    """A feed as observed; times in mono_ns. `up_keys`: bit k-1 for each key k whose connection is up."""

    heartbeat_ns: int
    up_keys: int
    last_data_ns: int


class FailoverPolicy:
    """Decides which connections of another feed this feed replaces."""

    def __init__(self, takeover_after_s: float, give_back_after_s: float, keys: Iterable[int]) -> None:
        """`keys`: the other feed's connections."""
        self._takeover_after_ns = round(takeover_after_s * SECOND_NS)
        self._give_back_after_ns = round(give_back_after_s * SECOND_NS)
        self._since_ns: dict[int, int] = {}  # when a key's state, up or down, began
        self._is_up: dict[int, bool] = dict.fromkeys(keys, False)
        self._peer_last_data_ns = 0
        self._sole_receiver_since_ns = 0
        self.active: frozenset[int] = frozenset()

    def replace_keys(self, keys: Iterable[int]) -> None:
        """The other feed has these connections from now on; what is known of those that stay is kept."""
        self._is_up = {key: self._is_up.get(key, False) for key in keys}
        self._since_ns = {key: since_ns for key, since_ns in self._since_ns.items() if key in self._is_up}
        self.active = self.active.intersection(self._is_up)

    def update(
        self, now_ns: int, peer: FeedState | None, own: FeedState, is_open: bool, expects_data: bool = True
    ) -> frozenset[int]:
        """The keys of the other feed whose ticks this one collects from now on; `peer` None: it has no vitals.

        `is_open`: whether a venue of its instruments has a session now; `expects_data`: whether silence there is a fault.
        """
        is_silent = self._is_silent(now_ns, peer, own.last_data_ns, is_open and expects_data)
        # a heartbeat far ahead belongs to another boot
        is_alive = peer is not None and abs(now_ns - peer.heartbeat_ns) <= HEARTBEAT_TIMEOUT_NS and not is_silent
        active = set(self.active)
        for key, was_up in self._is_up.items():
            is_up = is_alive and peer is not None and bool(peer.up_keys >> key - 1 & 1)
            if is_up != was_up or key not in self._since_ns:
                self._is_up[key] = is_up
                self._since_ns[key] = self._sole_receiver_since_ns if is_silent and was_up else now_ns
            lasted_ns = now_ns - self._since_ns[key]
            if is_up and lasted_ns >= self._give_back_after_ns:
                active.discard(key)
            elif not is_up and lasted_ns >= self._takeover_after_ns and is_open and own.up_keys:
                active.add(key)
        self.active = frozenset(active)
        return self.active

    def _is_silent(self, now_ns: int, peer: FeedState | None, own_data_ns: int, expects_data: bool) -> bool:
        """Whether this feed has received data that the other one has not."""
        peer_data_ns = peer.last_data_ns if peer is not None else 0
        if not expects_data or peer_data_ns != self._peer_last_data_ns or own_data_ns <= peer_data_ns:
            self._peer_last_data_ns, self._sole_receiver_since_ns = peer_data_ns, 0
        elif not self._sole_receiver_since_ns:
            self._sole_receiver_since_ns = now_ns
        return bool(self._sole_receiver_since_ns) and now_ns - self._sole_receiver_since_ns > SILENCE_TIMEOUT_NS


def place_extra(
    name: str, limit: int, own: Sequence[PlannedConnection], wanted: Iterable[Subscription]
) -> tuple[dict[int, tuple[Subscription, ...]], list[Subscription]]:
    """Place `wanted`, most important first, beside a broker's own allocation: by key; and what has no slot.

    A subscription goes to the connection that need not count it (its symbol is there), else to the one with most free slots.
    """
    by_key: dict[int, list[Subscription]] = {connection.key: list(connection.subscriptions) for connection in own}
    units = {
        key: {capacity_unit(name, subscription) for subscription in subscriptions}
        for key, subscriptions in by_key.items()
    }
    extra: dict[int, list[Subscription]] = {key: [] for key in by_key}
    left_out = []
    for subscription in wanted:
        counted_unit = capacity_unit(name, subscription)
        if any(subscription in subscriptions for subscriptions in by_key.values()):
            continue
        key = next((key for key in by_key if counted_unit in units[key]), None)
        if key is None:
            key = min(by_key, key=lambda key: len(units[key]), default=None)
            if key is None or len(units[key]) >= limit:
                left_out.append(subscription)
                continue
        by_key[key].append(subscription)
        units[key].add(counted_unit)
        extra[key].append(subscription)
    return {key: tuple(subscriptions) for key, subscriptions in extra.items()}, left_out
