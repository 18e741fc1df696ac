"""US frames: recorded ones field by field against an index table of our own, then time, decimals and what is broken."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import ROUND_HALF_EVEN, Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from brokers.subscription import Subscription
from brokers.us.decode import decode, subscriptions_by_code, wire_code
from conf.instrument import Instrument, parse_instrument
from ringbuf.records import UNDEFINED, FeedId, Flag, Session, Venue

SAMPLES = Path(__file__).parents[4] / "shared" / "specs" / "samples" / "kis"
KNOWN = subscriptions_by_code(
    Subscription(parse_instrument(text), stream)
    for text in ("NAS.AAPL", "NAS.GOOGL", "NYS.BRK/B", "AMS.SPY", "BAQ.AAPL")
    for stream in ("orderbook", "tick")
)

# docs/wire/kis.md 4.4 and 4.5, typed from the tables there
TICK = "DNASAAPL^AAPL^4^20261120^20261120^103000^20261121^003000^170.0000^171.0000^169.0000^170.5000^2^0.5000^+0.29"
TICK += "^170.4900^170.5100^20^10^7^1000^170000^400^500^125.00^2"
AT = {"xymd": 4, "xhms": 5, "kymd": 6, "khms": 7, "tymd": 3, "last": 11, "bid": 15, "ask": 16}
COUNTS = {"size": 19, "cum_volume": 20, "cum_value": 21}


def book_fields(key: str = "DNASAAPL", levels: int = 10) -> list[str]:
    """A book of 71 fields, `levels` of them filled."""
    fields = [key, key[4:], "4", "20261120", "103000", "20261121", "003000"]
    sizes = [(100 + n, 200 + n) if n < levels else (0, 0) for n in range(10)]
    fields += [str(sum(bid for bid, _ in sizes)), str(sum(ask for _, ask in sizes)), "0", "0"]
    for n, (bid, ask) in enumerate(sizes):
        prices = [f"{170 - n}.0100", f"{171 + n}.0200"] if n < levels else ["0.0000", "0.0000"]
        fields += [*prices, str(bid), str(ask), "0", "0"]
    return fields


def tick(count: int = 1, **changed: str) -> bytes:
    """A frame of `count` like trades with some fields changed, by the names in AT and COUNTS."""
    fields = TICK.split("^")
    for name, text in changed.items():
        fields[(AT | COUNTS)[name]] = text
    return f"0|HDFSCNT0|{count:03}|{'^'.join(fields * count)}".encode()


def read(payload: bytes) -> np.void:
    """The one tick of a frame."""
    decoded = decode(payload, KNOWN, 0, 0)
    assert decoded.rejects == []
    (row,) = decoded.ticks
    return row


def ns(text: str, zone: str = "America/New_York") -> int:
    """An instant, by pandas."""
    return int(pd.Timestamp(text, tz=zone).value)


def recorded(tr: str) -> Iterator[tuple[list[str], np.void]]:
    """The fields of each recorded record, and what became of it."""
    for line in (SAMPLES / f"{tr}.txt").read_bytes().splitlines():
        decoded = decode(line, KNOWN, 0, 5)
        fields = line.decode().split("|")[3].split("^")
        rows = [*decoded.ticks, *decoded.books]
        width = len(fields) // len(rows)
        assert decoded.rejects == [] and decoded.oversized_frames == []
        yield from ((fields[n * width : (n + 1) * width], row) for n, row in enumerate(rows))


@pytest.mark.skipif(not SAMPLES.is_dir(), reason=f"recorded frames are not beside the checkout ({SAMPLES})")
def test_recorded_trades_are_read_field_by_field():
    """Prices exact, New York's instant, the session left to the calendar although the feed has a word for it."""
    found = list(recorded("HDFSCNT0"))

    assert len(found) == 7
    for f, row in found:
        assert (f[1].encode(), Venue.NASDAQ, FeedId.US) == (row["symbol"], row["venue"], row["line"])
        assert {name: int(f[at]) for name, at in COUNTS.items()} == {name: row[name] for name in COUNTS}
        for name, at in (("price_e4", 11), ("ask_price_1_e4", 16), ("bid_price_1_e4", 15)):
            assert int(Decimal(f[at]) * 10_000) == row[name]
        assert ns(f"{f[4]} {f[5]}") == ns(f"{f[6]} {f[7]}", "Asia/Seoul") == row["exch_ns"]
        assert (Session.UNKNOWN, 0) == (row["session"], row["flags"])
    # bought or sold wherever the vendor's sums of the next recorded trade say so; the first and last are at neither quote
    assert [0, 1, 0, 0, 0, 1, -1] == [int(row["side"]) for _, row in found]


