"""Ring records as frames of both vendors: what the collectors' own decoders make of them."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.vendor_clients import SAMPLES

from brokers.kis import decode as kis_decode
from brokers.kiwoom import decode as kiwoom_decode
from brokers.simulator.kis import overseas_encode as overseas
from brokers.simulator.kis import record_encode as kis
from brokers.simulator.kis.encode import PROFILES
from brokers.simulator.kiwoom import record_encode as kiwoom
from brokers.subscription import Subscription
from brokers.us import decode as us_decode
from conf.calendar import TradingCalendar
from conf.instrument import Instrument, parse_instrument
from conf.loader import load_settings
from ringbuf.records import (
    LEVELS,
    ORDERBOOK,
    PRICE_SCALE,
    STREAMS,
    TICK,
    UNDEFINED,
    Flag,
    Session,
    Side,
    Venue,
    empty_records,
)

AT_NS = 1_795_143_600_000_000_000  # 2026-11-20 10:00 in Seoul
MILLION = 1_000_000
KR_SESSIONS = [one for one in Session if one < Session.DAY_MARKET]
INSTRUMENTS = {
    (symbol, venue): Instrument(symbol.decode(), Venue(venue).name)
    for symbol in (b"005930", b"0074K0", b"Q500001")
    for venue in (Venue.KRX, Venue.NXT, Venue.UN)
}

sizes = st.integers(0, 10**9)
prices = st.integers(1, 10**7).map(lambda won: won * PRICE_SCALE)
levels = st.lists(st.one_of(st.just(0), prices), min_size=LEVELS, max_size=LEVELS)
optional = st.one_of(st.just(UNDEFINED), sizes)
optional_price = st.one_of(st.just(UNDEFINED), st.just(0), prices)
instants = st.integers(-3600, 3600).map(lambda second: AT_NS + second * 1_000_000_000)
instruments = st.sampled_from(sorted(INSTRUMENTS))


@st.composite
def ticks(draw: st.DrawFn) -> np.ndarray:
    record = empty_records(TICK, 1)
    record["symbol"], record["venue"] = draw(instruments)
    record["exch_ns"], record["price_e4"], record["size"] = draw(instants), draw(prices), draw(st.integers(1, 10**6))
    record["side"], record["session"] = draw(st.sampled_from((-1, 0, 1))), draw(st.sampled_from(KR_SESSIONS))
    record["flags"] = draw(st.sampled_from((0, Flag.HALTED)))
    for name in ("cum_volume", "cum_value", "value_change"):
        record[name] = draw(optional)
    for name in ("ask_price_1_e4", "bid_price_1_e4"):
        record[name] = draw(optional_price)
    return record


@st.composite
def books(draw: st.DrawFn) -> np.ndarray:
    record = empty_records(ORDERBOOK, 1)
    record["symbol"], record["venue"] = draw(instruments)
    record["exch_ns"], record["session"] = draw(instants), draw(st.sampled_from(KR_SESSIONS))
    for side in ("ask", "bid"):
        record[f"{side}_price_e4"] = draw(levels)
        record[f"{side}_size"] = draw(st.lists(sizes, min_size=LEVELS, max_size=LEVELS))
    for name in ("cum_volume", "total_ask_size", "total_bid_size", "expected_size", "mid_size"):
        record[name] = draw(optional)
    for name in ("expected_price_e4", "mid_price_e4"):
        record[name] = draw(optional_price)
    return record


def relay(stream: str, record: np.ndarray, vendor: str) -> np.void:
    """A record as a vendor's frame, and what the vendor's decoder reads of it."""
    instrument = INSTRUMENTS[bytes(record["symbol"][0]), int(record["venue"][0])]
    fields = dict(zip(record.dtype.names or (), record.tolist()[0], strict=True))
    subscriptions = [Subscription(instrument, stream)]
    if vendor == "kis":
        frame = kis.encode_record(stream, fields, instrument, PROFILES["47/63"])
        found = kis_decode.decode(frame, kis_decode.subscriptions_by_code(subscriptions), AT_NS)
    else:
        frame = kiwoom.encode_record(stream, fields, instrument)
        found = kiwoom_decode.decode(frame, kiwoom_decode.subscriptions_by_code(subscriptions), AT_NS)
    assert found.rejects == []
    assert not found.oversized_frames
    (read,) = found.ticks if stream == "tick" else found.books
    assert not read["flags"] & Flag.UNREADABLE_FIELD
    return read


def assert_equal(read: np.void, record: np.ndarray, *names: str) -> None:
    for name in ("symbol", "venue", "exch_ns", *names):
        assert np.array_equal(read[name], record[name][0]), (name, read[name], record[name])


TICK_FIELDS = ("price_e4", "size", "side", "cum_volume", "ask_price_1_e4", "bid_price_1_e4")
LEVEL_FIELDS = ("ask_price_e4", "ask_size", "bid_price_e4", "bid_size")
BOOK_FIELDS = (*LEVEL_FIELDS, "cum_volume", "total_ask_size", "total_bid_size")


@given(ticks())
def test_a_tick_of_any_feed_is_the_same_tick_in_the_form_of_kis(record: np.ndarray) -> None:
    read = relay("tick", record, "kis")

    assert_equal(read, record, *TICK_FIELDS, "cum_value", "session")
    assert read["flags"] & Flag.HALTED == record["flags"][0]


@given(ticks())
def test_a_tick_of_any_feed_is_the_same_tick_in_the_form_of_kiwoom(record: np.ndarray) -> None:
    """But for what that form has no place for: its value is in million won."""
    read, value = relay("tick", record, "kiwoom"), int(record["cum_value"][0])

    assert_equal(read, record, *TICK_FIELDS, "value_change")
    assert read["cum_value"] == (UNDEFINED if value == UNDEFINED else (value + MILLION // 2) // MILLION * MILLION)


@given(books())
def test_a_book_of_any_feed_is_the_same_book_in_the_form_of_kis(record: np.ndarray) -> None:
    read = relay("orderbook", record, "kis")

    assert_equal(read, record, *BOOK_FIELDS, "expected_price_e4", "expected_size", "mid_price_e4", "mid_size")
    if record["venue"] == Venue.KRX:
        assert read["session"] == record["session"]


@given(books())
def test_a_book_of_any_feed_is_the_same_book_in_the_form_of_kiwoom(record: np.ndarray) -> None:
    """But for the size at the midpoint, whose side is not kept."""
    read = relay("orderbook", record, "kiwoom")

    assert_equal(read, record, *BOOK_FIELDS, "expected_price_e4", "expected_size", "mid_price_e4")
    assert read["mid_size"] == UNDEFINED


@pytest.mark.parametrize("stream", STREAMS)
def test_a_narrow_form_of_kis_has_the_same_fields_but_the_last(stream: str) -> None:
    record = empty_records(STREAMS[stream], 1)
    record["symbol"], record["venue"], record["exch_ns"] = b"005930", Venue.KRX, AT_NS
    fields = dict(zip(record.dtype.names or (), record.tolist()[0], strict=True))
    instrument = Instrument("005930", "KRX")
    wide, narrow = (kis.encode_record(stream, fields, instrument, PROFILES[name]) for name in ("47/63", "46/59"))

    assert wide.startswith(narrow)
    assert len(narrow.split(b"^")) == PROFILES["46/59"][stream == "orderbook"]


def test_half_a_won_of_a_midpoint_is_in_the_form_of_kis_and_cut_off_in_that_of_kiwoom() -> None:
    price_e4 = 71_950 * PRICE_SCALE + PRICE_SCALE // 2

    assert (kis.format_price(price_e4), kiwoom.format_price(price_e4)) == ("71950.5", "71950")


def test_the_manual_lists_every_field_that_is_not_kept() -> None:
    manual = (Path(__file__).parents[3] / "docs/relay.md").read_text(encoding="utf-8")
    listed = {
        name: {int(number) for number in re.findall(r"\d+", numbers)}
        for name, numbers in re.findall(r"^\| ([^|]+?) \| ([\d, ]+) \|", manual, re.M)
    }

    assert listed == {
        "KIS trade": set(kis.NOT_KEPT),
        "KIS book": set(kis.BOOK_NOT_KEPT),
        "KIS US trade": set(overseas.NOT_KEPT),
        "KIS US book": set(overseas.BOOK_NOT_KEPT),
        "Kiwoom 0B": {int(fid) for fid in kiwoom.KEPT},
        "Kiwoom 0D": {int(fid) for fid in kiwoom.BOOK_KEPT},
    }


def test_what_is_not_kept_has_no_value_whatever_the_record() -> None:
    record = empty_records(TICK, 1)
    record["symbol"], record["venue"], record["exch_ns"], record["cum_value"] = b"005930", Venue.KRX, AT_NS, 5
    fields = dict(zip(record.dtype.names or (), record.tolist()[0], strict=True))
    instrument = Instrument("005930", "KRX")
    trade, values = kis.encode_tick(fields, instrument), kiwoom.encode_tick(fields, instrument)

    assert {trade[at] for at in kis.NOT_KEPT} == {"0", "3", "000000", ""}
    assert {values[fid] for fid in kiwoom.TRADE_FIDS if fid not in kiwoom.KEPT} == {""}


US_INSTRUMENTS = [parse_instrument(name) for name in ("NAS.NVDA", "NYS.BRK/B", "AMS.SPY", "BAQ.NVDA")]
CLOCKS_CHANGE_NS = 1_793_512_800_000_000_000  # 2026-11-01 01:00 in New York, the second time
us_instants = st.tuples(st.sampled_from((AT_NS, CLOCKS_CHANGE_NS)), st.integers(-7200, 7200)).map(
    lambda drawn: drawn[0] + drawn[1] * 1_000_000_000
)
dollars = st.integers(1, 10**10)


def name_instrument(record: np.ndarray, instrument: Instrument) -> None:
    record["symbol"], record["venue"] = instrument.symbol.encode(), Venue[instrument.venue]


def read_us(encoder: overseas.RecordEncoder, stream: str, record: np.ndarray, instrument: Instrument) -> np.void:
    """A record as a frame of KIS's, and what the US decoder reads of it."""
    fields = dict(zip(record.dtype.names or (), record.tolist()[0], strict=True))
    by_code = us_decode.subscriptions_by_code([Subscription(instrument, stream)])
    found = us_decode.decode(encoder.encode(stream, fields, instrument), by_code, AT_NS)
    assert found.rejects == []
    assert not found.oversized_frames
    (read,) = found.ticks if stream == "tick" else found.books
    assert not read["flags"]
    return read


