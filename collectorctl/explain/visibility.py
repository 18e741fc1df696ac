"""Outages of a feed for one symbol, from the events of a day (pure).

    acknowledged ──visible──> disconnected (since its last frame) ──outage──> acknowledged ──visible──> ...
                               stopped, started (since the last heartbeat), resubscribed, refused, released
    ring_loss                  its own span: received by the feed, lost before the writer read it

Guarantees:
    * Outside the spans the feed was subscribed on a living connection of a living process.
    * Before the first event about it, visibility is unknown and counted as an outage.

Not handled here:
    * A frame the vendor never sent is no outage: see the dataset feed_health.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any, NamedTuple

import pandas as pd

UNKNOWN = "no event tells"


_NEVER: Any = pd.NaT


class OutageSpan(NamedTuple):
    """From `begin` to `end` (pandas timestamps; NaT: not over, or unknown) nothing was received; with the reason."""

    begin: pd.Timestamp
    end: pd.Timestamp
    reason: str


def find_outages(events: pd.DataFrame, feed: str, symbol: str, stream: str, venue: str = "KRX") -> list[OutageSpan]:
    """Spans in which `feed` received nothing of `stream` ("orderbook", "tick") of a symbol, in order of their beginning.

    `events`: rows of kr/event as pandas reads them, of a day or more; begin with the day on which the feed was started.
    """
    feed_events = events[(events.line == feed)].sort_values(["time", "seq"], kind="stable")
    spans: list[OutageSpan] = []
    lost: list[OutageSpan] = []
    since, last, connection = _NEVER, _NEVER, None
    reason = UNKNOWN
    is_blind = True
    for event in feed_events.to_dict("records"):
        if event["kind"] == "ring_loss":
            if event["stream"] == stream:
                begin = _NEVER if pd.isna(event["since"]) else event["since"]
                lost.append(OutageSpan(begin, event["time"], f"ring_loss: {event['message']}"))
            continue
        is_own = (event["symbol"], event["venue"], event["stream"]) == (symbol, venue, stream)
        if is_own and event["kind"] == "acknowledged":
            if is_blind:
                spans.append(OutageSpan(since, event["time"], reason))
            is_blind, connection = False, event["connection"]
        elif not is_blind and _starts_outage(event, is_own, connection):
            is_blind, since, reason = True, _outage_begin(event, last), _describe_event(event)
        last = event["time"]
    if is_blind:
        spans.append(OutageSpan(since, _NEVER, reason))
    return sorted([*spans, *lost], key=lambda span: (not pd.isna(span.begin), span.begin))


def _starts_outage(event: Mapping[Hashable, Any], is_own: bool, connection: int | None) -> bool:
    kind = event["kind"]
    if is_own:
        return kind in ("resubscribed", "refused", "released")
    return kind in ("stopped", "started") or (kind == "disconnected" and event["connection"] == connection)


def _outage_begin(event: Mapping[Hashable, Any], last: pd.Timestamp) -> pd.Timestamp:
    """The event's own `since`; for a start without a known predecessor the last event before it."""
    if not pd.isna(event["since"]):
        return event["since"]
    return last if event["kind"] == "started" else event["time"]


def _describe_event(event: Mapping[Hashable, Any]) -> str:
    return f"{event['kind']}: {event['message']}" if isinstance(event["message"], str) else event["kind"]
