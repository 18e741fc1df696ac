"""Scenes of a bad day, from what the home has on record to the words that a person gets: verdict, notification, both languages."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from collectorctl.notify.outbox import LOOKS, Ledger, Outbox, compose
from collectorctl.supervision.status import ProcessStatus, RingLevel, Status
from collectorctl.verdict import DiskRoom, Evidence, Level, judge
from conf.calendar import TradingCalendar
from conf.clock import KST, SECOND_NS
from conf.loader import load_settings
from conf.text.language import LANGUAGES, Language
from ringbuf.records import EVENT, STREAM_NAMES, UNDEFINED, EventType, FeedId, Venue, empty_records
from writer.feeds.day_events import DayEvents
from writer.feeds.day_report import DayReport
from writer.feeds.degradation import FeedShare
from writer.feeds.feed_report import FeedReport

TEN_NS = round(datetime(2026, 11, 20, 10, tzinfo=KST).timestamp()) * SECOND_NS


class Scene(NamedTuple):
    """Events with their second after ten o'clock, what else is on record `now_s` after it, and what is said."""

    events: list[tuple[float, EventType, dict[str, Any]]]
    now_s: float
    status: dict[str, Any]
    evidence: dict[str, Any]
    level: Level
    said: dict[str, dict[Language, str]]


def subscribed(at_s: float) -> list[tuple[float, EventType, dict[str, Any]]]:
    return [
        (at_s, EventType.ACKNOWLEDGED, {"line": line, "symbol": b"005930", "venue": Venue.KRX, "stream": "orderbook"})
        for line in (FeedId.KIS, FeedId.KIWOOM)
    ]


def feeds(kis_ms: float, kiwoom_ms: float) -> FeedReport:
    shares = [FeedShare(name, 900, 0.9, 0.5, 0.9, lag) for name, lag in (("kis", kis_ms), ("kiwoom", kiwoom_ms))]
    return FeedReport("", 60.0, None, None, shares, [])


LOST = {"line": FeedId.KIS, "stream": "tick", "value": 666_105, "message": b"records 1 to 666105", "since_s": 20}
SCENES = {
    "disk full": Scene(
        [(0, EventType.PAUSED, {"line": FeedId.KIS, "message": b"kr.tick: No space left on device"})],
        5,
        {"rings": [RingLevel("kis.tick", 8192, 500_000, 456_399)]},
        {"disk": DiskRoom(0, 10**9)},
        Level.ATTENTION,
        {
            "paused": {"en": "paused 1 time today, goes on", "ko": "오늘 1회 쓰기 중단, 지금도 계속됨"},
            "ring_overrun": {
                "en": "448207 records are overwritten unread",
                "ko": "레코드 448207건이 읽기 전에 덮어쓰였고",
            },
            "disk_room": {"en": "room for 0.0 more days", "ko": "디스크 여유가 0.0일치"},
        },
    ),
    "disk freed": Scene(
        [
            (0, EventType.PAUSED, {"line": FeedId.KIS, "message": b"kr.tick: No space left on device"}),
            (52, EventType.RESUMED, {"line": FeedId.KIS, "message": b"kr.tick", "since_s": 0}),
            (52, EventType.RING_LOSS, LOST),
        ],
        60,
        {},
        {},
        Level.ATTENTION,
        {
            "ring_loss": {
                "en": "666,105 records were lost between feed and writer: 10:00:20 to 10:00:52",
                "ko": "레코드 666,105건 유실: 10:00:20~10:00:52",
            },
            "paused": {"en": "the last time 8 s ago", "ko": "마지막은 8초 전"},
        },
    ),
    "late feed": Scene(
        [],
        10,
        {"feed_health": feeds(600, 3400)},
        {},
        Level.REPAIRING,
        {
            "late": {
                "en": "kiwoom: half of its books come more than 2.4 s after the exchange's second",
                "ko": "kiwoom: 호가의 절반이 거래소 시각보다 2.4초 넘게 늦게 도착",
            }
        },
    ),
    "killed six times": Scene(
        [(4.0 * n, EventType.STARTED, {"line": FeedId.KIS, "since_s": 4.0 * n - 2}) for n in range(1, 7)],
        44,
        {},
        {},
        Level.REPAIRING,
        {
            "restart": {
                "en": "kis: restarted 6 times today, the last time 20 s ago",
                "ko": "kis: 오늘 6회 재시작, 마지막은 20초 전",
            }
        },
    ),
    "both feeds down": Scene(
        [
            *subscribed(0),
            (9, EventType.DISCONNECTED, {"line": FeedId.KIS, "since_s": 7, "message": b"reset"}),
            (9, EventType.DISCONNECTED, {"line": FeedId.KIWOOM, "since_s": 8, "message": b"reset"}),
        ],
        12,
        {},
        {},
        Level.ATTENTION,
        {
            "blind": {
                "en": "no feed delivered the books of 1 symbol between 10:00:08 and 10:00:12, 005930 KRX for 4.0 s",
                "ko": "10:00:08~10:00:12 사이 1종목의 호가를 어느 피드에서도 받지 못함(최장 005930 KRX, 4.0초)",
            },
            "disconnect": {
                "en": "disconnected 1 time today, goes on: reset",
                "ko": "오늘 1회 단절, 지금도 계속됨: reset",
            },
        },
    ),
    "simulator slow": Scene(
        [],
        10,
        {"feed_health": feeds(4500, 4700)},
        {},
        Level.REPAIRING,
        {
            "clock": {
                "en": "the books of kis, kiwoom come more than 3.5 s after the exchange's second: this machine's clock is ahead, "
                "or all of them are late",
                "ko": "kis, kiwoom 호가가 모두 거래소 시각보다 3.5초 넘게 늦음: 이 서버의 시계가 빠르거나 모두 지연됨",
            }
        },
    ),
    "universe edited": Scene(
        [],
        10,
        {"processes": [ProcessStatus(name, "RUNNING", 7, True, "", uptime_s=500.0) for name in ("kis", "writer")]},
        {"settings_changed_s": 5.0},
        Level.SAFE,
        {
            "settings_changed": {
                "en": "started before the settings changed, which have no effect on them yet: kis, writer",
                "ko": "설정 변경 전에 시작되어 변경 내용이 아직 반영되지 않음: kis, writer",
            }
        },
    ),
}


