"""The rules of the verdict, fact by fact."""

from __future__ import annotations

import ast
import io
import re
from datetime import date, datetime
from pathlib import Path
from string import Formatter
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from rich.cells import cell_len

from collectorctl.notify.messages import NOTIFY_MESSAGES
from collectorctl.supervision import status_table
from collectorctl.supervision.messages import STATUS_MESSAGES
from collectorctl.supervision.status import ProcessStatus, RingLevel, Status
from collectorctl.terminal import TextConsole
from collectorctl.verdict import DiskRoom, Evidence, Finding, Level, Verdict, judge, rules
from collectorctl.verdict.collect import _measure_days, read_disk_room
from collectorctl.verdict.messages import ACTIONS, MESSAGES
from conf.calendar import TradingCalendar
from conf.clock import SECOND_NS
from conf.loader import load_settings
from conf.text.language import LANGUAGES, Count, Language, choose_language
from writer.feeds.day_events import BlindSpan, Incident
from writer.feeds.day_report import DayReport
from writer.feeds.degradation import Degradation, FeedShare
from writer.feeds.feed_report import FeedReport

KST = ZoneInfo("Asia/Seoul")
GB = 10**9


def at(text: str, day: date = date(2026, 11, 20)) -> int:
    return round(datetime.fromisoformat(f"{day}T{text}").replace(tzinfo=KST).timestamp()) * SECOND_NS


@pytest.fixture(scope="module")
def calendar(tmp_path_factory: pytest.TempPathFactory) -> TradingCalendar:
    root = tmp_path_factory.mktemp("home")
    (root / "collector.toml").write_text('[universe]\nkr = ["005930"]\n')
    return TradingCalendar(load_settings(root))


def process(name: str, healthy: bool = True, **fields: Any) -> ProcessStatus:
    verdict = fields.pop("verdict", "streaming")
    return ProcessStatus(name, "RUNNING", 7, healthy, verdict, **fields)


def evidence(now: str = "14:00:00", **fields: Any) -> Evidence:
    """A home at which nothing happened, but for what is named."""
    now_ns = at(now)
    incidents, blind = fields.pop("incidents", []), fields.pop("blind", [])
    status: dict[str, Any] = {
        "supervisor_pid": 1,
        "processes": [process("kis"), process("writer")],
        "rings": [RingLevel("kis.tick", 8192, 100, 5)],
        "day": DayReport(now_ns, {"kr": incidents}, {"kr": blind}, []),
    }
    status |= {name: fields.pop(name) for name in list(fields) if name in Status.__struct_fields__}
    other = {
        "now_ns": now_ns,
        "speed": 1.0,
        "disk": DiskRoom(100 * GB, GB),
        "stopped_in_order": False,
        "acknowledged_ns": 0,
        "settings_changed_s": 1e6,
    }
    return Evidence(Status(home="h", now="n", healthy=True, **status), **(other | fields))


def only(verdict: Verdict) -> Finding:
    (finding,) = verdict.findings
    return finding


def loss(begin: str, end: str, value: int | None = 7, kind: str = "ring_loss") -> Incident:
    return Incident(kind, "kis", at(begin), at(end), "records 1 to 7", "orderbook", value=value)


def test_a_day_on_which_nothing_happened_is_safe(calendar: TradingCalendar) -> None:
    """Without a finding."""
    assert judge(evidence(), calendar) == Verdict(Level.SAFE, [])


@pytest.mark.parametrize("kind", ["ring_loss", "journal_damaged"])
def test_a_loss_counts_all_day_although_everything_is_healthy_since(calendar: TradingCalendar, kind: str) -> None:
    """How many, of which stream, from when to when, why, and what to do."""
    verdict = judge(evidence(incidents=[loss("09:00:01", "09:00:09", kind=kind)]), calendar)

    found = only(verdict)
    assert verdict.level == found.level == Level.ATTENTION
    assert (found.code, found.subject, found.action) == (kind, "kis orderbook", ACTIONS[kind]["en"])
    for text in ("7 ", "09:00:01 to 09:00:09", "records 1 to 7"):
        assert text in found.message


