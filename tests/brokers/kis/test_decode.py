"""KIS frames: recorded ones field by field against an index table of our own, then what docs/wire/kis.md 3 says about bad ones."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from random import Random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from brokers.kis.decode import decode, subscriptions_by_code
from brokers.subscription import Subscription
from conf.instrument import Instrument
from ringbuf.records import UNDEFINED, EventType, Flag, Session

SAMPLES = Path(__file__).parents[4] / "shared" / "specs" / "samples" / "kis"
FRAMES = Path(__file__).parents[2] / "frames"
NOW = datetime(2026, 11, 20, 12, tzinfo=timezone(timedelta(hours=9)))
NOW_NS = int(NOW.timestamp()) * 10**9
TODAY = f"{NOW:%Y%m%d}"
VENUES = {"H0ST": "KRX", "H0NX": "NXT", "H0UN": "UN"}
KNOWN = subscriptions_by_code(
    Subscription(Instrument(symbol, venue), stream)
    for symbol in ("005930", "000660", "0074K0", "Q500001")
    for venue in ("KRX", "NXT", "UN")
    for stream in ("orderbook", "tick")
)

# docs/wire/kis.md 4.1 and 4.2, typed from the tables there: record field -> frame index
TICK_INDEX = {"size": 12, "cum_volume": 13, "cum_value": 14}
TICK_PRICE_INDEX = {"price_e4": 2, "ask_price_1_e4": 10, "bid_price_1_e4": 11}
BOOK_INDEX = {"cum_volume": 53, "total_ask_size": 43, "total_bid_size": 44, "expected_size": 48}
BOOK_PRICE_INDEX = {"expected_price_e4": 47}


def sample_frames() -> Iterator[bytes]:
    """Recorded domestic frames; payload-only ones get the envelope their file name names."""
    for name in ("H0STCNT0", "H0STASP0"):
        yield from (SAMPLES / f"{name}.txt").read_bytes().splitlines()
        for line in (SAMPLES / f"{name}_payload_only.txt").read_bytes().splitlines():
            yield f"0|{name}|001|".encode() + line


def e4(text: str) -> int:
    """The price in 1/10,000, by decimal arithmetic."""
    scaled = Decimal(text) * 10_000
    assert scaled == int(scaled)
    return int(scaled)


def exch_ns(hhmmss: str, day: str = TODAY) -> int:
    """The instant of a Korean time on a day."""
    return int(datetime.strptime(f"{day}{hhmmss}+0900", "%Y%m%d%H%M%S%z").timestamp()) * 10**9


def expect_tick(f: list[str], row) -> None:
    """Every field of a tick against the frame's text."""
    assert (f[0].encode(), exch_ns(f[1], f[33])) == (row["symbol"], row["exch_ns"])
    assert {name: int(f[at]) for name, at in TICK_INDEX.items()} == {name: row[name] for name in TICK_INDEX}
    assert {n: e4(f[at]) for n, at in TICK_PRICE_INDEX.items()} == {n: row[n] for n in TICK_PRICE_INDEX}
    assert int(f[15]) + int(f[16]) == row["trade_count"]
    assert {"1": 1, "5": -1}.get(f[21], 0) == row["side"]
    assert row["value_change"] == UNDEFINED
    assert bool(row["flags"] & Flag.HALTED) == (f[35] == "Y")


def expect_book(f: list[str], row) -> None:
    """Every field of a book against the frame's text."""
    assert (f[0].encode(), exch_ns(f[1])) == (row["symbol"], row["exch_ns"])
    for field, first in (("ask_price_e4", 3), ("bid_price_e4", 13)):
        assert [e4(text) for text in f[first : first + 10]] == row[field].tolist()
    for field, first in (("ask_size", 23), ("bid_size", 33)):
        assert [int(text) for text in f[first : first + 10]] == row[field].tolist()
    assert {name: int(f[at]) for name, at in BOOK_INDEX.items()} == {name: row[name] for name in BOOK_INDEX}
    assert e4(f[47]) == row["expected_price_e4"]
    expected = (e4(f[59]), int(f[60])) if len(f) > 60 else (UNDEFINED, UNDEFINED)
    assert expected == (row["mid_price_e4"], row["mid_size"])


