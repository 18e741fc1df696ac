"""Kiwoom trade lists and snapshots: ka10003 last trades, ka10084 trades of a day, ka10095 several stocks (pure).

Guarantees:
    * acc_trde_qty advances from row to row by the row's own quantity; the side is the sign of the quantity, none for an
      auction (docs/wire/kiwoom.md 5.4, 5.5, 5.8).
    * Values are won in ka10003, million won elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import numpy as np

from brokers.simulator.exchange.consolidated import AnyListing
from brokers.simulator.exchange.models import DailyStats
from brokers.simulator.exchange.trade_history import format_hhmmss
from brokers.simulator.kiwoom.encode import (
    MILLION,
    encode_sign,
    format_item_code,
    format_percent,
    format_price,
    format_share,
    format_signed,
)
from brokers.simulator.kiwoom.paging import CODE_PATTERN, EMPTY_PAGE, Field, ListRequest, Page, Tr, TrRequestRejected
from conf.clock import KST
from conf.instrument import Instrument

PATH = "/api/dostk/stkinfo"
LAST_ROWS = 30
TRADE_ROWS = 100
MAX_CODES = 100
VENUE_NAME = {"KRX": "KRX", "NXT": "NXT", "UN": "통합"}
BATCH_TOO_LARGE = 1634


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


def build_snapshots(codes: str, items: Mapping[str, AnyListing]) -> list[dict[str, str]]:
    """ka10095 for codes joined by |; unknown ones are skipped. Rejected for too many of them, or none."""
    names = [name for name in codes.split("|") if name]
    if len(names) > MAX_CODES:
        raise TrRequestRejected(5, "허용된 요청 개수를 초과하였습니다", BATCH_TOO_LARGE)
    if not names:
        raise TrRequestRejected(2, "필수 입력 값에 값이 존재하지 않습니다. 필수입력 파라미터=stk_cd", 1511)
    return [_build_snapshot(items[name]) for name in names if name in items] or [
        dict.fromkeys(("stk_cd", "cur_prc"), "")
    ]


def _build_snapshot(listing: AnyListing) -> dict[str, str]:
    """One stock of ka10095: what is not known here is empty."""
    day = listing.day
    book = listing.last_book or listing.build_book("regular", 0, "000000", 0)
    price = day.last or day.previous_close
    change = price - day.previous_close
    asks, bids = book.ask_price, book.bid_price
    last = listing.history.read_rows(len(listing.history) - 1)[0] if day.last else None
    side, size = (int(last["side"]), int(last["size"])) if last is not None else (0, 0)
    grown = day.cum_volume - day.previous_volume
    row = {
        "stk_cd": format_item_code(listing.instrument),
        "stk_nm": f"SIM {listing.instrument.symbol}",
        "cur_prc": format_price(price, day),
        "base_pric": str(day.previous_close),
        "pred_pre": format_signed(change),
        "pred_pre_sig": encode_sign(price, day),
        "flu_rt": format_percent(change, day.previous_close),
        "trde_qty": str(day.cum_volume),
        "trde_prica": str((day.cum_value + MILLION // 2) // MILLION),
        "cntr_qty": f"{'+' if side > 0 else '-' if side < 0 else ''}{size}",
        "cntr_str": format_share(day.buy_volume, day.sell_volume),
        "pred_trde_qty_pre": f"{'-' if grown < 0 else '+'}{format_share(day.cum_volume, day.previous_volume)}",
        "sel_bid": format_price(asks[0], day),
        "buy_bid": format_price(bids[0], day),
    }
    row |= {f"sel_{level}th_bid": format_price(asks[level - 1], day) for level in range(1, 6)}
    row |= {f"buy_{level}th_bid": format_price(bids[level - 1], day) for level in range(1, 6)}
    row |= {
        "upl_pric": f"+{day.upper}",
        "lst_pric": f"-{day.lower}",
        "open_pric": format_price(day.open, day),
        "high_pric": format_price(day.high, day),
        "low_pric": format_price(day.low, day),
        "close_pric": format_price(price, day),
        "cntr_tm": format_hhmmss(int(last["exch_s"])) if last is not None else "000000",
        "exp_cntr_pric": str(book.expected_price),
        "exp_cntr_qty": str(book.expected_size),
        "stkcnt": str(day.listed_shares // 1000),
        "bid_tm": book.at,
        "dt": day.date,
        "pri_sel_req": str(book.ask_size[0]),
        "pri_buy_req": str(book.bid_size[0]),
        "tot_sel_req": str(book.total_ask),
        "tot_buy_req": str(book.total_bid),
    }
    return row


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
}
SNAPSHOT_ID, SNAPSHOT_KEY = "ka10095", "atn_stk_infr"