@given(
    st.sampled_from(US_INSTRUMENTS),
    st.booleans(),
    us_instants,
    dollars,
    st.integers(0, 10**6),
    optional,
    optional,
    st.one_of(st.just(UNDEFINED), st.just(0), dollars),
    st.integers(1, 100),
    st.sampled_from((Side.SELL, Side.BUY)),
)
def test_a_us_tick_is_the_same_tick_in_the_form_of_kis(
    instrument: Instrument,
    paid: bool,
    at_ns: int,
    price_e4: int,
    size: int,
    volume: int,
    value: int,
    quote_e4: int,
    spread_e4: int,
    side: Side,
) -> None:
    """Its side by the quotes, or, where these do not tell, by the sums of a trade before it (see below)."""
    record = empty_records(TICK, 1)
    name_instrument(record, instrument)
    record["exch_ns"], record["price_e4"], record["size"] = at_ns, price_e4, size
    record["cum_volume"], record["cum_value"] = volume, value
    record["ask_price_1_e4"] = record["bid_price_1_e4"] = quote_e4
    names = ["price_e4", "size", "cum_volume", "cum_value", "ask_price_1_e4", "bid_price_1_e4"]
    if quote_e4 > 0:
        record["price_e4"] = quote_e4 + spread_e4
        record["ask_price_1_e4"] += spread_e4 if side == Side.BUY else 2 * spread_e4
        record["bid_price_1_e4"] += spread_e4 if side == Side.SELL else 0
        record["side"] = side
        names.append("side")

    assert_equal(read_us(overseas.RecordEncoder(paid), "tick", record, instrument), record, *names)