@pytest.mark.skipif(not SAMPLES.exists(), reason=f"recorded frames are not beside the checkout: {SAMPLES}")
def test_recorded_frames_decode_field_by_field():
    """Every recorded domestic frame gives the records its text says, with no flag and no reject."""
    seen = 0
    for frame in sample_frames():
        _, tr, count, body = frame.decode().split("|")
        fields = body.split("^")
        width = len(fields) // int(count)

        now_ns = exch_ns("153500", fields[33] if "CNT" in tr else TODAY)
        decoded = decode(frame, KNOWN, now_ns, 77)
        rows = decoded.ticks if "CNT" in tr else decoded.books

        assert (len(rows), decoded.rejects) == (int(count), [])
        for at, row in enumerate(rows):
            record = fields[at * width : (at + 1) * width]
            (expect_tick if "CNT" in tr else expect_book)(record, row)
            assert (row["recv_ns"], row["mono_ns"], row["line"], row["venue"]) == (now_ns, 77, 1, 1)
            assert (row["flags"], row["session"], row["extra"]) == (0, Session.REGULAR, b"")
        seen += len(rows)
    assert seen > 25


@pytest.mark.skipif(not SAMPLES.exists(), reason=f"recorded frames are not beside the checkout: {SAMPLES}")
def test_each_recorded_trade_raises_the_counter_by_one():
    """Within a frame nothing is missing: every record is one trade, counted once. Recovery counts on it."""
    steps = []
    for frame in sample_frames():
        ticks = decode(frame, KNOWN, NOW_NS).ticks
        joined = ticks["cum_volume"][1:] - ticks["size"][1:] == ticks["cum_volume"][:-1]
        steps += (ticks["trade_count"][1:] - ticks["trade_count"][:-1])[joined].tolist()
        assert joined.all()

    assert len(steps) > 10
    assert {1} == set(steps)


@pytest.mark.skipif(not SAMPLES.exists(), reason=f"recorded frames are not beside the checkout: {SAMPLES}")
@settings(max_examples=500)
@given(data=st.data())
def test_mutated_recorded_frames_never_raise(data):
    """Cut, flipped, spliced: the decoder answers with records or rejects, and a reject carries a frame and a reason."""
    frames = list(sample_frames())
    frame = bytearray(data.draw(st.sampled_from(frames)))
    for _ in range(data.draw(st.integers(0, 4))):
        at = data.draw(st.integers(0, len(frame) - 1))
        match data.draw(st.sampled_from(["cut", "flip", "drop", "grow"])):
            case "cut":
                del frame[max(at, 1) :]
            case "flip":
                frame[at] = data.draw(st.integers(0, 255))
            case "drop":
                del frame[at : at + data.draw(st.integers(0, 20))]
            case "grow":
                frame[at:at] = data.draw(st.sampled_from([b"^", b"|", b"9" * 5000, b"-", b"\xff", b"1_0", b" 7"]))
        frame = frame or bytearray(b"0")

    decoded = decode(bytes(frame), KNOWN, NOW_NS)

    assert all(raw and reason for raw, reason in decoded.rejects)
    assert len(decoded.books) == len(decoded.book_subscriptions)
    assert len(decoded.ticks) == len(decoded.tick_subscriptions)
    assert decoded.rejects or len(decoded.books) or len(decoded.ticks) or decoded.control


@settings(max_examples=500)
@given(st.binary(max_size=300))
@example(b"")
@example(b"{" * 5000)
@example(b'{"a":' * 3000)
def test_no_bytes_make_it_raise(payload):
    """decode never raises, and never loses what it could not read."""
    decoded = decode(payload, KNOWN, NOW_NS)

    assert decoded.rejects or decoded.control


def tick(width: int = 47, code: str = "005930", **values: str) -> list[str]:
    """Fields of a plain trade; `f12="3"` sets index 12."""
    fields = ["0"] * 46 + ["2"] + [f"x{at}" for at in range(47, 60)]
    fields[0:3] = [code, "100000", "72000"]
    fields[12:17] = ["3", "103", "7416000", "1", "2"]
    fields[21], fields[34], fields[35] = "1", "20", "N"
    for name, text in values.items():
        fields[int(name[1:])] = text
    return fields[:width]


def book(width: int = 63, **values: str) -> list[str]:
    """Fields of a plain book with right totals."""
    fields = ["0"] * 59 + ["72050", "9", "1", "2"] + [str(at) for at in range(63, 80)]
    fields[0:3] = ["005930", "100000", "0"]
    fields[3:23] = ["72000"] * 20
    fields[23:43] = ["10"] * 20
    fields[43:45] = ["100", "100"]
    for name, text in values.items():
        fields[int(name[1:])] = text
    return fields[:width]


