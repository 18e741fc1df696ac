"""Subscription: one stream of one instrument, and the state of every subscription of a connection (pure).

    requested --> acknowledged --> first data --> last data
        |  `----> refused
        `-- overdue after a while, silent after a longer one

Guarantees:
    * Subscriptions keep their order; every time is a mono_ns passed in.
    * One that the vendor ends unasked is due again at once, after a second loss a second later, and so on doubling to a minute.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from conf.clock import SECOND_NS
from conf.instrument import Instrument


class Subscription(NamedTuple):
    """One stream of one instrument, as subscribed on one connection."""

    instrument: Instrument
    stream: str  # "orderbook", "tick" or "status"

    def __str__(self) -> str:
        return f"{self.instrument} {self.stream}"


@dataclass(slots=True)
class SubscriptionState:
    """State of one subscription; times are mono_ns, 0 = not yet."""

    requested_ns: int = 0
    acknowledged_ns: int = 0
    first_data_ns: int = 0  # since the latest subscription
    last_data_ns: int = 0
    attempts: int = 0
    refusal: str = ""
    lost_ns: int = 0  # the vendor ended it unasked, and it has not been sent again yet
    losses: int = 0


MAX_LOST_WAIT_NS = 60 * SECOND_NS


class SubscriptionTable:
    """All subscriptions of one connection."""

    def __init__(self, subscriptions: Iterable[Subscription]) -> None:
        self.states: dict[Subscription, SubscriptionState] = {
            subscription: SubscriptionState() for subscription in subscriptions
        }
        self.answers: list[tuple[Subscription, str]] = []
        """Responses of the vendor since it was last cleared: "" for accepted, else the message."""
        self._all_answered: bool | None = None  # not known since the last change

    def add(self, subscription: Subscription) -> None:
        """Add a subscription; an existing one keeps its state."""
        self._all_answered = None
        self.states.setdefault(subscription, SubscriptionState())

    def remove(self, subscription: Subscription) -> None:
        """Remove a subscription; data that still arrives for it is ignored."""
        self._all_answered = None
        self.states.pop(subscription, None)

    def on_requested(self, subscription: Subscription, mono_ns: int) -> None:
        """Record that a request was sent; the result of an earlier request is discarded."""
        self._all_answered = None
        state = self.states[subscription]
        state.requested_ns = mono_ns
        state.acknowledged_ns = state.first_data_ns = state.lost_ns = 0
        state.refusal = ""
        state.attempts += 1

    def on_acknowledged(self, subscription: Subscription, mono_ns: int) -> bool:
        """The vendor acknowledged it; False if no request was pending."""
        state = self.states.get(subscription)
        if state is None:
            return False
        self._all_answered = None
        is_new = not state.acknowledged_ns
        state.acknowledged_ns = mono_ns
        state.attempts = 0
        state.refusal = ""
        if is_new:
            self.answers.append((subscription, ""))
        return is_new

    def on_refused(self, subscription: Subscription, reason: str) -> None:
        """The vendor rejected it."""
        if subscription in self.states:
            self._all_answered = None
            self.states[subscription].refusal = reason
            self.answers.append((subscription, reason))

    def on_lost(self, subscription: Subscription, mono_ns: int) -> None:
        """The vendor ended it unasked."""
        self._all_answered = None
        state = self.states[subscription]
        state.requested_ns = state.acknowledged_ns = 0
        state.lost_ns = mono_ns
        state.losses += 1

    def lost(self, mono_ns: int) -> list[Subscription]:
        """Lost ones that are due to be sent again."""
        return [
            subscription
            for subscription, state in self.states.items()
            if state.lost_ns
            if mono_ns - state.lost_ns >= min(((1 << min(state.losses, 10) - 1) - 1) * SECOND_NS, MAX_LOST_WAIT_NS)
        ]

    def on_data(self, subscription: Subscription, mono_ns: int) -> bool:
        """Record that data arrived; True if it is the first since the subscription.

        Data may arrive before its acknowledgement (docs/wire/kis.md 2.3). Data of a stream that was not subscribed is ignored.
        """
        state = self.states.get(subscription)
        if state is None:
            return False
        state.last_data_ns = mono_ns
        if state.first_data_ns:
            return False
        state.first_data_ns = mono_ns
        return True

    def unacknowledged(self, mono_ns: int, timeout_ns: int) -> list[Subscription]:
        """Requested longer ago than `timeout_ns` and neither acknowledged nor refused."""
        return [
            subscription
            for subscription, state in self.states.items()
            if state.requested_ns and not state.acknowledged_ns and not state.refusal
            if mono_ns - state.requested_ns > timeout_ns
        ]

    def stale(self, since_ns: int, subscriptions: Iterable[Subscription]) -> list[Subscription]:
        """Those of `subscriptions` that were acknowledged before `since_ns` and have had no data since."""
        return [
            subscription
            for subscription in subscriptions
            if 0 < self.states[subscription].acknowledged_ns < since_ns
            if self.states[subscription].last_data_ns < since_ns
        ]

    def any_data(self) -> bool:
        """Whether data of any subscription arrived."""
        return any(state.last_data_ns for state in self.states.values())

    def all_answered(self) -> bool:
        """Whether every subscription was acknowledged or refused."""
        if self._all_answered is None:  # asked at every poll
            self._all_answered = all(state.acknowledged_ns or state.refusal for state in self.states.values())
        return self._all_answered

    def describe_refusals(self) -> list[str]:
        """Subscriptions that were refused, or ended by the vendor, with the reasons."""
        return [
            f"{subscription}: {state.refusal or 'released by the server, registering again'}"
            for subscription, state in self.states.items()
            if state.refusal or state.lost_ns
        ]