def test_times_of_the_american_exchanges_name_their_zone(calendar: TradingCalendar) -> None:
    """In the language; a finding of Korea has Korea's times, as the rest of the screen, and no zone."""
    day = DayReport(at("15:00:00"), {"us": [loss("14:30:01", "14:30:09")]}, {"us": []}, [])
    seen = evidence(now="15:00:00", day=day)

    assert "00:30:01 to 00:30:09 (New York time)" in only(judge(seen, calendar)).message
    assert "00:30:01~00:30:09(뉴욕 시각)" in only(judge(seen, calendar, "ko")).message
    assert "New York" not in only(judge(evidence(incidents=[loss("09:00:01", "09:00:09")]), calendar)).message


def test_an_unknown_number_of_lost_records_is_not_called_a_number(calendar: TradingCalendar) -> None:
    """The known ones are added up beside it."""
    losses = [loss("09:00:01", "09:00:09"), loss("10:00:01", "10:00:09", None)]
    assert "7 and an unknown number of records" in only(judge(evidence(incidents=losses), calendar)).message


def test_a_loss_of_yesterday_is_no_loss_of_today(calendar: TradingCalendar) -> None:
    """It was in the verdict of its day."""
    yesterday = Incident("ring_loss", "kis", at("20:00:00", date(2026, 11, 19)), at("20:00:01", date(2026, 11, 19)))
    assert judge(evidence(incidents=[yesterday]), calendar).level == Level.SAFE


def test_an_acknowledged_loss_is_a_note_and_a_later_one_counts(calendar: TradingCalendar) -> None:
    """Each with its own number."""
    losses = [loss("09:00:01", "09:00:09", 7), loss("11:00:00", "11:00:01", 9)]
    verdict = judge(evidence(incidents=losses, acknowledged_ns=at("10:00:00")), calendar)

    assert [(each.level, each.message.split()[0]) for each in verdict.findings] == [
        (Level.ATTENTION, "9"),
        (Level.SAFE, "7"),
    ]
    assert judge(evidence(incidents=losses, acknowledged_ns=at("12:00:00")), calendar).level == Level.SAFE


def test_blind_books_are_a_loss_in_session_hours_only(calendar: TradingCalendar) -> None:
    """From 08:59:50 to 09:00:10 ten seconds of KRX's pre-market or regular session and no more than that."""
    spans = [BlindSpan(at("21:00:00"), at("22:00:00"), ["005930 KRX"])]
    assert judge(evidence(now="23:00:00", blind=spans), calendar).level == Level.SAFE

    spans.append(BlindSpan(at("10:00:00"), at("10:00:10"), ["005930 KRX", "000660 KRX"]))
    spans.append(BlindSpan(at("11:00:00"), at("11:00:05"), ["005930 KRX"]))
    found = only(judge(evidence(now="23:00:00", blind=spans), calendar))
    assert found.level == Level.ATTENTION
    assert "2 symbols between 10:00:00 and 11:00:05, 005930 KRX for 15.0 s" in found.message


def test_a_book_that_is_blind_now_counts_until_now_and_cannot_be_acknowledged_yet(calendar: TradingCalendar) -> None:
    """The loss is not over."""
    spans = [BlindSpan(at("13:59:30"), None, ["005930 KRX"])]
    found = only(judge(evidence(blind=spans, acknowledged_ns=at("13:59:59")), calendar))
    assert found.level == Level.ATTENTION and "for 30.0 s" in found.message


def test_a_restart_is_called_repairing_for_a_minute_and_noted_for_the_day(calendar: TradingCalendar) -> None:
    """Six kills leave a trace; the level does not flap in between."""
    kills = [Incident("restart", "kis", at(f"13:00:0{n}"), at(f"13:00:0{n + 1}")) for n in range(6)]
    found = only(judge(evidence(incidents=kills), calendar))
    assert found.level == Level.SAFE and "restarted 6 times today, the last time 3594 s ago" in found.message
    assert judge(evidence(now="13:00:50", incidents=kills), calendar).level == Level.REPAIRING
    hurried = evidence(now="13:30:00", incidents=kills, speed=60.0)  # half a minute of this machine
    assert judge(hurried, calendar).level == Level.REPAIRING


