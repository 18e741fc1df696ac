"""Pages of a report: complete in both languages, escaped, of one file, bounded, and honest about what is not known."""

from __future__ import annotations

import json
import re
import shutil
import string
from datetime import date
from html.parser import HTMLParser
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from support.stored_day import DAY, HOSTILE, SYMBOLS, make_stored_day, make_whole_day

from collectorctl.cli import main
from collectorctl.notify.service import find_report_link
from collectorctl.recover.certificate.certify import Grade
from collectorctl.recover.schedule.state import LastRun
from collectorctl.report import reasons, store
from collectorctl.report.markup import el
from collectorctl.report.messages import MESSAGES
from collectorctl.report.page import build_index
from collectorctl.report.sections import SHOWN_CELLS
from collectorctl.verdict import acknowledge
from conf.calendar import PHASES
from conf.home import Home
from conf.text.language import LANGUAGES, Language

THE_DAY = date.fromisoformat(DAY)
SECTIONS = ["coverage", "lag", "rates", "processes", "gaps", "price", "certificates", "files"]


class Page(HTMLParser):
    """Tags with their attributes, and the text between them; a tag that is not closed fails."""

    VOID = frozenset({"meta", "br", "path", "rect"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID or tag in ("path", "rect"):
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(self.texts)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return Home(make_stored_day(tmp_path_factory.mktemp("stored") / "home"))


@pytest.fixture(scope="module")
def pages(home: Home) -> dict[Language, Page]:
    return {
        language: Page(store.write_report(home, THE_DAY, language).path.read_text(encoding="utf-8"))
        for language in LANGUAGES
    }


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_page_has_every_section_and_every_instrument_in_each_language(
    pages: dict[Language, Page], language: Language
) -> None:
    """With the verdict on top, and the words of that language."""
    page = pages[language]

    assert [attrs["id"] for tag, attrs in page.tags if tag == "section"] == SECTIONS
    assert ("html", {"lang": language}) in page.tags
    for symbol in SYMBOLS:
        assert page.text.count(f"{symbol} KRX") >= 2
    assert MESSAGES["ATTENTION"][language] in page.text
    assert all(MESSAGES[name][language] in page.text for name in ("coverage", "lag", "rates", "processes", "files"))


def test_a_page_is_one_file_without_a_script_that_asks_for_nothing(home: Home, pages: dict[Language, Page]) -> None:
    """No source, no style sheet, no address but links to its own parts and to the index."""
    for page in pages.values():
        named = [
            attrs[name] for _, attrs in page.tags for name in ("href", "src", "xlink:href", "data") if attrs.get(name)
        ]
        assert {link for link in named if link and not link.startswith("#")} == {"index.html"}
        assert {tag for tag, _ in page.tags} & {"script", "link", "img", "iframe", "object", "image", "use"} == set()
        assert not [name for _, attrs in page.tags for name in attrs if name.startswith("on")]
    text = home.report_path(THE_DAY).read_text(encoding="utf-8")
    assert "url(" not in text and "@import" not in text
    assert "default-src &#x27;none&#x27;" in text


def test_text_from_outside_is_shown_and_never_markup(pages: dict[Language, Page]) -> None:
    """A vendor's message and a reason with a tag in them."""
    for page in pages.values():
        assert page.text.count(HOSTILE) == 3  # two feeds and a certificate


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=40))
def test_any_text_is_one_text_in_the_page(text: str) -> None:
    """In an element and in an attribute; what a reader of HTML gives back has no control character."""
    page = Page(el("p", text, title=text))

    assert [tag for tag, _ in page.tags] == ["p"]
    assert "".join(page.texts) == page.tags[0][1]["title"]
    assert "".join(page.texts).isprintable() or any(not one.isprintable() for one in text)


def test_the_minutes_of_each_row_and_of_the_sum_are_those_in_session(pages: dict[Language, Page]) -> None:
    """The shares that a person reads add up."""
    page = pages["en"]
    labels = "|".join(re.escape(MESSAGES[cell.name]["en"].partition(" ")[2]) for cell in SHOWN_CELLS)
    titles = [attrs["aria-label"] or "" for tag, attrs in page.tags if tag == "svg" and attrs["class"] == "strip"]
    rows = [title for title in titles if " KRX: " in title]

    assert labels
    assert [sum(int(count) for count in re.findall(r" (\d+)(?= ·| min)", row.partition(": ")[2])) for row in rows] == [
        190
    ] * 3