def frame(*records: list[str], tr: str = "H0STCNT0", count: int | None = None, flag: str = "0") -> bytes:
    """A frame of these records."""
    body = "^".join("^".join(record) for record in records)
    return f"{flag}|{tr}|{count or len(records):03}|{body}".encode()


@pytest.mark.parametrize("width", range(40, 51))
def test_a_trade_is_read_at_its_known_widths_and_beyond(width):
    """46 and 47 are known; wider is read by its prefix and flagged; narrower is refused (docs/wire/kis.md 3)."""
    decoded = decode(frame(tick(width), tick(width)), KNOWN, NOW_NS)

    if width < 46:
        assert (len(decoded.ticks), len(decoded.rejects)) == (0, 1)
        assert f"{2 * width} fields" in decoded.rejects[0][1]
    else:
        surplus = "^".join(f"x{at}" for at in range(47, width)).encode()
        assert [surplus] * 2 == decoded.ticks["extra"].tolist()
        assert {bool(surplus)} == {bool(flags & Flag.EXTRA) for flags in decoded.ticks["flags"]}
        assert decoded.oversized_frames == ([("H0STCNT0", width)] if width > 47 else [])


def test_a_book_of_krx_is_read_at_its_known_widths_only():
    """Between two known widths a frame may have been cut, so it is refused."""
    for width in range(55, 68):
        decoded = decode(frame(book(width), tr="H0STASP0"), KNOWN, NOW_NS)

        assert (width in {59, 62, 63} or width > 63) == (len(decoded.books) == 1)
        assert len(decoded.books) + len(decoded.rejects) == 1


@pytest.mark.parametrize(("tr", "documented"), [("H0NXASP0", {65}), ("H0UNASP0", {65, 66})])
def test_a_book_nobody_ever_saw_is_read_at_any_width_that_has_all_levels(tr, documented):
    """NXT and unified widths rest on documents alone: another one costs what lies behind the volume, never the book."""
    plain = {}
    for width in range(55, 72):
        decoded = decode(frame(book(width, f53="777"), tr=tr), KNOWN, NOW_NS)
        if width < 59:
            assert (len(decoded.books), len(decoded.rejects)) == (0, 1)
            continue
        (row,) = decoded.books
        plain[width] = [
            row[name].tolist() for name in ("ask_price_e4", "ask_size", "bid_price_e4", "bid_size", "cum_volume")
        ]
        assert decoded.oversized_frames == ([] if width in documented else [(tr, width)])
        known = width in documented or width > max(documented)
        surplus = book(width)[max(documented) if known else 59 :]
        assert row["extra"] == "^".join(surplus).encode()[:42]
        assert bool(row["flags"] & Flag.EXTRA) == bool(surplus)
        assert (row["mid_price_e4"] == UNDEFINED) == (not known)
    assert len({str(content) for content in plain.values()}) == 1


@pytest.mark.parametrize("tr", ["H0NXASP0", "H0UNASP0"])
@example(where=2, more=True, seed=0)
@given(where=st.integers(0, 64), more=st.booleans(), seed=st.integers(0, 999))
def test_fields_that_are_shifted_are_never_taken_for_a_sound_book(tr, where, more, seed):
    """One field more or less anywhere: the book is put aside, or marked, or what was read is what was sent."""
    draw = Random(seed)
    sent = book(65, f53="777")
    sent[3:23] = [str(70_000 + 100 * draw.randrange(1, 400)) for _ in range(20)]
    sent[23:43] = [str(draw.randrange(1, 10**6)) for _ in range(20)]
    sent[43], sent[44] = (str(sum(map(int, sent[at : at + 10]))) for at in (23, 33))
    (whole,) = decode(frame(sent, tr=tr), KNOWN, NOW_NS).books
    shifted = [*sent[:where], "5", *sent[where:]] if more else [*sent[:where], *sent[where + 1 :]]

    decoded = decode(frame(shifted, tr=tr), KNOWN, NOW_NS)

    assert len(decoded.books) + len(decoded.rejects) == 1
    for row in decoded.books:
        core = [
            "symbol",
            "exch_ns",
            "ask_price_e4",
            "ask_size",
            "bid_price_e4",
            "bid_size",
            "total_ask_size",
            "total_bid_size",
        ]
        same = str(row[core]) == str(whole[core])
        assert same or row["flags"] & Flag.CHECKSUM
        assert row["flags"] & (Flag.EXTRA | Flag.CHECKSUM) or tr == "H0UNASP0"
        assert decoded.oversized_frames or tr == "H0UNASP0"


