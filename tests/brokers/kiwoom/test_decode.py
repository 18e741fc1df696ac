"""Kiwoom frames: recorded ones FID by FID against a table of our own, then signs, gaps and garbage.

See docs/wire/kiwoom.md 1.7 and 3.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from brokers.kiwoom.decode import decode, subscriptions_by_code
from brokers.subscription import Subscription
from conf.clock import parse_time_of_day
from conf.instrument import Instrument
from ringbuf.records import UNDEFINED, EventType, Flag, Session

SAMPLES = Path(__file__).parents[4] / "shared" / "specs" / "samples" / "kiwoom"
FRAMES = Path(__file__).parents[2] / "frames"
NOW = datetime(2026, 11, 20, 12, tzinfo=timezone(timedelta(hours=9)))
NOW_NS = int(NOW.timestamp()) * 10**9
KNOWN = subscriptions_by_code(
    Subscription(Instrument(symbol, venue), stream)
    for symbol in ("005930", "373220", "000020", "Q500001")
    for venue in ("KRX", "NXT", "UN")
    for stream in ("orderbook", "tick")
)


def sample_entries() -> Iterator[dict[str, Any]]:
    """Recorded 0B and 0D entries."""
    for file in sorted(SAMPLES.glob("ws_real_0[BD]*.json")):
        sample = json.loads(file.read_text())
        if "entry" in sample:
            yield sample["entry"]
        for received in sample.get("frames", ()):
            yield from received["frame"]["data"]


def wire(*entries: dict[str, Any] | Any) -> bytes:
    """A REAL frame in the wire's form."""
    return json.dumps({"data": entries, "trnm": "REAL"}, ensure_ascii=False, separators=(",", ":")).encode()


def number(text: str | None) -> int:
    """A value's true number, signs and blanks read as docs/wire/kiwoom.md 1.7 says; UNDEFINED if there is none."""
    if text is None or not text.strip().strip("+-"):
        return UNDEFINED
    bare = text.strip()
    digits = bare.lstrip("+-")
    signs = bare[: len(bare) - len(digits)]
    return -int(digits) if signs.endswith("-") else int(digits)


def magnitude(text: str | None, scale: int = 1) -> int:
    """The number without its sign, scaled."""
    found = number(text)
    return found if found == UNDEFINED else abs(found) * scale


def exch_ns(hhmmss: str) -> int:
    """The instant of a time on the test's day."""
    return int(NOW.replace(hour=int(hhmmss[:2]), minute=int(hhmmss[2:4]), second=int(hhmmss[4:])).timestamp()) * 10**9


@pytest.mark.skipif(not SAMPLES.exists(), reason=f"recorded frames are not beside the checkout: {SAMPLES}")
def test_recorded_entries_decode_fid_by_fid():
    """Every recorded 0B and 0D gives the record its text says."""
    entries = list(sample_entries())
    assert len(entries) > 15
    for entry in entries:
        v, item = entry["values"], entry["item"]

        decoded = decode(wire(entry), KNOWN, NOW_NS, 77)

        assert decoded.rejects == []
        (row,) = decoded.ticks if entry["type"] == "0B" else decoded.books
        assert (row["symbol"], row["venue"], row["line"]) == (item.encode(), 1, 2)
        assert (row["recv_ns"], row["mono_ns"]) == (NOW_NS, 77)
        assert row["cum_volume"] == number(v.get("13"))
        if entry["type"] == "0B":
            assert row["exch_ns"] == exch_ns(v["20"])
            assert (row["price_e4"], row["size"]) == (magnitude(v["10"], 10_000), magnitude(v["15"]))
            assert row["ask_price_1_e4"] == magnitude(v["27"], 10_000)
            assert row["bid_price_1_e4"] == magnitude(v["28"], 10_000)
            assert row["cum_value"] == number(v["14"]) * 1_000_000
            assert row["value_change"] == number(v["29"])
            assert row["trade_count"] == number(v["1071"]) + number(v["1072"])
            assert row["side"] == {"+": 1, "-": -1}.get(v["15"][0], 0)
            assert (row["flags"], row["session"]) == (Flag.VALUE_ROUNDED, Session.REGULAR)
        else:
            assert row["exch_ns"] == exch_ns(v["21"])
            for field, first, scale in (
                ("ask_price_e4", 41, 10_000),
                ("bid_price_e4", 51, 10_000),
                ("ask_size", 61, 1),
                ("bid_size", 71, 1),
            ):
                assert [magnitude(v[str(fid)], scale) for fid in range(first, first + 10)] == row[field].tolist()
            assert (row["total_ask_size"], row["total_bid_size"]) == (number(v["121"]), number(v["125"]))
            assert row["expected_price_e4"] == magnitude(v.get("291"), 10_000)
            assert row["mid_price_e4"] == magnitude(v.get("6102"), 10_000)
            assert row["flags"] == 0


