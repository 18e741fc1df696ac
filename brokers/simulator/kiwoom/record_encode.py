"""Kiwoom entries of ring records, whichever feed they came from (pure).

    TICK, ORDERBOOK record ──> FIDs that the collector keeps, the others empty ──> {"data":[{"values":...}],"trnm":"REAL"}

Guarantees:
    * A FID that the collector keeps has its value, and is empty where the record has none; all others are empty, which is a
      missing value (docs/wire/kiwoom.md 1.7).
    * Prices have no sign: the previous close is not kept. A fraction of a won is cut off, a value is in million won.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from brokers.simulator.kiwoom.encode import (
    AFTER,
    BEFORE,
    MILLION,
    REGULAR,
    build_entry,
    build_real_frame,
    format_item_code,
    format_signed,
)
from conf.clock import to_kst
from conf.instrument import Instrument
from ringbuf.records import PRICE_SCALE, UNDEFINED, Session

TRADE_FIDS = tuple(
    str(fid)
    for fids in (
        (20, 10, 11, 12, 27, 28, 15, 13, 14, 16, 17, 18, 25, 26, 29, 30, 31, 32, 228, 311, 290, 691, 567, 568, 851),
        (1890, 1891, 1892, 1030, 1031, 1032, 1071, 1072, 1313, 1315, 1316, 1314, 1497, 1498, 620, 732, 852, 9081),
    )
    for fid in fids
)
"""The FIDs of a trade, in the order of docs/wire/kiwoom.md 3.1."""
BOOK_FIDS = tuple(
    str(fid)
    for fids in (
        (21, *range(41, 101), 121, 122, 125, 126, 23, 24, 128, 129, 138, 139, 200, 201, 238, *range(291, 296)),
        (*range(621, 641), 13, 299, 215, 216, *range(6044, 6088), *range(6100, 6116)),
    )
    for fid in fids
)
"""The FIDs of a book, in the order of docs/wire/kiwoom.md 3.2."""
KEPT = ("20", "10", "27", "28", "15", "13", "14", "29", "290", "9081")
BOOK_KEPT = (
    *("21", *map(str, range(41, 81)), "121", "125", "23", "24", "291", "292", "13"),
    *("6102", "6107"),
)
"""Of them those that a record has; of the midpoint the price alone, since its side is not kept."""
_EMPTY_TRADE, _EMPTY_BOOK = dict.fromkeys(TRADE_FIDS, ""), dict.fromkeys(BOOK_FIDS, "")
_SESSION_CODES = {
    Session.PRE_MARKET: BEFORE,
    Session.OPENING_AUCTION: BEFORE,
    Session.CLOSING_PRICE: AFTER,
    Session.AFTER_MARKET: AFTER,
    Session.UNKNOWN: "",
}
_VENUE_NAMES = {"KRX": "KRX", "NXT": "NXT"}
_SIDES = {1: "+", -1: "-"}


def encode_record(stream: str, record: Mapping[str, Any], instrument: Instrument) -> bytes:
    """A record, by the names of its fields, as a frame of one entry."""
    kind, values = (
        ("0B", encode_tick(record, instrument)) if stream == "tick" else ("0D", encode_book(record, instrument))
    )
    return build_real_frame([build_entry(kind, format_item_code(instrument), values)])


def encode_tick(record: Mapping[str, Any], instrument: Instrument) -> dict[str, str]:
    """The 43 FIDs of docs/wire/kiwoom.md 3.1."""
    value, change = record["cum_value"], record["value_change"]
    return _EMPTY_TRADE | {
        "20": f"{to_kst(record['exch_ns']):%H%M%S}",
        "10": format_price(record["price_e4"]),
        "27": format_price(record["ask_price_1_e4"]),
        "28": format_price(record["bid_price_1_e4"]),
        "15": f"{_SIDES.get(record['side'], '')}{record['size']}",
        "13": format_optional(record["cum_volume"]),
        "14": "" if value == UNDEFINED else str((value + MILLION // 2) // MILLION),
        "29": "" if change == UNDEFINED else format_signed(change),
        "290": _SESSION_CODES.get(record["session"], REGULAR),
        "9081": _VENUE_NAMES.get(instrument.venue, "통합"),
    }


def encode_book(record: Mapping[str, Any], instrument: Instrument) -> dict[str, str]:
    """The FIDs of docs/wire/kiwoom.md 3.2, in the table's order."""
    values = _EMPTY_BOOK | {"21": f"{to_kst(record['exch_ns']):%H%M%S}"}
    for first, prices in ((41, record["ask_price_e4"]), (51, record["bid_price_e4"])):
        values.update((str(first + level), format_price(price)) for level, price in enumerate(prices))
    for first, sizes in ((61, record["ask_size"]), (71, record["bid_size"])):
        values.update((str(first + level), str(size)) for level, size in enumerate(sizes))
    expected, amount = format_price(record["expected_price_e4"]), format_optional(record["expected_size"])
    values |= {
        "121": format_optional(record["total_ask_size"]),
        "125": format_optional(record["total_bid_size"]),
        "23": expected,
        "24": amount,
        "291": expected,
        "292": amount,
        "13": format_optional(record["cum_volume"]),
        "6107" if instrument.venue == "NXT" else "6102": format_price(record["mid_price_e4"]),
    }
    return values


def format_price(price_e4: int) -> str:
    """A price in whole won; empty where the record has none."""
    return "" if price_e4 == UNDEFINED else str(price_e4 // PRICE_SCALE)


def format_optional(number: int) -> str:
    """A number; empty where the record has none."""
    return "" if number == UNDEFINED else str(number)
