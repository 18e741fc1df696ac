"""The whole way: a tree that collects with loss and an outage, stops, and recovers its day from the same market."""

from __future__ import annotations

import msgspec
import numpy as np
import pandas as pd
from support.process_tree import run_collectorctl, temporary_home, wait_until

from brokers.simulator import ground_truth
from collectorctl.demo.environment import SimulatorProcess, set_addresses
from conf.home import Home

SYMBOLS = ["005930", "000660", "373220", "207940"]
SETTINGS = f"""
[universe]
kr = {msgspec.json.encode(SYMBOLS).decode()}
[clock]
start = "2026-11-20T08:58:00+09:00"
speed = 300
[sessions.KRX]
opening_auction = "08:30-09:00"
regular = "09:00-11:00"
closing_auction = "11:00-11:10"
closing_price = ""
after_market = ""
[writer]
grace_s = 6.0
[kis]
subscribe_spacing_ms = 20
[feed]
backoff_max_s = 1.0
[recover]
calls_per_s_first = 4.5
automatic = false
"""


def test_a_day_collected_with_loss_and_an_outage_goes_from_incomplete_to_proven() -> None:
    """Before: gaps. While hours are in the journal: refused in words. After: each trade of the market once, and PROVEN."""
    with temporary_home(SETTINGS) as root, SimulatorProcess(
        root, root / "truth", "--kis-loss", "0.03", "--kiwoom-loss", "0.03", "--books-per-s", "20"
    ) as simulator:  # fmt: skip
        set_addresses(root, simulator.addresses)
        home = Home(root)
        clock = home.load_clock()
        run_collectorctl(root, "start")
        wait_until("there are ticks", lambda: len(ground_truth.load(root / "truth").trades) > 200)
        early = run_collectorctl(root, "recover", "--date", "2026-11-20", check=False)
        for line in ("kis", "kiwoom"):
            simulator.send_command(f"{line} outage 2")
        calendar = home.load_calendar()
        over = lambda: calendar.find_phase("KRX", clock.now_ns()) is None and clock.now_ns() % 86_400e9 > 2.3 * 3600e9  # noqa: E731
        wait_until("the close", over, 40)
        run_collectorctl(root, "stop")
        before = tick_rows(root)

        ran = run_collectorctl(root, "recover", "--date", "2026-11-20", "--json")

        assert (1, True) == (early.returncode, "still in the journal" in early.stderr)
        certificates = {one["symbol"]: one for one in msgspec.json.decode(ran.stdout)}
        assert {"PROVEN"} == {one["certificate"] for one in certificates.values()}, certificates
        rows, trades = tick_rows(root), ground_truth.load(root / "truth").trades
        assert len(rows) > len(before) > 0
        for symbol in SYMBOLS:
            assert_covered_once(rows[rows.symbol == symbol], trades[trades["symbol"] == symbol.encode()])
        kept = rows[rows.source == "live"].set_index(["broker", "seq"]).recv_time
        assert kept.equals(before.set_index(["broker", "seq"]).recv_time.loc[kept.index])
        assert 0 == run_collectorctl(root, "verify", "--date", "2026-11-20").returncode


def tick_rows(root) -> pd.DataFrame:
    """All ticks, as a user reads them."""
    return pd.read_parquet(root / "data/kr/tick")


def assert_covered_once(rows: pd.DataFrame, trades: np.ndarray) -> None:
    """Every trade is in exactly one row; a row of several trades is a print that a broker had merged."""
    rows = rows.sort_values("cum_volume")
    ends = rows.cum_volume.tolist()
    at = np.searchsorted(ends, trades["cum_volume"])
    shares = pd.Series(trades["size"]).groupby(at).sum()
    assert list(range(len(rows))) == shares.index.tolist()
    assert rows["size"].tolist() == shares.tolist()
    assert rows.price.tolist() == pd.Series(trades["price"]).groupby(at).last().tolist()
    assert (pd.Series(trades["price"]).groupby(at).nunique() == 1).all()
    several = pd.Series(trades["size"]).groupby(at).size().to_numpy() > 1
    assert set(rows[several].broker) <= {"kiwoom"}
    assert set(rows[several].source) <= {"live"}