def fold(events: list[tuple[float, EventType, dict[str, Any]]]) -> DayEvents:
    """The writer's fold over these events."""
    day = DayEvents()
    for at_s, kind, fields in events:
        record = empty_records(EVENT, 1)
        record["recv_ns"] = record["mono_ns"] = TEN_NS + round(at_s * SECOND_NS)
        record["kind"], record["connection"], record["exch_ns"] = kind, 1, UNDEFINED
        since_s = fields.get("since_s")
        record["since_ns"] = UNDEFINED if since_s is None else TEN_NS + round(since_s * SECOND_NS)
        record["value"], record["stream"] = fields.get("value", UNDEFINED), STREAM_NAMES.index(fields.get("stream", ""))
        for name in ("line", "symbol", "venue", "message"):
            record[name] = fields.get(name, record[name])
        day.add_records(record)
    return day


@pytest.fixture(scope="module")
def calendar(tmp_path_factory: pytest.TempPathFactory) -> TradingCalendar:
    root: Path = tmp_path_factory.mktemp("home")
    (root / "collector.toml").write_text('[universe]\nkr = ["005930"]\n')
    return TradingCalendar(load_settings(root))


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("name", SCENES)
def test_each_scene_is_in_the_verdict_and_in_a_message_in_words(
    calendar: TradingCalendar, name: str, language: Language
) -> None:
    """What happened, how much, from when to when, and what to do; nothing else."""
    scene = SCENES[name]
    day, now_ns = fold(scene.events), TEN_NS + round(scene.now_s * SECOND_NS)
    report = DayReport(now_ns, {"kr": day.incidents}, {"kr": day.blind_spans()}, [])
    status = {"processes": [], "rings": [], "day": report} | scene.status
    other = {"disk": DiskRoom(10**12, 10**9), "settings_changed_s": 1e6} | scene.evidence
    evidence = Evidence(
        Status("h", "n", 1, True, **status), now_ns, 1.0, stopped_in_order=False, acknowledged_ns=0, **other
    )

    verdict = judge(evidence, calendar, language)
    outbox = Outbox(Ledger(), Level.REPAIRING, 600.0, language)
    outbox.register(["a"])
    for _ in range(LOOKS):
        outbox.judged(verdict, True, now_ns, 0.0)
    message = compose("h", outbox.pending("a"), language)[1]

    assert verdict.level == scene.level
    assert {found.code for found in verdict.findings} == set(scene.said)
    for code, said in scene.said.items():
        lines = [one for one in message.split("\n") if f" {code} " in one]
        assert any(said[language] in line for line in lines), message
        for line in lines:
            assert bool(re.search("[가-힣]", line)) == (language == "ko"), line
            assert " -> " in line, line
