"""Sections of a report: coverage, lag, rates, processes, gaps, price (pure)."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from collectorctl.report import charts
from collectorctl.report.judgement import coverage_shares, name_some
from collectorctl.report.markup import Content, Html, el, prose
from collectorctl.report.series import FEEDS, Axis, Cell, DaySeries, TickCell, runs, str_of
from conf.calendar import PhaseSpan
from conf.clock import MINUTE_NS, to_kst
from conf.instrument import Instrument
from conf.text.language import Count, Texts
from writer.feeds.day_events import Incident

MAX_TOOLTIP_SPANS = 12
MAX_INCIDENT_ROWS = 80
SHOWN_CELLS = (Cell.BOTH, Cell.FIRST, Cell.SECOND, Cell.AUCTION, Cell.NONE, Cell.HOLE, Cell.UNKNOWN, Cell.AHEAD)
SHOWN_TICKS = (TickCell.LIVE, TickCell.RECOVERED, TickCell.MISSING)
_WRITER = "writer"


def section(name: str, title: str, *content: Content) -> Html:
    """A section that a link leads to."""
    return el("section", el("h2", title), *content, id=name)


def legend(pairs: Iterable[tuple[str, str]]) -> Html:
    """Coloured squares with words: class and words."""
    return el("ul", [el("li", el("i", class_=name), words) for name, words in pairs], class_="legend")


def name_parts(series: DaySeries, instrument: Instrument) -> tuple[str, str]:
    """Code and venue, and the name if a table of symbols has one."""
    return str_of(instrument), series.stored.names.get(instrument.symbol, "")


def label(series: DaySeries, instrument: Instrument) -> list[Content]:
    """The instrument, its name below; a long one is cut by its width, and whole in its tooltip."""
    code, name = name_parts(series, instrument)
    return [code, el("span", name, class_="name", title=name)] if name else [code]


def cell_words(cell: Cell, texts: Texts) -> str:
    """What a cell of books means."""
    feed = {Cell.FIRST: FEEDS[0], Cell.SECOND: FEEDS[1]}.get(cell, "")
    return texts(cell.name, feed=feed)


def coverage(series: DaySeries, texts: Texts) -> Html:
    """A strip for each instrument, and one sum."""
    axis = series.axis
    words = {cell: cell_words(cell, texts) for cell in SHOWN_CELLS}
    ticks = {cell: texts(cell.name) for cell in SHOWN_TICKS}
    pairs = [(f"c{cell:d}", texts("legend_hole") if cell is Cell.HOLE else words[cell]) for cell in SHOWN_CELLS]
    pairs += [(f"t{cell:d}", ticks[cell]) for cell in SHOWN_TICKS]
    rows = [
        el(
            "div",
            el("b", label(series, one.instrument)),
            charts.strip(
                axis,
                [
                    charts.lane_paths(one.books, _tooltips(axis, one.books, words, "c"), 0, 8),
                    charts.lane_paths(one.ticks, _tooltips(axis, one.ticks, ticks, "t"), 9, 12),
                ],
                f"{str_of(one.instrument)}: {_format_counts({cell: one.count(cell) for cell in words}, words, texts)}",
            ),
            _count_cells({cell: one.count(cell) for cell in words}, words),
            class_="row",
        )
        for one in series.instruments
    ]
    hours = el("div", el("b", ""), el("div", charts.time_axis(axis), class_="axis"), class_="row head")
    total = el("p", el("b", texts("all_instruments")), ": ", _format_counts(coverage_shares(series), words, texts))
    return section(
        "coverage",
        texts("coverage"),
        el("p", texts("coverage_text"), class_="soft"),
        legend(pairs),
        total,
        hours,
        rows,
        hours if len(rows) > 8 else "",
    )


def lag(series: DaySeries, texts: Texts) -> Html:
    """Lag between the feeds, and which was first."""
    first, second = FEEDS
    low_ms, median_ms, high_ms = series.feeds.lag_ms
    title, names = texts("lag"), {"first": first, "second": second}
    if np.isnan(median_ms).all():
        return section("lag", title, el("p", texts("no_pairs")))
    low = min(float(np.nanmin(median_ms)), float(np.nanpercentile(low_ms, 5)), 0.0)
    high = max(float(np.nanmax(median_ms)), float(np.nanpercentile(high_ms, 95)), 0.0)
    zero = np.where(np.isnan(median_ms), 0.0, 0.0)
    is_cut = bool(np.nanmin(low_ms) < low or np.nanmax(high_ms) > high)
    lag_title = texts("lag_title", low=low, high=high, median=float(np.nanmedian(median_ms)))
    layers = [
        charts.line(zero, low, high, "zero"),
        charts.band(np.maximum(low_ms, low), np.minimum(high_ms, high), low, high, "spread"),
        charts.line(median_ms, low, high, "median"),
    ]
    counts = series.feeds.first
    total = counts.sum(axis=0)
    share = np.divide(counts[0], total, out=np.full(len(total), np.nan), where=total > 0)
    parts = 100 * counts.sum(axis=1) / max(float(total.sum()), 1.0)
    first_title = texts("first_title", first_share=parts[0], second_share=parts[1], **names)
    shares = [
        charts.band(np.zeros(len(share)), share, 0, 1, first),
        charts.band(share, np.where(np.isnan(share), np.nan, 1.0), 0, 1, second),
    ]
    return section(
        "lag",
        title,
        el("p", texts("lag_text", **names), f" {texts('lag_cut')}" if is_cut else "", class_="soft"),
        charts.chart(series.axis, layers, lag_title, f"{high:.0f} ms", f"{low:.0f} ms", series.phases),
        legend([(f"i-{feed}", feed) for feed in FEEDS]),
        el("div", charts.chart(series.axis, shares, first_title, "100 %", "0 %", ()), class_="small"),
    )


def rates(series: DaySeries, texts: Texts) -> Html:
    """Books and ticks a minute, and the phases of the market."""
    books, ticks = series.feeds.books, series.feeds.ticks
    high, high_ticks = _find_highest(books), _find_highest(ticks)
    lines = [charts.line(values, 0, high, feed) for feed, values in zip(FEEDS, books, strict=True)]
    tick_lines = [charts.line(ticks, 0, high_ticks, "ticks")]
    phases = [_format_phase(span, texts) for span in series.phases] or [texts("no_session")]
    return section(
        "rates",
        texts("rates"),
        el("p", " · ".join(phases), class_="soft"),
        legend([*((f"i-{feed}", feed) for feed in FEEDS), ("i-ticks", texts("ticks_word"))]),
        charts.chart(series.axis, lines, texts("rates_books", high=high), f"{high:,.0f}", "0", series.phases),
        el(
            "div",
            charts.chart(
                series.axis, tick_lines, texts("rates_ticks", high=high_ticks), f"{high_ticks:,.0f}", "0", series.phases
            ),
            class_="small",
        ),
    )


def processes(series: DaySeries, texts: Texts) -> Html:
    """A band for each process with what happened to it, and a table of that."""
    axis = series.axis
    data = dict(zip(FEEDS, series.feeds.books, strict=True)) | {_WRITER: series.feeds.books.sum(axis=0)}
    names = list(dict.fromkeys([*data, *(one.feed for one in series.incidents)]))
    rows = []
    for name in names:
        mine = [one for one in series.incidents if one.feed == name]
        counts = data.get(name, np.zeros(axis.minutes))
        running = np.where(np.isnan(counts), 2, counts > 0)
        lanes = [
            charts.lane_paths(running, {1: ("running", texts("running")), 2: ("c7", texts("UNKNOWN"))}, 3, 9),
            [_mark_incident(one, series, texts) for one in mine],
        ]
        title = f"{name}: {_count_kinds(mine, texts) or texts('no_incidents')}"
        cells = el("b", name), charts.strip(axis, lanes, title)
        rows.append(el("div", *cells, class_="row"))
    kinds = list(dict.fromkeys(one.kind for one in series.incidents))
    hours = el("div", el("b", ""), el("div", charts.time_axis(axis), class_="axis"), class_="row head")
    return section(
        "processes",
        texts("processes"),
        el("p", texts("processes_text"), class_="soft"),
        legend([("running", texts("running")), ("c7", texts("UNKNOWN")), *((kind, texts(kind)) for kind in kinds)]),
        el("div", hours, rows, class_="bands"),
        _incident_table(series, texts),
    )


def gaps(series: DaySeries, texts: Texts) -> Html:
    """Shares that were missing, fetched, and are missing."""
    after = sum(one.missing_shares or 0 for one in series.instruments)
    recovered = sum(one.recovered_shares for one in series.instruments)
    uncertified = [one.missing_shares or 0 for one in series.instruments if one.certificate is None]
    title = texts("gaps_title", before=after + recovered, recovered=recovered, after=after)
    top = series.recovered + series.missing
    high = _find_highest(top)
    zero = np.zeros(series.axis.minutes)
    layers = [
        charts.band(zero, _positive(series.recovered), 0, high, "recovered"),
        charts.band(series.recovered, np.where(series.missing > 0, top, np.nan), 0, high, "missing"),
    ]
    note = el("p", texts("gaps_unknown", shares=sum(uncertified)), class_="soft") if uncertified else ""
    return section(
        "gaps",
        texts("gaps"),
        el("p", texts("gaps_text"), class_="soft"),
        note,
        legend([("i-recovered", texts("col_recovered")), ("i-hole", texts("col_after"))]),
        charts.chart(series.axis, layers, title, f"{high:,.0f}", "0", series.phases),
    )


def price(series: DaySeries, texts: Texts) -> Html:
    """Mid price and depth of one instrument."""
    name = " ".join(filter(None, name_parts(series, series.shown))) if series.shown else "-"
    title = texts("price", name=name)
    mid = series.quotes["mid"]
    if np.isnan(mid).all():
        return section("price", title, el("p", texts("no_quotes")))
    low, high = float(np.nanmin(mid)), float(np.nanmax(mid))
    ask, bid = series.quotes["ask_size"], series.quotes["bid_size"]
    deepest = _find_highest(np.array([ask, bid]))
    middle = np.where(np.isnan(ask), np.nan, 0.0)
    depth = [
        charts.band(middle, ask, -deepest, deepest, "ask"),
        charts.band(-bid, middle, -deepest, deepest, "bid"),
    ]
    return section(
        "price",
        title,
        el("p", prose(texts("price_text", day=series.stored.day)), class_="soft"),
        charts.chart(
            series.axis,
            [charts.line(mid, low, high, "mid")],
            texts("price_title", low=low, high=high),
            f"{high:,.0f}",
            f"{low:,.0f}",
            series.phases,
        ),
        legend([("i-ask", texts("ask_size")), ("i-bid", texts("bid_size"))]),
        el(
            "div",
            charts.chart(
                series.axis,
                depth,
                texts("depth_title", high=deepest),
                f"{deepest:,.0f}",
                f"{deepest:,.0f}",
                series.phases,
            ),
            class_="small",
        ),
    )


def _find_highest(values: np.ndarray) -> float:
    return max(float(np.nan_to_num(values).max(initial=0)), 1.0)


def _positive(values: np.ndarray) -> np.ndarray:
    return np.where(values > 0, values, np.nan)


def _format_counts(counts: dict[Cell, int], words: dict[Cell, str], texts: Texts) -> str:
    """Minutes by cell; what there is none of is left out."""
    return " · ".join(f"{words[cell]} {count:,}" for cell, count in counts.items() if count) + f" {texts('minutes')}"


def _count_cells(counts: dict[Cell, int], words: dict[Cell, str]) -> Html:
    """The same as coloured squares with numbers."""
    parts = [
        el("span", el("i", class_=f"c{cell:d}"), f"{count:,}", title=words[cell], aria_label=f"{words[cell]} {count}")
        for cell, count in counts.items()
        if count
    ]
    return el("small", parts)


def _tooltips(axis: Axis, values: np.ndarray, words: dict[Cell, str] | dict[TickCell, str], prefix: str) -> dict:
    """Class and tooltip of each cell that has words: its words and its times, as far as they are few."""
    spans: dict[int, list[str]] = {}
    for begin, end, value in runs(values):
        begins, ends = (to_kst(axis.begin_ns + at * MINUTE_NS) for at in (begin, end))
        spans.setdefault(value, []).append(f"{begins:%H:%M}–{ends:%H:%M}")
    found = {}
    for cell, text in words.items():
        times = spans.get(int(cell), [])
        is_few = len(times) <= MAX_TOOLTIP_SPANS
        found[int(cell)] = f"{prefix}{cell:d}", f"{text}: {', '.join(times)}" if is_few else text
    return found


def _format_phase(span: PhaseSpan, texts: Texts) -> str:
    return f"{to_kst(span.begin_ns):%H:%M}–{to_kst(span.end_ns):%H:%M} {texts(span.phase)}"


def _mark_incident(one: Incident, series: DaySeries, texts: Texts) -> Html:
    axis = series.axis
    end_ns = series.stored.now_ns if one.end_ns is None else one.end_ns
    begin, end = axis.position(one.begin_ns), axis.position(end_ns)
    return charts.rect(begin, end, 0, 12, one.kind, f"{_format_times(one, texts)} {texts(one.kind)}")


def _format_times(one: Incident, texts: Texts) -> str:
    end = texts("goes_on") if one.end_ns is None else f"{to_kst(one.end_ns):%H:%M:%S}"
    begin = f"{to_kst(one.begin_ns):%H:%M:%S}"
    return begin if begin == end else f"{begin}–{end}"


def _count_kinds(incidents: list[Incident], texts: Texts) -> str:
    kinds = list(dict.fromkeys(one.kind for one in incidents))
    counts = {kind: Count(sum(one.count for one in incidents if one.kind == kind)) for kind in kinds}
    return name_some([f"{texts(kind)} {texts('times', count=count)}" for kind, count in counts.items()], texts)


def _incident_table(series: DaySeries, texts: Texts) -> Html:
    if not series.incidents:
        return el("p", texts("no_incidents"))
    columns = ("col_time", "col_feed", "col_what", "col_message")
    rows = []
    for one in sorted(series.incidents, key=lambda one: one.begin_ns)[:MAX_INCIDENT_ROWS]:
        times = f" ({texts('times', count=Count(one.count))})" if one.count > 1 else ""
        records = f" {texts('records', value=Count(one.value))}" if one.value and one.kind != "clock_step" else ""
        where = " ".join(filter(None, (one.feed, one.stream, one.symbol)))
        cells = _format_times(one, texts), where, f"{texts(one.kind)}{times}{records}", one.message
        rows.append(el("tr", [el("td", cell) for cell in cells]))
    hidden = len(series.incidents) - len(rows)
    more = el("p", texts("more", count=hidden)) if hidden > 0 else ""
    head = el("tr", [el("th", texts(name)) for name in columns])
    return el("div", el("table", el("thead", head), el("tbody", rows)), more, class_="scroll incidents")
