"""What the simulator sends has the shape of what was recorded (specs/samples), and keeps the documents' identities."""

from __future__ import annotations

import itertools
import json
import re
from datetime import datetime
from pathlib import Path
from random import Random
from typing import Any

import pytest
from support.vendor_clients import SAMPLES

from brokers.simulator.exchange.market import SimulatedMarket
from brokers.simulator.exchange.models import Book, MarketUpdate
from brokers.simulator.gateway.client import QueuedItem
from brokers.simulator.ground_truth import Stream
from brokers.simulator.kis import encode as kis_encode
from brokers.simulator.kiwoom import encode as kiwoom_encode
from conf.clock import KST
from conf.instrument import parse_instrument

DAY_S = round(datetime(2026, 11, 20, tzinfo=KST).timestamp())
INT, SIGNED, RATE, SIGNED_RATE = r"\d+", r"-?\d+", r"\d+\.\d\d", r"-?\d+\.\d\d"
TIME, CODE, DIRECTION = r"\d{6}", r"[0-9A-Z]{6,7}", r"[1-5]"
KIS_TRADE = [
    *[CODE, TIME, INT, DIRECTION, SIGNED, SIGNED_RATE, RATE, INT, INT, INT, INT, INT, INT, INT, INT, INT, INT, SIGNED],
    *[RATE, INT, INT, r"[135]", RATE, RATE, TIME, DIRECTION, SIGNED, TIME, DIRECTION, SIGNED, TIME, DIRECTION, SIGNED],
    *[r"\d{8}", r"\d\d", r"[YN]", INT, INT, INT, INT, RATE, INT, RATE, r"[0A-D]", r"\d?", INT],
]
KIS_BOOK = [
    *[CODE, TIME, r"[0A-D]", *[INT] * 40, INT, INT, INT, INT, INT, INT, INT, SIGNED, DIRECTION, SIGNED_RATE, INT],
    *[SIGNED, SIGNED, SIGNED, SIGNED, INT, INT, INT, r"[012]"],
]
PRICE, COUNT, TRUE_SIGN, PERCENT = r"[+-]?\d+", r"\d+", r"[+-]?\d+", r"[+-]?\d+\.\d\d"
KIWOOM_TRADE = {
    **dict.fromkeys(["20", "567", "568", "1890", "1891", "1892"], TIME),
    **dict.fromkeys(["10", "27", "28", "16", "17", "18"], PRICE),
    **dict.fromkeys(["11", "26", "29", "15", "1313", "1314"], TRUE_SIGN),
    **dict.fromkeys(["12", "30", "31", "228", "1032"], PERCENT),
    **dict.fromkeys(["13", "14", "32", "311", "691", "851", "1030", "1031", "1071", "1072"], COUNT),
    **dict.fromkeys(["1497", "1498", "620", "732", "852"], COUNT),
    **dict.fromkeys(["1315", "1316"], r" 0|[+-]\d+"),
    **{"25": DIRECTION, "290": r"[123]", "9081": r"KRX|NXT"},
}