def test_surplus_that_does_not_fit_is_cut_and_flagged():
    """`extra` holds 42 bytes."""
    wide = [*tick(47), "a" * 50]

    (row,) = decode(frame(wide), KNOWN, NOW_NS).ticks

    assert row["extra"] == b"a" * 42
    assert row["flags"] & Flag.EXTRA
    assert row["flags"] & Flag.EXTRA_CUT


@pytest.mark.parametrize(("tr", "venue", "mid"), [("H0STASP0", 1, 59), ("H0NXASP0", 2, 62), ("H0UNASP0", 3, 59)])
def test_the_midpoint_is_the_venues_own(tr, venue, mid):
    """KMID_* for KRX and unified, NMID_* for NXT (docs/wire/kis.md 4.2)."""
    fields = book(63 if tr == "H0STASP0" else 65)
    fields[mid : mid + 2] = ["72050", "31"]

    (row,) = decode(frame(fields, tr=tr), KNOWN, NOW_NS).books

    assert (row["venue"], row["mid_price_e4"], row["mid_size"]) == (venue, 720_500_000, 31)


@pytest.mark.parametrize(
    ("text", "price_e4"), [("277750.5", 2_777_505_000), ("1.0001", 10_001), ("7.", 70_000), ("7.50000", 75_000)]
)
def test_a_fraction_of_a_won_is_exact(text, price_e4):
    """No float comes between the text and the record."""
    (row,) = decode(frame(tick(f2=text)), KNOWN, NOW_NS).ticks
    (book_row,) = decode(frame(book(f5=text), tr="H0STASP0"), KNOWN, NOW_NS).books

    assert row["price_e4"] == price_e4
    assert book_row["ask_price_e4"][2] == price_e4


@pytest.mark.parametrize(
    "bad",
    ["", "-3", "+3", " 3", "3 ", "1_0", "x", "9" * 30, "9" * 6000, "٣", "3e2"],
)
@pytest.mark.parametrize("where", ["f2", "f12"])
def test_a_field_a_trade_cannot_do_without_must_be_a_number(where, bad):
    """The record is rejected alone, as a frame that can be decoded again; the others stay."""
    bad_record = tick(**{where: bad})

    decoded = decode(frame(tick(), bad_record, tick()), KNOWN, NOW_NS)

    assert len(decoded.ticks) == 2
    assert [raw for raw, _ in decoded.rejects] == [frame(bad_record)]


@pytest.mark.parametrize("bad", ["-1", "9" * 19, "9" * 30, "x", "1_0"])
@pytest.mark.parametrize("where", ["f3", "f22", "f23", "f42"])
def test_a_level_must_be_a_number(where, bad):
    """Nothing absurd is wrapped into an int64."""
    if bad == "9" * 19 and where in ("f23", "f42"):
        bad = "9" * 20
    decoded = decode(frame(book(**{where: bad}), tr="H0STASP0"), KNOWN, NOW_NS)

    assert (len(decoded.books), len(decoded.rejects)) == (0, 1)


@pytest.mark.parametrize("where", [3, 12, 22, 23, 42])
def test_an_empty_level_is_none_as_on_every_other_feed(where):
    """In an auction fewer than ten levels are shown; an empty one is stored as zero and costs nothing."""
    (row,) = decode(frame(book(**{f"f{where}": ""}), tr="H0STASP0"), KNOWN, NOW_NS).books

    levels = [*row["ask_price_e4"], *row["bid_price_e4"], *row["ask_size"], *row["bid_size"]]
    assert [at + 3 for at, value in enumerate(levels) if value == 0] == [where]


