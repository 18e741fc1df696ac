"""KIS overseas frame encoder: US trades and books, or ring records of them, as HDFSCNT0 and HDFSASP0 (pure).

    0|HDFSCNT0|002|DNASAAPL^AAPL^4^...^1^DNASAAPL^AAPL^4^...        26 fields a trade, 71 a book: bid before ask, level by level
    TICK, ORDERBOOK record ──RecordEncoder──> fields that the collector keeps, at their places

Guarantees:
    * Of a record a field that the collector keeps has its value, and is empty where the record has none; NOT_KEPT is 0, or 3 for a
      sign code.
    * Field order, formats and signs are those of docs/wire/kis.md 4.4, 4.5: prices with four decimals, a change without its
      sign, a rate with it, New York's and Korea's date and time of one instant.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Any

from brokers.simulator.exchange.models import Book, Trade
from brokers.simulator.gateway.client import EncodedFrame, QueuedItem
from brokers.simulator.ground_truth import Stream
from brokers.simulator.kis.encode import MAX_RECORDS, encode_direction, format_ratio, resize
from conf.clock import SECOND_NS, to_kst
from conf.instrument import Instrument
from conf.market import US, hours_of
from ringbuf.records import LEVELS, UNDEFINED, Session, Side

TRADE_TR, BOOK_TR = "HDFSCNT0", "HDFSASP0"
WIDTHS = (26, 71)
SCALE = 10_000
DAY_MARKET = ("BAQ", "BAY", "BAA")
NOT_KEPT = (8, 9, 10, 12, 13, 14, 17, 18, 24)
"""Fields of a trade (docs/wire/kis.md 4.4) that no record has."""
BOOK_NOT_KEPT = (9, 10, *(first + 6 * level for level in range(LEVELS) for first in (15, 16)))
"""Fields of a book (docs/wire/kis.md 4.5) that no record has."""
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


def format_key(instrument: Instrument, paid: bool) -> str:
    """The key of a registration (docs/wire/kis.md 2.7); the day market's have one form only."""
    exchange, _, ticker = str(instrument).partition(".")
    return f"{'R' if paid or exchange in DAY_MARKET else 'D'}{exchange}{ticker}"


class RecordEncoder:
    """Ring records, one to a frame, under the free or the paid keys.

    No field names the aggressor: the volumes of sells and of buys (fields 22, 23) are counted here, from the first trade of an
    instrument's day that is encoded, so that a client finds the side of each trade behind it as with the vendor.
    """

    def __init__(self, paid: bool) -> None:
        self._paid = paid
        self._sums: dict[Instrument, tuple[date, dict[int, int]]] = {}

    def encode(self, stream: str, record: Mapping[str, Any], instrument: Instrument) -> bytes:
        """A TICK or ORDERBOOK record, by the names of its fields, as a frame."""
        tr, make = (TRADE_TR, self._encode_tick) if stream == "tick" else (BOOK_TR, self._encode_book)
        head = [format_key(instrument, self._paid), instrument.symbol, "4"]
        return f"0|{tr}|001|{'^'.join([*head, *make(record, instrument)])}".encode()

    def _encode_tick(self, record: Mapping[str, Any], instrument: Instrument) -> list[str]:
        """Fields 3 to 25 of docs/wire/kis.md 4.4."""
        day = hours_of(instrument.venue).session_day(record["exch_ns"])
        known_day, sums = self._sums.get(instrument, (day, {}))
        if day != known_day:
            sums = {}
        sums[record["side"]] = sums.get(record["side"], 0) + record["size"]
        self._sums[instrument] = day, sums
        return [
            f"{day:%Y%m%d}",
            *format_times(record["exch_ns"] // SECOND_NS),
            *("0", "0", "0"),
            _format_price(record["price_e4"]),
            *("3", "0", "0"),
            _format_price(record["bid_price_1_e4"]),
            _format_price(record["ask_price_1_e4"]),
            *("0", "0"),
            *map(_format_optional, (record["size"], record["cum_volume"], record["cum_value"])),
            *(str(sums.get(side, 0)) for side in (Side.SELL, Side.BUY)),
            "0",
            MARKET_TYPE.get(Session(record["session"]).name.lower(), "2"),
        ]

    def _encode_book(self, record: Mapping[str, Any], _: Instrument) -> list[str]:
        """Fields 3 to 70 of docs/wire/kis.md 4.5."""
        fields = format_times(record["exch_ns"] // SECOND_NS)
        fields += [_format_optional(record[name]) for name in ("total_bid_size", "total_ask_size")] + ["0", "0"]
        names = ("bid_price_e4", "ask_price_e4", "bid_size", "ask_size")
        for bid, ask, bid_size, ask_size in zip(*(record[name] for name in names), strict=True):
            fields += [_format_price(bid), _format_price(ask), str(bid_size), str(ask_size), "0", "0"]
        return fields


def _format_price(price_e4: int) -> str:
    """Dollars; empty where the record has none."""
    return "" if price_e4 == UNDEFINED else format_dollars(price_e4)


def _format_optional(number: int) -> str:
    return "" if number == UNDEFINED else str(number)
