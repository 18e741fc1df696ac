"""KIS REST table of business days.

    GET chk-holiday   BASS_DT, CTX_AREA_NK, CTX_AREA_FK     -> 24 days from then on, and the key of the next page

Guarantees:
    * A day is open if the simulated exchange trades on it.
    * It goes on by the key, or by another BASS_DT (docs/wire/kis.md 5): sources disagree, both work.

Not handled here:
    * Days on which banks or settlement work and the exchange does not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date, datetime, timedelta

from brokers.simulator.kis.rest_trades import InputError

DAYS = 24
KEY_CHARS = 20
FORM = "%Y%m%d"


class HolidayTable:
    """The call; `is_open(day)`: whether the exchange trades on a day."""

    def __init__(self, is_open: Callable[[date], bool]) -> None:
        self._is_open = is_open

    def chk_holiday(self, query: Mapping[str, str]) -> dict[str, object]:
        """24 days from the key's on, without one from BASS_DT on. InputError."""
        first = _parse_date(query, "CTX_AREA_NK" if query.get("CTX_AREA_NK", "").strip() else "BASS_DT")
        days = [first + timedelta(days=number) for number in range(DAYS)]
        key = f"{days[-1] + timedelta(days=1):{FORM}}".ljust(KEY_CHARS)
        return {
            "ctx_area_nk": key,
            "ctx_area_fk": "".ljust(KEY_CHARS),
            "output": [self._build_row(day) for day in days],
        }

    def _build_row(self, day: date) -> dict[str, str]:
        names = ("bzdy_yn", "tr_day_yn", "opnd_yn", "sttl_day_yn")
        weekday = f"{(day.weekday() + 1) % 7 + 1:02}"  # 01 is Sunday
        return {"bass_dt": f"{day:{FORM}}", "wday_dvsn_cd": weekday} | dict.fromkeys(names, "NY"[self._is_open(day)])


def _parse_date(query: Mapping[str, str], name: str) -> date:
    try:
        return datetime.strptime(query.get(name, "").strip(), FORM).date()
    except ValueError:
        raise InputError(name) from None