@pytest.mark.skipif(not SAMPLES.is_dir(), reason=f"recorded frames are not beside the checkout ({SAMPLES})")
def test_the_recorded_book_is_read_field_by_field():
    """Level by level, bid before ask; a day market key has a venue and a session of its own."""
    ((f, row),) = recorded("HDFSASP0")

    for n in range(10):
        bid, ask, bid_size, ask_size = f[11 + 6 * n : 15 + 6 * n]
        assert [int(Decimal(bid) * 10_000), int(Decimal(ask) * 10_000)] == [
            row["bid_price_e4"][n],
            row["ask_price_e4"][n],
        ]
        assert [int(bid_size), int(ask_size)] == [row["bid_size"][n], row["ask_size"][n]]
    assert (1482, 381) == (row["total_bid_size"], row["total_ask_size"])
    assert (Venue.NASDAQ_DAY, Session.DAY_MARKET, 0) == (row["venue"], row["session"], row["flags"])
    assert ns("2024-05-06 20:22:23") == row["exch_ns"]
    assert row["cum_volume"] == row["expected_size"] == row["mid_price_e4"] == UNDEFINED


def test_keys_are_spelled_by_exchange_and_by_what_was_bought():
    """D free, R paid; the day market has R only; both forms of a key are understood."""
    keys = {text: [wire_code(Subscription(parse_instrument(text), "tick"), paid)[1] for paid in (False, True)] for text in (
        "NAS.AAPL", "NYS.BRK/B", "AMS.SPY", "BAQ.AAPL", "BAY.IBM", "BAA.SPY",
    )}  # fmt: skip

    assert keys == {
        "NAS.AAPL": ["DNASAAPL", "RNASAAPL"],
        "NYS.BRK/B": ["DNYSBRK/B", "RNYSBRK/B"],
        "AMS.SPY": ["DAMSSPY", "RAMSSPY"],
        "BAQ.AAPL": ["RBAQAAPL"] * 2,
        "BAY.IBM": ["RBAYIBM"] * 2,
        "BAA.SPY": ["RBAASPY"] * 2,
    }
    paid = decode(tick().replace(b"DNAS", b"RNAS"), KNOWN, 0, 0)
    assert Subscription(Instrument("AAPL", "NASDAQ"), "tick") == paid.tick_subscriptions[0]


@pytest.mark.parametrize(
    ("new_york", "korea", "offset"),
    [
        ("20261101 013000", "20261101 143000", -4),  # before clocks are set back
        ("20261101 013000", "20261101 153000", -5),  # and after
        ("20270314 015959", "20270314 155959", -5),  # before they are set forward
        ("20270314 030000", "20270314 160000", -4),  # and after
        ("20261120 200000", "20261121 100000", -5),  # over Korea's midnight
        ("20261231 235959", "20270101 135959", -5),
    ],
)
def test_koreas_time_tells_the_two_hours_of_one_name_apart(new_york: str, korea: str, offset: int):
    """The exchange's own date and time, in the zone's own offset of that moment."""
    xymd, xhms, kymd, khms = *new_york.split(), *korea.split()

    row = read(tick(xymd=xymd, xhms=xhms, kymd=kymd, khms=khms, tymd=xymd))

    at = pd.Timestamp(int(row["exch_ns"]), tz="America/New_York")
    assert f"{at:%Y%m%d %H%M%S}" == new_york
    assert at.utcoffset().total_seconds() == offset * 3600
    assert row["flags"] == 0