def test_empty_optional_fields_are_undefined():
    """What a frame leaves empty is UNDEFINED, not zero."""
    (row,) = decode(frame(tick(f10="", f11="", f14="", f15="")), KNOWN, NOW_NS).ticks
    (other,) = decode(frame(book(f43="", f47="", f48="", f53="", f59="", f60=""), tr="H0STASP0"), KNOWN, NOW_NS).books

    assert {UNDEFINED} == {row[n] for n in ("ask_price_1_e4", "bid_price_1_e4", "cum_value", "trade_count")}
    names = ("total_ask_size", "expected_price_e4", "expected_size", "cum_volume", "mid_price_e4", "mid_size")
    assert {UNDEFINED} == {other[n] for n in names}


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (frame(tick(), flag="1"), "encrypted"),
        (frame(tick(), tr="H0STANC0"), "type not subscribed"),
        (frame(tick(), count=2), "47 fields are not 2 records"),
        (frame(tick(), [*tick(), "005930"]), "95 fields are not 2 records"),
        (frame(tick(code="123456")), "subscribed code"),
        (frame(tick(code="")), "subscribed code"),
        (frame(tick(f1="246060")), "time of day"),
        (frame(tick(f1="")), "time of day"),
        (b"0|H0STCNT0|abc|005930", "not of the form"),
        (b"0|H0STCNT0|000|", "not of the form"),
        (b"hello", "not of the form"),
        (b'{"header":', "no JSON"),
    ],
)
def test_what_cannot_be_read_is_rejected_with_a_reason(payload, reason):
    """The raw frame comes back whole."""
    decoded = decode(payload, KNOWN, NOW_NS)

    ((raw, said),) = decoded.rejects
    assert raw == payload
    assert reason in said


def test_a_frame_of_a_stream_nobody_registered_is_rejected():
    """A code known for its book is not thereby known for its trades (docs/wire/kis.md 3, rule 4)."""
    only_books = subscriptions_by_code([Subscription(Instrument("005930", "KRX"), "orderbook")])

    assert not len(decode(frame(tick()), only_books, NOW_NS).ticks)
    assert len(decode(frame(book(), tr="H0STASP0"), only_books, NOW_NS).books)


@pytest.mark.parametrize(
    ("hour", "market", "operation", "session"),
    [
        ("0", "2", "20", Session.REGULAR),
        ("0", "1", "20", Session.PRE_MARKET),
        ("0", "3", "20", Session.AFTER_MARKET),
        ("0", "5", "20", Session.CLOSING_PRICE),
        ("A", "2", "20", Session.CLOSING_AUCTION),
        ("B", "2", "00", Session.OPENING_AUCTION),
        ("C", "2", "20", Session.INTRADAY_AUCTION),
        ("0", "", "20", Session.REGULAR),
        ("0", "", "31", Session.CLOSING_PRICE),
        ("D", "", "49", Session.UNKNOWN),
    ],
)
def test_the_session_is_what_the_codes_say(hour, market, operation, session):
    """docs/wire/kis.md 4.3; what they do not say stays UNKNOWN for the calendar to fill."""
    (row,) = decode(frame(tick(f43=hour, f46=market, f34=operation)), KNOWN, NOW_NS).ticks

    assert row["session"] == session


@pytest.mark.parametrize(
    ("tr", "hour", "market", "session"),
    [
        ("H0STASP0", "0", "2", Session.REGULAR),
        ("H0STASP0", "0", "3", Session.AFTER_MARKET),
        ("H0STASP0", "A", "2", Session.CLOSING_AUCTION),
        ("H0STASP0", "0", "", Session.REGULAR),
        ("H0NXASP0", "0", "2", Session.UNKNOWN),
    ],
)
def test_the_session_of_a_book_is_what_its_codes_say(tr, hour, market, session):
    """NXT books carry no market code: index 62 is their midpoint."""
    fields = book(65 if "NX" in tr else 63, f2=hour)
    if "NX" not in tr:
        fields[62] = market
    (row,) = decode(frame(fields, tr=tr), KNOWN, NOW_NS).books

    assert row["session"] == session


def test_sides_and_halts():
    """1 buys, 5 sells, anything else is nobody's; TRHT_YN Y is flagged."""
    decoded = decode(frame(*(tick(f21=code) for code in ("1", "5", "3", ""))), KNOWN, NOW_NS)
    (halted,) = decode(frame(tick(f35="Y")), KNOWN, NOW_NS).ticks

    assert decoded.ticks["side"].tolist() == [1, -1, 0, 0]
    assert halted["flags"] == Flag.HALTED


def test_totals_are_checked_in_continuous_trading_only():
    """A wrong sum is flagged on the record; in an auction totals may reach deeper (docs/wire/kis.md 4.2)."""
    wrong = [
        decode(frame(book(f43="101", f2=hour), tr="H0STASP0"), KNOWN, NOW_NS).books[0]["flags"] for hour in ("0", "A")
    ]
    bids = decode(frame(book(f44="99"), tr="H0STASP0"), KNOWN, NOW_NS).books[0]["flags"]

    assert wrong == [Flag.CHECKSUM, 0]
    assert bids == Flag.CHECKSUM


