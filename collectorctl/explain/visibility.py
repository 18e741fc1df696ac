"""When a line was blind for a symbol: out of the events of a day (pure).

    acknowledged ────seen────> disconnected (since its last frame) ──blind──> acknowledged ──seen──> ...
                               stopped, started (since the last sign of life), resubscribed, refused, released
    ring_loss                  its own span: seen by the line, lost before the writer read it

Promises: what is not inside a span was seen: the registration stood, on a living connection of a living process; before the first
event that tells about it, sight is unknown and called blind. A frame the vendor itself never sent is no blindness: see line_health.
Leaves to others: reading files (pandas).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import pandas as pd

UNKNOWN = "no event tells"


class Blind(NamedTuple):
    """From `begin` to `end` (pandas timestamps; NaT: not over, or not known since when) nothing was seen; why in words."""

    begin: pd.Timestamp
    end: pd.Timestamp
    why: str


def blind(events: pd.DataFrame, line: str, symbol: str, stream: str, venue: str = "KRX") -> list[Blind]:
    """Spans in which `line` could see nothing of `stream` ("orderbook", "tick") of a symbol, in order of their beginning.

    `events`: rows of kr/event as pandas reads them, of a day or more; begin with the day on which the line was started.
    """
    own = events[(events.line == line)].sort_values(["time", "seq"], kind="stable")
    spans: list[Blind] = []
    lost: list[Blind] = []
    since, why, connection = pd.NaT, UNKNOWN, None
    last = pd.NaT
    blind_now = True
    for event in own.to_dict("records"):
        if event["kind"] == "ring_loss":
            if event["stream"] == stream:
                lost.append(Blind(event["since"], event["time"], f"ring_loss: {event['words']}"))
            continue
        mine = (event["symbol"], event["venue"], event["stream"]) == (symbol, venue, stream)
        if mine and event["kind"] == "acknowledged":
            if blind_now:
                spans.append(Blind(since, event["time"], why))
            blind_now, connection = False, event["connection"]
        elif not blind_now and _ends_sight(event, mine, connection):
            blind_now, since, why = True, _since(event, last), _words(event)
        last = event["time"]
    if blind_now:
        spans.append(Blind(since, pd.NaT, why))
    return sorted([*spans, *lost], key=lambda span: (not pd.isna(span.begin), span.begin))


def _ends_sight(event: dict[str, Any], mine: bool, connection: int | None) -> bool:
    kind = event["kind"]
    if mine:
        return kind in ("resubscribed", "refused", "released")
    return kind in ("stopped", "started") or (kind == "disconnected" and event["connection"] == connection)


def _since(event: dict[str, Any], last: pd.Timestamp) -> pd.Timestamp:
    """Since when it is true: the event's own word; a start that knows no former life: since the last event before it."""
    if not pd.isna(event["since"]):
        return event["since"]
    return last if event["kind"] == "started" else event["time"]


def _words(event: dict[str, Any]) -> str:
    return f"{event['kind']}: {event['words']}" if isinstance(event["words"], str) else event["kind"]