@given(st.datetimes(pd.Timestamp("2020-01-01").to_pydatetime(), pd.Timestamp("2035-01-01").to_pydatetime()))
@example(pd.Timestamp("2026-11-01 05:30").to_pydatetime())
@example(pd.Timestamp("2026-11-01 06:30").to_pydatetime())
def test_every_instant_goes_round(utc):
    """Any second of any year, as New York and Seoul would print it."""
    at = pd.Timestamp(utc.replace(microsecond=0), tz="UTC")
    there, here = at.tz_convert("America/New_York"), at.tz_convert("Asia/Seoul")

    row = read(
        tick(
            xymd=f"{there:%Y%m%d}",
            xhms=f"{there:%H%M%S}",
            kymd=f"{here:%Y%m%d}",
            khms=f"{here:%H%M%S}",
            tymd=f"{there:%Y%m%d}",
        )
    )

    assert (at.value, 0) == (int(row["exch_ns"]), int(row["flags"]))


@pytest.mark.parametrize(
    ("day", "clock", "business", "korea"),
    [
        ("20261123", "253000", "20261124", ("20261124", "153000")),
        ("20261124", "013000", "20261124", ("20261124", "153000")),
        ("20261231", "240000", "20270101", ("20270101", "140000")),
        ("20261123", "213000", "20261124", ("20261124", "113000")),
        ("20260713", "213000", "20260714", ("20260714", "103000")),
    ],
)
def test_clocks_of_a_day_of_24_hours_are_read(day: str, clock: str, business: str, korea: tuple[str, str]):
    """One that runs on past midnight, and the night session's evening, which belongs to the next business day."""
    kymd, khms = korea

    row = read(tick(tymd=business, xymd=day, xhms=clock, kymd=kymd, khms=khms))

    assert row["exch_ns"] == ns(f"{kymd} {khms}", "Asia/Seoul")
    assert row["flags"] == 0


@pytest.mark.parametrize(
    "changed",
    [
        {"kymd": "20261120"},  # a day off
        {"khms": "013000"},  # an hour off
        {"khms": "250000"},
        {"kymd": "2026112X"},
        {"tymd": "20261119"},
        {"tymd": "20261121"},
    ],
)
def test_dates_that_contradict_each_other_are_flagged_and_new_yorks_holds(changed: dict[str, str]):
    """The record is kept with the exchange's own time."""
    row = read(tick(**changed))

    assert ns("2026-11-20 10:30:00") == row["exch_ns"]
    assert row["flags"] == Flag.DATE_MISMATCH


def test_a_day_markets_evening_belongs_to_the_next_business_day():
    """20:22 in New York, 10:22 in Korea: the business date is one ahead of the calendar's."""
    evening = {"xymd": "20261119", "xhms": "202200", "kymd": "20261120", "khms": "102200"}

    right, wrong = (
        decode(tick(**evening, tymd=tymd).replace(b"DNAS", b"RBAQ"), KNOWN, 0, 0).ticks[0]
        for tymd in ("20261120", "20261119")
    )

    assert (0, Flag.DATE_MISMATCH) == (right["flags"], wrong["flags"])
    assert Venue.NASDAQ_DAY == right["venue"]


