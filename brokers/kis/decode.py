"""KIS frames into records (pure). Spec kis 3 and 4.

    0|H0STCNT0|003|005930^094751^71950^...^71000^005930^094751^71900^...
    |    |      |  `- records joined with ^, no separator between them: width = fields / count
    |    |      `- count
    |    `- what and where: trade or book, KRX, NXT or unified
    `- 0 plain, 1 encrypted

Promises: never raises, whatever the bytes; what cannot be read is handed back raw with a reason, the other records of the
frame are kept; a width larger than known is read by its known prefix, the surplus kept in `extra`.
Leaves to others: control messages (session.py), volume chains across frames (the writer's volume line).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import msgspec

from brokers.registration import Registration
from brokers.rows import EXTRA_BYTES, Decoded, pack_book, pack_tick
from conf.clock import time_of_day
from ringbuf.records import PRICE_SCALE, UNDEFINED, Flag, Line, Session, Side, Venue


class Layout(NamedTuple):
    """A TR's fields. Indexes are zero-based; a field that lies beyond a frame's width is not in that frame."""

    stream: str
    venue: Venue
    widths: frozenset[int]  # known widths (spec kis 3); between two of them a frame may have been cut
    known: int  # the largest of them
    market: int  # MARKET_CLS_CODE
    mid: int  # midpoint price, its quantity behind it


_ABSENT = 1 << 30


def _layout(stream: str, venue: Venue, widths: set[int], market: int = _ABSENT, mid: int = _ABSENT) -> Layout:
    return Layout(stream, venue, frozenset(widths), max(widths), market, mid)


LAYOUTS: dict[bytes, Layout] = {
    b"H0STCNT0": _layout("tick", Venue.KRX, {46, 47}, market=46),
    b"H0NXCNT0": _layout("tick", Venue.NXT, {46, 47}, market=46),
    b"H0UNCNT0": _layout("tick", Venue.UN, {46, 47}, market=46),
    b"H0STASP0": _layout("orderbook", Venue.KRX, {59, 62, 63}, market=62, mid=59),
    b"H0NXASP0": _layout("orderbook", Venue.NXT, {65}, mid=62),
    b"H0UNASP0": _layout("orderbook", Venue.UN, {65, 66}, mid=59),
}
TR_OF: dict[tuple[str, str], str] = {(layout.venue.name, layout.stream): tr.decode() for tr, layout in LAYOUTS.items()}


class _AnyObject(msgspec.Struct):
    """A JSON object of which nothing is built, however large it is."""


_well_formed = msgspec.json.Decoder(_AnyObject).decode

_AUCTIONS = {b"A": Session.CLOSING_AUCTION, b"B": Session.OPENING_AUCTION, b"C": Session.INTRADAY_AUCTION}
_MARKETS = {
    b"1": Session.PRE_MARKET,
    b"2": Session.REGULAR,
    b"3": Session.AFTER_MARKET,
    b"5": Session.CLOSING_PRICE,
}
_SIDES = {b"1": Side.BUY, b"5": Side.SELL}
_NUMBER = re.compile(rb"([0-9]+)(?:\.([0-9]*))?")


def known(registrations: Iterable[Registration]) -> dict[str, Registration]:
    """`TR|code` -> registration; a code is spelled as the exchange does, with the Q of an ETN (spec kis 2.7)."""
    return {f"{TR_OF[r.instrument.venue, r.stream]}|{r.instrument.symbol}": r for r in registrations}


def decode(payload: bytes, known: Mapping[str, Registration], recv_ns: int, mono_ns: int = 0) -> Decoded:
    """One message. `recv_ns` dates the exchange's HHMMSS; never raises."""
    out = Decoded()
    if payload[:1] == b"{":
        try:
            _well_formed(payload)
        except (msgspec.MsgspecError, RecursionError) as error:
            out.rejected.append((payload, f"no JSON: {error}"))
        else:
            out.control = payload
        return out
    try:
        parts = payload.split(b"|", 3)
        if len(parts) != 4 or not (parts[2].isdigit() and 0 < int(parts[2]) < 1000):
            raise ValueError("not of the form flag|TR|count|fields")
        flag, tr, count, body = parts
        if flag != b"0":
            raise ValueError("encrypted, as quotes never are" if flag == b"1" else f"flag {flag[:8]!r} is unknown")
        layout = LAYOUTS.get(tr)
        if layout is None:
            raise ValueError("type not registered")
        fields = body.split(b"^")
        width, rest = divmod(len(fields), int(count))
        if rest or (width not in layout.widths and width < layout.known):
            raise ValueError(f"{len(fields)} fields are not {int(count)} records of a known width")
        prefix = tr.decode()
        found = [known.get(f"{prefix}|{fields[at].decode('latin-1')}") for at in range(0, len(fields), width)]
        if None in found:
            raise ValueError("a record does not begin with a registered code")
    except ValueError as error:
        out.rejected.append((payload, str(error)))
        return out
    if width > layout.known:
        out.wide.append((prefix, width))
    read = _book if layout.stream == "orderbook" else _tick
    before: dict[Registration, tuple[int, int]] = {}
    for nth, registration in enumerate(found):
        record = fields[nth * width : (nth + 1) * width]
        try:
            read(out, record, layout, registration, recv_ns, mono_ns, before)
        except (ValueError, struct.error) as error:
            out.rejected.append((b"0|%b|001|%b" % (tr, b"^".join(record)), str(error)))
    return out


