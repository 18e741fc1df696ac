"""Text rendering of a timeline.

    005930 KRX  2026-11-26 10:26:43.000 to 10:26:45.000, all times KST
    feeds kis, kiwoom: 2 books, 1 tick, no gap, no event
    books, out of data/kr/orderbook/date=2026-11-26/hour=10/part-0.parquet
      exchange  received      first  ms later  bid        ask         volume  row
      10:26:43  10:26:43.512  kis    50.5      56 @ 2545  127 @ 2555  7114    11521
      10:26:43  10:26:43.640  kis    -         56 @ 2545  173 @ 2550  7114    11541

Guarantees:
    * The head has instrument, feeds, span, numbers and time zone; each row has one line, in order of arrival, with its place.
    * A line has words only where the feeds differ by more than their lag, or a row needs to be told from another.
    * A time of another date than the instant's has its date.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date, datetime, timedelta
from typing import Any

from collectorctl.explain.timeline import StoredRow, Timeline
from collectorctl.explain.visibility import UNKNOWN
from collectorctl.terminal import format_level
from conf.clock import KST

_ABSENT = "  -: the other feed was subscribed, but had no such book within the twin window (left out, or lost)"
_RIGHT = {"ms later", "volume", "row"}


def format_timeline(timeline: Timeline) -> Iterator[str]:
    """Every line of it."""
    day, window = timeline.time.date(), timedelta(seconds=timeline.window_s)
    begin, end = (_format_time(time) for time in (timeline.time - window, timeline.time + window))
    name = f" {timeline.name}" if timeline.name else ""
    yield f"{timeline.symbol}{name} {timeline.venue}  {day} {begin} to {end}, all times {_name_zone(timeline.time)}"
    feeds = ", ".join(dict.fromkeys(one.feed for one in timeline.visibility))
    counts: list[tuple[str, Sequence[object]]] = [
        ("book", timeline.books),
        ("tick", timeline.ticks),
        ("gap", timeline.gaps),
        ("event", timeline.events),
    ]
    yield f"feeds {feeds}: {', '.join(_format_count(name, len(rows)) for name, rows in counts)}"
    yield from _format_visibility(timeline, day)
    if timeline.books:
        yield from _format_rows("books", timeline.books, _build_book_cells(timeline))
    if timeline.ticks:
        yield from _format_rows("ticks", timeline.ticks, [_build_tick_cells(row) for row in timeline.ticks])
    for gap in timeline.gaps:
        begin = _format_time(gap.after, day) if gap.after else "the beginning of the day"
        span = f"between {begin} and {_format_time(gap.before, day)}"
        yield f"gap  {gap.shares:,} shares ({gap.low:,} to {gap.high:,}) have no tick, {span}"
    if timeline.events:
        yield "events"
        yield from (f"  {_format_event(event, day)}" for event in timeline.events)
    if timeline.certificate:
        yield f"certificate of the day: {'; '.join([timeline.certificate, *timeline.reasons])}"


def _name_zone(time: datetime) -> str:
    return "KST" if time.tzinfo is KST else f"{time:%Z}"


def _format_count(name: str, count: int) -> str:
    return f"{count or 'no'} {name}{'s' * (count > 1)}"


def _format_visibility(timeline: Timeline, day: date) -> Iterator[str]:
    """Who received what at the instant, each outage on its own line."""
    for stream in dict.fromkeys(one.stream for one in timeline.visibility):
        seen = [one for one in timeline.visibility if one.stream == stream]
        received = ", ".join(one.feed for one in seen if one.visible) or "no feed"
        unknown = ", ".join(one.feed for one in seen if not one.visible and one.reason == UNKNOWN)
        remark = f"; {unknown} not known to have been subscribed" if unknown else ""
        yield f"  {stream}s received by {received}{remark}"
        for one in seen:
            if not one.visible and one.reason != UNKNOWN:
                span = f"from {_format_time(one.begin, day)} to {_format_time(one.end, day)}"
                yield f"  {one.feed:<7}OUTAGE of {stream}s {span}: {one.reason}"


def _format_rows(what: str, rows: Sequence[StoredRow], cells: list[dict[str, str]]) -> Iterator[str]:
    """The rows of a kind as columns, flags and remarks behind them; their file once, or its number where there are several."""
    files = list(dict.fromkeys(row.file for row in rows))
    names = [f"data/{file}" if "/" in file else file for file in files]
    if len(files) == 1:
        yield f"{what}, out of {names[0]}"
    else:
        yield f"{what}, out of (file:row)"
        yield from (f"  {number}: {name}" for number, name in enumerate(names, 1))
    for row, columns in zip(rows, cells, strict=True):
        columns["row"] = str(row.row) if len(files) == 1 else f"{files.index(row.file) + 1}:{row.row}"
    if any(columns.get("ms later") == "-" for columns in cells):
        yield _ABSENT
    widths = {name: max(len(name), *(len(columns[name]) for columns in cells)) for name in cells[0]}
    yield _align({name: name for name in widths}, widths)
    for row, columns in zip(rows, cells, strict=True):
        flags = [f"[{' '.join(row.flags)}]"] if row.flags else []
        words = ["; ".join(row.remarks).replace(f"{files[0]} row", "row")] if row.remarks else []
        yield "  ".join([_align(columns, widths), *flags, *words])


def _align(columns: dict[str, str], widths: dict[str, int]) -> str:
    cells = (text.rjust(widths[name]) if name in _RIGHT else text.ljust(widths[name]) for name, text in columns.items())
    return f"  {'  '.join(cells)}".rstrip()


def _build_book_cells(timeline: Timeline) -> list[dict[str, str]]:
    has_twins = len({one.feed for one in timeline.visibility}) > 1
    return [_build_book(row, has_twins) for row in timeline.books]


def _build_book(row: StoredRow, has_twins: bool) -> dict[str, str]:
    content = row.content
    bid, ask = (format_level(content[f"{side}_size_1"], content[f"{side}_price_1"]) for side in ("bid", "ask"))
    lag = f"{row.lag_ms:.1f}" if row.lag_ms is not None else "" if row.remarks else "-"
    cells = _build_arrival("first", row) | ({"ms later": lag} if has_twins else {}) | {"bid": bid, "ask": ask}
    return cells | ({"volume": str(content["cum_volume"])} if content["cum_volume"] is not None else {"volume": ""})


def _build_tick_cells(row: StoredRow) -> dict[str, str]:
    content = row.content
    trade = {"price": str(content["price"]), "size": str(content["size"])}
    side = {1: "buy", -1: "sell"}.get(content["side"], "auction")
    received = {} if row.arrivals else {"received": str(content["source"])}
    return _build_arrival("feed", row) | received | trade | {"side": side, "volume": str(content["cum_volume"])}


def _build_arrival(name: str, row: StoredRow) -> dict[str, str]:
    exchange = f"{row.exch_time:%H:%M:%S}" if row.exch_time is not None else "?"
    return {"exchange": exchange, "received": _format_time(row.arrivals.get(row.winner)), name: row.winner}


def _format_time(time: datetime | None, day: date | None = None) -> str:
    """To the millisecond; with the date, unless it is `day` or no day is given."""
    if time is None:
        return "?"
    other_day = f"{time:%Y-%m-%d} " if day is not None and time.date() != day else ""
    return f"{other_day}{time:%H:%M:%S.%f}"[:-3]


def _format_event(event: dict[str, Any], day: date) -> str:
    named = [event[name] for name in ("symbol", "venue", "stream", "message") if event[name]]
    since = f" since {_format_time(event['since'], day)}" if event["since"] else ""
    return f"{_format_time(event['time'], day)} {event['line']:<7}{event['kind']:<13} {' '.join(named)}{since}"
