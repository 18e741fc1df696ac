"""Messages of the verdict, and what to do about each finding, in each language.

Guarantees:
    * Each message has the same values in each language.

Not handled here:
    * Causes that a process, a ring or a broker reported: they are quoted as they are, in English.
"""

from __future__ import annotations

from conf.text.language import Language

MESSAGES: dict[str, dict[Language, str]] = {
    "SAFE": {"en": "the day is safe", "ko": "오늘 데이터 안전"},
    "REPAIRING": {"en": "not healthy now, repairing itself", "ko": "비정상 상태, 스스로 복구 중"},
    "ATTENTION": {
        "en": "something was lost today, or a person is needed",
        "ko": "오늘 유실이 있었거나 사람의 조치가 필요함",
    },
    "STOPPED": {"en": "stopped on purpose", "ko": "명령으로 정지함"},
    "note": {"en": "note", "ko": "참고"},
    "not_running": {
        "en": "nothing runs here, and it was not stopped by a command",
        "ko": "실행 중인 프로세스 없음. 명령으로 정지한 것이 아님",
    },
    "no_day_report": {
        "en": "has not reported the day's incidents yet",
        "ko": "오늘의 장애 기록이 아직 없음",
    },
    "stale_report": {
        "en": "the report of the day's incidents is {age_s:.0f} s old",
        "ko": "오늘의 장애 기록이 {age_s:.0f}초째 갱신되지 않음",
    },
    "ring_overrun": {
        "en": "{count} records are overwritten unread, and more with every record",
        "ko": "레코드 {count}건이 읽기 전에 덮어쓰였고 계속 늘어나는 중",
    },
    "ring_filling": {
        "en": "{backlog} of {capacity} records wait for the writer: full in {full_in_s:.0f} s",
        "ko": "writer를 기다리는 레코드 {backlog}건(용량 {capacity}건), {full_in_s:.0f}초 뒤 가득 참",
    },
    "late": {
        "en": "half of its books come more than {lag_s:.1f} s after those of {other}",
        "ko": "호가의 절반이 {other}보다 {lag_s:.1f}초 넘게 늦게 도착",
    },
    "late_exchange": {
        "en": "half of its books come more than {lag_s:.1f} s after the exchange's second",
        "ko": "호가의 절반이 거래소 시각보다 {lag_s:.1f}초 넘게 늦게 도착",
    },
    "late_or_clock": {
        "en": "half of its books come more than {lag_s:.1f} s after the exchange's second, or this machine's clock is ahead: "
        "see `chronyc tracking`",
        "ko": "호가의 절반이 거래소 시각보다 {lag_s:.1f}초 넘게 늦게 도착하거나, 이 서버의 시계가 빠름: `chronyc tracking` 확인",
    },
    "clock_ahead": {
        "en": "the books of {feeds} come more than {lag_s:.1f} s after the exchange's second: this machine's clock is ahead, or "
        "all of them are late",
        "ko": "{feeds} 호가가 모두 거래소 시각보다 {lag_s:.1f}초 넘게 늦음: 이 서버의 시계가 빠르거나 모두 지연됨",
    },
    "clock_behind": {
        "en": "the books of {feeds} come {lag_s:.1f} s before the exchange's second: this machine's clock is behind",
        "ko": "{feeds} 호가가 거래소 시각보다 {lag_s:.1f}초 먼저 도착: 이 서버의 시계가 느림",
    },
    "quarantined": {
        "en": "{count} frames could not be decoded and are kept: {cause}",
        "ko": "디코딩하지 못한 프레임 {count}건을 원본으로 보관 중: {cause}",
    },
    "ring_loss": {
        "en": "{count} records were lost between feed and writer: {spans}: {cause}",
        "ko": "피드와 writer 사이에서 레코드 {count}건 유실: {spans}: {cause}",
    },
    "ring_loss_acknowledged": {
        "en": "{count} records were lost between feed and writer, acknowledged: {spans}: {cause}",
        "ko": "피드와 writer 사이에서 레코드 {count}건 유실(확인함): {spans}: {cause}",
    },
    "journal_damaged": {
        "en": "{count} rows of the journal are unreadable: {spans}: {cause}",
        "ko": "저널의 {count}행을 읽을 수 없음: {spans}: {cause}",
    },
    "journal_damaged_acknowledged": {
        "en": "{count} rows of the journal are unreadable, acknowledged: {spans}: {cause}",
        "ko": "저널의 {count}행을 읽을 수 없음(확인함): {spans}: {cause}",
    },
    "unknown_count": {"en": "{known:,} and an unknown number of", "ko": "최소 {known:,}"},
    "span": {"en": "{begin:%H:%M:%S} to {end:%H:%M:%S}", "ko": "{begin:%H:%M:%S}~{end:%H:%M:%S}"},
    "new_york": {"en": " (New York time)", "ko": "(뉴욕 시각)"},
    "more_spans": {"en": " and {count} more", "ko": " 외 {count}건"},
    "restart": {"en": "restarted {count} {count:time|times} today", "ko": "오늘 {count}회 재시작"},
    "disconnect": {"en": "disconnected {count} {count:time|times} today", "ko": "오늘 {count}회 단절"},
    "paused": {"en": "paused {count} {count:time|times} today", "ko": "오늘 {count}회 쓰기 중단"},
    "degraded": {"en": "degraded {count} {count:time|times} today", "ko": "오늘 {count}회 수신량 급감"},
    "goes_on": {"en": "goes on", "ko": "지금도 계속됨"},
    "last_time": {"en": "the last time {ago_s:.0f} s ago", "ko": "마지막은 {ago_s:.0f}초 전"},
    "blind": {
        "en": "no feed delivered the books of {count} {count:symbol|symbols} between {begin:%H:%M:%S} and {end:%H:%M:%S}{zone}, "
        "{worst} for {worst_s:.1f} s; books cannot be fetched later",
        "ko": "{begin:%H:%M:%S}~{end:%H:%M:%S}{zone} 사이 {count}종목의 호가를 어느 피드에서도 받지 못함"
        "(최장 {worst}, {worst_s:.1f}초). 호가는 나중에 받을 수 없음",
    },
    "acknowledged": {"en": "acknowledged: {message}", "ko": "확인함: {message}"},
    "disk_room": {
        "en": "room for {days:.1f} more days: {free_gb:.1f} GB free, {day_gb:.1f} GB a day",
        "ko": "디스크 여유가 {days:.1f}일치: {free_gb:.1f} GB 남음, 하루 {day_gb:.1f} GB 사용",
    },
    "disk_days": {
        "en": "disk full in about {days:.0f} trading days: {free_gb:.1f} GB free, {day_gb:.1f} GB on a usual day",
        "ko": "약 {days:.0f} 거래일 뒤 디스크 가득 참: {free_gb:.1f} GB 남음, 보통 하루 {day_gb:.1f} GB 사용",
    },
    "settings_changed": {
        "en": "started before the settings changed, which have no effect on them yet: {names}",
        "ko": "설정 변경 전에 시작되어 변경 내용이 아직 반영되지 않음: {names}",
    },
}