def test_the_day_is_judged_by_what_is_missing(home: Home) -> None:
    """Holes, losses, grades, hours that are not counted, instruments without a certificate: each once, the worst first."""
    report = store.write_report(home, THE_DAY, "ko")

    assert report.outcome == "ATTENTION"
    assert [re.sub(r"[(:].*", "", text) for text in report.findings[:2]] == ["08", "09"]
    assert report.findings[2:] == [
        "09:45:00 to 09:45:10: records lost, kis orderbook: 120 records",
        "INCOMPLETE: 1 instrument: 000660 KRX.",
        "The books of the hours 11 are stored but not counted by minute yet (feed_health).",
        f"1 of 3 instruments have no certificate: `collectorctl recover --date {DAY}`.",
    ]
    assert report.certificates == {"PROVEN": 1, "INCOMPLETE": 1, "no_certificate": 1}


def test_acknowledged_losses_are_notes_and_the_rest_still_counts(tmp_path: Path) -> None:
    """A person has seen the holes; an instrument that is INCOMPLETE stays so."""
    home = Home(make_stored_day(tmp_path / "home"))
    home.create_directories()
    acknowledge(home, "moved the box")
    report = store.write_report(home, THE_DAY, "en")

    assert report.outcome == "ATTENTION"
    assert sum(text.startswith("acknowledged: ") for text in report.findings) == 3
    assert report.findings[0].startswith("INCOMPLETE")


def test_a_whole_day_is_called_whole_and_nothing_else_is(tmp_path: Path) -> None:
    """Every minute has books, every hour is counted, nothing was lost, the instrument is PROVEN; each of these alone decides."""
    homes = {
        "whole": make_whole_day(tmp_path / "whole"),
        "a minute is empty": make_whole_day(tmp_path / "empty", empty=["10:17"]),
        "records were lost": make_whole_day(tmp_path / "loss", loss=True),
        "an hour is not counted": make_whole_day(tmp_path / "uncounted"),
        "no certificate": make_whole_day(tmp_path / "uncertified"),
        "a file is damaged": make_whole_day(tmp_path / "damaged"),
    }
    (homes["an hour is not counted"] / f"data/kr/feed_health/date={DAY}/hour=10/part-0.parquet").unlink()
    shutil.rmtree(homes["no certificate"] / "data/kr/completeness")
    (homes["a file is damaged"] / f"data/kr/event/date={DAY}/hour=09/part-0.parquet").write_bytes(b"PAR1")

    reports = {name: store.write_report(Home(root), THE_DAY, "en") for name, root in homes.items()}

    assert {name: report.outcome for name, report in reports.items()} == {
        "whole": "WHOLE",
        "a minute is empty": "ATTENTION",
        "records were lost": "ATTENTION",
        "an hour is not counted": "UNFINISHED",
        "no certificate": "UNFINISHED",
        "a file is damaged": "ATTENTION",
    }
    assert (reports["whole"].findings, reports["whole"].certificates) == ([], {"PROVEN": 1})
    assert all(report.findings for name, report in reports.items() if name != "whole")


def test_an_unfinished_day_says_up_to_when_it_is_known(tmp_path: Path) -> None:
    """At ten o'clock: what is to come is no hole, and the page says so."""
    home = Home(make_stored_day(tmp_path / "home", now="10:30"))
    report = store.write_report(home, THE_DAY, "en")
    page = Page(report.path.read_text(encoding="utf-8"))

    assert "The day's sessions are not over: this is what was stored up to 10:30." in page.text
    assert not [text for text in report.findings if text.startswith(("10:", "11:"))]


def test_a_file_that_cannot_be_read_is_named_and_the_rest_is_shown(tmp_path: Path) -> None:
    """A damaged hour must not take the page with it, nor look like silence."""
    root = make_stored_day(tmp_path / "home")
    damaged = root / f"data/kr/feed_health/date={DAY}/hour=10/part-0.parquet"
    damaged.write_bytes(damaged.read_bytes()[:200])
    report = store.write_report(Home(root), THE_DAY, "en")

    assert report.findings[0].startswith(f"A file cannot be read: feed_health/date={DAY}/hour=10/part-0.parquet: ")
    assert report.outcome == "ATTENTION"


def test_a_day_without_anything_is_refused_or_shown_empty(home: Home) -> None:
    """A Saturday and a day to come are refused in one line; a trading day is not."""
    runs = {
        day: CliRunner().invoke(main, ["--home", str(home.root), "report", "--date", day])
        for day in ("2026-11-21", "2026-11-19", "2026-11-32")
    }

    assert {day: run.exit_code for day, run in runs.items()} == {"2026-11-21": 2, "2026-11-19": 0, "2026-11-32": 2}
    assert "Nothing of this day is stored." in runs["2026-11-19"].output
    assert runs["2026-11-19"].output.startswith("ATTENTION 2026-11-19: ")
    home.report_path(date(2026, 11, 19)).unlink()


