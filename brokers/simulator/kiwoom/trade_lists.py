"""Kiwoom trade lists: ka10003 last trades, ka10084 and ka10055 trades of a day (pure).

Guarantees:
    * acc_trde_qty advances from row to row by the row's own quantity; the side is the sign of the quantity, none for an
      auction (docs/wire/kiwoom.md 5.4 to 5.6).
    * Values are won in ka10003, million won elsewhere.
"""

from __future__ import annotations

from datetime import datetime

import numpy as np

from brokers.simulator.exchange.models import DailyStats
from brokers.simulator.exchange.trade_history import format_hhmmss
from brokers.simulator.kiwoom.encode import (
    MILLION,
    encode_sign,
    format_percent,
    format_price,
    format_share,
    format_signed,
)
from brokers.simulator.kiwoom.paging import CODE_PATTERN, EMPTY_PAGE, Field, ListRequest, Page, Tr
from conf.clock import KST
from conf.instrument import Instrument

PATH = "/api/dostk/stkinfo"
LAST_ROWS = 30
TRADE_ROWS = 100
VENUE_NAME = {"KRX": "KRX", "NXT": "NXT", "UN": "통합"}


def build_last_trades(request: ListRequest) -> Page:
    """ka10003: the last thirty."""
    history = request.listing.history
    end = len(history)
    if not end:
        return EMPTY_PAGE
    first = max(history.list_traded_days()[-1].first, end - LAST_ROWS)
    return Page(
        _build_trade_rows(
            history.read_rows(first, end), history.list_traded_days()[-1].day, request.listing.instrument, 1
        ),
        end,
    )


def build_day_trades(request: ListRequest) -> Page:
    """ka10084: trades of today or of the trading day before, up to a minute; by trades in pages, or one row a minute."""
    history, fields = request.listing.history, request.fields
    days = len(history.list_traded_days()) - int(fields["tdy_pred"])
    if days < 0:
        return EMPTY_PAGE
    begin, end = history.find_day_rows(days)
    day = history.list_traded_days()[days].day
    if request.start is not None:
        end = min(request.start, end)
    elif fields["tm"]:
        at = datetime.strptime(day.date + fields["tm"], "%Y%m%d%H%M").replace(tzinfo=KST).timestamp() + 60
        end = begin + int(np.searchsorted(history.read_column("exch_s", begin, end), at))
    if end <= begin:
        return EMPTY_PAGE
    if fields["tic_min"] == "1":
        groups = history.build_groups(end, end - begin, begin, history.split_by_minute(1))
        assert groups is not None
        rows = _build_trade_rows(groups.rows, day, request.listing.instrument, MILLION, groups.volume.tolist())
        return Page(rows, end)
    first = max(begin, end - TRADE_ROWS)
    rows = _build_trade_rows(history.read_rows(first, end), day, request.listing.instrument, MILLION)
    return Page(rows, end, first if first > begin else None)


def _build_trade_rows(
    rows: np.ndarray, day: DailyStats, instrument: Instrument, unit: int, minute_volumes: list[int] | None = None
) -> list[dict[str, str]]:
    """The twelve fields of each trade, newest first; for minutes the quantity is the minute's and its time the minute."""
    names = ("exch_s", "price", "side", "size", "cum_volume", "cum_value", "sell_volume", "buy_volume")
    columns = [rows[name].tolist() for name in (*names, "ask_price_1", "bid_price_1")]
    venue = VENUE_NAME[instrument.venue]
    answer = []
    for place, (exch_s, price, side, size, volume, value, sold, bought, ask, bid) in enumerate(
        zip(*columns, strict=True)
    ):
        quantity = f"{'+' if side > 0 else '-' if side < 0 else ''}{size}"
        at = format_hhmmss(exch_s)
        if minute_volumes is not None:
            quantity, at = str(minute_volumes[place]), at[:4] + "00"
        answer.append(
            {
                "tm": at,
                "cur_prc": format_price(price, day),
                "pred_pre": format_signed(price - day.previous_close),
                "pre_rt": format_percent(price - day.previous_close, day.previous_close),
                "pri_sel_bid_unit": format_price(ask, day),
                "pri_buy_bid_unit": format_price(bid, day),
                "cntr_trde_qty": quantity,
                "sign": encode_sign(price, day),
                "acc_trde_qty": str(volume),
                "acc_trde_prica": str((value + unit // 2) // unit),
                "cntr_str": format_share(bought, sold),
                "stex_tp": venue,
            }
        )
    return answer[::-1]


def build_trade_sums(request: ListRequest) -> Page:
    """ka10055: the trades of ka10084 in fewer fields (docs/wire/kiwoom.md 5.6)."""
    page = build_day_trades(request._replace(fields={**request.fields, "tic_min": "0", "tm": ""}))
    return page._replace(rows=[{new: row[old] for old, new in _SUM_FIELDS.items()} for row in page.rows])


_SUM_FIELDS = {
    "tm": "cntr_tm",
    "cur_prc": "cntr_pric",
    "sign": "pred_pre_sig",
    "pred_pre": "pred_pre",
    "pre_rt": "flu_rt",
    "cntr_trde_qty": "cntr_qty",
    "acc_trde_qty": "acc_trde_qty",
    "acc_trde_prica": "acc_trde_prica",
}
"""Its fields by the names that ka10084 has for them."""
_TRADE_FIELDS: tuple[str, ...] = (
    "tm",
    "cur_prc",
    "pred_pre",
    "pre_rt",
    "pri_sel_bid_unit",
    "pri_buy_bid_unit",
    "cntr_trde_qty",
    "sign",
)
_TRADE_FIELDS += ("acc_trde_qty", "acc_trde_prica", "cntr_str", "stex_tp")

TRADE_LISTS = {
    "ka10003": Tr(PATH, "cntr_infr", {"stk_cd": Field(CODE_PATTERN)}, _TRADE_FIELDS, build_last_trades),
    "ka10084": Tr(
        PATH,
        "tdy_pred_cntr",
        {
            "stk_cd": Field(CODE_PATTERN),
            "tdy_pred": Field("[12]"),
            "tic_min": Field("[01]"),
            "tm": Field("([01][0-9]|2[0-3])[0-5][0-9]", optional=True),
        },
        _TRADE_FIELDS,
        build_day_trades,
        head_moves=True,
    ),
    "ka10055": Tr(
        PATH,
        "tdy_pred_cntr_qty",
        {"stk_cd": Field(CODE_PATTERN), "tdy_pred": Field("[12]")},
        tuple(_SUM_FIELDS.values()),
        build_trade_sums,
        head_moves=True,
    ),
}
