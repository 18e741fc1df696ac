"""KIS domestic records into rows (pure); docs/wire/kis.md 4.1 to 4.3.

    0|H0STCNT0|003|005930^094751^71950^...^71000^005930^094751^71900^...
      `- record type: trade, book or status (market operation), on KRX, NXT or both

Guarantees:
    * Never raises, whatever the bytes; see frame.py.

Not handled here:
    * Gaps across frames, which the writer detects by cumulative volume.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache

from brokers.decoded import DecodedBatch, MarketEvent, check_totals, flag_unreadable, pack_book, pack_tick
from brokers.kis.frame import (
    Frame,
    RecordLayout,
    extra_fields,
    is_continuous,
    is_empty_trade,
    parse_optional,
    parse_optional_uint,
    parse_price_e4,
    parse_small_uints,
    parse_uint,
    parse_value,
    read_frame,
)
from brokers.subscription import Subscription
from conf.clock import DAY_NS, FUTURE_TOLERANCE_NS, KST, SECOND_NS, date_time_of_day, parse_instant
from ringbuf.records import PRICE_SCALE, STATUS_STREAM, UNDEFINED, EventType, FeedId, Flag, Session, Side, Venue


@dataclass(frozen=True, slots=True)
class DomesticLayout(RecordLayout):
    """A TR's fields. Indexes are zero-based; a field that lies beyond a frame's width is not in that frame."""

    venue: Venue
    documented: frozenset[int]
    market: int  # MARKET_CLS_CODE
    mid: int  # midpoint price, its quantity behind it


_ABSENT = 1 << 30
_CORE_WIDTH = 59
"""The fields of a book that all venues and widths share: times, levels, totals, expectation, volume (docs/wire/kis.md 4.2)."""


def _build_layout(
    stream: str, venue: Venue, widths: set[int], market: int = _ABSENT, mid: int = _ABSENT
) -> DomesticLayout:
    """No book of NXT or of both venues was ever seen on the wire: there any width is read that has all levels."""
    accepted_widths = (
        frozenset(widths)
        if stream != "orderbook" or venue == Venue.KRX
        else frozenset(range(_CORE_WIDTH, max(widths) + 1))
    )
    return DomesticLayout(stream, accepted_widths, max(widths), venue, frozenset(widths), market, mid)


LAYOUTS: dict[bytes, DomesticLayout] = {
    b"H0STCNT0": _build_layout("tick", Venue.KRX, {46, 47}, market=46),
    b"H0NXCNT0": _build_layout("tick", Venue.NXT, {46, 47}, market=46),
    b"H0UNCNT0": _build_layout("tick", Venue.UN, {46, 47}, market=46),
    b"H0STASP0": _build_layout("orderbook", Venue.KRX, {59, 62, 63}, market=62, mid=59),
    b"H0NXASP0": _build_layout("orderbook", Venue.NXT, {65}, mid=62),
    b"H0UNASP0": _build_layout("orderbook", Venue.UN, {65, 66}, mid=59),
    b"H0STMKO0": _build_layout(STATUS_STREAM, Venue.KRX, {10, 11}),
    b"H0NXMKO0": _build_layout(STATUS_STREAM, Venue.NXT, {10, 11}),
    b"H0UNMKO0": _build_layout(STATUS_STREAM, Venue.UN, {10, 11}),
}
TR_OF: dict[tuple[str, str], str] = {(layout.venue.name, layout.stream): tr.decode() for tr, layout in LAYOUTS.items()}


_AUCTIONS = {b"A": Session.CLOSING_AUCTION, b"B": Session.OPENING_AUCTION, b"C": Session.INTRADAY_AUCTION}
_SINGLE_PRICE = frozenset({*_AUCTIONS, b"D"})
_MARKETS = {
    b"1": Session.PRE_MARKET,
    b"2": Session.REGULAR,
    b"3": Session.AFTER_MARKET,
    b"5": Session.CLOSING_PRICE,
}
_SIDES = {b"1": Side.BUY, b"5": Side.SELL}


def wire_code(subscription: Subscription) -> tuple[str, str]:
    """TR id and key of a subscription; a code is spelled as the exchange does, with the Q of an ETN (docs/wire/kis.md 2.7)."""
    return TR_OF[subscription.instrument.venue, subscription.stream], subscription.instrument.symbol


def subscriptions_by_code(subscriptions: Iterable[Subscription]) -> dict[str, Subscription]:
    """`TR|code` -> subscription."""
    return {"|".join(wire_code(subscription)): subscription for subscription in subscriptions}


def decode(payload: bytes, by_code: Mapping[str, Subscription], recv_ns: int, mono_ns: int = 0) -> DecodedBatch:
    """One message. `recv_ns` dates the exchange's HHMMSS; never raises."""
    return _decode_plain_book(payload, by_code, recv_ns, mono_ns) or read_frame(
        payload, LAYOUTS, _READERS, by_code, recv_ns, mono_ns
    )


