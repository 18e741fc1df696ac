"""KIS REST minute bars, of today and of past dates (pure).

    asked at 15:08:22 for 15:30     15:30 the unfinished minute     15:29 ... 15:08 volume 0, the last price     15:07 a bar

Guarantees:
    * Newest first, every value a string (docs/wire/kis.md 5); what a bar sums up are the trades the stream sent.
    * Asked for a time to come, the newest row has the time asked for and the unfinished minute's trades, and minutes between
      are filled; asked for the minute at hand, it shows the volume of the one before until its first trade.
    * Past dates are never filled.
"""

from __future__ import annotations

import re
from datetime import datetime

import numpy as np

from brokers.simulator.exchange.consolidated import AnyListing
from brokers.simulator.exchange.trade_history import format_hhmmss
from brokers.simulator.kis.encode import encode_sign, format_ratio
from brokers.simulator.kis.rest_trades import InputError, Outputs, Query, find_today, parse_second, to_seconds_of_day
from conf.clock import KST, SECOND_NS, to_kst

ROWS = 30
ROWS_OF_PAST_DATES = 120
MINUTE_S = 60
DATE_PATTERN = r"[12][0-9]{3}(0[1-9]|1[0-2])(0[1-9]|[12][0-9]|3[01])"

Bar = dict[str, str]


def inquire_time_itemchartprice(listing: AnyListing, query: Query, now_s: int) -> Outputs:
    """Up to 30 minute bars of today at or before a time, into the day before if FID_PW_DATA_INCU_YN is Y."""
    until = parse_second(query)
    begin, end = find_today(listing)
    seconds = to_seconds_of_day(listing.history.read_column("exch_s", begin, end))
    end = begin + int(np.searchsorted(seconds, (until // MINUTE_S + 1) * MINUTE_S))
    bars = _build_bars(listing, end, 0 if _includes_earlier_days(query) else begin, ROWS)
    return {"output1": _build_day(listing), "output2": _fill(listing, until, now_s, bars)[:ROWS]}


def inquire_time_dailychartprice(listing: AnyListing, query: Query, now_s: int) -> Outputs:
    """Up to 120 minute bars of a date at or before a time, into the days before if FID_PW_DATA_INCU_YN is Y."""
    until, date = parse_second(query), query.get("FID_INPUT_DATE_1", "")
    try:
        midnight_s = int(datetime.strptime(date, "%Y%m%d").replace(tzinfo=KST).timestamp())
    except ValueError:
        raise InputError("FID_INPUT_DATE_1") from None
    if not re.fullmatch(DATE_PATTERN, date):
        raise InputError("FID_INPUT_DATE_1")
    begin, end = np.searchsorted(
        listing.history.read_column("exch_s"), [midnight_s, midnight_s + (until // MINUTE_S + 1) * MINUTE_S]
    ).tolist()
    bars = _build_bars(listing, end, 0 if _includes_earlier_days(query) else begin, ROWS_OF_PAST_DATES)
    return {"output1": _build_day(listing), "output2": bars}


def _includes_earlier_days(query: Query) -> bool:
    """FID_PW_DATA_INCU_YN. InputError."""
    name = "FID_PW_DATA_INCU_YN"
    if query.get(name) not in ("Y", "N"):
        raise InputError(name)
    return query[name] == "Y"


def _build_day(listing: AnyListing) -> dict[str, str]:
    """output1: price and sums of the day at hand."""
    day = listing.day
    price = day.last or day.previous_close
    return {
        "prdy_vrss": str(price - day.previous_close),
        "prdy_vrss_sign": encode_sign(price, day),
        "prdy_ctrt": format_ratio(price - day.previous_close, day.previous_close),
        "stck_prdy_clpr": str(day.previous_close),
        "acml_vol": str(day.cum_volume),
        "acml_tr_pbmn": str(day.cum_value),
        "hts_kor_isnm": f"SIM {listing.instrument.symbol}",
        "stck_prpr": str(price),
    }


def _build_bars(listing: AnyListing, end: int, oldest: int, max_rows: int) -> list[Bar]:
    """The bars of minutes that had trades, newest first."""
    history = listing.history
    groups = history.build_groups(end, max_rows, oldest, history.split_by_minute(1)) if end > oldest else None
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


def _fill(listing: AnyListing, until: int, now_s: int, bars: list[Bar]) -> list[Bar]:
    """The bars as the vendor shows them when it is asked for the minute at hand, or for one to come."""
    day, now, asked = listing.day, int(to_seconds_of_day(now_s)) // MINUTE_S, until // MINUTE_S
    if asked < now or not bars or not bars[0]["stck_bsop_date"] == day.date == f"{to_kst(now_s * SECOND_NS):%Y%m%d}":
        return bars
    if bars[0]["stck_cntg_hour"] == _format_minute(now):
        newest, bars = bars[0], bars[1:]
    else:  # nothing was traded yet in the minute at hand
        volume = int(bars[0]["cntg_vol"]) if bars[0]["stck_cntg_hour"] == _format_minute(now - 1) else 0
        newest = _build_bar(day.date, "", [day.last] * 4, volume, day.cum_value)
    value = int(bars[0]["acml_tr_pbmn"]) if bars else 0
    fillers = [
        _build_bar(day.date, _format_minute(minute), [day.last] * 4, 0, value)
        for minute in range(asked - 1, max(now, asked - ROWS) - 1, -1)
    ]
    return [newest | {"stck_cntg_hour": _format_minute(asked)}, *fillers, *bars]


def _format_minute(minute: int) -> str:
    return f"{minute // 60:02}{minute % 60:02}00"


def _build_bar(date: str, at: str, prices: list[int], volume: int, value: int) -> Bar:
    names = ("stck_prpr", "stck_oprc", "stck_hgpr", "stck_lwpr")
    texts = {name: str(price) for name, price in zip(names, prices, strict=True)}
    return {
        "stck_bsop_date": date,
        "stck_cntg_hour": at,
        **texts,
        "cntg_vol": str(volume),
        "acml_tr_pbmn": str(value),
    }
