"""KIS frames of ring records, whichever feed they came from (pure).

    TICK, ORDERBOOK record ──> fields that the collector keeps, at their places ──> 0|H0STCNT0|001|...

Guarantees:
    * A field that the collector keeps has its value, and is empty where the record has none; NOT_KEPT is the rest.
    * What is not kept is filled so that a client can parse it: 0 for a number, 000000 for a time, 3 for a sign code.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from brokers.simulator.kis.encode import (
    BOOK_TR,
    BOOK_WIDTH,
    HOUR_CODE,
    MARKET_CODE,
    NO_SIDE,
    OPERATION_CODE,
    TRADE_TR,
    WIDTH,
    resize,
)
from conf.clock import to_kst
from conf.instrument import Instrument
from ringbuf.records import PRICE_SCALE, UNDEFINED, Flag, Session

UNCHANGED = "3"
NO_TIME = "000000"
NOT_KEPT = (*range(3, 10), *range(15, 21), *range(22, 33), *range(36, 43), 44, 45)
"""Fields of a trade (docs/wire/kis.md 4.1) that no record has."""
BOOK_NOT_KEPT = (45, 46, *range(49, 53), *range(54, 59), 61)
"""Fields of a KRX book (docs/wire/kis.md 4.2) that no record has."""
_TRADE = ["0"] * WIDTH
for _at in (3, 25, 28, 31):
    _TRADE[_at] = UNCHANGED
for _at in (24, 27, 30):
    _TRADE[_at] = NO_TIME
_TRADE[44] = ""
_WIDE_BOOK = 66
_BOOK = ["0"] * _WIDE_BOOK
_BOOK[51] = UNCHANGED
_MID = {"NXT": 62}
_BOOK_WIDTHS = {"NXT": 65, "UN": _WIDE_BOOK}
_OTHER_SESSION = "30"
"""An operation code that names no session."""


def encode_record(stream: str, record: Mapping[str, Any], instrument: Instrument, widths: tuple[int, int]) -> bytes:
    """A record, by the names of its fields, as one frame, (trade, KRX book) fields wide."""
    if stream == "tick":
        fields = resize(encode_tick(record, instrument), widths[0] - WIDTH)
        return f"0|{TRADE_TR[instrument.venue]}|001|{'^'.join(fields)}".encode()
    min_extra = {"NXT": 0, "UN": -1}.get(instrument.venue, widths[1] - BOOK_WIDTH)
    fields = resize(encode_book(record, instrument), max(widths[1] - BOOK_WIDTH, min_extra))
    return f"0|{BOOK_TR[instrument.venue]}|001|{'^'.join(fields)}".encode()


def encode_tick(record: Mapping[str, Any], instrument: Instrument) -> list[str]:
    """The 47 fields of docs/wire/kis.md 4.1."""
    at, session = to_kst(record["exch_ns"]), Session(record["session"]).name.lower()
    fields = _TRADE.copy()
    fields[:3] = [instrument.symbol, f"{at:%H%M%S}", format_price(record["price_e4"])]
    fields[10:15] = [
        format_price(record["ask_price_1_e4"]),
        format_price(record["bid_price_1_e4"]),
        str(record["size"]),
        format_optional(record["cum_volume"]),
        format_optional(record["cum_value"]),
    ]
    fields[21] = {1: "1", -1: "5"}.get(record["side"], NO_SIDE)
    is_labelled = session != "unknown"
    fields[33:36] = [
        f"{at:%Y%m%d}",
        OPERATION_CODE.get(session, "20") if is_labelled else _OTHER_SESSION,
        "Y" if record["flags"] & Flag.HALTED else "N",
    ]
    fields[43] = HOUR_CODE.get(session, "0")
    fields[46] = MARKET_CODE.get(session, "2") if is_labelled else ""
    return fields


def encode_book(record: Mapping[str, Any], instrument: Instrument) -> list[str]:
    """The 63 fields of docs/wire/kis.md 4.2; 65 for NXT and 66 for the unified book."""
    session = Session(record["session"]).name.lower()
    is_labelled = session != "unknown"
    fields = _BOOK[: _BOOK_WIDTHS.get(instrument.venue, BOOK_WIDTH)]
    fields[:3] = [
        instrument.symbol,
        f"{to_kst(record['exch_ns']):%H%M%S}",
        HOUR_CODE.get(session, "0") if is_labelled else "",
    ]
    fields[3:45] = [
        *map(format_price, record["ask_price_e4"]),
        *map(format_price, record["bid_price_e4"]),
        *map(str, record["ask_size"]),
        *map(str, record["bid_size"]),
        format_optional(record["total_ask_size"]),
        format_optional(record["total_bid_size"]),
    ]
    fields[47:49] = [format_price(record["expected_price_e4"]), format_optional(record["expected_size"])]
    fields[53] = format_optional(record["cum_volume"])
    mid = _MID.get(instrument.venue, 59)
    fields[mid : mid + 2] = [format_price(record["mid_price_e4"]), format_optional(record["mid_size"])]
    if instrument.venue == "KRX":
        fields[62] = MARKET_CODE.get(session, "2") if is_labelled else ""
    return fields


def format_price(price_e4: int) -> str:
    """A price in won, with its fraction if it has one; empty where the record has none."""
    if price_e4 == UNDEFINED:
        return ""
    won, fraction = divmod(price_e4, PRICE_SCALE)
    return f"{won}.{fraction:04}".rstrip("0") if fraction else str(won)


def format_optional(number: int) -> str:
    """A number; empty where the record has none."""
    return "" if number == UNDEFINED else str(number)