@pytest.mark.skipif(not SAMPLES.exists(), reason=f"recorded frames are not beside the checkout: {SAMPLES}")
def test_recorded_series_keeps_its_identities():
    """Volume advances by size and value by size x price over the consecutive recording (docs/wire/kiwoom.md 3.1)."""
    sample = json.loads((SAMPLES / "ws_real_0B_005930_20260911_seg1.json").read_text())
    rows = [
        row for received in sample["frames"] for row in decode(wire(*received["frame"]["data"]), KNOWN, NOW_NS).ticks
    ]

    assert len(rows) == 15
    for before, after in pairwise(rows):
        assert after["cum_volume"] == before["cum_volume"] + after["size"]
        assert (after["value_change"] - before["value_change"]) * 10_000 == after["size"] * after["price_e4"]


@pytest.mark.skipif(not SAMPLES.exists(), reason=f"recorded frames are not beside the checkout: {SAMPLES}")
@settings(max_examples=500)
@given(data=st.data())
def test_mutated_recorded_frames_never_raise(data):
    """Cut, flipped, grown: records, rejects or control, never an exception, never nothing."""
    payload = bytearray(wire(*data.draw(st.lists(st.sampled_from(list(sample_entries())), min_size=1, max_size=3))))
    for _ in range(data.draw(st.integers(0, 4))):
        at = data.draw(st.integers(0, len(payload) - 1))
        match data.draw(st.sampled_from(["cut", "flip", "drop", "grow"])):
            case "cut":
                del payload[max(at, 1) :]
            case "flip":
                payload[at] = data.draw(st.integers(0, 255))
            case "drop":
                del payload[at : at + data.draw(st.integers(0, 20))]
            case "grow":
                payload[at:at] = data.draw(st.sampled_from([b'"', b"{", b"9" * 5000, b"-", b"\xff", b"1_0", b"null"]))
        payload = payload or bytearray(b"0")

    decoded = decode(bytes(payload), KNOWN, NOW_NS)

    assert all(raw and reason for raw, reason in decoded.rejects)
    assert len(decoded.books) == len(decoded.book_subscriptions)
    assert len(decoded.ticks) == len(decoded.tick_subscriptions)
    for raw, _ in decoded.rejects:
        assert decode(raw, KNOWN, NOW_NS).rejects  # it is still what it was


@settings(max_examples=500)
@given(st.binary(max_size=300))
@example(b"")
@example(b"[" * 20_000)
@example(b'{"trnm":"REAL","data":' + b"[" * 20_000)
@example(b'{"trnm":"REAL","data":[{"type":"0B","item":"005930","values":{"20":5}}]}')
@example(b'{"trnm":"REAL","data":[1,null,{}]}')
def test_no_bytes_make_it_raise(payload):
    """decode never raises, and never loses what it could not read."""
    decoded = decode(payload, KNOWN, NOW_NS)

    assert decoded.rejects or decoded.control


def trade(**values: str | None) -> dict[str, Any]:
    """A plain 0B; `f15="+3"` sets FID 15, None removes it."""
    return _entry("0B", {"20": "100000", "10": "-72000", "15": "-3", "13": "100", "14": "7"}, values)


def book(**values: str | None) -> dict[str, Any]:
    """A plain 0D with right totals."""
    plain = {"21": "100000", "121": "50", "125": "50"} | {str(fid): "-72000" for fid in range(41, 61)}
    return _entry("0D", plain | {str(fid): "5" for fid in range(61, 81)}, values)


def _entry(kind: str, plain: dict[str, str], values: dict[str, str | None]) -> dict[str, Any]:
    item = values.pop("item", "005930")
    merged = plain | {name[1:]: text for name, text in values.items()}
    kept = {fid: text for fid, text in merged.items() if text is not None}
    return {"values": kept, "type": kind, "name": "주식", "item": item}


