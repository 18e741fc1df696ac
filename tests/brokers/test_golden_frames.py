"""Golden frames: written by hand from the documented field tables, with what they say beside them (tests/frames/README.md)."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brokers.decoded import DecodedBatch
from brokers.kis import decode as kis
from brokers.kiwoom import decode as kiwoom
from brokers.subscription import Subscription
from brokers.us import decode as us
from conf.instrument import Instrument
from ringbuf.records import UNDEFINED, FeedId, Flag, Session, Side, Venue

FRAMES = Path(__file__).parents[1] / "frames"
NAMES = sorted(path.stem for path in FRAMES.glob("*.txt"))
NOW_NS = int(datetime(2026, 11, 20, 12, tzinfo=timezone(timedelta(hours=9))).timestamp()) * 10**9
DECODERS: dict[str, Any] = {"kis": kis, "us": us, "kiwoom": kiwoom}
FEEDS = {"kis": FeedId.KIS, "us": FeedId.US, "kiwoom": FeedId.KIWOOM}
OPTIONAL = {
    "tick": ("size", "cum_volume", "cum_value", "value_change", "trade_count"),
    "book": ("cum_volume", "total_ask_size", "total_bid_size", "expected_size", "mid_size"),
}
OPTIONAL_PRICES = {"tick": ("price", "ask_price_1", "bid_price_1"), "book": ("expected_price", "mid_price")}

# Fields that the records are made of, by the tables' positions. In sums (a pair that may be swapped) only the sum is kept.
KIS_TICK = {0, 1, 2, 10, 11, 12, 13, 14, 15, 16, 21, 46}
KIS_BOOK = {*range(45), 47, 48, 53}
KIS_MIDPOINT = {"H0STASP0": {59, 60, 62}, "H0NXASP0": {62, 63}, "H0UNASP0": {59, 60}}
US_TICK = {0, 1, 3, 4, 5, 6, 7, 11, 15, 16, 19, 20, 21}
US_BOOK = {0, 1, *range(3, 9), *(at for first in range(11, 71, 6) for at in range(first, first + 4))}
KIWOOM_TICK = {"20", "10", "27", "28", "15", "13", "14", "29", "290", "1071", "1072"}
KIWOOM_BOOK = {*map(str, range(41, 81)), "21", "13", "121", "125"}
SUMS = ({15, 16}, {"1071", "1072"})


def frame_of(name: str) -> bytes:
    """The frame of a file: its lines, less the comments, joined."""
    lines = (FRAMES / f"{name}.txt").read_text().splitlines()
    return "".join(line for line in lines if not line.startswith("#")).encode()


def expectation_of(name: str) -> dict[str, Any]:
    """What the file beside it says."""
    return tomllib.loads((FRAMES / f"{name}.toml").read_text())


def read(name: str, payload: bytes) -> DecodedBatch:
    """The frame as the broker decodes it with what it names registered."""
    expected = expectation_of(name)
    decoder = DECODERS[name.partition("_")[0]]
    subscriptions = [
        Subscription(Instrument(record["symbol"], record["venue"]), stream)
        for kind, stream in (("tick", "tick"), ("book", "orderbook"), ("event", "status"))
        for record in expected.get(kind, ())
        if kind != "event" or name.startswith("kis_")
    ]
    return decoder.decode(payload, decoder.subscriptions_by_code(subscriptions), NOW_NS, 77)


def e4(text: str | None) -> int:
    """A price in 1/10,000; UNDEFINED for none."""
    return UNDEFINED if text is None else int(Decimal(text) * 10_000)


def expected_values(kind: str, record: dict[str, Any], feed: FeedId) -> dict[str, Any]:
    """An expectation in the record's own words; what it does not name the frame does not say."""
    values: dict[str, Any] = {
        "recv_ns": NOW_NS,
        "mono_ns": 77,
        "symbol": record["symbol"].encode(),
        "venue": Venue[record["venue"]],
        "exch_ns": int(record["exch_time"].timestamp()) * 10**9,
        "session": Session[record["session"]],
        "flags": sum(Flag[flag] for flag in record["flags"]),
        "line": feed,
        "extra": b"",
    }
    values |= {field: record.get(field, UNDEFINED) for field in OPTIONAL[kind]}
    values |= {f"{field}_e4": e4(record.get(field)) for field in OPTIONAL_PRICES[kind]}
    if kind == "tick":
        return values | {"side": Side[record["side"]]}
    for side in ("ask", "bid"):
        values[f"{side}_price_e4"] = [e4(price) for price, _ in record[f"{side}s"]]
        values[f"{side}_size"] = [size for _, size in record[f"{side}s"]]
    return values


def values_of(row: np.void) -> dict[str, Any]:
    """All a record says; its number is the ring's."""
    return {field: row[field].tolist() for field in row.dtype.names if field not in ("seq", "_pad")}