@given(st.decimals(min_value=0, max_value=10**9, places=6, allow_nan=False, allow_infinity=False))
@example(Decimal("1.00005"))
@example(Decimal("1.00015"))
@example(Decimal("0.99995"))
def test_prices_are_exact_to_the_ten_thousandth_and_finer_ones_rounded_half_to_even(price: Decimal):
    """As decimal arithmetic has it; the flag says that something was lost."""
    row = read(tick(last=f"{price:f}"))

    scaled = price * 10_000
    assert int(scaled.quantize(Decimal(1), ROUND_HALF_EVEN)) == row["price_e4"]
    assert bool(row["flags"] & Flag.PRICE_ROUNDED) == (scaled != int(scaled))


@pytest.mark.parametrize(
    ("last", "sums", "side"),
    [
        ("170.5100", ("400", "500"), 1),  # at the ask
        ("170.4900", ("400", "500"), -1),  # at the bid
        ("170.5000", ("400", "500"), 0),  # between them
        ("170.6000", ("400", "500"), 1),
        ("170.4000", ("400", "500"), -1),
    ],
)
def test_the_first_trade_of_a_frame_is_sided_by_its_quotes(last: str, sums: tuple[str, str], side: int):
    """At or beyond a quote; between them nobody was the aggressor."""
    assert side == read(tick(last=last))["side"]


def test_later_trades_of_a_frame_are_sided_by_the_vendors_sums():
    """Whatever the quotes say by then; volume that went to neither side has none."""
    trades = []
    for number, (sold, bought) in enumerate([(400, 500), (407, 500), (407, 507), (407, 507)]):
        fields = TICK.split("^")
        fields[20], fields[21], fields[22], fields[23] = str(1000 + 7 * number), "", str(sold), str(bought)
        trades.append("^".join(fields))

    decoded = decode(f"0|HDFSCNT0|004|{'^'.join(trades)}".encode(), KNOWN, 0, 0)

    assert [0, -1, 1, 0] == decoded.ticks["side"].tolist()
    assert [0, 0, 0, 0] == decoded.ticks["flags"].tolist()


@pytest.mark.parametrize("tr", ["HDFSCNT0", "HDFSASP0"])
def test_a_ticker_may_be_spelled_otherwise_than_in_its_key(tr: str):
    """BRK/B or BRK.B: the key says whose record it is."""
    fields = TICK.split("^") if tr == "HDFSCNT0" else book_fields()
    fields[:2] = ["DNYSBRK/B", "BRK.B"]

    decoded = decode(f"0|{tr}|001|{'^'.join(fields)}".encode(), KNOWN, 0, 0)

    (row,) = [*decoded.ticks, *decoded.books]
    assert (b"BRK/B", Venue.NYSE) == (row["symbol"], row["venue"])


def test_a_trade_without_cumulative_volume_is_a_trade():
    """Nothing to compare, nothing to flag; its price and size are there."""
    row = decode(tick(2, cum_volume="", cum_value=""), KNOWN, 0, 0).ticks[1]

    assert (1_705_000, 7, UNDEFINED, UNDEFINED, 0) == (
        row["price_e4"],
        row["size"],
        row["cum_volume"],
        row["cum_value"],
        row["flags"],
    )


def test_volume_that_does_not_advance_by_the_size_is_flagged():
    """Two trades of seven shares each, and the same cumulative volume."""
    decoded = decode(tick(2), KNOWN, 0, 0)

    assert [0, Flag.CHECKSUM] == decoded.ticks["flags"].tolist()


def test_totals_that_are_not_the_sum_of_the_sizes_are_flagged():
    """Ten sizes, one total a side (docs/wire/kis.md 4.5)."""
    right, wrong = book_fields(), book_fields()
    wrong[7] = "1"

    rows = [decode(f"0|HDFSASP0|001|{'^'.join(f)}".encode(), KNOWN, 0, 0).books[0] for f in (right, wrong)]

    assert [0, Flag.CHECKSUM] == [int(row["flags"]) for row in rows]


