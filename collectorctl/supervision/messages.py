"""Messages of the status table, in each language.

Guarantees:
    * Each message has the same values in each language.

Not handled here:
    * Details that a process, a ring or a broker reported, the lines of events and of the allocation: quoted in English.
"""

from __future__ import annotations

from conf.text.language import Language, Texts

STATUS_MESSAGES: dict[str, dict[Language, str]] = {
    "nothing_runs": {"en": "nothing runs", "ko": "실행 중인 프로세스 없음"},
    "market": {"en": "market: {text}", "ko": "시장: {text}"},
    "closed_until": {"en": "closed until {text}", "ko": "휴장, 다음 개장 {text}"},
    "closed": {"en": "closed; no session within {days} days", "ko": "휴장, {days}일 안에 개장 없음"},
    "head_process": {"en": "process", "ko": "프로세스"},
    "head_health": {"en": "health", "ko": "상태"},
    "head_up": {"en": "up", "ko": "가동"},
    "head_pid": {"en": "pid", "ko": "PID 번호"},
    "head_beat": {"en": "beat", "ko": "하트비트"},
    "head_memory": {"en": "own MB", "ko": "자체 메모리 MB"},
    "head_latency": {"en": "wire to ring, p50 / p99 ms", "ko": "수신→링 p50 / p99 ms"},
    "head_does": {"en": "what it does", "ko": "하는 일"},
    "healthy": {"en": "healthy", "ko": "정상"},
    "not_healthy": {"en": "NOT HEALTHY", "ko": "비정상"},
    "seconds": {"en": "{n:.0f} s", "ko": "{n:.0f}초"},
    "minutes": {"en": "{n:.0f} min", "ko": "{n:.0f}분"},
    "hours": {"en": "{n:.1f} h", "ko": "{n:.1f}시간"},
    "days": {"en": "{n:.1f} d", "ko": "{n:.1f}일"},
    "age": {"en": "[{age_s:.0f} s old]", "ko": "[{age_s:.0f}초 전 값]"},
    "not_supervised": {"en": "not supervised", "ko": "supervisord가 관리하지 않음"},
    "supervisor_state": {"en": "supervisor: {state}", "ko": "supervisord 상태: {state}"},
    "other_version": {
        "en": "runs in another version than this command: `collectorctl restart {name}`",
        "ko": "이 명령과 다른 버전으로 실행 중: `collectorctl restart {name}`",
    },
    "no_sign": {"en": "no sign of life yet", "ko": "아직 응답 없음"},
    "no_vitals": {"en": "runs; that is all supervisord knows of it", "ko": "실행 중 (supervisord가 아는 것은 이것뿐)"},
    "no_heartbeat": {"en": "no heartbeat for {age_s:.0f} s", "ko": "{age_s:.0f}초째 하트비트 없음"},
    "waits_for_disk": {"en": "it waits for the disk", "ko": "디스크 응답 대기 중"},
    "due_not_running": {
        "en": "due for {due} and does not run: {why}: `collectorctl restart {name}`",
        "ko": "{due} 복구할 때가 되었으나 실행되지 않음: {why}: `collectorctl restart {name}`",
    },
    "was_stopped": {"en": "it was stopped", "ko": "정지시킨 상태"},
    "not_started": {"en": "the watchdog should have started it", "ko": "watchdog이 시작하지 못함"},
    "due": {"en": "due for {due}", "ko": "{due} 복구 예정"},
    "nothing_due": {"en": "nothing is due", "ko": "지금 할 일 없음"},
    "off": {"en": "off", "ko": "꺼짐"},
    "ring_missing": {"en": "not made yet", "ko": "아직 만들어지지 않음"},
    "ring": {"en": "ring {name:<18} {text}", "ko": "링 {name:<18} {text}"},
    "ring_unreadable": {"en": "UNREADABLE {error}", "ko": "읽을 수 없음: {error}"},
    "ring_losing": {
        "en": "LOSING RECORDS: {lost} of {backlog} waiting are overwritten, {head} in all",
        "ko": "레코드 유실 중: 대기 {backlog}건 중 {lost}건 덮어씀, 누적 {head}건",
    },
    "ring_waiting": {
        "en": "{backlog} of {capacity} waiting, {head} in all",
        "ko": "대기 {backlog}/{capacity}건, 누적 {head}건",
    },
    "ring_filling": {
        "en": "{backlog} of {capacity} waiting, full in {full_in_s:.0f} s if they stay, {head} in all",
        "ko": "대기 {backlog}/{capacity}건, 이대로면 {full_in_s:.0f}초 뒤 가득 참, 누적 {head}건",
    },
    "ring_lost": {
        "en": "LOST {lost} records since the writer's start: {damaged} damaged, the rest overwritten unread (`tail event`: "
        "ring_loss)",
        "ko": "writer 시작 이후 레코드 {lost}건 유실: {damaged}건 손상, 나머지는 읽기 전에 덮어씀(`tail event`: ring_loss)",
    },
    "feed": {
        "en": "feed {feed:<8} {books} books in {window_s:.0f} s; {shares}",
        "ko": "피드 {feed:<8} {window_s:.0f}초간 호가 {books}건; {shares}",
    },
    "twin_share": {"en": "{share:.1%} found their twin", "ko": "{share:.1%}가 다른 피드와 일치"},
    "first_share": {"en": "{share:.1%} of the twins here first", "ko": "일치한 것 중 {share:.1%}가 먼저 도착"},
    "coverage": {"en": "{share:.1%} of all books", "ko": "전체 호가의 {share:.1%}"},
    "no_shares": {"en": "none", "ko": "비교할 호가 없음"},
    "feed_lag": {
        "en": "{second} is behind {first} by {p50:.0f} ms (p99 {p99:.0f})",
        "ko": "{second} 호가가 {first}보다 {p50:.0f} ms 늦음(p99 {p99:.0f})",
    },
    "degraded": {"en": "DEGRADED", "ko": "수신량 급감"},
    "no_ticks": {"en": "ticks: none since {since}", "ko": "체결: {since} 이후 없음"},
    "ticks": {"en": "ticks of {day} since {since}: {parts}", "ko": "{day} 체결, {since} 이후: {parts}"},
    "us_ticks": {"en": "US {text} (New York time)", "ko": "미국 {text} (뉴욕 시각)"},
    "won": {"en": "won", "ko": "원"},
    "dollars": {"en": "dollars", "ko": "달러"},
    "no_gap": {"en": "no gap", "ko": "누락 없음"},
    "gaps": {
        "en": "{count} {count:gap|gaps} ({shares:,} shares, {value:,} {currency})",
        "ko": "누락 구간 {count}개({shares:,}주, {value:,}{currency})",
    },
    "twice": {"en": "{count:,} twice", "ko": "중복 {count:,}건"},
    "confirmed": {
        "en": "{count} missing ticks confirmed by books",
        "ko": "호가로 확인된 누락 체결 {count}건",
    },
    "before_start": {"en": "{shares:,} shares before the start", "ko": "시작 전 {shares:,}주"},
    "worst": {"en": "worst {name}: {shares:,} shares", "ko": "최다 {name}: {shares:,}주"},
    "recovery": {"en": "recovery: {text}", "ko": "복구: {text}"},
    "recovery_by_hand": {
        "en": "by hand only (recover.automatic is false, or neither kiwoom nor us is enabled)",
        "ko": "수동 실행만(recover.automatic이 false이거나 kiwoom, us 모두 꺼짐)",
    },
    "recovery_due": {"en": "due now for {due}; last: {last}", "ko": "지금 {due} 복구 예정; 최근: {last}"},
    "recovery_next": {"en": "next {next}; last: {last}", "ko": "다음 {next}; 최근: {last}"},
    "never": {"en": "never", "ko": "없음"},
    "capture": {
        "en": "capture {feed} {state}: {files} files, {mb:.1f} MB, {frames} frames",
        "ko": "원본 저장 {feed} {state}: 파일 {files}개, {mb:.1f} MB, 프레임 {frames}개",
    },
    "on": {"en": "on", "ko": "켜짐"},
    "capture_dropped": {
        "en": ", {dropped} DROPPED: see log/{feed}.log",
        "ko": ", {dropped}개 버림: log/{feed}.log 확인",
    },
    "event": {"en": "event {text}", "ko": "이벤트 {text}"},
    "phase_pre_market": {"en": "pre-market", "ko": "프리마켓"},
    "phase_opening_auction": {"en": "opening-auction", "ko": "시가 동시호가"},
    "phase_regular": {"en": "regular", "ko": "정규장"},
    "phase_closing_auction": {"en": "closing-auction", "ko": "종가 동시호가"},
    "phase_closing_price": {"en": "closing-price", "ko": "종가매매"},
    "phase_after_market": {"en": "after-market", "ko": "애프터마켓"},
    "phase_intraday_auction": {"en": "intraday-auction", "ko": "장중 단일가"},
    "phase_day_market": {"en": "day-market", "ko": "주간거래"},
    "phase_night_market": {"en": "night-market", "ko": "야간거래"},
    "state_starting": {"en": "starting", "ko": "시작 중"},
    "state_waiting": {"en": "waiting", "ko": "링 공간 대기"},
    "state_disabled": {"en": "disabled", "ko": "사용 안 함"},
    "state_connecting": {"en": "connecting", "ko": "접속 중"},
    "state_logging_in": {"en": "logging_in", "ko": "로그인 중"},
    "state_subscribing": {"en": "subscribing", "ko": "구독 등록 중"},
    "state_streaming": {"en": "streaming", "ko": "수신 중"},
    "state_closed_market": {"en": "closed_market", "ko": "휴장"},
    "state_sleeping": {"en": "sleeping", "ko": "장외 대기"},
    "state_degraded": {"en": "degraded", "ko": "다수 프레임 거부"},
    "state_retrying": {"en": "retrying", "ko": "재접속 중"},
    "state_refused": {"en": "refused", "ko": "증권사가 거부"},
    "state_connect_limit": {"en": "connect_limit", "ko": "접속 횟수 제한"},
    "state_running": {"en": "running", "ko": "실행 중"},
    "state_publishing": {"en": "publishing", "ko": "파일 생성 중"},
    "state_paused": {"en": "paused", "ko": "쓰기 중단"},
    "state_disk_wait": {"en": "disk_wait", "ko": "디스크 응답 대기"},
    "state_draining": {"en": "draining", "ko": "남은 데이터 저장 중"},
    "state_recovering": {"en": "recovering", "ko": "복구 중"},
    "state_failing": {"en": "failing", "ko": "오류"},
    "state_done": {"en": "done", "ko": "완료"},
    "state_stopped": {"en": "stopped", "ko": "정지"},
    "state_interrupted": {"en": "interrupted", "ko": "중단됨"},
}

ENGLISH = Texts("en", STATUS_MESSAGES)
