"""Paging of Kiwoom list TRs: request, page of rows, key of the next page (pure).

    body + next-key  ─>  ListRequest(listing, fields, start)  ─>  a TR  ─>  Page(rows newest first, start, next)
                              ^                                                             |
                              └────────────── CursorStore: next-key -> position <────────────────┘

Guarantees:
    * A key reveals nothing and is valid for one app key, TR and body only.
    * A position is a row number, which new trades do not move (docs/wire/kiwoom.md 1.4, 5).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import NamedTuple

from brokers.simulator.exchange.consolidated import AnyListing

MAX_KEYS = 20_000
CODE_PATTERN = r"[0-9A-Z]{6}(_NX|_AL)?"
DATE_PATTERN = r"[12][0-9]{3}(0[1-9]|1[0-2])([0-2][0-9]|3[01])"


class ListRequest(NamedTuple):
    """A request for rows: `start` is the position from an earlier page, None for the first page."""

    listing: AnyListing
    fields: Mapping[str, str]
    start: int | None
    horizon_days: int


class Page(NamedTuple):
    """Rows, newest first; `start` and `next` are positions (next None: the list ends)."""

    rows: list[dict[str, str]]
    start: int = 0
    next: int | None = None


EMPTY_PAGE = Page([])


class Field(NamedTuple):
    """A field of a request: the form of its value, and whether it may be missing."""

    pattern: str
    optional: bool = False


class Tr(NamedTuple):
    """One list TR. `head_moves`: its list has trades at its head, so that it can move between two pages."""

    path: str
    list_key: str
    fields: Mapping[str, Field]
    names: tuple[str, ...]
    build_page: Callable[[ListRequest], Page]
    head_moves: bool = False
    head_fields: tuple[str, ...] = ()
    """Fields beside the list: the code, and the number of trades in the unfinished row, which is always empty here."""

    def build_sentinel(self) -> dict[str, str]:
        """The row that stands for nothing: every value empty (docs/wire/kiwoom.md 1.5)."""
        return dict.fromkeys(self.names, "")


class TrRequestRejected(Exception):
    """A request that gets no rows: outer code, text, inner code."""

    def __init__(self, code: int, text: str, inner: int) -> None:
        super().__init__(inner)
        self.code, self.text, self.inner_code = code, text, inner


def check_request(wanted: Mapping[str, Field], given: Mapping[str, object]) -> dict[str, str]:
    """The fields of a request. Refused with 1511 for one without a value, 1517 for one of a bad form (docs/wire/kiwoom.md 1.5)."""
    fields = {}
    for name, (pattern, optional) in wanted.items():
        value = str(given.get(name) or "").strip()
        if not value and not optional:
            raise TrRequestRejected(2, f"필수 입력 값에 값이 존재하지 않습니다. 필수입력 파라미터={name}", 1511)
        if value and not re.fullmatch(pattern, value):
            if name == "stk_cd":
                raise TrRequestRejected(
                    2, f"종목 정보가 없습니다. 입력한 종목코드 값을 확인바랍니다. 종목코드={value}", 1902
                )
            raise TrRequestRejected(2, f"입력 값의 형식이 올바르지 않습니다. 파라미터={name}, 사유=형식 오류", 1517)
        fields[name] = value
    return fields


class PageCursor(NamedTuple):
    """Where a page begins, where the previous one began, and the length of the history at that time."""

    start: int
    previous_start: int
    history_length: int


@dataclass
class CursorStore:
    """The issued page keys; the oldest are dropped."""

    random: Random
    life_s: float
    _cursors: dict[str, tuple[Hashable, PageCursor, float]] = field(default_factory=dict)

    def issue(self, request: Hashable, cursor: PageCursor, now_s: float) -> str:
        """A key for the next page of what was `asked`."""
        key = f"{self.random.getrandbits(160):040x}"
        self._cursors[key] = (request, cursor, now_s)
        if len(self._cursors) > MAX_KEYS:
            del self._cursors[next(iter(self._cursors))]
        return key

    def find(self, key: str, request: Hashable, now_s: float) -> PageCursor | None:
        """The cursor of a key; None when it is unknown, stale (`life_s`; 0: never) or of another request."""
        issued_for, cursor, issued_s = self._cursors.get(key, (None, None, 0.0))
        return cursor if issued_for == request and not (self.life_s and now_s - issued_s > self.life_s) else None
