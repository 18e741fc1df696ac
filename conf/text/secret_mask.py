r"""Masking of secrets: pieces of known keys, secrets and tokens, however they are written.

    {"msg1":"\u0041bC%2F..."} --escapes decoded, blanks left out--> Abc/... --pieces of a known secret?--> {"msg1":"***"}

Guarantees:
    * A piece of at least MIN_PIECE characters of a known secret is replaced by ***, whether plain, in other case, JSON-escaped,
      URL-encoded, hexadecimal or base64, escapes nested up to MAX_DEPTH times; blanks and line ends in between do not matter.
    * Text without such a piece stays as it is, byte by byte.

Not handled here:
    * A secret of fewer than MIN_PIECE characters, or a word (small letters, fewer than MIN_WORD): no broker issues one, and what
      people write would be masked.
"""

from __future__ import annotations

import re
import threading
from base64 import b64encode
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator

MIN_PIECE = 8
MIN_WORD = 16
MAX_DEPTH = 4
MASKED_BYTES = 1 << 16
"""Bytes of a frame that are searched for secrets at a time: a frame may have megabytes."""
MAX_SECRETS = 64
"""Secrets that a process remembers, the newest: keys, and the tokens of some weeks."""

MASK = "***"

_GRAM = 4
"""A run of 2 * _GRAM - 1 bytes contains a whole block of _GRAM bytes that begins at a multiple of _GRAM."""

_ESCAPE = re.compile(rb'\\u([0-9a-fA-F]{4})|(?:\\x|%)([0-9a-fA-F]{2})|\\(["\\/])|(?:\\[bfnrt]|[ \t\n\v\f\r])+')

_Span = tuple[int, int]


class SecretMask:
    """The pieces of some secrets."""

    def __init__(self, secrets: Iterable[str]) -> None:
        self._grams: dict[bytes, list[tuple[bytes, int, int]]] = {}
        for spelling, min_run in sorted({form for secret in secrets for form in _spellings(secret.encode())}):
            for at in range(len(spelling) - _GRAM + 1):
                self._grams.setdefault(spelling[at : at + _GRAM], []).append((spelling, at, min_run))

    def hide(self, raw: bytes) -> bytes:
        """`raw` with *** in place of each piece of a secret."""
        spans = self._find_all(raw) if self._grams else []
        if not spans:
            return raw
        parts, at = [], 0
        for begin, end in _merge(spans):
            parts += [raw[at:begin], MASK.encode()]
            at = end
        return b"".join([*parts, raw[at:]])

    def hide_text(self, text: str) -> str:
        """`text` with *** in place of each piece of a secret."""
        raw = text.encode(errors="surrogatepass")
        hidden = self.hide(raw)
        return text if hidden is raw else hidden.decode(errors="replace")

    def _find_all(self, raw: bytes) -> list[_Span]:
        """Where pieces are, in `raw` and in what its escapes decode to."""
        spans: list[_Span] = []
        view, decoders = raw, list[_Decoded]()
        for depth in range(MAX_DEPTH + 1):
            for span in self._find(view.lower()):
                for decoder in reversed(decoders):
                    span = decoder.source_of(*span)
                spans.append(span)
            if depth == MAX_DEPTH or _ESCAPE.search(view) is None:
                break
            decoders.append(_Decoded(view))
            view = decoders[-1].text
        return spans

    def _find(self, view: bytes) -> Iterator[_Span]:
        grams, covered = self._grams, 0
        for at in range(0, len(view) - _GRAM + 1, _GRAM):
            if at < covered:
                continue
            for spelling, position, min_run in grams.get(view[at : at + _GRAM], ()):
                begin, end = _extend(view, at, spelling, position)
                if end - begin >= min_run:
                    yield begin, end
                    covered = max(covered, end - _GRAM)


