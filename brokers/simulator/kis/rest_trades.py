"""KIS REST trades of today (pure).

Guarantees:
    * At most 30 rows, newest first, every value a string (docs/wire/kis.md 5); acml_vol and cnqn of a row are those the
      stream sent.
    * No call has the side.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

from brokers.simulator.exchange.consolidated import AnyListing
from brokers.simulator.exchange.models import DailyStats
from brokers.simulator.exchange.trade_history import DAY_S, KOREA_S, format_hhmmss
from brokers.simulator.kis.encode import encode_sign, format_ratio

ROWS = 30
HOUR_PATTERN = r"([01][0-9]|2[0-3])[0-5][0-9][0-5][0-9]"

Query = Mapping[str, str]
Outputs = dict[str, object]


class InputError(ValueError):
    """A parameter that is missing or has a bad form; its name."""


def inquire_ccnl(listing: AnyListing, query: Query, now_s: int) -> Outputs:
    """The last 30 trades, without cumulative volume."""
    rows = []
    begin, end = find_today(listing)
    for at, price, size, sold, bought, *_ in _read_columns(listing, max(begin, end - ROWS), end):
        rows.append(
            {"stck_cntg_hour": at}
            | _format_change(price, listing.day)
            | {
                "cntg_vol": str(size),
                "tday_rltv": format_ratio(bought, sold),
                "prdy_ctrt": format_ratio(price - listing.day.previous_close, listing.day.previous_close),
            }
        )
    return {"output": rows}


def inquire_time_itemconclusion(listing: AnyListing, query: Query, now_s: int) -> Outputs:
    """Up to 30 trades of today at or before a second, with the cumulative volume."""
    until = parse_second(query)
    day, rows = listing.day, []
    begin, end = find_today(listing)
    end = begin + int(
        np.searchsorted(to_seconds_of_day(listing.history.read_column("exch_s", begin, end)), until, "right")
    )
    for at, price, size, sold, bought, volume, ask, bid in _read_columns(listing, max(begin, end - ROWS), end):
        rows.append(
            {"stck_cntg_hour": at}
            | _format_change(price, day)
            | {
                "prdy_ctrt": format_ratio(price - day.previous_close, day.previous_close),
                "askp": str(ask),
                "bidp": str(bid),
                "tday_rltv": format_ratio(bought, sold),
                "acml_vol": str(volume),
                "cnqn": str(size),
            }
        )
    price = day.last or day.previous_close
    output = _format_change(price, day) | {
        "prdy_ctrt": format_ratio(price - day.previous_close, day.previous_close),
        "acml_vol": str(day.cum_volume),
        "prdy_vol": str(day.previous_volume),
        "rprs_mrkt_kor_name": "KOSPI",
    }
    return {"output1": output, "output2": rows}


def parse_second(query: Query) -> int:
    """FID_INPUT_HOUR_1 as seconds of the day. InputError."""
    name = "FID_INPUT_HOUR_1"
    at = query.get(name, "")
    if not re.fullmatch(HOUR_PATTERN, at):
        raise InputError(name)
    return int(at[:2]) * 3600 + int(at[2:4]) * 60 + int(at[4:])


def to_seconds_of_day(exch_s):
    """Seconds since Korean midnight, of one second or of an array of them."""
    return (exch_s + KOREA_S) % DAY_S


def find_today(listing: AnyListing) -> tuple[int, int]:
    """First row and end of the day at hand, which may have no trade yet."""
    return listing.history.days[-1].first, len(listing.history)


def _read_columns(listing: AnyListing, first: int, end: int) -> list[tuple]:
    """(HHMMSS, price, size, sold, bought, cumulative volume, ask, bid) of each trade, newest first."""
    rows = listing.history.read_rows(first, end)[::-1]
    names = ("price", "size", "sell_volume", "buy_volume", "cum_volume", "ask_price_1", "bid_price_1")
    times = [format_hhmmss(exch_s) for exch_s in rows["exch_s"].tolist()]
    return list(zip(times, *(rows[name].tolist() for name in names), strict=True))


def _format_change(price: int, day: DailyStats) -> dict[str, str]:
    """A price and its change, with the sign code."""
    return {
        "stck_prpr": str(price),
        "prdy_vrss": str(price - day.previous_close),
        "prdy_vrss_sign": encode_sign(price, day),
    }
