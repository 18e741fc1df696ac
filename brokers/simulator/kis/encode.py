"""KIS frame encoder: trades and books as H0STCNT0, H0STASP0 and their NXT and unified counterparts (pure).

    0|H0STCNT0|003|f0^f1^...^f46^f0^...        records follow each other without a separator (docs/wire/kis.md 3)

Guarantees:
    * Field order, formats and empty positions are those of docs/wire/kis.md 4.1, 4.2; the identities of section 3 hold.
"""

from __future__ import annotations

from brokers.simulator.exchange.models import Book, DailyStats, Trade
from brokers.simulator.gateway.client import EncodedFrame, QueuedItem
from brokers.simulator.ground_truth import Stream

TRADE_TR = {"KRX": "H0STCNT0", "NXT": "H0NXCNT0", "UN": "H0UNCNT0"}
BOOK_TR = {"KRX": "H0STASP0", "NXT": "H0NXASP0", "UN": "H0UNASP0"}
WIDTH, BOOK_WIDTH = 47, 63
PROFILES = {"46/59": (46, 59), "46/62": (46, 62), "47/63": (47, 63), "48/64": (48, 64)}
"""Fields of a trade and of a KRX book: as the document has it, before 2026-09-14, since then, one day (docs/wire/kis.md 3)."""
MIN_KNOWN_WIDTH = 46
MAX_RECORDS = 20
NO_SIDE = "3"

MARKET_CODE = {"pre_market": "1", "after_market": "3", "closing_price": "5"}
OPERATION_CODE = {"pre_market": "10", "after_market": "30", "closing_price": "31"}
HOUR_CODE = {"opening_auction": "B", "closing_auction": "A", "intraday_auction": "C"}


def encode_frames(items: list[QueuedItem], widths: tuple[int, int]) -> list[EncodedFrame]:
    """The frames for `items`, (trade, book) fields wide: a book each, trades up to twenty together."""
    trade_extra, book_extra = widths[0] - WIDTH, widths[1] - BOOK_WIDTH
    corrupted = widths[0] < MIN_KNOWN_WIDTH
    encoded = []
    for item in items:
        if isinstance(item.content, Book):
            # NXT books were left out of the change (docs/wire/kis.md 3), unified ones were not that narrow before.
            min_extra = {"NXT": 0, "UN": -1}.get(item.instrument.venue, book_extra)
            text = "^".join(resize(encode_book(item.content), max(book_extra, min_extra)))
            payload = f"0|{BOOK_TR[item.instrument.venue]}|001|{text}".encode()
            encoded.append(EncodedFrame(payload, [(Stream.BOOK, item.content.id, item.content.id)], corrupted))
            continue
        for start in range(0, len(item.content), MAX_RECORDS):
            batch = item.content[start : start + MAX_RECORDS]
            text = "^".join("^".join(resize(encode_trade(trade), trade_extra)) for trade in batch)
            payload = f"0|{TRADE_TR[item.instrument.venue]}|{len(batch):03}|{text}".encode()
            encoded.append(EncodedFrame(payload, [(Stream.TICK, trade.id, trade.id) for trade in batch], corrupted))
    return encoded


def resize(fields: list[str], extra: int) -> list[str]:
    """`fields` with `extra` further ones, or cut by as many where negative."""
    return fields[:extra] if extra < 0 else fields + ["0"] * extra


def encode_sign(price: int, day: DailyStats) -> str:
    """The code of a price against the previous close: 1 upper limit, 2 up, 3 flat, 4 lower limit, 5 down."""
    if price == day.upper:
        return "1"
    if price == day.lower:
        return "4"
    return encode_direction(price - day.previous_close)


def encode_direction(change: int) -> str:
    """2 up, 3 flat, 5 down."""
    return "2" if change > 0 else "5" if change < 0 else "3"


def format_ratio(part: float, whole: float, scale: float = 100.0) -> str:
    """Two decimals; 0.00 of nothing."""
    return f"{scale * part / whole:.2f}" if whole else "0.00"


def encode_trade(trade: Trade) -> list[str]:
    """The 47 fields of docs/wire/kis.md 4.1."""
    day, book, price = trade.day, trade.book, trade.price
    change = price - day.previous_close
    yesterday = day.previous_volume * 9 // 10
    return [
        trade.instrument.symbol,
        trade.at,
        str(price),
        encode_sign(price, day),
        str(change),
        format_ratio(change, day.previous_close),
        format_ratio(day.cum_value, day.cum_volume, 1.0),
        str(day.open),
        str(day.high),
        str(day.low),
        str(book.ask_price[0]),
        str(book.bid_price[0]),
        str(trade.size),
        str(day.cum_volume),
        str(day.cum_value),
        str(day.sells),
        str(day.buys),
        str(day.buys - day.sells),
        format_ratio(day.buy_volume, day.sell_volume),
        str(day.sell_volume),
        str(day.buy_volume),
        {1: "1", -1: "5"}.get(trade.side, NO_SIDE),
        format_ratio(day.buy_volume, day.cum_volume, 1.0),
        format_ratio(day.cum_volume, day.previous_volume),
        day.open_at,
        encode_direction(price - day.open),
        str(price - day.open),
        day.high_at,
        encode_direction(price - day.high),
        str(price - day.high),
        day.low_at,
        encode_direction(price - day.low),
        str(price - day.low),
        day.date,
        OPERATION_CODE.get(trade.phase, "20"),
        "N",
        str(book.ask_size[0]),
        str(book.bid_size[0]),
        str(book.total_ask),
        str(book.total_bid),
        format_ratio(day.cum_volume, day.listed_shares),
        str(yesterday),
        format_ratio(day.cum_volume, yesterday),
        "0",
        "",
        str(day.open),
        MARKET_CODE.get(trade.phase, "2"),
    ]


def encode_book(book: Book) -> list[str]:
    """The 63 fields of docs/wire/kis.md 4.2; 65 for NXT and 66 for the unified book."""
    day, venue = book.day, book.instrument.venue
    change = book.expected_price - day.previous_close
    # side 1 resting to sell, 2 resting to buy: undocumented (docs/wire/kis.md 10)
    mid = [str(book.mid_price), str(book.mid_size), {1: "2", -1: "1"}.get(book.mid_side, "0")]
    none = ["0", "0", "0"]
    return [
        book.instrument.symbol,
        book.at,
        HOUR_CODE.get(book.phase, "0"),
        *map(str, book.ask_price),
        *map(str, book.bid_price),
        *map(str, book.ask_size),
        *map(str, book.bid_size),
        str(book.total_ask),
        str(book.total_bid),
        "0",
        "0",
        str(book.expected_price),
        str(book.expected_size),
        str(book.expected_size or day.opening_volume),
        str(change),
        encode_direction(change),
        format_ratio(change, day.previous_close),
        str(book.cum_volume),
        str(sum(book.ask_change)),
        str(sum(book.bid_change)),
        "0",
        "0",
        "0",
        *(none if venue == "NXT" else mid),
        *({"NXT": mid, "UN": [*none, "1"]}.get(venue) or [MARKET_CODE.get(book.phase, "2")]),
    ]
