"""KIS REST book with the expected price (pure).

Guarantees:
    * Levels, sizes, changes and totals are those of the last book of the stream, every value a string (docs/wire/kis.md 5).
"""

from __future__ import annotations

from brokers.simulator.exchange.consolidated import AnyListing
from brokers.simulator.kis.encode import OPERATION_CODE, encode_sign, format_ratio
from brokers.simulator.kis.rest_trades import Outputs, Query

EXPECTED_PHASE_CODE = {"opening_auction": "311", "closing_auction": "121"}
EXPECTED_ENDED = "112"


def inquire_asking_price_exp_ccn(listing: AnyListing, query: Query, now_s: int) -> Outputs:
    """output1: the book; output2: price, day range and what an auction would execute."""
    day, book = listing.day, listing.last_book or listing.build_book("regular", 0, "000000", 0)
    levels: dict[str, str] = {"aspr_acpt_hour": book.at}
    for name, values in (
        ("askp", book.ask_price),
        ("bidp", book.bid_price),
        ("askp_rsqn", book.ask_size),
        ("bidp_rsqn", book.bid_size),
        ("askp_rsqn_icdc", book.ask_change),
        ("bidp_rsqn_icdc", book.bid_change),
    ):
        levels |= {f"{name}{level}": str(value) for level, value in enumerate(values, 1)}
    levels |= {
        "total_askp_rsqn": str(book.total_ask),
        "total_bidp_rsqn": str(book.total_bid),
        "total_askp_rsqn_icdc": str(sum(book.ask_change)),
        "total_bidp_rsqn_icdc": str(sum(book.bid_change)),
        "ovtm_total_askp_icdc": "0",
        "ovtm_total_bidp_icdc": "0",
        "ovtm_total_askp_rsqn": "0",
        "ovtm_total_bidp_rsqn": "0",
        "ntby_aspr_rsqn": str(book.total_bid - book.total_ask),
        "new_mkop_cls_code": OPERATION_CODE.get(book.phase, "20"),
    }
    expected = book.expected_price
    change = expected - day.previous_close if expected else 0
    prices = {
        "antc_mkop_cls_code": EXPECTED_PHASE_CODE.get(book.phase, EXPECTED_ENDED),
        "stck_prpr": str(day.last or day.previous_close),
        "stck_oprc": str(day.open),
        "stck_hgpr": str(day.high),
        "stck_lwpr": str(day.low),
        "stck_sdpr": str(day.previous_close),
        "antc_cnpr": str(expected),
        "antc_cntg_vrss_sign": encode_sign(expected, day) if expected else "3",
        "antc_cntg_vrss": str(change),
        "antc_cntg_prdy_ctrt": format_ratio(change, day.previous_close),
        "antc_vol": str(book.expected_size),
        "stck_shrn_iscd": listing.instrument.symbol,
        "vi_cls_code": "N",
    }
    return {"output1": levels, "output2": prices}
