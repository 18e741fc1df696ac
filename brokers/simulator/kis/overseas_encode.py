"""KIS overseas frames: a US trade or book as the fields of HDFSCNT0 and HDFSASP0.

    0|HDFSCNT0|002|DNASAAPL^AAPL^4^...^1^DNASAAPL^AAPL^4^...        26 fields a trade, 71 a book: bid before ask, level by level

Promises: pure; field order, formats and signs as in spec kis 4.4 and 4.5: prices with four decimals, a change without its sign, a
rate with it, New York's and Korea's date and time of one instant.
Leaves to others: which client gets what (line.py), which key names an instrument (us.py).
"""

from __future__ import annotations

from collections.abc import Mapping

from brokers.simulator.exchange.models import Book, Trade
from brokers.simulator.gateway.client import Frame, Item
from brokers.simulator.ground_truth import Stream
from brokers.simulator.kis.encode import MOST_RECORDS, direction, fit, ratio
from conf.clock import SECOND_NS, korean
from conf.instrument import Instrument
from conf.market import US

TRADE_TR, BOOK_TR = "HDFSCNT0", "HDFSASP0"
WIDTHS = (26, 71)
SCALE = 10_000
MARKET_TYPE = {"pre_market": "1", "regular": "2", "after_market": "3"}
"""As captured; the vendor's document has other words for them."""


def frames(items: list[Item], widths: tuple[int, int], keys: Mapping[Instrument, str]) -> list[Frame]:
    """The frames for `items`, (trade, book) fields wide: a book each, trades up to twenty together."""
    trade_more, book_more = widths[0] - WIDTHS[0], widths[1] - WIDTHS[1]
    made = []
    for item in items:
        key = keys[item.instrument]
        if isinstance(item.content, Book):
            payload = f"0|{BOOK_TR}|001|{'^'.join(fit(book_fields(item.content, key), book_more))}".encode()
            made.append(Frame(payload, [(Stream.BOOK, item.content.id, item.content.id)], book_more < 0))
            continue
        for start in range(0, len(item.content), MOST_RECORDS):
            batch = item.content[start : start + MOST_RECORDS]
            text = "^".join("^".join(fit(trade_fields(trade, key), trade_more)) for trade in batch)
            payload = f"0|{TRADE_TR}|{len(batch):03}|{text}".encode()
            made.append(Frame(payload, [(Stream.TICK, trade.id, trade.id) for trade in batch], trade_more < 0))
    return made


def dollars(price: int) -> str:
    """Four decimals of a price in 1/10,000."""
    return f"{price // SCALE}.{price % SCALE:04}"


def times(exch_s: int) -> list[str]:
    """New York's date and time, then Korea's."""
    return [
        f"{moment:{form}}"
        for moment in (US.local(exch_s * SECOND_NS), korean(exch_s * SECOND_NS))
        for form in ("%Y%m%d", "%H%M%S")
    ]


def trade_fields(trade: Trade, key: str) -> list[str]:
    """The 26 fields of spec kis 4.4."""
    day, book, change = trade.day, trade.book, trade.price - trade.day.previous_close
    rate = ratio(change, day.previous_close)
    return [
        key,
        trade.instrument.symbol,
        "4",
        day.date,
        *times(trade.exch_s),
        dollars(day.open),
        dollars(day.high),
        dollars(day.low),
        dollars(trade.price),
        direction(change),
        dollars(abs(change)),
        f"+{rate}" if change > 0 else rate,
        dollars(book.bid_price[0]),
        dollars(book.ask_price[0]),
        str(book.bid_size[0]),
        str(book.ask_size[0]),
        str(trade.size),
        str(day.cum_volume),
        str(day.cum_value // SCALE),
        str(day.sell_volume),
        str(day.buy_volume),
        ratio(day.buy_volume, day.sell_volume),
        MARKET_TYPE.get(trade.phase, "2"),
    ]


def book_fields(book: Book, key: str) -> list[str]:
    """The 71 fields of spec kis 4.5."""
    fields = [key, book.instrument.symbol, "4", *times(book.exch_s)]
    fields += map(str, (book.total_bid, book.total_ask, sum(book.bid_change), sum(book.ask_change)))
    for bid, ask, *counts in zip(
        book.bid_price, book.ask_price, book.bid_size, book.ask_size, book.bid_change, book.ask_change, strict=True
    ):
        fields += [dollars(bid), dollars(ask), *map(str, counts)]
    return fields
