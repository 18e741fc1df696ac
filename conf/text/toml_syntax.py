"""Common mistakes in a TOML file: what is wrong with a line that TOML's reader refuses, and the line as it was meant (pure).

    kr = [005930, 000660]   ──find_mistakes──>   syntax_codes, line 2, kr = ["005930", "000660"]

Guarantees:
    * A correction is proposed only if the reader comes further with it; the mistakes behind it are then found in the same run.
    * A line is quoted only if it sets a setting that exists, is a table's header, or has no word that is long enough for a secret.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Container, Iterator
from typing import Any, NamedTuple


class Mistake(NamedTuple):
    """The lines (from 1) of one kind of mistake; the text of the first, and as it was meant ("" if that is not known)."""

    code: str
    lines: list[int]
    text: str
    meant: str
    reason: str


def find_mistakes(text: str, names: Container[str]) -> tuple[dict[str, Any] | None, list[Mistake]]:
    """The tables of `text`, corrected where it is wrong (None if that is not known), and its mistakes. `names`: of settings."""
    lines = text.replace("\r\n", "\n").split("\n")
    found: dict[str, Mistake] = {}
    while True:
        try:
            return tomllib.loads("\n".join(lines)), list(found.values())
        except tomllib.TOMLDecodeError as error:
            reason, at = _split_error(error, lines)
        code, line, meant = _explain(lines, at, reason)
        if code in found and meant is not None:
            found[code].lines.append(line + 1)
        else:
            quoted, better = _quote(lines[line], meant, names)
            found[code] = Mistake(code, [line + 1], quoted, better, reason)
        if meant is None:
            return None, list(found.values())
        lines[line] = meant


_LONGEST_WORD, _LONGEST_LINE = 15, 100
_AT = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")
_PARTS = re.compile(r""""(?:[^"\\]|\\.)*"|'[^']*'|#.*|[^"'#]+|.""")
_KEY = re.compile(r"\s*([\w-]+(?:\.[\w-]+)*)\s*[=:]")


def _split_error(error: tomllib.TOMLDecodeError, lines: list[str]) -> tuple[str, int]:
    """The reader's reason, and the index of the line it refuses: the last one with content where the text ends too early."""
    found = _AT.search(str(error))
    if found and found[1]:
        return str(error)[: found.start()], min(int(found[1]), len(lines)) - 1
    at = next((n for n in range(len(lines) - 1, -1, -1) if _code_of(lines[n]).strip()), 0)
    return _AT.sub("", str(error)), at


def _explain(lines: list[str], at: int, reason: str) -> tuple[str, int, str | None]:
    """Code, line and correction of the mistake that the reader meets at the line with index `at`."""
    if reason.startswith("Cannot declare"):
        return "syntax_table_twice", at, None
    if reason.startswith(("Cannot overwrite", "Cannot mutate")):
        return "syntax_key_twice", at, None
    before = next((n for n in range(at - 1, -1, -1) if _code_of(lines[n]).strip()), at)
    for code, line, meant in _list_corrections(lines, at, before):
        if meant != lines[line] and _first_error([*lines[:line], meant, *lines[line + 1 :]]) > at:
            return code, line, meant
    return "syntax", at, None


def _first_error(lines: list[str]) -> int:
    try:
        tomllib.loads("\n".join(lines))
    except tomllib.TOMLDecodeError as error:
        return _split_error(error, lines)[1]
    return len(lines)


def _list_corrections(lines: list[str], at: int, before: int) -> Iterator[tuple[str, int, str]]:
    """What may have been meant: each correction alone, of the line and of the one before it, then one upon the other."""
    line = lines[at]
    for code, correct in _CORRECTIONS.items():
        yield code, at, correct(line)
    for code, end in (("syntax_comma", ","), ("syntax_bracket", "]")):
        yield code, before, _append(lines[before], end)
    yield "syntax_bracket", at, _append(line, "]")
    for quote in "\"'":
        yield "syntax_quote", at, _append(line, quote)
        yield "syntax_quote", at, _append(line, f"{quote}]")
    first, meant = "", line
    for code, correct in _CORRECTIONS.items():
        if (better := correct(meant)) != meant:
            first, meant = first or code, better
            yield first, at, meant
            yield first, at, _append(meant, "]")
    if (key := _KEY.match(line)) and not line[key.end() :].strip():
        yield "syntax_no_value", at, f"#{line}"


def _code_of(line: str) -> str:
    """A line without its comment."""
    return "".join(part for part in _PARTS.findall(line) if not part.startswith("#"))


