"""US frames that were put aside come back into the US datasets."""

from __future__ import annotations

import json
from datetime import date, datetime
from pathlib import Path

import pandas as pd
import pytest
from support.process_tree import run_collectorctl, temporary_home

from brokers.feed.quarantine import Quarantine
from collectorctl.disk import retired
from collectorctl.reprocess.job import reprocess
from conf.clock import KST, SECOND_NS
from conf.home import Home
from conf.market import US
from conf.process import AlreadyRunning

DAY = "2026-11-20"
RECEIVED_NS = round(datetime(2026, 11, 20, 23, 45, tzinfo=KST).timestamp()) * SECOND_NS
TICK = "DNASNFLX^NFLX^4^20261120^20261120^094500^20261120^234500^170.0000^171.0000^169.0000^170.5000^2^0.5000^+0.29"
TICK += "^170.4900^170.5100^20^10^7^1000^170000^400^500^125.00^2"
BOOK = "DNASNFLX^NFLX^4^20261120^094501^20261120^234501^10^20^0^0" + "^170.4900^170.5100^1^2^0^0" * 10
SETTINGS = '[universe]\nus = ["NAS.AAPL"{more}]\n[us]\nenabled = true\n'


def again(root: Path) -> dict:
    """Run the command."""
    return json.loads(run_collectorctl(root, "reprocess", "--date", DAY, "--json").stdout)


def test_us_frames_of_a_forgotten_instrument_come_back_once_by_new_yorks_hour() -> None:
    """Nothing while it is not named; a tick and a book, late, in dollars, when it is; nothing more the next time."""
    with temporary_home(SETTINGS.format(more="")) as root:
        aside = Quarantine(root / "data" / "quarantine", "us", 1 << 20)
        for number, text in enumerate((f"0|HDFSCNT0|001|{TICK}", f"0|HDFSASP0|001|{BOOK}", "0|HDFSCNT0|001|DNASNFLX")):
            assert aside.append(text.encode(), "not registered", RECEIVED_NS + number, number) == ""
        Home(root).create_directories()
        nothing = again(root)
        (root / "collector.toml").write_text(SETTINGS.format(more=', "NAS.NFLX"'))
        did, repeated = again(root), again(root)
        ticks, books = (pd.read_parquet(root / "data" / "us" / stream) for stream in ("tick", "orderbook"))

    assert (0, {}) == (nothing["frames"]["us"], nothing["rows"])
    assert (2, {"us.orderbook": 1, "us.tick": 1}) == (did["frames"]["us"], did["rows"])
    assert (0, {}) == (repeated["frames"]["us"], repeated["rows"])
    (tick,), (book,) = ticks.to_dict("records"), books.to_dict("records")
    assert ("NFLX", 170.5, "regular") == (tick["symbol"], tick["price"], tick["session"])
    assert (DAY, 9) == (str(tick["date"]), int(tick["hour"]))
    assert (170.49, 170.51, 10) == (book["bid_price_1"], book["ask_price_1"], book["total_bid_size"])
    assert tick["flags"] & book["flags"] & 2  # late


def test_us_frames_of_a_date_that_retention_removed_stay_in_quarantine(tmp_path: Path) -> None:
    (tmp_path / "collector.toml").write_text(SETTINGS.format(more=', "NAS.NFLX"'))
    home, day = Home(tmp_path), date.fromisoformat(DAY)
    quarantine = Quarantine(home.quarantine_directory(), "us", 1 << 20)
    assert quarantine.append(f"0|HDFSCNT0|001|{TICK}".encode(), "not registered", RECEIVED_NS, 0) == ""
    retired.record(home.data, day, {"tick": retired.FileTotals(1, 1)}, day, US)

    with pytest.raises(AlreadyRunning, match=f"us {DAY}: retired by retention"):
        reprocess(home, day, dry_run=False)
    assert not (home.data / "us/tick").exists()
