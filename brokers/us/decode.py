"""KIS overseas records into rows (pure); docs/wire/kis.md 4.4, 4.5.

    0|HDFSCNT0|002|DNASAAPL^AAPL^4^20230502^20230502^091912^20230502^221912^169.9200^...
                   |        |    | |        |        |      |        `- Korean time
                   |        |    | |        |        |      `- Korean date
                   |        |    | |        |        `- New York time
                   |        |    | |        `- New York date
                   |        |    | `- business date: the day of the session (a day market's evening belongs to the next day)
                   |        |    `- decimals: the prices have their point already
                   |        `- ticker
                   `- D free or R paid, exchange; R and BAQ, BAY, BAA: the day market

A tick's time is the exchange's own date and time. When clocks are set back these name two instants; the Korean pair decides. A
clock may run on past midnight: 25:30:00 of a date is 01:30 of the next.

Guarantees:
    * Never raises, whatever the bytes (kis/frame.py).
    * The session is left to the calendar: the value on the wire contradicts its own times (docs/wire/kis.md 4.4).
    * A price finer than 1/10,000 is rounded half to even and flagged; dates that contradict each other are flagged.
    * Sizes and volumes with a fraction of a share are stored in whole shares and flagged: a volume is cut off, and the size of
      its trade is what it advances by, so that rows add up to the volume and a fraction opens no gap.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fractions import Fraction
from functools import lru_cache

from brokers.decoded import DecodedBatch, check_totals, flag_unreadable, pack_book, pack_tick
from brokers.kis.frame import (
    Frame,
    RecordLayout,
    extra_fields,
    is_continuous,
    is_empty_trade,
    parse_decimal,
    parse_optional,
    parse_value,
    read_frame,
)
from brokers.subscription import Subscription
from conf.clock import HOUR_NS, KST, SECOND_NS, parse_instant
from conf.instrument import VENUE_BY_EXCHANGE, Instrument
from conf.market import NEW_YORK, hours_of, to_local
from ringbuf.records import LEVELS, MAX_INT64, PRICE_SCALE, UNDEFINED, FeedId, Flag, Session, Side, Venue

LAYOUTS: dict[bytes, RecordLayout] = {
    b"HDFSCNT0": RecordLayout("tick", frozenset({26}), 26),
    b"HDFSASP0": RecordLayout("orderbook", frozenset({71}), 71),
}
TR_OF = {layout.stream: tr.decode() for tr, layout in LAYOUTS.items()}
FREE, PAID = "D", "R"

DATE_MISMATCH_NS = 2 * SECOND_NS
"""New York's and Korea's time of a record are one instant; this far apart they contradict each other."""

EXCHANGE_OF = {venue: exchange for exchange, venue in VENUE_BY_EXCHANGE.items()}
_LEVEL_FIELDS = 6
_MILLIONTH = 1_000_000


def is_day_market(instrument: Instrument) -> bool:
    """Whether an instrument has the sessions of the day market."""
    return hours_of(instrument.venue).zone is KST


def wire_code(subscription: Subscription, paid: bool = False) -> tuple[str, str]:
    """TR id and key of a subscription (docs/wire/kis.md 2.7); the day market's keys have one form only."""
    instrument, stream = subscription
    kind = PAID if paid or is_day_market(instrument) else FREE
    return TR_OF[stream], f"{kind}{EXCHANGE_OF[instrument.venue]}{instrument.symbol}"


def subscriptions_by_code(subscriptions: Iterable[Subscription]) -> dict[str, Subscription]:
    """`TR|key` -> subscription, under the free and the paid key."""
    return {"|".join(wire_code(r, paid)): r for r in subscriptions for paid in (False, True)}


def decode(payload: bytes, by_code: Mapping[str, Subscription], recv_ns: int, mono_ns: int = 0) -> DecodedBatch:
    """One message; never raises."""
    return read_frame(payload, LAYOUTS, _READERS, by_code, recv_ns, mono_ns)