def _tick(
    out: Decoded,
    f: list[bytes],
    layout: Layout,
    registration: Registration,
    recv_ns: int,
    mono_ns: int,
    before: dict[Registration, tuple[int, int]],
) -> None:
    """Spec kis 4.1. ValueError or struct.error if a field that a trade cannot do without is no number."""
    exch_ns = time_of_day(f[1], recv_ns)
    price_e4, size, cum_volume = _price_e4(f[2]), _whole(f[12]), _whole(f[13])
    cum_value = _value(f[14])
    sells, buys = _optional(f[15]), _optional(f[16])
    flags, extra = _surplus(f, layout)
    if f[35] == b"Y":
        flags |= Flag.HALTED
    # Within a frame volume and value advance trade by trade (spec kis 3); a midpoint's half won may be cut off.
    last_volume, last_value = before.get(registration, (UNDEFINED, UNDEFINED))
    if last_volume != UNDEFINED and cum_volume != last_volume + size:
        flags |= Flag.CHECKSUM
    if (
        UNDEFINED not in (last_value, cum_value)
        and abs((cum_value - last_value) * PRICE_SCALE - size * price_e4) >= PRICE_SCALE
    ):
        flags |= Flag.CHECKSUM
    row = pack_tick(
        0,
        recv_ns,
        mono_ns,
        exch_ns,
        registration.instrument.symbol.encode(),
        layout.venue,
        price_e4,
        size,
        cum_volume,
        cum_value,
        UNDEFINED,
        UNDEFINED if UNDEFINED in (sells, buys) else sells + buys,
        _price_e4(f[10]) if f[10] else UNDEFINED,
        _price_e4(f[11]) if f[11] else UNDEFINED,
        _SIDES.get(f[21], Side.NONE),
        flags,
        Line.KIS,
        _session(f[43], f[layout.market] if len(f) > layout.market else b"", f[34]),
        extra,
    )
    before[registration] = (cum_volume, cum_value)
    out.tick_rows.append(row)
    out.tick_of.append(registration)