def test_a_book_of_few_levels_has_zeros_behind_them():
    """Written as zero or left empty."""
    zeros, empty = book_fields(levels=3), book_fields(levels=3)
    empty[29:] = [""] * (71 - 29)

    rows = [decode(f"0|HDFSASP0|001|{'^'.join(f)}".encode(), KNOWN, 0, 0).books[0] for f in (zeros, empty)]

    for row in rows:
        assert [1_710_200, 1_720_200, 1_730_200, *[0] * 7] == row["ask_price_e4"].tolist()
        assert [100, 101, 102, *[0] * 7] == row["bid_size"].tolist()
        assert row["flags"] == 0


def test_a_wider_frame_is_read_by_its_known_prefix():
    """The surplus is kept raw and told once."""
    decoded = decode(f"0|HDFSCNT0|001|{TICK}^new^er".encode(), KNOWN, 0, 0)

    assert [("HDFSCNT0", 28)] == decoded.oversized_frames
    assert b"new^er" == decoded.ticks["extra"][0]
    assert decoded.ticks["price_e4"][0] == 1_705_000


@pytest.mark.parametrize(
    "payload",
    [
        f"0|HDFSCNT0|001|{TICK.rpartition('^')[0]}",  # 25 fields
        f"0|HDFSCNT0|001|{TICK.partition('^')[2]}",  # without the key: everything is shifted
        f"0|HDFSCNT0|001|{TICK.replace('^AAPL^', '^4^', 1)}",
        f"0|HDFSCNT0|001|{TICK.replace('^AAPL^4^', '^AAPL^four^', 1)}",
        f"0|HDFSCNT0|001|{TICK.replace('DNASAAPL', 'DNASNFLX', 1)}",
        f"0|HDFSCNT0|001|{TICK.replace('170.5000', '-170.5', 1)}",
        f"0|HDFSCNT0|001|{TICK.replace('^103000^', '^1030^', 1)}",
        f"0|HDFSCNT0|001|{TICK.replace('^20261120^103000^', '^20261320^103000^', 1)}",
        f"0|HDFSCNT0|001|{TICK.replace('^20261120^103000^', '^20270314^023000^', 1)}",  # an hour that did not exist
        f"0|HDFSCNT0|002|{TICK}",
        f"1|HDFSCNT0|001|{TICK}",
        "0|HDFSASP0|001|" + "^".join(book_fields()[:-1]),
        "0|HDFSASP0|001|" + "^".join(book_fields()[1:]),
        "0|HDFSASP1|001|" + "^".join(book_fields()[:17]),
        "0|H0STCNT0|001|005930^103000",
    ],
)
def test_what_does_not_fit_is_handed_back_raw(payload: str):
    """Nothing is guessed, nothing raised."""
    decoded = decode(payload.encode(), KNOWN, 0, 0)

    ((raw, reason),) = decoded.rejects
    assert (payload.encode(), True) == (raw, bool(reason))
    assert not decoded.tick_rows and not decoded.book_rows


@given(st.binary(max_size=200), st.sampled_from([b"0|HDFSCNT0|001|", b"0|HDFSASP0|001|", b""]))
def test_no_bytes_make_it_raise(noise: bytes, head: bytes):
    """Neither noise nor a true frame with noise in it."""
    decode(head + noise, KNOWN, 0, 0)
    at = len(noise) % 150
    decode(tick()[:at] + noise + tick()[at:], KNOWN, 0, 0)


BASE = (
    "DNASAAPL^AAPL^4^20261124^20261124^100500^20261125^000500^258.6000^259.0200^258.4000^259.0200^3^0.0000^0.00^258.9600"
    "^259.0200^200^20^10^4629^1198097^2222^680^30.60^1"
)


def read_base(changed: dict[int, str]) -> tuple[list[np.void], list[tuple[bytes, str]]]:
    """The ticks and rejects of one record with some fields changed, by their index."""
    fields = BASE.split("^")
    for at, text in changed.items():
        fields[at] = text
    decoded = decode(f"0|HDFSCNT0|001|{'^'.join(fields)}".encode(), KNOWN, 0, 0)
    return list(decoded.ticks), decoded.rejects