def _decode_tick(frame: Frame[RecordLayout], f: list[bytes], subscription: Subscription) -> bytes | None:
    """docs/wire/kis.md 4.4. ValueError or struct.error if time, price or quantity cannot be read."""
    instrument = _checked_instrument(f, subscription)
    exch_ns, flags = _parse_time(f[4:8], frame.recv_ns)
    if f[3] and f[3] not in _business_dates(instrument.venue, exch_ns // HOUR_NS):
        flags |= Flag.DATE_MISMATCH
    if is_empty_trade(f[11], f[19]):
        return None
    price, size_e6 = _Price(f[11]), _parse_quantity_e6(f[19])
    if price.e4 == UNDEFINED:
        raise ValueError("a trade without a price")
    ask, bid = _OptionalPrice(f[16]), _OptionalPrice(f[15])
    price_e4, ask_price_1_e4, bid_price_1_e4 = price.e4, ask.e4, bid.e4
    cum_volume_e6, sells, buys = (parse_optional(text, _parse_quantity_e6) for text in (f[20], f[22], f[23]))
    cum_value = parse_value(f[21])
    size, cum_volume, rounded = _round_to_shares(size_e6, cum_volume_e6)
    flags |= rounded | flag_unreadable(
        (*f[15:17], *f[20:24]), (bid_price_1_e4, ask_price_1_e4, cum_volume_e6, cum_value, sells, buys)
    )
    previous = frame.previous.get(subscription)
    if not is_continuous(previous, cum_volume, UNDEFINED if rounded else cum_value, size, price_e4):
        flags |= Flag.CHECKSUM
    wider, extra = extra_fields(f, frame.layout.known_width)
    row = pack_tick(
        0,
        frame.recv_ns,
        frame.mono_ns,
        exch_ns,
        instrument.symbol.encode(),
        Venue[instrument.venue],
        price_e4,
        size,
        cum_volume,
        cum_value,
        UNDEFINED,
        UNDEFINED,
        ask_price_1_e4,
        bid_price_1_e4,
        _infer_side(price_e4, ask_price_1_e4, bid_price_1_e4, (sells, buys), previous[2:] if previous else None),
        flags | wider | price.flag | ask.flag | bid.flag,
        FeedId.US,
        _find_session(instrument),
        extra,
    )
    frame.previous[subscription] = (cum_volume, cum_value, sells, buys)
    return row


def _decode_book(frame: Frame[RecordLayout], f: list[bytes], subscription: Subscription) -> bytes:
    """docs/wire/kis.md 4.5: level by level, bid first. ValueError or struct.error for an unreadable level; an empty one is none."""
    instrument = _checked_instrument(f, subscription)
    exch_ns, flags = _parse_time(f[3:7], frame.recv_ns)
    total_bid_size, total_ask_size = (_cut_to_shares(parse_optional(text, _parse_quantity_e6)) for text in f[7:9])
    flags |= flag_unreadable(f[7:9], (total_bid_size, total_ask_size))
    bids, asks, bid_sizes, ask_sizes = (
        f[first : 11 + LEVELS * _LEVEL_FIELDS : _LEVEL_FIELDS] for first in range(11, 15)
    )
    bid_prices, ask_prices = ([_Price(text or b"0") for text in texts] for texts in (bids, asks))
    sizes_e6 = [_parse_quantity_e6(text or b"0") for text in (*bid_sizes, *ask_sizes)]
    sizes = [_cut_to_shares(size_e6) for size_e6 in sizes_e6]
    bid_size, ask_size = sizes[:LEVELS], sizes[LEVELS:]
    if any(size_e6 % _MILLIONTH for size_e6 in sizes_e6):
        flags |= Flag.SIZE_ROUNDED
    else:
        flags |= check_totals(total_ask_size, ask_size, total_bid_size, bid_size)
    for price in (*bid_prices, *ask_prices):
        flags |= price.flag
    bid_price_e4, ask_price_e4 = ([price.e4 for price in prices] for prices in (bid_prices, ask_prices))
    wider, extra = extra_fields(f, frame.layout.known_width)
    return pack_book(
        0,
        frame.recv_ns,
        frame.mono_ns,
        exch_ns,
        instrument.symbol.encode(),
        Venue[instrument.venue],
        *ask_price_e4,
        *ask_size,
        *bid_price_e4,
        *bid_size,
        UNDEFINED,
        total_ask_size,
        total_bid_size,
        UNDEFINED,
        UNDEFINED,
        UNDEFINED,
        UNDEFINED,
        flags | wider,
        FeedId.US,
        _find_session(instrument),
        extra,
    )


_READERS = {"orderbook": _decode_book, "tick": _decode_tick}


def _checked_instrument(f: list[bytes], subscription: Subscription) -> Instrument:
    """Whose record it is. ValueError if the next fields are not a ticker and decimals: then all fields are shifted.

    The ticker may be spelled differently from the key; for tickers with a share class this is unverified.
    """
    if not f[1] or f[1].isdigit() or not (f[2].isdigit() and len(f[2]) < 3):
        raise ValueError(f"{f[0][:40]!r} is followed by {f[1][:40]!r} and {f[2][:40]!r}, not by a ticker and decimals")
    return subscription.instrument


def _parse_time(f: list[bytes], recv_ns: int) -> tuple[int, int]:
    """Exchange time and flags from New York's date and time and Korea's. ValueError if New York's cannot be read."""
    try:
        korean_ns = parse_instant(KST, f[2].decode("ascii"), f[3].decode("ascii"), recv_ns)
    except ValueError:
        korean_ns = None
    exch_ns = parse_instant(
        NEW_YORK, f[0].decode("ascii"), f[1].decode("ascii"), recv_ns if korean_ns is None else korean_ns
    )
    if korean_ns is None:
        return exch_ns, int(Flag.DATE_MISMATCH) if f[2] or f[3] else 0
    return exch_ns, int(Flag.DATE_MISMATCH) if abs(exch_ns - korean_ns) >= DATE_MISMATCH_NS else 0


@lru_cache(maxsize=1024)
def _business_dates(venue: str, hour: int) -> tuple[bytes, bytes]:
    """The day of the session, YYYYMMDD, in an hour counted since 1970 UTC; in the evening it may be named by its calendar day."""
    hours = hours_of(venue)
    session_day, calendar_day = hours.session_day(hour * HOUR_NS), to_local(hour * HOUR_NS, hours.zone)
    return f"{session_day:%Y%m%d}".encode(), f"{calendar_day:%Y%m%d}".encode()


def _find_session(instrument: Instrument) -> Session:
    """The day market is identified by its key; else the calendar decides."""
    return Session.DAY_MARKET if is_day_market(instrument) else Session.UNKNOWN


def _infer_side(price: int, ask: int, bid: int, sums: tuple[int, int], previous: tuple[int, ...] | None) -> Side:
    """The aggressor's side, 0 where nothing determines it.

    Taken from the vendor's sums of sell- and buy-initiated volume where the record before is at hand, else from the quotes that
    the trade carries.
    """
    if previous is not None and UNDEFINED not in (*sums, *previous):
        sold, bought = sums[0] - previous[0], sums[1] - previous[1]
        return Side.SELL if sold > 0 and not bought else Side.BUY if bought > 0 and not sold else Side.NONE
    if 0 < bid < ask:
        return Side.BUY if price >= ask else Side.SELL if price <= bid else Side.NONE
    return Side.NONE


def _parse_quantity_e6(text: bytes) -> int:
    """A quantity in 1/1,000,000 share; finer digits are cut off. ValueError."""
    if text.isdigit():
        return int(text) * _MILLIONTH
    units, fraction = parse_decimal(text)
    return units * _MILLIONTH + int(fraction[:6].ljust(6, b"0"))


def _cut_to_shares(quantity_e6: int) -> int:
    """Whole shares of a quantity, UNDEFINED as it is."""
    return quantity_e6 if quantity_e6 == UNDEFINED else quantity_e6 // _MILLIONTH


def _round_to_shares(size_e6: int, cum_volume_e6: int) -> tuple[int, int, int]:
    """Size, cumulative volume and flag of a trade in whole shares; without a volume the size is rounded half to even."""
    if cum_volume_e6 == UNDEFINED:
        size = round(Fraction(size_e6, _MILLIONTH))
        return size, UNDEFINED, Flag.SIZE_ROUNDED if size_e6 % _MILLIONTH else 0
    cum_volume = cum_volume_e6 // _MILLIONTH
    rounded = size_e6 % _MILLIONTH or cum_volume_e6 % _MILLIONTH
    return cum_volume - (cum_volume_e6 - size_e6) // _MILLIONTH, cum_volume, Flag.SIZE_ROUNDED if rounded else 0


class _Price:
    """A price in 1/10,000: exact, or rounded half to even and flagged. UNDEFINED for an empty field. ValueError."""

    __slots__ = ("e4", "flag")

    def __init__(self, text: bytes) -> None:
        self.flag = 0
        if text[-5:-4] == b"." and (digits := text[:-5] + text[-4:]).isdigit() and len(digits) > 4:
            self.e4 = int(digits)  # four decimals, as almost all have
            return
        if not text:
            self.e4 = UNDEFINED
            return
        units, fraction = parse_decimal(text)
        self.e4 = units * PRICE_SCALE + int(fraction[:4].ljust(4, b"0"))
        rest = fraction[4:]  # without trailing zeros
        if rest:
            self.flag = int(Flag.PRICE_ROUNDED)
            self.e4 += rest > b"5" or (rest == b"5" and self.e4 % 2)


class _OptionalPrice(_Price):
    """A price that a trade can do without: UNDEFINED where it cannot be read."""

    __slots__ = ()

    def __init__(self, text: bytes) -> None:
        try:
            super().__init__(text)
        except ValueError:
            self.e4 = UNDEFINED
        if self.e4 > MAX_INT64:
            self.e4 = UNDEFINED
