"""Kiwoom frame encoder: trades as 0B, books as 0D, phases as 0s entries of REAL frames (pure).

    {"data":[{"values":{"20":"115618",...},"type":"0B","name":"주식체결","item":"005930"},...],"trnm":"REAL"}

Guarantees:
    * FIDs are in the recorded order, with the formats and signs of docs/wire/kiwoom.md 1.7, 3.1 to 3.3.
    * The identities of 3.1 hold, across merged trades too; JSON is compact, data before trnm.
"""

from __future__ import annotations

from random import Random

import msgspec

from brokers.simulator.exchange.models import Book, DailyStats, Trade
from brokers.simulator.gateway.client import EncodedFrame, QueuedItem
from brokers.simulator.ground_truth import Stream
from conf.instrument import Instrument

NAMES = {"0B": "주식체결", "0D": "주식호가잔량", "0s": "장시작시간"}
MILLION = 1_000_000
BEFORE, REGULAR, AFTER = "1", "2", "3"
SESSION_CODE = {"pre_market": BEFORE, "opening_auction": BEFORE, "closing_price": AFTER, "after_market": AFTER}


def encode_frames(items: list[QueuedItem], merge_probability: float, random: Random) -> list[EncodedFrame]:
    """One frame for all entries of a slot, oldest first.

    Neighbouring trades of one instrument that agree in second, price and side become one trade with `merge_probability`.
    """
    entries, records = [], []
    for item in items:
        if isinstance(item.content, Book):
            entries.append(build_entry("0D", format_item_code(item.instrument), encode_book(item.content)))
            records.append((Stream.BOOK, item.content.id, item.content.id))
            continue
        for group in merge_trades(item.content, merge_probability, random):
            entries.append(build_entry("0B", format_item_code(item.instrument), encode_trade(group)))
            records.append((Stream.TICK, group[0].id, group[-1].id))
    return [EncodedFrame(build_real_frame(entries), records)]


def format_item_code(instrument: Instrument) -> str:
    """The code as Kiwoom writes it: six characters (an ETN without its Q) and the venue's suffix (docs/wire/kiwoom.md 4)."""
    return str(instrument).removeprefix("Q")


def merge_trades(trades: list[Trade], merge_probability: float, random: Random) -> list[list[Trade]]:
    """The trades of a sweep, some neighbours put together."""
    groups: list[list[Trade]] = []
    for trade in trades:
        last = groups[-1][-1] if groups else None
        is_mergeable = last is not None and (last.price, last.side) == (trade.price, trade.side) and trade.side != 0
        if is_mergeable and random.random() < merge_probability:
            groups[-1].append(trade)
        else:
            groups.append([trade])
    return groups


def build_entry(kind: str, item: str, values: dict[str, str]) -> dict[str, object]:
    """One element of a frame's data."""
    return {"values": values, "type": kind, "name": NAMES[kind], "item": item}


def build_real_frame(entries: list[dict[str, object]]) -> bytes:
    """A REAL frame as on the wire."""
    return msgspec.json.encode({"data": entries, "trnm": "REAL"})


def format_signed(number: int) -> str:
    """A true sign, plus included; no sign before zero."""
    return f"{number:+}" if number else "0"


def format_percent(part: float, whole: float) -> str:
    """A signed percentage with two decimals."""
    if not whole or not part:
        return "0.00"
    return f"{100 * part / whole:+.2f}"


def format_share(part: float, whole: float) -> str:
    """An unsigned percentage with two decimals."""
    return f"{100 * part / whole:.2f}" if whole else "0.00"


def format_price(price: int, day: DailyStats) -> str:
    """A price with the side of the previous close for a sign; an empty level is -0 (docs/wire/kiwoom.md 1.7, 3.2)."""
    if not price:
        return "-0"
    if price == day.previous_close:
        return str(price)
    return f"{'+' if price > day.previous_close else '-'}{price}"


def encode_sign(price: int, day: DailyStats) -> str:
    """1 upper limit, 2 up, 3 unchanged, 4 lower limit, 5 down."""
    if price == day.upper:
        return "1"
    if price == day.lower:
        return "4"
    return "2" if price > day.previous_close else "5" if price < day.previous_close else "3"


