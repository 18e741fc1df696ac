"""Kiwoom TRs that show the present: a stock, its book, several stocks, and which stocks there are (pure).

    ka10001 a stock   ka10004 its book   ka10087 its single-price session   ka10095 several   ka10099, ka10100 master data

Guarantees:
    * Names and their order are those of docs/wire/kiwoom.md 5.7 to 5.9; prices, sizes and sums are those of the listing, what
      the market does not know (earnings, ratings, options) is empty.
    * A code that is not listed is refused: never a price of zero with success. In a list of several it is left out.

Not handled here:
    * Trading in the single-price session, which ended in September 2026: ka10087 has its fields, all zero.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from brokers.simulator.exchange.consolidated import AnyListing
from brokers.simulator.exchange.models import Book, DailyStats
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
from brokers.simulator.kiwoom.paging import CODE_PATTERN, Field, TrRequestRejected
from brokers.simulator.masters.entries import ETF, ETN, SPAC, MasterEntry, list_masters

STOCK_PATH, MARKET_PATH = "/api/dostk/stkinfo", "/api/dostk/mrkcond"
MAX_CODES = 100
BATCH_TOO_LARGE = 1634
LEVELS = range(1, 11)
YEAR_DAYS = 250
HUNDRED_MILLION = 10**8
MARKET_CODES = {"KOSPI": "0", "KOSDAQ": "10", "KONEX": "50"}
PRODUCT_CODES = {ETF: "8", ETN: "60"}
MARKET_NAMES = {"0": "거래소", "10": "코스닥", "50": "코넥스", "8": "ETF", "60": "ETN"}
FIGURES = (
    "crd_rt",
    "oyr_hgst",
    "oyr_lwst",
    "mac",
    "mac_wght",
    "for_exh_rt",
    "repl_pric",
    "per",
    "eps",
    "roe",
    "pbr",
    "ev",
    "bps",
    "sale_amt",
    "bus_pro",
    "cup_nga",
)
"""Of ka10001, in its order; what the market knows of them is filled in."""
MARKETS = "0|10|30|50|60|70|80|90|2|3|4|5|6|7|8|9"

Listings = Mapping[str, AnyListing]
"""Listings by the code as Kiwoom writes it."""


class SnapshotTr(NamedTuple):
    """One TR without pages: `build(fields, listings)` is the answer. TrRequestRejected."""

    path: str
    fields: Mapping[str, Field]
    build: Callable[[Mapping[str, str], Listings], Mapping[str, object]]


def find_listing(code: str, listings: Listings) -> AnyListing:
    """The listing of a code. Refused with 1902 for an unknown stock, 1903 for one that the venue does not list."""
    if code in listings:
        return listings[code]
    if code.partition("_")[0] in listings:
        raise TrRequestRejected(2, f"거래소에 종목 정보가 없습니다. 종목코드={code}", 1903)
    raise TrRequestRejected(2, f"종목 정보가 없습니다. 입력한 종목코드 값을 확인바랍니다. 종목코드={code}", 1902)


def build_stock(fields: Mapping[str, str], listings: Listings) -> Mapping[str, object]:
    """ka10001: price, limits, expected price and the range of a year."""
    listing = find_listing(fields["stk_cd"], listings)
    day, book, price = listing.day, _find_book(listing), _find_price(listing.day)
    days = [one.day for one in listing.history.list_traded_days()[-YEAR_DAYS:]] or [day]
    highest, lowest = max(days, key=lambda one: one.high), min(days, key=lambda one: one.low)
    shares = str(day.listed_shares // 1000)
    row = {"stk_cd": fields["stk_cd"][:6], "stk_nm": _format_name(listing), "setl_mm": "12", "fav": "5000", "cap": ""}
    row |= {"flo_stk": shares} | dict.fromkeys(FIGURES, "")
    row |= {"oyr_hgst": format_price(highest.high, day), "oyr_lwst": format_price(lowest.low, day)}
    row |= {"mac": str(price * day.listed_shares // HUNDRED_MILLION)}
    row |= {"250hgst": row["oyr_hgst"], "250lwst": row["oyr_lwst"]}
    row |= {"high_pric": format_price(day.high, day), "open_pric": format_price(day.open, day)}
    row |= {"low_pric": format_price(day.low, day), "upl_pric": f"+{day.upper}", "lst_pric": f"-{day.lower}"}
    row |= {"base_pric": str(day.previous_close)} | _format_expected(book, day)
    for name, other, extreme in (("250hgst", highest, highest.high), ("250lwst", lowest, lowest.low)):
        row |= {f"{name}_pric_dt": other.date, f"{name}_pric_pre_rt": format_percent(price - extreme, extreme)}
    row |= {"cur_prc": format_price(price, day), "pre_sig": encode_sign(price, day)}
    row |= {"pred_pre": format_signed(price - day.previous_close)}
    row |= {"flu_rt": format_percent(price - day.previous_close, day.previous_close)}
    row |= {"trde_qty": str(day.cum_volume), "trde_pre": _format_volume_ratio(day), "fav_unit": "원"}
    return row | {"dstr_stk": shares, "dstr_rt": "100.0"}


def build_book(fields: Mapping[str, str], listings: Listings) -> Mapping[str, object]:
    """ka10004: ten levels; the best one and its change have names of their own."""
    listing = find_listing(fields["stk_cd"], listings)
    day, book = listing.day, _find_book(listing)
    row = {"bid_req_base_tm": book.at}
    for level in reversed(LEVELS):
        size, price = (
            ("sel_fpr_req", "sel_fpr_bid") if level == 1 else (f"sel_{level}th_pre_req", f"sel_{level}th_pre_bid")
        )
        row[f"sel_{level}th_pre_req_pre"] = format_signed(book.ask_change[level - 1])
        row |= {size: str(book.ask_size[level - 1]), price: format_price(book.ask_price[level - 1], day)}
    for level in LEVELS:
        size, price = (
            ("buy_fpr_req", "buy_fpr_bid") if level == 1 else (f"buy_{level}th_pre_req", f"buy_{level}th_pre_bid")
        )
        row |= {price: format_price(book.bid_price[level - 1], day), size: str(book.bid_size[level - 1])}
        row[f"buy_{level}th_pre_req_pre"] = format_signed(book.bid_change[level - 1])
    row |= {"tot_sel_req_jub_pre": format_signed(sum(book.ask_change)), "tot_sel_req": str(book.total_ask)}
    row |= {"tot_buy_req": str(book.total_bid), "tot_buy_req_jub_pre": format_signed(sum(book.bid_change))}
    return row | dict.fromkeys(("ovt_sel_req_pre", "ovt_sel_req", "ovt_buy_req", "ovt_buy_req_pre"), "0")


def build_single_price(fields: Mapping[str, str], listings: Listings) -> Mapping[str, object]:
    """ka10087: nothing is traded in that session any more."""
    find_listing(fields["stk_cd"], listings)
    single, down = "ovt_sigpric", range(5, 0, -1)
    zeros = [f"{single}_sel_bid_jub_pre_{n}" for n in down] + [f"{single}_sel_bid_qty_{n}" for n in down]
    prices = [f"{single}_sel_bid_{n}" for n in down] + [f"{single}_buy_bid_{n}" for n in range(1, 6)]
    sums = [f"{single}_buy_bid_{name}_{n}" for name in ("qty", "jub_pre") for n in range(1, 6)]
    sums += [f"{single}_sel_bid_tot_req", f"{single}_buy_bid_tot_req"]
    for session in ("", "ovt_"):
        sums += [f"{session}{name}" for name in ("sel_bid_tot_req_jub_pre", "sel_bid_tot_req")]
        sums += [f"{session}{name}" for name in ("buy_bid_tot_req", "buy_bid_tot_req_jub_pre")]
    row = (
        {"bid_req_base_tm": "000000"}
        | dict.fromkeys(zeros, "0")
        | dict.fromkeys(prices, "-0")
        | dict.fromkeys(sums, "0")
    )
    row |= {f"{single}_cur_prc": "0", f"{single}_pred_pre_sig": "3", f"{single}_pred_pre": "0"}
    return row | {f"{single}_flu_rt": "0.00", f"{single}_acc_trde_qty": "0"}


def build_snapshots(fields: Mapping[str, str], listings: Listings) -> Mapping[str, object]:
    """ka10095 for codes joined by |; unknown ones are left out, one empty row stands for none. Rejected for too many."""
    codes = [code for code in fields["stk_cd"].split("|") if code]
    if len(codes) > MAX_CODES:
        raise TrRequestRejected(5, "허용된 요청 개수를 초과하였습니다", BATCH_TOO_LARGE)
    rows = [_build_snapshot(listings[code]) for code in codes if code in listings]
    return {"atn_stk_infr": rows or [dict.fromkeys(_build_snapshot(next(iter(listings.values()))), "")]}


def _build_snapshot(listing: AnyListing) -> dict[str, str]:
    """One stock of ka10095."""
    day, book, price = listing.day, _find_book(listing), _find_price(listing.day)
    change = price - day.previous_close
    asks, bids = book.ask_price, book.bid_price
    last = listing.history.read_rows(len(listing.history) - 1)[0] if day.last else None
    side, size = (int(last["side"]), int(last["size"])) if last is not None else (0, 0)
    row = {
        "stk_cd": format_item_code(listing.instrument),
        "stk_nm": _format_name(listing),
        "cur_prc": format_price(price, day),
        "base_pric": str(day.previous_close),
        "pred_pre": format_signed(change),
        "pred_pre_sig": encode_sign(price, day),
        "flu_rt": format_percent(change, day.previous_close),
        "trde_qty": str(day.cum_volume),
        "trde_prica": str((day.cum_value + MILLION // 2) // MILLION),
        "cntr_qty": f"{'+' if side > 0 else '-' if side < 0 else ''}{size}",
        "cntr_str": format_share(day.buy_volume, day.sell_volume),
        "pred_trde_qty_pre": _format_volume_ratio(day),
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
        **_format_expected(book, day),
        "cap": "",
        "fav": "5000",
        "mac": str(price * day.listed_shares // HUNDRED_MILLION),
        "stkcnt": str(day.listed_shares // 1000),
        "bid_tm": book.at,
        "dt": day.date,
        "pri_sel_req": str(book.ask_size[0]),
        "pri_buy_req": str(book.bid_size[0]),
        "pri_sel_cnt": "",
        "pri_buy_cnt": "",
        "tot_sel_req": str(book.total_ask),
        "tot_buy_req": str(book.total_bid),
        "tot_sel_cnt": format_signed(sum(book.ask_change)),
        "tot_buy_cnt": format_signed(sum(book.bid_change)),
        **dict.fromkeys(("prty", "gear", "pl_qutr", "cap_support"), "0.00"),
        "elwexec_pric": "0",
        "cnvt_rt": "0.0000",
        "elwexpr_dt": "00000000",
    }
    options = ("cntr_engg", "cntr_pred_pre", "theory_pric", "innr_vltl", "delta", "gam", "theta", "vega", "law")
    return row | dict.fromkeys(options, "")


def build_universe(fields: Mapping[str, str], listings: Listings) -> Mapping[str, object]:
    """ka10099: the symbols of a market, or of one kind of product; KOSPI's list has its ETFs and ETNs."""
    asked = fields["mrkt_tp"]
    rows = [(_build_master(entry), entry.market) for entry in list_masters(listings.values()) if not entry.only_kis]
    return {"list": [row for row, market in rows if asked in (row["marketCode"], MARKET_CODES[market])]}