@pytest.mark.parametrize("kind", ["disconnect", "degraded", "paused"])
def test_what_goes_on_is_repairing_however_long(calendar: TradingCalendar, kind: str) -> None:
    """Since this morning."""
    verdict = judge(evidence(incidents=[Incident(kind, "kis", at("09:00:00"), None, "why")]), calendar)
    assert verdict.level == Level.REPAIRING
    assert "goes on: why" in only(verdict).message


@pytest.mark.parametrize(
    ("state", "level"),
    [("retrying", Level.REPAIRING), ("refused", Level.ATTENTION), ("paused", Level.ATTENTION), ("", Level.REPAIRING)],
)
def test_a_process_that_is_not_healthy_is_repaired_unless_it_waits_for_a_person(
    calendar: TradingCalendar, state: str, level: Level
) -> None:
    """A refused key and a full disk repair nobody; a hang, a crash and a reconnection are the watchdog's and supervisord's."""
    processes = [process("kis", False, state=state, verdict="text"), process("writer")]
    found = only(judge(evidence(processes=processes), calendar))
    assert (found.level, found.subject, found.message) == (level, "kis", "text")


def test_a_ring_with_more_waiting_than_it_holds_is_losing_records_now(calendar: TradingCalendar) -> None:
    """456,399 of 8,192 waiting is a loss, not a queue."""
    rings = [RingLevel("kis.tick", 8192, 500_000, 456_399)]
    found = only(judge(evidence(rings=rings), calendar))
    assert found.level == Level.ATTENTION and "448207 records are overwritten" in found.message
    assert judge(evidence(rings=[RingLevel("kis.tick", 8192, 500_000, 8192)]), calendar).level == Level.SAFE
    filling = judge(evidence(rings=[RingLevel("kis.tick", 8192, 500_000, 8000, full_in_s=12.4)]), calendar)
    assert (filling.level, only(filling).code) == (Level.REPAIRING, "ring_filling")


@pytest.mark.parametrize(("lag_ms", "late"), [(2900.0, "kiwoom"), (-2900.0, "kis"), (900.0, None), (None, None)])
def test_a_feed_more_than_a_second_behind_the_other_is_late(
    calendar: TradingCalendar, lag_ms: float | None, late: str | None
) -> None:
    """Whichever of the two it is."""
    feeds = [FeedShare(name, 10, 1.0, 0.5, 1.0) for name in ("kis", "kiwoom")]
    report = FeedReport("", 60.0, lag_ms, lag_ms, feeds, [])
    findings = judge(evidence(feed_health=report), calendar).findings
    assert [(each.code, each.subject, each.level) for each in findings] == (
        [("late", late, Level.REPAIRING)] if late else []
    )


@pytest.mark.parametrize(
    ("lags_ms", "speed", "expected"),
    [
        ((600.0, 3400.0), 1.0, [("late", "kiwoom")]),
        ((600.0, 1900.0), 1.0, []),  # up to two seconds are within a stamp of whole seconds
        ((3400.0, 3100.0), 1.0, [("clock", "host")]),
        ((-1400.0, -1100.0), 1.0, [("clock", "host")]),
        ((-1400.0, 600.0), 1.0, []),  # stamps that are ahead at one vendor alone are not this machine's clock
        ((3400.0, None), 1.0, [("late", "kis")]),
        ((3400.0, None), 60.0, []),  # of a day that passes within minutes a second is nothing
        ((None, None), 1.0, []),
    ],
)
def test_a_feed_behind_the_exchanges_second_is_late_and_both_alike_are_the_clock(
    calendar: TradingCalendar, lags_ms: tuple[float | None, ...], speed: float, expected: list[tuple[str, str]]
) -> None:
    """Chrony is named where the clock may be what is off."""
    feeds = [FeedShare(name, 10, 1.0, 0.5, 1.0, ms) for name, ms in zip(("kis", "kiwoom"), lags_ms, strict=True)]
    verdict = judge(evidence(feed_health=FeedReport("", 60.0, None, None, feeds, []), speed=speed), calendar)
    assert [(each.code, each.subject) for each in verdict.findings] == expected
    for found in verdict.findings:
        assert "the exchange's second" in found.message
        is_clock = found.code == "clock" or None in lags_ms
        assert is_clock == ("chronyc tracking" in found.message + found.action)


