"""Pages: the report of a day, and the index of all days (pure).

Guarantees:
    * A page is one file: style and pictures are in it, it has no script, and its policy forbids every request.
    * Equal series give an equal page.
"""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import NamedTuple

from collectorctl.recover.certificate.certify import Grade
from collectorctl.report import sections
from collectorctl.report.judgement import Finding, Outcome, judge_day, name_some
from collectorctl.report.markup import Content, Html, el, join, prose
from collectorctl.report.messages import MESSAGES
from collectorctl.report.reasons import translate
from collectorctl.report.sections import section
from collectorctl.report.series import DaySeries, InstrumentSeries
from conf.clock import to_kst
from conf.text.language import Language, Texts

INDEX_FILE = "index.html"
CSS = Path(__file__).with_name("style.css").read_text(encoding="utf-8")
DATASETS = ("orderbook", "tick", "event", "feed_health", "completeness", "bar_1m")
_UNCERTIFIED = "no_certificate"
_MAX_RESIDUALS = 20
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


class IndexEntry(NamedTuple):
    """A day of the index: its outcome, and how many certificates there are of each grade."""

    day: date
    outcome: str
    grades: dict[str, int]


def build_page(series: DaySeries, home: str, language: Language) -> str:
    """The page of a day; `home`: the name of the installation, and where its data are."""
    texts = Texts(language, MESSAGES)
    day = series.stored.day
    outcome, findings = judge_day(series, texts)
    title = f"{format_day(day, texts)}"
    parts = (
        _build_head(series, home, title, outcome, findings, texts),
        sections.coverage(series, texts),
        sections.lag(series, texts),
        sections.rates(series, texts),
        sections.processes(series, texts),
        sections.gaps(series, texts),
        sections.price(series, texts),
        _build_certificates(series, language, texts),
        _build_files(day, series, home, texts),
    )
    made = el("footer", texts("made", now=to_kst(series.stored.now_ns), home=home))
    entry = IndexEntry(day, outcome, count_grades(series))
    return build_document(texts("title", day=day), language, (*parts, made), format_entry(entry))


def build_index(entries: list[IndexEntry], home: str, language: Language) -> str:
    """The page that links the days, the newest first."""
    texts = Texts(language, MESSAGES)
    rows = [
        el(
            "tr",
            el("td", el("a", format_day(entry.day, texts), href=f"{entry.day}.html")),
            el("td", el("b", texts(entry.outcome))),
            el("td", el("div", _certificate_bar(entry.grades), class_="wide"), _format_grades(entry.grades, texts)),
        )
        for entry in sorted(entries, reverse=True)
    ]
    table = el("table", el("tbody", rows)) if rows else el("p", texts("index_empty"))
    title = texts("index_title", home=home)
    return build_document(title, language, (el("header", el("h1", title), table),), "")


def build_document(title: str, language: Language, body: Content, entry: str) -> str:
    """A whole page; `entry`: what the index has of it."""
    head = el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        el("meta", name="collectorctl", content=entry) if entry else "",
        el("title", title),
        el("style", Html(CSS)),
    )
    return f"<!doctype html>\n{el('html', head, el('body', el('main', body)), lang=language)}\n"


def format_entry(entry: IndexEntry) -> str:
    """The entry as the page's own head has it: "WHOLE PROVEN=20"."""
    return " ".join([entry.outcome, *(f"{grade}={count}" for grade, count in entry.grades.items())])


def parse_entry(day: date, text: str) -> IndexEntry:
    """What `format_entry` wrote. ValueError."""
    outcome, *pairs = text.split()
    grades = {grade: int(count) for grade, count in (pair.split("=") for pair in pairs)}
    return IndexEntry(day, Outcome(outcome), grades)


def format_day(day: date, texts: Texts) -> str:
    """A date and its weekday."""
    return f"{day} ({texts('weekdays').split()[day.weekday()]})"


def count_grades(series: DaySeries) -> dict[str, int]:
    """Certificates by grade, the best first, and how many instruments have none."""
    grades = [one.certificate.certificate if one.certificate else _UNCERTIFIED for one in series.instruments]
    return {name: count for name in (*Grade, _UNCERTIFIED) if (count := grades.count(name))}


def _build_head(
    series: DaySeries, home: str, title: str, outcome: Outcome, findings: list[Finding], texts: Texts
) -> Html:
    grades = count_grades(series)
    names = ("coverage", "lag", "rates", "processes", "gaps", "certificates", "files")
    links = [el("a", texts("index"), href=INDEX_FILE), *(el("a", texts(name), href=f"#{name}") for name in names)]
    return el(
        "header",
        el("h1", title),
        el("div", home, class_="soft"),
        el(
            "div",
            el("strong", texts(outcome)),
            el("p", texts(f"{outcome}_text")),
            class_=f"verdict {outcome}",
            id="verdict",
        ),
        el("ul", [el("li", prose(one.text), class_=one.outcome) for one in findings], class_="findings")
        if findings
        else "",
        el("p", el("b", texts("certificates_bar")), ": ", _format_grades(grades, texts)),
        _certificate_bar(grades),
        _build_facts(series, texts),
        el("nav", links),
    )