def _append(line: str, end: str) -> str:
    """The line with `end` behind its code, before its comment."""
    code = _code_of(line)
    return code.rstrip() + end + (f"  {line[len(code) :]}" if line[len(code) :] else "")


_TYPOGRAPHY = str.maketrans(
    {
        **dict.fromkeys("“”„‟″＂«»", '"'),
        **dict.fromkeys("‘’‚‛′＇`", "'"),
        **dict.fromkeys("\u00a0\u3000\u2002\u2003\u2009\u200b\ufeff", " "),
        **dict(zip("＝，、［］｛｝＃．＿", "=,,[]{}#._", strict=True)),
    }
)
_CODE = re.compile(
    r"(?<![\w.])((?:[0-9][0-9A-Za-z]{5}|Q[0-9A-Z]{6})(?:_NX|_AL)?|[A-Z]{3}\.[A-Z][A-Z0-9./-]{0,14}|(?:\d{1,5}|[A-Z][A-Z0-9]{0,5})(?=\s*[,\]]))(?![\w.])"
)
_WORDS = {"true": "true", "yes": "true", "on": "true", "false": "false", "no": "false", "off": "false"}
_BOOLEAN = re.compile(rf"(=\s*)({'|'.join(_WORDS)})(?=\s*(#|$))", re.IGNORECASE)
_ASSIGNMENT = re.compile(r"(\s*[\w.-]+\s*=\s*)(.*?)(\s*)$")


def _replace_characters(line: str) -> str:
    return line.translate(_TYPOGRAPHY)


def _correct_boolean(line: str) -> str:
    return _BOOLEAN.sub(lambda found: found[1] + _WORDS[found[2].lower()], line)


def _quote_codes(line: str) -> str:
    """Codes of instruments in quotes, wherever they stand outside strings and comments, behind the key."""
    key = _KEY.match(line)
    begin = key.end() if key else 0
    parts = (part if part[0] in "\"'#" else _CODE.sub(r'"\1"', part) for part in _PARTS.findall(line[begin:]))
    return line[:begin] + "".join(parts)


def _correct_comment(line: str) -> str:
    return re.sub(r"""^(\s*|.*["'\]\w]\s+)(//|;|--)""", r"\1#", line)


def _make_list(line: str) -> str:
    """Several values without brackets, or in the parentheses of another language, as a list."""
    code = _code_of(line)
    found = _ASSIGNMENT.fullmatch(code)
    if found is None or found[2].startswith("[") or not re.search(r"[,(]", found[2]):
        return line
    return f"{found[1]}[{found[2].strip('()')}]{found[3]}{line[len(code) :]}"


def _insert_commas(line: str) -> str:
    return re.sub(r"""(["'])\s+(?=["'])""", r"\1, ", line)


def _keep_backslashes(line: str) -> str:
    return re.sub(r'"([^"\']*\\[^"\']*)"', r"'\1'", line)


def _correct_equals(line: str) -> str:
    return re.sub(r"^(\s*[\w.-]+)(?:\s*:=?|\s+=?)\s*(?=[^=\s])", r"\1 = ", line)


def _quote_text(line: str) -> str:
    code = _code_of(line)
    found = _ASSIGNMENT.fullmatch(code)
    if found is None or not found[2] or re.search(r"""["'\[{,]""", found[2]):
        return line
    quote = "'" if "\\" in found[2] else '"'
    return f"{found[1]}{quote}{found[2]}{quote}{found[3]}{line[len(code) :]}"


_CORRECTIONS: dict[str, Callable[[str], str]] = {
    "syntax_characters": _replace_characters,
    "syntax_boolean": _correct_boolean,
    "syntax_codes": _quote_codes,
    "syntax_comment": _correct_comment,
    "syntax_comma": _insert_commas,
    "syntax_list": _make_list,
    "syntax_backslash": _keep_backslashes,
    "syntax_equals": _correct_equals,
    "syntax_text": _quote_text,
}
"""What is tried, in this order, by the code of the mistake."""


def _quote(line: str, meant: str | None, names: Container[str]) -> tuple[str, str]:
    """The line and its correction as a message may show them: without what might be a secret, and not endless."""
    key = _KEY.match(line.translate(_TYPOGRAPHY))
    is_known = key is not None and key[1].rpartition(".")[2] in names
    if not is_known and any(len(word) > _LONGEST_WORD for word in re.findall(r"\w+", line)):
        line = f"{key[1]} = ..." if key else "..."
        meant = line if meant else meant
    return _shorten(line), _shorten(meant or "")


def _shorten(text: str) -> str:
    text = text.strip()
    return text if len(text) <= _LONGEST_LINE else f"{text[:_LONGEST_LINE]} ..."