def test_a_degraded_feed_is_named_with_its_symbol(calendar: TradingCalendar) -> None:
    """As the monitor has it."""
    report = FeedReport("", 60.0, None, None, [], [Degradation("kis", "005930", "KRX", "half of the books")])
    found = only(judge(evidence(feed_health=report), calendar))
    assert (found.level, found.subject) == (Level.REPAIRING, "kis 005930 KRX")


def test_less_than_two_days_of_room_need_a_person(calendar: TradingCalendar) -> None:
    """At the rate of the largest of the last days; without a day nothing is known."""
    assert judge(evidence(disk=DiskRoom(19 * GB, 10 * GB)), calendar).level == Level.ATTENTION
    assert judge(evidence(disk=DiskRoom(21 * GB, 10 * GB)), calendar).level == Level.SAFE
    assert judge(evidence(disk=DiskRoom(1, None)), calendar).level == Level.SAFE


def test_a_disk_that_is_full_within_days_is_noted_before_a_person_is_needed(calendar: TradingCalendar) -> None:
    """At what a day usually takes, below the number of days that is set; 0: never."""

    def look(free_gb: int, warn_days: float) -> list[tuple[Level, str]]:
        disk = DiskRoom(free_gb * GB, 4 * GB, 2 * GB)
        return [
            (one.level, one.code) for one in judge(evidence(disk=disk, disk_warn_days=warn_days), calendar).findings
        ]

    assert look(27, 14.0) == [(Level.SAFE, "disk_days")]
    assert look(28, 14.0) == look(27, 0.0) == []
    assert look(7, 14.0) == [(Level.ATTENTION, "disk_room")]
    found = only(judge(evidence(disk=DiskRoom(27 * GB, None, 2 * GB), disk_warn_days=14.0), calendar))
    assert "full in about 14 trading days: 27.0 GB free, 2.0 GB on a usual day" in found.message
    assert found.action == ACTIONS["disk_days"]["en"]


def test_a_usual_day_is_the_median_of_those_that_are_over_or_today_if_that_is_more() -> None:
    """One that began, one large day and one half day change little; the rate of a larger universe counts at once."""
    assert [rules.compute_usual_bytes(days) for days in ([], [7], [0], [0, 3])] == [None, 7, None, 3]
    assert rules.compute_usual_bytes([10, 90, 11, 2, 12, 1]) == 11
    assert rules.compute_usual_bytes([10, 10, 10, 40]) == 40


def test_the_rate_of_the_disk_is_measured_once_a_minute(tmp_path: Path) -> None:
    """Of the last days, all markets together; the free room is that of each look."""
    for market, day, size in (("kr", 19, 900), ("kr", 20, 300), ("us", 20, 400), ("kr", 16, 5000)):
        part = tmp_path / market / "tick" / f"date=2026-11-{day}" / "hour=09" / "part-0.parquet"
        part.parent.mkdir(parents=True)
        part.write_bytes(bytes(size))
    for day in (17, 18):
        (tmp_path / "kr" / "tick" / f"date=2026-11-{day}").mkdir()
    _measure_days.cache_clear()
    first = _measure_days(tmp_path, 1)
    part.with_name("part-1.parquet").write_bytes(bytes(10))
    (tmp_path / "kr" / "tick" / "date=2026-11-20" / "hour=09" / "part-1.parquet").write_bytes(bytes(700))

    assert first == _measure_days(tmp_path, 1) == (5000, 0, 0, 900, 700)
    assert _measure_days(tmp_path, 2) == (5010, 0, 0, 900, 1400)
    room = read_disk_room(tmp_path)
    assert (room.free_bytes > 0, room.day_bytes, room.usual_bytes) == (True, 1400, 1400)


def test_a_report_that_is_old_or_missing_is_not_taken_for_a_day_without_incidents(calendar: TradingCalendar) -> None:
    """Whoever should have written it is not doing so."""
    assert judge(evidence(day_age_s=15.0), calendar).level == Level.REPAIRING
    assert judge(evidence(day_age_s=5.0), calendar).level == Level.SAFE
    processes = [process("writer", uptime_s=5.0)]
    assert judge(evidence(day=None, processes=processes), calendar).level == Level.SAFE
    processes = [process("writer", uptime_s=20.0)]
    assert judge(evidence(day=None, processes=processes), calendar).level == Level.REPAIRING