def _certificate_bar(grades: dict[str, int]) -> Html:
    total = sum(grades.values()) or 1
    parts = [el("i", class_=name, style=f"width:{100 * count / total:.3f}%") for name, count in grades.items()]
    return el("div", parts, class_="bar", aria_hidden="true")


def _format_grades(grades: dict[str, int], texts: Texts) -> str:
    words = {_UNCERTIFIED: texts(_UNCERTIFIED)}
    return ", ".join(f"{count} {words.get(name, name)}" for name, count in grades.items()) or texts(_UNCERTIFIED)


def _build_facts(series: DaySeries, texts: Texts) -> Html:
    rows = series.instruments
    missing = [one.missing_shares for one in rows if one.missing_shares is not None]
    books = int(series.stored.health["books"].to_numpy().sum()) if len(series.stored.health) else 0
    facts = (
        ("fact_instruments", f"{len(rows):,}"),
        ("fact_books", f"{books:,}"),
        ("fact_ticks", f"{sum(one.live_ticks for one in rows):,}"),
        ("fact_recovered", f"{sum(one.recovered_ticks for one in rows):,}"),
        ("fact_missing", f"{sum(missing):,}" if missing else "?"),
    )
    return el("div", [el("div", el("b", value), el("span", texts(key))) for key, value in facts], class_="facts")


def _build_certificates(series: DaySeries, language: Language, texts: Texts) -> Html:
    words = [
        (name, f"{name}: {texts(name)}") for name in Grade if any(_grade(one) == name for one in series.instruments)
    ]
    head = el(
        "tr",
        el("th", texts("col_instrument")),
        el("th", texts("col_grade")),
        el("th", texts("col_volume"), class_="n wide"),
        el("th", texts("col_before"), class_="n wide"),
        el("th", texts("col_recovered"), class_="n"),
        el("th", texts("col_after"), class_="n"),
    )
    rows = [row for one in series.instruments for row in _build_certificate_rows(series, one, language, texts)]
    table = el("table", el("thead", head), el("tbody", rows))
    return section("certificates", texts("certificates"), sections.legend(words), el("div", table, class_="scroll"))


def _grade(one: InstrumentSeries) -> str:
    return one.certificate.certificate if one.certificate else _UNCERTIFIED


def _build_certificate_rows(series: DaySeries, one: InstrumentSeries, language: Language, texts: Texts) -> list[Html]:
    """The figures of an instrument, and below them its reasons in words."""
    grade, found = _grade(one), one.certificate
    volume = found.official_volume if found else None
    numbers = ((volume, "n wide"), (one.lacking, "n wide"), (one.recovered_shares, "n"), (one.missing_shares, "n"))
    row = el(
        "tr",
        el("td", sections.label(series, one.instrument)),
        el("td", el("i", class_=grade), texts(grade) if grade == _UNCERTIFIED else grade, class_="g"),
        [el("td", "?" if number is None else f"{number:,}", class_=name) for number, name in numbers],
    )
    if found is None:
        return [row]
    reasons = [translate(reason, language) for reason in found.reasons]
    reasons += [texts("off_book", text=text) for text in found.off_book]
    if found.residuals:
        reasons.append(texts("residual", text=name_some(found.residuals, texts, _MAX_RESIDUALS)))
    if not reasons:
        return [row]
    return [row, el("tr", el("td", el("ul", [el("li", reason) for reason in reasons]), colspan=6))]


def _build_files(day: date, series: DaySeries, home: str, texts: Texts) -> Html:
    symbol = (series.shown or series.instruments[0].instrument).symbol if series.instruments else "005930"
    lines = (
        "import pandas as pd",
        "",
        f'of_day = [("date", "=", "{day}"), ("symbol", "=", "{symbol}")]',
        'books = pd.read_parquet("data/kr/orderbook", filters=of_day)',
        'ticks = pd.read_parquet("data/kr/tick", filters=of_day).sort_values("cum_volume")',
        "lag = books.recv_time_kiwoom - books.recv_time_kis  # null where a feed never had the book",
        f'events = pd.read_parquet("data/kr/event", filters=[("date", "=", "{day}")])',
    )
    code = el("pre", el("code", [join((line, Html("\n"))) for line in lines]))
    names = [(el("dt", f"data/kr/{name}"), el("dd", prose(texts(f"file_{name}")))) for name in DATASETS]
    return section("files", texts("files"), el("p", texts("files_text")), code, el("dl", names))
