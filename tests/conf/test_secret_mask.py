"""Known secrets: hidden however they are written, and nothing else touched."""

from __future__ import annotations

import base64
import json
import string
import urllib.parse
from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from conf.text.secret_mask import MIN_PIECE, MIN_WORD, SecretMask

KEYS = st.text(string.ascii_letters + string.digits + "+/=-_.~", min_size=MIN_WORD, max_size=400)
AROUND = st.text("\"'{}[]():;,<>|^&$#@!?* \n장", max_size=12)


def u(text: str) -> str:
    """Every character as JSON may escape it."""
    return "".join(f"\\u{ord(character):04x}" for character in text)


def upper_u(text: str) -> str:
    """The same in capitals."""
    return "".join(f"\\u{ord(character):04X}" for character in text)


def slashes(text: str) -> str:
    """As PHP and old Java libraries escape it."""
    return json.dumps(text)[1:-1].replace("/", "\\/")


def percent(text: str) -> str:
    """Every byte, though most need none."""
    return "".join(f"%{byte:02X}" for byte in text.encode())


def every_other(text: str) -> str:
    """Escapes and plain characters in turn."""
    return "".join(character if at % 2 else u(character) for at, character in enumerate(text))


def spaced(text: str) -> str:
    """Over many lines, as base64 of e-mail is."""
    return "\r\n".join(text[at : at + 5] for at in range(0, len(text), 5))


def hexadecimal(text: str) -> str:
    return text.encode().hex()


def base_64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def base_64_url(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode()


FORMS: dict[str, tuple[Callable[[str], str], ...]] = {
    "plain": (),
    "in capitals": (str.upper,),
    "in small letters": (str.lower,),
    "JSON escapes": (u,),
    "JSON escapes in capitals": (upper_u,),
    "escaped slashes": (slashes,),
    "URL": (urllib.parse.quote_plus,),
    "URL, every byte": (percent,),
    "some characters escaped": (every_other,),
    "JSON within JSON": (u, slashes, slashes),
    "a URL within JSON": (percent, slashes),
    "JSON within a URL": (u, percent),
    "hexadecimal": (hexadecimal,),
    "hexadecimal in capitals": (hexadecimal, str.upper),
    "base64": (base_64,),
    "base64 of URLs": (base_64_url,),
    "base64 within JSON": (base_64, u),
    "hexadecimal within a URL": (hexadecimal, percent),
    "over many lines": (spaced,),
    "base64 over many lines": (base_64, spaced),
    "over many lines within JSON": (spaced, slashes),
}


def write(text: str, form: str) -> str:
    """`text` in one of the forms."""
    for step in FORMS[form]:
        text = step(text)
    return text


def pieces(text: str, length: int) -> set[str]:
    """All runs of that length."""
    return {text[at : at + length] for at in range(len(text) - length + 1)}


@pytest.mark.parametrize("form", FORMS)
@given(key=KEYS, before=AROUND, after=AROUND)
def test_a_key_is_hidden_however_it_is_written(form: str, key: str, before: str, after: str) -> None:
    """What stands around it stays; base64 may keep a few letters at its end, which are less than a character of the key."""
    written = write(key, form)

    hidden = SecretMask(["x" * 40, key]).hide_text(before + written + after)

    left = hidden.removeprefix(before).removesuffix(after)
    assert (before, after) == (hidden[: len(before)], hidden[len(hidden) - len(after) :])
    if base_64 in FORMS[form] or base_64_url in FORMS[form]:
        rest = "".join(left.split())
        assert (
            rest.startswith("***")
            and rest.endswith(("***", write(key, form)[-1]))
            and len(rest) <= 3 + 3 * len("\\u0041")
        )
    else:
        assert left == "***"


@given(key=KEYS, data=st.data())
def test_a_key_that_is_split_over_two_lines_is_hidden_wherever_it_is_split(key: str, data: st.DataObject) -> None:
    """In one text both parts; in two texts each part of eight characters or more."""
    at = data.draw(st.integers(0, len(key)))
    mask = SecretMask([key])

    assert mask.hide_text(f"<{key[:at]}\r\n{key[at:]}>").replace("\r\n", "") == "<***>"
    for part in (key[:at], key[at:]):
        assert mask.hide_text(f"<{part}>") == ("<***>" if len(part) >= MIN_PIECE else f"<{part}>")


@given(key=KEYS, around=st.lists(st.binary(max_size=7), min_size=4, max_size=4))
def test_base64_of_a_text_around_a_key_hides_the_key_at_any_alignment(key: str, around: list[bytes]) -> None:
    """What decodes of the rest has no eight characters of the key."""
    whole = around[0] + key.encode() + around[1]

    hidden = SecretMask([key]).hide(base64.b64encode(whole))

    before, _, after = hidden.partition(b"***")
    for rest in (before, after.split(b"***")[-1]):
        for shift in range(4):
            text = rest[shift:].rstrip(b"=")
            text = text[: len(text) - (len(text) % 4 == 1)]
            decoded = base64.b64decode(text + b"=" * (-len(text) % 4))
            assert not pieces(decoded.decode("latin-1"), MIN_PIECE) & pieces(key, MIN_PIECE)
    assert b"***" in hidden


@given(st.binary(max_size=2000))
@example(b"0|H0STCNT0|001|005930^100000^72000^" + b"0^" * 44)
@example(b'{"trnm":"REAL","data":[{"item":"005930","values":{"20":"100000","10":"-72000"}}]}\\u0041%41\\/')
def test_what_has_no_key_in_it_stays_byte_by_byte(raw: bytes) -> None:
    """Escapes, blanks and bytes that are no text among it."""
    assert SecretMask(["PSkisAppKey0123456789abcdefghijklmnop", "kisSecret/+" + "aBcDeFgHiJ" * 15]).hide(raw) == raw


@given(st.lists(KEYS, min_size=1, max_size=5), st.binary(max_size=50))
def test_keys_side_by_side_are_all_hidden(keys: list[str], raw: bytes) -> None:
    """Whatever bytes stand before and behind."""
    hidden = SecretMask(keys).hide(raw + "".join(keys).encode() + raw).decode("latin-1")

    assert not any(pieces(hidden, 2 * MIN_PIECE) & pieces(key, 2 * MIN_PIECE) for key in keys)


def test_a_word_is_no_secret() -> None:
    """Fewer than eight characters, or small letters only: servers made for tests issue such keys, brokers do not."""
    text = "access token refused, invalid approval key"

    assert SecretMask(["token", "approval"]).hide_text(text) == text