def _book(
    out: Decoded,
    f: list[bytes],
    layout: Layout,
    registration: Registration,
    recv_ns: int,
    mono_ns: int,
    before: dict[Registration, tuple[int, int]],
) -> None:
    """Spec kis 4.2. ValueError or struct.error if a level is no number; totals, expectation and midpoint may be empty."""
    exch_ns = time_of_day(f[1], recv_ns)
    if b"".join(f[3:43]).isdigit():
        levels = [int(text) for text in f[3:43]]
        prices = [price * PRICE_SCALE for price in levels[:20]]
        sizes = levels[20:]
    else:
        prices = [_price_e4(text) for text in f[3:23]]
        sizes = [_whole(text) for text in f[23:43]]
    total_ask, total_bid = _optional(f[43]), _optional(f[44])
    market = f[layout.market] if len(f) > layout.market else b""
    flags, extra = _surplus(f, layout)
    # In call auctions the totals may cover more than the levels shown (spec kis 4.2): judged in continuous trading only.
    if f[2] == b"0" and market in (b"", b"2"):
        if total_ask != UNDEFINED and total_ask != sum(sizes[:10]):
            flags |= Flag.CHECKSUM
        if total_bid != UNDEFINED and total_bid != sum(sizes[10:]):
            flags |= Flag.CHECKSUM
    mid = f[layout.mid : layout.mid + 2] if len(f) > layout.mid + 1 else [b"", b""]
    session = _session(f[2], market, b"")
    if session == Session.UNKNOWN and f[2] == b"0" and layout.venue == Venue.KRX and not market:
        session = Session.REGULAR  # before MARKET_CLS_CODE came, these TRs carried one continuous session only
    row = pack_book(
        0,
        recv_ns,
        mono_ns,
        exch_ns,
        registration.instrument.symbol.encode(),
        layout.venue,
        *prices[:10],
        *sizes[:10],
        *prices[10:],
        *sizes[10:],
        _optional(f[53]),
        total_ask,
        total_bid,
        _price_e4(f[47]) if f[47] else UNDEFINED,
        _optional(f[48]),
        _price_e4(mid[0]) if mid[0] else UNDEFINED,
        _optional(mid[1]),
        flags,
        Line.KIS,
        session,
        extra,
    )
    out.book_rows.append(row)
    out.book_of.append(registration)


def _surplus(f: list[bytes], layout: Layout) -> tuple[int, bytes]:
    """Flags and raw text of the fields beyond the largest known width."""
    if len(f) <= layout.known:
        return 0, b""
    text = b"^".join(f[layout.known :])
    return (Flag.EXTRA | Flag.EXTRA_CUT if len(text) > EXTRA_BYTES else Flag.EXTRA), text


def _session(hour: bytes, market: bytes, operation: bytes) -> Session:
    """HOUR_CLS_CODE tells the auctions, MARKET_CLS_CODE the market, NEW_MKOP_CLS_CODE the rest (spec kis 4.3)."""
    session = _AUCTIONS.get(hour) or _MARKETS.get(market)
    if session is None:
        if operation == b"20":
            return Session.REGULAR
        if operation[1:] == b"1":
            return Session.CLOSING_PRICE
        return Session.UNKNOWN
    return session


def _whole(text: bytes) -> int:
    """A count without sign; stricter than int(), which takes blanks and underscores."""
    if not text.isdigit():
        raise ValueError(f"{text[:40]!r} is no whole number")
    return int(text)


def _optional(text: bytes) -> int:
    return _whole(text) if text else UNDEFINED


def _value(text: bytes) -> int:
    """Won; a fraction, should one come, is cut off."""
    return _price_e4(text) // PRICE_SCALE if text else UNDEFINED


def _price_e4(text: bytes) -> int:
    """A price in 1/10,000, exact: no float in between."""
    if text.isdigit():
        return int(text) * PRICE_SCALE
    match = _NUMBER.fullmatch(text)
    if match is None:
        raise ValueError(f"{text[:40]!r} is no price")
    fraction = (match[2] or b"").rstrip(b"0")
    if len(fraction) > 4:
        raise ValueError(f"{text[:40]!r} is finer than 1/10,000")
    return int(match[1]) * PRICE_SCALE + int(fraction.ljust(4, b"0"))
