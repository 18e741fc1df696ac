"""Kiwoom REAL frames into rows (pure); docs/wire/kiwoom.md 1.7, 2.6, 3 and 4.

    {"data":[{"values":{"20":"115618","10":"-257750",...},"type":"0B","name":"...","item":"005930"}, ...],"trnm":"REAL"}
              FID -> text, signs mean something else in every field      |             `- as subscribed, with suffix
                                        0B trade, 0D book, 0s market phase, 1h volatility interruption -'

Guarantees:
    * Never raises, whatever the bytes: an entry that cannot be read is returned as a frame of its own with a reason, the
      other entries are kept.
    * A sign is never taken for part of a value (docs/wire/kiwoom.md 1.7.2).
    * An optional field never costs the record: one that cannot be read is UNDEFINED, and the record is flagged.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Annotated, Any

import msgspec

from brokers.decoded import DecodedBatch, MarketEvent, check_totals, flag_unreadable, pack_book, pack_tick
from brokers.subscription import Subscription
from conf.clock import date_time_of_day, parse_time_of_day
from conf.instrument import Instrument
from ringbuf.records import MAX_INT64, PRICE_SCALE, UNDEFINED, EventType, FeedId, Flag, Session, Side, Venue

TYPE_OF = {"tick": "0B", "orderbook": "0D"}
SUFFIX = {"KRX": "", "NXT": "_NX", "UN": "_AL"}
VENUE_OF_NAME = {"KRX": "KRX", "NXT": "NXT", "통합": "UN", "SOR": "UN"}
"""Venue by FID 9081 of a trade (docs/wire/kiwoom.md 3.1); of a unified item it may name the venue of the single trade."""
PHASE_TYPE, VI_TYPE = "0s", "1h"
MILLION = 1_000_000
_VALUE_ROUNDED = int(Flag.VALUE_ROUNDED)

_PHASES = {
    "0": "before the open",
    "3": "open",
    "2": "before the close",
    "4": "close",
    "8": "regular session closed",
    "9": "everything closed",
    "a": "closing-price trading begins",
    "b": "closing-price trading ends",
    "c": "after-hours single-price trading begins",
    "d": "after-hours single-price trading ends",
    "P": "NXT pre-market begins",
    "Q": "NXT pre-market ends",
    "R": "NXT main market begins",
    "S": "NXT main market ends",
    "T": "NXT after-market single price begins",
    "U": "NXT after-market begins",
    "V": "NXT after-market ends",
}


class _Entry(msgspec.Struct):
    type: str
    values: dict[str, str]
    item: str = ""


class _UntypedEntry(msgspec.Struct):
    """An entry whose values are not all text, as they are in the vendor's examples only."""

    type: str
    values: dict[str, Any]
    item: str | None = ""


class _Frame(msgspec.Struct):
    trnm: str
    data: list[_Entry] = []


class _RawFrame(msgspec.Struct):
    trnm: str
    data: list[msgspec.Raw] = []


class _Discriminator(msgspec.Struct):
    trnm: str


_decode_frame = msgspec.json.Decoder(_Frame).decode
_decode_raw_frame = msgspec.json.Decoder(_RawFrame).decode
_decode_raw_entry = msgspec.json.Decoder(_Entry).decode
_decode_untyped_entry = msgspec.json.Decoder(_UntypedEntry).decode
_decode_discriminator = msgspec.json.Decoder(_Discriminator).decode
_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)

