"""The US feed through a real tree: a night in which clocks are set back, processes killed on the way, and recorded frames.

simulator ─WebSocket─> us, kis, kiwoom ─> rings ─> writer ─> data/us, data/kr ─> pandas
    `─> truth ───────────────────────────────────────────> equal
"""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from support.process_tree import SAMPLES, read_status, run_collectorctl, temporary_home, wait_until

from brokers.simulator.ground_truth import DeliveryOutcome, GroundTruth, Stream, load
from collectorctl.demo.environment import SimulatorProcess, set_addresses
from conf.home import Home
from writer.volume.gaps import decode_gap_report

US_LINE = 3
SURE_NS = 1_000_000_000
"""A delivery so long before its connection's end was read."""
LEVELS = range(1, 11)

NIGHT = """
[universe]
kr = ["005930", "000660"]
us = ["NAS.AAPL", "NYS.BRK/B", "AMS.SPY", "BAQ.AAPL"]
[clock]
start = "2026-11-01T00:54:00-04:00"
speed = 180.0
[us]
enabled = true
subscribe_spacing_ms = 20
[feed]
backoff_max_s = 1.0
[writer]
grace_s = 6.0
"""
OVER = pd.Timestamp("2026-11-01 01:08", tz="Etc/GMT+5")
"""Well within the second of the two hours that are both called one o'clock."""


@pytest.fixture(scope="module")
def night() -> Iterator[dict[str, Any]]:
    """Two hours and more, the second and third called one o'clock; each collector and the writer are killed on the way."""
    with temporary_home(NIGHT) as root:
        with SimulatorProcess(root, root / "truth", "--always-open", "--books-per-s", "8") as simulator:
            set_addresses(root, simulator.addresses)
            run_collectorctl(root, "start")
            started = read_status(root)
            clock = Home(root).load_clock()
            for name in ("us", "kis", "writer", "kiwoom"):
                pid = read_status(root)["processes"][name]["pid"]
                os.kill(pid, signal.SIGKILL)
                wait_until(f"{name} is there again", lambda name=name, pid=pid: alive(root, name, pid), 60)
                time.sleep(1.5)
            wait_until("the second one o'clock is well under way", lambda: clock.now_ns() > OVER.value, 60)
            simulator.send_command("market rest")
            time.sleep(1.0)
            ended = read_status(root)
            run_collectorctl(root, "stop")
        data = root / "data"
        volume = decode_gap_report(Home(root).gap_report_path("us").read_bytes())
        yield {
            "started": started,
            "ended": ended,
            "truth": load(root / "truth"),
            "volume": {(symbol.symbol, symbol.venue): symbol for symbol in volume.symbols},
            "books": pd.read_parquet(data / "us" / "orderbook"),
            "ticks": pd.read_parquet(data / "us" / "tick"),
            "korean": pd.read_parquet(data / "kr" / "orderbook"),
            "parts": {
                str(path.relative_to(data / "us" / "orderbook")): pq.read_table(path, partitioning=None)
                for path in sorted((data / "us" / "orderbook").rglob("part-*.parquet"))
            },
            "quarantined": list((data / "quarantine").rglob("*.jsonl")),
        }


def alive(root: Path, name: str, before: int) -> bool:
    """Whether another process of that name works."""
    seen = read_status(root)["processes"].get(name, {"pid": 0, "healthy": False})
    return seen["pid"] not in (0, before) and seen["healthy"]


def delivered(truth: GroundTruth, stream: Stream) -> tuple[Counter[int], Counter[int]]:
    """(certain, possible): how often the US line sent each id."""
    ended = {row["connection"]: row["ended_mono_ns"] for row in truth.connections if row["line"] == US_LINE}
    sent = truth.deliveries[(truth.deliveries["line"] == US_LINE) & (truth.deliveries["stream"] == stream)]
    sent = sent[np.isin(sent["outcome"], (DeliveryOutcome.SENT, DeliveryOutcome.REPEATED))]
    certain, possible = Counter[int](), Counter[int]()
    for number, first, mono_ns in zip(
        sent["connection"].tolist(), sent["first_id"].tolist(), sent["mono_ns"].tolist(), strict=True
    ):
        possible[first] += 1
        certain[first] += mono_ns < ended.get(number, 1 << 62) - SURE_NS
    return +certain, possible


