"""A moment as a person reads it.

Promises: one line a row, in order of arrival, each with its file and row.
Leaves to others: the facts (moment.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from collectorctl.explain.timeline import Moment, Row
from collectorctl.explain.visibility import UNKNOWN


def lines(moment: Moment) -> Iterator[str]:
    """Every line of it."""
    yield f"{moment.symbol} {moment.venue}  {moment.time:%Y-%m-%d %H:%M:%S} +- {moment.window_s:g} s"
    for seen in moment.sight:
        if seen.seen:
            yield f"  {seen.line:<7}saw its {seen.stream}s"
        elif seen.why == UNKNOWN:
            yield f"  {seen.line:<7}is not known to have been registered for its {seen.stream}s"
        else:
            yield f"  {seen.line:<7}BLIND for {seen.stream}s from {_at(seen.begin)} to {_at(seen.end)}: {seen.why}"
    for name, found in (("books", moment.books), ("ticks", moment.ticks)):
        yield f"{name}: {len(found) or 'none'}"
        for row in found:
            yield f"  {_at(row.exch_time, short=True)}  {_content(row)}  {row.why}  {_marks(row)}-> {row.file} row {row.row}"
    for gap in moment.gaps:
        span = f"between {_at(gap.after)} and {_at(gap.before)}"
        yield f"gap: {gap.shares:,} shares ({gap.low:,} to {gap.high:,}) have no tick, {span}"
    if not moment.gaps:
        yield "gap: none around it"
    yield f"events: {len(moment.events) or 'none'}"
    for event in moment.events:
        yield f"  {_event(event)}"
    if moment.certificate:
        yield f"certificate of the day: {moment.certificate}{'; ' * bool(moment.reasons)}{'; '.join(moment.reasons)}"


def _at(time: datetime | None, short: bool = False) -> str:
    if time is None:
        return "?"
    return f"{time:%H:%M:%S}" if short else f"{time:%H:%M:%S.%f}"


def _content(row: Row) -> str:
    what = row.content
    if "price" in what:
        side = {1: "buy", -1: "sell"}.get(what["side"], "auction")
        return f"{what['price']} x {what['size']} {side} cum {what['cum_volume']}"
    bid, ask = (f"{what[f'{side}_size_1']} @ {what[f'{side}_price_1']}" for side in ("bid", "ask"))
    return f"{bid} | {ask} cum {what['cum_volume']}"


def _marks(row: Row) -> str:
    return f"[{' '.join(row.flags)}] " if row.flags else ""


def _event(event: dict[str, Any]) -> str:
    named = [event[name] for name in ("symbol", "venue", "stream", "words") if event[name]]
    since = f" since {_at(event['since'])}" if event["since"] else ""
    return f"{_at(event['time'])} {event['line']:<7}{event['kind']:<13} {' '.join(named)}{since}"