@pytest.mark.parametrize(
    ("text", "side", "size"),
    [
        ("+4", 1, 4),
        ("-4", -1, 4),
        ("4", 0, 4),
        (" 4", 0, 4),
        ("--4", -1, 4),
        ("+-4", -1, 4),
        ("-+4", 1, 4),
        ("0", 0, 0),
    ],
)
def test_the_sign_of_the_quantity_is_the_aggressor(text, side, size):
    """+ bought, - sold, none an auction print; of two signs the last counts (docs/wire/kiwoom.md 1.7)."""
    (row,) = decode(wire(trade(f15=text)), KNOWN, NOW_NS).ticks

    assert (row["side"], row["size"]) == (side, size)


@pytest.mark.parametrize("text", ["72000", "+72000", "-72000", "--72000", " -72000", "072000"])
def test_the_sign_of_a_price_is_no_value(text):
    """A minus means below yesterday's close (docs/wire/kiwoom.md 1.7.2)."""
    (row,) = decode(wire(trade(f10=text, f27=text)), KNOWN, NOW_NS).ticks
    (level,) = decode(wire(book(f41=text)), KNOWN, NOW_NS).books

    assert {720_000_000} == {row["price_e4"], row["ask_price_1_e4"], level["ask_price_e4"][0]}


@pytest.mark.parametrize("text", ["0", "-0", "+0", " 0", ""])
def test_an_empty_level_is_zero_however_it_is_written(text):
    """docs/wire/kiwoom.md 1.7.6 and 3.2."""
    (row,) = decode(wire(book(f50=text, f70=text, f121="45")), KNOWN, NOW_NS).books

    assert (row["ask_price_e4"][9], row["ask_size"][9], row["flags"]) == (0, 0, 0)


def test_what_is_missing_or_empty_is_undefined():
    """Optional FIDs."""
    (row,) = decode(wire(trade(f13="", f14=None, f1071="5")), KNOWN, NOW_NS).ticks
    (other,) = decode(wire(book(f121=None, f125="", f6102="", f6101="3")), KNOWN, NOW_NS).books

    names = ("cum_volume", "cum_value", "value_change", "trade_count", "ask_price_1_e4", "bid_price_1_e4")
    assert {UNDEFINED} == {row[name] for name in names}
    assert row["flags"] == 0
    names = ("cum_volume", "total_ask_size", "total_bid_size", "expected_price_e4", "expected_size", "mid_price_e4")
    assert {UNDEFINED} == {other[name] for name in (*names, "mid_size")}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"f291": "+73000", "f292": "9", "f23": "1", "f24": "2"}, (730_000_000, 9)),
        ({"f291": "0", "f292": "0", "f23": "73100", "f24": "8"}, (731_000_000, 8)),
        ({"f23": "73100", "f24": "8"}, (731_000_000, 8)),
        ({"f291": "0", "f292": "0"}, (0, 0)),
        ({}, (UNDEFINED, UNDEFINED)),
    ],
)
def test_the_expected_match_comes_from_the_auction_fids_first(values, expected):
    """291/292 in auctions, else 23/24."""
    (row,) = decode(wire(book(**values)), KNOWN, NOW_NS).books

    assert expected == (row["expected_price_e4"], row["expected_size"])


@pytest.mark.parametrize(
    ("item", "venue", "mid"), [("005930", 1, 6102), ("005930_NX", 2, 6107), ("005930_AL", 3, 6102)]
)
def test_the_venue_is_the_suffix_and_the_midpoint_the_venues_own(item, venue, mid):
    """6102 with 6101 and 6103, for NXT 6107 with 6106 and 6108 (docs/wire/kiwoom.md 3.2)."""
    asks, bids = (6106, 6108) if venue == 2 else (6101, 6103)
    values = {f"f{mid}": "-72050", f"f{asks}": "3", f"f{bids}": "4"}

    (row,) = decode(wire(book(item=item, **values)), KNOWN, NOW_NS).books

    assert (row["symbol"], row["venue"], row["mid_price_e4"], row["mid_size"]) == (b"005930", venue, 720_500_000, 7)


