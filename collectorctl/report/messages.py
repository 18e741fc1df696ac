"""Messages of the report, in each language.

Guarantees:
    * Each message has the same values in each language.

Not handled here:
    * What a process, a ring or a broker reported: it is quoted as it is, in English.
"""

from __future__ import annotations

from conf.text.language import Language

MESSAGES: dict[str, dict[Language, str]] = {
    "title": {"en": "Report of {day}", "ko": "{day} 보고서"},
    "weekdays": {"en": "Mon Tue Wed Thu Fri Sat Sun", "ko": "월 화 수 목 금 토 일"},
    "index": {"en": "All days", "ko": "전체 날짜"},
    "index_title": {"en": "Days of {home}", "ko": "{home}의 날짜별 보고서"},
    "index_empty": {"en": "There is no report yet.", "ko": "아직 보고서가 없습니다."},
    "made": {
        "en": "Made {now:%Y-%m-%d %H:%M} KST out of the files of {home}. All times are Korean (KST).",
        "ko": "{home}의 파일로 {now:%Y-%m-%d %H:%M} KST에 작성. 모든 시각은 한국 시각(KST).",
    },
    "WHOLE": {"en": "The day is whole", "ko": "누락 없는 하루"},
    "WHOLE_text": {
        "en": "Every share of every instrument is accounted for by its certificate, and no minute in session is a hole.",
        "ko": "모든 종목의 체결 수량이 검증서로 확인되었고, 장중에 수신 공백이 없습니다.",
    },
    "ATTENTION": {"en": "Something of this day is missing", "ko": "이 날의 데이터에 누락이 있음"},
    "ATTENTION_text": {
        "en": "Read the list below before you use the day.",
        "ko": "이 날의 데이터를 쓰기 전에 아래 목록을 확인하십시오.",
    },
    "UNFINISHED": {"en": "The day cannot be judged yet", "ko": "아직 판정할 수 없는 하루"},
    "UNFINISHED_text": {
        "en": "Nothing is known to be lost, but the day is not complete either: see below.",
        "ko": "확인된 유실은 없지만 아직 완결되지 않은 날입니다. 아래를 확인하십시오.",
    },
    "session_open": {
        "en": "The day's sessions are not over: this is what was stored up to {now:%H:%M}.",
        "ko": "장이 끝나지 않았습니다. {now:%H:%M}까지 저장된 내용입니다.",
    },
    "unpublished": {
        "en": "Rows of the hours {hours} are in the journal and in no Parquet file yet; they are not counted here.",
        "ko": "{hours}시의 데이터는 저널에만 있고 아직 Parquet 파일이 아니므로 여기에 집계되지 않았습니다.",
    },
    "uncounted": {
        "en": "The books of the hours {hours} are stored but not counted by minute yet (feed_health).",
        "ko": "{hours}시의 호가는 저장되었으나 아직 분 단위로 집계되지 않았습니다(feed_health).",
    },
    "uncertified": {
        "en": "{count} of {total} {total:instrument|instruments} have no certificate: `collectorctl recover --date {day}`.",
        "ko": "{total}종목 중 {count}종목에 검증서가 없습니다: `collectorctl recover --date {day}`.",
    },
    "not_whole": {
        "en": "{grade}: {count} {count:instrument|instruments}: {names}.",
        "ko": "{grade}: {count}종목: {names}.",
    },
    "unreadable": {"en": "A file cannot be read: {text}", "ko": "읽을 수 없는 파일: {text}"},
    "hole": {
        "en": "{begin:%H:%M} to {end:%H:%M}: no books of {count} {count:instrument|instruments} ({names}). "
        "They cannot be fetched later.",
        "ko": "{begin:%H:%M}~{end:%H:%M}: {count}종목의 호가 없음({names}). 호가는 나중에 받을 수 없습니다.",
    },
    "loss": {
        "en": "{begin:%H:%M:%S} to {end:%H:%M:%S}: {kind}, {feed}: {count}",
        "ko": "{begin:%H:%M:%S}~{end:%H:%M:%S}: {kind}, {feed}: {count}",
    },
    "no_session": {"en": "There is no session on this day.", "ko": "이 날은 휴장일입니다."},
    "nothing_stored": {
        "en": "Nothing of this day is stored.",
        "ko": "이 날에 저장된 데이터가 없습니다.",
    },
    "acknowledged": {"en": "acknowledged", "ko": "확인함"},
    "more": {"en": "and {count} more", "ko": "외 {count}건"},
    "certificates_bar": {"en": "Certificates", "ko": "검증서"},
    "no_certificate": {"en": "no certificate", "ko": "검증서 없음"},
    "PROVEN": {
        "en": "every share of the day is in exactly one tick, and value, minute bars and live ticks agree",
        "ko": "하루의 모든 체결 수량이 정확히 하나의 체결에 있고 거래대금, 분봉, 실시간 체결과 모두 일치",
    },
    "RECONCILED": {
        "en": "the same but for listed volume off the book",
        "ko": "목록에 있는 장외 거래량을 제외하면 위와 같음",
    },
    "RECOVERED_ONLY": {
        "en": "every share of the day is in exactly one tick, all of them fetched: a day that was not collected, without books",
        "ko": "하루의 모든 체결 수량이 정확히 하나의 체결에 있으나 모두 나중에 받은 것. 수집하지 않은 날이라 호가 없음",
    },
    "MINUTE_ONLY": {
        "en": "there are minute bars, but not all ticks",
        "ko": "분봉은 있으나 체결이 모두 있지는 않음",
    },
    "INCOMPLETE": {"en": "something is missing, for the reasons named", "ko": "적힌 사유로 누락이 있음"},
    "fact_instruments": {"en": "instruments", "ko": "종목"},
    "fact_books": {"en": "books stored", "ko": "저장된 호가"},
    "fact_ticks": {"en": "ticks, live", "ko": "실시간 체결"},
    "fact_recovered": {"en": "ticks, recovered", "ko": "복구된 체결"},
    "fact_missing": {"en": "shares missing", "ko": "누락 주식 수"},
    "coverage": {"en": "Coverage by instrument and minute", "ko": "종목·분별 수신 범위"},
    "coverage_text": {
        "en": "Upper lane: books. Lower lane: ticks. The minutes at the right add up to the minutes in session that are over.",
        "ko": "위 줄은 호가, 아래 줄은 체결. 오른쪽 분 수의 합이 지나간 장중 분 수입니다.",
    },
    "BOTH": {"en": "both feeds", "ko": "두 피드 모두"},
    "FIRST": {"en": "{feed} only", "ko": "{feed}만"},
    "SECOND": {"en": "{feed} only", "ko": "{feed}만"},
    "AUCTION": {"en": "auction", "ko": "동시호가"},
    "NONE": {"en": "no book came", "ko": "호가 없음"},
    "HOLE": {"en": "hole", "ko": "수신 공백"},
    "UNKNOWN": {"en": "not counted yet", "ko": "미집계"},
    "AHEAD": {"en": "yet to come", "ko": "예정"},
    "legend_hole": {
        "en": "hole: no feed was subscribed, or nothing came for any instrument",
        "ko": "수신 공백: 구독 중인 피드가 없었거나 모든 종목에서 아무것도 오지 않음",
    },
    "LIVE": {"en": "ticks, live", "ko": "실시간 체결"},
    "RECOVERED": {"en": "ticks, recovered", "ko": "복구된 체결"},
    "MISSING": {"en": "ticks missing", "ko": "체결 누락"},
    "minutes": {"en": "min", "ko": "분"},
    "all_instruments": {"en": "all instruments", "ko": "전체 종목"},
    "lag": {"en": "Which feed was first, and by how much", "ko": "어느 피드가 얼마나 먼저였나"},
    "lag_text": {
        "en": "Of books that both feeds had. Above 0: {second} came later than {first}. Line: the median; band: the 1st to the "
        "99th percentile, each the median over the instruments. Milliseconds between the two arrivals at this machine.",
        "ko": "두 피드가 모두 받은 호가 기준. 0보다 위: {second} 호가가 {first}보다 늦게 도착. 선은 중앙값, "
        "띠는 1~99 백분위수(각각 종목들의 중앙값). 이 장비에 도착한 시각의 차이(밀리초)입니다.",
    },
    "lag_title": {
        "en": "Lag by minute, {low:.0f} to {high:.0f} ms; median of the day {median:.1f} ms",
        "ko": "분별 지연, {low:.0f}~{high:.0f} ms. 하루 중앙값 {median:.1f} ms",
    },
    "lag_cut": {"en": "Values beyond the scale are cut.", "ko": "눈금을 벗어난 값은 잘렸습니다."},
    "first_title": {
        "en": "First with a book: {first} {first_share:.1f} %, {second} {second_share:.1f} %",
        "ko": "먼저 받은 비율: {first} {first_share:.1f} %, {second} {second_share:.1f} %",
    },
    "no_pairs": {
        "en": "No book came from both feeds on this day, so nothing can be compared.",
        "ko": "두 피드가 모두 받은 호가가 없어 비교할 수 없습니다.",
    },
    "rates": {"en": "Rates and market phases", "ko": "수신량과 장 구간"},
    "rates_books": {"en": "Books a minute, by feed: up to {high:,.0f}", "ko": "피드별 분당 호가: 최대 {high:,.0f}"},
    "rates_ticks": {"en": "Live ticks a minute: up to {high:,.0f}", "ko": "분당 실시간 체결: 최대 {high:,.0f}"},
    "ticks_word": {"en": "ticks", "ko": "체결"},
    "pre_market": {"en": "pre-market", "ko": "프리마켓"},
    "opening_auction": {"en": "opening auction", "ko": "시가 동시호가"},
    "regular": {"en": "regular", "ko": "정규장"},
    "closing_auction": {"en": "closing auction", "ko": "종가 동시호가"},
    "closing_price": {"en": "closing price", "ko": "시간외 종가"},
    "after_market": {"en": "after-market", "ko": "애프터마켓"},
    "intraday_auction": {"en": "intraday auction", "ko": "장중 동시호가"},
    "day_market": {"en": "day market", "ko": "주간거래"},
    "night_market": {"en": "night market", "ko": "야간거래"},
    "processes": {"en": "Processes", "ko": "프로세스"},
    "processes_text": {
        "en": "Filled: minutes with data. Marks: what happened beside the data; the table names each.",
        "ko": "채워진 부분은 데이터가 있는 분, 표시는 그 밖의 사건이며 표에 모두 적혀 있습니다.",
    },
    "no_incidents": {
        "en": "No restart, disconnection, pause or loss is recorded for this day.",
        "ko": "이 날에 기록된 재시작, 단절, 쓰기 중단, 유실이 없습니다.",
    },
    "restart": {"en": "restart", "ko": "재시작"},
    "disconnect": {"en": "disconnected", "ko": "단절"},
    "paused": {"en": "writing paused", "ko": "쓰기 중단"},
    "ring_loss": {"en": "records lost", "ko": "레코드 유실"},
    "journal_damaged": {"en": "journal unreadable", "ko": "저널 손상"},
    "degraded": {"en": "degraded", "ko": "수신량 급감"},
    "quarantined": {"en": "frames kept undecoded", "ko": "디코딩 실패분 보관"},
    "refused": {"en": "subscription refused", "ko": "구독 거부"},
    "clock_step": {"en": "clock stepped", "ko": "시계 변경"},
    "running": {"en": "data", "ko": "데이터 있음"},
    "col_time": {"en": "time", "ko": "시각"},
    "col_what": {"en": "what", "ko": "내용"},
    "col_feed": {"en": "process", "ko": "프로세스"},
    "col_message": {"en": "message", "ko": "메시지"},
    "goes_on": {"en": "goes on", "ko": "계속"},
    "times": {"en": "{count} {count:time|times}", "ko": "{count}회"},
    "records": {"en": "{value:,} {value:record|records}", "ko": "{value:,}건"},
    "unknown_value": {"en": "how many is not known", "ko": "건수 알 수 없음"},
    "gaps": {"en": "Missing ticks before and after recovery", "ko": "복구 전후의 누락 체결"},
    "gaps_text": {
        "en": "Shares by minute: fetched by recovery, and still missing by the certificates.",
        "ko": "분별 주식 수: 복구로 받은 것과, 검증서상 아직 누락된 것.",
    },
    "gaps_title": {
        "en": "Before recovery {before:,} shares were missing; {recovered:,} were fetched; {after:,} are missing",
        "ko": "복구 전 누락 {before:,}주, 복구 {recovered:,}주, 남은 누락 {after:,}주",
    },
    "gaps_unknown": {
        "en": "Of instruments without a certificate only gaps between stored ticks are known: {shares:,} shares.",
        "ko": "검증서가 없는 종목은 저장된 체결 사이의 공백만 알 수 있습니다: {shares:,}주.",
    },
    "price": {"en": "Mid price and depth of {name}", "ko": "{name}의 중간가와 잔량"},
    "price_text": {
        "en": "The last book of each minute. A break is a minute without a book. Another instrument: "
        "`collectorctl report --date {day} --symbol SYMBOL`.",
        "ko": "매 분의 마지막 호가. 끊긴 곳은 호가가 없는 분입니다. "
        "다른 종목: `collectorctl report --date {day} --symbol 종목코드`.",
    },
    "price_title": {
        "en": "Mid price {low:,.0f} to {high:,.0f} won",
        "ko": "중간가 {low:,.0f}~{high:,.0f}원",
    },
    "depth_title": {
        "en": "Total size of the visible levels, up to {high:,.0f} shares",
        "ko": "공개 호가 총잔량, 최대 {high:,.0f}주",
    },
    "ask_size": {"en": "asks", "ko": "매도 잔량"},
    "bid_size": {"en": "bids", "ko": "매수 잔량"},
    "mid": {"en": "mid price", "ko": "중간가"},
    "no_quotes": {"en": "No book with a price is stored.", "ko": "가격이 있는 호가가 저장되어 있지 않습니다."},
    "certificates": {"en": "Certificates", "ko": "종목별 검증서"},
    "col_instrument": {"en": "instrument", "ko": "종목"},
    "col_grade": {"en": "certificate", "ko": "검증서"},
    "col_before": {"en": "missing before", "ko": "복구 전 누락"},
    "col_recovered": {"en": "fetched", "ko": "복구"},
    "col_after": {"en": "missing now", "ko": "현재 누락"},
    "col_volume": {"en": "official volume", "ko": "공식 거래량"},
    "off_book": {"en": "off the book: {text}", "ko": "장외 거래: {text}"},
    "residual": {"en": "minutes that differ: {text}", "ko": "분봉과 다른 분: {text}"},
    "files": {"en": "How to read the files", "ko": "파일 읽는 법"},
    "files_text": {
        "en": "Parquet, one directory per date and hour, zstd; any reader of hive partitions takes them. Prices are whole won, "
        "times nanoseconds in Asia/Seoul; what a frame did not carry is null.",
        "ko": "날짜·시간별 디렉터리의 Parquet(zstd) 파일로, hive 파티션을 읽는 도구면 모두 읽을 수 있습니다. "
        "가격은 원 단위 정수, 시각은 Asia/Seoul 나노초이며 프레임에 없던 값은 null입니다.",
    },
    "file_orderbook": {
        "en": "books: ten levels, and when each feed had each",
        "ko": "호가: 10단계와 각 피드의 도착 시각",
    },
    "file_tick": {
        "en": "trades; a fetched one has source `recovered` and no receive time",
        "ko": "체결. 복구된 행은 source가 `recovered`이고 수신 시각이 없음",
    },
    "file_event": {"en": "what happened to feeds and processes", "ko": "피드와 프로세스의 사건"},
    "file_feed_health": {"en": "by minute: counts, lags, gaps", "ko": "분별 집계: 건수, 지연, 공백"},
    "file_completeness": {"en": "the certificates", "ko": "검증서"},
    "file_bar_1m": {"en": "minute bars, where ticks were not to be had", "ko": "체결을 받을 수 없을 때의 분봉"},
}