def test_the_command_says_where_the_page_is_and_prints_json(home: Home) -> None:
    """The page is private to nobody: whoever may read the data may read it."""
    ran = CliRunner().invoke(main, ["--home", str(home.root), "report", "--date", DAY, "--symbol", "000660", "--json"])
    found = json.loads(ran.output)

    assert (ran.exit_code, found["outcome"], found["path"]) == (0, "ATTENTION", str(home.report_path(THE_DAY)))
    assert "000660 KRX" in home.report_path(THE_DAY).read_text(encoding="utf-8").partition('id="price"')[2][:200]


def test_the_index_links_every_day_with_its_outcome_the_newest_first(home: Home) -> None:
    """Made of the pages that are there; a file that is no page is left out."""
    store.write_report(home, THE_DAY, "en")
    directory = home.report_path(THE_DAY).parent
    (directory / "2026-11-18.html").write_text("no page")
    older = directory / "2026-11-17.html"
    older.write_text(home.report_path(THE_DAY).read_text(encoding="utf-8"), encoding="utf-8")
    entries = store.find_entries(directory)
    page = Page(build_index(entries, "home", "ko"))
    older.unlink()

    links = [attrs["href"] for tag, attrs in page.tags if tag == "a"]
    assert links == [f"{DAY}.html", "2026-11-17.html"]
    assert page.text.count(MESSAGES["ATTENTION"]["ko"]) == 2
    assert Page((directory / "index.html").read_text(encoding="utf-8")).text


def test_equal_files_give_an_equal_page(home: Home) -> None:
    """But for the minute it was made in."""

    def write() -> str:
        return re.sub(r"<footer>.*", "", store.write_report(home, THE_DAY, "en").path.read_text(encoding="utf-8"))

    assert write() == write()


def test_the_page_of_a_certified_day_is_linked_by_the_notification(home: Home) -> None:
    """By the address under which the pages are served, else by the path; a day without a page has no link."""
    store.write_report(home, THE_DAY)
    last = LastRun(0, {THE_DAY: {"PROVEN": 1}, date(2026, 11, 19): {"PROVEN": 1}})
    served = home.root / "served"
    served.mkdir(exist_ok=True)
    (served / "collector.toml").write_text(
        '[notify]\nreport_url = "https://example.org/report/"\n[paths]\ndata = "../data"\n'
    )

    assert find_report_link(home, "kr", last) == str(home.report_path(THE_DAY))
    assert find_report_link(Home(served), "kr", last) == f"https://example.org/report/{DAY}.html"
    assert find_report_link(home, "us", last) == ""
    assert find_report_link(home, "kr", LastRun(0, {date(2026, 11, 19): {}})) == ""


def test_each_message_of_the_report_has_the_same_values_in_each_language() -> None:
    """And each phase, grade and cell has its words."""
    for key, by_language in MESSAGES.items():
        fields = [
            {name for _, name, _, _ in string.Formatter().parse(by_language[language]) if name}
            for language in LANGUAGES
        ]
        if key != "records" and not any(":instrument|" in text or ":time|" in text for text in by_language.values()):
            assert fields[0] == fields[1], key
        assert fields[1] <= fields[0], key
    assert set(MESSAGES) >= {*PHASES, *Grade, *(cell.name for cell in SHOWN_CELLS)}


def test_every_reason_that_a_certificate_can_have_is_in_korean() -> None:
    """Read from the source: each text of `checks` with numbers in the place of its values."""
    source = (Path(__file__).parents[3] / "collectorctl/recover/certificate/certify.py").read_text()
    checks = source.partition("    checks = (")[2].partition("    )\n    reasons")[0]
    texts = [text for text in re.findall(r'f?"([^"]+)"', checks) if " " in text]
    for text in [*texts, "its 12 pages do not fit the budget", "beyond the 20 days for which ticks are kept"]:
        values = ("is not known", "differs by +1,200 won") if "{value}" in text else ("",)
        for value in values:
            reason = re.sub(r"{[^}]+}", "7", text.replace("{value}", value))
            assert re.search("[가-힣]", reasons.translate(reason, "ko")), reason
            assert reasons.translate(reason, "en") == reason
    assert len(texts) >= 15
    assert reasons.translate("something new", "ko") == "something new"
