"""KIS data frames, domestic and overseas (pure); docs/wire/kis.md 3.

    0|TYPE|003|f0^f1^f2^...^f0^f1^f2^...
    |   |    |  `- records joined with ^, no separator between them: width = fields / count
    |   |    `- count
    |   `- record type: a RecordLayout
    `- 0 plain, 1 encrypted

Guarantees:
    * Never raises, whatever the bytes: a record that cannot be read is returned raw with a reason, the other records of the
      frame are kept.
    * A record wider than known is read by its known prefix; the surplus is kept in `extra`.
    * An optional field never costs the record: one that cannot be read is UNDEFINED, and the record is flagged.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Generic, TypeVar

import msgspec

from brokers.decoded import EXTRA_BYTES, DecodedBatch
from brokers.subscription import Subscription
from ringbuf.records import MAX_INT64, PRICE_SCALE, UNDEFINED, Flag


@dataclass(frozen=True, slots=True)
class RecordLayout:
    """A type of record."""

    stream: str
    widths: frozenset[int]  # numbers of fields that are read; a frame between two of them may have been cut
    known_width: int  # the largest documented one (docs/wire/kis.md 3)


LayoutT = TypeVar("LayoutT", bound=RecordLayout)


@dataclass(slots=True)
class Frame(Generic[LayoutT]):
    """What the records of one frame share."""

    out: DecodedBatch
    layout: LayoutT
    recv_ns: int
    mono_ns: int
    previous: dict[Subscription, tuple[int, ...]] = field(default_factory=dict)  # cumulative values of the last record


RecordReader = Callable[[Frame[LayoutT], list[bytes], Subscription], bytes | None]
"""Packs one record: (its frame, its fields, whose); None for an empty trade or a status. ValueError, struct.error."""


class _AnyObject(msgspec.Struct):
    """A JSON object of which nothing is built, however large it is."""


_check_json = msgspec.json.Decoder(_AnyObject).decode
_decode_small_uints = msgspec.json.Decoder(list[Annotated[int, msgspec.Meta(ge=0, le=MAX_INT64 // PRICE_SCALE)]]).decode
_NUMBER = re.compile(rb"([0-9]+)(?:\.([0-9]*))?")


def read_frame(
    payload: bytes,
    layouts: Mapping[bytes, LayoutT],
    readers: Mapping[str, RecordReader[LayoutT]],
    by_code: Mapping[str, Subscription],
    recv_ns: int,
    mono_ns: int,
) -> DecodedBatch:
    """One message: `readers` by stream, `by_code` by `TYPE|first field`; never raises."""
    out = DecodedBatch()
    if payload[:1] == b"{":
        try:
            _check_json(payload)
        except (msgspec.MsgspecError, RecursionError) as error:
            out.rejects.append((payload, f"no JSON: {error}"))
        else:
            out.control = payload
        return out
    try:
        parts = payload.split(b"|", 3)
        if len(parts) != 4 or not (parts[2].isdigit() and 0 < (count := int(parts[2])) < 1000):
            raise ValueError("not of the form flag|TR|count|fields")
        flag, tr, _, body = parts
        if flag != b"0":
            raise ValueError("encrypted, as quotes never are" if flag == b"1" else f"flag {flag[:8]!r} is unknown")
        layout = layouts.get(tr)
        if layout is None:
            raise ValueError("type not subscribed")
        fields = body.split(b"^")
        width, rest = divmod(len(fields), count)
        if rest or (width not in layout.widths and width < layout.known_width):
            raise ValueError(f"{len(fields)} fields are not {count} records of a known width")
        prefix = tr.decode()
        try:
            subscriptions = [by_code[f"{prefix}|{fields[at].decode('latin-1')}"] for at in range(0, len(fields), width)]
        except KeyError:
            raise ValueError("a record does not begin with a subscribed code") from None
    except ValueError as error:
        out.rejects.append((payload, str(error)))
        return out
    if width > layout.known_width:
        out.oversized_frames.append((prefix, width))
    read_record, frame = readers[layout.stream], Frame(out, layout, recv_ns, mono_ns)
    rows, row_subscriptions = (
        (out.tick_rows, out.tick_subscriptions) if layout.stream == "tick" else (out.book_rows, out.book_subscriptions)
    )
    for nth, subscription in enumerate(subscriptions):
        record = fields[nth * width : (nth + 1) * width]
        try:
            row = read_record(frame, record, subscription)
            if row is None:
                out.empty_trades += layout.stream == "tick"
                continue
            rows.append(row)
            row_subscriptions.append(subscription)
        except (ValueError, struct.error) as error:
            out.rejects.append((b"0|%b|001|%b" % (tr, b"^".join(record)), str(error)))
    return out


def extra_fields(f: list[bytes], known_width: int) -> tuple[int, bytes]:
    """Flags and raw text of the fields beyond the known ones."""
    if len(f) <= known_width:
        return 0, b""
    text = b"^".join(f[known_width:])
    return (Flag.EXTRA | Flag.EXTRA_CUT if len(text) > EXTRA_BYTES else Flag.EXTRA), text


def is_continuous(previous: tuple[int, ...] | None, cum_volume: int, cum_value: int, size: int, price_e4: int) -> bool:
    """Within a frame volume and value advance trade by trade (docs/wire/kis.md 3); a fraction of the value may be cut off."""
    if previous is None:
        return True
    last_volume, last_value = previous[:2]
    if UNDEFINED in (last_volume, cum_volume):
        return True
    if cum_volume != last_volume + size:
        return False
    return UNDEFINED in (last_value, cum_value) or (
        abs((cum_value - last_value) * PRICE_SCALE - size * price_e4) < PRICE_SCALE
    )


def is_empty_trade(price: bytes, size: bytes) -> bool:
    """Whether a record of a trade has neither price nor quantity: nothing was traded."""
    return not price.strip(b"0.") and not size.strip(b"0.")


def parse_small_uints(fields: bytes) -> list[int] | None:
    """Fields joined with ^ as counts in one call; None where one needs a closer look: no plain number, or large for a price."""
    if fields.translate(None, b"0123456789^"):
        return None  # JSON takes blanks and -0 as well
    try:
        return _decode_small_uints(b"[%b]" % fields.replace(b"^", b","))
    except msgspec.MsgspecError:  # an empty one, a leading zero, a large one
        return None


def parse_uint(text: bytes) -> int:
    """A count without sign; stricter than int(), which takes blanks and underscores. ValueError."""
    if text.isdigit():
        return int(text)
    match = _NUMBER.fullmatch(text)
    if match is None or (match[2] or b"").strip(b"0"):
        raise ValueError(f"{text[:40]!r} is not a whole number")
    return int(match[1])


def parse_optional_uint(text: bytes) -> int:
    """A count; UNDEFINED for a field that is empty or holds none."""
    return parse_optional(text, parse_uint)


def parse_optional(text: bytes, parse: Callable[[bytes], int]) -> int:
    """What `parse` makes of a field; UNDEFINED for one that is empty, cannot be read, or is larger than an int64."""
    if not text:
        return UNDEFINED
    try:
        number = parse(text)
    except ValueError:
        return UNDEFINED
    return number if number <= MAX_INT64 else UNDEFINED


def parse_value(text: bytes) -> int:
    """Whole units of the currency, a fraction is cut off; UNDEFINED for a field that is empty or holds no number."""
    return parse_optional(text, lambda field: parse_decimal(field)[0])


def parse_price_e4(text: bytes) -> int:
    """A price in 1/10,000, exact: no float in between. ValueError."""
    if text.isdigit():
        return int(text) * PRICE_SCALE
    units, fraction = parse_decimal(text)
    if len(fraction) > 4:
        raise ValueError(f"{text[:40]!r} is finer than 1/10,000")
    return units * PRICE_SCALE + int(fraction.ljust(4, b"0"))


def parse_decimal(text: bytes) -> tuple[int, bytes]:
    """Whole part and the digits behind the point, less trailing zeros. ValueError."""
    if text.isdigit():
        return int(text), b""
    match = _NUMBER.fullmatch(text)
    if match is None:
        raise ValueError(f"{text[:40]!r} is no price")
    return int(match[1]), (match[2] or b"").rstrip(b"0")