@given(
    st.sampled_from(US_INSTRUMENTS),
    us_instants,
    st.lists(st.lists(st.one_of(st.just(0), dollars), min_size=LEVELS, max_size=LEVELS), min_size=2, max_size=2),
    st.lists(st.lists(sizes, min_size=LEVELS, max_size=LEVELS), min_size=2, max_size=2),
    st.booleans(),
)
def test_a_us_book_is_the_same_book_in_the_form_of_kis(
    instrument: Instrument, at_ns: int, levels_e4: list[list[int]], level_sizes: list[list[int]], has_totals: bool
) -> None:
    record = empty_records(ORDERBOOK, 1)
    name_instrument(record, instrument)
    record["exch_ns"], record["cum_volume"] = at_ns, UNDEFINED
    for side, prices_e4, found in zip(("ask", "bid"), levels_e4, level_sizes, strict=True):
        record[f"{side}_price_e4"], record[f"{side}_size"] = prices_e4, found
        record[f"total_{side}_size"] = sum(found) if has_totals else UNDEFINED

    assert_equal(read_us(overseas.RecordEncoder(False), "orderbook", record, instrument), record, *BOOK_FIELDS)


def test_the_side_of_a_us_tick_is_in_the_sums_of_sells_and_buys_which_begin_anew_with_a_day() -> None:
    encoder, instrument = overseas.RecordEncoder(False), US_INSTRUMENTS[0]
    record = empty_records(TICK, 1)
    name_instrument(record, instrument)
    sums = []
    for side, size, day in ((1, 5, 0), (-1, 3, 0), (0, 2, 0), (1, 1, 0), (-1, 4, 1)):
        record["side"], record["size"], record["exch_ns"] = side, size, AT_NS + day * 86_400 * 10**9
        fields = dict(zip(record.dtype.names or (), record.tolist()[0], strict=True))
        sums.append(tuple(encoder.encode("tick", fields, instrument).decode().split("^")[22:24]))

    assert sums == [("0", "5"), ("3", "5"), ("3", "5"), ("3", "6"), ("4", "0")]