_decode_small_ints = msgspec.json.Decoder(list[Annotated[int, msgspec.Meta(le=MAX_INT64 // MILLION)]]).decode

_tick_values = itemgetter("10", "15", "13", "14", "1071", "1072", "29", "27", "28")
_price_values = itemgetter(*map(str, range(41, 61)))  # 41..50 asks, 51..60 bids
_TICK_OPTIONAL = ("13", "14", "1071", "1072", "29", "27", "28")
_BOOK_OPTIONAL = ("121", "125", "291", "292", "13")
_BOOK_OPTIONAL_INDICATIVE = ("121", "125", "23", "24", "13")
_size_values = itemgetter(*map(str, range(61, 81)))  # 61..70 asks, 71..80 bids
_MID_FIDS = {venue: ("6106", "6108", "6107") if venue == "NXT" else ("6101", "6103", "6102") for venue in SUFFIX}
_book_values = {
    venue: itemgetter(*map(str, range(41, 81)), "121", "125", "291", "292", "23", "24", "13", *fids)
    for venue, fids in _MID_FIDS.items()
}
_VENUES = {venue: Venue[venue] for venue in SUFFIX}
_SIDES = {"+": Side.BUY, "-": Side.SELL}


def item_of(subscription: Subscription) -> str:
    """The code as subscribed: six characters, an ETN without its Q, the venue as suffix (docs/wire/kiwoom.md 4)."""
    symbol, venue = subscription.instrument
    return (symbol[1:] if len(symbol) == 7 else symbol) + SUFFIX[venue]


def subscriptions_by_code(subscriptions: Iterable[Subscription]) -> dict[str, Subscription]:
    """`type|item` -> subscription."""
    return {f"{TYPE_OF[r.stream]}|{item_of(r)}": r for r in subscriptions}


def decode(payload: bytes, by_code: Mapping[str, Subscription], recv_ns: int, mono_ns: int = 0) -> DecodedBatch:
    """One message. `recv_ns` dates the exchange's HHmmss; never raises."""
    out = DecodedBatch()
    try:
        entries = _parse_entries(payload)
    except _UNREADABLE as error:
        out.rejects.append((payload, f"no frame: {error}"))
        return out
    if entries is None:
        out.control = payload
        return out
    for nth, entry in enumerate(entries):
        try:
            _decode_entry(out, entry, by_code, recv_ns, mono_ns)
        except KeyError as error:
            out.rejects.append((_single_entry_frame(payload, nth), f"FID {error} is missing"))
        except (ValueError, struct.error, *_UNREADABLE) as error:
            out.rejects.append((_single_entry_frame(payload, nth), str(error)))
    return out


def _parse_entries(payload: bytes) -> Sequence[_Entry | msgspec.Raw] | None:
    """The entries of a REAL frame, None for a control message. Entries stay raw where one of them is malformed."""
    try:
        frame = _decode_frame(payload)
        return frame.data if frame.trnm == "REAL" else None
    except _UNREADABLE:
        text = _to_valid_utf8(payload)
        return _decode_raw_frame(text).data if _decode_discriminator(text).trnm == "REAL" else None


def _parse_raw_entry(raw: msgspec.Raw) -> _Entry:
    """An entry with its values as text: numbers as they are written, null as empty. MsgspecError."""
    try:
        return _decode_raw_entry(raw)
    except msgspec.ValidationError:
        entry = _decode_untyped_entry(raw)
    values = {fid: "" if value is None else str(value) for fid, value in entry.values.items()}
    return _Entry(entry.type, values, entry.item or "")


def _to_valid_utf8(payload: bytes) -> bytes:
    """Valid UTF-8 of any bytes: a bad byte in a name must not cost the numbers."""
    return payload.decode("utf-8", "replace").encode()


def _single_entry_frame(payload: bytes, nth: int) -> bytes:
    """The n-th entry as a frame of its own, its text untouched."""
    return b'{"data":[%b],"trnm":"REAL"}' % bytes(_decode_raw_frame(_to_valid_utf8(payload)).data[nth])


def _decode_entry(
    out: DecodedBatch, entry: _Entry | msgspec.Raw, by_code: Mapping[str, Subscription], recv_ns: int, mono_ns: int
) -> None:
    if isinstance(entry, msgspec.Raw):
        entry = _parse_raw_entry(entry)
    if entry.type == PHASE_TYPE:
        code = entry.values.get("215", "")
        message = f"{code} {_PHASES.get(code, 'unknown code')}, in {entry.values.get('214', '?')}"
        out.market_events.append(
            MarketEvent(EventType.PHASE, message, exch_ns=_parse_event_time(entry.values.get("20", ""), recv_ns))
        )
        return
    if entry.type == VI_TYPE:
        out.market_events.append(_decode_interruption(entry, recv_ns))
        return
    subscription = by_code.get(f"{entry.type}|{entry.item}")
    if subscription is None:
        is_known_type = entry.type in TYPE_OF.values()
        raise ValueError(f"item {entry.item[:20]!r} not subscribed" if is_known_type else "type not subscribed")
    if entry.type == "0B":
        row = _decode_tick(entry.values, subscription, recv_ns, mono_ns)
        if row is None:
            out.empty_trades += 1
            return
        out.tick_rows.append(row)
        out.tick_subscriptions.append(subscription)
    else:
        out.book_rows.append(_decode_book(entry.values, subscription, recv_ns, mono_ns))
        out.book_subscriptions.append(subscription)


def _decode_interruption(entry: _Entry, recv_ns: int) -> MarketEvent:
    """docs/wire/kiwoom.md 3.4, unverified on the wire: of 9068 only "1", triggered, is known. ValueError without a code."""
    v = entry.values
    code, _, suffix = (v.get("9001", "").strip() or entry.item).removeprefix("A").partition("_")
    venue = next((venue for venue, known in SUFFIX.items() if known == (suffix and f"_{suffix}")), None)
    if venue is None or not (len(code) == 6 and code.isascii() and code.isalnum()):
        raise ValueError(f"interruption of {entry.item[:20]!r} {v.get('9001', '')[:20]!r}, which is no code")
    known = {"9068": "kind", "1225": "applies", "9069": "direction", "1221": "at", "1490": "count", "1224": "until"}
    message = ", ".join(f"{name} {v[fid].strip()}" for fid, name in known.items() if v.get(fid, "").strip())
    value = 1 if v.get("9068") == "1" else UNDEFINED
    return MarketEvent(
        EventType.VI, message, Instrument(code, venue), value, _parse_event_time(v.get("1223", ""), recv_ns)
    )


def _parse_event_time(text: str, recv_ns: int) -> int:
    """The exchange time of an event, UNDEFINED if it is none."""
    try:
        return parse_time_of_day(text, recv_ns)
    except ValueError:
        return UNDEFINED


def _decode_tick(v: dict[str, str], subscription: Subscription, recv_ns: int, mono_ns: int) -> bytes | None:
    """docs/wire/kiwoom.md 3.1; None for an empty trade. KeyError or ValueError without time, price or quantity."""
    flags = 0
    if numbers := _parse_plain(_tick_values, v):
        price, size, cum_volume, cum_value, sells, buys, value_change, ask_price, bid_price = numbers
        if not price and not size:
            return None
        price_e4, cum_value = price * PRICE_SCALE, cum_value * MILLION
        ask_price_1_e4, bid_price_1_e4 = ask_price * PRICE_SCALE, bid_price * PRICE_SCALE
    else:
        quantity = v["15"]
        if not v["10"].strip(" +-0.") and not quantity.strip(" +-0."):
            return None
        price, size = _parse_magnitude(v["10"]), _parse_magnitude(quantity)
        if UNDEFINED in (price, size):
            raise ValueError("price or quantity is empty")
        sells, buys = _parse_optional(v, "1071"), _parse_optional(v, "1072")
        price_e4, cum_volume = price * PRICE_SCALE, _parse_optional(v, "13")
        cum_value, value_change = _parse_optional(v, "14", MILLION), _parse_optional(v, "29")
        ask_price_1_e4, bid_price_1_e4 = _parse_optional(v, "27", PRICE_SCALE), _parse_optional(v, "28", PRICE_SCALE)
        optional = cum_volume, cum_value, sells, buys, value_change, ask_price_1_e4, bid_price_1_e4
        flags = flag_unreadable(_optional_texts(v, _TICK_OPTIONAL), optional)
    venue = subscription.instrument.venue
    if venue != "UN" and VENUE_OF_NAME.get(v.get("9081", "").strip(), venue) != venue:
        flags |= Flag.VENUE_MISMATCH
    exch_ns, redated = date_time_of_day(v["20"], recv_ns)
    if redated:
        flags |= Flag.DATE_MISMATCH
    if value_change != UNDEFINED and _last_sign(v["29"]) == "-":  # a change, whose sign is a true one
        value_change = -value_change
    trade_count = UNDEFINED if UNDEFINED in (sells, buys) else sells + buys
    if cum_value != UNDEFINED:
        flags |= _VALUE_ROUNDED
    return pack_tick(
        0,
        recv_ns,
        mono_ns,
        exch_ns,
        subscription.instrument.symbol.encode(),
        _VENUES[venue],
        price_e4,
        size,
        cum_volume,
        cum_value,
        value_change,
        trade_count,
        ask_price_1_e4,
        bid_price_1_e4,
        _SIDES.get(_last_sign(v["15"]), Side.NONE),
        flags,
        FeedId.KIWOOM,
        # outside KRX the venue's hours decide, as with KIS: its code of the regular session comes in the after-market, too
        Session.REGULAR if v.get("290") == "2" and venue == "KRX" else Session.UNKNOWN,
        b"",
    )


def _decode_book(v: dict[str, str], subscription: Subscription, recv_ns: int, mono_ns: int) -> bytes:
    """docs/wire/kiwoom.md 3.2. KeyError or ValueError if a level is missing; an empty one is zero (docs/wire/kiwoom.md 1.7.6)."""
    venue, flags = subscription.instrument.venue, 0
    if numbers := _parse_plain(_book_values[venue], v):
        prices, sizes = numbers[:20], numbers[20:40]
        total_ask_size, total_bid_size, expected_price, expected_size = numbers[40:44]
        indicative_price, indicative_size, cum_volume, mid_ask_size, mid_bid_size, mid_price = numbers[44:]
        if not expected_price:  # 291 is filled in auctions only
            expected_price, expected_size = indicative_price, indicative_size
        expected_price_e4, mid_price_e4 = expected_price * PRICE_SCALE, mid_price * PRICE_SCALE
        mid_size = mid_ask_size + mid_bid_size
    else:
        prices, sizes = _parse_levels(_price_values(v)), _parse_levels(_size_values(v))
        total_ask_size, total_bid_size = _parse_optional(v, "121"), _parse_optional(v, "125")
        expected_price_e4, expected_size = _parse_optional(v, "291", PRICE_SCALE), _parse_optional(v, "292")
        fids, mid_fids = _BOOK_OPTIONAL, _MID_FIDS[venue]
        if expected_price_e4 in (0, UNDEFINED) and v.get("23"):
            expected_price_e4, expected_size = _parse_optional(v, "23", PRICE_SCALE), _parse_optional(v, "24")
            fids = _BOOK_OPTIONAL_INDICATIVE
        mid_sizes = [_parse_optional(v, fid) for fid in mid_fids[:2]]
        cum_volume, mid_price_e4 = _parse_optional(v, "13"), _parse_optional(v, mid_fids[2], PRICE_SCALE)
        mid_size = UNDEFINED if UNDEFINED in mid_sizes else sum(mid_sizes)
        flags = flag_unreadable(
            _optional_texts(v, (*fids, *mid_fids)),
            (total_ask_size, total_bid_size, expected_price_e4, expected_size, cum_volume, *mid_sizes, mid_price_e4),
        )
    ask_size, bid_size = sizes[:10], sizes[10:]
    # With an expected price it is an auction, whose totals may reach deeper than ten levels.
    if expected_price_e4 in (0, UNDEFINED):
        flags |= check_totals(total_ask_size, ask_size, total_bid_size, bid_size)
    prices = [price * PRICE_SCALE for price in prices]
    ask_price_e4, bid_price_e4 = prices[:10], prices[10:]
    exch_ns, redated = date_time_of_day(v["21"], recv_ns)
    if redated:
        flags |= Flag.DATE_MISMATCH
    return pack_book(
        0,
        recv_ns,
        mono_ns,
        exch_ns,
        subscription.instrument.symbol.encode(),
        _VENUES[venue],
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
        FeedId.KIWOOM,
        Session.UNKNOWN,
        b"",
    )


def _parse_plain(values: Callable[[dict[str, str]], tuple[str, ...]], v: dict[str, str]) -> list[int] | None:
    """Magnitudes of fields in one call; None where one needs a closer look.

    It is missing, empty, no digits behind at most one sign of each kind, or large for a value.
    """
    try:
        texts = values(v)
    except KeyError:
        return None
    joined = f",{','.join(texts)}".replace(",-", ",").replace(",+", ",")
    digits = joined.replace(",", "")
    if not (digits.isascii() and digits.isdigit()):
        return None
    try:
        numbers = _decode_small_ints(f"[{joined[1:]}]")
    except msgspec.MsgspecError:  # an empty one, a leading zero, a large one
        return None
    return numbers if len(numbers) == len(texts) else None  # one of them holds a comma


def _parse_levels(texts: tuple[str, ...]) -> list[int]:
    """Magnitudes of twenty levels; all plain in the usual case, which int() reads at once."""
    joined = "".join(texts)
    if joined.isascii() and "_" not in joined:
        try:
            return [abs(int(text)) for text in texts]
        except ValueError:
            pass  # an empty one, or a doubled sign
    return [0 if (number := _parse_magnitude(text)) == UNDEFINED else number for text in texts]


def _parse_magnitude(text: str) -> int:
    """The number without its signs (one, none or two); UNDEFINED if empty."""
    digits = text.strip(" ").lstrip("+-")
    if not digits:
        return UNDEFINED
    whole, _, fraction = digits.partition(".")
    if not (whole.isdigit() and whole.isascii()) or fraction.strip("0"):
        raise ValueError(f"{text[:40]!r} is not a whole number")
    return int(whole)


def _last_sign(text: str) -> str:
    """The last of the leading signs, or nothing."""
    text = text.strip(" ")
    return text[: len(text) - len(text.lstrip("+-"))][-1:]


def _parse_optional(v: dict[str, str], fid: str, factor: int = 1) -> int:
    """`factor` times a field's magnitude; UNDEFINED for one that is missing, empty, unreadable or larger than an int64."""
    try:
        number = _parse_magnitude(v.get(fid, ""))
    except ValueError:
        return UNDEFINED
    return number * factor if 0 <= number * factor <= MAX_INT64 else UNDEFINED


def _optional_texts(v: dict[str, str], fids: Sequence[str]) -> Iterator[str]:
    """What optional fields hold, without signs and blanks."""
    return (v.get(fid, "").strip(" +-") for fid in fids)
