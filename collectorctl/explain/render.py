"""Text rendering of a timeline.

Guarantees:
    * One line per row, in order of arrival, each with its file and row.
    * Below a book stands what makes it one, or another one than the book of its levels before it.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from collectorctl.explain.timeline import StoredRow, Timeline
from collectorctl.explain.visibility import UNKNOWN


def format_timeline(timeline: Timeline) -> Iterator[str]:
    """Every line of it."""
    yield f"{timeline.symbol} {timeline.venue}  {timeline.time:%Y-%m-%d %H:%M:%S} +- {timeline.window_s:g} s"
    for visibility in timeline.visibility:
        if visibility.visible:
            yield f"  {visibility.feed:<7}received its {visibility.stream}s"
        elif visibility.reason == UNKNOWN:
            yield f"  {visibility.feed:<7}is not known to have been subscribed to its {visibility.stream}s"
        else:
            span = f"from {_format_time(visibility.begin)} to {_format_time(visibility.end)}"
            yield f"  {visibility.feed:<7}OUTAGE of {visibility.stream}s {span}: {visibility.reason}"
    for name, rows in (("books", timeline.books), ("ticks", timeline.ticks)):
        yield f"{name}: {len(rows) or 'none'}"
        for row in rows:
            place = f"{row.reason}  {_format_flags(row)}-> {row.file} row {row.row}"
            yield f"  {_format_time(row.exch_time, short=True)}  {_format_content(row)}  {place}"
            yield from (f"            {sentence}" for sentence in row.pairing)
    for gap in timeline.gaps:
        span = f"between {_format_time(gap.after)} and {_format_time(gap.before)}"
        yield f"gap: {gap.shares:,} shares ({gap.low:,} to {gap.high:,}) have no tick, {span}"
    if not timeline.gaps:
        yield "gap: none around it"
    yield f"events: {len(timeline.events) or 'none'}"
    for event in timeline.events:
        yield f"  {_format_event(event)}"
    if timeline.certificate:
        yield f"certificate of the day: {timeline.certificate}{'; ' * bool(timeline.reasons)}{'; '.join(timeline.reasons)}"


def _format_time(time: datetime | None, short: bool = False) -> str:
    if time is None:
        return "?"
    return f"{time:%H:%M:%S}" if short else f"{time:%H:%M:%S.%f}"


def _format_content(row: StoredRow) -> str:
    content = row.content
    if "price" in content:
        side = {1: "buy", -1: "sell"}.get(content["side"], "auction")
        return f"{content['price']} x {content['size']} {side} cum {content['cum_volume']}"
    bid, ask = (f"{content[f'{side}_size_1']} @ {content[f'{side}_price_1']}" for side in ("bid", "ask"))
    return f"{bid} | {ask} cum {content['cum_volume']}"


def _format_flags(row: StoredRow) -> str:
    return f"[{' '.join(row.flags)}] " if row.flags else ""


def _format_event(event: dict[str, Any]) -> str:
    named = [event[name] for name in ("symbol", "venue", "stream", "message") if event[name]]
    since = f" since {_format_time(event['since'])}" if event["since"] else ""
    return f"{_format_time(event['time'])} {event['line']:<7}{event['kind']:<13} {' '.join(named)}{since}"
