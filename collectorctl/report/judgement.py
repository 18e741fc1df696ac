"""Judgement on a stored day: whole, not whole, or not to be judged yet (pure).

Guarantees:
    * A day is WHOLE only if every instrument is certified as complete, no minute in session has a hole, no loss is recorded, and
      every file could be read.
    * What is missing makes a day ATTENTION, whatever is unfinished besides.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from itertools import islice
from typing import NamedTuple

from collectorctl.recover.certificate.certify import Grade
from collectorctl.report.series import Cell, DaySeries, str_of
from conf.clock import HOUR_NS, to_kst
from conf.text.language import Count, Texts

COMPLETE = (Grade.PROVEN, Grade.RECONCILED)
LOSSES = ("ring_loss", "journal_damaged")
MAX_NAMES = 8
MAX_FINDINGS = 12
"""Holes, and losses, that are listed one by one."""


class Outcome(StrEnum):
    """What a day is."""

    WHOLE = "WHOLE"
    ATTENTION = "ATTENTION"
    UNFINISHED = "UNFINISHED"


class Finding(NamedTuple):
    """One line: what it makes of the day (WHOLE: a note), and its words."""

    outcome: Outcome
    text: str


def judge_day(series: DaySeries, texts: Texts) -> tuple[Outcome, list[Finding]]:
    """The outcome, and what it is made of, the worst first."""
    found = [
        *(Finding(Outcome.ATTENTION, texts("unreadable", text=text)) for text in series.stored.unreadable),
        *_shorten(list(_find_holes(series, texts)), texts),
        *_shorten(list(_find_losses(series, texts)), texts),
        *_find_grades(series, texts),
        *_find_unfinished(series, texts),
    ]
    order = (Outcome.ATTENTION, Outcome.UNFINISHED, Outcome.WHOLE)
    found.sort(key=lambda one: order.index(one.outcome))
    return next((one for one in order if any(one == finding.outcome for finding in found)), Outcome.WHOLE), found


def name_some(names: list[str], texts: Texts, limit: int = MAX_NAMES) -> str:
    """Some names, and how many more."""
    shown = ", ".join(names[:limit])
    return shown if len(names) <= limit else f"{shown} {texts('more', count=len(names) - limit)}"


def _shorten(found: list[Finding], texts: Texts) -> Iterator[Finding]:
    yield from islice(found, MAX_FINDINGS)
    if rest := found[MAX_FINDINGS:]:
        outcome = Outcome.ATTENTION if any(one.outcome is Outcome.ATTENTION for one in rest) else Outcome.WHOLE
        yield Finding(outcome, texts("more", count=len(rest)))


def _note(series: DaySeries, end_ns: int, text: str, texts: Texts) -> Finding:
    """A finding, or a note if a person has acknowledged it."""
    if end_ns <= series.stored.acknowledged_ns:
        return Finding(Outcome.WHOLE, f"{texts('acknowledged')}: {text}")
    return Finding(Outcome.ATTENTION, text)


def _find_holes(series: DaySeries, texts: Texts) -> Iterator[Finding]:
    for span in series.holes:
        begin, end = to_kst(span.begin_ns), to_kst(span.end_ns)
        names = name_some(span.instruments, texts)
        text = texts("hole", begin=begin, end=end, count=Count(len(span.instruments)), names=names)
        yield _note(series, span.end_ns, text, texts)


def _find_losses(series: DaySeries, texts: Texts) -> Iterator[Finding]:
    for one in series.incidents:
        if one.kind in LOSSES:
            count = texts("unknown_value") if one.value is None else texts("records", value=Count(one.value))
            feed = " ".join(filter(None, (one.feed, one.stream)))
            end_ns = one.end_ns or series.stored.now_ns
            begin, end = to_kst(one.begin_ns), to_kst(end_ns)
            text = texts("loss", begin=begin, end=end, kind=texts(one.kind), feed=feed, count=count)
            yield _note(series, end_ns, text, texts)


def _find_grades(series: DaySeries, texts: Texts) -> Iterator[Finding]:
    grades: dict[str, list[str]] = {}
    for one in series.instruments:
        if one.certificate:
            grades.setdefault(one.certificate.certificate, []).append(str_of(one.instrument))
    for grade, names in sorted(grades.items()):
        if grade not in COMPLETE:
            text = texts("not_whole", grade=grade, count=Count(len(names)), names=name_some(names, texts))
            yield Finding(Outcome.ATTENTION, text)


def _find_unfinished(series: DaySeries, texts: Texts) -> Iterator[Finding]:
    stored = series.stored
    if not series.phases and not any(one.books.any() or one.live_ticks for one in series.instruments):
        yield Finding(Outcome.UNFINISHED, texts("no_session"))
        return
    if not series.session_over:
        yield Finding(Outcome.UNFINISHED, texts("session_open", now=to_kst(stored.now_ns)))
    for key, hours in (("unpublished", stored.unpublished), ("uncounted", stored.uncounted - stored.unpublished)):
        if hours:
            words = ", ".join(f"{(ns - stored.begin_ns) // HOUR_NS:02}" for ns in sorted(hours))
            yield Finding(Outcome.UNFINISHED, texts(key, hours=words))
    if stored.is_empty:
        yield Finding(Outcome.UNFINISHED, texts("nothing_stored"))
    without = [one for one in series.instruments if one.certificate is None]
    if without or not series.instruments:
        total = Count(len(series.instruments))
        yield Finding(Outcome.UNFINISHED, texts("uncertified", count=len(without), total=total, day=stored.day))


def coverage_shares(series: DaySeries) -> dict[Cell, int]:
    """Minutes of all instruments by cell, without those that are closed."""
    return {cell: sum(one.count(cell) for one in series.instruments) for cell in Cell if cell is not Cell.CLOSED}