@pytest.mark.parametrize(
    ("item", "named", "odd"),
    [
        *(("005930", said, said in ("NXT", "통합", "SOR")) for said in ("KRX", "NXT", "통합", "SOR", "1", "", "?")),
        *(("005930_NX", said, said in ("KRX", "통합")) for said in ("KRX", "NXT", "통합", "1", "")),
        *(("005930_AL", said, False) for said in ("KRX", "NXT", "통합", "1", "")),
    ],
)
def test_a_trade_that_names_another_venue_is_marked(item, named, odd):
    """A line moved to the unified venue by mistake tells it by FID 9081; a word nobody knows tells nothing."""
    (row,) = decode(wire(trade(item=item, f9081=named)), KNOWN, NOW_NS).ticks

    assert bool(row["flags"] & Flag.VENUE_MISMATCH) is odd
    assert row["venue"] == {"005930": 1, "005930_NX": 2, "005930_AL": 3}[item]


def test_an_etn_gets_its_q_back():
    """Registered as six characters, stored as the exchange writes it."""
    (row,) = decode(wire(trade(item="500001")), KNOWN, NOW_NS).ticks

    assert row["symbol"] == b"Q500001"


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (trade(f10=None), "FID '10'"),
        (trade(f15=None), "FID '15'"),
        (trade(f20=None), "FID '20'"),
        (trade(f10=""), "empty"),
        (trade(f15=" "), "empty"),
        (trade(f20="256060"), "time of day"),
        (trade(f10="7x"), "not a whole number"),
        (trade(f10="1_0"), "not a whole number"),
        (trade(f10="9" * 30), ""),
        (trade(f15="9" * 6000), ""),
        (book(f41=None), "FID '41'"),
        (book(f80=None), "FID '80'"),
        (book(f41="1_0"), "not a whole number"),
        (book(f41="9" * 19), ""),
        (book(f61="9" * 20), ""),
        (book(f21="1"), "time of day"),
        (trade(item="999999"), "not subscribed"),
        ({"type": "0w", "name": "x", "item": "005930", "values": {}}, "type not subscribed"),
        ({"type": "0B", "item": "005930", "values": {"20": 7}}, "FID '15'"),
        ({"type": "0B", "item": 5930, "values": {}}, "str"),
        ({"type": "0B", "item": "005930"}, "values"),
        (17, "object"),
    ],
)
def test_a_bad_entry_costs_itself_alone(bad, reason):
    """The others of its frame are kept; it comes back as a frame of its own that fails the same way."""
    decoded = decode(wire(trade(), bad, book()), KNOWN, NOW_NS)

    assert (len(decoded.ticks), len(decoded.books)) == (1, 1)
    ((raw, said),) = decoded.rejects
    assert reason in said
    assert json.loads(raw) == {"data": [bad], "trnm": "REAL"}
    assert decode(raw, KNOWN, NOW_NS).rejects == [(raw, said)]


def test_a_bad_byte_in_a_name_costs_nothing():
    """Numbers beside an invalid UTF-8 byte are read."""
    payload = wire(trade()).replace("주".encode(), b"\xff")

    assert len(decode(payload, KNOWN, NOW_NS).ticks) == 1


def test_totals_are_checked_outside_auctions():
    """A wrong sum is flagged, not rejected; with an expected price it is an auction."""
    flags = [
        decode(wire(book(**values)), KNOWN, NOW_NS).books[0]["flags"]
        for values in ({"f121": "51"}, {"f125": "49"}, {"f121": "51", "f291": "72000"}, {})
    ]

    assert flags == [Flag.CHECKSUM, Flag.CHECKSUM, 0, 0]


def test_the_market_phase_is_told_in_words():
    """0s carries no item (docs/wire/kiwoom.md 3.3)."""
    entry = {"type": "0s", "name": "장시작시간", "item": "", "values": {"20": "090000", "214": "000000", "215": "3"}}

    decoded = decode(wire(entry), KNOWN, NOW_NS)

    (phase,) = decoded.market_events
    assert (phase.kind, phase.message, decoded.rejects) == (EventType.PHASE, "3 open, in 000000", [])


