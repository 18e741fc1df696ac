"""The form all KIS data frames have (pure), domestic and overseas. Spec kis 3.

    0|TYPE|003|f0^f1^f2^...^f0^f1^f2^...
    |   |    |  `- records joined with ^, no separator between them: width = fields / count
    |   |    `- count
    |   `- what and where: a Layout
    `- 0 plain, 1 encrypted

Promises: never raises, whatever the bytes; what cannot be read is handed back raw with a reason, the other records of the
frame are kept; a width larger than known is read by its known prefix, the surplus kept in `extra`.
Leaves to others: what the fields mean (decode.py of kis and us), control messages (session.py).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Mapping
from typing import Protocol, TypeVar

import msgspec

from brokers.decoded import EXTRA_BYTES, Decoded
from brokers.subscription import Registration
from ringbuf.records import PRICE_SCALE, UNDEFINED, Flag


class Layout(Protocol):
    """A type of record."""

    stream: str
    widths: frozenset[int]  # known widths; between two of them a frame may have been cut
    known: int  # the largest of them


Form = TypeVar("Form", bound=Layout)
Before = dict[Registration, tuple[int, ...]]
"""What the frame's earlier records said of a registration, as far as the next one is compared with it."""
Read = Callable[[Decoded, list[bytes], Form, Registration, int, int, Before], None]
"""Appends one record: (out, its fields, layout, whose, recv_ns, mono_ns, before). ValueError, struct.error if it cannot be read."""


class _AnyObject(msgspec.Struct):
    """A JSON object of which nothing is built, however large it is."""


_well_formed = msgspec.json.Decoder(_AnyObject).decode
_NUMBER = re.compile(rb"([0-9]+)(?:\.([0-9]*))?")


def read(
    payload: bytes,
    layouts: Mapping[bytes, Form],
    readers: Mapping[str, Read[Form]],
    known: Mapping[str, Registration],
    recv_ns: int,
    mono_ns: int,
) -> Decoded:
    """One message: `readers` by stream, `known` by `TYPE|first field`; never raises."""
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
        layout = layouts.get(tr)
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
    take = readers[layout.stream]
    before: Before = {}
    for nth, registration in enumerate(found):
        record = fields[nth * width : (nth + 1) * width]
        try:
            take(out, record, layout, registration, recv_ns, mono_ns, before)
        except (ValueError, struct.error) as error:
            out.rejected.append((b"0|%b|001|%b" % (tr, b"^".join(record)), str(error)))
    return out


def surplus(f: list[bytes], known: int) -> tuple[int, bytes]:
    """Flags and raw text of the fields beyond the known ones."""
    if len(f) <= known:
        return 0, b""
    text = b"^".join(f[known:])
    return (Flag.EXTRA | Flag.EXTRA_CUT if len(text) > EXTRA_BYTES else Flag.EXTRA), text


def chained(before: tuple[int, ...] | None, cum_volume: int, cum_value: int, size: int, price_e4: int) -> bool:
    """Within a frame volume and value advance trade by trade (spec kis 3); a fraction of the value may be cut off."""
    if before is None:
        return True
    last_volume, last_value = before[:2]
    if cum_volume != last_volume + size:
        return False
    return UNDEFINED in (last_value, cum_value) or (
        abs((cum_value - last_value) * PRICE_SCALE - size * price_e4) < PRICE_SCALE
    )


def whole(text: bytes) -> int:
    """A count without sign; stricter than int(), which takes blanks and underscores. ValueError."""
    if not text.isdigit():
        raise ValueError(f"{text[:40]!r} is no whole number")
    return int(text)


def optional(text: bytes) -> int:
    """A count, UNDEFINED for an empty field. ValueError."""
    return whole(text) if text else UNDEFINED


def value(text: bytes) -> int:
    """Whole units of the currency; a fraction, should one come, is cut off. UNDEFINED for an empty field. ValueError."""
    if not text:
        return UNDEFINED
    units, _ = decimal(text)
    return units


def price_e4(text: bytes) -> int:
    """A price in 1/10,000, exact: no float in between. ValueError."""
    if text.isdigit():
        return int(text) * PRICE_SCALE
    units, fraction = decimal(text)
    if len(fraction) > 4:
        raise ValueError(f"{text[:40]!r} is finer than 1/10,000")
    return units * PRICE_SCALE + int(fraction.ljust(4, b"0"))


def decimal(text: bytes) -> tuple[int, bytes]:
    """Whole part and the digits behind the point, less trailing zeros. ValueError."""
    if text.isdigit():
        return int(text), b""
    match = _NUMBER.fullmatch(text)
    if match is None:
        raise ValueError(f"{text[:40]!r} is no price")
    return int(match[1]), (match[2] or b"").rstrip(b"0")