@pytest.mark.parametrize("name", NAMES)
def test_a_golden_frame_decodes_to_what_is_written_beside_it(name: str) -> None:
    """Every field of every record, all levels of a book; nothing else comes out of the frame."""
    expected, payload = expectation_of(name), frame_of(name)
    feed = FEEDS[name.partition("_")[0]]

    decoded = read(name, payload)

    assert decoded.rejects == []
    assert decoded.control == (payload if expected.get("control") else None)
    for kind, rows in (("tick", decoded.ticks), ("book", decoded.books)):
        wanted = [expected_values(kind, record, feed) for record in expected.get(kind, ())]
        assert [values_of(row) for row in rows] == wanted
    told = [
        (event.kind.name, event.message, tuple(event.instrument or ()), event.value, event.exch_ns)
        for event in decoded.market_events
    ]
    assert told == [
        (
            event["kind"],
            event["message"],
            (event["symbol"], event["venue"]) if "symbol" in event else (),
            event.get("value", UNDEFINED),
            int(event["exch_time"].timestamp()) * 10**9 if "exch_time" in event else UNDEFINED,
        )
        for event in expected.get("event", ())
    ]


def kinds_of(name: str) -> set[str]:
    """The types of a frame's records, under its broker."""
    broker, payload = name.partition("_")[0], frame_of(name)
    if payload.startswith(b"{"):
        return {f"{broker} {entry['type']}" for entry in json.loads(payload).get("data", ())}
    return {f"{broker} {payload.split(b'|')[1].decode()}"}


def test_every_kind_of_frame_that_the_decoders_know_has_a_golden_frame() -> None:
    """The layout tables' keys, and the types of entries."""
    known = {f"{broker} {tr.decode()}" for broker in ("kis", "us") for tr in DECODERS[broker].LAYOUTS}
    known |= {f"kiwoom {kind}" for kind in (*kiwoom.TYPE_OF.values(), kiwoom.PHASE_TYPE, kiwoom.VI_TYPE)}

    assert known - set().union(*map(kinds_of, NAMES)) == set()


def caret_swaps(payload: bytes) -> Iterator[tuple[str, bytes]]:
    """A KIS frame with two neighbouring fields of its first record swapped, at least one of them used."""
    head, tr, count, body = payload.decode().split("|", 3)
    fields = body.split("^")
    used = {"H0": KIS_TICK, "HD": US_TICK}[tr[:2]] if tr.endswith("CNT0") else {"H0": KIS_BOOK, "HD": US_BOOK}[tr[:2]]
    used = used | KIS_MIDPOINT.get(tr, set())
    if tr[:2] == "H0" and tr.endswith("CNT0"):  # a code that says what its absence says cannot be missed
        used = used | ({35} if fields[35] == "Y" else set())
        used = used - ({46} if fields[34] == "20" else set()) - ({21} if fields[21] == "3" else set())
    sums = SUMS if tr[:2] == "H0" else ()
    for at in range(len(fields) // int(count) - 1):
        if used & {at, at + 1} and {at, at + 1} not in sums and fields[at] != fields[at + 1]:
            swapped = [*fields[:at], fields[at + 1], fields[at], *fields[at + 2 :]]
            yield f"{at} and {at + 1}", "|".join((head, tr, count, "^".join(swapped))).encode()


def json_swaps(payload: bytes) -> Iterator[tuple[str, bytes]]:
    """A REAL frame with the texts of two neighbouring FIDs of an entry swapped, at least one of them used."""
    for nth, entry in enumerate(json.loads(payload)["data"]):
        values, used = entry["values"], {"0B": KIWOOM_TICK, "0D": KIWOOM_BOOK}.get(entry["type"], set())
        if entry["type"] == "0D":
            used = used | ({"23", "24"} if values["291"] == "0" else {"291", "292"})
            used = used | ({"6106", "6107", "6108"} if entry["item"].endswith("_NX") else {"6101", "6102", "6103"})
        if values.get("290") == "1" or entry["item"].endswith("_NX"):  # only 2, regular, says something, and of KRX
            used = used - {"290"}
        fids = list(values)
        for one, two in pairwise(fids):
            if used & {one, two} and {one, two} not in SUMS and values[one] != values[two]:
                changed = json.loads(payload)
                changed["data"][nth]["values"] |= {one: values[two], two: values[one]}
                yield f"entry {nth}: {one} and {two}", json.dumps(changed, ensure_ascii=False).encode()


@pytest.mark.parametrize("name", [name for name in NAMES if {"tick", "book"} & set(expectation_of(name))])
def test_two_swapped_neighbours_are_noticed(name: str) -> None:
    """No field that a record is made of can trade places with the one beside it."""
    payload = frame_of(name)
    swaps: Callable[[bytes], Iterator[tuple[str, bytes]]] = json_swaps if payload.startswith(b"{") else caret_swaps
    right = read(name, payload)

    tried = list(swaps(payload))

    assert len(tried) > 10
    unnoticed = []
    for pair, changed in tried:
        wrong = read(name, changed)
        if (wrong.tick_rows, wrong.book_rows, wrong.rejects) == (right.tick_rows, right.book_rows, []):
            unnoticed.append(pair)
    assert unnoticed == []