def test_an_interruption_names_its_symbol_whoever_registered_what():
    """1h comes for the whole market; its code may carry an A, its kind is told in the vendor's words (docs/wire/kiwoom.md 3.4)."""
    values = {"9001": "A005930_NX", "9068": "1", "1223": "100512", "1225": "정적", "1221": "71000"}
    entry = {"type": "1h", "name": "VI발동/해제", "item": "", "values": values}
    other = entry | {"values": {"9068": "2", "1223": ""}, "item": "000660"}
    nobody = entry | {"values": {"9001": "?"}}

    decoded = decode(wire(entry, other, nobody), KNOWN, NOW_NS)

    one, two = decoded.market_events
    assert (one.kind, one.instrument, one.value) == (EventType.VI, ("005930", "NXT"), 1)
    assert one.message == "kind 1, applies 정적, at 71000"
    assert one.exch_ns == parse_time_of_day("100512", NOW_NS)
    assert (two.instrument, two.value, two.exch_ns) == (("000660", "KRX"), UNDEFINED, UNDEFINED)
    assert [reason for _, reason in decoded.rejects] == ["interruption of '' '?', which is no code"]


@pytest.mark.parametrize(
    "text", ['{"trnm":"PING"}', '{"trnm":"LOGIN","return_code":0}', '{"return_code":0,"trnm":"REG"}']
)
def test_control_messages_are_handed_on(text):
    """Whatever is not REAL is the session's affair."""
    decoded = decode(text.encode(), KNOWN, NOW_NS)

    assert (decoded.control, decoded.rejects) == (text.encode(), [])


@pytest.mark.parametrize("bad", ["x", None, 7, 7.25, True, [], {}, "9" * 30, "1.5", "-", "９"])
@pytest.mark.parametrize("fid", ["13", "14", "27", "29", "1071", "9081", "290", "5000"])
def test_an_optional_fid_never_costs_the_trade(fid, bad):
    """Wrong type, null, a fraction: the trade is stored, and flagged if something could not be read."""
    decoded = decode(wire(trade(**{f"f{fid}": bad}), book()), KNOWN, NOW_NS)

    assert (len(decoded.ticks), len(decoded.books), decoded.rejects) == (1, 1, [])
    (row,) = decoded.ticks
    unreadable = fid not in ("9081", "290", "5000") and bad not in (None, 7, "-")
    assert bool(row["flags"] & Flag.UNREADABLE_FIELD) == unreadable
    if fid == "13":
        assert row["cum_volume"] == (7 if bad == 7 and bad is not True else UNDEFINED)


@pytest.mark.parametrize("bad", ["x", None, 7.25, [], "9" * 30])
@pytest.mark.parametrize("fid", ["121", "125", "291", "292", "13", "6101", "6102"])
def test_an_optional_fid_never_costs_the_book(fid, bad):
    """The same for a book: levels and time are all it needs."""
    decoded = decode(wire(book(**{f"f{fid}": bad})), KNOWN, NOW_NS)

    assert (len(decoded.books), decoded.rejects) == (1, [])
    assert bool(decoded.books["flags"][0] & Flag.UNREADABLE_FIELD) == (bad is not None)


def test_numbers_instead_of_text_are_read():
    """A price, a quantity and a time may come as JSON numbers."""
    (row,) = decode(wire(trade(f10=-72000, f15=4, f20=100000)), KNOWN, NOW_NS).ticks

    assert (row["price_e4"], row["size"]) == (720_000_000, 4)


@pytest.mark.parametrize("stamp", ["200000", "153000"])
def test_a_stamp_of_yesterday_evening_is_dated_yesterday_and_flagged(stamp):
    """Nothing is stamped in the future (docs/delivery.md)."""
    now = datetime(2026, 11, 24, 8, 35, 5, tzinfo=timezone(timedelta(hours=9)))
    decoded = decode(wire(book(f21=stamp), trade(f20=stamp)), KNOWN, int(now.timestamp()) * 10**9)

    expected = now.replace(day=23, hour=int(stamp[:2]), minute=int(stamp[2:4]), second=0)
    for row in (*decoded.books, *decoded.ticks):
        assert int(expected.timestamp()) * 10**9 == row["exch_ns"]
        assert row["flags"] & Flag.DATE_MISMATCH


