"""Every recorded frame, over real sockets, through the real process tree, into Parquet.

    samples ─> simulate --frames ─WebSocket─> kis, kiwoom ─> rings ─> writer ─> Parquet ─> pandas
        └───────────────────────── this file's own reading of the text ─────────────> equal

The expectations are read out of the frames' text here, by tables of this file's own (docs/wire/kis.md 4.1, 4.2;
docs/wire/kiwoom.md 3.1, 3.2).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from support.process_tree import SAMPLES, read_status, run_collectorctl, temporary_home, wait_until

from collectorctl.demo.environment import SimulatorProcess, set_addresses
from ringbuf.records import Flag

DAY = "2026-11-20"
LEVELS = range(1, 11)
KIS_TICK = {"price": 2, "ask_price_1": 10, "bid_price_1": 11, "size": 12, "cum_volume": 13, "cum_value": 14}
KIS_BOOK = {
    **{f"ask_price_{n}": 2 + n for n in LEVELS},
    **{f"bid_price_{n}": 12 + n for n in LEVELS},
    **{f"ask_size_{n}": 22 + n for n in LEVELS},
    **{f"bid_size_{n}": 32 + n for n in LEVELS},
    **{"total_ask_size": 43, "total_bid_size": 44, "expected_price": 47, "expected_size": 48, "cum_volume": 53},
    **{"mid_price": 59, "mid_size": 60},
}
KIWOOM_BOOK = {
    **{f"ask_price_{n}": 40 + n for n in LEVELS},
    **{f"bid_price_{n}": 50 + n for n in LEVELS},
    **{f"ask_size_{n}": 60 + n for n in LEVELS},
    **{f"bid_size_{n}": 70 + n for n in LEVELS},
    **{"total_ask_size": 121, "total_bid_size": 125, "cum_volume": 13},
}


SETTINGS = f"""
[universe]
kr = ["005930", "000660", "373220", "000020"]
[clock]
start = "{DAY}T12:00:00+09:00"
"""


@pytest.fixture(scope="module")
def played() -> Iterator[dict[str, Any]]:
    """The datasets after every sample was played, the quarantine, and what status said before the stop."""
    if not SAMPLES.is_dir():
        pytest.skip(f"recorded frames are not beside the checkout ({SAMPLES})")
    files = sorted([*(SAMPLES / "kis").glob("*.txt"), *(SAMPLES / "kiwoom").glob("*.json")])
    with temporary_home(SETTINGS) as root:
        with SimulatorProcess(root, root / "truth", "--frames", *map(str, files)) as simulator:
            set_addresses(root, simulator.addresses)
            run_collectorctl(root, "start")
            sent: dict[str, int] = {}
            while set(sent) != {"kis", "kiwoom"}:
                sent |= simulator.read_response(30).get("frames_sent", {})
            wait_until("the writer has taken up what the collectors ringed", lambda: all_taken_up(root))
            seen = read_status(root)
            run_collectorctl(root, "stop")
        lines = [
            text for file in (root / "data" / "quarantine").rglob("*.jsonl") for text in file.read_text().splitlines()
        ]
        yield {
            "books": pd.read_parquet(root / "data" / "kr" / "orderbook"),
            "ticks": pd.read_parquet(root / "data" / "kr" / "tick"),
            "quarantine": [json.loads(line) for line in lines],
            "status": seen,
            "samples": SAMPLES,
        }


def all_taken_up(root: Path) -> bool:
    """Whether the writer has seen every record of both collectors."""
    counters = {name: process["counters"] for name, process in read_status(root)["processes"].items()}
    taken = counters["writer"]["rows_in_kis"] + counters["writer"]["rows_in_kiwoom"]
    return 0 < taken == sum(counters[name]["books"] + counters[name]["ticks"] for name in ("kis", "kiwoom"))


def kis_records(samples: Path, tr: str) -> list[list[str]]:
    """The records of a KIS sample file, each as its fields."""
    records = []
    for line in (samples / "kis" / f"{tr}.txt").read_text().splitlines():
        _, _, count, payload = line.split("|", 3)
        fields = payload.split("^")
        width = len(fields) // int(count)
        records += [fields[at : at + width] for at in range(0, len(fields), width)]
    return records + [line.split("^") for line in (samples / "kis" / f"{tr}_payload_only.txt").read_text().splitlines()]


def kiwoom_entries(samples: Path, kind: str) -> list[dict[str, Any]]:
    """The REAL entries of one type in the Kiwoom samples."""
    entries = []
    for file in sorted((samples / "kiwoom").glob("ws_*.json")):
        told = json.loads(file.read_text())
        frames = [told.get("frame", {}), *(f["frame"] for f in told.get("frames", []))]
        frames += [step["frame"] for step in told.get("exchange", []) if step["dir"] == "<" and "frame" in step]
        found = [told["entry"]] if "entry" in told else []
        found += [entry for frame in frames for entry in frame.get("data", [])]
        entries += [entry for entry in found if entry["type"] == kind]
    return entries


def magnitude(text: str) -> int:
    """A Kiwoom number without its sign."""
    return int(text.strip().lstrip("+-"))


def clear_absent(numbers: dict[str, int | None]) -> list[int | None]:
    """A price of 0 is none, and neither is the size beside it."""
    absent = {name for name, number in numbers.items() if "price" in name and number == 0}
    absent |= {name.replace("price", "size") for name in absent}
    return [None if name in absent else number for name, number in numbers.items()]


def rows_of(frame: pd.DataFrame, columns: list[str], broker: str) -> list[tuple]:
    """Stored rows as tuples of Python values, None for null, time of day as HHMMSS; sorted."""
    own = frame[frame.broker == broker]
    times = own.exch_time.dt.strftime("%H%M%S").tolist()
    values = [[None if pd.isna(v) else v for v in own[name].tolist()] for name in columns]
    return sorted(zip(times, *values, strict=True), key=repr)


def test_every_recorded_kis_trade_is_stored_as_its_text_says(played: dict) -> None:
    """Price, size, side, cumulative volume and value, count and best quotes of each record of each frame."""
    side = {"1": 1, "5": -1}
    expected = sorted(
        (
            (
                f[1],
                f[0],
                *(int(f[at]) for at in KIS_TICK.values()),
                side.get(f[21], 0),
                int(f[15]) + int(f[16]),
                None,
                "regular",
            )
            for f in kis_records(played["samples"], "H0STCNT0")
        ),
        key=repr,
    )

    columns = ["symbol", *KIS_TICK, "side", "trade_count", "value_change", "session"]
    assert expected == rows_of(played["ticks"], columns, "kis")


def test_every_recorded_kis_book_is_stored_as_its_text_says(played: dict) -> None:
    """All ten levels, totals, expected match, cumulative volume and midpoint, at each of the recorded widths."""
    expected = sorted(
        (
            (
                f[1],
                f[0],
                *clear_absent({name: int(f[at]) if at < len(f) else None for name, at in KIS_BOOK.items()}),
                "regular",
            )
            for f in kis_records(played["samples"], "H0STASP0")
        ),
        key=repr,
    )

    assert expected == rows_of(played["books"], ["symbol", *KIS_BOOK, "session"], "kis")


def test_every_recorded_kiwoom_trade_is_stored_as_its_text_says(played: dict) -> None:
    """Signs, units and identities of the 0B entries, two entries of one frame included."""
    expected = []
    for entry in kiwoom_entries(played["samples"], "0B"):
        v = entry["values"]
        aggressor = {"+": 1, "-": -1}.get(v["15"][0], 0)
        prices = [magnitude(v[fid]) for fid in ("10", "27", "28")]
        counts = int(v["1071"]) + int(v["1072"])
        volume = [magnitude(v["15"]), int(v["13"]), int(v["14"]) * 1_000_000, int(v["29"])]
        expected.append((v["20"], entry["item"], *prices, *volume, aggressor, counts, "regular"))

    columns = ["symbol", "price", "ask_price_1", "bid_price_1", "size", "cum_volume", "cum_value", "value_change"]
    assert sorted(expected, key=repr) == rows_of(
        played["ticks"], [*columns, "side", "trade_count", "session"], "kiwoom"
    )


def test_every_recorded_kiwoom_book_is_stored_as_its_text_says(played: dict) -> None:
    """A trimmed 0D keeps what it has; what it lacks is null."""
    expected = []
    for entry in kiwoom_entries(played["samples"], "0D"):
        v = entry["values"]
        numbers = clear_absent(
            {name: magnitude(v[str(fid)]) if str(fid) in v else None for name, fid in KIWOOM_BOOK.items()}
        )
        expected.append((v["21"], entry["item"], *numbers, "regular"))

    assert sorted(expected, key=repr) == rows_of(played["books"], ["symbol", *KIWOOM_BOOK, "session"], "kiwoom")


def test_rows_carry_zone_date_venue_and_source(played: dict) -> None:
    """Times are nanoseconds in Korean time on the clock's day; prices are int64; every row says where it came from."""
    for name in ("books", "ticks"):
        frame = played[name]
        assert {"datetime64[ns, Asia/Seoul]"} == {str(frame[c].dtype) for c in ("exch_time", "recv_time")}
        dated_here = frame if name == "books" else frame[frame.broker != "kis"]  # KIS's trades have a business date
        assert {DAY} == set(dated_here.date.astype(str))
        assert (frame.exch_time.dt.strftime("%Y-%m-%d") == frame.date.astype(str)).all()
        assert (frame.exch_time.dt.hour == frame.hour.astype(int)).all()
        assert {"KRX"} == set(frame.venue)
        assert frame.recv_time.notna().all()
    ticks = played["ticks"]
    business_dates = {f[33] for f in kis_records(played["samples"], "H0STCNT0")}
    assert business_dates == set(ticks[ticks.broker == "kis"].exch_time.dt.strftime("%Y%m%d"))
    assert (ticks[ticks.broker == "kis"]["flags"] & int(Flag.DATE_MISMATCH)).all()
    assert {"live"} == set(ticks.source)
    assert {"int64"} == {str(played["books"][f"{side}_price_{n}"].dtype) for side in ("ask", "bid") for n in LEVELS}


def test_frames_nobody_can_decode_are_kept_raw_and_counted(played: dict) -> None:
    """US frames, expected trades and market operation on the domestic line, and an unregistered Kiwoom type, are quarantined."""
    kis = [*(played["samples"] / "kis" / "other_domestic.txt").read_text().splitlines()]
    for tr in ("HDFSASP0", "HDFSCNT0"):
        kis += (played["samples"] / "kis" / f"{tr}.txt").read_text().splitlines()
    kept = [entry["text"] for entry in played["quarantine"]]

    assert sorted(kis) == sorted(text for text in kept if text.startswith("0|"))
    others = [json.loads(text) for text in kept if not text.startswith("0|")]
    assert [entry["type"] for frame in others for entry in frame["data"]] == ["0w"]
    counted = {name: played["status"]["processes"][name]["counters"]["quarantined"] for name in ("kis", "kiwoom")}
    assert {"kis": len(kis), "kiwoom": 1} == counted
