r"""Escaping of control characters in text from outside (pure).

    refused ESC [2J CR LF 2026-11-20 ... INFO  -->  refused\u001b[2J\r\n2026-11-20 ... INFO

Guarantees:
    * The result is one line: C0 and C1 controls, DEL, line and paragraph separators, bidirectional controls and lone surrogates are
      written as JSON escapes them, and every other character stays as it is.
    * Escaping twice changes nothing; JSON on one line means the same after escaping.
"""

from __future__ import annotations

_CONTROLS = (
    *range(0x20),
    *range(0x7F, 0xA0),
    *(0x2028, 0x2029),
    *(0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)),  # Bidi_Control of Unicode
    *range(0xD800, 0xE000),
)
_ESCAPES = {code: f"\\u{code:04x}" for code in _CONTROLS} | {0x09: "\\t", 0x0A: "\\n", 0x0D: "\\r"}


def escape_controls(text: str) -> str:
    """`text` on one line, without a character that a terminal or a reader of lines acts upon."""
    return text if text.isascii() and text.isprintable() else text.translate(_ESCAPES)