def by_key(counts: Counter[int], keys: dict[int, tuple]) -> Counter[tuple]:
    """The same counts by content."""
    found = Counter[tuple]()
    for number, count in counts.items():
        found[keys[number]] += count
    return found


def seconds(times: pd.Series) -> list[int]:
    """Unix seconds of a zoned column."""
    return (times.astype("int64") // 10**9).tolist()


def test_the_us_program_starts_by_itself_where_it_is_switched_on(night: dict[str, Any]) -> None:
    """And it is one of the processes that `start` waits for."""
    assert {"kis", "kiwoom", "us", "writer", "watchdog"} <= set(night["started"]["processes"])
    assert night["started"]["healthy"]
    assert night["ended"]["processes"]["us"]["counters"]["acknowledged"] == 8


def test_every_us_book_is_stored_once_whoever_was_killed(night: dict[str, Any]) -> None:
    """Prices exact to the 1/10,000, sizes, totals, second; nothing certain is missing, nothing is doubled."""
    books, rows = night["truth"].books, night["books"]
    sides = ("ask_price", "ask_size", "bid_price", "bid_size")
    keys = {
        int(book["id"]): (
            book["symbol"].decode(),
            book["venue"].decode(),
            int(book["exch_s"]),
            *(tuple(book[side].tolist()) for side in sides),
            int(book["total_ask"]),
            int(book["total_bid"]),
        )
        for book in books
    }
    levels = [
        (rows[[f"{side}_{n}" for n in LEVELS]].fillna(0).to_numpy() * (10_000 if "price" in side else 1))
        .round()
        .astype(np.int64)
        for side in sides
    ]
    stored = Counter(
        zip(
            rows["symbol"],
            rows["venue"],
            seconds(rows["exch_time"]),
            *([tuple(row) for row in side.tolist()] for side in levels),
            rows["total_ask_size"],
            rows["total_bid_size"],
            strict=True,
        )
    )
    certain, possible = (by_key(counts, keys) for counts in delivered(night["truth"], Stream.BOOK))

    assert certain.total() > 200
    assert certain - stored == Counter()
    assert stored - possible == Counter()
    assert {"NASDAQ", "NYSE", "AMEX", "NASDAQ_DAY"} == set(rows["venue"])
    assert (rows["ask_price_1"] > 0).all() and rows["cum_volume"].isna().all()


def test_every_us_tick_is_stored_once_with_its_volume(night: dict[str, Any]) -> None:
    """Price in dollars, size, cumulative volume, value in whole dollars, best quotes; the side where the feed tells it."""
    truth, rows = night["truth"], night["ticks"]
    keys = {
        int(trade["id"]): (
            trade["symbol"].decode(),
            trade["venue"].decode(),
            int(trade["exch_s"]),
            int(trade["price"]),
            int(trade["size"]),
            int(trade["cum_volume"]),
            int(trade["cum_value"]) // 10_000,
            int(trade["ask_price_1"]),
            int(trade["bid_price_1"]),
        )
        for trade in truth.trades
    }
    side_of = {key: int(trade["side"]) for key, trade in zip(keys.values(), truth.trades, strict=True)}
    prices = [
        (rows[name].fillna(0) * 10_000).round().astype("int64") for name in ("price", "ask_price_1", "bid_price_1")
    ]
    found = list(
        zip(
            rows["symbol"],
            rows["venue"],
            seconds(rows["exch_time"]),
            prices[0],
            rows["size"],
            rows["cum_volume"],
            rows["cum_value"],
            *prices[1:],
            strict=True,
        )
    )
    certain, possible = (by_key(counts, keys) for counts in delivered(truth, Stream.TICK))

    assert certain.total() > 100
    assert certain - Counter(found) == Counter()
    assert Counter(found) - possible == Counter()
    told = [(side_of[key], side) for key, side in zip(found, rows["side"], strict=True) if side]
    assert len(told) > 0.5 * len(found)
    assert sum(true == side for true, side in told) > 0.9 * len(told)


def test_the_volume_line_of_each_us_venue_says_what_went_by(night: dict[str, Any]) -> None:
    """The day market's volume is another than the exchange's; what the ticks do not cover is a gap, to the share."""
    covered = night["ticks"].groupby(["symbol", "venue"])["size"].agg(["sum", "count"])

    assert {("AAPL", "NASDAQ"), ("AAPL", "NASDAQ_DAY"), ("BRK/B", "NYSE"), ("SPY", "AMEX")} == set(night["volume"])
    for name, told in night["volume"].items():
        assert "2026-11-01" == told.day
        assert covered["count"][name] == told.ticks
        assert told.volume - told.start - covered["sum"][name] == told.gap_shares
        assert 0 == told.duplicates
    assert any(told.gap_shares for told in night["volume"].values())  # somebody was dead for a while


def test_the_hour_that_comes_twice_is_in_one_directory_and_whole(night: dict[str, Any]) -> None:
    """hour=01 holds both; parts of the second say so; times tell them apart."""
    hours = set(night["books"]["hour"].astype(str))
    twice = {name: table for name, table in night["parts"].items() if name.startswith("date=2026-11-01/hour=01/")}
    offsets = {
        (time.utcoffset().total_seconds() / 3600, (table.schema.metadata or {}).get(b"fold", b"0"))
        for table in twice.values()
        for time in table.column("exch_time").to_pandas()
    }

    assert {"2026-11-01"} == set(night["books"]["date"].astype(str))
    assert "01" in {hour.zfill(2) for hour in hours}
    assert {(-4.0, b"0"), (-5.0, b"1")} == offsets
    local = night["books"]["exch_time"].dt
    assert (local.hour.astype(str).str.zfill(2) == night["books"]["hour"].astype(str).str.zfill(2)).all()


def test_times_are_new_yorks_and_the_day_market_counts_in_korean_days(night: dict[str, Any]) -> None:
    """pandas reads the zone without options; 2026-11-01 01:00 in New York is the afternoon of the same date in Korea."""
    for rows in (night["books"], night["ticks"]):
        assert str(rows["exch_time"].dtype) == "datetime64[ns, America/New_York]"
        assert str(rows["recv_time"].dtype) == "datetime64[ns, America/New_York]"
        assert {"us"} == set(rows["broker"])
        assert {"2026-11-01"} == set(map(str, rows["business_date"]))
        assert {"day_market"} == set(rows["session"][rows["venue"] == "NASDAQ_DAY"])


def test_korea_is_collected_beside_it(night: dict[str, Any]) -> None:
    """Books of both Korean lines, in won, in Korean time; no US symbol among them."""
    korean = night["korean"]

    assert str(korean["exch_time"].dtype) == "datetime64[ns, Asia/Seoul]"
    assert korean["ask_price_1"].dtype == "int64"
    assert {"005930", "000660"} == set(korean["symbol"])
    assert korean["recv_time_kis"].notna().any() and korean["recv_time_kiwoom"].notna().any()
    assert night["quarantined"] == []


def test_a_us_that_is_switched_on_later_is_collected_from_the_next_start_on() -> None:
    """Where it is off it does not run and is not shown; neither supervisord nor the writer need go for it to come."""
    settings = '[kiwoom]\nenabled = false\n[universe]\nkr = ["005930"]\n'
    with temporary_home(settings) as root, SimulatorProcess(
        root, root / "truth", "--always-open", "--symbols", "005930,NAS.AAPL"
    ) as simulator:  # fmt: skip
        set_addresses(root, simulator.addresses)
        run_collectorctl(root, "start")
        before = read_status(root)
        text = (root / "collector.toml").read_text().replace("[us]\n", "[us]\nenabled = true\n")
        text = text.replace("[universe]\n", '[universe]\nus = ["NAS.AAPL"]\n')
        (root / "collector.toml").write_text(text)
        run_collectorctl(root, "start")
        taken = lambda: read_status(root)["processes"]["writer"]["counters"]["rows_in_us"] > 20  # noqa: E731
        wait_until("the writer takes its records", taken)
        after = read_status(root)

    assert "us" not in before["processes"] and before["healthy"]
    assert after["processes"]["us"]["healthy"]
    for name in ("writer", "watchdog"):
        assert before["processes"][name]["pid"] == after["processes"][name]["pid"]


FRAMES = """
[universe]
us = ["NAS.AAPL", "NAS.GOOGL", "BAQ.AAPL"]
[kis]
enabled = false
[kiwoom]
enabled = false
[us]
enabled = true
subscribe_spacing_ms = 20
"""
TICK_FIELDS = {"price": 11, "ask_price_1": 16, "bid_price_1": 15, "size": 19, "cum_volume": 20, "cum_value": 21}


@pytest.fixture(scope="module")
def played() -> Iterator[dict[str, Any]]:
    """The datasets after every recorded overseas frame was played to the collector."""
    if not SAMPLES.is_dir():
        pytest.skip(f"recorded frames are not beside the checkout ({SAMPLES})")
    with temporary_home(FRAMES) as root:
        with SimulatorProcess(
            root, root / "truth", "--frames", *map(str, (SAMPLES / "kis").glob("HDFS*.txt"))
        ) as simulator:
            set_addresses(root, simulator.addresses)
            run_collectorctl(root, "start")
            wait_until("all are sent", lambda: "us" in simulator.read_response(30).get("frames_sent", {}))
            wait_until(
                "the writer has them", lambda: read_status(root)["processes"]["writer"]["counters"]["rows_in_us"] >= 8
            )
            run_collectorctl(root, "stop")
        yield {
            "books": pd.read_parquet(root / "data" / "us" / "orderbook"),
            "ticks": pd.read_parquet(root / "data" / "us" / "tick"),
            "quarantined": list((root / "data" / "quarantine").rglob("*.jsonl")),
        }


def recorded(tr: str) -> list[list[str]]:
    """The records of a sample file, each as its fields."""
    records = []
    for line in (SAMPLES / "kis" / f"{tr}.txt").read_text().splitlines():
        fields = line.split("|")[3].split("^")
        width = len(fields) // int(line.split("|")[2])
        records += [fields[at : at + width] for at in range(0, len(fields), width)]
    return records


def test_recorded_us_ticks_come_out_as_they_were(played: dict[str, Any]) -> None:
    """Every field that is stored, read out of the text; New York's own date and time; the session from the time."""
    records, rows = recorded("HDFSCNT0"), played["ticks"].sort_values(["exch_time", "cum_volume"])
    records.sort(key=lambda f: (f[4] + f[5], int(f[20])))

    assert played["quarantined"] == []
    for name, at in TICK_FIELDS.items():
        assert [float(f[at]) for f in records] == rows[name].tolist(), name
    assert [f[1] for f in records] == rows["symbol"].tolist()
    assert [f[4] + f[5] for f in records] == [f"{time:%Y%m%d%H%M%S}" for time in rows["exch_time"]]
    assert [f[3] for f in records] == [f"{day:%Y%m%d}" for day in rows["business_date"]]
    assert ["pre_market"] * 4 + ["regular"] * 3 == rows["session"].tolist()
    assert {0} == set(rows["flags"] & ~1)  # the first after a subscription is a snapshot


def test_the_recorded_us_book_comes_out_as_it_was(played: dict[str, Any]) -> None:
    """Ten levels, bid before ask in the frame; a day market's evening in New York is Korea's next morning."""
    (f,), rows = recorded("HDFSASP0"), played["books"]

    (row,) = rows.to_dict("records")
    for n in LEVELS:
        bid, ask, bid_size, ask_size = f[5 + 6 * n : 9 + 6 * n]
        assert (float(bid), float(ask)) == (row[f"bid_price_{n}"], row[f"ask_price_{n}"])
        assert (int(bid_size), int(ask_size)) == (row[f"bid_size_{n}"], row[f"ask_size_{n}"])
    assert (int(f[7]), int(f[8])) == (row["total_bid_size"], row["total_ask_size"])
    assert ("AAPL", "NASDAQ_DAY", "day_market") == (row["symbol"], row["venue"], row["session"])
    assert pd.Timestamp("2024-05-06 20:22:23", tz="America/New_York") == row["exch_time"]
    assert ("2024-05-07", "2024-05-06", 20) == (str(row["business_date"]), str(row["date"]), int(row["hour"]))