@pytest.mark.parametrize(
    ("changed", "size", "cum_volume", "flags"),
    [
        ({}, 10, 4629, 0),
        ({19: "0.5"}, 1, 4629, Flag.SIZE_ROUNDED),
        ({19: "10.000000"}, 10, 4629, 0),
        ({20: "4629.5"}, 10, 4629, Flag.SIZE_ROUNDED),
        ({19: "0.25", 20: "4629.25"}, 0, 4629, Flag.SIZE_ROUNDED),
        ({19: "2.5", 20: ""}, 2, UNDEFINED, Flag.SIZE_ROUNDED),
        ({22: "2222.25"}, 10, 4629, 0),
        ({22: "null", 23: ""}, 10, 4629, Flag.UNREADABLE_FIELD),
        ({20: "many"}, 10, UNDEFINED, Flag.UNREADABLE_FIELD),
        ({20: "9" * 19}, 10, UNDEFINED, Flag.UNREADABLE_FIELD),
        ({15: "-", 16: "9" * 30}, 10, 4629, Flag.UNREADABLE_FIELD),
        ({21: "1.2.3", 24: "x", 25: "y", 13: "z"}, 10, 4629, Flag.UNREADABLE_FIELD),
    ],
)
def test_a_fraction_of_a_share_or_an_unreadable_optional_field_costs_no_trade(
    changed: dict[int, str], size: int, cum_volume: int, flags: int
):
    """The tape has fractions since February 2026: whole shares are stored, and the row says that they were rounded."""
    (row,), rejects = read_base(changed)

    assert rejects == []
    assert (size, cum_volume, flags) == (row["size"], row["cum_volume"], row["flags"])


@given(st.lists(st.integers(1, 5_000_000), min_size=1, max_size=30), st.integers(0, 10**9))
def test_fractional_trades_add_up_to_the_volume_without_a_gap_or_an_overlap(sizes_e6: list[int], before_e6: int):
    """Each trade begins, in whole shares, where the one before it ended, also over frames."""
    end_e6, end = before_e6, before_e6 // 1_000_000
    for size_e6 in sizes_e6:
        end_e6 += size_e6
        texts = [f"{n // 1_000_000}.{n % 1_000_000:06}" for n in (size_e6, end_e6)]
        (row,), _ = read_base(dict(zip((19, 20), texts, strict=True)))
        assert row["cum_volume"] - row["size"] == end
        assert abs(int(row["size"]) * 1_000_000 - size_e6) < 1_000_000
        assert bool(row["flags"] & Flag.SIZE_ROUNDED) == bool(size_e6 % 1_000_000 or end_e6 % 1_000_000)
        end = int(row["cum_volume"])
    assert end == end_e6 // 1_000_000


def test_fractional_sizes_of_a_book_are_cut_to_whole_shares_and_flagged():
    """The level stays; totals are not compared with rounded sizes."""
    fields = book_fields()
    fields[13] = "100.75"

    (row,) = decode(f"0|HDFSASP0|001|{'^'.join(fields)}".encode(), KNOWN, 0, 0).books

    assert (int(row["bid_size"][0]), int(row["flags"])) == (100, Flag.SIZE_ROUNDED)


@pytest.mark.parametrize("nothing", ["", "0", "0.0000"])
def test_a_us_record_without_price_and_quantity_is_no_trade(nothing: str):
    """It is counted, and neither stored nor quarantined; with one of the two it is not overlooked."""
    frame = tick(last=nothing)
    fields = frame.decode().split("|")[3].split("^")
    fields[19] = nothing
    decoded = decode(f"0|HDFSCNT0|001|{'^'.join(fields)}".encode(), KNOWN, 0, 0)

    assert (decoded.empty_trades, decoded.tick_rows, decoded.rejects) == (1, [], [])
    assert decode(frame, KNOWN, 0, 0).empty_trades == 0
