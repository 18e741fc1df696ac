r"""Escaping of control characters in text from outside (pure).

    refused ESC [2J CR LF 2026-11-20 ... INFO  -->  refused\u001b[2J\r\n2026-11-20 ... INFO

Guarantees:
    * The result is one line: C0 and C1 controls, DEL, line and paragraph separators, bidirectional controls and lone surrogates are
      written as JSON escapes them, and every other character stays as it is.
    * Escaping twice changes nothing; JSON on one line means the same after escaping.
"""

from __future__ import annotations

import re

_CONTROL = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u2028\u2029"
    r"\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # Bidi_Control of Unicode
    r"\ud800-\udfff]"
)
_SHORT = {"\t": "\\t", "\n": "\\n", "\r": "\\r"}


def escape_controls(text: str) -> str:
    """`text` on one line, without a character that a terminal or a reader of lines acts upon."""
    return text if text.isascii() and text.isprintable() else _CONTROL.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    return _SHORT.get(match[0]) or f"\\u{ord(match[0]):04x}"