def encode_trade(group: list[Trade]) -> dict[str, str]:
    """The 43 FIDs of docs/wire/kiwoom.md 3.1 for one trade, or for several as one trade."""
    trade = group[-1]
    day, book, price = trade.day, trade.book, trade.price
    size = sum(one.size for one in group)
    mark = {1: "+", -1: "-"}.get(trade.side, "")
    both = day.sell_volume + day.buy_volume
    rate = 100 * day.buy_volume / both if both else 50.0
    margin = price * 40 // 100
    against = day.cum_volume - day.previous_volume
    same_time = max(1, day.previous_volume * 9 // 10)
    return {
        "20": trade.at,
        "10": format_price(price, day),
        "11": format_signed(price - day.previous_close),
        "12": format_percent(price - day.previous_close, day.previous_close),
        "27": format_price(book.ask_price[0], day),
        "28": format_price(book.bid_price[0], day),
        "15": f"{mark}{size}",
        "13": str(day.cum_volume),
        "14": str((day.cum_value + MILLION // 2) // MILLION),
        "16": format_price(day.open, day),
        "17": format_price(day.high, day),
        "18": format_price(day.low, day),
        "25": encode_sign(price, day),
        "26": format_signed(against),
        "29": format_signed(day.cum_value - day.previous_value),
        "30": f"{'-' if against < 0 else '+'}{100 * day.cum_volume / day.previous_volume:.2f}",
        "31": format_share(day.cum_volume, day.listed_shares),
        "32": str(price * 231 // 100_000),
        "228": format_share(day.buy_volume, day.sell_volume),
        "311": str(price * day.listed_shares // 10**8),
        "290": SESSION_CODE.get(trade.phase, REGULAR),
        "691": "0",
        "567": day.upper_at,
        "568": day.lower_at,
        "851": str(10_000 * day.cum_volume // same_time),
        "1890": day.open_at,
        "1891": day.high_at,
        "1892": day.low_at,
        "1030": str(day.sell_volume),
        "1031": str(day.buy_volume),
        "1032": f"{'+' if rate > 50 else '-' if rate < 50 else ''}{rate:.2f}",
        "1071": str(day.sells),
        "1072": str(day.buys),
        "1313": f"{mark}{size * price // 1000}",
        "1315": f"-{size}" if trade.side < 0 else " 0",
        "1316": f"+{size}" if trade.side > 0 else " 0",
        "1314": f"{mark}{size}",
        "1497": str(margin),
        "1498": str(margin * 80 // 100),
        "620": str(day.cum_value // day.cum_volume),
        "732": str(price * 502 // 100_000),
        "852": str(price * 402 // 100_000),
        "9081": {"KRX": "KRX", "NXT": "NXT"}.get(trade.instrument.venue, "통합"),
    }


def encode_book(book: Book) -> dict[str, str]:
    """The FIDs of docs/wire/kiwoom.md 3.2, in the table's order."""
    day = book.day
    change = book.expected_price - day.previous_close if book.expected_price else 0
    code = encode_sign(book.expected_price, day) if book.expected_price else "3"
    expected, amount = str(book.expected_price), str(book.expected_size)
    values = {"21": book.at}
    for first, numbers in ((41, book.ask_price), (51, book.bid_price)):
        values.update((str(first + level), format_price(price, day)) for level, price in enumerate(numbers))
    for first, numbers in ((61, book.ask_size), (71, book.bid_size)):
        values.update((str(first + level), str(size)) for level, size in enumerate(numbers))
    for first, numbers in ((81, book.ask_change), (91, book.bid_change)):
        values.update((str(first + level), format_signed(size)) for level, size in enumerate(numbers))
    net = book.total_bid - book.total_ask
    values |= {
        "121": str(book.total_ask),
        "122": format_signed(sum(book.ask_change)),
        "125": str(book.total_bid),
        "126": format_signed(sum(book.bid_change)),
        "23": expected,
        "24": amount,
        "128": format_signed(net),
        "129": format_share(book.total_bid, book.total_ask),
        "138": format_signed(-net),
        "139": format_share(book.total_ask, book.total_bid),
        "200": format_signed(change),
        "201": format_percent(change, day.previous_close),
        "238": code,
        "291": expected,
        "292": amount,
        "293": code,
        "294": format_signed(change),
        "295": format_percent(change, day.previous_close),
    }
    values.update((str(fid), "0") for fid in range(621, 641))
    values |= {
        "13": str(book.cum_volume),
        "299": format_share(book.expected_size, day.previous_volume),
        "215": "",
        "216": "",
    }
    values.update((str(fid), "0") for fid in (*range(6044, 6088), *range(6100, 6116)))
    return values | encode_mid_price(book)


def encode_mid_price(book: Book) -> dict[str, str]:
    """What rests at the mid price, under the FIDs of its venue."""
    if not book.mid_price:
        return {}
    day = book.day
    ask, price, bid, against = (
        ("6106", "6107", "6108", 6113) if book.instrument.venue == "NXT" else ("6101", "6102", "6103", 6110)
    )
    change = book.mid_price - day.previous_close
    return {
        price: str(book.mid_price),
        ask: str(book.mid_size if book.mid_side < 0 else 0),
        bid: str(book.mid_size if book.mid_side > 0 else 0),
        str(against): format_signed(change),
        str(against + 1): encode_sign(book.mid_price, day),
        str(against + 2): format_percent(change, day.previous_close),
    }


def encode_phase(code: str, at: str, left: str) -> dict[str, str]:
    """The FIDs of a 0s message (docs/wire/kiwoom.md 3.3)."""
    return {"215": code, "20": at, "214": left}
