"""Sessions: which phase an instant is in, on the default tables and at their edges."""

from __future__ import annotations

from datetime import date, datetime
from pathlib import Path

import pytest

from conf.clock import SECOND_NS
from conf.session import phase
from conf.settings import load


def at(text: str) -> int:
    """ns since 1970 of a Korean time."""
    return round(datetime.fromisoformat(f"{text}+09:00").timestamp()) * SECOND_NS


@pytest.fixture
def sessions(tmp_path: Path) -> dict[str, dict[str, str]]:
    return load(tmp_path).sessions


@pytest.mark.parametrize(
    ("time", "krx", "nxt", "unified"),
    [
        ("07:59:59", None, None, None),
        ("08:00:00", None, "pre_market", "pre_market"),
        ("08:30:00", "opening_auction", "pre_market", "opening_auction"),
        ("08:50:00", "opening_auction", None, "opening_auction"),
        ("08:59:59", "opening_auction", None, "opening_auction"),
        ("09:00:00", "regular", "regular", "regular"),
        ("15:19:59", "regular", "regular", "regular"),
        ("15:20:00", "closing_auction", None, "closing_auction"),
        ("15:30:00", None, None, "after_market"),
        ("15:40:00", "closing_price", "after_market", "after_market"),
        ("16:00:00", "after_market", "after_market", "after_market"),
        ("19:59:59", "after_market", "after_market", "after_market"),
        ("20:00:00", None, None, None),
        ("23:59:59", None, None, None),
    ],
)
def test_the_default_day(
    sessions: dict[str, dict[str, str]], time: str, krx: str | None, nxt: str | None, unified: str | None
) -> None:
    """Design 8: since 2026-09-14 the KRX day runs to 20:00. A phase has its first second and not its last."""
    ns = at(f"2026-11-20T{time}")

    assert [phase(sessions, [], venue, ns) for venue in ("KRX", "NXT", "UN")] == [krx, nxt, unified]
    assert phase(sessions, [], "KRX", ns + SECOND_NS - 1) == krx


@pytest.mark.parametrize("day", ["2026-11-21", "2026-11-22", "2026-12-25"])
def test_weekends_and_closed_days_have_no_session(sessions: dict[str, dict[str, str]], day: str) -> None:
    """Silence is normal then, whatever the hour."""
    closed = [date(2026, 12, 25)]

    assert phase(sessions, closed, "KRX", at(f"{day}T10:00:00")) is None
    assert phase(sessions, closed, "KRX", at("2026-12-24T10:00:00")) == "regular"


def test_the_day_is_koreas_not_utcs(sessions: dict[str, dict[str, str]]) -> None:
    """Monday 08:30 in Korea is still Sunday in UTC."""
    assert phase(sessions, [], "KRX", at("2026-11-23T08:30:00")) == "opening_auction"


def test_a_phase_until_midnight_and_one_taken_out() -> None:
    """24:00 is the day's end; "" is no phase at any time; an unknown venue has none."""
    sessions = {"KRX": {"regular": "", "after_market": "20:00-24:00"}}

    assert phase(sessions, [], "KRX", at("2026-11-20T23:59:59")) == "after_market"
    assert phase(sessions, [], "KRX", at("2026-11-20T00:00:00")) is None
    assert phase(sessions, [], "KRX", at("2026-11-20T10:00:00")) is None
    assert phase(sessions, [], "NYSE", at("2026-11-20T23:00:00")) is None