@pytest.mark.parametrize(
    ("second", "flag"),
    [
        ({"f13": "106", "f14": "7632000"}, 0),
        ({"f13": "107", "f14": "7632000"}, Flag.CHECKSUM),
        ({"f13": "106", "f14": "7632001"}, Flag.CHECKSUM),
        ({"f2": "72000.5", "f13": "106", "f14": "7632001"}, 0),
    ],
)
def test_volume_and_value_must_advance_within_a_frame(second, flag):
    """ACML_VOL by CNTG_VOL, ACML_TR_PBMN by size x price, a half won of a midpoint may be cut off (docs/wire/kis.md 3)."""
    decoded = decode(frame(tick(), tick(**second)), KNOWN, NOW_NS)

    assert [0, flag] == decoded.ticks["flags"].tolist()


def test_control_messages_are_handed_on():
    """JSON is the session's affair."""
    payload = b'{"header":{"tr_id":"PINGPONG","datetime":"20230502221924"}}'

    decoded = decode(payload, KNOWN, NOW_NS)

    assert (decoded.control, decoded.rejects) == (payload, [])


def test_letters_and_etns_are_codes_like_any_other():
    """0074K0, Q500001 (docs/wire/kis.md 2.7)."""
    decoded = decode(frame(tick(code="0074K0"), tick(code="Q500001")), KNOWN, NOW_NS)

    assert decoded.ticks["symbol"].tolist() == [b"0074K0", b"Q500001"]


GARBAGE = ["", "x", "null", "-1", "1.5.2", "9" * 30, "9" * 5000, " ", "1_0", "7.0"]
TRS = ("H0STCNT0", "H0STASP0")


@given(
    st.dictionaries(st.sampled_from([10, 11, 13, 14, 15, 16, 22, 39, 44, 45]), st.sampled_from(GARBAGE), min_size=1),
    st.dictionaries(st.sampled_from([43, 44, 47, 48, 53, 59, 60]), st.sampled_from(GARBAGE), min_size=1),
)
def test_an_optional_field_never_costs_the_record(of_tick: dict[int, str], of_book: dict[int, str]):
    """Whatever it holds: the record is stored, what could not be read is empty, and the row is flagged for it."""
    decoded = decode(frame(tick(**{f"f{at}": text for at, text in of_tick.items()})), KNOWN, NOW_NS)
    books = decode(frame(book(**{f"f{at}": text for at, text in of_book.items()}), tr="H0STASP0"), KNOWN, NOW_NS)

    assert (decoded.rejects, books.rejects) == ([], [])
    ((row,), (book_row,)) = decoded.ticks, books.books
    read = {10: "ask_price_1_e4", 11: "bid_price_1_e4", 13: "cum_volume", 14: "cum_value"}
    assert bool(row["flags"] & Flag.UNREADABLE_FIELD) == any(
        of_tick.get(at, "") not in ("", "7.0") for at in (*read, 15, 16)
    )
    for at, name in read.items():
        if at in of_tick and of_tick[at] != "7.0":
            assert row[name] == UNDEFINED
    assert bool(book_row["flags"] & Flag.UNREADABLE_FIELD) == any(text not in ("", "7.0") for text in of_book.values())


def kst_ns(text: str) -> int:
    """A Korean time, ns since 1970 UTC."""
    return int(datetime.fromisoformat(f"{text}+09:00").timestamp()) * 10**9


@pytest.mark.parametrize(
    ("recv", "stamp", "expected", "flags"),
    [
        ("2026-11-24T08:35:05", "200000", "2026-11-23T20:00:00", Flag.DATE_MISMATCH),
        ("2026-11-24T08:35:05", "153000", "2026-11-23T15:30:00", Flag.DATE_MISMATCH),
        ("2026-11-24T07:55:00", "200000", "2026-11-23T20:00:00", 0),
        ("2026-11-24T08:35:05", "083504", "2026-11-24T08:35:04", 0),
        ("2026-11-24T09:00:00", "100000", "2026-11-24T10:00:00", 0),  # the wall clock is an hour slow
        ("2026-11-24T00:00:02", "235959", "2026-11-23T23:59:59", 0),
        ("2026-11-23T23:59:59", "000000", "2026-11-24T00:00:00", 0),
    ],
)
def test_a_stamp_that_is_yet_to_come_is_of_the_day_before_and_flagged(recv, stamp, expected, flags):
    """An exchange cannot stamp the future: what arrives in the morning with an evening's time was stamped yesterday."""
    records = (tick(f1=stamp, f33=""), book(f1=stamp))
    decoded = [decode(frame(record, tr=tr), KNOWN, kst_ns(recv)) for record, tr in zip(records, TRS, strict=True)]

    for row in (*decoded[0].ticks, *decoded[1].books):
        assert (row["exch_ns"], int(row["flags"]) & Flag.DATE_MISMATCH) == (kst_ns(expected), flags)