def _decode_tick(frame: Frame[DomesticLayout], f: list[bytes], subscription: Subscription) -> bytes | None:
    """docs/wire/kis.md 4.1. ValueError or struct.error if time, price or quantity cannot be read."""
    layout = frame.layout
    exch_ns, flags = _parse_time(f[1], f[33], frame.recv_ns)
    numbers = parse_small_uints(b"^".join((f[2], *f[10:17])))
    if numbers is not None:
        price, ask_price, bid_price, size, cum_volume, cum_value, sells, buys = numbers
        if not price and not size:
            return None
        price_e4, ask_price_1_e4, bid_price_1_e4 = (
            price * PRICE_SCALE,
            ask_price * PRICE_SCALE,
            bid_price * PRICE_SCALE,
        )
    elif is_empty_trade(f[2], f[12]):
        return None
    else:
        price_e4, size = parse_price_e4(f[2]), parse_uint(f[12])
        cum_volume, cum_value = parse_optional_uint(f[13]), parse_value(f[14])
        sells, buys = parse_optional_uint(f[15]), parse_optional_uint(f[16])
        ask_price_1_e4, bid_price_1_e4 = parse_optional(f[10], parse_price_e4), parse_optional(f[11], parse_price_e4)
        optional = ask_price_1_e4, bid_price_1_e4, cum_volume, cum_value, sells, buys
        flags |= flag_unreadable((*f[10:12], *f[13:17]), optional)
    wider, extra = extra_fields(f, layout.known_width)
    flags |= wider
    if f[35] == b"Y":
        flags |= Flag.HALTED
    if not is_continuous(frame.previous.get(subscription), cum_volume, cum_value, size, price_e4):
        flags |= Flag.CHECKSUM
    trade_count = UNDEFINED if UNDEFINED in (sells, buys) else sells + buys
    row = pack_tick(
        0,
        frame.recv_ns,
        frame.mono_ns,
        exch_ns,
        subscription.instrument.symbol.encode(),
        layout.venue,
        price_e4,
        size,
        cum_volume,
        cum_value,
        UNDEFINED,
        trade_count,
        ask_price_1_e4,
        bid_price_1_e4,
        _SIDES.get(f[21], Side.NONE),
        flags,
        FeedId.KIS,
        _find_session(f[43], f[layout.market] if len(f) > layout.market else b"", f[34], layout.venue),
        extra,
    )
    frame.previous[subscription] = (cum_volume, cum_value)
    return row


def _decode_book(frame: Frame[DomesticLayout], f: list[bytes], subscription: Subscription) -> bytes:
    """docs/wire/kis.md 4.2. ValueError or struct.error without a time, or if a level is no number; an empty level is zero."""
    layout = frame.layout
    when = date_time_of_day(f[1], frame.recv_ns)
    prices = [parse_price_e4(text or b"0") for text in f[3:23]]
    sizes = [parse_uint(text or b"0") for text in f[23:43]]
    documented = len(f) in layout.documented or len(f) > layout.known_width
    market = f[layout.market] if len(f) > layout.market else b""
    mid = f[layout.mid : layout.mid + 2] if documented and len(f) > layout.mid + 1 else [b"", b""]
    texts = [*f[43:45], *f[47:49], f[53], *mid]
    are_prices = False, False, True, False, False, True, False
    optional = [
        parse_optional(text, parse_price_e4 if is_price else parse_uint)
        for text, is_price in zip(texts, are_prices, strict=True)
    ]
    flags, extra = extra_fields(f, layout.known_width if documented else _CORE_WIDTH)
    if not documented:
        if optional[:2] != [sum(sizes[:10]), sum(sizes[10:])]:
            raise ValueError(f"{len(f)} fields are no documented width, and the sizes do not add up to the totals")
        frame.out.oversized_frames.append((TR_OF[layout.venue.name, "orderbook"], len(f)))
    flags |= flag_unreadable(texts, optional)
    return _pack_book(
        layout, subscription, frame.recv_ns, frame.mono_ns, when, f[2], market, prices, sizes, optional, flags, extra
    )


