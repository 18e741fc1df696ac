"""Two hosts at one market, each away for a while: the joined day has what either home has, each book and each share once."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
from support.process_tree import (
    QUICK,
    SECRETS,
    count_received,
    read_status,
    run_collectorctl,
    temporary_home,
    wait_until,
)

from brokers.simulator import ground_truth
from collectorctl.demo.environment import SimulatorProcess, set_addresses
from collectorctl.demo.reconcile import reconcile

DAY = "2026-11-20"
SHARED, *APART = ("005930", "000660", "0074K0")
COLLECTING = QUICK + "[gapfill]\nenabled = false\n[recover]\nautomatic = false\n"
EVENING = COLLECTING.replace("10:00:00", "20:30:00")
LEVELS = [f"{side}_{what}_{n}" for side in ("ask", "bid") for what in ("price", "size") for n in range(1, 11)]
CONTENT = ["symbol", "cum_volume", *LEVELS]
RECORDS = 1500
"""What each home has received before the other's absence, meanwhile, and afterwards."""


def with_universe(settings: str, symbols: list[str]) -> str:
    return f"[universe]\nkr = {symbols}\n{settings}"


def receive_more(root: Path) -> None:
    """Wait for RECORDS records."""
    goal = count_received(root) + RECORDS
    wait_until(f"{root} has {goal} records", lambda: count_received(root) >= goal)


def count_books(root: Path) -> Counter[tuple]:
    """How often each content is stored."""
    rows = pd.read_parquet(root / f"data/kr/orderbook/date={DAY}", columns=CONTENT).astype(object)
    return Counter(rows.where(rows.notna(), None).itertuples(index=False, name=None))


@pytest.mark.long
def test_the_joined_day_of_two_trees_at_one_market_lacks_nothing_that_either_has(tmp_path: Path) -> None:
    """One symbol in common, one of each home alone; frames are lost on every connection; each tree is down while the other runs."""
    losses = ("--kis-loss", "0.02", "--kiwoom-loss", "0.02", "--books-per-s", "20", "--kiwoom-burst", "50")
    universes = [[SHARED, own] for own in APART]
    with (
        temporary_home(with_universe(COLLECTING, [SHARED, *APART])) as first,
        temporary_home(with_universe(COLLECTING, universes[1])) as second,
        SimulatorProcess(first, tmp_path / "truth", "--always-open", *losses) as simulator,
    ):
        homes = (first, second)
        (first / "collector.toml").write_text(with_universe(COLLECTING, universes[0]))
        (second / ".env").write_text("".join(f"{name}={value}-of-another-host\n" for name, value in SECRETS.items()))
        (second / "run" / "clock.json").write_bytes((first / "run" / "clock.json").read_bytes())
        for root in homes:
            set_addresses(root, simulator.addresses)
            run_collectorctl(root, "start")
            receive_more(root)
        for away, there in (homes, homes[::-1]):
            run_collectorctl(away, "stop")
            receive_more(there)
            run_collectorctl(away, "start")
            wait_until(f"{away} is healthy", lambda root=away: read_status(root)["healthy"])
            receive_more(away)
        simulator.send_command("market rest")
        for root, symbols in zip(homes, universes, strict=True):
            run_collectorctl(root, "stop")
            assert count_books(root).total() > RECORDS / 2
            (root / "run" / "clock.json").unlink()
            (root / "collector.toml").write_text(with_universe(EVENING, symbols))
            set_addresses(root, simulator.addresses)
            run_collectorctl(root, "recover", "--date", DAY)
        run_collectorctl(first, "join", "--date", DAY, "--from", str(second), "--into", str(tmp_path / "day"))
        simulator.close()

        joined, parts = count_books(tmp_path / "day"), [count_books(root) for root in homes]
        truth = ground_truth.load(tmp_path / "truth")
        tilings = reconcile(truth.trades, pd.read_parquet(tmp_path / "day/data/kr/tick"))
        run_collectorctl(tmp_path / "day", "verify", "--date", DAY)

    assert [one.problems() for one in tilings] == [[], [], []]
    assert [sum(one.values()) for one in (parts[0] - joined, parts[1] - joined, joined - (parts[0] | parts[1]))] == [
        0,
        0,
        0,
    ]
    alone = [(one - other).total() for one, other in (parts, parts[::-1])]
    assert min(alone) > RECORDS / 10, alone
