"""Kiwoom's prints and snapshots: ka10003 the last trades, ka10084 those of a day, ka10095 many stocks at a glance.

Promises: pure; acc_trde_qty chains from row to row by the row's own quantity, as on the wire; the side is in the sign of the
quantity, none for an auction (spec kiwoom 5.4, 5.5, 5.8). Value is won in ka10003, million won elsewhere.
Leaves to others: pages' keys, limits, faults (kiwoom_pages.py, kiwoom_rest.py), charts (kiwoom_charts.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import numpy as np

from brokers.simulator.exchange.listing import Listing
from brokers.simulator.exchange.models import Day
from brokers.simulator.exchange.trade_history import hhmmss
from brokers.simulator.kiwoom.encode import MILLION, item_code, percent, priced, share, sign_code, signed
from brokers.simulator.kiwoom.paging import CODE, EMPTY, Asked, Field, Page, Refused, Tr
from conf.clock import KST
from conf.instrument import Instrument

PATH = "/api/dostk/stkinfo"
LAST_ROWS = 30
PRINT_ROWS = 100
MOST_CODES = 100
VENUE_NAME = {"KRX": "KRX", "NXT": "NXT", "UN": "통합"}
BATCH_TOO_LARGE = 1634


def last_prints(asked: Asked) -> Page:
    """ka10003: the last thirty."""
    tape = asked.listing.tape
    end = len(tape)
    if not end:
        return EMPTY
    first = max(tape.traded()[-1].first, end - LAST_ROWS)
    return Page(_prints(tape.rows(first, end), tape.traded()[-1].day, asked.listing.instrument, 1), end)


def day_prints(asked: Asked) -> Page:
    """ka10084: prints of today or of the trading day before, up to a minute; by trades in pages, or one row a minute."""
    tape, fields = asked.listing.tape, asked.fields
    days = len(tape.traded()) - int(fields["tdy_pred"])
    if days < 0:
        return EMPTY
    begin, end = tape.span(days)
    day = tape.traded()[days].day
    if asked.start is not None:
        end = min(asked.start, end)
    elif fields["tm"]:
        at = datetime.strptime(day.date + fields["tm"], "%Y%m%d%H%M").replace(tzinfo=KST).timestamp() + 60
        end = begin + int(np.searchsorted(tape.column("exch_s", begin, end), at))
    if end <= begin:
        return EMPTY
    if fields["tic_min"] == "1":
        groups = tape.groups(end, end - begin, begin, tape.by_minute(1))
        assert groups is not None
        rows = _prints(groups.rows, day, asked.listing.instrument, MILLION, groups.volume.tolist())
        return Page(rows, end)
    first = max(begin, end - PRINT_ROWS)
    rows = _prints(tape.rows(first, end), day, asked.listing.instrument, MILLION)
    return Page(rows, end, first if first > begin else None)


def _prints(
    rows: np.ndarray, day: Day, instrument: Instrument, unit: int, minute_volumes: list[int] | None = None
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
        at = hhmmss(exch_s)
        if minute_volumes is not None:
            quantity, at = str(minute_volumes[place]), at[:4] + "00"
        answer.append(
            {
                "tm": at,
                "cur_prc": priced(price, day),
                "pred_pre": signed(price - day.previous_close),
                "pre_rt": percent(price - day.previous_close, day.previous_close),
                "pri_sel_bid_unit": priced(ask, day),
                "pri_buy_bid_unit": priced(bid, day),
                "cntr_trde_qty": quantity,
                "sign": sign_code(price, day),
                "acc_trde_qty": str(volume),
                "acc_trde_prica": str((value + unit // 2) // unit),
                "cntr_str": share(bought, sold),
                "stex_tp": venue,
            }
        )
    return answer[::-1]


def snapshots(codes: str, items: Mapping[str, Listing]) -> list[dict[str, str]]:
    """ka10095 for codes joined by |; those that do not exist are left out. Refused for too many of them, or none."""
    names = [name for name in codes.split("|") if name]
    if len(names) > MOST_CODES:
        raise Refused(5, "허용된 요청 개수를 초과하였습니다", BATCH_TOO_LARGE)
    if not names:
        raise Refused(2, "필수 입력 값에 값이 존재하지 않습니다. 필수입력 파라미터=stk_cd", 1511)
    return [_snapshot(items[name]) for name in names if name in items] or [dict.fromkeys(("stk_cd", "cur_prc"), "")]


def _snapshot(listing: Listing) -> dict[str, str]:
    """One stock of ka10095: what is not known here is empty."""
    day = listing.day
    book = listing.shown or listing.view("regular", 0, "000000", 0)
    price = day.last or day.previous_close
    change = price - day.previous_close
    asks, bids = book.ask_price, book.bid_price
    last = listing.tape.rows(len(listing.tape) - 1)[0] if day.last else None
    side, size = (int(last["side"]), int(last["size"])) if last is not None else (0, 0)
    grown = day.cum_volume - day.previous_volume
    row = {
        "stk_cd": item_code(listing.instrument),
        "stk_nm": f"SIM {listing.instrument.symbol}",
        "cur_prc": priced(price, day),
        "base_pric": str(day.previous_close),
        "pred_pre": signed(change),
        "pred_pre_sig": sign_code(price, day),
        "flu_rt": percent(change, day.previous_close),
        "trde_qty": str(day.cum_volume),
        "trde_prica": str((day.cum_value + MILLION // 2) // MILLION),
        "cntr_qty": f"{'+' if side > 0 else '-' if side < 0 else ''}{size}",
        "cntr_str": share(day.buy_volume, day.sell_volume),
        "pred_trde_qty_pre": f"{'-' if grown < 0 else '+'}{share(day.cum_volume, day.previous_volume)}",
        "sel_bid": priced(asks[0], day),
        "buy_bid": priced(bids[0], day),
    }
    row |= {f"sel_{level}th_bid": priced(asks[level - 1], day) for level in range(1, 6)}
    row |= {f"buy_{level}th_bid": priced(bids[level - 1], day) for level in range(1, 6)}
    row |= {
        "upl_pric": f"+{day.upper}",
        "lst_pric": f"-{day.lower}",
        "open_pric": priced(day.open, day),
        "high_pric": priced(day.high, day),
        "low_pric": priced(day.low, day),
        "close_pric": priced(price, day),
        "cntr_tm": hhmmss(int(last["exch_s"])) if last is not None else "000000",
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


_PRINT = ("tm", "cur_prc", "pred_pre", "pre_rt", "pri_sel_bid_unit", "pri_buy_bid_unit", "cntr_trde_qty", "sign")
_PRINT += ("acc_trde_qty", "acc_trde_prica", "cntr_str", "stex_tp")

PRINTS = {
    "ka10003": Tr(PATH, "cntr_infr", {"stk_cd": Field(CODE)}, _PRINT, last_prints),
    "ka10084": Tr(
        PATH,
        "tdy_pred_cntr",
        {
            "stk_cd": Field(CODE),
            "tdy_pred": Field("[12]"),
            "tic_min": Field("[01]"),
            "tm": Field("([01][0-9]|2[0-3])[0-5][0-9]", optional=True),
        },
        _PRINT,
        day_prints,
        moving=True,
    ),
}
SNAPSHOT_ID, SNAPSHOT_KEY = "ka10095", "atn_stk_infr"