@pytest.fixture(scope="module")
def steps() -> list[MarketUpdate]:
    """A stretch of regular session of one KRX and one NXT instrument, with sweeps, mid-price trades and a thin book."""
    market = SimulatedMarket([parse_instrument(name) for name in ("005930", "0074K0", "000660_NX", "035420")], 5)
    found = []
    for number in range(1500):
        for instrument in market.listings:
            step = market.advance(instrument, "regular", DAY_S + 9 * 3600 + number // 10, 0)
            if step is not None:
                found.append(step)
    return found


def items(steps: list[MarketUpdate]) -> list[QueuedItem]:
    """The steps as a line queues them."""
    queued = []
    for step in steps:
        if step.trades:
            queued.append(QueuedItem(0, step.instrument, Stream.TICK, step.trades))
        if step.book is not None:
            queued.append(QueuedItem(0, step.instrument, Stream.BOOK, step.book))
    return queued


def records(text: str) -> list[list[str]]:
    """A KIS frame's records as fields, split as docs/wire/kis.md 3 says."""
    _, _, count, payload = text.split("|", 3)
    fields = payload.split("^")
    width, rest = divmod(len(fields), int(count))
    assert rest == 0
    return [fields[start : start + width] for start in range(0, len(fields), width)]


def sample_lines(name: str) -> list[str]:
    """The recorded KIS frames of a file; skips when the samples are not there."""
    if not SAMPLES.is_dir():
        pytest.skip(f"no recorded frames beside this checkout: {SAMPLES}")
    return (SAMPLES / "kis" / name).read_text(encoding="utf-8").splitlines()


def sample_entries(pattern: str) -> list[dict[str, Any]]:
    """The recorded Kiwoom entries of some files; skips when the samples are not there."""
    if not SAMPLES.is_dir():
        pytest.skip(f"no recorded frames beside this checkout: {SAMPLES}")
    found = []
    for file in sorted((SAMPLES / "kiwoom").glob(pattern)):
        content = json.loads(Path(file).read_text(encoding="utf-8"))
        found += [content["entry"]] if "entry" in content else []
        found += [entry for frame in content.get("frames", []) for entry in frame["frame"]["data"]]
    return found


@pytest.mark.parametrize(
    ("profile", "widths"),
    [
        ("46/59", {"H0STCNT0": 46, "H0STASP0": 59, "H0NXCNT0": 46, "H0NXASP0": 65}),
        ("46/62", {"H0STCNT0": 46, "H0STASP0": 62, "H0NXCNT0": 46, "H0NXASP0": 65}),
        ("47/63", {"H0STCNT0": 47, "H0STASP0": 63, "H0NXCNT0": 47, "H0NXASP0": 65}),
        ("48/64", {"H0STCNT0": 48, "H0STASP0": 64, "H0NXCNT0": 48, "H0NXASP0": 66}),
    ],
)
def test_kis_widths_follow_the_profile(steps: list[MarketUpdate], profile: str, widths: dict[str, int]) -> None:
    """Documented, before 2026-09-14, since then, one day; NXT books stayed as they were (docs/wire/kis.md 3)."""
    found: dict[str, set[int]] = {}
    for frame in kis_encode.encode_frames(items(steps), kis_encode.PROFILES[profile]):
        text = frame.payload.decode()
        found.setdefault(text.split("|")[1], set()).update(len(record) for record in records(text))

    assert {name: {width} for name, width in widths.items()} == found


def test_kis_fields_have_the_recorded_forms(steps: list[MarketUpdate]) -> None:
    """One pattern per field, which recorded and simulated records both match."""
    recorded = [record for line in sample_lines("H0STCNT0.txt") for record in records(line)]
    recorded_books = [record for line in sample_lines("H0STASP0.txt") for record in records(line)]
    frames = [frame.payload.decode() for frame in kis_encode.encode_frames(items(steps), (47, 63))]
    trades = [record for text in frames if "CNT0|" in text for record in records(text)]
    books = [record for text in frames if "H0STASP0|" in text for record in records(text)]

    for patterns, rows in ((KIS_TRADE, recorded), (KIS_TRADE, trades), (KIS_BOOK, recorded_books), (KIS_BOOK, books)):
        for row in rows:
            for place, pattern in enumerate(patterns):
                assert re.fullmatch(pattern, row[place]), (place, row[place])
    assert {row[44] for row in recorded} == {row[44] for row in trades} == {""}
    assert {"2"} == {row[46] for row in trades} == {row[62] for row in books}


def test_kis_frames_keep_the_identities_of_the_captures(steps: list[MarketUpdate]) -> None:
    """docs/wire/kis.md 3: the ACML_VOL and ACML_TR_PBMN chains, counts, sums, directions; up to 20 records a frame."""
    last: dict[str, tuple[int, int]] = {}
    counts = set()
    for frame in kis_encode.encode_frames(items(steps), (47, 63)):
        text = frame.payload.decode()
        if "CNT0|" not in text:
            for row in records(text):
                ask_sizes, bid_sizes = [int(size) for size in row[23:33]], [int(size) for size in row[33:43]]
                assert (sum(ask_sizes), sum(bid_sizes)) == (int(row[43]), int(row[44]))
            continue
        rows = records(text)
        counts.add(len(rows))
        for row in rows:
            price, size, volume, value = int(row[2]), int(row[12]), int(row[13]), int(row[14])
            close = price - int(row[4])
            known_volume, known_value = last.get(row[0], (0, 0))
            assert (volume, value) == (known_volume + size, known_value + size * price)
            assert int(row[17]) == int(row[16]) - int(row[15])
            assert int(row[19]) + int(row[20]) == volume
            assert row[6] == f"{value / volume:.2f}"
            assert (price - int(row[7]), price - int(row[8]), price - int(row[9])) == (
                int(row[26]),
                int(row[29]),
                int(row[32]),
            )
            assert row[5] == f"{100 * (price - close) / close:.2f}"
            last[row[0]] = (volume, value)

    assert min(counts) == 1
    assert 3 < max(counts) <= 20


def test_a_long_sweep_is_cut_into_frames_of_twenty(steps: list[MarketUpdate]) -> None:
    """The most records captured in one frame (docs/wire/kis.md 3); every trade is in one of them, in order."""
    trades = [trade for step in steps for trade in step.trades if trade.instrument.symbol == "005930"][:45]
    frames = kis_encode.encode_frames([QueuedItem(0, trades[0].instrument, Stream.TICK, trades)], (47, 63))

    assert [len(records(frame.payload.decode())) for frame in frames] == [20, 20, 5]
    assert [first for frame in frames for _, first, _ in frame.records] == [trade.id for trade in trades]


def test_changes_are_those_since_the_book_before(steps: list[MarketUpdate]) -> None:
    """Level by level for Kiwoom (81..100), in total for KIS (54, 55)."""
    books = [step.book for step in steps if step.book is not None and step.instrument.symbol == "005930"]
    for before, after in itertools.pairwise(books):
        values, row = kiwoom_encode.encode_book(after), kis_encode.encode_book(after)
        asks = [after.ask_size[level] - before.ask_size[level] for level in range(10)]
        bids = [after.bid_size[level] - before.bid_size[level] for level in range(10)]
        assert [int(values[str(fid)]) for fid in range(81, 101)] == asks + bids
        assert (int(row[54]), int(row[55])) == (after.total_ask - before.total_ask, after.total_bid - before.total_bid)


def test_kiwoom_entries_have_the_recorded_keys_and_forms(steps: list[MarketUpdate]) -> None:
    """The 43 FIDs of 0B in the recorded order; every value matches one pattern with the recorded ones."""
    recorded = sample_entries("ws_real_0B_*.json")
    simulated = [
        entry
        for frame in kiwoom_encode.encode_frames(items(steps), 0.1, Random(1))
        for entry in json.loads(frame.payload)["data"]
        if entry["type"] == "0B"
    ]

    assert {tuple(entry["values"]) for entry in recorded} == {tuple(entry["values"]) for entry in simulated}
    assert {tuple(entry) for entry in recorded} == {tuple(entry) for entry in simulated}
    for entry in recorded + simulated:
        assert entry["name"] == "주식체결"
        for fid, pattern in KIWOOM_TRADE.items():
            assert re.fullmatch(pattern, entry["values"][fid]), (fid, entry["values"][fid])


def test_kiwoom_books_have_all_fids_of_the_recorded_one(steps: list[MarketUpdate]) -> None:
    """A recorded 0D was trimmed; what it has, ours has in the same order, in the same form."""
    (recorded,) = sample_entries("ws_real_0D_*.json")
    books = [step.book for step in steps if step.book is not None]
    for book in books:
        values = kiwoom_encode.encode_book(book)
        assert [fid for fid in values if fid in recorded["values"]] == list(recorded["values"])
        for fid in recorded["values"]:
            assert re.fullmatch(r"[+-]?\d+", values[fid])
        assert sum(int(values[str(fid)]) for fid in range(61, 71)) == int(values["121"])
        assert sum(int(values[str(fid)]) for fid in range(71, 81)) == int(values["125"])
        assert sum(int(values[str(fid)]) for fid in range(81, 91)) == int(values["122"])
        assert sum(int(values[str(fid)]) for fid in range(91, 101)) == int(values["126"])
        empty = [fid for fid in range(41, 61) if values[str(fid)] == "-0"]
        assert all(values[str(fid + 20)] == "0" for fid in empty)
    assert any(kiwoom_encode.encode_book(book)["50"] == "-0" for book in books)


def test_kiwoom_prints_keep_the_identities_of_the_recordings(steps: list[MarketUpdate]) -> None:
    """docs/wire/kiwoom.md 3.1, identities 1 to 7, across merged prints."""
    last: dict[str, dict[str, int]] = {}
    merged = 0
    for frame in kiwoom_encode.encode_frames(items(steps), 0.3, Random(1)):
        assert frame.payload.startswith(b'{"data":[{"values":{')
        assert frame.payload.endswith(b'"trnm":"REAL"}')
        assert b'": ' not in frame.payload.replace(b'" 0"', b"")
        merged += sum(first != last_id for _, first, last_id in frame.records)
        for entry in json.loads(frame.payload)["data"]:
            if entry["type"] != "0B":
                continue
            values = entry["values"]
            number = {fid: abs(int(values[fid])) for fid in ("10", "15", "13", "1030", "1031", "1313", "1071", "1072")}
            number |= {"29": int(values["29"]), "close": number["10"] - int(values["11"]), "26": int(values["26"])}
            size, price = number["15"], number["10"]
            before = last.get(entry["item"])
            if before is not None:
                assert number["13"] == before["13"] + size
                assert number["29"] - before["29"] == size * price
                grown = (number["1030"] - before["1030"], number["1031"] - before["1031"])
                assert grown == ((size, 0) if values["15"][0] == "-" else (0, size))
                assert number["1071"] + number["1072"] > before["1071"] + before["1072"]
                assert (number["13"] - number["26"], number["close"]) == (before["13"] - before["26"], before["close"])
            assert number["1313"] == size * price // 1000
            assert values["1314"] == values["15"]
            assert {values["1315"], values["1316"]} == {" 0", values["15"]}
            sign = {"+": 1, "-": -1}.get(values["10"][0], 0)
            assert sign == (price > number["close"]) - (price < number["close"])
            last[entry["item"]] = number

    assert merged > 10


def test_auction_prints_are_unsigned_and_auction_books_show_three_levels() -> None:
    """The opening print raises volume but neither side; expected price and size are filled before it (docs/wire/kiwoom.md 3.1)."""
    market = SimulatedMarket([parse_instrument("005930")], 9)
    (instrument,) = market.listings
    books: list[Book] = []
    for number in range(60):
        step = market.advance(instrument, "opening_auction", DAY_S + 8 * 3600 + 1800 + number, 0)
        books += [step.book] if step is not None and step.book is not None else []
    step = market.advance(instrument, "regular", DAY_S + 9 * 3600, 0)
    (trade,) = step.trades
    row = kis_encode.encode_book(books[-1])
    values = kiwoom_encode.encode_trade([trade])

    assert trade.side == 0
    assert re.fullmatch(r"\d+", values["15"])
    assert (values["1315"], values["1316"], values["1030"], values["1031"]) == (" 0", " 0", "0", "0")
    assert row[2] == "B"
    assert (row[47], row[48]) == (str(books[-1].expected_price), str(books[-1].expected_size))
    assert trade.price == books[-1].expected_price
    assert ["0"] * 7 == row[6:13] == row[16:23]
    assert kiwoom_encode.encode_book(books[-1])["291"] == row[47]


def test_both_vendors_tell_the_same_book_and_the_same_trade(steps: list[MarketUpdate]) -> None:
    """Levels, totals, volume, expectation and midpoint, read back from either text."""
    for step in steps:
        if step.instrument.venue != "KRX":
            continue
        if step.book is not None:
            row, values = kis_encode.encode_book(step.book), kiwoom_encode.encode_book(step.book)
            fids = [*range(41, 51), *range(51, 61), *range(61, 71), *range(71, 81), 121, 125]
            assert [abs(int(values[str(fid)])) for fid in fids] == [int(text) for text in row[3:45]]
            mid = int(values["6101"]) + int(values["6103"])
            told = (values["13"], values["23"], values["24"], values["6102"], str(mid), values["21"])
            assert told == (row[53], row[47], row[48], row[59], row[60], row[1])
        for trade in step.trades:
            row, values = kis_encode.encode_trade(trade), kiwoom_encode.encode_trade([trade])
            kis = (row[1], int(row[2]), int(row[12]), row[13], int(row[10]), int(row[11]), row[15], row[16])
            kiwoom = tuple(abs(int(values[fid])) for fid in ("10", "15", "27", "28"))
            assert (kis[1], kis[2], kis[4], kis[5]) == kiwoom
            assert (kis[0], kis[3], kis[6], kis[7]) == (values["20"], values["13"], values["1071"], values["1072"])