def test_a_home_that_was_stopped_is_stopped_and_one_that_was_killed_needs_a_person(calendar: TradingCalendar) -> None:
    """With the losses of the day in the findings either way."""
    incidents = [loss("09:00:01", "09:00:09")]
    stopped = judge(evidence(supervisor_pid=None, stopped_in_order=True, incidents=incidents), calendar)
    assert (stopped.level, only(stopped).code) == (Level.STOPPED, "ring_loss")
    killed = judge(evidence(supervisor_pid=None, incidents=incidents), calendar)
    assert killed.level == Level.ATTENTION
    assert {each.code for each in killed.findings} == {"not_running", "ring_loss"}


def test_settings_newer_than_a_process_are_noted_with_the_command(calendar: TradingCalendar) -> None:
    """Nothing is wrong, but the change has no effect yet."""
    processes = [process("kis", uptime_s=50.0), process("writer", uptime_s=5.0)]
    found = only(judge(evidence(processes=processes, settings_changed_s=10.0), calendar))
    assert (found.level, found.subject, found.action) == (
        Level.SAFE,
        "collector.toml",
        ACTIONS["settings_changed"]["en"],
    )
    assert found.message.endswith(": kis")


def every_fault() -> list[Evidence]:
    """Evidence of each finding there is, with each form of its message."""
    feeds = [FeedShare(name, 10, 1.0, 0.5, 1.0) for name in ("kis", "kiwoom")]
    rings = [
        RingLevel("kis.tick", 8192, 500_000, 456_399),
        RingLevel("kis.orderbook", 8192, 500_000, 8000, full_in_s=12.4),
        RingLevel("us.tick", 8192, 0, 0, error="cause"),
    ]
    kinds = ("ring_loss", "journal_damaged", "restart", "disconnect", "paused", "degraded", "quarantined")
    incidents = [
        Incident(kind, feed, at(begin), at(end) if end else None, "cause", value=value)
        for kind in kinds
        for feed, begin, end, value in (
            *(("kis", f"{hour}:00:00", f"{hour}:00:09", 7) for hour in ("09", "10", "11", "12")),
            ("kis", "13:00:00", "13:00:09", None),
            ("kiwoom", "09:00:00", "09:00:09", 1),
            ("kiwoom", "13:00:00", None, 1),
        )
    ]
    blind = [BlindSpan(at("10:00:00"), at("10:00:10"), ["005930 KRX"]), BlindSpan(at("13:59:30"), None, ["005930 KRX"])]
    processes = [
        *(process(name, False, state=name, verdict="cause") for name in ("refused", "paused", "failing", "retrying")),
        process("writer", uptime_s=500.0),
    ]
    fields: dict[str, Any] = {
        "feed_health": FeedReport("", 60.0, 2900.0, 2900.0, feeds, [Degradation("kis", "", "", "cause")]),
        "shortfalls": ["cause"],
        "allocation_summary": "cause",
        "acknowledged_ns": at("09:30:00"),
        "settings_changed_s": 10.0,
        "day_age_s": 60.0,
        "disk": DiskRoom(GB, GB),
        "disk_warn_days": 14.0,
    }
    return [
        evidence(disk=DiskRoom(9 * GB, GB, GB), disk_warn_days=14.0),
        evidence(rings=rings, incidents=incidents, blind=blind, processes=processes, **fields),
        evidence(incidents=incidents, blind=blind[:1], acknowledged_ns=at("13:59:59")),
        evidence(day=None, processes=[process("writer", uptime_s=20.0)]),
        evidence(supervisor_pid=None),
        *(
            evidence(feed_health=FeedReport("", 60.0, None, None, stamped, []))
            for lags in ((600.0, 3400.0), (3400.0, 3400.0), (-2000.0, -2000.0), (None, 3400.0))
            for stamped in [[FeedShare(one.feed, 1, 1.0, 1.0, 1.0, lag) for one, lag in zip(feeds, lags, strict=True)]]
        ),
    ]


def findings_of(calendar: TradingCalendar, language: Language) -> list[Finding]:
    return [found for each in every_fault() for found in judge(each, calendar, language).findings]


