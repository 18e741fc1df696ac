"""Control characters of text from outside: none is left, nothing else is changed."""

from __future__ import annotations

import json
import unicodedata

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from conf.text.escape import escape_controls

BIDI = set("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
HOSTILE = st.sampled_from(
    [*map(chr, range(0x20)), *map(chr, range(0x7F, 0xA0)), "\u2028", "\u2029", "\ud800", *BIDI, "장", "\\", '"']
)
TEXT = st.text(HOSTILE | st.characters())


def is_control(character: str) -> bool:
    """By the Unicode database: Cc are C0, DEL and C1."""
    return unicodedata.category(character) in ("Cc", "Zl", "Zp", "Cs") or character in BIDI


@given(TEXT)
def test_no_control_is_left_and_nothing_else_is_changed(text: str) -> None:
    """One line that can be encoded; what is no control stands as it stood."""
    escaped = escape_controls(text)

    assert not any(map(is_control, escaped))
    assert len(escaped.splitlines()) <= 1 and escaped.encode().decode() == escaped
    assert escape_controls(escaped) == escaped
    rest = "".join(character for character in text if not is_control(character))
    assert escaped == text if rest == text else len(escaped) > len(text)


@given(TEXT.map(lambda text: text.replace("\\", "").replace('"', "")))
def test_an_escape_says_which_character_it_was(text: str) -> None:
    """As JSON writes it."""
    assert json.loads(f'"{escape_controls(text)}"') == text


@given(
    st.recursive(
        st.text(HOSTILE.filter(lambda c: c != "\ud800") | st.characters(exclude_categories=["Cs"])) | st.integers(),
        st.lists,
    )
)
def test_json_means_the_same_after_it(value: object) -> None:
    """A value within: what JSON does not escape by itself (DEL, C1, U+2028, U+202E) is escaped as JSON does."""
    text = escape_controls(msgspec.json.encode({"value": value}).decode())

    assert json.loads(text) == {"value": value}
    assert not any(map(is_control, text))
