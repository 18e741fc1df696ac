"""Messages of faults of the universe's expressions, in each language; a part of the catalogue in fault_messages.py."""

from __future__ import annotations

from conf.text.language import Language

UNIVERSE_FAULTS: dict[str, dict[Language, str]] = {
    "not_expression": {
        "en": "{found} is no selection: write @market_cap:N, @etf:N, @etn:N, @KOSPI200 or @KOSDAQ150, the last two with or "
        "without :N; in universe.kr alone",
        "ko": "{found}: 쓸 수 없는 선택식: @market_cap:N, @etf:N, @etn:N, @KOSPI200, @KOSDAQ150(뒤의 둘은 :N 생략 가능) 중에서 "
        "쓸 것. universe.kr에서만 가능",
    },
    "universe_unresolved": {
        "en": "its expressions have not been resolved yet: run `collectorctl start`, or `collectorctl check` to see why not",
        "ko": "선택식이 아직 종목으로 풀리지 않음: `collectorctl start`를 실행하거나 `collectorctl check`로 이유를 확인할 것",
    },
    "universe_no_table": {
        "en": "{expressions}: there is no table of symbols to resolve it by: run `collectorctl symbols update`",
        "ko": "{expressions}: 선택식을 풀 종목표가 없음: `collectorctl symbols update`를 실행할 것",
    },
    "universe_table_unreadable": {
        "en": "its expressions cannot be resolved: {reason}",
        "ko": "선택식을 풀 수 없음: {reason}",
    },
    "universe_not_in_table": {
        "en": "{expression}: the table of {day} has no members of that index: they are in KIS's list alone: run `collectorctl "
        "symbols update` until it exits with 0",
        "ko": "{expression}: {day} 종목표에 그 지수의 구성 종목이 없음(KIS 목록에만 있음): `collectorctl symbols update`가 0으로 "
        "끝날 때까지 다시 실행할 것",
    },
    "universe_small": {
        "en": "{expression}: the table of {day} gives {count} of {expected}: run `collectorctl symbols update` again, or ask "
        "for fewer",
        "ko": "{expression}: {day} 종목표에서 {expected}종목 중 {count}종목만 선택됨: `collectorctl symbols update`를 다시 "
        "실행하거나 더 적게 요청할 것",
    },
    "universe_code": {
        "en": "{expression}: the table of {day} gives {found}, which is no code of an instrument: run `collectorctl symbols "
        "update` again",
        "ko": "{expression}: {day} 종목표의 {found}은(는) 종목코드가 아님: `collectorctl symbols update`를 다시 실행할 것",
    },
}
