"""KIS REST trades and minute bars of today (pure).

Guarantees:
    * At most 30 rows, newest first, every value a string (docs/wire/kis.md 5); acml_vol and cnqn of a row are those the
      stream sent.
    * No call has the side. Bars of the future repeat the price, and the newest minute shows the volume of the one before
      until its first trade, as the vendor does.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

from brokers.simulator.exchange.consolidated import AnyListing
from brokers.simulator.exchange.models import DailyStats
from brokers.simulator.exchange.trade_history import DAY_S, KOREA_S, format_hhmmss
from brokers.simulator.kis.encode import encode_sign, format_ratio
from conf.clock import SECOND_NS, to_kst

ROWS = 30
MINUTE_S = 60
HOUR_PATTERN = r"([01][0-9]|2[0-3])[0-5][0-9][0-5][0-9]"

Query = Mapping[str, str]
Outputs = dict[str, object]


class InputError(ValueError):
    """A parameter that is missing or has a bad form; its name."""


def inquire_ccnl(listing: AnyListing | None, query: Query, now_s: int) -> Outputs:
    """The last 30 trades, without cumulative volume."""
    rows = []
    if listing is not None:
        begin, end = _find_today(listing)
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


def inquire_time_itemconclusion(listing: AnyListing | None, query: Query, now_s: int) -> Outputs:
    """Up to 30 trades of today at or before a second, with the cumulative volume."""
    until = _parse_second(query)
    if listing is None:
        return {"output1": {}, "output2": []}
    day, rows = listing.day, []
    begin, end = _find_today(listing)
    end = begin + int(
        np.searchsorted(_to_seconds_of_day(listing.history.read_column("exch_s", begin, end)), until, "right")
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


def inquire_time_itemchartprice(listing: AnyListing | None, query: Query, now_s: int) -> Outputs:
    """Up to 30 minute bars at or before a time, into the day before if FID_PW_DATA_INCU_YN is Y."""
    until = _parse_second(query)
    if listing is None:
        return {"output1": {}, "output2": []}
    day = listing.day
    price = day.last or day.previous_close
    output = {
        "prdy_vrss": str(price - day.previous_close),
        "prdy_vrss_sign": encode_sign(price, day),
        "prdy_ctrt": format_ratio(price - day.previous_close, day.previous_close),
        "stck_prdy_clpr": str(day.previous_close),
        "acml_vol": str(day.cum_volume),
        "acml_tr_pbmn": str(day.cum_value),
        "hts_kor_isnm": f"SIM {listing.instrument.symbol}",
        "stck_prpr": str(price),
    }
    bars = _build_bars(listing, until, query.get("FID_PW_DATA_INCU_YN") == "Y")
    return {"output1": output, "output2": (_build_untraded_bars(listing, until, now_s, bars) + bars)[:ROWS]}


def _build_bars(listing: AnyListing, until: int, earlier_days: bool) -> list[dict[str, str]]:
    """The bars of minutes that had trades, newest first."""
    history = listing.history
    begin, end = _find_today(listing)
    seconds = _to_seconds_of_day(history.read_column("exch_s", begin, end))
    end = begin + int(np.searchsorted(seconds, (until // MINUTE_S + 1) * MINUTE_S))
    groups = history.build_groups(end, ROWS, 0 if earlier_days else begin, history.split_by_minute(1))
    if groups is None:
        return []
    columns = (groups.last, groups.open, groups.high, groups.low, groups.volume)
    sums = (groups.rows["cum_value"], groups.rows["exch_s"] // MINUTE_S * MINUTE_S)
    return [
        _build_bar(day.date, format_hhmmss(minute_s), prices, volume, value)
        for *prices, volume, value, minute_s, day in zip(
            *(column[::-1].tolist() for column in (*columns, *sums)), reversed(groups.days), strict=True
        )
    ]


def _build_untraded_bars(
    listing: AnyListing, until: int, now_s: int, bars: list[dict[str, str]]
) -> list[dict[str, str]]:
    """Bars of minutes without a trade, newest first: the current one right after a busy minute, and the future."""
    day, now = listing.day, int(_to_seconds_of_day(now_s)) // MINUTE_S
    if not bars or f"{to_kst(now_s * SECOND_NS):%Y%m%d}" != day.date or bars[0]["stck_bsop_date"] != day.date:
        return []
    last = int(bars[0]["stck_cntg_hour"][:2]) * 60 + int(bars[0]["stck_cntg_hour"][2:4])
    untraded = []
    for minute in range(min(until // MINUTE_S, now + ROWS), now - 1, -1):
        if minute > now or last == now - 1:
            volume = 0 if minute > now else int(bars[0]["cntg_vol"])
            at = f"{minute // 60:02}{minute % 60:02}00"
            untraded.append(_build_bar(day.date, at, [day.last] * 4, volume, day.cum_value))
    return untraded


def _build_bar(date: str, at: str, prices: list[int], volume: int, value: int) -> dict[str, str]:
    names = ("stck_prpr", "stck_oprc", "stck_hgpr", "stck_lwpr")
    texts = {name: str(price) for name, price in zip(names, prices, strict=True)}
    return {
        "stck_bsop_date": date,
        "stck_cntg_hour": at,
        **texts,
        "cntg_vol": str(volume),
        "acml_tr_pbmn": str(value),
    }


def _parse_second(query: Query) -> int:
    """FID_INPUT_HOUR_1 as seconds of the day. InputError."""
    name = "FID_INPUT_HOUR_1"
    at = query.get(name, "")
    if not re.fullmatch(HOUR_PATTERN, at):
        raise InputError(name)
    return int(at[:2]) * 3600 + int(at[2:4]) * 60 + int(at[4:])


def _to_seconds_of_day(exch_s):
    """Seconds since Korean midnight, of one second or of an array of them."""
    return (exch_s + KOREA_S) % DAY_S


def _find_today(listing: AnyListing) -> tuple[int, int]:
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