@pytest.mark.parametrize(
    ("date", "expected", "flags"),
    [
        ("20261124", "2026-11-24T10:00:00", 0),
        ("20230324", "2023-03-24T10:00:00", Flag.DATE_MISMATCH),
        ("20261123", "2026-11-23T10:00:00", Flag.DATE_MISMATCH),
        ("20261125", "2026-11-24T10:00:00", Flag.DATE_MISMATCH),  # yet to come
        ("20261324", "2026-11-24T10:00:00", 0),
        ("", "2026-11-24T10:00:00", 0),
    ],
)
def test_the_business_date_of_a_trade_decides_its_day(date, expected, flags):
    """BSOP_DATE, docs/wire/kis.md 4.1: a frame of another day is filed there, and flagged."""
    (row,) = decode(frame(tick(f1="100000", f33=date)), KNOWN, kst_ns("2026-11-24T10:00:01")).ticks

    assert (row["exch_ns"], int(row["flags"]) & Flag.DATE_MISMATCH) == (kst_ns(expected), flags)


@pytest.mark.parametrize("nothing", ["", "0"])
def test_a_record_without_price_and_quantity_is_no_trade(nothing):
    """It is counted, and neither stored nor quarantined; the trades beside it stay."""
    decoded = decode(frame(tick(), tick(f2=nothing, f12=nothing), tick()), KNOWN, NOW_NS)

    assert (len(decoded.ticks), len(decoded.tick_subscriptions)) == (2, 2)
    assert (decoded.empty_trades, decoded.rejects) == (1, [])


STATUS_KNOWN = {
    f"{tr}|{code}": Subscription(Instrument(code, venue), "status")
    for tr, venue in (("H0STMKO0", "KRX"), ("H0NXMKO0", "NXT"), ("H0UNMKO0", "UN"))
    for code in ("003160", "100840", "011170", "396300")
}


@pytest.mark.skipif(not SAMPLES.exists(), reason=f"recorded frames are not beside the checkout: {SAMPLES}")
def test_recorded_market_operations_become_events():
    """Four of the unified market with a VI that begins and ends, and an example of KRX."""
    unified = (SAMPLES.parent / "2026-11" / "kis_H0UNMKO0_20260921-23.txt").read_bytes().splitlines()
    krx = (SAMPLES / "other_domestic.txt").read_bytes().splitlines()[1]
    found = []
    for line in [*unified, krx]:
        decoded = decode(line, STATUS_KNOWN, NOW_NS)
        assert (decoded.rejects, decoded.empty_trades, decoded.oversized_frames) == ([], 0, [])
        found += [(str(event.instrument), event.kind, event.value) for event in decoded.market_events]

    assert [value for name, kind, value in found if kind == EventType.VI] == [1, 0, 0, 0, 0]
    assert {value for name, kind, value in found if kind == EventType.HALT} == {0}
    assert [name for name, kind, value in found if kind == EventType.PHASE] == [
        *("003160_AL", "003160_AL", "100840_AL", "011170_AL", "396300")
    ]


@pytest.mark.parametrize("width", [9, 10, 11, 12, 25])
@given(
    texts=st.lists(
        st.text(st.characters(codec="utf-8", exclude_characters="^|"), max_size=20), min_size=25, max_size=25
    )
)
def test_no_text_of_a_market_operation_makes_it_raise(width, texts):
    """Any text in any field: events, or a reject with the frame."""
    fields = ["003160", *texts][:width]

    decoded = decode(f"0|H0STMKO0|001|{'^'.join(fields)}".encode(), STATUS_KNOWN, NOW_NS)

    assert bool(decoded.rejects) == (width < 10)
    assert not len(decoded.ticks) and not len(decoded.books)