def test_each_finding_has_words_in_each_language(calendar: TradingCalendar) -> None:
    """The same findings, those that the page lists; a quoted cause alone is the same text."""
    english, korean = (findings_of(calendar, language) for language in LANGUAGES)
    page = (Path(__file__).parents[3] / "docs" / "verdict.md").read_text()
    rows = [line.split("|")[1] for line in page.partition("## Findings")[2].splitlines() if line.startswith("| `")]

    assert {each.code for each in english} == set(re.findall(r"`(\w+)`", "".join(rows)))
    facts = [
        [(each.level, each.code, each.subject, each.begin_ns, each.end_ns) for each in s] for s in (english, korean)
    ]
    assert facts[0] == facts[1]
    for ours, theirs in zip(english, korean, strict=True):
        assert not re.search("[가-힣]", ours.message + ours.action)
        assert ours.message == theirs.message == "cause" or re.search("[가-힣]", theirs.message)
        assert (not ours.action) == (not theirs.action)
        assert re.findall("`[a-z].+?`", ours.action) == re.findall("`[a-z].+?`", theirs.action)


def test_each_message_is_complete_and_used() -> None:
    """In each language with the same values; none that no rule has."""
    literals = {
        node.value
        for module in (rules, status_table)
        for node in ast.walk(ast.parse(Path(module.__file__).read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    used = literals | {f"{name}_acknowledged" for name in literals} | {level.name for level in Level}

    assert set(MESSAGES) - used == set()
    catalogues = (MESSAGES, ACTIONS, STATUS_MESSAGES, NOTIFY_MESSAGES)
    for key, texts in [one for each in catalogues for one in each.items()]:
        assert tuple(texts) == LANGUAGES, key
        english, korean = ({name for _, name, _, _ in Formatter().parse(text) if name} for text in texts.values())
        assert english == korean, key
        assert re.search("[가-힣]", re.sub(r"{.*?}", "", texts["ko"])) or key == "span", key


@pytest.mark.parametrize("width", [80, 100, 120])
@pytest.mark.parametrize("language", LANGUAGES)
def test_no_line_of_the_verdict_is_wider_than_the_terminal_and_every_word_is_whole(
    calendar: TradingCalendar, language: Language, width: int
) -> None:
    """In cells, of which a Korean letter takes two."""
    for each in every_fault():
        out = io.StringIO()
        verdict = judge(each, calendar, language)
        status_table.print_verdict(verdict, TextConsole(highlight=False, file=out, width=width), language)
        lines = out.getvalue().splitlines()

        assert max(map(cell_len, lines)) <= width
        words = set(out.getvalue().split())
        for found in verdict.findings:
            assert set(f"{found.message} {found.action}".split()) <= words


@pytest.mark.parametrize(
    ("setting", "locale", "language"),
    [
        ("", {}, "en"),
        ("", {"LANG": "ko_KR.UTF-8"}, "ko"),
        ("", {"LANG": "ko_KR.UTF-8", "LC_ALL": "C.UTF-8"}, "en"),
        ("", {"LANG": "en_US.UTF-8", "LC_MESSAGES": "ko_KR.UTF-8", "LC_ALL": ""}, "ko"),
        ("", {"LANG": "kok_IN"}, "en"),
        ("", {"LANG": "de_DE.UTF-8"}, "en"),
        ("ko", {"LC_ALL": "C"}, "ko"),
        ("en", {"LANG": "ko_KR.UTF-8"}, "en"),
    ],
)
def test_the_language_is_what_is_set_else_that_of_the_locale(
    setting: str, locale: dict[str, str], language: Language
) -> None:
    """Without either, English."""
    assert choose_language(setting, locale) == language


def test_a_noun_goes_with_its_count() -> None:
    """A number of 1 has the first one."""
    assert [f"{Count(n)} {Count(n):time|times}" for n in (0, 1, 2)] == ["0 times", "1 time", "2 times"]


def test_a_process_of_another_version_needs_a_person(calendar: TradingCalendar) -> None:
    """Nothing restarts it by itself: an upgrade was left half done."""
    of_another = process("kis", healthy=False, verdict="runs in another version", other_version=True)

    assert judge(evidence(processes=[of_another]), calendar).level == Level.ATTENTION