_PLAIN_BOOKS = {
    b"0|%b|001|" % tr: (tr.decode(), layout) for tr, layout in LAYOUTS.items() if layout.stream == "orderbook"
}
_HEAD_BYTES = len(b"0|H0STASP0|001|")


def _decode_plain_book(
    payload: bytes, by_code: Mapping[str, Subscription], recv_ns: int, mono_ns: int
) -> DecodedBatch | None:
    """A frame of one book of the widest documented form, all numbers plain, as nearly every one is: they are cut out as one text.

    None for any other frame, and for one that is to be rejected.
    """
    tr, layout = _PLAIN_BOOKS.get(payload[:_HEAD_BYTES], ("", None))
    if layout is None or payload.count(b"^") != layout.known_width - 1:
        return None
    code, digits, hour, rest = payload[_HEAD_BYTES:].split(b"^", 3)
    levels, *f = rest.rsplit(b"^", layout.known_width - 45)  # fields 3 to 44, then 45 and up
    has_mid = layout.mid != _ABSENT
    mid = f[layout.mid - 45 : layout.mid - 43] if has_mid else ()
    numbers = parse_small_uints(b"^".join((levels, f[2], f[3], f[8], *mid)))
    subscription = by_code.get(f"{tr}|{code.decode('latin-1')}")
    if numbers is None or subscription is None:
        return None
    try:
        when = date_time_of_day(digits, recv_ns)
    except ValueError:
        return None
    prices = [price * PRICE_SCALE for price in numbers[:20]]
    optional = numbers[40:] if has_mid else [*numbers[40:], UNDEFINED, UNDEFINED]
    optional[2] *= PRICE_SCALE
    if has_mid:
        optional[5] *= PRICE_SCALE
    market = f[layout.market - 45] if layout.market != _ABSENT else b""
    out = DecodedBatch()
    out.book_rows.append(
        _pack_book(layout, subscription, recv_ns, mono_ns, when, hour, market, prices, numbers[20:40], optional, 0, b"")
    )
    out.book_subscriptions.append(subscription)
    return out


def _pack_book(
    layout: DomesticLayout,
    subscription: Subscription,
    recv_ns: int,
    mono_ns: int,
    when: tuple[int, bool],
    hour: bytes,
    market: bytes,
    prices: list[int],
    sizes: list[int],
    optional: list[int],
    flags: int,
    extra: bytes,
) -> bytes:
    """A book whose numbers are read. `optional`: both totals, expected price and size, volume, midpoint's price and size."""
    total_ask_size, total_bid_size, expected_price_e4, expected_size, cum_volume, mid_price_e4, mid_size = optional
    ask_price_e4, bid_price_e4, ask_size, bid_size = prices[:10], prices[10:], sizes[:10], sizes[10:]
    exch_ns, redated = when
    if redated:
        flags |= Flag.DATE_MISMATCH
    # in call auctions the totals may cover more than the levels (docs/wire/kis.md 4.2): checked in continuous trading only
    if hour not in _SINGLE_PRICE and market in (b"", b"2"):
        flags |= check_totals(total_ask_size, ask_size, total_bid_size, bid_size)
    session = _find_session(hour, market, b"", layout.venue)
    if session == Session.UNKNOWN and hour == b"0" and layout.venue == Venue.KRX and not market:
        session = Session.REGULAR  # before MARKET_CLS_CODE came, these TRs carried one continuous session only
    return pack_book(
        0,
        recv_ns,
        mono_ns,
        exch_ns,
        subscription.instrument.symbol.encode(),
        layout.venue,
        *ask_price_e4,
        *ask_size,
        *bid_price_e4,
        *bid_size,
        cum_volume,
        total_ask_size,
        total_bid_size,
        expected_price_e4,
        expected_size,
        mid_price_e4,
        mid_size,
        flags,
        FeedId.KIS,
        session,
        extra,
    )


