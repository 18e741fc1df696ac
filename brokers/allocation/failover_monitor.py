"""Failover monitor: reads the peer's vitals page, applies the policy, emits what is taken over and given back.

    run/ring/kis.vitals ──> FailoverPolicy ──> the ticks of kis ──place_extra──> extra subscriptions of this feed's connections

Guarantees:
    * A page that cannot be read counts as a peer that is down.
    * Each symbol that is taken over or given back is an event; each change of the set is one log line.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from loguru import logger

from brokers.allocation.allocate import PlannedConnection
from brokers.allocation.failover import FailoverPolicy, FeedState, place_extra
from brokers.registry import BROKERS
from brokers.subscription import Subscription
from conf.contracts import FAILOVER_COUNTERS
from conf.home import Home
from conf.instrument import Instrument
from ringbuf.events import EventPublisher
from ringbuf.records import EventType, FeedId
from ringbuf.vitals import VitalsError, VitalsSnapshot, read_snapshot

MAX_NAMED = 12


class FailoverMonitor:
    """Failover of this feed for one peer."""

    def __init__(
        self,
        home: Home,
        name: str,
        own_connections: Sequence[PlannedConnection],
        peer: str,
        peer_connections: Sequence[PlannedConnection],
        events: EventPublisher,
    ) -> None:
        """`own_connections`, `peer_connections`: the allocation of this feed and of the peer."""
        shards = home.settings.shards
        self._name, self._peer = name, peer
        self._limit = getattr(home.settings, name).max_subscriptions
        self._peer_vitals = home.vitals_path(peer)
        self._calendar = home.load_calendar()
        self._events = events
        self._policy = FailoverPolicy(shards.takeover_after_s, shards.give_back_after_s, ())
        self.replan(home.settings.instruments(BROKERS[name].market), own_connections, peer_connections)
        self._active: frozenset[int] = frozenset()
        self.extra_subscriptions: dict[int, tuple[Subscription, ...]] = {}
        self.status = ""
        """What is taken over; empty while the other feed is up."""

    def replan(
        self,
        instruments: Iterable[Instrument],
        own_connections: Sequence[PlannedConnection],
        peer_connections: Sequence[PlannedConnection],
    ) -> None:
        """Another allocation; what is taken over stays so as far as it is part of it. `poll` must follow."""
        self._own_connections, self._peer_connections = own_connections, peer_connections
        self._venues = {r.instrument.venue for connection in peer_connections for r in connection.subscriptions}
        self._rank = {instrument: rank for rank, instrument in enumerate(instruments)}
        self._policy.replace_keys(connection.key for connection in peer_connections)
        self._is_replanned = True

    def poll(self, mono_ns: int, calendar_ns: int, own: FeedState) -> None:
        """About twice a second: update `extra_subscriptions` (by own key) and `status`."""
        is_open = any(self._calendar.find_phase(venue, calendar_ns) is not None for venue in self._venues)
        expects_data = any(self._calendar.expects_data(venue, calendar_ns) for venue in self._venues)
        try:
            peer = self._read_peer()
        except OSError:  # no file descriptor is free: the peer's state is unknown, so change nothing
            return
        active = self._policy.update(mono_ns, peer_state(peer), own, is_open, expects_data)
        if active == self._active and not (self._is_replanned and active):
            return
        self._active, self._is_replanned = active, False
        previous = self.extra_subscriptions
        wanted = [r for c in self._peer_connections if c.key in active for r in c.subscriptions if r.stream == "tick"]
        wanted.sort(key=lambda subscription: self._rank[subscription.instrument])
        self.extra_subscriptions, left_out = place_extra(self._name, self._limit, self._own_connections, wanted)
        self._emit_changes(previous)
        count = sum(map(len, self.extra_subscriptions.values()))
        self.status = ""
        if active:
            self.status = f"collects {count} of {len(wanted)} ticks in place of {self._peer}"
        if wanted:
            logger.warning("{} is down: this feed {}", self._peer, self.status)
        else:
            logger.info("{} is back: its ticks are given back", self._peer)
        if left_out:
            names = ", ".join(str(r.instrument) for r in left_out[:MAX_NAMED])
            logger.warning("no slot for the ticks of {}{}", names, ", ..." * (len(left_out) > MAX_NAMED))

    def _read_peer(self) -> VitalsSnapshot | None:
        """The other's vitals; None if the page is missing or of another version. OSError."""
        try:
            return read_snapshot(self._peer_vitals)
        except (FileNotFoundError, VitalsError):
            return None

    def _emit_changes(self, previous: dict[int, tuple[Subscription, ...]]) -> None:
        """Emit events for what changed; the event's feed is this one, its message names the other."""
        for kind, included, excluded in (
            (EventType.GIVEN_BACK, previous, self.extra_subscriptions),
            (EventType.TAKEN_OVER, self.extra_subscriptions, previous),
        ):
            for key, subscriptions in included.items():
                for subscription in subscriptions:
                    if subscription in excluded.get(key, ()):
                        continue
                    (symbol, venue), stream = subscription
                    feed = FeedId[self._name.upper()]
                    self._events.emit(
                        kind, self._peer, feed=feed, symbol=symbol, venue=venue, stream=stream, connection=key
                    )


def peer_state(snapshot: VitalsSnapshot | None) -> FeedState | None:
    """The feed state of a vitals page."""
    if snapshot is None:
        return None
    return FeedState(snapshot.heartbeat_mono_ns, *(snapshot.counters[name] for name in FAILOVER_COUNTERS))
