"""Quarantined frames, read and decoded again.

    {"recv_ns":...,"mono_ns":...,"broker":"kis","reason":"...","text":"0|H0STCNT0|..."}     a line of brokers/feed/quarantine.py
        └─ decode, with every instrument of the settings and of that day ─> rows, or the reason

Guarantees:
    * Nothing is changed here.
    * A frame of which one part decodes is split into its rows and lines for the parts that do not.
    * Control messages stay quarantined; rows keep their receive times and carry LATE.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import msgspec
import numpy as np

from brokers.decoded import DecodedBatch, to_records
from brokers.feed.publisher import SessionResolver
from brokers.protocol import Broker, Subscription
from brokers.registry import BROKERS, load_broker
from conf.clock import HOUR_NS
from conf.home import Home
from conf.market import KR, MARKETS
from ringbuf.records import STREAMS, Flag

UNREADABLE = "the line is not a quarantine entry"


class QuarantineEntry(msgspec.Struct, omit_defaults=True):
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

    def encode_part(self, raw: bytes, reason: str) -> bytes:
        """The line for a part of this frame."""
        try:
            entry = msgspec.structs.replace(self, reason=reason, text=raw.decode(), base64="")
        except UnicodeDecodeError:
            entry = msgspec.structs.replace(self, reason=reason, text="", base64=b64encode(raw).decode())
        return msgspec.json.encode(entry) + b"\n"


_decode_entry = msgspec.json.Decoder(QuarantineEntry).decode


def read_lines(file: Path) -> Iterator[tuple[bytes, QuarantineEntry | None]]:
    """Each line of a quarantine file with its entry; None for an unreadable one. Without a file there are no lines."""
    if not file.exists():
        return
    with file.open("rb") as opened:
        for line in opened:
            try:
                entry = _decode_entry(line)
                entry.payload()
            except (msgspec.MsgspecError, ValueError):
                entry = None
            yield line, entry


def find_hours(directory: Path) -> list[int]:
    """The hours in which the frames of a date were received, ns since 1970 UTC."""
    found = {
        entry.recv_ns // HOUR_NS * HOUR_NS
        for name in BROKERS
        for _, entry in read_lines(directory / f"{name}.jsonl")
        if entry is not None
    }
    return sorted(found)


@dataclass
class Batch:
    """The quarantined frames of one hour of receipt, decoded again.

    By broker the lines that are decoded now and the lines of their parts that are not; the rows by dataset ("kr.tick"), in order of
    receipt; the reasons why other lines stay, with their number.
    """

    decoded: dict[str, list[bytes]] = field(default_factory=dict)
    leftover: dict[str, list[bytes]] = field(default_factory=dict)
    rows: dict[str, np.ndarray] = field(default_factory=dict)
    failures: Counter[str] = field(default_factory=Counter)


class Redecoder:
    """Today's decoders of a home, for the frames of a date."""

    def __init__(self, home: Home, day: date) -> None:
        self._brokers: dict[str, tuple[Broker, Mapping[str, Subscription]]] = {}
        for name, spec in BROKERS.items():
            vendor, instruments = load_broker(name), home.settings.instruments(spec.market)
            if spec.market == KR.name:
                instruments = list(dict.fromkeys([*instruments, *home.instruments_of(day)]))
            by_code = vendor.subscriptions_by_code(
                Subscription(one, stream) for one in instruments for stream in STREAMS
            )
            self._brokers[name] = vendor, by_code
        self._session_resolver = SessionResolver(home)

    def decode(self, directory: Path, hour: int) -> Batch:
        """The frames of a date that were received in `hour`."""
        batch = Batch()
        rows: dict[str, list[bytes]] = {f"{market}.{stream}": [] for market in MARKETS for stream in STREAMS}
        for name in self._brokers:
            batch.decoded[name], batch.leftover[name] = [], []
            for line, entry in read_lines(directory / f"{name}.jsonl"):
                if entry is not None and entry.recv_ns // HOUR_NS * HOUR_NS == hour:
                    self._add_entry(batch, rows, name, line, entry)
        for dataset, found in rows.items():
            batch.rows[dataset] = self._mark_late(to_records(STREAMS[dataset.partition(".")[2]], found))
        return batch

    def _add_entry(
        self, batch: Batch, rows: dict[str, list[bytes]], name: str, line: bytes, entry: QuarantineEntry
    ) -> None:
        vendor, by_code = self._brokers[name]
        decoded: DecodedBatch = vendor.decode(entry.payload(), by_code, entry.recv_ns, entry.mono_ns)
        if decoded.control is not None:
            batch.failures[entry.reason] += 1
            return
        for _, reason in decoded.rejects:
            batch.failures[reason] += 1
        if not (decoded.book_rows or decoded.tick_rows or decoded.market_events):
            batch.failures["a frame without records"] += not decoded.rejects
            return
        batch.decoded[name].append(line)
        batch.leftover[name] += [entry.encode_part(raw, reason) for raw, reason in decoded.rejects]
        market = BROKERS[name].market
        rows[f"{market}.orderbook"] += decoded.book_rows
        rows[f"{market}.tick"] += decoded.tick_rows

    def _mark_late(self, records: np.ndarray) -> np.ndarray:
        """In order of receipt. Monotonic times of several boots are not comparable: calendar times replace them."""
        records = records[np.argsort(records["recv_ns"], kind="stable")]
        records["mono_ns"] = records["recv_ns"]
        records["flags"] |= np.uint32(Flag.LATE)
        self._session_resolver.resolve(records)
        return records