def _parse_time(digits: bytes, date: bytes, recv_ns: int) -> tuple[int, int]:
    """Exchange time and flags of a trade: its business date decides, where it has one that is not yet to come. ValueError."""
    exch_ns, redated = date_time_of_day(digits, recv_ns)
    flags = int(Flag.DATE_MISMATCH) if redated else 0
    if not date or date == _format_date((exch_ns + 9 * 3600 * SECOND_NS) // DAY_NS):
        return exch_ns, flags
    try:
        dated_ns = parse_instant(KST, date.decode("ascii", "replace"), digits.decode("ascii"), recv_ns)
    except ValueError:
        return exch_ns, flags
    return (exch_ns if dated_ns - recv_ns > FUTURE_TOLERANCE_NS else dated_ns), flags | Flag.DATE_MISMATCH


@lru_cache(maxsize=16)
def _format_date(days: int) -> bytes:
    """YYYYMMDD of a day counted since 1970."""
    return f"{datetime.fromtimestamp(days * 86_400, UTC):%Y%m%d}".encode()


def _find_session(hour: bytes, market: bytes, operation: bytes, venue: Venue) -> Session:
    """HOUR_CLS_CODE has the auctions, MARKET_CLS_CODE the market, NEW_MKOP_CLS_CODE the rest (docs/wire/kis.md 4.3).

    Outside KRX 20 is the after-market, too (recorded at 17:14): the venue's hours decide.
    """
    session = _AUCTIONS.get(hour) or _MARKETS.get(market)
    if session is None:
        if operation == b"20" and venue == Venue.KRX:
            return Session.REGULAR
        if operation[1:] == b"1":
            return Session.CLOSING_PRICE
        return Session.UNKNOWN
    return session


_OPERATIONS = {
    "110": "opening auction begins",
    "112": "open, or expected prices before the open end",
    "121": "closing auction begins",
    "129": "close, or expected prices before the close end",
    "130": "off-hours trading before the open begins",
    "139": "off-hours trading before the open ends",
    "140": "closing price begins",
    "146": "closing price, matching",
    "149": "closing price ends",
    "164": "market halt",
    "174": "circuit breaker on",
    "175": "circuit breaker off",
    "182": "circuit breaker until the closing auction",
    "184": "circuit breaker begins",
    "185": "circuit breaker released",
    "311": "expected prices before the open begin",
    "387": "sell sidecar on",
    "388": "sell sidecar off",
    "397": "buy sidecar on",
    "398": "buy sidecar off",
}
"""MKOP_CLS_CODE and ANTC_MKOP_CLS_CODE (docs/wire/kis.md 4.6)."""
_YES_NO = {b"Y": 1, b"N": 0}


def _decode_status(frame: Frame[DomesticLayout], f: list[bytes], subscription: Subscription) -> None:
    """docs/wire/kis.md 4.6: the phase, whether trading is halted, whether a VI holds. Each message repeats all three."""
    texts = [text.decode("utf-8", "replace") for text in f[1:10]]
    reason, phases = texts[1], [code for code in texts[2:4] if code]
    instrument = subscription.instrument
    described = ", expected ".join(f"{code} {_OPERATIONS.get(code, 'unknown code')}" for code in phases)
    if described:
        frame.out.market_events.append(MarketEvent(EventType.PHASE, described, instrument, is_state=True))
    for kind, text, message in (
        (EventType.HALT, f[1], "" if reason == "(null)" else reason),
        (EventType.VI, f[8], ""),
    ):
        if text:
            value = _YES_NO.get(text, UNDEFINED)
            described = message if value != UNDEFINED else f"unknown code {texts[0 if kind == EventType.HALT else 7]}"
            frame.out.market_events.append(MarketEvent(kind, described, instrument, value, is_state=True))


_READERS = {"orderbook": _decode_book, "tick": _decode_tick, STATUS_STREAM: _decode_status}
