"""When a line was blind for a symbol: out of the events of a day (pure).

    acknowledged ────seen────> disconnected (since its last frame) ──blind──> acknowledged ──seen──> ...
                               stopped, started (since the last sign of life), resubscribed, refused, released
    ring_loss                  its own span: seen by the line, lost before the writer read it

Promises: what is not inside a span was seen: the registration stood, on a living connection of a living process; before the first
event that tells about it, sight is unknown and called blind. A frame the vendor itself never sent is no blindness: see feed_health.
Leaves to others: reading files (pandas).
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any, NamedTuple

import pandas as pd

UNKNOWN = "no event tells"


_NEVER: Any = pd.NaT


class OutageSpan(NamedTuple):
    """From `begin` to `end` (pandas timestamps; NaT: not over, or not known since when) nothing was seen; why in words."""

    begin: pd.Timestamp
    end: pd.Timestamp
    reason: str


def find_outages(events: pd.DataFrame, feed: str, symbol: str, stream: str, venue: str = "KRX") -> list[OutageSpan]:
    """Spans in which `line` could see nothing of `stream` ("orderbook", "tick") of a symbol, in order of their beginning.

    `events`: rows of kr/event as pandas reads them, of a day or more; begin with the day on which the line was started.
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
                lost.append(OutageSpan(event["since"], event["time"], f"ring_loss: {event['message']}"))
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
    """Since when it is true: the event's own word; a start that knows no former life: since the last event before it."""
    if not pd.isna(event["since"]):
        return event["since"]
    return last if event["kind"] == "started" else event["time"]


def _describe_event(event: Mapping[Hashable, Any]) -> str:
    return f"{event['kind']}: {event['message']}" if isinstance(event["message"], str) else event["kind"]
