"""Messages of `check`, in each language.

Guarantees:
    * Each message has the same values in each language.

Not handled here:
    * Faults have a catalogue of their own (conf/text/fault_messages.py); a key in use is told in English, as `start` tells it.
"""

from __future__ import annotations

from conf.text.language import Language

MESSAGES: dict[str, dict[Language, str]] = {
    "feed": {
        "en": "{name:<8} {books} books, {ticks} ticks: {subscriptions} of {limit} subscriptions",
        "ko": "{name:<8} 호가 {books}종목, 체결 {ticks}종목: 구독 {subscriptions}/{limit}",
    },
    "universe": {
        "en": "universe {count} instruments, {expressions} by the table of symbols of {day}",
        "ko": "종목     {count}종목, {expressions}: {day} 종목표 기준",
    },
    "machine": {"en": "machine  {machine}", "ko": "컴퓨터   {machine}"},
    "rings": {"en": "rings    {directory}", "ko": "링       {directory}"},
    "warning": {"en": "warning  {text}", "ko": "주의     {text}"},
    "ok": {"en": "ok: settings and secrets are in order; {fit}", "ko": "정상: 설정과 키에 문제 없음. {fit}"},
    "faults": {
        "en": "{count} {count:fault|faults}: nothing can be started before they are mended",
        "ko": "문제 {count}건: 고치기 전에는 시작할 수 없음",
    },
    "everything_fits": {"en": "everything fits", "ko": "모든 종목을 구독할 수 있음"},
    "does_not_fit": {
        "en": "does not fit: {parts}: add app keys, or take instruments out of [universe]",
        "ko": "구독 자리 부족: {parts}: 앱키를 추가하거나 [universe]에서 종목을 줄일 것",
    },
    "not collected": {"en": "{count} not collected ({names})", "ko": "수집 안 함 {count}종목({names})"},
    "no redundancy": {"en": "{count} no redundancy ({names})", "ko": "한 증권사에서만 호가 수집 {count}종목({names})"},
    "ticks by recovery only": {
        "en": "{count} ticks by recovery only ({names})",
        "ko": "체결은 장 마감 후 복구로만 {count}종목({names})",
    },
    "no_exam_day": {
        "en": "no exam day is named for {year}: on that Thursday of November the regular sessions are an hour later: add "
        '"{year}-11-DD" = "exam_day" to [calendar.special] in {file}',
        "ko": "{year}년 수능일이 없음. 11월의 그 목요일에는 정규장이 1시간 늦음: {file}의 [calendar.special]에 "
        '"{year}-11-DD" = "exam_day" 를 추가할 것',
    },
    "symbols_unknown_old": {
        "en": "{count} {count:code|codes} not in the table of symbols of {day}, which is {age_days} days old: {names}: run "
        "`collectorctl symbols update`",
        "ko": "{day} 종목표({age_days}일 지남)에 없는 코드 {count}개: {names}: `collectorctl symbols update` 실행",
    },
    "symbols_delisted_old": {
        "en": "{count} {count:symbol|symbols} no longer in the table of symbols of {day}, which is {age_days} days old: {names}: "
        "run `collectorctl symbols update`",
        "ko": "{day} 종목표({age_days}일 지남)에서 사라진 {count}종목: {names}: `collectorctl symbols update` 실행",
    },
    "symbols_halted": {
        "en": "trading of {count} {count:symbol|symbols} is halted, by the table of symbols of {day}: {names}",
        "ko": "거래정지 {count}종목({day} 종목표): {names}",
    },
    "symbols_not_on_nxt": {
        "en": "{count} {count:symbol|symbols} not traded on NXT, by the table of symbols of {day}: {names}: nothing will come",
        "ko": "NXT에서 거래되지 않는 {count}종목({day} 종목표): {names}: 수신되는 데이터 없음",
    },
    "symbols_outside": {
        "en": "{names} is not in the table of symbols: ELWs never are; an ETN is written with Q before its six characters",
        "ko": "{names}: 종목표에 없음. ELW는 종목표에 없고, ETN은 여섯 자리 앞에 Q를 붙여 씀",
    },
    "symbols_unreadable": {
        "en": "the universe is not compared with the table of symbols: {reason}",
        "ko": "종목표를 읽을 수 없어 universe와 비교하지 않음: {reason}",
    },
    "removal_risk": {
        "en": "{directory}: logind deletes it when {user} logs out last (RemoveIPC): run `loginctl enable-linger {user}`, set "
        'RemoveIPC=no in /etc/systemd/logind.conf, or let a unit own it (RuntimeDirectory=NAME, and paths.ring = "/run/NAME")',
        "ko": "{directory}: {user}의 마지막 로그아웃 때 logind가 지움(RemoveIPC): `loginctl enable-linger {user}`를 실행하거나, "
        "/etc/systemd/logind.conf에 RemoveIPC=no를 쓰거나, 유닛에 맡길 것"
        '(RuntimeDirectory=NAME, paths.ring = "/run/NAME")',
    },
    "orphan": {
        "en": "{directory}: {megabytes:.0f} MB of rings of {link}, which is gone: {command}",
        "ko": "{directory}: 없어진 {link}의 링 {megabytes:.0f} MB: {command}",
    },
    "orphan_nameless": {
        "en": "{directory}: {megabytes:.0f} MB of rings that name no home: {command}",
        "ko": "{directory}: 어느 홈의 것인지 모르는 링 {megabytes:.0f} MB: {command}",
    },
    "orphans_more": {
        "en": "{count} more such directories, {megabytes:.0f} MB: remove these, then `collectorctl check` lists the next",
        "ko": "그런 디렉터리가 {count}개 더 있음, {megabytes:.0f} MB: 위의 것을 지우면 `collectorctl check`가 다음 것을 보여 줌",
    },
}