@pytest.mark.parametrize("nothing", ["", " ", "0", "+0", "-0"])
def test_an_entry_without_price_and_quantity_is_no_trade(nothing):
    """It is counted, and neither stored nor quarantined."""
    decoded = decode(wire(trade(f10=nothing, f15=nothing), book()), KNOWN, NOW_NS)

    assert (len(decoded.ticks), len(decoded.books), decoded.empty_trades, decoded.rejects) == (0, 1, 1, [])


def whole_book(**values: str | None) -> dict[str, Any]:
    """A 0D with every FID that is read."""
    plain = {f"f{fid}": str(fid % 7) for fid in (291, 292, 23, 24, 13, 6101, 6102, 6103, 6106, 6107, 6108)}
    return book(**plain | values)


def whole_trade(**values: str | None) -> dict[str, Any]:
    """A 0B with every FID that is read."""
    plain = {"f1071": "3", "f1072": "4", "f29": "-4167722708811", "f27": "+72100", "f28": "-72000", "f290": "2"}
    return trade(**plain | values)


FIDS = ["10", "13", "14", "15", "20", "21", "23", "24", "27", "28", "29", "290", "1071", "1072", "121", "125", "291"]
FIDS += ["292", "6101", "6102", "6103", "6106", "6107", "6108", "9081", *map(str, range(41, 81))]
FIELD_TEXTS = st.one_of(
    st.none(),
    st.integers(0, 10**6).map(str),
    st.sampled_from(
        ["", " ", "0", "-0", "00", "007", "-5", "+5", "--5", "+-5", "-+5", "5-3", "1,2", ",", "1.0", "1.5"]
    ),
    st.sampled_from(
        ["1e3", " 7", "7 ", "7\n", "\t7", "1_0", "null", "true", "[1]", '"1"', "\u0663", "\u00b2", "NaN", "KRX"]
    ),
    st.sampled_from([2**63 - 1, 2**63, 10**30, (2**63 - 1) // 10**6, (2**63 - 1) // 10**6 + 1]).map(str),
    st.text("0123456789.,+-eE ", max_size=4),
)


@settings(max_examples=600, deadline=None)
@given(
    st.sampled_from([whole_book, whole_trade]),
    st.sampled_from(["005930", "005930_NX", "005930_AL"]),
    st.dictionaries(st.sampled_from(FIDS), FIELD_TEXTS, max_size=4),
)
def test_numbers_read_at_once_give_what_each_read_by_itself_gives(entry, item, changes):
    """Any FID of a book or trade replaced or removed: the same records, byte by byte, or the same reject."""
    payload = wire(entry(item=item, **{f"f{fid}": text for fid, text in changes.items()}))

    usual, each = decode_both_ways(payload)

    assert usual == each


def load_frame(path: Path) -> bytes:
    """A frame of tests/frames, whose lines are joined."""
    return b"".join(line for line in path.read_bytes().splitlines() if not line.startswith(b"#"))


def test_recorded_and_written_frames_are_the_same_both_ways():
    """Every frame in tests/frames, and every recorded one where they lie beside the checkout."""
    frames = [load_frame(path) for path in sorted(FRAMES.glob("kiwoom_*.txt"))]
    frames += [wire(entry) for entry in sample_entries()] if SAMPLES.exists() else []

    differing = [payload for payload in frames if len({repr(found) for found in decode_both_ways(payload)}) > 1]

    assert len(frames) > 8
    assert differing == []


@pytest.mark.parametrize("item", ["005930", "005930_NX", "005930_AL"])
@pytest.mark.parametrize("entry", [whole_book, whole_trade])
def test_a_plain_entry_is_read_at_once(entry, item, monkeypatch):
    """The usual entry takes the fast way: no FID is read by itself."""
    monkeypatch.setattr("brokers.kiwoom.decode._parse_magnitude", lambda text: pytest.fail("read by itself"))
    decoded = decode(wire(entry(item=item)), KNOWN, NOW_NS)

    assert (len(decoded.book_rows) + len(decoded.tick_rows), decoded.rejects) == (1, [])


def decode_both_ways(payload: bytes) -> list[tuple]:
    """What a message decodes to as usual, and with every FID read by itself."""
    usual = decode(payload, KNOWN, NOW_NS, 7)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("brokers.kiwoom.decode._parse_plain", lambda values, v: None)
        each = decode(payload, KNOWN, NOW_NS, 7)
    return [tuple(getattr(decoded, name) for name in decoded.__slots__) for decoded in (usual, each)]
