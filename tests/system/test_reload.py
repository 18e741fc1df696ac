"""`collectorctl reload` in a running tree: a symbol comes, others go, and the books of those that stay are all there.

simulator (its truth) ─> kis, kiwoom ─> writer ─> Parquet       plan A ─ reload ─> plan B ─ reload ─> plan B: nothing changes
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd
import pytest
from support.process_tree import QUICK, read_pids, run_collectorctl, temporary_home, wait_until

from brokers.simulator import ground_truth
from brokers.symbols import SymbolRow
from collectorctl.demo.environment import SimulatorProcess, set_addresses
from collectorctl.symbols.store import store_symbols
from collectorctl.symbols.table import build_table
from conf.home import Home
from ringbuf.vitals import read_snapshot

KEPT, NEW = ["005930", "373220"], "035420"
GONE = {
    "three of five": ["000660", "207940", "005380"],
    "fifty of fifty-two": [f"{number:05}0" for number in range(1, 51)],
}
SETTINGS = QUICK + "[gapfill]\nenabled = false\n[recover]\nautomatic = false\n[kiwoom]\ncut_wait_s = 0.0\n"
BOOK = 1
LEVELS = ("ask_price", "ask_size", "bid_price", "bid_size")


def write_universe(root: Path, kr: list[str]) -> None:
    text = (root / "collector.toml").read_text().partition("[universe]")[0]
    (root / "collector.toml").write_text(f"{text}[universe]\nkr = {msgspec.json.encode(kr).decode()}\n")


def store_table(root: Path, order: list[str]) -> None:
    """A table of symbols, the first of the largest capitalisation."""
    rows = [SymbolRow(one, one, "KOSPI", "STOCK", market_cap=100 - rank) for rank, one in enumerate(order)]
    home = Home(root)
    store_symbols(home, pd.Timestamp("2026-11-20").date(), build_table({"kis": rows})[0])


def add_keys(root: Path, keys: int) -> None:
    """So many keys a broker, in place of one."""
    with (root / ".env").open("a") as env:
        for number in range(2, keys + 1):
            for broker in ("KIS", "KIWOOM"):
                env.write(f"{broker}_APP_KEY_{number}=key-{number}-of-{broker}\n")
                env.write(f"{broker}_APP_SECRET_{number}=secret-{number}-of-{broker}\n")


def counters(root: Path, name: str) -> dict[str, int]:
    return read_snapshot(Home(root).vitals_path(name)).counters


def count_books(root: Path, code: str) -> int:
    """Books of a symbol that its truth has so far."""
    books = ground_truth.load(root / "truth").books
    return int((books["symbol"] == code.encode()).sum())


def assert_every_book_is_stored(truth: ground_truth.GroundTruth, rows: pd.DataFrame, code: str, begin_ns: int) -> int:
    """Every book of a symbol that arose after an instant was due to both feeds, and is stored; their number."""
    books = truth.books[(truth.books["symbol"] == code.encode()) & (truth.books["mono_ns"] >= begin_ns)]
    deliveries = truth.deliveries[truth.deliveries["stream"] == BOOK]  # Kiwoom's may be conflated, KIS's are all sent
    last_ns = min(int(deliveries["mono_ns"][deliveries["line"] == line].max()) for line in (1, 2)) - 2 * 10**9
    books = books[books["mono_ns"] < last_ns]
    for line in (1, 2):
        sent = deliveries["first_id"][deliveries["line"] == line]
        assert np.isin(books["id"], sent).all(), f"{code}: feed {line} was not subscribed all the time"
    columns = [f"{name}_{level}" for name in LEVELS for level in range(1, 11)]
    own = (
        rows.loc[rows["symbol"] == code, columns].fillna(0).astype("int64")
    )  # an absent level is null in files, 0 on the wire
    stored = set(own.itertuples(index=False, name=None))
    missed = [
        one["id"] for one in books if tuple(np.concatenate([one[name] for name in LEVELS]).tolist()) not in stored
    ]
    assert missed == []
    return len(books)


@pytest.mark.long
@pytest.mark.parametrize(("gone", "keys", "books_per_s"), [("three of five", 1, 20), ("fifty of fifty-two", 3, 5)])
def test_a_changed_universe_is_taken_up_while_books_flow(gone: str, keys: int, books_per_s: int) -> None:
    """By expressions: no process is restarted, no connection closed; a collector that is killed takes the list of its sibling."""
    before = [KEPT[0], *GONE[gone], KEPT[1]]
    market = ["--always-open", "--books-per-s", str(books_per_s), "--symbols", ",".join([*before, NEW])]
    loss = ["--kis-loss", "0", "--kiwoom-loss", "0"]
    with temporary_home(SETTINGS) as root, SimulatorProcess(root, root / "truth", *market, *loss) as simulator:
        add_keys(root, keys)
        set_addresses(root, simulator.addresses)
        store_table(root, before)
        write_universe(root, ["005930", f"@market_cap:{len(before)}"])
        run_collectorctl(root, "start")
        pids = read_pids(root)
        begin_ns = int(ground_truth.load(root / "truth").books["mono_ns"].max())
        wait_until("books flow", lambda: all(counters(root, name)["books"] > 300 for name in ("kis", "kiwoom")), 60)
        plan_before = msgspec.json.decode(run_collectorctl(root, "plan", "--json").stdout)

        store_table(root, [*KEPT, NEW])
        write_universe(root, ["005930", "@market_cap:3"])
        unchanged = msgspec.json.decode(run_collectorctl(root, "plan", "--json").stdout)
        report = msgspec.json.decode(run_collectorctl(root, "reload", "--json").stdout)
        reloaded = count_books(root, NEW)
        plan_after = msgspec.json.decode(run_collectorctl(root, "plan", "--json").stdout)
        wait_until("books of the new one", lambda: count_books(root, NEW) > reloaded + 100, 60)
        assert "settings changed" not in run_collectorctl(root, "status", check=False).stdout

        assert unchanged == plan_before
        assert (report["added"], sorted(report["removed"])) == ([NEW], sorted(GONE[gone]))
        assert (report["moved"], report["unhealthy"], report["number"]) == ([], [], 2)
        assert [one["instrument"] for one in plan_after["instruments"]] == [*KEPT, NEW]
        of_kept = [
            [one for one in plan["instruments"] if one["instrument"] in KEPT] for plan in (plan_before, plan_after)
        ]
        assert of_kept[0] == of_kept[1]
        assert read_pids(root) == pids
        for name in ("kis", "kiwoom"):
            assert (counters(root, name)["connects"], counters(root, name)["disconnects"]) == (keys, 0)
            assert counters(root, name)["quarantined"] == 0

        truth = ground_truth.load(root / "truth")  # up to here
        store_table(root, [*before, NEW])  # and nobody says reload
        os.kill(pids["kis"], signal.SIGKILL)
        wait_until(
            "kis is back", lambda: counters(root, "kis")["list_number"] == 2 and read_pids(root)["kis"] != pids["kis"]
        )
        assert [
            one["instrument"]
            for one in msgspec.json.decode(run_collectorctl(root, "plan", "--json").stdout)["instruments"]
        ] == [
            *KEPT,
            NEW,
        ]
        run_collectorctl(root, "stop")
        rows = pd.read_parquet(root / "data" / "kr" / "orderbook")
        lists = sorted(path.name for path in (root / "data" / "universe").iterdir())

    for code in KEPT:
        assert assert_every_book_is_stored(truth, rows, code, begin_ns) > 100
    assert (rows["symbol"] == NEW).sum() > 90
    assert lists == ["date=2026-11-20.2.json", "date=2026-11-20.json"]