def build_master(fields: Mapping[str, str], listings: Listings) -> Mapping[str, object]:
    """ka10100: one stock."""
    symbol = find_listing(fields["stk_cd"], listings).instrument.symbol
    return next(_build_master(entry) for entry in list_masters(listings.values()) if entry.symbol == symbol)


def _build_master(entry: MasterEntry) -> dict[str, str]:
    product = PRODUCT_CODES.get(entry.product, MARKET_CODES[entry.market])
    marks = ["증거금100%" if entry.halted else "증거금20%", *["거래정지"] * entry.halted, *["관리종목"] * entry.managed]
    return {
        "code": entry.symbol.removeprefix("Q"),
        "name": entry.name,
        "listCount": f"{entry.shares:016}",
        "auditInfo": "정상",
        "regDay": entry.listed,
        "lastPrice": f"{entry.close:08}",
        "state": "|".join([*marks, "담보대출", "신용가능"]),
        "marketCode": product,
        "marketName": MARKET_NAMES[product],
        "upName": "",
        "upSizeName": "",
        "companyClassName": "스팩" if entry.product == SPAC else "",
        "orderWarning": "0",
        "nxtEnable": "NY"[entry.on_nxt],
    }


def _find_book(listing: AnyListing) -> Book:
    return listing.last_book or listing.build_book("regular", 0, "000000", 0)


