"""Quarantined frames, read and decoded again.

    {"recv_ns":...,"mono_ns":...,"broker":"kis","reason":"...","text":"0|H0STCNT0|..."}     a line of brokers/quarantine.py
        └─ decode, with everything this home's settings name ─> rows, or why still not

Promises: changes nothing; a frame of which one part is understood is split: its rows, and lines for the parts that still are not;
what was part of the dialogue stays where it is; rows keep their times of receipt and carry LATE.
Leaves to others: which books are stored already (stored.py), placing (placing.py).
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np

from brokers.decoded import Decoded, records
from brokers.feed.publisher import Sessions
from brokers.protocol import Broker, Registration
from brokers.registry import BROKERS, broker
from conf.home import Home
from conf.market import HOUR_NS, MARKETS
from ringbuf.records import STREAMS, Flag

UNREADABLE = "the line is not one of a quarantine"


class Kept(msgspec.Struct, omit_defaults=True):
    """One line."""

    recv_ns: int
    mono_ns: int
    broker: str
    reason: str
    text: str = ""
    base64: str = ""

    def payload(self) -> bytes:
        """The frame as it came."""
        return b64decode(self.base64) if self.base64 else self.text.encode()

    def part(self, raw: bytes, reason: str) -> bytes:
        """The line for a part of this frame."""
        try:
            kept = msgspec.structs.replace(self, reason=reason, text=raw.decode(), base64="")
        except UnicodeDecodeError:
            kept = msgspec.structs.replace(self, reason=reason, text="", base64=b64encode(raw).decode())
        return msgspec.json.encode(kept) + b"\n"


_kept = msgspec.json.Decoder(Kept).decode


def lines(file: Path) -> Iterator[tuple[bytes, Kept | None]]:
    """Each line of a quarantine file as it is, with what it says; None for one that cannot be read. No file, no lines."""
    if not file.exists():
        return
    with file.open("rb") as opened:
        for line in opened:
            try:
                kept = _kept(line)
                kept.payload()
            except (msgspec.MsgspecError, ValueError):
                kept = None
            yield line, kept


def hours(directory: Path) -> list[int]:
    """The hours in which the frames of a date were received, ns since 1970 UTC."""
    found = {
        kept.recv_ns // HOUR_NS * HOUR_NS
        for name in BROKERS
        for _, kept in lines(directory / f"{name}.jsonl")
        if kept is not None
    }
    return sorted(found)


@dataclass
class Batch:
    """The frames of one hour of receipt: by broker the lines that are understood now and the lines of what of them is not; the
    rows by dataset ("kr.tick"), in order of receipt; why other lines stay, with their number."""

    taken: dict[str, list[bytes]] = field(default_factory=dict)
    rest: dict[str, list[bytes]] = field(default_factory=dict)
    rows: dict[str, np.ndarray] = field(default_factory=dict)
    remaining: Counter[str] = field(default_factory=Counter)


class Again:
    """Today's decoders of a home."""

    def __init__(self, home: Home) -> None:
        self._brokers: dict[str, tuple[Broker, Mapping[str, Registration]]] = {}
        for name, entry in BROKERS.items():
            vendor, instruments = broker(name), home.settings.instruments(entry.market)
            known = vendor.known(Registration(one, stream) for one in instruments for stream in STREAMS)
            self._brokers[name] = vendor, known
        self._sessions = Sessions(home)

    def decode(self, directory: Path, hour: int) -> Batch:
        """The frames of a date that were received in `hour`."""
        batch = Batch()
        rows: dict[str, list[bytes]] = {f"{market}.{stream}": [] for market in MARKETS for stream in STREAMS}
        for name in self._brokers:
            batch.taken[name], batch.rest[name] = [], []
            for line, kept in lines(directory / f"{name}.jsonl"):
                if kept is not None and kept.recv_ns // HOUR_NS * HOUR_NS == hour:
                    self._take(batch, rows, name, line, kept)
        for dataset, found in rows.items():
            batch.rows[dataset] = self._late(records(STREAMS[dataset.partition(".")[2]], found))
        return batch

    def _take(self, batch: Batch, rows: dict[str, list[bytes]], name: str, line: bytes, kept: Kept) -> None:
        vendor, known = self._brokers[name]
        decoded: Decoded = vendor.decode(kept.payload(), known, kept.recv_ns, kept.mono_ns)
        if decoded.control is not None:
            batch.remaining[kept.reason] += 1
            return
        for _, reason in decoded.rejected:
            batch.remaining[reason] += 1
        if not (decoded.book_rows or decoded.tick_rows or decoded.happened):
            batch.remaining["a frame without records"] += not decoded.rejected
            return
        batch.taken[name].append(line)
        batch.rest[name] += [kept.part(raw, reason) for raw, reason in decoded.rejected]
        market = BROKERS[name].market
        rows[f"{market}.orderbook"] += decoded.book_rows
        rows[f"{market}.tick"] += decoded.tick_rows

    def _late(self, found: np.ndarray) -> np.ndarray:
        """In order of receipt. Monotonic times of several boots are not comparable: the calendar's take their place."""
        found = found[np.argsort(found["recv_ns"], kind="stable")]
        found["mono_ns"] = found["recv_ns"]
        found["flags"] |= np.uint32(Flag.LATE)
        self._sessions.fill(found)
        return found