class _Decoded:
    """A text with its escapes decoded and its blanks left out, and where each byte came from."""

    def __init__(self, source: bytes) -> None:
        parts: list[bytes] = []
        self._at: list[int] = []  # of each part in `text`; then its span in `source`, and whether it is the same there
        self._spans: list[tuple[int, int, bool]] = []
        size = end = 0

        def add(part: bytes, begin: int, end: int, same: bool) -> None:
            nonlocal size
            if part:
                parts.append(part)
                self._at.append(size)
                self._spans.append((begin, end, same))
                size += len(part)

        for match in _ESCAPE.finditer(source):
            add(source[end : match.start()], end, match.start(), True)
            end = match.end()
            add(_decode_escape(match), match.start(), end, False)
        add(source[end:], end, len(source), True)
        self.text = b"".join(parts)

    def source_of(self, begin: int, end: int) -> _Span:
        """The span of the source that `text[begin:end]` was decoded from."""
        first, last = bisect_right(self._at, begin) - 1, bisect_right(self._at, end - 1) - 1
        source_begin, _, first_same = self._spans[first]
        last_begin, source_end, last_same = self._spans[last]
        return (
            source_begin + (begin - self._at[first] if first_same else 0),
            last_begin + end - self._at[last] if last_same else source_end,
        )


def _decode_escape(match: re.Match[bytes]) -> bytes:
    """The character of an escape; nothing for blanks."""
    code, byte, character = match.groups()
    if code:
        return chr(int(code, 16)).encode(errors="surrogatepass")
    return bytes([int(byte, 16)]) if byte else character or b""


def _spellings(secret: bytes) -> Iterator[tuple[bytes, int]]:
    """Each form of a secret in lower case, with the length of the shortest run of it that is masked."""
    if len(secret) < MIN_PIECE or (len(secret) < MIN_WORD and secret.isalpha() and secret.islower()):
        return
    yield secret.lower(), MIN_PIECE
    yield secret.hex().encode(), 2 * MIN_PIECE
    for before in range(3):  # bytes of something else in the same group of three
        encoded = b64encode(b"\0" * before + secret)
        certain = encoded[(8 * before + 5) // 6 : 8 * (before + len(secret)) // 6]
        for spelling in (certain, certain.translate(bytes.maketrans(b"+/", b"-_"))):
            yield spelling.lower(), 8 * MIN_PIECE // 6


def _extend(view: bytes, at: int, spelling: bytes, position: int) -> _Span:
    """The whole run around a block that both have."""
    begin, end = at, at + _GRAM
    before, after = position, position + _GRAM
    while begin and before and view[begin - 1] == spelling[before - 1]:
        begin, before = begin - 1, before - 1
    while end < len(view) and after < len(spelling) and view[end] == spelling[after]:
        end, after = end + 1, after + 1
    return begin, end


def _merge(spans: Iterable[_Span]) -> list[_Span]:
    merged: list[_Span] = []
    for begin, end in sorted(spans):
        if merged and begin <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(end, merged[-1][1])
        else:
            merged.append((begin, end))
    return merged


_lock = threading.Lock()
_remembered: dict[str, None] = {}
_mask = SecretMask(())


def remember_secrets(*secrets: str) -> None:
    """From now on this process hides these."""
    global _mask
    with _lock:
        if all(secret in _remembered for secret in secrets):
            return
        _remembered.update(dict.fromkeys(secrets))
        for oldest in list(_remembered)[:-MAX_SECRETS]:
            del _remembered[oldest]
        _mask = SecretMask(_remembered)


def hide_secrets(text: str) -> str:
    """`text` without any secret that this process has read or was issued."""
    return _mask.hide_text(text)


def hide_secrets_in(raw: bytes, pause: Callable[[], object]) -> bytes:
    """`raw` without any secret that this process has read or was issued; `pause` is called between pieces of a large one."""
    parts = []
    for at in range(0, len(raw), MASKED_BYTES):
        if at:
            pause()
        parts.append(_mask.hide(raw[at : at + MASKED_BYTES]))
    return b"".join(parts)