ACTIONS: dict[str, dict[Language, str]] = {
    "ring_loss": {
        "en": "See `collectorctl logs writer` for the cause, then `collectorctl acknowledge`; missing ticks are fetched after the "
        "close, books are not.",
        "ko": "`collectorctl logs writer`에서 원인을 보고 `collectorctl acknowledge` 실행. 누락 체결은 장 마감 후 복구, "
        "호가는 복구 불가",
    },
    "journal_damaged": {
        "en": "See `collectorctl logs writer` for the cause, then `collectorctl acknowledge`; missing ticks are fetched after the "
        "close, books are not.",
        "ko": "`collectorctl logs writer`에서 원인을 보고 `collectorctl acknowledge` 실행. 누락 체결은 장 마감 후 복구, "
        "호가는 복구 불가",
    },
    "blind": {
        "en": "See `collectorctl status` for the feeds, then `collectorctl acknowledge`; books cannot be fetched later.",
        "ko": "`collectorctl status`에서 피드 상태를 보고 `collectorctl acknowledge` 실행. 호가는 나중에 받을 수 없음",
    },
    "ring_overrun": {
        "en": "See `collectorctl logs writer`: make room on the disk, or `collectorctl restart writer` if it hangs.",
        "ko": "`collectorctl logs writer` 확인: 디스크를 비우고, 멈춰 있으면 `collectorctl restart writer` 실행",
    },
    "ring_unreadable": {
        "en": "See `collectorctl status`: the message says what to do.",
        "ko": "`collectorctl status`의 메시지에 나온 조치를 따를 것",
    },
    "not_running": {"en": "Run `collectorctl start`.", "ko": "`collectorctl start` 실행"},
    "disk_room": {"en": "Make room, or move old days away.", "ko": "디스크를 비우거나 지난 데이터를 옮길 것"},
    "disk_days": {
        "en": "Make room in time: `collectorctl compact`, `copy` and `[retention]`, or a larger disk.",
        "ko": "미리 공간을 마련할 것: `collectorctl compact`, `copy`, `[retention]` 또는 더 큰 디스크",
    },
    "unhealthy": {
        "en": "See `collectorctl logs {name}` for the reason: a full disk needs room, a refused key a new one; anything else is "
        "repaired without you.",
        "ko": "`collectorctl logs {name}`에서 원인 확인: 디스크가 찼으면 비우고, 앱키가 거부되었으면 "
        "새로 발급. 그 밖에는 자동 복구",
    },
    "ring_filling": {
        "en": "Make room on the disk, or see `collectorctl logs writer`: records are overwritten when the ring is full.",
        "ko": "디스크를 비우거나 `collectorctl logs writer` 확인: 링이 가득 차면 레코드를 덮어씀",
    },
    "degraded": {
        "en": "See `collectorctl status` for the feed; if it lasts, `collectorctl restart {name}`.",
        "ko": "`collectorctl status`에서 피드 확인, 계속되면 `collectorctl restart {name}` 실행",
    },
    "late": {
        "en": "See `collectorctl status` for the feed; if it lasts, `collectorctl restart {name}`.",
        "ko": "`collectorctl status`에서 피드 확인, 계속되면 `collectorctl restart {name}` 실행",
    },
    "clock": {
        "en": "Run `chronyc tracking`: if the clock is off, start or repair chrony; if it is right, the network or the "
        "brokers are late.",
        "ko": "`chronyc tracking` 실행: 시계가 틀리면 chrony를 켜거나 고치고, 맞으면 네트워크나 증권사 쪽 지연",
    },
    "restart": {
        "en": "Nothing while it repairs itself; if it goes on, see `collectorctl logs {name}`.",
        "ko": "자동 복구 중이면 조치 불필요, 계속되면 `collectorctl logs {name}` 확인",
    },
    "disconnect": {
        "en": "Nothing while it repairs itself; if it goes on, see `collectorctl logs {name}`.",
        "ko": "자동 복구 중이면 조치 불필요, 계속되면 `collectorctl logs {name}` 확인",
    },
    "paused": {
        "en": "Make room on the disk: writing resumes by itself.",
        "ko": "디스크를 비울 것: 쓰기는 자동 재개",
    },
    "stale_report": {
        "en": "See `collectorctl logs writer`; if it hangs, the watchdog replaces it.",
        "ko": "`collectorctl logs writer` 확인. 멈춰 있으면 watchdog이 교체",
    },
    "no_day_report": {
        "en": "See `collectorctl logs writer`; if it hangs, the watchdog replaces it.",
        "ko": "`collectorctl logs writer` 확인. 멈춰 있으면 watchdog이 교체",
    },
    "quarantined": {
        "en": "After an upgrade that decodes them, run `collectorctl reprocess --date DATE`.",
        "ko": "디코딩할 수 있는 버전으로 업그레이드한 뒤 `collectorctl reprocess --date DATE` 실행",
    },
    "settings_changed": {
        "en": "Run `collectorctl restart NAME` for each of them when it suits.",
        "ko": "적당한 때에 각 프로세스마다 `collectorctl restart NAME` 실행",
    },
    "shortfall": {
        "en": "Run `collectorctl plan`, and add a key or take instruments out.",
        "ko": "`collectorctl plan` 실행 후 앱키를 추가하거나 종목을 뺄 것",
    },
}
"""What to do about a finding, by its code; `name`: its process or feed. Alerts and docs/verdict.md have the same sentences."""
