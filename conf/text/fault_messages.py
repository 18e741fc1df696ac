"""Messages of what cannot be used of a home, in each language: what is wrong, a colon, what to do.

Guarantees:
    * Each message has the same values in each language.

Not handled here:
    * Reasons of the operating system or a library are quoted as they are, in English.
"""

from __future__ import annotations

from conf.text.language import Language
from conf.text.universe_faults import UNIVERSE_FAULTS

FAULTS: dict[str, dict[Language, str]] = UNIVERSE_FAULTS | {
    # the file
    "no_home": {
        "en": "there is no such directory: name a home that exists, or make one: collectorctl init",
        "ko": "그런 디렉터리가 없음: 있는 홈을 지정하거나 collectorctl init 으로 새로 만들 것",
    },
    "not_utf8": {
        "en": "is not UTF-8 text: make it a UTF-8 text file that you may read (in an editor: save as, UTF-8)",
        "ko": "UTF-8 텍스트가 아님: 편집기의 '다른 이름으로 저장'에서 UTF-8을 골라 다시 저장할 것",
    },
    "unreadable": {
        "en": "{reason}: make it a UTF-8 text file that you may read",
        "ko": "읽을 수 없음({reason}): 읽기 권한이 있는 UTF-8 텍스트 파일로 만들 것",
    },
    # its lines
    "syntax": {
        "en": "line {line}, {text} ({reason}): correct that line; `collectorctl init` shows the form",
        "ko": "{line}행, {text} ({reason}): 이 행을 고칠 것. 형식은 `collectorctl init`이 만드는 파일을 참고",
    },
    "syntax_codes": {
        "en": "line {line}, {text}: codes need quotes: write {meant}",
        "ko": "{line}행, {text}: 종목코드에 따옴표가 없음: {meant} 로 쓸 것",
    },
    "syntax_text": {
        "en": "line {line}, {text}: text needs quotes: write {meant}",
        "ko": "{line}행, {text}: 문자열에 따옴표가 없음: {meant} 로 쓸 것",
    },
    "syntax_boolean": {
        "en": "line {line}, {text}: it is true or false, in lower case: write {meant}",
        "ko": "{line}행, {text}: 소문자 true 또는 false만 가능: {meant} 로 쓸 것",
    },
    "syntax_characters": {
        "en": "line {line}, {text}: has typographic or full-width characters: write {meant}",
        "ko": "{line}행, {text}: 둥근 따옴표나 전각 문자가 있음: {meant} 로 쓸 것",
    },
    "syntax_comment": {
        "en": "line {line}, {text}: a comment begins with #: write {meant}",
        "ko": "{line}행, {text}: 주석은 #으로 시작함: {meant} 로 쓸 것",
    },
    "syntax_comma": {
        "en": "line {line}, {text}: a comma is missing: write {meant}",
        "ko": "{line}행, {text}: 쉼표가 빠짐: {meant} 로 쓸 것",
    },
    "syntax_bracket": {
        "en": "line {line}, {text}: a closing bracket is missing: write {meant}",
        "ko": "{line}행, {text}: 닫는 대괄호가 빠짐: {meant} 로 쓸 것",
    },
    "syntax_list": {
        "en": "line {line}, {text}: a list needs brackets: write {meant}",
        "ko": "{line}행, {text}: 목록에 대괄호가 없음: {meant} 로 쓸 것",
    },
    "syntax_quote": {
        "en": "line {line}, {text}: a closing quote is missing: write {meant}",
        "ko": "{line}행, {text}: 닫는 따옴표가 빠짐: {meant} 로 쓸 것",
    },
    "syntax_backslash": {
        "en": "line {line}, {text}: a backslash needs single quotes around it: write {meant}",
        "ko": "{line}행, {text}: 역슬래시가 있으면 작은따옴표를 써야 함: {meant} 로 쓸 것",
    },
    "syntax_equals": {
        "en": "line {line}, {text}: name and value are joined by an equals sign: write {meant}",
        "ko": "{line}행, {text}: 이름과 값 사이에는 등호가 있어야 함: {meant} 로 쓸 것",
    },
    "syntax_no_value": {
        "en": "line {line}, {text}: has no value: write one, or take the line out (then the default applies)",
        "ko": "{line}행, {text}: 값이 없음: 값을 쓰거나 행을 지울 것(지우면 기본값 적용)",
    },
    "syntax_table_twice": {
        "en": "line {line}, {text}: this table is further up already: put both under one header",
        "ko": "{line}행, {text}: 같은 이름의 표가 위에 이미 있음: 한 머리글 아래로 합칠 것",
    },
    "syntax_key_twice": {
        "en": "line {line}, {text}: is set further up already: keep one of the two lines",
        "ko": "{line}행, {text}: 위에서 이미 설정함: 둘 중 한 행만 남길 것",
    },
    # names of settings
    "unknown": {
        "en": "unknown setting: known here: {known}",
        "ko": "없는 설정: 여기에 쓸 수 있는 이름: {known}",
    },
    "unknown_close": {
        "en": "unknown setting: did you mean {close}?",
        "ko": "없는 설정: {close} 을(를) 쓰려던 것인지 확인",
    },
    "unknown_elsewhere": {
        "en": "unknown setting: it belongs below a line {tables}",
        "ko": "없는 설정: {tables} 행 아래로 옮길 것",
    },
    "unknown_secret": {
        "en": "secrets are no settings: write it into .env, and take it out here",
        "ko": "앱키와 시크릿은 설정이 아님: .env 에 쓰고 여기서는 지울 것",
    },
    "renamed": {"en": "unknown setting: it is now {name}", "ko": "없는 설정: 지금 이름은 {name}"},
    "not_table": {
        "en": "is a table, not {found}: begin it with a line [{table}]",
        "ko": "표여야 하는데 {found} 임: [{table}] 행으로 시작할 것",
    },
    # types
    "not_int": {
        "en": "{found} is no whole number: e.g. {example}",
        "ko": "{found}: 정수가 아님: 예: {example}",
    },
    "not_float": {"en": "{found} is no number: e.g. {example}", "ko": "{found}: 숫자가 아님: 예: {example}"},
    "not_bool": {
        "en": "{found} is not true or false: write true or false, without quotes",
        "ko": "{found}: true/false가 아님: 따옴표 없이 true 또는 false로 쓸 것",
    },
    "not_str": {
        "en": "{found} is no text in quotes: write {example}",
        "ko": "{found}: 따옴표로 묶은 문자열이 아님: {example} 로 쓸 것",
    },
    "not_text": {"en": "{found} is no text: e.g. {example}", "ko": "{found}: 문자열이 아님: 예: {example}"},
    "not_list": {
        "en": "{found} is no list: write {example}",
        "ko": "{found}: 목록이 아님: {example} 로 쓸 것",
    },
    "not_date": {
        "en": '{found} is no date: a date, e.g. "2026-12-25"',
        "ko": '{found}: 날짜가 아님: 날짜로 쓸 것. 예: "2026-12-25"',
    },
    "not_choice": {
        "en": "{found} cannot be chosen: one of {choices}",
        "ko": "{found}: 고를 수 없는 값: {choices} 중 하나로 쓸 것",
    },
    "not_span": {
        "en": '{found} is no span of time: e.g. "09:00-15:20"',
        "ko": '{found}: 시간 구간이 아님: 예: "09:00-15:20"',
    },
    "not_kind": {
        "en": '{found} is no kind of day: e.g. "exam_day"',
        "ko": '{found}: 날의 종류가 아님: 예: "exam_day"',
    },
    # values
    "not_number": {"en": "nan is no number: write {limit} or more", "ko": "nan은 숫자가 아님: {limit} 이상으로 쓸 것"},
    "too_small": {
        "en": "{value} is too small: write {limit} or more",
        "ko": "{value}: 너무 작음: {limit} 이상으로 쓸 것",
    },
    "too_large": {
        "en": "{value} is too large: write {limit} or less",
        "ko": "{value}: 너무 큼: {limit} 이하로 쓸 것",
    },
    "not_instrument": {
        "en": "{found} is not an instrument: write six characters such as 005930 or 0074K0, Q and six for an ETN, with _NX or "
        "_AL behind it for NXT or the unified book; or exchange and ticker such as NAS.AAPL, with one of {exchanges}",
        "ko": "{found}: 종목코드가 아님: 005930, 0074K0 같은 6자리, ETN은 Q와 6자리로 쓰고 NXT는 _NX, 통합은 _AL을 뒤에 붙일 것. "
        "미국 종목은 NAS.AAPL처럼 거래소와 티커로 쓸 것({exchanges})",
    },
    "not_instrument_meant": {
        "en": '{found} is not an instrument: did you mean "{meant}"?',
        "ko": '{found}: 종목코드가 아님: "{meant}" 을(를) 쓰려던 것인지 확인',
    },
    "other_market": {
        "en": "{found} is traded elsewhere: name it in the list of its own market, universe.{market}",
        "ko": "{found}: 다른 시장의 종목: universe.{market} 목록에 쓸 것",
    },
    "instrument_twice": {
        "en": "{found} is named twice: name each instrument once",
        "ko": "{found}: 두 번 적힘: 종목마다 한 번만 쓸 것",
    },
    "nothing_kr": {
        "en": 'nothing to collect: name instruments, e.g. kr = ["005930"]',
        "ko": '수집할 종목이 없음: 종목을 쓸 것. 예: kr = ["005930"]',
    },
    "nothing_us": {
        "en": 'nothing to collect: name instruments, e.g. us = ["NAS.AAPL"], or set us.enabled = false',
        "ko": '수집할 종목이 없음: 종목을 쓰거나(예: us = ["NAS.AAPL"]) us.enabled = false로 둘 것',
    },
    "not_in_universe": {
        "en": "{found} is not in universe.kr: add it there or take it out here",
        "ko": "{found}: universe.kr에 없음: 거기에 추가하거나 여기서 뺄 것",
    },
    "already_in": {
        "en": "{found} is already in {other}: name it once, in one of them",
        "ko": "{found}: {other}에 이미 있음: 한 곳에 한 번만 쓸 것",
    },
    "not_rate": {
        "en": "{value} is no rate: write a number above 0",
        "ko": "{value}: 틱 비율로 쓸 수 없음: 0보다 큰 수로 쓸 것",
    },
    "path_empty": {
        "en": 'is empty: name a directory, e.g. "{example}"',
        "ko": '비어 있음: 디렉터리를 쓸 것. 예: "{example}"',
    },
    "speed_alone": {
        "en": "only a warped clock has a speed: set clock.start as well, or leave 1.0",
        "ko": "배속은 가상 시계에만 있음: clock.start도 쓰거나 1.0으로 둘 것",
    },
    "not_start": {
        "en": '{found} is no ISO time with offset: e.g. "2026-11-20T08:55:00+09:00"',
        "ko": '{found}: 시간대가 붙은 ISO 시각이 아님: 예: "2026-11-20T08:55:00+09:00"',
    },
    "not_speed": {
        "en": "{value} is no speed of time: write a number above 0, 86400 (a day a second) at most",
        "ko": "{value}: 배속으로 쓸 수 없음: 0보다 크고 86400(1초에 하루) 이하인 수로 쓸 것",
    },
    "span_backwards": {
        "en": "{found} ends before it begins: write the earlier time first",
        "ko": "{found}: 끝이 시작보다 이름: 이른 시각을 먼저 쓸 것",
    },
    "span_evening": {
        "en": "{found} ends in the evening, whose sessions are the next day's: let it end by {limit}; night_market may begin then",
        "ko": "{found}: 다음 날 장에 속하는 저녁에 끝남: {limit} 까지 끝낼 것. night_market은 그때부터 가능",
    },
    "span_overlap": {
        "en": 'begins at {begin}, before {earlier} ends at {end}: write spans that do not overlap; "" takes a phase out',
        "ko": '{begin} 시작이 {earlier}의 끝 {end} 보다 이름: 겹치지 않게 쓸 것. ""이면 그 구간을 뺌',
    },
    "not_day": {
        "en": 'is no date: write the day as "2026-11-19"',
        "ko": '날짜가 아님: "2026-11-19" 꼴로 쓸 것',
    },
    "kind_missing": {
        "en": "{found} is no kind of day that [special_day] has: one of {choices}",
        "ko": "{found}: [special_day]에 없는 종류: {choices} 중 하나로 쓸 것",
    },
    "not_address": {
        "en": "{found} is no such address: write {scheme}://HOST:PORT",
        "ko": "{found}: 쓸 수 없는 주소: {scheme}://호스트:포트 꼴로 쓸 것",
    },
    "grace_short": {
        "en": "{value} leaves no time for the last twins of an hour: write more than twin_window_s ({limit})",
        "ko": "{value}: 한 시간의 마지막 호가를 맞출 시간이 없음: twin_window_s({limit})보다 크게 쓸 것",
    },
    "below_other": {
        "en": "{value} is below {other}: write {limit} or more",
        "ko": "{value}: {other} 보다 작음: {limit} 이상으로 쓸 것",
    },
    "beyond_kis": {
        "en": "{value} is more than KIS takes: write {limit} or less",
        "ko": "{value}: KIS 허용 횟수를 넘음: {limit} 이하로 쓸 것",
    },
    "not_port": {
        "en": "{value} is no port: write {limit} or less",
        "ko": "{value}: 포트 번호가 아님: {limit} 이하로 쓸 것",
    },
    "port_twice": {
        "en": "{value} is the port of {other}: write another one",
        "ko": "{value}: {other}와 같음: 다른 포트를 쓸 것",
    },
    "not_ip_address": {
        "en": "{found} is no IP address: write 127.0.0.1, or an address of this host",
        "ko": "{found}: IP 주소가 아님: 127.0.0.1 또는 이 서버의 주소를 쓸 것",
    },
    "retention_short": {
        "en": "{value} days may take pages from a day that is still recovered: write 0 or "
        "at least {limit}, twice recover.tick_days",
        "ko": "{value}일이면 아직 복구 중인 날의 자료가 지워질 수 있음: 0 또는 {limit}(recover.tick_days의 두 배) 이상으로 쓸 것",
    },
    "retention_recent": {
        "en": "{value} days take market data that is still looked back at: write 0 or at least {limit}",
        "ko": "{value}일이면 아직 참조하는 시세 데이터가 지워짐: 0 또는 {limit} 이상으로 쓸 것",
    },
    "not_rotation": {
        "en": '{found} is no size and no time: a size or a time, e.g. "20 MB" or "1 day"',
        "ko": '{found}: 크기도 기간도 아님: 크기나 기간으로 쓸 것. 예: "20 MB", "1 day"',
    },
    # secrets
    "secret_missing": {
        "en": "is missing: write a line {name}=... there, or set it in the environment",
        "ko": "없음: 이 파일에 {name}=... 행을 쓰거나 환경 변수로 설정할 것",
    },
    "secret_blanks": {
        "en": "has blanks or letters that no key has: copy the key again",
        "ko": "키에 있을 수 없는 공백이나 문자가 있음: 키를 다시 복사할 것",
    },
    "secret_twice": {
        "en": "is the same key as {other}: one key holds one session: write another, or none",
        "ko": "{other} 과(와) 같은 키임: 키 하나에는 세션이 하나뿐이므로 다른 키를 쓰거나 지울 것",
    },
    "secret_mode": {
        "en": "others than you may read it: run: chmod 600 {file}",
        "ko": "다른 사용자도 읽을 수 있음: 실행할 것: chmod 600 {file}",
    },
    "secret_file": {
        "en": "{reason}: make it a file that you may read",
        "ko": "읽을 수 없음({reason}): 읽을 수 있는 파일로 만들 것",
    },
    "secret_not_utf8": {
        "en": "is not UTF-8 text: write it again; keys are plain ASCII",
        "ko": "UTF-8 텍스트가 아님: 다시 쓸 것. 키는 영문, 숫자, 기호로만 되어 있음",
    },
    "url_blanks": {
        "en": "has blanks: write it as one word, blanks as %20",
        "ko": "공백이 있음: 붙여 쓰고 공백은 %20으로 쓸 것",
    },
    "not_web_address": {
        "en": "is no web address: write https://HOST/PATH",
        "ko": "웹 주소가 아님: https://호스트/경로 꼴로 쓸 것",
    },
    "no_service": {
        "en": "is missing: write a line NOTIFY_URL=..., see docs/notifications.md",
        "ko": "없음: NOTIFY_URL=... 행을 쓸 것. docs/notifications.md 참고",
    },
    "no_apprise": {
        "en": "needs the library apprise: install the extra, in the clone: .venv/bin/pip install -e '.[notify]'",
        "ko": "apprise 라이브러리가 필요함: 소스 디렉터리에서 설치할 것: .venv/bin/pip install -e '.[notify]'",
    },
    "not_service": {
        "en": "is no URL of a service: write the URL of a service as in docs/notifications.md",
        "ko": "알림 서비스 URL이 아님: docs/notifications.md에 있는 꼴로 쓸 것",
    },
    # the home
    "directory": {
        "en": "{reason}: name a directory that you may write",
        "ko": "쓸 수 없음({reason}): 쓰기 권한이 있는 디렉터리를 지정할 것",
    },
    "path_controls": {
        "en": "its path has control characters, or bytes that are no UTF-8: use a directory whose path has neither",
        "ko": "경로에 제어 문자나 UTF-8이 아닌 바이트가 있음: 그렇지 않은 디렉터리를 쓸 것",
    },
    "run_owner": {
        "en": "belongs to user {owner}, you are user {user}: run as that user, or remove the directory",
        "ko": "사용자 {owner}의 것인데 지금은 사용자 {user}: 그 사용자로 실행하거나 디렉터리를 지울 것",
    },
    "run_mode": {
        "en": "others than you may write in it: look for what they put there, then run: chmod 700 {path}",
        "ko": "다른 사용자도 쓸 수 있음: 다른 사용자가 둔 파일이 있는지 본 뒤 실행할 것: chmod 700 {path}",
    },
    "reader_group": {
        "en": "group {group!r}: there is none, or this user is not in it: see `getent group`, and add the user, then log in again",
        "ko": "그룹 {group!r}: 없거나 이 사용자가 속하지 않음: `getent group`으로 확인하고 사용자를 넣은 뒤 다시 로그인할 것",
    },
    "socket_path": {
        "en": "the path is too long for a unix socket ({length} bytes, {limit} at most): use a home with a shorter path",
        "ko": "유닉스 소켓 경로가 너무 긺({length}바이트, 최대 {limit}): 경로가 더 짧은 홈을 쓸 것",
    },
    "supervisord_conf": {
        "en": "cannot be read: {reason}: correct it, or move it away and run `collectorctl init`, which writes one that fits",
        "ko": "읽을 수 없음({reason}): 고치거나, 다른 곳으로 옮긴 뒤 `collectorctl init`으로 새로 만들 것",
    },
    "machine": {
        "en": "{machine}: {reason}: use another machine",
        "ko": "{machine}: {reason}: 다른 컴퓨터를 쓸 것",
    },
    "no_broker": {
        "en": "no broker is enabled, nothing would be collected: set enabled = true below [kis], [kiwoom] or [us]",
        "ko": "켜진 증권사가 없어 아무것도 수집하지 않음: [kis], [kiwoom], [us] 중 하나에 enabled = true를 쓸 것",
    },
    "symbols_unknown": {
        "en": "{count} {count:code|codes} not in the table of symbols of {day}: {names}: correct or remove {count:it|them}; "
        "after a new listing run `collectorctl symbols update`",
        "ko": "{day} 종목표에 없는 코드 {count}개: {names}: 고치거나 뺄 것. 신규 상장이면 `collectorctl symbols update` 실행",
    },
    "symbols_delisted": {
        "en": "{count} {count:symbol|symbols} delisted, not in the table of symbols of {day}, the last day in brackets: {names}: "
        "remove {count:it|them}",
        "ko": "상장폐지 {count}종목, {day} 종목표에 없음(괄호는 마지막 날): {names}: 뺄 것",
    },
    "not_collected": {
        "en": "no slot is left for {count} of {total} instruments, not collected: {names}: add app keys, or take instruments out",
        "ko": "{total}종목 중 {count}종목은 구독 자리가 없어 수집하지 못함({names}): 앱키를 추가하거나 종목을 줄일 것",
    },
}