@pytest.mark.parametrize(
    ("tr", "market", "session"),
    [
        ("H0UNCNT0", None, Session.UNKNOWN),
        ("H0NXCNT0", None, Session.UNKNOWN),
        ("H0STCNT0", None, Session.REGULAR),
        ("H0UNCNT0", "3", Session.AFTER_MARKET),
    ],
)
def test_a_trade_without_a_market_code_is_placed_by_its_venues_hours(tr, market, session):
    """NEW_MKOP_CLS_CODE is 20 in the after-market of NXT and the unified venue, too; UNKNOWN is left to the calendar."""
    fields = tick(f34="20") if market is None else tick(f34="20", f46=market)
    if market is None:
        fields = fields[:46]

    (row,) = decode(frame(fields, tr=tr), KNOWN, NOW_NS).ticks

    assert row["session"] == session


UNUSUAL = [
    "",
    "0",
    "00",
    "007",
    "-5",
    "+5",
    "1.0",
    "1.5",
    "72000.1234",
    "72000.12345",
    "1e3",
    " 7",
    "7 ",
    "1_0",
    "Y",
    "[1]",
]
LARGE = [2**63 - 1, 2**63, 2**64, (2**63 - 1) // 10_000, (2**63 - 1) // 10_000 + 1, 10**30]
FIELD_TEXTS = st.one_of(
    st.integers(0, 10**6).map(str),
    st.sampled_from([*UNUSUAL, *map(str, LARGE)]),
    st.text("0123456789.,-eE \u0663\u00b2", max_size=4),
)


def decode_both_ways(payload: bytes) -> list[tuple]:
    """What a message decodes to as usual, and with every field read by itself in the form of all frames."""
    usual = decode(payload, KNOWN, NOW_NS, 7)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("brokers.kis.decode.parse_small_uints", lambda fields: None)
        each = decode(payload, KNOWN, NOW_NS, 7)
    return [tuple(getattr(decoded, name) for name in decoded.__slots__) for decoded in (usual, each)]


@settings(max_examples=600, deadline=None)
@given(
    st.sampled_from(["H0STCNT0", "H0STASP0", "H0NXASP0", "H0UNASP0"]),
    st.integers(62, 67),
    st.dictionaries(st.integers(0, 66), FIELD_TEXTS, max_size=4),
)
def test_numbers_read_at_once_give_what_each_read_by_itself_gives(tr, width, changes):
    """Any field of a trade, or of a book of any venue and width, replaced: the same records, byte by byte, or the same reject."""
    if tr == "H0STCNT0":
        texts = {f"f{at}": text for at, text in changes.items() if at < 47}
        payload = frame(tick(**texts), tick(**texts | {"f13": "206"}))
    else:
        payload = frame(book(width, **{f"f{at}": text for at, text in changes.items()}), tr=tr)

    usual, each = decode_both_ways(payload)

    assert usual == each


def load_frame(path: Path) -> bytes:
    """A frame of tests/frames, whose lines are joined."""
    return b"".join(line for line in path.read_bytes().splitlines() if not line.startswith(b"#"))


def test_recorded_and_written_frames_are_the_same_both_ways():
    """Every frame in tests/frames, and every recorded one where they lie beside the checkout."""
    frames = [load_frame(path) for path in sorted(FRAMES.glob("kis_*.txt"))]
    frames += sample_frames() if SAMPLES.exists() else ()

    differing = [payload for payload in frames if len({repr(found) for found in decode_both_ways(payload)}) > 1]

    assert len(frames) > 12
    assert differing == []


@pytest.mark.parametrize(("tr", "width"), [("H0STASP0", 63), ("H0NXASP0", 65), ("H0UNASP0", 66), ("H0STCNT0", 47)])
def test_a_plain_frame_is_read_at_once(tr, width, monkeypatch):
    """The usual frame takes the fast way: no field is read by itself, and a book of one record not even cut out."""
    monkeypatch.setattr("brokers.kis.decode.parse_uint", lambda text: pytest.fail("read by itself"))
    if tr != "H0STCNT0":
        monkeypatch.setattr("brokers.kis.decode.read_frame", lambda *_: pytest.fail("cut into fields"))
    decoded = decode(frame(tick() if tr == "H0STCNT0" else book(width), tr=tr), KNOWN, NOW_NS)

    assert (len(decoded.book_rows) + len(decoded.tick_rows), decoded.rejects) == (1, [])
