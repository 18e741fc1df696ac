"""Reasons of certificates in each language (pure).

    "120 shares in 3 gaps are missing" ──translate(..., "ko")──> "공백 3곳에서 120주 누락"

Guarantees:
    * In English a reason is as the certificate has it; one that is not known here is quoted in any language.
"""

from __future__ import annotations

import re

from conf.text.language import Language

KOREAN: tuple[tuple[str, str], ...] = (
    (r"the official volume is not known", "공식 거래량을 알 수 없음"),
    (r"the day's sessions were not over", "인증 당시 장이 끝나지 않음"),
    (r"(-?\d+) shares in (\d+) gaps are missing", r"공백 \2곳에서 \1주 누락"),
    (r"(-?\d+) shares are covered twice", r"\1주가 두 번 저장됨"),
    (r"ticks reach (-?\d+) shares beyond the official volume", r"체결이 공식 거래량보다 \1주 많음"),
    (r"(\d+) ticks have no place in the cumulative volume", r"체결 \1건이 누적 거래량에서 자리를 찾지 못함"),
    (r"the value is not known", "거래대금을 알 수 없음"),
    (r"the value differs by ([+-][\d,]+) won", r"거래대금이 \1원 다름"),
    (r"there are no minute bars", "분봉이 없음"),
    (r"(\d+) minutes differ from the minute bars", r"\1개 분이 분봉과 다름"),
    (r"(\d+) minute bars cannot be read", r"읽을 수 없는 분봉 \1개"),
    (
        r"(\d+) stretches between live ticks have another value than the ticks show",
        r"실시간 체결 사이 \1개 구간의 거래대금이 체결과 다름",
    ),
    (
        r"(\d+) stretches between live ticks have another number of trades than those count",
        r"실시간 체결 사이 \1개 구간의 건수가 다름",
    ),
    (
        r"(\d+) recovered ticks reach over a volume that a book showed",
        r"복구된 체결 \1건이 호가의 누적 거래량과 모순됨",
    ),
    (r"(\d+) live ticks have no row in the broker's list", r"실시간 체결 \1건이 증권사 체결 목록에 없음"),
    (r"a list of pages is incomplete", "받은 페이지 목록이 불완전함"),
    (r"its (\d+) pages do not fit the budget", r"필요한 \1페이지가 정해진 시간 안에 들어가지 않음"),
    (r"beyond the (\d+) days for which ticks are kept", r"체결이 보관되는 \1일이 지남"),
    (r"minute bars were requested", "분봉만 요청됨"),
    (r"this home did not collect it: no books, and no live ticks", "이 홈이 수집하지 않은 날: 호가와 실시간 체결 없음"),
    (r"before the broker's list of ticks begins", "증권사의 체결 목록이 시작되기 전"),
)
"""What certificates give as a reason, as a pattern, and the same in Korean."""


def translate(reason: str, language: Language) -> str:
    """A reason in a language."""
    if language == "ko":
        for pattern, korean in KOREAN:
            if match := re.fullmatch(pattern, reason):
                return match.expand(korean)
    return reason
