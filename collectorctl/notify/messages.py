"""Words of notifications around the verdict's findings, in each language."""

from __future__ import annotations

from conf.text.language import Language

NOTIFY_MESSAGES: dict[str, dict[Language, str]] = {
    "note": {"en": "note", "ko": "참고"},
    "recovered": {"en": "recovered {key}", "ko": "복구됨 {key}"},
    "acknowledged": {"en": "acknowledged {key}: {message}", "ko": "확인함 {key}: {message}"},
    "certified": {
        "en": "certified {days}; verdict {level}, {count} {count:finding|findings}",
        "ko": "인증 완료 {days}; 판정 {level}, 확인할 항목 {count}건",
    },
    "report": {"en": "; report {link}", "ko": "; 보고서 {link}"},
    "more": {"en": "and {count} more: see `collectorctl status`", "ko": "외 {count}건: `collectorctl status` 확인"},
    "test": {"en": "test message of collectorctl notify", "ko": "collectorctl notify 시험 메시지"},
}