@pytest.mark.parametrize("tr", us_decode.LAYOUTS)
def test_a_recorded_us_frame_comes_back_field_by_field_but_for_what_is_not_kept(tr: bytes, tmp_path: Path) -> None:
    path = SAMPLES / f"kis/{tr.decode()}.txt"
    if not path.is_file():
        pytest.skip(f"recorded frames are not beside the checkout ({SAMPLES})")
    stream, calendar = us_decode.LAYOUTS[tr].stream, TradingCalendar(load_settings(tmp_path))
    lost = {22, 23, *overseas.NOT_KEPT} if stream == "tick" else set(overseas.BOOK_NOT_KEPT)
    names = [parse_instrument(name) for name in ("NAS.AAPL", "NAS.GOOGL", "BAQ.AAPL")]
    by_code = us_decode.subscriptions_by_code(Subscription(name, stream) for name in names)
    compared = 0
    for frame in path.read_bytes().splitlines():
        found = us_decode.decode(frame, by_code, AT_NS)
        texts, width = frame.decode().split("|", 3)[3].split("^"), us_decode.LAYOUTS[tr].known_width
        for at, record in enumerate(found.ticks if stream == "tick" else found.books):
            instrument = Instrument(bytes(record["symbol"]).decode(), Venue(record["venue"]).name)
            label = calendar.label(instrument.venue, int(record["exch_ns"])) or "unknown"
            record["session"] = Session[label.upper()]
            fields = dict(zip(record.dtype.names or (), record.tolist(), strict=True))
            sent = overseas.RecordEncoder(False).encode(stream, fields, instrument).decode().split("|", 3)[3].split("^")
            recorded = texts[at * width : (at + 1) * width]
            assert len(sent) == width
            assert {n: (sent[n], recorded[n]) for n in range(width) if n not in lost and sent[n] != recorded[n]} == {}
            compared += 1

    assert compared >= 1
