"""Report files of a home: one page a day, and the index.

    StoredDay ─> DaySeries ─> HOME/data/report/2026-11-20.html
                              HOME/data/report/index.html      made of the heads of the pages that are there

Guarantees:
    * A page is replaced as a whole; equal files, read at the same time, give an equal page.
"""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import NamedTuple

from loguru import logger

from collectorctl.disk import retired
from collectorctl.report.judgement import judge_day
from collectorctl.report.messages import MESSAGES
from collectorctl.report.page import INDEX_FILE, IndexEntry, build_index, build_page, count_grades, parse_entry
from collectorctl.report.reader import read_day
from collectorctl.report.series import build_series
from conf.clock import to_kst
from conf.files.replacement import replace_file
from conf.home import Home
from conf.instrument import Instrument
from conf.text.language import Language, Texts, choose_language

_HEAD_BYTES = 1024
_ENTRY = re.compile(r'name="collectorctl" content="([\w= ]+)"')


class NothingToReport(Exception):
    """A day without a session of which nothing is stored, a retired one, or one that is yet to come; the message has the reason."""


class Report(NamedTuple):
    """A page that was written, and what it makes of the day, in English."""

    path: Path
    outcome: str
    findings: list[str]
    certificates: dict[str, int]


def write_report(home: Home, day: date, language: Language | None = None, shown: Instrument | None = None) -> Report:
    """Write the page of a day and the index. OSError, NothingToReport.

    `language`: None for that of the home. `shown`: the instrument whose prices are shown, None for the busiest.
    """
    if gone := retired.describe(home.data, day):
        raise NothingToReport(f"{gone}: the page of before stays")
    language, calendar = language or choose_language(home.settings.ui.language), home.load_calendar()
    stored = read_day(home, day, shown)
    if stored.begin_ns > stored.now_ns:
        raise NothingToReport(f"{day}: is in the future; in Korea it is {to_kst(stored.now_ns):%Y-%m-%d}")
    reason = calendar.closed_reason("KRX", day)
    if reason and stored.is_empty:
        raise NothingToReport(f"{day}: no session ({reason}), and nothing is stored: name a trading day")
    series = build_series(stored, calendar)
    path = home.report_path(day)
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, build_page(series, str(home.root), language).encode())
    entries = find_entries(path.parent)
    replace_file(path.with_name(INDEX_FILE), build_index(entries, home.root.name, language).encode())
    outcome, findings = judge_day(series, Texts("en", MESSAGES))
    return Report(path, outcome, [one.text for one in findings], count_grades(series))


def write_report_after(home: Home, day: date) -> None:
    """Write the page of a day that was certified; what keeps it from being written is logged and stops nothing."""
    try:
        logger.info("{}: report in {}", day, write_report(home, day).path)
    except Exception as error:  # noqa: BLE001 the certificates are stored: a page of them must not undo the run
        logger.opt(exception=error).error("{}: no report was written: {}", day, error)


def find_entries(directory: Path) -> list[IndexEntry]:
    """The days whose pages are in a directory."""
    found = []
    for path in directory.glob("????-??-??.html"):
        with suppress(OSError, ValueError):
            with path.open("rb") as file:
                head = file.read(_HEAD_BYTES).decode(errors="replace")
            if match := _ENTRY.search(head):
                found.append(parse_entry(date.fromisoformat(path.stem), match[1]))
    return found
