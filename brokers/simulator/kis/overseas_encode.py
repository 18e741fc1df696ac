"""KIS overseas frame encoder: US trades and books as HDFSCNT0 and HDFSASP0 (pure).

    0|HDFSCNT0|002|DNASAAPL^AAPL^4^...^1^DNASAAPL^AAPL^4^...        26 fields a trade, 71 a book: bid before ask, level by level

Guarantees:
    * Field order, formats and signs are those of docs/wire/kis.md 4.4, 4.5: prices with four decimals, a change without its
      sign, a rate with it, New York's and Korea's date and time of one instant.
"""

from __future__ import annotations

from collections.abc import Mapping

from brokers.simulator.exchange.models import Book, Trade
from brokers.simulator.gateway.client import EncodedFrame, QueuedItem
from brokers.simulator.ground_truth import Stream
from brokers.simulator.kis.encode import MAX_RECORDS, encode_direction, format_ratio, resize
from conf.clock import SECOND_NS, to_kst
from conf.instrument import Instrument
from conf.market import US

TRADE_TR, BOOK_TR = "HDFSCNT0", "HDFSASP0"
WIDTHS = (26, 71)
SCALE = 10_000
MARKET_TYPE = {"pre_market": "1", "regular": "2", "after_market": "3"}
"""As captured; the vendor's document differs."""


def encode_frames(
    items: list[QueuedItem], widths: tuple[int, int], keys: Mapping[Instrument, str]
) -> list[EncodedFrame]:
    """The frames for `items`, (trade, book) fields wide: a book each, trades up to twenty together."""
    trade_extra, book_extra = widths[0] - WIDTHS[0], widths[1] - WIDTHS[1]
    encoded = []
    for item in items:
        key = keys[item.instrument]
        if isinstance(item.content, Book):
            payload = f"0|{BOOK_TR}|001|{'^'.join(resize(encode_book(item.content, key), book_extra))}".encode()
            encoded.append(EncodedFrame(payload, [(Stream.BOOK, item.content.id, item.content.id)], book_extra < 0))
            continue
        for start in range(0, len(item.content), MAX_RECORDS):
            batch = item.content[start : start + MAX_RECORDS]
            text = "^".join("^".join(resize(encode_trade(trade, key), trade_extra)) for trade in batch)
            payload = f"0|{TRADE_TR}|{len(batch):03}|{text}".encode()
            encoded.append(
                EncodedFrame(payload, [(Stream.TICK, trade.id, trade.id) for trade in batch], trade_extra < 0)
            )
    return encoded


def format_dollars(price: int) -> str:
    """Four decimals of a price in 1/10,000."""
    return f"{price // SCALE}.{price % SCALE:04}"


def format_times(exch_s: int) -> list[str]:
    """New York's date and time, then Korea's."""
    return [
        f"{moment:{form}}"
        for moment in (US.to_local(exch_s * SECOND_NS), to_kst(exch_s * SECOND_NS))
        for form in ("%Y%m%d", "%H%M%S")
    ]


def encode_trade(trade: Trade, key: str) -> list[str]:
    """The 26 fields of docs/wire/kis.md 4.4."""
    day, book, change = trade.day, trade.book, trade.price - trade.day.previous_close
    rate = format_ratio(change, day.previous_close)
    return [
        key,
        trade.instrument.symbol,
        "4",
        day.date,
        *format_times(trade.exch_s),
        format_dollars(day.open),
        format_dollars(day.high),
        format_dollars(day.low),
        format_dollars(trade.price),
        encode_direction(change),
        format_dollars(abs(change)),
        f"+{rate}" if change > 0 else rate,
        format_dollars(book.bid_price[0]),
        format_dollars(book.ask_price[0]),
        str(book.bid_size[0]),
        str(book.ask_size[0]),
        str(trade.size),
        str(day.cum_volume),
        str(day.cum_value // SCALE),
        str(day.sell_volume),
        str(day.buy_volume),
        format_ratio(day.buy_volume, day.sell_volume),
        MARKET_TYPE.get(trade.phase, "2"),
    ]


def encode_book(book: Book, key: str) -> list[str]:
    """The 71 fields of docs/wire/kis.md 4.5."""
    fields = [key, book.instrument.symbol, "4", *format_times(book.exch_s)]
    fields += map(str, (book.total_bid, book.total_ask, sum(book.bid_change), sum(book.ask_change)))
    for bid, ask, *counts in zip(
        book.bid_price, book.ask_price, book.bid_size, book.ask_size, book.bid_change, book.ask_change, strict=True
    ):
        fields += [format_dollars(bid), format_dollars(ask), *map(str, counts)]
    return fields