def _find_price(day: DailyStats) -> int:
    return day.last or day.previous_close


def _format_name(listing: AnyListing) -> str:
    return f"SIM {listing.instrument.symbol}"


def _format_expected(book: Book, day: DailyStats) -> dict[str, str]:
    price = format_price(book.expected_price, day) if book.expected_price else "0"
    return {"exp_cntr_pric": price, "exp_cntr_qty": str(book.expected_size)}


def _format_volume_ratio(day: DailyStats) -> str:
    sign = "-" if day.cum_volume < day.previous_volume else "+"
    return f"{sign}{format_share(day.cum_volume, day.previous_volume)}"


_CODE = {"stk_cd": Field(CODE_PATTERN)}
SNAPSHOTS = {
    "ka10001": SnapshotTr(STOCK_PATH, _CODE, build_stock),
    "ka10004": SnapshotTr(MARKET_PATH, _CODE, build_book),
    "ka10087": SnapshotTr(MARKET_PATH, {"stk_cd": Field("[0-9A-Z]{6}")}, build_single_price),
    "ka10095": SnapshotTr(STOCK_PATH, {"stk_cd": Field(".+")}, build_snapshots),
    "ka10099": SnapshotTr(STOCK_PATH, {"mrkt_tp": Field(MARKETS)}, build_universe),
    "ka10100": SnapshotTr(STOCK_PATH, {"stk_cd": Field("[0-9A-Z]{6}")}, build_master),
}
